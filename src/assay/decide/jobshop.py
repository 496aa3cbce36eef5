"""Job shop: which operation runs when on which machine. Release and due dates, machines to choose from, maintenance, changeovers that depend on the order."""

from __future__ import annotations

import math
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide import gantt
from assay.decide.base import Decision, Example, Plan, Quantiles
from assay.decide.shop_problem import Shop, from_table, read_jsplib
from assay.decide.shop_rules import Slot, Times, cost, late, most_work_remaining, pushed
from assay.decide.shop_solver import clashes, cp_sat, schedule
from assay.errors import InputError
from assay.words import Text, say


class JobShop(Decision):
    """Solved by CP-SAT of OR-tools, with a bound and a gap when the time runs out.

    Costs the makespan, or the weighted time that jobs are late. An operation may name several machines (flexible job shop) and is never interrupted; a
    changeover may fall into a machine's closed time. A forecast's series are jobs by name and its steps their operations: the processing time of
    each on the first machine it names, planned at the problem's `level` (0.5 unless said).
    """

    name = "jobshop"
    about = say("Which operation runs when on which machine: due dates, maintenance, changeovers")
    forecast = "possible"
    needs = {"ortools": "plan"}
    reads = (".txt",)

    def problem(self, table: dict[str, Any], place: Path) -> Shop:
        return from_table(table, place)

    def problem_file(self, path: Path) -> Shop:
        return read_jsplib(path)

    def solve(self, problem: Shop, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        cp_sat()  # loading the library is not part of the time
        began, solver = time.perf_counter(), f"CP-SAT {version('ortools')}"
        stretch = _stretch(problem, quantiles)
        thumb = most_work_remaining(problem, stretch)
        found = schedule(problem, stretch, seconds=seconds, seed=seed, hint=thumb)
        if found.status == "infeasible":
            refused = clashes(problem, stretch, seconds=min(5.0, max(1.0, seconds)), seed=seed)
            return Plan({}, math.inf, refused, {"status": "infeasible", "seconds": time.perf_counter() - began, "solver": solver})
        slots, status = found.slots, found.status
        usable = not (problem.hard and late(problem, thumb))
        if status == "unknown" and not usable:
            return Plan({}, math.inf, (say("No schedule that keeps all due dates was found in {seconds:g} s; none was proven impossible either. Give it more time.", seconds=seconds),),
                        {"status": "infeasible", "seconds": time.perf_counter() - began, "solver": solver})
        if status == "unknown" or (usable and cost(problem, thumb) < cost(problem, slots)):
            slots, status, solver = thumb, "feasible", "most work remaining"
        plan = _plan(problem, slots, quantiles)
        bound = min(found.bound, plan.cost)
        plan.facts.update(status=status, bound=bound, gap=(plan.cost - bound) / plan.cost if plan.cost > 0 else 0.0, seconds=time.perf_counter() - began, solver=solver)
        return plan

    def rule(self, problem: Shop, quantiles: Quantiles | None) -> Plan:
        """Most work remaining, dispatched into an active schedule (Giffler and Thompson 1960)."""
        began = time.perf_counter()
        slots = most_work_remaining(problem, _stretch(problem, quantiles))
        plan = _plan(problem, slots, quantiles)
        broken: tuple[Text, ...] = ()
        if problem.hard and (missed := late(problem, slots)):
            broken = (say("The rule of thumb misses the due dates of {names}.", names=[problem.jobs[j].name for j, _ in missed[:12]]),)
        plan.facts.update(status="infeasible" if broken else "feasible", solver="most work remaining", seconds=time.perf_counter() - began)
        return Plan(plan.choice, plan.cost, broken, plan.facts)

    def realised(self, problem: Shop, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """The schedule with the true processing times, shape (1,): machines and the order on them stay, operations are pushed right or move up.
        truth: shape (n jobs of the forecast, h operations); nan, and operations beyond h, keep the planned time. None: all do."""
        if not plan.choice:
            return np.array([math.inf])
        index, machines = {job.name: j for j, job in enumerate(problem.jobs)}, {m: i for i, m in enumerate(problem.machines)}
        slots = [Slot(index[r["job"]], r["step"] - 1, machines[r["machine"]], r["start"], r["end"]) for r in plan.choice["operations"]]
        stretch = [[1.0] * len(job.operations) for job in problem.jobs]
        for slot, row in zip(slots, plan.choice["operations"], strict=True):
            base = dict(problem.jobs[slot.job].operations[slot.step].on)[slot.machine]
            stretch[slot.job][slot.step] = row["time"] / base if base > 0 else 1.0
        if truth is not None:
            stretch = _fitted(problem, plan.facts.get("ids", []), np.asarray(truth, dtype=float), stretch)
        return np.array([cost(problem, pushed(problem, slots, stretch))])

    def picture(self, problem: Shop, plan: Plan, words: Any = str) -> str:
        return gantt.draw(problem, plan, words)

    def example(self, seed: int = 0) -> Example:
        rng = np.random.default_rng(seed)
        machines = ["saw", "mill", "drill"]
        usual = rng.integers(3, 12, (5, 3)).astype(float)
        spread = 0.2 * usual
        levels = (0.1, 0.3, 0.5, 0.7, 0.9)
        z = np.array([-1.282, -0.524, 0.0, 0.524, 1.282])
        names = tuple(f"order {i + 1}" for i in range(5))
        jobs = []
        for i, name in enumerate(names):
            order = rng.permutation(3)
            operations: list[dict[str, Any]] = [{"machine": machines[m], "time": usual[i, k], "family": "ab"[i % 2]} for k, m in enumerate(order)]
            jobs.append({"name": name, "release": int(rng.integers(0, 6)), "due": 35, "weight": int(rng.integers(1, 4)), "operations": operations})
        table = {"machines": machines, "objective": "tardiness", "jobs": jobs, "maintenance": [{"machine": "mill", "start": 15, "end": 20}],
                 "changeovers": [{"machine": "saw", "from": "a", "to": "b", "time": 2}, {"machine": "saw", "from": "b", "to": "a", "time": 1}]}
        truth = np.maximum(0.5, usual + spread * rng.standard_normal(usual.shape))
        return Example(table, Quantiles(levels, usual[:, :, None] + spread[:, :, None] * z, names, ("1", "2", "3")), truth)


def _stretch(shop: Shop, quantiles: Quantiles | None) -> Times:
    """How much longer than in the problem each operation takes at the problem's level."""
    plain = [[1.0] * len(job.operations) for job in shop.jobs]
    if quantiles is None:
        return plain
    if not {j.name for j in shop.jobs} & set(quantiles.ids):
        raise InputError("The forecast is of {series}, the jobs are called {jobs}: none is the same. Name the jobs like the series.",
                         series=list(quantiles.ids[:5]), jobs=[j.name for j in shop.jobs[:5]])
    return _fitted(shop, quantiles.ids, quantiles.at(shop.level), plain)


def _fitted(shop: Shop, ids: Any, times: np.ndarray, base: Times) -> Times:
    index = {str(name): i for i, name in enumerate(ids)}
    out = [list(row) for row in base]
    for j, job in enumerate(shop.jobs):
        if job.name not in index:
            continue
        for s, op in enumerate(job.operations[: times.shape[1]]):
            value = float(times[index[job.name], s])
            if math.isfinite(value) and op.on[0][1] > 0:
                out[j][s] = max(0.0, value) / op.on[0][1]
    return out


def _plan(shop: Shop, slots: list[Slot], quantiles: Quantiles | None) -> Plan:
    rows: list[dict[str, Any]] = [
        {"job": shop.jobs[s.job].name, "step": s.step + 1, "machine": shop.machines[s.machine], "start": round(s.start, 6), "end": round(s.end, 6), "time": s.end - s.start}
        for s in sorted(slots, key=lambda s: (s.machine, s.start, s.end, s.job, s.step))]
    ends = {j: max(s.end for s in slots if s.job == j) for j in range(len(shop.jobs))}
    jobs = [{"job": job.name, "end": round(ends[j], 6), "due": None if math.isinf(job.due) else job.due, "late": round(max(0.0, ends[j] - job.due), 6)} for j, job in enumerate(shop.jobs)]
    facts: dict[str, Any] = {"objective": shop.objective, "makespan": max(ends.values())}
    if quantiles is not None:
        facts["ids"] = list(quantiles.ids)
    if shop.best_known:
        facts.update(best_known=shop.best_known, gap_to_best_known=cost(shop, slots) / shop.best_known - 1)
    return Plan({"operations": rows, "jobs": jobs}, cost(shop, slots), (), facts)


JOBSHOP = JobShop()
