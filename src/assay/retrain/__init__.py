"""New labels, a new contest, and promotion by a test."""
