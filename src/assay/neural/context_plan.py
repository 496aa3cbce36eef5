"""How many rows a model is shown, and how many views of them: what memory holds and, where a clock runs, what the time allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from assay.words import Text, say

VIEWS = 8  # what TabICL and TabPFN take by default: each view shuffles columns and labels and scales otherwise
LEAST_ROWS = 32
ROWS_WITHOUT_CLOCK = 2000
SMALL, LARGER = 64, 256  # rows of the two trial contexts
ASKED = 96  # rows that a trial context answers; of fewer, what a call costs whatever it asks would seem to be theirs
CACHE_SHARE = 0.25  # of the memory, for keys and values of the shown rows; while they are joined they take twice that
CELLS_SHARE = 0.35  # of the memory, for the numbers inside the network while it reads one view
CELL_BYTES = 6000  # per cell of the context and 128 numbers of width: measured 5.5 kB for TabICL 2 and 4.5 kB for TabPFN 2.5 (2,000 x 100 and 1,000 x 100)
BUILD_SHARE = 0.35  # of a fit's time: the model is built twice more in its trial, on all rows and from its own dump
ANSWER_SHARE = 0.8  # of the time set aside for the test rows


class Shown(Protocol):
    """A model that has been shown rows."""

    @property
    def cache_bytes(self) -> int: ...

    def answer(self, x: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Plan:
    """rows: how many are shown. views: passes over them whose answers are averaged. whole: all the rows that there were."""

    rows: int
    views: int
    whole: bool
    row_s: float = 0.0  # seconds a row to answer, foreseen; 0 without a clock

    def json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """One context of `rows` rows and one view: seconds to build it, seconds to answer one row, bytes it keeps."""

    rows: int
    build_s: float
    row_s: float
    bytes: int


def most_rows(there: int, width: int, *, limit: int, size: int, memory_mb: float) -> int:
    """Rows that may be shown at all. width: columns. limit: what the weights were made for. size: width of the network."""
    cells = CELLS_SHARE * memory_mb * 1e6 / (CELL_BYTES * max(size, 16) / 128)
    return max(min(there, limit, int(cells / max(width, 1))), min(there, LEAST_ROWS))


def planned(show: Callable[[int], Shown], asked: np.ndarray, *, most: int, there: int, views: int, budget: Any) -> Plan | Text:
    """The largest context that memory and time allow, or the reason why even the smallest is too slow.

    show(n): the model, shown the first n rows in one view. asked: rows to answer in a trial. most: from `most_rows`. there: the
    rows that there are. views: at most so many; a work budget of fewer passes takes fewer.
    Rows count for more than views: with a full context the views are halved down to 2 before rows are given up. Without a
    clock (infinite seconds) nothing is timed, and at most 2,000 rows are shown.
    """
    timed = math.isfinite(budget.seconds)
    asked = asked[np.arange(ASKED) % len(asked)] if timed else asked[:1]
    first = _trial(show, min(SMALL, most), asked, timed=timed)
    last = first
    if most > SMALL and (not timed or first.build_s * (LARGER / SMALL) ** 1.3 < 0.25 * budget.left()):
        last = _trial(show, min(LARGER, most), asked, timed=timed)
    if not timed:
        most = min(most, ROWS_WITHOUT_CLOCK)
    each = (last.bytes - first.bytes) / max(last.rows - first.rows, 1) if last.rows > first.rows else last.bytes / last.rows
    build_power, row_power = (1.5, 0.5) if last is first else (_power(first, last, "build_s", 1.0, 2.0), _power(first, last, "row_s", 0.0, 1.0))
    views = max(1, min(views, budget.passes or views))
    spare = BUILD_SHARE * budget.left()
    foreseen = last
    for rows, passes in _choices(most, views):
        if (last.bytes + each * (rows - last.rows)) * passes > CACHE_SHARE * budget.memory_mb * 1e6:
            continue
        if not timed:
            return Plan(rows, passes, rows == there)
        grown = rows / last.rows
        foreseen = Trial(rows, last.build_s * passes * grown**build_power, last.row_s * passes * grown**row_power, 0)
        if foreseen.build_s <= spare and foreseen.row_s * budget.predict_rows <= ANSWER_SHARE * budget.predict_seconds:
            return Plan(rows, passes, rows == there, foreseen.row_s)
    if not timed:
        return Plan(min(most, LEAST_ROWS), 1, False)
    return say(
        "shown only {rows} rows it would need {fit:.1f} s, and {answer:.1f} s to answer {asked} rows; there are {fit_there:.1f} s and {answer_there:.1f} s",
        rows=foreseen.rows, fit=foreseen.build_s, answer=foreseen.row_s * budget.predict_rows, asked=budget.predict_rows,
        fit_there=max(spare, 0.0), answer_there=ANSWER_SHARE * budget.predict_seconds,
    )


def _choices(most: int, views: int) -> Iterator[tuple[int, int]]:
    """(rows, views), the best first."""
    fewest = min(2, views)
    while views > fewest:
        yield most, views
        views = max(views // 2, fewest)
    rows = most
    while rows > min(most, LEAST_ROWS):
        yield rows, fewest
        rows = max(int(rows * 0.75), min(most, LEAST_ROWS))
    for passes in (fewest, 1)[: fewest]:
        yield rows, passes


def _trial(show: Callable[[int], Shown], rows: int, asked: np.ndarray, *, timed: bool) -> Trial:
    """timed: twice, the faster counts; the first time opens libraries, and anything else on the machine can only slow it down."""
    built, answered = math.inf, math.inf
    for _ in range(2 if timed else 1):
        begin = time.monotonic()
        shown = show(rows)
        between = time.monotonic()
        shown.answer(asked)
        built, answered = min(built, between - begin), min(answered, time.monotonic() - between)
    return Trial(rows, built, answered / len(asked), shown.cache_bytes)


def _power(first: Trial, last: Trial, what: str, low: float, high: float) -> float:
    """The exponent by which `what` grows with rows, within low and high."""
    ratio = max(getattr(last, what), 1e-9) / max(getattr(first, what), 1e-9)
    return float(np.clip(math.log(ratio) / math.log(last.rows / first.rows), low, high))
