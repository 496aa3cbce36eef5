"""Feedback on answers: acknowledged only when it is in the store."""

from __future__ import annotations

import asyncio
from typing import Any

from assay.errors import AssayError
from assay.serve.held import Held, Shelf
from assay.serve.http import Asked, Refused, Said, as_json, shown
from assay.serve.mask import masked
from assay.serve.wire import only_known
from assay.store.records import Feedback
from assay.store.store import Store
from assay.store.writer import Writer
from assay.tasks.base import Task
from assay.tasks.labels import is_class, label_of
from assay.words import Text, say

MOST_ITEMS = 10_000
KINDS = ("label", "accept", "edit", "reject")
_FIELDS = frozenset(("id", "label", "kind", "note", "row", "model"))


class Labels:
    def __init__(self, shelf: Shelf, store: Store, writer: Writer, *, mask: bool = False) -> None:
        self._shelf, self._store, self._writer, self._mask = shelf, store, writer, mask

    async def feedback(self, asked: Asked) -> Said:
        """{"id", "label"}, or {"items": [...]}: all are kept, or none and the reason."""
        given = asked.json()
        if not isinstance(given, dict):
            raise Refused(422, "The body is no object. Send {{\"id\": ID, \"label\": LABEL}} or {{\"items\": [{{...}}, ...]}}.")
        name = asked.query().get("model") or given.get("model")
        many = "items" in given
        items = given["items"] if many else [given]
        if not isinstance(items, list) or not items or (many and given.keys() - {"items", "model"}):
            raise Refused(422, "'items' is a list with at least one object of 'id' and 'label'.")
        if len(items) > MOST_ITEMS:
            raise Refused(413, "{found:,} items are more than {most:,}. Send fewer at a time, or use `assay feedback import`.", found=len(items), most=MOST_ITEMS)
        read = [self._read(item, name, i + 1 if many else None, asked) for i, item in enumerate(items)]
        await asyncio.to_thread(self._known, [f for f in read if f.prediction is not None])
        done = await asyncio.gather(*(asyncio.wrap_future(self._writer.submit(one)) for one in read))
        asked.model = read[0].model
        return as_json({"kept": len(done)} | ({} if many else {"feedback": done[0]}), 201)

    def _read(self, item: Any, name: Any, number: int | None, asked: Asked) -> Feedback:
        where = say("Item {number}: ", number=number) if number else say("")
        if not isinstance(item, dict):
            raise _wrong(where, say("it is no object of 'id' and 'label'."))
        if unknown := sorted(str(k) for k in item if k not in _FIELDS):
            raise _wrong(where, say("the fields {unknown} are not known. There are: {known}.", unknown=[shown(u) for u in unknown[:5]], known=sorted(_FIELDS)))
        model = item.get("model", name)
        if model is not None and not isinstance(model, str):
            raise _wrong(where, say("'model' is the name of a model, a string."))
        held = self._shelf.get(model)
        kind, prediction, row, note = item.get("kind", "label"), item.get("id"), item.get("row"), item.get("note")
        if kind not in KINDS:
            raise _wrong(where, say("the kind is one of {kinds}.", kinds=list(KINDS)))
        if prediction is None and row is None:
            raise _wrong(where, say("an 'id' of an answer is missing, or a 'row' with its columns."))
        if prediction is not None and not (isinstance(prediction, str) and 0 < len(prediction) <= 40):
            raise _wrong(where, say("'id' is the id of an answer, a string of at most 40 characters."))
        if note is not None and not (isinstance(note, str) and len(note) <= 4000):
            raise _wrong(where, say("'note' is a text of at most 4,000 characters."))
        if row is not None:
            self._row_read(held, row, where)
        label = item.get("label")
        if kind in ("label", "edit"):
            if "label" not in item or label is None:
                raise _wrong(where, say("a 'label' is missing: what the answer should have been."))
            task = held.champion.bundle.task
            reason = label_refused(task, label)
            if reason is not None:
                raise _wrong(where, reason)
            label = label_of(task, label)
        return Feedback(held.model, kind, prediction, label, masked(row) if self._mask and row is not None else row, "api", asked.key.id, note)

    def _row_read(self, held: Held, row: Any, where: Text) -> None:
        if not isinstance(row, dict):
            raise _wrong(where, say("'row' is no object of column names and values."))
        try:
            only_known([row], held.champion.known)
            held.champion.bundle.read([row])
        except AssayError as error:
            raise _wrong(where, error.text) from None

    def _known(self, given: list[Feedback]) -> None:
        """An id that was never given out is a typing error, and its label would be lost unseen."""
        for one in given:
            assert one.prediction is not None
            found = self._store.predictions.get(one.prediction)
            if found is None and self._writer.drain(2.0):  # it may have been given out a moment ago
                found = self._store.predictions.get(one.prediction)
            if found is None:
                raise Refused(404, "No answer has the id '{id}'. It is in each answer of /v1/predict; answers that were kept too long ago are gone.", id=shown(one.prediction or ""))
            if found.model != one.model:
                raise Refused(404, "The answer '{id}' is not of the model '{model}'.", id=shown(one.prediction or ""), model=one.model)


def label_refused(task: Task, label: Any) -> Text | None:
    """None if this could be an answer of the task, else the reason."""
    classes = getattr(task, "classes", None)
    if classes is None:
        return None if not isinstance(label, str) and label_of(task, label) is not None else say("the label '{label}' is no finite number.", label=shown(str(label)))
    if is_class(task, label):
        return None
    return say("the label '{label}' is none of {classes}.", label=shown(str(label)), classes=[str(c) for c in classes[:20]] + (["…"] if len(classes) > 20 else []))


def _wrong(where: Text, reason: Text) -> Refused:
    return Refused(422, "{where}{reason}", where=where, reason=reason)
