"""Tails of three distributions, without scipy: its special functions are 17 MB in a service that otherwise has 140, its distributions 60, for some hundred numbers a minute.

Small tails are as exact as large ones: nothing is taken from 1 that is near it. tests/test_watch_tails.py holds them against scipy.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

_TINY = 1e-300  # instead of a zero that would be divided by
_NONE = 1e-12  # a non-centrality below it is none


def normal_below(z: float) -> float:
    """P(Z < z)."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def chi2_above(x: float, df: int, nc: float = 0.0) -> float:
    """P(X > x) of the chi-squared with `df` degrees of freedom, non-central by `nc`: central tails, mixed by a Poisson law with mean nc / 2 (Johnson, Kotz & Balakrishnan 1995, chapter 29)."""
    if x <= 0:
        return 1.0
    y, mean = x / 2, nc / 2
    middle = max(mean, math.sqrt(mean * y))  # where the largest products are
    terms = int(middle + 12 * math.sqrt(middle) + 60) if nc > _NONE else 0
    odd = df % 2 == 1
    first = 0.5 if odd else 1.0
    start = int(df / 2 - first)
    # Q(a + 1, y) = Q(a, y) + y**a exp(-y) / gamma(a + 1), from Q(1/2, y) = erfc(sqrt(y)) or Q(1, y) = exp(-y) on
    a = first + np.arange(start + terms)
    steps = np.cumsum(np.concatenate([[first * math.log(y) - y - math.lgamma(first + 1)], np.log(y / a[1:])]))[: len(a)] if len(a) else a
    central = (math.erfc(math.sqrt(y)) if odd else math.exp(-y)) + np.concatenate([[0.0], np.cumsum(np.exp(steps))])
    if nc <= _NONE:
        return min(float(central[start]), 1.0)
    weights = np.exp(-mean + np.cumsum(np.concatenate([[0.0], np.log(mean / np.arange(1, terms + 1))])))
    return min(float(weights @ central[start:]), 1.0)


def t_below(t: float, df: float) -> float:
    """P(T < t) of Student's t, by the incomplete beta function."""
    outside = 0.5 * _beta(df / (df + t * t), t * t / (df + t * t), df / 2, 0.5)
    return outside if t < 0 else 1.0 - outside


def t_at(p: float, df: float) -> float:
    """The t with P(T < t) = p, by Newton's steps from the normal law's."""
    t = NormalDist().inv_cdf(p)
    scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    for _ in range(60):
        step = (t_below(t, df) - p) / math.exp(scale - (df + 1) / 2 * math.log1p(t * t / df))
        most = max(1.0, abs(t) / 2)
        t -= max(-most, min(most, step))
        if abs(step) < 1e-13 * max(1.0, abs(t)):
            break
    return t


def _beta(x: float, rest: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Lentz 1976; DLMF 8.17.22). rest: 1 - x, of which a difference would lose digits."""
    if x <= 0.0 or rest <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(rest, x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest)) / a
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1), _TINY)
    value = d
    for m in range(1, 500):
        for top in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1.0 / _off_zero(1.0 + top * d)
            c = _off_zero(1.0 + top / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return front * value


def _off_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
