"""Many forms of exponential smoothing, weighted by what each foresaw in the series' own past; all series at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset, Schema
from assay.data.history import History, histories, latest
from assay.data.lags import floors, level_of, recent
from assay.data.rare import Rare
from assay.data.smoothing import Smoother
from assay.data.windows import Spread
from assay.families.base import Budget, Candidate, Model
from assay.tasks.base import Task
from assay.tasks.forecast import Forecast

TEACHERS = 1000  # series from which it is learnt which forms are to be trusted, and how they err
AT_ONCE = 8192


class Smoothing(Model):
    """`smoothing.Smoother` on each row's own past; from the training series only which forms do well among them, and the distribution of the errors."""

    task: Forecast

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.smoother = Smoother(self.task.horizon, self.task.season)
        self.spread = Spread(self.task.horizon, self.task.levels)
        self.rare = Rare(self.task.season, self.task.levels)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Smoothing:
        rows = latest(train)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[: TEACHERS if budget.seconds > 20 else TEACHERS // 5])
        rows, h = [rows[i] for i in chosen], self.task.horizon
        repeats = int(np.clip(300 // max(len(rows), 1), 1, 40))
        early, truth = [], []
        for r in range(repeats):
            for one in rows:
                known = len(one.values) - h - r * max(1, h // 2)
                if known >= max(2, h if r else 0, len(one.values) // 2 if r else 0):
                    early.append(History(one.id, one.values[:known], one.covariates[:known], one.ahead))
                    truth.append(one.values[known : known + h])
        if early:
            table = recent(early, self.smoother.reads)
            self.smoother.learn(table)
            point, marks = self._point(table)
            self.spread.learn(np.stack(truth) - point, marks)
            self.rare.learn(table, self.spread.cube(point, marks), np.stack(truth))
        self.facts = {"forms": 2 * len(self.smoother.forms), "windows": len(early)}
        return self

    def _point(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, h), marks (n, 4)): the first mark is what the forms erred when they looked ahead."""
        point, error = self.smoother.point(table)
        season = _steps(table, self.task.season)
        step = _steps(table, 1)
        season = np.where(season > 0, season, step)
        return point, np.column_stack([np.where(error > 0, error, season), season, step, level_of(table)])

    def predict(self, asked: Dataset) -> np.ndarray:
        rows = histories(asked)
        out = np.zeros((len(rows), self.task.horizon, len(self.task.levels)))
        for first in range(0, len(rows), AT_ONCE):
            part: Sequence[History] = rows[first : first + AT_ONCE]
            table = recent(part, self.smoother.reads)
            point, marks = self._point(table)
            out[first : first + AT_ONCE] = np.maximum(self.rare.mixed(table, self.spread.cube(point, marks)), floors(table)[:, None, None])
        return out.reshape(len(rows), self.task.width)

    def dump(self, folder: Path) -> None:
        packed = {"fame": self.smoother.fame.tolist(), "plain_fame": self.smoother.plain_fame.tolist(), "spread": self.spread.json(), "rare": self.rare.share}
        (folder / "smoothing.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> Smoothing:
        packed = json.loads((folder / "smoothing.json").read_text())
        self.smoother.fame, self.smoother.plain_fame = np.array(packed["fame"]), np.array(packed["plain_fame"])
        self.spread.read(packed["spread"])
        self.rare.share = float(packed["rare"])
        return self


def _steps(table: np.ndarray, lag: int) -> np.ndarray:
    return level_of(table[:, lag:] - table[:, :-lag]) if table.shape[1] > lag else np.zeros(len(table))


CANDIDATE = Candidate(
    name="smoothing", rung="classical", tasks=("forecast",), build=Smoothing, reads=("sequence",), requires=("sequence",), share=1.0, explainable=True,
    source="Holt-Winters forms with damped trend (Hyndman et al. 2008) on a grid, weighted by rolling origins", version="1",
)
