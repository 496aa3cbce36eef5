"""The naive answer: the shares of the classes, or the mean, median or quantile. What cannot beat it is not a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate, Model


class Naive(Model):
    """Answers every row alike. classify: class shares with half a row added to each (Krichevsky & Trofimov 1981)."""

    answer: np.ndarray

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Naive:
        truth = self.task.truth(train)
        if self.task.width > 1:
            counts = np.bincount(truth, minlength=self.task.width) + 0.5
            self.answer = counts / counts.sum()
        elif self.task.loss == "squared":
            self.answer = np.array([truth.mean()])
        else:
            level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
            self.answer = np.array([np.quantile(truth, level)])
        return self

    def predict(self, asked: Dataset) -> np.ndarray:
        return np.tile(self.answer, (len(asked), 1))

    def predict_row(self, row: dict) -> np.ndarray:
        return self.answer[None, :].copy()

    def dump(self, folder: Path) -> None:
        (folder / "naive.json").write_text(json.dumps({"answer": self.answer.tolist()}))

    def load(self, folder: Path) -> Naive:
        self.answer = np.array(json.loads((folder / "naive.json").read_text())["answer"])
        return self


CANDIDATE = Candidate(
    name="naive", rung="naive", tasks=("classify", "regress"), build=Naive, share=0.5, explainable=True,
    source="the floor that every task has", version="1",
)
