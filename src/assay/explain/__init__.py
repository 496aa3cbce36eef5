"""Why an answer came out as it did, drawn from the rows themselves."""
