"""Ask a model one row, or the history of one series, and see what the answer rests on. Tries are not written down."""

from __future__ import annotations

import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

from assay.data.dataset import Column
from assay.data.history import AHEAD, HISTORY
from assay.errors import InputError
from assay.serve.explaining import explained
from assay.serve.held import Held, example_row
from assay.serve.page.answered import show_answer, show_fan
from assay.serve.page.desk import View, Visit
from assay.serve.page.parts import (
    area,
    box,
    button,
    card,
    empty,
    field,
    file_input,
    form,
    line,
    select,
    tag,
)
from assay.ship.bundle import Bundle
from assay.words import say

MOST_LEVELS = 60  # of a category that are offered; more are typed
MOST_FILE = 16 << 20
_AT_ONCE = threading.Semaphore(2)  # tries of all visits together: each asks the model some hundred rows, and the service answers beside them
_SUFFIXES = {"image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"), "audio": (".wav", ".flac", ".ogg", ".mp3")}


async def build(visit: Visit) -> None:
    held = chosen_model(visit)
    if held is None:
        return
    number = [0]
    asked, answered = _halves(visit, held)

    async def example(step: int) -> None:
        number[0] += step
        asked.clear()
        with asked:
            _form(visit, held, await visit.do("", lambda: example_row(held.champion.bundle, number[0]) or {}) or {}, answered, example)

    await example(0)


def chosen_model(visit: Visit) -> Held | None:
    """The model that the address names, the first one without; a choice where there are several."""
    names = visit.app.shelf.names()
    if not names:
        empty(visit.say("No model is served yet."), visit.say("Play a contest and serve its winner, or: assay serve RUN/winner.assay"))
        return None
    name = visit.query.get("model", names[0])
    name = name if name in names else names[0]
    if len(names) > 1:
        field(visit.say("Model"), lambda: select("model", [(n, n) for n in names], name, lambda to: visit.client.open(f"{visit.client.request.url.path}?model={to}") if to in names else None), kind="inline")
    return visit.app.shelf.get(name)


def _halves(visit: Visit, held: Held) -> tuple[Any, Any]:
    with box("halves"):
        with card(visit.say("Question"), f"{held.model} · {visit.say('version {version}', version=held.champion.version.version)} · {held.champion.bundle.candidate.name}"):
            asked = box()
        with card(visit.say("Answer")):
            answered = box("answer", aria_live="polite")
            with answered:
                tag("p", visit.say("Nothing asked yet."), "how")
    return asked, answered


# ---- the question


def _form(visit: Visit, held: Held, row: dict[str, Any], answered: Any, example: Any) -> None:
    bundle = held.champion.bundle
    files: dict[str, bytes] = {}
    columns = list(bundle.schema.features)

    async def ask(given: dict[str, Any]) -> None:
        answered.clear()
        with answered:
            tag("p", visit.say("Asking …"), "how")
        if bundle.task.by_rows:
            found = await visit.do("predict", lambda: _answered(held, read_row(columns, given, files)))
            draw = partial(show_answer, visit, held, files)
        else:
            found = await visit.do("predict", lambda: bundle.predict_one(_history(bundle, given)))
            draw = partial(show_fan, visit)
        answered.clear()
        with answered:
            if found is None:
                tag("p", visit.say("No answer."), "how")
            else:
                draw(found)

    with form(ask, "questions"):
        if bundle.task.by_rows:
            with box("grid"):
                for i, column in enumerate(columns):
                    _input(visit, held, column, f"f{i}", row.get(column.name), files)
        else:
            _series(visit, bundle)
        with box("row"):
            button(visit.say("Ask"), kind="main", type="submit")
            if bundle.task.by_rows and row:
                button(visit.say("Another example row"), lambda: example(1))


def _input(visit: Visit, held: Held, column: Column, name: str, value: Any, files: dict[str, bytes]) -> None:
    text = "" if value is None else str(value)
    if column.kind in _SUFFIXES:
        async def arrived(path: Path, shown: str) -> None:
            files[column.name] = path.read_bytes()
            path.unlink(missing_ok=True)

        field(column.name, lambda: file_input(visit, _SUFFIXES[column.kind], arrived, most=MOST_FILE), kind="wide")
    elif column.kind == "number":
        field(column.name, lambda: line(name, text, inputmode="decimal"), column.unit or "")
    elif column.kind == "category":
        levels = _levels(held, column.name)
        if 0 < len(levels) <= MOST_LEVELS:
            field(column.name, lambda: select(name, [("", "–"), *((v, v) for v in levels)], text))
        else:
            field(column.name, lambda: line(name, text))
    elif column.kind == "text":
        field(column.name, lambda: area(name, text, rows=4), kind="wide")
    elif column.kind == "sequence":
        steps = len(column.channels or ("",))
        field(column.name, lambda: area(name, "", rows=6), visit.say("A line a step, {n} numbers in each: {channels}.", n=steps, channels=list(column.channels or ("–",))), kind="wide")
    else:
        field(column.name, lambda: line(name, text), visit.say("Such as 2026-03-05 08:00.") if column.kind == "time" else "")


def _levels(held: Held, name: str) -> list[str]:
    reference = held.champion.bundle.reference
    if reference is None or name not in reference.columns:
        return []
    return sorted(str(v) for v in reference[name].unique().to_list() if v is not None)


def read_row(columns: list[Column], given: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    """What stands in the form as a row that a model can be asked. Raises InputError."""
    row: dict[str, Any] = {}
    for i, column in enumerate(columns):
        text = str(given.get(f"f{i}", "")).strip()
        if column.kind in _SUFFIXES:
            if column.name not in files:
                raise InputError("'{name}' needs a file: choose one, and wait until it has arrived.", name=column.name)
            row[column.name] = files[column.name]
        elif not text:
            row[column.name] = None
        elif column.kind == "number":
            row[column.name] = _number(text, column.name)
        elif column.kind == "sequence":
            row[column.name] = [[_number(v, column.name) for v in re.split(r"[,;\s]+", step.strip())] for step in text.splitlines() if step.strip()]
        else:
            row[column.name] = text
    return row


def _number(text: str, name: str) -> float:
    try:
        return float(text.replace("−", "-").replace(" ", ""))
    except ValueError:
        raise InputError("'{name}' is '{text}', and a number is expected. Leave it empty if it is not known.", name=name, text=text[:40]) from None


# ---- a series


def _covariates(bundle: Bundle) -> tuple[list[str], list[str], list[Column]]:
    """(columns given for each step of the history, those of them given for the steps to come too, columns given once)."""
    channels = {c.name: list(c.channels or ()) for c in bundle.schema.columns if c.name in (HISTORY, AHEAD)}
    return channels.get(HISTORY, [])[1:], channels.get(AHEAD, []), [c for c in bundle.schema.features if c.kind in ("number", "category")]


def _series(visit: Visit, bundle: Bundle) -> None:
    steps, ahead, once = _covariates(bundle)
    field(visit.say("History, the oldest value first"), lambda: area("history", rows=6, required=True),
          visit.say("Numbers between commas, blanks or line breaks; pasted from a column of a spreadsheet. An empty place is a dash."))
    for i, name in enumerate(steps):
        field(name, lambda i=i: area(f"c{i}", rows=3), visit.say("For each step of the history and of the forecast.") if name in ahead else visit.say("For each step of the history."))
    with box("grid"):
        for i, column in enumerate(once):
            field(column.name, lambda i=i: line(f"s{i}"))
        field(visit.say("Time of the first step to forecast"), lambda: line("origin"), visit.say("Such as 2026-03-05 08:00; may be left out."))


def _history(bundle: Bundle, given: dict[str, Any]) -> dict[str, Any]:
    """What stands in the form as a series that a model can be asked. Raises InputError."""
    def numbers(key: str, name: str) -> list[float | None]:
        cells = [c for c in re.split(r"[,;\s]+", str(given.get(key, "")).strip()) if c]
        return [None if c in ("-", "–", "null", "nan", "NA") else _number(c, name) for c in cells]

    steps, _, once = _covariates(bundle)
    out: dict[str, Any] = {"history": numbers("history", "history")} | {name: numbers(f"c{i}", name) for i, name in enumerate(steps)}
    for i, column in enumerate(once):
        text = str(given.get(f"s{i}", "")).strip()
        out[column.name] = None if not text else _number(text, column.name) if column.kind == "number" else text
    origin = str(given.get("origin", "")).strip()
    return out | ({"origin": origin} if origin else {})


def _answered(held: Held, row: dict[str, Any]) -> dict[str, Any]:
    with _AT_ONCE:
        return {"answer": held.champion.bundle.predict_one(row), "row": row, "explained": explained(held, row)}


VIEW = View("/try", say("Try"), say("Ask the champion one row and see what the answer rests on. Tries are not written down."), "predict", build)
