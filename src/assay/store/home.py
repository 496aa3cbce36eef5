"""Where the service keeps its things: a folder with the store, every bundle that ever answered, and pictures and sounds that were asked."""

from __future__ import annotations

import os
from pathlib import Path

from assay.store.store import Store


def home_folder(home: str | Path | None = None) -> Path:
    """--home, then $ASSAY_HOME, then assay-home in this folder. Not made here."""
    return Path(home or os.environ.get("ASSAY_HOME") or "assay-home").expanduser()


def open_store(home: str | Path | None = None, store: str | None = None, create: bool = False) -> Store:
    """The store of a home, `store.sqlite`, or the one that --store names (a file or a URL)."""
    return Store.open(store_place(home, store), create=create)


def store_place(home: str | Path | None = None, store: str | None = None) -> str:
    """As `Store.open` takes it."""
    return store or str((home_folder(home) / "store.sqlite").absolute())
