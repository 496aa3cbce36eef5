"""A folder of parts - csv, jsonl or parquet, also packed, also in key=value folders - as one table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars as pl

from assay.data import csv
from assay.data.encoding import short
from assay.data.split import side_of
from assay.data.table import Held, Parquet, Piece, Table, joined, repeated
from assay.errors import ReadError
from assay.words import Text, say

_FORMATS = {".csv": "csv", ".tsv": "csv", ".tab": "csv", ".txt": "txt", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_MOST_PARTS = 100_000

Reader = Callable[[Path, Path, float], Table]


def read_folder(path: Path, folder: Path, most: float, one: Reader) -> Table:
    """All parts one below the other, in the natural order of their names.

    folder: for temporary copies. most: bytes that a frame made of text may take in memory. one: reads a single file.
    Names that begin with . or _ are not looked at. Raises ReadError naming the part that is broken or has other columns.
    """
    found, others = _parts(path)
    formats = Counter(form for _, form in found)
    if len(formats) > 1 and "txt" in formats:  # a README.txt beside the parts
        others += [p for p, form in found if form == "txt"]
        found = [(p, form) for p, form in found if form != "txt"]
        del formats["txt"]
    if not found:
        raise _no_parts(path, others)
    if len(formats) > 1:
        raise ReadError("The folder '{folder}' holds parts of several formats: {formats}. Keep one format in it, or name one file.", folder=path.name,
                        formats=[f"{n} {form}" for form, n in formats.most_common()])
    files, form = [p for p, _ in found], found[0][1]
    keys = [_keys(p, path) for p in files]
    sides = [side_of(re.split(r"[-_.]\d", p.name.partition(".")[0])[0]) for p in files]  # also train-00000-of-00002.parquet
    own = None not in sides and "train" in sides and len(set(sides)) > 1 and not any("split" in k for k in keys)
    if own:  # train.csv and test.csv: the split that the data bring
        keys = [k | {"split": side} for k, side in zip(keys, sides, strict=True)]
    fixed = list(dict.fromkeys(name for k in keys for name in k))
    reads = _text if form in ("csv", "txt") else _each
    table = reads(path, files, [{name: k.get(name) for name in fixed} for k in keys], folder, most, one)
    notes: list[Text] = [say("The folder '{folder}' holds {parts:,} parts with {rows:,} rows in all.", folder=path.name, parts=len(files), rows=table.height)]
    fixed = [name for name in fixed if not (own and name == "split")]
    if fixed:
        notes.append(say("Columns taken from the names of folders: {names}.", names=fixed))
    if others:
        notes.append(say("Files that are no parts are left alone: {names}.", names=[p.name for p in others[:5]] + ["..."] * (len(others) > 5)))
    return Table(table.pieces, notes + table.notes, table.rows, root=path)


def _parts(path: Path) -> tuple[list[tuple[Path, str]], list[Path]]:
    """((file, format), ...) in order, and the files of no known format."""
    files = []
    for p in path.rglob("*"):
        inside = p.relative_to(path).parts
        if not any(name.startswith((".", "_")) for name in inside) and p.is_file():
            files.append(p)
            if len(files) > _MOST_PARTS:
                raise ReadError("The folder '{folder}' holds more than {most:,} files. Name a smaller folder, or join the parts.", folder=path.name, most=_MOST_PARTS)
    files.sort(key=lambda p: [(0, int(w), "") if w.isdigit() else (1, 0, w) for w in re.split(r"(\d+)", str(p.relative_to(path))) if w])
    found, others = [], []
    for p in files:
        suffix = next((s.lower() for s in reversed(p.suffixes) if s.lower() != ".gz"), "")
        form = _FORMATS.get(suffix)
        if form is None and re.match(r"part[-_]", p.name) and not p.suffix:  # as Hadoop and Spark name them
            with p.open("rb") as file:
                form = "parquet" if file.read(4) == b"PAR1" else "csv"
        if form:
            found.append((p, form))
        else:
            others.append(p)
    return found, others


def _no_parts(path: Path, others: list[Path]) -> ReadError:
    if not others:
        return ReadError("The folder '{folder}' is empty. It should hold the parts of one table (csv, jsonl or parquet), or pictures or sounds in a subfolder for each class.",
                         folder=path.name)
    return ReadError("The folder '{folder}' holds no part of a table (csv, tsv, txt, jsonl, parquet; also as .gz), but: {names}.", folder=path.name,
                     names=[p.name for p in others[:5]] + ["..."] * (len(others) > 5))


def _keys(part: Path, root: Path) -> dict[str, str | None]:
    """The key=value folders above a part."""
    pairs = [name.partition("=") for name in part.relative_to(root).parts[:-1] if "=" in name.strip("=")]
    return {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, _, value in pairs}


def _text(path: Path, files: list[Path], fixed: list[dict[str, str | None]], folder: Path, most: float, one: Reader) -> Table:
    """Delimited parts: parsed together, so that a column is numbers only where it is in every part."""
    notes: list[Text] = []
    counted: list[csv.Lines] = []
    for i, file in enumerate(files):
        own = folder / str(i)
        own.mkdir()
        said: list[Text] = []
        lines = csv.counted(file, own, said, tabs_first=".tsv" in file.suffixes or ".tab" in file.suffixes, lines=".txt" in file.suffixes)
        _same_names(files[0], file, counted[0].names if counted else lines.names, lines.names)
        counted.append(lines)
        notes += [note for note in said if str(note) not in {str(n) for n in notes}]
    table = csv.parsed(counted, folder, notes, most)
    if not fixed[0]:
        return table
    lengths = [lines.layout.rows for lines in counted]
    if sum(lengths) != sum(p.height for p in table.pieces):  # blank lines were counted: too rare to be worth more than reading each part alone
        lengths = [sum(p.height for p in csv.parsed([lines], folder / str(i), [], most).pieces) for i, lines in enumerate(counted)]
    return Table([_With(table.pieces[0], fixed, np.cumsum([0, *lengths]))], table.notes, table.rows)


def _each(path: Path, files: list[Path], fixed: list[dict[str, str | None]], folder: Path, most: float, one: Reader) -> Table:
    """Parts that know their types: one piece each. An object of jsonl may lack a column, a parquet file may not."""
    pieces: list[Piece] = []
    notes: list[Text] = []
    first: Piece | None = None
    for i, (file, keys) in enumerate(zip(files, fixed, strict=True)):
        own = folder / str(i)
        own.mkdir()
        part = one(file, own, most)
        notes += [note for note in part.notes if str(note) not in {str(n) for n in notes}]
        piece: Piece = part.pieces[0]
        if isinstance(piece, Parquet):
            piece = Parquet(file, keys)
            first = first or piece
            _same_names(files[0], file, first.names, piece.names)
        else:
            extra = [repeated(k, v, piece.height) for k, v in keys.items() if k not in piece.names]
            piece = Held(part.frame().with_columns(extra))
        if piece.height:
            pieces.append(piece)
    if not pieces:
        raise ReadError("The parts in '{folder}' have column names but no rows.", folder=path.name)
    if not isinstance(pieces[0], Parquet):
        names = list(dict.fromkeys(name for p in pieces for name in p.names))
        pieces = [Held(pl.DataFrame([f[n] if n in f.columns else pl.Series(n, [None] * f.height) for n in names]))
                  for f in (p.select(p.names) for p in pieces)]
    return Table(pieces, notes)


def _same_names(first: Path, part: Path, names: list[str], found: list[str]) -> None:
    lacks, adds = [n for n in names if n not in found], [n for n in found if n not in names]
    if not lacks and not adds:
        return
    what = [say("it lacks {names}", names=lacks[:10])] * bool(lacks) + [say("it has {names} besides", names=adds[:10])] * bool(adds)
    raise ReadError("The parts of a table need the same columns, but '{part}' differs from '{first}': {what}.", part=short(part), first=short(first), what=what)


class _With:
    """A piece of many parts, and columns whose cell is the same throughout a part."""

    def __init__(self, piece: Piece, fixed: list[dict[str, str | None]], starts: np.ndarray) -> None:
        self._piece, self._fixed, self._starts = piece, fixed, starts
        self.names = piece.names + [name for name in fixed[0] if name not in piece.names]
        self.height = piece.height

    def select(self, names: list[str], rows: np.ndarray | None = None) -> pl.DataFrame:
        own = [n for n in names if n in self._piece.names]
        there = self._piece.select(own, rows) if own else pl.DataFrame()
        counts = np.diff(self._starts if rows is None else np.searchsorted(rows, self._starts))
        return pl.DataFrame([there[n] if n in there.columns else joined([repeated(n, keys[n], int(k)) for keys, k in zip(self._fixed, counts, strict=True)])
                             for n in names])

    def probe(self) -> pl.DataFrame:
        frame = self._piece.probe()
        return frame.with_columns([repeated(n, self._fixed[0][n], frame.height) for n in self.names if n not in self._piece.names])
