"""Rows that follow one another in time: does the answer drift or persist beyond what the inputs explain?"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.inspect.names import calendar_part, names_a_time
from assay.data.inspect.quick import out_of_fold, taught, telling
from assay.data.inspect.relate import drift, mean_over_groups, serial
from assay.data.inspect.view import Cells, View, ranks

STRETCHES, LENGTH = 40, 100  # of a long table: 40 stretches of 100 rows that follow one another
BLOCKS = 8
STRETCHES_OF_DRIFT = 20
_BIRTH = re.compile(r"birth|\bdob\b|born|built|founded|出生|生日|建成", re.IGNORECASE)


@dataclass(frozen=True)
class Course:
    """What speaks for an order of the rows. column: the one that says when, None: as they stand in the file.

    persists: correlation of the errors of consecutive rows, of a quick model with random folds; persists_ahead, drift_ahead: the
    same, and the share of the error variance between 20 stretches, where each block of time is answered by the other blocks.
    ages: by how much more a model of the first half errs on the second than one that was taught as many rows of both; ages_t: its t value.
    apart: `persists_ahead` between rows of different groups only (NaN: no group). trend: correlation of the errors with the place.
    sorted: the largest share of steps of the answer that go one way, or how seldom a label changes. flattery: error over blocks /
    error at random - 1. pairs: consecutive rows that were compared. inputs: columns that the quick model read.
    """

    column: str | None
    persists: float
    persists_ahead: float
    ages: float
    ages_t: float
    drift: float
    drift_ahead: float
    apart: float
    trend: float
    sorted: float
    flattery: float
    pairs: int
    inputs: int

    def sure(self, value: float) -> bool:
        return value * math.sqrt(max(self.pairs, 1)) >= 5

    @property
    def dated(self) -> bool:
        """Enough to split forward in time by a column that names a time."""
        drifts = self.drift_ahead * self.pairs / math.sqrt(2 * (STRETCHES_OF_DRIFT - 1))  # in standard errors of chance
        return (self.persists_ahead >= 0.1 and self.sure(self.persists_ahead)) or (self.drift_ahead >= 0.02 and drifts >= 6) or (
            self.ages >= 0.03 and self.ages_t >= 5)

    @property
    def clear(self) -> bool:
        """Enough to split forward in file order although no column says when. Files that were put together part by part are ordered too: of the open
        ones that are not sorted by their answer, satimage persists by 0.42, abalone drifts by 0.11, breast_cancer has a trend of 0.16."""
        if self.apart < 0.25 and self.trend < 0.28:  # (NaN is not below) the rows of one group stand together in the file: no course of time
            return False
        if self.inputs < 2:  # with nothing to explain it, any file that was put together part by part seems to run in time
            return False
        return self.sorted < 0.9 and any(value >= least and self.sure(value) for value, least in ((self.persists, 0.5), (self.drift, 0.2), (self.trend, 0.28)))


def absolute(data: Dataset) -> set[str]:
    """Columns that tell the moment itself; a quick model must not read them, or it would learn the drift that is looked for."""
    out = {c.name for c in data.schema.columns if c.kind == "time"}
    return out | {c.name for c in data.schema.columns if c.kind == "number" and (calendar_part(c.name) == 0 or _stamp(data.frame[c.name], c.name))}


def _stamp(series: pl.Series, name: str) -> bool:
    """Numbers that count time: a named epoch or running index."""
    if not names_a_time(name) or calendar_part(name) not in (None, 0, 4) or series.null_count():
        return False
    low, high = float(series.min() or 0), float(series.max() or 0)  # type: ignore[arg-type]
    if (low > 8e8 and high < 3e9) or (low > 8e11 and high < 3e12):
        return True
    return calendar_part(name) is None and bool((series == series.round()).all()) and series.n_unique() >= 0.8 * (high - low + 1) and high - low >= 30


def time_columns(data: Dataset) -> list[str]:
    """Columns a forward split can follow, the likeliest first: times without gaps, epochs, running indices, then a year."""
    schema, frame = data.schema, data.frame
    usable = [c.name for c in schema.columns if c.name != schema.target and frame[c.name].null_count() == 0 and not _BIRTH.search(c.name)]
    kinds = {c.name: c.kind for c in schema.columns}
    times = [n for n in usable if kinds[n] == "time" and frame[n].n_unique() >= 8]
    times.sort(key=lambda n: (not names_a_time(n), -frame[n].n_unique()))
    times = [n for i, n in enumerate(times) if not any(frame[n].equals(frame[m], check_names=False) for m in times[:i])]
    stamps = [n for n in usable if kinds[n] == "number" and _stamp(frame[n], n)]
    running = [n for n in usable if kinds[n] == "number" and n not in stamps and _runs(frame[n])]
    years = [n for n in usable if kinds[n] == "number" and calendar_part(n) == 0 and frame[n].n_unique() >= 4]
    return [*times[:3], *stamps[:1], *running[:1], *years[:1]]


def _runs(series: pl.Series) -> bool:
    """A whole number that goes up by one with every row, whatever it is called."""
    n = len(series)
    if n < 30 or series[0] is None or series[n - 1] is None or series[n - 1] - series[0] != n - 1:
        return False
    return bool((series.diff().drop_nulls() == 1).all())


def calendar(data: Dataset) -> list[str]:
    """Number columns that together tell the moment, coarse to fine: year, month, day, hour. Empty if there is no year, or no more than one part."""
    parts: dict[int, str] = {}
    for c in data.schema.columns:
        part = calendar_part(c.name) if c.kind == "number" and c.name != data.schema.target else None
        if part is not None and data.frame[c.name].null_count() == 0:
            parts.setdefault(part, c.name)
    return [parts[p] for p in sorted(parts)] if 0 in parts and len(parts) > 1 else []


def stands_in_order(data: Dataset, columns: list[str]) -> bool:
    """The rows stand in the file in the order of these columns, first one first."""
    earlier = np.zeros(max(len(data) - 1, 0), dtype=bool)  # this row is before the one above it
    same = ~earlier
    for name in columns:
        steps = np.diff(data.frame[name].cast(pl.Float64).to_numpy())
        earlier |= same & (steps < 0)
        same &= steps == 0
    return len(earlier) > 0 and float(earlier.mean()) <= 0.001


def course(data: Dataset, column: str | None, *, labels: bool, seed: int, group: str | None = None) -> Course:
    """Measure one order of the rows."""
    n = len(data)
    order = np.arange(n) if column is None else data.frame[column].to_frame().with_row_index("#").sort(column, maintain_order=True)["#"].to_numpy().astype(np.int64)
    if n > STRETCHES * LENGTH:
        starts = np.linspace(0, n - LENGTH, STRETCHES).astype(np.int64)
        rows = np.concatenate([order[s: s + LENGTH] for s in starts])
        run = np.repeat(np.arange(STRETCHES), LENGTH)
    else:
        rows, run = order, np.zeros(n, dtype=np.int64)
    view = _in_this_order(data, rows, labels, seed)
    y = view.numeric_y
    skip = absolute(data) | {column, group}
    inputs = telling([c for c in view.inputs if c.name not in skip and c.levels > 1 and not _climbs(c)], y)
    m = len(y)
    random = y - out_of_fold(inputs, y, np.random.default_rng(seed).integers(0, 5, m))
    ahead = y - out_of_fold(inputs, y, np.arange(m) * BLOCKS // m)
    persists, pairs = serial(random, run)
    apart = float("nan")
    if group is not None:
        apart, across = serial(ahead, run, apart=view.cells[group].codes)
        apart = apart if across >= 100 else 0.0
    loss = [float((e**2).sum()) for e in (random, ahead)]
    ages, ages_t = _ages(inputs, y, seed) if column is not None else (0.0, 0.0)
    return Course(column, persists, serial(ahead, run)[0], ages, ages_t, drift(random, STRETCHES_OF_DRIFT), drift(ahead, STRETCHES_OF_DRIFT), apart, _trend(random), _sortedness(view, run),
                  loss[1] / loss[0] - 1 if loss[0] > 0 else 0.0, pairs, len(inputs))


def _ages(inputs: list[Cells], y: np.ndarray, seed: int) -> tuple[float, float]:
    """(share, t) by which the loss on the second half grows if only the first half teaches, instead of as many rows of both halves."""
    n = len(y)
    late = np.arange(n) >= n // 2
    side = np.random.default_rng(seed).random(n) < 0.5
    ahead = ((y - taught(inputs, y, ~late))[late] ** 2).sum(axis=1)
    both = np.where(side[late], *(((y - taught(inputs, y, mine))[late] ** 2).sum(axis=1) for mine in (~side, side)))
    stretch = np.arange(len(ahead)) * STRETCHES_OF_DRIFT // len(ahead)
    mean, t = mean_over_groups(ahead - both, stretch)
    return mean / max(float(both.mean()), 1e-12), float(np.clip(t, -99, 99))


def _trend(residual: np.ndarray) -> float:
    """Correlation of residual columns (n, k) with the row number, without its sign, all columns together."""
    n = len(residual)
    centred = residual - residual.mean(axis=0)
    place = (np.arange(n) - (n - 1) / 2) / math.sqrt((n * n - 1) / 12)
    power = float((centred**2).mean(axis=0).sum())
    return math.sqrt(float(((place @ centred / n) ** 2).sum()) / power) if power > 0 else 0.0


def _in_this_order(data: Dataset, rows: np.ndarray, labels: bool, seed: int) -> View:
    frame = data.frame[rows]
    return View.of(Dataset(frame, data.schema), labels=labels, seed=seed, rows=np.arange(len(rows)))


def _climbs(cells: Cells) -> bool:
    """A number that goes one way in this order, from beginning to end: another clock, not an input. One that begins anew now and then is none."""
    if cells.nominal:
        return False
    present = cells.values[~cells.missing]
    steps = np.diff(present)
    moved = steps[steps != 0]
    if len(moved) <= 0.02 * len(steps) or max((moved > 0).mean(), (moved < 0).mean()) <= 0.98:
        return False
    return abs(float(np.corrcoef(ranks(present), np.arange(len(present)))[0, 1])) > 0.9


def _sortedness(view: View, run: np.ndarray) -> float:
    """1 where the file is sorted by the answer: an order that time did not make."""
    inside = run[1:] == run[:-1]
    if view.labels:
        return serial(view.numeric_y, run)[0]
    steps = np.diff(view.y)[inside]
    moved = steps[steps != 0]
    return float(max((moved > 0).mean(), (moved < 0).mean())) if len(moved) > 20 else 1.0
