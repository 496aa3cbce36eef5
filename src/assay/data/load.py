"""A file, or a table of another library, as a polars frame. The only place that knows formats."""

from __future__ import annotations

import difflib
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from assay.data.csv import read_delimited
from assay.data.encoding import as_utf8, looks_like, short
from assay.errors import MissingExtra, ReadError
from assay.words import Text


def load(source: Any) -> tuple[pl.DataFrame, list[Text]]:
    """The table as it stands, its kinds not yet known."""
    if isinstance(source, (str, Path)):
        frame, notes = _file(Path(source).expanduser())
    else:
        frame, notes = _table(source), []
    twice = [name for name, n in Counter(frame.columns).items() if n > 1]
    if twice:
        raise ReadError("Column names have to differ, but there is more than one of: {names}. Rename them.", names=twice)
    if not frame.width:
        raise ReadError("The table has no columns.")
    if not frame.height:
        raise ReadError("The table has columns ({names}) but no rows.", names=frame.columns[:20])
    return frame, notes


def nearest(name: str, names: list[str]) -> str | None:
    """The name most like `name`, upper and lower case alike; None if none is close."""
    lowered = {n.lower().strip(): n for n in reversed(names)}
    close = difflib.get_close_matches(name.lower().strip(), list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


# ---- frames of other libraries


def _table(source: Any) -> pl.DataFrame:
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


def _file(path: Path) -> tuple[pl.DataFrame, list[Text]]:
    try:
        if path.is_dir():
            raise ReadError("'{file}' is a folder. A table is one file: csv, tsv, txt or jsonl (also as .gz), or parquet.", file=short(path))
        if not path.exists():
            raise _absent(path)
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise ReadError("'{file}' cannot be opened: {error}.", file=short(path), error=error.strerror or str(error)) from None
    except ValueError:
        raise ReadError("'{file}' is no usable file name.", file=repr(str(path))[:80]) from None
    if not head:
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(path))
    suffixes = [s.lower() for s in path.suffixes]
    inner = next((s for s in reversed(suffixes) if s != ".gz"), "")
    if head[:4] == b"PAR1":
        return _parquet(path), []
    if inner in (".parquet", ".pq"):
        raise ReadError("'{file}' is no parquet file: it does not begin with 'PAR1'. Export it again.", file=short(path))
    if what := looks_like(head):
        raise ReadError("'{file}' is not a table in text form: it looks like {what}. Save the table as CSV (UTF-8) or parquet.", file=short(path), what=what)
    notes: list[Text] = []
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:
        if inner in (".jsonl", ".ndjson"):
            return _json_lines(as_utf8(path, Path(folder), notes), path), notes
        if inner == ".json" or head.lstrip()[:2] in (b"[{", b'{"', b"[\n", b"{\n"):
            raise ReadError("'{file}' holds JSON. Write one object a line and call it .jsonl, or save it as CSV.", file=short(path))
        return read_delimited(path, Path(folder), tabs_first=inner in (".tsv", ".tab"), lines=inner == ".txt")


def _absent(path: Path) -> ReadError:
    parent = path.parent
    names = [p.name for p in sorted(parent.iterdir())[:5000]] if parent.is_dir() else []
    near = nearest(path.name, names)
    if near:
        return ReadError("There is no file '{file}'. Did you mean '{near}'?", file=short(path), near=near)
    if not parent.is_dir():
        return ReadError("There is no file '{file}': the folder '{folder}' does not exist.", file=short(path), folder=str(parent)[-120:])
    return ReadError("There is no file '{file}' in '{folder}'.", file=short(path), folder=str(parent)[-120:])


def _parquet(path: Path) -> pl.DataFrame:
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        whole = file.read() == b"PAR1"
    if not whole or path.stat().st_size < 12:
        raise ReadError("'{file}' is a parquet file that is cut off: its end is missing. Copy or download it again.", file=short(path))
    try:
        return pl.read_parquet(path, glob=False)
    except (Exception, pl.exceptions.PanicException) as error:
        raise ReadError("'{file}' is a damaged parquet file: {error}.", file=short(path), error=(str(error).splitlines() or [""])[0][:200]) from None


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
