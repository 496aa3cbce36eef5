"""A delivery problem in the terms of PyVRP (Wouda, Lan and Kool 2024, doi:10.1287/ijoc.2023.0055), and its answer in ours; VRPLIB files."""

from __future__ import annotations

import csv
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.route_drive import drive
from assay.decide.route_problem import NEVER, RouteProblem, Vehicle, Visit, check_size
from assay.decide.route_rules import Tours
from assay.errors import MissingExtra, ReadError
from assay.words import Text, say


def pyvrp() -> Any:
    try:
        import pyvrp
    except ImportError:
        raise MissingExtra("pyvrp", extra="plan") from None
    return pyvrp


@dataclass(frozen=True)
class Found:
    tours: Tours | None
    iterations: int


def search(problem: RouteProblem, delivery: np.ndarray, *, seconds: float, seed: int, start: Tours | None = None) -> Found:
    """The best tours that are found in so many seconds, None where none of them can be driven. start: tours to begin with."""
    vrp, deadline = pyvrp(), time.perf_counter() + seconds
    data, clients, shipments = _data(problem, delivery)
    first = None
    if start:
        kinds = {id(v): i for i, v in enumerate(problem.vehicles)}
        act, kind = vrp.Activity, vrp.ActivityType
        what = {k: act(kind.CLIENT, i) for i, k in enumerate(clients)}
        what |= {a: act(kind.PICKUP, i) for i, (a, b) in enumerate(shipments)} | {b: act(kind.DELIVERY, i) for i, (a, b) in enumerate(shipments)}
        road = [i for i, v in enumerate(problem.vehicles) if v.goods is not None]
        if all(id(v) in kinds for v, _, _ in start):
            tasks = [(kinds[id(v)], [what[k] for k in stops]) for v, _, stops in start]
            tasks += [(i, []) for i in road if i not in {i for i, _ in tasks}]
            anchor = {i: [act(kind.CLIENT, len(clients) + n)] for n, i in enumerate(road)}
            first = vrp.Solution(data, [vrp.Route(data, [*anchor.get(i, []), *line], i) for i, line in tasks if line or i in anchor])
    from pyvrp.exceptions import PenaltyBoundWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PenaltyBoundWarning)  # what it warns of, an impossible problem, is said in words below
        result = vrp.solve(data, stop=_patience(len(problem.visits), deadline), seed=seed % 2**31, collect_stats=False, display=False, initial_solution=first)
    if not result.is_feasible():
        return Found(None, result.num_iterations)
    used: dict[int, int] = {}
    tours: Tours = []
    for route in result.best.routes():
        kind_ = problem.vehicles[route.vehicle_type()]
        used[route.vehicle_type()] = number = used.get(route.vehicle_type(), 0) + 1
        stops = [clients[a.idx] if a.is_client() else shipments[a.idx][0 if a.is_pickup() else 1]
                 for a in route if not a.is_depot() and not (a.is_client() and a.idx >= len(clients))]
        if stops:
            tours.append((kind_, kind_.called(number), stops))
    return Found(tours, result.num_iterations)


def _patience(n: int, deadline: float) -> Any:
    """When to stop: at the deadline; with up to 20 stops also after 500 n rounds without a better plan, because minutes more then find nothing."""
    best, idle = math.inf, 0

    def stop(cost: float) -> bool:
        nonlocal best, idle
        best, idle = (cost, 0) if cost < best else (best, idle + 1)
        return time.perf_counter() > deadline or (n <= 20 and idle >= 500 * n and best < math.inf)

    return stop


def _data(problem: RouteProblem, delivery: np.ndarray) -> tuple[Any, list[int], list[tuple[int, int]]]:
    """(PyVRP's data, the visit of each client, the two visits of each shipment). Goods count in thousandths unless all are whole; demands are rounded up."""
    vrp, scale = pyvrp(), problem.scale
    goods = [*delivery, *(v.pickup for v in problem.visits), *(v.carry for v in problem.visits), *(v.collected for v in problem.vehicles)]
    grain = 1 if all(float(g).is_integer() for g in goods) else 1000
    plain = all(float(r).is_integer() for v in problem.vehicles for r in (v.per_distance, v.per_minute))
    money = 1 if plain else 1000
    # With vehicles on the road a second load counts what can be given, apart from the room that is taken. And each of them has to drive home, used or
    # not: a task where it stands, a unit of a load that only it can carry, has that counted (else a van 18 away beats one that passes by on its way home).
    road = [i for i, v in enumerate(problem.vehicles) if v.goods is not None]

    def up(amount: float) -> int:
        return math.ceil(amount * grain - 1e-6)

    def units(value: float) -> int:
        return round(value * scale)

    def both(room: int, give: int, own: int = -1) -> list[int]:
        return [room, give, *(int(i == own) for i in road)] if road else [room]

    yards = sorted({v.start for v in problem.vehicles} | {v.end for v in problem.vehicles})
    yard = {p: i for i, p in enumerate(yards)}
    clients = [k for k, v in enumerate(problem.visits) if not v.carry and v.after < 0]
    shipments = [(v.after, k) for k, v in enumerate(problem.visits) if v.after >= 0]
    visits = problem.visits
    return vrp.ProblemData(
        locations=[vrp.Location(float(x), float(y)) for x, y in problem.xy],
        clients=[vrp.Client(location=visits[k].place, delivery=both(up(delivery[k]), up(delivery[k])), pickup=both(up(visits[k].pickup), 0),
                            service_duration=units(visits[k].service), tw_early=units(visits[k].early), tw_late=units(visits[k].late)) for k in clients]
        + [vrp.Client(location=problem.vehicles[i].start, delivery=both(0, 0, i)) for i in road],
        depots=[vrp.Depot(p) for p in yards],
        vehicle_types=[vrp.VehicleType(
            num_available=v.count, capacity=both(math.floor(v.capacity * grain + 1e-6), math.floor((v.capacity if v.goods is None else v.goods) * grain + 1e-6), i),
            start_depot=yard[v.start], end_depot=yard[v.end], fixed_cost=round(v.fixed * scale * money), tw_early=units(v.early), tw_late=units(v.late),
            shift_duration=units(v.longest), max_distance=units(v.farthest), unit_distance_cost=round(v.per_distance * money),
            unit_duration_cost=round(v.per_minute * money), initial_load=both(up(v.collected), 0)) for i, v in enumerate(problem.vehicles)],
        distance_matrices=[np.round(problem.distance * scale).astype(np.int64)],
        duration_matrices=[np.round(problem.minutes * scale).astype(np.int64)],
        shipments=[vrp.Shipment(visits[a].place, visits[b].place, units(visits[a].early), units(visits[a].late), units(visits[a].service), units(visits[b].early),
                                units(visits[b].late), units(visits[b].service), both(up(visits[a].carry), 0)) for a, b in shipments],
    ), clients, shipments


def clashes(problem: RouteProblem, delivery: np.ndarray) -> tuple[Text, ...]:
    """What no plan can keep, each proven: goods above all vehicles together, visits that no vehicle can make even alone."""
    out = []
    room = sum(v.count * (v.capacity if v.goods is None else v.goods) for v in problem.vehicles)
    if (asked := float(delivery.sum())) > room + 1e-9:
        out.append(say("All stops together ask for {asked:g}, but all vehicles together bring {room:g}: add vehicles, or plan a second day.", asked=asked, room=room))
    room = sum(v.count * (v.capacity - v.collected) for v in problem.vehicles)
    if (taken := sum(v.pickup for v in problem.visits)) > room + 1e-9:
        out.append(say("All stops together send back {asked:g}, but all vehicles together hold {room:g}: add vehicles, or plan a second day.", asked=taken, room=room))
    lonely = []
    for k, visit in enumerate(problem.visits):
        if visit.after >= 0:
            continue
        stops = [k, *(j for j, other in enumerate(problem.visits) if other.after == k)] if visit.carry else [k]
        tours = [drive(problem, v, stops, delivery) for v in problem.vehicles]
        if any(t.possible for t in tours):
            continue
        best = min(tours, key=lambda t: (t.late, t.over, t.far))
        late = [(problem.visits[j], begin) for j, begin in zip(stops, best.begins, strict=True) if begin > problem.visits[j].late]
        if late:
            lonely.append(say("'{name}' can be reached at {reached} at the earliest, but its window ends at {late}.",
                              name=late[0][0].name, reached=hour(late[0][1]), late=hour(late[0][0].late)))
        elif best.over > 0:
            lonely.append(say("'{name}' asks for {over:g} more than any vehicle can bring to it.", name=visit.name, over=best.over))
        elif best.late > 0:
            lonely.append(say("A vehicle that serves '{name}' alone is back {late:g} minutes after its shift.", name=visit.name, late=best.late))
        else:
            lonely.append(say("A tour to '{name}' alone is {far:g} longer than any vehicle may drive.", name=visit.name, far=best.far))
    more = len(lonely) - 8
    return (*out, *lonely[:8], *([say("So it is with {n} more stops.", n=more)] if more > 0 else []))


def hour(minutes: float) -> str:
    """510.5 -> '08:30:30'; a day's minutes beyond 24 hours go on counting."""
    seconds = round(minutes * 60)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}"
    return text if seconds % 60 == 0 else f"{text}:{seconds % 60:02d}"


def read_vrplib(path: Path) -> RouteProblem:
    """A VRPLIB file: CVRPLIB's (distances rounded to whole numbers) and Solomon's or Homberger's in that format (one decimal kept, as DIMACS counts).

    The best known cost is taken from the .sol file or the instances.csv beside it. Raises ReadError.
    """
    vrp = pyvrp()
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        scale = 10 if "TIME_WINDOW_SECTION" in text else 1
        with np.errstate(invalid="ignore", over="ignore"):
            data = vrp.read(path, round_func="dimacs" if scale == 10 else "round")
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise ReadError("'{path}' could not be read as a VRPLIB file: {reason}.", path=str(path), reason=" ".join(str(error).split()).rstrip(".") or type(error).__name__) from None
    if data.distance_matrix(0).min() < 0 or data.distance_matrix(0).max() > NEVER * scale:
        raise ReadError("'{path}' has places without usable coordinates or distances: a number is missing or too large.", path=str(path))
    if data.num_profiles > 1 or data.num_groups or any(not c.required for c in data.clients()) or any(t.reload_depots for t in data.vehicle_types()):
        raise ReadError("'{path}' has optional stops, groups, reloading or vehicles that may not go everywhere; these are not planned here.", path=str(path))

    def limit(value: float) -> float:
        return min(value / scale, NEVER)

    # goods are scaled by the reader as well; dividing gives the file's own figures back
    visits = [Visit(str(i + 1), c.location, sum(c.delivery) / scale, sum(c.pickup) / scale, c.tw_early / scale, limit(c.tw_late), c.service_duration / scale)
              for i, c in enumerate(data.clients())]
    for i, s in enumerate(data.shipments()):
        visits.append(Visit(f"shipment {i + 1} from", s.pickup.location, 0, 0, s.pickup.tw_early / scale, limit(s.pickup.tw_late), s.pickup.service_duration / scale, sum(s.amount) / scale))
        visits.append(Visit(f"shipment {i + 1} to", s.delivery.location, 0, 0, s.delivery.tw_early / scale, limit(s.delivery.tw_late), s.delivery.service_duration / scale,
                            -sum(s.amount) / scale, len(visits) - 1))
    spots = [d.location for d in data.depots()]
    kinds = data.vehicle_types()
    vehicles = [Vehicle("vehicle" if len(kinds) == 1 else f"vehicle type {i + 1}", t.num_available, limit(sum(t.capacity)) if t.capacity else NEVER, spots[t.start_depot], spots[t.end_depot],
                        t.tw_early / scale, limit(t.tw_late), limit(t.shift_duration), limit(t.max_distance), t.fixed_cost / scale, float(t.unit_distance_cost))
                for i, t in enumerate(kinds)]
    xy = np.array([[p.x, p.y] for p in data.locations()]) / scale
    names = ["depot" if i == spots[0] else f"place {i + 1}" for i in range(len(xy))]
    far, long = data.distance_matrix(0) / scale, data.duration_matrix(0) / scale
    problem = RouteProblem(tuple(names), xy, False, far, long, tuple(spots), tuple(visits), tuple(vehicles), scale, best_known=best_known(path),
                           timed=any(v.late < NEVER or v.early > 0 for v in visits) or any(v.late < NEVER or v.longest < NEVER for v in vehicles))
    check_size(problem)
    return problem


def best_known(path: Path) -> float | None:
    """From NAME.sol ('Cost 27591') or from instances.csv (columns instance, best_known_cost) beside the file; None where neither says."""
    sol = path.with_suffix(".sol")
    if sol.exists():
        for line in reversed(sol.read_text(encoding="utf-8", errors="replace").splitlines()):
            words = line.split()
            if len(words) >= 2 and words[0].lower().rstrip(":") == "cost":
                try:
                    return float(words[-1])
                except ValueError:
                    break
    table = path.with_name("instances.csv")
    if table.exists():
        with table.open(encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines):
                if row.get("instance") == path.stem and row.get("best_known_cost"):
                    try:
                        return float(row["best_known_cost"])
                    except ValueError:
                        return None
    return None


def warm(problem: RouteProblem, delivery: np.ndarray) -> Tours | None:
    """The earlier plan's tours with what is no longer asked for left out and new stops put where they cost least; None where that cannot be driven."""
    if not problem.old:
        return None
    slots: list[tuple[Vehicle, str, list[int]]] = [(v, v.called(n), []) for v in problem.vehicles for n in range(1, v.count + 1)]
    by_name = {name: stops for _, name, stops in slots}
    for name, old in problem.old:
        if name in by_name:
            by_name[name] += old
    placed = {k for _, _, stops in slots for k in stops}
    if any(v.carry and k not in placed for k, v in enumerate(problem.visits)):
        return None
    for k in [k for k in range(len(problem.visits)) if k not in placed]:
        best: tuple[float, int, int] | None = None
        seen: set[int] = set()
        for s, (vehicle, _, stops) in enumerate(slots):
            if not stops and id(vehicle) in seen:
                continue
            if not stops:
                seen.add(id(vehicle))
            now = drive(problem, vehicle, stops, delivery).cost if stops else 0.0
            for at in range(len(stops) + 1):
                tour = drive(problem, vehicle, [*stops[:at], k, *stops[at:]], delivery)
                if tour.possible and (best is None or tour.cost - now < best[0]):
                    best = (tour.cost - now, s, at)
        if best is None:
            return None
        slots[best[1]][2].insert(best[2], k)
    return [(v, name, stops) for v, name, stops in slots if stops]


def cost_of(problem: RouteProblem, tours: Sequence[tuple[Vehicle, str, list[int]]], delivery: np.ndarray) -> float:
    """What the tours cost, vehicles on the road that have nothing left to do driving home included."""
    used = {name for _, name, _ in tours}
    idle = sum(drive(problem, v, [], delivery).cost for v in problem.vehicles if v.goods is not None and v.name not in used)
    return sum(drive(problem, v, stops, delivery).cost for v, _, stops in tours) + idle
