"""What the service remembers: predictions, labels, versions, keys, alarms, and the audit chain."""
