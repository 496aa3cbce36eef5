"""Series that add up: totals over what is the same throughout each series (a region, a kind of product), and forecasts of all of them that add up as well."""

from __future__ import annotations

import numpy as np

from assay.data.dataset import Dataset
from assay.data.grid import steps_since
from assay.data.history import TOTAL, About, histories, is_total, origins_of
from assay.data.series import Collection, Series
from assay.errors import InputError
from assay.words import Text, say

MOST_BOTTOM = 3000  # series above which totals are added up from below: the equations of all would fill the memory


def with_totals(found: Collection, columns: tuple[str, ...], notes: list[Text]) -> Collection:
    """The series, and one for each value of each of `columns`, and one for all of them. A step's total is the sum of what is known of it.

    Raises InputError if a column is not the same throughout each series.
    """
    for name in columns:
        if name not in found.kinds:
            raise InputError("'{name}' cannot group the series: it is not there, or it changes within a series. There are: {columns}.", name=name, columns=sorted(found.kinds) or ["–"])
    if any(is_total(s.id) for s in found.series):
        raise InputError("The name of a series holds '=' or is '*', which is how totals are called. Rename it, or leave --hierarchy out.")
    out = list(found.series)
    groups = [(TOTAL, None, None)] + [(f"{c}={_label(v)}", c, v) for c in columns for v in dict.fromkeys(s.static.get(c) for s in found.series) if v is not None]
    for name, column, value in groups:
        members = [s for s in found.series if column is None or s.static.get(column) == value]
        out.append(_sum(name, members, found, {c: value if c == column else None for c in found.kinds}))
    notes.append(say("{n:,} totals by {columns} and over all are forecast as well, and what is handed out adds up.", n=len(groups), columns=list(columns)))
    return Collection(out, found.names, found.known, found.frequency, found.value, found.by or "id", found.time, found.kinds)


def _sum(name: str, members: list[Series], found: Collection, static: dict[str, object]) -> Series:
    starts = [s.start for s in members if s.start is not None]
    first = min(starts) if starts else None
    begin = [int(steps_since(np.array([s.start]), first, found.frequency)[0][0]) if s.start is not None and first is not None else 0 for s in members]
    size = max(b + len(s.values) for b, s in zip(begin, members, strict=True))
    longest = max(b + len(s.covariates) for b, s in zip(begin, members, strict=True))
    total, count = np.zeros(size), np.zeros(size)
    beside, seen = np.zeros((longest, len(found.names))), np.zeros((longest, len(found.names)))
    for b, s in zip(begin, members, strict=True):
        known = np.isfinite(s.values)
        total[b : b + len(s.values)] += np.where(known, s.values, 0.0)
        count[b : b + len(s.values)] += known
        there = np.isfinite(s.covariates)
        beside[b : b + len(s.covariates)] += np.where(there, s.covariates, 0.0)
        seen[b : b + len(s.covariates)] += there
    values = np.where(count > 0, total, np.nan)
    return Series(name, values, np.where(seen > 0, beside / np.maximum(seen, 1), np.nan), first, static)


def coherent(cube: np.ndarray, asked: Dataset) -> np.ndarray:
    """Quantiles (n, h, q) of which the medians of totals are the sums of those of their series; quantiles move with their medians.

    MinT with variances from the forecasts' own spread (Wickramasuriya et al. 2019, doi:10.1080/01621459.2018.1448825), by origin; an origin at which series are missing
    stays as it is. Above 3,000 series totals are added up from below.
    """
    about = About.of(asked.schema)
    if about is None or not about.hierarchy:
        return cube
    rows = histories(asked)
    at = origins_of(asked)
    out, middle = cube.copy(), cube.shape[2] // 2
    nodes = len({one.id for one in rows})
    for origin in np.unique(at):
        some = np.flatnonzero(at == origin)
        if len(some) != nodes:
            continue
        bottom = [i for i in some if not is_total(rows[i].id)]
        sums = np.array([[rows[i].id in (TOTAL, rows[j].id) or _within(rows[i].id, rows[j].static) for j in bottom] for i in some], dtype=np.float64)
        base = cube[some, :, middle]
        spread = (cube[some, :, -1] - cube[some, :, 0]).mean(axis=1)
        weight = 1 / np.maximum(spread, 1e-3 * max(float(np.median(spread)), 1e-9)) ** 2
        if len(bottom) > MOST_BOTTOM:
            solved = cube[bottom, :, middle]
        else:
            left = sums.T * weight
            solved = np.linalg.solve(left @ sums, left @ base)
        out[some] += (sums @ solved - base)[:, :, None]
    return out


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _within(name: str, static: dict[str, object]) -> bool:
    column, equals, value = name.partition("=")
    return bool(equals) and _label(static.get(column)) == value
