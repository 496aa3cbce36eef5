"""Lots: what they cost in simulated futures, the slabs in which they are planned, and the heuristic of Silver and Meal."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

SLABS = 32  # at most, of one product: quantiles of neighbouring periods overlap so much that more change the cost by little
CUTS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Need:
    """One product: its futures (w, h) of cumulative demand, its costs, and which machines (m,) can make it."""

    futures: np.ndarray
    holding: float
    backlog: float
    never: float
    stock: float
    setup_cost: float
    setup_hours: float
    hours: float
    minimum: float
    on_time: float | None
    machines: np.ndarray

    def apart(self, made: np.ndarray) -> float:
        """Mean cost of holding and lateness where `made` (h,) is made, without set-ups."""
        gap = self.stock + np.cumsum(made)[None] - self.futures
        held, late = np.maximum(gap, 0).sum(axis=1), np.maximum(-gap, 0)
        return float((self.holding * held + self.backlog * late.sum(axis=1) + self.never * late[:, -1]).mean())

    @cached_property
    def nothing(self) -> float:
        """Cost of making nothing at all."""
        return self.apart(np.zeros(self.futures.shape[1]))

    def expected(self, made: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean demand of each period, mean stock and mean lateness at its end."""
        gap = self.stock + np.cumsum(made)[None] - self.futures
        return np.diff(self.futures, axis=1, prepend=0).mean(axis=0), np.maximum(gap, 0).mean(axis=0), np.maximum(-gap, 0).mean(axis=0)


@dataclass(frozen=True)
class Load:
    """capacity, overtime: hours, shape (m, h). overtime_cost: money an hour, (m,)."""

    capacity: np.ndarray
    overtime: np.ndarray
    overtime_cost: np.ndarray


@dataclass(frozen=True)
class Lots:
    """made: units, opened: whether it is set up; shape (n, m, h)."""

    made: np.ndarray
    opened: np.ndarray

    @classmethod
    def empty(cls, n: int, m: int, h: int) -> Lots:
        return cls(np.zeros((n, m, h)), np.zeros((n, m, h), dtype=bool))

    def hours(self, needs: list[Need]) -> np.ndarray:
        used = self.opened & (self.made > 1e-6)
        return self.made * np.array([n.hours for n in needs])[:, None, None] + used * np.array([n.setup_hours for n in needs])[:, None, None]


@dataclass(frozen=True)
class Slabs:
    """size (k,): units. gain (k, h): what a unit costs that is made in period t, less what it costs if it is never made. due (k,): the last period in which
    it can be made on time, h where nothing is due."""

    size: np.ndarray
    gain: np.ndarray
    due: np.ndarray
    missed: list[tuple[int, np.ndarray]] = field(default_factory=list)


def slabs(need: Need) -> Slabs:
    """The units of a product beyond its stock, in the order in which they are made."""
    h = need.futures.shape[1]
    due_at = np.maximum(np.quantile(need.futures, need.on_time, axis=0) - need.stock, 0) if need.on_time is not None else np.zeros(h)
    if len(need.futures) == 1:
        ends = need.futures[0] - need.stock
    else:
        ends = np.quantile(need.futures, CUTS, axis=0).ravel() - need.stock
        if len(ends) > SLABS:
            ends = np.quantile(ends, np.linspace(0, 1, SLABS))
    top = round(max(float(need.futures.max()) - need.stock, 0.0), 9)
    ends = np.unique(np.round(np.concatenate([[0.0, top], ends, due_at]), 9))
    ends = ends[(ends >= 0) & (ends <= top)]
    low, high = ends[:-1], ends[1:]
    size = high - low
    if not len(size):
        return Slabs(np.zeros(0), np.zeros((0, h)), np.zeros(0, dtype=int))
    beyond = need.futures.T[:, :, None] - need.stock  # (h, w, 1)
    wanted = (np.clip(beyond - low, 0, size) / size).mean(axis=1).T  # (k, h): how often the unit is wanted by the end of period t
    hold, late = need.holding * (1 - wanted), need.backlog * wanted
    after = np.cumsum(hold[:, ::-1], axis=1)[:, ::-1]
    before = np.cumsum(late, axis=1) - late
    never = late.sum(axis=1) + need.never * wanted[:, -1]
    due = np.array([int(np.argmax(due_at >= b - 1e-7)) if (due_at >= b - 1e-7).any() else h for b in high])
    return Slabs(size, after + before - never[:, None], due)


def cost_of(lots: Lots, needs: list[Need], load: Load) -> np.ndarray:
    """Mean cost over the futures, shape (n,); overtime is shared by hours."""
    hours = lots.hours(needs)
    used = hours.sum(axis=0)
    paid = np.maximum(used - load.capacity, 0) * load.overtime_cost[:, None]
    share = hours / np.maximum(used, 1e-12)
    return np.array([need.apart(lots.made[p].sum(axis=0)) + need.setup_cost * (lots.opened[p] & (lots.made[p] > 1e-6)).sum() + (share[p] * paid).sum()
                     for p, need in enumerate(needs)])


def silver_meal(needs: list[Need], load: Load) -> Lots:
    """Each product alone first, on the first machine that can make it; then what does not fit is made earlier, else in overtime, else later."""
    machines, h = load.capacity.shape
    lots = Lots.empty(len(needs), machines, h)
    room = load.capacity.copy()
    waiting: list[tuple[int, int, float]] = []
    for p, need in enumerate(needs):
        net = _net(need)
        t = 0
        while t < h:
            if net[t] <= 1e-9:
                t += 1
                continue
            stop, best = t + 1, need.setup_cost
            held = 0.0
            while stop < h:
                held += need.holding * (stop - t) * net[stop]
                average = (need.setup_cost + held) / (stop - t + 1)
                if average > best:
                    break
                best, stop = average, stop + 1
            waiting.append((t, p, float(net[t:stop].sum())))
            t = stop
    for t, p, units in sorted(waiting):
        for step in (*range(t, -1, -1), None, *range(t + 1, h)):
            if step is None:  # overtime in the period itself and before, before it is late
                for early in range(t, -1, -1):
                    units = _put(lots, needs[p], p, early, units, room, load.overtime)
                continue
            units = _put(lots, needs[p], p, step, units, room, np.zeros_like(load.overtime) if step <= t else load.overtime)
            if units <= 1e-6:
                break
    return lots


def _net(need: Need) -> np.ndarray:
    """What is needed in each period so that the mean plus 1.64 standard deviations of the cumulative demand is there."""
    level = need.futures.mean(axis=0) + 1.64 * need.futures.std(axis=0) - need.stock
    level = np.maximum.accumulate(np.maximum(level, 0))
    return np.diff(level, prepend=0)


def _put(lots: Lots, need: Need, p: int, t: int, units: float, room: np.ndarray, overtime: np.ndarray) -> float:
    """Make as much as fits of `units` in period t; returns what is left."""
    for m in np.nonzero(need.machines)[0]:
        if units <= 1e-6:
            break
        new = not lots.opened[p, m, t]
        fits = min((room[m, t] + overtime[m, t] - need.setup_hours * new) / need.hours, units)
        if fits > 1e-6:
            lots.made[p, m, t] += fits
            lots.opened[p, m, t] = True
            room[m, t] -= fits * need.hours + need.setup_hours * new
            units -= fits
    return units
