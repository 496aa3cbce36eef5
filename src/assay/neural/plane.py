"""A regularised line on many hand-made features: thousands of columns on few rows or many, its strength chosen on rows it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np

from assay.neural.head import Aim
from assay.neural.solver import descend, lbfgs, softmax

PENALTIES = tuple(10.0**power for power in np.arange(0.5, -7.1, -0.5))  # of the mean loss, for rows of length one; strong to weak
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


def learned(x: np.ndarray, truth: np.ndarray, aim: Aim, parts: Parts, *, importance: np.ndarray | None = None, deadline: float = math.inf,
            steps: int = MOST_STEPS, note: Callable[[str], None] = lambda note: None) -> tuple[Plane, np.ndarray, float, bool]:
    """The line on all rows, the scores of the judging rows by lines that had not seen them (parts one after the other), its penalty,
    and whether there was time for all of that.

    x float32 (n, d), truth (n,). deadline: of time.monotonic(), for the path of penalties; the last fit gets as much again as one
    of its steps took.
    """
    plane = Plane.framed(x, importance)
    z = plane.standard(x)
    turn = _turned(z) if len(z) < z.shape[1] and len(z) <= ROTATED_ROWS else None
    if turn is not None:
        z = z @ turn
    held_truth = np.concatenate([truth[held] for _, held in parts])
    paths = [_path(z[rest], truth[rest], aim, steps, deadline) for rest, _ in parts]
    best, best_loss, moved, kept = PENALTIES[0], np.inf, 0.0, np.zeros((len(held_truth), max(aim.classes, 1)))
    start: np.ndarray | None = None
    whole = True
    for penalty in PENALTIES:
        lines = [next(path) for path in paths]
        scores = np.concatenate([z[held] @ line[:-1] + line[-1] for line, (_, held) in zip(lines, parts, strict=True)]).astype(np.float64)
        shift = level(held_truth, scores, aim)
        scores += shift
        loss = float(aim.losses(held_truth, softmax(scores) if aim.classes else scores).mean())
        note(f"penalty {penalty:.1e}: held-out loss {loss:.4f}")
        if loss < best_loss:
            best, best_loss, moved, kept, start = penalty, loss, shift, scores, lines[0]
        whole = time.monotonic() <= deadline
        if loss > best_loss * 1.05 or not whole:
            break
    again = deadline if math.isinf(deadline) else time.monotonic() + max(0.5, 0.5 * (deadline - time.monotonic()))
    line = next(_path(z, truth, aim, steps, again, (best,), start))
    plane.weights = np.ascontiguousarray(line[:-1] if turn is None else turn @ line[:-1], dtype=np.float32)
    plane.intercept = line[-1].astype(np.float64) + moved
    return plane, kept, best, whole


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


def _path(z: np.ndarray, truth: np.ndarray, aim: Aim, steps: int, deadline: float, penalties: tuple[float, ...] = PENALTIES,
          start: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """(d + 1, width) weights, intercept last, one penalty after another, each from where the last one ended."""
    if aim.classes:
        for penalty in penalties:
            start = descend(z, truth, aim.classes, penalty, start=start, deadline=deadline, most_steps=steps, tolerance=1e-5)
            yield start
        return
    centre, mean, spread = z.mean(0), float(truth.mean()), float(truth.std()) or 1.0
    y = ((truth - mean) / spread).astype(np.float32)
    if min(z.shape) <= SOLVED:
        yield from (_amounts(w, centre, mean, spread) for w in _ridge((z - centre).astype(np.float64), y.astype(np.float64), penalties))
        return
    weights = np.zeros(z.shape[1], dtype=np.float32)
    for penalty in penalties:
        def loss(w: np.ndarray, penalty: float = penalty) -> tuple[float, np.ndarray]:
            error = z @ w - np.float32(centre @ w) - y
            gradient = (error @ z - error.sum() * centre) / len(z) + np.float32(penalty) * w
            return 0.5 * float((error.astype(np.float64) ** 2).mean()) + 0.5 * penalty * float(w @ w), gradient

        weights = lbfgs(loss, weights, tolerance=1e-6, most_steps=steps, deadline=deadline)
        yield _amounts(weights.astype(np.float64), centre, mean, spread)


def _ridge(z: np.ndarray, y: np.ndarray, penalties: tuple[float, ...]) -> Iterator[np.ndarray]:
    """Ridge regression (Hoerl & Kennard 1970) on centred rows, from one eigendecomposition of the smaller of the two products."""
    n, d = z.shape
    if d <= n:
        values, vectors = np.linalg.eigh(z.T @ z / n)
        aimed = vectors.T @ (z.T @ y / n)
        yield from (vectors @ (aimed / (np.maximum(values, 0) + penalty)) for penalty in penalties)
    else:
        values, vectors = np.linalg.eigh(z @ z.T / n)
        aimed = vectors.T @ y / n
        yield from (z.T @ (vectors @ (aimed / (np.maximum(values, 0) + penalty))) for penalty in penalties)


def _amounts(weights: np.ndarray, centre: np.ndarray, mean: float, spread: float) -> np.ndarray:
    return np.append(weights, -float(centre @ weights))[:, None] * spread + np.append(np.zeros(len(weights)), mean)[:, None]
