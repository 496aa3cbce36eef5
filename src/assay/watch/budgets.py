"""Latency and error budgets: what share of requests may be slow or fail, and whether it is being spent too fast.

Alarms by burn rate over two windows each, as in The Site Reliability Workbook (Beyer et al. 2018, chapter 5): the long window says that it is serious, the short one
that it still goes on. A burn rate of 1 spends the budget of 30 days in just 30 days; 14.4 spends 2 % of it in an hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from assay.store.records import Traffic
from assay.watch.finding import Finding
from assay.words import Text, say

PERIOD_S = 30 * 86400
WINDOWS = ((3600, 300, 14.4, "critical"), (6 * 3600, 1800, 6.0, "critical"), (86400, 2 * 3600, 3.0, "warning"), (3 * 86400, 6 * 3600, 1.0, "warning"))
LEAST_BAD = 5  # below so many bad requests in the long window nobody is woken: 1 of 3 requests at night is no rate


@dataclass(frozen=True)
class Budget:
    """right: share of requests that have to be answered without an error; quick: share of the answered ones that have to take at most `ms`."""

    right: float = 0.999
    quick: float = 0.99
    ms: float = 100.0


@dataclass(frozen=True)
class Spent:
    """Of one budget over one window. burn: how many times faster than allowed. left: share of the period's budget that is left, below 0 when overdrawn."""

    requests: int
    bad: int
    share: float
    burn: float
    left: float


def spent(rows: Iterable[Traffic], budget: Budget, what: str, *, period: float = 1.0) -> Spent:
    """what: 'errors' or 'latency'. period: share of the budget's period that the rows stand for."""
    count, allowed = (_errors, 1 - budget.right) if what == "errors" else (lambda r: _slow(r, budget.ms), 1 - budget.quick)
    requests = bad = 0
    for row in rows:
        all_, wrong = count(row)
        requests, bad = requests + all_, bad + wrong
    share = bad / requests if requests else 0.0
    burn = share / allowed if allowed > 0 else (0.0 if not bad else float("inf"))
    return Spent(requests, bad, share, burn, 1 - burn * period)


def check(rows: Sequence[Traffic], at: float, budget: Budget) -> list[Finding]:
    """rows: traffic of the last 30 days, or as much as there is, of all workers. The gravest window of each budget that burns too fast."""
    out = []
    for what, target in (("errors", budget.right), ("latency", budget.quick)):
        for long_s, short_s, limit, level in WINDOWS:
            long, short = (spent(_within(rows, at - s, at), budget, what) for s in (long_s, short_s))
            if long.burn > limit and short.burn > limit and long.bad >= LEAST_BAD and short.bad:
                whole = spent(_within(rows, at - PERIOD_S, at), budget, what)
                facts = {"effect": long.burn, "burn": long.burn, "limit": limit, "window_s": long_s, "bad": long.bad, "requests": long.requests, "share": long.share,
                         "target": target, "left": 1 - whole.burn * _age(rows, at)} | ({"ms": budget.ms} if what == "latency" else {})
                out.append(Finding(f"budget_{what}", level, _sentence(what, budget, facts), facts))
                break
    return out


def _sentence(what: str, budget: Budget, facts: dict) -> Text:
    hours = facts["window_s"] / 3600
    if what == "errors":
        return say("{share:.2%} of the requests of the last {hours:g} h failed; {allowed:.2%} may: the budget goes {burn:.1f} times too fast.",
                   share=facts["share"], hours=hours, allowed=1 - budget.right, burn=facts["burn"])
    return say("{share:.2%} of the requests of the last {hours:g} h took over {ms:g} ms; {allowed:.2%} may: the budget goes {burn:.1f} times too fast.",
               share=facts["share"], hours=hours, ms=budget.ms, allowed=1 - budget.quick, burn=facts["burn"])


def _age(rows: Sequence[Traffic], at: float) -> float:
    """Share of the period that has passed since the first request."""
    return min((at - min((r.minute for r in rows), default=at / 60) * 60) / PERIOD_S, 1.0)


def _within(rows: Sequence[Traffic], since: float, until: float) -> list[Traffic]:
    return [r for r in rows if since <= r.minute * 60 + 59 and r.minute * 60 < until]




def _errors(row: Traffic) -> tuple[int, int]:
    return row.requests, row.errors


def _slow(row: Traffic, ms: float) -> tuple[int, int]:
    """A class of the histogram counts as quick if its upper limit is at most `ms`: never too kind."""
    total = sum(row.histogram.values())
    return total, sum(n for limit, n in row.histogram.items() if float(limit) > ms)
