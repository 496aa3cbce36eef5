"""What contestants share that learn by being shown rows (Müller et al. 2022, arXiv:2112.10510).

A transformer, pre-trained on made-up tables, reads training rows with their answers as its context, and answers other rows
in one forward pass. Nothing is trained on the user's data: a fit chooses the rows to show and keeps what the network made of
them (keys and values), so that a later row costs a pass over itself only. The bundle holds the weights (safetensors), the
shown rows and a json; opening it shows the rows again, which takes as long as the fit did.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.errors import InputError
from assay.neural.base import digest_of
from assay.neural.checkpoint import Checkpoint, Unreadable, checkpoint_of
from assay.neural.context_plan import VIEWS, Plan, Shown, most_rows, planned
from assay.neural.context_table import Table
from assay.neural.frozen import spread
from assay.neural.many_classes import answered, codebook
from assay.words import Text, say

_CHUNK_CELLS = 100_000  # cells answered in one pass: 0.5 GB inside a network of width 128
_CHUNK_ROWS = 1024
LOADING_SHARE = 0.8  # of a fit's time; with less than a fifth left nothing worth judging can be shown


@dataclass(frozen=True)
class Limits:
    """What a weights file was made for. classes: the most it tells apart in one pass; None: any number. size: width of the network."""

    rows: int
    columns: int
    classes: int | None
    size: int


class InContext:
    """Mix in before `families.base.Model`; the family says which package reads which weights.

    A classifier answers class probabilities; a class without a shown row gets 0. A regressor knows a distribution, and answers
    what the loss asks of it: its mean for squared loss, its median for absolute loss, its quantile for pinball loss, never
    further outside the shown amounts than their range.
    """

    too_slow: ClassVar[type[Exception]]
    package: ClassVar[str]
    task: Any
    schema: Schema
    params: dict[str, Any]
    facts: dict[str, Any]
    threads = 2

    @staticmethod
    @abstractmethod
    def made_by(checkpoint: Checkpoint) -> bool:
        """Whether this is a checkpoint of the family."""

    @abstractmethod
    def limits(self, checkpoint: Checkpoint) -> Limits | Text:
        """What these weights can do for `self.task`, or why they do not answer it."""

    @abstractmethod
    def open_network(self, weights: Path) -> Any:
        """The network in a safetensors file, on the processor, shared by everything that `show` returns."""

    @abstractmethod
    def show(self, network: Any, x: np.ndarray, y: np.ndarray, *, categories: list[int], views: int, seed: int) -> Shown:
        """The network, shown x (n, width) with answers y: codes 0 to k-1, each of them present, or standardised amounts.

        What it returns answers with probabilities (m, k), or amounts (m,).
        """

    def fit(self, train: Dataset, *, seed: int, budget: Any) -> Any:
        """Raises `too_slow` if the time is too short for the smallest context or for the test rows, InputError if the weights do not fit."""
        import torch

        self.threads = budget.threads
        torch.set_num_threads(self.threads)
        checkpoint = readable(Path(self.params["weights"]), self)
        self.table = Table.learn(train.frame, self.schema)
        limits = self.checked(checkpoint)
        truth, strata = self.task.truth(train), self.task.strata(train)
        order = spread(len(train), strata, np.random.default_rng(seed))
        if self.task.name == "classify":  # a row of every class comes first, so that none is missing in a small context
            first = np.unique(truth[order], return_index=True)[1]
            order = np.concatenate([order[np.sort(first)], np.delete(order, first)])
        most = most_rows(len(train), self.table.width, limit=limits.rows, size=limits.size, memory_mb=budget.memory_mb)
        order = order[:most]
        self.seed = seed
        self._take(self.table.read(train.frame[order]), truth[order])
        self._open(checkpoint)
        if budget.left() < (1 - LOADING_SHARE) * budget.seconds:
            raise self.too_slow(say("loading {package} and its weights took {taken:.1f} of the {given:.1f} seconds", package=self.package,
                                    taken=budget.seconds - budget.left(), given=budget.seconds))
        plan = self._planned(order, len(train), budget)
        self._take(self._x[: plan.rows], self._y[: plan.rows])
        self.views = plan.views
        budget.say(str(say("showing it {rows} rows", rows=plan.rows)))
        self._shown = self._show(plan.rows, plan.views)
        self.facts |= {
            "weights": checkpoint.path.name, "weights_sha256": digest_of(checkpoint.path)[:16], "parameters": checkpoint.weights,
            "context_rows": plan.rows, "views": plan.views, "cache_mb": round(self._shown.cache_bytes / 1e6, 1),
        }
        unread = [c.name for c in self.schema.of_kind("text")]
        if unread:
            self.facts["columns_not_read"] = unread
        if plan.rows < len(train):
            self.facts["rows_used"] = plan.rows
        return self

    def checked(self, checkpoint: Checkpoint) -> Limits:
        """The limits of weights that answer this task and this table. Raises InputError or `too_slow`."""
        limits = self.limits(checkpoint)
        if isinstance(limits, Text):
            raise InputError(limits)
        if self.table.width > limits.columns:
            raise self.too_slow(say("its weights were made for at most {most} columns, and there are {columns}", most=limits.columns,
                                    columns=self.table.width))
        self._limits = limits
        return limits

    def _take(self, x: np.ndarray, truth: np.ndarray) -> None:
        """Keep the rows to be shown: amounts in units of their spread, labels as codes without gaps."""
        self._x, self._y = x, truth
        if self.task.name == "classify":
            self._seen, self._codes = np.unique(truth, return_inverse=True)
        else:
            self._center, self._scale = float(truth.mean()), float(truth.std()) or 1.0
            self._low, self._high = float(truth.min()), float(truth.max())

    def _open(self, checkpoint: Checkpoint) -> None:
        """Open the network. A checkpoint of torch is written as safetensors first, for as long as that takes: a process that is
        killed leaves nothing behind once the network is open."""
        self._checkpoint = checkpoint
        try:
            if checkpoint.ready:
                self._network = self.open_network(checkpoint.path)
                return
            with tempfile.TemporaryDirectory(prefix="assay-weights-") as folder:
                checkpoint.save(Path(folder) / "weights.safetensors")
                self._network = self.open_network(Path(folder) / "weights.safetensors")
        except Unreadable as error:
            raise InputError(error.reason) from None
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(say("the installed package {package} does not fit the weights file '{file}': {reason}", package=self.package,
                                 file=checkpoint.path.name, reason=(str(error).splitlines() or [""])[0][:200])) from None

    def _planned(self, order: np.ndarray, there: int, budget: Any) -> Plan:
        """The plan of this trial: made by its first fit, kept by the later ones, so that what is judged is what was validated."""
        before = budget.memo.get((self.package, "plan"))
        if before is not None:
            rows = len(order) if before.whole else min(before.rows, len(order))
            return Plan(rows, before.views, rows == there, before.row_s)
        budget.say(str(say("measuring how fast it reads")))
        plan = planned(lambda rows: self._show(rows, 1), self._x[::-1], most=len(order), there=there, views=int(self.params.get("views", VIEWS)),
                       budget=budget)
        if isinstance(plan, Text):
            raise self.too_slow(plan)
        budget.memo[self.package, "plan"] = plan
        return plan

    def _show(self, rows: int, views: int) -> Shown:
        """The network, shown the first `rows` rows."""
        x = self._x[:rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self.task.name != "classify":
                return self._one(x, (self._y[:rows] - self._center) / self._scale, views, self.seed)
            seen, codes = np.unique(self._codes[:rows], return_inverse=True)
            most = self._limits.classes
            if len(seen) == 1:
                return _Same(len(self._seen), int(seen[0]))
            if most is not None and len(seen) > most:
                book = codebook(len(seen), most, views, self.seed)
                digits = [self._one(x, book[codes, j], 1, self.seed + j) for j in range(book.shape[1])]
                return _Digits(book, digits, seen, len(self._seen), most)
            return _Placed(self._one(x, codes, views, self.seed), seen, len(self._seen))

    def _one(self, x: np.ndarray, y: np.ndarray, views: int, seed: int) -> Shown:
        return self.show(self._network, x, y, categories=self.table.categories, views=views, seed=seed)

    def predict(self, asked: Dataset) -> np.ndarray:
        out = np.zeros((len(asked), self.task.width))
        x = self.table.read(asked.frame)
        step = max(1, min(_CHUNK_ROWS, _CHUNK_CELLS // max(self.table.width, 1)))
        for at in range(0, len(x), step):
            with _ONE_AT_A_TIME, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = np.asarray(self._shown.answer(x[at: at + step]), dtype=np.float64)
            if self.task.name == "classify":
                out[at: at + step, self._seen] = answer / answer.sum(axis=1, keepdims=True)
            else:
                reach = self._high - self._low
                out[at: at + step, 0] = np.clip(answer * self._scale + self._center, self._low - reach, self._high + reach)
        return out

    def dump(self, folder: Path) -> None:
        """weights.safetensors, context.safetensors (the shown rows and their answers), in_context.json."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        self._checkpoint.save(folder / "weights.safetensors")
        save_file({"x": np.ascontiguousarray(self._x), "y": np.ascontiguousarray(self._y)}, folder / "context.safetensors")
        packed = {"format": 1, "table": self.table.json(), "views": self.views, "seed": self.seed, "threads": self.threads, "facts": self.facts}
        (folder / "in_context.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Any:
        import torch
        from safetensors.numpy import load_file

        packed = json.loads((folder / "in_context.json").read_text(encoding="utf-8"))
        self.threads = min(packed["threads"], len(os.sched_getaffinity(0)))
        torch.set_num_threads(self.threads)
        self.table, self.views, self.seed, self.facts = Table.of(packed["table"]), packed["views"], packed["seed"], packed["facts"]
        checkpoint = readable(folder / "weights.safetensors", self)
        self.checked(checkpoint)
        held = load_file(folder / "context.safetensors")
        self._take(held["x"], held["y"])
        self._open(checkpoint)
        self._shown = self._show(len(self._x), self.views)
        return self


_ONE_AT_A_TIME = threading.Lock()  # both packages keep notes on the network while it answers


@dataclass(frozen=True)
class _Same:
    """Only one class was shown."""

    classes: int
    code: int
    cache_bytes: int = 0

    def answer(self, x: np.ndarray) -> np.ndarray:
        return np.tile(np.eye(self.classes)[self.code], (len(x), 1))


class _Placed:
    """Answers for the classes that were shown, in their places among all."""

    def __init__(self, shown: Shown, seen: np.ndarray, classes: int) -> None:
        self.shown, self.seen, self.classes, self.cache_bytes = shown, seen, classes, shown.cache_bytes

    def answer(self, x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), self.classes))
        out[:, self.seen] = self.shown.answer(x)
        return out


class _Digits(_Placed):
    """More classes than the weights tell apart: each pass answers one digit of a class's code."""

    def __init__(self, book: np.ndarray, digits: list[Shown], seen: np.ndarray, classes: int, base: int) -> None:
        self.book, self.digits, self.seen, self.classes, self.base = book, digits, seen, classes, base
        self.cache_bytes = sum(d.cache_bytes for d in digits)

    def answer(self, x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), self.classes))
        out[:, self.seen] = answered(self.book, [d.answer(x) for d in self.digits], self.base)
        return out


def readable(path: Path, family: Any) -> Checkpoint:
    """The checkpoint at `path`, if it is one of this family. Raises InputError."""
    found = _found(path, family.package, family.made_by)
    if isinstance(found, Text):
        raise InputError(found)
    return found


def _found(path: Path, package: str, made_by: Any) -> Checkpoint | Text:
    checkpoint = checkpoint_of(path)
    if isinstance(checkpoint, Checkpoint) and not made_by(checkpoint):
        return say("the weights file '{file}' holds another model than {package}", file=path.name, package=package)
    return checkpoint


def prepared(case: Case, schema: Schema, *, name: str, made_by: Any, source: Text) -> dict[str, Any] | Text:
    """The params for this case: {"weights": path}. Or why it cannot take part; source: where its weights come from."""
    named = case.weights.get(name)
    if not named:
        return say("it needs a local weights file, --weights {name}=FILE; {source} (docs/weights.md)", name=name, source=source)
    path = Path(named).expanduser().resolve()
    found = _found(path, name, made_by)
    return found if isinstance(found, Text) else {"weights": str(path)}


def bytes_of(*parts: Any) -> int:
    """Bytes of every tensor inside these objects: dataclasses, dicts, lists. What is shared is counted once."""
    seen: set[int] = set()
    total, waiting = 0, list(parts)
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, str | int | float | bool | pl.DataFrame | type(None)):
            continue
        seen.add(id(part))
        if hasattr(part, "element_size") and hasattr(part, "nelement"):
            total += part.element_size() * part.nelement()
        elif isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        elif hasattr(part, "__dict__"):
            waiting += vars(part).values()
    return total

