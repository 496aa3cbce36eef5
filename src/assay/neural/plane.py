"""A regularised line on many hand-made features: thousands of columns on few rows or many, its strength chosen on rows it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from assay.neural.head import Aim
from assay.neural.solver import descend, lbfgs, softmax

PENALTIES = tuple(10.0**power for power in np.arange(0.5, -7.1, -0.5))  # of the mean loss, for rows of length one; strong to weak
FIRST = PENALTIES[7]  # 0.001: a line that few would be ashamed of
MOST_STEPS = 200  # of the solver
ROTATED_ROWS = 1500  # up to here fewer rows than columns are turned into as many columns: the same line, found much sooner
SOLVED = 2000  # ridge up to this many rows or columns is solved by an eigendecomposition
_FAR = 8.0  # standard deviations

Parts = list[tuple[np.ndarray, np.ndarray]]  # (rows that teach, rows that judge)


class Plane:
    """scores = clip((x - centre) * scale) @ weights + intercept. A column that never changes has the scale 0."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, far: np.ndarray, weights: np.ndarray, intercept: np.ndarray) -> None:
        self.centre, self.scale, self.far, self.weights, self.intercept = centre, scale, far, weights, intercept

    @classmethod
    def framed(cls, x: np.ndarray, importance: np.ndarray | None = None) -> Plane:
        """Standardised columns, such that a row is of length one on average. importance (d,): of a column's weight under the penalty."""
        sample = x[:: max(1, len(x) // 1000)]
        low, high = np.quantile(sample, [0.02, 0.98], axis=0) if sample.size < 4_000_000 else (sample.min(0), sample.max(0))
        wide = np.where(high > low, high - low, np.inf)
        centre, spread = np.empty(x.shape[1]), np.empty(x.shape[1])
        for first in range(0, x.shape[1], 512):  # in parts, so that float64 never holds all
            some = slice(first, first + 512)
            part = np.clip(x[:, some].astype(np.float64), low[some] - 3 * wide[some], high[some] + 3 * wide[some])
            centre[some], spread[some] = part.mean(0), part.std(0)
        changes = spread > 1e-6 * np.abs(centre) + 1e-9
        size = np.ones(x.shape[1]) if importance is None else importance
        length = math.sqrt(float((size[changes] ** 2).sum())) or 1.0
        scale = np.where(changes, size / length / np.where(changes, spread, 1.0), 0.0)
        far = np.where(changes, _FAR * size / length, 0.0)
        return cls(centre.astype(np.float32), scale.astype(np.float32), far.astype(np.float32), np.zeros((x.shape[1], 1), dtype=np.float32), np.zeros(1))

    def standard(self, x: np.ndarray) -> np.ndarray:
        z = (x - self.centre) * self.scale
        return np.clip(z, -self.far, self.far, out=z)

    def scores(self, x: np.ndarray) -> np.ndarray:
        """float64 (n, width)."""
        return (self.standard(x) @ self.weights).astype(np.float64) + self.intercept

    def arrays(self) -> dict[str, np.ndarray]:
        return {"centre": self.centre, "scale": self.scale, "far": self.far, "weights": self.weights, "intercept": self.intercept}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Plane:
        return cls(*(arrays[name] for name in ("centre", "scale", "far", "weights", "intercept")))


@dataclass(frozen=True)
class Learned:
    """plane: the line on all rows. scores: of the judging rows, by lines that had not seen them, the parts one after the other; parts: those
    that the time was enough for. whole: whether it was enough for everything."""

    plane: Plane
    scores: np.ndarray
    penalty: float
    parts: Parts
    whole: bool


def learned(x: np.ndarray, truth: np.ndarray, aim: Aim, parts: Parts, *, importance: np.ndarray | None = None, deadline: float = math.inf,
            steps: int = MOST_STEPS, note: Callable[[str], None] = lambda note: None) -> Learned:
    """The line whose penalty answers the judging rows best: from a middle one to weaker ones until it gets worse, then to stronger ones.

    x float32 (n, d), truth (n,). deadline: of time.monotonic(); the fit on all rows gets half of what is left, and half a second
    if nothing is left. A path that is cut short by it is at a sensible penalty all the same.
    """
    plane = Plane.framed(x, importance)
    z = plane.standard(x)
    turn = _turned(z) if len(z) < z.shape[1] and len(z) <= ROTATED_ROWS else None
    if turn is not None:
        z = z @ turn
    begun = time.monotonic()
    lines = [_Lines(z[parts[0][0]], truth[parts[0][0]], aim, steps, deadline)]
    lines[0].at(FIRST)
    if math.isfinite(deadline):  # a path is about six penalties, each half as long as the first
        affordable = (deadline - time.monotonic()) / max(3 * (time.monotonic() - begun), 1e-6)
        parts, asked = parts[: max(1, int(affordable))], len(parts)
        whole = len(parts) == asked
    else:
        whole = True
    lines += [_Lines(z[rest], truth[rest], aim, steps, deadline) for rest, _ in parts[1:]]
    held_truth = np.concatenate([truth[held] for _, held in parts])
    best, best_loss, moved, kept, start = FIRST, np.inf, 0.0, np.zeros((len(held_truth), max(aim.classes, 1))), lines[0].at(FIRST)
    weaker = [p for p in PENALTIES if p <= FIRST]
    stronger = [p for p in PENALTIES[::-1] if p > FIRST]
    for direction in (weaker, stronger):
        for penalty in direction:
            found = [one.at(penalty) for one in lines]
            scores = np.concatenate([z[held] @ line[:-1] + line[-1] for line, (_, held) in zip(found, parts, strict=True)]).astype(np.float64)
            shift = level(held_truth, scores, aim)
            scores += shift
            loss = float(aim.losses(held_truth, softmax(scores) if aim.classes else scores).mean())
            note(f"penalty {penalty:.1e}: held-out loss {loss:.4f}")
            if loss < best_loss:
                best, best_loss, moved, kept, start = penalty, loss, shift, scores, found[0]
            if time.monotonic() > deadline:
                whole = False
                break
            if loss > best_loss * 1.03:
                break
        if best < FIRST or not whole:
            break
    again = deadline if math.isinf(deadline) else time.monotonic() + max(0.5, 0.5 * (deadline - time.monotonic()))
    line = _Lines(z, truth, aim, steps, again, start).at(best)
    plane.weights = np.ascontiguousarray(line[:-1] if turn is None else turn @ line[:-1], dtype=np.float32)
    plane.intercept = line[-1].astype(np.float64) + moved
    return Learned(plane, kept, best, parts, whole)


def level(truth: np.ndarray, scores: np.ndarray, aim: Aim) -> float:
    """How far amounts of least squares are moved for absolute and pinball loss: to the quantile of the residuals that it asks for."""
    if aim.classes or aim.loss == "squared":
        return 0.0
    return float(np.quantile(truth - scores[:, 0], aim.quantile if aim.loss == "pinball" else 0.5))


def _turned(z: np.ndarray) -> np.ndarray:
    """Directions (d, r), r at most n, that hold all of the rows: an L2 line has no weight elsewhere (the representer theorem)."""
    values, vectors = np.linalg.eigh((z @ z.T).astype(np.float64))
    kept = values > 1e-6 * max(float(values[-1]), 1e-12)
    if not kept.any():
        return np.zeros((z.shape[1], 1), dtype=np.float32)
    return (z.T @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)).astype(np.float32)


class _Lines:
    """Lines of several penalties on the same rows: what they share is worked out once, and each starts where the last one ended."""

    def __init__(self, z: np.ndarray, truth: np.ndarray, aim: Aim, steps: int, deadline: float, start: np.ndarray | None = None) -> None:
        self.z, self.truth, self.aim, self.steps, self.deadline, self.start = z, truth, aim, steps, deadline, start
        self.known: dict[float, np.ndarray] = {}
        if aim.classes:
            return
        self.centre, self.mean, self.spread = z.mean(0), float(truth.mean()), float(truth.std()) or 1.0
        self.y = ((truth - self.mean) / self.spread).astype(np.float32)
        self.start = None
        self.solved = _Ridge((z - self.centre).astype(np.float64), self.y.astype(np.float64)) if min(z.shape) <= SOLVED else None

    def at(self, penalty: float) -> np.ndarray:
        """(d + 1, width) weights, intercept last."""
        if penalty not in self.known:
            self.known[penalty] = self._found(penalty)
        return self.known[penalty]

    def _found(self, penalty: float) -> np.ndarray:
        if self.aim.classes:
            self.start = descend(self.z, self.truth, self.aim.classes, penalty, start=self.start, deadline=self.deadline, most_steps=self.steps,
                                 tolerance=1e-5)
            return self.start
        if self.solved is not None:
            weights = self.solved.at(penalty)
        else:
            begin = np.zeros(self.z.shape[1], dtype=np.float32) if self.start is None else self.start
            weights = self.start = lbfgs(self._squared(penalty), begin, tolerance=1e-6, most_steps=self.steps, deadline=self.deadline)
        whole = np.append(weights, -float(self.centre @ weights))[:, None] * self.spread
        whole[-1] += self.mean
        return whole

    def _squared(self, penalty: float) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            error = self.z @ w - np.float32(self.centre @ w) - self.y
            gradient = (error @ self.z - error.sum() * self.centre) / np.float32(len(self.z)) + np.float32(penalty) * w
            return 0.5 * float((error.astype(np.float64) ** 2).mean()) + 0.5 * penalty * float(w @ w), gradient

        return loss


class _Ridge:
    """Ridge regression (Hoerl & Kennard 1970) on centred rows, from one eigendecomposition of the smaller of the two products."""

    def __init__(self, z: np.ndarray, y: np.ndarray) -> None:
        n, d = z.shape
        self.turned_back = None if d <= n else z.T
        self.values, self.vectors = np.linalg.eigh((z.T @ z if d <= n else z @ z.T) / n)
        self.aimed = self.vectors.T @ (z.T @ y if d <= n else y) / n

    def at(self, penalty: float) -> np.ndarray:
        weights = self.vectors @ (self.aimed / (np.maximum(self.values, 0) + penalty))
        return weights if self.turned_back is None else self.turned_back @ weights
