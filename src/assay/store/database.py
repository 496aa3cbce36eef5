"""Connections: read blocks that see one moment, write blocks that are one transaction and the only ones at their time.

A write block locks the head of the audit chain first (SQLite: BEGIN IMMEDIATE; elsewhere: the row of `head`, FOR UPDATE), so that rows of the
chain, numbers of feedback and checks such as "is this alarm open already" need no further care, however many processes write.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assay.store.address import Address
from assay.store.failures import explained
from assay.store.packing import canonical, link, plain
from assay.store.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BUSY_S = 30.0  # how long a writer waits for another before it says so
_WRITES = "assay_writes"


@dataclass
class Transaction:
    """A write block: its connection, and where the chain stands."""

    connection: Connection
    seq: int
    hash: str
    feedback: int
    at: float = field(default_factory=time.time)
    _moved: bool = False

    def audit(self, actor: str, action: str, detail: dict[str, Any]) -> int:
        """One more link; its number."""
        text = canonical(detail)
        actor, action = plain(actor, 64, "actor"), plain(action, 64, "action")
        seq = self.seq + 1
        linked = link(self.hash, seq, self.at, actor, action, text)
        self.connection.execute(tables().audit.insert(), [{"seq": seq, "at": self.at, "actor": actor, "action": action, "detail": text, "previous": self.hash, "hash": linked}])
        self.seq, self.hash, self._moved = seq, linked, True
        return seq

    def numbers(self, n: int) -> range:
        """The next n numbers of feedback."""
        first = self.feedback + 1
        self.feedback += n
        self._moved = self._moved or n > 0
        return range(first, first + n)

    def settle(self) -> None:
        if self._moved:
            self.connection.execute(tables().head.update(), {"seq": self.seq, "hash": self.hash, "feedback": self.feedback})


class Database:
    """An engine that survives fork: a child makes connections of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.engine = _engine(address)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._guarded(), self._own().connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        head = tables().head
        with self._guarded(), self._own().connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
            query = head.select() if self.address.dialect == "sqlite" else head.select().with_for_update()
            row = connection.execute(query).one()
            transaction = Transaction(connection, row.seq, row.hash, row.feedback)
            yield transaction
            transaction.settle()

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """For migrations: nobody else migrates meanwhile, in whatever process."""
        with self._guarded(), self._own().connect().execution_options(**{_WRITES: True}) as connection:
            if self.address.dialect == "mysql":
                connection.exec_driver_sql("SELECT GET_LOCK('assay_store', 60)")
                connection.commit()
            try:
                with connection.begin():
                    if self.address.dialect == "postgresql":
                        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7253417)")
                    yield connection
            finally:
                if self.address.dialect == "mysql" and not connection.closed:
                    connection.exec_driver_sql("SELECT RELEASE_LOCK('assay_store')")

    def close(self) -> None:
        self.engine.dispose()

    def _own(self) -> Engine:
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self.engine.dispose(close=False)
                    self._pid = os.getpid()
        return self.engine

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        import sqlite3

        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            if self.address.dialect == "sqlite" and "disk" in str(getattr(error, "orig", error)):
                self.engine.dispose()  # after a failed write SQLite's own state of a connection is not to be trusted
            raise explained(error, self.address) from None


def _engine(address: Address) -> Engine:
    from sqlalchemy import create_engine, event

    if address.dialect != "sqlite":
        connect = {"connect_timeout": 10} | ({"read_timeout": 120, "write_timeout": 120} if address.dialect == "mysql" else {})
        engine = create_engine(address.url, pool_size=5, max_overflow=15, pool_pre_ping=True, pool_recycle=1800, isolation_level="READ COMMITTED", hide_parameters=True,
                               connect_args=connect)
        if address.dialect == "postgresql":

            @event.listens_for(engine, "connect")
            def patient(raw: Any, _: Any) -> None:
                with raw.cursor() as cursor:  # MySQL waits 50 s by itself
                    cursor.execute(f"SET lock_timeout = {int(1000 * BUSY_S)}")
                raw.commit()

        return engine
    engine = create_engine("sqlite://", creator=lambda: _sqlite(address), pool_size=5, max_overflow=25, poolclass=_queue(), hide_parameters=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")

    return engine


def _queue() -> Any:
    from sqlalchemy.pool import QueuePool

    return QueuePool


def _sqlite(address: Address) -> Any:
    """A connection that begins transactions only when told, syncs the disk at every commit and waits for other writers."""
    import sqlite3

    connection = sqlite3.connect(str(address.file), timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("synchronous = FULL", "journal_size_limit = 67108864", "trusted_schema = OFF", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}").close()
    except sqlite3.Error:
        connection.close()
        raise
    return connection
