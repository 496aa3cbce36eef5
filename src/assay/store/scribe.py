"""Writes to the store from a process of their own, so that a service which answers does not share Python's lock with them.

One write at a time goes over a pipe, as cells, and comes back as numbers or as an error. The process ends when the pipe does: if the service is killed,
what it had sent whole is still written. If this process is killed, the next write starts another one; whether the one under way was done, its token tells
(`Writer` asks). Measured with bench/serve.py, see docs/benchmarks.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from msgspec.structs import replace

from assay.errors import AssayError, BudgetError, EndpointError, InputError, MissingExtra, ReadError
from assay.store.batches import Cells, feedback_cells, prediction_cells
from assay.store.packing import RowError, encode_other, pack_row
from assay.words import Text, say

if TYPE_CHECKING:
    from assay.store.records import Feedback, Prediction, Traffic
    from assay.store.store import Store

log = logging.getLogger("assay.service")
_encode = msgspec.msgpack.Encoder(enc_hook=encode_other).encode
_ARRAY = struct.Struct(">BI")  # how a list begins in MessagePack
_ERRORS: dict[str, type[AssayError]] = {c.__name__: c for c in (AssayError, RowError, BudgetError, EndpointError, InputError, ReadError, MissingExtra)}
_LENGTH = struct.Struct("<Q")
END_S = 20.0  # a write under way may take so long when the service ends


class Scribe:
    """`write` and `written` of a `Store`, done elsewhere. place: as `Store.open` takes it; the store has to be there already, or `opened` makes it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()  # it imports and connects while its caller does other things

    def held(self, prediction: Prediction) -> bytes:
        """As it waits and as it is sent: a quarter of the memory of the objects, and nothing is left to do for the thread that sends. Raises RowError."""
        try:
            return _encode(prediction)
        except (TypeError, ValueError, OverflowError, RecursionError):  # half a surrogate, an integer of more than 64 bits
            return _encode(replace(prediction, row=pack_row(prediction.row), answer=pack_row(prediction.answer)))

    def write(self, *, predictions: Sequence[bytes] = (), feedback: Sequence[Feedback] = (), traffic: Sequence[Traffic] = (), token: str | None = None) -> list[int]:
        """predictions: as `held` gave them."""
        return self._asked("write", [len(predictions), [feedback_cells(f) for f in feedback], traffic, token], b"".join(predictions))

    def opened(self, *, create: bool = False) -> None:
        """Waits until the store is open; create: as `Store.open`, which also brings it to the newest schema. Raises what that raises."""
        self._asked("open", [create])

    def written(self, token: str, since: float) -> list[int] | None:
        return self._asked("written", [token, since])

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """Lets the write under way end; not for ever, if its database does not answer."""
        process = self._process
        if not self._lock.acquire(timeout=END_S):
            if process is not None:
                process.kill()  # whoever waits for its answer waits no longer
            self._lock.acquire()
        try:
            self._end()
        finally:
            self._lock.release()

    def _asked(self, what: str, given: list[Any], rows: bytes = b"") -> Any:
        """Raises what the store raised, or EndpointError if the process ended before it answered."""
        with self._lock:
            process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                _put(process.stdin, msgspec.msgpack.encode([what, given]))
                _put(process.stdin, rows)
                answer = _taken(process.stdout)
            except (OSError, ValueError):
                answer = None
            if answer is None:
                self._end(wait_s=1.0)
                log.warning("the process that writes to the store ended with %s; another one is started", process.returncode)
                raise EndpointError(say("The process that writes to the store has ended; another one is started."))
        done = msgspec.msgpack.decode(answer)
        if "error" in done:
            raise _ERRORS.get(done["error"], RuntimeError)(Text.of(done["text"]) if done["error"] in _ERRORS else done["error"])
        return done["done"]

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen([sys.executable, "-P", "-m", "assay.store.scribe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pipesize=1 << 20)
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # it has ended already: whoever asks it will see
                _put(self._process.stdin, self._place.encode())  # not in its arguments, which others may read: it may hold a password
        return self._process

    def _end(self, wait_s: float = END_S) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        try:
            process.wait(wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _put(pipe: Any, message: bytes) -> None:
    for part in (_LENGTH.pack(len(message)), message):  # not joined: a message may be megabytes
        rest = memoryview(part)
        while rest:
            rest = rest[pipe.write(rest):]


def _taken(pipe: Any) -> bytes | None:
    """One message; None where the pipe ended before it was whole."""
    head = _exactly(pipe, _LENGTH.size)
    return None if head is None else _exactly(pipe, _LENGTH.unpack(head)[0])


def _exactly(pipe: Any, size: int) -> bytes | None:
    parts = []
    while size:
        part = pipe.read(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _main(asked: BinaryIO, said: BinaryIO) -> None:
    """The process: open the store, then one answer for each message until there are none."""
    import sqlalchemy  # noqa: F401  # while whoever started this imports other things

    from assay.store.store import Store

    place = _taken(asked)
    if place is None:
        return
    store: Store | None = None
    while (message := _taken(asked)) is not None and (rows := _taken(asked)) is not None:
        what, given = msgspec.msgpack.decode(message)
        answer: dict[str, Any] = {"done": None}
        try:
            store = store or Store.open(place.decode(), create=what == "open" and given[0])
            if what == "write":
                answer["done"] = _write(store, rows, *given)
            elif what == "written":
                answer["done"] = store.written(*given)
        except AssayError as error:
            answer = {"error": type(error).__name__ if type(error).__name__ in _ERRORS else "AssayError", "text": error.text.json()}
        except (OSError, MemoryError) as error:
            answer = {"error": "BudgetError", "text": say("The process that writes to the store has no room: {reason}.", reason=str(error) or type(error).__name__).json()}
        except Exception as error:  # a row that nobody foresaw: its neighbours are to be written
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        _put(said, msgspec.msgpack.encode(answer, enc_hook=str))


def _write(store: Store, rows: bytes, number: int, feedback: list[list[Any]], traffic: list[dict[str, Any]], token: str | None) -> list[int]:
    from assay.store.records import Prediction, Traffic

    predictions = msgspec.msgpack.decode(_ARRAY.pack(0xDD, number) + rows)
    return store.write_cells(Cells([prediction_cells(Prediction(*p)) for p in predictions], feedback, [Traffic(**t) for t in traffic]), token)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # told to all of a service at once; this process ends when the service has sent its last rows
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    with contextlib.suppress(BrokenPipeError):  # the service was killed; what it sent is written
        _main(sys.stdin.buffer, out)
