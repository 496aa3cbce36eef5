"""Portfolios, maintenance, traffic signals and staffing: closed forms, brute force on tiny problems, and laws."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.decide.base import LEVELS, Decision, Quantiles
from assay.decide.holdings import Market, cvar, futures, shrunk_covariance
from assay.decide.maintenance import MAINTENANCE
from assay.decide.portfolio import PORTFOLIO, backtest
from assay.decide.program import Program
from assay.decide.quadratic import minimise
from assay.decide.roster import CASES, Calls, agents
from assay.decide.sharpe import deflated_sharpe, probability_above
from assay.decide.signals import SIGNALS, delay, webster
from assay.decide.staffing import STAFFING
from assay.errors import InputError
from assay.words import say

DECISIONS = [PORTFOLIO, MAINTENANCE, SIGNALS, STAFFING]
HERE = Path()


def made(decision: Decision, table: dict, **changes):
    return decision.problem(table | changes, HERE)


def solved(decision: Decision, problem, quantiles):
    return decision.solve(problem, quantiles, seconds=10, seed=0)


def uniform(low: list[float], high: list[float], ids: tuple[str, ...]) -> Quantiles:
    """Uniform distributions on one step; straight quantiles, so that the tails are exact too."""
    a, b = np.array(low)[:, None, None], np.array(high)[:, None, None]
    return Quantiles(LEVELS, a + (b - a) * np.array(LEVELS), ids, ("1",))


# ---- every one of them


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda d: d.name)
def test_a_plan_expects_no_more_than_the_rule_and_foresight_costs_no_more_than_either(decision):
    for seed in range(3):
        example = decision.example(seed)
        problem = made(decision, example.table)
        exact = Quantiles.exact(example.truth, example.quantiles.ids, example.quantiles.times)
        plan, rule, oracle = solved(decision, problem, example.quantiles), decision.rule(problem, example.quantiles), solved(decision, problem, exact)
        assert plan.violations == ()
        assert plan.cost <= rule.cost + 1e-6
        best = decision.realised(problem, oracle, example.truth).sum()
        assert best <= min(decision.realised(problem, other, example.truth).sum() for other in (plan, rule)) + 1e-6
        if decision is not PORTFOLIO:  # whose cost is a loss plus a share of the risk
            assert oracle.cost == pytest.approx(best)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda d: d.name)
def test_plans_are_json_and_pictures_are_xml_in_either_language(decision):
    example = decision.example(1)
    problem = made(decision, example.table)
    for plan in (solved(decision, problem, example.quantiles), decision.rule(problem, example.quantiles)):
        json.dumps(plan.json(), allow_nan=False)
        for words in (str, lambda text: text.to("zh")):
            assert ElementTree.fromstring(decision.picture(problem, plan, words)).tag.endswith("svg")


INFEASIBLE = {
    "portfolio": ({"turnover": 0.05, "low": 0.1, "cash": 0.0}, {"at least 10.0% of the capital in metals", "at most 5.0% of the capital bought or sold"}),
    "maintenance": ({"crew": 0.5, "highest_risk": 0.3}, {"a crew of"}),
    "signals": ({"cycle": [40, 50], "highest_degree": 0.6}, {"a cycle of at most 50 seconds", "flow / capacity of at most 0.60 on 'north'"}),
    "staffing": ({"minimum": {"phone": 9.0, "mail": 9.0}}, {"at least 9 on 'phone'", "12 people in the group 'phone'"}),
}


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda d: d.name)
def test_an_infeasible_problem_names_the_demands_that_clash(decision):
    example = decision.example(0)
    changes, expected = INFEASIBLE[decision.name]
    problem = made(decision, example.table, **changes)
    plan = solved(decision, problem, example.quantiles)
    assert plan.choice == {}
    assert plan.facts["status"] == "infeasible"
    assert np.isinf(decision.realised(problem, plan, example.truth)).all()
    told = " ".join(map(str, plan.violations))
    assert all(part in told for part in expected), told
    assert "svg" in decision.picture(problem, plan)


def test_the_named_demands_clash_and_without_any_one_of_them_they_do_not():
    def program(demands: list[tuple[str, float, float]]) -> Program:
        out = Program()
        x = out.add(2)
        for name, low, high in demands:
            columns = {"sum": x, "first": x[:1], "second": x[1:]}[name.split()[0]]
            out.row(columns, 1.0, low=low, high=high, says=say(name))
        return out

    demands = [("sum at most 5", -np.inf, 5), ("first at least 3", 3, np.inf), ("second at least 3", 3, np.inf), ("second at most 9", -np.inf, 9)]
    clash = [str(text) for text in program(demands).clash()]
    assert sorted(clash) == ["first at least 3", "second at least 3", "sum at most 5"]
    for name in clash:
        assert program([d for d in demands if d[0] != name]).clash() == ()


BAD = [
    (PORTFOLIO, {"turnoverr": 1.0}, "no field 'turnoverr'"), (PORTFOLIO, {"history": "nowhere.csv"}, "could not be read"), (PORTFOLIO, {"cost": -0.1}, "from 0 to 0.5"),
    (PORTFOLIO, {"holdings": {"gold": 0.5}}, "'gold'"), (PORTFOLIO, {"history": {"bonds": [0.1, float("nan")]}}, "missing"),
    (MAINTENANCE, {"crew": -1}, "at least 0"), (MAINTENANCE, {"crew": [1, 2]}, "2 numbers"), (MAINTENANCE, {"slots": 2.5}, "whole number"),
    (MAINTENANCE, {"planned_cost": float("nan")}, "is nan"), (SIGNALS, {"cycle": [90, 40]}, "shortest"), (SIGNALS, {"phases": []}, "[[phases]]"),
    (SIGNALS, {"phases": [{"approaches": ["a"], "saturation": -5.0}]}, "above 0"), (STAFFING, {"shifts": [{"name": "x", "length": 8}]}, "'start'"),
    (STAFFING, {"staff": [{"count": -2}]}, "'count' is -2"), (STAFFING, {"staff": [{"count": 2, "shifts": ["night"]}]}, "does not exist"),
]


@pytest.mark.parametrize(("decision", "change", "part"), BAD, ids=lambda v: str(v)[:40] if isinstance(v, dict) else "")
def test_a_bad_field_is_one_sentence_in_either_language(decision, change, part):
    with pytest.raises(InputError) as caught:
        made(decision, decision.example().table, **change)
    assert part in str(caught.value)
    assert caught.value.text.to("zh") != str(caught.value)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda d: d.name)
def test_a_forecast_that_no_plan_can_be_made_from_is_refused(decision):
    example = decision.example()
    problem, q = made(decision, example.table), example.quantiles
    holes = np.array(q.values, dtype=float)
    holes[0, 0, 0] = np.nan
    for bad in (None, replace(q, values=holes), replace(q, values=-np.asarray(q.values) * np.arange(1, 10)), replace(q, ids=q.ids[:-1])):
        with pytest.raises(InputError):
            solved(decision, problem, bad)
    with pytest.raises(InputError):
        decision.realised(problem, decision.rule(problem, q), example.truth[:-1])


# ---- portfolio


def test_the_covariance_is_shrunk_as_ledoit_and_wolf_do():
    from sklearn.covariance import ledoit_wolf

    returns = np.random.default_rng(0).standard_normal((60, 8)) @ np.random.default_rng(1).standard_normal((8, 8))
    np.testing.assert_allclose(shrunk_covariance(returns), ledoit_wolf(returns)[0], rtol=1e-10)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(2, 8))
def test_a_quadratic_program_ends_where_no_step_within_the_bounds_helps(seed, n):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((n, n))
    p, q = root @ root.T, rng.standard_normal(n)
    x = minimise(p, q, np.ones((1, n)), np.ones(1), np.vstack([np.eye(n), -np.eye(n)]), np.concatenate([np.full(n, 0.8), np.zeros(n)]))
    assert x is not None
    assert x.sum() == pytest.approx(1, abs=1e-8)
    assert x.min() > -1e-8
    assert x.max() < 0.8 + 1e-8
    slope = p @ x + q
    can_fall, can_rise = x > 1e-6, x < 0.8 - 1e-6
    assert slope[can_fall].max(initial=-np.inf) <= slope[can_rise].min(initial=np.inf) + 1e-6 * (1 + np.abs(slope).max())


def test_two_assets_of_least_variance_have_the_weights_of_the_closed_form():
    example = PORTFOLIO.example(3)
    history = {name: example.table["history"][name] for name in ("energy", "metals")}
    problem = made(PORTFOLIO, {"history": history, "method": "variance", "risk_aversion": 1e6})
    q = Quantiles(LEVELS, example.quantiles.values[2:], ("energy", "metals"), ("1",))
    cov = Market.of(problem, q).covariance
    weight = (cov[1, 1] - cov[0, 1]) / (cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert 0 < weight < 1
    assert solved(PORTFOLIO, problem, q).choice["weights"][0]["weight"] == pytest.approx(weight, abs=1e-4)  # the mean has 1e-6 of a say


def test_the_weights_of_least_cvar_are_those_that_a_fine_grid_finds():
    example = PORTFOLIO.example(4)
    problem = made(PORTFOLIO, {"history": {n: example.table["history"][n] for n in ("bonds", "shares")}, "risk_aversion": 2.0, "confidence": 0.9, "cost": 0.002})
    q = Quantiles(LEVELS, example.quantiles.values[:2], ("bonds", "shares"), ("1",))
    market, plan = Market.of(problem, q), solved(PORTFOLIO, problem, q)
    grid = min(market.judged(problem, np.array([w, 1 - w]))["cost"] for w in np.linspace(0, 1, 2001))
    assert plan.cost == pytest.approx(grid, abs=1e-6)
    assert plan.cost <= grid + 1e-12


@given(st.lists(st.floats(-1, 1), min_size=5, max_size=40), st.floats(0.5, 0.97))
def test_cvar_is_the_least_value_of_the_function_of_rockafellar_and_uryasev(losses, confidence):
    x = np.array(losses)
    least = min(edge + np.maximum(x - edge, 0).mean() / (1 - confidence) for edge in x)
    assert cvar(x, confidence) == pytest.approx(least, abs=1e-9)


@settings(max_examples=5)
@given(st.integers(0, 1000), st.sampled_from(["cvar", "variance"]), st.floats(0.3, 1), st.floats(0, 0.5))
def test_weights_stay_in_their_bounds_and_a_tighter_demand_never_helps(seed, method, high, cash):
    example = PORTFOLIO.example(seed)
    loose = made(PORTFOLIO, example.table, method=method, high=high, cash=cash, risk_aversion=3.0)
    plan = solved(PORTFOLIO, loose, example.quantiles)
    weights = np.array([row["weight"] for row in plan.choice["weights"]])
    assert weights.sum() + plan.facts["cash"] == pytest.approx(1, abs=1e-7)
    assert weights.min() >= 0
    assert weights.max() <= high
    assert plan.facts["cash"] <= cash + 1e-7
    tight = solved(PORTFOLIO, replace(loose, turnover=1.0), example.quantiles)
    assert tight.violations or (tight.cost >= plan.cost - 1e-5 and sum(abs(r["trade"]) for r in tight.choice["weights"]) <= 1 + 1e-7)


def test_futures_have_the_spread_of_the_forecast_and_the_order_of_the_history():
    past = np.random.default_rng(0).standard_normal((99, 2)) * 0.01
    drawn = futures(past, uniform([-0.02, 0.0], [0.02, 0.1], ("a", "b")))
    np.testing.assert_allclose(drawn.mean(axis=0), [0.0, 0.05], atol=1e-9)
    assert (np.argsort(drawn, axis=0) == np.argsort(past, axis=0)).all()


def test_a_back_test_sees_nothing_of_what_comes_after():
    rng = np.random.default_rng(5)
    returns = 0.001 + 0.01 * rng.standard_normal((80, 3))
    seen: list[int] = []

    def forecaster(past: np.ndarray, h: int) -> np.ndarray:
        seen.append(int(np.flatnonzero((returns == past[-1]).all(axis=1))[0]))
        return np.repeat(np.quantile(past, LEVELS, axis=0).T[:, None], h, axis=1)

    names = ("a", "b", "c")
    problem = made(PORTFOLIO, {"history": {n: returns[:, i].tolist() for i, n in enumerate(names)}, "cost": 0.001, "risk_aversion": 2.0})
    first = backtest(returns, problem, window=40, hold=8, forecaster=forecaster)
    assert seen == list(range(39, 79, 8))
    assert len(first.returns) == len(first.naive) == 40
    changed = returns.copy()
    changed[64:] = -changed[64:]
    second = backtest(changed, problem, window=40, hold=8)
    np.testing.assert_array_equal(first.weights[:4], second.weights[:4])
    np.testing.assert_array_equal(first.returns[:24], second.returns[:24])


def test_a_back_test_counts_costs_and_drift_as_an_account_does():
    returns = np.array([[0.0, 0.0]] * 30 + [[0.1, 0.0], [0.0, 0.2]])
    returns[:30] = 0.01 * np.random.default_rng(0).standard_normal((30, 2))
    problem = made(PORTFOLIO, {"history": {"a": returns[:, 0].tolist(), "b": returns[:, 1].tolist()}, "cost": 0.01, "low": 0.5, "high": 0.5})
    tested = backtest(returns, problem, window=30, hold=1)
    moved = abs(0.55 / 1.05 - 0.5) * 2  # after the first period 55 and 50 of 105 are held
    np.testing.assert_allclose(tested.returns, [0.05 - 0.01, 0.10 - 0.01 * moved], atol=1e-9)
    np.testing.assert_allclose(tested.returns, tested.naive, atol=1e-9)


def test_skill_beats_equal_weights_and_noise_is_called_noise():
    rng = np.random.default_rng(7)
    names = ("a", "b", "c")
    noise = 0.01 * rng.standard_normal((140, 3))
    lead = noise.copy()
    lead[1:, 0] = 0.8 * np.abs(noise[:-1, 1]) + 0.2 * noise[1:, 0]  # what 'a' does next can be read from 'b' today
    problem = made(PORTFOLIO, {"history": {n: lead[:, i].tolist() for i, n in enumerate(names)}, "risk_aversion": 0.1})

    def reads(past: np.ndarray, h: int) -> np.ndarray:
        out = np.repeat(np.quantile(past, LEVELS, axis=0).T[:, None], h, axis=1)
        out[0, 0] = 0.8 * abs(past[-1, 1])
        return out

    assert backtest(lead, problem, window=60, forecaster=reads).warnings == ()
    told = [str(w) for w in backtest(noise, problem, window=60, hold=4, tried=(0.1, -0.05, 0.02)).warnings]
    assert len(told) == 2
    assert told[0].startswith("Nothing here beats equal weights")
    assert "trials: 4" in told[1]


def test_the_deflated_sharpe_ratio_is_that_of_the_paper():
    spread = np.sqrt(0.5 / 250)  # Bailey & López de Prado 2014, the numerical example: 100 trials whose annual ratios vary by 1/2
    tried = np.random.default_rng(0).standard_normal(100)
    tried = (tried - tried.mean()) / tried.std(ddof=1) * spread
    chance = deflated_sharpe(np.array([0.01, -0.01, 0.02, 0.0]), tuple(tried)).chance
    assert chance == pytest.approx(0.1132, abs=5e-5)
    assert probability_above(2.5 / np.sqrt(250), chance, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)


# ---- maintenance


def test_a_machine_is_serviced_where_its_hazard_pays_for_the_life_thrown_away():
    low, high, planned, unplanned, cycle = 20.0, 100.0, 100.0, 900.0, 20.0
    table = {"slots": 100, "slot_cycles": 1.0, "crew": 1, "planned_cost": planned, "unplanned_cost": unplanned, "lost_cycle_cost": cycle}
    plan = solved(MAINTENANCE, made(MAINTENANCE, table), uniform([low], [high], ("m",)))
    assert plan.choice["stops"][0]["cycles"] == pytest.approx(high - (unplanned - planned) / cycle, abs=1)  # 1 / (b - t) = w / (U - P)


def test_services_are_the_best_of_all_that_the_crew_can_do():
    table = {"slots": 4, "slot_cycles": 10.0, "crew": [1, 0, 1, 1], "planned_cost": {"a": 50.0, "b": 80.0, "c": 60.0}, "unplanned_cost": 300.0, "lost_cycle_cost": 3.0,
             "duration": 1}
    problem, q = made(MAINTENANCE, table), uniform([5, 10, 20], [30, 45, 60], ("a", "b", "c"))
    from assay.decide.maintenance import expected

    cost, _ = expected(problem, q)
    best = min(cost[range(3), choice].sum() for choice in itertools.product(range(5), repeat=3)
               if all(sum(c == t for c in choice) <= problem.crew[t] for t in range(4)))
    assert solved(MAINTENANCE, problem, q).cost == pytest.approx(best)


@settings(max_examples=5)
@given(st.integers(0, 1000), st.integers(1, 2))
def test_more_crew_never_costs_more_and_is_never_overbooked(seed, duration):
    example = MAINTENANCE.example(seed)
    costs = []
    for crew in (0, 1, 2):
        problem = made(MAINTENANCE, example.table, crew=crew, duration=duration)
        for plan in (solved(MAINTENANCE, problem, example.quantiles), MAINTENANCE.rule(problem, example.quantiles)):
            starts = [row["slot"] for row in plan.choice["stops"] if row["slot"] is not None]
            assert all(sum(s <= t < s + duration for s in starts) <= crew for t in range(1, 11))
            assert all(s + duration - 1 <= 10 for s in starts)
        costs.append(solved(MAINTENANCE, problem, example.quantiles).cost)
    assert costs[0] >= costs[1] - 1e-6 >= costs[2] - 2e-6


def test_what_a_service_cost_is_known_when_the_life_is_known():
    table = {"slots": 5, "slot_cycles": 10.0, "crew": 3, "planned_cost": 100.0, "unplanned_cost": 500.0, "planned_hours": 1.0, "unplanned_hours": 4.0, "downtime_cost": 10.0,
             "lost_cycle_cost": 2.0, "highest_risk": 0.0}
    problem = made(MAINTENANCE, table)
    plan = MAINTENANCE.rule(problem, uniform([20, 20, 60], [20, 20, 60], ("a", "b", "c")))
    assert [row["slot"] for row in plan.choice["stops"]] == [3, 3, None]
    np.testing.assert_allclose(MAINTENANCE.realised(problem, plan, np.array([[25.0], [19.0], [49.0]])), [110 + 2 * 5, 540, 540])


# ---- signals


def phases(*approaches: str, **more) -> list[dict]:
    return [{"approaches": [a], "saturation": 1800.0, "min_green": 5, "lost_time": 4.0} | more for a in approaches]


def sure(flows: list[float]) -> Quantiles:
    return Quantiles.exact(np.array(flows)[:, None], tuple("abcdefg"[:len(flows)]), ("1",))


def test_websters_formula_and_the_uniform_delay_are_those_of_the_books():
    assert webster(np.array([0.4, 0.35]), 10.0) == pytest.approx(80)  # (1.5 * 10 + 5) / (1 - 0.75)
    assert delay(np.array(1e-6), 1800.0, np.array(30.0), np.array(60.0), 0.25) == pytest.approx(7.5, abs=1e-3)  # C / 2 (1 - g / C)^2
    degree, capacity, hours = 0.9, 900.0, 0.25
    random = 900 * hours * (degree - 1 + np.sqrt((degree - 1) ** 2 + 8 * 0.5 * degree / (capacity * hours)))
    assert delay(np.array(810.0), 1800.0, np.array(30.0), np.array(60.0), hours) == pytest.approx(0.5 * 60 * 0.25 / (1 - 0.45) + random)


@given(st.floats(10, 1500), st.floats(5, 50), st.floats(60, 150))
def test_delay_falls_with_green_and_rises_with_flow(flow, green, cycle):
    def at(q: float, g: float) -> float:
        return float(delay(np.array(q), 1800.0, np.array(g), np.array(cycle), 0.25))

    assert at(flow, green) > at(flow, green + 1)
    assert at(flow, green) <= at(flow * 1.01, green)


@pytest.mark.parametrize("flows", [[500, 300], [900, 850], [200, 300, 400]])
def test_cycle_and_greens_are_the_best_of_all_whole_seconds(flows):
    ids = "abc"[:len(flows)]
    problem = made(SIGNALS, {"cycle": [38, 52], "period_minutes": 15.0, "phases": phases(*ids)})
    q = sure(flows)
    plan = solved(SIGNALS, problem, q)
    best = np.inf
    for cycle in range(38, 53):
        room = cycle - 4 * len(flows)
        for first in itertools.product(range(5, room), repeat=len(flows) - 1):
            if (last := room - sum(first)) >= 5:
                best = min(best, sum(f * 0.25 * float(delay(np.array(float(f)), 1800.0, np.array(float(g)), np.array(float(cycle)), 0.25)) / 3600
                                     for f, g in zip(flows, (*first, last), strict=True)))
    assert plan.cost == pytest.approx(best)
    assert plan.cost == pytest.approx(SIGNALS.realised(problem, plan, q.values[:, :, 0]).sum())
    cycle = plan.choice["periods"][0]["cycle"]
    assert sum(row["green"] for row in plan.choice["signals"]) == cycle - 4 * len(flows)


def test_equal_flows_get_equal_greens_and_webster_is_within_a_tenth_of_the_best():
    problem = made(SIGNALS, {"cycle": [30, 150], "phases": phases("a", "b", lost_time=5.0)})
    for flow in (400, 600, 750):
        plan, rule = solved(SIGNALS, problem, sure([flow, flow])), SIGNALS.rule(problem, sure([flow, flow]))
        greens = [row["green"] for row in plan.choice["signals"]]
        assert abs(greens[0] - greens[1]) <= 1
        assert plan.cost <= rule.cost <= 1.1 * plan.cost  # Webster 1958: delay is flat around his cycle


def test_shortest_greens_that_do_not_fit_are_named():
    problem = made(SIGNALS, {"cycle": [30, 40], "phases": phases("a", "b", min_green=30)})
    told = " ".join(map(str, solved(SIGNALS, problem, sure([100, 100])).violations))
    assert "a cycle of at most 40 seconds" in told
    assert "30 seconds of green in the phase 'a'" in told
    assert "phase 'b'" in told


# ---- staffing


def test_agents_for_calls_are_those_of_erlangs_formula():
    calls = Calls(handle=180.0, within=20.0, level=0.8)
    assert agents(100, 30, calls) == 14  # the usual example: 10 erlangs, 80 % within 20 s; 13 agents reach 79.6 %
    assert agents(0, 30, calls) == 0
    counts = [agents(c, 30, calls) for c in range(0, 200, 7)]
    assert counts == sorted(counts)


def test_people_of_one_shift_are_the_newsvendors_quantile():
    values = np.arange(1, 10, dtype=float)[None, None, :] * 2
    q = Quantiles(LEVELS, values, ("ward",), ("1",))
    for cost, price in ((10.0, 100.0), (35.0, 100.0), (80.0, 100.0)):
        problem = made(STAFFING, {"shortage_cost": price, "shifts": [{"name": "day", "start": 0, "length": 1, "cost": cost}], "staff": [{"count": 40}]})
        plan = solved(STAFFING, problem, q)
        people = plan.choice["shifts"][0]["people"] if plan.choice["shifts"] else 0
        cases = np.sort(problem.people(np.array([q.at((k + 0.5) / CASES)[0, 0] for k in range(CASES)])))
        best = min(range(41), key=lambda y: cost * y + price * np.maximum(cases - y, 0).mean())
        assert people == best
        assert np.mean(cases <= people) >= 1 - cost / price - 1 / CASES


def test_shifts_are_the_best_of_all_that_can_be_worked():
    demand = np.array([[2.0, 3.0, 1.0, 2.0], [1.0, 0.0, 2.0, 2.0]])
    table = {"shortage_cost": 30.0, "rest_hours": 1.0, "shifts": [{"name": "a", "start": 0, "length": 2, "cost": 30.0}, {"name": "b", "start": 1, "length": 2, "cost": 32.0},
                                                                   {"name": "c", "start": 3, "length": 1, "cost": 12.0}],
             "staff": [{"name": "x", "count": 2, "skills": ["one"]}, {"name": "z", "count": 2, "skills": ["two"]}]}
    problem, q = made(STAFFING, table), Quantiles.exact(demand, ("one", "two"), tuple("1234"))
    works = {"a": [0, 1], "b": [1, 2], "c": [3]}
    best = 0.0
    for i in range(2):
        options = []
        for a, b, c in itertools.product(range(3), repeat=3):
            if a + b <= 2 and b + c <= 2:  # b ends at 3 and c starts there: no rest; a ends at 2, an hour before c
                there = np.zeros(4)
                for name, people in zip("abc", (a, b, c), strict=True):
                    there[works[name]] += people
                options.append(30 * a + 32 * b + 12 * c + 30 * np.maximum(demand[i] - there, 0).sum())
        best += min(options)
    plan = solved(STAFFING, problem, q)
    assert plan.cost == pytest.approx(best)
    assert STAFFING.realised(problem, plan, demand).shape == (2,)
    assert STAFFING.realised(problem, plan, demand).sum() == pytest.approx(best)


@settings(max_examples=4)
@given(st.integers(0, 1000), st.sampled_from([0.0, 4.0, 11.0]))
def test_nobody_works_too_long_too_soon_or_without_existing_and_more_people_never_cost_more(seed, rest_hours):
    example = STAFFING.example(seed)
    table = example.table | {"rest_hours": rest_hours, "shifts": [*example.table["shifts"], {"name": "end", "start": 8, "length": 4, "cost": 70.0}]}
    table["staff"] = [{"name": "phone", "count": 6, "skills": ["phone"]}, {"name": "both", "count": 4, "most_hours": 7.0}]
    problem = made(STAFFING, table)
    plans = [solved(STAFFING, problem, example.quantiles), STAFFING.rule(problem, example.quantiles)]
    length, start = {s.name: s.length for s in problem.shifts}, {t: i for i, t in enumerate(example.quantiles.times)}
    for plan in plans:
        diaries: dict[str, list[tuple[int, str]]] = {}
        for row in plan.choice["roster"]:
            diaries.setdefault(row["person"], []).append((start[row["from"]], row["shift"]))
        assert sum(name.startswith("phone") for name in diaries) <= 6
        assert sum(name.startswith("both") for name in diaries) <= 4
        for name, diary in diaries.items():
            diary.sort()
            assert all(after[0] >= before[0] + length[before[1]] + rest_hours for before, after in itertools.pairwise(diary))
            hours = sum(7 if shift in ("early", "late") else length[shift] for _, shift in diary)
            assert hours <= 7 or name.startswith("phone")
        at_work = sum(row["people"] * (7 if row["shift"] in ("early", "late") else length[row["shift"]]) for row in plan.choice["shifts"])
        assert at_work == pytest.approx(sum(row["people"] for row in plan.choice["coverage"]))
    table["staff"] = [{"name": "phone", "count": 9, "skills": ["phone"]}, {"name": "both", "count": 5, "most_hours": 7.0}]
    assert solved(STAFFING, made(STAFFING, table), example.quantiles).cost <= plans[0].cost + 1e-2


def test_a_week_of_shifts_repeats_and_calls_become_agents():
    table = {"period_minutes": 60.0, "shortage_cost": 50.0, "rest_hours": 11.0, "calls": {"handle_seconds": 240.0, "within_seconds": 20.0, "service_level": 0.8},
             "shifts": [{"name": "day", "start": 8, "length": 8, "cost": 150.0, "every": 24}], "staff": [{"name": "agent", "count": 9, "most_hours": 16.0}]}
    calls = np.where((np.arange(72) % 24 >= 8) & (np.arange(72) % 24 < 16), 40.0, 0.0)[None]
    problem = made(STAFFING, table)
    plan = solved(STAFFING, problem, Quantiles.exact(calls, ("hotline",), tuple(f"{t // 24 + 1}d{t % 24:02d}" for t in range(72))))
    asked = agents(40, 60, problem.calls)
    assert {row["from"] for row in plan.choice["shifts"]} == {"1d08", "2d08", "3d08"}
    assert [row["people"] for row in plan.choice["shifts"]] == [min(asked, 6)] * 3 or sum(row["people"] for row in plan.choice["shifts"]) == min(3 * asked, 18)
    assert STAFFING.realised(problem, plan, calls).sum() == pytest.approx(plan.cost)


# ---- the page about them


def test_every_problem_on_their_page_is_one_that_can_be_solved(tmp_path):
    import re
    import tomllib

    rng = np.random.default_rng(0)
    names = ["bonds", "shares", "gold"]
    rows = 0.001 + 0.01 * rng.standard_normal((120, 3))
    (tmp_path / "returns.csv").write_text("date," + ",".join(names) + "\n" + "\n".join(f"day {i}," + ",".join(map(str, row)) for i, row in enumerate(rows)))
    spread = np.array(LEVELS)
    presses, signals, staffing = (["press 1", "press 2", "press 3"], SIGNALS.example(), STAFFING.example())
    forecasts = {"portfolio": Quantiles(LEVELS, np.quantile(rows, LEVELS, axis=0).T[:, None], tuple(names), ("1",)),
                 "maintenance": Quantiles(LEVELS, 20 + 100 * spread[None, None, :] * np.array([1.0, 0.6, 0.4])[:, None, None], tuple(presses), ("life",)),
                 "signals": signals.quantiles, "staffing": replace(staffing.quantiles, values=30 * np.asarray(staffing.quantiles.values))}
    page = (Path(__file__).parents[1] / "docs" / "decide-more.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]
    assert [table["kind"] for table in tables] == list(forecasts)
    for table in tables:
        decision = next(d for d in DECISIONS if d.name == table["kind"])
        problem = decision.problem({k: v for k, v in table.items() if k != "kind"}, tmp_path)
        plan = solved(decision, problem, forecasts[decision.name])
        assert plan.violations == (), (decision.name, [str(v) for v in plan.violations])
        if decision is PORTFOLIO:
            assert set(plan.facts["backtest"]) >= {"sharpe", "naive_sharpe", "deflated_probability"}


def test_periods_that_the_time_does_not_suffice_for_get_websters_splits():
    example = SIGNALS.example()
    problem = made(SIGNALS, example.table)
    hurried, whole = SIGNALS.solve(problem, example.quantiles, seconds=1e-9, seed=0), solved(SIGNALS, problem, example.quantiles)
    assert (hurried.facts["status"], whole.facts["status"]) == ("feasible", "optimal")
    assert hurried.choice["signals"][:2] == whole.choice["signals"][:2]
    assert whole.cost < hurried.cost
    assert len(hurried.choice["periods"]) == 6


def test_returns_of_several_periods_are_compounded_and_paid_for_once():
    past = np.random.default_rng(0).standard_normal((40, 2)) * 0.01
    truth = np.array([[0.1, 0.2], [-0.5, 0.0]])
    sure_of_it = Quantiles.exact(truth, ("a", "b"), ("1", "2"))
    np.testing.assert_allclose(futures(past, sure_of_it), np.broadcast_to([0.32, -0.5], (39, 2)))
    problem = made(PORTFOLIO, {"history": {"a": past[:, 0].tolist(), "b": past[:, 1].tolist()}, "cost": 0.01, "cash": 0.5, "cash_return": 0.1, "high": 0.6, "capital": 1000.0})
    plan = solved(PORTFOLIO, problem, sure_of_it)
    np.testing.assert_allclose([row["weight"] for row in plan.choice["weights"]], [0.6, 0.0], atol=1e-9)
    np.testing.assert_allclose(PORTFOLIO.realised(problem, plan, truth), [-1000 * (0.6 * 0.32 + 0.4 * 0.21 - 0.01 * 0.6)])
    rule = PORTFOLIO.rule(replace(problem, high=0.4, cash=0.2), sure_of_it)
    assert [str(v) for v in rule.violations] != []
    np.testing.assert_allclose(PORTFOLIO.realised(problem, rule, truth), [-1000 * (0.5 * 0.32 - 0.25 - 0.01)])
