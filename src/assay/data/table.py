"""What every reader gives: a table whose columns are read one at a time, so that it need not fit into memory as a whole."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import polars.selectors as cs

from assay.data.encoding import short
from assay.data.values import coded, labels, numbers, times
from assay.errors import ReadError
from assay.words import Text

_PROBES, _PROBED = 8, 500  # places in a file, and rows at each, that tell how long its texts are
_BLOCK = 1 << 20  # rows decoded at a time where only some of them are wanted


class Piece(Protocol):
    """Some rows of a table, on disk or in memory."""

    @property
    def names(self) -> list[str]: ...

    @property
    def height(self) -> int: ...

    def select(self, names: list[str], rows: np.ndarray | None = None) -> pl.DataFrame:
        """Some columns; rows: sorted row numbers of this piece, None for all."""

    def probe(self) -> pl.DataFrame:
        """A few hundred rows from all over the piece."""


@dataclass(frozen=True)
class Held:
    """A frame, in memory or mapped from an Arrow file."""

    held: pl.DataFrame

    @property
    def names(self) -> list[str]:
        return self.held.columns

    @property
    def height(self) -> int:
        return self.held.height

    def select(self, names: list[str], rows: np.ndarray | None = None) -> pl.DataFrame:
        frame = self.held if names == self.held.columns else pl.DataFrame([self.held[name] for name in names])
        return frame if rows is None else frame[rows]

    def probe(self) -> pl.DataFrame:
        if self.height <= _PROBES * _PROBED:
            return self.held
        return pl.concat([self.held.slice(at, _PROBED) for at in range(0, self.height, self.height // _PROBES)])


@dataclass(frozen=True)
class Parquet:
    """A parquet file, decoded column by column: 10 million x 20 that way takes a sixth of the time of all columns at once.

    fixed: cells that stand in the names of its folders (key=value), the same in every row; they follow the file's columns.
    Raises ReadError when the file is cut off or damaged.
    """

    path: Path
    fixed: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.path.open("rb") as file:
            file.seek(-min(4, self.path.stat().st_size), 2)
            whole = file.read() == b"PAR1"
        if not whole or self.path.stat().st_size < 12:
            raise ReadError("'{file}' is a parquet file that is cut off: its end is missing. Copy or download it again.", file=short(self.path))

    @cached_property
    def _own(self) -> list[str]:
        return self._decoded(lambda: self._scan.collect_schema().names())

    @cached_property
    def names(self) -> list[str]:
        return self._own + [name for name in self.fixed if name not in self._own]

    @cached_property
    def height(self) -> int:
        return int(self._decoded(lambda: self._scan.select(pl.len()).collect().item()))

    def select(self, names: list[str], rows: np.ndarray | None = None) -> pl.DataFrame:
        own = [n for n in names if n in self._own]
        if not own:
            return self._with_fixed(names, [], self.height if rows is None else len(rows))
        if rows is None:
            return self._with_fixed(names, self._decoded(lambda: self._scan.select(cs.by_name(*own)).collect()).get_columns(), self.height)
        out = []
        for start, end in self._blocks():
            wanted = rows[np.searchsorted(rows, start):np.searchsorted(rows, end)] - start
            if len(wanted):
                out.append(self._slice(start, end - start, own)[wanted])
        return self._with_fixed(names, (pl.concat(out) if out else self._slice(0, 0, own)).get_columns(), len(rows))

    def probe(self) -> pl.DataFrame:
        return self._probed

    @cached_property
    def _probed(self) -> pl.DataFrame:
        starts = [start for start, _ in self._blocks()]  # a slice decodes the row group it lies in: its beginning is cheapest
        starts = starts[::max(1, len(starts) // _PROBES)]
        types = self._decoded(lambda: self._scan.collect_schema().dtypes())
        rows = _PROBED // 10 if any(t == pl.Binary or t.is_nested() for t in types) else _PROBED  # 4,000 pictures of a megabyte are too many
        frame = pl.concat([self._slice(start, rows, self._own) for start in starts])
        return self._with_fixed(self.names, frame.get_columns(), frame.height)

    def _with_fixed(self, names: list[str], own: list[pl.Series], n: int) -> pl.DataFrame:
        there = {c.name: c for c in own}
        return pl.DataFrame([there[name] if name in there else repeated(name, self.fixed[name], n) for name in names])

    @property
    def _scan(self) -> pl.LazyFrame:
        return pl.scan_parquet(self.path, glob=False, hive_partitioning=False)

    def _slice(self, start: int, length: int, names: list[str]) -> pl.DataFrame:
        return self._decoded(lambda: self._scan.slice(start, length).select(cs.by_name(*names)).collect())

    def _blocks(self) -> list[tuple[int, int]]:
        """Row groups, neighbours joined up to a million rows: a slice across a group's middle would decode it twice."""
        import pyarrow.parquet

        about = self._decoded(lambda: pyarrow.parquet.read_metadata(self.path))
        edges = [0]
        at = 0
        for i in range(about.num_row_groups):
            at += about.row_group(i).num_rows
            if at - edges[-1] >= _BLOCK or i == about.num_row_groups - 1:
                edges.append(at)
        return list(itertools.pairwise(edges))

    def _decoded(self, read: Any) -> Any:
        try:
            return read()
        except (Exception, pl.exceptions.PanicException) as error:
            first = (str(error).splitlines() or [""])[0][:200]
            raise ReadError("'{file}' is a damaged parquet file: {error}.", file=short(self.path), error=first) from None


@dataclass(frozen=True)
class Table:
    """Pieces one below the other; all have the same column names, in any order.

    rows: sorted row numbers of the source that belong to the table, shape (n,), None for all. notes: what was noticed.
    root: the folder from which paths in its cells lead on. media: {column of pictures or sounds: the column that names their files, or None}.
    target: the column that is the answer where the user names none. kept: the columns, None for all that the pieces have.
    """

    pieces: list[Piece]
    notes: list[Text] = field(default_factory=list)
    rows: np.ndarray | None = None
    root: Path | None = None
    media: dict[str, str | None] = field(default_factory=dict)
    target: str | None = None
    kept: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        return list(self.pieces[0].names) if self.kept is None else list(self.kept)

    def only(self, names: list[str]) -> Table:
        """The same rows, these columns."""
        return replace(self, kept=tuple(names))

    @cached_property
    def height(self) -> int:
        return sum(p.height for p in self.pieces) if self.rows is None else len(self.rows)

    def column(self, name: str) -> pl.Series:
        """One column, shape (height,)."""
        return self.select([name]).to_series()

    def select(self, names: list[str]) -> pl.DataFrame:
        """Some columns, in this order. Where pieces disagree on a type, whole numbers give way to fractions, and all else to text."""
        frames, start = [], 0
        for p in self.pieces:
            if self.rows is None:
                frames.append(p.select(names))
                continue
            end = start + p.height
            frames.append(p.select(names, self.rows[np.searchsorted(self.rows, start):np.searchsorted(self.rows, end)] - start))
            start = end
        return frames[0] if len(frames) == 1 else pl.DataFrame([joined([f[name] for f in frames]) for name in names])

    def frame(self) -> pl.DataFrame:
        return self.select(self.names)

    def take(self, rows: np.ndarray) -> Table:
        """These rows: sorted positions in this table."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def row_numbers(self) -> np.ndarray:
        """The number of each row in the source, shape (height,), from 0."""
        return np.arange(self.height) if self.rows is None else self.rows

    def bytes_a_row(self) -> dict[str, tuple[float, float]]:
        """What a row of each column takes as it is read, and as `Dataset` keeps it, guessed from a few thousand rows."""
        most = self.pieces[:: max(1, len(self.pieces) // _PROBES)]
        probes = [p.probe() for p in most]
        columns = {name: joined([f[name] for f in probes]) for name in self.names}
        return {name: (weight(cells), 8.0 if _numbers_or_times(cells) else weight(cells)) for name, cells in columns.items()}

    def checked(self) -> Table:
        """The same table. Raises ReadError if two columns share a name, or there is no column or no row."""
        twice = [name for name, n in Counter(self.names).items() if n > 1]
        if twice:
            raise ReadError("Column names have to differ, but there is more than one of: {names}. Rename them.", names=twice)
        if not self.names:
            raise ReadError("The table has no columns.")
        if not self.height:
            raise ReadError("The table has columns ({names}) but no rows.", names=self.names[:20])
        return self


def weight(cells: pl.Series) -> float:
    """Bytes of one cell: 8 for numbers and times, for text 16 and, beyond 12 bytes, its length."""
    if cells.dtype.is_numeric() or cells.dtype.is_temporal():
        return 8.0
    if cells.dtype not in (pl.String, pl.Binary) or not len(cells):
        return 16.0
    cells = cells.alias("")  # a name such as ^a$ would be taken for a pattern
    long = (cells.str.len_bytes() if cells.dtype == pl.String else cells.bin.size()).fill_null(0)
    return 16.0 + float(pl.select(pl.when(long > 12).then(long).otherwise(0).mean()).item() or 0)


def _numbers_or_times(cells: pl.Series) -> bool:
    """True for text that will probably be read as numbers or times."""
    cells = cells.alias("")
    if cells.dtype != pl.String or coded(cells):
        return False
    return any(parsed.bad is None and parsed.values.null_count() < len(cells) for parsed in (numbers(cells), times(cells)))


def joined(parts: list[pl.Series]) -> pl.Series:
    """Series of one column as one series. Empty and all-null parts have no say in its type."""
    if len(parts) == 1:
        return parts[0]
    name = parts[0].name
    parts = [p.cast(pl.String) if isinstance(p.dtype, (pl.Categorical, pl.Enum)) else p for p in parts]
    kinds = {p.dtype for p in parts if p.dtype != pl.Null}
    if len(kinds) > 1:
        kinds = {p.dtype for p in parts if p.null_count() < len(p)} or kinds
    if len(kinds) == 1:
        kind = kinds.pop()
        return pl.concat([p if p.dtype == kind else p.cast(kind) if p.null_count() < len(p) else _nothing(name, len(p), kind) for p in parts])
    if not kinds:
        return pl.concat(parts)
    if all(k.is_numeric() for k in kinds) or all(k.is_temporal() for k in kinds):
        try:
            return pl.concat([p.to_frame() for p in parts], how="vertical_relaxed").to_series()
        except pl.exceptions.PolarsError:
            pass
    return pl.concat([p if p.dtype == pl.String else labels(p).cast(pl.String) for p in parts])


def repeated(name: str, value: str | None, n: int) -> pl.Series:
    return pl.repeat(value, n, dtype=pl.String, eager=True).alias(name)


def _nothing(name: str, n: int, kind: pl.DataType) -> pl.Series:
    return pl.repeat(None, n, dtype=kind, eager=True).alias(name)
