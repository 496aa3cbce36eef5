"""Real PostgreSQL and MariaDB servers on loopback, each in a folder of its own, for the tests of databases."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A running server. port: on 127.0.0.1. pid: of the process to stop."""

    port: int
    pid: int
    folder: Path


def postgres() -> Path | None:
    """The folder of PostgreSQL's programs (Debian keeps them off the path), None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    there = str(found[-1]) if found else shutil.which("initdb")
    return Path(there).parent if there else None


def mariadb() -> bool:
    return all(shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for name in ("mariadbd", "mariadb-install-db"))


@contextlib.contextmanager
def postgres_server(password: str) -> Iterator[Server]:
    """User 'postgres' and a password that is asked for. Starts in 2 s."""
    programs = postgres()
    assert programs
    with _folder("postgres") as (folder, user):
        secret = folder / "password"
        secret.write_text(password)
        _owned(secret, user)
        _run([programs / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", "-E", "UTF8",
              "--locale=C"], user)
        port = _free_port()
        options = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off", "shared_buffers": "16MB",
                   "restart_after_crash": "off"}
        flags = [x for name, value in options.items() for x in ("-c", f"{name}={value}")]
        with _running([programs / "postgres", "-D", folder / "data", *flags], user, port, folder, signal.SIGINT) as pid:
            until = time.monotonic() + 60  # it listens before it lets anybody in
            while not (folder / "data" / "postmaster.pid").read_text().rstrip().endswith("ready"):
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.02)
            yield Server(port, pid, folder)


@contextlib.contextmanager
def mariadb_server() -> Iterator[Server]:
    """User 'root' without a password, through TCP. Starts in 4 s."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    with _folder("mysql") as (folder, user):
        data = folder / "data"
        _run([shutil.which("mariadb-install-db", path=path), "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
              "--skip-test-db", *([f"--user={user}"] if user else [])], None)
        port = _free_port()
        command = [shutil.which("mariadbd", path=path), "--no-defaults", f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1",
                   f"--socket={folder / 's'}", f"--pid-file={folder / 'pid'}", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"]
        with _running(command, user, port, folder, signal.SIGTERM) as pid:
            yield Server(port, pid, folder)


@contextlib.contextmanager
def _folder(user: str) -> Iterator[tuple[Path, str | None]]:
    """A folder that the server's user may enter: neither server runs as root."""
    folder = Path(tempfile.mkdtemp(prefix=f"assay-{user}-"))
    owner = user if os.getuid() == 0 else None
    _owned(folder, owner)
    try:
        yield folder, owner
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owned(path: Path, user: str | None) -> None:
    if user:
        shutil.chown(path, user, user)


def _run(command: list, user: str | None) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=120, cwd="/", **_as(user))
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@contextlib.contextmanager
def _running(command: list, user: str | None, port: int, folder: Path, stop: signal.Signals) -> Iterator[int]:
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, cwd="/", **_as(user))
    try:
        until = time.monotonic() + 60
        while True:
            if server.poll() is not None or time.monotonic() > until:
                raise AssertionError((folder / "log").read_text())
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        yield server.pid
    finally:
        if server.poll() is None:
            server.send_signal(stop)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _as(user: str | None) -> dict:
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
