"""How Python objects become cells, and how audit rows are chained. Nothing here knows a database."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from assay.errors import InputError
from assay.words import Text, say


class RowError(InputError):
    """A row cannot be kept for what it is: trying again later is of no use, and its neighbours are not to blame."""


GENESIS = "0" * 64  # what the first row of a chain calls its previous hash


def encode_other(value: Any) -> Any:
    """What json does not know: numpy's numbers and arrays, times, sentences; anything else is refused."""
    if isinstance(value, Text):
        return value.json()
    for name in ("tolist", "item", "isoformat"):
        if hasattr(value, name):
            return getattr(value, name)()
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value)
    raise TypeError(type(value).__name__)


_PLAIN = msgspec.json.Encoder(enc_hook=encode_other)
_LOOSE = json.JSONEncoder(ensure_ascii=False, default=encode_other)
_STRICT = json.JSONEncoder(ensure_ascii=True, default=encode_other)
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=encode_other)
_AS_FOUND = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=repr)  # even what nobody but a forger writes, such as a blob in a column of text
_CANONICAL_ASCII = json.JSONEncoder(ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=encode_other)


def pack(value: Any) -> str | None:
    """json as text; None stays None. Half a pair of surrogates, which no database takes, is written as its escape."""
    return None if value is None else _encoded(value, _LOOSE, _STRICT)


def pack_row(value: Any) -> str | None:
    """The same for rows and answers, which are most of what a service writes, in a fifth of the time. NaN and infinity, which JSON does not know, are null."""
    if value is None:
        return None
    try:
        return _PLAIN.encode(value).decode()
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError):  # keys that are no texts, half surrogates, what cannot be kept at all
        return _encoded(value, _LOOSE, _STRICT)


def canonical(value: Any) -> str:
    """json with sorted keys and no spaces: the same object always gives the same text."""
    return _encoded(value, _CANONICAL, _CANONICAL_ASCII)


def _encoded(value: Any, encoder: json.JSONEncoder, careful: json.JSONEncoder) -> str:
    try:
        text = encoder.encode(value)
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return careful.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowError(say("A value of the type '{type}' cannot be kept in the store: give numbers, texts, lists and objects.",
                           type=str(error).partition("\n")[0][:60] or type(error).__name__)) from None
    return text


def unpack(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def plain(value: str, most: int, what: str) -> str:
    """A short text for a column of `most` characters, the same in all databases: no null character, no half surrogate.

    Raises InputError where it is longer, because databases disagree about what they then do.
    """
    if len(value) > most:
        raise RowError(say("The {what} '{start}...' has {length} characters; {most} are kept at most.", what=what, start=value[:20], length=len(value), most=most))
    if value.isascii() and "\0" not in value:
        return value
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def finite(value: float | None) -> float | None:
    """NaN and infinity are None: MySQL refuses them, SQLite forgets them."""
    return None if value is None or not math.isfinite(value) else float(value)


def link(previous: str, seq: int, at: float, actor: str, action: str, detail: str) -> str:
    """The hash of an audit row: sha256 of the previous hash and of the rest as canonical json. detail: canonical json already."""
    rest = f'{{"action":{canonical(action)},"actor":{canonical(actor)},"at":{at!r},"detail":{detail},"seq":{seq}}}'
    return hashlib.sha256((previous + rest).encode("utf-8", "surrogatepass")).hexdigest()


def digest(rows: Iterable[Sequence[Any]]) -> str:
    """sha256 of rows as they stand in the table, one line of json a row, in the order given."""
    seen = hashlib.sha256()
    for row in rows:
        seen.update(_AS_FOUND.encode(list(row)).encode())
        seen.update(b"\n")
    return seen.hexdigest()
