"""What an answer rests on, found by covering it up: patches of a picture, words of a text, stretches of a sequence.

Covering asks the model only for answers, so it explains every family alike, an endpoint or somebody else's program too (Zeiler & Fergus
2014, arXiv:1311.2901). A network that knows better is asked first: `grounds`.
"""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset
from assay.families.base import Model

GRID = 8  # patches a side
SIDE = 128  # of the pictures that are covered
MOST_PIECES = 48
STRETCHES = 16


def patches(model: Model, row: Dataset, column: str, code: int) -> np.ndarray:
    """(8, 8): how far the answer falls when each patch of the picture is grey."""
    cell = row.frame[column][0]
    pixels = media.pixels(cell, SIDE)
    step = SIDE // GRID
    covered = []
    for i in range(GRID):
        for j in range(GRID):
            one = pixels.copy()
            one[i * step : (i + 1) * step, j * step : (j + 1) * step] = 128
            covered.append(png(one))
    said = _score(model, _instead(row, column, [png(pixels), *covered]), code)
    return np.maximum(said[0] - said[1:], 0).reshape(GRID, GRID)


def words(model: Model, row: Dataset, column: str, code: int) -> list[tuple[str, float]]:
    """The pieces of a text with what each adds to the answer: how far it falls without it. At most 48 pieces."""
    text = row.frame[column][0] or ""
    pieces = pieces_of(text)
    if not pieces:
        return []
    without = ["".join(p for k, p in enumerate(pieces) if k != i) for i in range(len(pieces))]
    said = _score(model, _instead(row, column, [text, *without]), code)
    return [(piece, float(said[0] - one)) for piece, one in zip(pieces, said[1:], strict=True)]


def pieces_of(text: str) -> list[str]:
    """Words with the blanks after them, Chinese characters by two; neighbours are joined where there would be more than 48. Joined, they are the text."""
    pieces = re.findall(r"[\u3400-\u9fff]{1,2}|[^\s\u3400-\u9fff]+\s*|\s+", text)
    size = -(-len(pieces) // MOST_PIECES) if pieces else 1
    return ["".join(pieces[i : i + size]) for i in range(0, len(pieces), size)]


def stretches(model: Model, row: Dataset, column: str, code: int) -> np.ndarray:
    """(channels, 16): how far the answer falls when a stretch of a channel is replaced by the channel's mean."""
    channels = next(len(c.channels or ()) for c in row.schema.columns if c.name == column)
    steps = media.steps(row.frame[column][0], channels)
    edges = np.linspace(0, len(steps), STRETCHES + 1).astype(int)
    covered = []
    for c in range(channels):
        for low, high in itertools.pairwise(edges):
            one = steps.copy()
            one[low:high, c] = np.nanmean(steps[:, c]) if np.isfinite(steps[:, c]).any() else 0.0
            covered.append(media.packed(one))
    said = _score(model, _instead(row, column, [media.packed(steps), *covered]), code)
    return np.asarray(said[0] - said[1:]).reshape(channels, STRETCHES)


def _instead(row: Dataset, column: str, cells: list[Any]) -> Dataset:
    """The row, once for each of these cells."""
    frame = row.frame[np.zeros(len(cells), dtype=int)].with_columns(pl.Series(column, cells, dtype=row.frame[column].dtype))
    return Dataset(frame, row.schema)


def _score(model: Model, rows: Dataset, code: int) -> np.ndarray:
    """(n,): the probability of the label with this code, or the amount."""
    said = np.asarray(model.predict(rows), dtype=np.float64)
    return said[:, code] if said.shape[1] > 1 else said[:, 0]


def png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w, 1 or 3) as the bytes of a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()
