"""Weights files, read as data: checkpoints that torch wrote (a zip around a pickle) and safetensors.

The pickle inside a torch file is never unpickled. It is walked opcode by opcode (`pickletools.genops` only takes it apart), and
the few things that describe tensors are noted down: which storage, which shape. Nothing that the file names is imported or
called, so a hostile file can at worst be refused. What comes out is written as safetensors with its settings as json in the
header, the form that a bundle may hold.
"""

from __future__ import annotations

import json
import math
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from assay.words import Text, say

SETTINGS = ("config", "architecture_name", "inference_config")  # what is kept of a checkpoint beside its tensors
_MOST_PICKLE = 64 << 20  # bytes of the pickle in a torch file; TabPFN 3.5 with 219 million weights has 0.1 MB
_MOST_HEADER = 100 << 20  # the limit that safetensors itself sets
# torch's name of a storage: its name in safetensors, bytes of one number
_STORAGES = {"torch.FloatStorage": ("F32", 4), "torch.DoubleStorage": ("F64", 8), "torch.HalfStorage": ("F16", 2),
             "torch.BFloat16Storage": ("BF16", 2), "torch.LongStorage": ("I64", 8), "torch.IntStorage": ("I32", 4),
             "torch.ShortStorage": ("I16", 2), "torch.CharStorage": ("I8", 1), "torch.ByteStorage": ("U8", 1), "torch.BoolStorage": ("BOOL", 1)}
_SIZES = dict(_STORAGES.values())
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, struct.error, zlib.error)  # what a damaged zip makes zipfile raise
_OTHERS = {b"version https://git-lfs": say("a pointer of git-lfs, not the file that it stands for"), b"CBM1": say("a CatBoost model"),
           b"tree\n": say("a LightGBM model"), b"GGUF": say("a language model in GGUF"), b"<": say("a web page"), b"\x89PNG": say("an image"),
           b"\x80": say("a bare pickle, as torch wrote before version 1.6; such files can run code and are not opened")}


class Unreadable(Exception):
    """The file is not weights that can be read. Carries the reason, which names the file, as a Text."""

    def __init__(self, reason: Text) -> None:
        self.reason = reason
        super().__init__(str(reason))


@dataclass(frozen=True)
class Tensor:
    """Where the numbers of one tensor lie. kind: as safetensors calls it, such as F32. member: of the zip, or "" in safetensors.

    offset: of the first number, in bytes. strides: numbers from one index to the next, per axis.
    """

    kind: str
    shape: tuple[int, ...]
    member: str = ""
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _SIZES[self.kind]


@dataclass(frozen=True)
class Checkpoint:
    """A weights file whose table of contents has been read and checked against its length; the numbers have not been read yet."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    ready: bool = False  # it is what `save` writes: safetensors with its settings in the header

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return sum(math.prod(t.shape) for t in self.tensors.values())

    def save(self, target: Path) -> None:
        """Write it as safetensors, tensor by tensor, with each of the settings as json in the header. Raises Unreadable."""
        head: dict[str, Any] = {"__metadata__": {key: json.dumps(value) for key, value in sorted(self.settings.items())}}
        at = 0
        for name, tensor in sorted(self.tensors.items()):
            head[name] = {"dtype": tensor.kind, "shape": list(tensor.shape), "data_offsets": [at, at + tensor.bytes]}
            at += tensor.bytes
        raw = json.dumps(head).encode()
        raw += b" " * (-len(raw) % 8)
        with target.open("wb") as out:
            out.write(struct.pack("<Q", len(raw)) + raw)
            for chunk in self._numbers():
                out.write(chunk)

    def _numbers(self) -> Iterator[Any]:
        """The bytes of every tensor, in the order of their names."""
        ordered = [tensor for _, tensor in sorted(self.tensors.items())]
        if not any(tensor.member for tensor in ordered):
            with self.path.open("rb") as file:
                for tensor in ordered:
                    file.seek(tensor.offset)
                    yield file.read(tensor.bytes)
            return
        import numpy as np

        with zipfile.ZipFile(self.path) as archive:
            held: tuple[str, bytes] = ("", b"")
            for tensor in ordered:
                if held[0] != tensor.member:
                    try:
                        held = (tensor.member, archive.read(tensor.member))
                    except (*_BROKEN, OSError):  # checksums say that the numbers are not those that were written
                        raise _damaged(self.path) from None
                size = _SIZES[tensor.kind]
                numbers = np.frombuffer(held[1], dtype=f"V{size}")[tensor.offset // size:]
                strides = [size * step for step in tensor.strides or ()]
                yield np.ascontiguousarray(np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides)).tobytes()


def checkpoint_of(path: Path) -> Checkpoint | Text:
    """What the file holds, or the reason why it cannot be read, as a sentence."""
    try:
        with path.open("rb") as file:
            begin = file.read(24)
            length = file.seek(0, 2)
            if begin.startswith(b"PK\x03\x04"):
                return _torch_file(path)
            if begin[8:9] == b"{":
                return _safetensors(path, file, length)
    except Unreadable as error:
        return error.reason
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return say("there is no weights file '{file}'", file=str(path))
        return say("the weights file '{file}' could not be read: {reason}", file=str(path), reason=str(error.strerror))
    found: Text | str = next((what for magic, what in _OTHERS.items() if begin.startswith(magic)), say("a file of another kind"))
    if not begin:
        found = say("an empty file")
    return say("the weights file '{file}' is {found}; expected: a checkpoint of torch (.ckpt) or safetensors", file=path.name, found=found)


def _damaged(path: Path) -> Unreadable:
    return Unreadable(say("the weights file '{file}' is damaged or was cut off; copy it again", file=path.name))


def _settings(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The settings that are kept, or those of a config.json beside the file, where a file of bare tensors has none."""
    kept = {key: found[key] for key in SETTINGS if found.get(key) is not None}
    beside = path.parent / "config.json"
    if "config" not in kept and beside.is_file():
        try:
            kept["config"] = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            raise Unreadable(say("the file config.json beside the weights file '{file}' is not json", file=path.name)) from None
    return kept


def _safetensors(path: Path, file: BinaryIO, length: int) -> Checkpoint:
    file.seek(0)
    size = struct.unpack("<Q", file.read(8))[0]
    if not 2 <= size <= min(_MOST_HEADER, length - 8):
        raise _damaged(path)
    try:
        head = json.loads(file.read(size))
        settings = {key: json.loads(value) for key, value in (head.pop("__metadata__", None) or {}).items() if key in SETTINGS}
        tensors, whole = {}, length - 8 - size
        for name, entry in head.items():
            tensor = Tensor(entry["dtype"], tuple(map(int, entry["shape"])), offset=8 + size + int(entry["data_offsets"][0]))
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= whole or last - first != tensor.bytes:
                raise _damaged(path)
            tensors[name] = tensor
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise _damaged(path) from None
    return Checkpoint(path, _settings(path, settings), tensors, ready="config" in settings and path.suffix == ".safetensors")


@dataclass(frozen=True)
class _Name:
    """A name that the pickle would import. It is never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str
    numbers: int


def _torch_members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, zipfile.ZipInfo], str, bytes]:
    """(members by name, the prefix of their names, the pickle) of a zip file that torch wrote. Nothing of it is run."""
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl")]
    if not pickles:
        raise Unreadable(say("the weights file '{file}' is a zip file, but torch did not write it", file=path.name))
    root = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{root}byteorder")
    if members[pickles[0]].file_size > _MOST_PICKLE or (order and (order.file_size > 9 or archive.read(order) != b"little")):
        raise _damaged(path)
    return members, root, archive.read(pickles[0])


def _torch_file(path: Path) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            members, root, raw = _torch_members(archive, path)
    except _BROKEN:
        raise _damaged(path) from None

    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
        kind, size = storage.kind, _SIZES[storage.kind]
        info = members.get(f"{root}data/{storage.key}")
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size < storage.numbers * size:
            raise _damaged(path)
        numbers = [*map(int, shape), *map(int, strides), int(offset)]
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if min(numbers) < 0 or math.prod(shape) > storage.numbers or (math.prod(shape) and last >= storage.numbers):
            raise _damaged(path)
        return Tensor(kind, tuple(shape), info.filename, int(offset) * size, tuple(strides))

    try:
        found = _walk(raw, tensor, path)
        state = found["state_dict"]
        tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
        settings = _settings(path, {key: _plain(found.get(key)) for key in SETTINGS})
    except Unreadable:
        raise
    except (KeyError, TypeError, AttributeError):
        raise Unreadable(say("the weights file '{file}' has no 'state_dict' of tensors beside plain settings, so it is no checkpoint that "
                             "can be read", file=path.name)) from None
    except (ValueError, IndexError, RecursionError, OverflowError):
        raise _damaged(path) from None
    return Checkpoint(path, settings, tensors)


def _plain(value: Any) -> Any:
    """A setting as json holds it. A name, such as torch.float32, becomes text. Raises TypeError for anything else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, _Name):
        return value.name
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(v) for key, v in value.items()}
    raise TypeError(type(value).__name__)


def _walk(raw: bytes, tensor: Callable[..., Tensor], path: Path) -> Any:
    """The object that the pickle describes, made of plain values and `Tensor`s only.

    Raises Unreadable when it wants anything else to be called, naming it, and ValueError or IndexError when it is broken.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        at = marks.pop()
        items = stack[at:]
        del stack[at:]
        return items

    def called(name: str, given: Any) -> Any:
        if name == "torch._utils._rebuild_tensor_v2":
            return tensor(*given)
        if name in ("torch._utils._rebuild_parameter", "torch.device"):
            return given[0]
        if name in ("torch.Size", "builtins.set", "__builtin__.set", "collections.OrderedDict"):
            made = given[0] if given else ()
            return dict(made) if name == "collections.OrderedDict" else list(made)
        raise Unreadable(say("the weights file '{file}' wants '{name}' to be run while it is read, so it was not opened", file=path.name, name=name))

    value: Any
    for op, value, _ in pickletools.genops(raw):
        code = op.name
        if code in ("PROTO", "FRAME"):
            continue
        if code == "STOP":
            return stack.pop()
        if code == "MARK":
            marks.append(len(stack))
        elif code in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
        elif code in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"):
            stack.append({} if code == "EMPTY_DICT" else () if code == "EMPTY_TUPLE" else [])
        elif code in ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"):
            stack.append(value)
        elif code in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if code == "MEMOIZE" else value] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif code == "GLOBAL":
            stack.append(_Name(value.replace(" ", ".")))
        elif code == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module}.{name}"))
        elif code in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            items = marked() if code == "TUPLE" else [stack.pop() for _ in range(int(code[-1]))][::-1]
            stack.append(tuple(items))
        elif code in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if code == "APPEND" else marked()
            stack[-1].extend(items)
        elif code in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if code == "SETITEM" else marked()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif code == "BINPERSID":
            _, storage, key, _, numbers = stack.pop()
            stack.append(_Storage(str(key), _STORAGES[storage.name][0], int(numbers)))
        elif code == "REDUCE":
            given, target = stack.pop(), stack.pop()
            stack.append(called(target.name, given))
        elif code == "BUILD" and isinstance(stack[-2], dict):
            stack.pop()  # attributes of an OrderedDict: the versions that torch notes per module
        else:
            raise Unreadable(say("the weights file '{file}' wants '{name}' to be run while it is read, so it was not opened", file=path.name, name=code))
    raise ValueError("no end")
