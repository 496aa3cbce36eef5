"""A row as a person can read it: texts and numbers as they are, pictures and sounds as pictures and sounds."""

from __future__ import annotations

import base64
import re
from typing import Any

from assay.serve.page.desk import Visit
from assay.serve.page.gate import media_kind
from assay.serve.page.parts import tag, values

LONG = 4_000  # characters of one cell that are shown


def show_row(visit: Visit, row: dict[str, Any]) -> None:
    values(row, lambda name, value: cell(visit, name, value))


def cell(visit: Visit, name: str, value: Any) -> None:
    if isinstance(value, dict) and re.fullmatch(r"[0-9a-f]{64}", str(value.get("sha256", ""))):
        place = visit.home / "media" / value["sha256"]
        if not place.is_file():
            tag("span", visit.say("not kept (start the service with --keep-media)"), "soft")
            return
        with place.open("rb") as file:
            kind = media_kind(file.read(16))
        medium(visit, name, kind, f"/page/media/{value['sha256']}")
    elif isinstance(value, (bytes, bytearray)):
        medium(visit, name, media_kind(bytes(value[:16])), address(bytes(value)))
    elif value is None:
        tag("span", visit.say("empty"), "soft")
    else:
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        tag("span", shown[:LONG] + ("…" if len(shown) > LONG else ""), "text" if isinstance(value, str) else "number")


def medium(visit: Visit, name: str, kind: str, source: str) -> None:
    if kind.startswith("image/"):
        tag("img", "", "picture", src=source, alt=visit.say("picture of the column '{name}'", name=name))
    elif kind.startswith("audio/"):
        tag("audio", "", "", src=source, controls=True, preload="metadata", aria_label=visit.say("sound of the column '{name}'", name=name))
    else:
        tag("span", visit.say("cannot be shown here"), "soft")


def address(content: bytes) -> str:
    """The bytes as an address that an image can be loaded from without asking anybody."""
    return f"data:{media_kind(content[:16])};base64,{base64.b64encode(content).decode('ascii')}"


def told(answer: dict[str, Any]) -> str:
    """An answer in a few words."""
    from assay.report import wording

    given = answer.get("answer")
    if given is None and "step" in answer:
        return f"{len(answer['step'])} steps" if isinstance(answer["step"], list) else ""
    text = wording.number(given) if isinstance(given, float) else str(given)
    if answer.get("probability") is not None:
        return f"{text} · {float(answer['probability']):.0%}"
    if answer.get("low") is not None and isinstance(answer.get("low"), (int, float)):
        return f"{text} · {wording.interval(answer['low'], answer['high'])}"
    return text
