"""A program that answers rows: it gets files, writes a file, and is ended with all it started when its time is over."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from assay.data.external import leash
from assay.data.load import load
from assay.data.values import EXACT
from assay.errors import InputError
from assay.words import Text, say

HOLES = ("train", "asked", "answers", "seconds", "threads", "seed")
SUFFIXES = {"train": ("csv", "parquet"), "asked": ("csv", "parquet"), "answers": ("csv", "parquet", "jsonl")}
MOST_S = 3600.0  # where a run has no clock at all
KEYS = re.compile(r"ASSAY_\w*KEY\w*")  # assay's own keys are none of a stranger's business
_HOLE = re.compile(r"\{(\w+)(?:\.(\w+))?\}")


@dataclass(frozen=True)
class Limits:
    """What one run of a program may use."""

    seconds: float = 60.0
    memory_mb: float = 4096.0
    threads: int = 2


@dataclass(frozen=True)
class Ran:
    """One run that ended well. table: what it wrote, as it stands. beside: what stood in `{answers}.json`, if anything."""

    table: pl.DataFrame
    seconds: float
    peak_mb: float
    beside: dict[str, Any] = field(default_factory=dict)


class Failed(InputError):
    """The program did not do what was asked. how: absent, time, memory, status, nothing; status and last: what it said."""

    how, status, last = "", 0, ""

    @classmethod
    def because(cls, text: Text, how: str, status: int = 0, last: str = "") -> Failed:
        out = cls(text)
        out.how, out.status, out.last = how, status, last
        return out


def words_of(command: str) -> list[str]:
    """The command, split as a shell would but never given to one. Raises InputError if it cannot work."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError("The command '{command}' cannot be read: {error}.", command=command, error=str(error)) from None
    holes = [(m[1], m[2]) for word in words for m in _HOLE.finditer(word)]
    for name, suffix in holes:
        if name not in HOLES or (suffix and suffix not in SUFFIXES.get(name, ())):
            known = [f"{{{n}}}" for n in HOLES] + [f"{{{n}.{s}}}" for n, all_ in SUFFIXES.items() for s in all_[1:]]
            raise InputError("The command has the hole {hole}, which nothing fills. There are: {known}.",
                             hole=f"{{{name}{'.' + suffix if suffix else ''}}}", known=known)
    if not {"asked", "answers"} <= {name for name, _ in holes} or _HOLE.search(words[0]):
        raise InputError("The command has to name a program, {{asked}} (the rows) and {{answers}} (the file it writes), such as: "
                         "cmd:python vendor.py {{train}} {{asked}} {{answers}}")
    return words


def learns(words: list[str]) -> bool:
    """True if the command is given rows with their answers; else it is a finished model."""
    return any(m[1] == "train" for word in words for m in _HOLE.finditer(word))


def run(words: list[str], *, asked: pl.DataFrame, train: pl.DataFrame | None, limits: Limits, seed: int = 0) -> Ran:
    """Fill the holes, run the program once and read what it wrote. Raises Failed or ReadError: one sentence.

    The program sees the environment of this process without assay's own keys, and an empty standard input. It and whatever
    it started are dead when this returns, also if it ended well; they die too if this process is killed (Linux).
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as place:
        folder = Path(place)
        files: dict[str, Path] = {}

        def filled(found: re.Match[str]) -> str:
            name = found[1]
            if name not in HOLES:
                return found[0]  # a folder with braces in its name
            if name not in SUFFIXES:
                return {"seconds": f"{limits.seconds:.0f}", "threads": str(limits.threads), "seed": str(seed)}[name]
            path = folder / f"{name}.{found[2] or 'csv'}"
            if name != "answers" and not path.exists():
                frame = asked if name == "asked" else train
                assert frame is not None
                _write(frame, path)
            files[name] = path
            return str(path)

        ready = [_HOLE.sub(filled, word) for word in words]
        report, last = _leashed(ready, folder, limits)
        _judged(report, last, words[0], limits)
        answers = files["answers"]
        if not answers.exists():
            raise Failed.because(say("The program '{program}' ended well but wrote no {file}; its last words: {last}",
                                     program=words[0], file=answers.name, last=last or say("(none)")), "nothing")
        beside: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            beside = dict(json.loads(answers.with_name(answers.name + ".json").read_text(encoding="utf-8")))
        return Ran(load(answers)[0], float(report["seconds"]), float(report["peak_mb"]), beside)


def _leashed(command: list[str], folder: Path, limits: Limits) -> tuple[dict[str, Any], str]:
    """(what became of it, the last line of its standard error)."""
    seconds = limits.seconds if math.isfinite(limits.seconds) else MOST_S
    environment = {k: v for k, v in os.environ.items() if not KEYS.fullmatch(k)}
    call = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), str(max(0.1, seconds)), str(limits.memory_mb), str(folder), *command]
    with subprocess.Popen(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                          env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        tail = bytearray()

        def listen() -> None:
            while piece := process.stderr.read1(65536):  # type: ignore[union-attr]
                tail.extend(piece)
                del tail[:-8192]  # a program may write without end; only its last words count

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            said = process.stdout.read()
        except BaseException:
            process.terminate()  # the leash ends the program and all its children
            process.wait()
            raise
        process.wait()
        listener.join(2.0)
    lines = [line.strip() for line in tail.decode("utf-8", "replace").splitlines() if line.strip()]
    last = (lines or [""])[-1][:300]
    try:
        return dict(json.loads(said)), last
    except ValueError:
        return {"how": "ended", "status": process.returncode or -1, "seconds": 0.0, "peak_mb": 0.0}, last


def _judged(report: dict[str, Any], last: str, program: str, limits: Limits) -> None:
    """Raise Failed unless the program ended well."""
    how, status = report["how"], report["status"]
    words: str | Text = last or say("(none)")
    if how == "absent":
        raise Failed.because(say("The program '{program}' cannot be started: {error}.", program=program, error=report.get("detail") or status), how)
    if how == "time":
        raise Failed.because(say("The program '{program}' had not ended after {seconds:.1f} s, and was stopped with all it had started; its last words: {last}",
                                 program=program, seconds=limits.seconds, last=words), how, last=last)
    if how == "memory":
        raise Failed.because(say("The program '{program}' was stopped at {peak:.0f} MB, above the limit of {limit:.0f} MB.",
                                 program=program, peak=report["peak_mb"], limit=limits.memory_mb), how)
    if status != 0:
        raise Failed.because(say("The program '{program}' failed (status {status}); its last words: {last}", program=program, status=str(status),
                                 last=words), "status", int(status), last)


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Rows as the file they came from had them: whole numbers without a point, instants in ISO form, gaps empty."""
    frame = frame.with_columns([pl.col(name).cast(pl.Int64) for name in whole_columns(frame)])
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S%.f")


def whole_columns(frame: pl.DataFrame) -> list[str]:
    """The Float64 columns that hold whole numbers only."""
    out = []
    for name, dtype in frame.schema.items():
        if dtype == pl.Float64:
            cells = frame[name].drop_nulls()
            if len(cells) and bool(((cells == cells.round()) & (cells.abs() < EXACT)).all()):
                out.append(name)
    return out
