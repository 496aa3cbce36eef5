"""Routes: which vehicle calls at which stop, in which order. Capacity, time windows, several depots, unlike vehicles, goods brought, taken back, and taken from
one stop to another; vehicles that are on the road already."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide import route_map
from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.route_drive import drive, execute
from assay.decide.route_problem import RouteProblem, from_table
from assay.decide.route_rules import Tours, nearest, savings
from assay.decide.route_solver import Found, clashes, cost_of, pyvrp, read_vrplib, search, warm
from assay.errors import InputError, ReadError
from assay.words import Text, say

SCENARIOS = 200  # possible days on which plans for different service levels are compared; the standard error of a mean is then 7 % of one day's spread
TRIED = (0.5, 0.7, 0.9)  # service levels, where the problem names none


class Route(Decision):
    """Solved by PyVRP (Wouda, Lan and Kool 2024, doi:10.1287/ijoc.2023.0055), an iterated local search: good tours, no bound.

    Goods come from a depot (`demand`), go back to it (`pickup`), both at one stop if asked, or from one stop to another (`shipments`). A forecast's series
    are customers by name; its steps are delivered together, and the level of the sum is what the vehicles are planned for. Where the problem names no
    level, several are planned and the one whose tours cost least on possible days, failures included, is taken. A vehicle makes one tour.
    """

    name = "route"
    about = say("Which vehicle serves which stop, in which order: capacity, time windows, several depots")
    forecast = "possible"
    needs = {"pyvrp": "plan"}
    reads = (".vrp",)

    def problem(self, table: dict[str, Any], place: Path) -> RouteProblem:
        return from_table(table, place)

    def problem_file(self, path: Path) -> RouteProblem:
        return read_vrplib(path)

    def solve(self, problem: RouteProblem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        pyvrp()  # loading the library is not part of the time
        began = time.perf_counter()
        days = _days(problem, quantiles, seed)
        levels = [problem.level] if problem.level else list(TRIED) if quantiles is not None and len(quantiles.levels) > 1 else [0.5]
        solver = f"PyVRP {version('pyvrp')}"
        plans: list[tuple[float, int, Plan]] = []
        refused: tuple[Text, ...] = ()
        for i, level in enumerate(levels):
            planned = _planned(problem, quantiles, level, seed)
            if broken := clashes(problem, planned):
                refused = broken
                continue
            first = warm(problem, planned)
            rest = max(0.05, seconds - (time.perf_counter() - began)) / (len(levels) - i)
            found = search(problem, planned, seconds=rest, seed=seed, start=first) if problem.visits else Found([], 0)
            able = [(cost_of(problem, t, planned), n, t) for n, t in ((0, found.tours), (1, first)) if t is not None]
            if (not able or seconds < 0.02 * len(problem.visits)) and (thumb := savings(problem, planned)) is not None:
                able.append((cost_of(problem, thumb, planned), 2, thumb))  # with so few iterations the simple answer may be the better one
            if not able:
                near = nearest(problem, planned)
                able += [(cost_of(problem, near, planned), 3, near)] if not any(name.startswith("extra ") for _, name, _ in near) else []
            if able:
                _, by, tours = min(able, key=lambda a: a[:2])
                plan = _plan(problem, tours, planned, days, quantiles)
                plan.facts.update(status="feasible", solver=(solver, "the earlier plan", "Clarke-Wright savings", "nearest neighbour")[by], iterations=found.iterations)
                plans.append((plan.cost, i, plan))
            elif not refused:
                refused = self._why(problem, planned, seconds=min(seconds, 2.0), seed=seed, tried=seconds)
        if not plans:
            return Plan({}, float("inf"), tuple(refused), {"status": "infeasible", "seconds": time.perf_counter() - began, "solver": solver})
        _, i, best = min(plans, key=lambda p: p[:2])
        best.facts.update(seconds=time.perf_counter() - began)
        if quantiles is not None:
            best.facts["level"] = levels[i]
        return best

    def _why(self, problem: RouteProblem, planned: np.ndarray, *, seconds: float, seed: int, tried: float) -> tuple[Text, ...]:
        """Nothing was found though every stop can be served alone: would more vehicles do?"""
        free = replace(problem, vehicles=tuple(v if v.goods is not None else replace(v, count=max(v.count, len(problem.visits)), names=()) for v in problem.vehicles))
        more = search(free, planned, seconds=seconds, seed=seed).tours
        have = sum(v.count for v in problem.vehicles)
        if more is not None:
            return (say("No plan was found in {seconds:g} s for {have} vehicles; the best plan without that limit takes {need}. The number of vehicles clashes with "
                        "the time windows, the shifts or the capacity.", seconds=tried, have=have, need=len(more)),)
        return (say("No plan was found in {seconds:g} s, not even with a vehicle for every stop, though each stop can be served alone: give it more time.", seconds=tried),)

    def rule(self, problem: RouteProblem, quantiles: Quantiles | None) -> Plan:
        """Clarke-Wright savings (1964, parallel) for the median demands, or for the level that the problem names; the nearest stop next where savings mean
        nothing or leave more tours than vehicles. Which of them, the facts say."""
        began = time.perf_counter()
        planned = _planned(problem, quantiles, problem.level or 0.5, 0)
        tours, called = savings(problem, planned), "Clarke-Wright savings"
        if tours is None:
            tours, called = nearest(problem, planned), "nearest neighbour"
        plan = _plan(problem, tours, planned, _days(problem, quantiles, 0), quantiles)
        broken = list(plan.violations)
        if extra := sum(name.startswith("extra ") for _, name, _ in tours):
            broken.append(say("The rule of thumb needs {n} vehicles more than there are.", n=extra))
        plan.facts.update(status="infeasible" if broken else "feasible", solver=called, seconds=time.perf_counter() - began)
        return Plan(plan.choice, plan.cost, tuple(broken), plan.facts)

    def realised(self, problem: RouteProblem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """The tours driven with the true demands, shape (1,): where a vehicle runs out it returns to its depot, loads, and goes on (detour to failure);
        a minute after a window or a shift costs `late_cost`. truth: shape (n, h), n as in the forecast the plan was made from; None: the planned demands."""
        if not plan.choice:
            return np.array([np.inf])
        planned = np.array([v.delivery for v in problem.visits])
        index = {v.name: k for k, v in enumerate(problem.visits)}
        for row in plan.choice["stops"]:
            planned[index[row["stop"]]] = row["delivery"]
        true = planned if truth is None else _placed(problem, planned, plan.facts.get("ids", []), np.asarray(truth, dtype=float).sum(axis=1))
        return np.array([_driven(problem, _tours(problem, plan), planned, true)])

    def picture(self, problem: RouteProblem, plan: Plan, words: Any = str) -> str:
        return route_map.draw(problem, plan, words)

    def example(self, seed: int = 0) -> Example:
        rng = np.random.default_rng(seed)
        n = 12
        usual = rng.uniform(4, 16, n)
        spread = rng.uniform(0.1, 0.4, n) * usual
        z = np.array([-1.282, -0.842, -0.524, -0.253, 0.0, 0.253, 0.524, 0.842, 1.282])
        names = tuple(f"shop {i + 1}" for i in range(n))
        values = np.maximum(usual[:, None, None] + spread[:, None, None] * z, 0)
        truth = np.maximum(usual + spread * rng.standard_normal(n), 0)[:, None]
        table = {
            "depots": [{"name": "depot", "x": 50, "y": 50}],
            "customers": [{"name": name, "x": int(x), "y": int(y), "service": 5, "tw_early": 0, "tw_late": 400} for name, (x, y) in zip(names, rng.integers(0, 101, (n, 2)), strict=True)],
            "vehicles": [{"name": "van", "count": 5, "capacity": 40, "depot": "depot", "shift": 480}],
        }
        return Example(table, Quantiles(LEVELS, values, names, ("day 1",)), truth)


def _placed(problem: RouteProblem, base: np.ndarray, ids: Any, values: np.ndarray) -> np.ndarray:
    """`base` with the values of the named customers put in; a shipment's ends and stops without a series keep theirs."""
    out, index = base.astype(float).copy(), {str(name): i for i, name in enumerate(ids)}
    for k, visit in enumerate(problem.visits):
        if visit.name in index and not visit.carry:
            out[k] = max(0.0, float(values[index[visit.name]]))
    return out


def _planned(problem: RouteProblem, quantiles: Quantiles | None, level: float, seed: int) -> np.ndarray:
    """Goods for each visit at a service level, shape (n,). Raises InputError where neither problem nor forecast knows a demand."""
    base = np.array([v.delivery for v in problem.visits], dtype=float)
    if quantiles is not None:
        if problem.visits and not {v.name for v in problem.visits} & set(quantiles.ids):
            raise InputError("The forecast is of {series}, the stops are called {stops}: none is the same. Name the stops like the series.",
                             series=list(quantiles.ids[:5]), stops=[v.name for v in problem.visits[:5]])
        if quantiles.values.shape[1] == 1:
            value = quantiles.at(level)[:, 0]
        else:  # the quantile of a sum is not the sum of the quantiles
            value = np.quantile(quantiles.scenarios(500, seed=seed).sum(axis=2), level, axis=0)
        base = _placed(problem, base, quantiles.ids, value)
    if np.isnan(base).any():
        raise InputError("'{name}' has no demand, and no forecast gives it one. Add `demand` to it, or forecast it.", name=problem.visits[int(np.isnan(base).argmax())].name)
    return np.ceil(base * 1000 - 1e-6) / 1000


def _days(problem: RouteProblem, quantiles: Quantiles | None, seed: int) -> list[np.ndarray]:
    if quantiles is None:
        return []
    count = SCENARIOS if len(quantiles.levels) > 1 else 1
    base = np.array([0.0 if np.isnan(v.delivery) else v.delivery for v in problem.visits])
    return [_placed(problem, base, quantiles.ids, day.sum(axis=1)) for day in quantiles.scenarios(count, seed=seed)]


def _driven(problem: RouteProblem, tours: Tours, planned: np.ndarray, true: np.ndarray) -> float:
    used = {name for _, name, _ in tours}
    idle = sum(drive(problem, v, [], planned).cost for v in problem.vehicles if v.goods is not None and v.name not in used)
    return sum(execute(problem, v, stops, planned, true) for v, _, stops in tours) + idle


def _plan(problem: RouteProblem, tours: Tours, planned: np.ndarray, days: list[np.ndarray], quantiles: Quantiles | None) -> Plan:
    routes, stops, broken, distance = [], [], [], 0.0
    used = {name for _, name, _ in tours}
    idle: Tours = [(v, v.name, []) for v in problem.vehicles if v.goods is not None and v.name not in used]
    for vehicle, name, order in [*tours, *idle]:
        tour = drive(problem, vehicle, order, planned)
        distance += tour.distance
        routes.append({"vehicle": name, "type": vehicle.name, "from": problem.places[vehicle.start], "to": problem.places[vehicle.end], "stops": len(order),
                       "load": round(sum(float(planned[k]) for k in order), 3), "peak": round(tour.peak, 3), "distance": round(tour.distance, 3),
                       "start": round(tour.start, 3), "end": round(tour.end, 3), "cost": round(tour.cost, 6)})
        for i, k in enumerate(order):
            visit = problem.visits[k]
            stops.append({"vehicle": name, "position": i + 1, "stop": visit.name, "place": problem.places[visit.place], "begin": round(tour.begins[i], 3),
                          "leave": round(tour.leaves[i], 3), "delivery": float(planned[k]), "pickup": float(visit.pickup + max(visit.carry, 0))})
        if not tour.possible:
            late, over, far = round(tour.late, 3), round(tour.over, 3), round(tour.far, 3)
            broken.append(say("'{vehicle}' is {late:g} minutes late, {over:g} over its load and {far:g} over its distance.", vehicle=name, late=late, over=over, far=far))
    plain = cost_of(problem, tours, planned)
    expected = float(np.mean([_driven(problem, tours, planned, day) for day in days])) if days else plain
    facts: dict[str, Any] = {"distance": distance, "vehicles": len(tours), "planned_cost": plain}
    if quantiles is not None:
        facts["ids"] = list(quantiles.ids)
    if problem.best_known:
        facts.update(best_known=problem.best_known, gap_to_best_known=plain / problem.best_known - 1)  # no `gap`: that is the one to a bound
    return Plan({"routes": routes, "stops": stops}, expected, tuple(broken), facts)


def _tours(problem: RouteProblem, plan: Plan) -> Tours:
    """The tours of a plan, as its tables say them."""
    index = {v.name: k for k, v in enumerate(problem.visits)}
    kinds = {v.name: v for v in problem.vehicles}
    out: Tours = []
    for route in plan.choice["routes"]:
        stops = sorted((r["position"], index[r["stop"]]) for r in plan.choice["stops"] if r["vehicle"] == route["vehicle"])
        if route["type"] not in kinds:
            raise ReadError("The plan uses the vehicle '{name}', which the problem does not have.", name=route["type"])
        out.append((kinds[route["type"]], route["vehicle"], [k for _, k in stops]))
    return out


ROUTE = Route()
