"""One reader per format number, kept for good: a bundle written by the first assay opens in the last one."""

from __future__ import annotations

from assay.ship.formats import v1

READERS = {1: v1.read}
FORMAT = max(READERS)  # what `pack` writes
