"""Is the challenger better, asked after every label: tests and bounds that hold however often one looks. Arithmetic only.

The numbers are gains: loss of the champion minus loss of the challenger on the same labelled row, above zero where the challenger is better.
A fixed-size test that is looked at after every label promotes nearly every harmless challenger sooner or later; these do so with a chance of at most alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BETS = np.geomspace(0.004, 0.9, 14)  # shares of the largest stake that cannot ruin: from gains lost in noise to gains that nearly every row shows
LEAST = 50  # units before the approximate bounds say anything
TUNED_FOR = 300  # units at which the approximate bounds are tightest
MOST_NEEDED = 10**8  # more labels than this are never


@dataclass(frozen=True)
class Compared:
    """What the gains say so far.

    gain: their mean, of clusters where there are some. low, high: each alone holds at all times with confidence 1 - alpha.
    evidence, against: e-values of 'the gain is above the margin' and of 'it is below': after any number of looks they pass 1/alpha with a chance of at most
    alpha if that is not so. units: rows, or clusters. needed: further rows until one side would be settled if things go on as they did; None: never.
    """

    gain: float
    low: float
    high: float
    evidence: float
    against: float
    rows: int
    units: int
    needed: int | None

    def settled(self, alpha: float) -> int:
        """1: above the margin; -1: below it; 0: not known yet."""
        return int(self.evidence >= 1 / alpha) - int(self.against >= 1 / alpha)


def compare(gains: np.ndarray, *, alpha: float = 0.05, margin: float = 0.0, support: tuple[float, float] | None = None, groups: np.ndarray | None = None) -> Compared:
    """Everything about the gains (n,) of n >= 1 rows. support: the least and the greatest gain that is possible.

    With a support the answer is exact: betting against 'the mean gain is at most m' with stakes on a fixed grid, whose average capital is a
    supermartingale whatever the law of the gains, also if it drifts as long as each row's expected gain stays at most m (Waudby-Smith & Ramdas 2024,
    'Estimating means of bounded random variables by betting', JRSS-B 86(1), the grid of Kelly bets). Without one: the mixture over effects of the
    t-likelihood (Wang & Ramdas 2024, 'Anytime-valid t-tests'), exact for normal gains, otherwise right as labels grow by the central limit theorem
    (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, 'Time-uniform central limit theory', Annals of Statistics 52(6)); it needs a finite variance, and that no
    rare catastrophe waits which the labels have not shown.

    groups: (n,) rows of one group count as one, by their mean. Exact where a group's labels come together; where they trickle in, the chance of a wrong
    answer was measured instead (bench/promotion.py). Raises ValueError for gains outside the support.
    """
    gains = np.asarray(gains, dtype=np.float64)
    units = gains if groups is None else by_group(gains, groups)
    bound = _Exact(units, support, alpha) if support is not None else _Approximate(units, alpha)
    above, below = bound.evidence(margin, 1), bound.evidence(margin, -1)
    needed = None if max(above, below) >= 1 / alpha else bound.needed(margin)
    rows = None if needed is None else int(np.ceil(needed * len(gains) / len(units)))
    return Compared(float(units.mean()), bound.end(1), bound.end(-1), above, below, len(gains), len(units), rows)


def by_group(gains: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean gain of every group, (k,), in the order of their names."""
    codes = np.unique(groups, return_inverse=True)[1]
    return np.bincount(codes, weights=gains) / np.bincount(codes)


def spent(alpha: float, number: int, promoted: int) -> float:
    """The alpha of the `number`-th challenger (from 1) of a model of whose challengers `promoted` have won so far.

    With these, the expected share of wrong promotions among all promotions stays below alpha for ever, whatever the tests share (e-LOND: Xu & Ramdas 2024,
    'Online multiple testing with e-values', AISTATS).
    """
    return alpha * 6 / (np.pi**2 * number**2) * (promoted + 1)


def log_capital(gains: np.ndarray, mean: float, low: float, *, counts: np.ndarray | None = None, path: bool = False) -> np.ndarray:
    """Log of the capital of who bets that the gains (..., n), none below `low`, have a mean above `mean`; by the last row, or with `path` after each.

    counts: (n,) how often each gain came. Its exponential is an e-value against 'the mean is at most `mean`'.
    """
    odds = (gains - mean) / (mean - low)
    total: np.ndarray | None = None
    for share in BETS:
        won = np.log1p(share * odds)
        won = np.cumsum(won, axis=-1) if path else won.sum(axis=-1) if counts is None else won @ counts
        total = won if total is None else np.logaddexp(total, won)
    return np.asarray(total) - np.log(len(BETS))


def log_t_mixture(n: ArrayLike, mean: ArrayLike, squares: ArrayLike, *, alpha: float = 0.05) -> np.ndarray:
    """Log e-value of 'the mean is above zero' for n >= 2 normal gains of this mean and sum of squared deviations, any spread; elementwise.

    The t-likelihood ratio, mixed over effects of either sign, minus what the wrong sign can hold: with a mean above zero that half of the mixture is below 1, so
    that the right half is at least twice the whole minus 1. Zero evidence (-inf) for a mean that is not above zero.
    """
    spread = _prior(alpha)
    n, mean, squares = (np.asarray(v, dtype=np.float64) for v in (n, mean, squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        u = n * mean**2 / squares  # t squared over its degrees of freedom
        half = 0.5 * n * (np.log1p(u) - np.log1p(u / (1 + n * spread))) - 0.5 * np.log1p(n * spread)
        half = np.where(np.isinf(u), 0.5 * (n - 1) * np.log1p(n * spread), half)
        twice = np.where(half > 0, half + np.log(2) + np.log1p(-0.5 * np.exp(-half)), np.log(np.maximum(2 * np.exp(np.minimum(half, 0.0)) - 1, 1e-300)))
    return np.where(mean > 0, twice, -np.inf)


def t_radius(n: float, spread: float, alpha: float) -> float:
    """How far below its mean the lower bound of n gains of this standard deviation (divided by n) lies."""
    prior = _prior(alpha)
    wide = 2 * alpha / (1 + alpha)  # 2 * mixture - 1 >= 1/alpha
    k = np.exp(min((np.log1p(n * prior) - 2 * np.log(wide)) / n, 700.0))
    if k >= 1 + n * prior:
        return float("inf")
    return float(spread * np.sqrt((k - 1) / (1 - k / (1 + n * prior))))


def _prior(alpha: float) -> float:
    """Variance of the effects in the mixture: the bounds are then tightest at `TUNED_FOR` units (Waudby-Smith et al. 2024, appendix B.2)."""
    twice = -2 * np.log(2 * alpha / (1 + alpha))
    return float((twice + np.log(twice) + 1) / TUNED_FOR)


class _Exact:
    def __init__(self, units: np.ndarray, support: tuple[float, float], alpha: float) -> None:
        slack = 1e-9 * (support[1] - support[0])
        if units.min() < support[0] - slack or units.max() > support[1] + slack:
            raise ValueError(f"gains from {units.min():g} to {units.max():g} lie outside {support}")
        values, self.counts = np.unique(units.clip(*support), return_counts=True)
        self.sides = {1: (values, support[0]), -1: (-values, -support[1])}
        self.mean, self.alpha, self.n = float(units.mean()), alpha, len(units)

    def evidence(self, margin: float, side: int) -> float:
        values, low = self.sides[side]
        if side * margin <= low:
            return 1.0  # nothing can be below the least gain: there is nothing to bet against
        return float(np.exp(min(float(log_capital(values, side * margin, low, counts=self.counts)), 700.0)))

    def end(self, side: int) -> float:
        """The lower (side 1) or upper (-1) bound: the least mean that is not refuted."""
        values, low = self.sides[side]
        below, above = low, side * self.mean
        for _ in range(50):
            middle = (below + above) / 2
            if middle <= low or log_capital(values, middle, low, counts=self.counts) >= -np.log(self.alpha):
                below = middle
            else:
                above = middle
        return side * below

    def needed(self, margin: float) -> float | None:
        side = 1 if self.mean > margin else -1
        values, low = self.sides[side]
        if side * margin <= low:
            return None
        odds = (values - side * margin) / (side * margin - low)
        won = np.array([np.log1p(share * odds) @ self.counts for share in BETS])
        if won.max() <= 0:
            return None
        wanted = np.log(len(BETS) / self.alpha)
        return _first(lambda n: bool(np.logaddexp.reduce(won * n / self.n) >= wanted), self.n)


class _Approximate:
    def __init__(self, units: np.ndarray, alpha: float) -> None:
        self.mean, self.n, self.alpha = float(units.mean()), len(units), alpha
        self.squares = float(((units - self.mean) ** 2).sum())

    def evidence(self, margin: float, side: int) -> float:
        if self.n < LEAST:
            return 1.0
        return float(np.exp(min(float(log_t_mixture(self.n, side * (self.mean - margin), self.squares, alpha=self.alpha)), 700.0)))

    def end(self, side: int) -> float:
        if self.n < LEAST:
            return -side * float("inf")
        return self.mean - side * t_radius(self.n, (self.squares / self.n) ** 0.5, self.alpha)

    def needed(self, margin: float) -> float | None:
        far, spread = abs(self.mean - margin), (self.squares / self.n) ** 0.5
        return _first(lambda n: n >= LEAST and t_radius(n, spread, self.alpha) <= far, self.n) if self.n > 1 else None


def _first(enough: Callable[[int], bool], so_far: int) -> float | None:
    """The further units at which `enough(units)` turns true, or None within MOST_NEEDED."""
    low, high = so_far, so_far * 2 + LEAST
    while not enough(high):
        low, high = high, high * 2
        if high > MOST_NEEDED:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high - so_far)
