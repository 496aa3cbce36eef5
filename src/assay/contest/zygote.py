"""A small process that has the heavy libraries imported and forks a child for every trial: a start costs milliseconds.

It never reads data and never starts a thread of its own, so a fork from it is safe. Its orders are JSON lines on one
socket. When that socket closes - its owner ended, was interrupted or was killed with -9 - it kills its children and ends.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from assay.contest import trial


def serve(descriptor: int) -> None:
    """Orders: {"import": [names], "path": [...]}, {"fork": job file, "log": file}. Answers: {"pid"}, {"ended": pid, "status"}."""
    line = socket.socket(fileno=descriptor)
    children: set[int] = set()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = b""
    while True:
        watched: list[Any] = [line, wake_read]
        ready = select.select(watched, [], [])[0]
        if wake_read in ready:
            os.read(wake_read, 4096)
            _reap(line, children)
        if line not in ready:
            continue
        chunk = line.recv(65536)
        if not chunk:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            return
        orders += chunk
        while b"\n" in orders:
            order, orders = orders.split(b"\n", 1)
            _obey(json.loads(order), line, children, (wake_read, wake_write))


def _obey(order: dict, line: socket.socket, children: set[int], pipe: tuple[int, int]) -> None:
    if "import" in order:
        sys.path[:] = [*order["path"], *(p for p in sys.path if p not in order["path"])]
        for name in order["import"]:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        return
    child = os.fork()
    if child == 0:
        os.setsid()
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (line.fileno(), *pipe):
            os.close(descriptor)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        status = 1
        try:
            trial.main(order["fork"])
            status = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    children.add(child)
    line.sendall(json.dumps({"pid": child}).encode() + b"\n")


def _reap(line: socket.socket, children: set[int]) -> None:
    for child in list(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.discard(child)
            line.sendall(json.dumps({"ended": pid, "status": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _die_with_parent() -> None:
    """Linux: the kernel kills this child when the zygote dies, whatever killed it."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
