"""What a question looks like: which rows teach, which judge, what an error costs. One file a task."""
