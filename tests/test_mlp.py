"""The network from scratch: what it learns, what it may not see, and that numpy answers what torch trained."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Column, Dataset, Schema
from assay.families import mlp
from assay.families.base import Budget, Model, TooSlow
from assay.families.mlp import CANDIDATE
from assay.neural.columns import Columns
from assay.neural.ngrams import Vocabulary
from assay.neural.tabular_training import Rows, _Batches, default_epochs, spread
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress

pytest.importorskip("torch", reason="the extra 'deep' is not installed")

QUICK = {"epochs": 12}


def fitted(data: Dataset, task: Classify | Regress | None = None, *, seed: int = 0, seconds: float = 600.0, **params: object) -> Model:
    task = task or Classify.of(data)
    return CANDIDATE.build(task, data.schema, **(QUICK | params)).fit(data, seed=seed, budget=Budget(seconds, threads=2))


def amounts(n: int = 600, seed: int = 0, noise: float = 0.1) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    y = np.sin(2 * x[:, 0]) + (x[:, 1] > 0) * x[:, 2] + noise * rng.normal(size=n)
    columns = {f"x{i}": x[:, i] for i in range(3)} | {"y": y * 50 + 1000}
    return Dataset(pl.DataFrame(columns), Schema(tuple(Column(c, "number") for c in columns), "y"))


@pytest.fixture(scope="module")
def example() -> Dataset:
    return Classify.example()


@pytest.fixture(scope="module")
def model(example: Dataset) -> Model:
    return fitted(example)


def test_it_learns_every_column_kind(example: Dataset, model: Model) -> None:
    unseen = Classify.example(seed=7)
    assert (model.predict(unseen.asked()).argmax(axis=1) == Classify.of(example).truth(unseen)).mean() > 0.9


def test_numpy_answers_what_torch_trained(example: Dataset, model: Model) -> None:
    import torch

    from assay.neural.tabular import network

    inputs = model.columns.read(example.asked())
    batch, _ = _Batches(Rows(inputs, np.zeros(len(example), dtype=np.int64)), "cpu").take(np.arange(len(example)))
    said = sum(
        share * network({k: torch.from_numpy(v) for k, v in arrays.items()}, batch, sizes).softmax(2).mean(0).numpy()
        for share, arrays, sizes in model.networks
    )
    assert np.abs(said - model.predict(example.asked())).max() < 1e-5


def test_predicting_does_not_import_torch(example: Dataset, model: Model, tmp_path: Path) -> None:
    model.dump(tmp_path)
    code = (
        "import sys; from pathlib import Path; from assay.families.mlp import CANDIDATE; from assay.tasks.classify import Classify\n"
        "d = Classify.example(); m = CANDIDATE.build(Classify.of(d), d.schema).load(Path(sys.argv[1]))\n"
        "m.predict(d.asked()); m.predict_row({'weight': 1.0, 'note': 'late'}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(example: Dataset, model: Model) -> None:
    once, twice = (fitted(example, seconds=float("inf")).predict(example.asked()) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    assert np.abs(fitted(example, seed=1).predict(example.asked()) - once).max() > 1e-4


def test_what_was_dumped_answers_bit_for_bit(example: Dataset, model: Model, tmp_path: Path) -> None:
    model.dump(tmp_path)
    again = CANDIDATE.build(Classify.of(example), example.schema).load(tmp_path)
    np.testing.assert_array_equal(again.predict(example.asked()), model.predict(example.asked()))
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_row_alone_is_answered_as_in_a_batch(example: Dataset, model: Model) -> None:
    batch = model.predict(example.asked())
    for i, row in enumerate(example.asked().frame.head(20).iter_rows(named=True)):
        np.testing.assert_allclose(model.predict_row(row)[0], batch[i], atol=1e-5)


def test_a_row_without_times_is_read_without_a_frame() -> None:
    data = amounts(200)
    model = fitted(data, Regress())
    row = data.asked().frame.row(3, named=True)
    assert model.columns.read_row(row) is not None
    np.testing.assert_allclose(model.predict_row(row)[0], model.predict(data.asked())[3], rtol=1e-6)


def test_unknown_missing_and_infinite_values_are_answered(model: Model) -> None:
    for row in ({}, {"weight": None, "shop": "never seen", "note": None, "when": None}, {"weight": float("inf"), "note": "", "shop": None}):
        answer = model.predict_row(row)
        assert answer.shape == (1, 3)
        assert np.isfinite(answer).all()
        assert answer.sum() == pytest.approx(1)


def test_empty_and_constant_columns_are_left_out_and_absence_is_a_fact() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    frame = pl.DataFrame({
        "empty": pl.Series([None] * 200, dtype=pl.Float64), "constant": [5.0] * 200, "x": [v if v > -0.5 else None for v in x],
        "none": pl.Series([None] * 200, dtype=pl.String), "blank": [""] * 200,
        "z": rng.normal(size=200), "y": ["a" if v > -0.5 else "b" for v in x],
    })
    kinds = {"empty": "number", "constant": "number", "x": "number", "none": "category", "blank": "text", "z": "number", "y": "category"}
    data = Dataset(frame, Schema(tuple(Column(n, k) for n, k in kinds.items()), "y"))
    model = fitted(data, epochs=40)
    assert [name for name, _ in model.columns.numbers] == ["x", "z"]
    assert model.columns.flags == [0]
    assert (model.predict(data.asked()).argmax(axis=1) == Classify.of(data).truth(data)).mean() > 0.97


def test_columns_that_say_nothing_still_give_the_shares() -> None:
    frame = pl.DataFrame({"x": [1.0] * 100, "y": ["a"] * 70 + ["b"] * 30})
    data = Dataset(frame, Schema((Column("x", "number"), Column("y", "category")), "y"))
    np.testing.assert_allclose(fitted(data, epochs=60).predict(data.asked())[0], [0.7, 0.3], atol=0.12)


def test_held_out_rows_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = amounts(300), {}
    whole = mlp.train_all

    def spied(taught: Rows, held: Rows, *args: object, **kwargs: object) -> object:
        seen.update(taught=taught, held=held)
        return whole(taught, held, *args, **kwargs)

    monkeypatch.setattr(mlp, "train_all", spied)
    fitted(data, Regress())
    taught, held = set(map(tuple, seen["taught"].inputs.numbers)), set(map(tuple, seen["held"].inputs.numbers))
    assert len(taught) + len(held) == 300
    assert not taught & held


def test_an_absent_class_still_has_its_column(example: Dataset) -> None:
    task = Classify.of(example)
    some = example.take(example.y.to_numpy() != "praise")
    answer = fitted(some, task).predict(some.asked())
    assert answer.shape == (len(some), 3)
    assert answer[:, task.classes.index("praise")].mean() < 0.1


def test_amounts_are_learnt_and_never_leave_the_range_seen() -> None:
    data, unseen = amounts(), amounts(seed=1)
    model = fitted(data, Regress(), epochs=60)
    error = Regress().truth(unseen) - model.predict(unseen.asked())[:, 0]
    assert (error**2).mean() < 0.35 * Regress().truth(unseen).var()
    far = model.predict_row({"x0": 1e9, "x1": 1e9, "x2": 1e9})[0, 0]
    assert data.y.min() <= far <= data.y.max()


@pytest.mark.parametrize("quantile", [0.1, 0.9])
def test_pinball_finds_the_quantile_of_noise(quantile: float) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.normal(size=2000), "y": rng.exponential(size=2000)})
    data = Dataset(frame, Schema((Column("x", "number"), Column("y", "number")), "y"))
    answer = fitted(data, Regress(loss="pinball", quantile=quantile), epochs=30).predict(data.asked())[:, 0]
    assert (data.y.to_numpy() < answer).mean() == pytest.approx(quantile, abs=0.04)


def test_a_text_only_question_is_learnt_in_both_scripts() -> None:
    rng = np.random.default_rng(0)
    words = {"good": ["好吃", "很快", "great", "味道不错"], "bad": ["难吃", "太慢", "awful", "送错了"]}
    labels = rng.choice(["good", "bad"], 300)
    frame = pl.DataFrame({"t": [f"{rng.choice(words[v])}，订单{rng.integers(100)}" for v in labels], "y": labels})
    data = Dataset(frame, Schema((Column("t", "text"), Column("y", "category")), "y"))
    model = fitted(data)
    assert model.predict_row({"t": "真的难吃"}).argmax() == 0
    assert model.predict_row({"t": "味道不错！"}).argmax() == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=12), st.sampled_from(["chars", "words"]))
def test_a_text_has_the_same_bag_alone_and_in_company(texts: list[str | None], mode: str) -> None:
    vocabulary = Vocabulary.learn([*texts, *texts], mode, 500)
    together = vocabulary.bags(texts)
    assert len(together) == len(texts)
    for i, text in enumerate(texts):
        alone, same = vocabulary.bags([text]), together.take(np.array([i]))
        np.testing.assert_array_equal(alone.ids, same.ids)
        np.testing.assert_allclose(alone.weights, same.weights, rtol=1e-6)
        if len(alone.ids):
            assert np.linalg.norm(alone.weights) == pytest.approx(1, abs=1e-5)


def test_n_grams_are_the_same_in_every_process() -> None:
    code = "from assay.neural.ngrams import Vocabulary as V; print(V.learn(['外卖 late order'] * 2, 'words', 99).buckets.tolist())"
    here = str(Vocabulary.learn(["外卖 late order"] * 2, "words", 99).buckets.tolist())
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == here


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 5))
def test_a_spread_keeps_the_shares_of_the_strata(n: int, most: int, kinds: int) -> None:
    strata = np.arange(n) % kinds
    rows = spread(n, most, strata, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == min(n, most)
    counts = np.bincount(strata[rows], minlength=kinds) / len(rows)
    assert np.abs(counts - np.bincount(strata, minlength=kinds) / n).max() <= 2 / len(rows)


def test_the_schedule_ends_with_the_budget() -> None:
    data = amounts(60_000)
    begun = time.monotonic()
    model = fitted(data, Regress(), seconds=12, epochs=None)
    taken = time.monotonic() - begun
    assert taken < 12 * 1.2
    assert model.facts["epochs"] < default_epochs(51_000, 256) or "rows_used" not in model.facts


def test_too_many_rows_are_thinned_and_it_is_said() -> None:
    data, begun = amounts(300_000), time.monotonic()
    model = fitted(data, Regress(), seconds=10, epochs=None)
    assert time.monotonic() - begun < 10 * 1.2
    assert model.facts["rows_used"] < 300_000
    assert model.facts["epochs"] <= 12


def test_without_a_clock_a_slow_machine_gives_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.neural import tabular_training

    data, budget = amounts(400), Budget(float("inf"), threads=2, passes=5)
    quick = CANDIDATE.build(Regress(), data.schema).fit(data, seed=0, budget=budget)
    step = tabular_training._Run.step
    monkeypatch.setattr(tabular_training._Run, "step", lambda *given: time.sleep(0.01) or step(*given))
    slow = CANDIDATE.build(Regress(), data.schema).fit(data, seed=0, budget=budget)
    np.testing.assert_array_equal(quick.predict(data.asked()), slow.predict(data.asked()))
    assert quick.facts == slow.facts
    assert quick.facts["epochs"] == 5


def test_what_may_be_tuned_is_understood() -> None:
    data = amounts(120)
    for end in ("low", "high"):
        params = {name: getattr(room, end) for name, room in CANDIDATE.space.items()}
        answer = fitted(data, Regress(), **(params | {"epochs": 2})).predict(data.asked())
        assert np.isfinite(answer).all()


def test_a_budget_that_is_already_gone_is_refused() -> None:
    data = amounts(100)
    with pytest.raises(TooSlow):
        CANDIDATE.build(Regress(), data.schema).fit(data, seed=0, budget=Budget(1.0, started=time.monotonic() - 2))


def test_columns_come_back_from_their_dump(example: Dataset) -> None:
    columns = Columns.learn(example.asked())
    import json

    packed, arrays = columns.dump()
    again = Columns.of(json.loads(json.dumps(packed)), arrays)
    one, two = columns.read(example.asked()), again.read(example.asked())
    np.testing.assert_array_equal(one.dense, two.dense)
    np.testing.assert_array_equal(one.numbers, two.numbers)
    np.testing.assert_array_equal(one.codes, two.codes)


@pytest.mark.real
def test_it_beats_the_majority_by_far_on_real_reviews() -> None:
    path = Path(__file__).parents[2] / "shared" / "data" / "04_waimai_10k_zh" / "waimai_10k.csv"
    if not path.exists():
        pytest.skip("the folder of open datasets is not beside the checkout")
    frame = pl.read_csv(path).with_columns(pl.col("label").cast(pl.String)).sample(4000, seed=0)
    data = Dataset(frame, Schema((Column("label", "category"), Column("review", "text", language="zh")), "label"))
    train, test = data.take(np.arange(3000)), data.take(np.arange(3000, 4000))
    answer = fitted(train, Classify.of(data), epochs=None).predict(test.asked())
    assert (answer.argmax(axis=1) == Classify.of(data).truth(test)).mean() > 0.83
