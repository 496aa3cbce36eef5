"""A table of time stamps and values as series on an even grid: long (id, time, value, covariates) or wide (one series a row, one step a column)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.values import numbers, times
from assay.errors import InputError
from assay.words import Text, say

MOST_COVARIATES, MOST_STEPS = 24, 5_000_000
SPARSE = 20  # a grid with so many steps for each value is no series of measurements
_UNITS = ((86400 * 7, "w"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_PARTS = ("year", "month", "day", "hour", "minute")
_NAMES = {"year": ("year", "yr", "年", "年份"), "month": ("month", "mnth", "mon", "月", "月份"), "day": ("day", "dom", "日"), "hour": ("hour", "hr", "hh", "小时"),
          "minute": ("minute", "min", "分钟")}
_STEP = re.compile(r".*?(\d{1,9})$")


@dataclass(frozen=True)
class Series:
    """One series on its grid. values: (t,), NaN where a step is missing. covariates: (t + what is known ahead, p). start: time of the first step, or None."""

    id: str
    values: np.ndarray
    covariates: np.ndarray
    start: np.datetime64 | None
    static: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Collection:
    """series: in the order of the file. names: of the covariates; known: those of them that are known ahead. frequency: as polars writes it, '' where steps
    have no time. kinds: of the static columns."""

    series: list[Series]
    names: tuple[str, ...]
    known: tuple[str, ...]
    frequency: str
    value: str
    by: str | None
    time: str | None
    kinds: dict[str, str] = field(default_factory=dict)


def is_wide(names: list[str], target: str | None) -> bool:
    """One series a row: nearly all columns are numbered or named by a time, and none of them is the target."""
    stepped = [n for n in names if _STEP.fullmatch(n)]
    stems = {n[: _STEP.fullmatch(n).start(1)] for n in stepped}  # type: ignore[union-attr]
    return (target is None or target not in names) and len(stepped) >= 8 and len(stepped) >= 0.8 * len(names) and len(stems) <= 2


def wide(frame: pl.DataFrame, notes: list[Text]) -> Collection:
    """frame: as read, one series a row. The first column names the series where it is no step; trailing blanks are no steps."""
    names = frame.columns
    first = frame[names[0]]
    named = first.dtype == pl.String and numbers(first.drop_nulls().head(50)).bad is not None
    steps = names[1:] if named else names
    dates = _named_times(steps)
    values = np.column_stack([_floats(frame[n]) for n in steps]) if steps else np.zeros((frame.height, 0))
    ids = first.cast(pl.String).to_list() if named else [str(i + 1) for i in range(frame.height)]
    _unique(ids)
    out = []
    for name, row in zip(ids, values, strict=True):
        there = np.flatnonzero(np.isfinite(row))
        length = int(there[-1]) + 1 if len(there) else 0
        out.append(Series(name, row[:length], np.zeros((length, 0)), dates[0] if dates is not None else None))
    notes.append(say("{n:,} series, one a row, with {short:,} to {long:,} steps.", n=len(out), short=min(map(len, (s.values for s in out))), long=max(len(s.values) for s in out)))
    return Collection(out, (), (), frequency_of(dates) if dates is not None else "", "value", names[0] if named else None, None)


def long(data: Dataset, *, known: tuple[str, ...], notes: list[Text], frequency: str | None = None) -> Collection:
    """data: one row a step, its target the value, its schema naming group and time where the user said them. frequency: None to find it. Raises InputError."""
    frame, schema, target = data.frame, data.schema, data.schema.target or ""
    kinds = {c.name: c.kind for c in schema.columns}
    values = _floats(frame[target])
    if not np.isfinite(values).any():
        raise InputError("The values in '{name}' are no numbers, so there is nothing to forecast.", name=target)
    stamps, time, parts = _stamps(data, notes)
    by = schema.group or _by(data, stamps, parts, notes)
    ids = frame[by].cast(pl.String).fill_null("").to_list() if by else [""] * len(frame)
    others = [n for n in frame.columns if n not in (target, by, time, *parts) and kinds[n] in ("number", "category")]
    if absent := [n for n in known if n not in others]:
        raise InputError("'{name}' is named as known ahead, but no column of numbers is called so. There are: {columns}.", name=absent[0], columns=others)
    code = np.unique(np.array(ids), return_inverse=True)[1]
    first: dict[str, int] = {}
    for i, name in enumerate(ids):
        first.setdefault(name, i)
    order = np.lexsort((np.arange(len(ids)) if stamps is None else stamps, code))
    bounds = np.flatnonzero(np.diff(code[order])) + 1
    pieces = np.split(order, bounds)
    static = {n for n in others if len(pieces) > 1 and n not in known and frame.select(pl.struct(pl.Series("by", code), frame[n]).n_unique()).item() == len(pieces)}
    covariates = [n for n in others if n not in static and kinds[n] == "number"]
    covariates = sorted(covariates, key=lambda n: n not in known)[:MOST_COVARIATES]
    if left := [n for n in others if n not in static and n not in covariates]:
        notes.append(say("Columns that change from step to step but hold no numbers are left out: {names}.", names=left))
    numbers_of = np.column_stack([_floats(frame[n]) for n in covariates]) if covariates else np.zeros((len(frame), 0))
    frequency = "" if stamps is None else frequency or frequency_of(np.concatenate([np.unique(stamps[p]) for p in pieces[:50]]))
    counts = {"twice": 0, "gaps": 0, "off": 0}
    out: list[Series] = []
    for rows in sorted(pieces, key=lambda rows: first[ids[rows[0]]]):
        fixed = {n: frame[n][int(rows[0])] for n in static}
        out.append(_gridded(ids[rows[0]], rows, values, numbers_of, stamps, frequency, fixed, counts))
    short, longest = min(len(s.values) for s in out), max(len(s.values) for s in out)
    notes.append(say("{n:,} series by '{by}' with {short:,} to {long:,} steps.", n=len(out), by=by, short=short, long=longest) if by
                 else say("One series with {long:,} steps.", long=longest))
    if stamps is not None and np.any(np.diff(stamps) < np.timedelta64(0)) and not by:
        notes.append(say("The time stamps are not in order; they were sorted."))
    if counts["twice"]:
        notes.append(say("{n:,} time stamps stand twice in a series: the mean of their values is taken.", n=counts["twice"]))
    if counts["off"]:
        notes.append(say("{n:,} time stamps lie off the grid of {frequency}; each is moved to the step before it.", n=counts["off"], frequency=frequency))
    if counts["gaps"]:
        notes.append(say("{n:,} steps are missing ({share:.1%}); they are gaps, not zeros.", n=counts["gaps"], share=counts["gaps"] / max(1, sum(len(s.values) for s in out))))
    return Collection(out, tuple(covariates), tuple(n for n in covariates if n in known), frequency, target, by, time, {n: kinds[n] for n in static})


def _stamps(data: Dataset, notes: list[Text]) -> tuple[np.ndarray | None, str | None, tuple[str, ...]]:
    """The time of each row (datetime64[us]) or None; the column it comes from; columns of which it was put together."""
    schema, frame = data.schema, data.frame
    named = {c.name.lower().strip(): c.name for c in schema.columns if c.name not in (schema.target, schema.group)}
    found = {part: next((named[w] for w in words if w in named), None) for part, words in _NAMES.items()}
    dated = schema.time or next((c.name for c in schema.columns if c.kind == "time" and c.name not in (schema.target, schema.group)), None)
    if dated:
        stamps = frame[dated]
        if stamps.null_count():
            raise InputError("The time column '{name}' has {n} empty or unreadable rows, so they cannot be ordered.", name=dated, n=stamps.null_count())
        instants = stamps.to_numpy().astype("datetime64[us]")
        hour = found["hour"]
        if hour and instants.size and (instants == instants.astype("datetime64[D]")).all():
            notes.append(say("The time is put together from {columns}.", columns=[dated, hour]))
            return instants + _floats(frame[hour]).astype(np.int64) * np.timedelta64(3600, "s"), dated, (dated, hour)
        return instants, dated, (dated,)
    if found["year"] is not None and (found["month"] or data.schema.group):
        columns = [c for p in _PARTS if (c := found[p])]
        year = _floats(frame[found["year"]]).astype(np.int64)
        month = _floats(frame[found["month"]]).astype(np.int64) if found["month"] is not None else np.ones(len(frame), dtype=np.int64)
        instants = ((year - 1970) * 12 + month - 1).astype("datetime64[M]").astype("datetime64[us]")
        for part, unit in (("day", 86400), ("hour", 3600), ("minute", 60)):
            column = found[part]
            if column is not None and (part != "day" or found["month"]):
                instants = instants + (_floats(frame[column]).astype(np.int64) - (part == "day")) * np.timedelta64(unit, "s")
        notes.append(say("The time is put together from {columns}.", columns=columns))
        return instants, None, tuple(columns)
    notes.append(say("No column says when a step was, so rows are taken as they stand; --time-column says otherwise."))
    return None, None, ()


def _by(data: Dataset, stamps: np.ndarray | None, parts: tuple[str, ...], notes: list[Text]) -> str | None:
    """The column whose series have no time stamp twice, where the whole table has."""
    if stamps is None or len(np.unique(stamps)) > 0.7 * len(stamps):
        return None
    code = np.unique(stamps, return_inverse=True)[1]
    best: tuple[float, str] | None = None
    for column in data.schema.columns:
        if column.name in (data.schema.target, *parts) or column.kind not in ("category", "id", "text"):
            continue
        pairs = data.frame.select(pl.struct(pl.Series("t", code), data.frame[column.name]).n_unique()).item()
        if pairs >= 0.98 * len(data) and data.frame[column.name].n_unique() < 0.5 * len(data) and (best is None or pairs > best[0]):
            best = (pairs, column.name)
    if best:
        notes.append(say("Each '{name}' is a series of its own; --group says otherwise.", name=best[1]))
    return best[1] if best else None


def _gridded(name: str, rows: np.ndarray, values: np.ndarray, covariates: np.ndarray, stamps: np.ndarray | None, frequency: str, static: dict[str, Any],
             counts: dict[str, int]) -> Series:
    own, more = values[rows], covariates[rows]
    if stamps is None:
        length = int(np.flatnonzero(np.isfinite(own))[-1]) + 1 if np.isfinite(own).any() else 0
        return Series(name, own[:length], more, None, static)
    at, off = steps_since(stamps[rows], stamps[rows[0]], frequency)
    size = int(at[-1]) + 1
    if size > MOST_STEPS or size > 1000 + SPARSE * len(rows):
        raise InputError("The series '{name}' has {n:,} values on a grid of {steps:,} steps of {frequency}: that is a list of events. Sum them up by day or hour first.", name=name,
                         n=len(rows), steps=size, frequency=frequency)
    counts["twice"] += len(at) - len(np.unique(at))
    counts["off"] += off
    grid, wide_grid = np.full(size, np.nan), np.full((size, more.shape[1]), np.nan)
    known = np.isfinite(own)
    hits = np.bincount(at[known], minlength=size)
    total = np.bincount(at[known], weights=own[known], minlength=size)
    grid[hits > 0] = total[hits > 0] / hits[hits > 0]
    wide_grid[at] = more
    there = np.flatnonzero(np.isfinite(grid))
    if not len(there):
        return Series(name, np.zeros(0), np.zeros((0, more.shape[1])), None, static)
    begin, end = int(there[0]), int(there[-1]) + 1
    counts["gaps"] += int(np.isnan(grid[begin:end]).sum())
    return Series(name, grid[begin:end], wide_grid[begin:], at_step(stamps[rows[0]], frequency, begin), static)


# ---- the grid


def frequency_of(stamps: np.ndarray) -> str:
    """The usual step, as polars writes it: '1mo', '3mo', '1y', '1w', '1d', '30m', ...; stamps: datetime64, any order."""
    gaps = np.diff(np.unique(stamps)).astype("timedelta64[s]").astype(np.int64)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        return "1d"
    sizes, counts = np.unique(gaps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    days, months = usual / 86400, np.unique(stamps).astype("datetime64[M]")
    same_day = len(np.unique((stamps.astype("datetime64[D]") - stamps.astype("datetime64[M]")).astype(np.int64))) <= 4
    if same_day and 28 <= days <= 31 and len(np.unique(months)) == len(months):
        return "1mo"
    if same_day and 89 <= days <= 92:
        return "3mo"
    if same_day and 365 <= days <= 366:
        return "1y"
    return next(f"{usual // size}{unit}" for size, unit in _UNITS if usual % size == 0)


def steps_since(stamps: np.ndarray, start: np.datetime64, frequency: str) -> tuple[np.ndarray, int]:
    """(step of each stamp, how many lie off the grid)."""
    count, unit = split_frequency(frequency)
    if unit in ("mo", "y"):
        size = count * (12 if unit == "y" else 1)
        months = (stamps.astype("datetime64[M]") - start.astype("datetime64[M]")).astype(np.int64)
        return months // size, int((months % size != 0).sum())
    seconds = count * {u: s for s, u in _UNITS}[unit]
    since = (stamps - start).astype("timedelta64[s]").astype(np.int64)
    return since // seconds, int((since % seconds != 0).sum())


def at_step(start: np.datetime64, frequency: str, step: int) -> np.datetime64:
    """The time `step` steps after `start`."""
    count, unit = split_frequency(frequency)
    if unit in ("mo", "y"):
        month = start.astype("datetime64[M]")
        return (month + step * count * (12 if unit == "y" else 1)).astype("datetime64[us]") + (start - month.astype("datetime64[us]"))
    return start + np.timedelta64(step * count * {u: s for s, u in _UNITS}[unit], "s")


def split_frequency(frequency: str) -> tuple[int, str]:
    unit = frequency.lstrip("0123456789")
    return int(frequency[: len(frequency) - len(unit)] or 1), unit


def _named_times(names: list[str]) -> np.ndarray | None:
    """Times of which columns are named, if all of them are: 2024-01, 2024-02, ..."""
    if all(re.fullmatch(r"[A-Za-z_]*\d{1,9}", n) and not re.fullmatch(r"(19|20)\d{6}", n) for n in names):
        return None
    parsed = times(pl.Series("names", names))
    return None if parsed.bad is not None else parsed.values.to_numpy().astype("datetime64[us]")


def _floats(cells: pl.Series) -> np.ndarray:
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        out = cells.cast(pl.Float64)
    else:
        out = numbers(cells.cast(pl.String)).values.cast(pl.Float64)
    return out.fill_null(float("nan")).to_numpy().astype(np.float64)


def _unique(ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InputError("The series '{name}' stands twice. Each row has to be a series of its own.", name=twice)
