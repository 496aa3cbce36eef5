"""Tasks: losses and metrics agree with facts from outside the code."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.checks import check_task
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError, TaskError
from assay.tasks import choose, known
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress


def labels(values, dtype=None):
    frame = pl.DataFrame({"x": list(range(len(values))), "y": pl.Series(values, dtype=dtype)})
    return Dataset(frame, Schema((Column("x", "number"), Column("y", "category")), target="y"))


@pytest.mark.parametrize("name", sorted(known()))
def test_a_task_holds_its_contract(name):
    check_task(known()[name])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(30, 200), st.integers(0, 10_000))
def test_metrics_agree_with_scikit_learn(classes, rows, seed):
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    truth = np.r_[np.arange(classes), rng.integers(0, classes, rows)]
    p = rng.dirichlet(np.ones(classes), len(truth)).round(2) + 1e-3  # rounding makes ties
    p /= p.sum(axis=1, keepdims=True)
    weight = rng.integers(1, 4, len(truth)).astype(float)
    data = labels([f"c{t}" for t in truth])
    task = Classify.of(data)
    ours = task.metrics(data, data, p, weight)
    answer = p.argmax(axis=1)
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(truth, answer, sample_weight=weight))
    assert ours["macro_f1"] == pytest.approx(metrics.f1_score(truth, answer, average="macro", sample_weight=weight))
    assert ours["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, answer, sample_weight=weight))
    assert ours["log_loss"] == pytest.approx(metrics.log_loss(truth, p, sample_weight=weight))
    columns = [task.positive] if classes == 2 else range(classes)
    assert ours["auc"] == pytest.approx(np.mean([metrics.roc_auc_score(truth == c, p[:, c], sample_weight=weight) for c in columns]))
    assert ours["pr_auc"] == pytest.approx(np.mean([metrics.average_precision_score(truth == c, p[:, c], sample_weight=weight) for c in columns]))


def test_the_naive_shares_have_the_entropy_as_log_loss():
    data = labels(["a"] * 75 + ["b"] * 25)
    task = Classify.of(data)
    losses = task.losses(data, data, np.tile([0.75, 0.25], (100, 1)))
    assert losses.mean() == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def test_a_temperature_undoes_overconfidence():
    rng = np.random.default_rng(0)
    honest = rng.dirichlet([1, 1, 1], 5000)
    truth = np.array([rng.choice(3, p=p) for p in honest])
    loud = honest**3 / (honest**3).sum(axis=1, keepdims=True)
    task = Classify(("a", "b", "c"))
    found = task.calibration(truth, loud)
    assert found["temperature"] == pytest.approx(3.0, rel=0.1)
    assert np.allclose(task.calibrated(loud, found), honest, atol=0.03)


def test_a_cost_matrix_changes_the_answer_not_the_probability():
    data = labels(["no"] * 90 + ["yes"] * 10)
    task = Classify.of(data, costs={"yes>no": 500.0, "no>yes": 20.0}, currency="CNY")
    assert task.loss == "cost"
    assert task.decisions(np.array([[0.94, 0.06], [0.99, 0.01]])).tolist() == [1, 0]
    assert task.losses(data, data.take(np.array([0, 95])), np.array([[0.94, 0.06], [0.99, 0.01]])).tolist() == [20.0, 500.0]


def test_a_cost_for_a_label_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="The labels are: no, yes"):
        Classify.of(labels(["no", "yes"] * 10), costs={"maybe>no": 1.0})


def test_the_interval_holds_the_promised_share():
    rng = np.random.default_rng(1)
    task = Regress()
    residual = rng.standard_t(3, 4000)
    found = task.calibration(residual[:2000], np.zeros((2000, 1)))
    inside = np.abs(residual[2000:]) <= found["radius"]
    assert inside.mean() == pytest.approx(0.9, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_the_quantile_minimises_the_pinball_loss(level, seed):
    truth = np.random.default_rng(seed).exponential(10, 501)
    data = Dataset(pl.DataFrame({"x": truth, "y": truth}), Schema((Column("x", "number"), Column("y", "number")), target="y"))
    task = Regress.of(data, loss="pinball", quantile=level)
    best = np.quantile(truth, level, method="inverted_cdf")  # the minimiser is one of the values, not between two

    def loss(at):
        return task.losses(data, data, np.tile([at, at, at], (501, 1))).mean()

    assert loss(best) <= min(loss(best * 1.05), loss(best * 0.95)) + 1e-9


@pytest.mark.parametrize(("values", "task"), [
    (["a", "b"] * 20, "classify"), ([True, False] * 20, "classify"), ([0, 1] * 20, "classify"),
    ([float(i) / 7 for i in range(40)], "regress"), (list(range(400)), "regress"), ([1, 2, 3, 4, 5] * 20, "classify"),
])
def test_the_question_follows_from_the_answers(values, task):
    chosen, why = choose(labels(values))
    assert chosen.name == task
    assert task in str(why)


def test_a_target_that_could_be_either_makes_the_user_pick():
    with pytest.raises(TaskError, match="Pick one with --task"):
        choose(labels(list(range(20)) * 30))


@pytest.mark.parametrize(("values", "words"), [
    (["a"] * 40, "one value only"), ([f"c{i}" for i in range(40)], "nearly every row would be a class"),
    ([f"c{i % 2000}" for i in range(8000)], "2000 classes; at most 1000"),
])
def test_a_target_that_cannot_be_asked_says_why(values, words):
    with pytest.raises(TaskError, match=words):
        choose(labels(values))
