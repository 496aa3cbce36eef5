"""Sounds by classical features: log-mel energies, cepstra and their changes, spectra and loudness, under a line and boosted trees."""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.features import sound
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural import cells as media_cells
from assay.neural.described import Described

LOOKED_AT = 60


class SoundFeatures(Described, Model):
    """Sounds of any length and rate, brought to the commonest rate; numbers, categories and times beside them are read too."""

    kinds = ("audio",)
    too_slow = TooSlow

    def settle(self, train: Dataset, *, seed: int, budget: Budget) -> None:
        self.config, self.state = {"columns": {}}, {}
        for name in self.media_columns:
            rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:LOOKED_AT])
            rate, seconds = sound.usual(train.frame[name][rows])
            self.config["columns"][name] = {"rate": rate, "seconds": seconds}

    def cheaper(self, times: float) -> bool:
        """Lower rates first, then shorter stretches."""
        changed = False
        for own in self.config["columns"].values():
            if own["rate"] > 8000:
                own["rate"], changed = 8000, True
            elif own["seconds"] > 1.0:
                own["seconds"], changed = round(max(1.0, own["seconds"] / min(times, 4.0)), 3), True
        return changed

    def read(self, name: str, cells: pl.Series) -> np.ndarray:
        own = self.config["columns"][name]
        waves = media_cells.waves(cells, own["rate"], own["seconds"], threads=self.threads if len(cells) > 4 else 1, cache=self.cache)
        return sound.described(waves, own["rate"])


CANDIDATE = Candidate(
    name="sound_features", rung="classical", tasks=("classify", "regress"), build=SoundFeatures, reads=("audio", "number", "category", "time"),
    requires=("audio",), share=4.0, at_least_s=2.0, licence="MIT, assay's own code", version="1",
    source="mel-frequency cepstra (Davis & Mermelstein 1980), spectral statistics; logistic regression, ridge, LightGBM (Ke et al. 2017)",
)
