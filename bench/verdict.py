"""A verdict for 10,000 x 20 with a budget of 60 s: wall time and peak memory of all processes together.

Usage: python bench/verdict.py. Limits: under 60 s on 2 cores, under 2 GiB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from machine import publish
from sklearn.datasets import make_classification


def watch(pid: int, peak: list[float], stop: threading.Event) -> None:
    """Proportional memory (a shared page counts once) of the process and all its children, sampled."""
    while not stop.is_set():
        total = 0.0
        try:
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                total += process.memory_full_info().pss / 2**20
        except psutil.Error:
            pass
        peak[0] = max(peak[0], total)
        stop.wait(0.1)


def main() -> None:
    import polars as pl

    x, y = make_classification(10_000, 20, n_informative=12, flip_y=0.05, random_state=0)
    assay = str(Path(sys.executable).parent / "assay")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        pl.DataFrame({**{f"x{i}": x[:, i] for i in range(20)}, "y": [f"class {v}" for v in y]}).write_csv(path)
        start = time.perf_counter()
        run = subprocess.Popen([assay, "run", str(path), "--target", "y", "--time", "60s", "--json", "-o", f"{folder}/run"], stdout=subprocess.PIPE, text=True)
        peak, stop = [0.0], threading.Event()
        watcher = threading.Thread(target=watch, args=(run.pid, peak, stop))
        watcher.start()
        out = run.communicate()[0]
        wall = time.perf_counter() - start
        stop.set()
        watcher.join()
    verdict = json.loads(out)
    board = ", ".join(f"{row['candidate']} {row['loss']:.3f}" for row in verdict["scoreboard"] if row["status"] == "done")
    publish("verdict", f"## A verdict for 10,000 x 20\n\n`python bench/verdict.py`: one run of `assay run --time 60s` on a made table "
            f"(scikit-learn `make_classification`, 12 informative columns). Log loss: {board}.",
            ["wall s", "peak MiB (all processes, shared pages once)", "outcome", "n"], [(f"{wall:.1f}", f"{peak[0]:.0f}", verdict["outcome"], 1)])


if __name__ == "__main__":
    main()
