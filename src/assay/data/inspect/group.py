"""Columns whose rows belong together - patients, machines, schools, batches - so that a random split would flatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.data.dataset import Dataset
from assay.data.inspect.names import names_a_fold, names_a_unit
from assay.data.inspect.quick import design, nearest, out_of_fold, telling
from assay.data.inspect.relate import agreement, intraclass, mean_over_groups
from assay.data.inspect.view import Cells, View

ROWS = 4000  # looked at for one candidate column, whole groups where they are small
MOST_A_GROUP = 80
MOST_TRIED = 5


@dataclass(frozen=True)
class Grouping:
    """What speaks for splitting by one column. named: see names_a_unit. alike: intraclass correlation of the answer.

    neighbour: share of rows whose nearest other row has the same value; by_chance: the share to expect. random, grouped:
    mean squared error relative to the variance, of a quick model whose folds are random or keep groups whole. flattery:
    grouped / random - 1, t: its t value over groups. constant: number columns that never change inside a group.
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
    contiguous: float
    fixed_answer: bool

    @property
    def flattery(self) -> float:
        return self.grouped / self.random - 1 if self.random > 0 else 0.0

    @property
    def clear(self) -> bool:
        """Enough to change the split. Thresholds: see docs/calibration.md, Findings."""
        identical = self.neighbour >= 0.8 and self.by_chance <= 0.2
        if self.alike < 0.05 and self.neighbour - self.by_chance < 0.1:
            return False
        if self.named == 2:
            return self.levels >= 5 and self.t >= 3 and self.flattery >= 0.03
        if self.named == 1:
            return self.levels >= 20 and self.t >= 5 and self.flattery >= 0.08 and (self.neighbour >= 0.4 or self.alike >= 0.15)
        if self.named == -1:
            return self.levels >= 20 and self.t >= 6 and self.flattery >= 0.25 and identical and bool(self.constant)
        return self.levels >= 10 and self.t >= 5 and self.flattery >= 0.15 and identical and (self.alike >= 0.1 or bool(self.constant))


def groupings(view: View, *, late: float) -> list[Grouping]:
    """Candidates, the likeliest first. view: the whole data or a sample of it in file order, only for its names and kinds."""
    data = view.data
    named = []
    for column in data.schema.columns:
        if column.name == data.schema.target or column.kind not in ("category", "id", "number") or names_a_fold(column.name):
            continue
        series = data.frame[column.name]
        if column.kind == "number":
            some = series.drop_nulls().head(2000)
            if not len(some) or not bool((some == some.round()).all()):
                continue
        levels = series.n_unique() - (series.null_count() > 0)
        if 5 <= levels <= 0.8 * len(data) and series.null_count() <= 0.2 * len(data):
            named.append((names_a_unit(column.name), column.name, levels))
    found = []
    named.sort(key=lambda item: (-abs(item[0] - 0.5), -item[0]))
    tried = 0
    for rank, name, levels in sorted(named, key=lambda item: -item[0]):
        if view.late(-late) or (tried >= MOST_TRIED and rank <= 0):
            break
        seen = rows_by_group(data, name, levels, view.seed)
        looked = View.of(data, labels=view.labels, seed=view.seed, rows=seen)
        if rank <= 0 and not _unit_like(looked, name, levels, len(data)):
            continue
        tried += 1
        found.append(_measure(looked, name, rank, levels, len(data)))
    return found


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


def _unit_like(view: View, name: str, levels: int, n: int) -> bool:
    """A column without a telling name: do most inputs hardly differ inside its levels?"""
    if not 10 <= levels <= n / 2 or n / levels > 500:
        return False
    group = view.cells[name].codes
    others = [c for c in view.inputs if c.name != name and c.levels > 2]
    if not others or group.max() < 9:
        return False
    alike = np.array([agreement(c.codes, group) if c.nominal else intraclass(_filled(c), group) for c in others])
    return bool(np.quantile(alike, 0.75) >= 0.6) and bool(np.median(alike) >= 0.4)


def _filled(cells: Cells) -> np.ndarray:
    return np.nan_to_num(cells.values, nan=float(np.nanmedian(cells.values)) if not cells.missing.all() else 0.0)


def _measure(view: View, name: str, rank: int, levels: int, n: int) -> Grouping:
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
    chosen = telling(inputs, y)
    folds = min(5, int(group.max()) + 1)
    dealt = np.empty(group.max() + 1, dtype=np.int64)
    dealt[rng.permutation(group.max() + 1)] = np.arange(group.max() + 1) % folds
    errors = [((y - out_of_fold(chosen, y, fold, neighbours=5)) ** 2).sum(axis=1) for fold in (rng.integers(0, folds, len(group)), dealt[group])]
    scale = float(((y - y.mean(axis=0)) ** 2).sum(axis=1).mean()) or 1.0
    t = mean_over_groups(errors[1] - errors[0], group)[1]
    whole = view.data.frame[name]
    contiguous = float((whole[1:] == whole[:-1]).mean() or 0.0)  # type: ignore[arg-type]
    return Grouping(name, rank, levels, n / levels, alike, share, chance, float(errors[0].mean()) / scale, float(errors[1].mean()) / scale, t,
                    tuple(constant), contiguous, alike >= 0.99)
