"""How long `assay --help` takes, against Python alone. Usage: python bench/help.py"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import publish

RUNS = 21


def seconds(command: list[str]) -> list[float]:
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    assay = str(Path(sys.executable).parent / "assay")
    bare, ours = seconds([sys.executable, "-c", "pass"]), seconds([assay, "--help"])
    publish("help", "## Start-up\n\n`python bench/help.py`: wall seconds of a whole process. The limit is 0.3 s.",
            ["command", "median s", "95th percentile s", "n"],
            [(name, f"{np.median(t):.3f}", f"{np.quantile(t, 0.95):.3f}", RUNS)
             for name, t in (("python -c pass", bare), ("assay --help", ours))])
