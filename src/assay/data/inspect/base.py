"""What looking at data can tell: a Finding (something the user should know) and a Structure (how its rows belong together)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from assay.words import Text

LEVELS = ("leak", "warning", "note")  # leak: a score built on it is not a result


@dataclass(frozen=True)
class Finding:
    """text: what was found, with its figure. advice: what to do about it. figure: JSON-ready numbers behind the sentence."""

    code: str
    level: str
    text: Text
    advice: Text
    columns: tuple[str, ...] = ()
    figure: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {"code": self.code, "level": self.level, "text": self.text.json(), "advice": self.advice.json(), "columns": list(self.columns),
                "figure": self.figure}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Finding:
        return cls(packed["code"], packed["level"], Text.of(packed["text"]), Text.of(packed["advice"]), tuple(packed["columns"]), packed["figure"])


@dataclass(frozen=True)
class Structure:
    """How rows belong together, and so how they must be split. kind: 'group' (by `column`), 'time' (by `column`), 'order' (as they
    stand in the file), or 'random' if no structure was found. text: why, with its figure."""

    kind: str
    column: str | None
    text: Text
    figure: dict[str, Any] = field(default_factory=dict)
