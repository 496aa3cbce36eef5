"""What a delivery problem is: places, visits, vehicles; how it is read from a TOML table or a VRPLIB file.

Times are minutes (a number, "08:30", or a TOML local time), distances kilometres for lat/lon and plain units for x/y. All distances and times are whole
multiples of 1 / scale, because the solver counts in whole numbers: what it finds feasible is feasible here as well, to the last digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.route_places import Places, clock, distances, known_keys, matrix, number, rows_of
from assay.errors import InputError, ReadError
from assay.words import say

NEVER = 1e9  # minutes, or distance: no limit
MOST = 6000  # places; their two matrices then hold 0.6 GB


@dataclass(frozen=True)
class Visit:
    """One call at a place. delivery: goods brought from a depot, nan where only a forecast knows. pickup: goods taken back to a depot.

    carry: goods taken from here to another visit (negative there); after: that visit's partner which has to come first, -1 for none.
    """

    name: str
    place: int
    delivery: float = 0.0
    pickup: float = 0.0
    early: float = 0.0
    late: float = NEVER
    service: float = 0.0
    carry: float = 0.0
    after: int = -1


@dataclass(frozen=True)
class Vehicle:
    """`count` vehicles alike. start, end: places. early, late: when they may leave and have to be back. goods: what a vehicle on the road has on board
    to deliver (None: it loads at its depot). collected: what it has picked up already. names: of each vehicle, where they are not numbered."""

    name: str
    count: int
    capacity: float
    start: int
    end: int
    early: float = 0.0
    late: float = NEVER
    longest: float = NEVER
    farthest: float = NEVER
    fixed: float = 0.0
    per_distance: float = 1.0
    per_minute: float = 0.0
    goods: float | None = None
    collected: float = 0.0
    names: tuple[str, ...] = ()

    def called(self, number: int) -> str:
        """The name of the first, second, ... of these vehicles."""
        if self.names:
            return self.names[number - 1]
        return self.name if self.count == 1 else f"{self.name} {number}"


@dataclass(frozen=True)
class RouteProblem:
    """places: names. xy: shape (m, 2), x/y or lon/lat. distance, minutes: shape (m, m). depots: places. level: service level of the demands, None: chosen."""

    places: tuple[str, ...]
    xy: np.ndarray
    globe: bool
    distance: np.ndarray
    minutes: np.ndarray
    depots: tuple[int, ...]
    visits: tuple[Visit, ...]
    vehicles: tuple[Vehicle, ...]
    scale: int = 1000
    level: float | None = None
    late_cost: float = 1.0
    old: tuple[tuple[str, tuple[int, ...]], ...] = ()
    best_known: float | None = None
    timed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


_TOP = {"depots", "customers", "vehicles", "shipments", "done", "plan", "now", "speed", "level", "late_cost", "distances", "times"}
_PLACE = {"name", "x", "y", "lat", "lon"}
_CUSTOMER = _PLACE | {"demand", "pickup", "tw_early", "tw_late", "service"}
_VEHICLE = {"name", "count", "capacity", "depot", "end", "shift", "max_distance", "fixed_cost", "cost_per_distance", "cost_per_minute"}
_SHIPMENT = {"name", "from", "to", "amount", "pickup_early", "pickup_late", "delivery_early", "delivery_late", "service"}
_DONE = _PLACE | {"vehicle", "served", "at", "time", "load", "collected", "started"}


def from_table(table: Mapping[str, Any], place: Path) -> RouteProblem:
    """A problem from a TOML table (docs/decide-routes.md shows one). Raises InputError, ReadError."""
    known_keys(table, _TOP, say("A route problem"))
    for key in ("depots", "customers", "vehicles"):
        if not table.get(key) and not (key == "customers" and table.get("shipments")):
            raise InputError("The route problem has no {key}. Add [[{key}]] tables to it.", key=key)
    places, windows = Places(), {}
    depots = []
    for i, row in enumerate(rows_of(table, "depots", place)):
        known_keys(row, _PLACE | {"tw_early", "tw_late"}, say("A depot"))
        name = str(row.get("name", f"depot {i + 1}" if i else "depot"))
        depots.append(places.add(row, name))
        windows[depots[-1]] = _window(row, name, "tw_early", "tw_late")
    visits, silent = _customers(rows_of(table, "customers", place), places)
    visits += _shipments(rows_of(table, "shipments", place), places, len(visits))
    reached = {v.place for v in visits}
    for at in silent:
        if at not in reached:
            visits.append(Visit(places.names[at], at, math.nan, 0.0, *silent[at]))
    _distinct(visits)
    vehicles = [_vehicle(row, i, places, windows, depots[0]) for i, row in enumerate(rows_of(table, "vehicles", place))]
    if len({v.name for v in vehicles}) < len(vehicles):
        raise InputError("Two kinds of vehicles have the same name. Give each its own name.")
    visits, vehicles, lost = _running(rows_of(table, "done", place), table, places, visits, vehicles)
    if len(places.names) > MOST:
        raise InputError("There are {n} places; up to {most} are planned at once. Split the area first.", n=len(places.names), most=MOST)
    xy = np.array(places.points)
    globe = bool(places.globe)
    speed = number(table.get("speed", 40 if globe else 60), say("the problem"), "speed", least=1e-6)
    far = matrix(place / table["distances"], places.names) if "distances" in table else distances(xy, globe=globe)
    long = matrix(place / table["times"], places.names) if "times" in table else far * (60 / speed)
    vehicles = [v if v.goods is None else _homeward(v, float(long[v.start, v.end]), float(far[v.start, v.end])) for v in vehicles]
    level = table.get("level")
    if level is not None and not 0 < number(level, say("the problem"), "level") < 1:
        raise InputError("The service level is {level}; it has to lie between 0 and 1, such as 0.8.", level=level)
    problem = RouteProblem(
        tuple(places.names), xy, globe, np.round(far * 1000) / 1000, np.round(long * 1000) / 1000, tuple(depots), tuple(visits), tuple(vehicles),
        level=level, late_cost=number(table.get("late_cost", 1.0), say("the problem"), "late_cost", least=0),
        timed=any(v.late < NEVER or v.early > 0 for v in visits) or any(v.late < NEVER or v.longest < NEVER for v in vehicles),
        facts={"left": lost},
    )
    check_size(problem)
    return replace(problem, old=_old_plan(place / table["plan"], problem)) if "plan" in table else problem


def check_size(problem: RouteProblem) -> None:
    """Raises InputError where one visit alone is more than any vehicle holds: no plan can serve it."""
    most = max(v.capacity for v in problem.vehicles)
    for visit in problem.visits:
        if (asked := max(0.0 if math.isnan(visit.delivery) else visit.delivery, visit.pickup, abs(visit.carry))) > most:
            raise InputError("'{name}' asks for {asked:g}, but the largest vehicle holds {most:g}. Split the order, or add a larger vehicle.",
                             name=visit.name, asked=asked, most=most)


def _window(row: Mapping[str, Any], name: str, first: str, last: str) -> tuple[float, float]:
    early = math.ceil(clock(row[first], name, first) * 1000 - 1e-6) / 1000 if first in row else 0.0
    late = math.floor(clock(row[last], name, last) * 1000 + 1e-6) / 1000 if last in row else NEVER
    if early < 0 or late < early:
        raise InputError("'{name}' can be reached from {early:g} until {late:g} minutes: the window ends before it begins, or begins before 0.",
                         name=name, early=early, late=late)
    return early, late


def _customers(rows: list[dict[str, Any]], places: Places) -> tuple[list[Visit], dict[int, tuple[float, float, float]]]:
    visits: list[Visit] = []
    silent = {}
    for i, row in enumerate(rows):
        known_keys(row, _CUSTOMER, say("A customer"))
        name = str(row.get("name", i + 1))
        at = places.add(row, name)
        window = _window(row, name, "tw_early", "tw_late")
        service = math.ceil(number(row.get("service", 0), name, "service", least=0) * 1000 - 1e-6) / 1000
        if "demand" not in row and "pickup" not in row:
            silent[at] = (*window, service)  # only a forecast, or a shipment, knows what to do here
            continue
        visits.append(Visit(name, at, number(row.get("demand", 0), name, "demand", least=0), number(row.get("pickup", 0), name, "pickup", least=0), *window, service))
    return visits, silent


def _shipments(rows: list[dict[str, Any]], places: Places, first: int) -> list[Visit]:
    visits: list[Visit] = []
    for i, row in enumerate(rows):
        known_keys(row, _SHIPMENT, say("A shipment"))
        name = str(row.get("name", f"shipment {i + 1}"))
        amount = number(row.get("amount"), name, "amount", least=0)
        service = math.ceil(number(row.get("service", 0), name, "service", least=0) * 1000 - 1e-6) / 1000
        ends = [places.find(row.get(side), name) for side in ("from", "to")]
        visits.append(Visit(f"{name} from", ends[0], 0, 0, *_window(row, name, "pickup_early", "pickup_late"), service, amount))
        visits.append(Visit(f"{name} to", ends[1], 0, 0, *_window(row, name, "delivery_early", "delivery_late"), service, -amount, first + 2 * i))
    return visits


def _distinct(visits: list[Visit]) -> None:
    names = [v.name for v in visits]
    if twice := [n for i, n in enumerate(names) if n in names[:i]]:
        raise InputError("Two places are called '{name}'. Give each its own name.", name=twice[0])


def _vehicle(row: dict[str, Any], i: int, places: Places, windows: dict[int, tuple[float, float]], first: int) -> Vehicle:
    known_keys(row, _VEHICLE, say("A vehicle"))
    name = str(row.get("name", f"vehicle type {i + 1}" if i else "vehicle"))
    start = places.find(row["depot"], name) if "depot" in row else first
    end = places.find(row["end"], name) if "end" in row else start
    early, late = max(windows.get(start, (0, NEVER))[0], windows.get(end, (0, NEVER))[0]), min(windows.get(start, (0, NEVER))[1], windows.get(end, (0, NEVER))[1])
    longest, shift = NEVER, row.get("shift")
    if isinstance(shift, list) and len(shift) == 2:
        own = _window({"from": shift[0], "to": shift[1]}, name, "from", "to")
        early, late = max(early, own[0]), min(late, own[1])
    elif shift is not None:
        longest = math.floor(clock(shift, name, "shift") * 1000) / 1000
    if late < early:
        raise InputError("The shift of '{name}' and the opening hours of its depot do not overlap.", name=name)
    count = number(row.get("count", 1), name, "count", least=1)
    return Vehicle(name, int(count), number(row.get("capacity", NEVER), name, "capacity", least=0), start, end, early, late, longest,
                   number(row.get("max_distance", NEVER), name, "max_distance", least=0), number(row.get("fixed_cost", 0), name, "fixed_cost", least=0),
                   number(row.get("cost_per_distance", 1), name, "cost_per_distance", least=0), number(row.get("cost_per_minute", 0), name, "cost_per_minute", least=0))


def _running(rows: list[dict[str, Any]], table: Mapping[str, Any], places: Places, visits: list[Visit], vehicles: list[Vehicle]
             ) -> tuple[list[Visit], list[Vehicle], list[str]]:
    """What is left when vehicles are on the road: visits not served yet, and each vehicle on the road as one of its own, where it is now."""
    if not rows:
        return visits, vehicles, []
    by_name = {v.name: i for i, v in enumerate(visits)}
    served: set[int] = set()
    fleet = list(vehicles)
    now = clock(table["now"], say("the problem"), "now") if "now" in table else max((clock(r.get("time", 0), str(r.get("vehicle")), "time") for r in rows), default=0.0)
    out = []
    for row in rows:
        known_keys(row, _DONE, say("A row of done"))
        name = str(row.get("vehicle", ""))
        kind = next((k for k, v in enumerate(fleet) for n in range(1, v.count + 1) if v.called(n) == name), None)
        if kind is None:
            raise InputError("done names the vehicle '{name}', which does not exist or is named twice. There are: {names}.", name=name,
                             names=[v.called(n) for v in vehicles for n in range(1, min(v.count, 6) + 1)])
        old = fleet[kind]
        if unknown := [s for s in row.get("served", []) if s not in by_name]:
            raise InputError("done says that '{name}' was served, which is no visit of this problem.", name=str(unknown[0]))
        mine = [by_name[s] for s in row.get("served", [])]
        if twice := served & set(mine):
            raise InputError("done says twice that '{name}' was served.", name=visits[min(twice)].name)
        if half := [v.name for k, v in enumerate(visits) if v.carry and (k in mine) != (_partner(visits, k) in mine)]:
            raise InputError("'{name}' is on the road: half of a shipment cannot be planned again. Deliver it first, then plan the rest.", name=half[0])
        served |= set(mine)
        at = places.find(row["at"], f"done ({name})") if "at" in row else places.add(row, str(row.get("name", f"{name} now")))
        given = sum(visits[k].delivery for k in mine)
        goods = number(row["load"], name, "load", least=0) if "load" in row else max(0.0, old.capacity - given)
        collected = number(row["collected"], name, "collected", least=0) if "collected" in row else sum(visits[k].pickup for k in mine)
        if math.isnan(goods) or goods + collected > old.capacity + 1e-9:
            raise InputError("'{name}' would have {load:g} on board, but holds {most:g}. Say in done what its load is.", name=name, load=goods + collected, most=old.capacity)
        time = clock(row.get("time", now), name, "time")
        spent = time - clock(row["started"], name, "started") if "started" in row else 0.0
        out.append(replace(old, name=name, count=1, names=(), start=at, early=max(old.early, time), longest=max(0.0, old.longest - spent), fixed=0.0, goods=goods,
                           collected=collected))
        names = tuple(n for n in (old.names or [old.called(k + 1) for k in range(old.count)]) if n != name)
        fleet[kind] = replace(old, count=old.count - 1, names=names)
    waiting = [replace(v, early=max(v.early, now)) for v in fleet if v.count > 0 and max(v.early, now) <= v.late]
    left = [k for k in range(len(visits)) if k not in served]
    moved = {k: i for i, k in enumerate(left)}
    return [replace(visits[k], after=moved.get(visits[k].after, -1)) for k in left], out + waiting, [visits[k].name for k in sorted(served)]


def _homeward(v: Vehicle, minutes: float, distance: float) -> Vehicle:
    """A vehicle on the road may always drive straight home, however late it is."""
    return replace(v, late=max(v.late, v.early + minutes + 0.001), longest=max(v.longest, minutes + 0.001), farthest=max(v.farthest, distance + 0.001))


def _partner(visits: list[Visit], k: int) -> int:
    return visits[k].after if visits[k].after >= 0 else next((i for i, v in enumerate(visits) if v.after == k), -1)


def _old_plan(path: Path, problem: RouteProblem) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The order of stops in an earlier plan (its JSON), stops that are no longer asked for left out."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        rows = told.get("plan", told)["choice"]["stops"]  # plan.json holds the plan beside its rule of thumb
        order = [(str(r["vehicle"]), str(r["stop"])) for r in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError("The earlier plan '{path}' could not be read: {reason}. It is the JSON file that assay decide route writes.",
                        path=str(path), reason=str(error)) from None
    index = {v.name: i for i, v in enumerate(problem.visits)}
    routes: dict[str, list[int]] = {}
    for vehicle, stop in order:
        if stop in index:
            routes.setdefault(vehicle, []).append(index[stop])
    return tuple((vehicle, tuple(stops)) for vehicle, stops in routes.items())
