"""A file or a frame -> Dataset: `read` decides what the columns are, `conform` holds new rows to what was decided."""

from __future__ import annotations

import datetime
import decimal
import math
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from assay.data.dataset import KINDS, Column, Dataset, Schema
from assay.data.kinds import cut, infer
from assay.data.load import load, nearest
from assay.data.values import Parsed, as_float, blank_to_null, epoch_unit, instants, instants_of, label, labels, numbers, times
from assay.errors import InputError
from assay.words import Text

TARGET_AS = ("label", "amount")


@dataclass(frozen=True)
class Reading:
    """notes: what was inferred or changed on the way in, as sentences."""

    dataset: Dataset
    notes: list[Text] = field(default_factory=list)


def read(
    source: Any, *, target: str | None = None, kinds: dict[str, str] | None = None, group: str | None = None,
    time: str | None = None, target_as: str | None = None,
) -> Reading:
    """source: path of a csv, tsv, txt (also .gz), parquet, jsonl or ndjson file, or a polars, pandas or pyarrow table.

    kinds: {column: 'number' | 'category' | 'text' | 'time' | 'id'}, overrides what is inferred. group, time: roles.
    target_as: 'label' or 'amount' fixes what the answer is. Raises ReadError (the file), InputError (a name or a value).
    """
    frame, notes = load(source)
    for name in (target, group, time):
        if name is not None:
            _known(name, frame.columns)
    if target is not None and target in (group, time):
        raise InputError("Column '{name}' is the target, so it cannot be the group or time column too.", name=target)
    for name, kind in (kinds or {}).items():
        _known(name, frame.columns)
        if kind not in KINDS:
            raise InputError("'{kind}' is no kind of column. There are: {kinds}.", kind=kind, kinds=list(KINDS))
    if target_as is None and target is not None and kinds and target in kinds:
        target_as = "amount" if kinds[target] == "number" else "label"
    if target_as not in (None, *TARGET_AS):
        raise InputError("An answer is read as one of: {known}. '{found}' is neither.", known=list(TARGET_AS), found=target_as)
    found = infer(frame, target=target, overrides=kinds, time=time, group=group, target_as=target_as)
    return Reading(Dataset(found.frame, found.schema), notes + found.notes)


def _known(name: str, columns: list[str]) -> None:
    if name in columns:
        return
    near = nearest(name, columns)
    shown = columns if len(columns) <= 40 else [*columns[:40], "..."]
    if near:
        raise InputError("No column is called '{name}'. The file has: {columns}. Did you mean '{near}'?", name=name, columns=shown, near=near)
    raise InputError("No column is called '{name}'. The file has: {columns}.", name=name, columns=shown)


# ---- new rows for a trained model


def conform(rows: Any, schema: Schema) -> Dataset:
    """New rows in the schema a model was trained with, its answer left away.

    rows: anything `read` takes, or [{column: value}, ...] as JSON gives it. Further columns and their order do not
    matter, labels never seen are fine, an absent id or group column is empty. Raises InputError naming the columns that
    are absent, or the column, row (from 1) and value that cannot be read as its kind.
    """
    wanted = schema.without_target()
    listed = isinstance(rows, (list, tuple))
    if listed:
        if not rows:
            raise InputError("There are no rows to answer.")
        for i, row in enumerate(rows):
            if not isinstance(row, dict):
                raise InputError("Row {row} is no object of column names and values.", row=i + 1)
        names = list(dict.fromkeys(name for row in rows for name in row)) if len(rows) > 1 else list(rows[0])
    else:
        frame, _ = load(rows)
        names = frame.columns
    present = set(names)
    absent = [c.name for c in wanted.features if c.name not in present]
    if absent:
        raise _missing(absent, [n for n in names if n not in {c.name for c in wanted.columns}])
    out = []
    for column in wanted.columns:
        name = column.name
        if name not in present:
            out.append(pl.repeat(None, len(rows) if listed else frame.height, dtype=pl.String, eager=True).alias(name))
            continue
        out.append(_cells(column, [row.get(name) for row in rows]) if listed else _as(column, frame[name]))
    return Dataset(pl.DataFrame(out), wanted)


def _missing(absent: list[str], spare: list[str]) -> InputError:
    pairs = [(name, nearest(name, spare)) for name in absent]
    near = [f"{there} -> {name}" for name, there in pairs if there]
    if near:
        return InputError("The rows lack columns the model was trained with: {absent}. Perhaps to be renamed: {near}.", absent=absent, near=near)
    return InputError("The rows lack columns the model was trained with: {absent}.", absent=absent)


_COUNTED = ("yyyymmdd", "epoch_s", "epoch_ms")
_PLAIN = (str, int, float, bool, datetime.date, decimal.Decimal)


def _cells(column: Column, cells: list[Any]) -> pl.Series:
    """Python values as one series of this column."""
    name = column.name
    cells = [c if isinstance(c, str | int | float) or c is None else _plain(c) for c in cells]
    types = {type(c) for c in cells if c is not None}
    if types == {str} and column.kind in ("category", "id"):
        return pl.Series(name, [None if c is None else label(c) for c in cells], dtype=pl.String)
    if column.kind == "number" and types <= {int, float}:
        return pl.Series(name, [None if c is None or not _finite(c) else float(c) for c in cells], dtype=pl.Float64)
    for i, cell in enumerate(cells):
        if cell is not None and not isinstance(cell, _PLAIN):
            raise InputError("Column '{name}', row {row}: '{value}' is no single value.", name=name, row=i + 1, value=cut(cell))
    if types <= {int, float} and all(not isinstance(c, int) or abs(c) < 2**53 for c in cells):
        series = pl.Series(name, [None if c is None else float(c) for c in cells], dtype=pl.Float64)
    elif len(types) == 1 and types & {str, bool, datetime.date, datetime.datetime}:
        series = pl.Series(name, cells)
    else:  # mixed types become text
        series = pl.Series(name, [None if c is None else str(c) for c in cells], dtype=pl.String)
    return _as(column, series)


def _plain(cell: Any) -> Any:
    """numpy scalars as Python values, instants in UTC without a zone."""
    if hasattr(cell, "item") and not isinstance(cell, _PLAIN):
        cell = cell.item()
    if isinstance(cell, decimal.Decimal):
        return float(cell) if cell.is_finite() else None
    if isinstance(cell, datetime.datetime) and cell.tzinfo:
        try:
            cell = cell.astimezone(datetime.UTC).replace(tzinfo=None)
        except OverflowError:  # within a day of year 1 or 9999
            cell = cell.replace(tzinfo=None)
    return cell


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int of more than 308 digits
        return False


def _as(column: Column, cells: pl.Series) -> pl.Series:
    cells = as_float(cells)
    dtype = cells.dtype
    if column.kind in ("category", "id"):
        return labels(cells)
    if column.kind == "text":
        return blank_to_null(cells) if dtype == pl.String else labels(cells)
    if column.kind == "number":
        if dtype.is_numeric() or dtype == pl.Boolean:
            values = cells.cast(pl.Float64)
        else:
            values = _read_all(numbers(cells.cast(pl.String)), cells, "a number")
        return values.set(~values.is_finite().fill_null(True), None)
    if dtype in (pl.Date, pl.Datetime):
        return instants(cells)
    if dtype.is_numeric():
        return instants_of(cells, column.unit if column.unit in _COUNTED else epoch_unit(cells))
    text = cells.cast(pl.String)
    if column.unit in _COUNTED:
        return instants_of(_read_all(numbers(text), cells, "a time"), column.unit)
    return _read_all(times(text, column.unit), cells, "a time")


def _read_all(parsed: Parsed, cells: pl.Series, wanted: str) -> pl.Series:
    if parsed.bad is None:
        return parsed.values
    if wanted == "a number":
        raise InputError("Column '{name}', row {row}: '{value}' is no number.", name=cells.name, row=parsed.bad + 1, value=cut(cells[parsed.bad]))
    raise InputError("Column '{name}', row {row}: '{value}' is no time. Write times like 2024-03-05 or 2024-03-05 11:22.",
                     name=cells.name, row=parsed.bad + 1, value=cut(cells[parsed.bad]))
