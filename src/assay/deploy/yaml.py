"""Plain data as YAML that people can read and edit, without a library: mappings and lists in blocks, strings quoted where YAML would take them for something else."""

from __future__ import annotations

import json
import re
from typing import Any

_BARE = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@-]*(?::[A-Za-z0-9/_.-]+)*")
# what YAML 1.1 reads as a truth, nothing or a number, whatever the case
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"}


def written(value: dict[str, Any] | list[Any]) -> str:
    """One document. Values: dict (string keys), list, str, int, float, bool, None. Reading it with a YAML 1.1 or 1.2 parser gives `value` again."""
    return "\n".join(_block(value)) + "\n"


def documents(values: list[dict[str, Any]]) -> str:
    return "---\n".join(written(value) for value in values)


def _block(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for key, inner in value.items():
            nested = isinstance(inner, (dict, list)) and inner
            lines += [f"{_scalar(key)}:", *(f"  {line}" for line in _block(inner))] if nested else [f"{_scalar(key)}: {_scalar(inner)}"]
        return lines
    if isinstance(value, list) and value:
        lines = []
        for inner in value:
            first, *rest = _block(inner)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _WORDS:
        return value
    told = json.dumps(value, ensure_ascii=False)  # what JSON writes is YAML, but for characters that YAML wants escaped
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in told) if isinstance(value, str) else told
