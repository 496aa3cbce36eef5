"""Questions to an OpenAI-compatible endpoint: patient, bounded, in parallel, and every answer kept on disk at once.

Protocol: POST {base}/chat/completions as OpenAI, vLLM, llama.cpp, Ollama and most clouds speak it.
The key is read from ASSAY_LLM_KEY (or OPENAI_API_KEY) when a request leaves, and is never stored, logged or shown.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from assay.errors import EndpointError
from assay.neural.endpoint import authority, connection, endpoint, json_headers, key_of_environment

PARALLEL = 4
MOST_BYTES = 4 * 2**20  # an answer of a few tokens with 20 alternatives each is about 30 kB
MOST_WAIT_S = 60.0  # a Retry-After beyond this is reported, not slept through
CHARACTERS_PER_TOKEN = 3.5  # only where the server sends no `usage`


class RequestRefused(EndpointError):
    """The endpoint understood us and declined this one request (HTTP 400, 413, 422): a parameter, the length, a filter."""

    @property
    def detail(self) -> str:
        return str(self.text.values.get("detail", ""))

    @property
    def too_long(self) -> bool:
        return re.search(r"context|too long|too large|token limit|maximum .*tokens|exceed", self.detail, re.IGNORECASE) is not None


class NoTimeLeft(EndpointError):
    """The caller's time ran out before every question was answered. Answers so far are kept."""


@dataclass(frozen=True)
class Answer:
    """One reply. tokens: (token bytes as latin-1, log probability, ((alternative, log probability), ...)) each, or ().

    seconds: latency when it was first asked, also if it now came from disk, so that costs do not shrink on a second run.
    """

    text: str
    finish: str
    tokens: tuple[tuple[str, float, tuple[tuple[str, float], ...]], ...]
    tokens_in: int
    tokens_out: int
    estimated: bool
    seconds: float
    model: str = ""  # what the server says answered
    question: str = ""  # digest of what was asked
    cached: bool = False

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Answer:
        tokens = tuple((t, lp, tuple((a, b) for a, b in alts)) for t, lp, alts in packed.pop("tokens"))
        return cls(tokens=tokens, **packed)


class Memory(Protocol):
    """Where answers are kept: `neural.answers.Answers` keeps them on disk."""

    def get(self, question: str) -> dict[str, Any] | None: ...

    def put(self, question: str, answer: dict[str, Any]) -> None: ...


class Chat:
    """One model behind one endpoint.

    parallel: requests under way at once. timeout_s: for one whole answer. tries: sends of one request before giving up
    (429, 5xx and broken connections are tried again, after backoff_s, twice that, ... or what Retry-After says).
    """

    def __init__(
        self, url: str, model: str, *, answers: Memory, parallel: int = PARALLEL, timeout_s: float = 60.0,
        tries: int = 5, backoff_s: float = 0.5,
    ) -> None:
        self.scheme, self.host, self.port, self.path = endpoint(url)
        self.model = model
        self.answers = answers
        self.parallel, self.timeout_s, self.tries, self.backoff_s = max(1, min(parallel, 64)), timeout_s, tries, backoff_s

    def ask(
        self, bodies: list[dict[str, Any]], *, keep_refusals: bool = False, until: float = float("inf")
    ) -> list[Answer | RequestRefused]:
        """One answer per body (a chat request without `model`), in order.

        until: time.monotonic() after which no answer is waited for; then NoTimeLeft is raised.
        Equal bodies are sent once. A refused request stands in its place as RequestRefused; with keep_refusals it is
        remembered like an answer, unless it was only too long (a restarted server may have more room).
        Raises EndpointError as soon as the endpoint is unreachable, unwilling or not an endpoint at all.
        """
        found: dict[str, Answer | RequestRefused] = {}
        missing: dict[str, bytes] = {}
        questions = []
        for body in bodies:
            sent = json.dumps({"model": self.model, **body}, ensure_ascii=False, sort_keys=True).encode()
            where = f"{self.scheme}://{self.host}:{self.port}{self.path}\n{self.model}\n".encode()
            question = hashlib.sha256(where + sent).hexdigest()
            questions.append(question)
            if question in found or question in missing:
                continue
            known = self.answers.get(question)
            if known is None:
                missing[question] = sent
            elif "refused" in known:
                found[question] = self._refused(known["status"], known["refused"])
            else:
                found[question] = replace(Answer.of(known), question=question, cached=True)
        self._send(missing, found, keep_refusals, until)
        out: list[Answer | RequestRefused] = []
        for question in questions:
            answer = found[question]
            out.append(answer)
            if isinstance(answer, Answer) and not answer.cached:
                found[question] = replace(answer, cached=True)  # a repeated row is answered from the first
        return out

    def _send(self, missing: dict[str, bytes], found: dict[str, Answer | RequestRefused], keep_refusals: bool, until: float) -> None:
        waiting = iter(list(missing.items()))
        turn = threading.Lock()
        failures: list[BaseException] = []

        def work(_: int) -> None:
            line = _Line(self, failures, until)
            try:
                while not failures:
                    with turn:
                        question, body = next(waiting, (None, b""))
                    if question is None:
                        return
                    try:
                        answer = line.ask(body)
                        self.answers.put(question, {k: v for k, v in asdict(answer).items() if k not in ("cached", "question")})
                        found[question] = replace(answer, question=question)
                    except RequestRefused as refusal:
                        if keep_refusals and not refusal.too_long:
                            self.answers.put(question, {"refused": refusal.detail, "status": refusal.text.values["status"]})
                        found[question] = refusal
            except BaseException as error:  # carried to the caller below
                failures.append(error)
            finally:
                line.close()

        workers = min(self.parallel, len(missing))
        if workers:
            with ThreadPoolExecutor(workers) as pool:
                try:
                    list(pool.map(work, range(workers)))
                except BaseException as error:  # an interrupt: let the workers stop after the answer under way
                    failures.append(error)
        if failures:
            raise failures[0]

    def _refused(self, status: int, detail: str) -> RequestRefused:
        return RequestRefused("The endpoint {host} refused a request (HTTP {status}): {detail}", host=self.host, status=status, detail=detail)


class _Line:
    """One kept-open connection, used by one thread."""

    def __init__(self, chat: Chat, failures: list[BaseException], until: float) -> None:
        self.chat = chat
        self.failures = failures
        self.until = until
        self.link: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self.link:
            self.link.close()
            self.link = None

    def ask(self, body: bytes) -> Answer:
        chat = self.chat
        waited = 0.0
        for attempt in range(1, chat.tries + 1):
            started = time.monotonic()
            if started >= self.until:
                raise self._late()
            try:
                status, headers, content = self._post(body)
            except (TimeoutError, ConnectionError, http.client.HTTPException, OSError) as error:
                self.close()
                if time.monotonic() >= self.until:
                    raise self._late() from None
                problem = self._unreachable(error)
                hopeless = isinstance(error, (ssl.SSLCertVerificationError, socket.gaierror))
                few = isinstance(error, (TimeoutError, ConnectionRefusedError)) and attempt >= 2
                if hopeless or few or attempt == chat.tries:
                    raise problem from None
                pause = chat.backoff_s * 2 ** (attempt - 1)
            else:
                if status == 200:
                    return self._read(body, content, time.monotonic() - started)
                if status != 429 and status < 500:
                    raise self._declined(status, content)
                problem = EndpointError(
                    "The endpoint {host} keeps answering HTTP {status} after {tries} tries: {detail}",
                    host=chat.host, status=status, tries=attempt, detail=_detail(content),
                )
                if attempt == chat.tries:
                    raise problem
                pause = _retry_after(headers.get("Retry-After"), chat.backoff_s * 2 ** (attempt - 1))
            if waited + pause > MOST_WAIT_S:
                raise EndpointError(
                    "The endpoint {host} asks to wait {seconds} s. Try again later: finished answers are kept, so none is paid twice.",
                    host=chat.host, seconds=round(pause),
                )
            waited += pause
            stop = time.monotonic() + pause
            while time.monotonic() < stop and not self.failures:
                time.sleep(min(0.1, max(0.0, stop - time.monotonic())))
            if self.failures:
                raise problem
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        chat = self.chat
        path = chat.path
        key = key_of_environment()
        patience = max(0.01, min(chat.timeout_s, self.until - time.monotonic()))
        deadline = time.monotonic() + patience
        for _ in range(4):
            if self.link is None:
                self.link = connection(chat.scheme, chat.host, chat.port, patience)
            elif self.link.sock:
                self.link.sock.settimeout(patience)
            self.link.request("POST", path, body, json_headers(key))
            reply = self.link.getresponse()
            chunks, size = [], 0
            while chunk := reply.read1(65536):
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST_BYTES:
                    raise EndpointError(
                        "The endpoint {host} sent more than {most} MB for one answer, so it is not a chat endpoint.",
                        host=chat.host, most=MOST_BYTES // 2**20)
                if time.monotonic() > deadline:
                    raise TimeoutError
            content = b"".join(chunks)
            reply.close()  # read1 does not notice that it read the last byte; the connection stays open
            if reply.length:  # the connection broke in the middle of the body
                raise http.client.IncompleteRead(content, reply.length)
            if key:
                content = content.replace(key.encode(), b"***")  # some servers quote the key in their error
            if reply.will_close:
                self.close()
            if not 300 <= reply.status < 400:
                return reply.status, reply.headers, content
            path = self._same_place(reply.headers.get("Location", ""), path)
        raise EndpointError("The endpoint {host} redirects in a circle.", host=chat.host)

    def _same_place(self, location: str, path: str) -> str:
        """The path of a redirect that stays on this host. A key is never carried to another one."""
        chat = self.chat
        target = urlsplit(urljoin(f"{chat.scheme}://{authority(chat.host, chat.port)}{path}", location))
        port = target.port or (443 if target.scheme == "https" else 80)
        if not location or (target.scheme, target.hostname, port) != (chat.scheme, chat.host, chat.port):
            raise EndpointError(
                "The endpoint {host} redirects to {target}. Data and key are not sent there: if that is right, give its URL.",
                host=chat.host, target=f"{target.scheme}://{target.netloc.rpartition('@')[2]}",
            )
        return target.path

    def _read(self, body: bytes, content: bytes, seconds: float) -> Answer:
        host = self.chat.host
        try:
            packed = json.loads(content)
        except ValueError:
            raise EndpointError(
                "The endpoint {host} answered with something that is not JSON: {detail}. Is the URL that of an OpenAI-compatible server?",
                host=host, detail=_detail(content),
            ) from None
        try:
            choice = packed["choices"][0]
            text = choice["message"].get("content") or ""
            finish = str(choice.get("finish_reason") or "")
            tokens = tuple(
                (_token(t), float(t["logprob"]), tuple((_token(a), float(a["logprob"])) for a in t.get("top_logprobs") or ()))
                for t in (choice.get("logprobs") or {}).get("content") or ()
            )
            if not isinstance(text, str):
                raise TypeError
            usage = packed.get("usage") or {}
            model = str(packed.get("model") or "")
            given = isinstance(usage.get("prompt_tokens"), int) and isinstance(usage.get("completion_tokens"), int)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise EndpointError(
                "The endpoint {host} answered JSON, but not a chat completion: {detail}", host=host, detail=_detail(content)
            ) from None
        if given:
            tokens_in, tokens_out = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        else:
            asked = sum(len(m["content"]) for m in json.loads(body)["messages"])
            tokens_in, tokens_out = round(asked / CHARACTERS_PER_TOKEN), max(1, round(len(text) / CHARACTERS_PER_TOKEN))
        return Answer(text, finish, tokens, tokens_in, tokens_out, not given, seconds, model)

    def _declined(self, status: int, content: bytes) -> EndpointError:
        chat, detail = self.chat, _detail(content)
        if status in (401, 403):
            return EndpointError(
                "The endpoint {host} refused the key (HTTP {status}). Put a valid one into the environment variable ASSAY_LLM_KEY.",
                host=chat.host, status=status)
        if status == 404:
            return EndpointError(
                "The endpoint {host} knows no model '{model}', or not the path {path} (HTTP 404): {detail}",
                host=chat.host, model=chat.model, path=chat.path, detail=detail)
        if status in (400, 413, 422):
            return chat._refused(status, detail)
        return EndpointError("The endpoint {host} answered HTTP {status}: {detail}", host=chat.host, status=status, detail=detail)

    def _late(self) -> NoTimeLeft:
        return NoTimeLeft("The endpoint {host} did not answer every row in the time there was.", host=self.chat.host)

    def _unreachable(self, error: Exception) -> EndpointError:
        chat = self.chat
        if isinstance(error, TimeoutError):
            return EndpointError("The endpoint {host} did not answer within {seconds} s.", host=chat.host, seconds=round(chat.timeout_s, 1))
        if isinstance(error, ssl.SSLCertVerificationError):
            return EndpointError("The certificate of {host} cannot be trusted: {error}.", host=chat.host, error=error.verify_message)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return EndpointError(
            "Cannot connect to the endpoint {host}:{port}: {error}. Is it running, and is the URL right?",
            host=chat.host, port=chat.port, error=reason)


def _token(packed: dict[str, Any]) -> str:
    """A token's bytes, one character each: half a Chinese character is a token too, and JSON has no bytes."""
    raw = packed.get("bytes")
    return (bytes(raw) if isinstance(raw, list) else str(packed["token"]).encode()).decode("latin-1")


def _detail(content: bytes) -> str:
    """The message inside an error body, or its beginning."""
    try:
        packed = json.loads(content)
        inner = packed.get("error", packed)
        message = inner.get("message", inner) if isinstance(inner, dict) else inner
    except (ValueError, AttributeError):
        message = content.decode("utf-8", "replace")
    return " ".join(str(message).split())[:300]


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
