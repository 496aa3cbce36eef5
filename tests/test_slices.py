"""Slices: a planted weakness is found with its support; where there is none, none is named."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.contest.slices import worst_slices
from assay.data.dataset import Dataset
from assay.tasks.base import schema_of


def rows(n=2000, seed=0):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": rng.normal(size=n), "shop": rng.choice(["north", "south", "web"], n), "note": ["a" * int(k) for k in rng.integers(1, 99, n)]})
    return Dataset(frame, schema_of({"x": "number", "shop": "category", "note": "text"})), rng.exponential(1.0, n)


def test_a_planted_weakness_is_named_with_its_rows_and_an_interval_that_holds_it():
    data, losses = rows()
    bad = (data.frame["shop"] == "web").to_numpy()
    found = worst_slices(data, losses + 0.8 * bad, np.arange(len(data)), confidence=0.95)[0]
    assert found.columns == ("shop",)
    assert str(found.where) == "shop = web"
    assert found.rows == bad.sum()
    assert found.low < 0.8 < found.high


def test_a_weakness_of_two_conditions_together_is_named_as_both():
    data, losses = rows(6000)
    bad = (data.frame["shop"] == "web").to_numpy() & (data.frame["x"] > 0.7).to_numpy()
    found = worst_slices(data, losses + 2 * bad, np.arange(len(data)), confidence=0.95)
    assert any(set(s.columns) == {"shop", "x"} for s in found)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_where_no_part_is_worse_hardly_any_is_named(seed):
    data, losses = rows(600, seed)
    assert len(worst_slices(data, losses, np.arange(len(data)), confidence=0.99)) <= 1


def test_rows_of_one_cluster_count_once():
    data, losses = rows(2000)
    clusters = np.arange(2000) // 500
    odd = losses + 1.0 * (clusters == 0)
    named = data.frame.with_columns(pl.Series("site", [f"s{c % 2}" for c in clusters]))
    data = Dataset(named, schema_of({"x": "number", "shop": "category", "note": "text", "site": "category"}))
    apart = worst_slices(data, odd, np.arange(2000), confidence=0.95)
    together = worst_slices(data, odd, clusters, confidence=0.95)
    assert any(s.columns == ("site",) for s in apart)
    assert not any(s.columns == ("site",) for s in together)
