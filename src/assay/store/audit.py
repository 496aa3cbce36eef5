"""The audit log: rows that nobody changes, each with the hash of the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from assay.errors import InputError
from assay.store.database import Database
from assay.store.packing import unpack
from assay.store.records import AuditRow
from assay.store.tables import tables
from assay.store.verify import Anchor, Verified, verify


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, actor: str, action: str, detail: dict[str, Any]) -> AuditRow:
        """One more row. No secrets and no personal data in `detail`: it is never deleted. 'write' and 'expire' are the store's own."""
        if action in ("write", "expire"):
            raise InputError("'{action}' is an action of the store itself; call it otherwise.", action=action)
        with self._database.writing() as transaction:
            previous = transaction.hash
            seq = transaction.audit(actor, action, detail)
            return AuditRow(seq, transaction.at, actor, action, detail, previous, transaction.hash)

    def rows(self, limit: int = 100, before: int | None = None) -> list[AuditRow]:
        """The newest first; before: a number of a row."""
        audit = tables().audit
        query = audit.select().order_by(audit.c.seq.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.seq < before)
        with self._database.reading() as connection:
            return [AuditRow(r.seq, r.at, r.actor, r.action, unpack(r.detail), r.previous, r.hash) for r in connection.execute(query)]

    def since(self, at: float) -> Iterator[AuditRow]:
        """Newest first, down to that time, a page at a time."""
        before = None
        while page := self.rows(500, before):
            for row in page:
                if row.at < at:
                    return
                yield row
            before = page[-1].seq

    def anchor(self) -> Anchor:
        """Where the chain ends now: kept elsewhere, it proves later that nothing before it was rewritten or cut off."""
        with self._database.reading() as connection:
            head = connection.execute(tables().head.select()).one()
            return Anchor(head.seq, head.hash)

    def verify(self, anchor: Anchor | None = None) -> Verified:
        return verify(self._database, anchor)
