"""Answer the rows of a file or a query with a bundle, a chunk at a time, into a file or a table: `assay predict`.

Memory is bounded by a chunk, not by the source. Chunks always begin at the same rows, and what is finished is noted after it is on the disk:
the same command goes on where it was stopped, and gives the bytes that it would have given at once.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from assay.data import sql
from assay.data.dataset import MEDIA
from assay.data.load import nearest
from assay.data.read import conform, named_by
from assay.data.values import MISSING, labels, numbers
from assay.errors import InputError
from assay.ship.asked import Chunk, Rows, Source, asked
from assay.ship.batch_sql import ROW, TableOut
from assay.ship.bundle import Bundle, load
from assay.ship.lines import Refused
from assay.ship.progress import Bar, Done, FileOut, encoded
from assay.words import Text, say

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_CELLS = 1 << 23  # of a chunk: its columns, and four times its answers
_FEWEST, _MOST = 1000, 1 << 16


@dataclass(frozen=True)
class Answered:
    """rows: answered in all, `before` of them by earlier runs of the same job. refused: could not be read; `rejected` names the file that says why."""

    rows: int
    before: int
    refused: int
    rejected: Path | None


class Out(Protocol):
    """Where answers go: `FileOut`, `TableOut`, `Printed`."""

    def begin(self, job: dict[str, Any], restart: bool) -> Done: ...
    def write(self, answers: pl.DataFrame, refused: list[Refused], done: Done) -> Done: ...
    def finish(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...


def predict_file(bundle: Path, source: str | Path, out: str | Path | None, *, query: str | None = None, table: str | None = None, key: str | None = None,
                 restart: bool = False, keep_going: bool = False, at_once: int | None = None, language: str = "en",
                 observe: Callable[[Text], None] = lambda note: None) -> Answered:
    """Write one answer a row, in the order of the rows. A file appears whole or not at all.

    out: a file (csv, tsv, parquet, jsonl), or the URL of a database and its `table`; None: csv to standard output. key: a column of the source that
    comes before the answers; in a table it decides which answer is replaced. query: what to select, where `source` is the URL of a database.
    restart: begin anew even if an earlier run of the same command was stopped half-way. keep_going: rows that cannot be read go to
    `OUT.rejected.csv`, and the answers say of which row they are. at_once: rows of a chunk, None for as many as 8 million cells.
    Forecasts, pictures, sounds and sequences are read as a whole. Raises BundleError, ReadError, InputError; the first row that cannot be read
    is named unless `keep_going`.
    """
    to = _out(out, table, key, language)
    model = load(bundle)
    known = model.schema.without_target()
    if not model.task.by_rows or any(c.kind in MEDIA for c in known.columns):
        if keep_going or key:
            raise InputError("--keep-going and --key are for tables whose rows are answered one by one; a forecast, pictures, sounds and sequences are read as a whole.")
        if out is not None:
            observe(say("These rows are read as a whole, and answered at once: they belong together, or are files."))
        return _whole(model, source, query, to)
    n = at_once or chunk_rows(model)
    with asked(source, query=query, keep_going=keep_going) as rows:
        names = [c.name for c in known.columns]
        if (example := rows.lacks([c.name for c in known.features])) is not None:
            conform(example, known)  # says which are absent, and which may be meant
        if key is not None and (example := rows.lacks([key])) is not None:
            raise _no_key(key, example)
        job = {"source": rows.fingerprint, "bundle": model.digest, "rows": n, "key": key, "keep_going": keep_going, "language": language if keep_going else ""}
        done = before = to.begin(job, restart)
        bar = Bar(language)
        columns, seen = [*names, *([key] if key else [])], ""
        first: Text | None = None
        try:
            if done.chunks and out is not None:
                observe(say("{rows:,} rows were answered by an earlier run; going on from there. (--restart begins anew.)", rows=done.rows))
            for i, chunk in enumerate(rows.chunks(done.position if rows.steady else {}, n, columns), done.chunks if rows.steady else 0):
                if not rows.steady:
                    seen = _seen(seen, chunk.given)
                    if i + 1 == done.chunks and seen != done.seen:
                        raise InputError("The query gives other rows, or another order, than when the first {rows:,} were answered. Begin anew with --restart, and give the "
                                         "query an ORDER BY.", rows=done.rows)
                    if i < done.chunks:
                        continue
                if i == before.chunks:
                    bar.start(done.rows, chunk.share * done.rows / (done.rows + len(chunk.rows) or 1))
                answers, refused = _answered(model, rows, chunk, key, keep_going, number=keep_going or (isinstance(to, TableOut) and key is None))
                done = to.write(answers, refused, replace(done, chunks=i + 1, rows=done.rows + answers.height, refused=done.refused + len(refused),
                                                          position=chunk.then, seen=seen))
                first = first or next((r.reason for r in refused), None)
                bar.at(done.rows, chunk.share)
            if not done.rows:
                raise InputError("None of the {n:,} rows could be read. The first: {reason}", n=done.refused, reason=first or "")
            to.finish()
        except InputError:
            to.forget()  # neither these rows nor these options will do: there is nothing to go on from
            raise
        finally:
            bar.close()
            to.close()
    rejected = getattr(to, "rejected", None) if done.refused else None
    return Answered(done.rows, before.rows, done.refused, rejected)


def chunk_rows(model: Bundle) -> int:
    """Rows of a chunk, of the bundle alone, so that a run that goes on cuts where the first one cut: 8 million cells, 1,000 to 65,536 rows."""
    width = len(model.schema.columns) + 3 * len(model.schema.of_kind("text")) + 4 * model.task.width
    return max(_FEWEST, min(_MOST, _CELLS // width))


def _out(out: str | Path | None, table: str | None, key: str | None, language: str) -> Out:
    if isinstance(out, str) and sql.is_url(out):
        if not table:
            raise InputError("Answers go into a table of the database: name it with --table.")
        return TableOut(out, table, key, Path(f"{table}.rejected.csv"), language)
    if table:
        raise InputError("--table names a table of a database, and '{path}' is none. Write --out postgresql://user:password@host/name, or leave --table out.",
                         path=str(out or ""))
    if out is None:
        return Printed()
    if Path(out).suffix.lower() not in SUFFIXES:
        raise InputError("'{path}' cannot be written: the name has to end in .csv, .tsv, .parquet or .jsonl.", path=str(out))
    return FileOut(Path(out), language)


class Printed:
    """Answers as csv on standard output: nothing to go on from."""

    def begin(self, job: dict[str, Any], restart: bool) -> Done:
        if job.get("keep_going"):
            raise InputError("--keep-going needs a place for the rows that cannot be read: name a file with --out.")
        return Done()

    def write(self, answers: pl.DataFrame, refused: list[Refused], done: Done) -> Done:
        sys.stdout.write(encoded(answers, ".csv", header=done.chunks == 1).decode())
        return done

    def finish(self) -> None: ...
    def forget(self) -> None: ...
    def close(self) -> None: ...


def _whole(model: Bundle, source: str | Path, query: str | None, to: Out) -> Answered:
    """Rows that belong together, or are files: read as a whole, answered at once."""
    if not model.task.by_rows:
        answers = model.table(model.read(source, query=query))
    else:
        asked_rows = conform(source, model.schema, query=query).frame
        answers = model.predict(asked_rows)
        names = [n for n in named_by(model.schema) if n not in answers.columns and asked_rows[n].null_count() < len(asked_rows)]
        answers = pl.concat([asked_rows.select(names), answers], how="horizontal")  # which file, or which unit and step, an answer is about
    if isinstance(to, TableOut):
        answers = answers.select(pl.int_range(1, pl.len() + 1).alias(ROW), pl.all())
    to.begin({"source": "", "bundle": model.digest}, True)
    try:
        to.write(answers, [], Done(chunks=1, rows=answers.height))
        to.finish()
    finally:
        to.close()
    return Answered(answers.height, 0, 0, None)


# ---- a chunk


def _answered(model: Bundle, source: Source, chunk: Chunk, key: str | None, keep_going: bool, *, number: bool) -> tuple[pl.DataFrame, list[Refused]]:
    """The answers to a chunk, what names them before them, and the rows of it that cannot be read, in order."""
    asked_rows, good, refused = _readable(model, chunk, key, keep_going)
    if keep_going and refused and chunk.lines is None and (lines := source.lines_of(np.array([chunk.rows[r.row] for r in refused]))) is not None:
        refused = [replace(r, line=int(line)) for r, line in zip(refused, lines, strict=True)]
    elif chunk.lines is not None:
        refused = [replace(r, line=int(chunk.lines[r.row])) for r in refused]
    refused = [replace(r, row=int(chunk.rows[r.row])) for r in refused]
    refused = sorted([*chunk.refused, *refused], key=lambda r: r.row or 0)
    if not len(good):
        return pl.DataFrame(), refused
    answers = model.table(asked_rows)
    before = [pl.Series(ROW, chunk.rows[good] + 1)] if number and key != ROW else []
    if key is not None:
        cells = chunk.given[key] if isinstance(chunk.given, pl.DataFrame) else pl.Series(key, [r.get(key) for r in chunk.given], strict=False)
        before.append(_as_key(cells.gather(good)))
    clash = [c.name for c in before if c.name in answers.columns]
    if clash:
        raise InputError("The key '{key}' is called like a column of the answers ({columns}). Rename it in a --query or in the file.", key=clash[0], columns=answers.columns[:8])
    return pl.DataFrame([*before, *answers.get_columns()]), refused


def _readable(model: Bundle, chunk: Chunk, key: str | None, keep_going: bool) -> tuple[Any, np.ndarray, list[Refused]]:
    """(the rows as the model takes them, their places in the chunk, the others by their place). Raises InputError at the first, unless `keep_going`."""
    good, refused = np.arange(len(chunk.rows)), []
    given = chunk.given
    if key is not None:
        cells = given[key] if isinstance(given, pl.DataFrame) else pl.Series(key, [r.get(key) for r in given], strict=False)
        empty = np.flatnonzero(cells.is_null().to_numpy())
        if len(empty):
            reason = [say("Row {row} has no '{key}', so its answer could not be found again.", row=int(chunk.rows[i]) + 1, key=key) for i in empty]
            if not keep_going:
                raise InputError(reason[0])
            refused = [Refused(int(i), None, text) for i, text in zip(empty, reason, strict=True)]
            good = np.setdiff1d(good, empty)
    while len(good):
        part = given if len(good) == len(chunk.rows) else _taken(given, good)
        try:
            return model.read(part), good, refused
        except InputError as error:
            row = error.text.values.get("row")
            if not isinstance(row, int):
                raise
            if not keep_going:
                raise type(error)(Text(error.text.template, error.text.values | {"row": int(chunk.rows[good[row - 1]]) + 1})) from None
            bad = _like(part, error.text, row - 1)
            for i, text in bad:
                refused.append(Refused(int(good[i]), None, Text(text.template, text.values | {"row": int(chunk.rows[good[i]]) + 1})))
            good = np.delete(good, [i for i, _ in bad])
    return None, good, refused


def _like(part: Rows, text: Text, row: int) -> list[tuple[int, Text]]:
    """The row that a sentence is about; where it is about a number, all rows whose cell of that column is none, at once."""
    name = text.values.get("name")
    if isinstance(part, pl.DataFrame) and name in part.columns and part[name].dtype == pl.String and "no number" in text.template:
        cells = part[name]
        stripped = cells.str.strip_chars()
        bad = numbers(cells).values.is_null() & cells.is_not_null() & ~stripped.str.to_lowercase().is_in(list(MISSING))
        if bad[row]:
            return [(int(i), Text(text.template, text.values | {"value": str(cells[int(i)])[:80]})) for i in bad.arg_true()]
    return [(row, text)]


def _taken(given: Rows, rows: np.ndarray) -> Rows:
    return given[rows] if isinstance(given, pl.DataFrame) else [given[int(i)] for i in rows]


def _as_key(cells: pl.Series) -> pl.Series:
    """Whole numbers stay numbers, dates dates; all else is a label. (A text table reads numbers as fractions: 17 is no 17.0.)"""
    if cells.dtype.is_float() and bool((cells == cells.round()).all()) and bool((cells.abs() < 2**53).all()):
        return cells.cast(pl.Int64)
    return cells if cells.dtype.is_integer() or cells.dtype.is_temporal() or cells.dtype == pl.Boolean else labels(cells)


def _seen(before: str, given: Rows) -> str:
    frame = given if isinstance(given, pl.DataFrame) else pl.DataFrame(given)
    return hashlib.blake2b(before.encode() + frame.hash_rows(seed=0).to_numpy().tobytes(), digest_size=16).hexdigest()


def _no_key(key: str, example: Rows) -> InputError:
    columns = example.columns if isinstance(example, pl.DataFrame) else list(dict.fromkeys(n for r in example for n in r))
    near = nearest(key, columns)
    if near:
        return InputError("No column is called '{name}'. The file has: {columns}. Did you mean '{near}'?", name=key, columns=columns[:40], near=near)
    return InputError("No column is called '{name}'. The file has: {columns}.", name=key, columns=columns[:40])

