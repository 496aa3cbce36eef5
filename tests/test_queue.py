"""The queue of labels: doubt, but no copies of one row; a stated share by lot; new rows when there are more of them than chance brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Column, Schema
from assay.store.records import Feedback, Prediction
from assay.store.store import Store
from assay.tasks.classify import Classify
from assay.watch.near import Likeness, apart
from assay.watch.queue import chosen, doubts, lot, queue, unbiased

SCHEMA = Schema((Column("a", "number"), Column("b", "number"), Column("shop", "category"), Column("note", "text", language="en")))


class Small:
    """As much of a bundle as the queue looks at."""

    def __init__(self, reference: pl.DataFrame | None = None) -> None:
        self.task, self.schema, self.reference = Classify(("no", "yes")), Schema((*SCHEMA.columns, Column("y", "category")), target="y"), reference


def rows(n: int, seed: int = 0, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({"a": rng.normal(shift, 1, n), "b": rng.normal(0, 1, n), "shop": rng.choice(["north", "south"], n), "note": rng.choice(["good day", "bad day", "too late"], n)})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.sqlite") as opened:
        yield opened


def asked(store: Store, frame: pl.DataFrame, p: np.ndarray) -> list[str]:
    ids = [f"{i:08x}{np.random.default_rng(i).bytes(8).hex()}" for i in range(frame.height)]
    store.write(predictions=[Prediction(i, 1e9 + k, "m", 1, {"answer": "yes" if q > 0.5 else "no", "probability": max(q, 1 - q), "p(no)": 1 - q, "p(yes)": q}, row, doubt=1 - abs(2 * q - 1))
                             for k, (i, row, q) in enumerate(zip(ids, frame.to_dicts(), p.tolist(), strict=True))])
    return ids


@settings(max_examples=25)
@given(st.integers(1, 80), st.integers(1, 100), st.floats(0, 1), st.integers(0, 5))
def test_every_row_is_asked_once_and_the_share_by_lot_is_as_stated(n: int, limit: int, share: float, seed: int) -> None:
    doubt = np.random.default_rng(seed).random(n)
    found = chosen(rows(n, seed), doubt, SCHEMA, limit, random_share=share, reference=rows(200, 9))
    assert len({c.row for c in found}) == len(found) == min(n, limit)
    drawn = sum(c.why == "random" for c in found)
    assert drawn == (min(n, limit, int(np.ceil(share * min(n, limit)))) if share else 0)
    assert all(0 <= c.value <= 1 for c in found)


def test_the_most_doubtful_rows_come_first_but_not_ten_copies_of_one() -> None:
    frame = rows(200)
    copies = pl.concat([frame[:1]] * 50)
    doubt = np.concatenate([np.full(50, 1.0), np.linspace(0.2, 0.9, 200)])
    found = chosen(pl.concat([copies, frame]), doubt, SCHEMA, 20, random_share=0)
    assert sum(c.row < 50 for c in found) == 1
    assert np.mean([doubt[c.row] for c in found]) > doubt[50:].mean()


def test_rows_like_those_that_are_labelled_wait() -> None:
    frame = rows(100)
    before = [c.row for c in chosen(frame, np.full(100, 0.5), SCHEMA, 10, random_share=0)]
    after = [c.row for c in chosen(frame, np.full(100, 0.5), SCHEMA, 10, random_share=0, known=frame[before])]
    assert not set(before) & set(after)


def test_rows_from_where_the_reference_has_few_are_new_only_if_there_are_more_than_chance_brings() -> None:
    def new(pool: pl.DataFrame) -> list[int]:
        return [c.row for c in chosen(pool, np.full(pool.height, 0.1), SCHEMA, 20, reference=rows(500, 1)) if c.why == "new"]

    assert sum(bool(new(rows(300, seed))) for seed in range(10, 20)) <= 1
    found = new(pl.concat([rows(270, 2), rows(30, 3, shift=9.0)]))
    assert 1 <= len(found) <= 4
    assert all(i >= 270 for i in found)


def test_the_queue_is_stable_leaves_out_what_is_settled_and_spreads_the_lots(store: Store) -> None:
    frame = rows(300)
    ids = asked(store, frame, 1 / (1 + np.exp(-3 * frame["a"].to_numpy())))
    first = queue(store, Small(), "m", 40)
    assert [a.prediction.id for a in queue(store, Small(), "m", 40)] == [a.prediction.id for a in first]
    by_lot = [i for i, a in enumerate(first) if a.why == "random"]
    assert len(by_lot) == 4
    assert [i // 10 for i in by_lot] == [0, 1, 2, 3]
    assert {first[i].prediction.id for i in by_lot} == set(sorted(ids, key=lot)[:4])
    store.write(feedback=[Feedback("m", "label", a.prediction.id, "yes") for a in first[:20]] + [Feedback("m", "accept", first[20].prediction.id), Feedback("m", "reject", first[21].prediction.id)])
    after = {a.prediction.id for a in queue(store, Small(), "m", 300)}
    assert not after & {a.prediction.id for a in first[:21]}
    assert first[21].prediction.id in after
    assert np.mean([a.prediction.doubt for a in first if a.why == "doubt"]) > np.mean([p.doubt for p in store.predictions.recent("m", 300)])


def test_labels_up_to_the_smallest_open_lot_are_a_sample_without_bias(store: Store) -> None:
    """The share of doubtful rows among them is that of all rows; among all labelled rows it is far higher."""
    frame = rows(600)
    p = 1 / (1 + np.exp(-4 * frame["a"].to_numpy()))
    ids = asked(store, frame, p)
    for _ in range(6):
        store.write(feedback=[Feedback("m", "label", a.prediction.id, "yes") for a in queue(store, Small(), "m", 40, random_share=0.3)])
    sample = unbiased(store, "m", 0, 2e9)
    doubt = dict(zip(ids, 1 - np.abs(2 * p - 1), strict=True))
    labelled = [f.prediction for f in store.feedback.recent("m", 1000)]
    everyone = np.mean(list(doubt.values()))
    assert len(sample) >= 6 * 12
    assert abs(np.mean([doubt[i] for i in sample]) - everyone) < 3 * np.std(list(doubt.values())) / np.sqrt(len(sample))
    assert np.mean([doubt[str(i)] for i in labelled]) - everyone > 0.1
    assert set(sample) == set(sorted(ids, key=lot)[:len(sample)])


def test_rows_that_were_not_kept_and_shadow_answers_are_not_asked_for(store: Store) -> None:
    store.write(predictions=[Prediction("a" * 24, 1.0, "m", 1, {"answer": "no"}, None, doubt=1.0),
                             Prediction("b" * 24, 2.0, "m", 1, {"answer": "no"}, rows(1).row(0, named=True), doubt=0.5),
                             Prediction("c" * 24, 2.0, "m", 2, {"answer": "no"}, rows(1).row(0, named=True), "shadow", "b" * 24, doubt=0.9),
                             Prediction("d" * 24, 3.0, "m", 1, {"answer": "no"}, {"a": "not a number", "shop": "east"}, doubt=0.7)])
    assert {a.prediction.id[0] for a in queue(store, Small(), "m", 10)} == {"b", "d"}
    assert queue(store, Small(), "other", 10) == []


def test_doubt_is_the_margin_of_classes_and_the_width_of_amounts() -> None:
    three = Small()
    three.task = Classify(("x", "y", "z"))
    pool = [Prediction("1", 1, "m", 1, {"p(x)": 0.5, "p(y)": 0.5, "p(z)": 0.0}), Prediction("2", 1, "m", 1, {"p(x)": 0.5, "p(y)": 0.25, "p(z)": 0.25}),
            Prediction("3", 1, "m", 1, {"answer": "x"}, doubt=0.3)]
    assert doubts(three, pool).tolist() == [1.0, 0.75, 0.3]  # type: ignore[arg-type]
    from assay.tasks.regress import Regress

    amounts = Small()
    amounts.task = Regress()  # type: ignore[assignment]
    wide = [Prediction(str(i), 1, "m", 1, {"answer": 0.0, "low": -w, "high": w}) for i, w in enumerate((1.0, 5.0, 2.0))]
    assert np.argsort(doubts(amounts, wide)).tolist() == [0, 2, 1]  # type: ignore[arg-type]
    assert set(doubts(amounts, wide[:1] * 3)) == {0.5}  # type: ignore[arg-type]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_likeness_has_no_unit_and_equal_rows_are_at_one_place(seed: int) -> None:
    frame = rows(30, seed)
    scaled = frame.with_columns(pl.col("a") * 1000 + 7)
    x, y = Likeness(SCHEMA, frame).of(frame), Likeness(SCHEMA, scaled).of(scaled)
    assert np.allclose(x, y)
    assert np.allclose(apart(x, x).diagonal(), 0, atol=1e-9)
    assert (apart(x, x) >= 0).all()
    gaps = frame.with_columns(pl.when(pl.int_range(30) % 3 == 0).then(None).otherwise(pl.col("a")).alias("a"), shop=pl.lit(None, dtype=pl.String))
    assert np.isfinite(Likeness(SCHEMA, gaps).of(gaps)).all()
