"""Databases: a URL and a query that reads, in batches, so that a table larger than memory ends up on disk and not in memory.

Each database is asked by `drivers.py`, in a thread of its own: a server that hangs cannot be interrupted, only left.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from assay.data import drivers
from assay.data.disk import mapped, room
from assay.data.query import reading
from assay.data.table import Held, Piece, Table, joined
from assay.errors import AssayError, ReadError

_DIALECTS = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}
_URL = re.compile(r"(\w+)(?:\+\w+)?://", re.ASCII)
_HELD = 32 << 20  # bytes of rows in memory before they go to disk
_SHOWN = 30  # tables named in a sentence


def is_url(source: str) -> bool:
    """True for sqlite://, postgresql://, mysql:// and mariadb:// (a driver, as in mysql+pymysql://, does not matter)."""
    match = _URL.match(source.strip())
    return bool(match and match[1].lower() in _DIALECTS)


def other_url(source: str) -> bool:
    """True for an address of something else: http://, s3://, mongodb://."""
    return bool(_URL.match(source.strip())) and not is_url(source)


def masked(url: str) -> str:
    """The URL without its password, in whichever place it stands."""
    if not _URL.match(url.strip()):
        return url
    before, mark, after = url.partition("?")
    before = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", before, flags=re.DOTALL)
    return before + mark + re.sub(r"((?:^|[&;])[^=&;]*(?:passw|pwd|secret|token)[^=&;]*=)[^&;]*", r"\1***", after, flags=re.IGNORECASE)


def read_url(url: str, query: str | None, folder: Path, timeout_s: float) -> Table:
    """The rows of a query. folder: where batches beyond 32 MB go. timeout_s: for everything, from the first connection on.

    Raises ReadError whose sentence never holds the password, and MissingExtra.
    """
    url = url.strip()
    match = _URL.match(url)
    assert match
    dialect = _DIALECTS[match[1].lower()]
    place = drivers.Place.of(dialect, url, masked(url))
    deadline = time.monotonic() + timeout_s
    if query is None or not query.strip():
        raise _no_query(place, deadline, timeout_s)
    text = reading(query, dialect)
    pieces: list[Piece] = []
    pending: list[pl.DataFrame] = []
    rows, size = 0, 0.0
    try:
        for batch in _watched(place, text, deadline):
            if twice := [name for name, n in Counter(batch.names).items() if n > 1]:
                raise ReadError("The query returns more than one column called: {names}. Name them apart: SELECT a.id AS a_id, ...", names=twice)
            frame = batch.frame()
            pending.append(frame)
            rows, size = rows + frame.height, size + frame.estimated_size()
            if size > _HELD:
                pieces.append(Held(_on_disk(pending, folder / f"rows{len(pieces)}.arrow")))
                pending, size = [], 0.0
    except (AssayError, KeyboardInterrupt):
        raise
    except queue.Empty:
        raise ReadError("The database at {place} did not deliver within {seconds:g} s ({rows:,} rows had come). Ask for less, or give the run more time.",
                        place=place.shown, seconds=timeout_s, rows=rows) from None
    except Exception as error:
        raise _explained(error, place, rows, deadline, timeout_s) from None
    if not rows:
        raise ReadError("The query returns no rows. Its columns are: {names}.", names=(pending[0].columns if pending else [])[:_SHOWN])
    if any(f.height for f in pending):
        pieces.append(Held(_together(pending)))
    return Table(pieces)


def _together(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.DataFrame([joined([f[name] for f in frames]) for name in frames[0].columns])


def _on_disk(frames: list[pl.DataFrame], path: Path) -> pl.DataFrame:
    frame = _together(frames)
    room(path.parent, frame.estimated_size())
    frame.write_ipc(path, compression="uncompressed")
    return mapped(path)


def _watched(place: drivers.Place, text: str, deadline: float) -> Iterator[drivers.Batch]:
    """The batches, fetched in a thread that is left behind when it says nothing until the deadline (queue.Empty is raised then)."""
    box: queue.Queue[Any] = queue.Queue(maxsize=2)
    left = threading.Event()

    def put(item: Any) -> bool:
        while not left.is_set():
            try:
                box.put(item, timeout=0.5)
                return True
            except queue.Full:
                continue
        return False

    def fetch() -> None:
        try:
            for batch in drivers.batches(place, text, deadline):
                if not put(batch):
                    return
            put(None)
        except BaseException as error:  # told to the reader, whatever it is
            put(error)

    threading.Thread(target=fetch, daemon=True, name="assay-sql").start()
    try:
        while (item := box.get(timeout=max(0.0, deadline - time.monotonic()) + 0.5)) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


# ---- sentences


def _no_query(place: drivers.Place, deadline: float, timeout_s: float) -> ReadError:
    try:
        tables = _tables(place, deadline)
    except AssayError as error:
        if isinstance(error, ReadError):
            return error
        raise
    except queue.Empty:
        return ReadError("The database at {place} did not answer within {seconds:g} s.", place=place.shown, seconds=timeout_s)
    except Exception as error:
        return _explained(error, place, 0, deadline, timeout_s)
    if not tables:
        return ReadError("The database at {place} has no tables that this user may read.", place=place.shown)
    return ReadError("A database needs a query too: --query 'SELECT * FROM {first}'. Its tables are: {tables}.", first=tables[0], tables=_some(tables))


def _tables(place: drivers.Place, deadline: float) -> list[str]:
    return [name for batch in _watched(place, drivers.TABLES[place.dialect], deadline) for name in batch.frame()["name"].to_list()]


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= _SHOWN else [*names[:_SHOWN], "..."]


def _explained(error: Exception, place: drivers.Place, rows: int, deadline: float, timeout_s: float) -> ReadError:
    what, reason = drivers.explained(error, place)
    if what == "time" or time.monotonic() > deadline - 0.05:
        return ReadError("The database at {place} did not deliver within {seconds:g} s ({rows:,} rows had come). Ask for less, or give the run more time.",
                         place=place.shown, seconds=timeout_s, rows=rows)
    if what == "door":
        return ReadError("The database at {place} does not let us in: {error}. Check user name, password and database in the URL.", place=place.shown, error=reason)
    if what == "gone":
        return ReadError("The database at {place} broke off after {rows:,} rows: {error}. Nothing of it was kept; try again.",
                         place=place.shown, rows=rows, error=reason)
    if rows:
        return ReadError("The query failed after {rows:,} rows: {error}. Nothing of it was kept.", rows=rows, error=reason)
    if what == "table":
        try:
            tables = _some(_tables(place, deadline))
        except Exception:  # the list is a help, no more
            tables = []
        if tables:
            return ReadError("The database refuses the query: {error}. Its tables are: {tables}.", error=reason, tables=tables)
    return ReadError("The database refuses the query: {error}.", error=reason)
