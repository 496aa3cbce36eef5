"""How much to order of each of many items, once (newsvendor) or at every review, under a budget and a store that they share.

Newsvendor: the critical ratio (Arrow, Harris, Marschak 1951); with a shared budget, the expected costs are laid out as lines over quantiles and solved as
one linear or mixed-integer program. Reviews: order-up-to, (s, S) or (R, Q) policies whose levels follow the forecast's quantiles over the protection
interval, chosen by simulation; a shared limit gets a price that is added to holding (Lagrange), and whatever still does not fit is cut at the order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, Chart
from assay.decide.fields import Fields, each, entries, forecast
from assay.decide.milp import Program
from assay.decide.stock import Policy, Terms, best, futures_for, simulate
from assay.errors import InputError
from assay.words import Text, say

FUTURES = 200  # simulated futures of a policy
SUMS = 2000  # simulated sums of a newsvendor's horizon
PIECES = 40  # lines of an item's expected cost, where items share a limit
USUAL = 1.64  # standard deviations of the rule's safety stock: 95 % of a normal demand


@dataclass(frozen=True)
class Item:
    """What one item is charged. over: money lost on a unit too many; under: on a unit too few (newsvendor), a unit short (lost) or short for a step (waiting)."""

    cost: float
    holding: float
    under: float
    over: float
    order_cost: float
    stock: float
    on_order: tuple[float, ...]
    lead: int
    review: int
    volume: float
    pack: float
    minimum: float


@dataclass(frozen=True)
class Problem:
    mode: str
    policy: str
    lost: bool
    service: float | None
    budget: float
    storage: float
    items: dict[str, Item]
    default: Item | None


class Inventory(Decision):
    name = "inventory"
    about = say("How much to order of each item: once, or at every review, with lead times, service levels and a shared budget or store.")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> Problem:
        fields = Fields(table, say("The inventory problem"), place)
        mode = fields.word("mode", "newsvendor", among=("newsvendor", "review"))
        policy = fields.word("policy", "order-up-to", among=("order-up-to", "sS", "RQ"))
        lost = fields.word("unmet", "lost", among=("lost", "backorder")) == "lost"
        service = fields.number("service", None, low=0.01, high=0.9999)
        budget, storage = fields.number("budget", np.inf), fields.number("storage", np.inf)
        items, default = entries(fields, "item", lambda name: say("Item '{name}'", name=name), lambda f: _item(f, mode, service))
        fields.end()
        return Problem(mode, policy, lost, service, budget, storage, items, default)

    def solve(self, problem: Problem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        began = time.monotonic()
        known = forecast(quantiles, self.name)
        items = each(problem.items, problem.default, known.ids)
        clash = _clashes(problem, items, known.ids)
        if clash:
            return Plan({}, float("inf"), tuple(clash), {"status": "infeasible", "seconds": 0.0})
        if problem.mode == "newsvendor":
            return _once(problem, items, known, seconds, seed)
        futures = known.scenarios(1 if len(known.levels) == 1 else futures_for(len(items), len(known.times), FUTURES), seed=seed)
        terms = _terms(problem, items, futures.shape[2])
        kind = "sS" if problem.policy == "order-up-to" and (terms.order_cost > 0).any() else problem.policy
        prices = [(0.0, 0.0)]
        if np.isfinite(terms.budget) or np.isfinite(terms.storage):  # what a unit on hand takes from the others, as a share of its own holding cost
            scale = [(0.0 if not np.isfinite(most) else float(terms.holding.sum() / max(float(weight.sum()), 1e-12)))
                     for most, weight in ((terms.budget, terms.cost), (terms.storage, terms.volume))]
            prices += [(f * scale[0], f * scale[1]) for f in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)]
        found, whole = best(terms, futures, kind, prices, began + 0.6 * seconds)
        if kind != "RQ":
            found.insert(0, _usual(problem, known, terms)[0])  # what has to be beaten is a policy of this kind, and is tried too
        costs = [np.inf] * len(found)
        for k, policy in enumerate(found):
            if k > 1 and time.monotonic() > began + 0.9 * seconds:
                whole = False
                break
            costs[k] = float(simulate(terms, policy, futures).cost.sum(axis=1).mean())
        policy = found[int(np.argmin(costs))]
        facts = {"status": "feasible", "solver": "policy search over simulated futures", "policy": kind, "all_tried": whole, "seconds": round(time.monotonic() - began, 3)}
        return _policy_plan(terms, policy, known, seed, facts)

    def rule(self, problem: Problem, quantiles: Quantiles | None) -> Plan:
        """Order up to the mean demand over lead time and review plus 1.64 (or the service level's z) standard deviations, of the same forecast."""
        known = forecast(quantiles, self.name)
        items = each(problem.items, problem.default, known.ids)
        clash = _clashes(problem, items, known.ids)
        if clash:
            return Plan({}, float("inf"), tuple(clash), {"status": "infeasible"})
        facts = {"status": "feasible", "rule": "mean + z standard deviations", "seconds": 0.0}
        if problem.mode == "newsvendor":
            mean, variance, z = _normal(problem, known)
            wanted = np.maximum(mean.sum(axis=1) + z * np.sqrt(variance.sum(axis=1)), 0) - np.array([i.stock for i in items])
            return _order_plan(problem, items, known, _cut(problem, items, np.maximum(wanted, 0)), 0, facts | {"z": round(z, 3)})
        terms = _terms(problem, items, len(known.times))
        policy, z = _usual(problem, known, terms)
        return _policy_plan(terms, policy, known, 0, facts | {"z": round(z, 3)})

    def realised(self, problem: Problem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Shape (n,), one an item. Newsvendor: money lost against having known the demand. Reviews: orders, holding, shortage and what is left, step by step."""
        demand = np.maximum(np.asarray(truth, dtype=float), 0)
        ids = tuple(plan.facts["ids"])
        items = each(problem.items, problem.default, ids)
        if problem.mode == "newsvendor":
            return _lost(items, np.array([row["order"] for row in plan.choice["orders"]]), demand.sum(axis=1)[None])[0]
        terms = _terms(problem, items, demand.shape[1])
        return simulate(terms, _policy_of(plan, len(ids), demand.shape[1]), demand[None]).cost[0]

    def picture(self, problem: Problem, plan: Plan, words: Any = str) -> str:
        rows = plan.choice.get("orders", [])[:40]
        values = [v for row in rows for v in (row["expected_demand"], row["order"])]
        title = words(say("Orders now, beside the demand until the next one arrives") if len(rows) == len(plan.choice.get("orders", [])) else
                      say("Orders now, beside the demand until the next one arrives: the first {n} items", n=len(rows)))
        chart = Chart(title, [row["item"] for row in rows], values or [0.0], unit=words(say("units")))
        chart.bars([row["order"] for row in rows], words(say("order now")), COLOURS[0])
        chart.stairs([row["expected_demand"] for row in rows], words(say("expected demand")), COLOURS[1])
        return chart.svg()

    def example(self, seed: int = 0) -> Example:
        """Even seeds: weekly reviews of 4 items that share a store. Odd seeds: a newsvendor with a budget."""
        rng = np.random.default_rng(seed)
        n, h = 4, 12
        mean, spread = rng.uniform(20, 80, (n, 1)) * (1 + 0.3 * np.sin(np.arange(h) / 2)), 0.3
        z = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
        values = mean[:, :, None] * np.exp(spread * z)
        ids, times = tuple(f"item-{i}" for i in range(n)), tuple(f"week-{t + 1:02d}" for t in range(h))
        truth = mean * np.exp(spread * rng.standard_normal((n, h)))
        if seed % 2:
            table: dict[str, Any] = {"mode": "newsvendor", "budget": 400.0, "item": [
                {"id": name, "price": 10.0 + i, "cost": 4.0, "salvage": 1.0, "volume": 1.0} for i, name in enumerate(ids)]}
            return Example(table, Quantiles(LEVELS, values[:, :1], ids, times[:1]), truth[:, :1])
        table = {"mode": "review", "unmet": "lost", "storage": 900.0, "default": {"cost": 4.0, "holding": 0.1, "shortage": 4.0, "lead_time": 1, "volume": 1.0, "stock": 80.0},
                 "item": [{"id": ids[0], "order_cost": 25.0}]}
        return Example(table, Quantiles(LEVELS, values, ids, times), truth)


def _item(f: Fields, mode: str, service: float | None) -> Item:
    price, cost = f.number("price", None), f.number("cost", None)
    salvage, holding, shortage = f.number("salvage", None), f.number("holding", None), f.number("shortage", None)
    if price is not None and cost is None:
        raise InputError("{where}: a price is given, but no 'cost'; expected what a unit costs.", where=f.where)
    if holding is None and (mode == "review" or cost is None):
        raise InputError("{where}: 'holding' is missing, expected what a unit costs that is left over for one step.", where=f.where)
    if salvage is not None and salvage > (cost or 0.0):
        raise InputError("{where}: a unit left over brings {salvage:g} and costs {cost:g}, so that ordering without end would pay; expected a salvage below the cost.",
                         where=f.where, salvage=salvage, cost=cost or 0.0)
    if price is not None and price <= (cost or 0.0):
        raise InputError("{where}: its price {price:g} is not above its cost {cost:g}; expected a price that pays.", where=f.where, price=price, cost=cost or 0.0)
    left = ((cost or 0.0) - salvage) if salvage is not None else ((cost or 0.0) if mode == "newsvendor" and price is not None else 0.0)
    over = left + (holding or 0.0) if mode == "newsvendor" else left
    margin = price - (cost or 0.0) if price is not None else 0.0
    if price is None and shortage is None:
        if service is None:
            raise InputError("{where}: nothing says what a missing unit costs; expected 'shortage', 'price' and 'cost', or 'service' for all items.", where=f.where)
        under = (over if mode == "newsvendor" else holding or 0.0) * service / (1 - service)  # the price at which this service is the best
    else:
        under = margin + (shortage or 0.0)
    if mode == "newsvendor" and over + under <= 0:
        raise InputError("{where}: neither a unit too many nor one too few costs anything; expected a cost of one of them.", where=f.where)
    item = Item(cost or 0.0, holding or 0.0, under, over, f.number("order_cost", 0.0), f.number("stock", 0.0), f.numbers("on_order", ()), f.whole("lead_time", 0),
                f.whole("review", 1, low=1), f.number("volume", 0.0), f.number("pack", 0.0), f.number("minimum", 0.0))
    f.end()
    return item


def _clashes(problem: Problem, items: list[Item], ids: tuple[str, ...]) -> list[Text]:
    used = sum(i.volume * i.stock for i in items)
    out = [say("The stock on hand takes {used:.4g} of a store of {storage:.4g}.", used=used, storage=problem.storage)] if used > problem.storage else []
    for item, name in zip(items, ids, strict=True):
        least = max(item.minimum, item.pack)
        if least and least * item.cost > problem.budget:
            out.append(say("The smallest order of '{name}' costs {money:.4g}, and the budget is {budget:.4g}.", name=name, money=least * item.cost, budget=problem.budget))
        if least and least * item.volume > problem.storage:
            out.append(say("The smallest order of '{name}' takes {volume:.4g} of a store of {storage:.4g}.", name=name, volume=least * item.volume,
                           storage=problem.storage))
    return out


def _terms(problem: Problem, items: list[Item], h: int) -> Terms:
    def column(name: str, kind: Any = float) -> np.ndarray:
        return np.array([getattr(i, name) for i in items], dtype=kind)

    coming = np.zeros((len(items), h))
    for row, item in zip(coming, items, strict=True):
        row[: len(item.on_order)] = item.on_order[:h]
    return Terms(column("holding"), column("under"), column("order_cost"), column("lead", int), column("review", int), column("stock"),
                 np.full(len(items), problem.lost), column("volume"), column("cost"), column("pack"), column("minimum"), column("over"), coming, problem.budget,
                 problem.storage)


def _lost(items: list[Item], order: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """Money lost against knowing the demand, shape (w, n)."""
    under, over, stock, fixed = (np.array([getattr(i, k) for i in items]) for k in ("under", "over", "stock", "order_cost"))
    gap = demand - stock - order
    return under * np.maximum(gap, 0) + over * np.maximum(-gap, 0) + fixed * (order > 0)


def _once(problem: Problem, items: list[Item], known: Quantiles, seconds: float, seed: int) -> Plan:
    ratio = np.array([i.under / (i.under + i.over) for i in items])
    stock = np.array([i.stock for i in items])
    sure = len(known.levels) == 1
    sums = known.scenarios(1 if sure else SUMS, seed=seed).sum(axis=2)
    if len(known.times) == 1:
        target = np.array([known.at(float(r))[i, 0] for i, r in enumerate(ratio)])
    else:
        target = np.array([np.quantile(sums[:, i], r) for i, r in enumerate(ratio)])
    order = np.maximum(target - stock, 0)
    weights = [(problem.budget, np.array([i.cost for i in items])), (problem.storage, np.array([i.volume for i in items]))]
    used = [0.0, float(weights[1][1] @ stock)]
    free = all(w @ order + u <= most + 1e-9 for (most, w), u in zip(weights, used, strict=True))
    if free and not any(i.pack or i.minimum or i.order_cost for i in items):
        return _order_plan(problem, items, known, order, seed, {"status": "optimal", "solver": "critical ratio", "gap": 0.0, "seconds": 0.0})
    program = Program()
    n = len(items)
    ends = np.quantile(sums, np.linspace(0, 1, 2 if sure else PIECES + 1), axis=0).T - stock[:, None]
    ends = np.concatenate([np.zeros((n, 1)), np.maximum(ends, 0)], axis=1)
    pieces = program.block((n, ends.shape[1] - 1), high=np.diff(ends, axis=1), cost=_slopes(items, sums, ends, stock))
    opened = program.block((n,), high=1, whole=True, cost=[i.order_cost for i in items])
    whole = program.block((n,), whole=True, high=np.where([i.pack > 0 for i in items], np.inf, 0))
    extra = program.block((n,), cost=[i.over for i in items], high=np.where([i.pack > 0 or i.minimum > 0 for i in items], np.inf, 0))  # beyond all demand
    top = np.maximum(ends[:, -1], [i.minimum + i.pack for i in items]) + np.array([i.pack for i in items])
    amount = np.concatenate([pieces, extra[:, None]], axis=1)
    program.rows(-np.inf, 0, (amount, 1.0), (opened, -top))
    program.rows(0, np.inf, (amount, 1.0), (opened, -np.array([i.minimum for i in items])))
    packed = [k for k, i in enumerate(items) if i.pack]
    if packed:
        program.rows(0, 0, (amount[packed], 1.0), (whole[packed], -np.array([items[k].pack for k in packed])))
    for (most, weight), there in zip(weights, used, strict=True):
        if np.isfinite(most):
            program.rows(-np.inf, most - there, (amount.reshape(1, -1), np.repeat(weight, amount.shape[1])[None]))
    found = program.solve(seconds)
    facts = found.facts()
    facts.pop("bound", None)  # of the costs of ordering, less a constant: of no use to a reader
    chosen = _cut(problem, items, order) if found.x is None else found.x[amount].sum(axis=1)
    if found.x is None:
        facts |= {"status": "feasible", "solver": "critical ratio, cut by one share"}
    return _order_plan(problem, items, known, np.where(chosen > 1e-7, chosen, 0), seed, facts)


def _slopes(items: list[Item], sums: np.ndarray, ends: np.ndarray, stock: np.ndarray) -> np.ndarray:
    """What one more unit costs on each piece, on average over the futures: over, less (over + under) times how often it is wanted. Shape (n, pieces)."""
    out = np.zeros((len(items), ends.shape[1] - 1))
    for i, item in enumerate(items):
        left = np.maximum(stock[i] + ends[i][None] - sums[:, i][:, None], 0).mean(axis=0)
        width = np.maximum(np.diff(ends[i]), 1e-12)
        out[i] = (item.over + item.under) * np.diff(left) / width - item.under
    return out


def _cut(problem: Problem, items: list[Item], order: np.ndarray) -> np.ndarray:
    """The orders, cut by one share where they break the budget or the store; packs and smallest orders are kept."""
    share = 1.0
    for most, key in ((problem.budget, "cost"), (problem.storage, "volume")):
        weight = np.array([getattr(i, key) for i in items])
        there = float(weight @ np.array([i.stock for i in items])) if key == "volume" else 0.0
        if weight @ order + there > most:
            share = min(share, max(most - there, 0.0) / float(weight @ order))
    cut = order * share
    for k, item in enumerate(items):
        if item.pack:
            cut[k] = np.floor(cut[k] / item.pack + 1e-9) * item.pack
        cut[k] = cut[k] if cut[k] >= item.minimum else 0.0
    return cut


def _order_plan(problem: Problem, items: list[Item], known: Quantiles, order: np.ndarray, seed: int, facts: dict[str, Any]) -> Plan:
    sums = known.scenarios(1 if len(known.levels) == 1 else SUMS, seed=seed + 1).sum(axis=2)
    rows = [{"item": name, "order": float(q), "expected_demand": float(sums[:, i].mean()), "met": float((sums[:, i] <= q + items[i].stock + 1e-9).mean())}
            for i, (name, q) in enumerate(zip(known.ids, order, strict=True))]
    spent = float(sum(i.cost * q for i, q in zip(items, order, strict=True)))
    return Plan({"orders": rows}, float(_lost(items, order, sums).sum(axis=1).mean()), (), facts | {"ids": list(known.ids), "times": list(known.times), "spent": spent})


def _normal(problem: Problem, known: Quantiles) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and variance of each step's demand, as a normal distribution with these 10 % and 90 % quantiles has them, and the rule's z."""
    from scipy.special import ndtri

    mean = known.values.mean(axis=2)
    variance = ((known.at(0.9) - known.at(0.1)) / (2 * 1.2815515655)) ** 2 if len(known.levels) > 1 else np.zeros_like(mean)
    return mean, variance, USUAL if problem.service is None else float(ndtri(problem.service))


def _usual(problem: Problem, known: Quantiles, terms: Terms) -> tuple[Policy, float]:
    """The rule's policy, and its z."""
    mean, variance, z = _normal(problem, known)
    n, h = mean.shape
    up_to = np.zeros((n, h))
    for i in range(n):
        for t in range(h):
            stop = min(t + int(terms.lead[i]) + int(terms.review[i]), h)
            up_to[i, t] = max(mean[i, t:stop].sum() + z * np.sqrt(variance[i, t:stop].sum()), 0.0)
    idle = np.arange(h)[None, :] + terms.lead[:, None] >= h
    return Policy(np.where(idle, -np.inf, up_to), up_to, np.zeros(n), np.full((n, h), np.inf)), z


def _policy_plan(terms: Terms, policy: Policy, known: Quantiles, seed: int, facts: dict[str, Any]) -> Plan:
    """What the policy costs is told from futures that did not choose it. expected_demand: until the next order can arrive."""
    futures = known.scenarios(1 if len(known.levels) == 1 else futures_for(len(known.ids), len(known.times), FUTURES), seed=seed + 1)
    outcome = simulate(terms, policy, futures)
    asked, n = np.maximum(futures.sum(axis=2), 1e-12), len(known.ids)
    orders = [{"item": name, "order": float(outcome.orders[:, i].mean()), "expected_demand": float(futures[:, i, : terms.lead[i] + terms.review[i]].sum(axis=1).mean()),
               "served": float((1 - outcome.unmet[:, i] / asked[:, i]).clip(0, 1).mean()), "cost": float(outcome.cost[:, i].mean()),
               "quantity": float(policy.quantity[i])} for i, name in enumerate(known.ids)]
    rows = [{"item": known.ids[i], "time": known.times[t], "step": t, "reorder_point": float(policy.reorder[i, t]), "order_up_to": float(policy.up_to[i, t]),
             "order_at_most": float(policy.most[i, t]) if np.isfinite(policy.most[i, t]) else None}
            for i in range(n) for t in range(len(known.times)) if np.isfinite(policy.reorder[i, t]) and t % terms.review[i] == 0]
    return Plan({"orders": orders, "policy": rows}, float(outcome.cost.sum(axis=1).mean()), (), facts | {"ids": list(known.ids), "times": list(known.times)})


def _policy_of(plan: Plan, n: int, h: int) -> Policy:
    row = {name: i for i, name in enumerate(plan.facts["ids"])}
    policy = Policy(np.full((n, h), -np.inf), np.zeros((n, h)), np.array([r["quantity"] for r in plan.choice["orders"]], dtype=float), np.full((n, h), np.inf))
    for r in plan.choice["policy"]:
        at = row[r["item"]], r["step"]
        policy.reorder[at], policy.up_to[at] = r["reorder_point"], r["order_up_to"]
        policy.most[at] = np.inf if r["order_at_most"] is None else r["order_at_most"]
    return policy


INVENTORY = Inventory()
