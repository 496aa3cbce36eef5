"""How many people work which shift, from quantiles of demand: agents, teachers, nurses or beds, with skills, rest and hours."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, GREY, frame, text, ticks
from assay.decide.program import no_plan
from assay.decide.roster import Calls, Group, Shift, StaffingProblem, Turn, demands, named, program, rest, shortage, turns
from assay.decide.terms import Fields, each, forecast, known_truth
from assay.errors import InputError
from assay.words import say

FIELDS = ("period_minutes", "shortage_cost", "minimum", "rest_hours", "shifts", "staff", "calls")
SHIFT_FIELDS = ("name", "start", "length", "cost", "every", "breaks")
STAFF_FIELDS = ("name", "count", "skills", "shifts", "extra_cost", "most_hours")
MARGIN = 1.1  # the rule of thumb covers the mean and a tenth
Worked = list[tuple[int, int, Turn, int]]  # (unit, group, turn, people)


class Staffing(Decision):
    name = "staffing"
    about = say("Shifts of staff with skills, rest and hours against forecast demand: least cost of shifts and shortage")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> StaffingProblem:
        f = Fields(table, say("The staffing problem"), FIELDS)
        shifts: list[Shift] = []
        for row in f.rows("shifts"):
            g = Fields(row, say("A shift"), SHIFT_FIELDS)
            length = g.whole("length", low=1)
            breaks = tuple(int(b) for b in g.numbers("breaks", low=0, high=length - 1)) if row.get("breaks") else ()
            shifts.append(Shift(g.word("name"), g.whole("start"), length, g.number("cost", low=0), g.whole("every", 0), breaks))
        staff: list[Group] = []
        for row in f.rows("staff"):
            g = Fields(row, say("A group of staff"), STAFF_FIELDS)
            staff.append(Group(g.word("name", "staff"), g.whole("count", high=10_000), g.names("skills") if g.has("skills") else (), g.names("shifts") if g.has("shifts") else (),
                               g.number("extra_cost", 0.0, low=0), g.number("most_hours", low=0) if g.has("most_hours") else math.inf))
        for what, names in (("shifts", [s.name for s in shifts]), ("staff", [g.name for g in staff])):
            if twice := [name for i, name in enumerate(names) if name in names[:i]]:
                raise InputError("Two of the {what} are called '{name}'. Give each its own name.", what=what, name=twice[0])
        for group in staff:
            if unknown := [s for s in group.shifts if s not in {shift.name for shift in shifts}]:
                raise InputError("The group '{group}' works the shift '{shift}', which does not exist. There are: {names}.", group=group.name, shift=unknown[0],
                                 names=[shift.name for shift in shifts])
        calls = None
        if f.has("calls"):
            c = Fields(table["calls"] if isinstance(table["calls"], dict) else {"calls": table["calls"]}, say("The table [calls]"), ("handle_seconds", "within_seconds", "service_level"))
            calls = Calls(c.number("handle_seconds", low=0, above=True), c.number("within_seconds", 20.0, low=0), c.number("service_level", 0.8, low=0, high=0.999))
        return StaffingProblem(tuple(shifts), tuple(staff), f.amounts("shortage_cost", low=0), f.amounts("minimum", 0.0, low=0), f.number("period_minutes", 60.0, low=0, above=True),
                               f.number("rest_hours", 0.0, low=0), calls)

    def solve(self, problem: StaffingProblem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        """A mixed-integer program: cost of shifts + expected cost of being short, over the whole distribution of each demand.

        Where a stream has one shift and no limits, that is the newsvendor's quantile at the critical ratio 1 - shift cost / shortage cost.
        """
        began = time.monotonic()
        quantiles = self._asked(problem, quantiles)
        needed = demands(problem, quantiles)
        made, columns, idle = program(problem, quantiles.ids, quantiles.times, needed)
        answer = made.solve(seconds=seconds, gap=1e-4)
        facts: dict[str, Any] = {"solver": "HiGHS", "ids": list(quantiles.ids)}
        if answer.x is None:
            return no_plan(made, answer, seconds=seconds, facts=facts)
        every = turns(problem, len(quantiles.times))
        worked = [(u, columns.units[u][0], every[o], int(answer.x[x])) for u, o, x in columns.shifts if answer.x[x] > 0.5]
        served = np.where(columns.served >= 0, answer.x[np.maximum(columns.served, 0)], 0.0).sum(axis=0)
        plan = _plan(problem, quantiles, needed, worked, np.maximum(served, 0.0), facts | {"status": answer.status, "seconds": round(time.monotonic() - began, 3)})
        if answer.bound is not None:  # the program leaves out what it costs if nobody works
            bound = min(answer.bound + idle, plan.cost)
            plan.facts.update(bound=bound, gap=(plan.cost - bound) / plan.cost if plan.cost > 0 else 0.0)
        return plan

    def rule(self, problem: StaffingProblem, quantiles: Quantiles | None) -> Plan:
        """Covers the mean demand + 10 %, period by period from the first, with the shift that is cheapest an hour among those of people who are free."""
        quantiles = self._asked(problem, quantiles)
        needed, ids, h = demands(problem, quantiles), quantiles.ids, len(quantiles.times)
        wanted, served = np.ceil(MARGIN * needed.mean(axis=2) - 1e-9), np.zeros((len(ids), h))
        every, pause = turns(problem, h), rest(problem)
        people = [(g, list[Turn]()) for g, group in enumerate(problem.staff) for _ in range(group.count)]

        def free(g: int, own: list[Turn], turn: Turn) -> bool:
            group = problem.staff[g]
            hours = sum(len(other.works) for other in own) + len(turn.works)
            return hours * problem.hour <= group.most_hours + 1e-9 and all(turn.start >= o.end + pause or o.start >= turn.end + pause for o in own)

        for t in range(h):
            for i, stream in enumerate(ids):
                able = [(g, turn) for g, group in enumerate(problem.staff) if stream in (group.skills or ids) for turn in every
                        if t in turn.works and (not group.shifts or problem.shifts[turn.number].name in group.shifts)]
                able.sort(key=lambda pair: (problem.shifts[pair[1].number].cost + problem.staff[pair[0]].extra) / len(pair[1].works))
                while served[i, t] < wanted[i, t]:
                    found = next(((j, turn) for g, turn in able for j, (own_group, own) in enumerate(people) if own_group == g and free(g, own, turn)), None)
                    if found is None:
                        break
                    people[found[0]][1].append(found[1])
                    served[i, list(found[1].works)] += 1
        worked = [(j, g, turn, 1) for j, (g, own) in enumerate(people) for turn in own]
        plan = _plan(problem, quantiles, needed, worked, served, {"ids": list(ids)})
        least = each(problem.minimum, ids, "minimum")
        below = [ids[i] for i in range(len(ids)) if (served[i] < least[i] - 1e-9).any()]
        broken = (say("The rule leaves fewer people than the minimum on: {streams}.", streams=below),) if below else ()
        return Plan(plan.choice, plan.cost, broken, plan.facts)

    def realised(self, problem: StaffingProblem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Cost of shifts and of shortage under the true demand (n, h): shape (n,), one for each stream, where every group has one skill; otherwise (1,)."""
        ids = tuple(plan.facts["ids"])
        apart = all(len(group.skills or ids) == 1 for group in problem.staff)
        if not plan.choice:
            return np.full(len(ids) if apart else 1, np.inf)
        staff = np.array([row["people"] for row in plan.choice["coverage"]]).reshape(len(ids), -1)
        parts = shortage(problem, ids, staff, problem.people(known_truth(truth, len(ids), staff.shape[1])))
        skill = {group.name: (group.skills or ids)[0] for group in problem.staff}
        for row in plan.choice["shifts"]:
            parts[ids.index(skill[row["group"]]) if apart else 0] += row["cost"]
        return parts if apart else np.array([parts.sum()])

    def picture(self, problem: StaffingProblem, plan: Plan, words: Any = str) -> str:
        title = words(say("People at work and people needed"))
        if not plan.choice:
            return frame(720, 60, [text(14, 34, words(say("There is no plan to draw.")))], title)
        ids, parts, top = plan.facts["ids"][:8], [text(14, 18, title, bold=True)], 40.0
        for stream in ids:
            rows = [row for row in plan.choice["coverage"] if row["stream"] == stream]
            most = max(max(row["people"], row["needed_high"]) for row in rows) or 1.0
            wide, floor = 640.0 / len(rows), top + 100

            def steps(key: str, rows: list[dict[str, Any]] = rows, wide: float = wide, floor: float = floor, most: float = most) -> list[str]:
                return [f"{50 + wide * (t + side):.1f},{floor - 84 * row[key] / most:.1f}" for t, row in enumerate(rows) for side in (0, 1)]

            parts += [text(50, top + 8, stream), f'<line x1="50" x2="690" y1="{floor}" y2="{floor}" stroke="{GREY}"/>',
                      *(text(44, floor - 84 * tick / most + 4, f"{tick:g}", anchor="end") for tick in ticks(0, most, most=3)),
                      f'<polygon points="{" ".join(steps("needed_high") + steps("needed_low")[::-1])}" fill="{COLOURS[1]}" fill-opacity="0.35"/>',
                      f'<polyline points="{" ".join(steps("needed"))}" fill="none" stroke="{COLOURS[1]}" stroke-width="1.5"/>',
                      f'<polyline points="{" ".join(steps("people"))}" fill="none" stroke="{COLOURS[0]}" stroke-width="2"/>']
            parts += [text(50 + wide * (t + 0.5), floor + 15, str(rows[t]["period"])[:10], anchor="middle") for t in range(0, len(rows), max(1, len(rows) // 8))]
            top += 132
        parts.append(text(50, top + 6, words(say("blue: people at work; orange: people needed, its median and 80 % band"))))
        return frame(720, top + 16, parts, title)

    def example(self, seed: int = 0) -> Example:
        """Two streams over the 12 hours of a day, three shifts, people with one or both skills; demand is Poisson, and the forecast knows its mean within 8 %."""
        from scipy.stats import poisson

        rng = np.random.default_rng(seed)
        times = tuple(f"{8 + t:02d}:00" for t in range(12))
        shape = np.array([0.5, 0.8, 1.1, 1.2, 1.0, 0.9, 1.1, 1.2, 1.0, 0.8, 0.5, 0.4])
        mean = np.array([9.0, 5.0])[:, None] * shape * rng.uniform(0.9, 1.1, (2, 12))
        truth = rng.poisson(mean).astype(float)
        guess = mean * rng.uniform(0.92, 1.08, mean.shape)
        values = poisson.ppf(np.array(LEVELS), guess[:, :, None])
        table = {"period_minutes": 60.0, "shortage_cost": 60.0, "rest_hours": 11.0, "shifts": [
            {"name": "early", "start": 0, "length": 8, "cost": 160.0, "breaks": [4]}, {"name": "late", "start": 4, "length": 8, "cost": 170.0, "breaks": [2]},
            {"name": "short", "start": 2, "length": 4, "cost": 95.0}],
            "staff": [{"name": "phone", "count": 12, "skills": ["phone"]}, {"name": "mail", "count": 6, "skills": ["mail"]},
                      {"name": "both", "count": 4, "extra_cost": 15.0, "most_hours": 8.0}]}
        return Example(table, Quantiles(LEVELS, values, ("phone", "mail"), times), truth)

    def _asked(self, problem: StaffingProblem, quantiles: Quantiles | None) -> Quantiles:
        quantiles = forecast(quantiles, self.name)
        for group in problem.staff:
            if unknown := [s for s in group.skills if s not in quantiles.ids]:
                raise InputError("The group '{group}' has the skill '{skill}', which is not forecast. The forecast has: {ids}.", group=group.name, skill=unknown[0],
                                 ids=list(quantiles.ids)[:12])
        return quantiles


def _plan(problem: StaffingProblem, quantiles: Quantiles, needed: np.ndarray, worked: Worked, served: np.ndarray, facts: dict[str, Any]) -> Plan:
    counted: dict[tuple[int, Turn], int] = {}
    for _, g, turn, people in worked:
        counted[g, turn] = counted.get((g, turn), 0) + people
    times = quantiles.times
    shifts: list[dict[str, Any]] = [{"shift": problem.shifts[turn.number].name, "group": problem.staff[g].name, "from": times[turn.start], "people": people,
               "cost": people * (problem.shifts[turn.number].cost + problem.staff[g].extra)} for (g, turn), people in sorted(counted.items(), key=lambda item: (item[0][1].start, item[0][0]))]
    roster = [{"person": name, "shift": problem.shifts[turn.number].name, "from": times[turn.start], "until": times[turn.end - 1]} for name, turn in named(problem, worked)]
    edges = {key: problem.people(quantiles.at(level)) for key, level in (("needed_low", 0.1), ("needed", 0.5), ("needed_high", 0.9))}
    coverage = [{"stream": stream, "period": times[t], "people": round(float(served[i, t]), 9), **{key: float(edge[i, t]) for key, edge in edges.items()}}
                for i, stream in enumerate(quantiles.ids) for t in range(len(times))]
    paid, short = sum(row["cost"] for row in shifts), float(shortage(problem, quantiles.ids, served, needed).sum())
    return Plan({"shifts": shifts, "roster": roster, "coverage": coverage}, paid + short, (), {**facts, "shift_cost": paid, "expected_shortage_cost": short})


STAFFING = Staffing()
