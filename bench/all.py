"""Every benchmark that needs nothing but this checkout and the open sets, one after the other: `make bench` (about four hours).

`make bench-quality` runs the contest against AutoGluon, FLAML and LightGBM, each in an environment of its own (another two and a half).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = ("help.py", "latency.py", "verdict.py", "read.py", "read_large.py", "coverage.py", "findings.py", "curves.py", "verdicts.py",
           "networks.py", "training.py", "media.py", "forecast.py", "plans.py", "serve.py", "drift.py", "promotion.py", "labels.py", "gpu.py", "budget.py")

for script in SCRIPTS:
    subprocess.run([sys.executable, str(Path(__file__).parent / script)], check=True)
