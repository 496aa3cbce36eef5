"""The contestants. One file each: a module-level `Candidate` is found unasked."""
