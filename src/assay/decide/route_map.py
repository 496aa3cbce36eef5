"""Tours on a map: a plane, or latitude and longitude drawn as the compass points lie. One colour for each tour."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np

from assay.decide.base import Plan
from assay.decide.drawing import COLOURS, GREY, frame, text
from assay.decide.route_problem import RouteProblem
from assay.words import say

SIDE = 640.0
NAMED = 40  # stops: with more of them names would cover the map


def draw(problem: RouteProblem, plan: Plan, words: Any) -> str:
    xy = problem.xy.astype(float)
    if problem.globe:  # a degree of longitude is shorter than one of latitude
        xy = xy * (math.cos(math.radians(float(xy[:, 1].mean()))), 1.0)
    low, span = xy.min(axis=0), max(float(np.ptp(xy, axis=0).max()), 1e-9)
    at = np.column_stack([30 + (xy[:, 0] - low[0]) / span * SIDE, 40 + (xy[:, 1].max() - xy[:, 1]) / span * SIDE])
    width, height = 60 + float(np.ptp(xy[:, 0])) / span * SIDE, 40 + float(np.ptp(xy[:, 1])) / span * SIDE
    title = words(say("Routes: {n} tours, cost {cost:,.6g}", n=len(plan.choice.get("routes", [])), cost=plan.cost)) if plan.choice else words(say("No plan can be carried out"))
    place = {v.name: v.place for v in problem.visits}
    parts = [text(12, 16, title, bold=True)]
    stops: dict[str, list[str]] = {}
    for row in plan.choice.get("stops", []):
        stops.setdefault(row["vehicle"], []).append(row["stop"])
    for i, route in enumerate(plan.choice.get("routes", [])):
        names = stops.get(route["vehicle"], [])
        line = [problem.places.index(route["from"]), *(place[n] for n in names), problem.places.index(route["to"])]
        points = " ".join(f"{at[p, 0]:.1f},{at[p, 1]:.1f}" for p in line)
        said = escape(f"{route['vehicle']}: {', '.join(names)}")
        dash = f' stroke-dasharray="{(6, 2, 9)[i // len(COLOURS) % 3]} {(3, 2, 4)[i // len(COLOURS) % 3]}"' if i >= len(COLOURS) else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[i % len(COLOURS)]}" stroke-width="1.8" stroke-linejoin="round"{dash}><title>{said}</title></polyline>')
    few = len(problem.visits) <= NAMED
    if few:
        width = max([width, *(float(at[v.place, 0]) + 12 + _wide(v.name) for v in problem.visits)])
    for visit in problem.visits:
        x, y = at[visit.place]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if few else 2.5}" fill="{GREY}"><title>{escape(visit.name)}</title></circle>')
        if few:
            parts.append(text(x + 6, y - 5, visit.name))
    for depot in problem.depots:
        x, y = at[depot]
        parts.append(f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{COLOURS[6]}" stroke="{GREY}"><title>{escape(problem.places[depot])}</title></rect>')
    names = [route["vehicle"] for route in plan.choice.get("routes", [])] if few else []
    across, down = 12.0, height + 26
    for i, name in enumerate(names):
        if across > 12 and across + 20 + _wide(name) > max(width, 300):
            across, down = 12.0, down + 18
        parts.append(f'<rect x="{across:.0f}" y="{down - 9:.0f}" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>' + text(across + 14, down, name))
        across += 28 + _wide(name)
    return frame(max(width, 300, 24 + _wide(title)), down + 10, parts, title)


def _wide(words: str) -> float:
    return sum(13 if ord(c) > 0x2E7F else 7.2 for c in words)
