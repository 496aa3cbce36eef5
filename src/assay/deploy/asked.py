"""`python -m assay.deploy.asked FILE`: load a bundle, let it answer its reference rows, and print which modules that took.

In a process of its own, so that nothing was imported before. Only what assay (or the plugin that brings the candidate) asks for
by itself counts: LightGBM imports pandas and matplotlib where they are installed, and does without them where they are not.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROWS = 3


class Listener(importlib.abc.MetaPathFinder):
    """Finds nothing, but writes down who asked: {top-level module: names of the modules that import it first}."""

    def __init__(self) -> None:
        self.asked: dict[str, set[str]] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
            frame = frame.f_back
        if frame is not None:
            self.asked.setdefault(fullname.partition(".")[0], set()).add(str(frame.f_globals.get("__name__", "")).partition(".")[0])
        return None


def imports(path: Path) -> dict[str, Any]:
    """{"rows": asked, "imports": [modules], "located": [modules whose files were looked for, weights among them]}, or {"error": packed Text}."""
    listener = Listener()
    sys.meta_path.insert(0, listener)
    from assay.errors import AssayError
    from assay.ship.bundle import load

    try:
        bundle = load(path)
        plugin = bundle.candidate.build.__module__.partition(".")[0]
        rows = 0
        if bundle.reference is not None and bundle.task.by_rows and set(bundle.reference.columns) >= {c.name for c in bundle.schema.features}:
            rows = min(ROWS, bundle.reference.height)
            bundle.predict(bundle.reference.head(rows))
            bundle.predict_one(bundle.reference.row(0, named=True))
    except AssayError as error:
        return {"error": error.text.json()}
    own = {"assay", plugin}
    found = {name for name, askers in listener.asked.items() if askers & own and name not in sys.stdlib_module_names} - {"assay"}
    return {"rows": rows, "imports": sorted({name for name in found if name in sys.modules} | {plugin} - {"assay"}),
            "located": sorted(name for name in found if name not in sys.modules)}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # what a library prints is not the answer
        told = imports(Path(sys.argv[1]))
    print(json.dumps(told))
