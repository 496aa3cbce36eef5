"""A model behind an address: POST {"rows": [{column: value}, ...]}, and {"answers": [...]} comes back, one a row in order.

Patient and bounded: requests in batches, some at once, sent again after 429, 5xx and broken connections, never longer than
the caller's time. The key is read from an environment variable when a request leaves, and is never stored, logged or shown.
Answers are not kept on disk: what stands behind an address may be another model tomorrow.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from assay.errors import EndpointError, InputError

BATCH = 64
PARALLEL = 4
TRIES = 5
BACKOFF_S = 0.5
MOST_WAIT_S = 60.0  # a Retry-After beyond this is reported, not slept through
MOST_BYTES = 32 * 2**20
ONE_BY_ONE = 20  # of the rows asked, to time single rows; fewer if they take longer than
ONE_BY_ONE_S = 3.0
KEY = "ASSAY_EXTERNAL_KEY"


def key_variables(name: str, *, alone: bool) -> list[str]:
    """The environment variables that may hold the key of the model called `name`: its own, and the common one where no other
    address is asked, so that nobody gets the key of somebody else."""
    own = f"{KEY}_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"
    return [own, KEY] if alone else [own]


@dataclass(frozen=True)
class Address:
    """scheme, host, port and path of a URL."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises InputError if it is no http(s) URL, or carries what might be a secret."""
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port, parts = None, None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host:
            raise InputError("'{url}' is not the address of a model. Write it like https://host/path.", url=url.partition("?")[0].rpartition("@")[2])
        if parts.username or parts.password or parts.query:
            raise InputError("The address of a model must not carry a user, a password or a query, because it is stored. "
                             "Put the key into the environment variable ASSAY_EXTERNAL_KEY.")
        return cls(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path or "/")

    @property
    def loopback(self) -> bool:
        """Whether it stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Endpoint:
    """ask: answers of rows; `singles_ms` collects how long requests of one row took, `requests` and `rows` count what was sent.

    keys: environment variables, the first that is set holds the key.
    """

    def __init__(self, url: str, *, keys: list[str] | None = None, timeout_s: float = 60.0, parallel: int = PARALLEL,
                 backoff_s: float = BACKOFF_S) -> None:
        self.keys = keys or [KEY]
        self.address, self.timeout_s, self.parallel, self.backoff_s = Address.of(url), timeout_s, parallel, backoff_s
        self.singles_ms: list[float] = []
        self.requests, self.rows = 0, 0
        self._lock = threading.Lock()

    def ask(self, rows: list[dict[str, Any]], *, until: float = float("inf")) -> list[Any]:
        """One answer a row, as the server sent it. The first rows go one by one, because their times are what one row costs.

        until: time.monotonic() after which nothing is waited for. Raises EndpointError at the first thing that cannot be mended.
        """
        answers: list[Any] = []
        failures: list[BaseException] = []
        line = _Line(self, failures, until)
        begin = time.monotonic()
        try:
            while len(answers) < min(len(rows), ONE_BY_ONE) and time.monotonic() - begin < ONE_BY_ONE_S:
                answers += line.ask(rows[len(answers):len(answers) + 1])
        finally:
            line.close()
        starts = range(len(answers), len(rows), BATCH)
        parts: dict[int, list[Any]] = {}
        waiting = iter(starts)

        def work(_: int) -> None:
            line = _Line(self, failures, until)
            try:
                while not failures:
                    with self._lock:
                        at = next(waiting, None)
                    if at is None:
                        return
                    parts[at] = line.ask(rows[at:at + BATCH])
            except BaseException as error:  # carried to the caller below
                failures.append(error)
            finally:
                line.close()

        workers = min(self.parallel, len(starts))
        if workers:
            with ThreadPoolExecutor(workers) as pool:
                try:
                    list(pool.map(work, range(workers)))
                except BaseException as error:  # an interrupt: let the workers stop after the answer under way
                    failures.append(error)
        if failures:
            raise failures[0]
        return answers + [a for at in starts for a in parts[at]]

    def count(self, rows: int, seconds: float) -> None:
        with self._lock:
            self.requests += 1
            self.rows += rows
            if rows == 1:
                self.singles_ms.append(seconds * 1000)


class _Line:
    """One kept-open connection, used by one thread."""

    def __init__(self, endpoint: Endpoint, failures: list[BaseException], until: float) -> None:
        self.to, self.failures, self.until = endpoint, failures, until
        self.host = endpoint.address.host
        self.link: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self.link:
            self.link.close()
            self.link = None

    def ask(self, rows: list[dict[str, Any]]) -> list[Any]:
        body = json.dumps({"rows": rows}, ensure_ascii=False, allow_nan=False).encode()
        waited = 0.0
        for attempt in range(1, TRIES + 1):
            started = time.monotonic()
            try:
                status, headers, content = self._post(body)
            except (TimeoutError, http.client.HTTPException, OSError) as error:
                self.close()
                if time.monotonic() >= self.until:
                    raise self._late() from None
                problem = self._unreachable(error)
                hopeless = isinstance(error, (ssl.SSLCertVerificationError, socket.gaierror))
                few = isinstance(error, (TimeoutError, ConnectionRefusedError)) and attempt >= 2
                if hopeless or few or attempt == TRIES:
                    raise problem from None
                pause = self.to.backoff_s * 2 ** (attempt - 1)
            else:
                if status == 200:
                    seconds = time.monotonic() - started
                    self.to.count(len(rows), seconds)
                    return self._read(content, len(rows))
                if status == 413 and len(rows) > 1:
                    return self.ask(rows[:len(rows) // 2]) + self.ask(rows[len(rows) // 2:])
                if status != 429 and status < 500:
                    raise self._declined(status, headers, content)
                problem = EndpointError("The model at {host} keeps answering HTTP {status} after {tries} tries: {detail}", host=self.host,
                                        status=status, tries=attempt, detail=self._detail(content))
                if attempt == TRIES:
                    raise problem
                pause = _retry_after(headers.get("Retry-After"), self.to.backoff_s * 2 ** (attempt - 1))
            if waited + pause > MOST_WAIT_S:
                raise EndpointError("The model at {host} asks to wait {seconds} s. Try again later.", host=self.host, seconds=round(pause))
            if time.monotonic() + pause > self.until:
                raise self._late()
            waited += pause
            stop = time.monotonic() + pause
            while time.monotonic() < stop and not self.failures:
                time.sleep(min(0.1, max(0.0, stop - time.monotonic())))
            if self.failures:
                raise problem
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        address, key = self.to.address, self._key()
        patience = min(self.to.timeout_s, self.until - time.monotonic())
        if patience <= 0:
            raise TimeoutError
        deadline = time.monotonic() + patience
        if self.link is None and address.scheme == "https":
            self.link = http.client.HTTPSConnection(address.host, address.port, timeout=patience, context=ssl.create_default_context())
        elif self.link is None:
            self.link = http.client.HTTPConnection(address.host, address.port, timeout=patience)
        elif self.link.sock:
            self.link.sock.settimeout(patience)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "assay"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self.link.request("POST", address.path, body, headers)
        reply = self.link.getresponse()
        chunks, size = [], 0
        while chunk := reply.read1(65536):
            chunks.append(chunk)
            size += len(chunk)
            if size > MOST_BYTES:
                raise EndpointError("The model at {host} sent more than {most} MB for one request.", host=self.host, most=MOST_BYTES // 2**20)
            if time.monotonic() > deadline:
                raise TimeoutError
        content = b"".join(chunks)
        reply.close()  # read1 does not notice that it read the last byte; the connection stays open
        if reply.length:  # the connection broke in the middle of the body
            raise http.client.IncompleteRead(content, reply.length)
        if reply.will_close:
            self.close()
        return reply.status, reply.headers, content

    def _read(self, content: bytes, rows: int) -> list[Any]:
        try:
            packed = json.loads(content)
        except ValueError:
            raise EndpointError("The model at {host} answered with something that is not JSON: {detail}", host=self.host, detail=self._detail(content)) from None
        answers = packed.get("answers") if isinstance(packed, dict) else None
        if not isinstance(answers, list):
            raise EndpointError('The model at {host} answered JSON without a list called "answers": {detail}', host=self.host, detail=self._detail(content))
        if len(answers) != rows:
            raise EndpointError("The model at {host} gave {found} answers to {rows} rows.", host=self.host, found=len(answers), rows=rows)
        return answers

    def _declined(self, status: int, headers: http.client.HTTPMessage, content: bytes) -> EndpointError:
        if status in (401, 403):
            return EndpointError("The model at {host} refused the key (HTTP {status}). Put a valid one into the environment variable {variable}.",
                                 host=self.host, status=status, variable=self.to.keys[-1])
        if 300 <= status < 400:
            place = urlsplit(headers.get("Location", ""))
            return EndpointError("The model at {host} redirects to {target}. Data and key are not sent there: if that is right, give its address.",
                                 host=self.host, target=f"{place.netloc.rpartition('@')[2]}{place.path}"[:100])
        return EndpointError("The model at {host} refused the rows (HTTP {status}): {detail}", host=self.host, status=status, detail=self._detail(content))

    def _late(self) -> EndpointError:
        return EndpointError("The model at {host} did not answer every row in the time there was.", host=self.host)

    def _unreachable(self, error: Exception) -> EndpointError:
        if isinstance(error, TimeoutError):
            return EndpointError("The model at {host} did not answer within {seconds} s.", host=self.host, seconds=round(self.to.timeout_s, 1))
        if isinstance(error, ssl.SSLCertVerificationError):
            return EndpointError("The certificate of {host} cannot be trusted: {error}.", host=self.host, error=error.verify_message)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return EndpointError("Cannot connect to the model at {host}:{port}: {error}. Is it running, and is the address right?", host=self.host,
                             port=self.to.address.port, error=reason)

    def _detail(self, content: bytes) -> str:
        """The message inside an error body, or its beginning, without the key: some servers quote it."""
        try:
            packed = json.loads(content)
            inner = packed.get("error") or packed.get("detail") or packed
            message = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        except (ValueError, AttributeError):
            message = content.decode("utf-8", "replace")
        key = self._key()
        return " ".join((message.replace(key, "***") if key else message).split())[:300]

    def _key(self) -> str:
        name, key = next(((name, key) for name in self.to.keys if (key := os.environ.get(name, "").strip())), ("", ""))
        if not (key.isascii() and key.isprintable()):  # http.client would show it in its own complaint
            raise EndpointError("The environment variable {variable} holds characters that no key has, such as a line break.", variable=name)
        return key


def _retry_after(header: str | None, otherwise: float) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3: a number or a date)."""
    if not header:
        return otherwise
    try:
        return min(max(0.0, float(header)), 86400.0)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return otherwise
