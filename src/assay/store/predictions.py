"""What was asked and answered, read a page at a time; and retention."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from assay.errors import InputError
from assay.store.batches import Removed, by_number, feedback_of, prediction_of, spans, states
from assay.store.database import Database, Transaction
from assay.store.packing import unpack
from assay.store.records import Feedback, Prediction
from assay.store.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

PAGE = 1_000


class Predictions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, id: str) -> Prediction | None:
        p = tables().predictions
        with self._database.reading() as connection:
            row = connection.execute(p.select().where(p.c.id == id)).first()
        return None if row is None else prediction_of(row)

    def recent(self, model: str, limit: int = 100, version: int | None = None, arm: str | None = None, before: float | None = None) -> list[Prediction]:
        """The newest first; before: a time."""
        p = tables().predictions
        query = _of(p.select(), model, version, arm).order_by(p.c.at.desc(), p.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(p.c.at < before)
        with self._database.reading() as connection:
            return [prediction_of(row) for row in connection.execute(query)]

    def between(self, model: str, since: float, until: float, version: int | None = None, arm: str | None = None) -> Iterator[Prediction]:
        """Oldest first, since <= at < until. No connection is held between pages, so a slow reader hinders nobody."""
        from sqlalchemy import and_, or_

        p = tables().predictions
        query = _along(_of(p.select(), model, version, arm), p, "predictions_time").where(p.c.at < until).order_by(p.c.at, p.c.id).limit(PAGE)
        after: Any = p.c.at >= since
        while True:
            with self._database.reading() as connection:
                page = connection.execute(query.where(after)).all()
            yield from map(prediction_of, page)
            if len(page) < PAGE:
                return
            at, key = page[-1].at, page[-1].id
            after = and_(p.c.at >= at, or_(p.c.at > at, p.c.id > key))

    def labelled(self, model: str, since: float | None = None, version: int | None = None, arm: str | None = None) -> Iterator[tuple[Prediction, Feedback]]:
        """Answers with the last label that was given for them, in the order of the labels. since: of the prediction's time.

        A label is given for what was handed out; a shadow answer takes the label of the prediction it shadows. So a label comes with its
        champion's answer and, after it, its shadow's; `version` or `arm` picks one.
        """
        f = tables().feedback
        after = 0
        while True:
            with self._database.reading() as connection:
                page = connection.execute(_along(_last_labels(model), f, "feedback_order").where(f.c.id > after).order_by(f.c.id).limit(PAGE)).all()
                answers = self._answers(connection, model, [row.prediction for row in page], since, version, arm)
            for row in page:
                said = feedback_of(row)
                for prediction in answers.get(row.prediction, ()):
                    yield prediction, said
            if len(page) < PAGE:
                return
            after = page[-1].id

    def _answers(self, connection: Connection, model: str, ids: list[str], since: float | None, version: int | None, arm: str | None) -> dict[str, list[Prediction]]:
        """{id asked for: the prediction itself, then its shadows}.

        Asked for by id alone, the rest is sifted here: given the model as well, SQLite walks all its rows (200,000 predictions, 10,000 labels: 6.5 s instead of 0.5).
        """
        p = tables().predictions
        found: dict[str, list[Prediction]] = {}
        for column in (p.c.id, p.c.of):
            if not ids or (arm == "shadow" and column is p.c.id) or (arm not in (None, "shadow") and column is p.c.of):
                continue
            for row in connection.execute(p.select().where(column.in_(ids)).order_by(p.c.id)):
                if row.model != model or (version is not None and row.version != version) or (arm is not None and row.arm != arm) or (since is not None and row.at < since):
                    continue
                found.setdefault(row.of if column is p.c.of else row.id, []).append(prediction_of(row))
        return found

    def unlabelled(self, model: str, limit: int, since: float | None = None, arm: str | None = "champion") -> list[Prediction]:
        """Nobody has said what is right (or accepted the answer) yet: the most doubtful first, the newest first among equals; those without a doubt last.

        By pages of predictions and then their labels; as one query with NOT EXISTS MariaDB took 17 s for 100,000 predictions, this takes 0.1.
        """
        from sqlalchemy import and_, or_

        p = tables().predictions
        query = _of(p.select(), model, None, arm)
        if since is not None:
            query = query.where(p.c.at >= since)
        found: list[Prediction] = []
        for part, order in ((query.where(p.c.doubt.isnot(None)), (p.c.doubt.desc(), p.c.id.desc())), (query.where(p.c.doubt.is_(None)), (p.c.at.desc(), p.c.id.desc()))):
            size = max(2 * limit, 200)
            asked = part.order_by(*order).limit(size)
            more = True
            while more and len(found) < limit:
                with self._database.reading() as connection:
                    page = connection.execute(asked).all()
                    settled = _settled(connection, model, [row.id for row in page])
                found += [prediction_of(row) for row in page if row.id not in settled][:limit - len(found)]
                more = len(page) == size
                if more:
                    last = page[-1]
                    column, value = (p.c.at, last.at) if last.doubt is None else (p.c.doubt, last.doubt)
                    asked = part.where(column <= value, or_(column < value, and_(column == value, p.c.id < last.id))).order_by(*order).limit(size)
        return found

    def count(self, model: str, since: float | None = None, version: int | None = None, arm: str | None = None) -> int:
        from sqlalchemy import func, select

        p = tables().predictions
        query = _of(select(func.count()).select_from(p), model, version, arm)
        if since is not None:
            query = query.where(p.c.at >= since)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one()

    def expire(self, before: float, model: str | None = None, by: str = "service", feedback: bool = False) -> int:
        """Deletes the predictions before that time, a few thousand a transaction; how many. feedback: labels before that time, too.

        Each transaction writes an audit row with the digest of what is left of the batches it thinned, so that the chain still verifies. A batch that does not
        verify is not thinned: its change would be forgotten. Raises InputError then.
        """
        told = {"before": before, "model": model}
        p, f = tables().predictions, tables().feedback
        whose = () if model is None else (p.c.model == model,)
        total = self._remove(p, (p.c.at < before, *whose), by, told)
        if feedback:
            whose = () if model is None else (f.c.model == model,)
            self._remove(f, (f.c.at < before, *whose), by, told)
        return total

    def forget(self, ids: Iterable[str], by: str, reason: str = "") -> int:
        """Deletes these predictions, their shadows and what was said about them (a person asked for it); how many predictions."""
        p, f = tables().predictions, tables().feedback
        wanted, total = list(ids), 0
        for i in range(0, len(wanted), 500):
            some = wanted[i:i + 500]
            told = {"reason": reason, "asked": len(some)}
            total += self._remove(p, (p.c.id.in_(some) | p.c.of.in_(some),), by, told)
            self._remove(f, (f.c.prediction.in_(some),), by, told)
        return total

    def _remove(self, table: Any, conditions: tuple[Any, ...], by: str, told: dict[str, Any]) -> int:
        from sqlalchemy import select

        total, removed = 0, Removed()
        query = select(table.c.id, table.c.audit).where(*conditions).order_by(table.c.audit).limit(2_000)
        while True:
            with self._database.writing() as transaction:
                rows = transaction.connection.execute(query).all()
                if not rows:
                    return total
                _thin(transaction, table, by_number((r[0], r[1]) for r in rows), by, told, removed.read(transaction.connection, transaction.seq))
                total += len(rows)
            time.sleep(0.02)  # SQLite has no queue: whoever waits for the lock gets it only if it is free for a moment


def _thin(transaction: Transaction, table: Any, touched: dict[int, list[Any]], by: str, told: dict[str, Any], removed: Removed) -> None:
    """Takes these rows out of these batches, and says in the audit log what is left of them."""
    connection = transaction.connection
    audit = tables().audit
    details = {r.seq: r for r in connection.execute(audit.select().where(audit.c.seq.in_(list(touched))))}
    written = {seq: unpack(row.detail) for seq, row in details.items() if row.action == "write"}
    sizes = {seq: detail["predictions"] + detail["feedback"] for seq, detail in written.items()}
    before = states(connection, sizes)
    for seq in touched:
        if seq not in written or before.get(seq) != removed.expected(seq, written[seq]):
            raise InputError("Rows written with row {seq} of the audit log were changed past the service, so nothing of them is deleted. See: assay audit verify", seq=seq)
    ids = [key for keys in touched.values() for key in keys]
    connection.execute(table.delete().where(table.c.id.in_(ids)))
    after = states(connection, sizes)
    left = {str(seq): list(after[seq]) for seq in touched if seq in after}
    emptied = [seq for seq in touched if seq not in after]
    transaction.audit(by, "expire", told | {table.name: len(ids), "emptied": spans(emptied), "left": left})


def _of(query: Select[Any], model: str, version: int | None, arm: str | None) -> Select[Any]:
    p = tables().predictions
    query = query.where(p.c.model == model)
    if version is not None:
        query = query.where(p.c.version == version)
    return query if arm is None else query.where(p.c.arm == arm)


def _along(query: Select[Any], table: Any, index: str) -> Select[Any]:
    """MariaDB would begin at the model's first row for every page; told which index, it begins where the page does."""
    return query.with_hint(table, f"FORCE INDEX ({index})", "mysql").with_hint(table, f"FORCE INDEX ({index})", "mariadb")


def _settled(connection: Connection, model: str, ids: list[str]) -> set[str]:
    """Those of these predictions that have a label or were accepted."""
    from sqlalchemy import or_, select

    f = tables().feedback
    return set(connection.execute(select(f.c.prediction).where(
        f.c.prediction.in_(ids), f.c.model == model, or_(f.c.label.isnot(None), f.c.kind.in_(("accept", "edit"))))).scalars()) if ids else set()


def _last_labels(model: str) -> Select[Any]:
    """Labels for which no later one was given."""
    from sqlalchemy import exists

    f = tables().feedback
    later = f.alias()
    return f.select().where(f.c.model == model, f.c.prediction.isnot(None), f.c.label.isnot(None), ~exists().where(
        later.c.prediction == f.c.prediction, later.c.id > f.c.id, later.c.label.isnot(None), later.c.model == f.c.model))
