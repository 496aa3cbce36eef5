"""A table of time stamps and values as series on an even grid: long (id, time, value, covariates) or wide (one series a row, one step a column)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.grid import at_step, frequency_of, split_frequency, steps_since
from assay.data.values import labels, numbers, times
from assay.errors import InputError
from assay.words import Text, say

MOST_COVARIATES, MOST_STEPS = 24, 5_000_000
MOST_TWICE = 0.5  # a mean of so many values of one step is no series any more
SPARSE = 20  # a grid with so many steps for each value is no series of measurements
_PARTS = ("year", "month", "day", "hour", "minute")
_NAMES = {"year": ("year", "yr", "年", "年份"), "month": ("month", "mnth", "mon", "月", "月份"), "day": ("day", "dom", "日"), "hour": ("hour", "hr", "hh", "小时"),
          "minute": ("minute", "min", "分钟")}
_STEP = re.compile(r".*?(\d{1,9})$")
_SAMPLED = 50  # series that tell the frequency, the longest ones


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
    """series: in the order of the file. names: of the covariates; known: those of them that are known ahead. frequency: as `grid` writes it, '' where steps
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
    if target in names or len(stepped) < 8 or len(stepped) < 0.8 * len(names):
        return False
    stems = {n[: _STEP.fullmatch(n).start(1)] for n in stepped}  # type: ignore[union-attr]
    return len(stems) <= 2 or _named_times(stepped) is not None


def wide(frame: pl.DataFrame, notes: list[Text], *, frequency: str | None = None) -> Collection:
    """frame: as read, one series a row. What names the series is the first column where it is no step; blanks before and after a series are no steps of it.

    frequency: None to find it where the steps are named by times, '' for none. Raises InputError naming the cell that holds no number.
    """
    first = frame.columns[0]
    named = not _STEP.fullmatch(first) or (frame[first].dtype == pl.String and numbers(frame[first].drop_nulls().head(50)).bad is not None)
    steps = [n for n in (frame.columns[1:] if named else frame.columns) if _STEP.fullmatch(n)]
    if left := [n for n in frame.columns[1:] if n not in steps]:
        notes.append(say("Columns that are no steps are left out: {names}.", names=left))
    dates = _named_times(steps) if frequency != "" else None
    place, start = np.arange(len(steps)), None
    if dates is None:
        stems = {n[: m.start(1)] for n in steps if (m := _STEP.fullmatch(n))}
        if len(stems) == 1:  # t1, t10, t2: by their numbers
            steps = sorted(steps, key=lambda n: int(_STEP.fullmatch(n)[1]))  # type: ignore[index]
    else:
        order = np.argsort(dates, kind="stable")
        steps, dates = [steps[i] for i in order], dates[order]
        frequency, start = frequency or frequency_of(dates), dates[0]
        place, _ = steps_since(dates, start, frequency)
    values = np.full((frame.height, int(place[-1]) + 1 if len(place) else 0), np.nan)
    for at, name in zip(place, steps, strict=True):
        values[:, at] = _numbers_of(frame[name])
    ids = labels(frame[first]).cast(pl.String).fill_null("").to_list() if named else [str(i + 1) for i in range(frame.height)]
    _unique(ids)
    out = []
    for name, row in zip(ids, values, strict=True):
        there = np.flatnonzero(np.isfinite(row))
        begin, end = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
        out.append(Series(name, row[begin:end], np.zeros((end - begin, 0)), None if start is None or not frequency else at_step(start, frequency, begin)))
    notes.append(say("{n:,} series, one a row, with {short:,} to {long:,} steps.", n=len(out), short=min(len(s.values) for s in out), long=max(len(s.values) for s in out)))
    return Collection(out, (), (), frequency or "", "value", first if named else None, None)


def long(data: Dataset, *, known: tuple[str, ...], notes: list[Text], frequency: str | None = None, numeric: tuple[str, ...] = (),
         fixed: dict[str, str] | None = None) -> Collection:
    """data: one row a step, its target the value, its schema naming group and time where the user said them. Raises InputError.

    For a trained model, what it was trained with: frequency (None to find it), numeric (columns that must hold numbers), fixed (columns that do not change
    within a series, and their kinds; None to find them).
    """
    frame, schema, target = data.frame, data.schema, data.schema.target or ""
    kinds = {c.name: c.kind for c in schema.columns}
    values = _floats(frame[target])
    if not np.isfinite(values).any():
        raise InputError("The values in '{name}' are no numbers, so there is nothing to forecast.", name=target)
    stamps, time, parts = _stamps(data, notes)
    if stamps is None and frequency:
        raise InputError("The model was trained on steps of {frequency}, and no column of the rows says when a step was. Keep the columns of time.", frequency=frequency)
    by = schema.group or _by(data, stamps, parts, notes)
    ids = labels(frame[by]).cast(pl.String).fill_null("").to_list() if by else [""] * len(frame)
    flags = {n for n in frame.columns if kinds[n] == "category" and set(frame[n].drop_nulls().unique()) <= {"true", "false"}}
    others = [n for n in frame.columns if n not in (target, by, time, *parts) and (kinds[n] in ("number", "category") or n in numeric or n in (fixed or {}))]
    counted = [n for n in others if kinds[n] == "number" or n in flags or n in numeric]
    if absent := [n for n in known if n not in counted]:
        raise InputError("'{name}' is named as known ahead, but no column of numbers is called so. There are: {columns}.", name=absent[0], columns=counted or ["–"])
    if fixed is not None and (lost := [n for n in fixed if n not in others]):
        raise InputError("The rows lack columns the model was trained with: {absent}.", absent=lost)
    code = np.unique(np.array(ids), return_inverse=True)[1]
    first: dict[str, int] = {}
    for i, name in enumerate(ids):
        first.setdefault(name, i)
    order = np.lexsort((np.arange(len(ids)) if stamps is None else stamps, code))
    pieces = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    static = list(fixed) if fixed is not None else [n for n in others if len(pieces) > 1 and n not in known
                                                    and pl.DataFrame({"by": code, "value": frame[n]}).n_unique() == len(pieces)]
    told = fixed if fixed is not None else {n: kinds[n] for n in static}
    fixed_cells = {n: pl.Series(n, _numbers_of(frame[n])) if told[n] == "number" else labels(frame[n]).cast(pl.String) for n in static}
    covariates = [n for n in counted if n not in static]
    covariates = sorted(covariates, key=lambda n: n not in known and n not in numeric)[:MOST_COVARIATES]
    if left := [n for n in others if n not in static and n not in covariates]:
        notes.append(say("Columns that change from step to step but hold no numbers are left out: {names}.", names=[n for n in left if n not in counted]) if set(left) - set(counted)
                     else say("Of {all} columns of numbers beside the value, the first {most} are used; --drop leaves out others.", all=len(counted), most=MOST_COVARIATES))
    numbers_of = np.column_stack([_numbers_of(frame[n]) for n in covariates]) if covariates else np.zeros((len(frame), 0))
    step = ""
    if stamps is not None:
        step = frequency or frequency_of(*(stamps[p] for p in sorted(pieces, key=len, reverse=True)[:_SAMPLED]))
    counts = {"twice": 0, "gaps": 0, "off": 0, "clocks": 0}
    out: list[Series] = []
    for rows in sorted(pieces, key=lambda rows: first[ids[rows[0]]]):
        cells = {n: fixed_cells[n][int(rows[0])] for n in static}
        out.append(_gridded(ids[rows[0]], rows, values, numbers_of, stamps, step, cells, counts))
    if counts["twice"] > MOST_TWICE * len(ids):
        raise InputError("{n:,} of {all:,} rows have a time stamp that their series has already, so these are several series or single events. Name the column that tells the "
                         "series apart with --group, or sum the events up by {frequency} first.", n=counts["twice"], all=len(ids), frequency=step)
    short, longest = min(len(s.values) for s in out), max(len(s.values) for s in out)
    notes.append(say("{n:,} series by '{by}' with {short:,} to {long:,} steps.", n=len(out), by=by, short=short, long=longest) if by
                 else say("One series with {long:,} steps.", long=longest))
    if stamps is not None and any((np.diff(stamps[np.sort(rows)]) < np.timedelta64(0)).any() for rows in pieces):
        notes.append(say("The time stamps are not in order; they were sorted."))
    if counts["twice"]:
        notes.append(say("{n:,} time stamps stand twice in a series: the mean of their values is taken.", n=counts["twice"]))
    if counts["twice"] and counts["clocks"] == counts["twice"]:
        notes.append(say("All of these are hours in which clocks are set back, so the times are local: write them with their offset from UTC (+01:00), and no hour is double or lost."))
    if counts["off"]:
        notes.append(say("{n:,} time stamps lie off the grid of {frequency}; each counts for the step it lies in or next to.", n=counts["off"], frequency=step))
    if counts["gaps"]:
        notes.append(say("{n:,} steps are missing ({share:.1%}); they are gaps, not zeros.", n=counts["gaps"], share=counts["gaps"] / max(1, sum(len(s.values) for s in out))))
    if step == "1b":
        notes.append(say("There are no weekends in the series: its steps are working days, Monday to Friday."))
    return Collection(out, tuple(covariates), tuple(n for n in covariates if n in known), step, target, by, time, told)


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
        if hour and instants.size and (instants == instants.astype("datetime64[D]")).all() and np.isin(_floats(frame[hour]), np.arange(25)).all():
            notes.append(say("The time is put together from {columns}.", columns=[dated, hour]))
            return instants + _floats(frame[hour]).astype(np.int64) * np.timedelta64(3600, "s"), dated, (dated, hour)
        return instants, dated, (dated,)
    if found["year"] is not None and (found["month"] or data.schema.group):
        columns = [c for p in _PARTS if (c := found[p])]
        for name in columns:
            if not np.isfinite(_floats(frame[name])).all():
                raise InputError("The time column '{name}' has {n} empty or unreadable rows, so they cannot be ordered.", name=name,
                                 n=int((~np.isfinite(_floats(frame[name]))).sum()))
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
    code, times_of = np.unique(stamps, return_inverse=True, return_counts=True)[1:]
    best: tuple[float, str] | None = None
    for column in data.schema.columns:
        if column.name in (data.schema.target, *parts) or column.kind not in ("category", "id", "text", "number"):
            continue
        cells = data.frame[column.name]
        if column.kind == "number" and cells.n_unique() > 1.2 * times_of.max():  # a number that tells series apart has a value for each of them, not more
            continue
        pairs = pl.DataFrame({"time": code, "cell": cells}).n_unique()
        if pairs >= 0.98 * len(data) and cells.n_unique() < 0.5 * len(data) and (best is None or pairs > best[0]):
            best = (pairs, column.name)
    if best:
        notes.append(say("Each '{name}' is a series of its own; --group says otherwise.", name=best[1]))
    return best[1] if best else None


def _gridded(name: str, rows: np.ndarray, values: np.ndarray, covariates: np.ndarray, stamps: np.ndarray | None, frequency: str, static: dict[str, Any],
             counts: dict[str, int]) -> Series:
    own, more = values[rows], covariates[rows]
    if stamps is None:
        there = np.flatnonzero(np.isfinite(own))
        begin, end = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 0)
        return Series(name, own[begin:end], more[begin:], None, static)
    at, off = steps_since(stamps[rows], stamps[rows[0]], frequency)
    size = int(at[-1]) + 1
    if size > MOST_STEPS or size > 1000 + SPARSE * len(rows):
        raise InputError("The series '{name}' has {n:,} values on a grid of {steps:,} steps of {frequency}: that is a list of events. Sum them up by day or hour first.", name=name,
                         n=len(rows), steps=size, frequency=frequency)
    double = np.flatnonzero(np.diff(at) == 0) + 1
    counts["twice"] += len(double)
    counts["off"] += off
    if len(double) and split_frequency(frequency)[1] in ("h", "m"):
        counts["clocks"] += int(_clocks_back(stamps[rows][double]).sum())
    grid = _means(at, own, size)
    wide_grid = np.column_stack([_means(at, column, size) for column in more.T]) if more.shape[1] else np.zeros((size, 0))
    there = np.flatnonzero(np.isfinite(grid))
    if not len(there):
        return Series(name, np.zeros(0), np.zeros((0, more.shape[1])), None, static)
    begin, end = int(there[0]), int(there[-1]) + 1
    counts["gaps"] += int(np.isnan(grid[begin:end]).sum())
    return Series(name, grid[begin:end], wide_grid[begin:], at_step(stamps[rows[0]], frequency, begin), static)


def _means(at: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """(size,): the mean of the known values of each step, NaN where there is none."""
    out, known = np.full(size, np.nan), np.isfinite(values)
    hits = np.bincount(at[known], minlength=size)
    total = np.bincount(at[known], weights=values[known], minlength=size)
    out[hits > 0] = total[hits > 0] / hits[hits > 0]
    return out


def _clocks_back(stamps: np.ndarray) -> np.ndarray:
    """Whether clocks may be set back at these local times: in the night to a Sunday, in spring or autumn (one half of the world, or the other)."""
    days = stamps.astype("datetime64[D]")
    hour = (stamps.astype("datetime64[us]") - days).astype(np.int64) // 3_600_000_000
    month = stamps.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return ((days.astype(np.int64) + 3) % 7 == 6) & (hour <= 3) & np.isin(month, (3, 4, 9, 10, 11))


# ---- cells


def _named_times(names: list[str]) -> np.ndarray | None:
    """Times of which columns are named, if all of them are: 2024-01, 2024-02, ..."""
    if not names or all(re.fullmatch(r"[A-Za-z_]*\d{1,9}", n) and not re.fullmatch(r"(19|20)\d{6}", n) for n in names):
        return None
    compact = [f"{n[:4]}-{n[4:6]}-{n[6:]}" if re.fullmatch(r"(19|20)\d{6}", n) else n for n in names]
    parsed = times(pl.Series("names", compact))
    return None if parsed.bad is not None or parsed.values.null_count() else parsed.values.to_numpy().astype("datetime64[us]")


def _numbers_of(cells: pl.Series) -> np.ndarray:
    """Cells that have to be numbers, or true and false; NaN where empty. Raises InputError."""
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean:
        return _floats(cells)
    text = cells.cast(pl.String)
    parsed = numbers(text.replace({"true": "1", "false": "0"}))
    if parsed.bad is not None:
        raise InputError("Column '{name}' holds '{value}' in row {row:,}, where a number is expected.", name=cells.name, value=str(text[parsed.bad])[:40], row=parsed.bad + 1)
    return _floats(parsed.values)


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
