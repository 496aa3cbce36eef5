"""Run one program and answer for everything it starts: at the end of its time, none of it is left.

Executed by path in a process of its own (standard library only, nothing of assay is imported). It adopts every orphan of
the program (Linux: PR_SET_CHILD_SUBREAPER), so a daemon cannot slip away; and if its own parent is killed, it ends the
program all the same and removes the folder with the rows.

Call: leash.py PARENT_PID SECONDS MEMORY_MB FOLDER PROGRAM [ARGUMENT ...]. The program's standard error is this one's; what
became of it is one line of JSON on standard output: how (ended, time, memory, absent, alone), status, seconds, peak_mb.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

_SUBREAPER = 36  # <linux/prctl.h>
_LOOK_S = 0.02
_MEMORY_EVERY = 10  # looks; a look at all processes takes some milliseconds
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


def main(parent: int, seconds: float, memory_mb: float, folder: str, command: list[str]) -> dict[str, object]:
    """What became of `command`. Nothing that it started is alive when this returns."""
    alone: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: alone.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _prctl(_SUBREAPER, 1)
    started, how, peak, looks = time.monotonic(), "ended", 0.0, 0
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    except OSError as error:
        return {"how": "absent", "status": error.errno, "detail": error.strerror, "seconds": 0.0, "peak_mb": 0.0}
    while child.poll() is None:
        if alone or os.getppid() != parent:  # asked to stop, or the one who would ask is dead
            how = "alone"
        elif time.monotonic() - started > seconds:
            how = "time"
        elif looks % _MEMORY_EVERY == 0:
            peak = max(peak, holds := sum(_private_mb(pid) for pid in _descendants()))
            how = "memory" if holds > memory_mb else how
        if how != "ended":
            break
        looks += 1
        time.sleep(_LOOK_S)
    spent = time.monotonic() - started
    _end_all(child)
    if os.getppid() != parent:  # a program that talks ends by itself when its reader is gone, before anybody looks
        how = "alone"
    if how == "alone":
        shutil.rmtree(folder, ignore_errors=True)
    return {"how": how, "status": child.returncode, "seconds": spent, "peak_mb": peak}


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """Kill whatever descends from here until nothing does; a process that forks meanwhile is found on the next round."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        left = _descendants()
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if child.poll() is None:  # where there is no /proc: its session at least
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.01)


def _descendants() -> list[int]:
    """All living processes below this one, zombies left out."""
    parents: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents.setdefault(int(parent), []).append(int(name))
    found, open_ = [], [os.getpid()]
    while open_:
        below = parents.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def _private_mb(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        _, resident, shared = file.read().split()[:3]
        return (int(resident) - int(shared)) * _PAGE_MB
    return 0.0


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError, ImportError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5:])))
