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
from assay.neural.solver import descend, softmax
from assay.tasks.base import Task
from assay.words import say

STRENGTHS = {"table": (0.003, 0.03, 0.3, 3.0, 30.0), "text": (1.0, 6.0, 30.0, 150.0), "regress": (1000.0, 100.0, 10.0, 1.0, 0.1)}  # strong to weak
MOST_WEIGHTS = 2_000_000  # of a logistic line: L-BFGS keeps 20 copies of them in float64, 320 MB
MOST_ENTRIES = 150_000_000  # non-zero entries of the matrix: 150 M x 12 bytes = 1.8 GB


class Linear(Model):
    """Logistic regression (Cox 1958) or ridge (Hoerl & Kennard 1970). For absolute and pinball loss the intercept is
    moved to that quantile of the held-out residuals: the line is least squares, its level is what the loss asks."""

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.table = TableEncoder(self.schema)
        self.text = TextEncoder(self.schema, most=min(200_000, max(5000, MOST_WEIGHTS // task.width)))
        self.coef = np.zeros((0, 0), dtype=np.float32)  # (features, width)
        self.intercept = np.zeros(0)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Linear:
        train = self._affordable(train, seed, budget)
        truth = self.task.truth(train)
        x = self._matrix(train, learn=True)
        rest, held = holdout(train, share=0.2, seed=seed, strata=self.task.strata(train))
        if x.shape[1] == 0:
            raise TooSlow(say("no column holds anything to learn from"))
        strength, state = self._strength(x, truth, rest, held, budget)
        self._solve(x, truth, strength, start=state, seconds=budget.left())
        if self.task.name == "regress" and self.task.loss != "squared":
            level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
            whole, shift = (self.coef, self.intercept), x[held]
            self._solve(x[rest], truth[rest], strength, seconds=budget.left())
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
            most = min(most, int(rate * budget.left() / 2 / max(1, self.task.width / 2) ** 0.5))
        if len(train) <= max(most, 200):
            return train
        self.facts["rows_used"] = most
        return train.take(np.sort(np.random.default_rng(seed).choice(len(train), most, replace=False)))

    def _strength(self, x: Any, truth: np.ndarray, rest: np.ndarray, held: np.ndarray, budget: Budget) -> tuple[float, np.ndarray | None]:
        """The strength of least held-out loss, and the weights there. From strong to weak, each from where the last one
        ended, until it gets worse or half of the time is gone."""
        best, best_loss, best_state, state = 1.0, np.inf, None, None
        half, inner, inner_truth, tried = budget.left() / 2, x[rest], truth[rest], x[held]
        for strength in STRENGTHS["regress" if self.task.name == "regress" else "text" if self.text.columns else "table"]:
            state = self._solve(inner, inner_truth, strength, start=state, seconds=budget.left() - half)
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
            if budget.left() < half:
                break
        return best, best_state

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

    def _solve(self, x: Any, truth: np.ndarray, strength: float, *, start: np.ndarray | None = None, seconds: float = 3600.0) -> np.ndarray | None:
        """Set `coef` and `intercept`; returns the state from which a weaker strength may start."""
        if self.task.name == "regress":
            from sklearn.linear_model import Ridge

            centre, scale = truth.mean(), truth.std() or 1.0
            solver = "sparse_cg" if hasattr(x, "indptr") else "cholesky" if x.shape[1] < 3000 else "lsqr"
            ridge = Ridge(alpha=strength, solver=solver, tol=1e-4, max_iter=300)
            ridge.fit(x, (truth - centre) / scale)
            self.coef = (ridge.coef_.reshape(-1, 1) * scale).astype(np.float32)
            self.intercept = np.array([float(ridge.intercept_) * scale + centre])
            return None
        seen = np.unique(truth)
        found = descend(x, np.searchsorted(seen, truth), len(seen), 1 / (strength * len(truth)), start=start,
                        deadline=time.monotonic() + seconds)
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


CANDIDATE = Candidate(
    name="linear", rung="classical", tasks=("classify", "regress"), build=Linear, share=4.0, explainable=True,
    source="logistic regression (Cox 1958) by L-BFGS; ridge of scikit-learn", licence="BSD-3-Clause", version="1",
)
