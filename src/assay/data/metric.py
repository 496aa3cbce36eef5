"""How near is near: what neighbours weigh, and columns scaled so that distance means likeness."""

from __future__ import annotations

from typing import Any

import numpy as np

TIE = 1e-5  # of a squared distance: points are kept as float32, so that equal distances differ by some 1e-6


def weighed(far: np.ndarray, k: int, how: str) -> np.ndarray:
    """Weights (n, m) of neighbours at the sorted squared distances `far`, m > k unless there are no more rows."""
    if how == "near" and k < far.shape[1]:
        reach = far[:, k: k + 1]
        weights = np.where(far < reach * (1 - TIE), 1 - far / np.maximum(reach, 1e-300), 0.0)
        alike = ~weights.any(axis=1)  # all as far as the next one
        weights[alike] = far[alike] <= reach[alike] * (1 + TIE)
        return weights
    edge = far[:, k - 1: k]
    inside = far < edge * (1 - TIE)
    tied = ~inside & (far <= edge * (1 + TIE))
    return inside + tied * (k - inside.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)


def weighted_quantile(said: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
    """The least amount of each row below or at which `level` of its weight lies, half a weight in from either side."""
    order = np.argsort(said, axis=1, kind="stable")
    said, weights = np.take_along_axis(said, order, 1), np.take_along_axis(weights, order, 1)
    middle = (np.cumsum(weights, axis=1) - weights / 2) / weights.sum(axis=1, keepdims=True)
    middle[weights <= 0] = -1.0
    out = np.empty(len(said))
    for i in range(len(said)):
        used = middle[i] >= 0
        out[i] = np.interp(level, middle[i][used], said[i][used])
    return out


def told_alone(x: np.ndarray, target: np.ndarray, bins: int = 16) -> np.ndarray:
    """Share of the target's variance between `bins` quantile bins of each column, less what chance gives; 1 for all if nothing tells."""
    out = np.zeros(x.shape[1])
    for j, column in enumerate(x.T):
        place = np.searchsorted(np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1])), column)
        rows = np.bincount(place, minlength=bins)
        sums = np.column_stack([np.bincount(place, weights=t, minlength=bins) for t in target.T])
        between = (sums**2 / np.maximum(rows, 1)[:, None]).sum(axis=0).mean() / len(column)
        out[j] = max(0.0, between - (np.count_nonzero(rows) - 1) / len(column))
    return out if out.max(initial=0.0) > 0 else np.ones(x.shape[1])


def whitening(z: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """(d, d): after it, the covariance within the strata is the identity, a tenth of the way to equal spreads left undone."""
    rows = np.bincount(strata)
    means = np.column_stack([np.bincount(strata, weights=column) for column in z.T]) / np.maximum(rows, 1)[:, None]
    apart = z - means[strata]
    within = apart.T @ apart / len(z)
    within = 0.9 * within + 0.1 * np.eye(len(within)) * max(float(np.trace(within)) / max(len(within), 1), 1e-12)
    values, vectors = np.linalg.eigh(within)
    return (vectors / np.sqrt(values)) @ vectors.T


def heaviest(grams: Any, most: int) -> Any:
    """Each row of a CSR matrix cut to its `most` largest values, and to length one again."""
    from scipy.sparse import csr_matrix

    rows = np.repeat(np.arange(grams.shape[0]), np.diff(grams.indptr))
    order = np.lexsort((-grams.data, rows))
    rank = np.arange(len(order)) - grams.indptr[rows[order]]
    kept = np.sort(order[rank < most])
    data, rows = grams.data[kept], rows[kept]
    length = np.sqrt(np.bincount(rows, weights=data.astype(np.float64) ** 2, minlength=grams.shape[0]))
    data = (data / np.maximum(length, 1e-12)[rows]).astype(np.float32)
    return csr_matrix((data, grams.indices[kept], np.r_[0, np.cumsum(np.bincount(rows, minlength=grams.shape[0]))]), shape=grams.shape)
