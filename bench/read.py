"""Reading 5 million x 20 rows from csv: seconds and peak memory, against polars alone. Usage: python bench/read.py [rows]"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from machine import publish

READERS = {"polars.read_csv": "import polars; frame = polars.read_csv(path)",
           "assay.data.read.read": "from assay.data.read import read; frame = read(path, target='y').dataset.frame"}


def measure(code: str, path: Path) -> tuple[float, float, float]:
    """(seconds, peak MiB, MiB of the frame) in a process of its own."""
    script = (f"import time, resource; path = {str(path)!r}; t = time.perf_counter()\n{code}\n"
              "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, frame.estimated_size() / 2**20)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return tuple(float(x) for x in done.stdout.split())  # type: ignore[return-value]


def main(rows: int) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.csv"
        with path.open("wb") as sink:
            for part in range(0, rows, 500_000):
                n = min(500_000, rows - part)
                frame = pl.DataFrame({f"x{i}": rng.normal(size=n).astype(np.float32) for i in range(16)}
                                     | {f"c{i}": rng.choice(["red", "green", "blue", "深圳"], n) for i in range(3)}
                                     | {"y": rng.choice(["yes", "no"], n)})
                frame.write_csv(sink, include_header=part == 0)
        size = path.stat().st_size / 2**20
        found = [(name, *measure(code, path)) for name, code in READERS.items()]
    base = found[0][1]
    publish("read", f"## Reading {rows:,} x 20\n\n`python bench/read.py {rows}`: a csv of {size:,.0f} MiB, each reader in a process of its own.",
            ["reader", "s", "against polars", "peak MiB", "frame MiB"],
            [(name, f"{s:.1f}", f"{s / base:.1f}", f"{peak:,.0f}", f"{mib:,.0f}") for name, s, peak, mib in found])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000)
