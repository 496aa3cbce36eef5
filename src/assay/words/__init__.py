"""Every sentence a user reads: an English template here in the code, its Chinese twin in `words/zh/*.json`.

A sentence is kept as template + values until somebody reads it, so a report can be drawn again in the other language.
`tests/test_words.py` walks the source and fails when a template has no Chinese twin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Text:
    """A sentence waiting for its language: `template` is English with `{name}` holes, `values` fills them."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.to("en")

    def to(self, lang: str) -> str:
        template = self.template if lang == "en" else _catalogue(lang).get(self.template, self.template)
        return template.format(**{key: _plain(value, lang) for key, value in self.values.items()})

    def json(self) -> dict[str, Any]:
        return {"text": self.template, "values": {k: _packed(v) for k, v in self.values.items()}}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Text:
        return cls(packed["text"], {k: _unpacked(v) for k, v in packed["values"].items()})


def say(template: str, /, **values: Any) -> Text:
    """A sentence in English, to be shown in any language. `say("{n} rows", n=3).to("zh")`."""
    return Text(template, values)


def _plain(value: Any, lang: str) -> Any:
    if isinstance(value, Text):
        return value.to(lang)
    if isinstance(value, (list, tuple)):
        return ("、" if lang == "zh" else ", ").join(str(_plain(v, lang)) for v in value)
    return _Figure(value) if isinstance(value, float) else value


class _Figure(float):
    """A number that a sentence rounds without falling into 1.2e+04: 'g' formats spell it out between 1e-5 and 1e12."""

    def __format__(self, spec: str) -> str:
        text = float.__format__(self, spec)
        if not spec.endswith("g") or "e" not in text or not 1e-5 <= abs(self) < 1e12:
            return text
        rounded = float(text)
        sign = "+" if spec.startswith("+") else ""
        return format(rounded, f"{sign},.0f") if abs(rounded) >= 1 else format(rounded, f"{sign}.7f").rstrip("0")


def _packed(value: Any) -> Any:
    if isinstance(value, Text):
        return value.json()
    if isinstance(value, (list, tuple)):
        return [_packed(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"text", "values"}:
        return Text.of(value)
    if isinstance(value, list):
        return [_unpacked(v) for v in value]
    return value


@cache
def _catalogue(lang: str) -> dict[str, str]:
    folder = Path(__file__).parent / lang
    merged: dict[str, str] = {}
    for page in sorted(folder.glob("*.json")):
        merged |= json.loads(page.read_text(encoding="utf-8"))
    return merged
