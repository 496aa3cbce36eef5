"""Green times and cycle length of a traffic signal from forecast flows: the least expected delay, exactly, in whole seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, GREY, frame, text
from assay.decide.program import Answer, Program, no_plan
from assay.decide.terms import Fields, forecast, known_truth, middles, quantile_values
from assay.errors import InputError
from assay.words import Text, say

CASES = 9  # equally likely flows of an approach over which its delay is averaged
FIELDS = ("period_minutes", "cycle", "phases", "highest_degree", "degree_level")
PHASE_FIELDS = ("name", "approaches", "saturation", "min_green", "lost_time")


@dataclass(frozen=True)
class Phase:
    """Approaches that have green together. saturation: vehicles an hour of green, one for each approach. lost_time, min_green: seconds."""

    name: str
    approaches: tuple[str, ...]
    saturation: tuple[float, ...]
    min_green: int
    lost_time: float


@dataclass(frozen=True)
class SignalsProblem:
    """shortest, longest: cycle, whole seconds. highest_degree: largest flow / capacity, asked at the quantile `degree_level` of the flows."""

    phases: tuple[Phase, ...]
    shortest: int
    longest: int
    period_minutes: float
    highest_degree: float | None
    degree_level: float

    @property
    def lost(self) -> float:
        return sum(phase.lost_time for phase in self.phases)

    def greens(self, cycle: int) -> int:
        """Whole seconds of green that a cycle has to give away."""
        return int(np.floor(cycle - self.lost + 1e-9))


def delay(flow: np.ndarray, saturation: float, green: np.ndarray, cycle: np.ndarray, hours: float) -> np.ndarray:
    """Mean control delay of a vehicle in seconds: uniform + incremental delay for random arrivals at a pre-timed signal, no queue at the start.

    flow, saturation: vehicles an hour; green, cycle: seconds; shapes broadcast. HCM 2010, equations 18-20 (Webster's uniform delay, Road Research Paper 39,
    1958) and 18-45, with k = 0.5 and I = 1.
    """
    share = np.minimum(green / cycle, 1.0)
    capacity = np.maximum(saturation * share, 1e-9)
    degree = flow / capacity
    uniform = 0.5 * cycle * (1 - share) ** 2 / np.maximum(1 - np.minimum(degree, 1.0) * share, 1e-9)
    return uniform + 900 * hours * (degree - 1 + np.sqrt((degree - 1) ** 2 + 4 * degree / (capacity * hours)))


def webster(flow_ratios: np.ndarray, lost: float) -> float:
    """The cycle of least delay by Webster's formula, (1.5 L + 5) / (1 - Y) seconds; inf where the critical flow ratios, shape (p,), sum to one or more."""
    total = float(np.sum(flow_ratios))
    return (1.5 * lost + 5) / (1 - total) if total < 1 else np.inf


class Signals(Decision):
    name = "signals"
    about = say("Green times and cycle of a traffic signal from forecast flows: least total delay")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> SignalsProblem:
        f = Fields(table, say("The signals problem"), FIELDS)
        cycle = f.numbers("cycle", low=1, high=600) if f.has("cycle") else (40.0, 150.0)
        if len(cycle) != 2 or cycle[0] > cycle[1] or any(c != round(c) for c in cycle):
            raise InputError("'cycle' is {found}. It should be the shortest and the longest cycle in whole seconds, such as [40, 120].", found=str(list(cycle)))
        phases: list[Phase] = []
        for row in f.rows("phases"):
            g = Fields(row, say("A phase"), PHASE_FIELDS)
            approaches = g.names("approaches")
            if isinstance(row.get("saturation"), list):
                saturation = g.numbers("saturation", low=1)
                if len(saturation) != len(approaches):
                    raise InputError("The phase '{phase}' has {a} approaches and {s} saturation flows. Give one number for all, or one for each.",
                                     phase=g.word("name", " + ".join(approaches)), a=len(approaches), s=len(saturation))
            else:
                saturation = (g.number("saturation", 1900.0, low=0, above=True),) * len(approaches)
            phases.append(Phase(g.word("name", " + ".join(approaches)), approaches, saturation, g.whole("min_green", 5, low=1), g.number("lost_time", 4.0, low=0)))
        named = [a for phase in phases for a in phase.approaches]
        if twice := [a for i, a in enumerate(named) if a in named[:i]]:
            raise InputError("The approach '{name}' is in two phases. Each approach has green in one phase.", name=twice[0])
        degree = f.number("highest_degree", low=0, high=5, above=True) if f.has("highest_degree") else None
        return SignalsProblem(tuple(phases), int(cycle[0]), int(cycle[1]), f.number("period_minutes", 60.0, low=0, above=True), degree,
                              f.number("degree_level", 0.5, low=0, high=1))

    def solve(self, problem: SignalsProblem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        """For every period the cycle and greens of least expected vehicle-hours of delay: every cycle in whole seconds, and for each the best split by dynamic
        programming (Ibaraki & Katoh, Resource Allocation Problems, 1988), so the answer is exact although delay is not convex around saturation.
        Periods that the time does not suffice for get Webster's splits for their own mean flow; the status is 'feasible' then."""
        began = time.monotonic()
        quantiles = _flows(problem, quantiles)
        flows = np.maximum(quantile_values(quantiles, middles(CASES)), 0.0)
        limits = None if problem.highest_degree is None else np.maximum(quantiles.at(problem.degree_level), 0.0)
        facts: dict[str, Any] = {"solver": "dynamic programming", "ids": list(quantiles.ids)}
        rows: list[Row] = []
        for t, name in enumerate(quantiles.times):
            if rows and time.monotonic() - began > seconds:
                rows += [_websters(problem, quantiles.ids, flows[:, later].mean(axis=1)) for later in range(t, len(quantiles.times))]
                plan = _plan(problem, quantiles, rows, facts | {"status": "feasible", "seconds": round(time.monotonic() - began, 3)})
                return Plan(plan.choice, plan.cost, _exceeded(problem, quantiles, rows), plan.facts)
            best = _best(problem, quantiles.ids, flows[:, t], None if limits is None else limits[:, t])
            if best is None:
                made = _demands(problem, quantiles.ids, None if limits is None else limits[:, t], name)
                return no_plan(made, Answer(None, np.inf, "infeasible"), seconds=seconds, facts=facts)
            rows.append(best)
        return _plan(problem, quantiles, rows, facts | {"status": "optimal", "gap": 0.0, "seconds": round(time.monotonic() - began, 3)})

    def rule(self, problem: SignalsProblem, quantiles: Quantiles | None) -> Plan:
        """Webster's cycle and splits for the mean flow of all periods, fixed all day (Webster 1958)."""
        quantiles = _flows(problem, quantiles)
        flows = np.maximum(quantile_values(quantiles, middles(CASES)), 0.0)
        row = _websters(problem, quantiles.ids, flows.mean(axis=(1, 2)))
        broken: list[Text] = []
        if problem.greens(row[0]) < sum(phase.min_green for phase in problem.phases):
            broken.append(say("The shortest greens do not fit into the longest cycle of {cycle} seconds.", cycle=problem.longest))
        plan = _plan(problem, quantiles, [row] * len(quantiles.times), {"ids": list(quantiles.ids)})
        return Plan(plan.choice, plan.cost, (*broken, *_exceeded(problem, quantiles, [row] * len(quantiles.times))), plan.facts)

    def realised(self, problem: SignalsProblem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Vehicle-hours of delay in each period, shape (h,), under the true flows (n, h). A queue left over is not carried into the next period."""
        ids = tuple(plan.facts["ids"])
        if not plan.choice:
            return np.full(known_truth(truth, len(ids)).shape[1], np.inf)
        rows = _read(problem, plan)
        flows = np.maximum(known_truth(truth, len(ids), len(rows)), 0.0)
        return np.array([_vehicle_hours(problem, ids, flows[:, t, None], *row) for t, row in enumerate(rows)])

    def picture(self, problem: SignalsProblem, plan: Plan, words: Any = str) -> str:
        title = words(say("Green times in each period, seconds; grey: lost time"))
        if not plan.choice:
            return frame(720, 60, [text(14, 34, words(say("There is no plan to draw.")))], title)
        rows, names = _read(problem, plan), [row["period"] for row in plan.choice["periods"]]
        shown = list(range(len(rows)))[:48]
        left, top, wide, high = 50.0, 44.0, 640.0, 210.0
        most = max(rows[t][0] for t in shown)
        per = wide / len(shown)
        parts = [text(14, 18, title, bold=True), f'<line x1="{left}" x2="{left}" y1="{top}" y2="{top + high}" stroke="{GREY}"/>',
                 text(left - 6, top + 4, str(most), anchor="end"), text(left - 6, top + high, "0", anchor="end")]
        for k, t in enumerate(shown):
            cycle, greens = rows[t]
            base = top + high
            for p, green in enumerate(greens):
                tall = high * green / most
                base -= tall
                parts.append(f'<rect x="{left + per * (k + 0.1):.1f}" y="{base:.1f}" width="{per * 0.8:.1f}" height="{tall:.1f}" fill="{COLOURS[p % len(COLOURS)]}" fill-opacity="0.85"/>')
                if per > 22 and tall > 13:
                    parts.append(f'<text x="{left + per * (k + 0.5):.1f}" y="{base + tall / 2 + 4:.1f}" text-anchor="middle" fill="#ffffff">{int(green)}</text>')
            tall = high * (cycle - sum(greens)) / most
            parts.append(f'<rect x="{left + per * (k + 0.1):.1f}" y="{base - tall:.1f}" width="{per * 0.8:.1f}" height="{tall:.1f}" fill="{GREY}" fill-opacity="0.4"/>')
            if k % max(1, len(shown) // 12) == 0:
                parts.append(text(left + per * (k + 0.5), top + high + 16, str(names[t])[:10], anchor="middle"))
        for p, phase in enumerate(problem.phases):
            parts += [f'<rect x="{left + 130 * (p % 5)}" y="{top + high + 28 + 18 * (p // 5)}" width="10" height="10" fill="{COLOURS[p % len(COLOURS)]}"/>',
                      text(left + 14 + 130 * (p % 5), top + high + 37 + 18 * (p // 5), phase.name[:16])]
        return frame(720, top + high + 50 + 18 * ((len(problem.phases) - 1) // 5), parts, title)

    def example(self, seed: int = 0) -> Example:
        """Four approaches, two phases, six quarters of an hour with a rush from the north; the forecast's quantiles are Poisson-like around the true mean."""
        rng = np.random.default_rng(seed)
        ids, times = ("north", "south", "east", "west"), tuple(f"07:{m:02d}" if m < 60 else f"08:{m - 60:02d}" for m in range(0, 90, 15))
        rush = np.array([0.5, 0.8, 1.2, 1.3, 0.9, 0.6])
        mean = np.array([650, 380, 420, 340])[:, None] * np.stack([rush, rush, 0.7 + 0.3 * rush[::-1], np.ones(6)]) * rng.uniform(0.9, 1.1, (4, 6))
        from scipy.special import ndtri

        spread = 0.12 * mean
        truth = np.maximum(mean + spread * rng.standard_normal((4, 6)), 0)
        values = np.maximum(mean[:, :, None] + spread[:, :, None] * ndtri(np.array(LEVELS)), 0)
        table = {"period_minutes": 15.0, "cycle": [40, 120], "phases": [
            {"name": "north-south", "approaches": ["north", "south"], "saturation": [1800.0, 1700.0], "min_green": 8, "lost_time": 4.0},
            {"name": "east-west", "approaches": ["east", "west"], "saturation": 1600.0, "min_green": 8, "lost_time": 4.0}]}
        return Example(table, Quantiles(LEVELS, values, ids, times), truth)


Row = tuple[int, np.ndarray]  # a period's cycle and greens, shape (phases,)


def _flows(problem: SignalsProblem, quantiles: Quantiles | None) -> Quantiles:
    quantiles = forecast(quantiles, "signals")
    named = [a for phase in problem.phases for a in phase.approaches]
    if sorted(named) != sorted(quantiles.ids):
        raise InputError("The phases have the approaches {named}; the forecast has {ids}. They should be the same.", named=named, ids=list(quantiles.ids))
    return quantiles


def _vehicle_hours(problem: SignalsProblem, ids: tuple[str, ...], flows: np.ndarray, cycle: int, greens: np.ndarray) -> float:
    """Expected vehicle-hours of delay in one period; flows: equally likely, shape (n, k)."""
    hours, total = problem.period_minutes / 60, 0.0
    for phase, green in zip(problem.phases, greens, strict=True):
        for a, s in zip(phase.approaches, phase.saturation, strict=True):
            flow = flows[ids.index(a)]
            total += float(np.mean(flow * hours * delay(flow, s, np.asarray(float(green)), np.asarray(float(cycle)), hours))) / 3600
    return total


def _best(problem: SignalsProblem, ids: tuple[str, ...], flows: np.ndarray, limit: np.ndarray | None) -> Row | None:
    """The cycle and greens of least delay; None where no cycle meets the demands. flows: shape (n, k)."""
    hours, most = problem.period_minutes / 60, problem.greens(problem.longest)
    green = np.arange(most + 1, dtype=float)
    best, found = np.inf, None
    for cycle in range(problem.shortest, problem.longest + 1):
        room = problem.greens(cycle)
        if room < sum(phase.min_green for phase in problem.phases):
            continue
        owns = []
        for phase in problem.phases:
            own, least = np.zeros(room + 1), phase.min_green
            for a, s in zip(phase.approaches, phase.saturation, strict=True):
                flow = flows[ids.index(a)][None, :]
                own += (flow * hours * delay(flow, s, np.maximum(green[:room + 1, None], 1e-6), np.asarray(float(cycle)), hours)).mean(axis=1) / 3600
                if limit is not None and problem.highest_degree is not None:
                    least = max(least, int(np.ceil(cycle * limit[ids.index(a)] / (problem.highest_degree * s) - 1e-9)))
            own[:min(least, room + 1)] = np.inf
            owns.append(own)
        total, greens = _shared(owns, room)
        if total < best:
            best, found = total, (cycle, greens)
    return found


def _shared(owns: list[np.ndarray], room: int) -> tuple[float, np.ndarray]:
    """The least sum of owns[p][greens[p]] whose greens sum to `room`, and these greens; each of `owns` has shape (room + 1,)."""
    table, choices = owns[0], []  # table[g]: least delay of the phases so far with g seconds given away
    before = np.subtract.outer(np.arange(room + 1), np.arange(room + 1))
    for own in owns[1:-1]:
        sums = np.where(before >= 0, table[np.maximum(before, 0)] + own[None, :], np.inf)
        choices.append(sums.argmin(axis=1))
        table = sums.min(axis=1)
    if len(owns) == 1:
        return float(table[room]), np.array([room])
    ends = table[::-1] + owns[-1]  # the last phase has what the others leave
    greens = [int(ends.argmin())]
    left = room - greens[0]
    for choice in reversed(choices):
        greens.append(int(choice[left]))
        left -= greens[-1]
    return float(ends.min()), np.array([left, *greens[::-1]])


def _demands(problem: SignalsProblem, ids: tuple[str, ...], limit: np.ndarray | None, period: str) -> Program:
    """The demands on one period as a program over greens and cycle, which says which of them clash."""
    made = Program()
    cycle = made.add(1, low=1.0, whole=True)
    greens = made.add(len(problem.phases), whole=True)
    made.row([*greens, cycle[0]], [*np.ones(len(greens)), -1.0], low=-problem.lost - 1 + 1e-6, high=-problem.lost)
    made.row(cycle, 1.0, high=problem.longest, says=say("a cycle of at most {seconds} seconds", seconds=problem.longest))
    made.row(cycle, 1.0, low=problem.shortest, says=say("a cycle of at least {seconds} seconds", seconds=problem.shortest))
    for p, phase in enumerate(problem.phases):
        made.row([greens[p]], 1.0, low=phase.min_green, says=say("at least {seconds} seconds of green in the phase '{phase}'", seconds=phase.min_green, phase=phase.name))
        for a, s in zip(phase.approaches, phase.saturation, strict=True):
            if limit is not None and problem.highest_degree is not None:
                made.row([greens[p], cycle[0]], [problem.highest_degree * s / 1000, -limit[ids.index(a)] / 1000], low=0.0,
                         says=say("flow / capacity of at most {degree:.2f} on '{approach}' in period {period}", degree=problem.highest_degree, approach=a, period=period))
    return made


def _websters(problem: SignalsProblem, ids: tuple[str, ...], flow: np.ndarray) -> Row:
    """Webster's cycle and splits for one flow of each approach, shape (n,), in whole seconds; a cycle too short for the shortest greens is made longer."""
    ratios = np.array([max(flow[ids.index(a)] / s for a, s in zip(phase.approaches, phase.saturation, strict=True)) for phase in problem.phases])
    least = np.array([phase.min_green for phase in problem.phases])
    cycle = int(np.clip(np.round(min(webster(ratios, problem.lost), 1e6)), problem.shortest, problem.longest))
    while problem.greens(cycle) < least.sum() and cycle < problem.longest:
        cycle += 1
    return cycle, _rounded(ratios, least, problem.greens(cycle))


def _exceeded(problem: SignalsProblem, quantiles: Quantiles, rows: list[Row]) -> tuple[Text, ...]:
    """The sentence that names approaches whose flow / capacity is above the highest allowed in some period; () for none."""
    if problem.highest_degree is None:
        return ()
    asked = np.maximum(quantiles.at(problem.degree_level), 0.0)
    over = [a for p, phase in enumerate(problem.phases) for a, s in zip(phase.approaches, phase.saturation, strict=True)
            if any(asked[quantiles.ids.index(a), t] > problem.highest_degree * s * greens[p] / cycle + 1e-9 for t, (cycle, greens) in enumerate(rows))]
    return (say("Webster's splits exceed the highest degree of saturation on: {approaches}.", approaches=over),) if over else ()


def _rounded(ratios: np.ndarray, least: np.ndarray, room: int) -> np.ndarray:
    """`room` seconds shared by the ratios, whole (largest remainder), none below `least`."""
    greens, free = least.astype(float), np.ones(len(least), dtype=bool)
    while free.any():  # phases that would fall below their least are fixed there, the others share the rest
        share = np.where(free, ratios if ratios[free].sum() > 0 else 1.0, 0.0)
        wanted = share / share.sum() * max(room - least[~free].sum(), 0.0)
        if not (short := free & (wanted < least)).any():
            greens = np.where(free, wanted, least)
            break
        free &= ~short
    whole = np.floor(greens + 1e-9).astype(int)
    for i in np.argsort(-(greens - whole), kind="stable")[:max(room - int(whole.sum()), 0)]:
        whole[i] += 1
    return whole


def _plan(problem: SignalsProblem, quantiles: Quantiles, rows: list[Row], facts: dict[str, Any]) -> Plan:
    flows = np.maximum(quantile_values(quantiles, middles(CASES)), 0.0)
    mean, index = flows.mean(axis=2), {name: i for i, name in enumerate(quantiles.ids)}
    periods: list[dict[str, Any]] = []
    signals: list[dict[str, Any]] = []
    for t, (cycle, greens) in enumerate(rows):
        periods.append({"period": quantiles.times[t], "cycle": int(cycle), "delay_vehicle_hours": _vehicle_hours(problem, quantiles.ids, flows[:, t], cycle, greens)})
        signals += [{"period": quantiles.times[t], "phase": phase.name, "green": int(green),
                     "degree": max(float(mean[index[a], t]) * cycle / (s * max(int(green), 1e-9)) for a, s in zip(phase.approaches, phase.saturation, strict=True))}
                    for phase, green in zip(problem.phases, greens, strict=True)]
    return Plan({"periods": periods, "signals": signals}, float(sum(p["delay_vehicle_hours"] for p in periods)), (), facts)


def _read(problem: SignalsProblem, plan: Plan) -> list[Row]:
    p = len(problem.phases)
    greens = np.array([row["green"] for row in plan.choice["signals"]]).reshape(-1, p)
    return [(int(row["cycle"]), greens[t]) for t, row in enumerate(plan.choice["periods"])]


SIGNALS = Signals()
