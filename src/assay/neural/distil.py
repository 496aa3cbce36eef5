"""Teaching a small model with a large one's answers: soft targets, rows made up for the teacher to answer, pupils that learn from both.

Hinton, Vinyals & Dean 2015 (arXiv:1503.02531): a pupil learns the teacher's probabilities, softened by a temperature,
mixed with the true labels. Bucila, Caruana & Niculescu-Mizil 2006 (doi:10.1145/1150402.1150464): the teacher also answers
made-up rows ("munge"), because its answers on the rows it has learnt say little more than their labels do. For texts:
words dropped and stretches cut out (Tang et al. 2019, arXiv:1903.12136).
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.trees import Trees
from assay.neural.head import Aim
from assay.neural.ngrams import share_of_han
from assay.neural.solver import lbfgs, softmax

TRADE = 0.5  # the share of a made-up row's cells that come from its neighbour
LEAST_SHARE = 0.01  # a probability of the teacher below this is not learnt


def softened(answers: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) at another temperature: above 1 they are less sure."""
    return softmax(np.log(np.maximum(answers, 1e-6)) / temperature)


def targets(truth: np.ndarray, answers: np.ndarray, aim: Aim, share: float, temperature: float) -> np.ndarray:
    """What a pupil learns: (n, classes) probabilities or (n, 1) amounts, `share` of it the teacher's.

    For an amount under absolute or pinball loss the mix is right too: a quantile moves with a shift and a scale.
    """
    if aim.classes:
        out = share * softened(answers, temperature)
        out[np.arange(len(truth)), truth] += 1 - share
        return out
    return share * answers + (1 - share) * truth[:, None]


def made_up(data: Dataset, dense: np.ndarray, copies: int, *, seed: int) -> Dataset:
    """`copies` new rows a row, without answers: each trades cells with one of its nearest neighbours, and its texts lose words.

    dense: the table of `data` as floats (n, m), for finding neighbours.
    """
    rng = np.random.default_rng(seed)
    schema = data.schema.without_target()
    frame = data.frame.select([c.name for c in schema.columns])
    parts = []
    for copy in range(copies):
        near = _neighbours(dense, rng)
        other = frame[near]
        columns = []
        for column in schema.columns:
            own, lent = frame[column.name], other[column.name]
            if column.kind == "text":
                cells = own.to_list()
                columns.append(pl.Series(column.name, [cell and thinned(cell, rng) for cell in cells], dtype=pl.String))
            elif column.kind == "number":
                columns.append(_traded(own, lent, rng, steps=True))
            elif column.kind == "category":
                columns.append(_traded(own, lent, rng, steps=False))
            else:
                columns.append(own)
        parts.append(pl.DataFrame(columns))
        del copy
    return Dataset(pl.concat(parts) if parts else frame[:0], schema)


def _traded(own: pl.Series, lent: pl.Series, rng: np.random.Generator, *, steps: bool) -> pl.Series:
    """Cells of which some are the neighbour's; numbers then lie between the two or a little beyond, as whole numbers if all are."""
    take = rng.random(len(own)) < TRADE
    if not steps:
        return pl.select(pl.when(pl.Series(take)).then(lent).otherwise(own).alias(own.name)).to_series()
    here, there = (s.cast(pl.Float64).fill_null(float("nan")).to_numpy() for s in (own, lent))
    known = here[~np.isnan(here)]
    moved = there + np.abs(here - there) * rng.normal(0, 0.5, len(own))
    if len(known):
        moved = np.clip(moved, known.min(), known.max())
        if (known == np.round(known)).all():
            moved = np.round(moved)
    out = np.where(take & ~np.isnan(moved), moved, np.where(take & np.isnan(there), np.nan, here))
    return pl.Series(own.name, out, nan_to_null=True)


def _neighbours(dense: np.ndarray, rng: np.random.Generator, near: int = 10, among: int = 2000) -> np.ndarray:
    """For each row one of its `near` nearest among a random part of the rows (never itself), (n,)."""
    n = len(dense)
    if n < 3 or not dense.shape[1]:
        return rng.permutation(n)
    pool = np.sort(rng.choice(n, min(n, among), replace=False))
    lengths = (dense[pool] ** 2).sum(axis=1)
    out = np.empty(n, dtype=np.int64)
    for start in range(0, n, 1024):
        rows = np.arange(start, min(start + 1024, n))
        gap = lengths[None] - 2 * dense[rows] @ dense[pool].T
        gap[pool[None] == rows[:, None]] = np.inf
        few = min(near, gap.shape[1] - 1)
        best = np.argpartition(gap, few - 1, axis=1)[:, :few]
        out[rows] = pool[best[np.arange(len(rows)), rng.integers(0, few, len(rows))]]
    return out


def thinned(text: str, rng: np.random.Generator) -> str:
    """The text with a fifth of its words gone, or one stretch of it. A Chinese text is taken as pairs of characters."""
    joined = share_of_han([text]) > 0.3
    words = [text[i : i + 2] for i in range(0, len(text), 2)] if joined else text.split()
    if len(words) < 3:
        return text
    if rng.random() < 0.5:
        keep = rng.random(len(words)) >= 0.2
        words = [w for w, k in zip(words, keep, strict=True) if k] or words
    else:
        length = int(rng.integers(math.ceil(len(words) / 3), len(words)))
        start = int(rng.integers(0, len(words) - length + 1))
        words = words[start : start + length]
    return ("" if joined else " ").join(words)


@dataclass(frozen=True)
class Lesson:
    """x: rows (n, d), dense or CSR. target: (n, classes) or (n, 1). weight: (n,)."""

    x: Any
    target: np.ndarray
    weight: np.ndarray


class Pupil(ABC):
    """A small model that learns soft targets. deadline: time.monotonic()."""

    def __init__(self, aim: Aim) -> None:
        self.aim = aim

    @abstractmethod
    def fit(self, lesson: Lesson, held: tuple[Any, np.ndarray], *, seed: int, threads: int, deadline: float, passes: int | None) -> float:
        """Learns; strength or rounds are those of least true loss on `held` (x, truth), which is returned."""

    @abstractmethod
    def again(self, lesson: Lesson, *, seed: int, threads: int, deadline: float, passes: int | None) -> None:
        """Learns all rows, as `fit` found best."""

    @abstractmethod
    def answer(self, x: Any) -> np.ndarray:
        """float64 (n, classes) probabilities, or (n, 1) amounts."""

    @abstractmethod
    def dump(self, folder: Path) -> None: ...

    @abstractmethod
    def load(self, folder: Path) -> Pupil: ...

    def loss(self, held: tuple[Any, np.ndarray]) -> float:
        return float(self.aim.losses(held[1], self.answer(held[0])).mean())


class LinePupil(Pupil):
    """A line on n-grams and the dense table, with cross-entropy to soft targets, or least squares."""

    STRENGTHS = (1.0, 6.0, 30.0, 150.0)
    RIDGES = (100.0, 10.0, 1.0, 0.1)
    coef: np.ndarray
    intercept: np.ndarray
    strength = 0.0
    shift = 0.0

    def fit(self, lesson: Lesson, held: tuple[Any, np.ndarray], *, seed: int, threads: int, deadline: float, passes: int | None) -> float:
        best, kept, state = math.inf, None, None
        for strength in self.STRENGTHS if self.aim.classes else self.RIDGES:
            state = self._solve(lesson, strength, state, deadline, passes)
            self.shift = 0.0
            if self.aim.loss in ("absolute", "pinball"):
                self.shift = float(np.quantile(held[1] - self.answer(held[0])[:, 0], self.aim.quantile if self.aim.loss == "pinball" else 0.5))
            loss = self.loss(held)
            if loss < best:
                best, kept = loss, (strength, self.coef, self.intercept, self.shift)
            elif loss > best * 1.02 or time.monotonic() > deadline:
                break
        if kept is not None:
            self.strength, self.coef, self.intercept, self.shift = kept
        return best

    def again(self, lesson: Lesson, *, seed: int, threads: int, deadline: float, passes: int | None) -> None:
        self._solve(lesson, self.strength, None, deadline, passes)

    def _solve(self, lesson: Lesson, strength: float, start: np.ndarray | None, deadline: float, passes: int | None) -> np.ndarray | None:
        if self.aim.classes:
            found = descend_soft(lesson.x, lesson.target, lesson.weight, 1 / (strength * len(lesson.target)), start=start, deadline=deadline,
                                 most_steps=min(200, passes or 200))
            self.coef, self.intercept = found[:-1], found[-1]
            return found
        from sklearn.linear_model import Ridge

        y = lesson.target[:, 0]
        centre, scale = float(np.average(y, weights=lesson.weight)), float(y.std()) or 1.0
        solver = "sparse_cg" if hasattr(lesson.x, "indptr") else "cholesky"
        ridge = Ridge(alpha=strength, solver=solver, tol=1e-4, max_iter=min(300, passes or 300))
        ridge.fit(lesson.x, (y - centre) / scale, sample_weight=lesson.weight)
        self.coef = (ridge.coef_.reshape(-1, 1) * scale).astype(np.float32)
        self.intercept = np.array([float(ridge.intercept_) * scale + centre], dtype=np.float32)
        return None

    def answer(self, x: Any) -> np.ndarray:
        scores = np.asarray(x @ self.coef).astype(np.float64) + self.intercept
        return softmax(scores) if self.aim.classes else scores + self.shift

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"coef": np.ascontiguousarray(self.coef), "intercept": np.ascontiguousarray(self.intercept), "shift": np.array([self.shift])},
                  folder / "line.safetensors")

    def load(self, folder: Path) -> LinePupil:
        from safetensors.numpy import load_file

        arrays = load_file(folder / "line.safetensors")
        self.coef, self.intercept, self.shift = arrays["coef"], arrays["intercept"], float(arrays["shift"][0])
        return self


class TreesPupil(Pupil):
    """LightGBM (Ke et al. 2017) with cross-entropy to soft targets."""

    ROUNDS, PATIENCE = 1000, 40
    MOST_CLASSES = 20
    rounds = 0
    start: np.ndarray
    trees: Any

    def __init__(self, aim: Aim, categories: list[int] | None = None) -> None:
        super().__init__(aim)
        self.categories = categories or []

    def fit(self, lesson: Lesson, held: tuple[Any, np.ndarray], *, seed: int, threads: int, deadline: float, passes: int | None) -> float:
        self._train(lesson, min(self.ROUNDS, passes or self.ROUNDS), seed, threads, deadline, held)
        return self.loss(held)

    def again(self, lesson: Lesson, *, seed: int, threads: int, deadline: float, passes: int | None) -> None:
        self._train(lesson, max(1, min(round(self.rounds * 1.1), passes or self.ROUNDS)), seed, threads, deadline, None)

    def _train(self, lesson: Lesson, rounds: int, seed: int, threads: int, deadline: float, held: tuple[Any, np.ndarray] | None) -> None:
        import lightgbm

        n, classes, target = len(lesson.target), self.aim.classes, lesson.target
        settings: dict[str, Any] = {
            "learning_rate": 0.05, "num_leaves": 15 if n < 2000 else 31, "min_data_in_leaf": 5 if n < 500 else 10 if n < 2000 else 20,
            "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0, "cat_smooth": 20.0, "seed": seed,
            "deterministic": True, "force_row_wise": True, "num_threads": threads, "verbosity": -1, "metric": "none",
        }
        self.start, label, begin = np.zeros(max(1, classes)), target[:, 0], None
        if classes == 2:
            settings["objective"], label = "cross_entropy", target[:, 1]
        elif classes:
            shares = np.maximum(np.average(target, axis=0, weights=lesson.weight), 1e-4)
            self.start = np.log(shares / shares.sum())
            settings |= {"objective": _soft_softmax(target, lesson.weight), "num_class": classes}
            label, begin = np.zeros(n), np.repeat(self.start, n)
        else:
            settings |= {"objective": {"absolute": "l1", "pinball": "quantile"}.get(self.aim.loss, "l2"), "alpha": self.aim.quantile}
        data = lightgbm.Dataset(lesson.x, label, weight=lesson.weight, init_score=begin, categorical_feature=self.categories, params={"verbose": -1})

        def in_time(env: Any) -> None:
            if time.monotonic() > deadline:
                raise lightgbm.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

        if held is None:
            self.trees = lightgbm.train(settings, data, rounds, callbacks=[in_time])
            return
        x, truth = held
        judged = data.create_valid(x, np.zeros(len(truth)), init_score=None if begin is None else np.repeat(self.start, len(truth)))

        def true_loss(said: np.ndarray, _: Any) -> tuple[str, float, bool]:
            if classes > 2:
                said = softmax(said if said.ndim == 2 else said.reshape((len(truth), classes), order="F"))
            elif classes:
                said = np.column_stack([1 - said, said])
            else:
                said = said[:, None]
            return "true", float(self.aim.losses(truth, said).mean()), False

        self.trees = lightgbm.train(settings, data, rounds, valid_sets=[judged], feval=true_loss,
                                    callbacks=[in_time, lightgbm.early_stopping(self.PATIENCE, verbose=False)])
        self.rounds = self.trees.best_iteration if self.trees.best_iteration > 0 else self.trees.current_iteration()

    def answer(self, x: Any) -> np.ndarray:
        if not self.aim.classes:
            return self.trees.predict(x, num_threads=1)[:, None]
        if self.aim.classes == 2:
            said = self.trees.predict(x, num_threads=1)
            return np.column_stack([1 - said, said])
        return softmax(self.trees.predict(x, raw_score=True, num_threads=1) + self.start)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        self.trees.save_model(str(folder / "trees.txt"))
        save_file({"start": self.start}, folder / "trees.safetensors")

    def load(self, folder: Path) -> TreesPupil:
        from safetensors.numpy import load_file

        self.start = load_file(folder / "trees.safetensors")["start"]
        self.trees = Trees.read(folder / "trees.txt")
        return self


def _soft_softmax(target: np.ndarray, weight: np.ndarray) -> Any:
    """The objective of multinomial cross-entropy to soft targets, for LightGBM: gradient and (upper bound of the) curvature."""
    factor = target.shape[1] / (target.shape[1] - 1)  # as LightGBM's own softmax (Friedman 2001)

    def objective(scores: np.ndarray, data: Any) -> tuple[np.ndarray, np.ndarray]:
        p = softmax(scores if scores.ndim == 2 else scores.reshape(target.shape, order="F"))
        gradient, curve = (p - target) * weight[:, None], factor * p * (1 - p) * weight[:, None]
        return (gradient, curve) if scores.ndim == 2 else (gradient.ravel(order="F"), curve.ravel(order="F"))

    return objective


def descend_soft(x: Any, target: np.ndarray, weight: np.ndarray, penalty: float, *, start: np.ndarray | None, deadline: float,
                 most_steps: int, tolerance: float = 1e-5) -> np.ndarray:
    """Weights (d + 1, classes), intercepts last, of the cross-entropy to soft targets plus L2 penalty; x float32, dense or CSR."""
    d, shares = x.shape[1], (weight / weight.sum()).astype(np.float32)[:, None]
    turned = x.T.tocsr() if hasattr(x, "tocsr") else x.T
    aimed = target.astype(np.float32)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = x @ weights[:d]
        scores += weights[d]
        scores -= scores.max(axis=1, keepdims=True)
        total = np.log(np.exp(scores).sum(axis=1, keepdims=True))
        logs = scores - total
        value = -float((aimed * logs * shares).sum(dtype=np.float64))
        slope = (np.exp(logs) - aimed) * shares
        gradient = np.empty_like(weights)
        gradient[:d] = turned @ slope
        gradient[d] = slope.sum(axis=0)
        gradient[:d] += penalty * weights[:d]
        return value + 0.5 * penalty * float(np.vdot(weights[:d], weights[:d])), gradient

    if start is None:
        prior = np.log(np.maximum((aimed * shares).sum(axis=0), 1e-6))
        start = np.concatenate([np.zeros((d, target.shape[1])), prior[None]])
    return lbfgs(loss, start.astype(np.float32), tolerance=tolerance, most_steps=most_steps, deadline=deadline)
