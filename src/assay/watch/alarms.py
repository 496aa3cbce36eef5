"""From findings to alarms: one open alarm a code, told once, closed by itself when it has been quiet for a while.

Sinks (log, webhook, e-mail) are served by one thread from a short queue, so that no check waits for somebody's mail server.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import queue
import smtplib
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from assay.errors import InputError
from assay.store.records import Alarm
from assay.watch.finding import Finding
from assay.words import Text, say

QUIET_CHECKS = 3  # a check without the finding closes nothing yet: what stands on the edge would ring all night
PER_HOUR = 20
_QUEUED = 200


@dataclass(frozen=True)
class Note:
    """What a sink is told. over: the alarm is closed."""

    model: str
    code: str
    level: str
    text: Text
    facts: dict[str, Any]
    at: float
    over: bool = False

    def json(self, lang: str = "en") -> dict[str, Any]:
        return {"model": self.model, "code": self.code, "level": self.level, "text": self.text.to(lang), "facts": self.facts, "at": self.at, "over": self.over}


class Sink(Protocol):
    def send(self, note: Note) -> None: ...


@dataclass(frozen=True)
class Log:
    """One JSON line a note on the logger 'assay.alarms'."""

    lang: str = "en"

    def send(self, note: Note) -> None:
        logging.getLogger("assay.alarms").log(logging.ERROR if note.level == "critical" and not note.over else logging.WARNING, json.dumps(note.json(self.lang), ensure_ascii=False))


@dataclass(frozen=True)
class Webhook:
    """POSTs a note as JSON. With a secret, the header X-Assay-Signature is 't=<seconds>,v1=<hex>' with the HMAC-SHA256 of '<seconds>.<body>', so that
    a receiver can refuse what is forged or old. A redirect is followed on the same host only, because a signed body is for nobody else."""

    url: str
    secret: str | None = field(default=None, repr=False)
    timeout_s: float = 5.0
    tries: int = 4
    pause_s: float = 0.5
    lang: str = "en"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("'{url}' is no address that alarms can be sent to. Write it like https://host/path.", url=self.url[:120])

    def send(self, note: Note) -> None:
        """Raises OSError when all tries failed."""
        body = json.dumps(note.json(self.lang), ensure_ascii=False).encode()
        for left in range(self.tries - 1, -1, -1):
            try:
                status = self._post(self.url, body)
                if status < 300:
                    return
                failure = OSError(f"HTTP {status}")
                if 300 <= status < 500 and status not in (408, 429):
                    raise Refused(f"HTTP {status}")  # it will say so again
            except Refused:
                raise
            except (OSError, http.client.HTTPException) as error:
                failure = OSError(f"{type(error).__name__}: {error}")
            if left:
                time.sleep(self.pause_s * 2 ** (self.tries - 1 - left))
        raise failure

    def _post(self, url: str, body: bytes, redirects: int = 2) -> int:
        parts = urlsplit(url)
        host = parts.hostname or ""
        kept = (http.client.HTTPSConnection(host, parts.port, timeout=self.timeout_s, context=ssl.create_default_context()) if parts.scheme == "https"
                else http.client.HTTPConnection(host, parts.port, timeout=self.timeout_s))
        try:
            headers = {"Content-Type": "application/json", "User-Agent": "assay"}
            if self.secret is not None:
                headers["X-Assay-Signature"] = signed(self.secret, body, int(time.time()))
            kept.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = kept.getresponse()
            answer.read(65536)
            if answer.status in (307, 308) and redirects:
                target = urljoin(url, answer.headers.get("Location", ""))
                other = urlsplit(target)
                if (other.scheme, other.hostname, other.port) != (parts.scheme, parts.hostname, parts.port):
                    raise Refused(f"redirect to {other.hostname}")
                return self._post(target, body, redirects - 1)
            return answer.status
        finally:
            kept.close()


class Refused(OSError):
    """The receiver will not take it, however often it is tried."""


def signed(secret: str, body: bytes, at: int) -> str:
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


@dataclass(frozen=True)
class Mail:
    """One e-mail a note by SMTP. tls: 'starttls', 'tls' from the first byte, or 'none' for a server on this machine."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: str = "starttls"
    timeout_s: float = 10.0
    lang: str = "en"

    def send(self, note: Note) -> None:
        """Raises OSError (smtplib's errors are)."""
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        what = say("over") if note.over else say(note.level)
        message["Subject"] = " ".join(f"[assay] {note.model}: {note.code} ({what.to(self.lang)})".split())  # one line: a model's name cannot add headers
        facts = "\n".join(f"{k}: {v}" for k, v in note.facts.items() if isinstance(v, (int, float, str)))
        message.set_content(f"{note.text.to(self.lang)}\n\n{facts}\n")
        kind = smtplib.SMTP_SSL if self.tls == "tls" else smtplib.SMTP
        with kind(self.host, self.port, timeout=self.timeout_s) as server:
            if self.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(message)


class Alarms:
    """The alarms of one model. store: None keeps none (offline). per_hour: notes to the sinks; more are held back and counted in the next one."""

    def __init__(self, store: Any, model: str, sinks: Sequence[Sink] = (Log(),), *, per_hour: int = PER_HOUR, quiet_checks: int = QUIET_CHECKS, clock: Callable[[], float] = time.time) -> None:
        self.store, self.model, self.sinks, self.per_hour, self.quiet_checks, self.clock = store, model, tuple(sinks), per_hour, quiet_checks, clock
        self.held_back = 0
        self.failed: deque[str] = deque(maxlen=20)
        self._quiet: dict[int, int] = {}
        self._sent: deque[float] = deque()
        self._queue: queue.Queue[Note | None] = queue.Queue(_QUEUED)
        self._thread: threading.Thread | None = None

    def settle(self, findings: Sequence[Finding], at: float, *, judged: Sequence[str] | None = None) -> list[Alarm]:
        """Opens an alarm for each alarming finding that has none, closes those that were quiet for `quiet_checks` checks; returns the new ones.

        judged: beginnings of the codes ('drift', 'budget_errors') that this check could judge at all; None for all. What could not be judged, for want of rows, is not quiet.
        """
        now = {f.code: f for f in findings if f.alarming}
        opened = []
        for finding in now.values():
            made = self.store.alarms.add(self.model, finding.code, finding.level, finding.text, finding.facts)
            if made is not None:
                opened.append(made)
                self._tell(Note(self.model, finding.code, finding.level, finding.text, finding.facts, at))
        for alarm in self.store.alarms.open(self.model):
            if alarm.code in now:
                self._quiet.pop(alarm.id, None)
            elif judged is None or alarm.code.partition(":")[0] in judged:
                self._quiet[alarm.id] = self._quiet.get(alarm.id, 0) + 1
                if self._quiet[alarm.id] >= self.quiet_checks:
                    del self._quiet[alarm.id]
                    self.store.alarms.close(alarm.id, "service")
                    self._tell(Note(self.model, alarm.code, alarm.level, Text.of(alarm.text), alarm.facts, at, over=True))
        return opened

    def _tell(self, note: Note) -> None:
        now = self.clock()
        while self._sent and self._sent[0] < now - 3600:
            self._sent.popleft()
        if len(self._sent) >= self.per_hour:
            self.held_back += 1
            return
        self._sent.append(now)
        if self.held_back:
            note = Note(**{**vars(note), "facts": note.facts | {"held_back": self.held_back}})
            self.held_back = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="assay-alarms", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(note)
        except queue.Full:
            self.held_back += 1

    def _work(self) -> None:
        while (note := self._queue.get()) is not None:
            for sink in self.sinks:
                try:
                    sink.send(note)
                except Exception as error:  # somebody's mail server must not end the watch; the alarm itself lies in the store
                    self.failed.append(f"{type(sink).__name__}: {error}"[:300])
                    logging.getLogger("assay.alarms").warning("%s: %s", type(sink).__name__, error)
            self._queue.task_done()

    def close(self, timeout_s: float = 5.0) -> None:
        """Tells what is waiting, then stops."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout_s)
            self._thread = None
