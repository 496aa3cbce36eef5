"""The server's HTTP protocol with limits on how slowly the head of a request may come (slow-loris) and how large it may be; the body's limits are in `http.read_body`.

And quick where nearly all requests are: what is plain is answered in the call that read it (`shortcut`), an answer is one system call instead of two (its
head waits for its body, at most until the loop's next turn), and timers belong to a connection, not to each of its requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from assay.serve.shortcut import PATH

HEAD_S = 10.0
MOST_HEAD = 65_536  # bytes; tokens of identity providers with many groups reach 16,000
_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Patient(HttpToolsProtocol):
    _at_once: Callable[[list[tuple[bytes, bytes]], bytes], bytes | None] | None = None
    _short: bytes | None = None  # the body so far of a request that may go the short way
    _rested = 0.0  # when one was last answered
    _awaited = True  # the rest of a head is
    _head = 0  # bytes of it so far
    _timer: asyncio.TimerHandle | None = None  # runs if it takes more than one packet

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = _Together(transport, self.loop)  # type: ignore[assignment]
        self._at_once = getattr(self.app, "at_once", None)
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._awaited:
            self._head += len(data)
            if self._head - len(data) > MOST_HEAD or (self._head > MOST_HEAD and b"\r\n\r\n" not in data[:MOST_HEAD]):
                self._refuse(_LARGE)
                return
        super().data_received(data)
        if self._short is not None:
            self._go_long()  # more of its body is to come
        if self._awaited and self._timer is None:
            self._wait()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._awaited = True

    def on_headers_complete(self) -> None:
        self._enough()
        parser, before = self.parser, self.cycle
        if (self.url == PATH and self._at_once is not None and parser.get_method() == b"POST" and (before is None or before.response_complete) and not self.flow.write_paused
                and not self.expect_100_continue and parser.should_keep_alive() and parser.get_http_version() == "1.1" and not parser.should_upgrade()):
            self._short = b""
        else:
            self._begin_long()

    def on_body(self, body: bytes) -> None:
        if self._short is not None:
            self._short += body
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._short is not None and self._at_once is not None and not self.transport.is_closing():
            try:
                answer = self._at_once(self.headers, self._short)
            except Exception:
                answer = None  # it happens again on the long way, which logs it
            if answer is not None:
                self._short = None
                self.transport.write(answer)
                self.server_state.total_requests += 1
                self._rested = self.loop.time()
                if self.timeout_keep_alive_task is None:
                    self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
                return
            self._go_long()
        super().on_message_complete()

    def _go_long(self) -> None:
        body, self._short = self._short, None
        self._begin_long()
        if body:
            super().on_body(body)

    def _begin_long(self) -> None:
        """What the server does at the beginning of a request and at the end of its head, together: the short way needs nothing of it."""
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expected
        self.headers += headers
        super().on_headers_complete()

    # ---- timers

    def connection_lost(self, exc: Exception | None) -> None:
        self._enough()
        self._keep_no_more()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._keep_no_more()
        super().on_response_complete()

    def _unset_keepalive_if_required(self) -> None:
        """Left running while requests come: when it ends, it sees whether the connection has rested so long."""

    def _keep_no_more(self) -> None:
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def timeout_keep_alive_handler(self) -> None:
        left = self._rested + self.timeout_keep_alive - self.loop.time()
        if self._awaited or left > 0 or (self.cycle is not None and not self.cycle.response_complete):
            self.timeout_keep_alive_task = self.loop.call_later(max(left, 1.0), self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _enough(self) -> None:
        self._awaited = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._head = 0

    def _too_slow(self) -> None:
        self._timer = None
        self._refuse(_LATE)

    def _refuse(self, answer: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


class _Together:
    """A transport that writes the head of an answer together with what follows in the same turn of the loop."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data[:5] == b"HTTP/" and data[-4:] == b"\r\n\r\n":
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
