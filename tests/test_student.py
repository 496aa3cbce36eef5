"""The student: what it learns from a teacher, what it refuses, and that nothing of the teacher is left in it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.case import Case
from assay.checks import check_candidate
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.families import boosting, student
from assay.families.base import Budget, TooSlow
from assay.neural import distil
from assay.neural.distil import Lesson, LinePupil, TreesPupil, made_up, softened, targets, thinned
from assay.neural.head import Aim
from assay.neural.solver import descend
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import Text

pytest.importorskip("lightgbm")
FOREVER = float("inf")
ALONE = {"seed": 0, "threads": 1, "deadline": FOREVER, "passes": None}


def table(n, *, seed=0, noise=0.0, amount=False):
    """A rule of two numbers and a category; `noise`: the share of answers that are drawn at random."""
    rng = np.random.default_rng(seed)
    x, z, shop = rng.normal(size=n), rng.integers(0, 10, n), rng.choice(["a", "b", "c"], n)
    score = x + 0.3 * (z > 5) * np.where(shop == "a", 3, -1)
    label = np.where(rng.random(n) < noise, rng.random(n) < 0.5, score > 0)
    y = score * 10 if amount else np.where(label, "yes", "no")
    frame = pl.DataFrame({"x": x, "z": z.astype(float), "shop": shop, "y": y})
    kinds = {"x": "number", "z": "number", "shop": "category", "y": "number" if amount else "category"}
    return Dataset(frame, Schema(tuple(Column(k, v) for k, v in kinds.items()), "y"))


def taught_by(data, task, folder, **more):
    """A teacher that has seen `data`, as the contest keeps it."""
    (folder / "model").mkdir(parents=True)
    boosting.CANDIDATE.build(task, data.schema).fit(data, seed=0, budget=Budget(600, threads=1, passes=60)).dump(folder / "model")
    return {"teacher": {"name": "big", "family": "boosting", "params": {}, "folder": str(folder / "model"), "train_rows": len(data)} | more}


def learnt(data, task, params, *, seed=0, **budget):
    given = {"seconds": FOREVER, "threads": 1, "passes": 60} | budget
    return student.candidate.build(task, data.schema, **params).fit(data, seed=seed, budget=Budget(**given))


def oracle(frame):
    """What is true of `table` without its noise."""
    x, z, shop = (frame[name].to_numpy() for name in ("x", "z", "shop"))
    return x + 0.3 * (z > 5) * np.where(shop == "a", 3, -1) > 0


def test_a_teacher_that_knows_more_teaches_more_than_the_labels(tmp_path, monkeypatch):
    data, unseen = table(600, noise=0.5), table(2000, seed=1)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path)
    monkeypatch.setattr(student.Teacher, "answers", lambda self, asked: np.where(oracle(asked.frame)[:, None], [[0.25, 0.75]], [[0.75, 0.25]]))
    model = learnt(data, task, params)
    assert model.facts["teacher"] == "big"
    assert model.facts["teacher_share"] > 0
    assert model.facts["held_loss"]["taught"] < model.facts["held_loss"]["alone"]
    monkeypatch.setattr(student, "RECIPES", ())
    without = learnt(data, task, params)
    right = [(m.predict(unseen.asked()).argmax(axis=1) == task.truth(unseen)).mean() for m in (model, without)]
    assert right[0] > right[1] + 0.03


def test_a_teacher_with_nothing_to_say_is_not_followed(tmp_path, monkeypatch):
    data = table(600)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(student.Teacher, "answers", lambda self, asked: rng.dirichlet(np.ones(2) / 3, len(asked)))
    model = learnt(data, task, params)
    assert model.facts["teacher_share"] == 0
    assert model.facts["held_loss"]["taught"] == model.facts["held_loss"]["alone"]


def test_held_out_rows_are_judged_under_a_teacher_that_has_not_seen_them(tmp_path, monkeypatch):
    data = table(300)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path)
    fit, choose, load = boosting.Boosting.fit, student.Student._choose, boosting.Boosting.load
    taught, held, loaded = [], [], []
    monkeypatch.setattr(boosting.Boosting, "fit", lambda self, rows, **how: taught.append(set(rows.frame["x"])) or fit(self, rows, **how))
    monkeypatch.setattr(student.Student, "_choose", lambda self, train, truth, rest, kept, *more: held.append(set(train.take(kept).frame["x"])) or choose(
        self, train, truth, rest, kept, *more))
    monkeypatch.setattr(boosting.Boosting, "load", lambda self, folder: loaded.append(folder) or load(self, folder))
    memo: dict = {}
    first = learnt(data.take(np.arange(240)), task, params, memo=memo)  # the contest keeps 60 rows aside to validate it
    assert first.facts["taught_by"] == "young"
    assert not loaded
    assert not taught[0] & (held[0] | set(data.frame["x"][240:]))
    assert len(taught[0]) + len(held[0]) == 240
    second = learnt(data, task, params, memo=memo)
    assert second.facts["taught_by"] == "finished"
    assert second.facts["held_loss"] == first.facts["held_loss"]
    assert len(taught) == len(loaded) == 1


def test_amounts_are_taught_too(tmp_path):
    data, unseen = table(200, amount=True), table(1000, seed=1, amount=True)
    model = learnt(data, Regress(), taught_by(data, Regress(), tmp_path))
    truth = unseen.y.to_numpy()
    assert ((truth - model.predict(unseen.asked())[:, 0]) ** 2).mean() < 0.2 * truth.var()


def test_nothing_of_the_teacher_is_left_and_it_is_needed_no_more(tmp_path):
    data = table(200)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path / "teacher")
    model = learnt(data, task, params)
    (tmp_path / "student").mkdir()
    model.dump(tmp_path / "student")
    for file in (tmp_path / "student").iterdir():
        assert b"teacher/model" not in file.read_bytes()
    (tmp_path / "teacher").rename(tmp_path / "gone")
    loaded = student.candidate.build(task, data.schema).load(tmp_path / "student")
    assert np.array_equal(loaded.predict(data.asked()), model.predict(data.asked()))
    with pytest.raises(InputError, match="is not in"):
        learnt(data, task, params)


def test_it_holds_the_contract_of_a_contestant(tmp_path, monkeypatch):
    monkeypatch.setattr(student, "RECIPES", student.RECIPES[-1:])
    monkeypatch.setattr(TreesPupil, "ROUNDS", 40)
    monkeypatch.setattr(boosting, "MOST_ROUNDS", 40)
    data = Classify.example()
    params = taught_by(data, Classify.of(data), tmp_path)
    check_candidate(replace(student.candidate, tasks=("classify",)), params=params)


def test_it_does_not_play_without_a_teacher():
    data = table(60)
    reason = student.candidate.prepare(Case(target="y"), data.schema)
    assert isinstance(reason, Text)
    assert "plays after the others" in str(reason)
    with pytest.raises(TooSlow):
        learnt(data, Classify.of(data), {})


def test_a_slow_teacher_answers_fewer_rows_and_one_too_slow_is_refused(tmp_path, monkeypatch):
    import time

    data = table(2000)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path)
    ask = boosting.Boosting.predict
    monkeypatch.setattr(boosting.Boosting, "predict", lambda self, rows: time.sleep(len(rows) * 0.004) or ask(self, rows))
    model = learnt(data, task, params, seconds=12, passes=20)
    assert 100 <= model.facts["answered_rows"] < 2000
    with pytest.raises(TooSlow):
        learnt(data, task, params, seconds=0.5)


def test_without_a_clock_the_same_seed_gives_the_same_student(tmp_path):
    data = table(150, noise=0.2)
    task = Classify.of(data)
    params = taught_by(data, task, tmp_path)
    one, two = (learnt(data, task, params) for _ in range(2))
    assert one.facts == two.facts
    assert np.array_equal(one.predict(data.asked()), two.predict(data.asked()))
    json.dumps(one.facts)


@settings(max_examples=40)
@given(st.integers(2, 6), st.integers(1, 30), st.floats(0, 1), st.floats(0.5, 5), st.integers(0, 99))
def test_targets_are_probabilities_between_the_truth_and_the_teacher(classes, n, share, temperature, seed):
    rng = np.random.default_rng(seed)
    truth, answers = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
    made = targets(truth, answers, Aim(classes), share, temperature)
    np.testing.assert_allclose(made.sum(axis=1), 1, atol=1e-9)
    assert (made >= 0).all()
    np.testing.assert_array_equal(targets(truth, answers, Aim(classes), 0.0, temperature), np.eye(classes)[truth])
    np.testing.assert_allclose(targets(truth, answers, Aim(classes), 1.0, 1.0), softened(answers, 1.0))
    assert (softened(answers, 3.0).max(axis=1) <= answers.max(axis=1) + 1e-4).all()


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(["late", "order", "送餐", "很慢", "味道"]), max_size=12).map(" ".join)), st.integers(0, 99))
def test_a_thinned_text_says_nothing_new(text, seed):
    made = thinned(text, np.random.default_rng(seed))
    assert len(made) <= len(text)
    left = iter("".join(text.split()))
    assert all(letter in left for letter in "".join(made.split()))  # a subsequence


def test_made_up_rows_stay_within_what_was_seen_and_are_new():
    data = table(300)
    gappy = Dataset(data.frame.with_columns(x=pl.when(pl.col("x") > 1).then(None).otherwise(pl.col("x"))), data.schema)
    dense = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    made = made_up(gappy, dense, 2, seed=0)
    assert len(made) == 600
    assert made.schema.target is None
    assert made.frame.schema == gappy.asked().frame.schema
    for name in ("x", "z"):
        assert gappy.frame[name].min() <= made.frame[name].min() <= made.frame[name].max() <= gappy.frame[name].max()
    assert (made.frame["z"] == made.frame["z"].round()).all()
    assert set(made.frame["shop"]) == {"a", "b", "c"}
    assert 0 < made.frame["x"].null_count() < 600
    assert made.frame.join(gappy.asked().frame, on=["x", "z", "shop"]).height < 300


def test_a_soft_line_on_hard_targets_is_the_hard_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    codes = (x @ rng.normal(size=(5, 3)) + rng.gumbel(size=(300, 3))).argmax(axis=1)
    soft = distil.descend_soft(x, np.eye(3)[codes], np.ones(300), 0.01, start=None, deadline=FOREVER, most_steps=200, tolerance=1e-7)
    hard = descend(x, codes, 3, 0.01, tolerance=1e-7)
    scores = [x @ w[:-1] + w[-1] for w in (soft, hard)]
    np.testing.assert_allclose(scores[0] - scores[0].mean(axis=1, keepdims=True), scores[1] - scores[1].mean(axis=1, keepdims=True), atol=0.02)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", [LinePupil, TreesPupil])
def test_a_pupil_learns_shares_not_only_the_likeliest_class(classes, kind, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2)).astype(np.float32 if kind is LinePupil else np.float64)
    scores = np.stack([x[:, 0] * c for c in range(classes)], axis=1)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(classes, p=p) for p in shares[1000:]])
    pupil = kind(Aim(classes))
    lesson = Lesson(x[:1000], shares[:1000], np.ones(1000))
    pupil.fit(lesson, (x[1000:], truth), **ALONE)
    assert np.abs(pupil.answer(x[1000:]) - shares[1000:]).mean() < 0.03
    pupil.again(lesson, **ALONE)
    pupil.dump(tmp_path)
    assert np.array_equal(kind(Aim(classes)).load(tmp_path).answer(x), pupil.answer(x))
