"""What a parquet file says about itself, read by hand: checking one needs no library of 30 MB, and nothing is unpacked meanwhile.

The footer is one struct of Thrift's compact protocol (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), its fields
those of https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift. Read strictly: fields in rising order,
no byte left over. What a hostile file makes it raise is any of Python's own exceptions; its caller takes them all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

_DEEPEST = 12
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_WHOLE = (4, 5, 6)  # 16, 32 and 64 bits: all zigzag


@dataclass(frozen=True)
class Footer:
    """columns: their names, all flat. rows: in all. packed: whether any column is compressed, encrypted, elsewhere, or of another length than the rows."""

    columns: list[str]
    rows: int
    packed: bool


def footer(raw: bytes) -> Footer:
    """Of a whole parquet file; an exception if it is none, or if it has nested columns."""
    size = struct.unpack("<I", raw[-8:-4])[0]
    if raw[:4] != b"PAR1" or raw[-4:] != b"PAR1" or size > len(raw) - 12:
        raise ValueError("not the ends of a parquet file")
    facts, end = _struct(raw[len(raw) - 8 - size : len(raw) - 8], 0, 0)
    root, *leaves = facts[2]
    if end != size or root.get(5, 0) != len(leaves) or any(leaf.get(5, 0) or leaf.get(3, 0) not in (0, 1) for leaf in leaves):
        raise ValueError("more than flat columns")
    columns = [leaf[4].decode("utf-8") for leaf in leaves]
    packed, rows = False, 0
    for group in facts.get(4, []):
        rows += group[3]
        chunks = group[1]
        paths = [[part.decode("utf-8") for part in chunk[3][3]] for chunk in chunks]
        packed = packed or group[3] < 0 or paths != [[name] for name in columns]
        packed = packed or any(chunk.keys() & {1, 8, 9} or chunk[3][4] != 0 or chunk[3][5] != group[3] for chunk in chunks)
    return Footer(columns, max(rows, facts[3]), packed or rows != facts[3])


def _struct(raw: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _DEEPEST:
        raise ValueError("too deep")
    out: dict[int, Any] = {}
    field = 0
    while True:
        head = raw[at]
        at += 1
        if head == 0:
            return out, at
        kind, step = head & 15, head >> 4
        if step:
            number = field + step
        else:
            number, at = _whole(raw, at)
        if number <= field:
            raise ValueError("fields out of order")
        field = number
        if kind in (_TRUE, _FALSE):
            out[field] = kind == _TRUE
        else:
            out[field], at = _value(raw, at, kind, depth)


def _value(raw: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _WHOLE:
        return _whole(raw, at)
    if kind == _BINARY:
        size, at = _count(raw, at)
        if size > len(raw) - at:
            raise ValueError("a text beyond the end")
        return raw[at : at + size], at + size
    if kind == _STRUCT:
        return _struct(raw, at, depth + 1)
    if kind in (_LIST, _SET):
        head = raw[at]
        count, inside = head >> 4, head & 15
        at += 1
        if count == 15:
            count, at = _count(raw, at)
        if count > len(raw) - at:
            raise ValueError("a list beyond the end")
        out = []
        for _ in range(count):
            one, at = _value(raw, at, _BYTE if inside in (_TRUE, _FALSE) else inside, depth + 1)
            out.append(one)
        return out, at
    if kind == _BYTE:
        return raw[at], at + 1
    if kind == _DOUBLE:
        return struct.unpack_from("<d", raw, at)[0], at + 8
    raise ValueError("a kind that parquet does not use")


def _count(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits")


def _whole(raw: bytes, at: int) -> tuple[int, int]:
    value, at = _count(raw, at)
    return (value >> 1) ^ -(value & 1), at
