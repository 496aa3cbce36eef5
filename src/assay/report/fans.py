"""Forecasts in the report: fans, the error along the horizon and by size, and whether the quantiles hold what they promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.report import draw, wording
from assay.words import say as text

Say = Callable[..., str]
WHICH = {"worst": text("among the worst"), "usual": text("a usual one"), "best": text("among the best")}


def shown(packed: dict[str, Any], say: Say, markup: Callable[[str], Any]) -> list[dict[str, Any]]:
    """The fans of `explain.fans`, drawn."""
    out = []
    for fan in packed["explained"]:
        name = wording.clean(fan["id"]) or wording.clean(packed["column"])
        title = say("{name}: what came before, the forecast and the truth", name=name)
        out.append({"name": name, "which": say(WHICH[fan["which"]]), "loss": wording.number(fan["loss"], digits=3), "origin": fan["origin"] or "",
                    "svg": markup(fan_chart(fan, {"title": title, "x": say("steps from the origin"), "y": wording.clean(packed["column"])}))})
    return out


def shapes(verdict: dict[str, Any], pair: list[dict[str, Any]], unit: str, say: Say, markup: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Three pictures for the two sides of the question: error by step, by size, and stated against reached levels."""
    curves = [(row, c) for row in pair if (c := verdict["curves"].get(row["candidate"]) or {}).get("by_step")]
    if not curves:
        return []
    legend = [{"mark": markup(draw.mark(row)), "name": wording.clean(row["candidate"])} for row, _ in curves]
    out = [{"svg": markup(lines([(row, c["by_step"]) for row, c in curves], {"title": say("Loss along the horizon"), "x": say("step"), "y": say(wording.LOSSES.get(verdict["loss"], text("loss")))})), "legend": legend}]
    if all(len(c["by_size"]) > 1 for _, c in curves):
        log = all(p[0] > 0 for _, c in curves for p in c["by_size"])
        out.append({"svg": markup(lines([(row, c["by_size"]) for row, c in curves], {"title": say("Loss by the size of the series"), "x": say("mean of the history"), "y": unit}, log=log)),
                    "legend": legend})
    words = {"title": say("Do the quantiles hold what they promise?"), "x": say("stated level"), "y": say("share of truths below")}
    out.append({"svg": markup(levels([(row, c["levels"]) for row, c in curves], words)), "legend": legend})
    return out


def fan_chart(fan: dict[str, Any], words: dict[str, str]) -> str:
    """History, then the median in bands of the levels, and the truth."""
    history, truth, quantiles = fan["history"], fan["truth"], fan["quantiles"]
    middle = len(quantiles) // 2
    x = draw.Axis(-len(history) + 1, len(truth), 64, 404)
    y = draw.Axis(*draw.around([*history, *truth, *quantiles[0], *quantiles[-1]]), 190, 12)
    parts = [*draw.frame(x, y, words, most=4), '<g class="r-classical">']
    for k in range(middle):
        low, high = quantiles[k], quantiles[-1 - k]
        edge = [(i + 1, v) for i, v in enumerate(low)] + [(i + 1, v) for i, v in reversed([*enumerate(high)])]
        parts.append(f'<polygon class="band" points="{draw.points(x, y, edge)}"/>')
    parts.append(f'<polyline class="curve" points="{draw.points(x, y, [(i + 1, v) for i, v in enumerate(quantiles[middle])])}"/></g>')
    for line, first in ((history, -len(history) + 1), (truth, 1)):
        for run in _runs(line, first):
            kind = "curve history" if first < 1 else "curve truth"
            parts.append(f'<polyline class="{kind}" points="{draw.points(x, y, run)}"/>' if len(run) > 1
                         else f'<circle class="dot" cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="2"/>')
    parts.append(draw.line(x(0.5), 12, x(0.5), 190, "margin"))
    return draw.svg(420, 246, parts, words["title"])


def lines(series: list[tuple[dict[str, Any], list[list[float]]]], words: dict[str, str], *, log: bool = False) -> str:
    """A line a candidate; points [x, y, ...]."""
    x = draw.Axis(*draw.around([p[0] for _, points in series for p in points], pad=0.03, log=log), 72, 404, log=log)
    y = draw.Axis(*draw.around([p[1] for _, points in series for p in points] + [0.0]), 230, 14)
    parts = draw.frame(x, y, words, most=4)
    for row, points in series:
        parts.append(f'<g class="{draw.rung(row)}"><polyline class="curve" points="{draw.points(x, y, [(p[0], p[1]) for p in points])}"/></g>')
    return draw.svg(420, 288, parts, words["title"])


def levels(series: list[tuple[dict[str, Any], list[list[float]]]], words: dict[str, str]) -> str:
    x, y = draw.Axis(0.0, 1.0, 72, 404), draw.Axis(0.0, 1.0, 230, 14)
    parts = [*draw.frame(x, y, words), draw.line(x(0), y(0), x(1), y(1), "zero")]
    for row, points in series:
        parts.append(f'<g class="{draw.rung(row)}"><polyline class="curve" points="{draw.points(x, y, [(a, b) for a, b in points])}"/>'
                     + "".join(f'<circle class="mark" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>' for a, b in points) + "</g>")
    return draw.svg(420, 288, parts, words["title"])


def _runs(values: list[float | None], first: int) -> list[list[tuple[float, float]]]:
    """Stretches without a gap."""
    out: list[list[tuple[float, float]]] = [[]]
    for i, v in enumerate(values):
        if v is None:
            out.append([])
        else:
            out[-1].append((first + i, v))
    return [run for run in out if run]
