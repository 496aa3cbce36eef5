"""The report's pictures as inline SVG: no script, no font, no colour of their own; `page.css` gives them light and dark.

Every function returns markup with all texts escaped. Sizes are in CSS pixels of the drawing's own view box.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from assay.report import wording

MARKS = {"naive": "diamond", "classical": "circle", "scratch": "square", "pretrained": "up", "llm": "down", "external": "hexagon"}


@dataclass(frozen=True)
class Axis:
    """Data to pixels. log: both ends above zero."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(max(value, 1e-300)) if self.log else value
        return self.start + (min(max((at - low) / (high - low), -0.5), 1.5)) * (self.stop - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        if self.log:
            whole = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            return [10.0**k for k in whole][:: max(1, math.ceil(len(whole) / (most + 1)))]
        span = self.high - self.low
        rough = span / most
        base = 10.0 ** math.floor(math.log10(rough))
        step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Iterable[float | None], *, pad: float = 0.06, log: bool = False) -> tuple[float, float]:
    """Ends of an axis that holds all `values`, with some air."""
    known = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not log)]
    low, high = (float(min(known)), float(max(known))) if known else (0.1, 1.0) if log else (0.0, 1.0)
    if log:
        low, high = math.log10(low), math.log10(high)
        air = max((high - low) * pad * 2, 0.25)
        return 10 ** (low - air), 10 ** (high + air)
    air = (high - low) * pad or abs(high) * 0.1 or 1.0
    return low - air, high + air


def effect(value: dict[str, Any], words: dict[str, str]) -> str:
    """The net gain of the large model, its interval, zero and the margin. words: title, loses, pays, zero, margin, unit."""
    low, high, margin = value["low"], value["high"], value["margin"]
    x = Axis(*around([low, high, 0.0, margin, 2 * margin], pad=0.12), 14, 586)
    top, mid, base = 46, 86, 126
    parts = [
        f'<rect class="zone against" x="14" y="{top}" width="{x(margin) - 14:.1f}" height="{base - top}"/>',
        f'<rect class="zone for" x="{x(margin):.1f}" y="{top}" width="{586 - x(margin):.1f}" height="{base - top}"/>',
        f'<text class="side" x="20" y="{top - 12}">← {escape(words["loses"])}</text>',
        f'<text class="side end" x="580" y="{top - 12}">{escape(words["pays"])} →</text>',
        _line(x(0), top, x(0), base, "zero"), _line(x(margin), top, x(margin), base, "margin"),
        _line(x(low), mid, x(high), mid, "whisker thick"), _line(x(low), mid - 9, x(low), mid + 9, "whisker"),
        _line(x(high), mid - 9, x(high), mid + 9, "whisker"), f'<circle class="dot" cx="{x(value["gain"]):.1f}" cy="{mid}" r="8"/>',
    ]
    parts += [_line(x(t), base, x(t), base + 5, "axis") + _text(x(t), base + 21, wording.number(t, digits=4, zeros=False), "tick mid") for t in x.ticks(6)]
    parts += [_line(14, base, 586, base, "axis"), _text(300, base + 44, words["unit"], "label mid")]
    return _svg(600, 178, parts, words["title"])


def loss_bar(row: dict[str, Any], ends: tuple[float, float], title: str) -> str:
    """A candidate's loss and interval as one small bar on the axis shared by the table."""
    x = Axis(*ends, 4, 136)
    low, high = row.get("low"), row.get("high")
    parts = [_line(4, 10, 136, 10, "rail")]
    if low is not None and high is not None:
        parts.append(_line(x(low), 10, x(high), 10, "whisker thick"))
    return _svg(140, 20, [*parts, f'<g class="{_rung(row)}">{_mark(row, x(row["loss"]), 10, 4.5)}</g>'], title, kind="bar")


def front(rows: Sequence[dict[str, Any]], on_front: Sequence[str], words: dict[str, str]) -> str:
    """Loss with interval against one row's latency, and the line of those that nobody beats on both."""
    placed = [(max(r["cost"]["single_row_ms"], 1e-4), r) for r in rows]
    x = Axis(*around([ms for ms, _ in placed], log=True), 72, 504, log=True)
    y = Axis(*around([v for r in rows for v in (r["low"], r["high"], r["loss"])]), 330, 16)
    parts = _frame(x, y, words, [wording.duration(t / 1000) for t in x.ticks(5)])
    line = sorted((ms, r["loss"]) for ms, r in placed if r["candidate"] in on_front)
    if len(line) > 1:
        path = f"M{x(line[0][0]):.1f},{y(line[0][1]):.1f}" + "".join(f"H{x(ms):.1f}V{y(loss):.1f}" for ms, loss in line[1:])
        parts.append(f'<path class="front" d="{path}"/>')
    for ms, r in placed:
        if r["low"] is not None and r["high"] is not None:
            parts.append(_line(x(ms), y(r["low"]), x(ms), y(r["high"]), "whisker"))
    taken = [(y(r["loss"]) + 5, x(ms) - 8, x(ms) + 8) for ms, r in placed]  # names keep off the signs too
    for ms, r in sorted(placed, key=lambda p: (p[1]["candidate"] not in on_front, p[0])):
        name = shortened(r["candidate"], 18)
        tip = f"{wording.clean(r['candidate'])}: {wording.number(r['loss'])}, {wording.duration(ms / 1000)}"
        parts.append(f'<g class="{_rung(r)}">{_mark(r, x(ms), y(r["loss"]), 7)}<title>{escape(tip)}</title></g>')
        at, turn = _free(x(ms), y(r["loss"]), _width(name), taken, 504, (16, 330))
        parts.append(_text(at[0], at[1], name, f"name {turn}"))
    return _svg(520, 390, parts, words["title"])


def calibration(series: Sequence[tuple[dict[str, Any], Sequence[dict[str, Any]]]], words: dict[str, str]) -> str:
    """Stated confidence against the share that was right, for one or two candidates: on the diagonal, words can be trusted."""
    lowest = min((b[k] for _, bins in series for b in bins for k in ("confidence", "right")), default=0.0)
    start = math.floor(max(0.0, lowest - 0.02) * 10) / 10
    x, y = Axis(start, 1.0, 76, 404), Axis(start, 1.0, 330, 16)
    parts = _frame(x, y, words, [_percent(t) for t in x.ticks(5)], [_percent(t) for t in y.ticks(5)])
    parts.append(_line(x(start), y(start), x(1), y(1), "zero"))
    for row, bins in series:
        points = sorted((b["confidence"], b["right"], b["rows"]) for b in bins)
        parts.append(f'<g class="{_rung(row)}"><polyline class="curve" points="{_points(x, y, [(c, r) for c, r, _ in points])}"/>')
        most = max((n for _, _, n in points), default=1)
        for c, r, n in points:
            tip = f"{wording.clean(row['candidate'])}: {c:.1%} / {r:.1%}, n = {n:,}"
            parts.append(f"<g>{_mark(row, x(c), y(r), 3.5 + 2.5 * math.sqrt(n / most))}<title>{escape(tip)}</title></g>")
        parts.append("</g>")
    return _svg(420, 390, parts, words["title"])


def answers(row: dict[str, Any], residuals: dict[str, Any], ends: tuple[float, float], words: dict[str, str]) -> str:
    """Truth against answer, each answer with its interval. ends: of both axes, the same for pictures side by side."""
    truth, answer = residuals["truth"], residuals["answer"]
    x, y = Axis(*ends, 80, 404), Axis(*ends, 330, 16)
    parts = [*_frame(x, y, words), _line(x(ends[0]), y(ends[0]), x(ends[1]), y(ends[1]), "zero"), f'<g class="{_rung(row)} cloud">']
    for t, a, low, high in zip(truth, answer, residuals["low"], residuals["high"], strict=True):
        if t is None or a is None:
            continue
        if low is not None and high is not None:
            bottom, top = max(min(y(low), 330.0), 16.0), max(min(y(high), 330.0), 16.0)
            parts.append(_line(x(t), bottom, x(t), top, "faint"))
        parts.append(f'<circle class="mark" cx="{x(t):.1f}" cy="{y(a):.1f}" r="2.6"/>')
    return _svg(420, 390, [*parts, "</g>"], words["title"])


def losses(row: dict[str, Any], curve: Sequence[Sequence[float | None]], words: dict[str, str]) -> str:
    """How the loss of a network fell while it learnt: train and held-out."""
    kept = _thinned(curve, 240)
    x = Axis(*around([p[0] for p in kept], pad=0.01), 72, 306)
    y = Axis(*around([v for p in kept for v in p[1:3]]), 170, 12)
    parts = [*_frame(x, y, words, most=4), f'<g class="{_rung(row)}">']
    for column, kind in ((1, "curve dashed"), (2, "curve")):
        line = [(p[0], p[column]) for p in kept if len(p) > column and p[0] is not None and p[column] is not None]
        if len(line) == 1:
            parts.append(f'<circle class="mark" cx="{x(line[0][0]):.1f}" cy="{y(line[0][1]):.1f}" r="4"/>')  # type: ignore[arg-type]
        elif line:
            parts.append(f'<polyline class="{kind}" points="{_points(x, y, line)}"/>')  # type: ignore[arg-type]
    return _svg(320, 226, [*parts, "</g>"], words["title"])


def learning(series: Sequence[tuple[dict[str, Any], dict[str, Any]]], crossing: dict[str, Any] | None, words: dict[str, str]) -> str:
    """Loss against the number of training rows: what was measured as signs with whiskers, what the laws say as a line in a band.

    series: (scoreboard row, its curve of verdict.json). crossing: where the large one begins to pay, with its interval. words: title, x, y, pays.
    """
    spread = [p for _, curve in series for p in (*curve["measured"], *curve["grid"])]
    x = Axis(*around([p["rows"] for p in spread], log=True), 72, 580, log=True)
    y = Axis(*around([v for p in spread for v in (p["median"], *((p["low"], p["high"]) if p in _measured(series) else ()))]), 300, 16)
    parts = _frame(x, y, words, [_count(t) for t in x.ticks(5)])
    if crossing and crossing.get("rows"):
        left, right = (min(max(x(v), 72.0), 580.0) for v in (crossing["low"] or crossing["rows"], crossing["high"] or x.high))
        parts += [f'<rect class="zone for" x="{left:.1f}" y="16" width="{max(right - left, 2):.1f}" height="284"/>',
                  _line(x(crossing["rows"]), 16, x(crossing["rows"]), 300, "margin"), _text(min(x(crossing["rows"]) + 6, 500), 30, words["pays"], "side")]
    for row, curve in series:
        grid = [p for p in curve["grid"] if x.low <= p["rows"] <= x.high]
        band = [(p["rows"], p["low"]) for p in grid] + [(p["rows"], p["high"]) for p in reversed(grid)]
        parts.append(f'<g class="{_rung(row)}">')
        if len(grid) > 1:
            inside = [(a, min(max(b, y.low), y.high)) for a, b in band]
            parts += [f'<polygon class="band" points="{_points(x, y, inside)}"/>',
                      f'<polyline class="curve" points="{_points(x, y, [(p["rows"], min(max(p["median"], y.low), y.high)) for p in grid])}"/>']
        for p in curve["measured"]:
            tip = f"{wording.clean(row['candidate'])}: {p['rows']:,}, {wording.number(p['mean'])}"
            parts += [_line(x(p["rows"]), y(p["low"]), x(p["rows"]), y(p["high"]), "whisker"),
                      f"<g>{_mark(row, x(p['rows']), y(p['mean']), 5)}<title>{escape(tip)}</title></g>"]
        parts.append("</g>")
    return _svg(600, 360, parts, words["title"])


def _measured(series: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    return [p for _, curve in series for p in curve["measured"]]


def threshold(points: Sequence[Sequence[float]], chosen: float, words: dict[str, str]) -> str:
    """Cost a row against the probability from which the costlier-to-miss class is answered."""
    x, y = Axis(0.0, 1.0, 72, 404), Axis(*around([c for _, c in points] + [0.0]), 250, 16)
    parts = [*_frame(x, y, words, [_percent(t) for t in x.ticks(5)]), f'<g class="r-classical"><polyline class="curve" points="{_points(x, y, [(t, c) for t, c in points])}"/></g>',
             _line(x(chosen), 16, x(chosen), 250, "margin")]
    return _svg(420, 310, parts, words["title"])


def _count(value: float) -> str:
    return f"{value:,.0f}"


def mark(row: dict[str, Any]) -> str:
    """The sign of a candidate's rung, for tables and legends."""
    return f'<svg class="sign {_rung(row)}" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{_mark(row, 7, 7, 5)}</svg>'


def _frame(x: Axis, y: Axis, words: dict[str, str], x_labels: Sequence[str] | None = None, y_labels: Sequence[str] | None = None,
           most: int = 5) -> list[str]:
    """Grid, ticks and the two labels. Pixel ends come from the axes; y.start is the bottom."""
    xs, ys = x.ticks(most), y.ticks(most)
    parts = []
    for t, label in zip(ys, y_labels or [wording.number(t, digits=4, zeros=False) for t in ys], strict=True):
        parts += [_line(x.start, y(t), x.stop, y(t), "grid"), _text(x.start - 7, y(t) + 4, label, "tick end")]
    for t, label in zip(xs, x_labels or [wording.number(t, digits=4, zeros=False) for t in xs], strict=True):
        parts += [_line(x(t), y.start, x(t), y.start + 5, "axis"), _text(x(t), y.start + 20, label, "tick mid")]
    parts.append(_line(x.start, y.start, x.stop, y.start, "axis"))
    parts.append(_text((x.start + x.stop) / 2, y.start + 44, words["x"], "label mid"))
    middle = (y.start + y.stop) / 2
    parts.append(f'<text class="label mid" transform="translate(11 {middle:.1f}) rotate(-90)">{escape(wording.clean(words["y"]))}</text>')
    return parts


def _mark(row: dict[str, Any], x: float, y: float, r: float) -> str:
    """A sign per rung: shape as well as colour, so that nobody needs to tell colours apart."""
    shape = MARKS.get(row.get("rung", ""), "circle")
    if shape == "circle":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    corners = {"diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)), "square": ((-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)),
               "up": ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)), "down": ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
               "hexagon": ((1.15, 0), (0.58, 1), (-0.58, 1), (-1.15, 0), (-0.58, -1), (0.58, -1))}[shape]
    return f'<polygon class="mark" points="{" ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in corners)}"/>'


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


def _rung(row: dict[str, Any]) -> str:
    return "r-" + (row.get("rung") if row.get("rung") in MARKS else "other")  # type: ignore[operator]


def _width(name: str) -> float:
    return sum(13.5 if ord(c) > 0x2E80 else 7.4 for c in name)


def shortened(name: str, most: int) -> str:
    """A name of at most `most` columns (a Chinese character takes two), the rest as an ellipsis."""
    name, taken = wording.clean(name), 0
    for at, letter in enumerate(name):
        taken += 2 if ord(letter) > 0x2E80 else 1
        if taken > most:
            return name[:at].rstrip() + "…"
    return name


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _thinned(curve: Sequence[Sequence[float | None]], most: int) -> list[Sequence[float | None]]:
    step = max(1, math.ceil(len(curve) / most))
    return [*curve[:-1:step], curve[-1]] if len(curve) > 1 else list(curve)


def _points(x: Axis, y: Axis, pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in pairs)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(wording.clean(text))}</text>'


def _svg(width: int, height: int, parts: Iterable[str], title: str, kind: str = "chart") -> str:
    said = escape(wording.clean(title))
    return (f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{said}" '
            f'style="max-width:{width * (1.12 if kind == "chart" else 1):.0f}px"><title>{said}</title>{"".join(parts)}</svg>')


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
    return _svg(width, height, [*parts, f'<polyline class="curve" points="{points}"/>'], title, "channel")
