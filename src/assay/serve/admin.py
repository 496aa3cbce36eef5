"""What is there, and what may be changed: schema, versions, stages, alarms, the rows to label next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from assay.serve.held import Held, Shelf, example_row
from assay.serve.http import Asked, Refused, Said, as_json
from assay.serve.openapi import columns, document
from assay.store.records import Alarm, Stage, Version
from assay.store.store import Store
from assay.watch.queue import queue
from assay.words import Text


class Admin:
    def __init__(self, shelf: Shelf, store: Store, *, changed: Callable[[], Any]) -> None:
        self._shelf, self._store, self._changed = shelf, store, changed

    # ---- to read

    async def schema(self, asked: Asked) -> Said:
        name = asked.query().get("model")
        shelf = [self._shelf.get(name)] if name else self._shelf.all()
        return as_json({"models": [_described(h) for h in shelf]})

    async def openapi(self, asked: Asked) -> Said:
        return as_json(document(self._shelf.all()))

    async def models(self, asked: Asked) -> Said:
        return as_json({"models": await asyncio.to_thread(self._models)})

    async def alarms(self, asked: Asked) -> Said:
        found = await asyncio.to_thread(self._store.alarms.open, asked.query().get("model"))
        return as_json({"alarms": [alarm_json(a, asked.language) for a in found]})

    async def queue(self, asked: Asked) -> Said:
        """The rows whose label is worth most, most valuable first."""
        query = asked.query()
        held = self._shelf.get(query.get("model"))
        asked.model = held.model
        limit = query.get("limit", "20")
        if not limit.isdigit() or not 1 <= int(limit) <= 500:
            raise Refused(422, "'limit' is a whole number from 1 to 500.")
        found = await asyncio.to_thread(queue, self._store, held.champion.bundle, held.model, int(limit))
        return as_json({"model": held.model, "rows": [{"id": a.prediction.id, "row": a.prediction.row, "answer": a.prediction.answer, "doubt": a.prediction.doubt, "why": a.why} for a in found]})

    # ---- to change

    async def promote(self, asked: Asked) -> Said:
        held, given = self._asked(asked)
        version = given.get("version", held.stage.challenger)
        if not isinstance(version, int) or isinstance(version, bool):
            raise Refused(422, "'version' is the number of the version to promote; '{model}' has no challenger.", model=held.model)
        return await self._do(held, lambda: self._store.versions.promote(held.model, version, _actor(asked), _reason(given)))

    async def rollback(self, asked: Asked) -> Said:
        held, given = self._asked(asked)
        return await self._do(held, lambda: self._store.versions.rollback(held.model, _actor(asked), _reason(given)))

    async def challenge(self, asked: Asked) -> Said:
        held, given = self._asked(asked)
        version, mode, share = given.get("version"), given.get("mode", "shadow"), given.get("share", 0.0)
        if not isinstance(version, int) or isinstance(version, bool):
            raise Refused(422, "'version' is the number of the version that shall challenge.")
        if mode not in ("shadow", "canary") or not isinstance(share, (int, float)) or not 0 <= share <= 0.5:
            raise Refused(422, "'mode' is shadow or canary, 'share' the part of requests that a canary answers, from 0 to 0.5.")
        return await self._do(held, lambda: self._store.versions.challenge(held.model, version, mode, float(share), _actor(asked)))

    async def withdraw(self, asked: Asked) -> Said:
        held, given = self._asked(asked)
        return await self._do(held, lambda: self._store.versions.withdraw(held.model, _actor(asked), _reason(given)))

    async def close_alarm(self, asked: Asked) -> Said:
        number = asked.scope["path"].split("/")[-2]
        if not number.isdigit() or len(number) > 18:
            raise Refused(404, "No alarm has this number.")
        await asyncio.to_thread(self._store.alarms.close, int(number), _actor(asked))
        return as_json({"closed": int(number)})

    def _asked(self, asked: Asked) -> tuple[Held, dict[str, Any]]:
        held = self._shelf.get(asked.scope["path"].split("/")[-2])
        asked.model = held.model
        given = asked.json() if asked.body else {}
        if not isinstance(given, dict):
            raise Refused(422, "The body is an object, or empty.")
        return held, given

    async def _do(self, held: Held, change: Callable[[], Any]) -> Said:
        await asyncio.to_thread(change)
        await asyncio.to_thread(self._changed)  # this worker follows at once, the others within a second
        return as_json({"model": held.model, "stage": stage_json(self._store.versions.stage(held.model))})

    def _models(self) -> list[dict[str, Any]]:
        return [{"model": name, "stage": stage_json(self._store.versions.stage(name)), "versions": [version_json(v) for v in self._store.versions.of(name)]}
                for name in self._store.versions.models()]


def stage_json(stage: Stage | None) -> dict[str, Any] | None:
    return None if stage is None else {"champion": stage.champion, "challenger": stage.challenger, "mode": stage.mode, "share": stage.share, "since": stage.since, "previous": stage.previous}


def version_json(version: Version) -> dict[str, Any]:
    return {"version": version.version, "digest": version.digest, "made": version.made, "source": version.source, "facts": version.facts}


def alarm_json(alarm: Alarm, language: str) -> dict[str, Any]:
    return {"id": alarm.id, "at": alarm.at, "model": alarm.model, "code": alarm.code, "level": alarm.level, "text": Text.of(alarm.text).to(language), "facts": alarm.facts}


def _described(held: Held) -> dict[str, Any]:
    bundle = held.champion.bundle
    classes = getattr(bundle.task, "classes", None)
    return {"model": held.model, "version": held.champion.version.version, "task": bundle.task.name, "candidate": bundle.candidate.name, "target": bundle.schema.target,
            "columns": columns(bundle.schema), **({"classes": [str(c) for c in classes]} if classes else {}), "example": example_row(bundle)}


def _actor(asked: Asked) -> str:
    return f"key:{asked.key.id}"


def _reason(given: dict[str, Any]) -> str:
    reason = given.get("reason", "")
    if not isinstance(reason, str) or len(reason) > 1000:
        raise Refused(422, "'reason' is a text of at most 1,000 characters.")
    return reason
