"""One vehicle's tour driven on paper: when it arrives, what it carries, what it costs, what it breaks; and what happens when the demands turn out otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.decide.route_problem import NEVER, RouteProblem, Vehicle

CLOSE = 1e-6  # minutes or units: all inputs are multiples of 1/1000, so anything below is the noise of adding floats


@dataclass(frozen=True)
class Tour:
    """begins, leaves: minutes, one for each stop. late: minutes by which windows and the shift are missed, in all. over: goods above the capacity at the worst
    moment. far: distance above the limit. peak: most goods on board."""

    distance: float
    start: float
    end: float
    begins: tuple[float, ...]
    leaves: tuple[float, ...]
    late: float
    over: float
    far: float
    peak: float
    cost: float

    @property
    def possible(self) -> bool:
        return self.late <= CLOSE and self.over <= CLOSE and self.far <= CLOSE


def drive(problem: RouteProblem, vehicle: Vehicle, stops: Sequence[int], delivery: np.ndarray) -> Tour:
    """The tour start - stops - end of one vehicle. delivery: goods to bring to each visit, shape (n,).

    It leaves as late as it can without reaching its end later (forward time slack, Savelsbergh 1992, doi:10.1287/ijoc.4.2.146), so that paid minutes are few.
    """
    here, now, distance, late, slack, waited = vehicle.start, vehicle.early, 0.0, 0.0, math.inf, 0.0
    begins, leaves = [], []
    for k in stops:
        visit = problem.visits[k]
        distance += problem.distance[here, visit.place]
        reached = now + problem.minutes[here, visit.place]
        begin = max(reached, visit.early)
        waited += begin - reached
        late += max(0.0, begin - visit.late)
        slack = min(slack, waited + max(0.0, visit.late - begin))
        now = begin + visit.service
        begins.append(begin)
        leaves.append(now)
        here = visit.place
    distance += problem.distance[here, vehicle.end]
    end = now + problem.minutes[here, vehicle.end]
    late += max(0.0, end - vehicle.late)
    wait_out = max(0.0, min(slack, waited)) if stops else 0.0
    start = vehicle.early + wait_out
    if wait_out:
        now, here = start, vehicle.start
        for i, k in enumerate(stops):
            visit = problem.visits[k]
            begins[i] = max(now + problem.minutes[here, visit.place], visit.early)
            leaves[i] = now = begins[i] + visit.service
            here = visit.place
    late += max(0.0, end - start - vehicle.longest)
    peak, over = loads(problem, vehicle, stops, delivery)
    return Tour(float(distance), float(start), float(end), tuple(map(float, begins)), tuple(map(float, leaves)), float(late), over, max(0.0, float(distance) - vehicle.farthest),
                peak, float(vehicle.fixed + vehicle.per_distance * distance + vehicle.per_minute * (end - start)))


def loads(problem: RouteProblem, vehicle: Vehicle, stops: Sequence[int], delivery: np.ndarray, aboard: float | None = None) -> tuple[float, float]:
    """(most goods on board, what of them is above the capacity). aboard: what stays on board whatever is delivered; else what the vehicle has collected."""
    asked = float(sum(delivery[k] for k in stops))
    now = peak = asked + (vehicle.collected if aboard is None else aboard)
    for k in stops:
        visit = problem.visits[k]
        now += visit.pickup + visit.carry - delivery[k]
        peak = max(peak, now)
    short = 0.0 if vehicle.goods is None or aboard is not None else asked - vehicle.goods  # on the road it can only give what it has
    return float(peak), float(max(0.0, peak - vehicle.capacity, short))


def execute(problem: RouteProblem, vehicle: Vehicle, stops: Sequence[int], planned: np.ndarray, true: np.ndarray) -> float:
    """What the tour costs when the demands are `true` and only `planned` was known: detour to failure (Bertsimas 1992, doi:10.1287/opre.40.3.574).

    The vehicle leaves with what is planned and as much more as fits the whole tour. Where goods or room run out it gives what it has, drives to the
    depot where its tour ends, loads for the rest of the tour, comes back and goes on. A minute after a window or the shift costs `late_cost`.
    """
    if not stops:
        return drive(problem, vehicle, stops, planned).cost
    plan = drive(problem, vehicle, stops, planned)
    if vehicle.capacity >= NEVER and vehicle.goods is None:  # nothing can run out
        return plan.cost + problem.late_cost * plan.late
    here, now, distance, late = vehicle.start, plan.start, 0.0, 0.0
    collected, carried = vehicle.collected, 0.0
    goods = _loaded(problem, vehicle, stops, planned, collected) if vehicle.goods is None else vehicle.goods

    def go(to: int) -> None:
        nonlocal here, now, distance
        distance += problem.distance[here, to]
        now += problem.minutes[here, to]
        here = to

    for i, k in enumerate(stops):
        visit = problem.visits[k]
        go(visit.place)
        now = max(now, visit.early)
        late += max(0.0, now - visit.late)
        now += visit.service
        owed = float(true[k])
        while True:
            given = min(owed, goods)
            owed, goods = owed - given, goods - given
            room = vehicle.capacity - goods - carried - collected
            if owed <= CLOSE and visit.pickup + visit.carry <= room + CLOSE:
                break
            if owed <= CLOSE and goods + collected <= CLOSE:  # nothing left to put down: the shipment itself is too large; the plan said otherwise
                break
            go(vehicle.end)
            collected, rest = 0.0, np.array(planned, dtype=float)
            rest[k] = owed
            goods = min(vehicle.capacity - carried, max(_loaded(problem, vehicle, stops[i:], rest, carried), min(owed, vehicle.capacity - carried)))
            if owed <= CLOSE:
                goods = max(0.0, min(goods, vehicle.capacity - carried - visit.pickup - visit.carry))
            go(visit.place)
            if goods <= CLOSE < owed:
                break
        collected += visit.pickup
        carried += visit.carry
    go(vehicle.end)
    late += max(0.0, now - vehicle.late) + max(0.0, now - plan.start - vehicle.longest)
    return float(vehicle.fixed + vehicle.per_distance * distance + vehicle.per_minute * (now - plan.start) + problem.late_cost * late)


def _loaded(problem: RouteProblem, vehicle: Vehicle, stops: Sequence[int], planned: np.ndarray, aboard: float) -> float:
    """Goods to leave with: what is planned, and as much more as the fullest moment of the tour leaves room for."""
    peak, _ = loads(problem, vehicle, stops, planned, aboard)
    return float(sum(planned[k] for k in stops)) + max(0.0, vehicle.capacity - peak)
