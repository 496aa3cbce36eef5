"""What every format says in the end (Contents), and json read without trust."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from assay.data.dataset import Schema
from assay.ship.archive import printable
from assay.words import Text, say

DEEPEST = 40  # levels of a json document
# possessive, and closed by the end of the text too: linear time on whatever a hostile file holds
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class Malformed(Exception):
    """A document is not of the shape that its format demands. Carries what was found, and where, as a Text."""

    def __init__(self, found: Text) -> None:
        self.found = found
        super().__init__(str(found))


@dataclass(frozen=True)
class Entry:
    """Size in bytes and sha256 (hex) of one member, as its writer saw it."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Contents:
    """All that a bundle says about itself, checked by shape, whatever format it was written in."""

    format: int
    written_by: str
    task: dict[str, Any]
    candidate: str
    candidate_version: str
    params: dict[str, Any]
    facts: dict[str, Any]
    schema: Schema
    calibration: dict[str, Any]
    entries: dict[str, Entry]


def strict_json(raw: bytes) -> Any:
    """UTF-8 json of at most 40 levels. Raises Malformed for NaN, infinity, a key that stands twice, half a surrogate pair."""
    try:
        text = raw.decode("utf-8")
        if _depth(raw) > DEEPEST:
            raise Malformed(say("json of more than {most} levels", most=DEEPEST))
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise Malformed(say("text that is not UTF-8")) from None
    except (ValueError, RecursionError) as error:
        raise Malformed(say("broken json ({detail})", detail=printable(str(error)))) from None
    return value


def _depth(raw: bytes) -> int:
    """Levels of brackets outside strings. Counted before parsing, as a parser would run out of stack."""
    bare = np.frombuffer(_STRING.sub(b"", raw), dtype=np.uint8)
    steps = np.isin(bare, list(b"[{")).astype(np.int64) - np.isin(bare, list(b"]}"))
    return int(steps.cumsum().max(initial=0))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed(say("a json key that stands twice"))
    return made


def _no_constant(name: str) -> NoReturn:
    raise Malformed(say("the number {name}", name=name))


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Malformed(say("a number beyond the range of floats"))
    return value


def plain(value: Any, *, where: str, nan: bool = False) -> Any:
    """`value` as json holds it: numpy numbers and arrays, tuples and lists, dicts with text keys.

    nan: NaN and infinities become null (for facts that are only shown) instead of a ValueError (for what is computed with).
    Raises TypeError for what json cannot hold, and for keys that are not text, because json would turn 1 into "1" in silence.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        if nan:
            return None
        raise ValueError(f"{where} is {value}: json has no such number")
    if isinstance(value, list | tuple):
        return [plain(v, where=f"{where}[{i}]", nan=nan) for i, v in enumerate(value)]
    if isinstance(value, dict):
        wrong = next((k for k in value if not isinstance(k, str)), None)
        if wrong is not None:
            raise TypeError(f"{where} has the key {wrong!r}: keys of a bundle are text")
        return {k: plain(v, where=f"{where}.{k}", nan=nan) for k, v in value.items()}
    raise TypeError(f"{where} is a {type(value).__name__}: a bundle holds json")


def as_json(value: Any) -> bytes:
    """The one way a bundle writes json: keys sorted, so that equal content gives equal bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    return (text + "\n").encode("utf-8")
