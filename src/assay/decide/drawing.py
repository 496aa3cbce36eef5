"""Plain charts of plans as SVG: no script, no style sheet, colours that are read on white and on black."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

GREY = "#808080"
COLOURS = ("#2f81f7", "#d97706", "#16a34a", "#db2777", "#8b5cf6", "#0d9488", "#dc2626", "#a16207")
LEFT, RIGHT, TOP, FLOOR = 64.0, 700.0, 46.0, 40.0


class Chart:
    """Steps along x, one unit along y. values: everything that has to fit; zero always does."""

    def __init__(self, title: str, times: Sequence[str], values: Sequence[float] | np.ndarray, *, unit: str = "", height: float = 300.0) -> None:
        finite = np.asarray([v for v in np.ravel(np.asarray(values, dtype=float)) if np.isfinite(v)] or [0.0])
        self.low, self.high = min(0.0, float(finite.min())), max(float(finite.max()), float(finite.min()) + 1e-9, 1e-9)
        self.count, self.height, self.title = max(len(times), 1), height, title
        self.parts: list[str] = []
        self.names: list[tuple[str, str]] = []
        for tick in ticks(self.low, self.high):
            y = self.y(tick)
            self.parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GREY}" stroke-opacity="0.35"/>')
            self.parts.append(text(LEFT - 6, y + 4, f"{tick:,.6g}", anchor="end"))
        for i in sorted({round(k * (self.count - 1) / 4) for k in range(5)}):
            if i < len(times):
                side = "middle" if len(times[i]) < 10 or 0 < i < len(times) - 1 else "end" if i else "start"  # a long name stays inside
                self.parts.append(text({"start": LEFT, "end": RIGHT}.get(side, self.x(i + 0.5)), height - FLOOR + 18, times[i], anchor=side))
        if unit:
            self.parts.append(text(LEFT, TOP - 10, unit))

    def x(self, step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / self.count

    def y(self, value: float) -> float:
        return self.height - FLOOR - (self.height - FLOOR - TOP) * (value - self.low) / (self.high - self.low)

    def stairs(self, values: Sequence[float] | np.ndarray, name: str, colour: str, *, dashed: bool = False) -> None:
        points = " ".join(f"{self.x(i + side):.1f},{self.y(float(v)):.1f}" for i, v in enumerate(values) for side in (0, 1))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}><title>{escape(name)}</title></polyline>')
        self.names.append((name, colour))

    def bars(self, values: Sequence[float] | np.ndarray, name: str, colour: str, *, base: Sequence[float] | np.ndarray | None = None) -> None:
        for i, value in enumerate(values):
            if abs(value) > 1e-9:
                below = 0.0 if base is None else float(base[i])
                y1, y2 = sorted((self.y(below), self.y(below + float(value))))
                self.parts.append(f'<rect x="{self.x(i + 0.12):.1f}" y="{y1:.1f}" width="{self.x(0.76) - LEFT:.1f}" height="{max(y2 - y1, 0.6):.1f}" '
                                  f'fill="{colour}" fill-opacity="0.8"><title>{escape(name)}: {float(value):,.6g}</title></rect>')
        self.names.append((name, colour))

    def svg(self) -> str:
        at, legend = LEFT, []
        for name, colour in self.names:
            legend.append(f'<rect x="{at:.0f}" y="{self.height - 12:.0f}" width="10" height="10" fill="{colour}"/>' + text(at + 14, self.height - 3, name))
            at += 26 + sum(12 if ord(c) > 0x2E7F else 6.6 for c in name)
        return frame(max(RIGHT + 20, at), self.height + 6, [text(LEFT, 14, self.title, bold=True), *self.parts, *legend], self.title)


def frame(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="12">'
            f"<title>{escape(title)}</title>{''.join(parts)}</svg>")


def text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    clean = "".join(c if c.isprintable() else " " for c in words)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{GREY}"{weight}>{escape(clean)}</text>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    rough = (high - low) / most
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
