"""What comes after the contest proper: ensembles, other seeds, learning curves, ablations; and a verdict that repeats."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import api
from assay.case import Case
from assay.contest.folder import Trial
from assay.contest.measure import TrialClock
from assay.contest.mix import greedy
from assay.contest.tune import tune
from assay.data.dataset import Dataset
from assay.data.split import fewer
from assay.families.base import Candidate, Range
from assay.families.naive import Naive
from assay.report.facts import read_facts
from assay.tasks.base import schema_of
from assay.tasks.classify import Classify


def mixed(n=700, seed=0) -> pl.DataFrame:
    """What decides stands in the text, in a number, and in the size of another number, which no line sees."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, n))
    words = np.where(a[:, None] > 0, rng.choice(["good", "fine", "nice"], (n, 3)), rng.choice(["bad", "poor", "late"], (n, 3)))
    return pl.DataFrame({"weight": b, "angle": c, "note": [" ".join(w) + " parcel number " + str(i % 50) for i, w in enumerate(words)],
                         "y": np.where(a + b + 2 * np.abs(c) - 1.6 + 0.3 * rng.normal(size=n) > 0, "yes", "no")})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> api.Run:
    return api.run(mixed(), target="y", kinds={"note": "text"}, work=40, tune=False, folds=1, candidates=("linear", "boosting", "ensemble"), out=tmp_path_factory.mktemp("a") / "run")


def test_the_same_seed_and_work_give_the_same_verdict_byte_for_byte(finished, tmp_path):
    again = api.run(mixed(), target="y", kinds={"note": "text"}, work=40, tune=False, folds=1, candidates=("linear", "boosting", "ensemble"), out=tmp_path / "elsewhere")
    assert again.folder.verdict_file.read_bytes() == finished.folder.verdict_file.read_bytes()
    other = api.run(mixed(), target="y", kinds={"note": "text"}, work=40, tune=False, folds=1, seed=1, candidates=("linear", "boosting", "ensemble"), out=tmp_path / "other")
    assert other.folder.verdict_file.read_bytes() != finished.folder.verdict_file.read_bytes()


def test_what_was_measured_stands_beside_a_verdict_that_repeats(finished):
    bare = json.loads(finished.folder.verdict_file.read_text())
    assert "created" not in bare
    assert all("fit_s" not in row.get("cost", {}) for row in bare["scoreboard"])
    whole = read_facts(finished.folder.path)
    assert all(row["cost"]["fit_s"] >= 0 and row["seconds"] > 0 for row in whole["scoreboard"] if row["status"] == "done")
    assert whole["created"]


def test_the_best_candidate_has_a_curve_over_four_sizes(finished):
    name = min(("linear", "boosting"), key=lambda n: next(row["valid_loss"] for row in finished.verdict.scoreboard if row["candidate"] == n))
    sizes = sorted(t.train_rows for t in finished.folder.trials() if t.candidate == name and t.status == "done" and not t.blind and not t.repeat)
    assert len(sizes) == 4
    assert sizes[0] == pytest.approx(sizes[-1] / 8, rel=0.05)


def test_hiding_the_text_costs_loss_and_so_does_hiding_the_number(finished):
    found = {tuple(a["hidden"]): a for a in finished.verdict.ablation if a["candidate"] == finished.verdict.ablation[0]["candidate"]}
    assert found[("text",)]["low"] > 0
    assert found[("number", "category", "time")]["low"] > 0


def test_an_ensemble_answers_as_its_members_do_together_and_comes_back_from_its_bundle(finished):
    trials = {t.candidate: t for t in finished.folder.trials() if t.contest and t.status == "done"}
    if "ensemble" not in trials:
        reason = next(t.reason for t in finished.folder.trials() if t.candidate == "ensemble")
        pytest.fail(f"no ensemble on data where linear and boosting err differently: {reason}")
    weights = trials["ensemble"].facts["weights"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-3)
    bundle = api.load(finished.winner)
    assert bundle.predict(mixed(20, seed=5).drop("y")).height == 20


def test_extra_trials_do_not_stand_in_the_scoreboard(finished):
    names = [row["candidate"] for row in finished.verdict.scoreboard]
    assert len(names) == len(set(names))
    assert {t.key for t in finished.folder.trials() if not t.contest}


def test_a_resumed_run_does_not_play_again_what_is_on_disk(finished):
    before = finished.folder.trials_file.read_bytes()
    verdict = finished.folder.verdict_file.read_bytes()
    assert api.resume(finished.folder.path).folder.trials_file.read_bytes() == before
    assert finished.folder.verdict_file.read_bytes() == verdict


def test_a_leak_is_named_and_its_score_is_not_called_a_result(finished):
    about = finished.folder.about()
    leak = {"code": "leak", "level": "leak", "text": {"text": "x", "values": {}}, "advice": {"text": "y", "values": {}}, "columns": ["weight"], "figure": {}}
    finished.folder.case_file.write_text(json.dumps(about | {"findings": [leak]}))
    try:
        judged = api.judge(finished.folder.path)
        assert judged.verdict.outcome == "not_a_result"
        assert "weight" in str(judged.verdict.sentence)
        assert "--drop weight" in str(judged.verdict.next)
    finally:
        finished.folder.case_file.write_text(json.dumps(about))
        api.judge(finished.folder.path)


@given(st.integers(10, 400), st.sampled_from([0.125, 0.25, 0.5]), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_smaller_share_of_the_rows_is_a_part_of_a_larger_one(n, share, seed):
    data = Dataset(pl.DataFrame({"x": np.arange(n, dtype=float)}), schema_of({"x": "number"}))
    rows, strata = np.arange(0, n, 2), np.arange(n) % 3
    small = fewer(data, rows, share=share, seed=seed, strata=strata)
    large = fewer(data, rows, share=2 * share, seed=seed, strata=strata)
    assert set(small) <= set(large) <= set(rows)
    assert len(small) == max(1, round(len(rows) * share))


def test_fewer_rows_keep_groups_whole_and_the_latest_time():
    n = 400
    frame = pl.DataFrame({"g": [f"g{i % 40}" for i in range(n)], "x": np.arange(n, dtype=float)})
    groups = Dataset(frame, replace(schema_of({"g": "category", "x": "number"}), group="g"))
    picked = fewer(groups, np.arange(n), share=0.25, seed=0)
    kept = set(frame["g"][picked].to_list())
    assert len(picked) == sum(g in kept for g in frame["g"])
    assert 0.15 * n < len(picked) < 0.35 * n
    ordered = Dataset(frame, replace(schema_of({"g": "category", "x": "number"}), ordered=True))
    assert fewer(ordered, np.arange(n), share=0.25, seed=0).tolist() == list(range(300, 400))


def test_the_greedy_mean_is_never_worse_than_the_best_member_on_the_rows_it_was_chosen_on():
    rng = np.random.default_rng(0)
    data = Classify.example()
    task = Classify.of(data)
    truth = np.eye(3)[task.truth(data)]
    answers = [p / p.sum(axis=1, keepdims=True) for p in (0.3 * truth + rng.random((150, 3)) for _ in range(4))]
    weights = greedy(task, data, answers)
    mean = sum(w * answers[i] for i, w in weights.items())
    best = min(task.losses(data, data, task.calibrated(a, {})).mean() for a in answers)
    assert task.losses(data, data, task.calibrated(mean, {})).mean() < best
    assert sum(weights.values()) == pytest.approx(1)


class Dial(Naive):
    """Answers well if its dial stands near 3."""

    def predict(self, asked):
        share = np.exp(-((self.params.get("dial", 0.0) - 3.0) ** 2))
        right = np.eye(self.task.width)[asked.frame["key"].to_numpy().astype(int)]
        return 0.05 + 0.85 * (share * right + (1 - share) / 3)


def clock(tmp_path: Path) -> TrialClock:
    return TrialClock({"seconds": float("inf"), "passes": None, "memory_mb": 1000, "threads": 1, "progress": str(tmp_path / "p")}, 10)


@pytest.mark.parametrize(("space", "better"), [({"dial": Range(-1, 5)}, True), ({"other": Range(0, 1)}, False)])
def test_tuning_leaves_the_default_only_for_something_better(tmp_path, space, better):
    pytest.importorskip("optuna")
    data = Classify.example()
    task = Classify.of(data)
    codes = task.truth(data)
    data = Dataset(data.frame.with_columns(pl.Series("key", codes.astype(float))),
                   replace(data.schema, columns=(*data.schema.columns, *schema_of({"key": "number"}).columns)))
    card = Candidate(name="dial", rung="classical", tasks=("classify",), build=Dial, space=space)
    params, facts = tune(card, task, data, params={}, seed=0, clock=clock(tmp_path), fit_s=0.01)
    assert (params is not None and abs(params["dial"] - 3) < 1.5) if better else params is None
    assert facts["tuning"]["tried"] > 3


def test_a_trial_says_by_its_key_what_it_was():
    base = Trial("mlp", "scratch", 0, "done", 0)
    assert len({base.key, replace(base, share=0.5).key, replace(base, repeat=1).key, replace(base, blind=("text",)).key, replace(base, split=1).key}) == 5
    assert base.contest
    assert not replace(base, share=0.5).contest
    assert replace(base, repeat=2).whole


def test_a_case_with_work_has_no_clock_of_five_minutes():
    assert api._case("x.csv", "y", {"work": 5}).time_s == api.DAY_S
    assert api._case("x.csv", "y", {"work": 5, "time": "20s"}).time_s == 20
    assert Case.of({"target": "y", "drop": ["a"]}).drop == ("a",)
