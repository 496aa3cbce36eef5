"""What one column alone tells about the answer, on rows that it was not learnt from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.data.inspect.view import Cells, View, ranks

FOLDS = 5
MOST_BINS = 200
TELLS_ALL = {True: 0.01, False: 1e-3}  # by labels: a column that leaves no more than this answers by itself


@dataclass(frozen=True)
class Power:
    """error: share of wrong answers, each class weighing the same, relative to guessing (class; 0 perfect, 1 nothing), or the share of
    the variance of the ranks that is left (amount). skill: share of the answer's entropy that it explains (class), 1 - error (amount)."""

    column: str
    error: float
    skill: float


def power(cells: Cells, view: View, *, rows: np.ndarray | None = None) -> Power:
    """Out of fold; every value of its own where there are few, else up to MOST_BINS quantiles; empty cells are a value."""
    values = cells.values if rows is None else cells.values[rows]
    y = view.y if rows is None else view.y[rows]
    if len(y) < 20:
        return Power(cells.name, 1.0, 0.0)
    return _class_power(cells.name, _binned(cells, values), y.astype(np.int64), len(view.classes), view.seed) if view.labels else \
        _amount_power(cells, values, y)


def answering(view: View, *, apart: set[str]) -> set[str]:
    """Inputs that answer by themselves; none if they are more than half of them, because then the question is easy. apart: clocks and keys."""
    inputs = [c for c in view.inputs if c.name not in apart and c.levels > 1]
    found = {c.name for c in inputs if power(c, view).error <= TELLS_ALL[view.labels]}
    return found if 2 * len(found) <= len(inputs) else set()


def power_of(values: np.ndarray, view: View) -> float:
    """Share of the answer, 0-1, that a smooth function of these numbers (n,) explains out of fold: entropy (class) or variance of ranks (amount)."""
    edges = np.quantile(values, np.linspace(0, 1, int(np.clip(len(values) / 20, 4, 50)) + 1)[1:-1])
    code = np.searchsorted(np.unique(edges), values, side="right")
    if view.labels:
        return _class_power("", code, view.y.astype(np.int64), len(view.classes), view.seed).skill
    place = ranks(view.y)
    counts = np.bincount(code)
    told = (np.bincount(code, weights=place)[code] - place) / np.maximum(counts[code] - 1, 1)  # the mean of the others of the same bin
    return max(0.0, 1 - float(((place - told) ** 2).mean()) / max(float(place.var()), 1e-12))


def _binned(cells: Cells, values: np.ndarray) -> np.ndarray:
    present = values[~np.isnan(values)]
    most = int(np.clip(len(values) / 20, 8, MOST_BINS))
    if cells.nominal or len(np.unique(present)) <= most:
        return np.unique(np.nan_to_num(values, nan=np.inf), return_inverse=True)[1]
    edges = np.unique(np.quantile(present, np.linspace(0, 1, most + 1)[1:-1]))
    codes = np.searchsorted(edges, np.nan_to_num(values, nan=np.inf), side="right")
    codes[np.isnan(values)] = len(edges) + 1
    return codes


def _class_power(name: str, code: np.ndarray, y: np.ndarray, classes: int, seed: int) -> Power:
    n, bins = len(y), int(code.max()) + 1
    if bins < 2 or classes < 2:
        return Power(name, 1.0, 0.0)
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    shares = np.bincount(y, minlength=classes) / n
    nats = hits = 0.0
    right = np.zeros(classes)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        table = np.bincount(code[train] * classes + y[train], minlength=bins * classes).reshape(bins, classes)
        chance = (table + shares) / (table.sum(axis=1, keepdims=True) + 1.0)
        told = chance[code[test]]
        nats -= float(np.log(told[np.arange(len(told)), y[test]]).sum())
        fair = (told / np.maximum(shares, 1e-12)).argmax(axis=1)  # every class weighs the same
        right += np.bincount(y[test][fair == y[test]], minlength=classes)
        hits += float((fair == y[test]).sum())
    entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum()) * n
    seen = shares > 0
    balanced = float((right[seen] / (shares[seen] * n)).mean())
    return Power(name, float(np.clip((1 - balanced) / (1 - 1 / int(seen.sum())), 0, 1)), max(0.0, 1 - nats / entropy))


def _amount_power(cells: Cells, values: np.ndarray, y: np.ndarray) -> Power:
    """Numbers: each row answered by the rows before and after it in the order of this column; labels: by the others of its level."""
    place = ranks(y)
    spread = float(((place - place.mean()) ** 2).mean())
    if spread == 0:
        return Power(cells.name, 1.0, 0.0)
    code = np.unique(np.nan_to_num(values, nan=np.inf), return_inverse=True)[1]
    sizes = np.bincount(code)
    sums = np.bincount(code, weights=place)
    own = sizes[code] > 1
    told = np.full(len(y), place.mean())
    told[own] = (sums[code[own]] - place[own]) / (sizes[code[own]] - 1)
    if not cells.nominal and len(sizes) > 2:
        means = sums / sizes
        beside = np.r_[means[1], (means[:-2] + means[2:]) / 2, means[-2]]
        told[~own] = beside[code[~own]]
    left = float(((place - told) ** 2).mean()) / spread
    return Power(cells.name, min(1.0, left), max(0.0, 1 - left))
