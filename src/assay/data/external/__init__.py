"""Somebody else's model: its answers in a file, behind an address, or from a program that is run."""
