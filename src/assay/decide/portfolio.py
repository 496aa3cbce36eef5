"""How much of the capital to put into which asset: mean-variance or mean-CVaR weights from forecast returns, and the walk-forward test of such a rule."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, GREY, frame, text, ticks
from assay.decide.holdings import LEAST, Market, PortfolioProblem, best_weights, program, read_history
from assay.decide.program import no_plan
from assay.decide.sharpe import Deflated, deflated_sharpe, sharpe, sharpe_gain
from assay.decide.terms import Fields, forecast, known_truth
from assay.errors import InputError
from assay.words import Text, say

FIELDS = ("history", "prices", "method", "risk_aversion", "confidence", "low", "high", "turnover", "cost", "holdings", "cash", "cash_return", "capital", "backtest_window")
AVERSIONS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # times the asked one: the points of the efficient frontier

Forecaster = Callable[[np.ndarray, int], np.ndarray]  # past returns (s, n) and steps h -> quantiles at LEVELS, shape (n, h, 9)


@dataclass(frozen=True, eq=False)
class Backtest:
    """returns, naive: net returns of the plan and of equal weights, shape (t,), one a period. weights: shape (rebalancings, n). turnover: mean bought plus sold at
    a rebalancing. gain, low, high: difference of the Sharpe ratios and its 95 % interval. warnings: sentences, () where the plan beats naive."""

    returns: np.ndarray
    naive: np.ndarray
    weights: np.ndarray
    turnover: float
    gain: float
    low: float
    high: float
    deflated: Deflated
    warnings: tuple[Text, ...]

    def json(self) -> dict[str, Any]:
        return {"periods": len(self.returns), "sharpe": sharpe(self.returns), "naive_sharpe": sharpe(self.naive), "gain": self.gain, "low": self.low, "high": self.high,
                "wealth": float(np.prod(1 + self.returns)), "naive_wealth": float(np.prod(1 + self.naive)), "turnover": self.turnover,
                "trials": self.deflated.trials, "deflated_probability": self.deflated.probability}


class Portfolio(Decision):
    name = "portfolio"
    about = say("Weights of assets from forecast returns: mean-variance or mean-CVaR, with bounds, turnover and costs")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> PortfolioProblem:
        f = Fields(table, say("The portfolio problem"), FIELDS)
        prices = f.table.get("prices", False)
        if not isinstance(prices, bool):
            raise InputError("{what}: '{key}' is {found}. It should be {wanted}.", what=f.what, key="prices", found=str(prices), wanted="true / false")
        if not f.has("history"):
            raise InputError("The portfolio problem has no history. Name a CSV file with a column of returns for each asset: history = \"returns.csv\".")
        history = read_history(table["history"], prices, place)
        turnover = f.number("turnover", low=0) if f.has("turnover") else np.inf
        made = PortfolioProblem(
            history, f.word("method", "cvar", among=("cvar", "variance")), f.number("risk_aversion", 1.0, low=0), f.number("confidence", 0.95, low=0.5, high=0.999),
            f.amounts("low", 0.0, low=-10, high=10), f.amounts("high", 1.0, low=-10, high=10), turnover, f.number("cost", 0.0, low=0, high=0.5),
            f.amounts("holdings", 0.0, low=-10, high=10), f.number("cash", 0.0, low=0, high=1), f.number("cash_return", 0.0, low=-0.5, high=1),
            f.number("capital", 1.0, low=0, above=True), f.whole("backtest_window", 0))
        for key in ("low", "high", "holdings"):
            named = getattr(made, key)
            if isinstance(named, dict) and (unknown := [name for name in named if name not in history]):
                raise InputError("'{key}' names '{name}', which has no history. The history has: {names}.", key=key, name=unknown[0], names=list(history)[:12])
        periods = len(next(iter(history.values())))
        if made.window and not LEAST <= made.window < periods - 1:
            raise InputError("'backtest_window' is {window}. It should be from {least} to {most}: the history has {periods} periods.",
                             window=made.window, least=LEAST, most=periods - 2, periods=periods)
        return made

    def solve(self, problem: PortfolioProblem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        """Minimises -expected net return + risk_aversion * risk. Risk: half the variance, or the mean loss in the worst (1 - confidence) of cases (CVaR).

        Means and spreads are the forecast's; how assets move together is the history's. cost: that sum, times the capital.
        """
        began = time.monotonic()
        quantiles = forecast(quantiles, self.name)
        market = Market.of(problem, quantiles)
        answer, weights = best_weights(problem, market, seconds=seconds)
        facts: dict[str, Any] = {"solver": "HiGHS" if problem.method == "cvar" else "interior point", "ids": list(quantiles.ids)}
        if weights is None:
            return no_plan(program(problem, market, 0.0)[0], answer, seconds=seconds, facts=facts)
        frontier = []
        for share in AVERSIONS:
            if time.monotonic() - began > seconds / 3:
                break
            _, point = best_weights(problem, market, seconds=seconds / 10, aversion=share * problem.risk_aversion)
            if point is not None:
                frontier.append({k: v for k, v in market.judged(problem, point).items() if k != "cost"})
        if problem.window and time.monotonic() - began < seconds / 2:
            tested = backtest(problem.past(quantiles.ids), replace(problem, window=0), ids=quantiles.ids, window=problem.window, hold=len(quantiles.times), seed=seed,
                              seconds=seconds - (time.monotonic() - began))
            facts |= {"backtest": tested.json(), "warnings": [w.json() for w in tested.warnings]}
        return self._plan(problem, market, weights, {**facts, "status": answer.status, "frontier": frontier, "seconds": round(time.monotonic() - began, 3)})

    def rule(self, problem: PortfolioProblem, quantiles: Quantiles | None) -> Plan:
        """Equal weights, 1/N, and no cash, whatever is forecast (DeMiguel, Garlappi & Uppal, Review of Financial Studies 22(5), 2009)."""
        quantiles = forecast(quantiles, self.name)
        market = Market.of(problem, quantiles)
        n = len(market.ids)
        plan = self._plan(problem, market, np.full(n, 1 / n), {"ids": list(quantiles.ids)})
        made, columns = program(problem, market, 0.0)
        for i in range(n):
            made.row([columns[i]], 1.0, low=1 / n, high=1 / n)
        return replace(plan, violations=tuple(say("Equal weights break a demand: {demand}.", demand=text_) for text_ in made.clash()))

    def realised(self, problem: PortfolioProblem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Minus the net return over the horizon times the capital, shape (1,): weights are bought at once and held."""
        truth = known_truth(truth, len(plan.facts["ids"]))
        if not plan.choice:
            return np.full(1, np.inf)
        weights = np.array([row["weight"] for row in plan.choice["weights"]])
        traded = sum(abs(row["trade"]) for row in plan.choice["weights"])
        cash = (1 - weights.sum()) * ((1 + problem.cash_return) ** truth.shape[1] - 1)
        return np.array([-problem.capital * (float((np.prod(1 + truth, axis=1) - 1) @ weights) + cash - problem.cost * traded)])

    def _plan(self, problem: PortfolioProblem, market: Market, weights: np.ndarray, facts: dict[str, Any]) -> Plan:
        judged = market.judged(problem, weights)
        rows = [{"asset": name, "weight": float(w), "before": float(b), "trade": float(w - b)} for name, w, b in zip(market.ids, weights, market.held, strict=True)]
        cash = max(1 - float(weights.sum()), 0.0)
        return Plan({"weights": rows}, problem.capital * judged["cost"], (),
                    {**facts, "expected_return": judged["mean"], "risk": judged["risk"], "risk_measure": problem.method, "cash": cash if cash > 1e-9 else 0.0})

    def picture(self, problem: PortfolioProblem, plan: Plan, words: Any = str) -> str:
        title = words(say("Weights of the portfolio"))
        if not plan.choice:
            return frame(720, 60, [text(14, 34, words(say("There is no plan to draw.")))], title)
        rows = sorted(plan.choice["weights"], key=lambda row: -abs(row["weight"]))[:24]
        height = 40 + 20 * len(rows) + 16
        most = max(max(abs(r["weight"]), abs(r["before"])) for r in rows) or 1.0
        parts = [text(14, 18, title, bold=True)]
        for i, row in enumerate(rows):
            y, wide = 40 + 20 * i, 190 * abs(row["weight"]) / most
            parts += [text(104, y + 11, str(row["asset"])[:14], anchor="end"),
                      f'<rect x="110" y="{y}" width="{max(wide, 0.5):.1f}" height="13" fill="{COLOURS[0] if row["weight"] >= 0 else COLOURS[1]}"/>',
                      text(116 + wide, y + 11, f"{row['weight']:.1%}")]
            if row["before"]:
                parts.append(f'<line x1="{110 + 190 * abs(row["before"]) / most:.1f}" x2="{110 + 190 * abs(row["before"]) / most:.1f}" y1="{y - 2}" y2="{y + 15}" '
                             f'stroke="{GREY}" stroke-width="2"/>')
        points = plan.facts.get("frontier", [])
        marks = say("grey line: held before; orange: this plan") if any(row["before"] for row in rows) else say("orange: this plan")
        if len(points) > 1 or any(row["before"] for row in rows):
            parts.append(text(110, 40 + 20 * len(rows) + 14, words(marks)))
            height += 18
        if len(points) > 1:
            parts += _frontier(points, plan.facts, words)
        return frame(720, max(height, 260 if len(points) > 1 else 0), parts, title)

    def example(self, seed: int = 0) -> Example:
        """Four assets over 160 periods with one common factor; the forecast knows a little of the next period's mean."""
        rng = np.random.default_rng(seed)
        ids = ("bonds", "shares", "energy", "metals")
        spread, drift = np.array([0.004, 0.012, 0.016, 0.014]), np.array([0.0004, 0.0012, 0.0008, 0.0006])
        returns = drift + spread * (0.6 * rng.standard_normal((161, 1)) + 0.8 * rng.standard_normal((161, 4)))
        history, truth = returns[:160], returns[160:].T
        levels = np.quantile(history, LEVELS, axis=0).T
        hint = 0.2 * (truth - np.median(history, axis=0)[:, None])
        table = {"history": {name: [float(v) for v in history[:, i]] for i, name in enumerate(ids)}, "method": "cvar", "risk_aversion": 0.5, "confidence": 0.9,
                 "high": 0.6, "cost": 0.001, "cash": 0.5, "capital": 100000.0, "holdings": {"bonds": 0.5, "shares": 0.5}}
        return Example(table, Quantiles(LEVELS, (levels + hint)[:, None, :], ids, ("1",)), truth)


def backtest(returns: np.ndarray, problem: PortfolioProblem, *, ids: tuple[str, ...] = (), window: int = 250, hold: int = 1, forecaster: Forecaster | None = None,
             tried: tuple[float, ...] = (), seed: int = 0, seconds: float = 600.0) -> Backtest:
    """The problem's rule walked forward through `returns`, shape (s, n), beside equal weights that are restored as often and pay the same costs.

    Before period t only the `window` periods before t are known: they are the history, and `forecaster` (by default their own quantiles) sees nothing else.
    Weights are held for `hold` periods and drift with the market. tried: Sharpe ratios of the other variants that were tried on these returns.
    Where the time is up, the periods until then count. Raises InputError where fewer than two periods can be tested, or the demands of the problem clash.
    """
    ids, ends = ids or tuple(problem.history), time.monotonic() + seconds
    n = returns.shape[1]
    if len(ids) != n or window < LEAST or len(returns) < window + 2:
        raise InputError("A back-test over a window of {window} needs a name for each of the {n} assets, a window of at least {least}, and two periods beyond it; there are {s}.",
                         window=window, n=n, least=LEAST, s=len(returns))
    forecaster = forecaster or (lambda past, h: np.repeat(np.quantile(past, LEVELS, axis=0).T[:, None], h, axis=1))
    held = np.array([problem.holdings.get(name, 0.0) if isinstance(problem.holdings, dict) else problem.holdings for name in ids])
    equal, naive_held = np.full(n, 1 / n), held.copy()
    ours, naive, chosen, traded = list[float](), list[float](), list[np.ndarray](), list[float]()
    for t in range(window, len(returns), hold):
        if time.monotonic() > ends and len(ours) > 1:
            break
        past, ahead = returns[t - window:t], min(hold, len(returns) - t)
        now = replace(problem, history={name: past[:, i] for i, name in enumerate(ids)}, holdings={name: float(held[i]) for i, name in enumerate(ids)})
        steps = tuple(str(k + 1) for k in range(ahead))
        _, weights = best_weights(now, Market.of(now, Quantiles(LEVELS, forecaster(past, ahead), ids, steps)), seconds=max(ends - time.monotonic(), 0.1))
        if weights is None:  # drifted too far for the demands (a turnover limit): what is held is kept, as in life
            if not chosen:
                raise InputError("The back-test cannot begin: the demands of the portfolio problem clash in its first period.")
            weights = held
        paid = problem.cost * float(np.abs(weights - held).sum())
        traded.append(float(np.abs(weights - held).sum()))
        chosen.append(weights)
        future = returns[t:t + ahead]
        held = _drift(weights, future, paid, problem.cash_return, ours)
        naive_held = _drift(equal, future, problem.cost * float(np.abs(equal - naive_held).sum()), problem.cash_return, naive)
    a, b = np.array(ours), np.array(naive)
    gain, low, high = sharpe_gain(a, b, seed=seed)
    deflated = deflated_sharpe(a, (sharpe(a), *tried) if tried else ())
    return Backtest(a, b, np.stack(chosen), float(np.mean(traded)), gain, low, high, deflated, _warnings(a, b, gain, low, high, deflated))


def _drift(weights: np.ndarray, future: np.ndarray, paid: float, cash_return: float, record: list[float]) -> np.ndarray:
    """Holds weights through `future`, shape (h, n), writes down each period's net return, and gives the weights at the end."""
    parts, cash = weights.copy(), 1 - float(weights.sum())
    before = 1.0
    for k, step in enumerate(future):
        parts, cash = parts * (1 + step), cash * (1 + cash_return)
        after = float(parts.sum()) + cash
        record.append((after - (paid if k == 0 else 0.0)) / before - 1)
        before = after
    return parts / before if before > 0 else parts


def _warnings(ours: np.ndarray, naive: np.ndarray, gain: float, low: float, high: float, deflated: Deflated) -> tuple[Text, ...]:
    out = []
    if low <= 0:
        out.append(say("Nothing here beats equal weights: over {periods} periods the plan's Sharpe ratio was {ours:.3f} a period, that of equal weights {naive:.3f}, and their "
                       "difference of {gain:+.3f} lies in [{low:+.3f}, {high:+.3f}] with 95 % confidence.", periods=len(ours), ours=sharpe(ours), naive=sharpe(naive),
                       gain=gain, low=low, high=high))
    if deflated.probability < 0.95:
        out.append(say("Luck can explain this back-test: its Sharpe ratio is more than chance with a probability of {probability:.1%} (deflated Sharpe ratio; trials: {trials}).",
                       probability=deflated.probability, trials=deflated.trials))
    return tuple(out)


def _frontier(points: list[dict[str, float]], facts: dict[str, Any], words: Any) -> list[str]:
    own = {"risk": facts["risk"], "mean": facts["expected_return"]}
    every = [*points, own]
    ends = {}
    for key in ("risk", "mean"):
        low, high = min(p[key] for p in every), max(p[key] for p in every)
        air = (high - low) * 0.1 or abs(high) * 0.1 or 1e-6
        ends[key] = (low - air, high + air)

    def x(v: float) -> float:
        return 460 + 240 * (v - ends["risk"][0]) / (ends["risk"][1] - ends["risk"][0])

    def y(v: float) -> float:
        return 205 - 165 * (v - ends["mean"][0]) / (ends["mean"][1] - ends["mean"][0])

    line = " ".join(f"{x(p['risk']):.1f},{y(p['mean']):.1f}" for p in sorted(points, key=lambda p: p["risk"]))
    parts = [f'<polyline points="{line}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>', f'<circle cx="{x(own["risk"]):.1f}" cy="{y(own["mean"]):.1f}" r="6" fill="{COLOURS[1]}"/>',
             text(460, 18, words(say("Expected net return against risk")), bold=True), f'<path d="M460 40V205H700" fill="none" stroke="{GREY}"/>']
    parts += [text(x(t), 222, f"{t:.3g}", anchor="middle") for t in ticks(*ends["risk"], most=4)]
    parts += [text(454, y(t) + 4, f"{t:.3g}", anchor="end") for t in ticks(*ends["mean"], most=4)]
    label = say("standard deviation") if facts["risk_measure"] == "variance" else say("CVaR: mean loss in the worst cases")
    return [*parts, text(580, 242, words(label), anchor="middle")]


PORTFOLIO = Portfolio()
