"""Schedules made without a solver: a dispatching rule, and what becomes of an order of operations once the times are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

from assay.decide.shop_problem import Shop

Times = list[list[float]]  # for each job, for each operation: its processing time over that on its first machine; 1 where nothing else is known


@dataclass(frozen=True)
class Slot:
    """One operation of a schedule: job and step are indices, machine is an index."""

    job: int
    step: int
    machine: int
    start: float
    end: float


def length(shop: Shop, stretch: Times, job: int, step: int, machine: int) -> float:
    return dict(shop.jobs[job].operations[step].on)[machine] * stretch[job][step]


def cost(shop: Shop, slots: list[Slot]) -> float:
    """The makespan, or the weighted time that jobs are late."""
    ends = [0.0] * len(shop.jobs)
    for slot in slots:
        ends[slot.job] = max(ends[slot.job], slot.end)
    if shop.objective == "makespan":
        return max(ends, default=0.0)
    return sum(job.weight * max(0.0, end - job.due) for job, end in zip(shop.jobs, ends, strict=True))


def pushed(shop: Shop, slots: list[Slot], stretch: Times) -> list[Slot]:
    """The same machines and the same order on each, every operation as early as that order, its job, maintenance and changeovers let it (right shift)."""
    queue: dict[int, list[Slot]] = {}
    for slot in sorted(slots, key=lambda s: (s.start, s.end, s.job, s.step)):
        queue.setdefault(slot.machine, []).append(slot)
    done: dict[tuple[int, int], float] = {}
    last: dict[int, tuple[float, str]] = {}
    out: list[Slot] = []
    while any(queue.values()):
        moved = False
        for machine, waiting in queue.items():
            while waiting and (waiting[0].step == 0 or (waiting[0].job, waiting[0].step - 1) in done):
                slot = waiting.pop(0)
                family = shop.jobs[slot.job].operations[slot.step].family
                ready = shop.jobs[slot.job].release if slot.step == 0 else done[slot.job, slot.step - 1]
                if machine in last:
                    ready = max(ready, last[machine][0] + shop.change(machine, last[machine][1], family))
                takes = length(shop, stretch, slot.job, slot.step, machine)
                start = shop.fits(machine, ready, takes)
                done[slot.job, slot.step] = start + takes
                last[machine] = (start + takes, family)
                out.append(Slot(slot.job, slot.step, machine, start, start + takes))
                moved = True
        if not moved:
            raise ValueError("the order of operations goes round in a circle")
    return out


def most_work_remaining(shop: Shop, stretch: Times) -> list[Slot]:
    """Active schedule of Giffler and Thompson (1960, doi:10.1287/opre.8.4.487), the job with most work remaining first.

    The operation that could end first names a machine; of all that could start on it before that end, the one whose job has most work ahead is
    taken. An operation that several machines can do is put where it would end first.
    """
    left = [[min(t for _, t in op.on) * stretch[j][s] for s, op in enumerate(job.operations)] for j, job in enumerate(shop.jobs)]
    step, ready = [0] * len(shop.jobs), [job.release for job in shop.jobs]
    last: dict[int, tuple[float, str]] = {}
    out: list[Slot] = []
    while open_ := [j for j, job in enumerate(shop.jobs) if step[j] < len(job.operations)]:
        ways = []
        for j in open_:
            op = shop.jobs[j].operations[step[j]]
            for machine, _ in op.on:
                takes = length(shop, stretch, j, step[j], machine)
                begin = ready[j]
                if machine in last:
                    begin = max(begin, last[machine][0] + shop.change(machine, last[machine][1], op.family))
                start = shop.fits(machine, begin, takes)
                ways.append((start + takes, start, j, machine))
        best = {j: min(w for w in ways if w[2] == j) for j in open_}
        first = min(best.values())
        rivals = [w for w in best.values() if w[3] == first[3] and (w[1] < first[0] - 1e-9 or w is first)]
        end, start, j, machine = max(rivals, key=lambda w: (sum(left[w[2]][step[w[2]] :]), -w[0], -w[2]))
        out.append(Slot(j, step[j], machine, start, end))
        last[machine] = (end, shop.jobs[j].operations[step[j]].family)
        ready[j] = end
        step[j] += 1
    return out


def late(shop: Shop, slots: list[Slot]) -> list[tuple[int, float]]:
    """(job, time late) of the jobs that end after their due date."""
    ends: dict[int, float] = {}
    for slot in slots:
        ends[slot.job] = max(ends.get(slot.job, 0.0), slot.end)
    return [(j, end - shop.jobs[j].due) for j, end in sorted(ends.items()) if not math.isinf(shop.jobs[j].due) and end > shop.jobs[j].due + 1e-6]
