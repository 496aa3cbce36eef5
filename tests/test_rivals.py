"""The classical rivals: what they answer, what they may not measure, and that their settings are honoured and checked."""

from __future__ import annotations

import importlib.util
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.afford import GAIN, LEAST_ROUNDS, Labels, Rounds, affordable, pace
from assay.data.dataset import Column, Dataset, Schema
from assay.data.forest import Forest, leaf_quantiles
from assay.data.metric import weighed, weighted_quantile
from assay.data.target import LevelMeans, telling
from assay.errors import InputError
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.families.neighbours import Nearest
from assay.registry import discover
from assay.ship.content import content_refused
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress

NAMES = ("boosting", "catboost", "extra_trees", "linear", "nearest", "xgboost")
CARDS = {name: card for name, card in discover("assay.families", Candidate).items() if name in NAMES}


def rival(name: str) -> Any:
    missing = [p for p in CARDS[name].needs if importlib.util.find_spec(p) is None]
    return pytest.param(CARDS[name], id=name, marks=[pytest.mark.skip(reason=f"{missing[0]} is not installed")] if missing else [])


EACH = pytest.mark.parametrize("card", [rival(name) for name in NAMES])


def work(passes: int | None = 40, **more: Any) -> Budget:
    """A budget without a clock."""
    return Budget(seconds=float("inf"), predict_seconds=float("inf"), passes=passes, threads=1, **more)


def table(columns: dict[str, Any], target: str, **kinds: str) -> Dataset:
    frame = pl.DataFrame(columns)
    return Dataset(frame, Schema(tuple(Column(c, kinds.get(c, "number")) for c in frame.columns), target))


def amounts(n: int = 400, seed: int = 0, level: float = 0.0, size: float = 1.0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 3))
    y = 2 * x[:, 0] + np.abs(x[:, 1]) + 0.3 * rng.normal(size=n)
    return table({f"x{i}": x[:, i] for i in range(3)} | {"y": level + size * y}, "y")


# ---- every rival


@EACH
def test_it_reads_numbers_categories_times_and_texts(card: Candidate) -> None:
    data, unseen = Classify.example(), Classify.example(seed=7)
    task = Classify.of(data)
    model = card.build(task, data.schema).fit(data, seed=0, budget=work())
    assert (model.predict(unseen.asked()).argmax(axis=1) == task.truth(unseen)).mean() > 0.85


@EACH
@pytest.mark.parametrize("kind", [Classify, Regress])
def test_without_a_clock_the_same_seed_learns_the_same_however_fast_time_goes(card: Candidate, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kind.example()
    task = kind.of(data)
    first = card.build(task, data.schema).fit(data, seed=3, budget=work(15)).predict(data.asked())
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) * 1000.0)
    again = card.build(task, data.schema).fit(data, seed=3, budget=work(15)).predict(data.asked())
    assert np.array_equal(first, again)


@EACH
def test_passes_limit_the_rounds(card: Candidate) -> None:
    data = amounts()
    task = Regress.of(data)
    facts = card.build(task, data.schema).fit(data, seed=0, budget=work(7)).facts
    assert facts.get("rounds", facts.get("trees", 7)) <= 7


@EACH
@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_pinball_loss_puts_that_share_of_the_truths_below(card: Candidate, quantile: float) -> None:
    data, unseen = amounts(800), amounts(800, seed=1)
    task = Regress.of(data, loss="pinball", quantile=quantile)
    answer = card.build(task, data.schema).fit(data, seed=0, budget=work(80)).predict(unseen.asked())[:, 0]
    assert (unseen.y.to_numpy() < answer).mean() == pytest.approx(quantile, abs=0.08)


@EACH
def test_amounts_far_from_zero_lose_no_digits(card: Candidate) -> None:
    near, far = amounts(), amounts(level=3e8, size=5.0)
    task = Regress.of(near)
    answers = [card.build(task, d.schema).fit(d, seed=0, budget=work()).predict(d.asked())[:, 0] for d in (near, far)]
    assert (answers[1] - 3e8) / 5 == pytest.approx(answers[0], abs=0.02)


@EACH
def test_a_class_that_the_training_rows_do_not_hold_is_hardly_believed(card: Candidate) -> None:
    data = Classify.example()
    task = Classify.of(data)
    few = data.take(task.truth(data) != 1)
    answer = card.build(task, data.schema).fit(few, seed=0, budget=work()).predict(data.asked())
    assert answer.shape == (len(data), 3)
    assert answer[:, 1].max() < 1e-6


@EACH
def test_one_class_is_refused_by_trees_and_answered_by_the_others(card: Candidate) -> None:
    data = Classify.example()
    task = Classify.of(data)
    one, model = data.take(task.truth(data) == 2), card.build(task, data.schema)
    if card.name in ("linear", "nearest"):
        assert (model.fit(one, seed=0, budget=work()).predict(data.asked()).argmax(axis=1) == 2).all()
        return
    with pytest.raises(TooSlow, match="one class only"):
        model.fit(one, seed=0, budget=work())


@EACH
def test_every_end_of_its_space_can_be_built_fitted_and_brought_back(card: Candidate, tmp_path: Path) -> None:
    data = Classify.example()
    task = Classify.of(data)
    ends = {name: space if isinstance(space, tuple) else [int(v) if space.whole else v for v in (space.low, space.high)] for name, space in card.space.items()}
    assert 3 <= len(ends) <= 6
    for i, end in enumerate((0, -1)):
        params = {name: values[end] for name, values in ends.items()}
        model = card.build(task, data.schema, **params).fit(data, seed=0, budget=work(3))
        folder = tmp_path / str(i)
        folder.mkdir()
        model.dump(folder)
        back = card.build(task, data.schema, **json.loads(json.dumps(params))).load(folder)
        assert np.array_equal(back.predict(data.asked()), model.predict(data.asked()))
        for file in folder.iterdir():
            content = file.read_bytes()
            assert content_refused(file.name, len(content), content[:4096], content[-32:]) is None


@EACH
def test_settings_that_do_not_exist_or_lie_outside_are_refused(card: Candidate) -> None:
    data = Classify.example()
    task = Classify.of(data)
    with pytest.raises(InputError, match="There is no setting 'shoe_size'"):
        card.build(task, data.schema, shoe_size=43)
    for name, space in card.space.items():
        for wrong in ("much", -1e9, None, True) if isinstance(space, Range) else ("much", -1e9):
            with pytest.raises(InputError, match=name):
                card.build(task, data.schema, **{name: wrong})


@EACH
def test_a_setting_changes_what_is_learnt(card: Candidate) -> None:
    data, unseen = Classify.example(), Classify.example(seed=7)
    task = Classify.of(data)

    def answer(**params: Any) -> np.ndarray:
        return card.build(task, data.schema, **params).fit(data, seed=0, budget=work(10)).predict(unseen.asked())

    usual = answer()
    for name, space in card.space.items():
        values = space if isinstance(space, tuple) else [int(v) if space.whole else v for v in (space.low, space.high)]
        if name in ("one_hot_max_size", "cat_smooth", "numbers"):  # three shops; whitened numbers
            continue
        assert any(not np.array_equal(answer(**{name: value}), usual) for value in values), name


# ---- what a fit can afford


def test_all_rows_are_taken_if_they_fit_and_else_a_part_in_their_order() -> None:
    data = amounts(1000)
    assert affordable(data, seed=0, bytes_a_row=1000, memory_mb=1.0) is data
    part = affordable(data, seed=0, bytes_a_row=4000, memory_mb=1.0)
    assert len(part) == 250
    places = [data.frame["x0"].to_list().index(v) for v in part.frame["x0"]]
    assert places == sorted(set(places))
    assert len(affordable(data, seed=0, bytes_a_row=1e9, memory_mb=1.0)) == 200


@given(st.lists(st.floats(0.1, 2), min_size=1, max_size=60), st.integers(1, 70), st.integers(1, 12))
def test_rounds_end_patience_after_the_best_or_at_most(losses: list[float], most: int, patience: int) -> None:
    rounds = Rounds(most=most, patience=patience)
    ran = next((i for i, loss in enumerate(losses, 1) if rounds.stop(loss)), len(losses))
    best = 1
    for i, loss in enumerate(losses[:ran], 1):
        if loss < losses[best - 1] - GAIN * losses[0]:
            best = i
    assert rounds.best == best
    assert ran <= min(most, best + patience)
    assert ran in (most, best + patience, len(losses))


def test_too_few_rounds_are_refused_with_the_reason_and_few_are_longer() -> None:
    rounds = Rounds.pilot(10.0)
    rounds.round_s = 1.5
    assert "1.5 s, and its time is enough for 6 of them" in str(rounds.rate(0.03, 10.0))
    rounds.round_s = 10.0 / LEAST_ROUNDS
    assert rounds.rate(0.03, 10.0) == 0.3
    rounds.round_s = 1e-3
    assert rounds.rate(0.03, 10.0) == 0.03
    assert "of them" in str(rounds.rate(0.03, 10.0, classes=1000 * 40))


@given(st.floats(0.001, 1), st.integers(1, 5000))
def test_fewer_rounds_never_have_a_lower_learning_rate(rate: float, passes: int) -> None:
    assert pace(rate, None) == rate <= pace(rate, passes + 1) <= pace(rate, passes)


def test_labels_unseen_get_no_chance_and_two_seen_ones_share_it() -> None:
    labels = Labels.of(np.array([4, 1, 4]))
    assert labels.codes(np.array([1, 4])).tolist() == [0, 1]
    assert labels.spread(np.array([0.25]), 6).tolist() == [[0, 0.75, 0, 0, 0.25, 0]]


# ---- inputs seen through the target


def test_a_rows_own_answer_is_not_found_in_its_input() -> None:
    rng = np.random.default_rng(0)
    for classes in (0, 2, 5):
        truth = rng.integers(0, classes, 300) if classes else rng.normal(size=300)
        alone = np.arange(300)[:, None].astype(float)  # every row a level of its own
        means = LevelMeans()
        assert np.abs(means.fit_transform(alone, [300], truth, classes=classes, seed=0)).max() == 0
        assert np.abs(means.transform(np.array([[-1.0]]))).max() == 0


def test_level_means_tell_levels_apart_as_the_target_does() -> None:
    rng = np.random.default_rng(1)
    level = rng.integers(0, 4, 4000)
    means = LevelMeans()
    means.fit_transform(level[:, None].astype(float), [4], np.array([5.0, -1.0, 5.0, 0.0])[level] + rng.normal(size=4000), classes=0, seed=0)
    told = means.transform(np.arange(4.0)[:, None])[:, 0]
    assert told[0] == pytest.approx(told[2], abs=0.05)
    assert told[1] < told[3] < told[0]


def test_the_telling_columns_are_found() -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    grams = (rng.random((500, 40)) < 0.2).astype(np.float32)
    grams[:, 7] = y == 1
    grams[:, 33] = y == 2
    assert telling(csr_matrix(grams), y, 3, 2).tolist() == [7, 33]


# ---- extra trees as arrays


@pytest.mark.parametrize("classes", [0, 2, 5])
def test_trees_as_arrays_answer_as_scikit_learns(classes: int) -> None:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    rng = np.random.default_rng(classes)
    x = np.round(rng.normal(size=(500, 6)), 1).astype(np.float32)
    y = rng.integers(0, classes, 500) if classes else x[:, 0] * 3 + rng.normal(size=500)
    made = (ExtraTreesClassifier if classes else ExtraTreesRegressor)(20, min_samples_leaf=2, random_state=0).fit(x, y)
    forest = Forest()
    for tree in made.estimators_:
        forest.add(tree.tree_, np.arange(classes) if classes else None, None)
    forest.ready(classes)
    asked = np.round(rng.normal(size=(700, 6)) * 1.5, 1).astype(np.float32)
    wanted = made.predict_proba(asked) if classes else made.predict(asked)[:, None]
    assert np.abs(forest.answer(asked) - wanted).max() < 1e-6
    assert np.abs(forest.answer(asked[:1]) - wanted[:1]).max() < 1e-6
    assert np.array_equal(Forest.of(forest.arrays(), classes).answer(asked), forest.answer(asked))


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-9, 9)), min_size=1, max_size=40), st.floats(0.02, 0.98))
@settings(max_examples=50)
def test_a_leaf_answers_with_the_quantile_of_its_rows(rows: list[tuple[int, float]], level: float) -> None:
    leaf, y = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    told = leaf_quantiles(leaf, y, level, 6)
    for k in range(6):
        assert told[k] == pytest.approx(np.quantile(y[leaf == k], level) if (leaf == k).any() else 0.0, abs=1e-9)


# ---- nearest neighbours


def fitted(data: Dataset, **params: Any) -> Model:
    return Nearest(Regress.of(data), data.schema, **({"metric": "scaled", "numbers": "scaled"} | params)).fit(data, seed=0, budget=work())


def test_the_search_is_exact() -> None:
    data, unseen = amounts(3000), amounts(50, seed=4)
    model = fitted(data, k=9, weights="even")
    x, asked = (d.frame.select("x0", "x1", "x2").to_numpy() for d in (data, unseen))
    x, asked = (x - x.mean(axis=0)) / x.std(axis=0), (asked - x.mean(axis=0)) / x.std(axis=0)
    apart = ((asked[:, None] - x[None]) ** 2).sum(axis=2)
    wanted = data.y.to_numpy()[np.argsort(apart, axis=1)[:, :9]].mean(axis=1)
    assert model.predict(unseen.asked())[:, 0] == pytest.approx(wanted, abs=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(["even", "near"]), st.integers(1, 30))
@settings(max_examples=25)
def test_rows_at_the_same_distance_count_alike_in_whatever_order_they_stand(seed: int, weights: str, k: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 3, (300, 2)).astype(float)  # nine points, each there some 33 times
    data = table({"a": cells[:, 0], "b": cells[:, 1], "y": rng.normal(size=300)}, "y")
    asked = table({"a": [0.0, 1.0, 2.0, 0.5], "b": [0.0, 1.0, 0.0, 1.5], "y": [0.0] * 4}, "y").asked()
    model = fitted(data, k=k, weights=weights)
    answers = model.predict(asked)
    turned = fitted(data.take(rng.permutation(300)), k=k, weights=weights).predict(asked)
    assert turned == pytest.approx(answers, abs=1e-9)
    assert np.concatenate([model.predict_row(r) for r in asked.frame.to_dicts()]) == pytest.approx(answers, abs=1e-9)


@given(st.lists(st.floats(0, 5), min_size=3, max_size=30), st.integers(1, 29), st.sampled_from(["even", "near"]))
def test_nearer_rows_never_weigh_less(far: list[float], k: int, how: str) -> None:
    sorted_far = np.sort(np.array(far))[None, :]
    weights = weighed(sorted_far, min(k, len(far) - 1), how)[0]
    assert (weights >= 0).all()
    assert (np.diff(weights) <= 1e-9).all()
    assert weights.sum() > 0
    if how == "even":
        assert weights.sum() == pytest.approx(min(k, len(far) - 1))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_the_middle_of_even_weights_is_the_median_and_levels_do_not_cross(said: list[float]) -> None:
    row, even = np.array([said]), np.ones((1, len(said)))
    told = [float(weighted_quantile(row, even, level)[0]) for level in (0.1, 0.5, 0.9)]
    assert told[1] == pytest.approx(float(np.median(said)), abs=1e-9)
    assert min(said) <= told[0] <= told[1] <= told[2] <= max(said)


def test_the_metric_sees_through_columns_that_say_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(900, 15))
    label = (noise[:, 0] > 0).astype(int)
    data = table({f"x{i}": noise[:, i] for i in range(15)} | {"y": [("no", "yes")[v] for v in label]}, "y", y="category")
    task, rest, last = Classify.of(data), data.take(np.arange(600)), data.take(np.arange(600, 900))
    model = Nearest(task, data.schema).fit(rest, seed=0, budget=work())
    plain = Nearest(task, data.schema, metric="scaled", numbers="scaled").fit(rest, seed=0, budget=work())
    hits = [(m.predict(last.asked()).argmax(axis=1) == task.truth(last)).mean() for m in (model, plain)]
    assert model.facts["metric"] == "relevant"
    assert hits[0] > 0.95 > 0.85 > hits[1]
