"""What the portfolio decision knows of returns: their history, possible futures, the shrunk covariance, and the best weights for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.decide.base import Quantiles
from assay.decide.program import Answer, Program
from assay.decide.terms import each
from assay.errors import InputError, ReadError
from assay.words import say

SCENARIOS = 1000  # the latest of the history; a linear program over more of them takes seconds and changes weights by less than the forecast's error
LEAST = 20  # periods of history from which ranks and correlations are taken


@dataclass(frozen=True, eq=False)
class PortfolioProblem:
    """history: {asset: returns, shape (s,)}. low, high: bounds of each weight. turnover: most that may be bought plus sold, a share of the capital.
    cost: paid for each unit bought or sold, a share. cash: largest share kept in cash, which earns cash_return a period."""

    history: dict[str, np.ndarray]
    method: str = "cvar"
    risk_aversion: float = 1.0
    confidence: float = 0.95
    low: float | dict[str, float] = 0.0
    high: float | dict[str, float] = 1.0
    turnover: float = np.inf
    cost: float = 0.0
    holdings: float | dict[str, float] = 0.0
    cash: float = 0.0
    cash_return: float = 0.0
    capital: float = 1.0
    window: int = 0

    def past(self, ids: tuple[str, ...]) -> np.ndarray:
        """The history of the assets that are forecast, shape (s, n). Raises InputError for one without."""
        for name in ids:
            if name not in self.history:
                raise InputError("The forecast has an asset '{name}' without a history. The history has: {names}.", name=name, names=list(self.history)[:12])
        return np.stack([self.history[name] for name in ids], axis=1)


def read_history(value: Any, prices: bool, place: Path) -> dict[str, np.ndarray]:
    """{asset: returns of a period} from the name of a CSV file, a column for each asset, or from such a table itself. Raises InputError, ReadError.

    prices: the numbers are prices, oldest first. Columns of a file that are not numbers, such as the date, are left out.
    """
    if isinstance(value, str):
        path = place / value
        try:
            frame = pl.read_csv(path, infer_schema_length=10_000)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ReadError("The history '{path}' could not be read: {reason}. It is a CSV file with a column of returns or prices for each asset.",
                            path=str(path), reason=str(error).splitlines()[0]) from None
        columns: dict[str, Any] = {name: frame[name].to_numpy() for name in frame.columns if frame[name].dtype.is_numeric()}
    elif isinstance(value, dict):
        columns = value
    else:
        raise InputError("The history of a portfolio is {found}. It should be the name of a CSV file or a table {{asset = [returns]}}.", found=str(value)[:60])
    out = {}
    for name, numbers in columns.items():
        try:
            series = np.asarray(numbers, dtype=float)
        except (TypeError, ValueError):
            series = np.array([np.nan])
        if series.ndim != 1 or not np.isfinite(series).all() or (prices and (series <= 0).any()) or (not prices and (series < -1).any()):
            raise InputError("The history of '{name}' has values that are missing, not numbers, or impossible (a price of 0, a loss of more than everything).", name=name)
        out[str(name)] = series[1:] / series[:-1] - 1 if prices else series
    lengths = {len(series) for series in out.values()}
    if len(lengths) != 1 or min(lengths) < LEAST:
        raise InputError("The history has {found} returns for each asset. It needs the same number for all of them, at least {least}.",
                         found=" / ".join(map(str, sorted(lengths))) or "0", least=LEAST)
    return out


def shrunk_covariance(returns: np.ndarray) -> np.ndarray:
    """The covariance of returns, shape (s, n), drawn towards a multiple of the identity by the amount that minimises its expected squared error.

    Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, J. Multivariate Analysis 88, 2004,
    https://doi.org/10.1016/S0047-259X(03)00096-4.
    """
    s, n = returns.shape
    x = returns - returns.mean(axis=0)
    sample = x.T @ x / s
    target = np.trace(sample) / n * np.eye(n)
    distance = float(((sample - target) ** 2).sum())
    noise = (float(((x**2).T @ (x**2)).sum()) / s - float((sample**2).sum())) / s
    share = 0.0 if distance <= 0 else min(max(noise, 0.0), distance) / distance
    return share * target + (1 - share) * sample


def futures(past: np.ndarray, quantiles: Quantiles) -> np.ndarray:
    """Equally likely returns over the whole horizon, shape (m, n): each asset's forecast distribution, tied together by the ranks of the history (s, n).

    Runs of h consecutive periods of the past are taken as levels of the forecast's quantiles (Schaake shuffle, Clark et al., J. Hydrometeorology 5, 2004),
    so that assets that fell together fall together, and calm follows calm.
    """
    s, n = past.shape
    h = len(quantiles.times)
    if s < h + 1:
        raise InputError("The history has {found} periods; a horizon of {h} needs more.", found=s, h=h)
    ranks = (np.argsort(np.argsort(past, axis=0, kind="stable"), axis=0, kind="stable") + 0.5) / s
    first = np.arange(max(0, s - h + 1 - SCENARIOS), s - h + 1)
    wealth = np.ones((len(first), n))
    levels = np.asarray(quantiles.levels)
    for step in range(h):
        level, values = ranks[first + step], np.asarray(quantiles.values, dtype=float)[:, step]
        if len(levels) == 1:
            drawn = np.broadcast_to(values[:, 0], level.shape)
        else:
            i = np.clip(np.searchsorted(levels, level) - 1, 0, len(levels) - 2)
            share, asset = (level - levels[i]) / (levels[i + 1] - levels[i]), np.arange(n)[None, :]
            drawn = values[asset, i] + share * (values[asset, i + 1] - values[asset, i])
        wealth *= 1 + np.maximum(drawn, -1.0)
    return wealth - 1


@dataclass(frozen=True, eq=False)
class Market:
    """What weights are judged by: scenarios (m, n), their mean (n,), covariance (n, n), what is held now (n,), and the return of cash over the horizon."""

    ids: tuple[str, ...]
    scenarios: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    held: np.ndarray
    cash_return: float

    @classmethod
    def of(cls, problem: PortfolioProblem, quantiles: Quantiles) -> Market:
        past = problem.past(quantiles.ids)
        scenarios = futures(past, quantiles)
        spread = past.std(axis=0)
        tied = shrunk_covariance((past - past.mean(axis=0)) / np.where(spread > 1e-15, spread, 1.0))
        scale = np.sqrt(np.maximum(np.diag(tied), 1e-15))
        width = scenarios.std(axis=0)
        return cls(quantiles.ids, scenarios, scenarios.mean(axis=0), tied / np.outer(scale, scale) * np.outer(width, width),
                   each(problem.holdings, quantiles.ids, "holdings", 0.0), (1 + problem.cash_return) ** len(quantiles.times) - 1)

    def judged(self, problem: PortfolioProblem, weights: np.ndarray, aversion: float | None = None) -> dict[str, float]:
        """mean: expected net return; risk: standard deviation, or CVaR of the loss; cost: -mean + aversion * risk (half the variance for 'variance')."""
        aversion = problem.risk_aversion if aversion is None else aversion
        paid = problem.cost * float(np.abs(weights - self.held).sum())
        idle = (1 - float(weights.sum())) * self.cash_return
        mean = float(self.mean @ weights) + idle - paid
        if problem.method == "variance":
            variance = max(float(weights @ self.covariance @ weights), 0.0)
            return {"mean": mean, "risk": variance**0.5, "cost": -mean + aversion * variance / 2}
        risk = cvar(-(self.scenarios @ weights) - idle + paid, problem.confidence)
        return {"mean": mean, "risk": risk, "cost": -mean + aversion * risk}


def cvar(losses: np.ndarray, confidence: float) -> float:
    """The mean of the worst (1 - confidence) of equally likely losses, shape (m,); the one on the border counts by its share."""
    worst = np.sort(losses)[::-1]
    tail = (1 - confidence) * len(worst)
    whole = int(tail + 1e-12)
    rest = tail - whole
    return float((worst[:whole].sum() + (rest * worst[whole] if rest > 1e-12 else 0.0)) / tail)


def program(problem: PortfolioProblem, market: Market, aversion: float) -> tuple[Program, np.ndarray]:
    """The program of the best weights, and the numbers of its variables that are weights.

    'variance': Markowitz 1952. 'cvar': Rockafellar & Uryasev, Optimization of conditional value-at-risk, J. Risk 2(3), 2000, as a linear program.
    """
    n = len(market.ids)
    low, high = each(problem.low, market.ids, "low"), each(problem.high, market.ids, "high")
    made = Program()
    weights = made.add(n, cost=-market.mean, low=-np.inf)
    cash = made.add(1, cost=-market.cash_return)
    bought, sold = made.add(n, cost=problem.cost), made.add(n, cost=problem.cost)
    for i, name in enumerate(market.ids):
        made.row([weights[i]], 1.0, low=low[i], says=say("at least {low:.1%} of the capital in {asset}", low=float(low[i]), asset=name))
        made.row([weights[i]], 1.0, high=high[i], says=say("at most {high:.1%} of the capital in {asset}", high=float(high[i]), asset=name))
        made.row([weights[i], bought[i], sold[i]], [1.0, -1.0, 1.0], low=market.held[i], high=market.held[i])
    made.row([*weights, cash[0]], 1.0, low=1.0, high=1.0)
    made.row(cash, 1.0, high=problem.cash, says=say("at most {cash:.1%} of the capital in cash", cash=problem.cash))
    if np.isfinite(problem.turnover):
        made.row([*bought, *sold], 1.0, high=problem.turnover, says=say("at most {turnover:.1%} of the capital bought or sold", turnover=problem.turnover))
    if problem.method == "variance":
        if aversion > 0 and np.abs(market.covariance).max() > 1e-18:
            made.curve(weights, aversion * market.covariance)
    elif aversion > 0:
        m = len(market.scenarios)
        edge = made.add(1, cost=aversion, low=-np.inf)
        beyond = made.add(m, cost=aversion / ((1 - problem.confidence) * m))
        for k in range(m):  # beyond >= loss - edge; the loss includes what trading costs and what cash earns
            made.row([beyond[k], edge[0], *weights, cash[0], *bought, *sold],
                     np.concatenate([[1.0, 1.0], market.scenarios[k], [market.cash_return], np.full(2 * n, -problem.cost)]), low=0.0)
    return made, weights


def best_weights(problem: PortfolioProblem, market: Market, *, seconds: float, aversion: float | None = None) -> tuple[Answer, np.ndarray | None]:
    """The solver's answer and the weights in it, those within 1e-8 of a bound on it; None without an answer."""
    made, columns = program(problem, market, problem.risk_aversion if aversion is None else aversion)
    answer = made.solve(seconds=seconds)
    if answer.x is None:
        return answer, None
    weights = answer.x[columns]
    low, high = each(problem.low, market.ids, "low"), each(problem.high, market.ids, "high")
    weights = np.where(weights - low < 1e-8, low, np.where(high - weights < 1e-8, high, weights))
    return answer, weights
