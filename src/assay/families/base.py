"""The contract of a contestant: Candidate (what it is), Model (what it does), Budget (what it may use)."""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import MEDIA, Dataset, Schema
from assay.tasks.base import Task
from assay.words import Text, say

RUNGS = ("naive", "classical", "scratch", "pretrained", "llm", "external")  # external: somebody else's model, whatever is inside


@dataclass
class Budget:
    """What one `fit` may use. Plan with it: the contest kills a trial that does not.

    seconds: wall time for this fit. predict_rows, predict_seconds: the test rows that must be answered afterwards and
    the time set aside for that; a model too slow for them should raise TooSlow at once instead of being killed.
    seconds is infinite in a run that has a work budget instead of a clock (`--work`): then `passes` is the limit, and
    nothing that a model does may depend on measured time, so that the same seed gives the same model again.
    passes: an iterative learner goes over its rows at most this often (trees: rounds; networks: epochs; lines: solver
    iterations); None: its own default. Clocked runs leave it None.
    memo: lives as long as the trial and is shared by its fits (a text embedded once need not be embedded again);
    it is gone when the model is judged, so it cannot flatter the prediction time.
    cache: a folder that all trials of the run share, for what is costly to decode. checkpoint: a file of this fit alone,
    which is still there if the run was killed and is resumed. None where there is no run.
    """

    seconds: float = 60.0
    memory_mb: float = 4096.0
    threads: int = 2
    predict_rows: int = 0
    predict_seconds: float = 30.0
    passes: int | None = None
    memo: dict[Any, Any] = field(default_factory=dict)
    cache: Path | None = None
    checkpoint: Path | None = None
    say: Callable[[str], None] = field(default=lambda note: None)
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds left of this fit, may be negative."""
        return self.seconds - (time.monotonic() - self.started)

    def after_torch(self, least: float) -> None:
        """Raises TooSlow if loading torch has left less than this share (0-1) of the seconds."""
        if self.left() < least * self.seconds:
            raise TooSlow(say("loading torch alone took {taken} of the {given} seconds", **self._spent()))

    def after_reading(self, least: float) -> None:
        """Raises TooSlow if reading the rows has left less than this share (0-1) of the seconds."""
        if self.left() < least * self.seconds:
            raise TooSlow(say("reading the rows alone took {taken} of the {given} seconds", **self._spent()))

    def _spent(self) -> dict[str, float]:
        return {"taken": round(self.seconds - self.left(), 1), "given": round(self.seconds, 1)}


class TooSlow(Exception):
    """Raised by `fit` when the test rows or the fit itself cannot be done in time. Carries the reason as a Text."""

    def __init__(self, reason: Text) -> None:
        self.reason = reason
        super().__init__(str(reason))


class Model(ABC):
    """A contestant built for one task and schema.

    `facts` is filled by `fit`: JSON-ready, shown in the report. Known keys: rows_used (if fewer than given),
    loss_curve ([[step, train, valid], ...]), rounds, tokens_in, tokens_out, money, money_currency.
    """

    facts: dict[str, Any]

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        self.task = task
        self.schema = schema.without_target() if schema.target else schema
        self.params = params
        self.facts = {}

    @abstractmethod
    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Model:
        """Learn from `train`. Whatever it needs for tuning or early stopping it holds out of `train` itself
        (`data.split.holdout` follows groups and time)."""

    @abstractmethod
    def predict(self, asked: Dataset) -> np.ndarray:
        """Float array, shape (n, task.width): class probabilities (rows sum to 1) or one amount a row."""

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        """One row as {column: value}, shape (1, task.width). Override where the general path is slow."""
        return self.predict(one_row(row, self.schema))

    @abstractmethod
    def dump(self, folder: Path) -> None:
        """Write files that are data: json, safetensors, ONNX, LightGBM text, parquet, GGUF. Never a pickle."""

    @abstractmethod
    def load(self, folder: Path) -> Model:
        """Read what `dump` wrote, into a model built with the same task, schema and params."""


def nothing_to_prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    return {}


@dataclass(frozen=True)
class Range:
    """Numbers that tuning may try for one param: low to high, both included. log: spread by ratio. whole: integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Candidate:
    """A contestant's card.

    reads: column kinds it uses (others are ignored, and the report says so). requires: kinds of which at least one
    must be there. instances: one card, several contestants: [(name, params), ...] of this case (none: it takes no part
    and is not listed); each plays under its own name. prepare: the params for this case, or the reason why it cannot take part. needs: {import name:
    extra} that fitting needs. share: its part of the time, relative to the others. space: what tuning may change, by
    name of a param of `build`: a Range, or a tuple of values; the model's own default is always tried first.
    takes_weights: `--weights NAME=FILE` is for it. smaller: ((name, params), ...) of smaller makes that `assay compress` may train;
    the param `teacher` says that the winner's own answers are learnt from.
    """

    name: str
    rung: str
    tasks: tuple[str, ...]
    build: Callable[..., Model]
    reads: tuple[str, ...] = ("number", "category", "text", "time")
    requires: tuple[str, ...] = ()
    prepare: Callable[[Case, Schema], dict[str, Any] | Text] = nothing_to_prepare
    instances: Callable[[Case, Schema], list[tuple[str, dict[str, Any]]]] | None = None
    needs: dict[str, str] = field(default_factory=dict)
    space: dict[str, Range | tuple[Any, ...]] = field(default_factory=dict)
    share: float = 4.0
    at_least_s: float = 0.0
    valid_rows: int = 4000
    explainable: bool = False
    online: bool = False
    takes_weights: bool = False
    smaller: tuple[tuple[str, dict[str, Any]], ...] = ()
    source: str = ""
    licence: str = ""
    version: str = ""

    def refuses(self, task: Task, schema: Schema) -> Text | None:
        """None if it can take part on this machine, else the reason as a sentence."""
        if task.name not in self.tasks:
            return say("it answers {tasks}, not '{task}'", tasks=list(self.tasks), task=task.name)
        wanted = self.requires or self.reads
        if not schema.of_kind(*wanted) and self.rung != "naive":
            return say("it reads {kinds} columns, and there is none", kinds=list(wanted))
        for package, extra in self.needs.items():
            if importlib.util.find_spec(package) is None:
                return say("it needs: pip install 'assay[{extra}]'", extra=extra)
        return None


def one_row(row: dict[str, Any], schema: Schema) -> Dataset:
    """A one-row dataset from {column: value}; a missing column is null."""
    types: dict[str, Any] = {"number": pl.Float64, "time": pl.Datetime} | dict.fromkeys(MEDIA, pl.Binary)
    columns = {c.name: pl.Series(c.name, [row.get(c.name)], dtype=types.get(c.kind, pl.String), strict=False)
               for c in schema.columns}
    return Dataset(pl.DataFrame(columns), schema)
