"""The schema, step by step. A released step is never changed: a new one is added."""
