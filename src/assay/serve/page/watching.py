"""What passes through: requests a minute, how long they took, what has drifted, and what is wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from assay.report import wording
from assay.serve.page import charts
from assay.serve.page.desk import Live, View, Visit, ago
from assay.serve.page.drift import drifted
from assay.serve.page.parts import badge, box, button, card, drawing, empty, field, figures, select, table, tag
from assay.store.records import Alarm, Traffic
from assay.watch.budgets import Budget, spent
from assay.words import Text, say

SPANS = (("1", say("last hour"), 3600.0), ("24", say("last day"), 86400.0), ("168", say("last week"), 7 * 86400.0))
_LEVELS = {"info": (say("note"), ""), "warning": (say("warning"), "wait"), "critical": (say("critical"), "bad")}


async def build(visit: Visit) -> None:
    key = visit.query.get("hours", "1")
    span = next((s for k, _, s in SPANS if k == key), SPANS[0][2])
    names = visit.app.store.versions.models
    models = await visit.do("", names) or []
    chosen = visit.query.get("model", "")
    with box("row tools"):
        field(visit.say("Model"), lambda: select("model", [("", visit.say("all")), *((n, n) for n in models)], chosen, lambda to: _go(visit, to, key)), kind="inline")
        field(visit.say("Span"), lambda: select("hours", [(k, t.to(visit.lang)) for k, t, _ in SPANS], key, lambda to: _go(visit, chosen, to)), kind="inline")
    model = chosen if chosen in models else None
    with card(visit.say("Alarms")):
        await Live(visit, lambda: visit.app.store.alarms.recent(model, 60), partial(_alarms, visit), every_s=3.0).begin()
    await Live(visit, partial(_read, visit, model, span), partial(_traffic, visit, span), every_s=5.0, kind="stack").begin()
    for name in visit.app.shelf.names():
        if model in (None, name):
            await drifted(visit, name)


def _go(visit: Visit, model: str, hours: str) -> None:
    from urllib.parse import quote

    visit.client.open(f"/watch?model={quote(model)}&hours={hours if hours in [k for k, _, _ in SPANS] else '1'}")


def _read(visit: Visit, model: str | None, span: float) -> tuple[int, list[Traffic], str, int]:
    """The minute is part of what is shown: the charts move even where nobody asks."""
    now = time.time()
    trouble = visit.app.writer.trouble
    return int(now // 60), visit.app.store.traffic.between(model, now - span, now), trouble.to(visit.lang) if trouble is not None else "", visit.app.writer.waiting


# ---- alarms and drift


def _alarms(visit: Visit, alarms: list[Alarm]) -> None:
    opened = [a for a in alarms if a.closed is None]
    if not opened:
        with box("row"):
            badge(visit.say("all quiet"), "good")
            tag("span", visit.say("No alarm is open."), "how")
    most = max((float(a.facts["high"]) for a in opened if isinstance(a.facts.get("high"), (int, float))), default=1.0)
    for alarm in sorted(opened, key=lambda a: (a.level != "critical", a.level != "warning", -a.at)):
        _alarm(visit, alarm, most)
    closed = [a for a in alarms if a.closed is not None][:20]
    if closed:
        with tag("details"):
            tag("summary", visit.say("{n} closed lately", n=len(closed)))
            table([visit.say("Alarm"), visit.say("Model"), visit.say("Closed"), visit.say("By")],
                  [[_said(visit, a), a.model, ago(visit, a.closed or a.at), a.closed_by or "–"] for a in closed], caption=visit.say("Closed alarms"))


def _said(visit: Visit, alarm: Alarm) -> str:
    try:
        return Text.of(alarm.text).to(visit.lang)
    except (KeyError, TypeError, ValueError, IndexError):  # of another version of assay
        return alarm.code


def _alarm(visit: Visit, alarm: Alarm, most: float) -> None:
    async def close() -> None:
        await visit.do("admin", lambda: visit.app.store.alarms.close(alarm.id, visit.session.actor), say("The alarm is closed. It opens again if its reason stays."))

    with tag("article", "", f"alarm {alarm.level}"):
        with box("row"):
            text, tone = _LEVELS[alarm.level]
            badge(text.to(visit.lang), tone)
            tag("span", f"{alarm.model} · {ago(visit, alarm.at)}", "how")
            if visit.may("admin"):
                button(visit.say("Close"), close, "small", aria_label=visit.say("Close the alarm: {text}", text=_said(visit, alarm)))
        tag("p", _said(visit, alarm), "verdict")
        effect, low, high = (alarm.facts.get(k) for k in ("effect", "low", "high"))
        if isinstance(effect, (int, float)) and isinstance(low, (int, float)) and isinstance(high, (int, float)):
            with box("effect"):
                drawing(charts.whisker(effect, low, high, most, None, visit.say("Size of the effect, with its interval")))
                tag("span", f"{wording.number(effect, digits=3)} ({wording.interval(low, high)})", "figure")


# ---- traffic


def _traffic(visit: Visit, span: float, found: tuple[int, Sequence[Traffic], str, int]) -> None:
    minute, rows, trouble, waiting = found
    if trouble:
        tag("p", trouble, "said bad inline", role="alert")
    total, errors, refused = (sum(getattr(r, k) for r in rows) for k in ("requests", "errors", "refused"))
    merged = merge(r.histogram for r in rows)
    with card(visit.say("Traffic")):
        figures([(visit.say("Requests"), f"{total:,}", visit.say("{rate:.3g} a minute", rate=total / (span / 60))),
                 (visit.say("Failed"), f"{errors:,}", f"{errors / total:.2%}" if total else ""), (visit.say("Refused"), f"{refused:,}", f"{refused / total:.2%}" if total else ""),
                 (visit.say("Median"), _ms(quantile(merged, 0.5)), ""), (visit.say("99 of 100 within"), _ms(quantile(merged, 0.99)), ""),
                 (visit.say("Waiting for the store"), f"{waiting:,}", "")])
        if not total:
            empty(visit.say("Nobody has asked in this span."), visit.say("A minute is shown when it is over."))
            return
        step = max(1, int(span / 60 / 120))
        parts = _steps(rows, minute, span, step)
        ends = ((minute - span / 60) * 60, minute * 60.0)
        with box("panels"):
            with tag("figure"):
                tag("figcaption", visit.say("Requests a minute"))
                drawing(charts.curves([("c1", [(t, sum(r.requests for r in p) / step) for t, p in parts])], visit.say("Requests a minute"), least=ends))
            with tag("figure"):
                with tag("figcaption", visit.say("Milliseconds")):
                    tag("span", visit.say("median"), "key c1")
                    tag("span", visit.say("99 of 100 within"), "key c2")
                asked = [(t, merge(r.histogram for r in p)) for t, p in parts if any(r.requests for r in p)]
                lines = [(f"c{i + 1}", [(t, v) for t, h in asked if (v := quantile(h, q)) is not None]) for i, q in enumerate((0.5, 0.99))]
                drawing(charts.curves(lines, visit.say("Milliseconds: median and 99 of 100"), least=ends))
            with tag("figure"):
                with tag("figcaption", visit.say("Failed and refused a minute")):
                    tag("span", visit.say("failed"), "key c3")
                    tag("span", visit.say("refused"), "key c2")
                drawing(charts.curves([("c3", [(t, sum(r.errors for r in p) / step) for t, p in parts]), ("c2", [(t, sum(r.refused for r in p) / step) for t, p in parts])],
                                      visit.say("Failed and refused a minute"), least=ends))
    _budgets(visit, rows)


def _budgets(visit: Visit, rows: Sequence[Traffic]) -> None:
    budget = Budget()
    with card(visit.say("Budgets"), visit.say("What may go wrong: {wrong:.2%} of the requests may fail, and {slow:.2%} of the answered ones may take more than {ms:g} ms.",
                                              wrong=1 - budget.right, slow=1 - budget.quick, ms=budget.ms)):
        out = []
        for what, name in (("errors", visit.say("Failed")), ("latency", visit.say("Slow"))):
            found = spent(rows, budget, what)
            out.append((name, f"{found.share:.2%}", visit.say("{bad:,} of {n:,}; the budget goes {burn:.2g} times as fast as allowed", bad=found.bad, n=found.requests, burn=found.burn)))
        figures(out)


def _steps(rows: Sequence[Traffic], minute: int, span: float, step: int) -> list[tuple[float, list[Traffic]]]:
    """The rows of each step of that many minutes, empty steps between the first and now among them; the minute that is running is left out."""
    if not rows:
        return []
    begin = max(min(r.minute for r in rows), minute - int(span / 60)) // step * step
    bins: dict[int, list[Traffic]] = {m: [] for m in range(begin, minute, step)}
    for row in rows:
        if row.minute // step * step in bins:
            bins[row.minute // step * step].append(row)
    if bins and not bins[max(bins)]:  # it may not be written yet
        del bins[max(bins)]
    return [((m + step / 2) * 60.0, part) for m, part in bins.items()]


def merge(histograms: Any) -> dict[str, int]:
    out: dict[str, int] = {}
    for histogram in histograms:
        for limit, count in histogram.items():
            out[limit] = out.get(limit, 0) + count
    return out


def quantile(histogram: dict[str, int], share: float) -> float | None:
    """Milliseconds below which this share of the requests lies, even within a step of the histogram; None without requests."""
    limits = sorted(histogram, key=float)
    total = sum(histogram.values())
    if not total:
        return None
    below, before = 0, 0.0
    for limit in limits:
        count, end = histogram[limit], float(limit)
        if below + count >= share * total:
            return before if end == float("inf") else before + (end - before) * (share * total - below) / count
        below, before = below + count, end
    return before


def _ms(value: float | None) -> str:
    return "–" if value is None else wording.milliseconds(value)


VIEW = View("/watch", say("Watch"), say("What passes through, what has drifted, and what is wrong. Follows by itself."), "", build)
