"""A file, frame or query of time stamps and values -> the rows of a forecasting question, and new histories in the form a model was trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset, Schema
from assay.data.history import AHEAD, HISTORY
from assay.data.load import MEMORY_MB, TIMEOUT_S, opened
from assay.data.origins import About, asked, windowed
from assay.data.read import Reading, read
from assay.data.series import Collection, Series, at_step, is_wide, long, wide
from assay.errors import InputError
from assay.words import Text


def read_series(source: Any, *, target: str | None = None, group: str | None = None, time: str | None = None, known: tuple[str, ...] = (), horizon: int | None = None,
                season: int | None = None, kinds: dict[str, str] | None = None, drop: tuple[str, ...] = (), query: str | None = None, memory_mb: float = MEMORY_MB,
                timeout_s: float = TIMEOUT_S) -> Reading:
    """source: as `data.read` takes it; long, or wide with one series a row. known: columns of numbers that are known ahead.

    Raises ReadError, InputError, TaskError (series too short for the horizon).
    """
    notes: list[Text] = []
    table = _wide(source, target, query, memory_mb, timeout_s)
    if table is not None:
        found = wide(table, notes)
    else:
        found = _long(source, notes, target=target, group=group, time=time, known=known, kinds=kinds, drop=drop, query=query, memory_mb=memory_mb, timeout_s=timeout_s)
    return Reading(windowed(found, horizon=horizon, season=season, wide=table is not None, notes=notes), notes)


def conform_series(rows: Any, schema: Schema, *, query: str | None = None) -> Dataset:
    """New histories as one row a series: everything known of it, to be forecast from its end on. rows: as `data.conform` takes them; what is known ahead
    stands in further rows with an empty value. Raises InputError."""
    about = About.of(schema)
    if about is None:
        raise InputError("This model forecasts series, and its schema does not say how they are read.")
    if isinstance(rows, (list, tuple)):
        if not rows:
            raise InputError("There are no rows to answer.")
        rows = pl.DataFrame(list(rows), infer_schema_length=None)
    notes: list[Text] = []
    table = _wide(rows, about.value, query, MEMORY_MB, TIMEOUT_S) if about.wide else None
    if table is not None:
        found = wide(table, notes)
        return asked(Collection(found.series, (), (), about.frequency, found.value, about.by, None), schema)
    known = next((c.channels or () for c in schema.columns if c.name == "ahead"), ())
    group = about.by if about.by else None
    found = _long(rows, notes, target=about.value, group=group, time=about.time, known=tuple(known), kinds=None, drop=(), query=query, memory_mb=MEMORY_MB, timeout_s=TIMEOUT_S,
                  frequency=about.frequency)
    return asked(found, schema)


def history_given(given: dict[str, Any], schema: Schema) -> Dataset:
    """One series as {"history": [values], "origin": time, and a list for each covariate, known ones `horizon` longer}. Raises InputError."""
    about = About.of(schema)
    assert about is not None
    try:
        values = np.array([np.nan if v is None else float(v) for v in given["history"]])
    except (TypeError, ValueError):
        raise InputError("'history' has to be a list of numbers.") from None
    if not len(values) or not np.isfinite(values).any():
        raise InputError("'history' holds no value, so there is nothing to go on.")
    names = next(c.channels or () for c in schema.columns if c.name == HISTORY)[1:]
    if absent := [n for n in names if not isinstance(given.get(n), list)]:
        raise InputError("The rows lack columns the model was trained with: {absent}.", absent=absent)
    known = next((c.channels or () for c in schema.columns if c.name == AHEAD), ())
    longest = max([len(values), *(len(given[n]) for n in names)])
    covariates = np.full((longest, len(names)), np.nan)
    for i, name in enumerate(names):
        covariates[: len(given[name]), i] = [np.nan if v is None else v for v in given[name]]
    start = None
    if about.frequency and given.get("origin") is not None:
        try:
            start = at_step(np.datetime64(str(given["origin"]), "us"), about.frequency, -len(values))
        except ValueError:
            raise InputError("'{value}' is no time. Write times like 2024-03-05 or 2024-03-05 11:22.", value=str(given["origin"])[:40]) from None
    static = {c.name: given.get(c.name) for c in schema.features if c.kind in ("number", "category")}
    one = Series(str(given.get(about.by or "id", "")), values, covariates, start, static)
    return asked(Collection([one], tuple(names), tuple(known), about.frequency, about.value, about.by, about.time), schema)


def _wide(source: Any, target: str | None, query: str | None, memory_mb: float, timeout_s: float) -> pl.DataFrame | None:
    with opened(source, query=query, memory_mb=memory_mb, timeout_s=timeout_s) as table:
        if not is_wide(table.names, target):
            return None
        if table.height * len(table.names) * 8 / 2**20 > 0.25 * memory_mb:
            raise InputError("The table of series takes more than a quarter of the {memory:,.0f} MB there are. Allow more with --memory.", memory=memory_mb)
        return pl.DataFrame([table.column(n).alias(n) for n in table.names])


def _long(source: Any, notes: list[Text], *, target: str | None, group: str | None, time: str | None, known: tuple[str, ...], kinds: dict[str, str] | None,
          drop: tuple[str, ...], query: str | None, memory_mb: float, timeout_s: float, frequency: str | None = None) -> Collection:
    if not target:
        raise InputError("Which column is to be forecast? Name it with --target COLUMN.")
    reading = read(source, target=target, kinds=kinds, group=group, time=time, target_as="amount", query=query, memory_mb=max(memory_mb, 1.0), timeout_s=timeout_s, drop=drop)
    notes += reading.notes
    return long(reading.dataset, known=known, notes=notes, frequency=frequency)
