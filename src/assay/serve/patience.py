"""The server's HTTP protocol with limits on how slowly the head of a request may come (slow-loris) and how large it may be; the body's limits are in `http.read_body`.

And with one system call an answer instead of two: its head waits for its body, at most until the loop's next turn.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
MOST_HEAD = 65_536  # bytes; tokens of identity providers with many groups reach 16,000
_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Patient(HttpToolsProtocol):
    _timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _head = 0

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            self._head += len(data)
            if self._head - len(data) > MOST_HEAD or (self._head > MOST_HEAD and b"\r\n\r\n" not in data[:MOST_HEAD]):
                self._refuse(_LARGE)
                return
        super().data_received(data)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = _Together(transport, self.loop)  # type: ignore[assignment]
        self._wait()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._wait()

    def on_headers_complete(self) -> None:
        self._enough()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enough()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._too_slow)

    def _enough(self) -> None:
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
