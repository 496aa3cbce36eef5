"""Stock under periodic review: simulated period by period, and policies chosen by what they cost in simulated futures.

Sequence of a period: orders are placed (at reviews), goods arrive, demand comes, holding and shortage are charged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

LEVELS = (0.9, 0.7, 0.8, 0.95, 0.6, 0.85, 0.5, 0.975, 0.3, 0.99)  # in this order, because the clock may end the search
COVERS = (0, 1, 2, 3, 4, 6, 8, 11)  # reviews that one order may cover beyond its own
CELLS = 2_000_000  # futures x items x steps that are simulated at once: about 0.1 s for one policy of all
AT_ONCE = 64  # items whose policies are simulated together: 200 futures x 64 items x 28 steps are 3 MB


@dataclass(frozen=True)
class Terms:
    """What n items are charged, arrays of shape (n,). lost: unmet demand is lost, else it waits. salvage_loss: money lost on a unit left at the end.
    on_order: shape (n, h), what arrives at each step anyway. budget: money for the orders of one review; storage: volume; both for all items together."""

    holding: np.ndarray
    shortage: np.ndarray
    order_cost: np.ndarray
    lead: np.ndarray
    review: np.ndarray
    stock: np.ndarray
    lost: np.ndarray
    volume: np.ndarray
    cost: np.ndarray
    pack: np.ndarray
    minimum: np.ndarray
    salvage_loss: np.ndarray
    on_order: np.ndarray
    budget: float = np.inf
    storage: float = np.inf

    def take(self, rows: np.ndarray) -> Terms:
        own = {k: v[rows] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return replace(self, **own)


@dataclass(frozen=True)
class Policy:
    """At a review, an item whose stock position is below `reorder` orders: up to `up_to`, or (quantity above 0) the fewest multiples of `quantity` that bring
    it to the reorder point. Shapes (n, h), (n, h), (n,). A reorder point of -inf orders nothing. most (n, h): never more than that at once, because demand
    that is lost while an order is under way need not be ordered (capped base-stock, Xin 2021)."""

    reorder: np.ndarray
    up_to: np.ndarray
    quantity: np.ndarray
    most: np.ndarray

    def put(self, rows: np.ndarray, other: Policy, chosen: np.ndarray) -> None:
        """Take over another policy's rows, in place."""
        for name, value in vars(self).items():
            value[rows[chosen]] = getattr(other, name)[chosen]


@dataclass(frozen=True)
class Outcome:
    """Of (w) futures and (n) items: cost, holding, shortage, fixed (w, n) in money; stock: mean units on hand (w, n); served: share of demand (w, n);
    orders: first order of each item (w, n). paths: on hand after demand, (w, n, h), if they were asked for."""

    cost: np.ndarray
    stock: np.ndarray
    unmet: np.ndarray
    orders: np.ndarray
    paths: np.ndarray | None = None
    ordered: np.ndarray | None = None


def simulate(terms: Terms, policy: Policy, demand: np.ndarray, *, paths: bool = False) -> Outcome:
    """demand: shape (w, n, h)."""
    w, n, h = demand.shape
    everyone = np.arange(n)
    pipe = np.zeros((w, n, h + int(terms.lead.max(initial=0)) + 1))
    pipe[:, :, :h] += terms.on_order[None, :, :h]
    net = np.broadcast_to(terms.stock, (w, n)).copy()
    coming = np.broadcast_to(terms.on_order.sum(axis=1), (w, n)).copy()
    cost, stock, unmet, first = np.zeros((w, n)), np.zeros((w, n)), np.zeros((w, n)), np.zeros((w, n))
    path = np.zeros((w, n, h)) if paths else None
    orders = np.zeros((w, n, h)) if paths else None
    for t in range(h):
        due = (t % terms.review == 0) & (t + terms.lead < h)
        if due.any():
            order = np.where(due, _wanted(terms, policy, net + coming, t), 0.0)
            order = _within(terms, order, np.maximum(net, 0) + coming)
            cost += terms.order_cost * (order > 0)
            pipe[:, everyone, t + terms.lead] += order
            coming += order
            if t == 0:
                first = order
            if orders is not None:
                orders[:, :, t] = order
        net += pipe[:, :, t]
        coming -= pipe[:, :, t]
        net -= demand[:, :, t]
        short = np.maximum(-net, 0)
        cost += terms.shortage * short
        unmet += np.where(terms.lost, short, np.minimum(short, demand[:, :, t]))
        net = np.where(terms.lost, np.maximum(net, 0), net)
        held = np.maximum(net, 0)
        cost += terms.holding * held
        stock += held / h
        if path is not None:
            path[:, :, t] = net
    cost += terms.salvage_loss * np.maximum(net, 0)
    return Outcome(cost, stock, unmet, first, path, orders)


def _wanted(terms: Terms, policy: Policy, position: np.ndarray, t: int) -> np.ndarray:
    reorder, below = policy.reorder[:, t], position < policy.reorder[:, t] - 1e-9
    with np.errstate(invalid="ignore", divide="ignore"):
        multiples = np.ceil(np.where(below, reorder - position, 0) / np.where(policy.quantity > 0, policy.quantity, 1.0) - 1e-9) * policy.quantity
    order = np.where(policy.quantity > 0, multiples, np.where(below, np.minimum(policy.up_to[:, t] - position, policy.most[:, t]), 0.0))
    order = np.where(order > 1e-9, np.maximum(order, terms.minimum), 0.0)
    return np.where(terms.pack > 0, np.ceil(order / np.where(terms.pack > 0, terms.pack, 1) - 1e-9) * terms.pack, order)


def _within(terms: Terms, order: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Orders that together break the budget or the storage are cut by one share; what then falls below its minimum is not ordered."""
    share = np.ones(len(order))
    for most, weight, used in ((terms.budget, terms.cost, 0.0), (terms.storage, terms.volume, (terms.volume * there).sum(axis=1))):
        if np.isfinite(most):
            need = (order * weight).sum(axis=1)
            share = np.minimum(share, np.where(need > 0, np.maximum(most - used, 0) / np.maximum(need, 1e-12), 1.0))
    if (share >= 1).all():
        return order
    cut = np.where(share[:, None] < 1, order * share[:, None], order)
    cut = np.where(terms.pack > 0, np.floor(cut / np.where(terms.pack > 0, terms.pack, 1) + 1e-9) * terms.pack, cut)
    return np.where((cut + 1e-9 < terms.minimum) | (cut < 1e-9), 0.0, cut)


class Windows:
    """Quantiles of the demand of an item between two steps, over the futures; a window that passes the horizon ends there."""

    def __init__(self, demand: np.ndarray) -> None:
        w, n, h = demand.shape
        self.total = np.concatenate([np.zeros((w, n, 1)), np.cumsum(demand, axis=2)], axis=2)
        self.h = h

    def quantile(self, level: float, length: np.ndarray, *, after: np.ndarray | int = 0) -> np.ndarray:
        """Shape (n, h): the demand from `after` (n,) steps after each step t on, until `length` (n,) steps after t, at a level."""
        steps = np.arange(self.h)
        start = np.minimum(steps[None, :] + np.broadcast_to(after, len(length))[:, None], self.h)
        stop = np.minimum(steps[None, :] + length[:, None], self.h)
        rows = np.arange(len(length))[:, None]
        return np.quantile(self.total[:, rows, stop] - self.total[:, rows, start], level, axis=0)


def policies(terms: Terms, demand: np.ndarray, kind: str) -> Iterator[Policy]:
    """The policies that are tried: levels of the demand until the next order can arrive, and how many reviews one order covers."""
    windows = Windows(demand)
    n, h = len(terms.lead), windows.h
    idle = np.arange(h)[None, :] + terms.lead[:, None] >= h
    sure = len(demand) == 1
    levels = (0.5,) if sure else LEVELS
    longest = max(0, h // max(int(terms.review.min(initial=1)), 1) - 1) if (terms.order_cost > 0).any() or kind != "order-up-to" else 0
    protect = terms.lead + terms.review
    shorter = np.unique(np.linspace(0, max(int(terms.review.max(initial=1)) - 1, 0), 3).round().astype(int))  # a review's last steps may be left unserved
    for level in levels:
        for less in shorter:
            low = windows.quantile(level, np.maximum(protect - less, 0))
            for more in COVERS:
                if (less and more) or more > longest:
                    continue
                if kind == "RQ":
                    quantity = np.maximum(np.mean(windows.total[:, :, -1], axis=0) / h * terms.review * (more + 1), 1e-6)
                    packs = np.maximum(np.round(quantity / np.where(terms.pack > 0, terms.pack, 1)), 1) * terms.pack
                    yield Policy(np.where(idle, -np.inf, low), np.zeros((n, h)), np.where(terms.pack > 0, packs, quantity), np.full((n, h), np.inf))
                else:
                    high = low if more == 0 else np.maximum(low, windows.quantile(level if sure else min(level, 0.8), protect + more * terms.review))
                    yield Policy(np.where(idle, -np.inf, low), high, np.zeros(n), np.full((n, h), np.inf))
                    if (terms.lost & (terms.lead > 0)).any():
                        most = windows.quantile(level, np.maximum(protect + more * terms.review - less, terms.lead), after=terms.lead)
                        yield Policy(np.where(idle, -np.inf, low), high, np.zeros(n), np.where(terms.lost[:, None], most, np.inf))


def futures_for(n: int, h: int, most: int) -> int:
    """How many futures are simulated: `most`, fewer for many items, 30 at least."""
    return int(np.clip(CELLS // max(n * h, 1), 30, most))


def best(terms: Terms, demand: np.ndarray, kind: str, prices: list[tuple[float, float]], until: float) -> tuple[list[Policy], bool]:
    """The cheapest policy of each item, planned apart, under each (money, volume) price of a unit held one step; and whether all were tried.

    until: time.monotonic() at which the search ends; every item gets at least one policy.
    """
    n, h = demand.shape[1:]
    out = [Policy(np.full((n, h), -np.inf), np.zeros((n, h)), np.zeros(n), np.full((n, h), np.inf)) for _ in prices]
    whole = True
    apart = replace(terms, budget=np.inf, storage=np.inf)
    for start in range(0, n, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, n))
        own, future = apart.take(rows), demand[:, rows]
        lowest = np.full((len(prices), len(rows)), np.inf)
        now = time.monotonic()
        stop = now + (until - now) / -(-(n - start) // AT_ONCE)  # what is left of the time, shared by the items that are left
        for number, policy in enumerate(policies(own, future, kind)):
            if number and time.monotonic() > stop:
                whole = False
                break
            outcome = simulate(own, policy, future)
            cost, stock = outcome.cost.mean(axis=0), outcome.stock.mean(axis=0) * h
            for k, (money, volume) in enumerate(prices):
                priced = cost + stock * (money * own.cost + volume * own.volume)
                better = priced < lowest[k] - 1e-9
                lowest[k][better] = priced[better]
                out[k].put(rows, policy, better)
    return out, whole
