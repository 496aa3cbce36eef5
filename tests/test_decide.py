"""From quantiles to a plan: every decision holds the contract, and what is known in closed form or by dynamic programming comes out."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.checks import CheckFailed, check_decision
from assay.decide.base import LEVELS, Decision, Quantiles
from assay.decide.inventory import INVENTORY
from assay.decide.lots import LOTS
from assay.decide.reading import read_problem, read_quantiles, read_truth
from assay.decide.storage import STORAGE
from assay.errors import InputError
from assay.plan import decide, show
from assay.registry import discover

HERE = Path(".")
DECISIONS = discover("assay.decide", Decision)
Z = np.array([-1.2815516, -0.8416212, -0.5244005, -0.2533471, 0.0, 0.2533471, 0.5244005, 0.8416212, 1.2815516])
E = {name: decision.example(0).table for name, decision in DECISIONS.items()}
IMPOSSIBLE = {  # tables that no plan can meet, on the example's own forecast
    "inventory": {"mode": "review", "storage": 10.0, "default": {"holding": 1.0, "shortage": 5.0, "volume": 1.0, "stock": 80.0}},
    "lots": {"machine": [{"id": "press", "capacity": 20.0}], "default": {"hours": 1.0, "holding": 1.0, "service": 0.9}},
    "storage": {"load": "site", "solar": "roof", "price": 0.2, "battery": {"capacity": 100.0, "power": 1.0, "start": 0.0, "end": 100.0}},
    "portfolio": E["portfolio"] | {"turnover": 0.05, "low": 0.1, "cash": 0.0},
    "maintenance": E["maintenance"] | {"crew": 0.5, "highest_risk": 0.3},
    "signals": E["signals"] | {"cycle": [40, 50], "highest_degree": 0.6},
    "staffing": E["staffing"] | {"minimum": {"phone": 9.0, "mail": 9.0}},
    "route": {"depots": [{"x": 0, "y": 0}], "customers": [{"name": "shop 1", "x": 1, "y": 1}], "vehicles": [{"count": 1, "capacity": 1}]},
    "jobshop": {"hard_due": True, "jobs": [{"name": "order 1", "due": 1, "operations": [{"machine": "saw", "time": 5}]}]},
}


def sure(values, times=None) -> Quantiles:
    values = np.asarray(values, dtype=float)
    return Quantiles.exact(values, tuple("abcdefgh"[: len(values)]), times or tuple(str(t) for t in range(values.shape[1])))


def normal(mean, deviation) -> Quantiles:
    mean = np.asarray(mean, dtype=float)
    return Quantiles(LEVELS, mean[:, :, None] + deviation * Z, tuple("abcdefgh"[: len(mean)]), tuple(str(t) for t in range(mean.shape[1])))


@pytest.mark.parametrize("name", DECISIONS)
def test_every_decision_holds_the_contract(name):
    decision = DECISIONS[name]
    absent = [package for package in decision.needs if importlib.util.find_spec(package) is None]
    if absent:
        pytest.skip(f"{name} needs {', '.join(absent)}, which is not installed")
    check_decision(decision, seconds=2, infeasible=IMPOSSIBLE.get(name))


def test_the_check_finds_a_decision_that_breaks_the_contract():
    class Blind(type(STORAGE)):  # who knows the future plans by the rule of thumb
        def solve(self, problem, quantiles, *, seconds, seed):
            certain = quantiles is not None and len(quantiles.levels) == 1
            return self.rule(problem, quantiles) if certain else super().solve(problem, quantiles, seconds=seconds, seed=seed)

    class Moody(type(STORAGE)):
        calls = 0

        def realised(self, problem, plan, truth):
            self.calls += 1
            return super().realised(problem, plan, truth) + self.calls

    class Careless(type(STORAGE)):
        def problem(self, table, place):
            return super().problem({k: v for k, v in table.items() if k != "no_such_field"}, place)

    for broken, reason in ((Blind(), "knows the future"), (Moody(), "judged otherwise"), (Careless(), "takes a field")):
        with pytest.raises(CheckFailed, match=reason):
            check_decision(broken, seeds=(0,), seconds=2)


@settings(max_examples=15)
@given(price=st.floats(5, 50), share=st.floats(0.15, 0.85), mean=st.floats(20, 500))
def test_one_order_is_the_quantile_at_the_critical_ratio(price, share, mean):
    cost = price * (1 - share)  # nothing comes back for what is left, so the ratio is (price - cost) / price
    known = normal([[mean]], mean / 8)
    plan = INVENTORY.solve(INVENTORY.problem({"item": [{"id": "a", "price": price, "cost": cost}]}, HERE), known, seconds=1, seed=0)
    assert plan.choice["orders"][0]["order"] == pytest.approx(known.at(share)[0, 0], rel=1e-6)
    assert plan.facts["status"] == "optimal"


def test_a_budget_goes_where_a_unit_saves_most_and_is_kept():
    table = {"budget": 100.0, "item": [{"id": "a", "price": 20.0, "cost": 1.0}, {"id": "b", "price": 2.0, "cost": 1.0}]}
    plan = INVENTORY.solve(INVENTORY.problem(table, HERE), normal([[80.0], [80.0]], 10.0), seconds=2, seed=0)
    first, second = (row["order"] for row in plan.choice["orders"])
    assert first + second <= 100 + 1e-6
    assert first > 85 > second


def test_packs_and_smallest_orders_are_kept():
    item = {"holding": 1.0, "shortage": 4.0}
    table = {"item": [{"id": "a", "pack": 12.0, **item}, {"id": "b", "minimum": 200.0, **item}, {"id": "c", "minimum": 500.0, **item}]}
    orders = [row["order"] for row in INVENTORY.solve(INVENTORY.problem(table, HERE), normal([[80.0]] * 3, 10.0), seconds=2, seed=0).choice["orders"]]
    assert orders == pytest.approx([84, 200, 0])  # 80 units short cost 320: less than 420 units too many, more than 120


def test_a_known_demand_is_met_exactly_and_only_the_lead_time_is_lost():
    demand = [[10.0, 20.0, 30.0, 40.0]]
    problem = INVENTORY.problem({"mode": "review", "item": [{"id": "a", "holding": 1.0, "shortage": 9.0, "lead_time": 1}]}, HERE)
    plan = INVENTORY.solve(problem, sure(demand), seconds=2, seed=0)
    assert INVENTORY.realised(problem, plan, np.array(demand)) == pytest.approx([90.0])  # the first 10 units cannot arrive in time


def test_reviews_never_break_store_or_budget():
    from assay.decide.stock import Policy, Terms, simulate

    rng = np.random.default_rng(0)
    n, h = 5, 10
    one = np.ones(n)
    terms = Terms(one, 5 * one, one, rng.integers(0, 3, n), np.ones(n, dtype=int), 10 * one, np.ones(n, dtype=bool), rng.uniform(1, 3, n), rng.uniform(1, 3, n), 0 * one, 0 * one, 0 * one,
                  np.zeros((n, h)), 150.0, 200.0)
    outcome = simulate(terms, Policy(np.full((n, h), 100.0), np.full((n, h), 100.0), 0 * one, np.full((n, h), np.inf)), rng.uniform(0, 20, (6, n, h)), paths=True)
    assert (np.einsum("wnt,n->wt", outcome.ordered, terms.cost) <= 150 + 1e-6).all()
    assert (np.einsum("wnt,n->wt", np.maximum(outcome.paths, 0), terms.volume) <= 200 + 1e-6).all()


def test_fixed_quantities_are_ordered_in_multiples_and_waiting_demand_is_served():
    from assay.decide.inventory import _policy_of, _terms
    from assay.decide.stock import simulate

    table = {"mode": "review", "policy": "RQ", "unmet": "backorder", "item": [{"id": "a", "holding": 1.0, "shortage": 9.0, "order_cost": 60.0, "lead_time": 1, "review": 2, "pack": 7.0}]}
    problem = INVENTORY.problem(table, HERE)
    known = normal(np.full((1, 12), 20.0), 4.0)
    plan = INVENTORY.solve(problem, known, seconds=2, seed=0)
    quantity = plan.choice["orders"][0]["quantity"]
    demand = known.scenarios(20, seed=5)
    outcome = simulate(_terms(problem, list(problem.items.values()), 12), _policy_of(plan, 1, 12), demand, paths=True)
    assert quantity % 7 == pytest.approx(0)
    assert np.allclose(outcome.ordered / quantity, np.round(outcome.ordered / quantity))
    assert np.allclose(outcome.paths[:, :, -1], outcome.ordered.sum(axis=2) - demand.sum(axis=2))  # nothing is lost, nothing comes from nowhere
    assert (outcome.ordered[:, :, 1::2] == 0).all()


def wagner_whitin(demand, setup, holding) -> float:
    best = [0.0]
    for t in range(1, len(demand) + 1):
        best.append(min(best[j] + setup * (sum(demand[j:t]) > 0) + sum(holding * (u - j) * demand[u] for u in range(j, t)) for j in range(t)))
    return best[-1]


@settings(max_examples=10)
@given(demand=st.lists(st.integers(0, 60), min_size=2, max_size=8), setup=st.integers(1, 200))
def test_lots_of_one_product_without_limits_are_those_of_wagner_and_whitin(demand, setup):
    table = {"machine": [{"id": "m", "capacity": 1e4}], "product": [{"id": "a", "hours": 1.0, "setup_cost": float(setup), "holding": 1.0, "backlog": 1e4}]}
    known = sure([demand])
    problem = LOTS.problem(table, HERE)
    plan = LOTS.solve(problem, known, seconds=5, seed=0)
    exact = wagner_whitin(demand, setup, 1.0)
    assert plan.cost == pytest.approx(exact, rel=2e-3, abs=1e-3)
    assert LOTS.rule(problem, known).cost >= exact - 1e-3
    assert LOTS.realised(problem, plan, known.values[:, :, 0]).sum() == pytest.approx(plan.cost)


def test_lots_keep_the_hours_of_every_machine_and_what_cannot_be_made_is_named():
    table = {"machine": [{"id": "m", "capacity": 40.0, "overtime": 5.0, "overtime_cost": 2.0}], "product": [{"id": "a", "hours": 1.0, "setup_hours": 3.0, "holding": 1.0, "backlog": 5.0}]}
    known = sure([[30.0, 60.0, 30.0, 50.0]])
    plan = LOTS.solve(LOTS.problem(table, HERE), known, seconds=5, seed=0)
    assert all(row["used"] <= 45 + 1e-6 for row in plan.choice["load"])
    del table["product"][0]["backlog"]
    clash = LOTS.solve(LOTS.problem(table | {"product": [table["product"][0] | {"service": 0.95}]}, HERE), known, seconds=5, seed=0)
    assert not clash.choice
    assert "'a'" in str(clash.violations[0])
    assert clash.violations[0].to("zh") != str(clash.violations[0])


def test_two_machines_share_the_work_and_lots_are_no_smaller_than_the_smallest():
    table = {"machine": [{"id": "m", "capacity": 30.0}, {"id": "n", "capacity": 30.0}],
             "product": [{"id": "a", "hours": 1.0, "setup_hours": 2.0, "holding": 1.0, "backlog": 50.0, "minimum": 10.0}, {"id": "b", "hours": 0.5, "holding": 1.0, "backlog": 50.0, "machines": ["n"]}]}
    plan = LOTS.solve(LOTS.problem(table, HERE), sure([[40.0, 40.0, 5.0], [10.0, 10.0, 10.0]]), seconds=5, seed=0)
    assert all(row["used"] <= 30 + 1e-6 for row in plan.choice["load"])
    assert all(row["units"] >= 10 - 1e-6 for row in plan.choice["lots"] if row["product"] == "a")
    assert {row["machine"] for row in plan.choice["lots"] if row["product"] == "b"} == {"n"}
    assert sum(row["expected_late"] for row in plan.choice["stock"]) == pytest.approx(0, abs=1e-4)


def test_a_plan_for_uncertain_demand_costs_less_than_a_plan_for_its_mean():
    rng = np.random.default_rng(3)
    known = Quantiles(LEVELS, 50 * np.exp(0.5 * Z)[None, None] * np.ones((1, 6, 1)), ("a",), tuple("123456"))
    problem = LOTS.problem({"machine": [{"id": "m", "capacity": 500.0}], "product": [{"id": "a", "hours": 1.0, "setup_cost": 40.0, "holding": 1.0, "backlog": 9.0}]}, HERE)
    plan = LOTS.solve(problem, known, seconds=3, seed=0)
    mean = LOTS.solve(problem, sure(known.values.mean(axis=2)), seconds=3, seed=0)
    futures = known.scenarios(200, seed=int(rng.integers(100)))
    assert np.mean([LOTS.realised(problem, plan, f).sum() for f in futures]) < 0.9 * np.mean([LOTS.realised(problem, mean, f).sum() for f in futures])


LOAD = [[50.0, 50.0, 80.0, 50.0]]


def test_a_battery_under_a_flat_tariff_does_nothing():
    problem = STORAGE.problem({"step_hours": 1.0, "price": 0.2, "battery": {"capacity": 50.0, "power": 20.0}}, HERE)
    for plan in (STORAGE.solve(problem, sure(LOAD), seconds=2, seed=0), STORAGE.rule(problem, sure(LOAD))):
        assert sum(row["charge_kw"] + row["discharge_kw"] for row in plan.choice["schedule"]) == pytest.approx(0, abs=1e-6)
        assert plan.cost == pytest.approx(0.2 * 230)


def test_a_charge_on_the_peak_is_shaved_to_what_the_battery_allows():
    problem = STORAGE.problem({"step_hours": 1.0, "price": 0.2, "demand_charge": 10.0, "battery": {"capacity": 15.0, "power": 20.0, "efficiency": 1.0}}, HERE)
    plan = STORAGE.solve(problem, sure(LOAD), seconds=2, seed=0)
    # 15 kWh taken from 80 would leave 65, but charging them first has to stay below that too: (50 + 50 + 80) fits, so 65 it is
    assert plan.facts["peak_kw"] == pytest.approx(65)
    assert plan.cost == pytest.approx(0.2 * 230 + 650)


def test_two_prices_are_traded_between_as_far_as_power_and_losses_allow():
    problem = STORAGE.problem({"step_hours": 1.0, "price": [0.1, 0.1, 0.5, 0.5], "battery": {"capacity": 30.0, "power": 20.0, "efficiency": 0.81}}, HERE)
    plan = STORAGE.solve(problem, sure(LOAD), seconds=2, seed=0)
    assert plan.cost == pytest.approx(0.1 * (100 + 30 / 0.9) + 0.5 * (130 - 30 * 0.9), rel=1e-5)
    assert STORAGE.rule(problem, sure(LOAD)).cost == pytest.approx(plan.cost, rel=1e-5)


@pytest.mark.parametrize(("start_cost", "runs"), [(5.0, True), (50.0, False)])
def test_a_generator_runs_where_it_saves_more_than_its_start_costs(start_cost, runs):
    table = {"step_hours": 1.0, "price": [0.1, 0.1, 0.5, 0.1], "battery": {"capacity": 0.0, "power": 0.0},
             "generator": {"power": 60.0, "minimum": 20.0, "cost": 0.3, "start_cost": start_cost}}
    problem = STORAGE.problem(table, HERE)
    plan = STORAGE.solve(problem, sure(LOAD), seconds=2, seed=0)
    power = [row["generator_kw"] for row in plan.choice["schedule"]]
    assert power == pytest.approx([0, 0, 60.0 * runs, 0])  # 60 kWh at 0.5 - 0.3 save 12
    assert plan.cost == pytest.approx(0.1 * 150 + 0.5 * 80 - (12 - start_cost) * runs)
    assert STORAGE.realised(problem, plan, np.array(LOAD)) == pytest.approx([plan.cost])


def test_what_the_grid_cannot_give_is_told_and_sun_is_sold_where_somebody_buys():
    battery = {"battery": {"capacity": 10.0, "power": 5.0}}
    tight = STORAGE.solve(STORAGE.problem({"step_hours": 1.0, "price": 0.1, "grid_limit": 60.0, **battery}, HERE), sure(LOAD), seconds=2, seed=0)
    assert "80 kW are expected" in str(tight.violations[0])
    assert tight.facts["unserved_kwh"] == pytest.approx(15, abs=1e-5)
    sunny = {"step_hours": 1.0, "price": 0.1, "solar": [100.0, 0.0, 0.0, 0.0], **battery}
    lost, sold = (STORAGE.solve(STORAGE.problem(sunny | more, HERE), sure(LOAD), seconds=2, seed=0).cost for more in ({}, {"export_price": 0.04}))
    assert lost == pytest.approx(0.1 * (180 - 5 * 0.9), rel=1e-5)  # 5 kWh of sun are kept, nine tenths come back
    assert sold == pytest.approx(lost - 0.04 * 45, rel=1e-5)


def test_no_power_is_made_of_nothing():
    example = STORAGE.example(1)
    problem = STORAGE.problem(example.table, HERE)
    for plan in (STORAGE.solve(problem, example.quantiles, seconds=2, seed=0), STORAGE.rule(problem, example.quantiles)):
        into, out = (sum(row[k] for row in plan.choice["schedule"]) for k in ("charge_kw", "discharge_kw"))
        assert out <= into * 0.9 + 1e-6
        assert all(-1e-6 <= row["stored_kwh"] <= 100 + 1e-6 for row in plan.choice["schedule"])


@pytest.mark.parametrize(("decision", "table", "expected"), [
    (INVENTORY, {"item": [{"id": "a", "price": 5.0}]}, "cost"),
    (INVENTORY, {"item": [{"id": "a", "price": 5.0, "cost": 6.0}]}, "not above its cost"),
    (INVENTORY, {"item": [{"id": "a", "price": 5.0, "cost": 2.0, "salvage": 3.0}]}, "without end"),
    (INVENTORY, {"item": [{"id": "a", "price": 5.0, "cost": 2.0, "pris": 3.0}]}, "no field 'pris'"),
    (INVENTORY, {"item": [{"id": "a", "holding": 1.0}]}, "missing unit costs"),
    (INVENTORY, {"mode": "sometimes", "item": []}, "newsvendor, review"),
    (INVENTORY, {"item": [{"id": "a", "holding": -1.0, "shortage": 1.0}]}, "'holding' is -1.0, expected a number of 0 or more"),
    (INVENTORY, {"item": "no-such.csv"}, "cannot be read"),
    (LOTS, {"product": [{"id": "a", "hours": 1.0, "holding": 1.0}]}, "[[machine]]"),
    (LOTS, {"machine": [{"id": "m", "capacity": 5}], "product": [{"id": "a", "hours": 1.0}]}, "'holding' is missing"),
    (LOTS, {"machine": [{"id": "m", "capacity": 5}], "product": [{"id": "a", "hours": 1.0, "holding": 1, "machines": ["x"]}]}, "no machine 'x'"),
    (STORAGE, {"price": 0.1}, "[battery]"),
    (STORAGE, {"battery": {"capacity": 1, "power": 1}}, "price of a kWh"),
    (STORAGE, {"price": 0.1, "battery": {"capacity": 1, "power": 1, "start": 2}}, "from 0 to 1"),
    (STORAGE, {"tariff": [{"from": "7", "to": "08:00", "price": 1}], "battery": {"capacity": 1, "power": 1}}, "07:30"),
])
def test_bad_problems_are_refused_with_what_was_expected(decision, table, expected):
    with pytest.raises(InputError) as error:
        decision.problem(table, HERE)
    assert expected in str(error.value)
    assert error.value.text.to("zh") != str(error.value)


def test_a_forecast_that_does_not_fit_the_problem_is_refused():
    item = {"id": "a", "holding": 1.0, "shortage": 2.0}
    problem = INVENTORY.problem({"item": [item]}, HERE)
    for known, expected in ((sure([[1.0], [2.0]]), "nothing of 'b'"), (sure([[-1.0]]), "zero or more"), (Quantiles.exact(np.ones((1, 1)), ("z",), ("0",)), "no such series"), (None, "--quantiles")):
        with pytest.raises(InputError, match=expected):
            INVENTORY.solve(problem, known, seconds=1, seed=0)
    battery = {"battery": {"capacity": 1.0, "power": 1.0}}
    for table, times, expected in (({"price": [0.1, 0.2], "step_hours": 1.0}, None, "2 numbers"), ({"price": 0.1}, None, "how long a step"),
                                   ({"price": 0.1, "step_hours": 1.0}, ("2024-01-01T00:00", "2024-01-01T00:30", "2024-01-01T01:00", "2024-01-01T01:30"), "hours apart"),
                                   ({"price": 0.1, "export_price": 0.2, "step_hours": 1.0}, None, "without end")):
        with pytest.raises(InputError, match=expected):
            STORAGE.solve(STORAGE.problem(table | battery, HERE), sure(LOAD, times), seconds=1, seed=0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "problem.toml").write_text('kind = "inventory"\nmode = "newsvendor"\nitem = "items.csv"\n')
    (tmp_path / "items.csv").write_text("id,price,cost,salvage\na,10,4,\nb,10,4,1\n")
    (tmp_path / "q.csv").write_text("id,time,q0.1,q0.5,q0.9\na,mon,5,10,15\nb,mon,50,100,150\n")
    (tmp_path / "truth.csv").write_text("id,time,value\nb,mon,90\na,mon,12\n")
    return tmp_path


def test_decide_reads_a_problem_and_quantiles_and_writes_plan_tables_and_picture(folder, capsys):
    known = read_quantiles(folder / "q.csv")
    truth = read_truth(folder / "truth.csv", known)
    assert truth.tolist() == [[12.0], [90.0]]
    found = decide("inventory", folder / "problem.toml", quantiles=known, truth=truth, seconds=2, out=folder / "out", lang="zh")
    packed = json.loads((folder / "out" / "plan.json").read_text(encoding="utf-8"))
    assert packed["plan"]["cost"] == pytest.approx(found.plan.cost)
    assert (folder / "out" / "orders.csv").read_text().splitlines()[0].startswith("item,order")
    assert (folder / "out" / "plan.svg").read_text(encoding="utf-8").startswith("<svg")
    assert found.realised["oracle"].sum() == pytest.approx(0)
    show(found, lang="zh")
    printed = capsys.readouterr().out
    assert "计划的成本" in printed
    show(found, as_json=True)
    assert json.loads(capsys.readouterr().out)["kind"] == "inventory"


@pytest.mark.parametrize(("text", "expected"), [
    ("id,time,q0.1,q0.5\na,1,2\n", "not a number"), ("id,time,q0.1,q0.5\na,1,5,2\n", "fall from q0.1 to q0.5"), ("id,time,q0.5\na,1,2\na,1,2\n", "twice"),
    ("id,time,q0.5\na,1,2\nb,2,2\n", "no row at"), ("id,q0.5\na,1\n", "expected id, time"), ("id,time,q5\na,1,2\n", "one a quantile"), ("id,time,q0.5\n", "0 rows"),
])
def test_a_file_that_holds_no_quantiles_is_refused_with_its_line_or_column(tmp_path, text, expected):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(InputError) as error:
        read_quantiles(tmp_path / "q.csv")
    assert expected in str(error.value)


def test_every_problem_that_the_page_shows_is_read():
    page = (Path(__file__).parents[1] / "docs" / "decide.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(text) for text in re.findall(r"^```toml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]
    assert {"inventory", "lots", "storage"} <= {table["kind"] for table in tables}
    for table in tables:
        assert read_problem(DECISIONS[table["kind"]], table) is not None


def test_a_problem_of_another_kind_or_in_another_file_is_refused(folder):
    for source, expected in ((folder / "problem.toml", "'lots' was asked for"), (folder / "q.csv", "ends with .toml"), (folder / "none.toml", "no problem file")):
        with pytest.raises(InputError, match=expected):
            decide("lots", source, quantiles=read_quantiles(folder / "q.csv"))
    with pytest.raises(InputError, match="inventory"):
        decide("inventori", folder / "problem.toml")
