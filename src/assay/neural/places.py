"""Where in a cell lies what a network reads: characters of a piece, steps and channels of a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from assay.neural import cells
from assay.neural.sequence_rows import Signals
from assay.neural.text_rows import HEAD_SHARE, Texts
from assay.neural.vocabulary import UNKNOWN


@dataclass(frozen=True)
class Marks:
    """Numbers at places of a text. spans: int (n, 2), characters [first, last) of its cell, empty for a piece that is none of it. values: float (n,)."""

    spans: np.ndarray
    values: np.ndarray


def of_pieces(reader: Texts, frame: pl.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """(ids (t,), spans (t, 2) in the cell of `column`) of a frame of one row, as the reader reads it: its text columns joined, the middle left out."""
    parts = [frame[name][0] or "" for name in reader.columns]
    found = reader.vocabulary.tokenizer.encode("\n".join(parts))
    ids = np.array(found.ids or [UNKNOWN], dtype=np.int64)
    spans = np.array(found.offsets or [(0, 0)], dtype=np.int64)
    if len(ids) > reader.most:
        head = max(1, round(HEAD_SHARE * reader.most))
        kept = np.r_[:head, len(ids) - reader.most + head : len(ids)]
        ids, spans = ids[kept], spans[kept]
    at = reader.columns.index(column)
    return ids, np.clip(spans - sum(len(part) + 1 for part in parts[:at]), 0, len(parts[at]))


def of_numbers(reader: Signals, frame: pl.DataFrame, column: str, values: np.ndarray) -> np.ndarray:
    """What stands at the network's inputs (t, width) as (steps, channels) of the cell of `column`; the sum stays, but for other columns.

    The deviation from a row's mean and the mark of a gap belong to their channel.
    """
    n, levels = len(reader.channels), int(reader.level.sum())
    own = values[:, :n].astype(np.float64)
    own[:, reader.level] += values[:, n : n + levels]
    own[:, reader.gaps] += values[:, n + levels :]
    first = sum(width for _, width in reader.columns[: [name for name, _ in reader.columns].index(column)])
    return of_steps(reader, frame, column, own[:, first : first + dict(reader.columns)[column]])


def of_steps(reader: Signals, frame: pl.DataFrame, column: str, values: np.ndarray) -> np.ndarray:
    """(t, ...) at the steps that the network reads as (steps, ...) of the cell of `column`: columns end together, and a step that was averaged from
    several shares its value among them."""
    lengths = {name: len(cells.steps(frame[name], width)[0]) for name, width in reader.columns}
    steps = max(lengths.values())
    covered = np.clip((np.arange(len(values) + 1) - len(values)) * reader.every + steps, 0, steps)
    out = np.zeros((steps, *values.shape[1:]))
    for value, low, high in zip(values, covered, covered[1:], strict=False):
        out[low:high] = value / max(1, high - low)
    return out[steps - lengths[column] :]


def of_tokens(weights: np.ndarray, length: int) -> np.ndarray:
    """What stands at the vectors after the first layer (tokens,) as (length,) at its input; each stride there halves the steps."""
    stride = 1
    while -(-length // stride) > len(weights):
        stride *= 2
    at = np.arange(length) // stride
    return np.asarray(weights[at] / np.bincount(at)[at])
