"""Ensemble: a weighted mean of contestants that have finished. The contest chooses members and weights (`contest/mix.py`)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.errors import BundleError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.registry import get
from assay.words import say


class Ensemble(Model):
    """params["members"]: [{"family", "params", "weight"}, ...]; a folder of its own holds what each member dumped.

    The answer is the weighted mean of the members' calibrated answers.
    """

    members: list[Model]
    calibrations: list[dict[str, Any]]
    sources: list[Path]

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Ensemble:
        raise TooSlow(say("an ensemble is made of contestants that have finished; it learns nothing itself"))

    def gather(self, sources: list[Path]) -> Ensemble:
        """Take the members from these folders, each with `model/` and `calibration.json`, in the order of params."""
        self.sources, self.members, self.calibrations = sources, [], []
        for member, source in zip(self.params["members"], sources, strict=True):
            card = get("assay.families", Candidate, member["family"])
            if card.name == CANDIDATE.name or card.online:
                raise BundleError("An ensemble cannot hold '{name}': its members answer by themselves, on this machine.", name=card.name)
            self.members.append(card.build(self.task, self.schema, **member["params"]).load(source / "model"))
            self.calibrations.append(json.loads((source / "calibration.json").read_text(encoding="utf-8")))
        return self

    def predict(self, asked: Dataset) -> np.ndarray:
        return self._mean([model.predict(asked) for model in self.members])

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        return self._mean([model.predict_row(row) for model in self.members])

    def _mean(self, answers: list[np.ndarray]) -> np.ndarray:
        weights = [m["weight"] for m in self.params["members"]]
        parts = [w * self.task.calibrated(a, c)[:, : self.task.width] for w, a, c in zip(weights, answers, self.calibrations, strict=True)]
        return np.sum(parts, axis=0)

    def dump(self, folder: Path) -> None:
        """Hard links where the disk knows them: members with the same weights on disk cost no more space."""
        for i, source in enumerate(self.sources):
            shutil.copytree(source, folder / str(i), copy_function=_link)

    def load(self, folder: Path) -> Ensemble:
        return self.gather([folder / str(i) for i in range(len(self.params["members"]))])


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


CANDIDATE = Candidate(
    name="ensemble", rung="classical", tasks=("classify", "regress", "forecast"), build=Ensemble, instances=lambda case, schema: [],
    source="greedy selection from a library of models (Caruana et al. 2004, doi:10.1145/1015330.1015432)", licence="MIT, assay's own code", version="1",
)
