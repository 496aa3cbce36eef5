"""What every figure of a benchmark needs beside it: machine, versions, date. And the table that docs/benchmarks.md holds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def line() -> str:
    """One line: date, processor, cores, Python and package versions, and how busy the machine was."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        processor = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    packages = ", ".join(f"{p} {version(p)}" for p in ("assay", "numpy", "polars", "scikit-learn", "lightgbm", "onnxruntime"))
    return (f"{time.strftime('%Y-%m-%d')}, {processor}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, "
            f"Python {platform.python_version()}, {packages}.")


def publish(name: str, about: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print the table and put it between its markers in docs/benchmarks.md (made where it is not there yet)."""
    table = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    table += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    block = f"<!-- {name} -->\n\n{about}\n\n{line()}\n\n" + "\n".join(table) + f"\n\n<!-- end {name} -->"
    print(block)
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Benchmarks\n\nMade by `make bench`; each part names its command.\n"
    if f"<!-- {name} -->" in page:
        before, rest = page.split(f"<!-- {name} -->", 1)
        page = before + block + rest.split(f"<!-- end {name} -->", 1)[1]
    else:
        page = page.rstrip() + "\n\n" + block + "\n"
    PAGE.write_text(page, encoding="utf-8")
