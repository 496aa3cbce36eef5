"""Linear: one-hot categories, scaled numbers, word and character n-grams; L2 strength chosen on rows held out of train."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import affordable, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.neural.solver import descend, softmax
from assay.tasks.base import Task
from assay.words import say

STRENGTHS = {"table": (0.003, 0.03, 0.3, 3.0, 30.0), "text": (1.0, 6.0, 30.0, 150.0), "regress": (1000.0, 100.0, 10.0, 1.0, 0.1)}  # strong to weak
MOST_WEIGHTS = 2_000_000  # of a logistic line: L-BFGS keeps 20 copies of them in float64, 320 MB
MOST_ENTRIES = 150_000_000  # non-zero entries of the matrix: 150 M x 12 bytes = 1.8 GB
MOST_STEPS = 200  # of the solver
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "strength": Range(1e-3, 1e3, log=True), "knots": (0, 3, 7), "text_weight": Range(0.2, 5.0, log=True), "min_rows": (1, 2, 5, 10),
}


class Linear(Model):
    """Logistic regression (Cox 1958) or ridge (Hoerl & Kennard 1970). For absolute and pinball loss the intercept is
    moved to that quantile of the held-out residuals: the line is least squares, its level is what the loss asks.

    strength: of the L2 penalty, in the units of `facts["strength"]`; searched if it is not given. knots: where the line of
    each number may bend, at quantiles of the training rows (linear splines). text_weight: n-grams against the table's columns.
    """

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        given = settings(params, SPACE, knots=0, text_weight=1.0, min_rows=2)
        self.bends, self.text_weight = given["knots"], given["text_weight"]
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=min(200_000, max(5000, MOST_WEIGHTS // task.width)), min_rows=given["min_rows"])
        self.knots = np.zeros((2, 0, 0), dtype=np.float32)  # places and scales, each (numbers, bends)
        self.coef = np.zeros((0, 0), dtype=np.float32)  # (features, width)
        self.intercept = np.zeros(0)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Linear:
        whole = len(train)
        a_row = TableEncoder(self.schema).fit(train.frame[:1000]).width + self.bends * len(self.table.names) + 160 * len(self.text.columns)
        train = affordable(train, seed=seed, bytes_a_row=50 * a_row, memory_mb=budget.memory_mb, most=MOST_ENTRIES / max(a_row, 1),
                           reading_s=budget.left() / 2 / max(1.0, self.task.width / 2) ** 0.5)
        if len(train) < whole:
            self.facts["rows_used"] = len(train)
        truth = self.task.truth(train)
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.2, seed=seed, strata=self.task.strata(train))
        if x.shape[1] == 0:
            raise TooSlow(say("no column holds anything to learn from"))
        strength, state = self._strength(x, truth, rest, held, budget)
        self._solve(x, truth, strength, budget, start=state, seconds=budget.left())
        if self.task.name == "regress" and self.task.loss != "squared":
            level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
            whole_line = (self.coef, self.intercept)
            self._solve(x[rest], truth[rest], strength, budget, seconds=budget.left())
            residual = truth[held] - self._scores(x[held])[:, 0]
            self.coef, self.intercept = whole_line
            self.intercept = self.intercept + np.quantile(residual, level)
        self.facts |= {"strength": strength, "features": int(x.shape[1])}
        return self

    def _strength(self, x: Any, truth: np.ndarray, rest: np.ndarray, held: np.ndarray, budget: Budget) -> tuple[float, np.ndarray | None]:
        """The strength of least held-out loss, and the weights there. From strong to weak, each from where the last one
        ended, until it gets worse or half of the time is gone."""
        if "strength" in self.params:
            return float(self.params["strength"]), None
        best, best_loss, best_state, state = 1.0, np.inf, None, None
        begun, spend = time.monotonic(), budget.left() / 2
        inner, inner_truth, tried = x[rest], truth[rest], x[held]
        for strength in STRENGTHS["regress" if self.task.name == "regress" else "text" if self.text.columns else "table"]:
            state = self._solve(inner, inner_truth, strength, budget, start=state, seconds=spend - (time.monotonic() - begun))
            scores = self._scores(tried)
            if self.task.name == "classify":
                p = softmax(scores)
                loss = -np.log(np.maximum(p[np.arange(len(held)), truth[held]], 1e-6)).mean()
            else:
                loss = ((truth[held] - scores[:, 0]) ** 2).mean()
            budget.say(f"L2 strength {strength:g}: held-out loss {loss:.4f}")
            if loss < best_loss:
                best, best_loss, best_state = strength, loss, state
            elif loss > best_loss * 1.02:
                break
            if time.monotonic() - begun > spend:
                break
        return best, best_state

    def _matrix(self, data: Dataset, *, learn: bool = False) -> Any:
        """Dense array if there is no text, else CSR with the table columns first."""
        from scipy.sparse import csr_matrix, hstack

        if learn:
            self.table.fit(data.frame)
        dense = self.table.dense(data.frame)
        if self.bends and learn:
            self._learn_knots(dense)
        dense = self._bent(dense)
        if not self.text.columns:
            return dense
        grams = (self.text.fit_transform(data.frame) if learn else self.text.transform(data.frame)) * np.float32(self.text_weight)
        return hstack([csr_matrix(dense), grams], format="csr") if dense.shape[1] else grams

    def _learn_knots(self, dense: np.ndarray) -> None:
        numbers = dense[:, : len(self.table.fill)]
        places = np.quantile(numbers, np.arange(1, self.bends + 1) / (self.bends + 1), axis=0).T.astype(np.float32)
        spread = np.maximum(numbers[:, :, None] - places, 0).std(axis=0)
        self.knots = np.stack([places, np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0)])

    def _bent(self, dense: np.ndarray) -> np.ndarray:
        """The table's columns and, for each knot of each number, how far the number is beyond it."""
        places, scales = self.knots
        if not places.size:
            return dense
        beyond = np.maximum(dense[:, : len(places), None] - places, 0) * scales
        return np.concatenate([dense, beyond.reshape(len(dense), -1)], axis=1)

    def _solve(self, x: Any, truth: np.ndarray, strength: float, budget: Budget, *, start: np.ndarray | None = None,
               seconds: float = math.inf) -> np.ndarray | None:
        """Set `coef` and `intercept`; returns the state from which a weaker strength may start."""
        steps = min(MOST_STEPS, budget.passes or MOST_STEPS)
        if self.task.name == "regress":
            from sklearn.linear_model import Ridge

            centre, scale = truth.mean(), truth.std() or 1.0
            solver = "sparse_cg" if hasattr(x, "indptr") else "cholesky" if x.shape[1] < 3000 else "lsqr"
            ridge = Ridge(alpha=strength, solver=solver, tol=1e-4, max_iter=max(steps, 300 if budget.passes is None else 1))
            ridge.fit(x, (truth - centre) / scale)
            self.coef = (ridge.coef_.reshape(-1, 1) * scale).astype(np.float32)
            self.intercept = np.array([float(ridge.intercept_) * scale + centre])
            return None
        seen = np.unique(truth)
        if start is not None and start.shape[-1] != len(seen):  # a rare class stands only on the other side
            start = None
        found = descend(x, np.searchsorted(seen, truth), len(seen), 1 / (strength * len(truth)), start=start,
                        deadline=time.monotonic() + seconds, most_steps=steps)
        self.coef = np.zeros((x.shape[1], self.task.width), dtype=np.float32)
        self.intercept = np.full(self.task.width, found[-1].min() - 20.0)  # a class that train does not hold is next to impossible
        self.coef[:, seen] = found[:-1]
        self.intercept[seen] = found[-1]
        return found

    def _scores(self, x: Any) -> np.ndarray:
        return np.asarray(x @ self.coef) + self.intercept

    def _answer(self, scores: np.ndarray) -> np.ndarray:
        return softmax(scores) if self.task.name == "classify" else scores

    def predict(self, asked: Dataset) -> np.ndarray:
        step = 100_000
        parts = [self._answer(self._scores(self._matrix(Dataset(asked.frame[i: i + step], asked.schema))))
                 for i in range(0, max(len(asked), 1), step)]
        return np.concatenate(parts)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        dense = self._bent(self.table.dense_row(row))
        scores = dense @ self.coef[: dense.shape[1]] + self.intercept
        if self.text.columns:
            grams = self.text.transform_row(row)
            scores = scores + grams.data @ self.coef[dense.shape[1] + grams.indices] * self.text_weight
        return self._answer(scores)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {"coef": np.ascontiguousarray(self.coef), "intercept": self.intercept, "knots": np.ascontiguousarray(self.knots), **self.text.arrays()}
        save_file(arrays, folder / "linear.safetensors")
        (folder / "linear.json").write_text(json.dumps({"table": self.table.json(), "text": self.text.json()}))

    def load(self, folder: Path) -> Linear:
        from safetensors.numpy import load_file

        arrays = load_file(folder / "linear.safetensors")
        packed = json.loads((folder / "linear.json").read_text())
        self.coef, self.intercept = arrays["coef"], arrays["intercept"]
        self.knots = arrays.get("knots", self.knots)  # bundles before the splines have none
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        return self


CANDIDATE = Candidate(
    name="linear", rung="classical", tasks=("classify", "regress"), build=Linear, share=4.0, explainable=True, space=SPACE,
    source="logistic regression (Cox 1958) by L-BFGS; ridge of scikit-learn", licence="BSD-3-Clause", version="1",
)
