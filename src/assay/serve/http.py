"""What a handler is given and what it gives back; the body of a request, read with limits.

No framework on this path: routing, request and response objects cost more than a small model's answer (bench/serve.py).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec

from assay.errors import AssayError
from assay.store.records import Key
from assay.words import Text

JSON = b"application/json"
encode = msgspec.json.Encoder(enc_hook=str).encode
_decode = msgspec.json.Decoder().decode


class Refused(AssayError):
    """An answer of 4xx or 5xx in one sentence. retry_s: when it is worth asking again."""

    exit_code = 2

    def __init__(self, status: int, template: str | Text, /, *, retry_s: float | None = None, headers: tuple[tuple[bytes, bytes], ...] = (), **values: Any) -> None:
        super().__init__(template, **values)
        self.http_status, self.retry_s, self.headers = status, retry_s, headers

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.http_status, self.text)


@dataclass(slots=True)
class Asked:
    """One request whose head was accepted."""

    scope: dict[str, Any]
    receive: Any
    key: Key
    headers: dict[bytes, bytes]
    body: bytes = b""
    model: str = ""  # filled by the handler, for the metrics

    @property
    def language(self) -> str:
        return language_of(self.headers)

    @property
    def kind(self) -> bytes:
        """The content type without its parameters, in small letters."""
        return self.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()

    def json(self) -> Any:
        """The body as JSON. Raises Refused 400 (no JSON, too deep) or 415 (another content type)."""
        if self.kind != JSON:
            raise Refused(415, "The content type is '{found}'; this path takes application/json.", found=shown(self.kind))
        return decoded(self.body)

    def query(self) -> dict[str, str]:
        raw = self.scope.get("query_string", b"")
        if not raw:
            return {}
        from urllib.parse import parse_qsl

        return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=50))


@dataclass(slots=True)
class Said:
    """A whole answer. parts: an async iterator of bytes for answers that are streamed, `body` is then ignored."""

    body: bytes
    status: int = 200
    kind: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    parts: Any = None


def language_of(headers: dict[bytes, bytes]) -> str:
    """Of the sentences that answer a request."""
    return "zh" if headers.get(b"accept-language", b"")[:2].lower() == b"zh" else "en"


def refusal(error: AssayError, headers: dict[bytes, bytes]) -> Said:
    """The error as JSON, in the language that the client accepts."""
    retry = getattr(error, "retry_s", None)
    more = [(b"retry-after", str(max(1, round(retry))).encode())] if retry is not None else []
    return Said(encode({"error": {"status": error.http_status, "sentence": error.text.to(language_of(headers))}}), error.http_status, headers=[*more, *getattr(error, "headers", ())])


def as_json(value: Any, status: int = 200) -> Said:
    return Said(encode(value), status)


def decoded(body: bytes) -> Any:
    try:
        return _decode(body)
    except RecursionError:
        raise Refused(400, "The JSON is nested too deeply. A request has at most a few levels: see /openapi.json.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, "The body is no JSON ({reason}). Send UTF-8 JSON; NaN and Infinity are not JSON, a value that is not known is null.",
                      reason=str(error)[:120]) from None


def shown(raw: bytes | str, most: int = 60) -> str:
    """What a stranger sent, safe to repeat in a sentence."""
    text = raw.decode("latin-1") if isinstance(raw, bytes) else raw
    text = "".join(c if c.isprintable() else "?" for c in text[:most + 1])
    return text if len(text) <= most else text[:most] + "…"


class Within:
    """`asyncio.timeout` for the path that every request takes: 1 us instead of 4. Raises TimeoutError."""

    __slots__ = ("_late", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        self._task: Any = asyncio.current_task()
        self._late = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self._late = True
        self._task.cancel()

    def __enter__(self) -> Within:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._timer.cancel()
        if self._late and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise TimeoutError from error


async def read_body(receive: Any, headers: dict[bytes, bytes], *, most: int, seconds: float, watched: bool = False) -> bytes:
    """All bytes of the body. Raises Refused 413 (over `most` bytes, before they are read where the length is announced), 408 (slower than `seconds`), 400 (the client went away).

    watched: the caller has a timer around all of it; the first part, which is nearly always here already, then needs none of its own.
    """
    announced = headers.get(b"content-length")
    if announced is not None and (not announced.isdigit() or int(announced) > most):
        raise _too_large(most)
    message = await (_arrived(receive) if watched else _next(receive, seconds))
    if not message.get("more_body"):
        body = message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        return body
    parts, size = [message["body"]], len(message["body"])
    until = asyncio.get_running_loop().time() + seconds
    while message.get("more_body"):
        message = await _next(receive, until - asyncio.get_running_loop().time())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise _too_large(most)
    return b"".join(parts)


async def _next(receive: Any, seconds: float) -> dict[str, Any]:
    try:
        with Within(seconds):
            return await _arrived(receive)
    except TimeoutError:
        raise too_slow() from None


async def _arrived(receive: Any) -> dict[str, Any]:
    message: dict[str, Any] = await receive()
    if message["type"] == "http.disconnect":
        raise Refused(400, "The connection was closed before the body had arrived.")
    return message


def too_slow() -> Refused:
    return Refused(408, "The body did not arrive in time. Send it faster, or in smaller parts.")


def _too_large(most: int) -> Refused:
    return Refused(413, "The body is larger than {most:,} bytes. Send fewer rows at a time, or use `assay predict` for files.", most=most)
