"""Predictions: who answers a request, and what is written down of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from assay.errors import AssayError
from assay.serve.batching import Line
from assay.serve.held import Arm, Held, Shelf, rows_given
from assay.serve.http import Asked, Refused, Said, as_json, encode, shown
from assay.serve.mask import masked
from assay.serve.wire import ARROW, arrow, only_known
from assay.store.records import Prediction, new_id
from assay.store.writer import Writer

INLINE_ROWS = 16  # more rows are answered on a thread, so that the others do not wait for them
_PLAIN = {float, int, bool, type(None), str}  # of nearly all rows: one look at all of them
ROOM_S = 0.02  # the writer's next group is on the disk within some tens of milliseconds
PATIENCE_S = 2.0  # answers may come faster than a disk takes them, for a while; then they are refused
MOST_KEPT = 65_536  # characters of a row that are kept
MOST_SHADOWS = 2_000  # rows that wait for the challenger; more are not asked, and counted


@dataclass(slots=True)
class Counted:
    """What the metrics and the watch are told of each request: one call for the rows of one answer."""

    held: Held
    arm: Arm
    label: str
    rows: list[dict[str, Any]] | None
    answers: list[dict[str, Any]]


class Answering:
    """Champion or canary answers, the challenger answers in the shadow, and every answer is handed to the writer before it is handed out."""

    def __init__(self, shelf: Shelf, writer: Writer, *, keep_rows: bool = True, mask: bool = False, media: Path | None = None, observe: Callable[[Counted], None] = lambda c: None) -> None:
        self.shelf, self._writer = shelf, writer
        self._keep_rows, self._mask, self._media, self._observe = keep_rows, mask, media, observe
        self._lines: dict[Arm, Line] = {}
        self._shadows = ThreadPoolExecutor(1, thread_name_prefix="shadows")
        self.shadows_waiting = 0
        self.shadows_dropped = 0

    @property
    def room(self) -> bool:
        """Whether an answer can be written down at once."""
        return self._writer.room

    # ---- one request

    async def predict(self, asked: Asked) -> Said:
        held, given = await rows_given(self.shelf, asked)
        if not held.champion.bundle.task.by_rows:
            raise Refused(422, "'{model}' forecasts series; ask /v1/forecast.", model=held.model)
        began = time.perf_counter()
        at, number = time.time(), new_id()
        arm, label = chosen(held, number)
        rows = given.rows
        if type(rows) is list:
            only_known(rows, arm.known)
            if given.single and arm.inline:
                await self._wait_for_room()
                return Said(self.one(held, arm, label, number, rows[0], at=at, actor=asked.key.id))
            if arm.inline and given.count <= INLINE_ROWS:
                answers = arm.bundle.predict(rows)
            else:
                answers = await self._line(arm).ask(rows, given.count)
        else:
            answers = await self._line(arm).ask(rows, given.count)
        ms = 1000 * (time.perf_counter() - began)
        ids = [number] if len(answers) == 1 else [f"{number}.{i}" for i in range(len(answers))]
        await self._written(held, arm, label, rows, answers, ids, at=at, ms=ms / len(answers), actor=asked.key.id)
        if asked.kind == ARROW:
            return Said(arrow(pl.DataFrame(answers, infer_schema_length=None).with_columns(pl.Series("id", ids))), kind=ARROW,
                        headers=[(b"assay-model", held.model.encode()), (b"assay-version", str(arm.version.version).encode())])
        if given.single and len(answers) == 1:
            return Said(_told(arm, number, answers[0]))
        return as_json({"model": held.model, "version": arm.version.version, "answers": [{"id": i, **a} for i, a in zip(ids, answers, strict=True)]})

    def one(self, held: Held, arm: Arm, label: str, number: str, row: dict[str, Any], *, at: float, actor: str) -> bytes:
        """The answer to one row by an arm that answers on the event loop, as JSON. Raises what the bundle raises, and Refused 503."""
        began = time.perf_counter()
        answer = arm.bundle.predict_one(row)
        kept = self._kept(row) if self._keep_rows else None
        if not self._writer.put(_prediction(number, arm, answer, label, at=at, ms=1000 * (time.perf_counter() - began), actor=actor, row=kept)):
            raise _unwritten()
        self._followed(held, arm, label, [row], [answer], [number])
        return _told(arm, number, answer)

    async def forecast(self, asked: Asked) -> Said:
        """One series: its history, or its rows; quantiles by step."""
        given = asked.json()
        if not isinstance(given, dict):
            raise Refused(422, "The body is no object. Send {{\"history\": [values], \"origin\": time}} or {{\"rows\": [{{...}}, ...]}}.")
        model = given.pop("model", None)
        held = self.shelf.get(asked.query().get("model") or (str(model) if model is not None else None))
        asked.model = held.model
        if held.champion.bundle.task.by_rows:
            raise Refused(422, "'{model}' answers rows; ask /v1/predict.", model=held.model)
        began, at, number = time.perf_counter(), time.time(), new_id()
        arm, label = chosen(held, number)
        answers = await self._line(arm).ask([given], 1)
        await self._written(held, arm, label, [given], answers, [number], at=at, ms=1000 * (time.perf_counter() - began), actor=asked.key.id)
        return Said(_told(arm, number, answers[0]))

    def _line(self, arm: Arm) -> Line:
        line = self._lines.get(arm)
        if line is None:
            line = self._lines[arm] = Line(arm)
            for old in [a for a in self._lines if a.version.model == arm.version.model and not self._in_use(a)]:
                self._lines.pop(old).close()
        return line

    def _in_use(self, arm: Arm) -> bool:
        held = self.shelf.get(arm.version.model)
        return arm in (held.champion, held.challenger) or self._lines[arm].waiting > 0

    # ---- what stays of it

    async def _written(self, held: Held, arm: Arm, label: str, rows: Any, answers: list[dict[str, Any]], ids: list[str], *, at: float, ms: float, actor: str) -> None:
        await self._wait_for_room()
        by_row = len(ids) == (len(rows) if isinstance(rows, list) else rows.height)
        listed: list[dict[str, Any]] | None = None
        if by_row:
            listed = rows if isinstance(rows, list) else rows.to_dicts()
        for i, (number, answer) in enumerate(zip(ids, answers, strict=True)):
            kept = self._kept(listed[i]) if listed is not None and self._keep_rows else None
            one = _prediction(number, arm, answer, label, at=at, ms=ms, actor=actor, row=kept)
            while not self._writer.put(one):
                if len(ids) == 1 or self._writer.trouble is not None:
                    raise _unwritten()
                await asyncio.sleep(ROOM_S)  # many rows may be more than the queue: they go in as the writer takes them out
            if i % INLINE_ROWS == INLINE_ROWS - 1:
                await asyncio.sleep(0)  # others are answered meanwhile
        self._followed(held, arm, label, listed, answers, ids)

    def _followed(self, held: Held, arm: Arm, label: str, rows: list[dict[str, Any]] | None, answers: list[dict[str, Any]], ids: list[str]) -> None:
        """What follows an answer that is written down: it is counted, and the arm that was not asked answers too."""
        self._observe(Counted(held, arm, label, rows, answers))
        if held.challenger is not None and rows is not None:
            self._shadow(held, held.challenger if arm is held.champion else held.champion, rows, ids)

    async def _wait_for_room(self) -> None:
        """Requests wait a moment while the writer catches up; not while the store is in trouble."""
        until = time.monotonic() + PATIENCE_S
        while not self._writer.room and self._writer.trouble is None and time.monotonic() < until:
            await asyncio.sleep(ROOM_S)

    def _shadow(self, held: Held, arm: Arm, rows: list[dict[str, Any]], ids: list[str]) -> None:
        """The arm that was not asked answers too, unseen, later, so that both can be compared on the same labels."""
        if self.shadows_waiting + len(rows) > MOST_SHADOWS:
            self.shadows_dropped += len(rows)
            return
        self.shadows_waiting += len(rows)

        def answer() -> None:
            try:
                began = time.perf_counter()
                answers = [arm.bundle.predict_one(rows[0])] if len(rows) == 1 else arm.bundle.predict(rows)
                ms = 1000 * (time.perf_counter() - began) / len(rows)
                for number, told in zip(ids, answers, strict=True):
                    self._writer.put(_prediction(new_id(), arm, told, "shadow", at=time.time(), ms=ms, actor="service", of=number))
            except (AssayError, ValueError):  # the client has its answer; a challenger that cannot answer has fewer pairs, which the test shows
                self.shadows_dropped += len(rows)
            finally:
                self.shadows_waiting -= len(rows)

        self._shadows.submit(answer)

    def _kept(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The row as it is written down: media by digest, long texts cut, personal data masked where asked."""
        if not self._mask and (kinds := set(map(type, row.values()))) <= _PLAIN and (str not in kinds or all(len(value) <= MOST_KEPT for value in row.values() if type(value) is str)):
            return row
        out = {}
        for name, value in row.items():
            if isinstance(value, (bytes, bytearray)):
                digest = hashlib.sha256(value).hexdigest()
                if self._media is not None:
                    place = self._media / digest
                    if not place.exists():
                        partial = place.with_suffix(".tmp")
                        partial.write_bytes(value)
                        partial.replace(place)
                value = {"sha256": digest, "bytes": len(value)}
            elif isinstance(value, (datetime, date)):
                value = value.isoformat()
            elif isinstance(value, str) and len(value) > MOST_KEPT:
                value = shown(value, MOST_KEPT)
            out[name] = value
        return masked(out) if self._mask else out

    async def close(self) -> None:
        await asyncio.to_thread(self._shadows.shutdown)
        for line in self._lines.values():
            line.close()


def _unwritten() -> Refused:
    return Refused(503, "Answers cannot be written down at the moment, and none is given that is not. Try again in a few seconds.", retry_s=2.0)


def _told(arm: Arm, number: str, answer: dict[str, Any]) -> bytes:
    """One answer, as JSON."""
    return encode({"id": number, "model": arm.version.model, "version": arm.version.version, **answer})


def _prediction(number: str, arm: Arm, answer: dict[str, Any], label: str, *, at: float, ms: float, actor: str, row: dict[str, Any] | None = None, of: str | None = None) -> Prediction:
    return Prediction(number, at, arm.version.model, arm.version.version, answer, row, label, of, doubt_of(answer, arm.classes), ms, actor)


def chosen(held: Held, number: str) -> tuple[Arm, str]:
    """The canary gets its share by the random part of the number, so that workers agree without talking."""
    if len(held.handed) > 1 and int(number[-6:], 16) < held.stage.share * 0x1000000:
        return held.handed[1], "challenger"
    return held.champion, "champion"


def doubt_of(answer: dict[str, Any], classes: Any) -> float | None:
    """0 where the model is sure of its label, 1 where all labels are alike; None where it gives no probability."""
    p = answer.get("probability")
    if p is None or not classes or len(classes) < 2:
        return None
    return min(1.0, max(0.0, (1.0 - float(p)) / (1.0 - 1.0 / len(classes))))
