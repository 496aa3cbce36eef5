"""What staffing knows of shifts, people and demand: who may work when, how many agents calls need, and the program of the cheapest shifts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from assay.decide.base import Quantiles
from assay.decide.program import Program
from assay.decide.terms import each, middles, quantile_values
from assay.errors import InputError
from assay.words import say

CASES = 9  # equally likely demands by which the cost of a shortage is averaged


@dataclass(frozen=True)
class Shift:
    """start, length, breaks: periods, breaks counted from the start. cost: of one person working it. every: periods after which it comes again, 0 for once."""

    name: str
    start: int
    length: int
    cost: float
    every: int
    breaks: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """`count` people alike. skills: streams they can serve, () for all; shifts: those they can work, () for all. extra: paid on top of each shift."""

    name: str
    count: int
    skills: tuple[str, ...]
    shifts: tuple[str, ...]
    extra: float
    most_hours: float


@dataclass(frozen=True)
class Calls:
    """Demand is calls in a period; agents are the fewest that answer `level` of them within `within` seconds. handle: seconds a call takes."""

    handle: float
    within: float
    level: float


@dataclass(frozen=True, eq=False)
class StaffingProblem:
    """shortage_cost: of an hour in which one person is missing; minimum: people that have to be there in every period; numbers or tables {stream: number}."""

    shifts: tuple[Shift, ...]
    staff: tuple[Group, ...]
    shortage_cost: float | dict[str, float]
    minimum: float | dict[str, float]
    period_minutes: float
    rest_hours: float
    calls: Calls | None

    @property
    def hour(self) -> float:
        """A period, in hours."""
        return self.period_minutes / 60

    def people(self, demand: np.ndarray) -> np.ndarray:
        """How many people a demand needs, same shape."""
        demand = np.maximum(demand, 0.0)
        if (terms := self.calls) is None:
            return demand
        return np.vectorize(lambda calls: float(agents(calls, self.period_minutes, terms)), otypes=[float])(demand)


@dataclass(frozen=True)
class Turn:
    """A shift on one day. number: of the shift. works: periods in which its people are at work."""

    number: int
    start: int
    end: int
    works: tuple[int, ...]


def agents(calls: float, period_minutes: float, terms: Calls) -> int:
    """The fewest agents that answer a share `terms.level` of calls within `terms.within` seconds: Erlang's C formula (Erlang 1917; Gans, Koole & Mandelbaum 2003)."""
    load = calls * terms.handle / (period_minutes * 60)
    if load <= 0:
        return 0
    blocked, n = 1.0, 0
    while True:
        n += 1
        blocked = load * blocked / (n + load * blocked)  # Erlang B, by its recursion
        if n > load:
            waits = blocked / (1 - load / n * (1 - blocked))
            if 1 - waits * math.exp(-(n - load) * terms.within / terms.handle) >= terms.level - 1e-12:
                return n


def turns(problem: StaffingProblem, h: int) -> list[Turn]:
    """All days of all shifts that lie within h periods. Raises InputError where there is none."""
    out = [Turn(number, start, start + shift.length, tuple(start + k for k in range(shift.length) if k not in shift.breaks))
           for number, shift in enumerate(problem.shifts) for start in range(shift.start, h - shift.length + 1, shift.every or h)]
    if not out:
        raise InputError("No shift fits into the {h} periods of the forecast. Check 'start' and 'length' of the shifts.", h=h)
    return out


def rest(problem: StaffingProblem) -> int:
    """Periods between the end of one's shift and the start of the next."""
    return math.ceil(problem.rest_hours / problem.hour - 1e-9)


def demands(problem: StaffingProblem, quantiles: Quantiles) -> np.ndarray:
    """Equally likely numbers of people needed, not falling along the last axis, shape (n, h, CASES)."""
    return problem.people(quantile_values(quantiles, middles(CASES)))


def shortage(problem: StaffingProblem, ids: tuple[str, ...], staff: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Cost of each stream's shortage, shape (n,). staff: shape (n, h); needed: (n, h) or equally likely cases (n, h, k)."""
    needed = needed[:, :, None] if needed.ndim == 2 else needed
    missing = np.maximum(needed - staff[:, :, None], 0.0).mean(axis=2).sum(axis=1)
    return each(problem.shortage_cost, ids, "shortage_cost") * problem.hour * missing


@dataclass(frozen=True, eq=False)
class Columns:
    """shifts: (unit, turn, number of its variable); units: (group, how many people). served: variables of people, shape (classes, n, h), -1 where they lack the skill."""

    units: list[tuple[int, int]]
    shifts: list[tuple[int, int, int]]
    served: np.ndarray


def program(problem: StaffingProblem, ids: tuple[str, ...], times: tuple[str, ...], needed: np.ndarray) -> tuple[Program, Columns, float]:
    """The cheapest shifts for `needed` (n, h, k); cost = the program's + the number given back, the cost if nobody worked.

    The expected cost of a shortage is convex in the people there and piecewise linear between the cases, so k variables a stream and period hold it exactly.
    People alike are counted, not named: shifts with their rest are intervals, and as many people as overlap at most can always work them (an interval graph
    is perfect). Only a limit on each one's hours needs them one by one.
    """
    n, h, k = needed.shape
    made, every = Program(), turns(problem, h)
    units = [(g, 1 if math.isfinite(group.most_hours) else group.count) for g, group in enumerate(problem.staff)
             for _ in range(group.count if math.isfinite(group.most_hours) else 1)]
    shifts = []
    for u, (g, _) in enumerate(units):
        group = problem.staff[g]
        for o, turn in enumerate(every):
            shift = problem.shifts[turn.number]
            if not group.shifts or shift.name in group.shifts:
                shifts.append((u, o, int(made.add(1, cost=shift.cost + group.extra, whole=True)[0])))
    _limits(problem, made, every, units, shifts)
    classes = list(dict.fromkeys(frozenset(group.skills or ids) for group in problem.staff))
    served = np.full((len(classes), n, h), -1)
    for c, skills in enumerate(classes):
        for i, stream in enumerate(ids):
            if stream in skills:
                served[c, i] = made.add(h)
        own = [(every[o].works, x) for u, o, x in shifts if frozenset(problem.staff[units[u][0]].skills or ids) == skills]
        for t in range(h):
            there, able = [x for works, x in own if t in works], served[c, :, t][served[c, :, t] >= 0]
            made.row([*able, *there], np.concatenate([np.ones(len(able)), -np.ones(len(there))]), low=0.0, high=0.0)
    price = each(problem.shortage_cost, ids, "shortage_cost") * problem.hour
    least = each(problem.minimum, ids, "minimum")
    steps = np.diff(needed, axis=2, prepend=0.0)
    for i, stream in enumerate(ids):
        for t in range(h):
            helpers = served[:, i, t][served[:, i, t] >= 0]
            useful = made.add(k, cost=-price[i] * (1 - np.arange(k) / k), high=steps[i, t])
            made.row([*helpers, *useful], np.concatenate([np.ones(len(helpers)), -np.ones(k)]), low=0.0)
            if least[i] > 0:
                made.row(helpers, 1.0, low=least[i], says=say("at least {people:g} on '{stream}' in period {period}", people=float(least[i]), stream=stream, period=times[t]))
    return made, Columns(units, shifts, served), float((price[:, None] * needed.mean(axis=2)).sum())


def _limits(problem: StaffingProblem, made: Program, every: list[Turn], units: list[tuple[int, int]], shifts: list[tuple[int, int, int]]) -> None:
    """Nobody works two shifts at once, or without rest between them, or more hours than allowed."""
    pause, last = rest(problem), dict[int, tuple[list[int], np.ndarray]]()
    for u, (g, count) in enumerate(units):
        group = problem.staff[g]
        own = [(every[o], x) for v, o, x in shifts if v == u]
        for moment in sorted({turn.start for turn, _ in own}):
            at_once = [x for turn, x in own if turn.start <= moment < turn.end + pause]
            made.row(at_once, 1.0, high=count, says=say("{count} people in the group '{group}', with {hours:g} hours of rest after a shift", count=group.count,
                                                        group=group.name, hours=problem.rest_hours))
        if math.isfinite(group.most_hours):
            columns, hours = [x for _, x in own], np.array([len(turn.works) for turn, _ in own]) * problem.hour
            made.row(columns, hours, high=group.most_hours, says=say("at most {hours:g} hours for each of the group '{group}'", hours=group.most_hours, group=group.name))
            if g in last:  # people alike are told apart by their hours alone, so that the solver does not try every order of them
                made.row([*last[g][0], *columns], np.concatenate([last[g][1], -hours]), low=0.0)
            last[g] = columns, hours


def named(problem: StaffingProblem, worked: list[tuple[int, int, Turn, int]]) -> list[tuple[str, Turn]]:
    """Who works which turn. worked: (unit, group, turn, people). People of a counted unit take turns in order of time, whoever is free longest first."""
    pause, out = rest(problem), list[tuple[str, Turn]]()
    first: dict[int, int] = {}
    used: dict[int, int] = {}
    for unit in dict.fromkeys(u for u, *_ in worked):
        mine = sorted(((turn, people) for u, _, turn, people in worked if u == unit), key=lambda pair: pair[0].start)
        g = next(g for u, g, *_ in worked if u == unit)
        first[unit] = used.get(g, 0)
        free: list[int] = []
        for turn, people in mine:
            for _ in range(people):
                ready = [j for j, when in enumerate(free) if when <= turn.start]
                j = min(ready, key=lambda j: free[j]) if ready else len(free)
                if j == len(free):
                    free.append(0)
                free[j] = turn.end + pause
                out.append((f"{problem.staff[g].name} {first[unit] + j + 1}", turn))
        used[g] = first[unit] + len(free)
    return sorted(out, key=lambda pair: (pair[1].start, pair[0]))
