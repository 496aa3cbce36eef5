"""What people say about answers, and the replies they settle."""

from __future__ import annotations

from collections.abc import Iterator

from assay.errors import InputError
from assay.store.batches import feedback_of
from assay.store.database import Database
from assay.store.packing import plain
from assay.store.predictions import PAGE
from assay.store.records import Draft, Feedback
from assay.store.tables import tables
from assay.words import Text, say


class Feedbacks:
    """Written by `Store.write` or `Writer.submit`; kept whether or not its prediction is there (yet)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, model: str, limit: int = 100) -> list[Feedback]:
        """The newest first."""
        f = tables().feedback
        with self._database.reading() as connection:
            return [feedback_of(row) for row in connection.execute(f.select().where(f.c.model == model).order_by(f.c.id.desc()).limit(limit))]

    def since(self, model: str, at: float) -> Iterator[Feedback]:
        """All from that time on, in the order they were written."""
        f = tables().feedback
        query = f.select().where(f.c.model == model, f.c.at >= at).order_by(f.c.id).limit(PAGE)
        after = 0
        while True:
            with self._database.reading() as connection:
                page = connection.execute(query.where(f.c.id > after)).all()
            yield from map(feedback_of, page)
            if len(page) < PAGE:
                return
            after = page[-1].id

    def get_label(self, prediction_id: str) -> Feedback | None:
        """The last label given for a prediction."""
        f = tables().feedback
        query = f.select().where(f.c.prediction == prediction_id, f.c.label.isnot(None)).order_by(f.c.id.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else feedback_of(row)

    def remark(self, feedback: Feedback) -> Text | None:
        """What whoever gave it should know: None, or that its prediction is not in the store (for this model). It is kept all the same."""
        if feedback.prediction is None:
            return None
        p = tables().predictions
        with self._database.reading() as connection:
            known = connection.execute(p.select().with_only_columns(p.c.id).where(p.c.id == feedback.prediction, p.c.model == feedback.model)).first()
        if known is not None:
            return None
        if feedback.row is not None:
            return say("No prediction of the model '{model}' has the id '{id}' in the store; the label is kept with the row that came with it.", model=feedback.model, id=feedback.prediction[:40])
        return say("No prediction of the model '{model}' has the id '{id}' in the store: the label is kept and joins it if it arrives; send the row along to have it used anyway.",
                   model=feedback.model, id=feedback.prediction[:40])


class Drafts:
    """Replies that wait for a person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, draft: Draft) -> None:
        values = {"id": plain(draft.id, 40, "id"), "at": float(draft.at), "model": plain(draft.model, 64, "model"), "asked": _text(draft.asked), "draft": _text(draft.draft),
                  "final": None if draft.final is None else _text(draft.final), "status": plain(draft.status, 12, "status"), "actor": plain(draft.actor, 64, "actor")}
        with self._database.writing() as transaction:
            transaction.connection.execute(tables().drafts.insert(), [values])

    def get(self, id: str) -> Draft | None:
        d = tables().drafts
        with self._database.reading() as connection:
            row = connection.execute(d.select().where(d.c.id == id)).first()
        return None if row is None else Draft(*row)

    def open(self, model: str, limit: int = 100) -> list[Draft]:
        """Those that nobody has settled, the oldest first."""
        d = tables().drafts
        with self._database.reading() as connection:
            return [Draft(*row) for row in connection.execute(d.select().where(d.c.model == model, d.c.status == "open").order_by(d.c.at, d.c.id).limit(limit))]

    def settled(self, model: str, limit: int = 3) -> list[Draft]:
        """Those that a person has accepted or edited, the newest last."""
        d = tables().drafts
        query = d.select().where(d.c.model == model, d.c.status.in_(("accepted", "edited"))).order_by(d.c.at.desc(), d.c.id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [Draft(*row) for row in connection.execute(query)][::-1]

    def settle(self, id: str, status: str, final: str | None, actor: str) -> Draft:
        """status: accepted, edited or rejected. Only an open draft can be settled. Raises InputError."""
        d = tables().drafts
        if status not in ("accepted", "edited", "rejected"):
            raise InputError("A draft is accepted, edited or rejected, not '{status}'.", status=status[:40])
        with self._database.writing() as transaction:
            row = transaction.connection.execute(d.select().where(d.c.id == id)).first()
            if row is None:
                raise InputError("No draft has the id '{id}'.", id=id[:40])
            if row.status != "open":
                raise InputError("The draft '{id}' is {status} already.", id=id[:40], status=row.status)
            kept = row.draft if final is None and status == "accepted" else None if final is None else _text(final)
            transaction.connection.execute(d.update().where(d.c.id == id).values(status=status, final=kept, actor=plain(actor, 64, "actor")))
            transaction.audit(actor, f"draft {status}", {"draft": row.id, "model": row.model})
        return Draft(row.id, row.at, row.model, row.asked, row.draft, kept, status, actor)

    def expire(self, before: float, by: str = "service") -> int:
        """Deletes those of before that time, settled or not; how many."""
        d = tables().drafts
        with self._database.writing() as transaction:
            n = transaction.connection.execute(d.delete().where(d.c.at < before)).rowcount
            if n:
                transaction.audit(by, "drafts expired", {"drafts": n, "before": before})
        return n


def _text(text: str) -> str:
    return plain(text, 1_000_000, "text")
