"""How alike are rows that share something? Agreement of labels and of amounts inside groups, above chance."""

from __future__ import annotations

import math

import numpy as np


def agreement(codes: np.ndarray, group: np.ndarray) -> float:
    """Chance-corrected: (P(same code | same group) - P(same code)) / (1 - P(same code)) over pairs of rows; 1: always the same.

    codes, group: int (n,), from 0. An intraclass kappa (Fleiss 1971). 0 where no two rows share a group.
    """
    n = len(codes)
    sizes, totals = np.bincount(group), np.bincount(codes)
    pairs = float((sizes * (sizes - 1.0)).sum())
    if pairs == 0 or n < 2:
        return 0.0
    both = np.unique(group * np.int64(len(totals)) + codes, return_counts=True)[1]
    inside = float((both * (both - 1.0)).sum()) / pairs
    chance = float((totals * (totals - 1.0)).sum()) / (n * (n - 1.0))
    return (inside - chance) / (1 - chance) if chance < 1 else 0.0


def intraclass(values: np.ndarray, group: np.ndarray) -> float:
    """Share of the variance that lies between groups: ICC(1) of Shrout & Fleiss (1979), one-way, group sizes unequal.

    values: float (n,), no NaN. group: int (n,), from 0. May be a little below 0.
    """
    n, sizes = len(values), np.bincount(group)
    groups = int((sizes > 0).sum())
    if groups < 2 or n <= groups:
        return 0.0
    mean = np.bincount(group, weights=values) / np.maximum(sizes, 1)
    within = float(((values - mean[group]) ** 2).sum()) / (n - groups)
    between = float((sizes * (mean - values.mean()) ** 2).sum()) / (groups - 1)
    size = (n - float((sizes**2.0).sum()) / n) / (groups - 1)
    return (between - within) / (between + (size - 1) * within) if between > 0 else 0.0


def mean_over_groups(values: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """(mean, its t value) of `values` (n,) when only whole groups are independent: the mean of group sums over its cluster-robust error."""
    sizes = np.bincount(group)
    kept = sizes > 0
    mean = float(values.mean())
    spread = (np.bincount(group, weights=values) - sizes * mean)[kept]
    groups = int(kept.sum())
    if groups < 2:
        return mean, 0.0
    error = math.sqrt(float((spread**2).sum()) * groups / (groups - 1)) / len(values)
    return mean, mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def serial(residual: np.ndarray, run: np.ndarray, *, lag: int = 1, apart: np.ndarray | None = None) -> tuple[float, int]:
    """(autocorrelation at `lag`, pairs it was measured on) of residual columns (n, k). run: int (n,), pairs across runs do not count.

    apart: int (n,), pairs of rows with the same number do not count either.
    """
    centred = residual - residual.mean(axis=0)
    pairs = run[lag:] == run[:-lag]
    if apart is not None:
        pairs &= apart[lag:] != apart[:-lag]
    count, power = int(pairs.sum()), float((centred**2).sum()) / len(centred)
    if not count or power <= 0:
        return 0.0, count
    return float((centred[lag:][pairs] * centred[:-lag][pairs]).sum()) / count / power, count


def drift(residual: np.ndarray, blocks: int = 20) -> float:
    """Share of the variance of residual columns (n, k) that lies between `blocks` consecutive stretches, chance taken off."""
    n = len(residual)
    block = np.arange(n) * blocks // n
    centred = residual - residual.mean(axis=0)
    total = float((centred**2).sum())
    if total <= 0:
        return 0.0
    sizes = np.bincount(block)
    sums = np.stack([np.bincount(block, weights=column) for column in centred.T], axis=1)
    return float(((sums**2) / sizes[:, None]).sum() / total) - (blocks - 1) / n
