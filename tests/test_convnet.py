"""The residual network for pictures: it learns, repeats itself, packs as ONNX, and shows where it looked."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from pictures import lines, png

from assay.data.dataset import Column, Dataset, Schema
from assay.explain.examples import examples
from assay.families.base import Budget
from assay.families.convnet import Convnet
from assay.neural import cells, pictures
from assay.tasks import choose

ENDLESS = {"seconds": float("inf"), "predict_seconds": float("inf")}


def data(n: int, *, target: str = "label", seed: int = 0) -> Dataset:
    other = "brightness" if target == "label" else "label"
    frame = lines(n, seed=seed).drop(other)
    return Dataset(frame, Schema((Column("picture", "image"), Column(target, "category" if target == "label" else "number")), target))


@pytest.fixture(scope="module")
def learnt():
    train = data(240)
    task = choose(train)[0].of(train)
    return task, train, Convnet(task, train.schema, size=0).fit(train, seed=0, budget=Budget(passes=8, **ENDLESS))


def test_it_learns_what_stands_and_what_lies(learnt):
    task, _, model = learnt
    test = data(100, seed=1)
    said = model.predict(test.asked())
    assert np.allclose(said.sum(axis=1), 1)
    assert (said.argmax(axis=1) == task.truth(test)).mean() > 0.9


def test_amounts_are_answered_in_their_own_unit_and_never_outside_what_was_learnt():
    train = data(240, target="brightness")
    task = choose(train)[0].of(train)
    model = Convnet(task, train.schema, size=0).fit(train, seed=0, budget=Budget(passes=12, **ENDLESS))
    test = data(80, target="brightness", seed=1)
    said, truth = model.predict(test.asked())[:, 0], task.truth(test)
    assert said.min() >= task.truth(train).min()
    assert np.corrcoef(said, truth)[0, 1] > 0.6


def test_the_same_seed_gives_the_same_answers_bit_for_bit(learnt):
    task, train, model = learnt
    again = Convnet(task, train.schema, size=0).fit(train, seed=0, budget=Budget(passes=8, **ENDLESS))
    assert np.array_equal(again.predict(train.asked()), model.predict(train.asked()))


def test_what_is_packed_answers_alike_without_torch(learnt, tmp_path):
    task, train, model = learnt
    model.dump(tmp_path)
    assert {f.suffix for f in tmp_path.iterdir()} == {".onnx", ".json"}
    back = Convnet(task, train.schema, size=0).load(tmp_path)
    row = train.frame.row(0, named=True)
    assert np.allclose(back.predict_row(row), model.predict(train.take(np.array([0])).asked()), atol=1e-6)
    (tmp_path / "cell.png").write_bytes(row["picture"])
    code = f"""
import sys
from assay.families.convnet import Convnet
from assay.tasks.classify import Classify
from assay.data.dataset import Schema
from pathlib import Path
task = Classify.from_json({task.json()!r})
model = Convnet(task, Schema.of({train.schema.json()!r})).load(Path({str(tmp_path)!r}))
model.predict_row({{"picture": Path({str(tmp_path / "cell.png")!r}).read_bytes()}})
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_heat_lies_on_the_line():
    """Lines in one half of the picture only: the half with the line is the warmer one."""
    side = 48
    train = Dataset(lines(240, side=side).drop("brightness"), Schema((Column("picture", "image"), Column("label", "category")), "label"))
    task = choose(train)[0].of(train)
    model = Convnet(task, train.schema, size=0).fit(train, seed=0, budget=Budget(passes=6, **ENDLESS))
    right = 0
    for i in range(20):
        at, up = (8 + i // 4 if i % 4 < 2 else 34 + i // 4), i % 2 == 1
        pixels = np.random.default_rng(i).normal(110, 12, (side, side))
        pixels[(slice(None), slice(at, at + 2)) if up else (slice(at, at + 2), slice(None))] += 120
        row = Dataset(pl.DataFrame({"picture": pl.Series([png(pixels.clip(0, 255).astype(np.uint8))], dtype=pl.Binary)}), model.schema)
        heat = model.heat(row, np.array([int(up == (task.classes[1] == "up"))]))[0]
        along = heat.sum(axis=0 if up else 1)
        first, second = along[: len(along) // 2].sum(), along[-(len(along) // 2) :].sum()
        right += (first > second) == (at < side / 2)
    assert right >= 17


def test_examples_show_truth_answer_picture_and_heat(learnt):
    task, _, model = learnt
    test = data(40, seed=2)
    said = model.predict(test.asked())
    found = examples(task, model, test, said, -np.log(said[np.arange(40), task.truth(test)]), seed=0, numbers=np.arange(40))
    assert found["method"] == "Grad-CAM"
    assert len(found["grid"]) == 25
    assert all(c["image"].startswith("data:image/jpeg;base64,") and c["right"] == (c["truth"] == c["answer"]) for c in found["grid"])
    assert all(c["heat"].startswith("data:image/png;base64,") for c in found["explained"])


def test_a_missing_picture_is_answered_too(learnt):
    _, _, model = learnt
    assert model.predict_row({"picture": None}).shape == (1, 2)


def test_flips_are_used_only_where_mirror_images_mean_the_same():
    from sklearn.datasets import load_digits

    digits = load_digits()
    assert pictures.flips_that_keep((digits.images * 15)[..., None].astype(np.uint8), digits.target, labels=True, seed=0) == "none"
    frame = lines(600)
    pixels = cells.pixels(frame["picture"], 24, grey=True)
    assert pictures.flips_that_keep(pixels, (frame["label"] == "up").to_numpy().astype(int), labels=True, seed=0) == "both"  # turned by 90 degrees, what stands would lie


def test_cells_are_decoded_once_and_survive_a_torn_cache(tmp_path):
    frame = lines(30)
    first = cells.pixels(frame["picture"], 16, grey=True, cache=tmp_path)
    with (tmp_path / "pixels-16-1").open("ab") as torn:
        torn.write(b"half a cell")
    again = cells.pixels(lines(40)["picture"], 16, grey=True, cache=tmp_path)
    assert np.array_equal(again[:30], first)
    assert np.array_equal(again, cells.pixels(lines(40)["picture"], 16, grey=True))


def test_a_short_budget_still_gives_an_answer():
    train = data(200)
    task = choose(train)[0].of(train)
    begun = time.monotonic()
    model = Convnet(task, train.schema).fit(train, seed=0, budget=Budget(seconds=6))
    assert time.monotonic() - begun < 12
    assert model.predict(train.take(np.arange(5)).asked()).shape == (5, 2)


def test_a_pruned_network_is_smaller_and_still_right():
    train = data(240)
    task = choose(train)[0].of(train)
    whole = Convnet(task, train.schema, size=0).fit(train, seed=0, budget=Budget(passes=8, **ENDLESS))
    half = Convnet(task, train.schema, size=0, prune=0.5).fit(train, seed=0, budget=Budget(passes=8, **ENDLESS))
    sparse = Convnet(task, train.schema, size=0, prune_weights=0.7).fit(train, seed=0, budget=Budget(passes=8, **ENDLESS))
    test = data(100, seed=1)
    assert len(half.onnx) < 0.75 * len(whole.onnx)
    assert sparse.facts["pruned"]["zeros"] == pytest.approx(0.7, abs=0.02)
    for model in (half, sparse):
        assert (model.predict(test.asked()).argmax(axis=1) == task.truth(test)).mean() > 0.85
