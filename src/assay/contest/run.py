"""Play: every candidate on every split, cheapest rung first, each in a child process, each result on disk at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.case import Case
from assay.contest.budget import Clock, cores
from assay.contest.folder import Folder, Trial, write_json
from assay.contest.workers import Ending, Workers
from assay.data.dataset import Schema
from assay.errors import InputError
from assay.families.base import RUNGS, Candidate
from assay.registry import discover
from assay.tasks.base import Task
from assay.words import Text, say

LEAST_S = 0.3  # a trial with less than this is not started
_GRACE = 1.25  # a trial that plans badly is killed after this many times its part, if others wait for theirs


@dataclass(frozen=True)
class Entry:
    """A candidate that takes part, with its params, or one that does not, with the reason."""

    candidate: Candidate
    params: dict[str, Any]
    reason: Text | None = None


@dataclass(frozen=True)
class Event:
    """What a live table draws: kind 'start', 'note', 'end'. `note` is the candidate's own progress."""

    kind: str
    candidate: str
    split: int
    seconds: float = 0.0
    note: str = ""
    trial: Trial | None = None


def line_up(case: Case, task: Task, schema: Schema) -> list[Entry]:
    """All candidates, cheapest rung first; those that cannot take part carry their reason."""
    found = discover("assay.families", Candidate)
    for name in (*case.candidates, *case.without):
        if name not in found:
            raise InputError("There is no candidate '{name}'. There are: {names}.", name=name, names=list(found))
    out = []
    for candidate in sorted(found.values(), key=lambda c: (RUNGS.index(c.rung), c.share, c.name)):
        reason = None
        if (case.candidates and candidate.name not in (*case.candidates, "naive")) or candidate.name in case.without:
            reason = say("it was left out on request")
        elif case.explainable and not candidate.explainable:
            reason = say("the case asks for an explainable model, and it is not one")
        elif case.time_s < LEAST_FOR_SLOW_S and any(p in candidate.needs for p in SLOW_IMPORTS):
            reason = say("its libraries take seconds to load, too long for a budget of {time:g} s; {least:g} s would do", time=case.time_s,
                         least=LEAST_FOR_SLOW_S)
        elif case.offline and candidate.online and not _loopback(case.llm_url):
            reason = say("the case asks for an offline model, and it needs a network")
        reason = reason or candidate.refuses(task, schema)
        prepared = {} if reason else candidate.prepare(case, schema)
        if isinstance(prepared, Text):
            reason, prepared = prepared, {}
        out.append(Entry(candidate, prepared, reason))
    return out


IMPORTS = ["numpy", "polars", "pyarrow", "scipy.sparse", "scipy.optimize", "sklearn.linear_model", "lightgbm", "safetensors.numpy"]
# 3 s, loaded once, when the first candidate that needs it is at its turn. torch's first optimizer step imports
# torch._dynamo, another second in every child that would do it itself.
SLOW_IMPORTS = {"torch": ("torch", "torch._dynamo", "torch.optim")}
LEAST_FOR_SLOW_S = 15.0


def play(folder: Folder, case: Case, entries: list[Entry], folds: int, workers: Workers, clock: Clock,
         observe: Callable[[Event], None] = lambda event: None) -> bool:
    """Fill `trials.jsonl`. Trials that are there already are not repeated. Returns False if Ctrl-C ended it early.

    A candidate that fails or is refused on one split is not tried on the next. Ctrl-C kills the running trial only.
    """
    done = {(t.candidate, t.split): t for t in folder.trials()}
    out_of = {t.candidate for t in done.values() if t.status != "done"}
    taken = {t.candidate: t.seconds for t in done.values()}
    queue = [(e, split) for split in range(folds) for e in entries]
    try:
        for at, (entry, split) in enumerate(queue):
            name = entry.candidate.name
            if (name, split) in done or name in out_of:
                continue
            waiting = [e for e, s in queue[at:] if (e.candidate.name, s) not in done and e.candidate.name not in out_of and not e.reason]
            trial = _one(folder, case, entry, split, waiting, taken, workers, clock, observe)
            folder.append(trial)
            taken[name] = max(taken.get(name, 0.0), trial.seconds)
            observe(Event("end", name, split, trial.seconds, trial=trial))
            if trial.status != "done":
                out_of.add(name)
    except KeyboardInterrupt:
        return False
    return True


def _one(folder: Folder, case: Case, entry: Entry, split: int, waiting: list[Entry], taken: dict[str, float], workers: Workers,
         clock: Clock, observe: Callable[[Event], None]) -> Trial:
    """waiting: this and all later trials. taken: seconds of a trial of those candidates that have finished one."""
    candidate = entry.candidate
    blank = Trial(candidate.name, candidate.rung, split, "refused", case.seed, params=entry.params, version=candidate.version)
    if entry.reason:
        return replace(blank, reason=entry.reason)
    others = [e.candidate for e in waiting if e.candidate.name != candidate.name]
    unknown = sum(c.share for c in others if c.name not in taken) + candidate.share * (len(waiting) - len(others))
    part = clock.part(candidate.share, unknown, 1.2 * sum(taken[c.name] for c in others if c.name in taken))
    if candidate.rung == "naive":  # the floor of every verdict: without it nobody can be judged; with millions of rows it is not free
        part = max(part, min(2.0, clock.left_for_trials()), 0.3 * clock.left_for_trials())
    if part < max(LEAST_S, candidate.at_least_s):
        return replace(blank, reason=say("it needs at least {needed:.1f} s, and its part of the time left was {part:.1f} s",
                                         needed=max(LEAST_S, candidate.at_least_s), part=part))
    limit = min(part * _GRACE + 0.5, clock.left_for_trials()) if len(waiting) > 1 else clock.left_for_trials()
    for package in candidate.needs:
        if package in SLOW_IMPORTS:
            workers.preload(list(SLOW_IMPORTS[package]))
    observe(Event("start", candidate.name, split, part))
    work = folder.path / "logs"
    job = {"kind": "trial", "folder": str(folder.path), "candidate": candidate.name, "params": entry.params, "split": split,
           "seed": case.seed, "seconds": part, "memory_mb": case.memory_mb, "threads": cores(),
           "progress": str(work / "progress"), "result": str(work / f"{candidate.name}.{split}.result.json")}
    return _run(job, blank, workers, work, limit, clock.left_for_trials(), case.memory_mb, observe)


def fit_again(folder: Folder, case: Case, trial: Trial, calibration: dict[str, Any], keep: Path, seconds: float, limit: float,
              workers: Workers, observe: Callable[[Event], None]) -> Trial:
    """Fit this trial's candidate on every row, into the folder `keep`."""
    work = folder.path / "logs"
    job = {"kind": "refit", "folder": str(folder.path), "candidate": trial.candidate, "params": trial.params, "split": 0,
           "seed": case.seed, "seconds": seconds, "memory_mb": case.memory_mb, "threads": cores(), "calibration": calibration,
           "keep": str(keep), "progress": str(work / "progress"), "result": str(work / f"{trial.candidate}.refit.result.json")}
    return _run(job, replace(trial, status="failed", reason=None, facts={}), workers, work, limit, limit, case.memory_mb, observe)


def _run(job: dict[str, Any], blank: Trial, workers: Workers, work: Path, limit: float, latest: float, memory_mb: float,
         observe: Callable[[Event], None]) -> Trial:
    job_file, result = work / f"{blank.candidate}.job.json", Path(job["result"])
    progress = Path(job["progress"])
    for stale in (result, progress):
        stale.unlink(missing_ok=True)
    write_json(job_file, job)

    def tick() -> None:
        note = ""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            note = progress.read_text(encoding="utf-8")
        observe(Event("note", blank.candidate, blank.split, note=note))

    ending = workers.run(job_file, work / f"{blank.candidate}.{blank.split}.log", seconds=limit, latest_s=latest,
                         memory_mb=memory_mb, tick=tick)
    if result.exists() and ending.how == "ended":
        trial = Trial.of(json.loads(result.read_text(encoding="utf-8")))
        return replace(trial, cost=trial.cost | {"peak_mb": max(ending.peak_mb, trial.cost.get("peak_mb", 0.0))}) if trial.cost else trial
    return replace(blank, status="failed", seconds=ending.wall_s, reason=_why(ending, limit, memory_mb))


def _why(ending: Ending, limit: float, memory_mb: float) -> Text:
    if ending.how == "time":
        return say("it was stopped after {seconds:.1f} s, the end of its time", seconds=limit)
    if ending.how == "memory":
        return say("it was stopped at {peak:.0f} MB, above the limit of {limit:.0f} MB", peak=ending.peak_mb, limit=memory_mb)
    return say("its process ended unexpectedly (status {status})", status=str(ending.status))


def _loopback(url: str | None) -> bool:
    from urllib.parse import urlsplit

    return (urlsplit(url or "").hostname or "") in ("127.0.0.1", "localhost", "::1")
