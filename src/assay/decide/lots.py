"""What to make when, on which machine: lots of several products under set-up times, capacity and overtime, fixed before the demand is known.

A schedule that does not react pays for its cumulative output only (the static strategy of Bookbinder and Tan 1988). The n-th unit of a product, made in
period t, is held in every later period whose cumulative demand is below n and late in every earlier one whose demand is above n: its expected cost is a
number. Units are put together into slabs between the forecast's cumulative quantiles, and slabs are assigned to periods: the facility-location
formulation (Krarup and Bilde 1977), whose relaxation is tight, and which is the usual one where the forecast is certain.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import LEVELS, Decision, Example, Plan, Quantiles
from assay.decide.drawing import COLOURS, Chart
from assay.decide.fields import Fields, each, entries, forecast, spread
from assay.decide.lots_plan import Load, Lots, Need, Slabs, cost_of, silver_meal, slabs
from assay.decide.milp import Program
from assay.errors import InputError
from assay.words import Text, say

FUTURES = 400
SHARE = 0.6  # of the time is for all set-ups at once, the rest for some of them at a time, if the best is not found by then
GAP = 1e-3  # of the whole cost, at which a plan is called the best: the futures themselves are known less well


@dataclass(frozen=True)
class Machine:
    """capacity, overtime: hours a period. overtime_cost: money an hour."""

    capacity: tuple[float, ...]
    overtime: tuple[float, ...]
    overtime_cost: float


@dataclass(frozen=True)
class Product:
    """hours: a unit. setup_hours, setup_cost: a period in which it is made. holding, backlog: a unit a period. never: a unit not delivered in the horizon.
    on_time: share of futures in which demand has to be met on time, None where being late has a price."""

    hours: float
    setup_hours: float
    setup_cost: float
    holding: float
    backlog: float
    never: float
    stock: float
    minimum: float
    on_time: float | None
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    machines: dict[str, Machine]
    products: dict[str, Product]
    default: Product | None


class LotSizes(Decision):
    name = "lots"
    about = say("What to make in which period on which machine: lots under set-ups, capacity and overtime.")
    forecast = "needed"

    def problem(self, table: dict[str, Any], place: Path) -> Problem:
        fields = Fields(table, say("The problem of lots"), place)
        machines: dict[str, Machine] = {}
        for row in fields.rows("machine"):
            one = Fields(row, say("Machine '{name}'", name=str(row.get("id", "?"))), place)
            name = one.word("id")
            if name in machines:
                raise InputError("[[{key}]] names '{name}' twice, expected it once.", key="machine", name=name)
            machines[name] = Machine(one.numbers("capacity"), one.numbers("overtime", (0.0,)), one.number("overtime_cost", 0.0))
            one.end()
        if not machines:
            raise InputError("The problem of lots has no [[machine]]; expected at least one, with its hours a period as 'capacity'.")
        products, default = entries(fields, "product", lambda name: say("Product '{name}'", name=name), lambda f: _product(f, tuple(machines)))
        fields.end()
        return Problem(machines, products, default)

    def solve(self, problem: Problem, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        began = time.monotonic()
        known = forecast(quantiles, self.name)
        needs, load = _needs(problem, known, seed), _load(problem, known)
        cut = [slabs(need) for need in needs]
        program, made, opened = _program(needs, load, cut)
        rule, constant, ids = silver_meal(needs, load), sum(need.nothing for need in needs), list(known.ids)
        near = _total(rule, needs, load)  # the program leaves the constant out, so that its relative gap has to be that much smaller
        found = program.solve(SHARE * seconds - (time.monotonic() - began), gap=GAP * near / max(abs(near - constant), near, 1e-9))
        if found.status == "infeasible":
            return Plan({}, float("inf"), tuple(_clashes(needs, load, cut, known, problem)), {"status": "infeasible", "seconds": round(found.seconds, 3), "solver": "HiGHS"})
        facts = found.facts()
        lots = None if found.x is None else _lots(found.x, made, opened)
        if found.status != "optimal":
            facts |= {"status": "feasible", "solver": "HiGHS, fix and optimise"}
            lots = _refined(needs, load, cut, lots, rule, began + seconds)
            if _misses(lots, needs):
                told = say("No schedule that meets the service levels was found in {seconds:.3g} s; there may be one. Give it more time.", seconds=seconds)
                return Plan({}, float("inf"), (told,), facts | {"status": "infeasible", "seconds": round(time.monotonic() - began, 3)})
        if "bound" in facts:
            total = _total(lots, needs, load)  # type: ignore[arg-type]
            facts["bound"] = min(facts["bound"] + constant, total)  # a slab that is split is a little dearer in the program than unit by unit
            facts["gap"] = max(total - facts["bound"], 0.0) / max(abs(total), 1e-9)
        facts["seconds"] = round(time.monotonic() - began, 3)
        return _plan(lots, needs, load, problem, known, facts | {"ids": ids})  # type: ignore[arg-type]

    def rule(self, problem: Problem, quantiles: Quantiles | None) -> Plan:
        """Silver-Meal (Silver and Meal 1973): a lot grows by a period's demand as long as that lowers its cost a period; demand is the mean plus 1.64 standard
        deviations of the cumulative forecast. Lots that do not fit are made earlier where there is room, else in overtime, else later."""
        known = forecast(quantiles, self.name)
        needs, load = _needs(problem, known, 0), _load(problem, known)
        lots = silver_meal(needs, load)
        late = _misses(lots, needs)
        told = tuple(say("'{name}' falls {units:.4g} units short of what is due by {time}.", name=known.ids[p], units=u, time=known.times[t]) for p, t, u in late[:20])
        plan = _plan(lots, needs, load, problem, known, {"status": "feasible", "rule": "Silver-Meal", "seconds": 0.0, "ids": list(known.ids)})
        return Plan(plan.choice, plan.cost, told, plan.facts)

    def realised(self, problem: Problem, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """Shape (n,), one a product: set-ups, holding, lateness, and its share of overtime by hours."""
        demand = np.maximum(np.asarray(truth, dtype=float), 0)
        ids = tuple(plan.facts["ids"])
        known = Quantiles.exact(demand, ids, tuple(str(t) for t in range(demand.shape[1])))
        needs, load = _needs(problem, known, 0), _load(problem, known)
        lots = Lots.empty(len(ids), len(problem.machines), demand.shape[1])
        row, column = {name: i for i, name in enumerate(ids)}, {name: i for i, name in enumerate(problem.machines)}
        for r in plan.choice.get("lots", []):
            lots.made[row[r["product"]], column[r["machine"]], r["step"]] = r["units"]
            lots.opened[row[r["product"]], column[r["machine"]], r["step"]] = True
        return cost_of(lots, needs, load)

    def picture(self, problem: Problem, plan: Plan, words: Any = str) -> str:
        rows, loads = plan.choice.get("lots", []), plan.choice.get("load", [])
        times = list(dict.fromkeys(r["time"] for r in loads))
        at = {t: i for i, t in enumerate(times)}
        products = list(dict.fromkeys(r["product"] for r in rows))
        capacity, tops = np.zeros(len(times)), np.zeros(len(times))
        for r in loads:
            capacity[at[r["time"]]] += r["capacity"]
            tops[at[r["time"]]] += r["used"]
        chart = Chart(words(say("Hours of work a period, and the capacity without overtime")), times, [*capacity, *tops, 0.0], unit=words(say("hours")))
        base = np.zeros(len(times))
        for k, name in enumerate(products[:8]):
            hours = np.zeros(len(times))
            for r in rows:
                if r["product"] == name or (k == 7 and r["product"] in products[8:]):
                    hours[at[r["time"]]] += r["hours"]
            chart.bars(hours, name if k < 7 or len(products) == 8 else words(say("others")), COLOURS[k], base=base)
            base = base + hours
        chart.stairs(capacity, words(say("capacity")), "#808080", dashed=True)
        return chart.svg()

    def example(self, seed: int = 0) -> Example:
        rng = np.random.default_rng(seed)
        n, h = 3, 8
        mean = rng.uniform(20, 60, (n, 1)) * rng.uniform(0.7, 1.3, (n, h))
        z = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
        ids, times = tuple(f"part-{i}" for i in range(n)), tuple(f"week-{t + 1}" for t in range(h))
        table = {"machine": [{"id": "press", "capacity": 170.0, "overtime": 20.0, "overtime_cost": 8.0}],
                 "default": {"hours": 1.0, "setup_hours": 6.0, "setup_cost": 90.0, "holding": 1.0, "backlog": 9.0},
                 "product": [{"id": ids[0], "setup_cost": 150.0}]}
        truth = mean * np.exp(0.2 * rng.standard_normal((n, h)))
        return Example(table, Quantiles(LEVELS, mean[:, :, None] * np.exp(0.2 * z), ids, times), truth)


def _product(f: Fields, machines: tuple[str, ...]) -> Product:
    holding = f.number("holding", above=True)
    backlog = f.number("backlog", None, above=True)
    on_time = f.number("service", None, low=0.01, high=0.9999)
    if backlog is not None and on_time is not None:
        raise InputError("{where}: 'backlog' prices lateness and 'service' forbids it; expected one of them.", where=f.where)
    on_time = 0.95 if backlog is None and on_time is None else on_time
    late = backlog if backlog is not None else holding * on_time / (1 - on_time)  # the price at which this service is the best
    known = f.words("machines") or machines
    for name in known:
        if name not in machines:
            raise InputError("{where}: there is no machine '{name}'; there are: {names}.", where=f.where, name=name, names=list(machines))
    product = Product(f.number("hours", above=True), f.number("setup_hours", 0.0), f.number("setup_cost", 0.0), holding, late, f.number("never", 10 * late),
                      f.number("stock", 0.0), f.number("minimum", 0.0), on_time, known)
    f.end()
    return product


def _needs(problem: Problem, known: Quantiles, seed: int) -> list[Need]:
    futures = np.cumsum(known.scenarios(1 if len(known.levels) == 1 else FUTURES, seed=seed), axis=2)
    return [Need(futures[:, i], p.holding, p.backlog, p.never, p.stock, p.setup_cost, p.setup_hours, p.hours, p.minimum, p.on_time,
                 np.array([name in p.machines for name in problem.machines]))
            for i, p in enumerate(each(problem.products, problem.default, known.ids))]


def _load(problem: Problem, known: Quantiles) -> Load:
    h = len(known.times)

    def laid(key: str) -> np.ndarray:
        return np.stack([spread(getattr(m, key), h, say("Machine '{name}'", name=name), key) for name, m in problem.machines.items()])

    return Load(laid("capacity"), laid("overtime"), np.array([m.overtime_cost for m in problem.machines.values()]))


def _lots(x: np.ndarray, made: list[np.ndarray], opened: list[np.ndarray]) -> Lots:
    return Lots(np.stack([x[m].sum(axis=0) for m in made]), np.stack([x[o] > 0.5 for o in opened]))


def _refined(needs: list[Need], load: Load, cut: list[Slabs], first: Lots | None, rule: Lots, until: float) -> Lots:
    """Fix and optimise (Helber and Sahling 2010): all set-ups stay but those of one product, or of some periods, which are planned anew; in turn, until
    nothing gets better or the time is over. Starts from the better of what is there and Silver-Meal's set-ups with lots of the best size."""
    n, machines, h = rule.made.shape

    def worth(lots: Lots) -> tuple[float, float]:
        return sum(units for _, _, units in _misses(lots, needs)), _total(lots, needs, load)

    def planned(start: Lots, free: np.ndarray, seconds: float) -> Lots:
        program, made, opened = _program(needs, load, cut, kept=(start.opened, free))
        found = program.solve(seconds)
        return start if found.x is None else _lots(found.x, made, opened)

    best = min([lots for lots in (first, rule) if lots is not None], key=worth)
    nothing = np.zeros((n, machines, h), dtype=bool)
    best = min(best, planned(rule, nothing, 5.0), key=worth)
    parts = []
    for p in range(n):
        parts.append(nothing.copy())
        parts[-1][p] = True
    for t in range(0, h, 2):
        parts.append(nothing.copy())
        parts[-1][:, :, t : t + 4] = True
    idle = k = 0
    while idle < len(parts) and time.monotonic() < until:
        tried = planned(best, parts[k % len(parts)], min(until - time.monotonic(), 3.0))
        better = worth(tried) < (worth(best)[0], worth(best)[1] * (1 - 1e-6))
        best, idle, k = (tried, 0, k + 1) if better else (best, idle + 1, k + 1)
    return best


def _program(needs: list[Need], load: Load, cut: list[Slabs], *, slack: bool = False, kept: tuple[np.ndarray, np.ndarray] | None = None) -> tuple[Program, list[np.ndarray], list[np.ndarray]]:
    """Blocks a product: units (slabs, machines, periods) as made[p], set-ups (machines, periods) as opened[p]. slack: what is due may be missed instead,
    nothing else costs, and it is noted in `cut`. kept: (set-ups, which of them are free); the others stay as they are."""
    program = Program()
    machines, h = load.capacity.shape
    made, opened = [], []
    extra = program.block((machines, h), high=load.overtime, cost=0.0 if slack else np.repeat(load.overtime_cost[:, None], h, axis=1))
    for p, (need, cuts) in enumerate(zip(needs, cut, strict=True)):
        k = len(cuts.size)
        worth = (cuts.gain < -1e-12)[:, None, :] | (cuts.due < h)[:, None, None]
        units = program.block((k, machines, h), high=np.where(worth & need.machines[None, :, None], cuts.size[:, None, None], 0.0),
                              cost=0.0 if slack else np.repeat(cuts.gain[:, None, :], machines, axis=1))
        most = np.minimum((load.capacity + load.overtime - need.setup_hours) / need.hours, cuts.size.sum())
        can = (most > 0) & need.machines[:, None]
        free = np.ones_like(can) if kept is None else kept[1][p]
        opening = program.block((machines, h), low=0.0 if kept is None else can & kept[0][p] & ~free, high=can if kept is None else can & (kept[0][p] | free),
                                cost=0.0 if slack else need.setup_cost, whole=not slack)
        made.append(units)
        opened.append(opening)
        flat = units.reshape(k, machines * h)
        program.rows(-np.inf, 0, (flat.ravel(), 1.0), (np.tile(opening.ravel(), k), -np.repeat(cuts.size, machines * h)))
        program.rows(-np.inf, 0, (flat.T, 1.0), (opening.ravel(), -np.maximum(most, 0).ravel()))
        if need.minimum and not slack:
            program.rows(0, np.inf, (flat.T, 1.0), (opening.ravel(), -need.minimum))
        program.rows(-np.inf, cuts.size, (flat, 1.0))
        for due in np.unique(cuts.due[cuts.due < h]):
            which = cuts.due == due
            early = units[which][:, :, : due + 1].reshape(int(which.sum()), -1)
            if slack:  # later is dearer to miss: what clashes is told where it clashes first
                missed = program.block((int(which.sum()),), cost=1.0 + 0.01 * (h - due))
                program.rows(cuts.size[which], np.inf, (early, 1.0), (missed, 1.0))
                cuts.missed.append((int(due), missed))
            else:
                program.rows(cuts.size[which] - 1e-9, np.inf, (early, 1.0))
    for m in range(machines):
        terms = [(units.transpose(2, 0, 1, )[:, :, m], need.hours) for units, need in zip(made, needs, strict=True)]
        terms += [(opening[m], need.setup_hours) for opening, need in zip(opened, needs, strict=True)]
        program.rows(-np.inf, load.capacity[m], *terms, (extra[m], -1.0))
    return program, made, opened


def _clashes(needs: list[Need], load: Load, cut: list[Slabs], known: Quantiles, problem: Problem) -> list[Text]:
    """What is missed in the linear relaxation in which it may be, product by product and period by period."""
    found = _program(needs, load, cut, slack=True)[0].solve(5.0)
    room = load.capacity + load.overtime
    told = []
    for name, need, cuts in zip(known.ids, needs, cut, strict=True):
        for due, missed in cuts.missed if found.x is not None else []:
            units = float(found.x[missed].sum())  # type: ignore[index]
            if units > 1e-6:
                hours = float(room[need.machines, : due + 1].sum())
                told.append(say("By {time}, {units:.4g} units of '{name}' that are due cannot be made: its machines have {hours:.4g} hours until then, overtime included.",
                                time=known.times[due], units=units, name=name, hours=hours))
    return told or [say("No schedule of whole set-ups fits the capacity of the machines, though one without set-up times does: {names}.", names=list(problem.machines))]


def _misses(lots: Lots, needs: list[Need]) -> list[tuple[int, int, float]]:
    """(product, period, units) that a service level demands and the lots do not give."""
    out = []
    for p, need in enumerate(needs):
        if need.on_time is not None:
            gap = np.quantile(need.futures, need.on_time, axis=0) - need.stock - np.cumsum(lots.made[p].sum(axis=0))
            out += [(p, int(t), float(gap[t])) for t in np.nonzero(gap > 1e-5)[0]]
    return out


def _total(lots: Lots, needs: list[Need], load: Load) -> float:
    return float(cost_of(lots, needs, load).sum())


def _plan(lots: Lots, needs: list[Need], load: Load, problem: Problem, known: Quantiles, facts: dict[str, Any]) -> Plan:
    names = list(problem.machines)
    rows = [{"product": known.ids[p], "machine": names[m], "time": known.times[t], "step": int(t), "units": float(lots.made[p, m, t]),
             "hours": float(lots.made[p, m, t] * needs[p].hours + needs[p].setup_hours)}
            for p, m, t in zip(*np.nonzero(lots.opened & (lots.made > 1e-6)), strict=True)]
    used = lots.hours(needs).sum(axis=0)
    loads = [{"machine": names[m], "time": known.times[t], "step": t, "used": float(used[m, t]), "capacity": float(load.capacity[m, t]),
              "overtime": float(max(used[m, t] - load.capacity[m, t], 0))} for m in range(len(names)) for t in range(len(known.times))]
    stocks = [{"product": known.ids[p], "time": known.times[t], "made": float(lots.made[p, :, t].sum()), "expected_demand": float(d), "expected_stock": float(s), "expected_late": float(b)}
              for p, need in enumerate(needs) for t, (d, s, b) in enumerate(zip(*need.expected(lots.made[p].sum(axis=0)), strict=True))]
    return Plan({"lots": rows, "load": loads, "stock": stocks}, _total(lots, needs, load), (), facts | {"times": list(known.times)})


LOTS = LotSizes()
