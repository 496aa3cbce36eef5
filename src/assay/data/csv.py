"""Delimited text of any encoding and separator, into a frame. Every row is checked before polars parses it.

Three passes over the bytes, each in pieces: bytes -> utf-8 (`_as_utf8`), fields counted a row (`_inspect`), parsed by
polars. A file that breaks the plain rules (a stray quotation mark, old Mac line ends) goes through Python's csv module
once, which either repairs it or names the line.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from assay.data.disk import room
from assay.data.encoding import CHUNK, as_utf8, short
from assay.data.table import Held, Parquet, Table, weight
from assay.data.values import EXACT
from assay.errors import ReadError
from assay.words import Text, say

SEPARATORS = (",", ";", "\t", "|")
_NONE = "\x1f"
_NAMES: dict[str, Text | str] = {";": say("semicolon"), "\t": say("tab"), "|": "|", ",": say("comma")}
_NUMBER = r"^(?:[+-]?(?:0|[1-9]\d{0,14})(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|[+-]?\.\d+(?:[eE][+-]?\d{1,3})?|[+-]?(?:nan|NaN|inf|Inf))$"


@dataclass(frozen=True)
class Lines:
    """One text file whose every row was counted, not parsed yet. names: in the order of its own header."""

    plain: Path
    layout: _Layout
    names: list[str]
    separator: str
    skip: int


def read_delimited(path: Path, folder: Path, *, tabs_first: bool = False, lines: bool = False, most: float = math.inf) -> Table:
    """The table (numbers as Float64 where a whole column is plain numbers, all else String), and what was noticed.

    folder: an empty folder for temporary copies. lines: if the first line is one name, each line is one cell, whatever
    separators stand in it. most: bytes that the frame may take in memory; a larger one is written to `folder` as it is
    parsed, and mapped. Raises ReadError naming the line or byte that is wrong.
    """
    notes: list[Text] = []
    one = counted(path, folder, notes, tabs_first=tabs_first, lines=lines)
    return parsed([one], folder, notes, most)


def counted(path: Path, folder: Path, notes: list[Text], *, tabs_first: bool = False, lines: bool = False) -> Lines:
    """The file as utf-8, its names and separator, all its rows counted. Raises ReadError naming the line or byte that is wrong."""
    csv.field_size_limit(1 << 24)
    plain = as_utf8(path, folder, notes)
    text = _first_lines(plain)
    if not text.strip():
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
    if "\n" not in text and "\r" in text:  # line ends of an old Mac
        plain = _rewritten(plain, folder, path, _sniffed(text.replace("\r", "\n"), tabs_first), None)
        text = _first_lines(plain)
    separator = _sniffed(text, tabs_first)
    if lines and not any(s in text.partition("\n")[0] for s in SEPARATORS):
        separator = _NONE
    names, skip = _header(text, separator, path, notes)
    layout = _inspect(plain, separator, len(names), skip)
    if layout.broken:
        try:
            plain = _rewritten(plain, folder, path, separator, len(names))
            skip = _header(_first_lines(plain), separator, path, [])[1]
            layout = _inspect(plain, separator, len(names), skip)
        except ReadError:
            if layout.broken_without_quotes:
                raise
            layout.quote = None
            notes.append(say("Quotation marks are read as ordinary characters, because they do not come in pairs around whole fields."))
    if not layout.rows:
        raise ReadError("'{file}' has column names but no rows.", file=short(path))
    if separator not in (",", _NONE):
        notes.append(say("The separator is: {separator}.", separator=_NAMES[separator]))
    if len(names) > 1 and all(re.fullmatch(r"[+-]?[\d.]+", n) for n in names):
        notes.append(say("The first line of '{file}' holds only numbers. It is taken as column names; add a line of names if it is data.", file=short(path)))
    return Lines(plain, layout, names, separator, skip)


# ---- what the rows look like


@dataclass
class _Layout:
    """What one pass over the bytes found. sample: whole records from all over the file."""

    rows: int = 0
    broken: bool = False
    broken_without_quotes: bool = False
    quote: str | None = '"'
    sample: list[bytes] = field(default_factory=list)


def _first_lines(plain: Path) -> str:
    """The first megabyte as text whose lines end in a newline."""
    with plain.open("rb") as file:
        return file.read(1 << 20).decode("utf-8-sig", errors="ignore").replace("\r\n", "\n")


def _sniffed(text: str, tabs_first: bool) -> str:
    """The separator under which most records have as many fields as the header; then the one with most fields."""
    best, score = ",", (0.0, 0, 0)
    for separator in SEPARATORS:
        records = []
        for record in csv.reader(io.StringIO(text[:200_000].replace("\r", " ")), delimiter=separator):
            if record:
                records.append(len(record))
            if len(records) > 200:
                break
        fields = records[0] if records else 1
        if fields < 2:
            continue
        rest = records[1:-1] or records[1:]  # the last one may be cut off
        share = sum(n == fields for n in rest) / len(rest) if rest else 1.0
        this = (round(share, 1), int(tabs_first and separator == "\t"), fields)
        if this > score:
            best, score = separator, this
    return best


def _header(text: str, separator: str, path: Path, notes: list[Text]) -> tuple[list[str], int]:
    """Column names, and how many lines stand before the first row."""
    reader = csv.reader(io.StringIO(text.replace("\r", " ")), delimiter=separator)
    names = [cell.strip() for cell in next((r for r in reader if any(cell.strip() for cell in r)), [])]
    unnamed = [i for i, name in enumerate(names) if not name]
    if len(unnamed) == len(names):
        raise ReadError("The first line of '{file}' names no column.", file=short(path))
    for i in unnamed:
        names[i] = f"column_{i + 1}"
    if unnamed:
        notes.append(say("Columns without a name are called: {names}.", names=[names[i] for i in unnamed]))
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise ReadError("Column names have to differ, but '{file}' has more than one of: {names}. Rename them.", file=short(path), names=twice)
    skip = reader.line_num
    for line in text.split("\n")[skip:]:
        if line.strip():
            break
        skip += 1  # a blank line right after the names would count as a row of one field
    return names, skip


def _inspect(path: Path, separator: str, columns: int, skip: int) -> _Layout:
    """Count the fields of every record, quotation marks respected. About 0.5 GB a second; memory: a few times CHUNK."""
    out = _Layout()
    sep = ord(separator)
    quoted = False
    inside, carried, carried_raw, tail, edge = 0, 0, 0, b"", b"\n\n"
    sampled = 1000  # records from the first piece; later pieces give fewer
    with path.open("rb") as file:
        for _ in range(skip):
            file.readline()
        while piece := file.read(CHUNK):
            a = np.frombuffer(piece, dtype=np.uint8)
            ends, seps = a == 10, a == sep
            quoted = quoted or b'"' in piece  # from the first quotation mark on
            if quoted:
                raw, carried_raw = _counts(ends, seps, carried_raw)
                blank = (raw == 0) & (columns > 1) & _blank(a, ends, edge)
                out.broken_without_quotes |= bool(((raw != columns - 1) & ~blank).any())
                marks = a == 34
                parity = (np.cumsum(marks, dtype=np.int64) + inside) & 1
                at = np.flatnonzero(marks)
                previous = np.where(at > 0, a[at - 1], edge[-1])
                opens = parity[at] == 1
                following = np.where(at + 1 < len(a), a[np.minimum(at + 1, len(a) - 1)], (file.peek(1)[:1] or b"\n")[0])
                starts_field = np.isin(previous, (10, sep, 34))
                ends_field = np.isin(following, (10, 13, sep, 34))
                out.broken |= bool((np.where(opens, ~starts_field, ~ends_field)).any())
                inside = int(parity[-1])
                outside = parity == 0
                ends, seps = ends & outside, seps & outside
            counts, carried_now = _counts(ends, seps, carried)
            wrong = counts != columns - 1
            if not quoted:
                carried_raw = carried_now
            if wrong.any() or not len(counts):
                empty = _blank(a, ends, edge) if len(counts) else np.zeros(0, dtype=bool)
                out.broken |= bool((wrong & ~empty).any())
                if not quoted:
                    out.broken_without_quotes |= bool((wrong & ~empty).any())
            carried = carried_now
            out.rows += len(counts)
            stops = np.flatnonzero(ends)
            if len(stops) > 1:
                step = max(1, (len(stops) - 1) // sampled)
                for k in range(0, len(stops) - 1, step):
                    out.sample.append(piece[stops[k] + 1: stops[k + 1] + 1])
                out.sample.append(tail + piece[: stops[0] + 1])
                sampled = 200
            elif len(stops) == 1:
                out.sample.append(tail + piece[: stops[0] + 1])
            tail = piece[stops[-1] + 1:] if len(stops) else tail + piece
            edge = (edge + piece[-2:])[-2:]
    if tail.strip():  # no newline at the end of the file
        out.rows += 1
        out.broken |= carried != columns - 1 or bool(inside)
        out.broken_without_quotes |= carried_raw != columns - 1 and not tail.endswith(b"\n")
        out.sample.append(tail + b"\n")
    elif columns > 1 and tail.strip(b"\r"):
        out.broken = out.broken_without_quotes = True  # blanks after the last line end
    return out


def _counts(ends: np.ndarray, seps: np.ndarray, carried: int) -> tuple[np.ndarray, int]:
    """Separators of each record that ends here, and of the one still open."""
    marks = np.flatnonzero(ends | seps)
    stops = np.flatnonzero(ends[marks])
    counts = np.diff(stops, prepend=-1) - 1
    if not len(stops):
        return counts, carried + len(marks)
    counts[0] += carried
    return counts, len(marks) - 1 - int(stops[-1])


def _blank(a: np.ndarray, ends: np.ndarray, edge: bytes) -> np.ndarray:
    """Which of the records that end here are an empty line. edge: the two bytes before `a`."""
    stops = np.flatnonzero(ends) + 2
    whole = np.concatenate((np.frombuffer(edge, dtype=np.uint8), a))
    return (whole[stops - 1] == 10) | ((whole[stops - 1] == 13) & (whole[stops - 2] == 10))


def _rewritten(plain: Path, folder: Path, path: Path, separator: str, columns: int | None) -> Path:
    """A clean copy by Python's csv module. Raises ReadError at the first record of another width."""
    copy = folder / "clean.txt"
    with plain.open(encoding="utf-8-sig", newline="") as source, copy.open("w", encoding="utf-8", newline="") as target:
        reader, writer = csv.reader(source, delimiter=separator, strict=True), csv.writer(target, delimiter=separator, lineterminator="\n")
        start = 1
        try:
            for record in reader:
                if len(record) < 2 and not any(cell.strip() for cell in record):
                    start = reader.line_num + 1
                    continue
                columns = columns or len(record)
                if len(record) != columns:
                    if reader.line_num > start:
                        raise ReadError(
                            "The record that starts on line {line} of '{file}' has {found} fields, the header has {expected}, and it runs on to "
                            "line {end}: a quotation mark on line {line} is probably not closed.",
                            file=short(path), line=start, end=reader.line_num, found=len(record), expected=columns)
                    raise ReadError(
                        "Line {line} of '{file}' has {found} fields, the header has {expected}. Put fields that contain the separator in "
                        "quotation marks, or mend that line.", file=short(path), line=start, found=len(record), expected=columns)
                writer.writerow(record)
                start = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise ReadError("The quotation mark that opens on line {line} of '{file}' is never closed.", file=short(path), line=start) from None
            if "expected after" in str(error):
                raise ReadError(
                    "In the record that starts on line {line} of '{file}' a quotation mark is not closed, or stands inside a quoted field "
                    "without being doubled.", file=short(path), line=start) from None
            raise ReadError("Line {line} of '{file}' cannot be split into fields: {error}.", file=short(path), line=start, error=str(error)) from None
    return copy


# ---- polars


def parsed(parts: list[Lines], folder: Path, notes: list[Text], most: float) -> Table:
    """Files with the same names, in any order, as one table. A column is numbers only where it is in every file."""
    names = parts[0].names

    def scan(types: dict[str, type[pl.DataType]], *, lenient: bool = False) -> pl.LazyFrame:
        runs = [list(run) for _, run in itertools.groupby(parts, lambda p: (p.names, p.separator, p.skip, p.layout.quote))]
        scans = [pl.scan_csv([p.plain for p in run], has_header=False, schema={n: types[n] for n in run[0].names}, skip_lines=run[0].skip,
                             separator=run[0].separator, quote_char=run[0].layout.quote, infer_schema=False, glob=False,
                             ignore_errors=lenient).select(names) for run in runs]
        return scans[0] if len(scans) == 1 else pl.concat(scans)

    strings: dict[str, type[pl.DataType]] = dict.fromkeys(names, pl.String)
    sample = pl.concat([_sample(p).select(names) for p in parts])
    types = dict(strings)
    for name in names:
        cells = sample[name].drop_nulls()
        cells = cells.filter(cells != "")
        if len(cells) and bool(cells.str.contains(_NUMBER).all()):
            types[name] = pl.Float64
    size = sum(8 if types[name] == pl.Float64 else weight(sample[name]) for name in names) * sum(p.layout.rows for p in parts)
    try:
        table = _collected(scan(types), size, most, folder)
    except pl.exceptions.ComputeError:  # a cell beyond the sample is no number: find whose
        present = scan(strings).select(pl.all().replace("", None).null_count()).collect(engine="streaming").row(0)
        lenient = scan(types, lenient=True).select(pl.all().null_count()).collect(engine="streaming").row(0)
        types = {n: types[n] if types[n] == pl.String or present[i] == lenient[i] else pl.String for i, n in enumerate(names)}
        table = _collected(scan(types), size, most, folder)
    long = [n for n in names if types[n] == pl.Float64 and float(table.column(n).abs().max() or 0) >= EXACT]  # type: ignore[arg-type]
    if long:  # digits would be lost
        table = _collected(scan(types | dict.fromkeys(long, pl.String)), size, most, folder)
    empty = pl.Series([True])
    for name in names:  # mostly the first column settles it
        column = table.column(name)
        empty = empty & ((column.is_null() | (column == "")) if column.dtype == pl.String else column.is_null())
        if not empty.any():
            return Table(table.pieces, notes)
    notes.append(say("{n} empty rows are left out.", n=int(empty.sum())))
    return Table(table.pieces, notes, rows=(~empty).arg_true().to_numpy().astype(np.int64))


def _collected(lazy: pl.LazyFrame, size: float, most: float, folder: Path) -> Table:
    """In memory, or as parquet in `folder`, written as it is parsed: 10 million x 20 then peak at 0.5 GiB, not at 2.5."""
    if size <= most:
        return Table([Held(lazy.collect(engine="streaming"))])
    room(folder, 0.6 * size)
    lazy.sink_parquet(folder / "table.parquet", compression="lz4", maintain_order=True)
    return Table([Parquet(folder / "table.parquet")])


def _sample(part: Lines) -> pl.DataFrame:
    """Whole records from all over the file, as text."""
    records = b"".join(record for record in part.layout.sample if record.strip())
    return pl.read_csv(io.BytesIO(records), has_header=False, schema=dict.fromkeys(part.names, pl.String), separator=part.separator,
                       quote_char=part.layout.quote, infer_schema=False)
