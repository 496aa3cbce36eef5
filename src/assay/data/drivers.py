"""How SQLite, PostgreSQL and MySQL or MariaDB are asked, each by the driver that was quickest for its size (1 million x 7, 2 cores):

    sqlite       sqlite3 of the standard library   1.9 s   ADBC takes 0.8 s, but fails where a column changes its type after the first rows
    postgresql   ADBC (COPY in binary)             1.4 s   11 MB
    mysql        PyMySQL, cells left as text       4.6 s   0.4 MB; decoded by PyMySQL 9.5 s; connectorx 0.8 s, but 181 MB and no way to stop it
"""

from __future__ import annotations

import importlib
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import polars as pl

from assay.errors import MissingExtra, ReadError

ROWS, BYTES = 50_000, 8 << 20  # of a batch, at most
CONNECT_S = 10.0
_PORTS = {"postgresql": 5432, "mysql": 3306}
TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name",
    "postgresql": "SELECT CASE WHEN table_schema = 'public' THEN table_name::text ELSE table_schema || '.' || table_name END AS name "
                  "FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1 LIMIT 200",
    "mysql": "SELECT CASE WHEN table_schema = database() THEN table_name ELSE concat(table_schema, '.', table_name) END AS name "
             "FROM information_schema.tables WHERE table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') "
             "ORDER BY table_schema <> coalesce(database(), ''), 1 LIMIT 200",
}


@dataclass(frozen=True)
class Place:
    """Where a database is. shown: the URL as it may be printed. `repr` does not hold the password either."""

    dialect: str
    shown: str
    url: str = field(repr=False)
    user: str | None
    password: str | None = field(repr=False)
    host: str | None
    port: int
    name: str
    options: dict[str, str] = field(repr=False)

    @classmethod
    def of(cls, dialect: str, url: str, shown: str) -> Place:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(dialect, 0)
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
            if dialect == "sqlite" and not url.partition("://")[2].strip("/"):
                raise ValueError
        except ValueError:
            raise ReadError("'{url}' is no address of a database. Write it like sqlite:///file.db or postgresql://user:password@host:5432/name; in a password, write "
                            "@ as %40, : as %3A and / as %2F.", url=shown) from None
        name = url.partition("://")[2].partition("?")[0].removeprefix("/") if dialect == "sqlite" else unquote(parts.path.removeprefix("/"))
        password = unquote(parts.password) if parts.password is not None else options.get("password")
        return cls(dialect, shown, url, unquote(parts.username) if parts.username else None, password, parts.hostname, port, name, options)


@dataclass(frozen=True)
class Batch:
    """Some rows of an answer: names, and one series a name, of the types the database gives."""

    names: list[str]
    columns: list[pl.Series]

    def frame(self) -> pl.DataFrame:
        return pl.DataFrame([c.alias(n) for n, c in zip(self.names, self.columns, strict=True)])


def batches(place: Place, query: str, deadline: float) -> Iterator[Batch]:
    """The answer to a query that reads; at least one batch, which may be empty. The connection is read-only.

    deadline: of time.monotonic(); the server is asked to stop then, too. Raises what the driver raises, MissingExtra, ReadError.
    """
    if place.host and "," not in place.host:
        try:
            socket.create_connection((place.host, place.port), timeout=min(CONNECT_S, max(0.1, deadline - time.monotonic()))).close()
        except OSError as error:
            raise ReadError("No database answers at {host}, port {port}: {error}. Is it running, and is the address right?", host=place.host,
                            port=place.port, error=error.strerror or str(error) or type(error).__name__) from None
    return _ASK[place.dialect](place, query, deadline)


def explained(error: Exception, place: Place) -> tuple[str, str]:
    """(what, reason): what is 'door', 'table', 'time', 'gone' or 'query'; reason: the driver's words in one line, without the password."""
    text = str(error.args[-1]) if place.dialect == "mysql" and error.args else str(error)
    if place.dialect == "postgresql":  # 'NOT_FOUND: Failed to prepare query: ERROR:  no such ... (newline) LINE 1: ...'
        text = _PREFIX.sub("", text.strip()).partition("\n")[0]
    reason = " ".join(text.split())
    for secret in sorted({s for s in (place.password, quote(place.password or "", safe="")) if s}, key=len, reverse=True):
        reason = reason.replace(secret, "***")
    return _what(error, place.dialect), reason.rstrip(".")[:300]


_PREFIX = re.compile(r"^(?:[A-Z_]+: )?(?:\[libpq\] )?(?:Failed to [^:]*: |Execution error \[\w+\]: )?(?:ERROR|FATAL|PANIC)?:? *")


def _what(error: Exception, dialect: str) -> str:
    if isinstance(error, TimeoutError):
        return "time"
    if dialect == "sqlite":
        text = str(error)
        return "table" if "no such table" in text else "time" if text == "interrupted" else "door" if "not a database" in text else "query"
    if dialect == "mysql":
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        timed_out = code == 2013 and "timed out" in str(error)
        return ("table" if code == 1146 else "door" if code in (1044, 1045, 1049, 1130, 1698, 2003) else "time" if code in (1969, 3024) or timed_out
                else "gone" if code in (0, 1053, 1317, 1927, 2006, 2013, 2055) else "query")
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, _Door) or state[:2] in ("28", "3D"):
        return "door"
    if not state and "PGRES_FATAL_ERROR]: ERROR" in str(error):  # while rows come in, the driver keeps the code to itself
        return "query"
    return "table" if state == "42P01" else "time" if state == "57014" else "gone" if state[:2] in ("", "00", "08", "57") else "query"


class _Door(Exception):
    """A PostgreSQL connection was refused; the driver gives no code for it."""


def _driver(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise MissingExtra(package, extra="sql") from None


def _fetched(cursor: Any, names: list[str], columns: list[Callable[[tuple[Any, ...]], pl.Series]]) -> Iterator[Batch]:
    """Rows as Python holds them, as columns; so many at a time that long texts stay within BYTES."""
    n = min(100, ROWS)
    rows = cursor.fetchmany(n)
    while True:
        cells = zip(*rows, strict=True) if rows else [()] * len(names)
        batch = Batch(names, [column(c) for column, c in zip(columns, cells, strict=True)])
        yield batch
        size = sum(c.estimated_size() for c in batch.columns)
        n = int(min(ROWS, max(5, len(rows) * BYTES / max(size, 1))))
        rows = cursor.fetchmany(n)
        if not rows:
            return


# ---- SQLite


def _sqlite(place: Place, query: str, deadline: float) -> Iterator[Batch]:
    path = Path(place.name).expanduser()
    if not path.is_file():
        raise ReadError("There is no file '{file}' in '{folder}'.", file=path.name, folder=str(path.absolute().parent)[-120:])
    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=5.0)
    try:
        allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY)
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        yield from _fetched(cursor, names, [_cells] * len(names))
    finally:
        connection.close()


def _cells(cells: tuple[Any, ...]) -> pl.Series:
    """Python values; SQLite lets every cell have a type of its own."""
    try:
        return pl.Series(cells, strict=True)
    except (TypeError, pl.exceptions.PolarsError, OverflowError):
        pass
    types = {type(c) for c in cells if c is not None}
    if types <= {int, float}:
        return pl.Series([None if c is None else float(c) for c in cells], dtype=pl.Float64)
    return pl.Series([None if c is None else c.decode("utf-8", "replace") if isinstance(c, bytes) else str(c) for c in cells], dtype=pl.String)


# ---- PostgreSQL


def _postgresql(place: Place, query: str, deadline: float) -> Iterator[Batch]:
    dbapi = _driver("adbc_driver_postgresql.dbapi", "adbc-driver-postgresql")
    try:
        connection = dbapi.connect(_libpq(place))
    except dbapi.Error as error:
        raise _Door(re.sub(r".*?(?:FATAL:|failed:)\s*", "", str(error), flags=re.DOTALL) or str(error)) from None
    with connection, connection.cursor() as cursor:  # within one transaction; as options of the connection, a pooler would refuse these
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute(f"SET LOCAL statement_timeout = {max(1, int(1000 * (deadline - time.monotonic())))}")
        cursor.execute(query)
        reader = cursor.fetch_record_batch()
        names = reader.schema.names
        yield Batch(names, [_arrow(column, field) for column, field in zip(reader.schema.empty_table().columns, reader.schema, strict=True)])
        for batch in reader:
            yield Batch(names, [_arrow(column, field) for column, field in zip(batch.columns, reader.schema, strict=True)])


def _libpq(place: Place) -> str:
    parts = urlsplit(place.url)
    asked = {"connect_timeout": str(int(CONNECT_S)), "application_name": "assay"} | place.options
    return f"postgresql://{parts.netloc}{parts.path}?{urlencode(asked, quote_via=quote)}"


def _arrow(column: Any, field: Any) -> pl.Series:
    import pyarrow as pa

    if (field.metadata or {}).get(b"POSTGRESQL:type") == b"money":
        raise ReadError("Column '{name}' is of type money, which is sent without its fraction digits. Ask for {name}::numeric.", name=field.name)
    uuid = isinstance(field.type, pa.BaseExtensionType) and field.type.extension_name == "arrow.uuid"
    if isinstance(field.type, pa.BaseExtensionType):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        column = pa.chunked_array([c.storage for c in chunks], field.type.storage_type)
    if pa.types.is_interval(column.type):
        return pl.Series([None if c is None else _seconds(*c) for c in column.to_pylist()], dtype=pl.Float64)
    series = pl.Series(column)
    if uuid:
        return series.bin.encode("hex").str.replace(r"^(.{8})(.{4})(.{4})(.{4})", "$1-$2-$3-$4-")
    return _decimal(series) if (field.metadata or {}).get(b"ADBC:postgresql:typname") == b"numeric" else series


def _seconds(months: int, days: int, nanoseconds: int) -> float:
    """As PostgreSQL's extract(epoch from interval): a year of 365.25 days, a month of 30."""
    years, months = divmod(months, 12) if months >= 0 else (-(-months // 12), -(-months % 12))
    return 86400 * (365.25 * years + 30 * months + days) + nanoseconds / 1e9


def _decimal(text: pl.Series) -> pl.Series:
    """Decimals written out: fractions as Float64, whole numbers as Int64, or as text where they are too long."""
    if bool(text.str.contains(r"[^0-9-]").any()):
        return text.cast(pl.Float64)
    whole = text.cast(pl.Int64, strict=False)
    return whole if whole.null_count() == text.null_count() else text


# ---- MySQL and MariaDB


def _mysql(place: Place, query: str, deadline: float) -> Iterator[Batch]:
    pymysql = _driver("pymysql", "pymysql")
    converters, cursors = importlib.import_module("pymysql.converters"), importlib.import_module("pymysql.cursors")
    as_text = {k: v for k, v in converters.conversions.items() if not isinstance(k, int)}  # none for what comes back
    left_s = max(1.0, deadline - time.monotonic())
    tls = {k: v for k, v in place.options.items() if k in ("ssl_ca", "ssl_cert", "ssl_key")}
    connection = pymysql.connect(
        host=place.host or "localhost", port=place.port, user=place.user, password=place.password or "", database=place.name or None,
        unix_socket=place.options.get("unix_socket"), charset="utf8mb4", conv=as_text, cursorclass=cursors.SSCursor, connect_timeout=int(CONNECT_S),
        read_timeout=left_s, write_timeout=left_s, **tls)
    answers: list[Any] = []
    try:
        connection.query("SET SESSION TRANSACTION READ ONLY")
        connection.query("START TRANSACTION READ ONLY")
        cursor = connection.cursor()
        answers.append(cursor)
        cursor.execute(query)
        names = [column[0] for column in cursor.description]
        yield from _fetched(cursor, names, [partial(_typed, column[1]) for column in cursor.description])
    finally:
        connection._force_close()  # close() would read the rest of the answer first, and so would the cursor when it is collected
        for cursor in answers:
            cursor.connection = None
            if cursor._result is not None:
                cursor._result.unbuffered_active = False


_WHOLE, _FRACTION, _DECIMAL, _DATE, _INSTANT, _BIT = {1, 2, 3, 8, 9, 13}, {4, 5}, {0, 246}, {10, 14}, {7, 12}, 16


def _typed(code: int, cells: tuple[Any, ...]) -> pl.Series:
    """Cells as the server writes them, in the type that the column's code names. Dates such as 0000-00-00 are missing."""
    if code == _BIT:
        return pl.Series([None if c is None else int.from_bytes(c, "big") for c in cells], dtype=pl.Int64, strict=False)
    if any(isinstance(c, bytes) for c in cells):
        return pl.Series(cells, dtype=pl.Binary)
    text = pl.Series(cells, dtype=pl.String)
    if code in _WHOLE:
        return _decimal(text)
    if code in _FRACTION:
        return text.cast(pl.Float64)
    if code in _DECIMAL:
        return _decimal(text)
    if code in _DATE:
        return text.str.to_date("%Y-%m-%d", strict=False)
    if code in _INSTANT:
        return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    return text


_ASK = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}
