"""Gradient boosting of trees (XGBoost, Chen & Guestrin 2016): histograms, native categories, the commonest n-grams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import PILOT_CLASSES, Labels, Rounds, affordable, pace, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.tasks.base import Task
from assay.words import say

MOST_ROUNDS = 2000
MOST_TREES = 4000  # of all classes: one row then takes about a millisecond
GRAMS = 2000  # n-gram columns offered to the trees: the commonest, as for LightGBM
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "max_depth": Range(2, 10, whole=True), "learning_rate": Range(0.01, 0.3, log=True), "min_child_weight": Range(0.1, 100.0, log=True),
    "subsample": Range(0.5, 1.0), "colsample_bytree": Range(0.3, 1.0), "reg_lambda": Range(1e-2, 100.0, log=True),
}


class XGBoost(Model):
    """Rounds by early stopping on rows held out of train, then fitted again on all of them. An unknown category and an
    n-gram that a text does not have are missing values: each split learns where they go."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        settings(params, SPACE)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=GRAMS, min_rows=5)
        self.booster: Any = None
        self.shift = 0.0
        self.scale = 1.0
        self.labels = Labels([])

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> XGBoost:
        import xgboost as xgb

        whole = len(train)
        a_row = 8 * len(self.table.names) * 7 + 1500 * len(self.text.columns)
        train = affordable(train, seed=seed, bytes_a_row=a_row, memory_mb=0.6 * budget.memory_mb, reading_s=budget.left() / 3)
        y = self.task.truth(train).astype(np.float64)
        if self.task.name == "classify":
            self.labels = Labels.of(y)
            y = self.labels.codes(y).astype(np.float64)
            if len(self.labels.seen) < 2:
                raise TooSlow(say("the training rows hold one class only"))
        else:  # XGBoost keeps targets as float32: amounts around a million would lose their last digits
            self.shift, self.scale = float(np.median(y)), float(y.std()) or 1.0
            y = (y - self.shift) / self.scale
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.15, seed=seed, strata=self.task.strata(train))
        if self.task.name == "classify" and np.ptp(y[rest]) == 0:
            raise TooSlow(say("the training rows hold one class only"))
        grown = self._settings(len(train), seed, budget)
        plan = budget.left() * 0.5
        kinds = self._kinds(x.shape[1])
        data = xgb.QuantileDMatrix(x[rest], y[rest], feature_types=kinds, enable_categorical=True, nthread=grown["nthread"])
        valid = xgb.QuantileDMatrix(x[held], y[held], feature_types=kinds, enable_categorical=True, ref=data, nthread=grown["nthread"])
        if budget.seconds < float("inf"):
            grown["learning_rate"] = self._paced(xgb, grown, data, valid, plan)
        rounds = Rounds(most=budget.passes or self._most_rounds(len(train)), seconds=plan, note=budget.say)
        self.booster = _grow(xgb, grown, data, valid, rounds)[: rounds.best]
        used = len(rest)
        final, expected_s = rounds.again(len(rest), len(train))
        if expected_s < budget.left() * 0.9:
            data = xgb.QuantileDMatrix(x, y, feature_types=kinds, enable_categorical=True, nthread=grown["nthread"])
            self.booster = xgb.train(grown, data, final)
            used = len(train)
        if used < whole:
            self.facts["rows_used"] = used
        self.facts |= {"rounds": self.booster.num_boosted_rounds(), "loss_curve": rounds.facts()}
        return self

    def _paced(self, xgb: Any, grown: dict[str, Any], data: Any, valid: Any, plan: float) -> float:
        """The learning rate for the rounds that `plan` seconds hold; raises TooSlow if they are no model."""
        pilot, many = Rounds.pilot(plan), len(self.labels.seen) > PILOT_CLASSES
        truths = [(part, part.get_label()) for part in (data, valid)] if many else []
        for part, truth in truths:
            part.set_label(truth % PILOT_CLASSES)
        _grow(xgb, grown | {"num_class": PILOT_CLASSES} if many else grown, data, valid, pilot)
        for part, truth in truths:
            part.set_label(truth)
        rate = pilot.rate(grown["learning_rate"], plan, len(self.labels.seen))
        if not isinstance(rate, float):
            raise TooSlow(rate)
        return self.params.get("learning_rate", rate)

    def _settings(self, n: int, seed: int, budget: Budget) -> dict[str, Any]:
        objective: dict[str, Any] = {"objective": "binary:logistic", "eval_metric": "logloss"}
        if self.task.name == "regress":
            name, metric = {"squared": ("squarederror", "rmse"), "absolute": ("absoluteerror", "mae"), "pinball": ("quantileerror", "quantile")}[self.task.loss]
            objective = {"objective": f"reg:{name}", "eval_metric": metric}
            if self.task.loss == "pinball":
                objective["quantile_alpha"] = getattr(self.task, "quantile", 0.5)
        elif len(self.labels.seen) > 2:
            objective = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": len(self.labels.seen)}
        chosen = settings(self.params, SPACE, max_depth=4 if n < 1000 else 6, learning_rate=max(0.03 if n < 20_000 else 0.06, min(0.1, 20 / self._most_rounds(n))), min_child_weight=0.3,
                          subsample=0.8, colsample_bytree=0.8 if len(self.table.names) > 4 else 1.0, reg_lambda=1.0)
        if "learning_rate" not in self.params:
            chosen["learning_rate"] = pace(chosen["learning_rate"], budget.passes)
        cells = n * len(self.table.names)
        return objective | chosen | {"tree_method": "hist", "max_bin": 256, "seed": seed, "verbosity": 0,
                                     "nthread": 1 if cells < 200_000 else budget.threads}

    def _most_rounds(self, n: int) -> int:
        return max(100, min(MOST_ROUNDS if n >= 1000 else MOST_ROUNDS // 2, MOST_TREES // max(len(self.labels.seen), 1)))

    def _kinds(self, width: int) -> list[str]:
        table = ["c" if name in self.table.categories else "q" for name in self.table.names]
        return table + ["q"] * (width - len(table))

    def _matrix(self, data: Dataset, *, learn: bool = False) -> Any:
        if learn:
            self.table.fit(data.frame)
        codes = self._known(self.table.codes(data.frame))
        if not self.text.columns:
            return codes
        return _beside(codes, self.text.fit_transform(data.frame) if learn else self.text.transform(data.frame))

    def _known(self, codes: np.ndarray) -> np.ndarray:
        """Unknown categories become missing, and so does what is beyond float32, which XGBoost refuses as infinite."""
        first = len(self.table.names) - len(self.table.categories)
        codes[:, first:][codes[:, first:] < 0] = np.nan
        return np.clip(codes, -3e38, 3e38, out=codes)

    def _answer(self, raw: np.ndarray) -> np.ndarray:
        if self.task.name == "regress":
            return raw.astype(np.float64).reshape(-1, 1) * self.scale + self.shift
        return self.labels.spread(raw, self.task.width)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self._answer(self.booster.inplace_predict(self._matrix(asked), validate_features=False))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        x = self._known(self.table.codes_row(row))
        if self.text.columns:
            x = _beside(x, self.text.transform_row(row))
        return self._answer(self.booster.inplace_predict(x, validate_features=False))

    def dump(self, folder: Path) -> None:
        """The trees as XGBoost's own UBJSON (binary JSON, data only), a row of bytes among the other arrays."""
        from safetensors.numpy import save_file

        trees = np.frombuffer(bytes(self.booster.save_raw("ubj")), dtype=np.uint8)
        save_file({"trees.ubj": trees, **self.text.arrays()}, folder / "xgboost.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "shift": self.shift, "scale": self.scale, "seen": self.labels.seen}
        (folder / "xgboost.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> XGBoost:
        import xgboost as xgb
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "xgboost.json").read_text()), load_file(folder / "xgboost.safetensors")
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        self.shift, self.scale, self.labels = packed["shift"], packed["scale"], Labels(packed["seen"])
        self.booster = xgb.Booster()
        self.booster.load_model(bytearray(arrays["trees.ubj"].tobytes()))
        self.booster.set_param({"nthread": 1})
        return self


def _beside(codes: np.ndarray, grams: Any) -> Any:
    """CSR of the table's columns, zeros kept because an absent cell is a missing one, and the n-grams."""
    from scipy.sparse import csr_matrix, hstack

    n, width = codes.shape
    table = csr_matrix((codes.ravel(), np.tile(np.arange(width), n), np.arange(n + 1) * width), shape=(n, width))
    return hstack([table, grams], format="csr")


def _grow(xgb: Any, grown: dict[str, Any], data: Any, valid: Any, rounds: Rounds) -> Any:
    class Judged(xgb.callback.TrainingCallback):  # type: ignore[name-defined]
        def after_iteration(self, model: Any, epoch: int, evals_log: dict[str, Any]) -> bool:
            return rounds.stop(next(iter(evals_log["held"].values()))[-1])

    return xgb.train(grown, data, rounds.most, evals=[(valid, "held")], callbacks=[Judged()], verbose_eval=False)


CANDIDATE = Candidate(
    name="xgboost", rung="classical", tasks=("classify", "regress"), build=XGBoost, needs={"xgboost": "boost"}, share=4.0, at_least_s=2.0,
    space=SPACE, source="XGBoost (Chen & Guestrin 2016, doi:10.1145/2939672.2939785)", licence="Apache-2.0", version="1",
)
