"""The judge's arithmetic: paired cluster bootstrap, fold correction, Holm, jackknife, detectable effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

REPEATS = 4000
MOST_CLUSTERS = 2000  # more are dealt at random into so many bundles, which leaves the variance of a mean as it is


@dataclass(frozen=True)
class Interval:
    """A mean, its two-sided interval, the p-value of 'it is zero', and the standard error."""

    value: float
    low: float
    high: float
    p: float
    se: float

    def json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p}


class Bootstrap:
    """Means of per-row losses and of their differences, with intervals that respect clusters and splits.

    losses: {name: (n,)}, the same rows in the same order for all, so that candidates are paired. clusters: (n,) codes;
    rows of one cluster are drawn together (Cameron, Gelbach & Miller 2008). widen: the factor of `fold_factor`.
    """

    def __init__(self, losses: dict[str, np.ndarray], clusters: np.ndarray, *, confidence: float, seed: int, widen: float = 1.0) -> None:
        self.names = list(losses)
        self.confidence, self.widen = confidence, widen
        matrix = np.column_stack([losses[name] for name in self.names]).astype(np.float64)
        rng = np.random.default_rng(seed)
        codes = np.unique(clusters, return_inverse=True)[1]
        self.clusters = int(codes.max()) + 1
        if self.clusters > MOST_CLUSTERS:
            codes = (rng.permutation(self.clusters) % MOST_CLUSTERS)[codes]
        drawn = min(self.clusters, MOST_CLUSTERS)
        sums = np.stack([np.bincount(codes, weights=matrix[:, k], minlength=drawn) for k in range(len(self.names))], axis=1)
        sizes = np.bincount(codes, minlength=drawn).astype(np.float64)
        self.mean = dict(zip(self.names, matrix.mean(axis=0), strict=True))
        picks = rng.integers(0, drawn, (REPEATS, drawn)) + np.arange(REPEATS)[:, None] * drawn
        weights = np.bincount(picks.ravel(), minlength=REPEATS * drawn).reshape(REPEATS, drawn).astype(np.float32)
        totals = weights @ sizes.astype(np.float32)
        self.drawn = {name: (weights @ sums[:, k].astype(np.float32)) / totals for k, name in enumerate(self.names)}

    def of(self, name: str) -> Interval:
        """The mean loss of one candidate; its interval ends where losses end, at zero."""
        own = self._interval(self.mean[name], self.drawn[name])
        return replace(own, low=max(own.low, 0.0)) if own.value >= 0 else own

    def gain(self, small: str, large: str, *, less: float = 0.0, seeds: np.ndarray | None = None) -> Interval:
        """Loss of `small` minus loss of `large`, minus `less` (an extra cost a row): above zero, the large one pays.

        seeds: the gain under each of k seeds, (k,). Their variance over k joins that of the rows, as far as `widen`, which
        stands for the luck of one training, does not cover it already.
        """
        return self._interval(self.mean[small] - self.mean[large] - less, self.drawn[small] - self.drawn[large] - less,
                              extra=0.0 if seeds is None or len(seeds) < 2 else float(seeds.var(ddof=1)) / len(seeds))

    def _interval(self, value: float, drawn: np.ndarray, extra: float = 0.0) -> Interval:
        """Percentile interval, expanded for few clusters (Hesterberg 2015, section 5.3) and for fold dependence."""
        c = max(self.clusters, 2)
        rows = float(np.var(drawn, dtype=np.float64))
        widen = max(self.widen, np.sqrt(1 + extra / rows) if rows > 0 else 1.0)
        stretch = widen * np.sqrt(c / (c - 1))
        around = value + (drawn.astype(np.float64) - value) * stretch
        tail = student_tail((1 - self.confidence) / 2, c - 1)
        low, high = np.quantile(around, [tail, 1 - tail])
        side = min((around <= 0).sum(), (around >= 0).sum())
        p = min(1.0, 2 * (side + 1) / (len(around) + 1))
        return Interval(float(value), float(low), float(high), float(p), float(around.std(ddof=1)))


def student_tail(tail: float, df: int) -> float:
    """The normal tail share whose quantile is as far out as Student's t quantile of `tail` with `df` degrees of freedom."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(stdtrit(df, tail)))


def fold_factor(folds: int, train_rows: float, test_rows: float) -> float:
    """How much wider an interval gets because the folds' training rows overlap.

    Nadeau & Bengio (2003): the variance of a mean over k folds is s2 * (1/k + n_test/n_train) instead of s2/k; the
    square root of the ratio. For one holdout it accounts for the luck of the training rows.
    """
    return float(np.sqrt(1 + folds * test_rows / train_rows))


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Step-down corrected p-values: the chance of even one false alarm stays below alpha (Holm 1979)."""
    out: dict[str, float] = {}
    worst = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, p * (len(p_values) - rank)))
        out[name] = worst
    return out


def detectable(se: float, confidence: float, power: float = 0.8) -> float:
    """Smallest true effect that a two-sided test at this confidence finds with this power (Bloom 1995)."""
    return _reach(confidence, power) * se


def rows_to_settle(distance: float, se: float, rows: int, confidence: float, power: float = 0.8) -> int | None:
    """Test rows at which an effect this far from the margin would be told from it, or None if it lies on the margin.

    Standard errors shrink with the square root of the rows.
    """
    if abs(distance) < 1e-12 or se <= 0:
        return None
    needed = rows * (_reach(confidence, power) * se / distance) ** 2
    return int(np.ceil(needed)) if needed < 1e9 else None


def _reach(confidence: float, power: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + confidence) / 2) + NormalDist().inv_cdf(power)


def jackknife(metrics: Callable[[np.ndarray], dict[str, float]], clusters: np.ndarray, *, confidence: float, seed: int,
              groups: int = 20) -> dict[str, dict[str, float]]:
    """Intervals for metrics that are not means (AUC, macro-F1): delete-a-group jackknife (Kott 2001).

    metrics: row weights (n,) -> {name: value}. Whole clusters are dealt at random into `groups`; each is left out once.
    """
    from scipy.special import stdtrit

    codes = np.unique(clusters, return_inverse=True)[1]
    count = int(codes.max()) + 1
    groups = min(groups, count)
    group_of = (np.random.default_rng(seed).permutation(count) % groups)[codes]
    whole = metrics(np.ones(len(codes)))
    parts = [metrics((group_of != g).astype(np.float64)) for g in range(groups)]
    reach = float(stdtrit(max(groups - 1, 1), (1 + confidence) / 2))
    out = {}
    for name, value in whole.items():
        left_out = np.array([p[name] for p in parts])
        se = np.sqrt((groups - 1) / groups * np.nansum((left_out - np.nanmean(left_out)) ** 2)) if np.isfinite(left_out).any() else np.nan
        out[name] = {"value": value, "low": value - reach * se, "high": value + reach * se}
    return out
