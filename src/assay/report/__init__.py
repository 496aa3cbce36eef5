"""What a run found, for people and machines: terminal, one HTML file, verdict.json."""
