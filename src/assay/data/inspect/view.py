"""The rows as every inspection sees them: a sample in file order, each column as one float array, the answer as codes or amounts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset

MOST_ROWS = 20_000  # looked at; a share known from so many rows is off by at most 0.7 points (95 %)
MOST_CELLS = 2_000_000  # of wide tables fewer rows are looked at, but at least 2,000
WHOLE_CELLS = 30_000_000  # copies are looked for among so many rows that no more cells are hashed: about a second


@dataclass(frozen=True)
class Cells:
    """One column. values: float64 (n,), NaN where empty; labels are codes in the order of their first row. nominal: codes have no order."""

    column: Column
    values: np.ndarray
    nominal: bool
    levels: int

    @property
    def name(self) -> str:
        return self.column.name

    @cached_property
    def missing(self) -> np.ndarray:
        return np.isnan(self.values)

    @cached_property
    def whole(self) -> bool:
        present = self.values[~self.missing]
        return bool((present == np.round(present)).all())

    @cached_property
    def codes(self) -> np.ndarray:
        """int (n,): equal values share a code, empty cells share one of their own."""
        return np.unique(np.nan_to_num(self.values, nan=np.inf), return_inverse=True)[1]

    def of(self, rows: np.ndarray) -> Cells:
        return replace(self, values=self.values[rows])


@dataclass(frozen=True)
class View:
    """frame: the sampled rows in file order. rows: their numbers in the whole, from 0. y: class codes or amounts, float64 (n,)."""

    data: Dataset
    frame: pl.DataFrame = field(repr=False)
    rows: np.ndarray
    y: np.ndarray
    classes: tuple[object, ...]
    labels: bool
    seed: int
    deadline: float

    @classmethod
    def of(cls, data: Dataset, *, labels: bool, seed: int, seconds: float = 60.0, rows: np.ndarray | None = None) -> View:
        """rows: which to look at; None: all, or a random MOST_ROWS of them. Rows without an answer are left away."""
        if rows is None:
            n, most = len(data), min(MOST_ROWS, max(2000, MOST_CELLS // max(data.frame.width, 1)))
            rows = np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
        frame = data.frame[rows] if len(rows) < len(data) else data.frame
        answer = frame[data.y.name]
        there = answer.is_not_null().to_numpy()
        if not there.all():
            frame, rows, answer = frame.filter(there), rows[there], answer.filter(there)
        if labels:
            kinds = answer.unique().sort()
            y = answer.replace_strict(kinds, np.arange(len(kinds)), return_dtype=pl.Float64).to_numpy() if len(kinds) else np.zeros(0)
            classes = tuple(kinds.to_list())
        else:
            y, classes = answer.cast(pl.Float64).to_numpy(), ()
        return cls(data, frame, rows, y, classes, labels, seed, time.monotonic() + seconds)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def whole(self) -> bool:
        return len(self.rows) == len(self.data)

    def late(self, reserve_s: float = 0.0) -> bool:
        return time.monotonic() > self.deadline - reserve_s

    @cached_property
    def cells(self) -> dict[str, Cells]:
        """Every column but the target, by name."""
        return {c.name: cells_of(self.frame[c.name], c) for c in self.data.schema.columns if c.name != self.data.schema.target}

    @cached_property
    def inputs(self) -> list[Cells]:
        """What a model may read, texts apart."""
        return [self.cells[c.name] for c in self.data.schema.features if c.kind != "text"]

    @cached_property
    def numeric_y(self) -> np.ndarray:
        """The answer as columns to average: (n, classes) of 0 and 1, at most 20 classes (the rest share one), or (n, 1) ranks in 0-1.

        Ranks, because one huge amount would otherwise be the whole variance.
        """
        if not self.labels:
            return ranks(self.y)[:, None]
        codes = self.y.astype(np.int64)
        counts = np.bincount(codes, minlength=1)
        kept = np.argsort(-counts, kind="stable")[:20]
        place = np.full(len(counts), len(kept))
        place[kept] = np.arange(len(kept))
        out = np.zeros((len(codes), len(kept) + 1))
        out[np.arange(len(codes)), place[codes]] = 1.0
        return out[:, : len(kept)] if len(counts) <= 20 else out


def whole_or_head(data: Dataset) -> Dataset:
    """All rows, or of a very large table as many as can be hashed in about a second; the first ones, because copies often stand together."""
    most = WHOLE_CELLS // max(data.frame.width, 1)
    return data if len(data) <= most else Dataset(data.frame.head(most), data.schema)


def cells_of(series: pl.Series, column: Column) -> Cells:
    if column.kind == "number":
        values = series.cast(pl.Float64).to_numpy()
        return Cells(column, values, False, series.n_unique() - (series.null_count() > 0))
    if column.kind == "time":
        values = series.dt.epoch("us").cast(pl.Float64).to_numpy() / 86_400e6
        return Cells(column, values, False, series.n_unique() - (series.null_count() > 0))
    codes = _first_seen(series)
    return Cells(column, codes, True, int(np.nanmax(codes, initial=-1.0)) + 1)


def _first_seen(series: pl.Series) -> np.ndarray:
    kinds = series.drop_nulls().unique(maintain_order=True)
    if not len(kinds):
        return np.full(len(series), np.nan)
    return series.replace_strict(kinds, np.arange(len(kinds)), default=None, return_dtype=pl.Float64).to_numpy()


def ranks(values: np.ndarray) -> np.ndarray:
    """Average ranks scaled to 0-1, shape (n,); equal values share one."""
    kinds, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - (counts + 1) / 2) / max(len(values) - 1, 1))[place] if len(kinds) else values
