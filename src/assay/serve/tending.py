"""What a service does by itself, where it was told to: act on the promotion test, retrain at times of a cron line, forget what is old. Threads of the worker that leads."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

from assay.errors import AssayError, InputError
from assay.retrain.promotion import act
from assay.retrain.schedule import Schedule
from assay.serve.held import Shelf
from assay.store.store import Store

log = logging.getLogger("assay.service")
ACT_S = 10.0
FORGET_S = 3600.0
DAY_S = 86_400.0


class Tending:
    """retrain: 'MODEL=CRON LINE' each. acts: promote, withdraw and roll back as the test says. keep_days: answers, drafts and sketches that are older are removed, None: kept for good."""

    def __init__(self, shelf: Shelf, store: Store, home: Path, *, acts: bool, retrain: tuple[str, ...] = (), keep_days: float | None = None, store_url: str | None = None,
                 lang: str = "en") -> None:
        self._shelf, self._store, self._home, self._acts, self._keep_days, self._store_url, self._lang = shelf, store, home, acts, keep_days, store_url, lang
        self._schedules = [_schedule(line) for line in retrain]
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for name, schedule in self._schedules:
            self._begin(f"retrain-{name}", lambda name=name, schedule=schedule: schedule.run(lambda: self._retrain(name), self._stop, observe=lambda text: log.warning(str(text))))
        if self._acts:
            self._begin("promotion", self._watch_challengers)
        if self._keep_days is not None:
            self._begin("forgetting", self._forget)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)

    def _begin(self, name: str, work) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _watch_challengers(self) -> None:
        labels: dict[str, float] = {}
        while not self._stop.wait(ACT_S):
            for held in self._shelf.all():
                if held.stage.challenger is None:
                    continue
                newest = max((f.at for f in self._store.feedback.recent(held.model, 1)), default=0.0)
                if labels.get(held.model) == newest:  # nothing was said since the last look
                    continue
                labels[held.model] = newest
                try:
                    told = act(self._store, held.model, home=self._home)
                except AssayError as error:
                    log.warning(error.text.to(self._lang))
                else:
                    if told.outcome != "not_yet":
                        log.info(told.text.to(self._lang))

    def _forget(self) -> None:
        while True:
            before = time.time() - (self._keep_days or 0.0) * DAY_S
            try:
                gone = self._store.predictions.expire(before, by="service")
                self._store.drafts.expire(before)
                self._store.sketches.expire(before)
                if gone:
                    log.info("%d answers older than %g days were removed", gone, self._keep_days)
            except AssayError as error:
                log.warning(error.text.to(self._lang))
            if self._stop.wait(FORGET_S):
                return

    def _retrain(self, name: str) -> None:
        """In a process of its own, with the lowest priority: whoever asks is not to notice."""
        command = [sys.executable, "-P", "-m", "assay.cli", "retrain", name, "--home", str(self._home), "--lang", self._lang, *(["--store", self._store_url] if self._store_url else [])]
        begin = time.time()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=_nice) as process:
            while process.poll() is None:
                if self._stop.wait(1.0):
                    process.terminate()  # what it had finished is kept, and the next time goes on
                    break
            said = process.communicate()[0].strip().splitlines()
        log.info("retrain %s: exit %s after %.0f s: %s", name, process.returncode, time.time() - begin, said[-1] if said else "")


def _nice() -> None:
    import os

    os.nice(15)


def _schedule(line: str) -> tuple[str, Schedule]:
    name, sign, cron = line.partition("=")
    if not sign or not name.strip():
        raise InputError("'{line}' is no plan for retraining. Write it like 'churn=0 3 * * 1': the model, and a cron line.", line=line[:80])
    return name.strip(), Schedule(cron.strip())
