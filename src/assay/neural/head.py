"""The head on frozen embeddings: a linear model whose strength is chosen on held-out rows, or, on mixed tables, boosted trees.

Linear probe as in Conneau & Kiela 2018 (SentEval, arXiv:1803.05449). Predicting needs numpy only (and LightGBM's C library for trees).
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.trees import Trees
from assay.neural.solver import Linear, logistic, ridge, softmax

MOST_STEPS = 200  # of a line's solver
MOST_ROUNDS = 400  # of the trees
PENALTIES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)  # of the mean log loss; strong to weak, each starts at the last
ALPHAS = tuple(10.0**power for power in np.arange(-4, 1.6, 0.5))  # of the mean squared error
MOST_TREE_CLASSES = 20
LEAST_TREE_ROWS = 400
COMPONENTS = 16


@dataclass(frozen=True)
class Aim:
    """What is answered: probabilities of `classes` labels, or (classes 0) an amount under `loss`."""

    classes: int
    loss: str = "log"
    quantile: float = 0.5

    @classmethod
    def of(cls, task: Any) -> Aim:
        return cls(task.width, "log") if task.name == "classify" else cls(0, task.loss, getattr(task, "quantile", 0.5))

    def losses(self, truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """(n,) from probabilities (n, classes) and codes (n,), or from amounts (n, 1) and (n,)."""
        if self.classes:
            return -np.log(np.maximum(answer[np.arange(len(truth)), truth], 1e-6))
        error = truth - answer[:, 0]
        if self.loss == "squared":
            return error**2
        level = self.quantile if self.loss == "pinball" else 0.5
        return 2 * np.maximum(level * error, (level - 1) * error)


class Head:
    """Features -> answers. kind 'linear' or 'trees'; loss 'log' for classes, else that of the amount.

    Features are [embedding | dense table] for the line, and `codes` of the table for the trees, which also read the
    line's text scores (cross-fitted, so that no row's score has seen its own answer) and the embedding's main directions.
    """

    def __init__(self, *, classes: int, loss: str = "log", quantile: float = 0.5) -> None:
        self.classes, self.loss, self.quantile = classes, loss, quantile
        self.aim = Aim(classes, loss, quantile)
        self.kind = "linear"
        self.linear = Linear(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.float32))
        self.text: Linear | None = None
        self.directions = np.zeros((0, 0), dtype=np.float32)
        self.trees: Any = None
        self.most_steps = MOST_STEPS
        self.facts: dict[str, Any] = {}

    def fit(self, embedding: np.ndarray, dense: np.ndarray, codes: np.ndarray, truth: np.ndarray, rest: np.ndarray, held: np.ndarray,
            *, categories: list[int], seed: int, seconds: float, threads: int, passes: int | None = None) -> Head:
        """embedding (n, d), dense (n, m), codes (n, c); truth (n,); rest and held: row numbers for choosing strength and kind.

        seconds: may be infinite; then no clock decides anything. passes: the most steps of a line and rounds of trees.
        """
        deadline = time.monotonic() + seconds
        before_end = (lambda share: deadline - seconds * share) if math.isfinite(seconds) else (lambda share: math.inf)
        self.most_steps, most_rounds = min(MOST_STEPS, passes or MOST_STEPS), min(MOST_ROUNDS, passes or MOST_ROUNDS)
        x = np.concatenate([embedding, dense], axis=1)
        blocks = (embedding.shape[1], dense.shape[1])
        self.linear, strength, loss = self._line(x, blocks, truth, rest, held, before_end(0.5), before_end(0.25))
        self.facts = {"head": "linear", "strength": strength, "head_loss": {"linear": round(loss, 6)}}
        if not codes.shape[1] or self.classes > MOST_TREE_CLASSES or len(truth) < LEAST_TREE_ROWS or time.monotonic() > before_end(0.4):
            return self
        halves = np.random.default_rng(seed).permutation(len(truth)) % 2
        columns = self._tree_columns(embedding, codes, truth, rest, halves, strength)
        before = columns.shape[1] - codes.shape[1]
        options: dict[str, Any] = {"categories": [before + i for i in categories], "seed": seed, "threads": threads}
        trees, rounds = grow(columns[rest], truth[rest], self.aim, held=(columns[held], truth[held]), deadline=before_end(0.15), rounds=most_rounds, **options)
        tree_loss = self.loss_of(truth[held], tree_scores(trees, columns[held], self.aim))
        self.facts["head_loss"]["trees"] = round(tree_loss, 6)
        if tree_loss < loss and time.monotonic() < deadline:
            columns = self._tree_columns(embedding, codes, truth, np.arange(len(truth)), halves, strength)
            self.trees, _ = grow(columns, truth, self.aim, rounds=rounds, deadline=before_end(-0.1), **options)
            self.kind = "trees"
            self.facts |= {"head": "trees", "rounds": self.trees.current_iteration()}
        return self

    def predict(self, embedding: np.ndarray, dense: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float64 (n, classes) probabilities, or (n, 1) amounts."""
        if self.kind == "trees":
            assert self.text is not None
            columns = np.concatenate([self.text.scores(embedding), embedding @ self.directions, codes], axis=1)
            scores = tree_scores(self.trees, columns, self.aim)
        else:
            scores = self.linear.scores(np.concatenate([embedding, dense], axis=1))
        return softmax(scores) if self.classes else scores

    def loss_of(self, truth: np.ndarray, scores: np.ndarray) -> float:
        """Mean loss of raw scores: log loss, or squared, absolute or pinball loss of the amount."""
        return float(self.aim.losses(truth, softmax(scores) if self.classes else scores).mean())

    def _line(self, x: np.ndarray, blocks: tuple[int, int], truth: np.ndarray, rest: np.ndarray, held: np.ndarray,
              deadline: float, last: float) -> tuple[Linear, float, float]:
        """The line on all rows, its strength, and the held-out loss of the line that saw `rest` only."""
        if self.classes:
            best, best_loss, start, kept = PENALTIES[0], np.inf, None, None
            for penalty in PENALTIES:
                line, start = logistic(x[rest], truth[rest], self.classes, penalty, blocks, start=start, deadline=deadline, tolerance=1e-4,
                                       most_steps=self.most_steps)
                loss = self.loss_of(truth[held], line.scores(x[held]))
                if loss < best_loss:
                    best, best_loss, kept = penalty, loss, start
                if loss > best_loss * 1.02 or time.monotonic() > deadline:
                    break
            return logistic(x, truth, self.classes, best, blocks, start=kept, deadline=last, tolerance=1e-5, most_steps=self.most_steps)[0], best, best_loss
        lines = ridge(x[rest], truth[rest], ALPHAS, blocks)
        # for absolute and pinball loss the line is least squares and its level is what the loss asks: a quantile of
        # the residuals on rows that it has not seen
        level = None if self.loss == "squared" else self.quantile if self.loss == "pinball" else 0.5
        best, best_loss, shift = ALPHAS[0], np.inf, 0.0
        for alpha, line in zip(ALPHAS, lines, strict=True):
            residual = truth[held] - line.scores(x[held])[:, 0]
            moved = 0.0 if level is None else float(np.quantile(residual, level))
            loss = self.loss_of(truth[held], line.scores(x[held]) + moved)
            if loss < best_loss:
                best, best_loss, shift = alpha, loss, moved
        line = ridge(x, truth, (best,), blocks)[0]
        return Linear(line.weights, line.intercept + shift), best, best_loss

    def _tree_columns(self, embedding: np.ndarray, codes: np.ndarray, truth: np.ndarray, teach: np.ndarray, halves: np.ndarray,
                      strength: float) -> np.ndarray:
        """[text scores | main directions | codes] of all rows. Lines are taught on the rows `teach` only; a row that teaches
        is scored by the line of the other half, any other row by the mean of both."""
        from scipy.linalg import eigh

        blocks = (embedding.shape[1], 0)
        lines = []
        for half in (0, 1):
            rows = teach[halves[teach] == half]
            lines.append(logistic(embedding[rows], truth[rows], self.classes, strength, blocks, most_steps=self.most_steps)[0] if self.classes
                         else ridge(embedding[rows], truth[rows], (strength,), blocks)[0])
        self.text = Linear((lines[0].weights + lines[1].weights) / 2, (lines[0].intercept + lines[1].intercept) / 2)
        scores = self.text.scores(embedding)
        for half in (0, 1):
            other = teach[halves[teach] != half]
            scores[other] = lines[half].scores(embedding[other])
        centred = embedding[teach] - embedding[teach].mean(axis=0)
        size = centred.shape[1]  # only the last few vectors: all 3,584 of two columns took minutes
        _, vectors = eigh((centred.T @ centred).astype(np.float64), subset_by_index=(max(0, size - COMPONENTS), size - 1))
        self.directions = vectors[:, ::-1].astype(np.float32)
        return np.concatenate([scores, embedding @ self.directions, codes], axis=1)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {"weights": self.linear.weights, "intercept": self.linear.intercept}
        if self.kind == "trees" and self.text is not None:
            arrays = {"weights": self.text.weights, "intercept": self.text.intercept, "directions": self.directions}
            (folder / "trees.txt").write_text(self.trees.model_to_string(), encoding="utf-8")
        save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()}, folder / "head.safetensors")
        packed = {"kind": self.kind, "classes": self.classes, "loss": self.loss, "quantile": self.quantile}
        (folder / "head.json").write_text(json.dumps(packed), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Head:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "head.json").read_text(encoding="utf-8"))
        made = cls(classes=packed["classes"], loss=packed["loss"], quantile=packed["quantile"])
        arrays = load_file(folder / "head.safetensors")
        made.kind = packed["kind"]
        line = Linear(arrays["weights"], arrays["intercept"])
        if made.kind == "trees":
            made.text, made.directions = line, arrays["directions"]
            made.trees = Trees.read(folder / "trees.txt")
        else:
            made.linear = line
        return made


def grow(columns: np.ndarray, truth: np.ndarray, aim: Aim, *, categories: list[int], seed: int, threads: int, deadline: float,
         held: tuple[np.ndarray, np.ndarray] | None = None, rounds: int = MOST_ROUNDS, patience: int = 30, **settings: Any) -> tuple[Any, int]:
    """LightGBM (Ke et al. 2017). With `held` rows: stopped early on them. Returns the trees and their rounds."""
    import lightgbm

    objective = {"squared": "regression", "absolute": "regression_l1", "pinball": "quantile"}.get(aim.loss, "regression")
    params: dict[str, Any] = {"objective": objective, "alpha": aim.quantile}
    if aim.classes:
        params = {"objective": "multiclass", "num_class": aim.classes} if aim.classes > 2 else {"objective": "binary"}
    params |= {"learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 20, "feature_fraction": 0.8, "verbose": -1, "seed": seed,
               "num_threads": threads, "deterministic": True, "force_row_wise": True} | settings
    data = lightgbm.Dataset(columns, truth, categorical_feature=categories, free_raw_data=False, params={"verbose": -1})

    def in_time(env: Any) -> None:
        if time.monotonic() > deadline:
            raise lightgbm.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    calls: list[Any] = [in_time]
    if held is not None:
        calls.append(lightgbm.early_stopping(patience, verbose=False))
    sets = [data.create_valid(*held)] if held is not None else None
    grown = lightgbm.train(params, data, rounds, valid_sets=sets, callbacks=calls)
    return grown, grown.best_iteration if grown.best_iteration > 0 else grown.current_iteration()


def tree_scores(trees: Any, columns: np.ndarray, aim: Aim) -> np.ndarray:
    """Raw scores, float64 (n, classes or 1)."""
    scores = trees.predict(columns, raw_score=bool(aim.classes), num_threads=1)
    if aim.classes and scores.ndim == 1:
        return np.column_stack([np.zeros_like(scores), scores])  # two classes need one tree a round
    return scores if aim.classes else scores[:, None]
