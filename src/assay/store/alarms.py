"""Alarms, sketches of what was asked, and traffic by the minute."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from assay.errors import InputError
from assay.store.database import Database, Transaction
from assay.store.packing import finite, pack, plain, unpack
from assay.store.records import Alarm, Sketch, Traffic
from assay.store.tables import tables
from assay.words import Text


def _inserted(transaction: Transaction, table: Any, values: dict[str, Any]) -> int:
    key = transaction.connection.execute(table.insert().values(**values)).inserted_primary_key
    assert key is not None  # one row was put in
    return int(key[0])


def _alarm(row: Any) -> Alarm:
    return Alarm(row.id, row.at, row.model, row.code, row.level, unpack(row.text), unpack(row.facts), row.closed, row.closed_by)


class Alarms:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: str, code: str, level: str, text: Text | dict[str, Any], facts: dict[str, Any]) -> Alarm | None:
        """None if the same code is open for the model already."""
        a = tables().alarms
        if level not in ("info", "warning", "critical"):
            raise InputError("An alarm is info, warning or critical, not '{level}'.", level=level[:40])
        values = {"model": plain(model, 64, "model"), "code": plain(code, 64, "code"), "level": level, "text": pack(text) or "{}", "facts": pack(facts) or "{}", "at": time.time()}
        with self._database.writing() as transaction:
            same = a.select().where(a.c.model == model, a.c.code == code, a.c.closed.is_(None)).limit(1)
            if transaction.connection.execute(same).first() is not None:
                return None
            number = _inserted(transaction, a, values)
            transaction.audit("service", "alarm", {"alarm": number, "model": model, "code": code, "level": level})
            return _alarm(transaction.connection.execute(a.select().where(a.c.id == number)).one())

    def close(self, id: int, by: str) -> Alarm:
        a = tables().alarms
        with self._database.writing() as transaction:
            row = transaction.connection.execute(a.select().where(a.c.id == id)).first()
            if row is None:
                raise InputError("No alarm has the number {id}.", id=id)
            if row.closed is None:
                transaction.connection.execute(a.update().where(a.c.id == id).values(closed=transaction.at, closed_by=plain(by, 64, "actor")))
                transaction.audit(by, "alarm closed", {"alarm": row.id, "model": row.model, "code": row.code})
            return _alarm(transaction.connection.execute(a.select().where(a.c.id == id)).one())

    def open(self, model: str | None = None) -> list[Alarm]:
        """Those that nobody has closed, the oldest first."""
        a = tables().alarms
        query = a.select().where(a.c.closed.is_(None)).order_by(a.c.id)
        with self._database.reading() as connection:
            return [_alarm(row) for row in connection.execute(query if model is None else query.where(a.c.model == model))]

    def recent(self, model: str | None = None, limit: int = 100) -> list[Alarm]:
        """The newest first, closed ones too."""
        a = tables().alarms
        query = a.select().order_by(a.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [_alarm(row) for row in connection.execute(query if model is None else query.where(a.c.model == model))]


class Sketches:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: str, version: int, start: float, end: float, rows: int, data: bytes) -> int:
        """Its number. start, end: seconds since 1970, of the first and last request in it."""
        values = {"model": plain(model, 64, "model"), "version": int(version), "start": float(start), "end": float(end), "rows": int(rows), "data": bytes(data)}
        with self._database.writing() as transaction:
            return _inserted(transaction, tables().sketches, values)

    def between(self, model: str, version: int | None, since: float, until: float) -> Iterator[Sketch]:
        """Those that reach into since <= t < until, in the order of their start; one in memory at a time."""
        from sqlalchemy import select

        s = tables().sketches
        query = select(s.c.id).where(s.c.model == model, s.c.start < until, s.c.end >= since).order_by(s.c.start, s.c.id)
        with self._database.reading() as connection:
            ids = connection.execute(query if version is None else query.where(s.c.version == version)).scalars().all()
        for key in ids:
            with self._database.reading() as connection:
                row = connection.execute(s.select().where(s.c.id == key)).first()
            if row is not None:
                yield Sketch(*row)

    def expire(self, before: float) -> int:
        """Deletes those that ended before that time; how many."""
        s = tables().sketches
        with self._database.writing() as transaction:
            return transaction.connection.execute(s.delete().where(s.c.end < before)).rowcount


class Minutes:
    """Traffic: counts of a minute and worker. What is written is added to what is there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def between(self, model: str | None, since: float, until: float) -> list[Traffic]:
        """since, until: seconds since 1970; all workers, in the order of time. model: None for all."""
        t = tables().traffic
        query = t.select().where(t.c.minute >= int(since // 60), t.c.minute * 60 < until).order_by(t.c.minute, t.c.model, t.c.worker)
        with self._database.reading() as connection:
            rows = connection.execute(query if model is None else query.where(t.c.model == model)).all()
        return [_traffic(row) for row in rows]


def _traffic(row: Any) -> Traffic:
    return Traffic(row.minute, row.model, row.worker, row.requests, row.errors, row.refused, row.ms_sum, unpack(row.histogram))


def add_traffic(transaction: Transaction, rows: Iterable[Traffic]) -> None:
    """In the transaction of a write."""
    t = tables().traffic
    for row in rows:
        here = (t.c.minute == row.minute, t.c.model == row.model, t.c.worker == row.worker)
        found = transaction.connection.execute(t.select().where(*here)).first()
        there = Traffic(row.minute, row.model, row.worker, 0, 0, 0, 0.0, {}) if found is None else _traffic(found)
        histogram = {k: there.histogram.get(k, 0) + row.histogram.get(k, 0) for k in there.histogram | row.histogram}
        sums = {"requests": there.requests + row.requests, "errors": there.errors + row.errors, "refused": there.refused + row.refused,
                "ms_sum": there.ms_sum + (finite(row.ms_sum) or 0.0), "histogram": pack(histogram) or "{}"}
        if found is None:
            transaction.connection.execute(t.insert(), [{"minute": row.minute, "model": plain(row.model, 64, "model"), "worker": row.worker} | sums])
        else:
            transaction.connection.execute(t.update().where(*here).values(**sums))
