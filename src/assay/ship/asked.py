"""Rows to answer, a chunk at a time, from wherever they are: files and databases larger than memory.

A text table is parsed onto disk first, as it is read (its encoding, separator and every row are checked on the way), and a query's rows are
fetched onto disk: a server is then not kept waiting while a model thinks, and may be the one that the answers go to. Parquet and lines of
json are read where they lie.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from assay.data import excel, sql
from assay.data.encoding import as_utf8, short
from assay.data.load import MEMORY_MB, opened, shown
from assay.data.table import Held, Parquet, Piece, Table, repeated
from assay.data.values import labels
from assay.errors import ReadError
from assay.ship.lines import Numbers, Refused, mended, numbered
from assay.words import Text, say

_STAGED_MB = 256.0  # a quarter of it: a larger text table is parsed onto disk
_DATABASE_S = 6 * 3600.0  # longest that a database may take for all of its rows
_LINES = (".csv", ".tsv", ".tab", ".txt")
Rows = pl.DataFrame | list[dict[str, Any]]


@dataclass(frozen=True)
class Chunk:
    """Some rows in order. rows: their numbers in the source from 0, shape (n,). lines: the same from 1, None where there are no lines.

    then: where the next chunk begins, for `chunks`. share: of the source that is read by then. refused: lines that are no rows.
    """

    given: Rows
    rows: np.ndarray
    lines: np.ndarray | None
    then: dict[str, int]
    share: float
    refused: list[Refused] = field(default_factory=list)


class Source(Protocol):
    """fingerprint: changes with the content. steady: False where the same query may give other rows tomorrow. total: rows, None where not known."""

    fingerprint: str
    steady: bool
    total: int | None

    def lacks(self, names: list[str]) -> Rows | None:
        """None if the source has all these columns, else a row or two that show which it has."""

    def chunks(self, start: dict[str, int], n: int, names: list[str]) -> Iterator[Chunk]:
        """Chunks of `n` rows from `start` ({}: the beginning), of these columns where they are there."""

    def lines_of(self, rows: np.ndarray) -> np.ndarray | None:
        """The lines, from 1, on which these rows begin."""


@contextmanager
def asked(source: str | Path, *, query: str | None = None, keep_going: bool = False) -> Iterator[Source]:
    """The rows of a file, a folder of parts, or a query. keep_going: rows of text that have too many or too few fields are refused one by one.

    Raises ReadError, InputError, MissingExtra as `data.read` does.
    """
    path = None if sql.is_url(str(source)) or sql.other_url(str(source)) or query is not None else Path(source).expanduser()
    inner = _inner(path) if path else ""
    if path and inner in (".jsonl", ".ndjson") and path.is_file():
        with tempfile.TemporaryDirectory(prefix="assay-") as unpacked:
            yield _JsonLines(path, as_utf8(path, Path(unpacked), []), keep_going)
        return
    memory = MEMORY_MB if path and (excel.sheet_of(path) or inner in (".xlsx", ".xlsm", ".xlsb", ".ods", ".xls")) else _STAGED_MB
    lines = bool(path and inner in _LINES and path.is_file())
    with ExitStack() as stack:
        try:
            table = stack.enter_context(opened(source, query=query, memory_mb=memory, timeout_s=_DATABASE_S))
            refused, numbers = list[Refused](), None
        except ReadError:
            if not keep_going or not lines or path is None:
                raise
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-")))
            refused, numbers = mended(as_utf8(path, folder, []), folder / f"rows{inner}", short(path))
            if not refused:
                raise
            table = stack.enter_context(opened(folder / f"rows{inner}", memory_mb=memory))
        yield _Tabular(table, path if path and (path.exists() or excel.sheet_of(path)) else source, query, refused, numbers)


def _inner(path: Path) -> str:
    return next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")


def content_of(path: Path) -> str:
    """A digest of a file, or of all files below a folder and their names: about 1 GB a second."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as opened_file:
            digest.update(f"{file.relative_to(path) if file != path else ''}\0".encode())
            digest.update(hashlib.file_digest(opened_file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return digest.hexdigest()


# ---- tables


class _Tabular:
    def __init__(self, table: Table, origin: str | Path, query: str | None, refused: list[Refused], numbers: Numbers | None) -> None:
        self.table, self._refused, self._numbers = table, refused, numbers
        self._lines: Numbers | None = None
        self.total: int | None = table.height
        self.steady = isinstance(origin, Path) and query is None
        self._plain = origin if isinstance(origin, Path) and self.steady else None
        book = excel.sheet_of(origin) if isinstance(origin, Path) else None
        where = book[0] if book else origin
        self.fingerprint = (content_of(where) + (f"#{book[1]}" if book else "") if isinstance(where, Path) and query is None
                            else hashlib.blake2b(f"{shown(origin)}\0{query}\0{pl.__version__}".encode(), digest_size=16).hexdigest())

    def lacks(self, names: list[str]) -> Rows | None:
        return None if set(names) <= set(self.table.names) else self.table.take(np.arange(1)).frame()

    def chunks(self, start: dict[str, int], n: int, names: list[str]) -> Iterator[Chunk]:
        at, said = start.get("at", 0), start.get("refused", 0)
        names = [name for name in self.table.names if name in set(names)]
        for frame, positions in _slices(self.table, at, n, names):
            at += frame.height
            rows, lines = (positions, None) if self._numbers is None else self._numbers.of(positions)
            here = []  # lines that are no rows, told with the rows around them
            while said < len(self._refused) and (at == self.table.height or (self._refused[said].row or 0) <= rows[-1]):
                here.append(self._refused[said])
                said += 1
            yield Chunk(frame, rows, lines, {"at": at, "refused": said}, at / self.table.height, here)

    def lines_of(self, rows: np.ndarray) -> np.ndarray | None:
        if self._numbers is not None or self._plain is None or not self._plain.is_file() or _inner(self._plain) not in _LINES:
            return None
        if self._lines is None:
            with tempfile.TemporaryDirectory(prefix="assay-") as folder:
                self._lines = numbered(as_utf8(self._plain, Path(folder), []))
        return self._lines.of(rows)[1]


def _slices(table: Table, start: int, n: int, names: list[str]) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
    """n rows at a time from row `start` of the table on, and the numbers of these rows in the source."""
    pending: list[pl.DataFrame] = []
    held = 0
    numbers: list[np.ndarray] = []
    skip = start
    for frame, first in _blocks(table, n, names, start if table.rows is None else 0):
        positions = np.arange(first, first + frame.height)
        if table.rows is not None:  # rows without a single value are left out
            kept = table.rows[np.searchsorted(table.rows, first):np.searchsorted(table.rows, first + frame.height)]
            frame, positions = frame[kept - first], kept
            if skip:
                cut = min(skip, len(positions))
                frame, positions, skip = frame[cut:], positions[cut:], skip - cut
        pending.append(frame)
        numbers.append(positions)
        held += frame.height
        while held >= n:
            whole, all_numbers = pl.concat(pending, how="vertical_relaxed") if len(pending) > 1 else pending[0], np.concatenate(numbers)
            yield whole[:n], all_numbers[:n]
            pending, numbers, held = [whole[n:]], [all_numbers[n:]], held - n
    if held:
        yield pl.concat([p for p in pending if p.height], how="vertical_relaxed"), np.concatenate(numbers)


def _blocks(table: Table, n: int, names: list[str], start: int) -> Iterator[tuple[pl.DataFrame, int]]:
    """All rows from `start` on, in blocks of at most `n`; (block, number of its first row). A block that was handed out is forgotten."""
    first = 0
    pieces: list[Piece | None] = list(table.pieces)
    table.pieces.clear()  # so that what is mapped is let go
    mixed = _mixed(pieces, names)
    for i, piece in enumerate(pieces):
        assert piece is not None
        height = piece.height
        skip, pieces[i] = max(0, start - first), None
        if skip < height:
            for frame in _of_piece(piece, n, names, skip):
                yield pl.DataFrame([labels(frame[name]) if name in mixed else frame[name] for name in names]), first + skip
                skip += frame.height
        first += height


def _mixed(pieces: list[Piece | None], names: list[str]) -> set[str]:
    """The columns on whose type the pieces disagree: what is a number for one and text for the other is read as text by both."""
    if len(pieces) < 2:
        return set()
    kinds: dict[str, set[Any]] = {name: set() for name in names}
    for piece in pieces:
        types = piece.held.schema if isinstance(piece, Held) else pl.read_parquet_schema(piece.path) if isinstance(piece, Parquet) else {}
        for name in names:
            kinds[name].add(types.get(name, pl.String()))
    apart = {name: found - {pl.Null()} for name, found in kinds.items()}
    return {name for name, found in apart.items() if len(found) > 1 and not all(t.is_numeric() for t in found)}


def _of_piece(piece: Piece, n: int, names: list[str], skip: int) -> Iterator[pl.DataFrame]:
    if isinstance(piece, Parquet):
        own = [name for name in names if name not in piece.fixed]
        for frame in _of_parquet(piece.path, n, own, skip) if own else iter([pl.DataFrame({"": np.zeros(piece.height - skip)})]):
            yield pl.DataFrame([frame[name] if name in frame.columns else repeated(name, piece.fixed[name], frame.height) for name in names])
        return
    for at in range(skip, piece.height, n):
        if isinstance(piece, Held):
            yield piece.held.slice(at, n).select(names)
        else:
            yield piece.select(names, np.arange(at, min(at + n, piece.height)))


def _of_parquet(path: Path, n: int, names: list[str], skip: int) -> Iterator[pl.DataFrame]:
    """One pass over the row groups from the one that holds row `skip` on, decoded page by page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            groups = np.cumsum([0] + [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)])
            begin = int(np.searchsorted(groups, skip, side="right")) - 1
            skip -= int(groups[begin])
            for batch in file.iter_batches(batch_size=n, row_groups=range(begin, file.metadata.num_row_groups), columns=names):
                frame = pl.DataFrame(batch)
                if skip:
                    cut = min(skip, frame.height)
                    frame, skip = frame[cut:], skip - cut
                if frame.height:
                    yield frame
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
            raise
        raise ReadError("'{file}' is a damaged parquet file: {error}.", file=short(path), error=(str(error).splitlines() or [""])[0][:200]) from None


# ---- lines of json


class _JsonLines:
    steady = True
    total: int | None = None

    def __init__(self, path: Path, plain: Path, keep_going: bool) -> None:
        self._path, self._plain, self._keep_going = path, plain, keep_going
        self._size = plain.stat().st_size
        if not self._size:
            raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
        self.fingerprint = content_of(path)

    def lacks(self, names: list[str]) -> Rows | None:
        with self._plain.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            for name in names:  # an object may lack a column, the file may not
                if not any(text.find(json.dumps(name, ensure_ascii=ascii_).encode()) >= 0 for ascii_ in (True, False)):
                    break
            else:
                return None
        return next(self.chunks({}, 100, [])).given

    def chunks(self, start: dict[str, int], n: int, names: list[str]) -> Iterator[Chunk]:
        at, line, row = start.get("at", 0), start.get("line", 0), start.get("row", 0)
        with self._plain.open("rb") as file:
            file.seek(at)
            while True:
                texts: list[bytes] = []
                lines: list[int] = []
                while len(texts) < n and (text := file.readline()):
                    line += 1
                    if line == 1:
                        text = text.removeprefix(b"\xef\xbb\xbf")
                    if text.strip():
                        texts.append(text)
                        lines.append(line)
                if not texts:
                    return
                given, bad = self._parsed(texts, lines, row)
                kept = np.setdiff1d(np.arange(len(texts)), [r.row - row for r in bad if r.row is not None])
                yield Chunk(_with(given, names), row + kept, np.array(lines)[kept], {"at": file.tell(), "line": line, "row": row + len(texts)},
                            file.tell() / self._size, bad)
                row += len(texts)

    def _parsed(self, texts: list[bytes], lines: list[int], row: int) -> tuple[Rows, list[Refused]]:
        try:
            frame = pl.read_ndjson(io.BytesIO(b"".join(texts)), infer_schema_length=None)
            if frame.height == len(texts):
                return frame, []
        except Exception:  # a broken line, or one field of two types: look at each line
            pass
        objects: list[dict[str, Any]] = []
        refused: list[Refused] = []
        for i, (text, line) in enumerate(zip(texts, lines, strict=True)):
            reason: Text | None = None
            try:
                found = json.loads(text)
                if isinstance(found, dict):
                    objects.append(found)
                else:
                    reason = say("Line {line} of '{file}' is no JSON object. Each line has to look like {example}.", line=line, file=short(self._path),
                                 example='{"column": "value"}')
            except (ValueError, RecursionError) as error:
                reason = say("Line {line} of '{file}' is no JSON: {error}.", line=line, file=short(self._path), error=str(error)[:200])
            if reason is not None:
                if not self._keep_going:
                    raise ReadError(reason)
                refused.append(Refused(row + i, line, reason))
        return objects, refused

    def lines_of(self, rows: np.ndarray) -> np.ndarray | None:
        return None  # every chunk has its own


def _with(given: Rows, names: list[str]) -> Rows:
    """The rows with these columns, empty where not one of them has it."""
    if isinstance(given, pl.DataFrame):
        return pl.DataFrame([given[n] if n in given.columns else repeated(n, None, given.height) for n in names]) if names else given
    return [{n: r.get(n) for n in names} for r in given] if names else given
