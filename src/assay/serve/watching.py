"""What runs beside the requests: stages followed, traffic counted by the minute, drift watched. One thread; nothing here holds up an answer."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from assay.errors import InputError
from assay.serve.answering import Answering, Counted
from assay.serve.held import Held, Shelf
from assay.serve.metrics import Metrics
from assay.store.records import Traffic
from assay.store.store import Store
from assay.store.writer import Writer
from assay.watch.alarms import Alarms, Log, Mail, Sink, Webhook
from assay.watch.monitor import Monitor

log = logging.getLogger("assay.service")
MOST_NOTED = 500  # rows of a second; of more, the watch sees the first. A check looks back on 5,000 at most
LIMITS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_LIMITS = (*(str(limit) for limit in LIMITS_MS), "inf")


class Watching(threading.Thread):
    """every_s: how often drift and budgets are checked."""

    def __init__(self, shelf: Shelf, store: Store, writer: Writer, metrics: Metrics, *, sinks: tuple[Sink, ...] = (Log(),), every_s: float = 60.0, worker: int = 0, leads: bool = True) -> None:
        super().__init__(name="watching", daemon=True)
        self._shelf, self._store, self._writer, self._metrics = shelf, store, writer, metrics
        self._sinks, self._every_s, self._worker, self._leads = sinks, every_s, worker, leads
        self._noted: dict[tuple[str, int], deque[tuple[dict[str, Any], dict[str, Any]]]] = defaultdict(deque)
        self._ended: dict[tuple[str, str, int], deque[float]] = defaultdict(deque)  # seconds of requests that are not counted yet, by model, route, status
        self._monitors: dict[tuple[str, int], Monitor] = {}
        self._minutes: dict[tuple[int, str], _Minute] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.answering: Answering | None = None
        self.schedules: list[Any] = []

    # ---- called on the event loop: next to nothing, because every request pays for it

    def answered(self, counted: Counted) -> None:
        self._metrics.answered(counted)
        if counted.rows is not None and counted.label != "shadow":
            noted = self._noted[counted.held.model, counted.arm.version.version]
            if (room := MOST_NOTED - len(noted)) > 0:
                noted.extend(islice(zip(counted.rows, counted.answers, strict=True), room))

    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        self._ended[model, route, status].append(seconds)

    # ---- on any thread

    def text(self) -> bytes:
        """The metrics, with every request that has ended."""
        self._tally()
        return self._metrics.text()

    def _tally(self) -> None:
        """Count the requests that ended since the last time, for the metrics and for the minute's traffic."""
        with self._lock:
            number = int(time.time() // 60)
            for (model, route, status), ended in list(self._ended.items()):
                seconds = [ended.popleft() for _ in range(len(ended))]
                self._metrics.requests(model, route, status, seconds)
                if model and seconds:
                    self._minutes.setdefault((number, model), _Minute()).count(status, seconds)

    # ---- the thread

    def run(self) -> None:
        checked = time.monotonic()
        wait_s = 0.0  # the first look sets up a monitor, which takes 0.15 s: at once, while few ask
        while not self._stopped.wait(wait_s):
            wait_s = 1.0
            for step in (self._tally, self._shelf.refresh, self._look, self._count, self._gauges):  # each for itself: a store that is away is no reason to count no requests
                self._stepped(step)
            if time.monotonic() - checked >= self._every_s:
                checked = time.monotonic()
                self._stepped(self.check)

    def _stepped(self, step: Callable[[], Any]) -> None:
        try:
            step()
        except Exception:
            log.exception("the watch stumbled; it goes on")

    def check(self) -> None:
        """Sketches to the store, then every check of every model; alarms go where they are sent."""
        now = time.time()
        self._look()
        for held in self._shelf.all():
            monitor = self._monitor(held)
            if not self._leads:  # several workers: one of them judges what all have written down
                monitor.flush(now)
                continue
            for one in monitor.check(now):
                column = one.facts.get("column")
                if column and one.facts.get("effect") is not None:
                    self._metrics.set("assay_drift_effect", float(one.facts["effect"]), held.model, str(column))

    def stop(self) -> None:
        """Stop, and leave nothing unwritten."""
        self._stopped.set()
        if self.is_alive():
            self.join(10.0)
        self._look()
        self._tally()
        now = time.time()
        for monitor in self._monitors.values():
            monitor.flush(now, force=True)
            monitor.alarms.close()
        self._count(done_only=False)

    def _monitor(self, held: Held) -> Monitor:
        key = (held.model, held.champion.version.version)
        monitor = self._monitors.get(key)
        if monitor is None:
            monitor = self._monitors[key] = Monitor(held.champion.bundle, self._store, held.model, held.champion.version.version,
                                                           alarms=Alarms(self._store, held.model, self._sinks))
            for old in [k for k in self._monitors if k[0] == held.model and k != key]:
                self._monitors.pop(old).flush(time.time(), force=True)
        return monitor

    def _look(self) -> None:
        for held in self._shelf.all():
            monitor, noted = self._monitor(held), self._noted.get((held.model, held.champion.version.version))
            if not noted:
                continue
            taken = [noted.popleft() for _ in range(len(noted))]
            monitor.update([row for row, _ in taken], [answer for _, answer in taken])

    def _count(self, *, done_only: bool = True) -> None:
        now = int(time.time() // 60)
        with self._lock:
            done = [(key, self._minutes.pop(key)) for key in list(self._minutes) if not done_only or key[0] < now]
        if done:
            for (minute, model), m in done:
                self._writer.count(Traffic(minute, model, self._worker, m.requests, m.errors, m.refused, m.ms_sum, m.histogram))

    def _gauges(self) -> None:
        gauge = self._metrics.set
        gauge("assay_queue_rows", self._writer.waiting, "store")
        if self.answering is not None:
            gauge("assay_queue_rows", self.answering.shadows_waiting, "shadow")
        for held in self._shelf.all():
            gauge("assay_model_version", held.champion.version.version, held.model, "champion")
            gauge("assay_model_version", held.challenger.version.version if held.challenger else 0, held.model, "challenger")
            if self._leads:
                levels = [a.level for a in self._store.alarms.open(held.model)]
                for level in ("info", "warning", "critical"):
                    gauge("assay_alarms_open", levels.count(level), held.model, level)
        self._metrics.leave()


class _Minute:
    __slots__ = ("errors", "histogram", "ms_sum", "refused", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = self.refused = 0
        self.ms_sum = 0.0
        self.histogram: dict[str, int] = {}

    def count(self, status: int, seconds: list[float]) -> None:
        if 400 <= status < 500:
            self.refused += len(seconds)
            return
        self.requests += len(seconds)
        self.errors += len(seconds) * (status >= 500)
        self.ms_sum += 1000 * sum(seconds)
        for one in seconds:
            limit = _LIMITS[bisect_left(LIMITS_MS, 1000 * one)]
            self.histogram[limit] = self.histogram.get(limit, 0) + 1


def sinks_of(*, webhook: str | None, secret: str | None, email: str | None, lang: str) -> tuple[Sink, ...]:
    """Where alarms go: the log always, a webhook, an e-mail address. email: smtp://[user:password@]host[:port]/?to=a@b.c&from=d@e.f, smtps:// for TLS from the first byte."""
    sinks: list[Sink] = [Log(lang)]
    if webhook is not None:
        sinks.append(Webhook(webhook, secret, lang=lang))
    if email is not None:
        sinks.append(_mail(email, lang))
    return tuple(sinks)


def _mail(address: str, lang: str) -> Mail:
    try:
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query))
        host, port, to, sender = parts.hostname, parts.port, query["to"], query["from"]
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise ValueError
    except (ValueError, KeyError):
        raise InputError("Alarms by e-mail need an address like smtp://user:password@host:587/?to=a@b.c&from=d@e.f, or smtps:// with port 465.") from None
    tls = "tls" if parts.scheme == "smtps" else "none" if host in ("localhost", "127.0.0.1", "::1") else "starttls"
    return Mail(host, sender, tuple(to.split(",")), port or (465 if tls == "tls" else 587 if tls == "starttls" else 25), unquote(parts.username) if parts.username else None,
                unquote(parts.password) if parts.password else None, tls, lang=lang)
