"""How far each column has moved from the rows that taught the model: the newest rows of the store's sketches against the bundle's own."""

from __future__ import annotations

import time
from functools import lru_cache, partial
from typing import Any

from assay.errors import AssayError
from assay.report import wording
from assay.serve.held import Arm
from assay.serve.page import charts
from assay.serve.page.desk import Live, Visit
from assay.serve.page.parts import badge, card, drawing, table, tag
from assay.ship.bundle import Bundle
from assay.watch import drift
from assay.watch.finding import Finding
from assay.watch.panes import Panes
from assay.watch.reference import given
from assay.words import Text, say

ROWS = 1000  # that are looked back on
MOST = 40  # columns that are shown, the farthest first


async def drifted(visit: Visit, model: str) -> None:
    held = visit.app.shelf.get(model)
    with card(visit.say("Drift of '{model}'", model=model), visit.say("The last {n:,} rows against those that taught it, column by column. Looking does not raise alarms.", n=ROWS)):
        await Live(visit, partial(_read, visit, held.champion, Panes(ROWS)), partial(_draw, visit), every_s=15.0).begin()


@lru_cache(4)
def _gauge(bundle: Bundle) -> Any:
    return given(bundle)[0]


def _read(visit: Visit, arm: Arm, panes: Panes) -> tuple[Finding, ...] | Text:
    """What was found of each column, or why nothing can be said."""
    if not arm.bundle.task.by_rows:
        return say("Forecasts are watched by their traffic and labels only.")
    gauge = _gauge(arm.bundle)
    if gauge is None:
        return say("The bundle brings no rows to compare with.")
    panes.read(visit.app.store, arm.version.model, arm.version.version, time.time())
    window = panes.last(ROWS)
    recent = window.sketches.get("rows") if window is not None else None
    if window is None or recent is None or recent.gauge != gauge.reference.gauge:
        return say("Too few rows yet.")
    try:
        found = drift.compare(gauge, recent, tolerated=drift.TOLERATED)
    except AssayError as error:
        return error.text
    shown = [f for f in found if f.facts.get("column") and isinstance(f.facts.get("effect"), (int, float))]
    return tuple(sorted(shown, key=lambda f: -float(f.facts["effect"]))[:MOST]) or say("Too few rows yet.")


def _draw(visit: Visit, found: tuple[Finding, ...] | Text) -> None:
    if isinstance(found, Text):
        tag("p", found.to(visit.lang), "how")
        return
    most = max([2 * drift.TOLERATED, *(float(f.facts.get("high") or f.facts["effect"]) for f in found)])

    def line(finding: Finding) -> None:
        facts = finding.facts
        effect = float(facts["effect"])
        drawing(charts.whisker(effect, float(facts.get("low") or effect), float(facts.get("high") or effect), most, drift.TOLERATED,
                               visit.say("Size of the effect, with its interval; the dashed line: up to there it is a trifle")))

    table([visit.say("Column"), visit.say("Effect"), "", visit.say("Interval"), visit.say("State")],
          [[" · ".join(str(f.facts[k]) for k in ("column", "part") if f.facts.get(k)), wording.number(float(f.facts["effect"]), digits=2), partial(line, f), wording.interval(f.facts.get("low"), f.facts.get("high"), digits=2),
            partial(_state, visit, f)] for f in found], numbers=(1,), caption=visit.say("Drift by column"), kind="drift")


def _state(visit: Visit, finding: Finding) -> None:
    """By the interval: a trifle, more than that, or neither shown."""
    low, high = (finding.facts.get(k) for k in ("low", "high"))
    if isinstance(low, (int, float)) and low > drift.TOLERATED:
        badge(visit.say("moved"), "wait")
    elif isinstance(high, (int, float)) and high <= drift.TOLERATED:
        badge(visit.say("as before"), "good")
    else:
        badge(visit.say("open"))
