"""Label errors: flipped labels are found and counted, honest doubt is not called an error."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.contest.suspects import label_errors
from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.data.read import read
from assay.tasks import find


def classes(rng, n, *, apart, wrong=0.0, kinds=3):
    """Clouds `apart` standard deviations from each other, a share of labels flipped. Returns (dataset, rows that were flipped)."""
    truth = rng.integers(0, kinds, n)
    x = rng.normal(size=(n, 4))
    x[np.arange(n), truth] += apart
    flipped = np.sort(rng.choice(n, round(wrong * n), replace=False))
    said = truth.copy()
    said[flipped] = (truth[flipped] + rng.integers(1, kinds, len(flipped))) % kinds
    frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "y": [f"kind {k}" for k in said]})
    return read(frame, target="y").dataset, set(flipped.tolist())


def centroids(train, asked):
    """Class shares from the distance to each class's median: a quick stand-in for a family."""
    names = [f"x{i}" for i in range(4)]
    a, b = train.frame.select(names).to_numpy(), asked.frame.select(names).to_numpy()
    y = train.y.to_numpy()
    centres = np.stack([np.median(a[y == k], axis=0) for k in sorted(set(y))])
    score = -0.5 * ((b[:, None, :] - centres[None]) ** 2).sum(axis=2)
    score -= score.max(axis=1, keepdims=True)
    return np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)


def suspects_of(data, *, predict=centroids, seconds=60.0, task="classify"):
    return label_errors(data, find(task).of(data), seed=0, seconds=seconds, predict=predict)


@settings(max_examples=6)
@given(seed=st.integers(0, 1000), wrong=st.sampled_from([0.02, 0.05, 0.1, 0.2]))
def test_flipped_labels_are_found_counted_and_given_back(seed, wrong):
    data, flipped = classes(np.random.default_rng(seed), 1200, apart=6.0, wrong=wrong)
    found = suspects_of(data)
    figure = found.figure
    assert figure["flat"]
    assert figure["wrong_low"] <= len(flipped) * 1.15 + 3
    assert figure["wrong_high"] >= len(flipped) * 0.9
    assert {s["row"] - 1 for s in figure["suspects"]} <= flipped
    assert abs(figure["count"] - len(flipped)) <= 0.1 * len(flipped) + 2


def test_clean_and_easy_labels_have_hardly_a_suspect():
    data, _ = classes(np.random.default_rng(1), 1200, apart=6.0)
    found = suspects_of(data)
    assert found is None or (found.level == "note" and found.figure["count"] <= 6)


def test_labels_that_nature_leaves_open_are_not_called_wrong():
    data, _ = classes(np.random.default_rng(2), 3000, apart=1.2)
    found = suspects_of(data)
    assert found.level == "note"
    assert not found.figure["flat"]
    assert found.figure["wrong_low"] == 0
    assert "perhaps none" in str(found.text)
    assert "drop none of them" in str(found.advice)


def test_a_class_that_cannot_be_recognised_is_not_a_class_of_errors():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 4))
    y = np.where(rng.random(3000) < 0.1 + 0.1 * (x[:, 0] > 1), "rare", "usual")
    data = read(pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "y": y}), target="y").dataset

    def shares(train, asked):
        p = 0.1 + 0.1 * (asked.frame["x0"].to_numpy() > 1)
        return np.column_stack([p, 1 - p])

    found = suspects_of(data, predict=shares)
    assert found is None or not found.figure["flat"]


def test_rows_are_numbered_as_in_the_file():
    data, flipped = classes(np.random.default_rng(4), 800, apart=6.0, wrong=0.05)
    later = replace(data, rows=np.arange(800) + 5000)
    found = suspects_of(later)
    assert {s["row"] - 5001 for s in found.figure["suspects"]} <= flipped
    first = found.figure["suspects"][0]
    assert data.y[first["row"] - 5001] == first["given"] != first["suggested"]


def test_mending_is_worth_something_where_wrong_labels_mislead():
    """The nearest neighbour believes every label: without the wrong ones it errs less."""
    data, _ = classes(np.random.default_rng(5), 900, apart=6.0, wrong=0.15)

    def nearest(train, asked):
        names = [f"x{i}" for i in range(4)]
        a, b = train.frame.select(names).to_numpy(), asked.frame.select(names).to_numpy()
        order = ((b[:, None, :] - a[None]) ** 2).sum(axis=2).argsort(axis=1)[:, :5]
        y = train.y.to_numpy()[order]
        return np.stack([(y == k).mean(axis=1) for k in sorted(set(train.y.to_list()))], axis=1) * 0.94 + 0.02

    worth = suspects_of(data, predict=nearest).figure["worth"]
    assert worth["low"] > 0
    assert worth["gain"] == pytest.approx(worth["error_with"] - worth["error_without"])


def test_an_amount_with_a_slipped_decimal_point_is_a_suspect():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(600, 4))
    y = 50 + 5 * x[:, 0] + rng.normal(size=600)
    y[[17, 400]] *= 10
    data = read(pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "y": y}), target="y").dataset
    found = suspects_of(data, task="regress", predict=lambda train, asked: 50 + 5 * asked.frame["x0"].to_numpy()[:, None])
    assert {s["row"] for s in found.figure["suspects"]} == {18, 401}


def test_trees_and_lines_are_fitted_where_no_model_is_given():
    data, flipped = classes(np.random.default_rng(7), 200, apart=6.0, wrong=0.05, kinds=2)
    found = suspects_of(data, predict=None)
    assert len({s["row"] - 1 for s in found.figure["suspects"]} & flipped) >= 0.8 * len(flipped)


@pytest.mark.parametrize(("n", "seconds"), [(60, 60.0), (400, 0.0)])
def test_too_few_rows_or_no_time_say_nothing(n, seconds):
    data, _ = classes(np.random.default_rng(8), n, apart=6.0, wrong=0.1)
    slow = (lambda train, asked: centroids(train, asked)) if seconds else _sleepy
    assert suspects_of(data, predict=slow, seconds=seconds) is None


def _sleepy(train, asked):
    import time

    time.sleep(0.02)
    return centroids(train, asked)


def test_the_finding_survives_json_and_speaks_chinese():
    import json

    data, _ = classes(np.random.default_rng(9), 500, apart=6.0, wrong=0.1)
    found = suspects_of(Dataset(data.frame, data.schema))
    again = Finding.of(json.loads(json.dumps(found.json())))
    assert again.text.to("zh") == found.text.to("zh") != str(found.text)
    assert again.advice.to("zh") == found.advice.to("zh") != str(found.advice)
