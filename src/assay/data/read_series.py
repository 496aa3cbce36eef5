"""A file, frame or query of time stamps and values -> the rows of a forecasting question, and new histories in the form a model was trained with."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset, Schema
from assay.data.grid import at_step
from assay.data.hierarchy import with_totals
from assay.data.history import AHEAD, HISTORY
from assay.data.load import MEMORY_MB, TIMEOUT_S, opened
from assay.data.origins import About, asked, windowed
from assay.data.read import Reading, read
from assay.data.series import Collection, Series, is_wide, long, wide
from assay.data.table import Table
from assay.data.values import times
from assay.errors import InputError
from assay.words import Text, say

_OFFSET = re.compile(r"(?:Z|UTC|[+-]\d{2}:?\d{2})$")
_CLOCK_AND_OFFSET = r"\d:\d{2}.*(Z|UTC|[+-]\d{2}:?\d{2})\s*$"


def read_series(source: Any, *, target: str | None = None, group: str | None = None, time: str | None = None, known: tuple[str, ...] = (), horizon: int | None = None,
                season: int | None = None, kinds: dict[str, str] | None = None, drop: tuple[str, ...] = (), query: str | None = None, memory_mb: float = MEMORY_MB,
                timeout_s: float = TIMEOUT_S, hierarchy: tuple[str, ...] = ()) -> Reading:
    """source: as `data.read` takes it; long, or wide with one series a row. known: columns of numbers that are known ahead. hierarchy: columns over which
    totals are forecast as well.

    Raises ReadError, InputError, TaskError (series too short for the horizon).
    """
    notes: list[Text] = []
    table = _wide(source, target, query, memory_mb, timeout_s)
    if table is not None:
        found = wide(table, notes)
    else:
        found = _long(source, notes, target=target, group=group, time=time, known=known, kinds=kinds, drop=drop, query=query, memory_mb=memory_mb, timeout_s=timeout_s)
    if hierarchy:
        found = with_totals(found, hierarchy, notes)
    return Reading(windowed(found, horizon=horizon, season=season, wide=table is not None, notes=notes, hierarchy=hierarchy), notes)


def conform_series(rows: Any, schema: Schema, *, query: str | None = None) -> Dataset:
    """New histories as one row a series: everything known of it, to be forecast from its end on. rows: as `data.conform` takes them; what is known ahead
    stands in further rows with an empty value. Raises InputError."""
    about = About.of(schema)
    if about is None:
        raise InputError("This model forecasts series, and its schema does not say how they are read.")
    if isinstance(rows, (list, tuple)):
        rows = _frame(rows)
    notes: list[Text] = []
    if about.wide:
        table = _wide(rows, about.value, query, MEMORY_MB, TIMEOUT_S)
        if table is None:
            raise InputError("The model was trained on a table with one series a row and a column a step, and the rows are no such table. At least 8 steps are expected.")
        found = wide(table, notes, frequency=about.frequency)
        return asked(Collection(found.series, (), (), about.frequency, found.value, about.by, None), schema)
    channels = next(c.channels or () for c in schema.columns if c.name == HISTORY)
    known = next((c.channels or () for c in schema.columns if c.name == AHEAD), ())
    fixed = {c.name: c.kind for c in schema.features if c.kind in ("number", "category")}
    found = _long(rows, notes, target=about.value, group=about.by, time=about.time, known=tuple(known), kinds=None, drop=(), query=query, memory_mb=MEMORY_MB, timeout_s=TIMEOUT_S,
                  frequency=about.frequency, numeric=tuple(channels[1:]), fixed=fixed)
    return asked(with_totals(found, about.hierarchy, notes) if about.hierarchy else found, schema)


def _frame(rows: Any) -> pl.DataFrame:
    """Objects of column names and values as a table; what is neither all numbers nor all of one type is taken as it is written."""
    if not rows:
        raise InputError("There are no rows to answer.")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError("Row {row} is no object of column names and values.", row=i + 1)
    out = []
    for name in dict.fromkeys(str(n) for row in rows for n in row):
        cells = [row.get(name) for row in rows]
        for i, cell in enumerate(cells):
            if isinstance(cell, (dict, list, tuple)):
                raise InputError("Column '{name}', row {row}: '{value}' is no single value.", name=name, row=i + 1, value=str(cell)[:40])
        kinds = {type(c) for c in cells if c is not None}
        same = len(kinds) <= 1 or kinds <= {int, float}
        out.append(pl.Series(name, [float(c) if kinds == {int, float} and c is not None else c for c in cells] if same else [None if c is None else str(c) for c in cells], strict=False))
    return pl.DataFrame(out)


def history_given(given: dict[str, Any], schema: Schema) -> Dataset:
    """One series as {"history": [values], "origin": time, and a list for each covariate, known ones `horizon` longer}. Raises InputError."""
    about = About.of(schema)
    if about is None:
        raise InputError("This model forecasts series, and its schema does not say how they are read.")
    values = _listed(given, "history")
    if not np.isfinite(values).any():
        raise InputError("'history' holds no value, so there is nothing to go on.")
    names = next(c.channels or () for c in schema.columns if c.name == HISTORY)[1:]
    known = next((c.channels or () for c in schema.columns if c.name == AHEAD), ())
    static = {c.name: given.get(c.name) for c in schema.features if c.kind in ("number", "category")}
    if absent := [n for n in (*names, *static) if n not in given]:
        raise InputError("The rows lack columns the model was trained with: {absent}.", absent=absent)
    lists = [_listed(given, name) for name in names]
    for name, cells in zip(names, lists, strict=True):
        least = len(values) + (about.horizon if name in known else 0)
        if len(cells) < least:
            raise InputError("'{name}' has {n:,} values; expected {least:,}, one for each step of 'history'{more}.", name=name, n=len(cells), least=least,
                             more=say(" and of the next {horizon:,}", horizon=about.horizon) if name in known else "")
    covariates = np.full((max([len(values), *map(len, lists)]), len(names)), np.nan)
    for i, cells in enumerate(lists):
        covariates[: len(cells), i] = cells
    for c in schema.features:
        cell = static.get(c.name)
        if c.name in static and cell is not None and not (isinstance(cell, (int, float)) if c.kind == "number" else isinstance(cell, (str, int, float))):
            raise InputError("'{name}' is {value}, and {kind} is expected.", name=c.name, value=str(cell)[:40], kind=say("a number") if c.kind == "number" else say("a word"))
        if c.name in static and cell is not None:
            static[c.name] = float(cell) if c.kind == "number" else str(cell)
    start = None
    if about.frequency and given.get("origin") is not None:
        origin = times(pl.Series([given["origin"]], dtype=pl.String)) if isinstance(given["origin"], str) else None
        if origin is None or origin.bad is not None or origin.values.null_count():
            raise InputError("'{value}' is no time. Write times like 2024-03-05 or 2024-03-05 11:22.", value=str(given["origin"])[:40])
        start = at_step(origin.values.to_numpy()[0], about.frequency, -len(values))
    one = Series(str(given.get(about.by or "id", "")), values, covariates, start, static)
    return asked(Collection([one], tuple(names), tuple(known), about.frequency, about.value, about.by, about.time), schema)


def _listed(given: dict[str, Any], name: str) -> np.ndarray:
    """A list of numbers, float64; NaN where one is null or infinite. Raises InputError."""
    try:
        if not isinstance(given[name], list) or any(isinstance(v, str) for v in given[name]):
            raise TypeError
        out = np.array([np.nan if v is None else float(v) for v in given[name]], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError("'{name}' has to be a list of numbers.", name=name) from None
    return np.where(np.abs(out) < 3e38, out, np.nan)


def _wide(source: Any, target: str | None, query: str | None, memory_mb: float, timeout_s: float) -> pl.DataFrame | None:
    with opened(source, query=query, memory_mb=memory_mb, timeout_s=timeout_s) as table:
        if not is_wide(table.names, target):
            return None
        if table.height * len(table.names) * 8 / 2**20 > 0.25 * memory_mb:
            raise InputError("The table of series takes more than a quarter of the {memory:,.0f} MB there are. Allow more with --memory.", memory=memory_mb)
        return pl.DataFrame([table.column(n).alias(n) for n in table.names])


def _long(source: Any, notes: list[Text], *, target: str | None, group: str | None, time: str | None, known: tuple[str, ...], kinds: dict[str, str] | None,
          drop: tuple[str, ...], query: str | None, memory_mb: float, timeout_s: float, frequency: str | None = None, numeric: tuple[str, ...] = (),
          fixed: dict[str, str] | None = None) -> Collection:
    if not target:
        raise InputError("Which column is to be forecast? Name it with --target COLUMN.")
    reading = read(source, target=target, kinds=kinds, group=group, time=time, target_as="amount", query=query, memory_mb=max(memory_mb, 1.0), timeout_s=timeout_s, drop=drop)
    notes += reading.notes
    schema = reading.dataset.schema
    dated = schema.time or next((c.name for c in schema.columns if c.kind == "time" and c.name not in (target, group)), None)
    if dated and query is None:  # a database has types for times, and is not asked twice
        with opened(source, query=query, memory_mb=memory_mb, timeout_s=timeout_s) as table:
            notes += _zones(table, dated)
    return long(reading.dataset, known=known, notes=notes, frequency=frequency, numeric=numeric, fixed=fixed)


def _zones(table: Table, name: str) -> list[Text]:
    """What is done with offsets from UTC and time zones in the column of time, where it has any."""
    cells = table.column(name)
    zone = getattr(cells.dtype, "time_zone", None)
    if zone:
        return [] if zone == "UTC" else [say("The times in '{name}' are in {zone}; they are read in UTC, and so are forecast.", name=name, zone=zone)]
    if cells.dtype != pl.String:
        return []
    told = cells.str.contains(_CLOCK_AND_OFFSET)
    if not told.any():
        return []
    offsets = sorted({m[0] for cell in cells.filter(told).str.slice(-8).str.strip_chars().unique() if (m := _OFFSET.search(cell))})
    bare = int((~told & cells.is_not_null()).sum())
    notes = [] if offsets == ["Z"] or offsets == ["UTC"] else [say("The times in '{name}' carry offsets from UTC ({offsets}); they are read in UTC, and so are forecast.", name=name,
                                                                   offsets=offsets[:8])]
    return notes + ([say("{n:,} of {all:,} times in '{name}' carry no offset from UTC, the others do; these are taken for UTC.", n=bare, all=len(cells), name=name)] if bare else [])
