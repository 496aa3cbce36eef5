"""Brings a store to the newest schema. Alembic is imported only where something is to be done: that alone takes 0.2 s."""

from __future__ import annotations

import re
import secrets
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import InputError, ReadError
from assay.store.address import Address
from assay.store.database import BUSY_S, Database
from assay.store.packing import GENESIS
from assay.store.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

FOLDER = Path(__file__).parent / "migrations"
VERSION_TABLE = "schema_version"


@cache
def revisions() -> tuple[str, ...]:
    """Of the schema, oldest first: the numbers at the beginning of the files' names."""
    return tuple(sorted(found[1] for file in (FOLDER / "versions").iterdir() if (found := re.match(r"(\d{4})_\w+\.pyc?$", file.name))))


def migrated(address: Address, create: bool) -> Database:
    """An open database whose schema is the newest. Raises ReadError for a schema that is newer than this assay."""
    if address.file is not None:
        if not address.file.exists() and not create:
            raise InputError("There is no store at '{store}'. assay serve makes one; --home or --store says where it is.", store=address.shown)
        try:
            address.file.parent.mkdir(parents=True, exist_ok=True)
            if not address.file.exists():  # it will hold what people have asked: nobody else's to read, nor are its companions, which take its rights
                address.file.touch(mode=0o600)
        except OSError as error:
            raise InputError("The folder of the store '{store}' cannot be made: {reason}.", store=address.shown, reason=error.strerror or type(error).__name__) from None
    database = Database(address)
    try:
        if address.file is not None:
            _journal(database)
        with database.reading() as connection:
            found = _revision(connection)
        if found != revisions()[-1]:
            _checked(found, address, create)
            with database.alone() as connection:
                if (now := _revision(connection)) != revisions()[-1]:  # another process may have been quicker
                    _checked(now, address, create)
                    _upgrade(connection)
                    _begin(connection)
    except BaseException:
        database.close()
        raise
    return database


def _checked(found: str | None, address: Address, create: bool) -> None:
    if found is None and not create:
        raise InputError("There is no store at '{store}'. assay serve makes one; --home or --store says where it is.", store=address.shown)
    if found is not None and found not in revisions():
        raise ReadError("The store '{store}' has the schema {found}, but this assay knows only up to {known}: it was written by a newer one. Install that version of assay.",
                        store=address.shown, found=found, known=revisions()[-1])


def _journal(database: Database) -> None:
    """WAL: readers and the writer do not wait for each other. Kept in the file, so it is set once.

    SQLite does not wait for others before it changes the mode: of 120 processes that opened 15 new stores, 8 at the same moment, one was refused as busy.
    """
    import sqlite3

    until = time.monotonic() + BUSY_S
    with database._guarded():
        raw = database.engine.raw_connection()
        try:
            cursor = raw.cursor()
            while True:
                try:
                    if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal" and cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                        raise InputError("The store '{store}' cannot keep a write-ahead log there. Put it on a local disk, or name a server with --store.", store=database.address.shown)
                    break
                except sqlite3.OperationalError as error:
                    if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                        raise
                time.sleep(0.02)
            cursor.close()
        finally:
            raw.close()


def _revision(connection: Connection) -> str | None:
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _begin(connection: Connection) -> None:
    """The head of a new store's chain. Its first link names the store, so that two chains are never the same."""
    from assay.store.database import Transaction

    head = tables().head
    if connection.execute(head.select()).first() is not None:
        return
    connection.execute(head.insert(), [{"id": 1, "seq": 0, "hash": GENESIS, "feedback": 0}])
    transaction = Transaction(connection, 0, GENESIS, 0)
    transaction.audit("service", "store made", {"store": secrets.token_hex(16), "schema": revisions()[-1]})
    transaction.settle()
