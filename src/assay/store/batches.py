"""What one `write` put in: the rows that carry the number of one audit row, and the digest of them that the audit row holds."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from assay.store.packing import digest, finite, pack, plain, unpack
from assay.store.records import Feedback, Prediction
from assay.store.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

MOST = 5_000  # rows that share one audit row, so that whoever verifies holds no more
PREDICTION = ("id", "at", "model", "version", "arm", "of", "row", "answer", "doubt", "ms", "actor")
FEEDBACK = ("id", "at", "model", "prediction", "kind", "label", "row", "source", "actor", "note")
_PAGE = 2_000


def prediction_cells(p: Prediction) -> tuple[Any, ...]:
    return (plain(p.id, 40, "id"), float(p.at), plain(p.model, 64, "model"), int(p.version), plain(p.arm, 12, "arm"), None if p.of is None else plain(p.of, 40, "id"),
            pack(p.row), pack(p.answer) or "null", finite(p.doubt), finite(p.ms) or 0.0, plain(p.actor, 64, "actor"))


def feedback_cells(f: Feedback, number: int) -> tuple[Any, ...]:
    return (number, float(f.at), plain(f.model, 64, "model"), None if f.prediction is None else plain(f.prediction, 40, "id"), plain(f.kind, 12, "kind"), pack(f.label),
            pack(f.row), plain(f.source, 12, "source"), plain(f.actor, 64, "actor"), None if f.note is None else plain(f.note, 1_000_000, "note"))


def prediction_of(row: Any) -> Prediction:
    return Prediction(row.id, row.at, row.model, row.version, unpack(row.answer), unpack(row.row), row.arm, row.of, row.doubt, row.ms, row.actor)


def feedback_of(row: Any) -> Feedback:
    return Feedback(row.model, row.kind, row.prediction, unpack(row.label), unpack(row.row), row.source, row.actor, row.note, row.at, row.id)


class State(NamedTuple):
    """How many rows a batch has, and their digest: of the predictions by id, then of the feedback by number."""

    predictions: int
    feedback: int
    sha256: str


def state(predictions: Iterable[Sequence[Any]], feedback: Iterable[Sequence[Any]]) -> State:
    ours, theirs = (sorted(rows, key=lambda r: (type(r[0]).__name__, r[0])) for rows in (predictions, feedback))
    return State(len(ours), len(theirs), digest([*ours, *theirs]))


NOTHING = state((), ())


def states(connection: Connection, first: int, last: int) -> dict[int, State]:
    """The batches with the numbers first to last as they stand in the tables now; those without rows are missing.

    Reads page by page, so that it holds the rows of one batch at a time.
    """
    out: dict[int, State] = {}
    feedback = _batches(connection, tables().feedback, FEEDBACK, first, last)
    waiting = next(feedback, None)
    for seq, ours in _batches(connection, tables().predictions, PREDICTION, first, last):
        while waiting is not None and waiting[0] < seq:
            out[waiting[0]] = state((), waiting[1])
            waiting = next(feedback, None)
        theirs: list[Any] = []
        if waiting is not None and waiting[0] == seq:
            theirs, waiting = waiting[1], next(feedback, None)
        out[seq] = state(ours, theirs)
    while waiting is not None:
        out[waiting[0]] = state((), waiting[1])
        waiting = next(feedback, None)
    return out


def _batches(connection: Connection, table: Table, columns: tuple[str, ...], first: int, last: int) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    from sqlalchemy import and_, or_, select

    c = table.c
    query = select(*(c[name] for name in columns), c.audit).where(c.audit >= first, c.audit <= last).order_by(c.audit, c.id).limit(_PAGE)
    seq: int | None = None
    held: list[tuple[Any, ...]] = []
    page = connection.execute(query).all()
    while page:
        for row in page:
            if row[-1] != seq:
                if seq is not None:
                    yield seq, held
                seq, held = row[-1], []
            held.append(tuple(row[:-1]))
        end = page[-1]
        page = connection.execute(query.where(or_(c.audit > end[-1], and_(c.audit == end[-1], c.id > end[0])))).all() if len(page) == _PAGE else []
    if seq is not None:
        yield seq, held


def states_of(connection: Connection, seqs: Iterable[int]) -> dict[int, State]:
    """Those of some batches only: neighbours are asked for together."""
    out: dict[int, State] = {}
    for first, last in spans(seqs, apart=20):
        out |= states(connection, first, last)
    return out


@dataclass
class Removed:
    """What was taken out of batches by retention, as its audit rows say: so a batch that is smaller than it was written may still be whole."""

    left: dict[int, State] = field(default_factory=dict)
    emptied: list[list[int]] = field(default_factory=list)
    read_to: int = 0

    def read(self, connection: Connection, until: int) -> Removed:
        """Takes in the audit rows up to this one that are new since the last time."""
        audit = tables().audit
        query = audit.select().where(audit.c.action == "expire", audit.c.seq <= until).order_by(audit.c.seq).limit(100)
        found = []
        while page := connection.execute(query.where(audit.c.seq > self.read_to)).all():
            for row in page:
                detail = unpack(row.detail)
                self.left |= {int(seq): State(*rest) for seq, rest in detail.get("left", {}).items()}
                found += detail.get("emptied", [])
            self.read_to = page[-1].seq
        if found:
            self.emptied = _merged(self.emptied + found)
        return self

    def expected(self, seq: int, detail: dict[str, Any]) -> State:
        at = bisect_right(self.emptied, [seq, 1 << 62]) - 1
        if at >= 0 and self.emptied[at][0] <= seq <= self.emptied[at][1]:
            return NOTHING
        return self.left.get(seq) or State(detail["predictions"], detail["feedback"], detail["sha256"])


def spans(numbers: Iterable[int], apart: int = 1) -> list[list[int]]:
    """[1, 2, 3, 7] as [[1, 3], [7, 7]]. apart: how far two numbers of one span may be apart."""
    return _merged([[n, n] for n in numbers], apart)


def _merged(parts: list[list[int]], apart: int = 1) -> list[list[int]]:
    out: list[list[int]] = []
    for a, b in sorted(parts):
        if out and a <= out[-1][1] + apart:
            out[-1][1] = max(b, out[-1][1])
        else:
            out.append([a, b])
    return out


def by_number(rows: Iterable[tuple[Any, int]]) -> dict[int, list[Any]]:
    """(id, audit row) pairs as {audit row: ids}."""
    out: dict[int, list[Any]] = defaultdict(list)
    for key, seq in rows:
        out[seq].append(key)
    return dict(out)
