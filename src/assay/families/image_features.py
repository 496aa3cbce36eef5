"""Pictures by classical features: gradients, textures, tones, frequencies and learnt patches, under a regularised line and boosted trees."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset
from assay.data.features import image
from assay.data.features.patches import Patches
from assay.families.base import Candidate, Model, TooSlow
from assay.neural import cells as media_cells
from assay.neural.described import Described

SIDES = (32, 64, 128)
LOOKED_AT = 200  # pictures whose size and colours are looked at
TAUGHT = 1000  # pictures whose patches are learnt
ATOMS = (200, 100, 0)  # of the dictionary of patches; fewer where time is short
HURRY_S = 15.0  # a shorter fit learns no patches: to decode 1,000 pictures for them would take too much of it
COLOURED_SHARE = 0.05  # of the pictures have to show colours


class ImageFeatures(Described, Model):
    """Pictures of any size, brought to one of three; numbers, categories and times beside them are read too."""

    kinds = ("image",)
    too_slow = TooSlow

    def settle(self, train: Dataset, *, seed: int, budget: Any) -> None:
        self.config, self.state = {"columns": {}}, {}
        self._seed, unhurried = seed, budget.seconds > HURRY_S
        taught = np.sort(np.random.default_rng(seed).permutation(len(train))[:TAUGHT])
        self._taught = {name: train.frame[name][taught] for name in self.media_columns}
        for name in self.media_columns:
            some = self._taught[name].drop_nulls()
            some = some[:: max(1, len(some) // (LOOKED_AT if unhurried else 30))]
            side = _side(some)
            seen = media_cells.pixels(some, side, grey=False, threads=self.threads, cache=self.cache)
            grey = not len(seen) or np.mean([image.coloured(one[None]) for one in seen]) < COLOURED_SHARE
            self.config["columns"][name] = {"side": side, "grey": bool(grey), "atoms": ATOMS[0] if unhurried else 0}
            self._learn(name)

    def _learn(self, name: str) -> None:
        own = self.config["columns"][name]
        for key in ("shift", "turn", "threshold"):
            self.state.pop(f"{name}/{key}", None)
        if own["atoms"]:
            patches = Patches.learn(self._pixels(name, self._taught[name]), own["atoms"], np.random.default_rng(self._seed))
            self.state |= {f"{name}/shift": patches.shift, f"{name}/turn": patches.turn, f"{name}/threshold": np.array([patches.threshold])}

    def cheaper(self, times: float) -> bool:
        """Fewer patches first, then smaller pictures."""
        changed = False
        for name, own in self.config["columns"].items():
            before = dict(own)
            if own["atoms"]:
                own["atoms"] = ATOMS[ATOMS.index(own["atoms"]) + 1] if times < 2 else 0
            elif own["side"] > SIDES[0]:
                own["side"] = SIDES[SIDES.index(own["side"]) - 1]
            if own != before:
                self._learn(name)
                changed = True
        return changed

    def narrower(self) -> bool:
        changed = False
        for name, own in self.config["columns"].items():
            if own["atoms"]:
                own["atoms"], changed = ATOMS[ATOMS.index(own["atoms"]) + 1], True
                self._learn(name)
        return changed

    def settled(self) -> None:
        self._taught = {}

    def _pixels(self, name: str, cells: pl.Series) -> np.ndarray:
        own = self.config["columns"][name]
        return media_cells.pixels(cells, own["side"], grey=own["grey"], threads=self.threads if len(cells) > 4 else 1, cache=self.cache)

    def read(self, name: str, cells: pl.Series) -> np.ndarray:
        pixels = self._pixels(name, cells)
        parts = [image.everything(pixels)]
        if f"{name}/turn" in self.state:
            shift, turn, threshold = (self.state[f"{name}/{key}"] for key in ("shift", "turn", "threshold"))
            parts.append(Patches(shift, turn, float(threshold[0])).transform(pixels))
        return np.concatenate(parts, axis=1)


def _side(cells: pl.Series) -> int:
    """The side next to what the shorter sides of these pictures usually are."""
    shorter = []
    for cell in cells.head(50):
        try:
            shorter.append(min(media.size_of(cell)))
        except media.Broken:  # reading it will say so, with its row
            continue
    usual = statistics.median(shorter) if shorter else SIDES[1]
    return SIDES[0] if usual < 48 else SIDES[1] if usual < 110 else SIDES[2]


CANDIDATE = Candidate(
    name="image_features", rung="classical", tasks=("classify", "regress"), build=ImageFeatures, reads=("image", "number", "category", "time"),
    requires=("image",), needs={"PIL": "media"}, share=4.0, at_least_s=2.0, licence="MIT, assay's own code", version="1",
    source="oriented gradients (Dalal & Triggs 2005; Felzenszwalb et al. 2010), local binary patterns (Ojala et al. 2002), learnt patches "
    "(Coates, Ng & Lee 2011); logistic regression, ridge, LightGBM (Ke et al. 2017)",
)
