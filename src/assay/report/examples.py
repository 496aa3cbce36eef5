"""Rows to look at: pictures with truth and answer, heat maps, marked words, curves of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.report import charts, fans, wording

Say = Callable[..., str]


def examples(packed: dict[str, Any], say: Say, markup: Callable[[str], Any]) -> dict[str, Any] | None:
    """What the template shows of `explain.examples`; None where there is nothing to look at."""
    if not packed or not (packed["grid"] or packed["explained"]):
        return None
    if packed["kind"] == "fans":
        return {"kind": "fans", "column": wording.clean(packed["column"]), "grid": [], "explained": fans.shown(packed, say, markup), "method": ""}
    shown = [_told(cell, say) | _drawn(cell, say, markup) for cell in packed["explained"]]
    return {"kind": packed["kind"], "column": wording.clean(packed["column"]), "grid": [_told(cell, say) | {"image": cell["image"]} for cell in packed["grid"]],
            "explained": shown, "method": say(packed["method"]), "right": sum(bool(c.get("right")) for c in packed["grid"]), "labels": "right" in (packed["grid"] or packed["explained"])[0]}


def _told(cell: dict[str, Any], say: Say) -> dict[str, Any]:
    answer = wording.clean(cell["answer"]) + (f" {cell['probability']:.0%}" if "probability" in cell else "")
    row = "" if cell.get("row") is None else say("row {row}", row=cell["row"] + 1)
    return {"truth": wording.clean(cell["truth"]), "answer": answer, "right": cell.get("right"), "row": row,
            "alt": say("true {truth}, answered {answer}", truth=wording.clean(cell["truth"]), answer=answer)}


def _drawn(cell: dict[str, Any], say: Say, markup: Callable[[str], Any]) -> dict[str, Any]:
    if "heat" in cell:
        return {"image": cell["image"], "heat": cell["heat"]}
    if "words" in cell:
        top = max((abs(v) for _, v in cell["words"]), default=0.0) or 1.0
        return {"words": [{"text": w, "strength": round(100 * min(1.0, abs(v) / top)), "for": v > 0} for w, v in cell["words"]]}
    return {"channels": [{"name": wording.clean(c["name"]), "svg": markup(charts.channel(c["values"], c["adds"], say("{name}: values, and what each stretch adds", name=c["name"])))}
                         for c in cell["channels"]]}
