"""Sketches are counts: the sketch of a concatenation is the merge of the sketches, whatever the order."""

import json
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.data.dataset import Column
from assay.errors import InputError
from assay.watch import stream
from assay.watch.gauge import Gauge, Grid, Lexicon
from assay.watch.sketch import KEPT_ROWS, NEW_LEVELS, Copies, Levels, Numbers, Sketches, frequent

VALUES = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from([float("nan"), float("inf"), 0.0, 1.0])), max_size=60)
WORDS = st.lists(st.one_of(st.none(), st.sampled_from("abcdefgh"), st.text(max_size=2)), max_size=60)
GRID = Grid.of(np.random.default_rng(0).normal(size=500))
LEXICON = Lexicon.of(pl.Series(["a", "a", "b", "c", None]))
COLUMNS = (Column("x", "number"), Column("c", "category"), Column("t", "text", language="en"), Column("when", "time"))


def rows(n: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    words = np.array(["parcel late", "great and fast", "where is it", "wrong amount"])
    return pl.DataFrame({"x": rng.normal(size=n), "c": rng.choice(["north", "south", "east"], n), "t": [f"{a} {b}" for a, b in zip(rng.choice(words, n), rng.choice(words, n), strict=True)],
                         "when": [datetime(2026, 1, 1) + timedelta(hours=int(h)) for h in rng.integers(0, 9000, n)]})


def same(a: Numbers | Levels, b: Numbers | Levels) -> bool:
    if isinstance(a, Levels):
        return (a.counts == b.counts).all() and (a.missing, a.unknown, a.new) == (b.missing, b.unknown, b.new)
    exact = (a.counts == b.counts).all() and (a.missing, a.below, a.above, a.low, a.high) == (b.missing, b.below, b.above, b.low, b.high)
    return bool(exact and np.isclose(a.total, b.total, rtol=1e-9, atol=1e-6) and np.isclose(a.square, b.square, rtol=1e-9, atol=1e-6))


@given(VALUES, VALUES, VALUES)
def test_merging_numbers_is_adding_in_any_order(a, b, c):
    a, b, c = (np.array(v, dtype=np.float64) for v in (a, b, c))
    x, y, z = GRID.count(a), GRID.count(b), GRID.count(c)
    assert same(x.merge(y), y.merge(x))
    assert same(x.merge(y).merge(z), x.merge(y.merge(z)))
    assert same(x.merge(y).merge(z), GRID.count(np.concatenate([a, b, c])))


@given(WORDS, WORDS, WORDS)
def test_merging_levels_is_adding_in_any_order(a, b, c):
    a, b, c = (pl.Series(v, dtype=pl.String) for v in (a, b, c))
    x, y, z = LEXICON.count(a), LEXICON.count(b), LEXICON.count(c)
    whole = LEXICON.count(pl.concat([a, b, c]))
    assert same(x.merge(y), y.merge(x))
    assert (x.merge(y).merge(z).counts == whole.counts).all()
    assert x.merge(y).merge(z).unknown == whole.unknown
    if len(set(whole.new)) < NEW_LEVELS:
        assert same(x.merge(y.merge(z)), whole)


@given(st.lists(st.dictionaries(st.integers(0, 400).map(str), st.integers(1, 50), max_size=80), max_size=6))
def test_a_count_of_heavy_hitters_is_too_low_by_at_most_what_is_stated(parts):
    truth: dict[str, int] = {}
    merged: dict[str, int] = {}
    for part in parts:
        truth = {k: truth.get(k, 0) + part.get(k, 0) for k in truth | part}
        merged = frequent([merged, frequent([part])])
    assert len(merged) <= NEW_LEVELS
    for level, count in truth.items():
        assert 0 <= count - merged.get(level, 0) <= sum(truth.values()) / (NEW_LEVELS + 1)


@given(st.lists(st.lists(st.integers(0, 3000), max_size=400), min_size=1, max_size=4))
def test_copies_are_counted_as_if_all_rows_were_seen_at_once(parts):
    spread = [np.array(p, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) for p in parts]
    merged = Copies()
    for p in spread:
        merged = Copies.of(p).merge(merged)
    whole = Copies.of(np.concatenate(spread))
    assert (merged.hashes == whole.hashes).all()
    assert (merged.times == whole.times).all()
    assert len(merged.hashes) <= KEPT_ROWS


def test_both_ways_to_count_agree_and_single_precision_stays_on_its_side_of_an_edge():
    values = np.round(np.random.default_rng(1).normal(size=20_000), 1).astype(np.float32)
    grid = Grid.of(values[:1000].astype(np.float64).round(1))  # 0.1 in double precision, as a CSV gives it
    many, few = grid.count(values), Numbers(np.zeros(len(grid.edges) + 1, dtype=np.int64))
    for part in np.array_split(values, 20):
        few = few.merge(grid.count(part))
    assert (many.counts == few.counts).all()
    assert (many.below, many.above) == (few.below, few.above) == (int((values < np.float32(grid.low)).sum()), int((values > np.float32(grid.high)).sum()))
    assert many.counts[0] == (values <= np.float32(grid.edges[0])).sum()


def test_a_sketch_of_every_kind_of_column_survives_its_bytes_and_is_merged_by_rows():
    gauge = Gauge.learn(rows(400), COLUMNS)
    a, b = rows(150, 1), rows(70, 2)
    again = Gauge.from_bytes(gauge.to_bytes())
    merged = Sketches.from_bytes(gauge.measure(a).to_bytes()).merge(again.measure(b))
    whole = gauge.measure(pl.concat([a, b]))
    assert merged.rows == 220
    assert merged.traces.keys() == whole.traces.keys() == gauge.grids.keys()
    assert [k for k in whole.traces if not same(merged.traces[k], whole.traces[k])] == []
    assert (merged.copies.times == whole.copies.times).all()
    assert again.reference.gauge == gauge.reference.gauge


def test_sketches_of_different_grids_are_not_merged():
    one, two = (Gauge.learn(rows(200, s), COLUMNS) for s in (0, 1))
    with pytest.raises(ValueError, match="different gauges"):
        one.measure(rows(10)).merge(two.measure(rows(10)))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 nonsense", json.dumps({"format": 1}).encode(), np.random.default_rng(0).bytes(300)])
def test_bytes_that_are_no_sketches_are_refused_in_a_sentence(data):
    with pytest.raises(InputError, match="no sketches of assay"):
        Sketches.from_bytes(data)


def test_memory_of_a_sketch_does_not_grow_with_the_rows():
    gauge = Gauge.learn(rows(400), COLUMNS)
    # every row brings a new level and a new text: what is kept has a ceiling all the same
    often = pl.DataFrame({"x": np.arange(20_000.0), "c": [f"level {i}" for i in range(20_000)], "t": [f"word{i}" for i in range(20_000)], "when": [datetime(2026, 1, 1)] * 20_000})
    assert len(gauge.measure(often).to_bytes()) < 20_000
    assert len(gauge.measure(often).traces["c"].new) <= NEW_LEVELS


def test_a_table_streamed_from_parts_has_the_sketches_of_the_table(tmp_path):
    frame = rows(9_000, 3).with_columns(x=pl.col("x").cast(pl.Float32), y=pl.int_range(9_000)).with_columns(x=pl.when(pl.col("y") % 7 == 0).then(None).otherwise(pl.col("x")))
    for i in range(3):
        frame[3000 * i: 3000 * (i + 1)].write_parquet(tmp_path / f"{i}.parquet", row_group_size=800)
    parts = stream.parts_of(tmp_path)
    columns = (*COLUMNS, Column("y", "number"))
    gauge = Gauge.learn(stream.sample(parts, columns, rows=500), columns)
    streamed, whole = stream.measured(gauge, parts, threads=2), gauge.measure(frame.cast({"y": pl.Float64}), copied=False)
    assert streamed.rows == 9_000
    exact = [k for k in whole.traces if not k.startswith("t\x1f")]  # texts are sampled within each call
    assert [k for k in exact if not (streamed.traces[k].counts == whole.traces[k].counts).all() or streamed.traces[k].missing != whole.traces[k].missing] == []
    assert np.isclose(streamed.traces["x"].mean, whole.traces["x"].mean, atol=1e-4)
