"""Pictures for tests: a bright line stands (label 'up') or lies ('flat') on noise."""

from __future__ import annotations

import io

import numpy as np
import polars as pl


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def lines(n: int, *, seed: int = 0, side: int = 24) -> pl.DataFrame:
    """Columns picture (Binary), label and brightness (a number that the picture shows)."""
    rng = np.random.default_rng(seed)
    cells, labels, bright = [], [], []
    for i in range(n):
        pixels = rng.normal(110, 12, (side, side))
        value = float(rng.uniform(40, 140))
        at = int(rng.integers(3, side - 3))
        pixels[(slice(None), slice(at, at + 2)) if i % 2 else (slice(at, at + 2), slice(None))] += value
        cells.append(png(pixels.clip(0, 255).astype(np.uint8)))
        labels.append("up" if i % 2 else "flat")
        bright.append(value)
    return pl.DataFrame({"picture": pl.Series(cells, dtype=pl.Binary), "label": labels, "brightness": bright})
