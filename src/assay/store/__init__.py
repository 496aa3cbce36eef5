"""What the service remembers: predictions, labels, versions, keys, alarms, and the audit chain."""

from assay.store.store import Store
from assay.store.writer import Writer

__all__ = ["Store", "Writer"]
