"""Write an ONNX graph without the `onnx` package: the few protobuf fields that a matmul network needs.

Field numbers: onnx.proto3 of ONNX IR version 8 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_TYPES = {"float32": 1, "int64": 7}


class Graph:
    """Nodes in running order, weights and named inputs; `.bytes()` is a model file that onnxruntime opens."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []
        self._inputs: list[bytes] = []
        self._count = 0

    def input(self, name: str, dtype: str, shape: tuple[int | str, ...]) -> str:
        self._inputs.append(_value(name, dtype, shape))
        return name

    def weight(self, array: np.ndarray) -> str:
        """A constant; dtype float32 or int64."""
        name = self._name("w")
        dims = b"".join(_number(1, size) for size in array.shape)
        raw = np.ascontiguousarray(array).tobytes()
        self._weights.append(dims + _number(2, _TYPES[array.dtype.name]) + _bytes(8, name.encode()) + _bytes(9, raw))
        return name

    def add(self, kind: str, *inputs: str, **attributes: int | float | list[int]) -> str:
        """One node with one output, whose name is returned. Attributes are integers, floats or lists of integers."""
        name = self._name("n")
        node = b"".join(_bytes(1, i.encode()) for i in inputs) + _bytes(2, name.encode()) + _bytes(4, kind.encode())
        for key, value in attributes.items():
            if isinstance(value, float):
                body = _bytes(1, key.encode()) + b"\x15" + np.float32(value).tobytes() + _number(20, 1)
            elif isinstance(value, list):
                body = _bytes(1, key.encode()) + b"".join(_number(8, v) for v in value) + _number(20, 7)
            else:
                body = _bytes(1, key.encode()) + _number(3, value) + _number(20, 2)
            node += _bytes(5, body)
        self._nodes.append(node)
        return name

    def bytes(self, output: str, shape: tuple[int | str, ...], opset: int = 17) -> bytes:
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _bytes(2, b"assay")
        graph += b"".join(_bytes(5, weight) for weight in self._weights)
        graph += b"".join(_bytes(11, value) for value in self._inputs) + _bytes(12, _value(output, "float32", shape))
        return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, opset))

    def _name(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of one protobuf message: numbers for varints, bytes for everything else."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            yield tag >> 3, value
            continue
        size = 8 if kind == 1 else 4
        if kind == 2:
            size, at = _read_varint(message, at)
        elif kind not in (1, 5):
            raise ValueError(f"protobuf wire type {kind} at byte {at}")
        yield tag >> 3, message[at : at + size]
        at += size


def _value(name: str, dtype: str, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d.encode())) for d in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, _TYPES[dtype]) + _bytes(2, dims)))


def _varint(number: int) -> bytes:
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
