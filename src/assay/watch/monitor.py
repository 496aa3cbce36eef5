"""The watch of one version of a model while it serves: counts what passes, writes it to the store now and then, and checks it against the reference.

Whatever several workers write is read back by each, so all of them check the same rows. Bounded: at most PANES sketches are held, and
rows only until a gauge is learnt where the bundle brings none.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column, Schema
from assay.data.read import conform
from assay.errors import InputError
from assay.watch import budgets, drift, quality
from assay.watch.alarms import Alarms
from assay.watch.finding import Finding
from assay.watch.gauge import Gauge
from assay.watch.panes import Pane, Panes
from assay.watch.performance import Judged, estimated, expected, loss_of, realised
from assay.watch.reference import answers_frame, gauge_of_answers, given, watched_columns
from assay.watch.sketch import Numbers
from assay.words import Text, say

LEARNT_ROWS = 500  # live rows that become the reference of what the bundle brings none for
LEARNT_MB = 32.0
SCALES = (200, 1000, 5000)  # rows looked back on: the fewest see a large shift soon, the most a small one
FLUSH_ROWS, FLUSH_S = 200, 3600.0
LABELS_S = 7 * 86400.0
MOST_LABELS = 5000
_FAR = 9e9  # a learnt reference is stored as sketches of no rows that never end, so no retention takes it


@dataclass(frozen=True)
class State:
    """What `assay watch` and the page show: where the references come from, rows seen, the last findings."""

    model: str
    version: int
    reference: Text
    rows: int
    panes: int
    learning: int
    findings: tuple[Finding, ...]


class Monitor:
    """`update` is called with what was answered, in batches and off the request path; `check` by a timer. Safe for threads.

    alpha: the chance that a stream which never changes ever raises a statistical alarm, over all columns, windows and checks of its life.
    tolerated: the shift that is nothing to speak of (`drift.TOLERATED`). budget: latency and errors allowed. alarms: None keeps them in the store and logs them.
    """

    def __init__(self, bundle: Any, store: Any, model: str, version: int, *, alarms: Alarms | None = None, alpha: float = drift.ALPHA, tolerated: float = drift.TOLERATED,
                 budget: budgets.Budget | None = None) -> None:
        self.bundle, self.store, self.model, self.version, self.alpha, self.tolerated = bundle, store, model, version, alpha, tolerated
        self.budget = budget or budgets.Budget()
        self.alarms = alarms or Alarms(store, model)
        self.schema: Schema = bundle.schema.without_target()
        self.by_rows = bool(bundle.task.by_rows)
        self.judged = Judged.of(bundle.facts)
        self.rows_gauge, self.answers_gauge = given(bundle) if self.by_rows else (None, None)
        self.learnt: list[str] = []
        known = {c.name for c in self.rows_gauge.columns} if self.rows_gauge else set()
        self._to_learn: tuple[Column, ...] = tuple(c for c in watched_columns(self.schema) if c.name not in known) if self.by_rows else ()
        self._more_gauge: Gauge | None = None  # of columns the bundle has no reference rows of: pictures, sounds, sequences
        self._waiting: list[tuple[pl.DataFrame, pl.DataFrame]] = []
        self._now = Pane()
        self._panes = Panes(max(SCALES))
        self._checked: tuple[int, list[Finding]] = (0, [])
        self._last: list[Finding] = []
        self._lock = threading.RLock()
        self._recall()

    # ---- counting

    def update(self, rows: Sequence[dict[str, Any]] | pl.DataFrame, answers: Sequence[dict[str, Any]], at: float | None = None) -> None:
        """rows: as asked, or as `conform` made them; answers: of the same length and order. Rows that cannot be read are counted as unreadable and left out."""
        import time

        at = time.time() if at is None else at
        if not self.by_rows or not len(rows):
            return
        try:
            frame = self._conformed(rows)
        except InputError:
            with self._lock:
                self._now.unread += len(rows)
            return
        told = answers_frame(answers)
        losses = expected(self.bundle.task, answers)
        with self._lock:
            self._now.seen(at, frame.height)
            if self.rows_gauge is not None:
                self._now.add("rows", self.rows_gauge.measure(frame))
            if isinstance(losses, np.ndarray) and np.isfinite(losses).all():
                self._now.expect(losses)
            self._learn_or_count(frame, told)

    def _conformed(self, rows: Sequence[dict[str, Any]] | pl.DataFrame) -> pl.DataFrame:
        if isinstance(rows, pl.DataFrame):
            wanted = {"number": pl.Float64, "category": pl.String, "text": pl.String}
            if all(c.name in rows.columns and rows.schema[c.name] == wanted.get(c.kind, pl.Null) for c in self.schema.columns):
                return rows
        return conform(rows, self.schema).frame

    def _learn_or_count(self, frame: pl.DataFrame, told: pl.DataFrame) -> None:
        more = frame.select(c.name for c in self._to_learn)
        if self.answers_gauge is not None and (self._more_gauge is not None or not self._to_learn):
            self._now.add("answers", self.answers_gauge.measure(told, copied=False))
            if self._more_gauge is not None:
                self._now.add("more", self._more_gauge.measure(more))
            return
        self._waiting.append((more, told))
        held = sum(f.height for _, f in self._waiting)
        mb = sum(f.estimated_size("mb") for f, _ in self._waiting)
        if held >= LEARNT_ROWS or (mb > LEARNT_MB and held >= 2 * drift.LEAST_ROWS):
            self._recall()  # another worker may have been quicker
            more, told = (pl.concat([pair[i] for pair in self._waiting]) if self._waiting[0][i].width else self._waiting[0][i] for i in (0, 1))
            self._waiting = []
            stored: dict[str, bytes] = {}
            if self.answers_gauge is None:
                self.answers_gauge = gauge_of_answers(told)
                stored["answers"] = self.answers_gauge.to_bytes()
            if self._to_learn and self._more_gauge is None:
                self._more_gauge = Gauge.learn(more, self._to_learn)
                stored["more"] = self._more_gauge.to_bytes()
            if stored:
                self.learnt += list(stored)
                self.store.sketches.add(self.model, self.version, 0.0, _FAR, 0, Pane(gauges=stored).to_bytes())
                self._recall()

    def _recall(self) -> None:
        """The references that a worker of this version learnt first, if any."""
        for held in self.store.sketches.between(self.model, self.version, _FAR - 1, _FAR):
            if held.rows == 0:
                gauges = Pane.from_bytes(held.data).gauges
                if "answers" in gauges and (self.answers_gauge is None or "answers" in self.learnt):
                    self.answers_gauge = Gauge.from_bytes(gauges["answers"])
                if "more" in gauges and self._to_learn:
                    self._more_gauge = Gauge.from_bytes(gauges["more"])
                self.learnt = [*gauges]
                return

    # ---- writing and checking

    def flush(self, at: float, *, force: bool = False) -> int | None:
        """Writes what was counted to the store if it is enough (FLUSH_ROWS, or an hour old, or `force` at the end); its number there."""
        with self._lock:
            if not self._now.rows or not (force or self._now.rows >= FLUSH_ROWS or at - self._now.start >= FLUSH_S):
                return None
            pane, self._now = self._now, Pane()
        try:
            return int(self.store.sketches.add(self.model, self.version, pane.start, pane.end, pane.rows, pane.to_bytes()))
        except Exception:
            with self._lock:  # the disk is full, say: nothing counted is lost, the next flush tries again
                self._now = pane.merge(self._now)
            raise

    def check(self, at: float) -> list[Finding]:
        """What is not as it was, gravest first; opens and closes alarms in the store. Looking often costs nothing: each number of a sketch in the store may spend its own
        part of `alpha` once, and a check without new rows gives the answer of the one before."""
        self.flush(at)
        findings: list[Finding] = []
        judged = set()
        if self.by_rows:
            newest = self._panes.read(self.store, self.model, self.version, at)
            if newest != self._checked[0]:
                found, could = self._statistics(newest, at)
                self._checked = (newest, found)
                judged |= could  # without new rows nothing is judged anew, and no alarm becomes quieter by waiting
            findings += self._checked[1]
        findings += self._traffic(at, judged)
        if self.by_rows and self.rows_gauge is None and self._more_gauge is None:
            findings.append(Finding("no_reference", "info", say("The bundle brings no reference rows, so its first {n} live rows become the reference: what had shifted before them is not seen.",
                                                                  n=LEARNT_ROWS), {}))
        order = {level: i for i, level in enumerate(("critical", "warning", "info"))}
        self._last = sorted((f for f in findings if f.level in order), key=lambda f: (order[f.level], f.facts.get("p") or 0.0))
        self.alarms.settle(self._last, at, judged=sorted(judged))
        return self._last

    def _statistics(self, newest: int, at: float) -> tuple[list[Finding], set[str]]:
        """All that has a p-value, of every scale, in one family: alpha is spent once for a sketch number."""
        tested: list[Finding] = []
        for rows in SCALES:
            window = self._panes.last(rows)
            if window is None:
                break
            for name, gauge in (("rows", self.rows_gauge), ("more", self._more_gauge), ("answers", self.answers_gauge)):
                recent = window.sketches.get(name)
                if gauge is not None and recent is not None and recent.gauge == gauge.reference.gauge:
                    tested += drift.compare(gauge, recent, tolerated=self.tolerated)
                    tested += quality.check(gauge, recent) if name != "answers" else []
            if self.judged is not None and isinstance(window.expected, Numbers) and window.expected.n >= drift.LEAST_ROWS:
                tested.append(estimated(window.expected.n, window.expected.mean, window.expected.variance, self.judged)[1])
            if window.rows < rows:
                break  # there are no more rows: a longer look back would test the same again
        if (labelled := self._labelled(at)) is not None:
            tested.append(labelled)
        could = {f.code.partition(":")[0] for f in tested}
        kept: dict[str, Finding] = {}
        for f in drift.controlled(tested, drift.spent(newest, self.alpha)):
            if f.alarming and (f.code not in kept or f.facts.get("corrected", 0.0) < kept[f.code].facts.get("corrected", 0.0)):
                kept[f.code] = f
        return list(kept.values()), could

    def _labelled(self, at: float) -> Finding | None:
        if self.judged is None:
            return None
        losses = []
        for prediction, label in self.store.predictions.labelled(self.model, since=at - LABELS_S, version=self.version):
            if prediction.arm == "shadow" or label.label is None:
                continue
            loss = loss_of(self.bundle.task, prediction.answer, label.label)
            if loss is not None:
                losses.append(loss)
        found = realised(np.array(losses[-MOST_LABELS:]), self.judged)
        return None if isinstance(found, Text) else found[1]

    def _traffic(self, at: float, judged: set[str]) -> list[Finding]:
        rows = self.store.traffic.between(self.model, at - budgets.PERIOD_S, at)
        judged |= {"budget_errors", "budget_latency", "volume_drop", "volume_surge", "refused"}
        hour = [r for r in rows if r.minute * 60 >= at - 3600]
        total, turned = (sum(getattr(r, name) for r in hour) for name in ("requests", "refused"))
        found = [f for f in drift.controlled(quality.refused(total + turned, turned), 1e-3) if f.alarming]
        return budgets.check(rows, at, self.budget) + found + quality.volume(*_hours(rows, at))

    def state(self) -> State:
        with self._lock:
            if not self.by_rows:
                where = say("forecasts are watched by their traffic and labels only")
            elif self.rows_gauge is not None and "rows" in (self.bundle.facts.get("watch") or {}):
                where = say("sketches of all {n:,} training rows", n=self.rows_gauge.reference.rows)
            elif self.rows_gauge is not None:
                where = say("the bundle's {n:,} reference rows; for its answers the first {m} live rows", n=self.rows_gauge.reference.rows, m=LEARNT_ROWS)
            else:
                where = say("none in the bundle; the first {m} live rows", m=LEARNT_ROWS)
            return State(self.model, self.version, where, self._panes.rows + self._now.rows, len(self._panes.held), sum(f.height for _, f in self._waiting), tuple(self._last))


def _hours(rows: Sequence[Any], at: float) -> tuple[list[float], float]:
    """Requests of the same full hour of each earlier day that the traffic knows, and of the last full hour."""
    end = at // 3600 * 3600
    first = min((r.minute * 60 for r in rows), default=end)
    sums: dict[int, float] = {}
    for r in rows:
        back = int((end - r.minute * 60 - 1) // 3600) if r.minute * 60 < end else -1
        sums[back] = sums.get(back, 0.0) + r.requests
    days = [d for d in range(1, 15) if end - (24 * d + 1) * 3600 >= first]
    return [sums.get(24 * d, 0.0) for d in days], sums.get(0, 0.0)

