"""Contests that the page has started: each a process of its own that outlives the service, found again by what lies in the home."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.contest.folder import Trial
from assay.errors import AssayError, BudgetError, InputError
from assay.report import wording
from assay.words import say

MOST_AT_ONCE = 1  # contests want all cores, and the service answers beside them
SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet", ".jsonl", ".json", ".ods")
PREVIEW_ROWS, PREVIEW_COLUMNS = 5, 12
_PATIENCE_S = 20.0  # between 'stop' and the end of a process that does not listen
_ASIDE = 1 << 16  # characters of a run's messages that are read


@dataclass(frozen=True)
class Started:
    """What is kept of a contest beside its folder: home/runs/<id>.json. name: what its file was called. born: when the system says that the process began."""

    id: str
    name: str
    source: str
    target: str
    time_s: float
    at: float
    actor: str
    pid: int
    born: float


@dataclass(frozen=True)
class Board:
    """How a contest stands. rows: a line a candidate. state: running, done, failed. told: its last message."""

    started: Started
    state: str
    elapsed_s: float
    rows: tuple[tuple[str, str, float | None, float | None, float, str], ...]
    told: str
    outcome: str
    sentence: str
    next: str
    report: bool
    winner: bool


class Contests:
    """home: that of the service. Files lie in home/uploads and home/data; runs in home/runs."""

    def __init__(self, home: Path) -> None:
        self._home, self._runs = home, home / "runs"
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # ---- files

    def named(self, path: str) -> Path:
        """A file of home/data. Raises InputError for any other."""
        data = (self._home / "data").resolve()
        place = (data / path).resolve()
        if not place.is_relative_to(data) or not place.is_file() or not place.name.lower().endswith(SUFFIXES):
            raise InputError("'{path}' is no file in the folder 'data' of the service's home that can be read. There are: {known}.", path=path[:100], known=self.data()[:20] or ["–"])
        return place

    def data(self) -> list[str]:
        """The files of home/data, at most 200."""
        data = self._home / "data"
        found = (f.relative_to(data).as_posix() for f in sorted(data.rglob("*")) if f.is_file() and f.name.lower().endswith(SUFFIXES)) if data.is_dir() else iter(())
        return [name for _, name in zip(range(200), found, strict=False)]

    @staticmethod
    def preview(path: Path) -> tuple[list[str], list[list[str]], int]:
        """(names, a few rows of the first columns as text, rows). Raises ReadError."""
        from assay.data.load import opened

        with opened(path) as table:
            names = table.names
            head = table.pieces[0].probe().head(PREVIEW_ROWS)
            rows = [["" if head[n][i] is None else str(head[n][i])[:40] for n in names[:PREVIEW_COLUMNS]] for i in range(head.height)]
            return names, rows, table.height

    # ---- processes

    def start(self, source: Path, name: str, *, target: str, time_text: str, time_column: str, group: str, offline: bool, lang: str, actor: str) -> Started:
        """Raises InputError (a time that is none), BudgetError (one is running already)."""
        from assay.case import seconds

        time_s = seconds(time_text.strip() or "5m")
        if any(b.state == "running" for b in map(self.board, self.all())):
            raise BudgetError("A contest is being played already. Wait until it is over, or stop it.")
        if not 10 <= time_s <= 86400:
            raise InputError("A contest takes from 10 seconds to a day, not {time_s:g} s.", time_s=time_s)
        number = f"{re.sub(r'[^A-Za-z0-9]+', '-', Path(name).stem).strip('-')[:40] or 'contest'}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._runs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "assay.cli", "run", str(source), f"--target={target}", f"--time={time_s:g}s", f"--out={self._runs / number}", f"--lang={lang}"]
        command += [f"--time-column={time_column}"] * bool(time_column) + [f"--group={group}"] * bool(group) + ["--offline"] * offline
        with (self._runs / f"{number}.log").open("wb") as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=self._runs)
        started = Started(number, name, str(source), target, time_s, time.time(), actor, child.pid, _born(child.pid) or time.time())
        self._children[number] = child
        partial = self._runs / f"{number}.json.tmp"
        partial.write_text(json.dumps(asdict(started), ensure_ascii=False), encoding="utf-8")
        partial.replace(self._runs / f"{number}.json")
        return started

    def stop(self, number: str) -> None:
        """Ask it to end: it judges what has been played. What does not listen is ended. Returns at once."""
        started = self.get(number)
        if not self._alive(started):
            return
        os.kill(started.pid, signal.SIGINT)

        def insist() -> None:
            time.sleep(_PATIENCE_S)
            if self._alive(started):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(started.pid, signal.SIGKILL)

        import threading

        threading.Thread(target=insist, daemon=True, name="stops-a-contest").start()

    def _alive(self, started: Started) -> bool:
        child = self._children.get(started.id)
        if child is not None:
            if child.poll() is None:
                return True
            del self._children[started.id]
            return False
        return started.born == _born(started.pid)

    # ---- what is there

    def all(self) -> list[Started]:
        """The newest first."""
        found = []
        for file in self._runs.glob("*.json") if self._runs.is_dir() else ():
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(Started(**json.loads(file.read_text(encoding="utf-8"))))
        return sorted(found, key=lambda s: -s.at)

    def get(self, number: str) -> Started:
        found = next((s for s in self.all() if s.id == number), None)
        if found is None:
            raise InputError("No contest is called '{number}' here.", number=number[:100])
        return found

    def folder(self, number: str) -> Path:
        return self._runs / self.get(number).id

    def board(self, started: Started, lang: str = "en") -> Board:
        folder = self._runs / started.id
        running = self._alive(started)
        verdict: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
        state = "running" if running else "done" if verdict else "failed"
        log = self._runs / f"{started.id}.log"
        ended = log.stat().st_mtime if log.exists() else started.at
        elapsed = (time.time() if running else max((f.stat().st_mtime for f in (folder / "verdict.json", folder / "report.html") if f.exists()), default=ended)) - started.at
        over = verdict if not running else {}
        return Board(started, state, elapsed, _rows(folder / "trials.jsonl", lang), _told(log), str(over.get("outcome", "")), wording.text_of(over.get("sentence"), lang),
                     wording.text_of(over.get("next"), lang), (folder / "report.html").exists(), not running and (folder / "winner.assay").exists())


def _born(pid: int) -> float | None:
    """When a process began; None where there is none. Numbers of processes are given again, their births are not."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except (psutil.Error, ValueError):
        return None


def _rows(file: Path, lang: str) -> tuple[tuple[str, str, float | None, float | None, float, str], ...]:
    """(candidate, rung, validation loss, test loss, seconds, state), in the order of their first trial."""
    trials: dict[str, list[Trial]] = {}
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                packed = json.loads(line)
                trial = Trial.of(packed)
            except (ValueError, TypeError, KeyError, AssayError):  # the last line may be half written
                continue
            if trial.contest and not wording.is_aside(packed):
                trials.setdefault(trial.candidate, []).append(trial)
    out = []
    for name, played in trials.items():
        done = [t for t in played if t.status == "done"]
        valid, test = (_mean([getattr(t, key) for t in done]) for key in ("valid_loss", "loss"))
        last = played[-1]
        state = say("{n} done", n=len(done)) if last.status == "done" else say("{status}: {reason}", status=wording.STATUSES[last.status], reason=last.reason or "")
        rung = wording.SHORT[last.rung].to(lang) if last.rung in wording.SHORT else last.rung
        out.append((name, rung, valid, test, sum(t.seconds for t in played), state.to(lang)))
    return tuple(out)


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _told(log: Path) -> str:
    """The last line that a run has printed."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _ASIDE))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1][:500] if lines else ""
    return ""
