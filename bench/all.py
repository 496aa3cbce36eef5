"""Every benchmark, one after the other: `make bench` (about an hour and a half; the budget bench is most of it)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

for script in ("help.py", "latency.py", "verdict.py", "read.py", "budget.py"):
    subprocess.run([sys.executable, str(Path(__file__).parent / script)], check=True)
