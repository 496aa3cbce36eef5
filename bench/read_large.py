"""Reading 10 million x 20: seconds and peak memory, against polars alone. Usage: python bench/read_large.py [rows] [parquet|csv]"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet
from machine import publish

READERS = {
    "parquet": {"polars.scan_parquet().collect()": "import polars; frame = polars.scan_parquet(path).collect()"},
    "csv": {"polars.scan_csv().collect()": "import polars; frame = polars.scan_csv(path).collect(engine='streaming')"},
}
READ = "from assay.data.read import read; reading = read(path, target='y'); frame = reading.dataset.frame"
BEGIN = """
from pathlib import Path
from assay.data.read import read
reading = read(path, target='y', folder=Path(path).parent / 'columns')
frame = reading.dataset.frame
reading.dataset.fingerprint
reading.shelf.keep(frame, Path(path).parent / 'run') if reading.shelf else frame.write_ipc(Path(path).parent / 'run.arrow', compression='uncompressed')
"""
MEASURE = """
import re, threading, time
path = {path!r}
def now(what):
    return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
peak, done = [0.0], []
def watch():
    while not done:
        peak[0] = max(peak[0], now("RssAnon")); time.sleep(0.01)
watcher = threading.Thread(target=watch); watcher.start()
wall, work = time.perf_counter(), time.process_time()
{code}
wall, work = time.perf_counter() - wall, time.process_time() - work
done.append(1); watcher.join()
print(wall, work, now("VmHWM"), peak[0], frame.height, frame.estimated_size() / 2**20)
"""


def measure(code: str, path: Path) -> tuple[float, ...]:
    """(wall s, processor s, peak MiB resident, peak MiB of them private, rows, MiB of the frame) in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(path=str(path), code=code)], capture_output=True, text=True, check=True)
    return tuple(float(x) for x in done.stdout.split())


def make(path: Path, rows: int) -> None:
    """16 numbers, three categories and the answer, written 500,000 rows at a time."""
    rng = np.random.default_rng(0)
    writer = None
    sink = path.open("wb") if path.suffix == ".csv" else None
    for part in range(0, rows, 500_000):
        n = min(500_000, rows - part)
        frame = pl.DataFrame({f"x{i}": rng.normal(size=n) for i in range(16)} | {f"c{i}": rng.choice(["red", "green", "blue", "深圳"], n) for i in range(3)}
                             | {"y": rng.choice(["yes", "no"], n)})
        if sink:
            frame.write_csv(sink, include_header=part == 0)
        else:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    for open_file in (writer, sink):
        if open_file:
            open_file.close()


def main(rows: int, form: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"large.{form}"
        make(path, rows)
        size = path.stat().st_size / 2**20
        readers = READERS[form] | {"assay.data.read.read": READ, "and the fingerprint and the run's file": BEGIN}
        found = [(name, *measure(code, path)) for name, code in readers.items()]
    publish(f"read_large_{form}", f"## Reading {rows:,} x 20 from {form}\n\n`python bench/read_large.py {rows} {form}`: a file of {size:,.0f} MiB, each reader in a "
            "process of its own. Resident memory includes pages of files that are mapped, which the system takes back when it needs them; private memory does not. "
            "polars' frame holds the cells as they are in the file, assay's what they mean.",
            ["reader", "wall s", "processor s", "peak MiB", "of them private", "rows", "frame MiB"],
            [(name, f"{wall:.1f}", f"{work:.1f}", f"{peak:,.0f}", f"{private:,.0f}", f"{n:,.0f}", f"{mib:,.0f}") for name, wall, work, peak, private, n, mib in found])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000, sys.argv[2] if len(sys.argv) > 2 else "parquet")
