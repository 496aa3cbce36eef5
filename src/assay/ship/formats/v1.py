"""Format 1 (assay 0.1.0). Members: manifest.json, schema.json, calibration.json, reference.parquet (may be absent), model/...

Never change what this file accepts: write v2.py instead. docs/bundle.md describes the format in words.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from assay.data.dataset import KINDS, Column, Schema
from assay.ship.archive import Archive, printable
from assay.ship.formats.base import Contents, Entry, Malformed, strict_json
from assay.words import say

ALWAYS = ("schema.json", "calibration.json")
SOMETIMES = ("reference.parquet",)
MOST = 16 << 20  # bytes of a json member outside model/
MANIFEST = {"format": int, "assay": str, "task": dict, "candidate": dict, "params": dict, "facts": dict, "members": dict}


def read(archive: Archive, manifest: dict[str, Any]) -> Contents:
    """The contents of an archive whose manifest says "format": 1. Raises Malformed."""
    _keys(manifest, MANIFEST, "manifest.json")
    _keys(manifest["candidate"], {"name": str, "version": str}, "candidate")
    if not isinstance(manifest["task"].get("task"), str):
        raise Malformed(say("a task without a name"))
    entries = {name: _entry(name, packed) for name, packed in manifest["members"].items()}
    _same_members(set(entries), set(archive.members) - {"manifest.json"})
    for name, entry in entries.items():
        if archive.members[name].size != entry.size:
            raise Malformed(say("{size} bytes in '{name}', where its manifest says {said}",
                                size=archive.members[name].size, name=name, said=entry.size))
    calibration = _json(archive, "calibration.json", entries)
    if not isinstance(calibration, dict):
        raise Malformed(say("no json object in '{where}'", where="calibration.json"))
    return Contents(
        format=1, written_by=manifest["assay"], task=manifest["task"], candidate=manifest["candidate"]["name"],
        candidate_version=manifest["candidate"]["version"], params=manifest["params"], facts=manifest["facts"],
        schema=_schema(_json(archive, "schema.json", entries)), calibration=calibration, entries=entries,
    )


def _json(archive: Archive, name: str, entries: dict[str, Entry]) -> Any:
    raw = archive.read(name, MOST)
    if hashlib.sha256(raw).hexdigest() != entries[name].sha256:
        raise Malformed(say("other bytes in '{name}' than its digest was made of", name=name))
    return strict_json(raw)


def _keys(value: Any, shape: dict[str, type], where: str) -> None:
    if not isinstance(value, dict) or value.keys() != shape.keys():
        raise Malformed(say("other keys than {keys} in '{where}'", keys=sorted(shape), where=where))
    for key, kind in shape.items():
        if type(value[key]) is not kind:
            raise Malformed(say("another type than {kind} for '{key}' in '{where}'", kind=kind.__name__, key=key, where=where))


def _entry(name: str, packed: Any) -> Entry:
    _keys(packed, {"size": int, "sha256": str}, f"members.{printable(name)}")
    if packed["size"] < 0 or not re.fullmatch("[0-9a-f]{64}", packed["sha256"]):
        raise Malformed(say("no size or no digest for '{name}'", name=printable(name)))
    return Entry(**packed)


def _same_members(said: set[str], there: set[str]) -> None:
    for name in sorted(said - there):
        raise Malformed(say("no member '{name}', which its manifest lists", name=printable(name)))
    for name in sorted(there - said):
        raise Malformed(say("a member '{name}' that its manifest does not list", name=printable(name)))
    for name in ALWAYS:
        if name not in there:
            raise Malformed(say("no member '{name}'", name=name))
    for name in sorted(there):
        if name not in ALWAYS + SOMETIMES and not name.startswith("model/"):
            raise Malformed(say("a member '{name}' that has no place in format {format}", name=name, format=1))


def _schema(packed: Any) -> Schema:
    _keys_only(packed, {"columns", "target", "time", "group"})
    if not isinstance(packed["columns"], list):
        raise Malformed(say("another type than {kind} for '{key}' in '{where}'", kind="list", key="columns", where="schema.json"))
    names: set[str] = set()
    for column in packed["columns"]:
        known = Column.__dataclass_fields__.keys()
        if not isinstance(column, dict) or not {"name", "kind"} <= column.keys() <= known:
            raise Malformed(say("other keys than {keys} in '{where}'", keys=sorted(known), where="columns"))
        channels = column.get("channels", ["-"])
        if not isinstance(channels, list) or not channels or not all(isinstance(v, str) for v in (*channels, *(column[k] for k in column if k != "channels"))) \
                or column["kind"] not in KINDS:
            raise Malformed(say("a column '{name}' of an unknown kind", name=printable(column["name"])))
        if column["name"] in names:
            raise Malformed(say("two columns called '{name}'", name=printable(column["name"])))
        names.add(column["name"])
    for role in ("target", "time", "group"):
        if packed[role] is not None and (not isinstance(packed[role], str) or packed[role] not in names):
            raise Malformed(say("no column for the role '{role}' in '{where}'", role=role, where="schema.json"))
    return Schema.of(packed)


def _keys_only(value: Any, keys: set[str]) -> None:
    if not isinstance(value, dict) or value.keys() != keys:
        raise Malformed(say("other keys than {keys} in '{where}'", keys=sorted(keys), where="schema.json"))
