"""Gradient boosting of trees (LightGBM, Ke et al. 2017): numbers with NaN, categories as such, the commonest n-grams."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.tasks.base import Task
from assay.words import say

MOST_ROUNDS = 2000
PATIENCE = 50
GRAMS = 2000  # n-gram columns offered to the trees: the commonest; more cost time and rarely pay


class Boosting(Model):
    """Rounds by early stopping on rows held out of train, then fitted again on all of them."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=GRAMS, min_rows=5)
        self.booster: Any = None
        self.shift = 0.0
        self.seen: list[int] = []  # the classes that the trees know, in code order

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Boosting:
        import lightgbm as lgb

        train = self._affordable(train, seed, budget)
        y = self.task.truth(train).astype(np.float64)
        if self.task.name == "classify":
            self.seen = np.unique(y).astype(int).tolist()
            y = np.searchsorted(self.seen, y).astype(np.float64)
            if len(self.seen) < 2:
                raise TooSlow(say("the training rows hold one class only"))
        else:
            self.shift = float(np.median(y))
            y = y - self.shift
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.15, seed=seed, strata=self.task.strata(train))
        settings = self._settings(len(train), seed, budget)
        curve: dict[str, Any] = {}
        plan = budget.left() * 0.5
        first = self._train(lgb, settings, x[rest], y[rest], MOST_ROUNDS, held=(x[held], y[held]), curve=curve, seconds=plan, note=budget.say)
        rounds = max(1, first.best_iteration or first.current_iteration())
        took = plan - (budget.left() - plan)
        again = took * rounds / max(first.current_iteration(), 1) * len(train) / len(rest)
        if again < budget.left() * 0.9:
            final = round(rounds * (len(train) / len(rest)) ** 0.5)  # more rows bear a few more trees
            self.booster = self._train(lgb, settings, x, y, final)
        else:
            self.booster = first
            self.facts["rows_used"] = len(rest)
        held_loss = next(iter(curve.get("held", {"": []}).values()))
        step = max(1, len(held_loss) // 100)
        self.facts |= {"rounds": self.booster.num_trees() // self.booster.num_model_per_iteration(),
                       "loss_curve": [[i + 1, None, round(float(v), 6)] for i, v in enumerate(held_loss)][::step]}
        return self

    def _affordable(self, train: Dataset, seed: int, budget: Budget) -> Dataset:
        """All rows, or a random part that fits into memory and time; the part is stated."""
        a_row = 8 * len(self.table.names) * 7 + 1500 * len(self.text.columns)  # frame, codes and bins, each whole and in parts
        most = int(budget.memory_mb * 0.6e6 / max(a_row, 1))
        if self.text.columns:
            start, probe = time.monotonic(), min(len(train), 2000)
            TextEncoder(self.schema).fit_transform(train.frame[:probe])
            most = min(most, int(probe / (time.monotonic() - start) * budget.left() / 3))
        if len(train) <= max(most, 200):
            return train
        self.facts["rows_used"] = most
        return train.take(np.sort(np.random.default_rng(seed).choice(len(train), most, replace=False)))

    def _settings(self, n: int, seed: int, budget: Budget) -> dict[str, Any]:
        objective: dict[str, Any] = {"objective": "binary"}
        if self.task.name == "regress":
            objective = {"objective": {"squared": "l2", "absolute": "l1", "pinball": "quantile"}[self.task.loss],
                         "alpha": getattr(self.task, "quantile", 0.5)}
        elif len(self.seen) > 2:
            objective = {"objective": "multiclass", "num_class": len(self.seen)}
        small = n < 2000
        cells = n * len(self.table.names)
        return objective | {
            "learning_rate": 0.1 if budget.seconds < 3 else 0.03 if n < 20_000 else 0.06, "num_leaves": 15 if small else 31 if n < 50_000 else 63,
            "min_data_in_leaf": 5 if n < 500 else 10 if small else 20, "feature_fraction": 0.8 if len(self.table.names) > 4 else 1.0,
            "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "cat_smooth": 20.0, "max_bin": 255,
            "seed": seed, "deterministic": True, "force_row_wise": True, "num_threads": 1 if cells < 100_000 else budget.threads, "verbosity": -1,
        }

    def _train(self, lgb: Any, settings: dict[str, Any], x: Any, y: np.ndarray, rounds: int, *, held: Any = None,
               curve: dict | None = None, seconds: float = np.inf, note: Any = None) -> Any:
        categories = [self.table.names.index(c) for c in self.table.categories]
        data = lgb.Dataset(x, y, categorical_feature=categories, free_raw_data=True)
        stops = []
        if held is not None:
            started = time.monotonic()

            def in_time(env: Any) -> None:
                if env.iteration % 25 == 24:
                    note(f"round {env.iteration + 1}, held-out loss {env.evaluation_result_list[0][2]:.4f}")
                if time.monotonic() - started > seconds:
                    raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

            stops = [lgb.early_stopping(PATIENCE, verbose=False), lgb.record_evaluation(curve), in_time]
        return lgb.train(settings, data, rounds, callbacks=stops,
                         valid_sets=[data.create_valid(*held)] if held else None, valid_names=["held"] if held else None)

    def _matrix(self, data: Dataset, *, learn: bool = False) -> Any:
        from scipy.sparse import csr_matrix, hstack

        if learn:
            self.table.fit(data.frame)
        codes = self.table.codes(data.frame)
        if not self.text.columns:
            return codes
        grams = self.text.fit_transform(data.frame) if learn else self.text.transform(data.frame)
        return hstack([csr_matrix(codes), grams], format="csr")

    def _answer(self, raw: np.ndarray) -> np.ndarray:
        if self.task.name == "regress":
            return raw.reshape(-1, 1) + self.shift
        known = np.column_stack([1 - raw, raw]) if raw.ndim == 1 else raw
        if len(self.seen) == self.task.width:
            return known
        out = np.zeros((len(known), self.task.width))
        out[:, self.seen] = known
        return out

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self._answer(self.booster.predict(self._matrix(asked)))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        codes = self.table.codes_row(row)
        if self.text.columns:
            from scipy.sparse import csr_matrix, hstack

            codes = hstack([csr_matrix(codes), self.text.transform_row(row)], format="csr")
        return self._answer(self.booster.predict(codes, num_threads=1))

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        self.booster.save_model(str(folder / "boosting.txt"))
        save_file(self.text.arrays(), folder / "boosting.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "shift": self.shift, "seen": self.seen}
        (folder / "boosting.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> Boosting:
        import lightgbm as lgb
        from safetensors.numpy import load_file

        packed = json.loads((folder / "boosting.json").read_text())
        self.table, self.shift, self.seen = TableEncoder.of(packed["table"]), packed["shift"], packed["seen"]
        self.text = TextEncoder.of(packed["text"], load_file(folder / "boosting.safetensors"))
        self.booster = lgb.Booster(model_file=str(folder / "boosting.txt"))
        return self


CANDIDATE = Candidate(
    name="boosting", rung="classical", tasks=("classify", "regress"), build=Boosting, share=5.0,
    source="LightGBM (Ke et al. 2017)", licence="MIT", version="1",
)
