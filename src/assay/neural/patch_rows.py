"""Pictures for a network of patches: one size, standardised, augmented as `pictures` and `augment` do it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset
from assay.neural import cells, pictures
from assay.neural.augment import Changes
from assay.neural.ragged import Reader

MOST_SIDE = 64
MOST_GRID = 8  # tokens along a side: 64 in all, whose attention is cheap
LOOKED_AT, LEARNT_FROM = 50, 2000
CUTOUT, MIXED = 0.25, 0.2


class Patches(Reader):
    """The first 'image' column, side x side pixels."""

    kind = "image"
    names: ClassVar[tuple[str, ...]] = ("x",)
    long: ClassVar[tuple[str, ...]] = ()

    def __init__(self, column: str, side: int, grey: bool, flip: str, mean: np.ndarray, spread: np.ndarray) -> None:
        self.column, self.side, self.grey, self.flip, self.mean, self.spread = column, side, grey, flip, mean, spread

    @classmethod
    def learn(cls, train: Dataset, truth: np.ndarray, *, labels: bool, seed: int, threads: int = 2, cache: Path | None = None) -> Patches:
        column = train.schema.of_kind("image")[0].name
        known = train.frame[column].drop_nulls()
        sides = [min(media.size_of(cell)) for cell in known[:LOOKED_AT]]
        side = max(8, min(MOST_SIDE, int(np.median(sides)) // 2 * 2)) if sides else 32
        grey = pictures.is_grey(cells.pixels(known[: 4 * LOOKED_AT], side, grey=False, threads=threads, cache=cache)) if len(known) else True
        some = np.sort(np.random.default_rng(seed).permutation(len(train))[:LEARNT_FROM])
        pixels = cells.pixels(train.frame[column][some], side, grey=grey, threads=threads, cache=cache)
        return cls(column, side, grey, pictures.flips_that_keep(pixels, truth[some], labels=labels, seed=seed), *pictures.moments(pixels))

    def read(self, data: Dataset, *, threads: int = 2, cache: Path | None = None) -> np.ndarray:
        return cells.pixels(data.frame[self.column], self.side, grey=self.grey, threads=threads, cache=cache)

    def read_row(self, row: dict[str, Any]) -> np.ndarray:
        return cells.pixels(pl.Series(self.column, [row.get(self.column)], dtype=pl.Binary), self.side, grey=self.grey, threads=1)

    def rows(self, read: np.ndarray, target: np.ndarray, strength: float) -> pictures.Pictures:
        changes = Changes(self.flip, shift=0.1 * strength, cutout=CUTOUT * strength if self.side >= 24 else 0.0, mixup=MIXED * strength, cutmix=MIXED * strength)
        return pictures.Pictures(read, target, self.mean, self.spread, changes if strength else Changes("none", shift=0.0))

    def batch(self, read: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        return lambda rows: {"x": pictures.standard(read[rows], self.mean, self.spread)}

    def sizes(self) -> dict[str, Any]:
        grid, halvings = self.side, 0
        while grid > MOST_GRID:
            grid, halvings = -(-grid // 2), halvings + 1
        halvings = max(1, halvings)
        grid = self.side
        for _ in range(halvings):
            grid = -(-grid // 2)
        return {"reads": "picture", "channels": 1 if self.grey else 3, "halvings": halvings, "tokens": grid * grid, "length": grid * grid}

    def facts(self) -> dict[str, Any]:
        return {"side": self.side, "channels": 1 if self.grey else 3, "flip": self.flip, "tokens": self.sizes()["tokens"]}

    def json(self) -> dict[str, Any]:
        return {"kind": self.kind, "column": self.column, "side": self.side, "grey": self.grey, "flip": self.flip, "mean": self.mean.tolist(), "spread": self.spread.tolist()}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Patches:
        mean, spread = (np.asarray(packed[name], dtype=np.float32) for name in ("mean", "spread"))
        return cls(packed["column"], packed["side"], packed["grey"], packed["flip"], mean, spread)
