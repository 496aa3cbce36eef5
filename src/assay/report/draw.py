"""What every picture of the report is drawn with: axes, lines, signs, the frame. Inline SVG; `page.css` gives it light and dark."""

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


def frame(x: Axis, y: Axis, words: dict[str, str], x_labels: Sequence[str] | None = None, y_labels: Sequence[str] | None = None,
           most: int = 5) -> list[str]:
    """Grid, ticks and the two labels. Pixel ends come from the axes; y.start is the bottom."""
    xs, ys = x.ticks(most), y.ticks(most)
    parts = []
    for t, label in zip(ys, y_labels or [wording.number(t, digits=4, zeros=False) for t in ys], strict=True):
        parts += [line(x.start, y(t), x.stop, y(t), "grid"), text(x.start - 7, y(t) + 4, label, "tick end")]
    for t, label in zip(xs, x_labels or [wording.number(t, digits=4, zeros=False) for t in xs], strict=True):
        parts += [line(x(t), y.start, x(t), y.start + 5, "axis"), text(x(t), y.start + 20, label, "tick mid")]
    parts.append(line(x.start, y.start, x.stop, y.start, "axis"))
    parts.append(text((x.start + x.stop) / 2, y.start + 44, words["x"], "label mid"))
    middle = (y.start + y.stop) / 2
    parts.append(f'<text class="label mid" transform="translate(11 {middle:.1f}) rotate(-90)">{escape(wording.clean(words["y"]))}</text>')
    return parts


def sign(row: dict[str, Any], x: float, y: float, r: float) -> str:
    """A sign per rung: shape as well as colour, so that nobody needs to tell colours apart."""
    shape = MARKS.get(row.get("rung", ""), "circle")
    if shape == "circle":
        return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    corners = {"diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)), "square": ((-0.95, -0.95), (0.95, -0.95), (0.95, 0.95), (-0.95, 0.95)),
               "up": ((0, -1.25), (1.15, 0.85), (-1.15, 0.85)), "down": ((0, 1.25), (1.15, -0.85), (-1.15, -0.85)),
               "hexagon": ((1.15, 0), (0.58, 1), (-0.58, 1), (-1.15, 0), (-0.58, -1), (0.58, -1))}[shape]
    return f'<polygon class="mark" points="{" ".join(f"{x + a * r:.1f},{y + b * r:.1f}" for a, b in corners)}"/>'


def mark(row: dict[str, Any]) -> str:
    """The sign of a candidate's rung, for tables and legends."""
    return f'<svg class="sign {rung(row)}" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{sign(row, 7, 7, 5)}</svg>'


def rung(row: dict[str, Any]) -> str:
    return "r-" + (row.get("rung") if row.get("rung") in MARKS else "other")  # type: ignore[operator]


def width_of(name: str) -> float:
    return sum(13.5 if ord(c) > 0x2E80 else 7.4 for c in name)


def shortened(name: str, most: int) -> str:
    """A name of at most `most` columns (a Chinese character takes two), the rest as an ellipsis."""
    name, taken = wording.clean(name), 0
    for at, letter in enumerate(name):
        taken += 2 if ord(letter) > 0x2E80 else 1
        if taken > most:
            return name[:at].rstrip() + "…"
    return name


def percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def points(x: Axis, y: Axis, pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in pairs)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(wording.clean(text))}</text>'


def svg(width: int, height: int, parts: Iterable[str], title: str, kind: str = "chart") -> str:
    said = escape(wording.clean(title))
    return (f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{said}" '
            f'style="max-width:{width * (1.12 if kind == "chart" else 1):.0f}px"><title>{said}</title>{"".join(parts)}</svg>')
