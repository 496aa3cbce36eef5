"""What a check has found: one sentence, how grave it is, and the figures behind it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from assay.words import Text

LEVELS = ("fine", "info", "warning", "critical")
_LONGEST = 64  # characters of a code: the store's column


@dataclass(frozen=True)
class Finding:
    """level: one of LEVELS; 'fine' was tested and is nothing to speak of. facts: JSON-ready, among them where they exist
    `column`, `effect` with `low` and `high`, and `p`: the chance of such data if the effect were not above what is tolerated."""

    code: str
    level: str
    text: Text
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def alarming(self) -> bool:
        return self.level in ("warning", "critical")

    def at(self, level: str) -> Finding:
        return replace(self, level=level)

    def json(self) -> dict[str, Any]:
        return {"code": self.code, "level": self.level, "text": str(self.text), "facts": self.facts}


def code(what: str, name: str = "") -> str:
    """'what:name' in at most 64 characters; a longer one ends in a digest, so that two columns never share an alarm."""
    whole = f"{what}:{name}" if name else what
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[:_LONGEST - 13]}~{hashlib.sha256(whole.encode()).hexdigest()[:12]}"
