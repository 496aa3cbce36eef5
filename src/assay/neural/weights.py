"""The numbers of a weights file as arrays: safetensors, what torch writes since version 1.6, and what it wrote before. Nothing in it is run.

`checkpoint.py` reads checkpoints with settings; here are bare dictionaries of tensors, as image networks and Hugging Face folders (`.bin`) keep them.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from assay.neural.checkpoint import _BROKEN, _MOST_PICKLE, _SIZES, Unreadable, _damaged, _Storage, _torch_members, _walk, checkpoint_of
from assay.words import Text, say

_DTYPES = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?"}
_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the pickle of torch's magic number, 0x1950a86a20f9469cfc6c
_INSIDE = ("state_dict", "model_state_dict", "model")


class _Part(NamedTuple):
    """A tensor before its numbers are read. offset and strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_weights(path: Path) -> dict[str, np.ndarray] | Text:
    """{name: array} of every tensor; floats as float32, whole numbers as they are. Or the reason why the file is not read, as a sentence."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_LEGACY))
        if begin == _LEGACY:
            return _before_1_6(path)
        if begin.startswith(b"PK\x03\x04"):
            return _zip(path)
        found = checkpoint_of(path)
        if isinstance(found, Text):
            return found
        parts = zip(sorted(found.tensors.items()), found._numbers(), strict=True)
        return {name: _array(raw, tensor.kind, 0, tensor.shape, None, path) for (name, tensor), raw in parts}
    except Unreadable as error:
        return error.reason
    except FileNotFoundError:
        return say("there is no weights file '{file}'", file=str(path))
    except OSError as error:
        return say("the weights file '{file}' could not be read: {reason}", file=str(path), reason=str(error.strerror))


def _array(raw: Any, kind: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, path: Path) -> np.ndarray:
    numbers = np.frombuffer(raw, dtype=_DTYPES[kind])
    if strides is None:
        out = numbers.reshape(shape)
    else:
        last, whole = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)), int(np.prod(shape))
        if min((*shape, *strides, offset)) < 0 or whole > len(numbers) or (whole and last >= len(numbers)):
            raise _damaged(path)
        out = np.lib.stride_tricks.as_strided(numbers[offset:], shape, [numbers.itemsize * step for step in strides])
    if kind == "BF16":
        return np.array(out.astype(np.uint32) << 16, order="C").view(np.float32)
    return np.array(out, dtype=np.float32 if numbers.dtype.kind == "f" else None, order="C")


def _parts(raw: bytes, path: Path) -> dict[str, _Part]:
    """The tensors that a pickle of torch names, by name."""
    def part(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Part:
        return _Part(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))

    try:
        found: Any = _walk(raw, part, path)  # type: ignore[arg-type]
        for key in _INSIDE:
            if isinstance(found, dict) and isinstance(found.get(key), dict):
                found = found[key]
        parts = {str(name): value for name, value in found.items() if isinstance(value, _Part) and isinstance(value.storage, _Storage)}
    except Unreadable:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise _damaged(path) from None
    if not parts:
        raise Unreadable(say("the weights file '{file}' holds no named tensors", file=path.name))
    return parts


def _zip(path: Path) -> dict[str, np.ndarray]:
    """Since torch 1.6: a zip with a pickle and one stored member per storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            members, root, raw = _torch_members(archive, path)
            out, held = {}, ("", b"")
            for name, part in sorted(_parts(raw, path).items(), key=lambda item: item[1].storage.key):
                member = f"{root}data/{part.storage.key}"
                info = members.get(member)
                if info is None or info.compress_type != zipfile.ZIP_STORED:  # packed small, it could unpack to any size
                    raise _damaged(path)
                if held[0] != member:
                    held = (member, archive.read(member))
                size = part.storage.numbers * _SIZES[part.storage.kind]
                if len(held[1]) < size:
                    raise _damaged(path)
                out[name] = _array(held[1][:size], part.storage.kind, part.offset, part.shape, part.strides, path)
            return out
    except _BROKEN:
        raise _damaged(path) from None


def _before_1_6(path: Path) -> dict[str, np.ndarray]:
    """Before torch 1.6: five pickles (magic number, version, machine, tensors, keys of the storages), then each storage: its length, its numbers."""
    with path.open("rb") as file:
        try:
            for _ in range(3):
                for _ in pickletools.genops(file):  # to the end of this pickle
                    pass
            at = file.tell()
            for _ in pickletools.genops(file):
                if file.tell() - at > _MOST_PICKLE:
                    raise _damaged(path)
            end = file.tell()
            file.seek(at)
            parts = _parts(_without_views(file.read(end - at), path), path)
            keys = [str(value) for op, value, _ in pickletools.genops(file) if op.name in ("BINUNICODE", "SHORT_BINUNICODE")]
        except (ValueError, IndexError, OverflowError):
            raise _damaged(path) from None
        storages = {part.storage.key: part.storage for part in parts.values()}
        raw: dict[str, bytes] = {}
        left = path.stat().st_size - file.tell()
        for key in keys:
            head = file.read(8)
            storage = storages.get(key)
            if len(head) < 8 or storage is None or int.from_bytes(head, "little") != storage.numbers:
                raise _damaged(path)
            size = storage.numbers * _SIZES[storage.kind]
            left -= 8 + size
            if left < 0:
                raise _damaged(path)
            raw[key] = file.read(size)
    if not storages.keys() <= raw.keys():
        raise _damaged(path)
    return {name: _array(raw[p.storage.key], p.storage.kind, p.offset, p.shape, p.strides, path) for name, p in parts.items()}


def _without_views(raw: bytes, path: Path) -> bytes:
    """Old pickles say six things of a storage where new ones say five; the sixth, a view into another storage, is None in every file seen."""
    out, start, last = bytearray(), 0, [("", 0)] * 3
    for op, _, at in pickletools.genops(raw):
        if op.name == "BINPERSID":
            meaningful = [(name, place) for name, place in last if name not in ("BINPUT", "LONG_BINPUT", "MEMOIZE")][-2:]
            if [name for name, _ in meaningful] != ["NONE", "TUPLE"]:
                raise Unreadable(say("the weights file '{file}' is written in a form of torch that is no longer read; open and save it with a newer one", file=path.name))
            out += raw[start : meaningful[0][1]]
            start = meaningful[0][1] + 1
        last = [*last[1:], (op.name, int(at or 0))]
    return bytes(out + raw[start:])
