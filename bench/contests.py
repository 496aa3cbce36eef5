"""What benchmarks of whole contests share: a set that was played is not played again, and one that breaks does not stop the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


def played(names: Iterable[str], out: Path, run: Callable[[str, Path], Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, its verdict) of each set. run: plays the contest of a set into a folder."""
    for name in names:
        folder = out / name
        if not (folder / "verdict.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                run(name, folder)
            except Exception as error:  # it is said, and the others go on
                print(name, type(error).__name__, error, flush=True)
                continue
            shutil.rmtree(folder / "models", ignore_errors=True)
        yield name, json.loads((folder / "verdict.json").read_text(encoding="utf-8"))


def best_of(verdict: dict[str, Any], rung: str) -> dict[str, Any] | None:
    """The row of the scoreboard with the least test loss on this rung."""
    return min((r for r in verdict["scoreboard"] if r["status"] == "done" and r["rung"] == rung), key=lambda r: r["loss"], default=None)
