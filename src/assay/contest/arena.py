"""The arena of one run: starts a trial in a child process, watches it, brings its result home. Who plays when is `run` and `after`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.case import Case
from assay.contest.budget import Clock, cores
from assay.contest.folder import Folder, Trial, write_json
from assay.contest.workers import Ending, Workers
from assay.families.base import Candidate
from assay.tasks.base import Task
from assay.words import Text, say

IMPORTS = ["numpy", "polars", "pyarrow", "scipy.sparse", "scipy.optimize", "sklearn.linear_model", "lightgbm", "safetensors.numpy"]
# 3 s, loaded once, when the first candidate that needs it is at its turn. torch's first optimizer step imports
# torch._dynamo, another second in every child that would do it itself.
SLOW_IMPORTS = {"torch": ("torch", "torch._dynamo", "torch.optim"), "tabicl": ("tabicl",), "tabpfn": ("tabpfn",)}
UNLIMITED = float("inf")


@dataclass(frozen=True)
class Entry:
    """A candidate that takes part, with its params, or one that does not, with the reason. family: its name in the registry."""

    candidate: Candidate
    params: dict[str, Any]
    reason: Text | None = None
    family: str = ""

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True)
class Event:
    """What a live table draws: kind 'clock', 'start', 'note', 'end'. note: the candidate's own progress. purpose: of a trial
    that does not stand in the scoreboard."""

    kind: str
    candidate: str
    split: int
    seconds: float = 0.0
    note: str = ""
    trial: Trial | None = None
    purpose: Text | None = None


@dataclass
class Arena:
    folder: Folder
    case: Case
    task: Task
    workers: Workers
    clock: Clock
    observe: Callable[[Any], None] = field(default=lambda event: None)  # an Event, or a Text to be printed

    @property
    def done(self) -> dict[str, Trial]:
        """Every trial on disk by its key."""
        return {t.key: t for t in self.folder.trials()}

    def blank(self, entry: Entry, split: int, *, share: float = 1.0, blind: tuple[str, ...] = (), repeat: int = 0) -> Trial:
        """The trial that is about to be played, not yet done."""
        card = entry.candidate
        return Trial(card.name, card.rung, split, "refused", self.case.seed + repeat, params=entry.params, version=card.version,
                     family=entry.family or card.name, share=share, blind=blind, repeat=repeat)

    def play(self, blank: Trial, *, needs: dict[str, str], part: float, limit: float, tune: bool = False, kind: str = "trial",
             **more: Any) -> Trial:
        """Play one trial and write its line. part: seconds it may plan with; limit: seconds after which it is killed.

        Under a work budget the trial plans with no clock at all.
        """
        for package in needs:
            if package in SLOW_IMPORTS:
                self.workers.preload(list(SLOW_IMPORTS[package]))
        self.observe(Event("start", blank.candidate, blank.split, part, purpose=_purpose(blank)))
        trial = self._run(self._job(blank, kind, part) | {"tune": tune, **more}, blank, limit)
        self.folder.append(trial)
        self.observe(Event("end", blank.candidate, blank.split, trial.seconds, purpose=_purpose(blank), trial=trial))
        return trial

    def fit_again(self, trial: Trial, calibration: dict[str, Any], keep: Path, *, seconds: float, limit: float) -> Trial:
        """Fit this trial's candidate on every row, into the folder `keep`. Writes no line: nothing is judged by it."""
        self.observe(Event("start", trial.candidate, -1, note="refit"))
        job = self._job(trial, "refit", seconds) | {"calibration": calibration, "keep": str(keep)}
        return self._run(job, replace(trial, status="failed", reason=None, facts={}), limit)

    def _job(self, blank: Trial, kind: str, seconds: float) -> dict[str, Any]:
        work = self.folder.path / "logs"
        return {"kind": kind, "key": f"{blank.key}.{kind}", "folder": str(self.folder.path), "candidate": blank.candidate, "family": blank.family or blank.candidate,
                "rung": blank.rung, "params": blank.params, "split": blank.split, "seed": blank.seed, "repeat": blank.repeat,
                "share": blank.share, "blind": list(blank.blind), "tune": False,
                "seconds": UNLIMITED if self.case.work else seconds, "passes": self.case.work, "memory_mb": self.case.memory_mb,
                "threads": cores(), "progress": str(work / "progress"), "result": str(work / f"{blank.key}.{kind}.result.json")}

    def _run(self, job: dict[str, Any], blank: Trial, limit: float) -> Trial:
        work = self.folder.path / "logs"
        job_file, result, progress = work / f"{blank.key}.job.json", Path(job["result"]), Path(job["progress"])
        for stale in (result, progress):
            stale.unlink(missing_ok=True)
        write_json(job_file, job)

        def tick() -> None:
            note = ""
            with contextlib.suppress(OSError, UnicodeDecodeError):
                note = progress.read_text(encoding="utf-8")
            self.observe(Event("note", blank.candidate, blank.split, note=note))

        memory = self.case.memory_mb
        latest = limit if job["kind"] == "refit" else max(self.clock.left_for_trials(), limit)
        ending = self.workers.run(job_file, work / f"{blank.key}.log", seconds=limit, latest_s=latest, memory_mb=memory, tick=tick)
        if result.exists() and ending.how == "ended":
            trial = Trial.of(json.loads(result.read_text(encoding="utf-8")))
            return replace(trial, cost=trial.cost | {"peak_mb": max(ending.peak_mb, trial.cost.get("peak_mb", 0.0))}) if trial.cost else trial
        return replace(blank, status="failed", seconds=ending.wall_s, reason=_why(ending, limit, memory))


def _purpose(trial: Trial) -> Text | None:
    """What a trial outside the scoreboard is for."""
    if trial.share < 1:
        return say("with {share} of the rows", share=f"{trial.share:.3g}")
    if trial.blind:
        return say("without {kinds}", kinds=list(trial.blind))
    return say("seed {seed}", seed=trial.seed) if trial.repeat else None


def _why(ending: Ending, limit: float, memory_mb: float) -> Text:
    if ending.how == "time":
        return say("it was stopped after {seconds:.1f} s, the end of its time", seconds=limit)
    if ending.how == "memory":
        return say("it was stopped at {peak:.0f} MB, above the limit of {limit:.0f} MB", peak=ending.peak_mb, limit=memory_mb)
    return say("its process ended unexpectedly (status {status})", status=str(ending.status))
