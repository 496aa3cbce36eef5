"""Private memory of a process of its own: mapped files and shared pages do not count."""

from __future__ import annotations

import os
import subprocess
import sys

MEASURED = """
import sys, threading, time, re
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
import polars, pyarrow, assay.data.read
base, peak, done = anonymous(), [0.0], []
def watch():
    while not done:
        peak[0] = max(peak[0], anonymous()); time.sleep(0.005)
watcher = threading.Thread(target=watch); watcher.start()
{code}
done.append(1); watcher.join()
print(size / 2**20, peak[0] - base)
"""


def peak_of(code: str) -> tuple[float, float]:
    """(MiB of the table, MiB of private memory at the peak over what the imports take) of a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURED.replace("{code}", code)], capture_output=True, text=True, check=True, timeout=300,
                          env=os.environ | {"POLARS_MAX_THREADS": "2"})
    size, peak = map(float, done.stdout.split())
    return size, peak
