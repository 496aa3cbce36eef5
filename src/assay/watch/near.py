"""How alike rows are, cheaply: a few numbers a row, whatever its columns are, for choosing rows that differ."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Schema

WIDTH = 64  # hashed columns of labels and texts: 2,000 rows of them are 1 MB
_GRAM = 3


class Likeness:
    """Rows as vectors whose distance says how alike they are, every feature with the same weight.

    Numbers and times by their place among `rows` (a share, so that no unit and no outlier decides), labels and texts (their words and, where
    there are no blanks, groups of three signs) hashed with signs into 64 columns (Weinberger et al. 2009, arXiv:0902.2206), each of length 1 a
    row. What is missing is a place of its own. Pictures, sounds and sequences have no say.
    """

    def __init__(self, schema: Schema, rows: pl.DataFrame) -> None:
        self._schema = schema
        self._grids: dict[str, np.ndarray] = {}
        for c in schema.of_kind("number", "time"):
            values = _numbers(rows[c.name])
            self._grids[c.name] = np.sort(values[np.isfinite(values)])

    def of(self, rows: pl.DataFrame) -> np.ndarray:
        """(n, width), float64; two rows that share nothing are about 1 a feature apart, squared."""
        parts: list[np.ndarray] = []
        n = rows.height
        for c in self._schema.of_kind("number", "time"):
            values, grid = _numbers(rows[c.name]), self._grids[c.name]
            there = np.isfinite(values)
            place = np.full(n, 0.5)
            if len(grid):
                low, high = np.searchsorted(grid, values[there], "left"), np.searchsorted(grid, values[there], "right")
                place[there] = (low + high) / 2 / len(grid)
                span = (grid[-1] - grid[0]) or 1.0
                place[there] += np.clip((values[there] - grid[-1]) / span, 0, 1) - np.clip((grid[0] - values[there]) / span, 0, 1)  # beyond all that was seen
            parts.append(np.column_stack([2 * place, ~there]))
        hashed = self._schema.of_kind("category", "text")
        if hashed:
            out = np.zeros((n, WIDTH))
            for c in hashed:
                known: dict[Any, np.ndarray] = {}
                for i, cell in enumerate(rows[c.name].to_list()):
                    vector = known.get(cell)
                    if vector is None:
                        vector = known[cell] = _hashed(c.name, cell, c.kind == "text")
                    out[i] += vector
            parts.append(out)
        return np.concatenate(parts, axis=1) if parts else np.zeros((n, 1))


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances, (n, m)."""
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)


def _numbers(cells: pl.Series) -> np.ndarray:
    return cells.cast(pl.Datetime("us")).dt.epoch("s").cast(pl.Float64).to_numpy().astype(float) if cells.dtype.is_temporal() else cells.cast(pl.Float64).to_numpy().astype(float)


def _hashed(name: str, cell: Any, text: bool) -> np.ndarray:
    """A label, or the words of a text, as a vector of length 1 (0.7 for what is missing)."""
    out = np.zeros(WIDTH)
    if cell is None:
        grams = ["\0"]
    elif not text:
        grams = [str(cell)]
    else:
        words = str(cell).lower()[:2000].split()
        grams = [w for w in words if len(w) <= 24 and w.isascii()] + [w[i:i + _GRAM - 1] for w in words if not w.isascii() or len(w) > 24 for i in range(max(1, len(w) - _GRAM + 2))]
    for gram in grams:
        code = zlib.crc32(f"{name}\0{gram}".encode())
        out[code % WIDTH] += 1.0 if code & 0x10000 else -1.0
    length = np.linalg.norm(out)
    return out / length * 0.7 if length else out
