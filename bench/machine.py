"""What every figure of a benchmark needs beside it: machine, versions, date. And the table that docs/benchmarks.md holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
TITLES = {"benchmarks.md": "# Benchmarks", "calibration.md": "# Calibration: can its verdicts be trusted?"}


def line() -> str:
    """One line: date, processor, cores, Python and package versions, and how busy the machine was."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        processor = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    packages = ", ".join(f"{p} {version(p)}" for p in ("numpy", "polars", "scikit-learn", "lightgbm", "onnxruntime", "torch") if find_spec(p.replace("scikit-learn", "sklearn")))
    return (f"{time.strftime('%Y-%m-%d')}, {processor}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, "
            f"Python {platform.python_version()}, {packages}.")


def publish(name: str, about: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, page: str = "benchmarks.md", after: str = "") -> None:
    """Print the table and put it between its markers in docs/`page` (made where it is not there yet). after: text below the table."""
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    table += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    block = "\n\n".join(filter(None, (f"<!-- {name} -->", about, line(), "\n".join(table), after, f"<!-- end {name} -->")))
    print(block)
    place = DOCS / page
    text = place.read_text(encoding="utf-8") if place.exists() else TITLES[page] + "\n\nMade by `make bench`; each part names its command.\n"
    if f"<!-- {name} -->" in text:
        before, rest = text.split(f"<!-- {name} -->", 1)
        text = before + block + rest.split(f"<!-- end {name} -->", 1)[1]
    else:
        text = text.rstrip() + "\n\n" + block + "\n"
    place.write_text(text, encoding="utf-8")
