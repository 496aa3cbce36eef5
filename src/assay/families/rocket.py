"""MiniRocket and a regularised line: the classical rung on sequences and sounds, and the one to beat there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from assay.data.afford import settings
from assay.data.dataset import Dataset, Schema
from assay.data.features import sound
from assay.data.features.kernels import Kernels
from assay.data.features.sequence import Scale, levels
from assay.families.base import Candidate, Model, TooSlow
from assay.neural import cells as media_cells
from assay.neural.described import Described
from assay.tasks.base import Task

FEATURES = 9996  # 84 kernels x 119, as published
LEAST_FEATURES = 84 * 6
MOST_NUMBERS = 60_000_000  # rows x features of the training matrix: 240 MB, and the line reads it some 200 times
TEACHERS = 2000  # sequences that scales and biases are learnt from
FEATURES_A_SECOND = 500  # of the fit: to draw 10,000 takes 0.3 s, and the line that reads them more
LOOKED_AT = 60  # sounds whose rate and length are looked at
CHUNK_SOUNDS = 64
LEVELS_SHARE = 0.25  # of the line's attention, for levels: the kernels' weights sum to zero and cannot see them
SPACE: dict[str, Any] = {"features": (2016, 5040, 9996, 19992)}


class Rocket(Described, Model):
    """Sequences of any length and number of channels, and sounds as sequences of 40 log-mel energies, 100 a second: measured on 900
    and 300 spoken digits, accuracy 0.97 against 0.85 for the wave itself at 4 kHz, in a third of the time.

    params: features, how many in all (fewer where the time is short).
    """

    kinds = ("sequence", "audio")
    trees = False
    too_slow = TooSlow

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.most = settings(params, SPACE, features=FEATURES)["features"]

    def settle(self, train: Dataset, *, seed: int, budget: Any) -> None:
        self.config, self.state, self._seed = {"features": 0, "columns": {}}, {}, seed
        rows = np.sort(np.random.default_rng(seed).permutation(len(train))[:TEACHERS])
        self._teachers: dict[str, list[np.ndarray]] = {}
        for column in train.schema.of_kind(*self.kinds):
            cells = train.frame[column.name][rows]
            self.config["columns"][column.name] = {"channels": len(column.channels or ("",))}
            if column.kind == "audio":
                rate, seconds = sound.usual(cells[:LOOKED_AT])
                self.config["columns"][column.name] = {"channels": sound.MELS, "rate": rate, "seconds": seconds}
            raw = self._steps(column.name, cells)
            scale = Scale.learn(raw)
            self.state |= {f"{column.name}/centre": scale.centre, f"{column.name}/spread": scale.spread}
            self._teachers[column.name] = [scale.filled(one) for one in raw]
        soon = FEATURES_A_SECOND * budget.seconds if math.isfinite(budget.seconds) else math.inf
        self._draw(int(min(self.most, soon, MOST_NUMBERS // max(len(train), 1))))

    def _steps(self, name: str, cells: pl.Series) -> list[np.ndarray]:
        own = self.config["columns"][name]
        if "rate" not in own:
            return media_cells.steps(cells, own["channels"])
        waves = media_cells.waves(cells, own["rate"], own["seconds"], threads=self.threads if len(cells) > 4 else 1, cache=self.cache)
        out: list[np.ndarray] = []
        for first in range(0, len(waves), CHUNK_SOUNDS):
            mels, _, held = sound.log_mels(waves[first : first + CHUNK_SOUNDS], own["rate"])
            out += [one[np.flatnonzero(known)[0] : np.flatnonzero(known)[-1] + 1] for one, known in zip(mels, held, strict=True)]
        return out

    def _draw(self, features: int) -> None:
        """Kernels of all columns, `features` together."""
        self.config["features"] = 0
        for name, teachers in self._teachers.items():
            kernels = Kernels.learn(teachers, max(LEAST_FEATURES, features // len(self._teachers)), np.random.default_rng(self._seed))
            self.state |= {f"{name}/dilations": kernels.dilations, f"{name}/counts": kernels.counts, f"{name}/subsets": kernels.subsets,
                           f"{name}/biases": kernels.biases}
            self.config["features"] += kernels.width

    def cheaper(self, times: float) -> bool:
        now = self.config["features"]
        self._draw(max(LEAST_FEATURES, int(now / times)))
        return bool(self.config["features"] < now)

    def settled(self) -> None:
        self._teachers = {}

    def read(self, name: str, cells: pl.Series) -> np.ndarray:
        own = {key: self.state[f"{name}/{key}"] for key in ("centre", "spread", "dilations", "counts", "subsets", "biases")}
        scale, kernels = Scale(own["centre"], own["spread"]), Kernels(own["dilations"], own["counts"], own["subsets"], own["biases"])
        filled = [scale.filled(one) for one in self._steps(name, cells)]
        if not filled:
            return np.zeros((0, kernels.width + 6 * len(scale.centre) + 1), dtype=np.float32)
        return np.concatenate([kernels.transform(filled), levels(filled)], axis=1)

    def importance(self) -> np.ndarray:
        out = []
        for name, own in self.config["columns"].items():
            many, few = int(84 * self.state[f"{name}/counts"].sum()), 6 * own["channels"] + 2  # with the flag of an absent cell
            out += [np.ones(many), np.full(few, (LEVELS_SHARE * many / few) ** 0.5)]
        return np.concatenate(out)


CANDIDATE = Candidate(
    name="rocket", rung="classical", tasks=("classify", "regress"), build=Rocket, reads=("sequence", "audio", "number", "category", "time"),
    requires=("sequence", "audio"),
    space=SPACE, share=4.0, at_least_s=2.0, licence="MIT, assay's own code", version="1",
    source="MiniRocket (Dempster, Schmidt & Webb 2021, arXiv:2012.08791); logistic regression (Cox 1966), ridge (Hoerl & Kennard 1970)",
)
