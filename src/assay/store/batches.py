"""What one `write` put in: the rows that carry the number of one audit row, and the digest of them that the audit row holds."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from assay.store.packing import digest, finite, pack, pack_row, plain, unpack
from assay.store.records import Feedback, Prediction, Traffic
from assay.store.tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

MOST = 5_000  # rows that share one audit row, so that whoever verifies holds no more
PREDICTION = ("id", "at", "model", "version", "arm", "of", "row", "answer", "doubt", "ms", "actor")
FEEDBACK = ("id", "at", "model", "prediction", "kind", "label", "row", "source", "actor", "note")


def prediction_cells(p: Prediction) -> tuple[Any, ...]:
    return (plain(p.id, 40, "id"), float(p.at), plain(p.model, 64, "model"), int(p.version), plain(p.arm, 12, "arm"), None if p.of is None else plain(p.of, 40, "id"),
            _text(p.row), _text(p.answer) or "null", finite(p.doubt), finite(p.ms) or 0.0, plain(p.actor, 64, "actor"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else pack_row(value)  # a text is packed already


def feedback_cells(f: Feedback) -> tuple[Any, ...]:
    """All but the number, which the transaction gives."""
    return (float(f.at), plain(f.model, 64, "model"), None if f.prediction is None else plain(f.prediction, 40, "id"), plain(f.kind, 12, "kind"), pack(f.label),
            pack(f.row), plain(f.source, 12, "source"), plain(f.actor, 64, "actor"), None if f.note is None else plain(f.note, 1_000_000, "note"))


def prediction_of(row: Any) -> Prediction:
    return Prediction(row.id, row.at, row.model, row.version, unpack(row.answer), unpack(row.row), row.arm, row.of, row.doubt, row.ms, row.actor)


def feedback_of(row: Any) -> Feedback:
    return Feedback(row.model, row.kind, row.prediction, unpack(row.label), unpack(row.row), row.source, row.actor, row.note, row.at, row.id)


class Cells(NamedTuple):
    """What one write puts in, as it stands in the tables: plain numbers and texts, that another process may write."""

    predictions: Sequence[Sequence[Any]]
    feedback: Sequence[Sequence[Any]]  # without their numbers
    traffic: list[Traffic]

    @classmethod
    def of(cls, predictions: Sequence[Prediction], feedback: Sequence[Feedback], traffic: Sequence[Traffic]) -> Cells:
        """Raises RowError."""
        return cls([prediction_cells(p) for p in predictions], [feedback_cells(f) for f in feedback], list(traffic))


class State(NamedTuple):
    """How many rows a batch has, and their digest: of the predictions by id, then of the feedback by number."""

    predictions: int
    feedback: int
    sha256: str


def state(predictions: Iterable[Sequence[Any]], feedback: Iterable[Sequence[Any]]) -> State:
    ours, theirs = (sorted(rows, key=lambda r: (type(r[0]).__name__, r[0])) for rows in (predictions, feedback))
    return State(len(ours), len(theirs), digest([*ours, *theirs]))


NOTHING = state((), ())


def states(connection: Connection, sizes: Mapping[int, int]) -> dict[int, State]:
    """Some batches as they stand in the tables now; those without rows are missing.

    sizes: {audit row: how many rows it wrote}. As many batches are asked for at once as make a few thousand rows, without an order: given one, MariaDB sorts
    all that is to come for every page.
    """
    out: dict[int, State] = {}
    for run in _runs(sizes):
        ours, theirs = (_grouped(connection, table, names, run) for table, names in ((tables().predictions, PREDICTION), (tables().feedback, FEEDBACK)))
        out |= {seq: state(ours.get(seq, ()), theirs.get(seq, ())) for seq in ours.keys() | theirs.keys()}
    return out


def _runs(sizes: Mapping[int, int]) -> Iterator[list[int]]:
    run: list[int] = []
    rows = 0
    for seq in sorted(sizes):
        if run and (rows + sizes[seq] > MOST or len(run) == 500):
            yield run
            run, rows = [], 0
        run.append(seq)
        rows += sizes[seq]
    if run:
        yield run


def _grouped(connection: Connection, table: Table, names: tuple[str, ...], run: list[int]) -> dict[int, list[tuple[Any, ...]]]:
    from sqlalchemy import select

    c = table.c
    several = c.audit.in_(run) if run[-1] - run[0] >= len(run) else c.audit.between(run[0], run[-1])
    out: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in connection.execute(select(*(c[name] for name in names), c.audit).where(several)):
        out[row[-1]].append(tuple(row[:-1]))
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


def spans(numbers: Iterable[int]) -> list[list[int]]:
    """[1, 2, 3, 7] as [[1, 3], [7, 7]]."""
    return _merged([[n, n] for n in numbers])


def _merged(parts: list[list[int]]) -> list[list[int]]:
    out: list[list[int]] = []
    for a, b in sorted(parts):
        if out and a <= out[-1][1] + 1:
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
