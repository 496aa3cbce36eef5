"""Linear: one-hot categories, scaled numbers, word and character n-grams; L2 strength chosen on rows held out of train."""

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

STRENGTHS = {"classify": (16.0, 4.0, 1.0, 0.25, 0.03), "regress": (0.1, 1.0, 10.0, 100.0, 1000.0)}
MOST_ENTRIES = 150_000_000  # non-zero entries of the matrix: 150 M x 12 bytes = 1.8 GB


class Linear(Model):
    """Logistic regression (Cox 1958) or ridge (Hoerl & Kennard 1970). For absolute and pinball loss the intercept is
    moved to that quantile of the held-out residuals: the line is least squares, its level is what the loss asks."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema)
        self.coef = np.zeros((0, 0), dtype=np.float32)  # (features, width)
        self.intercept = np.zeros(0)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Linear:
        train = self._affordable(train, seed, budget)
        truth = self.task.truth(train)
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.2, seed=seed, strata=self.task.strata(train))
        if x.shape[1] == 0:
            raise TooSlow(say("no column holds anything to learn from"))
        strength = self._strength(x, truth, rest, held, budget)
        self._solve(x, truth, strength)
        if self.task.name == "regress" and self.task.loss != "squared":
            level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
            whole, shift = (self.coef, self.intercept), x[held]
            self._solve(x[rest], truth[rest], strength)
            residual = truth[held] - self._scores(shift)[:, 0]
            self.coef, self.intercept = whole
            self.intercept = self.intercept + np.quantile(residual, level)
        self.facts |= {"strength": strength, "features": int(x.shape[1])}
        return self

    def _affordable(self, train: Dataset, seed: int, budget: Budget) -> Dataset:
        """All rows, or a random part that fits into memory and time; the part is stated."""
        a_row = self.table.fit(train.frame[:1000]).width + 160 * len(self.text.columns)
        most = int(min(MOST_ENTRIES, budget.memory_mb * 20_000) / max(a_row, 1))
        self.table = TableEncoder(self.schema)
        if self.text.columns:
            start, probe = time.monotonic(), min(len(train), 2000)
            TextEncoder(self.schema).fit_transform(train.frame[:probe])
            rate = probe / (time.monotonic() - start)
            most = min(most, int(rate * budget.left() / 4 / max(1, self.task.width**0.5)))
        if len(train) <= max(most, 200):
            return train
        self.facts["rows_used"] = most
        return train.take(np.sort(np.random.default_rng(seed).choice(len(train), most, replace=False)))

    def _strength(self, x: Any, truth: np.ndarray, rest: np.ndarray, held: np.ndarray, budget: Budget) -> float:
        """The strength of least held-out loss; tried from the strongest signal on, stopped when it gets worse."""
        best, best_loss = 1.0, np.inf
        options = STRENGTHS[self.task.name]
        for i, strength in enumerate(options):
            start = time.monotonic()
            self._solve(x[rest], truth[rest], strength)
            scores = self._scores(x[held])
            if self.task.name == "classify":
                p = _softmax(scores)
                loss = -np.log(np.maximum(p[np.arange(len(held)), truth[held]], 1e-6)).mean()
            else:
                loss = ((truth[held] - scores[:, 0]) ** 2).mean()
            budget.say(f"L2 strength {strength:g}: held-out loss {loss:.4f}")
            if loss < best_loss:
                best, best_loss = strength, loss
            elif loss > best_loss * 1.02:
                break
            if budget.left() < 2.5 * (time.monotonic() - start) and i + 1 < len(options):
                break
        return best

    def _matrix(self, data: Dataset, *, learn: bool = False) -> Any:
        """Dense array if there is no text, else CSR with the table columns first."""
        from scipy.sparse import csr_matrix, hstack

        if learn:
            self.table.fit(data.frame)
        dense = self.table.dense(data.frame)
        if not self.text.columns:
            return dense
        grams = self.text.fit_transform(data.frame) if learn else self.text.transform(data.frame)
        return hstack([csr_matrix(dense), grams], format="csr") if dense.shape[1] else grams

    def _solve(self, x: Any, truth: np.ndarray, strength: float) -> None:
        if self.task.name == "regress":
            from sklearn.linear_model import Ridge

            centre, scale = truth.mean(), truth.std() or 1.0
            solver = "sparse_cg" if hasattr(x, "indptr") else "cholesky" if x.shape[1] < 3000 else "lsqr"
            ridge = Ridge(alpha=strength, solver=solver, tol=1e-4, max_iter=300)
            ridge.fit(x, (truth - centre) / scale)
            self.coef = (ridge.coef_.reshape(-1, 1) * scale).astype(np.float32)
            self.intercept = np.array([float(ridge.intercept_) * scale + centre])
            return
        from sklearn.linear_model import LogisticRegression

        seen = np.unique(truth)
        width = self.task.width
        self.coef = np.zeros((x.shape[1], width), dtype=np.float32)
        self.intercept = np.full(width, -20.0)  # a class that train does not hold is believed to be next to impossible
        if len(seen) == 1:
            self.intercept[seen] = 0.0
            return
        model = LogisticRegression(C=strength, tol=1e-3, max_iter=200).fit(x, truth)
        if len(seen) == 2:
            self.coef[:, seen[1]] = model.coef_[0]
            self.intercept[seen] = [0.0, float(model.intercept_[0])]
        else:
            self.coef[:, seen] = model.coef_.T
            self.intercept[seen] = model.intercept_

    def _scores(self, x: Any) -> np.ndarray:
        return np.asarray(x @ self.coef) + self.intercept

    def _answer(self, scores: np.ndarray) -> np.ndarray:
        return _softmax(scores) if self.task.name == "classify" else scores

    def predict(self, asked: Dataset) -> np.ndarray:
        step = 100_000
        parts = [self._answer(self._scores(self._matrix(Dataset(asked.frame[i: i + step], asked.schema))))
                 for i in range(0, max(len(asked), 1), step)]
        return np.concatenate(parts)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        dense = self.table.dense_row(row)
        scores = dense @ self.coef[: dense.shape[1]] + self.intercept
        if self.text.columns:
            grams = self.text.transform_row(row)
            scores = scores + grams.data @ self.coef[dense.shape[1] + grams.indices]
        return self._answer(scores)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays: dict[str, np.ndarray] = {"coef": np.ascontiguousarray(self.coef), "intercept": self.intercept, **self.text.arrays()}
        save_file(arrays, folder / "linear.safetensors")
        (folder / "linear.json").write_text(json.dumps({"table": self.table.json(), "text": self.text.json()}))

    def load(self, folder: Path) -> Linear:
        from safetensors.numpy import load_file

        arrays = load_file(folder / "linear.safetensors")
        packed = json.loads((folder / "linear.json").read_text())
        self.coef, self.intercept = arrays["coef"], arrays["intercept"]
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        return self


def _softmax(scores: np.ndarray) -> np.ndarray:
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


CANDIDATE = Candidate(
    name="linear", rung="classical", tasks=("classify", "regress"), build=Linear, share=4.0, explainable=True,
    source="scikit-learn LogisticRegression and Ridge", licence="BSD-3-Clause", version="1",
)
