"""Who does what when, as bars: machines are rows, jobs have colours, hatched where a machine is closed."""

from __future__ import annotations

from html import escape
from typing import Any

from assay.decide.base import Plan
from assay.decide.drawing import COLOURS, GREY, frame, text, ticks
from assay.decide.shop_problem import Shop
from assay.words import say

WIDTH, ROW, TOP = 860.0, 28.0, 40.0


def draw(shop: Shop, plan: Plan, words: Any) -> str:
    rows = plan.choice.get("operations", [])
    title = words(say("Schedule: {n} operations on {m} machines, cost {cost:,.6g}", n=len(rows), m=len(shop.machines), cost=plan.cost)) if rows else words(say("No plan can be carried out"))
    left = min(220.0, 24 + max((sum(13 if ord(c) > 0x2E7F else 7.2 for c in m) for m in shop.machines), default=0))
    end = max([r["end"] for r in rows] or [1.0])
    colour = {job.name: COLOURS[i % len(COLOURS)] for i, job in enumerate(shop.jobs)}
    floor = TOP + ROW * len(shop.machines)

    def x(at: float) -> float:
        return left + (WIDTH - left) * at / max(end, 1e-9)

    parts = [f'<defs><pattern id="closed" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.5" height="6" fill="{GREY}"/></pattern></defs>',
             text(12, 18, title, bold=True)]
    parts += [f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP:.0f}" y2="{floor:.0f}" stroke="{GREY}" stroke-opacity="0.35"/>'
              + text(x(tick), floor + 16, f"{tick:,.6g}", anchor="middle") for tick in ticks(0.0, max(end, 1e-9))]
    for i, name in enumerate(shop.machines):
        y = TOP + ROW * i
        parts.append(text(left - 8, y + 18, name, anchor="end"))
        for low, high in shop.closed[i]:
            if low < end:
                said = escape(words(say("{machine}: closed from {low:g} to {high:g}", machine=name, low=low, high=high)))
                parts.append(f'<rect x="{x(low):.1f}" y="{y + 3:.1f}" width="{x(min(high, end)) - x(low):.1f}" height="{ROW - 6:.0f}" fill="url(#closed)" stroke="{GREY}"><title>{said}</title></rect>')
    row_of = {name: i for i, name in enumerate(shop.machines)}
    for row in rows:
        y, a, b = TOP + ROW * row_of[row["machine"]], x(row["start"]), x(row["end"])
        said = escape(f"{row['job']} / {row['step']}: {row['start']:g} - {row['end']:g}")
        parts.append(f'<rect x="{a:.1f}" y="{y + 3:.1f}" width="{max(b - a, 0.8):.1f}" height="{ROW - 6:.0f}" rx="2" fill="{colour[row["job"]]}" stroke="{GREY}" stroke-width="0.5">'
                     f"<title>{said}</title></rect>")
        if b - a > 12 + 7 * len(row["job"]):
            parts.append(f'<text x="{(a + b) / 2:.1f}" y="{y + 18:.1f}" text-anchor="middle" fill="#ffffff" font-size="11">{escape(row["job"])}</text>')
    return frame(WIDTH + 24, floor + 26, parts, title)
