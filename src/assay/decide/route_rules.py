"""Rules of thumb for tours: savings, and the nearest stop next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from assay.decide.route_drive import drive
from assay.decide.route_problem import NEVER, RouteProblem, Vehicle

NEAR = 100  # neighbours of a stop whose savings are looked at: 100 keep the merges that matter (Arnold et al. 2019, doi:10.1016/j.cor.2019.03.006)

Tours = list[tuple[Vehicle, str, list[int]]]


def savings(problem: RouteProblem, delivery: np.ndarray) -> Tours | None:
    """Parallel savings (Clarke and Wright 1964, doi:10.1287/opre.12.4.568): every stop begins with a tour of its own from its nearest depot, and the two tours
    whose union saves most are joined, as long as capacity and time windows hold.

    None where savings mean nothing (shipments, vehicles on the road) or where more tours are left than there are vehicles.
    """
    kinds = problem.vehicles
    if any(v.goods is not None for v in kinds) or any(v.carry for v in problem.visits):
        return None
    yards: dict[tuple[int, int], Vehicle] = {}
    for kind in sorted(kinds, key=lambda v: (v.capacity, v.late - v.early)):  # the largest of a yard stands for it while tours grow
        yards[kind.start, kind.end] = kind
    d = problem.distance
    place = np.array([v.place for v in problem.visits])
    round_trip = {yard: d[yard[0], place] + d[place, yard[1]] for yard in yards}
    home = [min(yards, key=lambda yard: round_trip[yard][k]) for k in range(len(place))]
    tour: dict[int, list[int]] = {k: [k] for k in range(len(place))}
    owner = list(range(len(place)))
    load = {k: np.array([delivery[k], problem.visits[k].pickup]) for k in tour}
    turns = _same_both_ways(problem)
    pairs = []
    for i in range(len(place)):
        near = np.argsort(d[place[i], place], kind="stable")[: NEAR + 1]
        pairs += [(-(d[place[i], home[i][1]] + d[home[j][0], place[j]] - d[place[i], place[j]]), i, int(j)) for j in near if i != j and home[i] == home[j]]
    for saved, i, j in sorted(pairs):
        if saved >= 0:
            break
        a, b = owner[i], owner[j]
        if a == b:
            continue
        first, second, yard = tour[a], tour[b], yards[home[i]]
        if first[-1] != i and first[0] == i and turns:
            first = first[::-1]
        if second[0] != j and second[-1] == j and turns:
            second = second[::-1]
        total = load[a] + load[b]
        if first[-1] != i or second[0] != j or total.max() > yard.capacity + 1e-9:
            continue
        joined = first + second
        if (problem.timed or total.min() > 0 or yard.farthest < NEVER) and not drive(problem, yard, joined, delivery).possible:
            continue
        tour[a], load[a] = joined, total
        for k in tour.pop(b):
            owner[k] = a
    return _handed_out(problem, list(tour.values()), home, delivery)


def _same_both_ways(problem: RouteProblem) -> bool:
    mirrored = np.array_equal(problem.distance, problem.distance.T) and np.array_equal(problem.minutes, problem.minutes.T)
    return not problem.timed and all(v.start == v.end for v in problem.vehicles) and bool(mirrored)


def _handed_out(problem: RouteProblem, tours: list[list[int]], home: Sequence[tuple[int, int]], delivery: np.ndarray) -> Tours | None:
    """Each tour to the vehicle that drives it at the least cost, the tours with most goods first; None if one finds none."""
    left = [v.count for v in problem.vehicles]
    out: Tours = []
    for stops in sorted(tours, key=lambda t: -sum(delivery[k] for k in t)):
        able = [(tour.cost, problem.vehicles[k].capacity, k) for k in range(len(left)) if left[k] and (tour := drive(problem, problem.vehicles[k], stops, delivery)).possible]
        if not able:
            return None
        _, _, k = min(able)
        kind = problem.vehicles[k]
        out.append((kind, kind.called(kind.count - left[k] + 1), stops))
        left[k] -= 1
    return out


def nearest(problem: RouteProblem, delivery: np.ndarray) -> Tours:
    """Nearest neighbour (Solomon 1987, doi:10.1287/opre.35.2.254, his time-oriented rule with distance and waiting weighing the same): the vehicle goes to the
    stop that it can be done with soonest, as long as the tour stays possible; then the next vehicle leaves. Stops that no vehicle can take any more are
    served by vehicles that do not exist, called 'extra 1' and so on."""
    open_ = set(range(len(problem.visits)))
    out: Tours = []
    fleet = sorted(problem.vehicles, key=lambda v: (v.goods is None, -v.capacity))
    d, minutes = problem.distance, problem.minutes

    def fill(kind: Vehicle) -> list[int]:
        stops: list[int] = []
        here, now = kind.start, kind.early
        while True:
            order = sorted((k for k in open_ if problem.visits[k].after < 0 or problem.visits[k].after in stops),
                           key=lambda k: (d[here, problem.visits[k].place] + max(0.0, problem.visits[k].early - now - minutes[here, problem.visits[k].place]), k))
            for k in order:
                owed = [j for j in stops if problem.visits[j].carry > 0 and not any(problem.visits[m].after == j for m in stops)]
                partner = [j for j in open_ if problem.visits[j].after == k]
                rest = [j for j in open_ if problem.visits[j].after in owed and j != k]
                if drive(problem, kind, [*stops, k, *partner, *rest], delivery).possible:
                    break
            else:
                return stops
            stops.append(k)
            open_.remove(k)
            here, now = problem.visits[k].place, max(now + minutes[here, problem.visits[k].place], problem.visits[k].early) + problem.visits[k].service

    for kind in fleet:
        for n in range(1, kind.count + 1):
            if stops := fill(kind):
                out.append((kind, kind.called(n), stops))
            elif kind.goods is None:
                break
    waiting = [v for v in fleet if v.goods is None] or [replace(fleet[0], goods=None, collected=0.0, start=fleet[0].end)]
    extra = 0
    while open_:
        extra += 1
        stops = next((s for v in waiting if (s := fill(v))), [])
        if not stops:  # alone it breaks a window as well; it is driven all the same, late
            first = min(k for k in open_ if problem.visits[k].after < 0)
            stops = [first, *(j for j in open_ if problem.visits[j].after == first)]
            open_ -= set(stops)
        out.append((waiting[0], f"extra {extra}", stops))
    return out
