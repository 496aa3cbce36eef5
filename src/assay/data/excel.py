"""Workbooks: xlsx, xlsm, xlsb and ods, through calamine (package fastexcel): 100,000 x 10 in 1.1 s, where openpyxl takes 12.

A sheet is made for eyes: titles above the names, empty rows and columns around, cells that hold an error. What is done about each is said.
"""

from __future__ import annotations

import difflib
import logging
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.encoding import short
from assay.data.table import Held, Table
from assay.errors import MissingExtra, ReadError
from assay.words import Text, say

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".ods")
_OLD = b"\xd0\xcf\x11\xe0"
_LOCKED = "EncryptedPackage".encode("utf-16-le")
_SHEETS = re.compile(r"xl/workbook\.(xml|bin)|content\.xml")
_LOOKED_AT = 200  # rows in which the column names are searched
_FULL = 0.6  # of the widest row: what has fewer cells is a title, or the upper line of names in two lines


def sheet_of(path: Path) -> tuple[Path, str] | None:
    """'book.xlsx#Sales' as (book.xlsx, 'Sales'); None for a name that is no workbook's or a file that is there as it is."""
    book, mark, sheet = str(path).rpartition("#")
    if not mark or not sheet or Path(book).suffix.lower() not in (*SUFFIXES, ".xls") or path.exists():
        return None
    return (Path(book), sheet) if Path(book).exists() else None


def is_workbook(path: Path, head: bytes) -> bool:
    if head[:4] == _OLD or path.suffix.lower() in (*SUFFIXES, ".xls"):
        return True
    if head[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_SHEETS.fullmatch(name) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return b"[Content_Types].xml" in head or b"xl/" in head


def read_sheet(path: Path, sheet: str | None, most: float) -> Table:
    """The table of a sheet, of the first with a table if none is named. most: bytes that the sheet's text may unpack to.

    Numbers and dates as the cells hold them, formulas as their stored results. Raises ReadError, MissingExtra.
    """
    _openable(path, most)
    reader = _opened(path)
    names: list[str] = reader.sheet_names
    notes: list[Text] = []
    if sheet is not None and sheet not in names:
        near = difflib.get_close_matches(sheet, names, n=1)
        if near:
            raise ReadError("'{file}' has no sheet '{sheet}'. It has: {names}. Did you mean '{near}'?", file=short(path), sheet=sheet, names=names, near=near[0])
        raise ReadError("'{file}' has no sheet '{sheet}'. It has: {names}.", file=short(path), sheet=sheet, names=names)
    for name in [sheet] if sheet is not None else names:
        frame = _table(path, reader, name, notes)
        if frame is not None:
            break
    else:
        raise ReadError("'{file}' holds no table: no row of column names with a row below it. Looked at: {names}.", file=short(path),
                        names=[sheet] if sheet is not None else names)
    if len(names) > 1 and sheet is None:
        notes.insert(0, say("Of the sheets {names}, '{sheet}' is read. Another one: {file}#{other}", names=names, sheet=name, file=short(path),
                            other=next(n for n in names if n != name)))
    full = pl.select(pl.any_horizontal([column.is_not_null() for column in frame])).to_series()
    if bool(full.all()):
        return Table([Held(frame)], notes)
    rows = full.arg_true().to_numpy().astype(np.int64)
    if inner := int(rows[-1]) + 1 - len(rows):
        notes.append(say("{n} empty rows are left out.", n=inner))
    return Table([Held(frame)], notes, rows=rows)


def _openable(path: Path, most: float) -> None:
    with path.open("rb") as file:
        head = file.read(1 << 20)
    if not head:
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
    if head[:4] == _OLD and _LOCKED in head:
        raise ReadError("'{file}' is protected with a password. Save it without one and try again.", file=short(path))
    if head[:4] == _OLD or path.suffix.lower() == ".xls":
        raise ReadError("'{file}' is an old Excel workbook (.xls). Open it, save it as .xlsx and try again.", file=short(path))
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, OSError):
        raise ReadError("'{file}' is no Excel workbook, or a damaged one: {error}.", file=short(path), error=say("it is no zip archive")) from None
    if not any(_SHEETS.fullmatch(info.filename) for info in found):
        raise ReadError("'{file}' is no Excel workbook, or a damaged one: {error}.", file=short(path), error=say("it holds no list of sheets"))
    size = sum(info.file_size for info in found)
    if size > most:
        raise ReadError("'{file}' unpacks to {size:,.0f} MB, more than the {most:,.0f} MB that a workbook may take. Save the sheet as CSV (UTF-8).",
                        file=short(path), size=size / 2**20, most=most / 2**20)


def _opened(path: Path) -> Any:
    try:
        import fastexcel
    except ModuleNotFoundError:
        raise MissingExtra("fastexcel", extra="xlsx") from None
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of every empty column
    logging.getLogger("fastexcel.types.dtype").setLevel(logging.ERROR)
    return _asked(path, lambda: fastexcel.read_excel(str(path)))


def _asked(path: Path, ask: Any) -> Any:
    try:
        return ask()
    except (KeyboardInterrupt, MemoryError, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ReadError("'{file}' is no Excel workbook, or a damaged one: {error}.", file=short(path), error=first) from None


def _table(path: Path, reader: Any, sheet: str, notes: list[Text]) -> pl.DataFrame | None:
    """The rows below the names, with empty ones; None if the sheet has no table."""
    above = _asked(path, lambda: reader.load_sheet(
        sheet, header_row=None, skip_rows=0, n_rows=_LOOKED_AT, dtypes="string", whitespace_as_null=True).to_polars())
    at = _names_at(above)
    if at is None:
        return None
    loaded = _asked(path, lambda: reader.load_sheet(sheet, header_row=None, skip_rows=at + 1, schema_sample_rows=None, whitespace_as_null=True))
    batch, errors = _asked(path, loaded.to_arrow_with_errors)
    frame = pl.DataFrame(batch)
    if all(column.null_count() == frame.height for column in frame):
        return None
    titles = [str(cell) for row in above.head(at).iter_rows() for cell in row if cell is not None]
    if titles:
        notes.append(say("What stands above the column names is left out: {titles}.", titles=[t[:60] for t in titles[:3]] + ["..."] * (len(titles) > 3)))
    names = [(cell or "").strip() for cell in above.row(at)]
    kept = [i for i, column in enumerate(frame) if names[i] or column.null_count() < frame.height]
    unnamed = [i for i in kept if not names[i]]
    for i in unnamed:
        names[i] = f"column_{i + 1}"
    if unnamed:
        notes.append(say("Columns without a name are called: {names}.", names=[names[i] for i in unnamed]))
    if twice := [name for name, n in Counter(names[i] for i in kept).items() if n > 1]:
        raise ReadError("Column names have to differ, but '{file}' has more than one of: {names}. Rename them.", file=short(path), names=twice)
    frame = pl.DataFrame([frame.to_series(i).alias(names[i]) for i in kept])
    if errors is not None and errors.errors:
        wrong = sorted({names[e.position[1]] for e in errors.errors})
        notes.append(say("Cells that hold an error such as #N/A count as missing: {n}, in {names}.", n=len(errors.errors), names=wrong[:10]))
    blank = [column.name for column in frame if column.null_count() == frame.height]
    if blank and _has_formulas(path):
        notes.append(say("{names}: no cell has a value. If they are formulas, their results were never stored: open '{file}' in Excel or LibreOffice, save it "
                         "and try again.", names=blank[:10], file=short(path)))
    return frame


def _names_at(above: pl.DataFrame) -> int | None:
    """The first row that is nearly as full as the fullest: the names. None if nothing is below it."""
    filled = [sum(cell is not None for cell in row) for row in above.iter_rows()]
    widest = max(filled, default=0)
    at = next((i for i, n in enumerate(filled) if n and n >= _FULL * widest), None)
    return at if at is not None and (any(filled[at + 1:]) or at == _LOOKED_AT - 1) else None


def _has_formulas(path: Path) -> bool:
    """Only asked of a workbook with a column of nothing. 64 MB of each sheet are looked at."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"xl/worksheets/[^/]+\.xml", name):
                with archive.open(name) as file:
                    if re.search(rb"<f[ >]", file.read(64 << 20)):
                        return True
    return False
