"""Do budgets hold? Random runs of the command line with budgets of 5 s to 60 s, wall time of the whole process.

Usage: python bench/budget.py [runs] [seed] [at once]. A run overruns if it takes more than the budget + 2 % + 1 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
from machine import publish


def table(rng: np.random.Generator, folder: Path) -> tuple[Path, str]:
    """A random table: 100 to 20,000 rows, numbers and categories, sometimes texts, labels or amounts."""
    n = int(10 ** rng.uniform(2, 4.3))
    columns: dict[str, object] = {f"x{i}": rng.normal(size=n) for i in range(rng.integers(2, 20))}
    columns |= {f"c{i}": rng.choice(list("abcdefgh"), n) for i in range(rng.integers(0, 5))}
    if rng.random() < 0.35:
        words = np.array(["late", "broken", "thanks", "refund", "很好", "太慢", "质量", "发货", "hello", "price"])
        columns["text"] = [" ".join(rng.choice(words, rng.integers(4, 30))) for _ in range(n)]
    signal = columns["x0"] + 0.5 * rng.normal(size=n)
    columns["y"] = signal if rng.random() < 0.4 else np.digitize(signal, np.quantile(signal, np.linspace(0, 1, rng.integers(2, 8) + 1)[1:-1]))
    columns["y"] = columns["y"] if columns["y"].dtype.kind == "f" else np.array([f"class {v}" for v in columns["y"]])
    path = folder / "table.csv"
    pl.DataFrame(columns).write_csv(path)
    return path, f"{n:,} x {len(columns)}"


def main(runs: int, seed: int, at_once: int) -> None:
    assay = str(Path(sys.executable).parent / "assay")
    outcomes: dict[str, int] = {}

    def one(i: int) -> tuple[float, float, str, str]:
        rng = np.random.default_rng([seed, i])
        budget = round(float(rng.uniform(5, 60)), 1)
        with tempfile.TemporaryDirectory() as folder:
            path, shape = table(rng, Path(folder))
            start = time.perf_counter()
            done = subprocess.run([assay, "run", str(path), "--target", "y", "--time", f"{budget}s", "--json", "-o", f"{folder}/run"],
                                  capture_output=True, text=True, check=False)
            wall = time.perf_counter() - start
        verdict = json.loads(done.stdout)["outcome"] if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[:80]}"
        print(f"{i + 1}/{runs} budget {budget} wall {wall:.1f} {shape} {verdict}", flush=True)
        return budget, wall, shape, verdict

    with ThreadPoolExecutor(at_once) as lanes:
        rows = list(lanes.map(one, range(runs)))
    for *_, verdict in rows:
        outcomes[verdict] = outcomes.get(verdict, 0) + 1
    over = [wall - budget for budget, wall, *_ in rows]
    broke = [r for r in rows if r[1] > r[0] * 1.02 + 1.0]
    publish("budget", f"## Budgets are contracts\n\n`python bench/budget.py {runs} {seed} {at_once}`: {at_once} at a time, random tables, random budgets of 5 s to 60 s, wall time of the "
            "whole process against the budget. An overrun is more than 2 % + 1 s. Outcomes: "
            + ", ".join(f"{name} {count}" for name, count in sorted(outcomes.items())) + ".",
            ["runs", "overruns", "largest wall - budget s", "median wall / budget"],
            [(runs, len(broke), f"{max(over):+.2f}", f"{np.median([r[1] / r[0] for r in rows]):.2f}")])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, int(sys.argv[2]) if len(sys.argv) > 2 else 0, int(sys.argv[3]) if len(sys.argv) > 3 else 1)
