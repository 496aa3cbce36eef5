"""Gradient boosting of trees (CatBoost, Prokhorenkova et al. 2018): oblivious trees, categories by ordered target statistics."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import PILOT_CLASSES, Labels, Rounds, affordable, pace, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.data.target import telling
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.tasks.base import Task
from assay.words import say

MOST_ROUNDS = 1000  # CatBoost's own default
GRAMS = 2000  # the commonest n-grams are read, as for LightGBM;
COLUMNS = 150  # those that tell most become columns of three values, absent, light and heavy: a round takes 3 ms, with TF-IDF weights 16 ms
MOST_LEAVES = 5_000_000  # values in the leaves of all trees, 8 bytes each: every leaf holds one for every class
CELLS_A_SECOND = 2_000_000  # read and binned before the first round, where nothing can stop it; measured 5 to 8 million on two cores
ABSENT = -3e38  # a missing number: left of all others, whether or not the training rows had one
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "depth": Range(3, 9, whole=True), "learning_rate": Range(0.01, 0.3, log=True), "l2_leaf_reg": Range(0.3, 30.0, log=True),
    "random_strength": Range(0.1, 10.0, log=True), "rsm": Range(0.3, 1.0), "one_hot_max_size": (2, 10, 50),
}


class CatBoost(Model):
    """Rounds by early stopping on rows held out of train, then fitted again on all of them."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        settings(params, SPACE)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=GRAMS, min_rows=5)
        self.grams = np.zeros(0, dtype=np.int64)  # of text.kept, those that became columns
        self.heavy = np.zeros(0, dtype=np.float32)  # the weight above which each is heavy
        self.trees: Any = None
        self.shift = 0.0
        self.scale = 1.0
        self.labels = Labels([])
        self._levels: list[np.ndarray] = []

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> CatBoost:
        from catboost import Pool

        whole, columns = len(train), len(self.table.names) + COLUMNS * bool(self.text.columns)
        train = affordable(train, seed=seed, bytes_a_row=16 * columns + 60 * len(self.table.categories) + 1500 * len(self.text.columns),
                           memory_mb=0.6 * budget.memory_mb, reading_s=budget.left() / 3, most=budget.left() / 4 * CELLS_A_SECOND / max(columns, 1))
        y = self.task.truth(train).astype(np.float64)
        if self.task.name == "classify":
            self.labels = Labels.of(y)
            y = self.labels.codes(y)
        else:  # CatBoost keeps targets as float32
            self.shift, self.scale = float(np.median(y)), float(y.std()) or 1.0
            y = (y - self.shift) / self.scale
        rest, held = holdout(train, share=0.15, seed=seed, strata=self.task.strata(train))
        if self.task.name == "classify" and np.ptp(y[rest]) == 0:
            raise TooSlow(say("the training rows hold one class only"))
        x = self._learn(train, y, rest)
        grown = self._settings(len(train), columns, seed, budget)
        part, valid = Pool(_rows(x, rest), y[rest]), Pool(_rows(x, held), y[held])
        plan, most = budget.left() * 0.5, self._most_rounds(len(train), grown["depth"], budget)
        if budget.seconds < float("inf"):
            pilot, tried = Rounds.pilot(plan), (grown, part, valid)
            if len(self.labels.seen) > PILOT_CLASSES:
                few = [Pool(_rows(x, rows), y[rows] % PILOT_CLASSES) for rows in (rest, held)]
                tried = (grown | {"classes_count": PILOT_CLASSES}, *few)
            rate = pilot.rate(_grow(*tried, pilot, most).learning_rate_, plan, len(self.labels.seen))
            if not isinstance(rate, float):
                raise TooSlow(rate)
            grown["learning_rate"] = self.params.get("learning_rate", rate)
        rounds = Rounds(most=most, seconds=plan, note=budget.say)
        self.trees = _grow(grown, part, valid, rounds, most)
        grown["learning_rate"] = self.trees.learning_rate_  # found from the number of rows and rounds, unless it was given
        used = len(rest)
        final, expected_s = rounds.again(len(rest), len(train))
        if expected_s < budget.left() * 0.9:
            from catboost import CatBoost as Trees

            self.trees = Trees(grown | {"iterations": final}).fit(Pool(x, y))
            used = len(train)
        if used < whole:
            self.facts["rows_used"] = used
        self.facts |= {"rounds": self.trees.tree_count_, "loss_curve": rounds.facts()}
        return self

    def _most_rounds(self, n: int, depth: int, budget: Budget) -> int:
        most = MOST_ROUNDS if n >= 1000 else MOST_ROUNDS // 2
        return min(budget.passes or most, max(10, min(most, MOST_LEAVES // (2**depth * max(len(self.labels.seen), 1)))))

    def _settings(self, n: int, columns: int, seed: int, budget: Budget) -> dict[str, Any]:
        loss = "Logloss"
        if self.task.name == "regress":
            loss = {"squared": "RMSE", "absolute": "MAE", "pinball": f"Quantile:alpha={getattr(self.task, 'quantile', 0.5)}"}[self.task.loss]
        elif len(self.labels.seen) > 2:
            loss = "MultiClass"
        chosen = settings(self.params, SPACE, depth=6 if n >= 300 else 4)  # 64 leaves for so few rows tell nothing and take their time
        most = self._most_rounds(n, chosen["depth"], budget)
        if most < MOST_ROUNDS // 2 and "learning_rate" not in chosen:  # CatBoost's own rule does not know so few rounds
            chosen["learning_rate"] = pace(0.03, most)
        if loss == "MultiClass":
            chosen["classes_count"] = len(self.labels.seen)
        return chosen | {"loss_function": loss, "random_seed": seed, "thread_count": 1 if n * columns < 500_000 else budget.threads, "allow_writing_files": False,
                         "logging_level": "Silent"}

    def _learn(self, train: Dataset, y: np.ndarray, rest: np.ndarray) -> Any:
        """The features of `train`. Which n-grams tell most is learnt on `rest`."""
        codes, grams = self.table.fit(train.frame).codes(train.frame), None
        self._ready()
        if self.text.columns:
            grams = self.text.fit_transform(train.frame)
            self.grams = telling(grams[rest], y[rest], len(self.labels.seen), min(COLUMNS, max(20, len(rest) // 3)))
            there = grams[:, self.grams].tocsc()
            self.heavy = np.array([np.median(there.data[a:b]) for a, b in pairwise(there.indptr)], dtype=np.float32)
        return self._mixed(codes, grams)

    def _mixed(self, codes: np.ndarray, grams: Any) -> Any:
        """Numbers float32 and categories as CatBoost wants them, names as bytes: the code, or b"?" for an unknown one."""
        from catboost import FeaturesData

        first = codes.shape[1] - len(self.table.categories)
        numbers = np.clip(np.nan_to_num(codes[:, :first], nan=ABSENT), ABSENT, -ABSENT).astype(np.float32)
        if grams is not None:
            weights = grams[:, self.grams].toarray()
            numbers = np.column_stack([numbers, (weights > 0).astype(np.float32) + (weights > self.heavy)])
        if not self._levels:
            return FeaturesData(num_feature_data=np.ascontiguousarray(numbers))
        named = np.empty((len(codes), len(self._levels)), dtype=object)
        for i, levels in enumerate(self._levels):
            named[:, i] = levels[codes[:, first + i].astype(np.int64)]  # -1 is the last one, b"?"
        return FeaturesData(num_feature_data=np.ascontiguousarray(numbers) if numbers.shape[1] else None, cat_feature_data=named)

    def _ready(self) -> None:
        self._levels = [np.array([*(str(i).encode() for i in range(len(self.table.levels[name]))), b"?"], dtype=object)
                        for name in self.table.categories]

    def _answer(self, features: Any, threads: int) -> np.ndarray:
        if self.task.name == "regress":
            return self.trees.predict(features, thread_count=threads).reshape(-1, 1) * self.scale + self.shift
        return self.labels.spread(self.trees.predict(features, prediction_type="Probability", thread_count=threads), self.task.width)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self._answer(self._mixed(self.table.codes(asked.frame), self.text.transform(asked.frame) if self.text.columns else None), -1)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        grams = self.text.transform_row(row) if self.text.columns else None
        return self._answer(self._mixed(self.table.codes_row(row), grams), 1)

    def dump(self, folder: Path) -> None:
        """The trees as a CatBoost binary model (flatbuffers, data only, read by its C++ core), a row of bytes among the other arrays."""
        from safetensors.numpy import save_file

        with tempfile.TemporaryDirectory() as made:
            file = Path(made) / "trees.cbm"
            self.trees.save_model(str(file), format="cbm")
            trees = np.frombuffer(file.read_bytes(), dtype=np.uint8)
        save_file({"trees.cbm": trees, "grams": self.grams, "heavy": self.heavy, **self.text.arrays()}, folder / "catboost.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "shift": self.shift, "scale": self.scale, "seen": self.labels.seen}
        (folder / "catboost.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> CatBoost:
        from catboost import CatBoost as Trees
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "catboost.json").read_text()), load_file(folder / "catboost.safetensors")
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        self.shift, self.scale, self.labels = packed["shift"], packed["scale"], Labels(packed["seen"])
        self.trees = Trees().load_model(blob=arrays["trees.cbm"].tobytes())
        self.grams, self.heavy = arrays["grams"], arrays["heavy"]
        self._ready()
        return self


def _rows(features: Any, rows: np.ndarray) -> Any:
    from catboost import FeaturesData

    parts = (features.num_feature_data, features.cat_feature_data)
    numbers, names = (None if part is None else part[rows] for part in parts)
    return FeaturesData(num_feature_data=numbers, cat_feature_data=names)


def _grow(grown: dict[str, Any], part: Any, valid: Any, rounds: Rounds, iterations: int) -> Any:
    """Trees until `rounds` says stop, then cut back to the best of them."""
    from catboost import CatBoost as Trees
    from catboost import CatBoostError

    class Judged:
        def after_iteration(self, info: Any) -> bool:
            return not rounds.stop(next(iter(info.metrics["validation"].values()))[-1])

    made = Trees(grown | {"iterations": iterations, "use_best_model": True})  # its rule for the learning rate asks for this
    try:
        made.fit(part, eval_set=valid, callbacks=[Judged()])
    except CatBoostError as error:
        if "constant or ignored" not in str(error):
            raise
        raise TooSlow(say("no column holds anything to learn from")) from None
    made.shrink(min(rounds.best, made.tree_count_))  # it leaves out rounds that split nothing any more
    return made


CANDIDATE = Candidate(
    name="catboost", rung="classical", tasks=("classify", "regress"), build=CatBoost, needs={"catboost": "boost"}, share=5.0, at_least_s=3.0,
    space=SPACE, source="CatBoost (Prokhorenkova et al. 2018, arXiv:1706.09516)", licence="Apache-2.0", version="1",
)
