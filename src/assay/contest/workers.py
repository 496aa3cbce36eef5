"""Child processes that are watched and killed. Another way to run a trial (a cluster) is one more class with `run`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_LOOK_S = 0.05  # memory and time of the child are looked at this often


@dataclass(frozen=True)
class Ending:
    """How a child ended. how: 'ended', 'time' or 'memory' (killed for it), 'died' (crashed or was killed by others)."""

    how: str
    wall_s: float
    peak_mb: float
    status: int | None = None


class Workers:
    """One child at a time, forked from a process that has `imports` loaded already. Use as a context manager."""

    def __init__(self, imports: list[str]) -> None:
        self._line, theirs = socket.socketpair()
        # A thread that waits lets others compute: on a busy machine a step of a small network took 49 ms instead of 874 (2 cores, load 12)
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | {"PYTHONUNBUFFERED": "1"}
        self._zygote = subprocess.Popen(
            [sys.executable, "-P", "-m", "assay.contest.zygote", str(theirs.fileno())], pass_fds=[theirs.fileno()], env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
        theirs.close()
        self._heard = b""
        self.preload(imports)

    def preload(self, imports: list[str]) -> None:
        """Have these imported once, in the process that forks; what is there already costs nothing."""
        self._send({"import": imports, "path": [p for p in sys.path if p]})

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._line.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._zygote.wait(0.2)  # longer only while it imports something; its children die with it
            return
        self._zygote.kill()
        self._zygote.wait()

    def run(self, job: Path, log: Path, *, seconds: float, memory_mb: float, latest_s: float = 60.0,
            tick: Callable[[], None] = lambda: None) -> Ending:
        """Run the job until it ends, or kill it (and all it started) when time or memory is over.

        seconds: of the child, from its fork; latest_s: from now, the wait for the imports of a cold start included.
        memory_mb: private memory of the child; pages of the memory-mapped data are shared and do not count.
        """
        started = time.monotonic()
        self._send({"fork": str(job), "log": str(log)})
        pid, how, peak, forked = 0, "ended", 0.0, started
        try:
            while True:
                heard = self._hear(_LOOK_S)
                tick()
                if heard is None and self._zygote.poll() is not None:
                    return Ending("died", time.monotonic() - started, peak)
                now = time.monotonic()
                if heard and "pid" in heard:
                    pid, forked = heard["pid"], now
                elif heard and heard.get("ended") == pid:
                    status = heard["status"]
                    return Ending(how if how != "ended" or status == 0 else "died", time.monotonic() - started, peak, status)
                if pid and how == "ended":
                    peak = max(peak, holds := _private_mb(pid))
                    how = "memory" if holds > memory_mb else "time" if now - forked > seconds or now - started > latest_s else how
                    if how != "ended":
                        _kill(pid)
                elif not pid and now - started > latest_s:
                    return Ending("time", now - started, peak)
        except BaseException:
            if pid:
                _kill(pid)
            raise

    def _send(self, order: dict[str, Any]) -> None:
        self._line.sendall(json.dumps(order).encode() + b"\n")

    def _hear(self, timeout: float) -> dict[str, Any] | None:
        if b"\n" not in self._heard and select.select([self._line], [], [], timeout)[0]:
            self._heard += self._line.recv(65536)
        if b"\n" not in self._heard:
            return None
        first, self._heard = self._heard.split(b"\n", 1)
        return json.loads(first)


def _private_mb(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        memory = psutil.Process(pid).memory_info()
        return (memory.rss - getattr(memory, "shared", 0)) / 1e6
    return 0.0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
