"""A job shop in the terms of CP-SAT (OR-tools; Perron and Didier): intervals, one at a time on a machine, a circuit through the operations where changeovers
depend on what came before. It counts in whole numbers: times that are not whole are taken in hundredths, rounded up."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from assay.decide.shop_problem import Shop
from assay.decide.shop_rules import Slot, Times, length, pushed
from assay.errors import MissingExtra
from assay.words import Text, say

WORKERS = 8  # CP-SAT searches in all its ways only from 8 on, also on 2 cores: abz5 was proven in 23 s, with 2 workers not in 45 (gap 15 %)


def cp_sat() -> Any:
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise MissingExtra("ortools", extra="plan") from None
    return cp_model


@dataclass(frozen=True)
class Answer:
    """status: 'optimal', 'feasible', 'infeasible' or 'unknown' (out of time, nothing found). bound: no schedule costs less."""

    status: str
    slots: list[Slot]
    bound: float


@dataclass(frozen=True)
class _Model:
    model: Any
    starts: dict[tuple[int, int], Any]
    on: dict[tuple[int, int], list[tuple[int, Any]]]
    grain: int
    due: dict[int, Any]


def schedule(shop: Shop, stretch: Times, *, seconds: float, seed: int, hint: list[Slot]) -> Answer:
    """The best schedule that is found in so many seconds. hint: a schedule to begin with."""
    cp, began = cp_sat(), time.perf_counter()  # loading the library is not part of the time
    built = _build(shop, stretch, hint, due="hard" if shop.hard else "")
    solver = _solver(max(0.05, seconds - (time.perf_counter() - began)), seed, workers=WORKERS)
    status = solver.solve(built.model)
    if status == cp.INFEASIBLE:
        return Answer("infeasible", [], math.inf)
    if status not in (cp.OPTIMAL, cp.FEASIBLE):
        return Answer("unknown", [], 0.0)
    # times that were rounded up may have added this much to the cost of the schedule that is best in truth
    rounding = 0.0 if built.grain == 1 else sum(len(j.operations) for j in shop.jobs) / built.grain * (1.0 if shop.objective == "makespan" else sum(j.weight for j in shop.jobs))
    bound = max(0.0, solver.best_objective_bound / (built.grain * (1 if shop.objective == "makespan" else _weights(shop)[0])) - rounding)
    slots = []
    for (j, s), ways in built.on.items():
        machine = next(m for m, chosen in ways if solver.boolean_value(chosen))
        start = solver.value(built.starts[j, s]) / built.grain
        slots.append(Slot(j, s, machine, start, start + length(shop, stretch, j, s, machine)))
    return Answer("optimal" if status == cp.OPTIMAL else "feasible", pushed(shop, slots, stretch), bound)


def _solver(seconds: float, seed: int, *, workers: int) -> Any:
    solver = cp_sat().CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed % 2**31
    return solver


def _weights(shop: Shop) -> tuple[int, list[int]]:
    """(factor, weights times factor as whole numbers)."""
    factor = 1 if all(float(j.weight).is_integer() for j in shop.jobs) else 100
    return factor, [round(j.weight * factor) for j in shop.jobs]


def _build(shop: Shop, stretch: Times, hint: list[Slot], *, due: str) -> _Model:
    """due: 'hard', 'assumed' (each due date is kept if its literal is true), or '' where none has to be kept."""
    model = cp_sat().CpModel()
    lengths = {(j, s, m): length(shop, stretch, j, s, m) for j, job in enumerate(shop.jobs) for s, op in enumerate(job.operations) for m, _ in op.on}
    figures = [*lengths.values(), *(j.release for j in shop.jobs), *shop.changeover.values(), *(t for spans in shop.closed for span in spans for t in span)]
    grain = 1 if all(float(f).is_integer() for f in figures) else 100

    def up(value: float) -> int:
        return math.ceil(value * grain - 1e-6)

    longest = {(j, s): max(lengths[j, s, m] for m, _ in op.on) for j, job in enumerate(shop.jobs) for s, op in enumerate(job.operations)}
    slowest = max(shop.changeover.values(), default=0.0)
    # each operation one after the other behind every release and closure always fits
    horizon = up(max([j.release for j in shop.jobs] + [high for spans in shop.closed for _, high in spans]) + sum(longest.values())) + len(longest) * (up(slowest) + 1)
    starts: dict[tuple[int, int], Any] = {}
    on: dict[tuple[int, int], list[tuple[int, Any]]] = {}
    lanes: list[list[tuple[Any, Any, Any, Any, str]]] = [[] for _ in shop.machines]
    ends: dict[tuple[int, int], Any] = {}
    for j, job in enumerate(shop.jobs):
        for s, op in enumerate(job.operations):
            name = f"{j}.{s}"
            start, end = model.new_int_var(up(job.release), horizon, f"s{name}"), model.new_int_var(up(job.release), horizon, f"e{name}")
            starts[j, s], ends[j, s], on[j, s] = start, end, []
            if s:
                model.add(start >= ends[j, s - 1])
            if len(op.on) == 1:
                machine = op.on[0][0]
                takes = up(lengths[j, s, machine])
                lanes[machine].append((model.new_interval_var(start, takes, end, f"i{name}"), start, end, model.new_constant(1), op.family))
                on[j, s].append((machine, lanes[machine][-1][3]))
                continue
            for machine, _ in op.on:
                chosen = model.new_bool_var(f"on{name}.{machine}")
                takes = up(lengths[j, s, machine])
                lanes[machine].append((model.new_optional_interval_var(start, takes, end, chosen, f"i{name}.{machine}"), start, end, chosen, op.family))
                on[j, s].append((machine, chosen))
            model.add_exactly_one(chosen for _, chosen in on[j, s])
    for machine, lane in enumerate(lanes):
        shut = [model.new_fixed_size_interval_var(math.floor(low * grain), up(high) - math.floor(low * grain), f"shut{machine}.{k}")
                for k, (low, high) in enumerate(shop.closed[machine])]
        model.add_no_overlap([*(item[0] for item in lane), *shut])
        families = {item[4] for item in lane}
        if any(shop.change(machine, a, b) > 0 for a in families for b in families):
            _circuit(shop, model, machine, lane, up)
    last = {j: ends[j, len(job.operations) - 1] for j, job in enumerate(shop.jobs)}
    kept = {}
    for j, job in enumerate(shop.jobs):
        if due and not math.isinf(job.due):
            limit = math.floor(job.due * grain + 1e-6)
            if due == "hard":
                model.add(last[j] <= limit)
            else:
                kept[j] = model.new_bool_var(f"kept{j}")
                model.add(last[j] <= limit).only_enforce_if(kept[j])
    if due == "assumed":
        model.add_assumptions(list(kept.values()))
    elif shop.objective == "makespan":
        whole = model.new_int_var(0, horizon, "makespan")
        model.add_max_equality(whole, list(last.values()))
        model.minimize(whole)
    else:
        _, weights = _weights(shop)
        terms = []
        for j, job in enumerate(shop.jobs):
            if not math.isinf(job.due) and weights[j]:
                over = model.new_int_var(0, horizon, f"late{j}")
                model.add(over >= last[j] - math.floor(job.due * grain + 1e-6))
                terms.append(weights[j] * over)
        model.minimize(sum(terms))
    for slot in hint:
        model.add_hint(starts[slot.job, slot.step], up(slot.start))
        if len(on[slot.job, slot.step]) > 1:
            for machine, chosen in on[slot.job, slot.step]:
                model.add_hint(chosen, machine == slot.machine)
    return _Model(model, starts, on, grain, kept)


def _circuit(shop: Shop, model: Any, machine: int, lane: list[tuple[Any, Any, Any, Any, str]], up: Any) -> None:
    """Which operation comes next on the machine; 0 is its beginning and its end."""
    arcs = [(0, 0, model.new_bool_var(f"idle{machine}"))]
    for a, (_, _, end, here, before) in enumerate(lane, 1):
        arcs += [(0, a, model.new_bool_var("")), (a, 0, model.new_bool_var("")), (a, a, ~here)]
        for b, (_, start, _, _, after) in enumerate(lane, 1):
            if a != b:
                follows = model.new_bool_var("")
                arcs.append((a, b, follows))
                model.add(start >= end + up(shop.change(machine, before, after))).only_enforce_if(follows)
    model.add_circuit(arcs)


def clashes(shop: Shop, stretch: Times, *, seconds: float, seed: int) -> tuple[Text, ...]:
    """Which due dates cannot be kept: those that cannot be kept even if the shop did nothing else; else a set that cannot be kept together, no smaller one
    being found in the time there was (deletion filter, Chinneck and Dravnieks 1991, doi:10.1287/ijoc.3.2.157)."""
    alone = []
    for j, job in enumerate(shop.jobs):
        now = job.release
        for s, op in enumerate(job.operations):
            now = min(shop.fits(m, now, length(shop, stretch, j, s, m)) + length(shop, stretch, j, s, m) for m, _ in op.on)
        if now > job.due + 1e-6:
            alone.append(say("'{name}' is due at {due:g}, but ends at {end:g} even if the shop does nothing else.", name=job.name, due=job.due, end=now))
    if alone:
        return (*alone[:8], *([say("So it is with {n} more jobs.", n=len(alone) - 8)] if len(alone) > 8 else []))
    deadline = time.perf_counter() + seconds
    cp = cp_sat()
    built = _build(shop, stretch, [], due="assumed")
    core = _core(cp, built, list(built.due), deadline - time.perf_counter(), seed) or list(built.due)
    for j in list(core):
        left = deadline - time.perf_counter()
        if left <= 0.05 or len(core) <= 1:
            break
        smaller = _core(cp, built, [k for k in core if k != j], min(left, 1.0), seed)
        core = core if smaller is None else smaller
    names = [f"{shop.jobs[j].name} ({shop.jobs[j].due:g})" for j in core[:12]]
    return (say("These due dates cannot all be kept, whatever the order: {names}. Move one of them, add a machine, or ask for tardiness instead.", names=names),)


def _core(cp: Any, built: _Model, jobs: list[int], seconds: float, seed: int) -> list[int] | None:
    """Jobs among these whose due dates clash, None where that is not proven."""
    built.model.clear_assumptions()
    built.model.add_assumptions([built.due[j] for j in jobs])
    solver = _solver(max(0.05, seconds), seed, workers=1)
    if solver.solve(built.model) != cp.INFEASIBLE:
        return None
    found = set(solver.sufficient_assumptions_for_infeasibility())
    return [j for j in jobs if built.due[j].index in found] or jobs
