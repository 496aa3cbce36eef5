"""The last season again: what a forecaster has to beat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from assay.data.dataset import Dataset
from assay.data.history import histories, latest
from assay.data.lags import SeasonAgain, chunks
from assay.families.base import Budget, Candidate, Model
from assay.tasks.forecast import Forecast

TEACHERS = 5000  # series that the growth of errors is learnt from


class SeasonalNaive(Model):
    """Repeats the last season (the last value where there is no season). Quantiles: of the errors that this has made in the row's own past."""

    task: Forecast

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> SeasonalNaive:
        rows = latest(train)
        if len(rows) > TEACHERS:
            rows = [rows[i] for i in np.sort(np.random.default_rng(seed).permutation(len(rows))[:TEACHERS])]
        self.again = self._fresh().learn(rows)
        return self

    def _fresh(self) -> SeasonAgain:
        return SeasonAgain(self.task.horizon, self.task.season, self.task.levels)

    def predict(self, asked: Dataset) -> np.ndarray:
        rows = histories(asked)
        out = np.zeros((len(rows), self.task.horizon, len(self.task.levels)))
        for part, table in chunks(rows, self.again.reads):
            out[part] = self.again.cube(table)
        return out.reshape(len(rows), self.task.width)

    def dump(self, folder: Path) -> None:
        (folder / "seasonal_naive.json").write_text(json.dumps(self.again.json()))

    def load(self, folder: Path) -> SeasonalNaive:
        self.again = self._fresh().read(json.loads((folder / "seasonal_naive.json").read_text()))
        return self


CANDIDATE = Candidate(
    name="seasonal_naive", rung="naive", tasks=("forecast",), build=SeasonalNaive, reads=("sequence",), requires=("sequence",), share=0.5, explainable=True,
    source="the floor that every forecast has", version="1",
)
