"""A thread that writes for a service that must not wait: predictions in the background, feedback with a receipt.

Rows that arrive while one transaction is being written go into the next one together (group commit). A full disk, a lock or a lost server keeps the queue:
the same rows are tried again, and `trouble` says why. A row that the store refuses for itself is left out alone, its neighbours are written.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from assay.errors import AssayError, BudgetError
from assay.store.packing import RowError
from assay.store.records import Feedback, Prediction, Traffic, new_id
from assay.words import Text, say

_MOST = 2_000  # predictions of one transaction: more are not quicker, and the others wait for it
_MOST_BYTES = 32 << 20  # of one transaction
_HELD_BYTES = 256 << 20  # that may wait, as far as the last ones tell
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds before the next try; the last one again and again


class Writes(Protocol):
    """A `Store`, or a `Scribe` that writes for one."""

    def held(self, prediction: Prediction) -> Any:
        """As it waits in a queue, and `write` takes it. Raises RowError."""

    def write(self, *, predictions: Sequence[Any] = (), feedback: Sequence[Feedback] = (), traffic: Sequence[Traffic] = (), token: str | None = None) -> list[int]: ...

    def written(self, token: str, since: float) -> list[int] | None: ...

    def close(self) -> None: ...


@dataclass
class _Batch:
    """What one transaction takes. It stays as it is until it is known to be written, so that a token finds it."""

    predictions: list[Any] = field(default_factory=list)  # as `held` gave them
    feedback: list[tuple[Feedback, Future[int]]] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    token: str = field(default_factory=new_id)
    begun: float = field(default_factory=time.time)
    doubtful: bool = False  # a try has failed in a way that does not tell whether it was written

    def __len__(self) -> int:
        return len(self.predictions) + len(self.feedback) + len(self.traffic)

    def halves(self) -> tuple[_Batch, _Batch]:
        cut = [(len(rows) + 1) // 2 for rows in (self.predictions, self.feedback, self.traffic)]
        if len(self) > 1 and cut == [len(self.predictions), len(self.feedback), len(self.traffic)]:  # one of each kind
            cut = [len(self.predictions), 0, 0] if self.predictions else [0, len(self.feedback), 0]
        p, f, t = cut
        return (_Batch(self.predictions[:p], self.feedback[:f], self.traffic[:t]), _Batch(self.predictions[p:], self.feedback[f:], self.traffic[t:]))


class Writer:
    """max_rows: how many predictions, and how many labels, may wait; fewer of them if they are large. linger_s: predictions wait this long for company unless a label waits, too: each transaction costs a sync
    of the disk and an audit row, and at most this much is lost if the process is killed. A label is on the disk when its future is done.
    """

    def __init__(self, store: Writes, max_rows: int = 10_000, linger_s: float = 0.25, kept: Callable[[Feedback], None] = lambda feedback: None, *, owns: bool = False) -> None:
        """kept: called on the writer's thread for each label that is on the disk. owns: the store is closed with the writer."""
        self._owns = owns
        self._store, self._max, self._linger, self._kept = store, max_rows, linger_s, kept
        self._predictions: deque[Any] = deque()
        self._feedback: deque[tuple[Feedback, Future[int]]] = deque()
        self._traffic: deque[Traffic] = deque()
        self._batch: _Batch | None = None
        self._wake = threading.Condition()
        self._hurry = False
        self._asleep = False
        self._closed = False
        self._fit = max_rows  # rows like the last ones that may wait
        self._trouble: Text | None = None
        self.written = 0
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name="assay-writer", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> Text | None:
        """Why nothing can be written at the moment, or which row was refused last; None where all is well."""
        return self._trouble

    @property
    def waiting(self) -> int:
        """Rows that are not on the disk yet."""
        batch = self._batch
        return len(self._predictions) + len(self._feedback) + len(self._traffic) + (len(batch) if batch else 0)

    @property
    def room(self) -> bool:
        """Whether `put` takes one more."""
        return len(self._predictions) < self._fit and not self._closed

    def put(self, prediction: Prediction) -> bool:
        """False where the queue is full: then answer 'later' instead of forgetting. Never blocks for the disk."""
        if not self.room:
            return False
        try:
            self._predictions.append(self._store.held(prediction))
        except RowError as error:
            self.refused += 1
            self._trouble = _not_kept(error)
            return True
        if self._asleep or len(self._predictions) == _MOST:  # asked after appending: the thread says that it sleeps before it looks for the last time
            with self._wake:
                self._wake.notify_all()
        return True

    def submit(self, feedback: Feedback) -> Future[int]:
        """Its number, once it is on the disk. The future fails with a BudgetError where the queue is full, with an InputError where the row cannot be kept.

        A future that is cancelled before its first try is not written; later, it is.
        """
        done: Future[int] = Future()
        with self._wake:
            if self._closed or len(self._feedback) >= self._max:
                done.set_exception(BudgetError("{n} labels wait for the store already; send this one again later.", n=len(self._feedback)))
            else:
                self._feedback.append((feedback, done))
                self._wake.notify_all()
        return done

    def count(self, traffic: Traffic) -> bool:
        """Counts to add to a minute; False where the queue is full."""
        with self._wake:
            if self._closed or len(self._traffic) >= self._max:
                return False
            self._traffic.append(traffic)
            self._wake.notify_all()
        return True

    def drain(self, timeout_s: float = 10.0) -> bool:
        """Writes all that waits now, without lingering; whether all of it is on the disk."""
        until = time.monotonic() + timeout_s
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            while self.waiting and self._thread.is_alive():
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._wake.wait(min(left, 0.1))
            self._hurry = False
            return not self.waiting

    def close(self, timeout_s: float = 10.0) -> bool:
        """Drains, then ends the thread; whether all is on the disk."""
        done = self.drain(timeout_s)
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout_s)
        if self._owns:
            self._store.close()
        return done

    # ---- the thread

    def _run(self) -> None:
        while True:
            with self._wake:
                batch = self._taken()
                if batch is None:
                    return _failed(_Batch(feedback=[(f, done) for f, done in self._feedback if done.set_running_or_notify_cancel()]), _closed())
                self._batch = batch
            self._finish(batch)
            with self._wake:
                self._batch = None
                self._wake.notify_all()

    def _taken(self) -> _Batch | None:
        """The next rows; waits for them. None at the end."""
        since = None
        while not self._closed:
            now = time.monotonic()
            if self._feedback or (self._predictions and (self._hurry or len(self._predictions) >= _MOST)) or (self._traffic and self._hurry):
                break
            if self._predictions or self._traffic:
                since = now if since is None else since
                if now - since >= self._linger:
                    break
                self._wake.wait(self._linger - (now - since))
            else:
                since = None
                self._asleep = True
                if not self._predictions:
                    self._wake.wait()
                self._asleep = False
        if self._closed:
            return None
        batch = _Batch(_popped(self._predictions), [(f, done) for f, done in _popped(self._feedback) if done.set_running_or_notify_cancel()], _popped(self._traffic))
        if batch.predictions:
            self._fit = min(self._max, max(16, _HELD_BYTES * len(batch.predictions) // max(1, sum(map(_size, batch.predictions)))))
        return batch

    def _finish(self, batch: _Batch) -> None:
        """Until it is written, or refused row by row, or the writer is closed."""
        for tries in range(1 << 62):
            try:
                ids = self._store.written(batch.token, batch.begun) if batch.doubtful else None
                if ids is None:
                    ids = self._store.write(predictions=batch.predictions, feedback=[f for f, _ in batch.feedback], traffic=batch.traffic, token=batch.token) if len(batch) else []
            except (AssayError, OSError, MemoryError) as error:
                if isinstance(error, RowError):
                    return self._part(batch, error)
                self._trouble = say("The store cannot be written at the moment, {n} rows wait: {reason}", n=self.waiting, reason=error.text if isinstance(error, AssayError) else str(error) or type(error).__name__)
                batch.doubtful = bool(batch.predictions or batch.feedback)
                if not self._paused(_PAUSES[min(tries, len(_PAUSES) - 1)]):
                    return _failed(batch, error)
                continue
            except Exception as error:
                return self._part(batch, error)
            self._trouble = None
            self.written += len(batch)
            for (feedback, done), number in zip(batch.feedback, ids, strict=True):
                done.set_result(number)
                self._kept(feedback)
            return None

    def _part(self, batch: _Batch, error: Exception) -> None:
        """The store refuses a row for what it is: found by halves, so that its neighbours are kept."""
        if len(batch) > 1:
            for half in batch.halves():
                if len(half):
                    self._finish(half)
            return
        self.refused += len(batch)
        _failed(batch, error)
        self._trouble = _not_kept(error)

    def _paused(self, seconds: float) -> bool:
        """False where the writer was closed meanwhile."""
        until = time.monotonic() + seconds
        with self._wake:
            while not self._closed and (left := until - time.monotonic()) > 0:
                self._wake.wait(left)
            return not self._closed


def _popped(rows: deque[Any]) -> list[Any]:
    out: list[Any] = []
    size = 0
    while rows and len(out) < _MOST and size < _MOST_BYTES:
        out.append(rows.popleft())
        size += _size(out[-1])
    return out


def _size(held: Any) -> int:
    """Bytes of a prediction that waits for another process; others are small, or a test's."""
    return len(held) if type(held) is bytes else 0


def _not_kept(error: Exception) -> Text:
    return say("A row was not kept: {reason}", reason=error.text if isinstance(error, AssayError) else type(error).__name__)


def _closed() -> BudgetError:
    return BudgetError("The service ended before this label was written; send it again.")


def _failed(batch: _Batch, error: Exception) -> None:
    for _, done in batch.feedback:
        done.set_exception(error)
