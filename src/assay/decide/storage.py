"""When to charge and discharge a battery, and when to run a generator, under a tariff by time of use and a charge on the highest draw.

The schedule is fixed before the load is known (a two-stage stochastic linear program: one schedule, the grid makes up the difference in every future), so
that the charge on the peak is paid on average over futures, not on the peak of an average day. Realised: the battery keeps its schedule within its limits,
does not push power into a grid that takes none, and the grid takes the rest.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, GREY, Chart
from assay.decide.fields import Fields, forecast, spread
from assay.decide.milp import Program
from assay.errors import InputError
from assay.words import Text, say

FUTURES = 30  # of a plan: 30 x 48 steps are solved in well under a second
TOLD = 200  # other futures, which tell what the plan is expected to cost
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SETS = {"weekdays": DAYS[:5], "weekend": DAYS[5:], "all": DAYS}


@dataclass(frozen=True)
class Window:
    """A price from minute `start` to minute `stop` of a day (stop <= start: over midnight), on these days."""

    start: int
    stop: int
    price: float
    days: tuple[str, ...]


@dataclass(frozen=True)
class Battery:
    """capacity, start, end: kWh. power: kW. into, out_of: shares kept while charging and discharging. wear: money per kWh discharged. end None: as at the start."""

    capacity: float
    power: float
    into: float
    out_of: float
    start: float
    end: float
    wear: float


@dataclass(frozen=True)
class Generator:
    """power, minimum: kW. cost: money per kWh. start_cost: money."""

    power: float
    minimum: float
    cost: float
    start_cost: float


@dataclass(frozen=True)
class Problem:
    """step_hours: 0 where the forecast's times have to say it."""

    step_hours: float
    price: tuple[float, ...] | None
    windows: tuple[Window, ...]
    export: tuple[float, ...] | None
    demand_charge: float
    peak_so_far: float
    grid_limit: float
    unserved: float
    load: str | None
    solar: str | None
    solar_known: tuple[float, ...]
    battery: Battery
    generator: Generator | None


class Storage(Decision):
    name = "storage"
    about = say("When to charge and discharge a battery (and run a generator) under a tariff, a charge on the peak, and the sun.")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> Problem:
        f = Fields(table, say("The storage problem"), place)
        price = f.numbers("price", None) if "price" in f.table else None
        windows = tuple(_window(row, f) for row in f.rows("tariff"))
        f.has("price")
        if (price is None) == (not windows):
            raise InputError("The storage problem needs the price of a kWh once: as 'price' (one number, or one a step), or as tables [[tariff]] with from, to and price.")
        part = f.part("battery", say("[battery]"))
        if part is None:
            raise InputError("The storage problem has no [battery]; expected its 'capacity' in kWh and its 'power' in kW.")
        engine = f.part("generator", say("[generator]"))
        problem = Problem(
            f.number("step_hours", 0.0, above=True), price, windows, f.numbers("export_price") if "export_price" in f.table else None, f.number("demand_charge", 0.0),
            f.number("peak_so_far", 0.0), f.number("grid_limit", np.inf, above=True), f.number("unserved_cost", 10.0), f.word("load", None),
            f.word("solar", None) if isinstance(f.table.get("solar"), str) else None, f.numbers("solar", (0.0,)) if not isinstance(f.table.get("solar"), str) else (0.0,),
            _battery(part), None if engine is None else _generator(engine))
        f.has("export_price")
        f.end()
        return problem

    def solve(self, problem: Problem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        began = time.monotonic()
        known = forecast(quantiles, self.name)
        problem = _timed(problem, known.times)
        prices = _prices(problem, known.times)
        load, sun = _futures(problem, known, 1 if len(known.levels) == 1 else FUTURES, seed)
        clash = _clashes(problem, load - sun, known.times)
        program, blocks = _program(problem, prices, load - sun)
        found = program.solve(seconds - (time.monotonic() - began), gap=1e-4)
        if found.status == "infeasible":
            return Plan({}, float("inf"), (*clash, say("No schedule brings the battery from {start:.4g} to {end:.4g} kWh within its power of {power:.4g} kW.", start=problem.battery.start,
                                                       end=problem.battery.end, power=problem.battery.power)), {"status": "infeasible", "seconds": round(found.seconds, 3)})
        if found.x is None:
            rule = self.rule(problem, quantiles)
            return Plan(rule.choice, rule.cost, tuple(clash), rule.facts | {"status": "feasible", "seconds": round(found.seconds, 3),
                                                                           "solver": "charge cheap, discharge dear (HiGHS found none in time)"})
        charge, discharge, engine = (found.x[blocks[k]] if k in blocks else np.zeros(len(prices)) for k in ("charge", "discharge", "engine"))
        both = np.minimum(charge * problem.battery.into, discharge / problem.battery.out_of)  # what goes in and out at once is of no use
        charge, discharge = charge - both / problem.battery.into, discharge - both * problem.battery.out_of
        facts = found.facts() | {"seconds": round(time.monotonic() - began, 3)}
        return _plan(problem, known, prices, np.maximum(charge, 0), np.maximum(discharge, 0), engine, facts, tuple(clash), seed)

    def rule(self, problem: Problem, quantiles: Quantiles | None) -> Plan:
        """Each day, charge in the cheapest hours and discharge in the dearest, as far as the prices pay for what is lost; the generator stands still."""
        known = forecast(quantiles, self.name)
        problem = _timed(problem, known.times)
        prices = _prices(problem, known.times)
        load, sun = _futures(problem, Quantiles.exact(known.median(), known.ids, known.times), 1, 0)
        net = (load - sun)[0]
        charge, discharge = np.zeros(len(prices)), np.zeros(len(prices))
        b, level = problem.battery, problem.battery.start
        per_day = max(round(24 / problem.step_hours), 1)
        for first in range(0, len(prices), per_day):
            day = np.arange(first, min(first + per_day, len(prices)))
            level = _day(problem, b, prices, net, day, charge, discharge, level)
        return _plan(problem, known, prices, charge, discharge, np.zeros(len(prices)), {"status": "feasible", "rule": "charge cheap, discharge dear", "seconds": 0.0},
                     tuple(_clashes(problem, load - sun, known.times)), 0)

    def realised(self, problem: Problem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Shape (1,): energy, the charge on the peak, wear, the generator, and what could not be served."""
        demand = np.maximum(np.asarray(truth, dtype=float), 0)
        ids, times = tuple(plan.facts["ids"]), tuple(plan.facts["times"])
        problem = _timed(problem, times)
        load, sun = _futures(problem, Quantiles.exact(demand, ids, times), 1, 0)
        charge, discharge, engine = (np.array([row[k] for row in plan.choice["schedule"]]) for k in ("charge_kw", "discharge_kw", "generator_kw"))
        return _run(problem, _prices(problem, times), charge, discharge, engine, load - sun)["cost"]

    def picture(self, problem: Problem, plan: Plan, words: Any = str) -> str:
        rows = plan.choice.get("schedule", [])
        columns = {k: np.array([r[k] for r in rows]) for k in ("charge_kw", "discharge_kw", "grid_kw", "net_load_kw", "stored_kwh")} if rows else {}
        values = np.concatenate([columns["net_load_kw"], columns["grid_kw"], -columns["charge_kw"]]) if rows else np.zeros(1)
        chart = Chart(words(say("The battery's schedule, and what is drawn from the grid on average")), [r["time"] for r in rows], values, unit="kW")
        if rows:
            chart.bars(columns["discharge_kw"], words(say("discharge")), COLOURS[2])
            chart.bars(-columns["charge_kw"], words(say("charge")), COLOURS[1])
            chart.stairs(columns["net_load_kw"], words(say("load less sun")), GREY, dashed=True)
            chart.stairs(columns["grid_kw"], words(say("from the grid")), COLOURS[0])
        return chart.svg()

    def example(self, seed: int = 0) -> Example:
        rng = np.random.default_rng(seed)
        h = 24
        shape = 60 + 25 * np.sin((np.arange(h) - 7) / 24 * 2 * np.pi) + 40 * np.exp(-0.5 * ((np.arange(h) - 18.5) / 1.8) ** 2)
        sun = 30 * np.maximum(np.sin((np.arange(h) - 6) / 12 * np.pi), 0)
        mean = np.stack([shape * rng.uniform(0.9, 1.1), sun])
        z = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
        times = tuple(f"2024-06-{3 + seed % 5:02d}T{t:02d}:00" for t in range(h))
        table: dict[str, Any] = {"load": "site", "solar": "roof", "demand_charge": 4.0, "tariff": [
            {"from": "00:00", "to": "07:00", "price": 0.08}, {"from": "07:00", "to": "16:00", "price": 0.16}, {"from": "16:00", "to": "24:00", "price": 0.34}],
            "battery": {"capacity": 100.0, "power": 40.0, "efficiency": 0.9, "wear": 0.01}}
        truth = mean * np.exp(0.08 * rng.standard_normal((2, h)))
        return Example(table, Quantiles(LEVELS, mean[:, :, None] * np.exp(0.08 * z), ("site", "roof"), times), truth)


def _battery(f: Fields) -> Battery:
    capacity, power = f.number("capacity"), f.number("power")
    kept = f.number("efficiency", 0.9, low=0.01, high=1.0) ** 0.5
    start = f.number("start", 0.0, high=capacity)
    battery = Battery(capacity, power, kept, kept, start, f.number("end", start, high=capacity), f.number("wear", 0.0))
    f.end()
    return battery


def _generator(f: Fields) -> Generator:
    power = f.number("power", above=True)
    generator = Generator(power, f.number("minimum", 0.0, high=power), f.number("cost"), f.number("start_cost", 0.0))
    f.end()
    return generator


def _window(row: dict[str, Any], above: Fields) -> Window:
    f = Fields(row, say("[[tariff]]"), above.place)
    days = tuple(day for name in f.words("days") or ("all",) for day in SETS.get(name.lower(), (name.lower()[:3],)))
    if not set(days) <= set(DAYS):
        raise f.wrong("days", say("names of days such as mon, or weekdays, weekend, all"))
    window = Window(_minute(f, "from"), _minute(f, "to"), f.number("price"), days)
    f.end()
    return window


def _minute(f: Fields, key: str) -> int:
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", f.word(key))
    if not match or int(match[2]) > 59 or int(match[1]) * 60 + int(match[2]) > 1440:
        raise f.wrong(key, say("a time of day such as 07:30"))
    return int(match[1]) * 60 + int(match[2])


def _timed(problem: Problem, times: tuple[str, ...]) -> Problem:
    """The problem with the hours of a step, which the forecast's times say, if they are dates."""
    try:
        moments = [datetime.fromisoformat(t) for t in times[:2]]
        told = (moments[1] - moments[0]).total_seconds() / 3600
    except (ValueError, IndexError, TypeError):
        told = 0.0
    if told > 0 and problem.step_hours and abs(told - problem.step_hours) > 1e-6:
        raise InputError("'step_hours' is {given:g}, but the times of the forecast are {told:.4g} hours apart; expected the same.", given=problem.step_hours, told=told)
    if told <= 0 and not problem.step_hours:
        raise InputError("The times of the forecast ({time}, ...) do not say how long a step is; expected 'step_hours' in the problem.", time=times[0])
    return replace(problem, step_hours=problem.step_hours or told)


def _prices(problem: Problem, times: tuple[str, ...]) -> np.ndarray:
    if problem.price is not None:
        return spread(problem.price, len(times), say("The storage problem"), "price")
    out = np.full(len(times), np.nan)
    for i, told in enumerate(times):
        try:
            moment = datetime.fromisoformat(told)
        except ValueError:
            raise InputError("The time '{time}' is not a date with a time of day, which [[tariff]] needs; expected such as 2024-06-03T07:30, or 'price' as a list.", time=told) from None
        minute, day = moment.hour * 60 + moment.minute, DAYS[moment.weekday()]
        for w in problem.windows:  # the last one that covers the moment wins
            inside = w.start <= minute < w.stop if w.start < w.stop else minute >= w.start or minute < w.stop
            if inside and day in w.days:
                out[i] = w.price
        if np.isnan(out[i]):
            raise InputError("No [[tariff]] covers {time}; expected a price at every time of every day.", time=told)
    return out


def _futures(problem: Problem, known: Quantiles, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Load and sun in kW, shape (w, h)."""
    for name in (problem.load, problem.solar):
        if name is not None and name not in known.ids:
            raise InputError("The problem names '{name}', but the forecast has no such series; its {n} series are: {ids}.", name=name, n=len(known.ids), ids=list(known.ids[:8]))
    others = [i for i, name in enumerate(known.ids) if name != problem.solar]
    if problem.load is None and len(others) != 1:
        raise InputError("The forecast has {n} series that may be the load; say which one is, as load = \"{name}\".", n=len(others), name=known.ids[0])
    futures = known.scenarios(count, seed=seed)
    load = futures[:, known.ids.index(problem.load) if problem.load is not None else others[0]]
    sun = futures[:, known.ids.index(problem.solar)] if problem.solar is not None else \
        np.broadcast_to(spread(problem.solar_known, load.shape[1], say("The storage problem"), "solar"), load.shape)
    return load, sun


def _clashes(problem: Problem, net: np.ndarray, times: tuple[str, ...]) -> list[Text]:
    """Where even grid, battery and generator together do not reach the expected load."""
    most = problem.grid_limit + problem.battery.power + (problem.generator.power if problem.generator else 0.0)
    mean = net.mean(axis=0)
    return [say("At {time}, {load:.4g} kW are expected, but grid, battery and generator together give at most {most:.4g} kW.", time=times[t], load=float(mean[t]), most=most)
            for t in np.nonzero(mean > most + 1e-9)[0][:10]]


def _program(problem: Problem, prices: np.ndarray, net: np.ndarray) -> tuple[Program, dict[str, np.ndarray]]:
    """net: load less sun in kW, shape (w, h)."""
    w, h = net.shape
    b, hours, program = problem.battery, problem.step_hours, Program()
    charge = program.block((h,), high=b.power, cost=1e-7)
    discharge = program.block((h,), high=b.power, cost=b.wear * hours + 1e-7)
    stored = program.block((h + 1,), high=b.capacity, low=np.r_[b.start, np.zeros(h - 1), b.end], )
    program.rows(b.start, b.start, (stored[:1], 1.0))
    program.rows(0, 0, (stored[1:], 1.0), (stored[:-1], -1.0), (charge, -b.into * hours), (discharge, hours / b.out_of))
    blocks = {"charge": charge, "discharge": discharge}
    terms: list[tuple[np.ndarray, Any]] = [(np.tile(discharge, w), 1.0), (np.tile(charge, w), -1.0)]
    if problem.generator is not None:
        g = problem.generator
        engine = program.block((h,), high=g.power, cost=g.cost * hours)
        on = program.block((h,), high=1, whole=g.minimum > 0 or g.start_cost > 0)
        begun = program.block((h,), high=1, cost=g.start_cost)
        program.rows(-np.inf, 0, (engine, 1.0), (on, -g.power))
        program.rows(0, np.inf, (engine, 1.0), (on, -g.minimum))
        program.rows(0, np.inf, (begun[1:], 1.0), (on[1:], -1.0), (on[:-1], 1.0))
        program.rows(0, np.inf, (begun[:1], 1.0), (on[:1], -1.0))
        blocks["engine"] = engine
        terms.append((np.tile(engine, w), 1.0))
    export = np.zeros(h) if problem.export is None else spread(problem.export, h, say("The storage problem"), "export_price")
    if (export > prices + 1e-12).any():
        raise InputError("Power is sold at {sold:.4g} and bought at {bought:.4g} in the same step, so that trading without end would pay; expected an 'export_price' of at most the price.",
                         sold=float(export[export > prices][0]), bought=float(prices[export > prices][0]))
    draw = program.block((w, h), high=problem.grid_limit, cost=np.broadcast_to(prices * hours / w, (w, h)))
    given = program.block((w, h), cost=np.broadcast_to(-export * hours / w, (w, h)))  # sold, or sun that is thrown away
    lacking = program.block((w, h), cost=problem.unserved * hours / w)
    peak = program.block((w,), low=problem.peak_so_far, cost=problem.demand_charge / w)
    program.rows(net.ravel(), net.ravel(), (draw.ravel(), 1.0), (given.ravel(), -1.0), (lacking.ravel(), 1.0), *terms)
    program.rows(0, np.inf, (np.repeat(peak, h), 1.0), (draw.ravel(), -1.0))
    return program, blocks


def _run(problem: Problem, prices: np.ndarray, charge: np.ndarray, discharge: np.ndarray, engine: np.ndarray, net: np.ndarray) -> dict[str, np.ndarray]:
    """The schedule in w futures of net load (w, h), in real time. Returns cost (w,), grid, stored (w, h), peak (w,), unserved (w,) in kWh."""
    w, h = net.shape
    b, hours = problem.battery, problem.step_hours
    export = None if problem.export is None else spread(problem.export, h, say("The storage problem"), "export_price")
    level, cost, unserved = np.full(w, b.start), np.zeros(w), np.zeros(w)
    grid, stored = np.zeros((w, h)), np.zeros((w, h))
    running = engine > 1e-6
    for t in range(h):
        rest = net[:, t] - engine[t]
        out = np.minimum(discharge[t], level * b.out_of / hours)
        if export is None:
            out = np.minimum(out, np.maximum(rest, 0))  # nobody takes what the site does not use
        into = np.minimum(charge[t], np.maximum((b.capacity - level) / (b.into * hours), 0))
        into = np.minimum(into, np.maximum(problem.grid_limit - rest, 0))
        level = level + (into * b.into - out / b.out_of) * hours
        need = rest + into - out
        grid[:, t], stored[:, t] = np.clip(need, 0, problem.grid_limit), level
        lacking = np.maximum(need - problem.grid_limit, 0)
        unserved += lacking * hours
        cost += (prices[t] * grid[:, t] + problem.unserved * lacking + b.wear * out - (0.0 if export is None else export[t]) * np.maximum(-need, 0)) * hours
    peak = np.maximum(grid.max(axis=1), problem.peak_so_far)
    cost += problem.demand_charge * peak + np.maximum(b.end - level, 0) / b.into * float(prices.mean())  # what is missing at the end is bought at the mean price
    if problem.generator is not None:
        cost += problem.generator.cost * engine.sum() * hours + problem.generator.start_cost * (running & ~np.r_[False, running[:-1]]).sum()
    return {"cost": cost, "grid": grid, "stored": stored, "peak": peak, "unserved": unserved}


def _day(problem: Problem, b: Battery, prices: np.ndarray, net: np.ndarray, day: np.ndarray, charge: np.ndarray, discharge: np.ndarray, level: float) -> float:
    """One day of the rule, written into charge and discharge; returns what is stored at its end."""
    hours = problem.step_hours
    cheap = sorted(day, key=lambda t: (prices[t], t))
    dear = sorted(day, key=lambda t: (-prices[t], t))
    if prices[dear[0]] * b.into * b.out_of - b.wear * b.into * b.out_of <= prices[cheap[0]] + 1e-12:
        return level
    room = b.capacity - level
    for t in cheap:
        if prices[t] > prices[cheap[0]] + 1e-12 or room <= 1e-9:
            break
        charge[t] = min(b.power, room / (b.into * hours), max(problem.grid_limit - net[t], 0.0))
        room -= charge[t] * b.into * hours
    stored = b.capacity - room
    for t in dear:
        if prices[t] < prices[dear[0]] - 1e-12 or stored <= b.end + 1e-9:
            break
        discharge[t] = min(b.power, (stored - b.end) * b.out_of / hours, max(net[t], 0.0) if problem.export is None else np.inf)
        stored -= discharge[t] * hours / b.out_of
    return stored


def _plan(problem: Problem, known: Quantiles, prices: np.ndarray, charge: np.ndarray, discharge: np.ndarray, engine: np.ndarray, facts: dict[str, Any],
          violations: tuple[Text, ...], seed: int) -> Plan:
    load, sun = _futures(problem, known, 1 if len(known.levels) == 1 else TOLD, seed + 1)
    ran = _run(problem, prices, charge, discharge, engine, load - sun)
    rows = [{"time": time_, "price": float(prices[t]), "charge_kw": float(charge[t]), "discharge_kw": float(discharge[t]), "generator_kw": float(engine[t]),
             "stored_kwh": float(ran["stored"][:, t].mean()), "net_load_kw": float((load - sun)[:, t].mean()), "grid_kw": float(ran["grid"][:, t].mean())}
            for t, time_ in enumerate(known.times)]
    facts = facts | {"peak_kw": float(ran["peak"].mean()), "unserved_kwh": float(ran["unserved"].mean()), "ids": list(known.ids), "times": list(known.times)}
    return Plan({"schedule": rows}, float(ran["cost"].mean()), violations, facts)


STORAGE = Storage()
