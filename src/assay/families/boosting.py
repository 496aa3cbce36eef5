"""Gradient boosting of trees (LightGBM, Ke et al. 2017): numbers with NaN, categories as such, the commonest n-grams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import PILOT_CLASSES, Labels, Rounds, affordable, pace, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.data.trees import Trees
from assay.errors import BundleError
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.tasks.base import Task
from assay.words import say

MOST_ROUNDS = 2000
MOST_TREES = 10_000  # of all classes: one row then takes about a millisecond
FEW = 256  # rows: to wake threads takes longer than to answer them
GRAMS = 2000  # n-gram columns offered to the trees: the commonest; more cost time and rarely pay
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "num_leaves": Range(4, 255, log=True, whole=True), "learning_rate": Range(0.01, 0.3, log=True),
    "min_data_in_leaf": Range(1, 200, log=True, whole=True), "feature_fraction": Range(0.3, 1.0), "lambda_l2": Range(1e-3, 100.0, log=True),
    "cat_smooth": Range(1.0, 200.0, log=True),
}


class Boosting(Model):
    """Rounds by early stopping on rows held out of train, then fitted again on all of them."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=GRAMS, min_rows=5)
        self.booster: Any = None
        self.shift = 0.0
        self.labels = Labels([])
        settings(params, SPACE)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Boosting:
        import lightgbm as lgb

        whole = len(train)
        a_row = 8 * len(self.table.names) * 7 + 1500 * len(self.text.columns)  # frame, codes and bins, each whole and in parts
        train = affordable(train, seed=seed, bytes_a_row=a_row, memory_mb=0.6 * budget.memory_mb, reading_s=budget.left() / 3)
        y = self.task.truth(train).astype(np.float64)
        if self.task.name == "classify":
            self.labels = Labels.of(y)
            y = self.labels.codes(y).astype(np.float64)
            if len(self.labels.seen) < 2:
                raise TooSlow(say("the training rows hold one class only"))
        else:
            self.shift = float(np.median(y))
            y = y - self.shift
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.15, seed=seed, strata=self.task.strata(train))
        grown = self._settings(len(train), seed, budget)
        plan = budget.left() * 0.5
        most = budget.passes or max(100, min(MOST_ROUNDS, MOST_TREES // max(len(self.labels.seen), 1)))
        categories = [self.table.names.index(c) for c in self.table.categories]
        data = lgb.Dataset(x[rest], y[rest], categorical_feature=categories, free_raw_data=True)
        valid = data.create_valid(x[held], y[held])
        if budget.seconds < float("inf"):
            grown["learning_rate"] = self._paced(lgb, grown, data, valid, plan)
        rounds = Rounds(most=most, seconds=plan, note=budget.say)
        self.booster = _grow(lgb, grown, data, valid, rounds)
        final, expected_s = rounds.again(len(rest), len(train))
        used = len(rest)
        if expected_s < budget.left() * 0.9:
            self.booster = lgb.train(grown, lgb.Dataset(x, y, categorical_feature=categories, free_raw_data=True), final)
            used = len(train)
        if used < whole:
            self.facts["rows_used"] = used
        self.facts |= {"rounds": self.booster.num_trees() // self.booster.num_model_per_iteration(), "loss_curve": rounds.facts()}
        return self

    def _paced(self, lgb: Any, grown: dict[str, Any], data: Any, valid: Any, plan: float) -> float:
        """The learning rate for the rounds that `plan` seconds hold; raises TooSlow if they are no model."""
        pilot, many = Rounds.pilot(plan), len(self.labels.seen) > PILOT_CLASSES
        truths = [(part, part.get_label()) for part in (data.construct(), valid.construct())] if many else []
        for part, truth in truths:
            part.set_label(truth % PILOT_CLASSES)
        _grow(lgb, grown | {"num_class": PILOT_CLASSES} if many else grown, data, valid, pilot)
        for part, truth in truths:
            part.set_label(truth)
        rate = pilot.rate(grown["learning_rate"], plan, len(self.labels.seen))
        if not isinstance(rate, float):
            raise TooSlow(rate)
        return self.params.get("learning_rate", rate)

    def _settings(self, n: int, seed: int, budget: Budget) -> dict[str, Any]:
        objective: dict[str, Any] = {"objective": "binary"}
        if self.task.name == "regress":
            objective = {"objective": {"squared": "l2", "absolute": "l1", "pinball": "quantile"}[self.task.loss],
                         "alpha": getattr(self.task, "quantile", 0.5)}
        elif len(self.labels.seen) > 2:
            objective = {"objective": "multiclass", "num_class": len(self.labels.seen)}
        small = n < 2000
        cells = n * len(self.table.names)
        chosen = settings(
            self.params, SPACE, num_leaves=15 if small else 31 if n < 50_000 else 63, learning_rate=0.03 if n < 20_000 else 0.06,
            min_data_in_leaf=5 if n < 500 else 10 if small else 20, feature_fraction=0.8 if len(self.table.names) > 4 else 1.0,
            lambda_l2=1.0, cat_smooth=20.0)
        if "learning_rate" not in self.params:
            chosen["learning_rate"] = pace(chosen["learning_rate"], budget.passes)
        return objective | chosen | {
            "bagging_fraction": 0.8, "bagging_freq": 1, "max_bin": 255,
            "seed": seed, "deterministic": True, "force_row_wise": True, "num_threads": 1 if cells < 200_000 else budget.threads, "verbosity": -1,
        }

    def _matrix(self, data: Dataset, *, learn: bool = False) -> Any:
        if learn:
            self.table.fit(data.frame)
        codes = self.table.codes(data.frame)
        if not self.text.columns:
            return codes
        from scipy.sparse import csr_matrix, hstack

        grams = self.text.fit_transform(data.frame) if learn else self.text.transform(data.frame)
        return hstack([csr_matrix(codes), grams], format="csr")

    def _answer(self, raw: np.ndarray) -> np.ndarray:
        if self.task.name == "regress":
            return raw.reshape(-1, 1) + self.shift
        return self.labels.spread(raw, self.task.width)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self._answer(self.booster.predict(self._matrix(asked), num_threads=1 if len(asked) < FEW else 0))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        codes = self.table.codes_list(row)
        if not isinstance(self.booster, Trees):  # grown a moment ago
            x = np.array([codes])
            if self.text.columns:
                from scipy.sparse import csr_matrix, hstack

                x = hstack([csr_matrix(x), self.text.transform_row(row)], format="csr")
            return self._answer(self.booster.predict(x, num_threads=1))
        said = self.booster.row(codes if not self.text.columns else np.r_[codes, self.text.transform_row(row).toarray()[0]])
        if len(self.labels.seen) == self.task.width == 2:  # as `spread`, without its three calls
            p = said.item()
            return np.array([[1 - p, p]])
        return self._answer(said)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        self.booster.save_model(str(folder / "boosting.txt"))
        save_file(self.text.arrays(), folder / "boosting.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "shift": self.shift, "seen": self.labels.seen}
        (folder / "boosting.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> Boosting:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "boosting.json").read_text())
        self.table, self.shift, self.labels = TableEncoder.of(packed["table"]), packed["shift"], Labels(packed["seen"])
        self.text = TextEncoder.of(packed["text"], load_file(folder / "boosting.safetensors"))
        self.booster = Trees.read(folder / "boosting.txt")
        outputs = len(self.labels.seen) if len(self.labels.seen) > 2 else 1
        if (self.booster.features, self.booster.outputs) != (len(self.table.names) + len(self.text.kept), outputs):
            raise BundleError("The trees in '{file}' do not fit the columns and labels beside them. Pack the model again.", file="boosting.txt")
        return self


def _grow(lgb: Any, grown: dict[str, Any], data: Any, valid: Any, rounds: Rounds) -> Any:
    """Trees until `rounds` says stop; the booster answers with the best of them."""
    def judged(env: Any) -> None:
        if rounds.stop(env.evaluation_result_list[0][2]):
            raise lgb.callback.EarlyStopException(rounds.best - 1, env.evaluation_result_list)

    return lgb.train(grown, data, rounds.most, valid_sets=[valid], valid_names=["held"], callbacks=[judged])


CANDIDATE = Candidate(
    name="boosting", rung="classical", tasks=("classify", "regress"), build=Boosting, share=5.0, space=SPACE,
    source="LightGBM (Ke et al. 2017)", licence="MIT", version="1",
)
