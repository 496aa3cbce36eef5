"""Promotion: labels of rows that both have answered decide, by the contest's loss; acting on it is done once, whoever does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import registry, tasks
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import BundleError, InputError
from assay.families.base import Budget, Candidate
from assay.retrain.promotion import PROBATION, act, verdict
from assay.retrain.recorded import cap_of, label_of, losses
from assay.ship.bundle import pack
from assay.store import Store
from assay.store.records import Feedback, Prediction, new_id
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import LANGUAGES

LABELS = ("complaint", "praise", "question")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Three versions of a classifier judged by its errors, and of a regressor; only their manifests matter here."""
    place = tmp_path_factory.mktemp("bundles")
    for name, loss in (("classify", "error"), ("regress", "absolute")):
        kind = tasks.find(name)
        data = kind.example()
        task = kind.of(data, loss=loss)
        naive = registry.get("assay.families", Candidate, "naive")
        model = naive.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=5))
        for seed in range(3):
            pack(place / f"{name}{seed}.assay", task=task, candidate=naive, params={}, schema=data.schema, model_folder=model, calibration={}, facts={"seed": seed}, reference=None)
    return place


@pytest.fixture
def home(tmp_path, made, monkeypatch) -> Path:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bundles").mkdir()
    for file in made.glob("*.assay"):
        (tmp_path / "bundles" / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture
def store(home) -> Iterator[Store]:
    from assay.ship.bundle import load

    with Store.open(home / "store.sqlite") as opened:
        for model, name in (("mail", "classify"), ("flats", "regress")):
            for seed in range(3):
                file = f"bundles/{name}{seed}.assay"
                opened.versions.add(model, load(home / file).digest, file, "serve" if not seed else "retrain", {})
            opened.versions.promote(model, 1, "cli", "the first one")
            opened.versions.challenge(model, 2, "shadow")
        yield opened


def asked(store: Store, n: int, wrong: tuple[float, float], *, seed: int = 0, model: str = "mail", canary: float = 0.0, labelled: float = 1.0, chosen: bool = False) -> None:
    """n requests, answered by champion and challenger, each wrong with its own chance, and labelled."""
    stage = store.versions.stage(model)
    rng = np.random.default_rng(seed)
    predictions, feedback = [], []
    for i in range(n):
        truth = LABELS[rng.integers(3)]
        told = [truth if rng.random() >= p else LABELS[(LABELS.index(truth) + 1) % 3] for p in wrong]
        arms = [stage.champion, stage.challenger]
        out = int(rng.random() < canary)
        key, tell = new_id(), rng.random() < labelled
        doubt = 0.9 if chosen and tell else 0.2
        one = Prediction(key, time.time(), model, arms[out], said(told[out]), {"shop": f"s{i % 40}"}, ("champion", "challenger")[out], None, doubt)
        predictions += [one, Prediction(new_id(), time.time(), model, arms[1 - out], said(told[1 - out]), None, "shadow", key)]
        if tell:
            feedback.append(Feedback(model, prediction=key, label=truth))
    store.write(predictions=predictions, feedback=feedback)


def said(answer: str) -> dict[str, object]:
    return {"answer": answer, "probability": 0.8, **{f"p({c})": 0.8 if c == answer else 0.1 for c in LABELS}}


def actions(store: Store) -> list[str]:
    return [row.action for row in store.audit.rows(1000) if row.action in ("promoted", "challenged", "withdrawn", "rolled back")][::-1]


# ---- losses of answers as they were recorded


@given(st.sampled_from(("log", "error", "brier", "cost")), st.integers(2, 5), st.integers(0, 10_000))
def test_recorded_answers_lose_what_the_contest_says(loss, classes, seed):
    rng = np.random.default_rng(seed)
    names = tuple(f"c{i}" for i in range(classes))
    costs = rng.uniform(0.5, 3, (classes, classes)) * (1 - np.eye(classes)) if loss == "cost" else None
    task = Classify(names, loss=loss, costs=costs)
    told, truth = rng.dirichlet(np.ones(classes), 12), rng.choice(names, 12)
    data = Dataset(pl.DataFrame({"y": truth}), Schema((Column("y", "category"),), target="y"))
    found = losses(task, task.answers(told).to_dicts(), truth.tolist())
    assert found.of == pytest.approx(task.losses(data, data, told))
    assert found.most is not None
    assert found.of.max() <= found.most


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.sampled_from(("squared", "absolute", "pinball")), st.floats(0.1, 100))
def test_amounts_lose_what_the_contest_says_up_to_the_cap(truth, loss, cap):
    task = Regress(loss=loss, quantile=0.8, unit_cost=2.0 if loss == "absolute" else None)
    told = np.zeros((len(truth), 3)) + np.array([1.0, 0.0, 2.0])
    data = Dataset(pl.DataFrame({"y": truth}), Schema((Column("y", "number"),), target="y"))
    exact = task.losses(data, data, told)
    assert losses(task, task.answers(told).to_dicts(), truth).of == pytest.approx(exact)
    capped = losses(task, task.answers(told).to_dicts(), truth, cap=cap)
    assert capped.of == pytest.approx(np.minimum(exact, cap))
    assert capped.most == cap


@given(st.sampled_from(("squared", "absolute", "pinball")), st.floats(0.1, 50), st.floats(0.1, 0.9))
def test_the_cap_of_amounts_is_the_loss_of_an_error_of_two_and_a_half_half_widths(loss, radius, quantile):
    task = Regress(loss=loss, quantile=quantile)
    far = pl.DataFrame({"y": [2.5 * radius, -2.5 * radius]})
    data = Dataset(far, Schema((Column("y", "number"),), target="y"))
    assert cap_of(task, {"radius": radius}) == pytest.approx(task.losses(data, data, np.zeros((2, 3))).max())
    assert cap_of(task, {}) is None
    assert cap_of(Classify(("a", "b")), {}) == pytest.approx(-np.log(0.01))


def test_labels_are_known_however_a_file_spells_them_and_a_new_class_is_a_miss():
    task = Classify((1, 2), loss="log")
    assert [label_of(task, v) for v in (1, "1", 1.0, "2.0", "other", None, {"a": 1})] == [1, 1, 1, 2, "other", None, None]
    assert [label_of(Classify((False, True)), v) for v in (True, "true", "FALSE")] == [True, True, False]
    assert [label_of(Regress(), v) for v in (3, "2.5", "x", float("nan"), True, None)] == [3.0, 2.5, None, None, None, None]
    found = losses(task, [{"answer": 1, "p(1)": 0.9, "p(2)": 0.1}] * 3, [1, "other", None])
    assert found.of[:2] == pytest.approx([-np.log(0.9), -np.log(1e-6)])
    assert np.isnan(found.of[2])
    assert "name a class" in str(found.notes[0])


def test_with_more_classes_than_are_recorded_wrong_answers_are_counted_and_said_so():
    task = Classify(tuple(f"c{i}" for i in range(30)), loss="log")
    found = losses(task, [{"answer": "c3", "probability": 0.5}, {"answer": "c4", "probability": 0.5}], ["c3", "c9"])
    assert found.of.tolist() == [0.0, 1.0]
    assert found.most == 1.0
    assert "wrong answers are counted" in str(found.notes[0])


# ---- what the labels say


def test_the_better_challenger_is_promoted_once_and_the_old_champion_answers_on_unseen(store, home):
    asked(store, 150, (0.4, 0.1))
    told = verdict(store, "mail", home=home)
    assert told.outcome == "promote"
    assert told.low > 0
    assert told.labels == 150
    assert actions(store) == ["promoted", "challenged"] * 2
    assert act(store, "mail", home=home, by="cli").outcome == "promote"
    stage = store.versions.stage("mail")
    assert (stage.champion, stage.challenger, stage.mode, stage.previous) == (2, 1, "shadow", 1)
    assert act(store, "mail", home=home).outcome == "not_yet"
    assert actions(store)[4:] == ["promoted", "challenged"]
    assert store.audit.verify().first_broken is None


def test_a_worse_challenger_is_withdrawn_and_the_champion_stays(store, home):
    asked(store, 150, (0.1, 0.4))
    assert act(store, "mail", home=home).outcome == "keep"
    stage = store.versions.stage("mail")
    assert (stage.champion, stage.challenger) == (1, None)
    assert "No challenger" in str(act(store, "mail", home=home).text)
    assert actions(store)[4:] == ["withdrawn"]


def test_a_champion_that_turns_out_worse_than_its_predecessor_is_rolled_back(store, home):
    asked(store, 150, (0.4, 0.1))
    act(store, "mail", home=home)
    time.sleep(0.01)
    asked(store, 150, (0.4, 0.1), seed=1)  # now the new champion is the one that errs
    told = act(store, "mail", home=home)
    assert told.outcome == "roll_back"
    assert "turned out worse" in str(told.text)
    stage = store.versions.stage("mail")
    assert (stage.champion, stage.challenger, stage.previous) == (1, None, None)
    assert actions(store)[-1] == "rolled back"


def test_the_comparison_with_the_predecessor_ends_when_nothing_was_found_against_the_new_one(store, home):
    asked(store, 150, (0.4, 0.1))
    act(store, "mail", home=home)
    time.sleep(0.01)
    asked(store, PROBATION, (0.1, 0.1), seed=2)
    assert act(store, "mail", home=home).outcome == "keep"
    assert store.versions.stage("mail").champion == 2
    assert store.versions.stage("mail").challenger is None


def test_too_few_labels_say_not_yet_and_how_many_more_it_takes(store, home):
    assert "labelled yet" in str(verdict(store, "mail", home=home).text)
    asked(store, 15, (0.4, 0.2))
    asked(store, 200, (0.4, 0.1), labelled=0.0)
    told = verdict(store, "mail", home=home)
    assert told.outcome == "not_yet"
    assert told.labels == 15
    assert told.needed
    assert told.needed > 10
    for lang in LANGUAGES:
        assert "{" not in told.text.to(lang)


def test_a_canary_is_judged_by_the_same_rows_in_whichever_arm_they_were_answered(store, home):
    store.versions.challenge("mail", 2, "canary", 0.5)
    asked(store, 200, (0.4, 0.1), canary=0.5)
    told = verdict(store, "mail", home=home)
    assert told.labels == 200
    assert told.outcome == "promote"
    store.versions.challenge("mail", 3, "shadow")
    assert verdict(store, "mail", home=home).labels == 0, "a new challenge starts a new test"


def test_a_last_label_counts_and_labels_that_are_none_are_left_out(store, home):
    asked(store, 60, (0.0, 1.0))
    keys = [p.id for p, _ in store.predictions.labelled("mail", arm="champion")]
    store.write(feedback=[Feedback("mail", prediction=keys[0], label={"no": "label"})])
    told = verdict(store, "mail", home=home)
    assert told.labels == 59
    assert told.gain == -1.0
    assert any("1 labels were left out" in str(n) for n in told.notes)


def test_labels_of_doubtful_rows_only_are_warned_about(store, home):
    asked(store, 400, (0.4, 0.1), labelled=0.2, chosen=True)
    assert any("more doubtful than the traffic" in str(n) for n in verdict(store, "mail", home=home).notes)


def test_rows_of_one_group_count_as_one_and_a_group_that_nobody_sent_is_refused(store, home):
    asked(store, 160, (0.4, 0.1))
    told = verdict(store, "mail", home=home, group="shop")
    assert any("160 rows count as 40 groups" in str(n) for n in told.notes)
    assert verdict(store, "mail", home=home).low > told.low
    with pytest.raises(InputError, match="was asked with the column 'machine'"):
        verdict(store, "mail", home=home, group="machine")


def test_a_margin_and_an_alpha_that_is_shared_with_later_challengers_ask_for_more(store, home):
    asked(store, 60, (0.4, 0.2), seed=5)
    plain, margin = verdict(store, "mail", home=home), verdict(store, "mail", home=home, margin=0.15)
    assert margin.outcome == "not_yet" or margin.low > 0.15
    shared = verdict(store, "mail", home=home, for_ever=True)
    assert shared.alpha < plain.alpha
    assert shared.low < plain.low
    with pytest.raises(InputError, match="between 0 and 1"):
        verdict(store, "mail", home=home, alpha=1.5)


def test_amounts_are_compared_approximately_and_with_a_cap_exactly(store, home):
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for _ in range(200):
        key, truth = new_id(), float(rng.normal(100, 10))
        old, new = truth + rng.normal(0, 5), truth + rng.normal(0, 3)
        rows += [Prediction(key, time.time(), "flats", 1, {"answer": old, "low": old - 9, "high": old + 9}), Prediction(new_id(), time.time(), "flats", 2, {"answer": new, "low": new, "high": new},
                                                                                                                          None, "shadow", key)]
        labels.append(Feedback("flats", prediction=key, label=truth))
    store.write(predictions=rows, feedback=labels)
    free, capped = verdict(store, "flats", home=home), verdict(store, "flats", home=home, cap=20.0)
    assert free.outcome == capped.outcome == "promote"
    assert any("central limit theorem" in str(n) for n in free.notes)
    assert not any("central limit theorem" in str(n) for n in capped.notes)


def test_processes_that_act_at_once_promote_once(store, home):
    asked(store, 150, (0.4, 0.1))
    threads = [threading.Thread(target=act, args=(store, "mail"), kwargs={"home": home}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert actions(store).count("promoted") == 3  # the two first versions, and this one
    assert store.versions.stage("mail").champion == 2


def test_a_model_or_a_file_that_is_not_there_is_one_sentence(store, home):
    with pytest.raises(InputError, match="There are: flats, mail"):
        verdict(store, "male", home=home)
    (home / "bundles" / "classify1.assay").write_bytes((home / "bundles" / "classify2.assay").read_bytes())
    with pytest.raises(BundleError, match="its digest is another one"):
        verdict(store, "mail", home=home)
    (home / "bundles" / "classify1.assay").unlink()
    with pytest.raises(BundleError, match="is gone"):
        verdict(store, "mail", home=home)
