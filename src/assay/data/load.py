"""Whatever holds a table - a file, a folder of parts, a database, a frame of another library - as a `Table`. Knows which reader to ask."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from assay.data import excel, folders, parts, sql
from assay.data.csv import read_delimited
from assay.data.encoding import as_utf8, looks_like, short
from assay.data.media import kind_of
from assay.data.stream import IN_MEMORY
from assay.data.table import Held, Parquet, Table
from assay.errors import InputError, MissingExtra, ReadError
from assay.words import Text

MEMORY_MB, TIMEOUT_S = 4096.0, 300.0
_TABLES = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".pq", ".xlsx", ".xlsm", ".xlsb", ".ods", ".xls")


def load(source: Any, *, query: str | None = None) -> tuple[pl.DataFrame, list[Text]]:
    """The table as it stands, its kinds not yet known, and what was noticed."""
    with opened(source, query=query) as table:
        return table.frame(), table.notes


@contextmanager
def opened(source: Any, *, query: str | None = None, memory_mb: float = MEMORY_MB, timeout_s: float = TIMEOUT_S) -> Iterator[Table]:
    """The table of `source`, whose columns can be read while the context is open.

    source: see `data.read.read`. query: what a database is asked. memory_mb: above a quarter of it, a table is kept in
    temporary files. timeout_s: longest that a database may take. Raises ReadError, MissingExtra, InputError.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:
        yield _table(source, query, Path(folder), memory_mb * 2**20 * IN_MEMORY, timeout_s).checked()


def shown(source: str | Path) -> str:
    """A source as it may be printed and stored: the password of a URL is left out."""
    return sql.masked(str(source))


def nearest(name: str, names: list[str]) -> str | None:
    """The name most like `name`, upper and lower case alike; None if none is close."""
    lowered = {n.lower().strip(): n for n in reversed(names)}
    close = difflib.get_close_matches(name.lower().strip(), list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def _table(source: Any, query: str | None, folder: Path, most: float, timeout_s: float) -> Table:
    if isinstance(source, str) and sql.is_url(source):
        return sql.read_url(source, query, folder, timeout_s)
    if isinstance(source, str) and sql.other_url(source):
        raise ReadError("'{url}' is the address of neither a file here nor a database that can be asked (sqlite, postgresql, mysql, mariadb). Fetch it, and "
                        "name the file.", url=shown(source))
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        head = _head(path)
        if head.startswith(b"SQLite format 3\0"):
            return sql.read_url(f"sqlite:///{path}", query, folder, timeout_s)
        if query is None:
            return _file(path, folder, most)
    elif query is None:
        return Table([Held(_frame(source))])
    raise InputError("A query is asked of a database (a URL such as sqlite:///shop.db or postgresql://user@host/shop), and '{source}' is none.",
                     source=short(str(source)) if isinstance(source, (str, Path)) else type(source).__name__)


# ---- frames of other libraries


def _frame(source: Any) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    if isinstance(source, pl.LazyFrame):
        return source.collect(engine="streaming")
    package = type(source).__module__.partition(".")[0]
    if package == "pandas" and type(source).__name__ == "DataFrame":
        return _from_pandas(source)
    if package == "pyarrow" and type(source).__name__ in ("Table", "RecordBatch"):
        return pl.DataFrame(source)
    raise ReadError(
        "A table was expected: the path of a file, or a polars, pandas or pyarrow table. Found: {type}.", type=type(source).__name__)


def _from_pandas(source: Any) -> pl.DataFrame:
    names = [str(name) for name in source.columns]
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise ReadError("Column names have to differ, but there is more than one of: {names}. Rename them.", names=twice)
    out: dict[str, Any] = {}
    for i, name in enumerate(names):
        column = source.iloc[:, i]
        try:
            out[name] = pl.from_pandas(column, nan_to_null=True)
        except ModuleNotFoundError:
            raise MissingExtra("pyarrow", extra="pandas") from None
        except Exception:  # objects of mixed types: kept as the text they print as
            out[name] = pl.Series(name, [None if v is None or v != v else str(v) for v in column.tolist()], dtype=pl.String)
    return pl.DataFrame(out)


# ---- files


def _head(path: Path) -> bytes:
    """The first bytes of a file; b'' for a folder, an empty file, and a workbook's name with a sheet. Raises ReadError."""
    try:
        if path.is_dir() or excel.sheet_of(path):
            return b""
        if not path.exists():
            raise _absent(path)
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        raise ReadError("'{file}' cannot be opened: {error}.", file=short(path), error=error.strerror or str(error)) from None
    except ValueError:
        raise ReadError("'{file}' is no usable file name.", file=repr(str(path))[:80]) from None


def _file(path: Path, folder: Path, most: float) -> Table:
    if path.is_dir():
        (folder / "listed").mkdir()
        return folders.files_in(path, lambda file: _one(file, _fresh(folder / "listed"), most)) or parts.read_folder(path, folder, most, _one)
    if named := excel.sheet_of(path):
        return replace(excel.read_sheet(*named, 4 * most), root=named[0].parent)
    return _one(path, folder, most)


def _one(path: Path, folder: Path, most: float) -> Table:
    """The table of a single file. folder: an empty folder for temporary copies."""
    head = _head(path)
    if not head and folders.looks_like_media(path.name):
        raise ReadError("'{file}' is empty: there is no picture and no sound in it. Copy or download it again.", file=short(path))
    if not head:
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
    suffixes = [s.lower() for s in path.suffixes]
    inner = next((s for s in reversed(suffixes) if s != ".gz"), "")
    if kind_of(head) and inner not in _TABLES:
        return folders.one_file(path)
    if head[:4] == b"PAR1":
        return Table([Parquet(path)], root=path.parent)
    if inner in (".parquet", ".pq"):
        raise ReadError("'{file}' is no parquet file: it does not begin with 'PAR1'. Export it again.", file=short(path))
    if excel.is_workbook(path, head):
        return replace(excel.read_sheet(path, None, 4 * most), root=path.parent)
    if what := looks_like(head):
        raise ReadError("'{file}' is not a table in text form: it looks like {what}. Save the table as CSV (UTF-8) or parquet.", file=short(path), what=what)
    notes: list[Text] = []
    if inner in (".jsonl", ".ndjson"):
        return Table([Held(_json_lines(as_utf8(path, folder, notes), path))], notes, root=path.parent)
    if inner == ".json" or head.lstrip()[:2] in (b"[{", b'{"', b"[\n", b"{\n"):
        raise ReadError("'{file}' holds JSON. Write one object a line and call it .jsonl, or save it as CSV.", file=short(path))
    return replace(read_delimited(path, folder, tabs_first=inner in (".tsv", ".tab"), lines=inner == ".txt", most=most), root=path.parent)


def _fresh(folder: Path) -> Path:
    """An empty folder below this one."""
    made = folder / str(sum(1 for _ in folder.iterdir()))
    made.mkdir()
    return made


def _absent(path: Path) -> ReadError:
    parent = path.parent
    names = [p.name for p in sorted(parent.iterdir())[:5000]] if parent.is_dir() else []
    near = nearest(path.name, names)
    if near:
        return ReadError("There is no file '{file}'. Did you mean '{near}'?", file=short(path), near=near)
    if not parent.is_dir():
        return ReadError("There is no file '{file}': the folder '{folder}' does not exist.", file=short(path), folder=str(parent)[-120:])
    return ReadError("There is no file '{file}' in '{folder}'.", file=short(path), folder=str(parent)[-120:])


def _json_lines(plain: Path, path: Path) -> pl.DataFrame:
    try:
        return pl.read_ndjson(plain, infer_schema_length=None)
    except Exception:  # a broken line, or one field of two types: look at each line
        rows: list[dict[str, Any]] = []
    with plain.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ReadError("Line {line} of '{file}' is no JSON: {error}.", line=number, file=short(path), error=str(error)) from None
            if not isinstance(row, dict):
                raise ReadError("Line {line} of '{file}' is no JSON object. Each line has to look like {example}.",
                                line=number, file=short(path), example='{"column": "value"}')
            rows.append(row)
    if not rows:
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pl.DataFrame({name: _mixed(name, [row.get(name) for row in rows]) for name in names})


def _mixed(name: str, cells: list[Any]) -> pl.Series:
    """A column of Python values: of one type if they have one, else as text."""
    try:
        return pl.Series(name, cells, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        written = [None if c is None else c if isinstance(c, str) else json.dumps(c, ensure_ascii=False, default=str) for c in cells]
        return pl.Series(name, written, dtype=pl.String)
