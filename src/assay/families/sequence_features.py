"""Sequences by what a statistician writes down about them: a regularised line and boosted trees on about fifty numbers a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.features.sequence import Scale, described
from assay.families.base import Candidate, Model, TooSlow
from assay.neural import cells as media_cells
from assay.neural.described import Described

TEACHERS = 5000  # sequences that the scales are learnt from


class SequenceFeatures(Described, Model):
    """Sequences of any length and number of channels; numbers, categories and times beside them are read too."""

    kinds = ("sequence",)
    too_slow = TooSlow

    def settle(self, train: Dataset, *, seed: int, budget: Any) -> None:
        self.config, self.state = {"channels": {}}, {}
        rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:TEACHERS])
        for column in train.schema.of_kind("sequence"):
            channels = len(column.channels or ("",))
            self.config["channels"][column.name] = channels
            scale = Scale.learn(media_cells.steps(train.frame[column.name][rows], channels))
            self.state |= {f"{column.name}/centre": scale.centre, f"{column.name}/spread": scale.spread}

    def read(self, name: str, cells: pl.Series) -> np.ndarray:
        scale = Scale(self.state[f"{name}/centre"], self.state[f"{name}/spread"])
        raw = media_cells.steps(cells, self.config["channels"][name])
        known = np.array([np.isfinite(one).mean(axis=0) for one in raw], dtype=np.float32)  # a sensor that fell silent says something
        return np.concatenate([described([scale.filled(one) for one in raw]), known], axis=1)


CANDIDATE = Candidate(
    name="sequence_features", rung="classical", tasks=("classify", "regress"), build=SequenceFeatures, reads=("sequence", "number", "category", "time"),
    requires=("sequence",), share=3.0, at_least_s=2.0, licence="MIT, assay's own code", version="1",
    source="statistics of level, trend and rhythm; LightGBM (Ke et al. 2017), logistic regression (Cox 1966), ridge (Hoerl & Kennard 1970)",
)
