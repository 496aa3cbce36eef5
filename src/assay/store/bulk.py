"""Many rows into one table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

AT_ONCE = (256, 32, 4, 1)  # rows of one statement: few kinds of statements, because the driver keeps each prepared, some 300 kB for 256 rows. SQLite takes 32,766 values


def insert(connection: Connection, table: Table, names: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> None:
    """rows: cells in the order of `names`.

    SQLite's driver gives Python's lock away for each row of an `executemany` and has to wait for it again, up to a switch interval each time, while a
    service answers: some 2,000 rows/s were the end of it. A statement of many rows gives it away once.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        return
    at = 0
    for size in AT_ONCE:
        while len(rows) - at >= size:
            connection.exec_driver_sql(_statement(table.name, names, size), tuple(chain.from_iterable(rows[at:at + size])))
            at += size


@cache
def _statement(table: str, names: tuple[str, ...], rows: int) -> str:
    """Names are those of our own tables; `of` is the only one that could be taken for a keyword somewhere, so all are quoted."""
    one = "(" + ", ".join("?" * len(names)) + ")"
    return f"INSERT INTO {table} ({', '.join(chr(34) + n + chr(34) for n in names)}) VALUES {', '.join([one] * rows)}"
