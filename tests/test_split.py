"""Splits: nothing teaches and judges, groups stay whole, the future judges, copies stay on one side."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Column, Dataset, Schema
from assay.data.split import Split, holdout, load, save, splits
from assay.errors import InputError, TaskError


def table(n, *, groups=None, texts=None, seed=0):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({
        "x": rng.integers(0, 5, n).astype(float), "y": rng.integers(0, 3, n),
        "g": [f"g{i}" for i in (groups if groups is not None else np.arange(n))],
        "t": pl.Series(np.datetime64("2026-01-01", "us") + rng.integers(0, max(n // 3, 1), n) * np.timedelta64(1, "h")),
        "text": texts if texts is not None else [f"row {i}" for i in range(n)],
    })
    kinds = {"x": "number", "y": "category", "g": "id", "t": "time", "text": "text"}
    return Dataset(frame, Schema(tuple(Column(c, k) for c, k in kinds.items()), target="y", group="g", time="t"))


cases = st.tuples(st.integers(40, 300), st.integers(1, 5), st.integers(0, 1000))


@settings(max_examples=60, deadline=None)
@given(cases, st.sampled_from(["random", "group", "time"]))
def test_no_row_teaches_and_judges(shape, kind):
    n, folds, seed = shape
    data = table(n, groups=np.random.default_rng(seed).integers(0, 12, n), seed=seed)
    parts = splits(data, folds=folds, share=0.2, seed=seed, kind=kind, strata=data.y.to_numpy() if kind == "random" else None)
    assert len(parts) == folds
    for part in parts:
        assert not set(part.train) & set(part.test)
        assert len(part.clusters) == len(part.test)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_every_row_is_judged_once_over_the_folds(shape):
    n, folds, seed = shape
    folds = max(folds, 2)
    for kind in ("random", "group"):
        parts = splits(table(n, groups=np.arange(n) // 2), folds=folds, share=1 / folds, seed=seed, kind=kind)
        assert sorted(np.concatenate([p.test for p in parts])) == list(range(n))


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(2, 40))
def test_a_group_never_stands_on_both_sides(shape, groups):
    n, folds, seed = shape
    codes = np.random.default_rng(seed).integers(0, groups, n)
    for part in splits(table(n, groups=codes), folds=min(folds, 2), share=0.2, seed=seed, kind="group", test_rows=n // 10):
        assert not set(codes[part.train]) & set(codes[part.test])


@settings(max_examples=40, deadline=None)
@given(cases)
def test_the_future_judges_and_no_instant_stands_on_both_sides(shape):
    n, folds, seed = shape
    data = table(n, seed=seed)
    for part in splits(data, folds=folds, share=0.2, seed=seed, kind="time"):
        assert data.frame["t"][part.train.tolist()].max() < data.frame["t"][part.test.tolist()].min()


@settings(max_examples=40, deadline=None)
@given(cases)
def test_a_copied_text_never_stands_on_both_sides(shape):
    n, folds, seed = shape
    texts = [f"the same words {i}" for i in np.random.default_rng(seed).integers(0, n // 2, n)]
    whole = table(n, texts=texts)
    reviews = Dataset(whole.frame.select("text", "y"), Schema((Column("text", "text"), Column("y", "category")), target="y"))
    for part in splits(reviews, folds=folds, share=0.2, seed=seed, kind="random", strata=whole.y.to_numpy()):
        assert not {texts[i] for i in part.train} & {texts[i] for i in part.test}


def test_rows_that_say_nothing_are_not_copies_of_each_other():
    frame = pl.DataFrame({"x": [float(i) for i in range(140)] + [None] * 60, "y": ["a"] * 140 + ["b"] * 60})
    data = Dataset(frame, Schema((Column("x", "number"), Column("y", "category")), target="y"))
    rest, _ = holdout(data, share=0.2, seed=0)
    assert set(frame["y"][rest.tolist()]) == {"a", "b"}


def test_a_random_split_keeps_the_shares_of_rare_classes():
    strata = np.r_[np.zeros(950), np.ones(50)].astype(int)
    part = splits(table(1000), folds=1, share=0.2, seed=3, kind="random", strata=strata)[0]
    assert strata[part.test].sum() == 10


def test_unused_test_rows_go_back_to_teaching():
    part = splits(table(1000), folds=1, share=0.2, seed=0, kind="random", test_rows=50)[0]
    assert (len(part.train), len(part.test)) == (950, 50)


def test_overlap_is_refused():
    with pytest.raises(ValueError, match="both teach and judge"):
        Split("bad", np.array([0, 1]), np.array([1, 2]), np.array([0, 1]))


def test_what_a_split_needs_is_asked_for():
    data = table(50)
    plain = Dataset(data.frame, Schema(data.schema.columns, target="y"))
    with pytest.raises(InputError, match="--group"):
        splits(plain, folds=1, share=0.2, seed=0, kind="group")
    with pytest.raises(InputError, match="--time-column"):
        splits(plain, folds=1, share=0.2, seed=0, kind="time")
    with pytest.raises(TaskError, match="one value only"):
        splits(table(50, groups=np.zeros(50)), folds=1, share=0.2, seed=0, kind="group")


def test_a_saved_split_comes_back(tmp_path):
    parts = splits(table(200), folds=3, share=0.2, seed=0, kind="random")
    save(parts, tmp_path / "splits.npz")
    for a, b in zip(parts, load(tmp_path / "splits.npz"), strict=True):
        assert a.name == b.name
        assert all(np.array_equal(x, y) for x, y in ((a.train, b.train), (a.test, b.test), (a.clusters, b.clusters)))


def test_tuning_rows_follow_the_group_too():
    codes = np.arange(200) // 10
    data = table(200, groups=codes)
    rest, held = holdout(Dataset(data.frame, Schema(data.schema.columns, target="y", group="g")), share=0.2, seed=0)
    assert not set(codes[rest]) & set(codes[held])
