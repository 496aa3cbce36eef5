"""Small charts of the page: SVG of numbers and of our own sentences; no name of a row or a column is drawn into them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from assay.report import wording
from assay.report.draw import Axis, around, line, points, svg, text

HIGH, LEFT, RIGHT, TOP, FOOT = 180, 52, 14, 12, 26
Points = Sequence[tuple[float, float]]


def curves(series: Sequence[tuple[str, Points]], title: str, *, clock: bool = True, from_zero: bool = True, unit: str = "", band: tuple[Points, Points] | None = None,
           least: tuple[float, float] | None = None, wide: int = 420) -> str:
    """Lines over time (clock: seconds since 1970) or over a count. series: (class of the line: c1, c2, ..., its points). band: lower and upper end. least: both ends of the x-axis at least."""
    known = [p for _, line_ in series for p in line_] + [p for part in band or () for p in part]
    xs = [p[0] for p in known] + list(least or ())
    ys = [p[1] for p in known]
    low, high = around([0.0, *ys] if from_zero else ys)
    if from_zero and min(ys, default=0.0) >= 0:
        low = 0.0
    first, last = (min(xs), max(xs)) if xs else (0.0, 1.0)
    x = Axis(first, last if last > first else first + 1.0, LEFT, wide - RIGHT)
    y = Axis(low, high if high > low else low + 1.0, HIGH - FOOT, TOP)
    parts = []
    for t in y.ticks(4):
        parts += [line(LEFT, y(t), wide - RIGHT, y(t), "grid"), text(LEFT - 7, y(t) + 4, wording.number(t, digits=3, zeros=False) + unit, "tick end")]
    for at, label in (_times(x) if clock else [(t, wording.number(t, digits=3, zeros=False)) for t in x.ticks(6) if float(t).is_integer()]):
        parts += [line(x(at), y.start, x(at), y.start + 4, "axis"), text(x(at), y.start + 18, label, "tick mid")]
    parts.append(line(LEFT, y.start, wide - RIGHT, y.start, "axis"))
    if band is not None:
        parts.append(f'<polygon class="band c1" points="{points(x, y, [*band[0], *reversed(band[1])])}"/>')
    for kind, pairs in series:
        if len(pairs) == 1:
            parts.append(f'<circle class="dot {kind}" cx="{x(pairs[0][0]):.1f}" cy="{y(pairs[0][1]):.1f}" r="3"/>')
        elif pairs:
            parts.append(f'<polyline class="curve {kind}" points="{points(x, y, pairs)}"/>')
    return svg(wide, HIGH, parts, title)


def _times(x: Axis) -> list[tuple[float, str]]:
    """Four to seven ticks at round local times."""
    span = x.high - x.low
    step = next((s for s in (10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400) if span / s <= 6), 86400 * max(1, round(span / 86400 / 6)))
    offset = datetime.fromtimestamp(x.low, UTC).astimezone().utcoffset()
    shift = offset.total_seconds() if offset else 0.0
    form = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%m-%d"
    first = -((-(x.low + shift)) // step) * step - shift
    return [(t, datetime.fromtimestamp(t, UTC).astimezone().strftime(form)) for t in (first + i * step for i in range(int(span // step) + 1)) if x.low <= t <= x.high]


def whisker(effect: float, low: float, high: float, most: float, limit: float | None, title: str) -> str:
    """An effect with its interval on a line from 0 to `most`; limit: what still counts as a trifle."""
    x = Axis(0.0, most or 1.0, 4.0, 176.0)
    parts = [line(4, 10, 176, 10, "rail")]
    if limit is not None:
        parts.append(line(x(limit), 2, x(limit), 18, "margin"))
    parts += [f'<line class="whisker" x1="{x(max(0.0, low)):.1f}" y1="10" x2="{x(high):.1f}" y2="10"/>', f'<circle class="dot c1" cx="{x(effect):.1f}" cy="10" r="4"/>']
    return svg(180, 20, parts, title, kind="bar")
