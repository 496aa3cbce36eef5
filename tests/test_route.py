"""Routes: every stop once, no vehicle above its load or late, costs that can be added up by hand, and the published costs of published tours."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.decide.base import Quantiles
from assay.decide.route import ROUTE
from assay.decide.route_drive import drive, execute
from assay.decide.route_rules import nearest, savings
from assay.decide.route_solver import cost_of
from assay.errors import InputError, ReadError

pytest.importorskip("pyvrp")
DATA = Path(__file__).parents[2] / "shared" / "data"
published = pytest.mark.skipif(not (DATA / "09_cvrp_x").exists(), reason="the folder of open datasets is not beside the checkout")
HERE = Path()


def _table(points, demands, *, count=3, capacity=10, **more):
    return {
        "depots": [{"name": "depot", "x": 0, "y": 0}],
        "customers": [{"name": f"c{i}", "x": float(x), "y": float(y), "demand": float(d)} for i, ((x, y), d) in enumerate(zip(points, demands, strict=True))],
        "vehicles": [{"name": "van", "count": count, "capacity": capacity}],
    } | more


def _cheapest(points, demands, capacity, count):
    """By trying every order and every way to cut it into tours."""
    place = [(0.0, 0.0), *points]
    d = np.round(np.array([[math.dist(a, b) for b in place] for a in place]), 3)
    best = math.inf
    for order in itertools.permutations(range(1, len(place))):
        cost = [0.0] + [math.inf] * len(order)  # cost[j] with as many tours as used[j]
        table = {(0, 0): 0.0}
        for j in range(1, len(order) + 1):
            for i in range(j):
                part = order[i:j]
                if sum(demands[k - 1] for k in part) <= capacity:
                    length = d[0, part[0]] + sum(d[a, b] for a, b in itertools.pairwise(part)) + d[part[-1], 0]
                    for used in range(count):
                        if (i, used) in table:
                            table[j, used + 1] = min(table.get((j, used + 1), math.inf), table[i, used] + length)
        cost = [v for (j, _), v in table.items() if j == len(order)]
        best = min([best, *cost])
    return best


def _check(problem, plan, delivery):
    """The laws of a plan, counted from its tables alone."""
    stops = plan.choice["stops"]
    assert sorted(r["stop"] for r in stops) == sorted(v.name for v in problem.visits)
    visit = {v.name: (k, v) for k, v in enumerate(problem.visits)}
    kinds = {v.name: v for v in problem.vehicles}
    total = 0.0
    for route in plan.choice["routes"]:
        kind = kinds[route["type"]]
        mine = [visit[r["stop"]] for r in sorted((r for r in stops if r["vehicle"] == route["vehicle"]), key=lambda r: r["position"])]
        begins = [r["begin"] for r in sorted((r for r in stops if r["vehicle"] == route["vehicle"]), key=lambda r: r["position"])]
        line = [kind.start, *(v.place for _, v in mine), kind.end]
        distance = sum(problem.distance[a, b] for a, b in itertools.pairwise(line))
        load = sum(delivery[k] for k, _ in mine)
        assert load <= kind.capacity + 1e-6
        for (k, v), begin in zip(mine, begins, strict=True):
            assert v.early - 1e-6 <= begin <= v.late + 1e-6
            load += v.pickup + v.carry - delivery[k]
            assert load <= kind.capacity + 1e-6
            assert v.after < 0 or v.after in [j for j, _ in mine[: mine.index((k, v))]], "goods are taken before they are brought"
        assert kind.early - 1e-6 <= route["start"]
        assert route["end"] <= kind.late + 1e-6
        total += kind.fixed + kind.per_distance * distance + kind.per_minute * (route["end"] - route["start"])
    assert plan.facts["planned_cost"] == pytest.approx(total, abs=1e-2 * (1 + len(stops)))
    assert not plan.violations


points = st.lists(st.tuples(st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=5, unique=True)


@settings(max_examples=12)
@given(points, st.data())
def test_small_plans_cost_what_trying_everything_costs_and_no_rule_of_thumb_less(places, data):
    demands = data.draw(st.lists(st.integers(1, 5), min_size=len(places), max_size=len(places)))
    problem = ROUTE.problem(_table(places, demands, count=len(places), capacity=8), HERE)
    plan = ROUTE.solve(problem, None, seconds=5, seed=0)
    _check(problem, plan, np.array(demands, dtype=float))
    best = _cheapest(places, demands, 8, len(places))
    assert plan.cost == pytest.approx(best, abs=0.02)
    thumb = ROUTE.rule(problem, None)
    _check(problem, thumb, np.array(demands, dtype=float))
    assert thumb.cost >= best - 0.02


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_both_rules_of_thumb_keep_every_law_with_windows_and_unlike_vehicles(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 14))
    table = _table(rng.integers(-30, 31, (n, 2)), rng.integers(0, 9, n), count=n, capacity=12)
    for row in table["customers"]:
        early = int(rng.integers(0, 200))
        row |= {"tw_early": early, "tw_late": early + 60, "service": 3, "pickup": int(rng.integers(0, 5))}
    table["depots"].append({"name": "yard", "x": 15, "y": 15})
    table["vehicles"].append({"name": "lorry", "count": n, "capacity": 20, "depot": "yard", "fixed_cost": 4, "cost_per_minute": 0.1, "shift": 400})
    problem = ROUTE.problem(table, HERE)
    delivery = np.array([v.delivery for v in problem.visits])
    for tours in (savings(problem, delivery), nearest(problem, delivery)):
        assert sorted(k for _, _, stops in tours for k in stops) == list(range(n))
        assert all(drive(problem, v, stops, delivery).possible for v, _, stops in tours)
    _check(problem, ROUTE.rule(problem, None), delivery)


def test_savings_join_the_two_far_stops_by_hand():
    problem = ROUTE.problem(_table([(10, 0), (10, 1), (-10, 0)], [4, 4, 4], capacity=8), HERE)
    plan = ROUTE.rule(problem, None)
    assert plan.facts["solver"] == "Clarke-Wright savings"
    assert plan.cost == pytest.approx(10 + 1 + math.hypot(10, 1) + 20, abs=0.01)


def test_windows_decide_the_order_and_paid_minutes_the_departure():
    table = _table([(10, 0), (20, 0)], [1, 1], count=1, vehicles=[{"name": "van", "capacity": 10, "cost_per_distance": 0, "cost_per_minute": 1}])
    table["customers"][0] |= {"tw_early": 200, "tw_late": 210}
    table["customers"][1] |= {"tw_early": 100, "tw_late": 195}
    problem = ROUTE.problem(table, HERE)
    plan = ROUTE.solve(problem, None, seconds=5, seed=0)
    assert [r["stop"] for r in plan.choice["stops"]] == ["c1", "c0"]
    assert plan.choice["routes"][0]["start"] == pytest.approx(170), "it leaves so that it reaches c1 at 190 and need not wait"
    assert plan.cost == pytest.approx(40)


def test_goods_are_brought_and_taken_back_at_one_stop_and_carried_between_two():
    table = _table([(10, 0), (0, 10), (-10, 0)], [6, 4, 0], count=2, capacity=10)
    table["customers"][0]["pickup"] = 6
    table["customers"][1]["pickup"] = 2
    del table["customers"][2]["demand"]
    table["shipments"] = [{"name": "parcel", "from": "c2", "to": "c1", "amount": 3}]
    problem = ROUTE.problem(table, HERE)
    assert [v.name for v in problem.visits] == ["c0", "c1", "parcel from", "parcel to"]
    plan = ROUTE.solve(problem, None, seconds=5, seed=0)
    _check(problem, plan, np.array([v.delivery for v in problem.visits]))
    assert ROUTE.rule(problem, None).facts["solver"] == "nearest neighbour"
    _check(problem, ROUTE.rule(problem, None), np.array([v.delivery for v in problem.visits]))


def test_a_full_vehicle_that_meets_more_demand_drives_home_once_and_comes_back():
    problem = ROUTE.problem(_table([(10, 0), (20, 0)], [4, 4], count=1, capacity=10), HERE)
    van, planned = problem.vehicles[0], np.array([4.0, 4.0])
    assert execute(problem, van, [0, 1], planned, planned) == pytest.approx(40)
    assert execute(problem, van, [0, 1], planned, np.array([4.0, 6.0])) == pytest.approx(40), "two more were on board"
    assert execute(problem, van, [0, 1], planned, np.array([4.0, 7.0])) == pytest.approx(40 + 40)
    assert execute(problem, van, [0, 1], planned, np.array([4.0, 17.0])) == pytest.approx(40 + 80), "a demand above the capacity takes two"
    table = _table([(10, 0)], [4], count=1, capacity=10, late_cost=2.0)
    table["customers"][0]["tw_late"] = 5
    late = ROUTE.problem(table, HERE)
    assert execute(late, late.vehicles[0], [0], np.array([4.0]), np.array([4.0])) == pytest.approx(20 + 2 * 5)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_more_demand_than_planned_never_makes_a_tour_cheaper(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    problem = ROUTE.problem(_table(rng.integers(-9, 10, (n, 2)), np.ones(n), count=1, capacity=12), HERE)
    planned, true = rng.uniform(0, 12 / n, n), rng.uniform(0, 9, n)
    cost = execute(problem, problem.vehicles[0], list(range(n)), planned, true)
    assert drive(problem, problem.vehicles[0], list(range(n)), planned).cost - 1e-9 <= cost < math.inf


def test_a_forecast_is_planned_at_a_level_and_failures_are_part_of_the_expected_cost():
    example = ROUTE.example()
    problem = ROUTE.problem(example.table, HERE)
    plan = ROUTE.solve(problem, example.quantiles, seconds=5, seed=0)
    thumb = ROUTE.rule(problem, example.quantiles)
    assert plan.cost >= plan.facts["planned_cost"]
    assert plan.cost <= thumb.cost
    oracle = ROUTE.solve(problem, Quantiles.exact(example.truth, example.quantiles.ids, example.quantiles.times), seconds=5, seed=0)
    assert ROUTE.realised(problem, oracle, example.truth)[0] == pytest.approx(oracle.cost, abs=0.1)
    assert ROUTE.realised(problem, oracle, example.truth)[0] <= ROUTE.realised(problem, plan, example.truth)[0]
    assert json.loads(json.dumps(plan.json()))["facts"]["level"] in (0.5, 0.7, 0.9)


def test_what_is_served_is_not_planned_again_and_a_vehicle_goes_on_from_where_it_is(tmp_path):
    table = _table([(10, 0), (20, 0), (0, 10), (0, 20)], [4, 4, 4, 4], count=2, capacity=8)
    problem = ROUTE.problem(table, HERE)
    plan = ROUTE.solve(problem, None, seconds=5, seed=0)
    assert plan.cost == pytest.approx(80)
    (tmp_path / "plan.json").write_text(json.dumps(plan.json()))
    first = next(r for r in plan.choice["stops"] if r["stop"] == "c0")
    order = [r["stop"] for r in plan.choice["stops"] if r["vehicle"] == first["vehicle"]]
    rest = ROUTE.problem(table | {"plan": "plan.json", "done": [{"vehicle": first["vehicle"], "served": order[:1], "at": order[0], "time": 20}]}, tmp_path)
    assert [v.goods for v in rest.vehicles] == [4.0, None]
    again = ROUTE.solve(rest, None, seconds=5, seed=0)
    assert {r["stop"] for r in again.choice["stops"]} == {"c0", "c1", "c2", "c3"} - {order[0]}
    assert again.cost == pytest.approx(plan.cost - (10 if order[0] == "c0" else 20))
    assert all(r["begin"] >= 20 for r in again.choice["stops"])
    _check(rest, again, np.array([v.delivery for v in rest.visits]))
    empty = ROUTE.problem(table | {"done": [{"vehicle": "van 1", "served": ["c0", "c1"], "x": 20, "y": 0, "time": 20}]}, tmp_path)
    done = ROUTE.solve(empty, None, seconds=5, seed=0)
    assert done.cost == pytest.approx(20 + 40), "the empty one drives home, the other serves the rest"
    assert ROUTE.realised(empty, done, None)[0] == pytest.approx(done.cost)


def test_a_vehicle_that_has_to_drive_home_anyway_takes_the_stop_on_its_way(tmp_path):
    table = _table([(20, 0), (9, 1)], [4, 4], count=2, capacity=8)
    rest = ROUTE.problem(table | {"done": [{"vehicle": "van 1", "served": ["c0"], "at": "c0", "time": 20}]}, tmp_path)
    plan = ROUTE.solve(rest, None, seconds=5, seed=0)
    assert [r["vehicle"] for r in plan.choice["stops"]] == ["van 1"]
    assert plan.cost == pytest.approx(math.hypot(11, 1) + math.hypot(9, 1), abs=0.01)
    short = ROUTE.problem(table | {"done": [{"vehicle": "van 1", "served": ["c0"], "at": "c0", "time": 20, "load": 3}]}, tmp_path)
    assert [r["vehicle"] for r in ROUTE.solve(short, None, seconds=5, seed=0).choice["stops"]] == ["van 2"], "it has not enough on board"
    table["vehicles"][0]["shift"] = [0, 25]
    late = ROUTE.problem(table | {"now": 0, "done": [{"vehicle": "van 1", "served": ["c0"], "at": "c0", "time": 30}]}, tmp_path)
    assert [r["vehicle"] for r in ROUTE.solve(late, None, seconds=5, seed=0).choice["stops"]] == ["van 2"], "its shift is over, it only drives home"


def test_kilometres_on_the_globe_are_great_circles():
    table = {"depots": [{"name": "Berlin", "lat": 52.52, "lon": 13.405}], "customers": [{"name": "Munich", "lat": 48.137, "lon": 11.575, "demand": 1}], "vehicles": {"capacity": 5}}
    problem = ROUTE.problem(table, HERE)
    assert problem.distance[0, 1] == pytest.approx(504.4, abs=1.0)  # published: 504 km
    assert problem.minutes[0, 1] == pytest.approx(problem.distance[0, 1] * 60 / 40, abs=0.01)
    plan = ROUTE.rule(problem, None)
    assert ROUTE.picture(problem, plan).startswith("<svg")
    assert "Munich" in ROUTE.picture(problem, plan)


def test_customers_and_road_distances_come_from_csv_files(tmp_path):
    (tmp_path / "stops.csv").write_text("name,x,y,demand,tw_early,tw_late\nnorth,0,5,2,08:00,09:30\nsouth,0,-5,3,,\n")
    (tmp_path / "km.csv").write_text(",depot,north,south\ndepot,0,7,8\nnorth,9,0,20\nsouth,8,20,0\n")
    problem = ROUTE.problem({"depots": [{"x": 0, "y": 0}], "customers": "stops.csv", "vehicles": [{"count": 2, "capacity": 4}], "distances": "km.csv"}, tmp_path)
    assert problem.visits[0].early == 480
    assert problem.visits[0].late == 570
    assert ROUTE.solve(problem, None, seconds=5, seed=0).cost == pytest.approx(7 + 9 + 16)


@pytest.mark.parametrize(("change", "words"), [
    ({"depots": [{"name": "depot"}]}, "has no coordinates"),
    ({"customers": [{"name": "a", "x": math.nan, "y": 1, "demand": 1}]}, "is not a number"),
    ({"customers": [{"name": "a", "x": 1, "y": 1, "demand": 11}]}, "the largest vehicle holds 10"),
    ({"customers": [{"name": "a", "x": 1, "y": 1, "demand": -1}]}, "at least 0"),
    ({"customers": [{"name": "a", "x": 1, "y": 1, "demand": 1, "tw_early": 50, "tw_late": 40}]}, "ends before it begins"),
    ({"customers": [{"name": "a", "lat": 1, "lon": 1, "demand": 1}]}, "one kind of coordinates"),
    ({"customers": [{"name": "a", "x": 1, "y": 1, "weight": 1}]}, "no field 'weight'"),
    ({"vehicles": [{"depot": "nowhere"}]}, "does not exist"),
    ({"vehicles": []}, "has no vehicles"),
    ({"customers": "no.csv"}, "could not be read"),
    ({"done": [{"vehicle": "lorry"}]}, "does not exist"),
])
def test_bad_input_is_one_sentence(change, words):
    with pytest.raises((InputError, ReadError)) as caught:
        ROUTE.problem(_table([(1, 1)], [1]) | change, HERE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stop_of_which_nobody_knows_the_demand_is_named():
    table = _table([(1, 1)], [1])
    del table["customers"][0]["demand"]
    with pytest.raises(InputError, match="'c0' has no demand"):
        ROUTE.solve(ROUTE.problem(table, HERE), None, seconds=0.1, seed=0)


def test_an_impossible_problem_says_which_demands_clash():
    plan = ROUTE.solve(ROUTE.problem(_table([(1, 1), (2, 2), (3, 3)], [9, 9, 9], count=2), HERE), None, seconds=0.3, seed=0)
    assert not plan.choice
    assert "ask for 27, but all vehicles together bring 20" in str(plan.violations[0])
    table = _table([(100, 0)], [1])
    table["customers"][0]["tw_late"] = 90
    plan = ROUTE.solve(ROUTE.problem(table, HERE), None, seconds=0.3, seed=0)
    assert str(plan.violations[0]) == "'c0' can be reached at 01:40 at the earliest, but its window ends at 01:30."
    table = _table([(50, 0), (-50, 0)], [1, 1], count=1)
    for row in table["customers"]:
        row["tw_late"] = 55
    plan = ROUTE.solve(ROUTE.problem(table, HERE), None, seconds=0.3, seed=0)
    assert "takes 2" in str(plan.violations[0])
    assert plan.facts["status"] == "infeasible"
    thumb = ROUTE.rule(ROUTE.problem(table, HERE), None)
    assert "1 vehicles more" in str(thumb.violations[-1])
    assert thumb.cost == pytest.approx(200)


def test_a_file_that_is_no_routing_problem_is_refused(tmp_path):
    whole = ("NAME : a\nTYPE : CVRP\nDIMENSION : 3\nEDGE_WEIGHT_TYPE : EUC_2D\nCAPACITY : 5\nNODE_COORD_SECTION\n1 0 0\n2 3 4\n3 6 8\nDEMAND_SECTION\n1 0\n2 2\n3 3\n"
             "DEPOT_SECTION\n1\n-1\nEOF\n")
    path = tmp_path / "a.vrp"
    path.write_text(whole)
    assert ROUTE.rule(ROUTE.problem_file(path), None).cost == 20
    for text in ("", "hello\n", whole[:90], whole.replace("3 4", "nan nan"), whole.replace("3 4", "1e300 4"), whole.replace("3 4", "a b"), whole.replace("2 2\n", "2 -2\n"), whole.replace(": 5", ": 2")):
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            ROUTE.problem_file(path)
        assert "\n" not in str(caught.value)


# ---- published instances

def _published(name):
    problem = ROUTE.problem_file(DATA / f"{name}.vrp")
    lines = [x.split(":")[1].split() for x in (DATA / f"{name}.sol").read_text().splitlines() if x.startswith("Route")]
    return problem, [(problem.vehicles[0], "", [int(k) - 1 for k in line]) for line in lines]


@published
@pytest.mark.real
@pytest.mark.parametrize(("name", "cost"), [("09_cvrp_x/X-n101-k25", 27591), ("09_cvrp_x/X-n327-k20", 27532), ("09_vrptw_homberger/RC208", 776.1)])
def test_published_tours_cost_what_was_published(name, cost):
    problem, tours = _published(name)
    delivery = np.array([v.delivery for v in problem.visits])
    assert problem.best_known == cost
    assert all(drive(problem, v, stops, delivery).possible for v, _, stops in tours)
    assert cost_of(problem, tours, delivery) == pytest.approx(cost, abs=1e-6)


@published
@pytest.mark.real
def test_two_seconds_come_within_five_percent_of_the_best_known():
    problem, _ = _published("09_cvrp_x/X-n101-k25")
    plan = ROUTE.solve(problem, None, seconds=2, seed=0)
    _check(problem, plan, np.array([v.delivery for v in problem.visits]))
    assert plan.facts["gap_to_best_known"] < 0.05
    thumb = ROUTE.rule(problem, None)
    assert 0.03 < thumb.facts["gap_to_best_known"] < 0.10  # published for savings on this set: 5 to 7 %
    assert plan.cost < thumb.cost
