"""What a fit can afford: how many rows it can hold and read, how many rounds it can take. Without a clock nothing is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.encode import TextEncoder
from assay.errors import InputError
from assay.words import Text, say

LEAST_ROWS = 200
LEAST_ROUNDS = 10  # at the highest learning rate, 0.3, ten rounds leave 3 % of the way (0.7 ** 10); fewer are no model
PILOT_CLASSES = 20
GAIN = 1e-4
_PILOT = 2000  # texts on which reading is timed


def affordable(train: Dataset, *, seed: int, bytes_a_row: float, memory_mb: float, reading_s: float = math.inf,
               most: float = math.inf) -> Dataset:
    """All rows, or a random part of them in their order: what `memory_mb` holds and whose texts are read in `reading_s`.

    bytes_a_row: what a row takes at the peak of the fit. reading_s: infinite in a run without a clock, and then no time
    is measured. most: any further limit. At least 200 rows are kept.
    """
    most = min(most, memory_mb * 1e6 / max(bytes_a_row, 1.0))
    if train.schema.of_kind("text") and len(train) > LEAST_ROWS and math.isfinite(reading_s):
        start, pilot = time.monotonic(), min(len(train), _PILOT)
        TextEncoder(train.schema).fit_transform(train.frame[:pilot])
        most = min(most, pilot / max(time.monotonic() - start, 1e-6) * max(reading_s, 0.0))
    if len(train) <= max(most, LEAST_ROWS):
        return train
    kept = np.random.default_rng(seed).choice(len(train), max(int(most), LEAST_ROWS), replace=False)
    return train.take(np.sort(kept))


class Rounds:
    """Early stopping of trees grown one after another: `stop(loss)` after every round, with its held-out loss.

    Ends `patience` rounds after the best, at `most`, or when the next round would overrun `seconds` (infinite: no clock).
    A best is a best only if it gains 1/10,000 of the first round's loss: where classes are told apart almost surely, the
    log loss creeps towards 0 for thousands of trees that change no answer.
    best: rounds up to the least loss; curve: the losses so far; round_s: what the fastest round took.
    """

    def __init__(self, *, most: int, patience: int = 50, seconds: float = math.inf, note: Callable[[str], None] = lambda note: None) -> None:
        self.most, self.patience, self.seconds, self.note = most, patience, seconds, note
        self.curve: list[float] = []
        self.best = 0
        self.short_of_time = False
        self.started = time.monotonic()
        self.took, self.round_s = 0.0, math.inf

    def stop(self, loss: float) -> bool:
        self.curve.append(float(loss))
        ran = len(self.curve)
        if not self.best or loss < self.curve[self.best - 1] - GAIN * abs(self.curve[0]):
            self.best = ran
        if ran % 25 == 0:
            self.note(f"round {ran}, held-out loss {loss:.4f}")
        before, self.took = self.took, time.monotonic() - self.started
        self.round_s = min(self.round_s, self.took - before)
        self.short_of_time = self.took + self.took / ran > self.seconds
        return self.short_of_time or ran >= self.most or ran - self.best >= self.patience

    @classmethod
    def pilot(cls, seconds: float) -> Rounds:
        """Three rounds, or one that shows that `seconds` hold fewer than ten. Many classes are a tree each in every round:
        the pilot is grown on the labels modulo PILOT_CLASSES, and `rate` is told of it."""
        return cls(most=3, seconds=seconds / LEAST_ROUNDS)

    def rate(self, rate: float, seconds: float, classes: int = 0) -> float | Text:
        """After a pilot: the learning rate for as many rounds as `seconds` hold, or the reason why they are too few."""
        self.round_s *= max(1.0, classes / PILOT_CLASSES)
        rounds = int(seconds / max(self.round_s, 1e-6))
        if rounds < LEAST_ROUNDS:
            return say("one round of its trees takes {round} s, and its time is enough for {n} of them; it needs {least}",
                       round=f"{self.round_s:.2g}", n=rounds, least=LEAST_ROUNDS)
        return pace(rate, rounds)

    def again(self, part: int, whole: int) -> tuple[int, float]:
        """(rounds, expected seconds) of the fit on all `whole` rows after this one on `part`: more rows bear a few more trees."""
        rounds = min(self.most, max(1, round(self.best * (whole / part) ** 0.5)))
        return rounds, self.took * rounds / max(len(self.curve), 1) * whole / part

    def facts(self) -> list[list[Any]]:
        """At most about 100 points [round, None, held-out loss], as `facts["loss_curve"]` wants them."""
        step = max(1, len(self.curve) // 100)
        return [[i + 1, None, round(v, 6)] for i, v in enumerate(self.curve)][::step]


def pace(rate: float, passes: int | None) -> float:
    """A learning rate that gets somewhere in `passes` rounds: the first of `rate`, 0.1 and 0.3 that has rounds x rate of at least 6.

    Early stopping ended 20 open tables after rounds x rate = 1 to 32, the median 9. In steps, so that a fit that is timed a
    little differently still learns the same.
    """
    return rate if passes is None else next((r for r in (rate, max(rate, 0.1)) if passes * r >= 6), max(rate, 0.3))


class Labels:
    """The classes that the training rows hold, in code order; trees know no others, and give the rest no chance."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    @classmethod
    def of(cls, truth: np.ndarray) -> Labels:
        return cls(np.unique(truth).astype(int).tolist())

    def codes(self, truth: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.seen, truth)

    def spread(self, known: np.ndarray, width: int) -> np.ndarray:
        """Probabilities of the seen classes (n, seen), or of the second of two (n,), as float64 (n, width)."""
        known = np.asarray(known, dtype=np.float64)
        if known.ndim == 1:
            known = np.column_stack([1 - known, known])
        if len(self.seen) == width:
            return known
        out = np.zeros((len(known), width))
        out[:, self.seen] = known
        return out


def settings(given: dict[str, Any], space: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """`defaults` with what was `given` in their place. Params come out of a bundle too, so they are checked like any input:
    known by name, and inside the card's `space` (a tuple of values, or a range with `low`, `high` and `whole`)."""
    for name, value in given.items():
        if name not in space:
            raise InputError("There is no setting '{name}'. There are: {known}.", name=name, known=list(space))
        allowed = space[name]
        if isinstance(allowed, tuple):
            if value not in allowed:
                raise InputError("The setting '{name}' is one of {known}; '{value}' is not.", name=name, known=list(allowed), value=value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not allowed.low <= value <= allowed.high or (
                allowed.whole and value != int(value)):
            raise InputError("The setting '{name}' lies between {low:g} and {high:g}; '{value}' does not.", name=name, low=float(allowed.low),
                             high=float(allowed.high), value=value)
    return defaults | given
