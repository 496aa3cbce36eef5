"""The short way through the service: one row for a quick model, answered in one call, without the task, the coroutines and the timers of a request that may have to wait.

Nearly every request to such a model takes it. What is not plain goes the long way (`app.Service`), which checks all of it anew and says what is wrong:
another path, a body that is not here yet, a key that has to be looked up, another content type, several rows. The checks are the same and in the same order.
Measured with bench/serve.py, see docs/benchmarks.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

from assay.errors import AssayError
from assay.serve.answering import Answering, chosen
from assay.serve.auth import Door
from assay.serve.held import Shelf
from assay.serve.http import JSON, Said, decoded, refusal
from assay.store.records import new_id

PATH = b"/v1/predict"
_KINDS = {JSON, *(JSON + b";" + blank + b"charset=" + name for blank in (b"", b" ") for name in (b"utf-8", b"UTF-8"))}
_MOST_HOSTS = 100


class Shortcut:
    """ended, host_known: of the service. secure: headers of every answer. most: bytes of a body."""

    def __init__(self, door: Door, shelf: Shelf, answering: Answering, ended: Callable[..., None], host_known: Callable[[bytes], bool], secure: Sequence[tuple[bytes, bytes]], *,
                 most: int) -> None:
        self._most = most
        self._door, self._shelf, self._answering, self._ended, self._host_known = door, shelf, answering, ended, host_known
        self._head = b"content-type: " + JSON + b"\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in secure)
        self._ok = b"HTTP/1.1 200 OK\r\n" + self._head + b"content-length: "
        self._hosts: set[bytes] = set()

    def __call__(self, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes | None:
        """The whole answer to POST /v1/predict with this head and body, as it goes over the wire; None: the long way."""
        began, at = time.perf_counter(), time.time()
        head = dict(headers)
        host = head.get(b"host", b"")
        if head.get(b"content-type") not in _KINDS or (host not in self._hosts and not self._new_host(host)):
            return None
        key = self._door.known(head)
        if key is None or not self._door.may(key, "predict") or len(body) > self._most:
            return None
        try:
            given = decoded(body)
            row = given["row"]
            held = self._shelf.get(given["model"] if len(given) == 2 else None)
        except (AssayError, KeyError, TypeError):
            return None
        if type(row) is not dict or not self._answering.room or len(given) > 2 or not held.champion.bundle.task.by_rows:
            return None
        for arm in held.handed:  # asked of all before one is drawn, because the long way draws again
            if not arm.inline or (arm.known is not None and not row.keys() <= arm.known):
                return None
        number = new_id()
        arm, label = chosen(held, number)
        try:
            self._door.pay(key)
            said = self._answering.one(held, arm, label, number, row, at=at, actor=key.id)
            status, answer = 200, b"%b%d\r\n\r\n%b" % (self._ok, len(said), said)
        except AssayError as error:
            told = refusal(error, head)
            status, answer = told.status, self._refused(told)
        self._ended("POST", PATH.decode(), "predict", held.model, status, time.perf_counter() - began, key)
        return answer

    def _refused(self, said: Said) -> bytes:
        more = b"".join(name + b": " + value + b"\r\n" for name, value in said.headers)
        return b"HTTP/1.1 %d %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (said.status, HTTPStatus(said.status).phrase.encode(), self._head, more, len(said.body), said.body)

    def _new_host(self, host: bytes) -> bool:
        if not self._host_known(host):
            return False
        if len(self._hosts) < _MOST_HOSTS:
            self._hosts.add(host)
        return True
