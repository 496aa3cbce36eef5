"""When to stop which machine for service, from quantiles of its remaining life, with a crew that can be at few machines at a time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, GREY, frame, text
from assay.decide.program import Program, no_plan
from assay.decide.terms import Fields, each, forecast, known_truth, middles, quantile_values
from assay.errors import InputError
from assay.words import say

CASES = 400  # equally likely lives by which a machine's distribution is told; a probability is then right to 0.0025
RULE_LEVEL = 0.1
FIELDS = ("slots", "slot_cycles", "crew", "planned_cost", "unplanned_cost", "planned_hours", "unplanned_hours", "downtime_cost", "lost_cycle_cost", "crew_needed",
          "duration", "utilisation", "highest_risk")


@dataclass(frozen=True, eq=False)
class MaintenanceProblem:
    """slot_cycles: cycles that a machine runs in a slot. crew: people in each slot, shape (slots,). planned_cost, unplanned_cost: of a stop, downtime not counted;
    lost_cycle_cost: of a cycle of life that an early service throws away. utilisation: share of machines that run in every slot. highest_risk: largest
    probability that a machine fails before its service. Numbers, or tables {machine: number}."""

    slots: int
    slot_cycles: float
    crew: np.ndarray
    planned_cost: float | dict[str, float]
    unplanned_cost: float | dict[str, float]
    planned_hours: float | dict[str, float]
    unplanned_hours: float | dict[str, float]
    downtime_cost: float | dict[str, float]
    lost_cycle_cost: float | dict[str, float]
    crew_needed: float | dict[str, float]
    duration: int
    utilisation: float
    highest_risk: float

    def stop_costs(self, ids: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a planned stop, an unplanned one, and a lost cycle cost, shape (n,) each."""
        hour = each(self.downtime_cost, ids, "downtime_cost")
        planned = each(self.planned_cost, ids, "planned_cost") + hour * each(self.planned_hours, ids, "planned_hours")
        unplanned = each(self.unplanned_cost, ids, "unplanned_cost") + hour * each(self.unplanned_hours, ids, "unplanned_hours")
        return planned, unplanned, each(self.lost_cycle_cost, ids, "lost_cycle_cost")

    @property
    def starts(self) -> int:
        """Slots in which a service may begin: it has to end within the horizon."""
        return self.slots - self.duration + 1


class Maintenance(Decision):
    name = "maintenance"
    about = say("When to stop which machine for service, from quantiles of remaining life")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> MaintenanceProblem:
        f = Fields(table, say("The maintenance problem"), FIELDS)
        slots = f.whole("slots", low=1, high=1000)
        if isinstance(table.get("crew"), list):
            crew = np.array(f.numbers("crew", low=0))
            if len(crew) != slots:
                raise InputError("'crew' has {found} numbers. It should be one number, or one for each of the {slots} slots.", found=len(crew), slots=slots)
        else:
            crew = np.full(slots, f.number("crew", low=0))
        positive = {key: f.amounts(key, default, low=0) for key, default in
                    (("planned_cost", None), ("unplanned_cost", None), ("planned_hours", 0.0), ("unplanned_hours", 0.0), ("downtime_cost", 0.0), ("lost_cycle_cost", 0.0))}
        return MaintenanceProblem(slots, f.number("slot_cycles", low=0, above=True), crew, **positive, crew_needed=f.amounts("crew_needed", 1.0, low=0),
                                  duration=f.whole("duration", 1, low=1, high=slots), utilisation=f.number("utilisation", 0.0, low=0, high=1),
                                  highest_risk=f.number("highest_risk", 1.0, low=0, high=1))

    def solve(self, problem: MaintenanceProblem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        """A mixed-integer program over (machine, slot): the expected cost of each follows from the distribution of the remaining life, so nothing is sampled."""
        began = time.monotonic()
        quantiles = forecast(quantiles, self.name, steps=1)
        cost, risk = expected(problem, quantiles)
        made, start = self._program(problem, quantiles.ids, cost, risk)
        answer = made.solve(seconds=seconds)
        facts: dict[str, Any] = {"solver": "HiGHS", "ids": list(quantiles.ids)}
        if answer.x is None:
            return no_plan(made, answer, seconds=seconds, facts=facts)
        chosen = answer.x[start].argmax(axis=1)
        more = {"status": answer.status, "bound": answer.bound, "gap": answer.gap, "seconds": round(time.monotonic() - began, 3)}
        return _plan(problem, quantiles, chosen, cost, risk, facts | more)

    def rule(self, problem: MaintenanceProblem, quantiles: Quantiles | None) -> Plan:
        """Every machine is due at the 10 % quantile of its remaining life (its L10 life); who is due first gets the crew first, who finds it busy waits."""
        quantiles = forecast(quantiles, self.name, steps=1)
        cost, risk = expected(problem, quantiles)
        n, starts = len(quantiles.ids), problem.starts
        due = np.maximum(np.floor(quantiles.at(RULE_LEVEL)[:, 0] / problem.slot_cycles), 0)
        needed, free = each(problem.crew_needed, quantiles.ids, "crew_needed"), problem.crew.astype(float).copy()
        stopped, most = np.zeros(problem.slots), _stopped_at_once(problem, n)
        chosen = np.full(n, starts)
        for i in np.argsort(due, kind="stable"):
            for t in range(int(min(due[i], starts)), starts):
                during = slice(t, t + problem.duration)
                if (free[during] >= needed[i]).all() and (stopped[during] < most).all():
                    free[during] -= needed[i]
                    stopped[during] += 1
                    chosen[i] = t
                    break
        late = [quantiles.ids[i] for i in range(n) if risk[i, chosen[i]] > problem.highest_risk + 1e-9]
        broken = (say("The rule lets these machines run beyond a risk of failure of {risk:.0%}: {machines}.", risk=problem.highest_risk, machines=late),) if late else ()
        plan = _plan(problem, quantiles, chosen, cost, risk, {"ids": list(quantiles.ids)})
        return Plan(plan.choice, plan.cost, broken, plan.facts)

    def realised(self, problem: MaintenanceProblem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """What each machine cost, shape (n,), once its remaining life (n, 1) is known: the planned stop and the cycles thrown away, or the unplanned one.

        A machine that failed is repaired outside the plan and, like one that was serviced, lasts until the end of the horizon.
        """
        ids = tuple(plan.facts["ids"])
        life = np.maximum(known_truth(truth, len(ids), 1)[:, 0], 0.0)
        if not plan.choice:
            return np.full(len(ids), np.inf)
        return _cost_at(problem, ids, np.array([problem.starts if r["slot"] is None else r["slot"] - 1 for r in plan.choice["stops"]]), life[:, None])[:, 0]

    def _program(self, problem: MaintenanceProblem, ids: tuple[str, ...], cost: np.ndarray, risk: np.ndarray) -> tuple[Program, np.ndarray]:
        n, choices = cost.shape
        made = Program()
        start = made.add(n * choices, cost=cost.ravel(), high=1.0, whole=True).reshape(n, choices)
        needed, most = each(problem.crew_needed, ids, "crew_needed"), _stopped_at_once(problem, n)
        for i, name in enumerate(ids):
            made.row(start[i], 1.0, low=1.0, high=1.0)
            if (bad := risk[i] > problem.highest_risk + 1e-9).any():
                made.row(start[i][bad], 1.0, high=0.0, says=say("a risk of failure before its service of at most {risk:.1%} for {machine}",
                                                                risk=problem.highest_risk, machine=name))
        for t in range(problem.slots):
            busy = start[:, max(0, t - problem.duration + 1):min(t + 1, problem.starts)]
            if not busy.size:
                continue
            made.row(busy, np.repeat(needed, busy.shape[1]), high=float(problem.crew[t]),
                     says=say("a crew of {crew:g} in slot {slot}", crew=float(problem.crew[t]), slot=t + 1))
            if most < n:
                made.row(busy, 1.0, high=most, says=say("at least {share:.0%} of the machines running in every slot", share=problem.utilisation))
        return made, start

    def picture(self, problem: MaintenanceProblem, plan: Plan, words: Any = str) -> str:
        title = words(say("Services, and when machines are likely to fail"))
        if not plan.choice:
            return frame(720, 60, [text(14, 34, words(say("There is no plan to draw.")))], title)
        rows = plan.choice["stops"][:60]
        left, wide, floor = 120.0, 580.0, 44 + 22 * len(rows)
        per = wide / problem.slots

        def x(cycles: float) -> float:
            return left + per * min(max(cycles / problem.slot_cycles, 0.0), problem.slots)

        parts = [text(14, 18, title, bold=True)]
        for t in range(0, problem.slots + 1, max(1, math.ceil(problem.slots / 12))):
            parts += [f'<line x1="{left + per * t:.1f}" x2="{left + per * t:.1f}" y1="34" y2="{floor}" stroke="{GREY}" stroke-opacity="0.35"/>',
                      text(left + per * (t + 0.5), floor + 16, str(t + 1), anchor="middle") if t < problem.slots else ""]
        for i, row in enumerate(rows):
            y = 40 + 22 * i
            life = row["life_10"], row["life_50"], row["life_90"]
            parts += [text(left - 8, y + 13, str(row["machine"])[:16], anchor="end"),
                      f'<rect x="{x(life[0]):.1f}" y="{y + 7}" width="{max(x(life[2]) - x(life[0]), 0.8):.1f}" height="4" fill="{GREY}"/>']
            if life[1] < problem.slots * problem.slot_cycles:
                parts.append(f'<rect x="{x(life[1]) - 1:.1f}" y="{y + 3}" width="3" height="12" fill="{GREY}"/>')
            if row["slot"] is not None:
                parts.append(f'<rect x="{left + per * (row["slot"] - 1) + 1:.1f}" y="{y}" width="{per * problem.duration - 2:.1f}" height="18" rx="3" fill="{COLOURS[0]}" '
                             f'fill-opacity="0.85"><title>{words(say("probability of failing before: {risk:.0%}", risk=row["risk"]))}</title></rect>')
        parts += [text(left, floor + 34, words(say("slots; blue: service; grey: 10 %, 50 % and 90 % quantile of remaining life")))]
        return frame(720, floor + 44, parts, title)

    def example(self, seed: int = 0) -> Example:
        """Eight machines, ten slots of ten cycles, one crew; lives are Weibull with shape 3, and the forecast knows each machine's scale within 15 %."""
        rng = np.random.default_rng(seed)
        ids = tuple(f"press {i + 1}" for i in range(8))
        scale = rng.uniform(20, 160, 8)
        truth = (scale * rng.weibull(3.0, 8))[:, None]
        guess = scale * rng.uniform(0.85, 1.15, 8)
        values = guess[:, None] * (-np.log(1 - np.array(LEVELS))) ** (1 / 3)
        table = {"slots": 10, "slot_cycles": 10.0, "crew": 1, "planned_cost": 2000.0, "unplanned_cost": 9000.0, "planned_hours": 4.0, "unplanned_hours": 16.0,
                 "downtime_cost": 250.0, "lost_cycle_cost": 20.0, "utilisation": 0.75}
        return Example(table, Quantiles(LEVELS, values[:, None, :], ids, ("life",)), truth)


def expected(problem: MaintenanceProblem, quantiles: Quantiles) -> tuple[np.ndarray, np.ndarray]:
    """Expected cost of servicing machine i in slot t, shape (n, starts + 1), the last column for not at all; and the risk that it fails before."""
    lives = np.maximum(quantile_values(quantiles, middles(CASES))[:, 0], 0.0)
    starts = problem.starts
    cost = np.stack([_cost_at(problem, quantiles.ids, np.full(len(lives), t), lives).mean(axis=1) for t in range(starts + 1)], axis=1)
    until = np.append(np.arange(starts), problem.slots) * problem.slot_cycles
    return cost, (lives[:, None, :] < until[None, :, None]).mean(axis=2)


def _cost_at(problem: MaintenanceProblem, ids: tuple[str, ...], slot: np.ndarray, life: np.ndarray) -> np.ndarray:
    """Cost of a service in `slot`, shape (n,), counted from 0, `starts` for none, if lives are `life`, shape (n, k)."""
    planned, unplanned, cycle = (v[:, None] for v in problem.stop_costs(ids))
    served = (slot < problem.starts)[:, None]
    until = np.where(served, slot[:, None], problem.slots) * problem.slot_cycles
    return np.where(life < until, unplanned, np.where(served, planned + cycle * np.maximum(life - until, 0.0), 0.0))


def _stopped_at_once(problem: MaintenanceProblem, n: int) -> int:
    return math.floor(n * (1 - problem.utilisation) + 1e-9)


def _plan(problem: MaintenanceProblem, quantiles: Quantiles, chosen: np.ndarray, cost: np.ndarray, risk: np.ndarray, facts: dict[str, Any]) -> Plan:
    life = {level: quantiles.at(level)[:, 0] for level in (0.1, 0.5, 0.9)}
    rows: list[dict[str, Any]] = [{"machine": name, "slot": int(t) + 1 if t < problem.starts else None, "cycles": float(t * problem.slot_cycles) if t < problem.starts else None,
             "risk": float(risk[i, t]), "expected_cost": float(cost[i, t]), "life_10": float(life[0.1][i]), "life_50": float(life[0.5][i]), "life_90": float(life[0.9][i])}
            for i, (name, t) in enumerate(zip(quantiles.ids, chosen, strict=True))]
    return Plan({"stops": rows}, float(sum(row["expected_cost"] for row in rows)), (), facts)


MAINTENANCE = Maintenance()
