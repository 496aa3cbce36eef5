"""A file or a frame -> Dataset: `read` decides what the columns are, `conform` holds new rows to what was decided."""

from __future__ import annotations

import datetime
import decimal
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from assay.data.dataset import KINDS, Column, Dataset, Schema
from assay.data.disk import Shelf
from assay.data.kinds import cut, infer
from assay.data.load import MEMORY_MB, TIMEOUT_S, nearest, opened
from assay.data.stream import fitted, infer_by_column
from assay.data.values import Parsed, as_float, blank_to_null, epoch_unit, instants, instants_of, label, labels, numbers, times
from assay.errors import InputError
from assay.words import Text

TARGET_AS = ("label", "amount")


@dataclass(frozen=True)
class Reading:
    """notes: what was inferred or changed on the way in, as sentences.

    shelf: the files that a large table's columns are mapped from, if a folder was given for them; `Shelf.keep` takes them over.
    """

    dataset: Dataset
    notes: list[Text] = field(default_factory=list)
    shelf: Shelf | None = None


def read(
    source: Any, *, target: str | None = None, kinds: dict[str, str] | None = None, group: str | None = None,
    time: str | None = None, target_as: str | None = None, query: str | None = None, memory_mb: float = MEMORY_MB,
    timeout_s: float = TIMEOUT_S, seed: int = 0, folder: Path | None = None,
) -> Reading:
    """source: path of a csv, tsv, txt, jsonl or ndjson file (also .gz), a parquet file, a workbook (book.xlsx#Sheet) or a folder of
    parts; URL of a database (sqlite, postgresql, mysql, mariadb) with a `query`; or a polars, pandas or pyarrow table.

    kinds: {column: 'number' | 'category' | 'text' | 'time' | 'id'}, overrides what is inferred. group, time: roles.
    target_as: 'label' or 'amount' fixes what the answer is. memory_mb: a table above a quarter of it is mapped from disk
    (from `folder`, where the files then stay, else from files without a name), and above a half of it a part of its rows
    is drawn with `seed`; `Dataset.rows` says which. timeout_s: longest that a database may take.
    Raises ReadError (the source), InputError (a name or a value), BudgetError (the disk is full), MissingExtra.
    """
    with opened(source, query=query, memory_mb=memory_mb, timeout_s=timeout_s) as table:
        for name in (target, group, time):
            if name is not None:
                _known(name, table.names)
        if target is not None and target in (group, time):
            raise InputError("Column '{name}' is the target, so it cannot be the group or time column too.", name=target)
        for name, kind in (kinds or {}).items():
            _known(name, table.names)
            if kind not in KINDS:
                raise InputError("'{kind}' is no kind of column. There are: {kinds}.", kind=kind, kinds=list(KINDS))
        if target_as is None and target is not None and kinds and target in kinds:
            target_as = "amount" if kinds[target] == "number" else "label"
        if target_as not in (None, *TARGET_AS):
            raise InputError("An answer is read as one of: {known}. '{found}' is neither.", known=list(TARGET_AS), found=target_as)
        table, groups = fitted(table, memory_mb, seed)
        if groups is None:
            found = infer(table.frame(), target=target, overrides=kinds, time=time, group=group, target_as=target_as)
            return Reading(Dataset(found.frame, found.schema, table.row_numbers()), table.notes + found.notes)
        with tempfile.TemporaryDirectory(prefix="assay-") as unnamed:
            shelf = Shelf(folder or Path(unnamed))
            found = infer_by_column(table, groups, shelf, target=target, overrides=kinds, time=time, group=group, target_as=target_as)
        return Reading(Dataset(found.frame, found.schema, table.row_numbers()), table.notes + found.notes, shelf if folder else None)


def _known(name: str, columns: list[str]) -> None:
    if name in columns:
        return
    near = nearest(name, columns)
    shown = columns if len(columns) <= 40 else [*columns[:40], "..."]
    if near:
        raise InputError("No column is called '{name}'. The file has: {columns}. Did you mean '{near}'?", name=name, columns=shown, near=near)
    raise InputError("No column is called '{name}'. The file has: {columns}.", name=name, columns=shown)


# ---- new rows for a trained model


def conform(rows: Any, schema: Schema, *, query: str | None = None) -> Dataset:
    """New rows in the schema a model was trained with, its answer left away.

    rows: anything `read` takes, or [{column: value}, ...] as JSON gives it. Further columns and their order do not
    matter, labels never seen are fine, an absent id or group column is empty. Raises InputError naming the columns that
    are absent, or the column, row (from 1) and value that cannot be read as its kind.
    """
    wanted = schema.without_target()
    if not isinstance(rows, (list, tuple)):
        with opened(rows, query=query) as table:
            _all_there(wanted, table.names)
            return Dataset(pl.DataFrame([_as(c, table.column(c.name)) if c.name in table.names else _absent(c.name, table.height)
                                         for c in wanted.columns]), wanted)
    if not rows:
        raise InputError("There are no rows to answer.")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError("Row {row} is no object of column names and values.", row=i + 1)
    names = list(dict.fromkeys(name for row in rows for name in row)) if len(rows) > 1 else list(rows[0])
    _all_there(wanted, names)
    present = set(names)
    return Dataset(pl.DataFrame([_cells(c, [row.get(c.name) for row in rows]) if c.name in present else _absent(c.name, len(rows))
                                 for c in wanted.columns]), wanted)


def _all_there(wanted: Schema, names: list[str]) -> None:
    present = set(names)
    if absent := [c.name for c in wanted.features if c.name not in present]:
        raise _missing(absent, [n for n in names if n not in {c.name for c in wanted.columns}])


def _absent(name: str, n: int) -> pl.Series:
    return pl.repeat(None, n, dtype=pl.String, eager=True).alias(name)


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
