"""Pictures, sounds and sequences as a request gives them: bytes, a data URI, a list of lists. Never a path: who asks a service cannot name its files."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column
from assay.data.media import kind_of, packed
from assay.errors import InputError

_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def cells(column: Column, values: list[Any]) -> pl.Series:
    """Python values as cells of this column, null where there is none. Raises InputError naming the row (from 1)."""
    one = _sequence if column.kind == "sequence" else _file
    return pl.Series(column.name, [None if v is None else one(column, v, i + 1) for i, v in enumerate(values)], dtype=pl.Binary)


def as_cells(column: Column, series: pl.Series) -> pl.Series:
    """A column of a table as cells of this column."""
    if series.dtype == pl.Binary and column.kind != "sequence":
        for i, cell in enumerate(series):
            if cell is not None:
                _checked(column, cell, i + 1)
        return series.alias(column.name)
    if series.null_count() == len(series):
        return pl.repeat(None, len(series), dtype=pl.Binary, eager=True).alias(column.name)
    return cells(column, series.to_list())


def _file(column: Column, value: Any, row: int) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _checked(column, bytes(value), row)
    if isinstance(value, str):
        if (uri := _URI.match(value)) or (len(value) >= 64 and not set(value[:64]) & set(" .:\\")):
            try:
                return _checked(column, base64.b64decode(value[uri.end() if uri else 0:].encode(), validate=True), row)
            except (binascii.Error, UnicodeEncodeError):
                pass
        raise InputError("Column '{name}', row {row}: '{value}' is no {kind}. Bytes are expected, or in JSON a data URI such as data:image/png;base64,iVBORw0...", name=column.name,
                         row=row, value=value if len(value) <= 60 else value[:57] + "...", kind=column.kind)
    raise InputError("Column '{name}', row {row}: a {type} is no {kind}. Bytes are expected, or in JSON a data URI such as data:image/png;base64,iVBORw0...", name=column.name, row=row,
                     type=type(value).__name__, kind=column.kind)


def _checked(column: Column, cell: bytes, row: int) -> bytes:
    if kind_of(cell[:64]) != column.kind:
        raise InputError("Column '{name}', row {row}: these {n:,} bytes begin like no {kind} that is read.", name=column.name, row=row, n=len(cell), kind=column.kind)
    return cell


def _number(value: Any) -> float:
    return np.nan if value is None else float(value)


def _sequence(column: Column, value: Any, row: int) -> bytes:
    """A list of steps, each a list of one number a channel (null: missing), or plain numbers where there is one channel."""
    channels = len(column.channels or ("",))
    if isinstance(value, (bytes, bytearray, memoryview)):
        if len(value) and len(value) % (4 * channels) == 0:
            return bytes(value)
        value = []
    try:
        listed = value.to_list() if isinstance(value, pl.Series) else value
        numbers = np.array([[_number(v) for v in step] if isinstance(step, list | tuple | np.ndarray) else _number(step) for step in listed], dtype=np.float32)
    except (TypeError, ValueError):
        numbers = np.zeros((0, 0), dtype=np.float32)
    if numbers.ndim == 1 and channels == 1:
        numbers = numbers[:, None]
    if numbers.ndim != 2 or not len(numbers) or numbers.shape[1] != channels:
        raise InputError("Column '{name}', row {row}: a list of steps is expected, each a list of {channels} numbers ({names}).", name=column.name, row=row, channels=channels,
                         names=list(column.channels or ())[:12])
    numbers[~np.isfinite(numbers)] = np.nan
    return packed(numbers)
