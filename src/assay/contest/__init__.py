"""The contest: candidates play in child processes under one budget; the judge reads what they left on disk."""
