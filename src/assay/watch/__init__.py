"""Is the model still what was judged: drift, quality, performance, budgets, and which rows to label."""
