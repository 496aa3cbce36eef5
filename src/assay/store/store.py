"""Everything that the service remembers, behind one door."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from assay.errors import InputError
from assay.store.address import Address
from assay.store.alarms import Alarms, Minutes, Sketches, add_traffic
from assay.store.audit import Audit
from assay.store.batches import FEEDBACK, MOST, PREDICTION, Cells, state
from assay.store.bulk import insert
from assay.store.database import Database, Transaction
from assay.store.feedback import Drafts, Feedbacks
from assay.store.keys import Keys
from assay.store.migrate import migrated
from assay.store.predictions import Predictions
from assay.store.records import Feedback, Prediction, Traffic
from assay.store.tables import tables
from assay.store.versions import Versions


class Store:
    """Safe for threads and after a fork; any number of processes may hold the same store open.

    Raises BudgetError (HTTP 503) where there is no room or no right to write, EndpointError (502) where a server is gone: both may pass. ReadError, InputError otherwise.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.predictions = Predictions(database)
        self.feedback = Feedbacks(database)
        self.drafts = Drafts(database)
        self.audit = Audit(database)
        self.alarms = Alarms(database)
        self.keys = Keys(database)
        self.versions = Versions(database)
        self.sketches = Sketches(database)
        self.traffic = Minutes(database)

    @classmethod
    def open(cls, place: str | Path, create: bool = True) -> Store:
        """A path (SQLite) or a URL: sqlite:///file, postgresql://user:password@host/name, mysql://...; brought to the newest schema.

        create: make the file, or the tables of an empty database, if they are not there. Raises InputError, ReadError, BudgetError, EndpointError, MissingExtra.
        """
        return cls(migrated(Address.of(place), create))

    @property
    def shown(self) -> str:
        """Where it is, without the password."""
        return self._database.address.shown

    def held(self, prediction: Prediction) -> Prediction:
        """As it waits for `write`."""
        return prediction

    def write(self, *, predictions: Sequence[Prediction] = (), feedback: Sequence[Feedback] = (), traffic: Sequence[Traffic] = (), token: str | None = None) -> list[int]:
        """All or nothing, in one transaction that is on the disk when this returns; the numbers of the feedback.

        Adds an audit row for every 5,000 predictions and as many labels, with their digest. Traffic is added to what is there and needs no audit row.
        token: kept in the audit row, so that a writer which lost the connection during a commit can find out whether it was done (`written`).
        """
        return self.write_cells(Cells.of(predictions, feedback, traffic), token)

    def write_cells(self, cells: Cells, token: str | None = None) -> list[int]:
        """The same, of what is packed already."""
        with self._database.writing() as transaction:
            ids = list(transaction.numbers(len(cells.feedback)))
            numbered = [(n, *f) for n, f in zip(ids, cells.feedback, strict=True)]
            for i in range(0, max(len(cells.predictions), len(numbered)), MOST):
                _batch(transaction, cells.predictions[i:i + MOST], numbered[i:i + MOST], token)
            add_traffic(transaction, cells.traffic)
        return ids

    def written(self, token: str, since: float) -> list[int] | None:
        """The numbers of the feedback of the write with this token, None if it was not done. since: a time before it; clocks may differ by a minute."""
        found: list[int] | None = None
        for row in self.audit.since(since - 60):
            if row.action == "write" and row.detail.get("token") == token:
                first = row.detail.get("feedback_first")
                numbers = [] if first is None else list(range(first, first + row.detail["feedback"]))
                found = numbers + (found or [])
        return found

    def backup(self, file: str | Path) -> None:
        """A copy of an SQLite store as it is at one moment, while the service goes on writing. Raises InputError for a server (it has tools of its own) and for a file that exists."""
        import sqlite3

        if self._database.address.file is None:
            raise InputError("{store} is a server: back it up with its own tools, pg_dump or mariadb-dump --single-transaction.", store=self.shown)
        if Path(file).exists():
            raise InputError("'{file}' exists already; a backup goes into a new file.", file=str(file))
        with self._database.reading() as connection:
            copy = sqlite3.connect(str(file))
            try:
                connection.connection.driver_connection.backup(copy, pages=1000)  # type: ignore[union-attr]
            finally:
                copy.close()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _batch(transaction: Transaction, predictions: Sequence[Sequence[Any]], feedback: list[tuple[Any, ...]], token: str | None) -> None:
    """One audit row and the rows that it vouches for."""
    made = state(predictions, feedback)
    ids = [row[0] for row in predictions or feedback]
    detail = {"predictions": made.predictions, "feedback": made.feedback, "first": ids[0], "last": ids[-1], "sha256": made.sha256}
    if feedback:
        detail["feedback_first"] = feedback[0][0]
    if token is not None:
        detail["token"] = token
    seq = transaction.audit("service", "write", detail)
    for table, names, rows in ((tables().predictions, PREDICTION, predictions), (tables().feedback, FEEDBACK, feedback)):
        if rows:
            insert(transaction.connection, table, (*names, "audit"), [(*row, seq) for row in rows])
