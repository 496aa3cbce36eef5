"""Label what the model is least sure of: one row after the other, by mouse or by the keys 1 to 9."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from assay.serve.held import Held
from assay.serve.labels import label_refused
from assay.serve.page.desk import View, Visit, ago
from assay.serve.page.parts import bars, box, button, card, empty, figures, form, line, select, tag
from assay.serve.page.parts import field as labelled
from assay.serve.page.rows import show_row, told
from assay.serve.page.trying import chosen_model
from assay.store.records import Feedback, Prediction
from assay.watch.queue import queue
from assay.words import say

AT_ONCE = 40  # rows fetched; more are fetched when those are done
_WHY = {"doubt": say("the model is unsure, or no row like it has a label"), "random": say("drawn by lot"), "new": say("few rows like it have taught the model")}
BUTTONS = 12  # classes that get a button of their own; more are chosen from a list


@dataclass
class Desk:
    """What lies on the table: rows to do, and what was done in this visit, newest last."""

    waiting: list[tuple[Prediction, str]] = field(default_factory=list)
    done: list[tuple[Prediction, str, Any]] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    again: bool = False  # the row on the table was labelled in this visit already


async def build(visit: Visit) -> None:
    held = chosen_model(visit)
    if held is None:
        return
    if not held.champion.bundle.task.by_rows:
        empty(visit.say("'{model}' forecasts series: their labels are the values that come later, sent to /v1/feedback.", model=held.model))
        return
    desk, place = Desk(), box("halves")
    await _next(visit, held, desk, place)


async def _next(visit: Visit, held: Held, desk: Desk, place: Any) -> None:
    if not desk.waiting:
        seen = desk.skipped | {p.id for p, _, _ in desk.done}
        found = await visit.do("feedback", lambda: queue(visit.app.store, held.champion.bundle, held.model, min(500, AT_ONCE + len(desk.skipped))))
        desk.waiting = [(a.prediction, _WHY[a.why].to(visit.lang) if a.why in _WHY else "") for a in found or [] if a.prediction.id not in seen]
    place.clear()
    with place:
        if not desk.waiting:
            empty(visit.say("There is nothing to label."), visit.say("Rows come here when the service is asked, and is started without --no-rows."))
            _counter(visit, held, desk, place)
            return
        prediction, why = desk.waiting[0]
        with card(visit.say("Row"), f"{held.model} · {ago(visit, prediction.at)}" + (f" · {why}" if why else "")):
            if prediction.row:
                show_row(visit, prediction.row)
            else:
                empty(visit.say("This row was not kept; only its answer is known."))
        with box("stack"):
            _answer(visit, held, desk, place, prediction)
            _counter(visit, held, desk, place)


def _answer(visit: Visit, held: Held, desk: Desk, place: Any, prediction: Prediction) -> None:
    target = held.champion.bundle.schema.target or visit.say("Answer")
    classes = getattr(held.champion.bundle.task, "classes", None)

    async def give(label: Any) -> None:
        await _kept(visit, held, desk, place, prediction, label)

    async def skip() -> None:
        desk.skipped.add(prediction.id)
        desk.waiting.pop(0)
        desk.again = False
        await _next(visit, held, desk, place)

    with card(visit.say("What is '{target}'?", target=target)):
        if desk.again:
            tag("p", visit.say("You said '{label}'. That stands until you say something else.", label=str(desk.done[-1][2]) if desk.done else ""), "said inline")
        figures([(visit.say("The model says"), told(prediction.answer), visit.say("doubt {doubt:.0%}", doubt=prediction.doubt) if prediction.doubt is not None else "")])
        shares = sorted(((k[2:-1], float(v)) for k, v in prediction.answer.items() if k.startswith("p(") and isinstance(v, (int, float))), key=lambda s: -s[1])
        if shares:
            bars([(n, p, f"{p:.0%}") for n, p in shares[:6]], visit.say("Probabilities"))
        if classes is not None and len(classes) <= BUTTONS:
            with box("choices", role="group", aria_label=visit.say("Your answer")):
                for i, c in enumerate(classes):
                    made = button("", partial(give, c), "choice", data_key=str(i + 1) if i < 9 else None)
                    with made:
                        if i < 9:
                            tag("kbd", str(i + 1))
                        tag("span", str(c))
        elif classes is not None:
            with form(lambda given: give(classes[int(given["label"])])):
                labelled(visit.say("Your answer"), lambda: select("label", [(str(i), str(c)) for i, c in enumerate(classes)]))
                button(visit.say("Keep"), kind="main", type="submit")
        else:
            with form(lambda given: _number(visit, given, give)):
                labelled(visit.say("Your answer"), lambda: line("label", inputmode="decimal", required=True, autofocus=True))
                button(visit.say("Keep"), kind="main", type="submit")
        with box("row"):
            made = button("", skip, data_key="s")
            with made:
                tag("kbd", "S")
                tag("span", visit.say("Skip"))


async def _number(visit: Visit, given: dict[str, Any], give: Any) -> None:
    try:
        label = float(str(given.get("label", "")).replace("−", "-").replace(" ", ""))
    except ValueError:
        visit.tell(say("'{text}' is no number.", text=str(given.get("label", ""))[:40]), bad=True)
        return
    await give(label)


async def _kept(visit: Visit, held: Held, desk: Desk, place: Any, prediction: Prediction, label: Any) -> None:
    """Acknowledged when it is on the disk; the row stays where it is if that fails."""
    if not desk.waiting or desk.waiting[0][0].id != prediction.id:  # a second press of the same key
        return
    reason = label_refused(held.champion.bundle.task, label)
    if reason is not None:
        visit.tell(reason, bad=True)
        return
    row = desk.waiting.pop(0)
    one = Feedback(held.model, "label", prediction.id, label, source="page", actor=visit.session.actor)
    if await visit.do("feedback", lambda: visit.app.writer.submit(one).result(30.0), say("Kept: {label}", label=str(label))) is None:
        desk.waiting.insert(0, row)
        return
    desk.done.append((prediction, row[1], label))
    desk.again = False
    await _next(visit, held, desk, place)
    visit.client.run_javascript("setTimeout(() => document.querySelector('.view input[name=label]')?.focus(), 50)")  # the next number is typed at once


def _counter(visit: Visit, held: Held, desk: Desk, place: Any) -> None:
    async def undo() -> None:
        prediction, why, label = desk.done.pop()
        desk.waiting.insert(0, (prediction, why))
        desk.again = True
        desk.done.append((prediction, why, label))
        await _next(visit, held, desk, place)
        desk.done.pop()

    with card(visit.say("This visit"), kind="quiet"):
        figures([(visit.say("Labelled"), str(len({p.id for p, _, _ in desk.done})), ""), (visit.say("Skipped"), str(len(desk.skipped)), ""),
                 (visit.say("Waiting here"), str(len(desk.waiting)), "")])
        if desk.done and not desk.again:
            with box("row"):
                made = button("", undo, data_key="u")
                with made:
                    tag("kbd", "U")
                    tag("span", visit.say("Back to the last one"))


VIEW = View("/label", say("Label"), say("The rows whose label is worth most, most valuable first. Every label is kept at once."), "feedback", build)
