"""What the tables hold, row by row. Times are seconds since 1970 (UTC); what is json in the tables is a Python object here."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

_chance: list[str] = []  # hexadecimal digits, 12 for each id to come: one call to the system for 256 ids
os.register_at_fork(after_in_child=_chance.clear)


def new_id() -> str:
    """24 hexadecimal digits that sort by time: milliseconds (12), then randomness (12)."""
    try:
        chance = _chance.pop()
    except IndexError:
        drawn = secrets.token_hex(6 * 256)
        _chance.extend(drawn[i:i + 12] for i in range(12, len(drawn), 12))
        chance = drawn[:12]
    return f"{int(time.time() * 1000):012x}{chance}"


class Prediction(Struct, frozen=True, gc=False, array_like=True):  # a quarter of a dataclass's time to make, and nothing for the garbage collector
    """One row asked and answered. arm: champion, challenger (canary: it was handed out) or shadow (nobody saw it; `of` names the one that was handed out).

    row: the features as asked, None where they are not kept. doubt: 0 sure to 1, None where the task has no such thing. ms: inside the service.
    """

    id: str
    at: float
    model: str
    version: int
    answer: dict[str, Any]
    row: dict[str, Any] | None = None
    arm: str = "champion"
    of: str | None = None
    doubt: float | None = None
    ms: float = 0.0
    actor: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says about an answer, or a labelled row that was never asked. kind: label, accept, edit, reject. source: api, page, file."""

    model: str
    kind: str = "label"
    prediction: str | None = None
    label: Any = None
    row: dict[str, Any] | None = None
    source: str = "api"
    actor: str = ""
    note: str | None = None
    at: float = field(default_factory=time.time)
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply that a language model has drafted. status: open, accepted, edited, rejected."""

    id: str
    at: float
    model: str
    asked: str
    draft: str
    final: str | None = None
    status: str = "open"
    actor: str = ""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One link of the chain: hash = sha256 of the previous hash and of the rest as canonical json."""

    seq: int
    at: float
    actor: str
    action: str
    detail: dict[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """level: info, warning, critical. text: a `words.Text` as json."""

    id: int
    at: float
    model: str
    code: str
    level: str
    text: dict[str, Any]
    facts: dict[str, Any]
    closed: float | None = None
    closed_by: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Who may ask. The secret itself is not kept. scopes: of predict, feedback, admin. rate: requests a minute, None without limit."""

    id: str
    name: str
    scopes: tuple[str, ...]
    made: float
    expires: float | None = None
    revoked: float | None = None
    rate: int | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One bundle under a model's name. source: serve, retrain, import. file: beside the store, `bundles/<digest>.assay`. fingerprint: of the data it was retrained on."""

    model: str
    version: int
    digest: str
    file: str
    made: float
    source: str
    facts: dict[str, Any]
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Who answers for a model. mode: shadow (the challenger answers unseen) or canary (it answers `share` of the requests). previous: what rollback goes back to."""

    model: str
    champion: int
    challenger: int | None
    mode: str | None
    share: float
    since: float
    previous: int | None = None


@dataclass(frozen=True, slots=True)
class Sketch:
    """Sketches of the columns of `rows` requests between start and end."""

    id: int
    model: str
    version: int
    start: float
    end: float
    rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """One minute of one worker. minute: since 1970. histogram: requests by upper limit of milliseconds, as text keys."""

    minute: int
    model: str
    worker: int
    requests: int
    errors: int
    refused: int
    ms_sum: float
    histogram: dict[str, int]
