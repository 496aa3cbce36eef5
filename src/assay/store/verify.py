"""Is the audit log what was written? Every link is computed again, and with it the digests of the predictions and feedback that are still there.

What this finds: a row that was changed, taken out, put in or swapped; rows missing at the end as long as `head` still knows of them; predictions and
feedback that were changed, deleted or added past the service. What no chain can prove alone: whoever may write to every table can compute a whole new
chain. An anchor kept elsewhere (`assay audit anchor`) shows that, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assay.errors import InputError
from assay.store.batches import NOTHING, Removed, State, states
from assay.store.database import Database
from assay.store.packing import GENESIS, link, unpack
from assay.store.tables import tables
from assay.words import Text, say

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE = 500


@dataclass(frozen=True)
class Anchor:
    """The end of a chain at some moment, written `seq:hash`."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def of(cls, text: str) -> Anchor:
        found = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", text.strip())
        if not found:
            raise InputError("'{text}' is no anchor. Give the line that assay audit anchor printed: a number, a colon and 64 hexadecimal digits.", text=text[:80])
        return cls(int(found[1]), found[2])


@dataclass(frozen=True)
class Verified:
    """rows: links that were checked. first_broken: the number of the first that does not hold, None where all do; reason: why."""

    rows: int
    first_broken: int | None = None
    reason: Text | None = None

    def __bool__(self) -> bool:
        return self.first_broken is None


def verify(database: Database, anchor: Anchor | None = None) -> Verified:
    """Checks up to the end of the chain as it is now, a page at a time; writers go on meanwhile."""
    audit, head = tables().audit, tables().head
    with database.reading() as connection:
        end = connection.execute(head.select()).one()
        removed = Removed().read(connection, end.seq)
    seq, previous = 0, GENESIS
    anchored = anchor is None
    while seq < end.seq:
        with database.reading() as connection:
            page = connection.execute(audit.select().where(audit.c.seq > seq, audit.c.seq <= end.seq).order_by(audit.c.seq).limit(_PAGE)).all()
            reason = None
            links, sizes, before = seq, {}, previous
            for row in page:
                reason = _broken(row, links, before)
                if reason is not None:
                    break
                links, before = row.seq, row.hash
                sizes[row.seq] = _written(row)
            there = states(connection, sizes)
        for row in page[:len(sizes)]:
            if anchor is not None and anchor.seq == row.seq:
                anchored = anchor.hash == row.hash
                if not anchored:
                    return Verified(seq, row.seq, say("The chain was written anew: its row {seq} is not the one of the anchor.", seq=row.seq))
            changed = _rows_of(row, there.pop(row.seq, NOTHING), removed)
            if changed is not None and not _whole_now(database, row):
                return Verified(seq, row.seq, changed)
            seq, previous = row.seq, row.hash
        if reason is not None:
            return Verified(seq, seq + 1, reason)
        if len(page) < _PAGE:
            break
    if seq < end.seq or previous != end.hash:
        return Verified(seq, seq + 1, say("The chain ends at row {seq}, but row {last} was written: its end was cut off.", seq=seq, last=end.seq))
    if not anchored and anchor is not None:
        return Verified(seq, seq + 1, say("The chain ends at row {seq}, but the anchor names row {last}: its end was cut off.", seq=seq, last=anchor.seq))
    return _tail(database, seq)


def _broken(row: Any, seq: int, previous: str) -> Text | None:
    if row.seq != seq + 1:
        return say("Row {missing} of the audit log is missing.", missing=seq + 1)
    if row.previous != previous:
        return say("Row {seq} of the audit log does not follow the row before it.", seq=row.seq)
    if link(previous, row.seq, row.at, row.actor, row.action, row.detail) != row.hash:
        return say("Row {seq} of the audit log was changed.", seq=row.seq)
    return None


def _rows_of(row: Any, there: State, removed: Removed) -> Text | None:
    """Why the predictions and feedback of an audit row are not those that it vouches for, or None."""
    if row.action != "write":
        return None if there == NOTHING else say("{n} predictions or labels name row {seq} of the audit log, which wrote none.", n=there.predictions + there.feedback, seq=row.seq)
    wanted = removed.expected(row.seq, unpack(row.detail))
    if there == wanted:
        return None
    if (there.predictions, there.feedback) != (wanted.predictions, wanted.feedback):
        return say("Of the rows written with row {seq} of the audit log, {predictions} predictions and {feedback} labels should be there; {found_predictions} and {found_feedback} are.",
                   seq=row.seq, predictions=wanted.predictions, feedback=wanted.feedback, found_predictions=there.predictions, found_feedback=there.feedback)
    return say("A prediction or label written with row {seq} of the audit log was changed.", seq=row.seq)


def _written(row: Any) -> int:
    """How many rows an audit row was written with. Asked of rows whose hash holds only: those are the store's own."""
    if row.action != "write":
        return 0
    detail = unpack(row.detail)
    return int(detail["predictions"] + detail["feedback"])


def _whole_now(database: Database, row: Any) -> bool:
    """The same question while nobody writes: retention may have taken rows between the pages."""
    with database.writing() as transaction:
        removed = Removed().read(transaction.connection, transaction.seq)
        return _rows_of(row, states(transaction.connection, {row.seq: _written(row)}).get(row.seq, NOTHING), removed) is None


def _tail(database: Database, seq: int) -> Verified:
    """Rows of the chain or of the tables that are newer than its end: asked before the end is, so that a writer between the two questions is no alarm."""
    with database.reading() as connection:
        newest = _newest(connection)
        last = connection.execute(tables().head.select()).one().seq
    if newest > last:
        return Verified(seq, last + 1, say("There are rows after row {seq}, where the chain ends: they were put in past the service.", seq=last))
    return Verified(seq)


def _newest(connection: Connection) -> int:
    from sqlalchemy import func, select

    return max(connection.execute(select(func.max(column))).scalar() or 0 for column in (
        tables().audit.c.seq, tables().predictions.c.audit, tables().feedback.c.audit))
