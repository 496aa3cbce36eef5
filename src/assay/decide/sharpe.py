"""Is a back-test better than luck? The Sharpe ratio deflated by the number of trials, and its distance from a naive rival's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EULER = 0.5772156649015329


@dataclass(frozen=True)
class Deflated:
    """sharpe: of one period. chance: the ratio that the best of so many trials without skill is expected to reach. probability: that the true ratio lies above it."""

    sharpe: float
    chance: float
    probability: float
    trials: int


def sharpe(returns: np.ndarray) -> float:
    """Mean over standard deviation of one period's returns, shape (t,); not annualised. 0 for returns that never vary."""
    spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    return float(np.mean(returns)) / spread if spread > 1e-15 else 0.0


def deflated_sharpe(returns: np.ndarray, tried: tuple[float, ...] = ()) -> Deflated:
    """The probability that skill, and not the choice among trials, made the Sharpe ratio of `returns`, shape (t,).

    tried: Sharpe ratios (of one period) of every variant that was tried, this one included; without them it is the probability that the ratio is above zero.
    Bailey & López de Prado, The deflated Sharpe ratio, J. Portfolio Management 40(5), 2014, https://doi.org/10.3905/jpm.2014.40.5.094.
    """
    from scipy.special import ndtri
    from scipy.stats import kurtosis, skew

    own, n = sharpe(returns), len(tried)
    chance = 0.0
    if n > 1:
        chance = float(np.std(tried, ddof=1) * ((1 - EULER) * ndtri(1 - 1 / n) + EULER * ndtri(1 - 1 / (n * math.e))))
    if len(returns) < 3 or np.std(returns) < 1e-15:
        return Deflated(own, chance, 0.5, max(n, 1))
    probability = probability_above(own, chance, len(returns), float(skew(returns)), float(kurtosis(returns, fisher=False)))
    return Deflated(own, chance, probability, max(n, 1))


def probability_above(own: float, chance: float, periods: int, skewness: float, kurtosis: float) -> float:
    """The probability that the true Sharpe ratio lies above `chance` if `own` was seen; kurtosis: 3 for a normal distribution. Ratios of one period."""
    from scipy.special import ndtr

    variance = 1 - skewness * own + (kurtosis - 1) / 4 * own**2
    return float(ndtr((own - chance) * math.sqrt(periods - 1) / math.sqrt(max(variance, 1e-12))))


def sharpe_gain(ours: np.ndarray, naive: np.ndarray, *, seed: int, confidence: float = 0.95, draws: int = 1000) -> tuple[float, float, float]:
    """(gain, low, high): Sharpe ratio of `ours` minus that of `naive`, paired periods, shape (t,), with an interval from the stationary bootstrap.

    Politis & Romano, JASA 89, 1994. Blocks are t^(1/3) periods long on average, so that clustered volatility stays together.
    """
    t = len(ours)
    gain = sharpe(ours) - sharpe(naive)
    rng = np.random.default_rng(seed)
    fresh = rng.random((draws, t)) < 1 / max(t ** (1 / 3), 1.0)
    fresh[:, 0] = True
    starts = rng.integers(0, t, (draws, t))
    place = np.arange(t)
    began = np.maximum.accumulate(np.where(fresh, place, 0), axis=1)
    rows = (np.take_along_axis(starts, began, axis=1) + place - began) % t

    def ratios(returns: np.ndarray) -> np.ndarray:
        drawn = returns[rows]
        spread = drawn.std(axis=1, ddof=1)
        return np.where(spread > 1e-15, drawn.mean(axis=1) / np.maximum(spread, 1e-15), 0.0)

    low, high = np.quantile(ratios(ours) - ratios(naive), [(1 - confidence) / 2, (1 + confidence) / 2])
    return gain, float(low), float(high)
