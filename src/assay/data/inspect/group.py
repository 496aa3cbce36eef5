"""Columns whose rows belong together - patients, machines, schools, batches - so that a random split would flatter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.inspect.names import ambiguous, names_a_fold, names_a_unit
from assay.data.inspect.quick import design, nearest, out_of_fold, telling
from assay.data.inspect.relate import agreement, intraclass, mean_over_groups
from assay.data.inspect.view import Cells, View

ROWS = 4000  # looked at for one candidate column, whole groups where they are small
MOST_A_GROUP = 80
IDENTICAL = 0.6  # share of rows whose nearest other row is of the same group; the neighbourhoods of ames reach 0.63, but are named as places
MOST_NAMED, MOST_UNNAMED = 6, 3  # candidates measured with models; the bound is on work, not on time, so that a busy machine decides the same
EXACT = 100_000  # rows whose different values are counted; of longer columns they are estimated (HyperLogLog, 2 %)
MOST_SCREENED = 12  # columns without a telling name of a large table; each costs a pass over it


@dataclass(frozen=True)
class Grouping:
    """What speaks for splitting by one column. named: see names_a_unit. alike: intraclass correlation of the answer.

    neighbour: share of rows whose nearest other row has the same value; by_chance: the share to expect. random, grouped:
    mean squared error relative to the variance, of a quick model whose folds are random (where a telling name says that the
    values are units, it may know them too) or keep groups whole. flattery: grouped / random - 1, t: its t value over groups.
    constant: number columns that never change inside a group. fixed_answer: nor does the answer.
    """

    column: str
    named: int
    levels: int
    rows_a_level: float
    alike: float
    neighbour: float
    by_chance: float
    random: float
    grouped: float
    t: float
    constant: tuple[str, ...]
    fixed_answer: bool
    rows: int

    @property
    def flattery(self) -> float:
        return self.grouped / self.random - 1 if self.random > 0 else 0.0

    @property
    def clear(self) -> bool:
        """Enough to change the split. Thresholds: see docs/calibration.md, Findings."""
        identical = self.neighbour >= IDENTICAL and self.by_chance <= 0.1
        if self.alike < 0.05 and self.neighbour - self.by_chance < 0.1:
            return False
        dependent = self.alike >= 5 * math.sqrt(2 / (self.rows * max(self.rows_a_level - 1, 0.1)))  # five standard errors of chance
        if self.named == 2:  # a name that says so, and answers that are alike: then the rows are not independent, whether or not a quick model can use it
            return (self.levels >= (5 if self.neighbour - self.by_chance >= 0.1 else 10) and self.t >= 3 and self.flattery >= 0.03) or (
                self.levels >= 10 and self.rows_a_level >= 1.5 and self.alike >= 0.2 and dependent)
        if self.named == 1 and self.levels >= 20 and self.alike >= 0.4 and dependent and self.constant and self.neighbour - self.by_chance >= 0.1:
            return True
        if self.named == 1:
            return self.levels >= 20 and self.t >= 5 and self.flattery >= 0.08 and (self.neighbour >= 0.4 or self.alike >= 0.15)
        if self.named == -1:
            return self.levels >= 20 and self.t >= 6 and self.flattery >= 0.25 and self.neighbour >= 0.9 and bool(self.constant)
        surely = 3 if self.neighbour >= 0.7 and self.alike >= 0.7 else 5
        return self.levels >= 10 and self.t >= surely and self.flattery >= 0.15 and identical and (self.alike >= 0.1 or bool(self.constant))


def groupings(data: Dataset, *, labels: bool, seed: int) -> list[Grouping]:
    """What the likeliest group columns show, measured on samples of `data`, whose answers are all there."""
    named, others = [], []
    for column in data.schema.columns:
        name = column.name
        if name == data.schema.target or column.kind not in ("category", "id", "number") or names_a_fold(name):
            continue
        series = data.frame[name]
        if column.kind == "number":
            some = series.head(5000).drop_nulls()
            if not len(some) or not bool((some == some.round()).all()):
                continue
        levels = (series.n_unique() if len(series) <= EXACT else int(series.approx_n_unique())) - (series.null_count() > 0)  # type: ignore[arg-type]
        if 5 <= levels <= 0.8 * len(data) and series.null_count() <= 0.2 * len(data):
            rank = names_a_unit(name)
            if rank == 2 and ambiguous(name) and series.dtype == pl.String and not _keys(series):
                rank = 0
            if rank > 0:
                named.append((rank, name, levels))
            elif 10 <= levels <= len(data) / 2 and len(data) / levels <= 500:
                others.append((rank, name, levels))
    named = sorted(named, key=lambda item: -item[0])[:MOST_NAMED]
    if len(data) > 5 * ROWS:
        others = sorted(others, key=lambda item: -item[2])[:MOST_SCREENED]
    kept = []
    whole = View.of(data, labels=labels, seed=seed) if len(data) <= 5 * ROWS and others else None
    for item in others:
        view = whole or View.of(data, labels=labels, seed=seed, rows=rows_by_group(data, item[1], item[2], seed))
        if (alike := _inputs_alike(view, item[1])) >= 0.6:
            kept.append((alike, item))
    chosen = named + [item for _, item in sorted(kept, key=lambda pair: -pair[0])[:MOST_UNNAMED]]
    return [_measure(View.of(data, labels=labels, seed=seed, rows=rows_by_group(data, name, levels, seed)), name, rank, levels)
            for rank, name, levels in chosen]


def _keys(series: pl.Series) -> bool:
    """Values such as S07 or 1203, not words."""
    some = series.head(5000).drop_nulls().unique()
    return len(some) > 0 and int(some.str.contains(r"\d").sum()) >= 0.5 * len(some)


def rows_by_group(data: Dataset, name: str, levels: int, seed: int) -> np.ndarray:
    """Row numbers of some whole groups (at most MOST_A_GROUP rows of each), in file order, about ROWS in all."""
    rng = np.random.default_rng(seed)
    series = data.frame[name]
    n = len(data)
    if n > 20 * ROWS:
        kinds = series.drop_nulls().unique(maintain_order=True)
        some = kinds.gather(np.sort(rng.choice(len(kinds), min(len(kinds), max(20, 4 * ROWS * levels // n)), replace=False)))
        rows = np.flatnonzero(series.is_in(some.implode()).to_numpy())
    else:
        rows = np.flatnonzero(series.is_not_null().to_numpy())
    codes = np.unique(series.gather(rows).rank("dense").to_numpy(), return_inverse=True)[1]
    dealt = rng.permutation(len(rows))
    order = dealt[np.argsort(codes[dealt], kind="stable")]
    sizes = np.bincount(codes)
    within = np.arange(len(rows)) - np.repeat(np.r_[0, np.cumsum(sizes)[:-1]], sizes)
    kept = order[within < MOST_A_GROUP]
    few = np.minimum(sizes, MOST_A_GROUP)
    shuffled = rng.permutation(len(sizes))
    enough = shuffled[np.cumsum(few[shuffled]) <= max(ROWS, 20 * MOST_A_GROUP)]
    chosen = np.zeros(len(sizes), dtype=bool)
    chosen[enough] = True
    return np.sort(rows[kept[chosen[codes[kept]]]])


def _inputs_alike(view: View, name: str, most: int = 10) -> float:
    """How little most inputs differ inside the levels of a column: the upper quartile of their intraclass correlations, 0 if half of them are below 0.4."""
    group = view.cells[name].codes
    others = [c for c in view.inputs if c.name != name and c.levels > 2]
    if len(others) > most:
        others = [others[i] for i in np.random.default_rng(view.seed).choice(len(others), most, replace=False)]
    if not others or group.max() < 9:
        return 0.0
    alike = np.array([agreement(c.codes, group) if c.nominal else intraclass(_filled(c), group) for c in others])
    return float(np.quantile(alike, 0.75)) if np.median(alike) >= 0.4 else 0.0


def _filled(cells: Cells) -> np.ndarray:
    return np.nan_to_num(cells.values, nan=float(np.nanmedian(cells.values)) if not cells.missing.all() else 0.0)


def _measure(view: View, name: str, rank: int, levels: int) -> Grouping:
    rng = np.random.default_rng(view.seed)
    group = view.cells[name].codes
    inputs, constant = [], []
    for cells in view.inputs:
        if cells.name == name or cells.levels < 2:
            continue
        if agreement(cells.codes, group) > 0.99:
            if agreement(group, cells.codes) > 0.99 and cells.nominal:
                continue  # another name of the same groups
            if not cells.nominal and cells.levels > 0.3 * (group.max() + 1):
                constant.append(cells.name)
        inputs.append(cells)
    y = view.numeric_y
    alike = agreement(view.y.astype(np.int64), group) if view.labels else intraclass(y[:, 0], group)
    sizes = np.bincount(group)
    chance = float((sizes * (sizes - 1.0)).sum()) / max(len(group) * (len(group) - 1.0), 1.0)
    share = 0.0
    if inputs:
        near = design(inputs)[1]
        copies = np.unique(near.round(4), axis=0, return_inverse=True)[1].ravel()
        share = float((group[nearest(near, apart=copies)] == group).mean())
    if rank <= 0 and share < IDENTICAL:  # without a telling name nothing less is enough
        return Grouping(name, rank, levels, len(view.data) / levels, alike, share, chance, 1.0, 1.0, 0.0, tuple(constant), alike >= 0.99, len(group))
    chosen = telling(inputs, y)
    folds = min(5, int(group.max()) + 1)
    dealt = np.empty(group.max() + 1, dtype=np.int64)
    dealt[rng.permutation(group.max() + 1)] = np.arange(group.max() + 1) % folds
    dealt_rows = rng.integers(0, folds, len(group))
    residual = [y - out_of_fold(chosen, y, fold, neighbours=5) for fold in (dealt_rows, dealt[group])]
    if rank == 2:  # a random split lets a model know the patient himself
        known = residual[0] - _level(residual[0], group, dealt_rows)
        residual[0] = min(residual[0], known, key=lambda e: float((e**2).sum()))
    errors = [(e**2).sum(axis=1) for e in residual]
    scale = float(((y - y.mean(axis=0)) ** 2).sum(axis=1).mean()) or 1.0
    t = mean_over_groups(errors[1] - errors[0], group)[1]
    return Grouping(name, rank, levels, len(view.data) / levels, alike, share, chance, float(errors[0].mean()) / scale, float(errors[1].mean()) / scale, t,
                    tuple(constant), alike >= 0.99, len(group))


def _level(residual: np.ndarray, group: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Mean residual (n, k) of the rows of the same group in other folds, shrunk as if two more rows were 0."""
    folds = int(fold.max()) + 1
    cell = group * folds + fold
    cells = (int(group.max()) + 1) * folds
    count = np.bincount(cell, minlength=cells).reshape(-1, folds)
    sums = np.stack([np.bincount(cell, weights=column, minlength=cells) for column in residual.T], axis=1).reshape(-1, folds, residual.shape[1])
    rest = (sums.sum(axis=1, keepdims=True) - sums) / (count.sum(axis=1, keepdims=True) - count + 2.0)[:, :, None]
    return rest[group, fold]
