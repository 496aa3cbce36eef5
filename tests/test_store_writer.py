"""The writer: a receipt means it is on the disk, nothing waits for the disk unasked, and nothing is written twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.errors import BudgetError, EndpointError, InputError, ReadError
from assay.store import Store, Writer
from assay.store.records import Feedback, Prediction, Traffic


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite") as opened:
        yield opened


def answered(i: int, answer: object = "yes") -> Prediction:
    return Prediction(f"p{i}", float(i), "m", 1, {"label": answer})


class Gate:
    """Stands before `store.write`: closed, or failing as told."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.fails, self.calls = threading.Event(), list[Exception](), 0
        self.before = True
        self._write = store.write
        monkeypatch.setattr(store, "write", self)

    def __call__(self, **rows: Any) -> list[int]:
        self.calls += 1
        assert self.open.wait(20)
        if self.fails and self.before:
            raise self.fails.pop(0)
        done = self._write(**rows)
        if self.fails:
            raise self.fails.pop(0)
        return done


def test_a_receipt_means_that_it_is_in_the_file(store: Store) -> None:
    writer = Writer(store)
    number = writer.submit(Feedback("m", label=1)).result(10)
    with Store.open(str(store.shown)) as other:
        assert other.feedback.recent("m")[0].id == number
    assert writer.close()


def test_labels_that_wait_together_share_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    writer = Writer(store)
    first = writer.submit(Feedback("m", label=0))
    while gate.calls == 0:
        time.sleep(0.005)
    rest = [writer.submit(Feedback("m", label=i)) for i in range(1, 50)]
    assert writer.put(answered(1))
    assert not first.done()
    gate.open.set()
    assert [f.result(10) for f in (first, *rest)] == list(range(1, 51))
    assert gate.calls == 2
    assert store.predictions.get("p1") is not None, "a prediction that waits goes with them"
    assert writer.close()


def test_a_full_queue_refuses_at_once_instead_of_waiting(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    writer = Writer(store, max_rows=10, linger_s=0.0)
    begin = time.monotonic()
    taken = sum(writer.put(answered(i)) for i in range(100))
    assert 10 <= taken <= 20, "ten wait, and at most ten are on their way"
    labels = [writer.submit(Feedback("m", label=i)) for i in range(40)]
    refused = [f for f in labels if f.done() and f.exception() is not None]
    assert len(refused) >= 20
    assert isinstance(refused[0].exception(), BudgetError)
    assert time.monotonic() - begin < 2
    gate.open.set()
    assert writer.drain(10)
    assert store.predictions.count("m") == taken
    assert len(store.feedback.recent("m")) == 40 - len(refused)
    assert writer.close()
    assert not writer.put(answered(1000))


def test_a_lost_server_is_tried_again_and_nothing_is_lost_or_written_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    gate.open.set()
    gate.before = False  # the commit was done; its acknowledgement did not come back
    gate.fails = [EndpointError("No database answers at {store}: {reason}. Is it running, and is the address right?", store="x", reason="gone")]
    writer = Writer(store)
    writer.put(answered(1))
    label = writer.submit(Feedback("m", prediction="p1", label=1))
    assert label.result(10) == 1
    gate.before = True
    gate.fails = [BudgetError("The store '{store}' is busy: {reason}.", store="x", reason="locked")] * 2
    again = writer.submit(Feedback("m", prediction="p1", label=2))
    seen = []
    while not again.done():
        seen.append(writer.trouble)
        time.sleep(0.005)
    assert again.result(10) == 2
    assert any("is busy: locked" in str(t) for t in seen)
    assert writer.trouble is None
    assert [f.label for f in store.feedback.recent("m")] == [2, 1]
    assert store.predictions.count("m") == 1
    assert store.audit.verify()
    assert writer.close()


def test_a_row_that_cannot_be_kept_does_not_hold_up_its_neighbours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    writer = Writer(store, linger_s=0.0)
    writer.put(answered(0))
    while gate.calls == 0:
        time.sleep(0.005)
    for i in range(1, 30):
        writer.put(answered(i, object() if i in (7, 23) else "yes"))
    labels = [writer.submit(Feedback("m", prediction=f"p{i}", label=object() if i == 3 else i)) for i in range(6)]
    writer.count(Traffic(1, "m", 0, 1, 0, 0, 1.0, {}))
    gate.open.set()
    assert writer.drain(10)
    assert store.predictions.count("m") == 28
    assert isinstance(labels[3].exception(1), InputError)
    assert [f.label for f in store.feedback.since("m", 0)] == [0, 1, 2, 4, 5]
    assert (writer.refused, writer.written, len(store.traffic.between("m", 0, 1e9))) == (3, 28 + 5 + 1, 1)
    assert writer.submit(Feedback("m", label=1)).result(10) == 6, "and the writer goes on"
    assert store.audit.verify()
    assert writer.close()


def test_a_label_whose_sender_has_gone_before_its_turn_is_not_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    writer = Writer(store)
    first = writer.submit(Feedback("m", label=0))
    while gate.calls == 0:
        time.sleep(0.005)
    gone, stays = writer.submit(Feedback("m", label=1)), writer.submit(Feedback("m", label=2))
    assert gone.cancel()
    gate.open.set()
    assert (first.result(10), stays.result(10)) == (1, 2)
    assert [f.label for f in store.feedback.since("m", 0)] == [0, 2]
    assert writer.close()


def test_predictions_wait_for_company_but_not_for_long(store: Store) -> None:
    writer = Writer(store, linger_s=0.2)
    for i in range(50):
        writer.put(answered(i))
        time.sleep(0.001)
    assert store.predictions.count("m") == 0
    until = time.monotonic() + 5
    while store.predictions.count("m") < 50 and time.monotonic() < until:
        time.sleep(0.02)
    assert store.audit.rows(1)[0].detail["predictions"] == 50
    writer.put(answered(99))
    assert writer.close()
    assert store.predictions.count("m") == 51


def test_closing_gives_up_on_a_store_that_never_comes_back_and_tells_who_waits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    gate.open.set()
    gate.fails = [BudgetError("The store '{store}' is busy: {reason}.", store="x", reason="locked")] * 1000
    writer = Writer(store)
    label = writer.submit(Feedback("m", label=0))
    while writer.trouble is None:
        time.sleep(0.005)
    later = writer.submit(Feedback("m", label=1))
    assert not writer.close(0.3)
    assert "is busy" in str(label.exception(5))
    assert "ended before this label was written" in str(later.exception(5))
    assert writer.submit(Feedback("m", label=2)).exception(1) is not None


def test_a_damaged_store_is_no_reason_to_throw_rows_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(store, monkeypatch)
    gate.open.set()
    gate.fails = [ReadError("'{store}' is damaged, or no store: {reason}. Put a backup in its place.", store="x", reason="malformed")]
    writer = Writer(store)
    labels = [writer.submit(Feedback("m", label=i)) for i in range(3)]
    assert [done.result(10) for done in labels] == [1, 2, 3]
    assert writer.refused == 0
    assert writer.close()
