"""A file of answers, and which of its rows belongs to which row of the data: by an id both have, else by the order of rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset, Schema
from assay.data.encoding import short
from assay.data.external.answers import Answers, understood
from assay.data.load import load
from assay.data.values import labels as as_labels
from assay.errors import InputError
from assay.words import say

COUNT_MB = 64  # a text file of data above this is not read a second time only to count its rows
CHECKED = 2000  # rows on which columns that both files have are compared
_PLAIN = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".ndjson", ".gz")


@dataclass(frozen=True)
class Predictions:
    """answers: one a row of the file. keys: ids (n,) as text, or None where row i of the file is about row i of the data."""

    answers: Answers
    keys: pl.Series | None
    source: str
    digest: str = ""

    @classmethod
    def read(cls, path: Path, train: Dataset, *, labels: tuple[str, ...] | None, rows: int | None) -> Predictions:
        """The file's answers. train: rows to check it against. rows: how many the data file has, None if not known.

        Raises ReadError (the file) or InputError (what stands in it, or how many rows do).
        """
        frame = _opened(load(path)[0])
        schema, target, source = train.schema, str(train.schema.target), short(path)
        shared = {c.name for c in schema.columns if c.name in frame.columns and c.name != target}
        answers = understood(frame, labels=labels, target=target, source=source, skip=shared)
        key = _key(frame, schema, rows)
        if key is not None:
            return cls(answers, as_labels(frame[key]).alias(key), source, _digest(path))
        if rows is not None and frame.height != rows:
            ids = [c.name for c in schema.columns if c.kind == "id"]
            raise InputError("'{file}' has {found:,} rows, the data has {rows:,}. They have to be the same rows in the same order, or both files "
                             "need a column that names each row{ids}.", file=source, found=frame.height, rows=rows,
                             ids=f" ({', '.join(ids[:3])})" if ids else "")
        if train.rows is None:
            raise InputError("'{file}' can only be matched by a column that names each row, because these rows have no number in a file.", file=source)
        if len(train) and int(train.rows.max()) >= frame.height:
            raise InputError("'{file}' ends after {found:,} rows; the data has at least {rows:,}.", file=source, found=frame.height,
                             rows=int(train.rows.max()) + 1)
        told = {*shared, target} if target not in answers.facts["columns"] and target in frame.columns else shared
        _same_order(frame, train, sorted(told), source)
        return cls(answers, None, source, _digest(path))

    @property
    def by(self) -> str:
        """The column that rows were matched by, or '' for their order."""
        return "" if self.keys is None else self.keys.name

    def ask(self, asked: Dataset) -> Answers:
        """The answers of these rows. Raises InputError if one has none."""
        if self.keys is None:
            if asked.rows is None:
                raise InputError("'{file}' holds answers for the rows of one file only; a row without a number in it cannot be answered.", file=self.source)
            numbers = asked.rows
            rows = np.where(numbers < len(self.answers), numbers, -1)
            return self.answers.take(rows).complete(self.source, lambda at: say("row {row:,}", row=int(numbers[at]) + 1))
        ids = asked.frame[self.by]
        places = pl.DataFrame({"key": self.keys}).with_row_index("at")
        found = pl.DataFrame({"key": ids}).join(places, on="key", how="left", maintain_order="left")["at"]
        rows = found.cast(pl.Int64).fill_null(-1).to_numpy()
        return self.answers.take(rows).complete(self.source, lambda at: f"{self.by} {ids[at]}")

    def dump(self, path: Path) -> None:
        """One parquet file: the values, and the ids where there are some."""
        columns: dict[str, Any] = {f"v{i}": self.answers.values[:, i] for i in range(self.answers.values.shape[1])}
        if self.keys is not None:
            columns["key"] = self.keys.alias("key")
        pl.DataFrame(columns).write_parquet(path)

    @classmethod
    def of(cls, path: Path, *, kind: str, by: str, source: str) -> Predictions:
        """What `dump` wrote."""
        frame = pl.read_parquet(path)
        keys = frame["key"].alias(by) if by else None
        return cls(Answers(kind, frame.select(pl.col("^v[0-9]+$")).to_numpy()), keys, source)


def rows_of(path: str) -> int | None:
    """How many rows a data file has, None where that cannot be told without reading something large or far away."""
    file = Path(path).expanduser()
    if not path or not file.is_file():
        return None
    with file.open("rb") as opened:
        parquet = opened.read(4) == b"PAR1"
    if parquet:
        return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
    return load(file)[0].height if file.suffix.lower() in _PLAIN and file.stat().st_size < COUNT_MB * 2**20 else None


def _key(frame: pl.DataFrame, schema: Schema, rows: int | None) -> str | None:
    """The column that names each row in both files: an id; where the files differ in length, a text will do."""
    kinds = ("id",) if frame.height == rows else ("id", "text")
    names = [c.name for kind in kinds for c in schema.columns if c.kind == kind and c.name in frame.columns]
    for name in names:
        cells = as_labels(frame[name]).drop_nulls()
        if len(cells) and cells.n_unique() == len(cells):
            return name
    return None


def _same_order(frame: pl.DataFrame, train: Dataset, names: list[str], source: str) -> None:
    """Raise InputError if columns that both files have say that row i of one is not row i of the other."""
    assert train.rows is not None
    some = np.unique(np.linspace(0, len(train) - 1, min(CHECKED, len(train))).astype(int))
    theirs, ours = frame[train.rows[some]], train.frame[some]
    for name in names:
        kind = next(c.kind for c in train.schema.columns if c.name == name)
        if kind == "time":
            continue
        a, b = theirs[name], ours[name]
        if a.dtype.is_numeric() and b.dtype.is_numeric():
            left, right = a.cast(pl.Float64), b.cast(pl.Float64)
            differs = (left - right).abs() > 1e-6 * right.abs().clip(1e-6)
        else:
            left, right = as_labels(a), as_labels(b)
            differs = left.str.strip_chars() != right.str.strip_chars()
        wrong = differs.fill_null(False)
        if len(wrong) and float(wrong.mean() or 0.0) > 0.05:  # type: ignore[arg-type]
            at = int(wrong.arg_max() or 0)
            raise InputError("Row {row:,} of '{file}' has {theirs} in the column '{name}', the data has {ours}: the rows are not in the same order. "
                             "Give both files a column that names each row.", row=int(train.rows[some][at]) + 1, file=source, name=name,
                             theirs=repr(left[at]), ours=repr(right[at]))


def _opened(frame: pl.DataFrame) -> pl.DataFrame:
    """Structs (a jsonl file's nested objects) as columns of their fields."""
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.Struct):
            fields = [f.name for f in dtype.fields]
            if not set(fields) & (set(frame.columns) - {name}):
                frame = frame.unnest(name)
    return frame


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
