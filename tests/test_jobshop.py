"""Job shops: no machine does two things at once, nothing runs while it is closed, and known optima are reached."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.decide.base import Quantiles
from assay.decide.jobshop import JOBSHOP
from assay.decide.shop_rules import Slot, cost, most_work_remaining, pushed
from assay.errors import InputError, ReadError

pytest.importorskip("ortools")
DATA = Path(__file__).parents[2] / "shared" / "data" / "09_jssp"
HERE = Path()


def _random(seed, *, jobs=3, machines=2, **more):
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(machines)]
    rows = []
    for j in range(jobs):
        operations = []
        for m in rng.permutation(machines)[: int(rng.integers(1, machines + 1))]:
            both = rng.random() < 0.3
            operations.append({"machines": names if both else [names[m]], "times": [int(t) for t in rng.integers(1, 7, machines if both else 1)], "family": "ab"[int(rng.integers(2))]})
        rows.append({"name": f"j{j}", "release": int(rng.integers(0, 4)), "due": int(rng.integers(3, 14)), "weight": int(rng.integers(1, 4)), "operations": operations})
    low = int(rng.integers(1, 8))
    return {"machines": names, "jobs": rows, "maintenance": [{"machine": "m0", "start": low, "end": low + 3}],
            "changeovers": [{"from": "a", "to": "b", "time": 2}, {"machine": "m0", "from": "b", "to": "a", "time": 1}]} | more


def _cheapest(shop):
    """By trying every order in which operations can be put on every machine that can do them, each as early as it can be."""
    steps = [j for j, job in enumerate(shop.jobs) for _ in job.operations]
    plain = [[1.0] * len(job.operations) for job in shop.jobs]
    best = math.inf
    for order in set(itertools.permutations(steps)):
        seen = [0] * len(shop.jobs)
        line = []
        for j in order:
            line.append((j, seen[j]))
            seen[j] += 1
        for machines in itertools.product(*([m for m, _ in shop.jobs[j].operations[s].on] for j, s in line)):
            slots = [Slot(j, s, m, float(i), float(i)) for i, ((j, s), m) in enumerate(zip(line, machines, strict=True))]
            best = min(best, cost(shop, pushed(shop, slots, plain)))
    return best


def _check(shop, plan):
    """The laws of a schedule, counted from its tables alone."""
    rows = plan.choice["operations"]
    assert sorted((r["job"], r["step"]) for r in rows) == sorted((j.name, s + 1) for j in shop.jobs for s in range(len(j.operations)))
    jobs = {j.name: j for j in shop.jobs}
    at = {(r["job"], r["step"]): r for r in rows}
    for r in rows:
        machine = shop.machines.index(r["machine"])
        takes = dict(jobs[r["job"]].operations[r["step"] - 1].on)[machine]
        assert r["end"] - r["start"] == pytest.approx(r["time"], abs=1e-5)
        if "ids" not in plan.facts:
            assert r["time"] == pytest.approx(takes)
        assert r["start"] >= (jobs[r["job"]].release if r["step"] == 1 else at[r["job"], r["step"] - 1]["end"]) - 1e-5
        assert all(r["end"] <= low + 1e-5 or r["start"] >= high - 1e-5 for low, high in shop.closed[machine])
    for machine in shop.machines:
        lane = sorted((r for r in rows if r["machine"] == machine), key=lambda r: (r["start"], r["end"]))
        for a, b in itertools.pairwise(lane):
            before, after = (jobs[r["job"]].operations[r["step"] - 1].family for r in (a, b))
            assert b["start"] >= a["end"] + shop.change(shop.machines.index(machine), before, after) - 1e-5
    ends = {j.name: at[j.name, len(j.operations)]["end"] for j in shop.jobs}
    told = max(ends.values()) if shop.objective == "makespan" else sum(j.weight * max(0.0, ends[j.name] - j.due) for j in shop.jobs)
    assert plan.cost == pytest.approx(told, abs=1e-4)
    assert JOBSHOP.realised(shop, plan, None)[0] == pytest.approx(plan.cost, abs=1e-4)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from(["makespan", "tardiness"]))
def test_small_shops_cost_what_trying_everything_costs(seed, objective):
    shop = JOBSHOP.problem(_random(seed, objective=objective), HERE)
    plan = JOBSHOP.solve(shop, None, seconds=10, seed=0)
    _check(shop, plan)
    assert plan.facts["status"] == "optimal"
    assert plan.cost == pytest.approx(_cheapest(shop))
    assert plan.facts["bound"] == pytest.approx(plan.cost)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 4))
def test_dispatching_keeps_every_law(seed, jobs, machines):
    shop = JOBSHOP.problem(_random(seed, jobs=jobs, machines=machines), HERE)
    _check(shop, JOBSHOP.rule(shop, None))


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_longer_processing_times_never_end_a_fixed_order_earlier(seed):
    shop = JOBSHOP.problem(_random(seed, jobs=4, machines=3), HERE)
    plain = [[1.0] * len(job.operations) for job in shop.jobs]
    longer = [[1.0 + x for x in np.random.default_rng(seed).random(len(row))] for row in plain]
    slots = most_work_remaining(shop, plain)
    before = {(s.job, s.step): s.end for s in pushed(shop, slots, plain)}
    assert all(s.end >= before[s.job, s.step] for s in pushed(shop, slots, longer))


def test_times_that_are_not_whole_keep_their_digits_and_a_true_bound():
    table = {"jobs": [{"name": n, "operations": [{"machine": "a", "time": 1.2345}, {"machine": "b", "time": 0.1111}]} for n in "xy"]}
    shop = JOBSHOP.problem(table, HERE)
    plan = JOBSHOP.solve(shop, None, seconds=10, seed=0)
    assert plan.cost == pytest.approx(2 * 1.2345 + 0.1111)
    assert plan.facts["bound"] <= plan.cost


def test_a_forecast_is_planned_at_its_level_and_realised_in_the_same_order():
    example = JOBSHOP.example()
    shop = JOBSHOP.problem(example.table, HERE)
    plan = JOBSHOP.solve(shop, example.quantiles, seconds=10, seed=0)
    _check(shop, plan)
    careful = JOBSHOP.solve(JOBSHOP.problem(example.table | {"level": 0.9}, HERE), example.quantiles, seconds=10, seed=0)
    assert careful.cost > plan.cost
    oracle = JOBSHOP.solve(shop, Quantiles.exact(example.truth, example.quantiles.ids, example.quantiles.times), seconds=10, seed=0)
    known = JOBSHOP.realised(shop, oracle, example.truth)[0]
    assert known == pytest.approx(oracle.cost, abs=1e-3)
    assert known <= JOBSHOP.realised(shop, plan, example.truth)[0] + 0.2  # processing times count in hundredths, rounded up
    json.dumps(plan.json())


def test_due_dates_that_clash_are_named_and_no_other():
    jobs = [{"name": n, "due": d, "operations": [{"machine": "a", "time": 4}]} for n, d in (("x", 5), ("y", 7), ("z", 50))]
    plan = JOBSHOP.solve(JOBSHOP.problem({"jobs": jobs, "hard_due": True}, HERE), None, seconds=10, seed=0)
    assert not plan.choice
    assert "x (5), y (7)." in str(plan.violations[0])
    jobs[0]["due"] = 3
    plan = JOBSHOP.solve(JOBSHOP.problem({"jobs": jobs, "hard_due": True}, HERE), None, seconds=10, seed=0)
    assert [str(v) for v in plan.violations] == ["'x' is due at 3, but ends at 4 even if the shop does nothing else."]
    jobs[0]["due"] = 9
    shop = JOBSHOP.problem({"jobs": jobs, "hard_due": True}, HERE)
    plan = JOBSHOP.solve(shop, None, seconds=10, seed=0)
    _check(shop, plan)
    assert all(row["late"] == 0 for row in plan.choice["jobs"])


def test_the_chart_has_a_bar_for_every_operation_and_hatches_what_is_closed():
    example = JOBSHOP.example()
    shop = JOBSHOP.problem(example.table, HERE)
    chart = JOBSHOP.picture(shop, JOBSHOP.rule(shop, None))
    assert chart.count("<rect") == 1 + 15 + 1
    assert 'fill="url(#closed)"' in chart


@pytest.mark.parametrize(("table", "words"), [
    ({"jobs": []}, "has no jobs"),
    ({"jobs": [{"name": "x", "operations": []}]}, "no operations"),
    ({"jobs": [{"name": "x", "operations": [{"machine": "a", "time": -1}]}]}, "at least 0"),
    ({"jobs": [{"name": "x", "operations": [{"machine": "a", "time": math.nan}]}]}, "expected a number"),
    ({"machines": ["b"], "jobs": [{"name": "x", "operations": [{"machine": "a", "time": 1}]}]}, "does not exist"),
    ({"jobs": [{"name": "x", "operations": [{"machine": "a", "time": 1}]}], "objective": "cost"}, "makespan or tardiness"),
    ({"jobs": [{"name": "x", "operations": [{"machine": "a", "time": 1}]}], "objective": "tardiness"}, "No job has a due date"),
    ({"jobs": [{"name": "x", "operations": [{"machine": "a", "time": 1}]}], "maintenance": [{"machine": "a", "start": 5, "end": 5}]}, "ends at 5"),
    ({"jobs": "no.csv"}, "could not be read"),
])
def test_bad_input_is_one_sentence(table, words):
    with pytest.raises((InputError, ReadError)) as caught:
        JOBSHOP.problem(table, HERE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_job_shop_is_refused(tmp_path):
    for text in ("", "2 2\n0 1 1 2\n", "1 1\n0 1 3\n", "1 1\n4 4\n", "a b\n"):
        (tmp_path / "x.txt").write_text(text)
        with pytest.raises(ReadError):
            JOBSHOP.problem_file(tmp_path / "x.txt")


def test_jobs_come_from_a_csv_file(tmp_path):
    (tmp_path / "jobs.csv").write_text("job,machine,time,due\nx,saw|mill,3|5,9\nx,mill,2,9\ny,saw,4,\n")
    shop = JOBSHOP.problem({"jobs": "jobs.csv"}, tmp_path)
    assert [len(j.operations) for j in shop.jobs] == [2, 1]
    assert shop.jobs[0].operations[0].on == ((0, 3.0), (1, 5.0))
    assert JOBSHOP.solve(shop, None, seconds=10, seed=0).cost == 7


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="the folder of open datasets is not beside the checkout")
def test_fisher_and_thompson_6x6_is_solved_to_its_published_optimum():
    shop = JOBSHOP.problem_file(DATA / "ft06.txt")
    plan = JOBSHOP.solve(shop, None, seconds=10, seed=0)
    _check(shop, plan)
    assert (plan.cost, plan.facts["bound"], plan.facts["status"], plan.facts["best_known"]) == (55, 55, "optimal", 55)
    assert JOBSHOP.rule(shop, None).cost > 55
