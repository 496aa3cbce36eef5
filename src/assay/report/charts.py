"""The report's pictures as inline SVG: no script, no font, no colour of their own; `page.css` gives them light and dark.

Every function returns markup with all texts escaped. Sizes are in CSS pixels of the drawing's own view box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from assay.report import draw, wording


def effect(value: dict[str, Any], words: dict[str, str]) -> str:
    """The net gain of the large model, its interval, zero and the margin. words: title, loses, pays, zero, margin, unit."""
    low, high, margin = value["low"], value["high"], value["margin"]
    x = draw.Axis(*draw.around([low, high, 0.0, margin, 2 * margin], pad=0.12), 14, 586)
    top, mid, base = 46, 86, 126
    parts = [
        f'<rect class="zone against" x="14" y="{top}" width="{x(margin) - 14:.1f}" height="{base - top}"/>',
        f'<rect class="zone for" x="{x(margin):.1f}" y="{top}" width="{586 - x(margin):.1f}" height="{base - top}"/>',
        f'<text class="side" x="20" y="{top - 12}">← {escape(words["loses"])}</text>',
        f'<text class="side end" x="580" y="{top - 12}">{escape(words["pays"])} →</text>',
        draw.line(x(0), top, x(0), base, "zero"), draw.line(x(margin), top, x(margin), base, "margin"),
        draw.line(x(low), mid, x(high), mid, "whisker thick"), draw.line(x(low), mid - 9, x(low), mid + 9, "whisker"),
        draw.line(x(high), mid - 9, x(high), mid + 9, "whisker"), f'<circle class="dot" cx="{x(value["gain"]):.1f}" cy="{mid}" r="8"/>',
    ]
    parts += [draw.line(x(t), base, x(t), base + 5, "axis") + draw.text(x(t), base + 21, wording.number(t, digits=4, zeros=False), "tick mid") for t in x.ticks(6)]
    parts += [draw.line(14, base, 586, base, "axis"), draw.text(300, base + 44, words["unit"], "label mid")]
    return draw.svg(600, 178, parts, words["title"])


def loss_bar(row: dict[str, Any], ends: tuple[float, float], title: str) -> str:
    """A candidate's loss and interval as one small bar on the axis shared by the table."""
    x = draw.Axis(*ends, 4, 136)
    low, high = row.get("low"), row.get("high")
    parts = [draw.line(4, 10, 136, 10, "rail")]
    if low is not None and high is not None:
        parts.append(draw.line(x(low), 10, x(high), 10, "whisker thick"))
    return draw.svg(140, 20, [*parts, f'<g class="{draw.rung(row)}">{draw.sign(row, x(row["loss"]), 10, 4.5)}</g>'], title, kind="bar")


def front(rows: Sequence[dict[str, Any]], on_front: Sequence[str], words: dict[str, str]) -> str:
    """Loss with interval against one row's latency, and the line of those that nobody beats on both."""
    placed = [(max(r["cost"]["single_row_ms"], 1e-4), r) for r in rows]
    x = draw.Axis(*draw.around([ms for ms, _ in placed], log=True), 72, 504, log=True)
    y = draw.Axis(*draw.around([v for r in rows for v in (r["low"], r["high"], r["loss"])]), 330, 16)
    parts = draw.frame(x, y, words, [wording.duration(t / 1000) for t in x.ticks(5)])
    line = sorted((ms, r["loss"]) for ms, r in placed if r["candidate"] in on_front)
    if len(line) > 1:
        path = f"M{x(line[0][0]):.1f},{y(line[0][1]):.1f}" + "".join(f"H{x(ms):.1f}V{y(loss):.1f}" for ms, loss in line[1:])
        parts.append(f'<path class="front" d="{path}"/>')
    for ms, r in placed:
        if r["low"] is not None and r["high"] is not None:
            parts.append(draw.line(x(ms), y(r["low"]), x(ms), y(r["high"]), "whisker"))
    taken = [(y(r["loss"]) + 5, x(ms) - 8, x(ms) + 8) for ms, r in placed]  # names keep off the signs too
    for ms, r in sorted(placed, key=lambda p: (p[1]["candidate"] not in on_front, p[0])):
        name = draw.shortened(r["candidate"], 18)
        tip = f"{wording.clean(r['candidate'])}: {wording.number(r['loss'])}, {wording.duration(ms / 1000)}"
        parts.append(f'<g class="{draw.rung(r)}">{draw.sign(r, x(ms), y(r["loss"]), 7)}<title>{escape(tip)}</title></g>')
        at, turn = _free(x(ms), y(r["loss"]), draw.width_of(name), taken, 504, (16, 330))
        parts.append(draw.text(at[0], at[1], name, f"name {turn}"))
    return draw.svg(520, 390, parts, words["title"])


def calibration(series: Sequence[tuple[dict[str, Any], Sequence[dict[str, Any]]]], words: dict[str, str]) -> str:
    """Stated confidence against the share that was right, for one or two candidates: on the diagonal, words can be trusted."""
    lowest = min((b[k] for _, bins in series for b in bins for k in ("confidence", "right")), default=0.0)
    start = math.floor(max(0.0, lowest - 0.02) * 10) / 10
    x, y = draw.Axis(start, 1.0, 76, 404), draw.Axis(start, 1.0, 330, 16)
    parts = draw.frame(x, y, words, [draw.percent(t) for t in x.ticks(5)], [draw.percent(t) for t in y.ticks(5)])
    parts.append(draw.line(x(start), y(start), x(1), y(1), "zero"))
    for row, bins in series:
        points = sorted((b["confidence"], b["right"], b["rows"]) for b in bins)
        parts.append(f'<g class="{draw.rung(row)}"><polyline class="curve" points="{draw.points(x, y, [(c, r) for c, r, _ in points])}"/>')
        most = max((n for _, _, n in points), default=1)
        for c, r, n in points:
            tip = f"{wording.clean(row['candidate'])}: {c:.1%} / {r:.1%}, n = {n:,}"
            parts.append(f"<g>{draw.sign(row, x(c), y(r), 3.5 + 2.5 * math.sqrt(n / most))}<title>{escape(tip)}</title></g>")
        parts.append("</g>")
    return draw.svg(420, 390, parts, words["title"])


def answers(row: dict[str, Any], residuals: dict[str, Any], ends: tuple[float, float], words: dict[str, str]) -> str:
    """Truth against answer, each answer with its interval. ends: of both axes, the same for pictures side by side."""
    truth, answer = residuals["truth"], residuals["answer"]
    x, y = draw.Axis(*ends, 80, 404), draw.Axis(*ends, 330, 16)
    parts = [*draw.frame(x, y, words), draw.line(x(ends[0]), y(ends[0]), x(ends[1]), y(ends[1]), "zero"), f'<g class="{draw.rung(row)} cloud">']
    for t, a, low, high in zip(truth, answer, residuals["low"], residuals["high"], strict=True):
        if t is None or a is None:
            continue
        if low is not None and high is not None:
            bottom, top = max(min(y(low), 330.0), 16.0), max(min(y(high), 330.0), 16.0)
            parts.append(draw.line(x(t), bottom, x(t), top, "faint"))
        parts.append(f'<circle class="mark" cx="{x(t):.1f}" cy="{y(a):.1f}" r="2.6"/>')
    return draw.svg(420, 390, [*parts, "</g>"], words["title"])


def losses(row: dict[str, Any], curve: Sequence[Sequence[float | None]], words: dict[str, str]) -> str:
    """How the loss of a network fell while it learnt: train and held-out."""
    kept = _thinned(curve, 240)
    x = draw.Axis(*draw.around([p[0] for p in kept], pad=0.01), 72, 306)
    y = draw.Axis(*draw.around([v for p in kept for v in p[1:3]]), 170, 12)
    parts = [*draw.frame(x, y, words, most=4), f'<g class="{draw.rung(row)}">']
    for column, kind in ((1, "curve dashed"), (2, "curve")):
        line = [(p[0], p[column]) for p in kept if len(p) > column and p[0] is not None and p[column] is not None]
        if len(line) == 1:
            parts.append(f'<circle class="mark" cx="{x(line[0][0]):.1f}" cy="{y(line[0][1]):.1f}" r="4"/>')  # type: ignore[arg-type]
        elif line:
            parts.append(f'<polyline class="{kind}" points="{draw.points(x, y, line)}"/>')  # type: ignore[arg-type]
    return draw.svg(320, 226, [*parts, "</g>"], words["title"])


def learning(series: Sequence[tuple[dict[str, Any], dict[str, Any]]], crossing: dict[str, Any] | None, words: dict[str, str]) -> str:
    """Loss against the number of training rows: what was measured as signs with whiskers, what the laws say as a line in a band.

    series: (scoreboard row, its curve of verdict.json). crossing: where the large one begins to pay, with its interval. words: title, x, y, pays.
    """
    spread = [p for _, curve in series for p in (*curve["measured"], *curve["grid"])]
    x = draw.Axis(*draw.around([p["rows"] for p in spread], log=True), 72, 580, log=True)
    y = draw.Axis(*draw.around([v for p in spread for v in (p["median"], *((p["low"], p["high"]) if p in _measured(series) else ()))]), 300, 16)
    parts = draw.frame(x, y, words, [_count(t) for t in x.ticks(5)])
    if crossing and crossing.get("rows"):
        left, right = (min(max(x(v), 72.0), 580.0) for v in (crossing["low"] or crossing["rows"], crossing["high"] or x.high))
        parts += [f'<rect class="zone for" x="{left:.1f}" y="16" width="{max(right - left, 2):.1f}" height="284"/>',
                  draw.line(x(crossing["rows"]), 16, x(crossing["rows"]), 300, "margin"), draw.text(min(x(crossing["rows"]) + 6, 500), 30, words["pays"], "side")]
    for row, curve in series:
        grid = [p for p in curve["grid"] if x.low <= p["rows"] <= x.high]
        band = [(p["rows"], p["low"]) for p in grid] + [(p["rows"], p["high"]) for p in reversed(grid)]
        parts.append(f'<g class="{draw.rung(row)}">')
        if len(grid) > 1:
            inside = [(a, min(max(b, y.low), y.high)) for a, b in band]
            parts += [f'<polygon class="band" points="{draw.points(x, y, inside)}"/>',
                      f'<polyline class="curve" points="{draw.points(x, y, [(p["rows"], min(max(p["median"], y.low), y.high)) for p in grid])}"/>']
        for p in curve["measured"]:
            tip = f"{wording.clean(row['candidate'])}: {p['rows']:,}, {wording.number(p['mean'])}"
            parts += [draw.line(x(p["rows"]), y(p["low"]), x(p["rows"]), y(p["high"]), "whisker"),
                      f"<g>{draw.sign(row, x(p['rows']), y(p['mean']), 5)}<title>{escape(tip)}</title></g>"]
        parts.append("</g>")
    return draw.svg(600, 360, parts, words["title"])


def _measured(series: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    return [p for _, curve in series for p in curve["measured"]]


def threshold(points: Sequence[Sequence[float]], chosen: float, words: dict[str, str]) -> str:
    """Cost a row against the probability from which the costlier-to-miss class is answered."""
    x, y = draw.Axis(0.0, 1.0, 72, 404), draw.Axis(*draw.around([c for _, c in points] + [0.0]), 250, 16)
    parts = [*draw.frame(x, y, words, [draw.percent(t) for t in x.ticks(5)]), f'<g class="r-classical"><polyline class="curve" points="{draw.points(x, y, [(t, c) for t, c in points])}"/></g>',
             draw.line(x(chosen), 16, x(chosen), 250, "margin")]
    return draw.svg(420, 310, parts, words["title"])


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _free(x: float, y: float, width: float, taken: list[tuple[float, float, float]], right: float,
          ends: tuple[float, float]) -> tuple[tuple[float, float], str]:
    """A place for a name beside its point where no other name stands: right, left, then further up and down."""
    for shift in (0, -17, 17, -34, 34, -51, 51):
        for turn in ("", "end"):
            left = x + 12 if not turn else x - 12 - width
            row = y + 5 + shift
            if left < 74 or left + width > right + 18 or not ends[0] <= row <= ends[1]:
                continue
            if all(abs(row - other) > 15 or left > stop + 4 or left + width < start - 4 for other, start, stop in taken):
                taken.append((row, left, left + width))
                return (x + 12 if not turn else x - 12, row), turn
    taken.append((y + 5, x + 12, x + 12 + width))
    return (x + 12, y + 5), ""


def _thinned(curve: Sequence[Sequence[float | None]], most: int) -> list[Sequence[float | None]]:
    step = max(1, math.ceil(len(curve) / most))
    return [*curve[:-1:step], curve[-1]] if len(curve) > 1 else list(curve)


def channel(values: Sequence[float | None], adds: Sequence[float], title: str) -> str:
    """A channel's values over time; the stretches on which the answer rests are shaded, darker where more does."""
    width, height = 420, 84
    known = [v for v in values if v is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    span, top = (high - low) or 1.0, max((abs(a) for a in adds), default=0.0) or 1.0
    step = width / max(1, len(adds))
    parts = [f'<rect class="{"for" if a > 0 else "against"}" x="{i * step:.1f}" y="0" width="{step:.1f}" height="{height}" opacity="{0.45 * abs(a) / top:.2f}"/>'
             for i, a in enumerate(adds) if abs(a) > 0.02 * top]
    points = " ".join(f"{i / max(1, len(values) - 1) * width:.1f},{height - 6 - (v - low) / span * (height - 12):.1f}" for i, v in enumerate(values) if v is not None)
    return draw.svg(width, height, [*parts, f'<polyline class="curve" points="{points}"/>'], title, "channel")
