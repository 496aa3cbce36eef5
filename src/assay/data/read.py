"""A file or a frame -> Dataset: `read` decides what the columns are, `conform` holds new rows to what was decided."""

from __future__ import annotations

import datetime
import decimal
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from assay.data import given
from assay.data.broken import whole
from assay.data.dataset import KINDS, MEDIA, Column, Dataset, Schema
from assay.data.disk import Shelf
from assay.data.folders import NAMES, with_files
from assay.data.inspect.names import names_a_fold, names_a_unit
from assay.data.kinds import cut, infer
from assay.data.load import MEMORY_MB, TIMEOUT_S, nearest, opened
from assay.data.sequences import WINDOW, Made, remade, with_sequences
from assay.data.split import OWN, judges
from assay.data.stream import all_there, fitted, infer_by_column
from assay.data.table import Table
from assay.data.values import Parsed, as_float, blank_to_null, epoch_unit, instants, instants_of, label, labels, numbers, times
from assay.errors import InputError
from assay.words import Text, say

TARGET_AS = ("label", "amount")
_ANSWERS = ("label", "labels", "class", "target", "category", "digit", "answer", "y", "diagnosis", "defect", "fault", "标签", "类别", "分类", "答案", "结果")


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
    timeout_s: float = TIMEOUT_S, seed: int = 0, folder: Path | None = None, drop: tuple[str, ...] = (), choose: bool = False,
    skip_broken: bool = False, sequence: bool = False, window: int = WINDOW, observe: Callable[[Text], None] = lambda note: None,
) -> Reading:
    """source: path of a csv, tsv, txt, jsonl or ndjson file (also .gz), a parquet file, a workbook (book.xlsx#Sheet) or a folder of
    parts; a folder of pictures or sounds (docs/media.md); URL of a database (sqlite, postgresql, mysql, mariadb) with a `query`; or a polars, pandas or pyarrow table.

    kinds: {column: 'number' | 'category' | 'text' | 'time' | 'id' | 'image' | 'audio'}, overrides what is inferred. group, time: roles.
    drop: columns that are not read. choose: where no target is named, take the one that the folders or the names say.
    sequence: the rows of each group, or numbered columns, are sequences (data.sequences); window: steps of a history.
    skip_broken: leave out rows whose picture or sound cannot be decoded. observe: is told how far a long reading is.
    target_as: 'label' or 'amount' fixes what the answer is. memory_mb: a table above a quarter of it is mapped from disk
    (from `folder`, where the files then stay, else from files without a name), and above a half of it a part of its rows
    is drawn with `seed`; `Dataset.rows` says which. timeout_s: longest that a database may take.
    Raises ReadError (the source), InputError (a name or a value), BudgetError (the disk is full), MissingExtra.
    """
    with opened(source, query=query, memory_mb=memory_mb, timeout_s=timeout_s) as table:
        table = _without(table, drop, target)
        kinds, table = _files(table, kinds or {}, (target, group, time))
        target = target or (_answer(table, group, time) if choose else None)
        for name in (target, group, time):
            if name is not None:
                _known(name, table.names)
        if target is not None and target in (group, time):
            raise InputError("Column '{name}' is the target, so it cannot be the group or time column too.", name=target)
        for name, kind in kinds.items():
            _known(name, table.names)
            if kind not in KINDS:
                raise InputError("'{kind}' is no kind of column. There are: {kinds}.", kind=kind, kinds=list(KINDS))
        if target_as is None and target is not None and target in kinds:
            target_as = "amount" if kinds[target] == "number" else "label"
        if target_as not in (None, *TARGET_AS):
            raise InputError("An answer is read as one of: {known}. '{found}' is neither.", known=list(TARGET_AS), found=target_as)
        table, groups = (all_there(table, memory_mb), None) if sequence else fitted(table, memory_mb, seed)
        if groups is None:
            found = infer(table.frame(), target=target, overrides=kinds, time=time, group=group, target_as=target_as)
            data = Dataset(found.frame, _with_facts(found.schema, found.frame, kinds, table.media), table.row_numbers())
            notes = table.notes + found.notes
            if sequence:
                data = with_sequences(data, window=window, memory_mb=memory_mb, notes=notes)
            return Reading(whole(data, table.media, skip=skip_broken, notes=notes, observe=observe), notes)
        with tempfile.TemporaryDirectory(prefix="assay-") as unnamed:
            shelf = Shelf(folder or Path(unnamed))
            found = infer_by_column(table, groups, shelf, target=target, overrides=kinds, time=time, group=group, target_as=target_as)
        data = Dataset(found.frame, _with_facts(found.schema, found.frame, kinds, table.media), table.row_numbers())
        notes = table.notes + found.notes
        return Reading(whole(data, table.media, skip=skip_broken, notes=notes, observe=observe), notes, shelf if folder else None)


def _without(table: Table, drop: tuple[str, ...], target: str | None) -> Table:
    """The table without these columns. Raises InputError if one is not there, or is the target."""
    if not drop:
        return table
    absent = [n for n in drop if n not in table.names]
    if absent or target in drop:
        raise InputError("There is no column '{name}' that could be left out. The data have: {columns}.", name=absent[0] if absent else target,
                         columns=[c for c in table.names if c != target][:40])
    table.notes.append(say("Left out as you said: {names}.", names=list(drop)))
    return table.only([n for n in table.names if n not in drop])


def _files(table: Table, kinds: dict[str, str], roles: tuple[str | None, ...]) -> tuple[dict[str, str], Table]:
    """The table with its pictures and sounds, and what its columns are: one that names files is an id, unless the user says otherwise."""
    made = with_files(table, kinds, roles)
    paths = {path: cells for cells, path in made.media.items() if path and cells not in table.names}
    own = {path: "id" for path in made.media.values() if path and path not in roles}
    said = {paths[n] if k in NAMES and n in paths else n: k for n, k in kinds.items()}
    return own | said, made


def _answer(table: Table, group: str | None, time: str | None) -> str:
    """The column that is the answer where none is named. Raises InputError."""
    if table.target:
        if len(kinds := table.column(table.target).unique()) == 1:
            raise InputError("All files are of one class, '{name}'. A subfolder for each of two or more classes is expected, or a table with their paths and a column of "
                             "answers (labels.csv) beside them.", name=kinds[0])
        return table.target
    apart = {*table.media, *table.media.values(), group, time}
    names = [n for n in table.names if n not in apart]
    if table.media:
        lowered = {n.lower().strip(): n for n in names}
        if named := next((lowered[w] for w in _ANSWERS if w in lowered), None):
            return named
        others = [n for n in names if not names_a_fold(n) and names_a_unit(n) <= 0]
        if len(others) == 1:
            return others[0]
        if not names:
            raise InputError("There are {n:,} pictures or sounds, and nothing says what they show. Put them into a subfolder for each class, or a table with their paths and "
                             "a column of answers (labels.csv) beside them.", n=table.height)
    shown = names if len(names) <= 40 else [*names[:40], "..."]
    raise InputError("No target is named. Say which column is the answer: --target COLUMN. There are: {columns}.", columns=shown)


def _with_facts(schema: Schema, frame: pl.DataFrame, kinds: dict[str, str], files: dict[str, str | None]) -> Schema:
    """The schema in which pictures and sounds say which column names their files (as their unit), and a column that says train or test in
    each row is no feature but the split that the data bring."""
    schema = replace(schema, columns=tuple(replace(c, unit=files.get(c.name)) if c.kind in NAMES else c for c in schema.columns))
    roles = (schema.target, schema.group, schema.time)
    own = next((c for c in schema.columns if c.kind in ("category", "text", "id") and c.name not in roles and c.name not in kinds and names_a_fold(c.name)
                and judges(frame[c.name]) is not None), None)
    return schema if own is None else replace(schema, columns=tuple(Column(c.name, "id", unit=OWN) if c is own else c for c in schema.columns))


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
    matter, labels never seen are fine, an absent id or group column is empty. A picture or sound may be bytes, a data URI, or in a
    file the path of one; a folder of them, and a single one, are taken too. A sequence is a list of steps, or made of the columns
    of which it was made in training. Raises InputError naming the columns that are absent, or the column, row (from 1) and value
    that cannot be read as its kind.
    """
    wanted = schema.without_target()
    if not isinstance(rows, (list, tuple)):
        with opened(rows, query=query) as table:
            table, known_as = _media(table, wanted)
            names = [n for n in table.names if n not in known_as.values()] + list(known_as)
            asked = _to_read(wanted, names)
            plain = {c.name: table.column(known_as.get(c.name, c.name)).alias(c.name) for c in asked if c.name in names}
            if isinstance(rows, (str, Path)) and (media := tuple(c for c in asked if c.kind in NAMES and plain[c.name].dtype == pl.Binary)):
                files = {c.name: c.unit if c.unit in plain else None for c in media}
                whole(Dataset(pl.DataFrame([plain[n] for n in dict.fromkeys([*files, *filter(None, files.values())])]), Schema(media)), files, skip=None, notes=[])
            frame = pl.DataFrame([_as(c, plain[c.name]) if c.name in plain else _absent(c.name, table.height) for c in asked])
            return Dataset(remade(frame, wanted).select(c.name for c in wanted.columns), wanted)
    if not rows:
        raise InputError("There are no rows to answer.")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError("Row {row} is no object of column names and values.", row=i + 1)
    names = list(dict.fromkeys(name for row in rows for name in row)) if len(rows) > 1 else list(rows[0])
    asked = _to_read(wanted, names)
    present = set(names)
    frame = pl.DataFrame([_cells(c, [row.get(c.name) for row in rows]) if c.name in present else _absent(c.name, len(rows)) for c in asked])
    return Dataset(frame if asked is wanted.columns else remade(frame, wanted).select(c.name for c in wanted.columns), wanted)


def named_by(schema: Schema) -> list[str]:
    """The columns that say what a row of answers is about: its file, or its unit and step."""
    out: list[str] = []
    for c in schema.columns:
        made = Made.of(c)
        out += [c.unit] if c.kind in NAMES and c.unit else [n for n in (made.by, made.time.name if made.time and made.last else None) if n] if made else []
    there = {c.name for c in schema.columns}
    return [n for n in dict.fromkeys(out) if n in there]


def _media(table: Table, wanted: Schema) -> tuple[Table, dict[str, str]]:
    """The table with its pictures and sounds, and {column of the schema: what the table calls it}."""
    media = [c for c in wanted.columns if c.kind in NAMES]
    if not media:
        return table, {}
    table = with_files(table, {}, tuple(c.name for c in wanted.columns if c.kind == "text"))
    known_as: dict[str, str] = {}
    for c in media:
        spare = [n for n in table.media if n not in {w.name for w in wanted.columns}]
        if c.name not in table.names and len(spare) == 1:
            known_as[c.name] = spare[0]
        path = table.media.get(known_as.get(c.name, c.name))
        if c.unit and path and c.unit not in table.names:
            known_as[c.unit] = path
    return table, known_as


def _to_read(wanted: Schema, names: list[str]) -> tuple[Column, ...]:
    """The columns to read: those of the schema, and in place of a sequence that is not there what it is made of. Raises InputError."""
    making = {c.name: made for c in wanted.columns if c.kind == "sequence" and c.name not in names and (made := Made.of(c))}
    if not making:
        _all_there(wanted, names)
        return wanted.columns
    kept = {c.name: c for c in wanted.columns if c.name not in making}
    more: dict[str, Column] = {}
    for name, made in making.items():
        channels = next(c.channels or () for c in wanted.columns if c.name == name) if made.by else ()
        more |= {n: made.time if made.time and n == made.time.name else Column(n, "category" if n == made.by else "number") for n in (*channels, *made.needs)}
    needed = Schema(tuple(kept.values()) + tuple(c for n, c in more.items() if n not in kept))
    absent = [c.name for c in needed.columns if c.name not in names and (c.name in more or c.name in {f.name for f in wanted.features})]
    if absent:
        raise _missing(absent, [n for n in names if n not in {c.name for c in needed.columns}])
    return needed.columns


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
    if column.kind in MEDIA:
        return given.cells(column, cells)
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
    if column.kind in MEDIA:
        return given.as_cells(column, cells)
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
