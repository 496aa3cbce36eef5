"""Classical contestants on pictures, sounds and sequences: what their features mean, and that they hold the contract of a contestant."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import media
from assay.data.dataset import Column, Dataset, Schema
from assay.data.features import image, sequence, sound
from assay.data.features.kernels import KERNELS, Kernels
from assay.data.features.patches import Patches
from assay.data.made_media import beside
from assay.families.base import Budget, TooSlow
from assay.families.image_features import CANDIDATE as IMAGES
from assay.families.rocket import CANDIDATE as ROCKET
from assay.families.sequence_features import CANDIDATE as SEQUENCES
from assay.families.sound_features import CANDIDATE as SOUNDS
from assay.neural.feature_head import parts_of
from assay.neural.head import Aim
from assay.neural.plane import Plane, learned
from assay.neural.solver import softmax
from assay.tasks import known
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress

SUFFIXES = {".json", ".safetensors", ".txt"}
DATA = Path(__file__).parents[2] / "shared" / "data"


def _made(kind: str, rows: int, *, amounts: bool = False, seed: int = 0) -> Dataset:
    """A table whose answer can be told from the cell of this kind, and only from it."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, rows)
    answer = pl.Series(label * 10.0 + rng.normal(0, 1, rows)) if amounts else pl.Series([["calm", "odd", "worn"][c] for c in label])
    frame = pl.DataFrame({"size": rng.normal(size=rows), "shop": rng.choice(["north", "south"], rows), "answer": answer})
    schema = Schema((Column("size", "number"), Column("shop", "category"), Column("answer", "number" if amounts else "category")), target="answer")
    return beside(Dataset(frame, schema), kind, label, name="what", seed=seed)


CARDS = {"rocket": (ROCKET, "sequence"), "rocket on sounds": (ROCKET, "audio"), "sequence_features": (SEQUENCES, "sequence"),
         "sound_features": (SOUNDS, "audio"), "image_features": (IMAGES, "image")}


def _fitted(name, task, rows, **budget):
    card, _ = CARDS[name]
    params = {"features": 2016} if card is ROCKET else {}
    given_ = {"seconds": math.inf, "passes": 40, "threads": 1} | budget
    return card.build(task, rows.schema, **params).fit(rows, seed=1, budget=Budget(**given_))


# ---- the contract


@pytest.mark.parametrize("name", CARDS)
def test_a_classifier_learns_comes_back_from_its_files_and_answers_one_row_as_many(name, tmp_path):
    card, kind = CARDS[name]
    data = _made(kind, 90)
    task = Classify.of(data)
    assert card.refuses(task, data.schema) is None
    train, test = data.take(np.arange(60)), data.take(np.arange(60, 90))
    model = _fitted(name, task, train)
    answer = model.predict(test.asked())
    assert answer.shape == (30, 3)
    assert np.allclose(answer.sum(axis=1), 1)
    assert answer.min() > 0, "60 rows can make nobody entirely sure"
    assert task.losses(train, test, answer).mean() < 0.4 * np.log(3)
    assert np.array_equal(answer, _fitted(name, task, train).predict(test.asked())), "one seed, one model"
    model.dump(tmp_path)
    assert {f.suffix for f in tmp_path.rglob("*") if f.is_file()} <= SUFFIXES
    params = {"features": 2016} if card is ROCKET else {}
    loaded = card.build(task, data.schema, **params).load(tmp_path)
    assert np.array_equal(loaded.predict(test.asked()), answer)
    row = loaded.predict_row(test.asked().frame.row(0, named=True))
    assert np.allclose(row, answer[:1], rtol=1e-4, atol=1e-5)
    json.dumps(model.facts)
    empty = loaded.predict(test.asked().take(np.arange(0)))
    assert empty.shape == (0, 3)


@pytest.mark.parametrize("name", CARDS)
def test_a_cell_that_is_missing_and_a_class_that_train_does_not_hold_are_answered(name):
    _, kind = CARDS[name]
    data = _made(kind, 50)
    task = Classify.of(data)
    gone = data.frame.with_columns(pl.when(pl.int_range(pl.len()) % 9 == 0).then(None).otherwise(pl.col("what")).alias("what"))
    odd = {"size": 1e30, "shop": "never seen", "what": None}
    train = Dataset(gone, data.schema).take(task.truth(data) != 0)
    model = _fitted(name, task, train)
    answer = model.predict(Dataset(gone, data.schema).asked())
    assert np.isfinite(answer).all()
    assert np.allclose(answer.sum(axis=1), 1)
    assert answer[:, 0].max() < 0.1
    assert np.isfinite(model.predict_row(odd)).all()
    assert model.predict_row({}).shape == (1, 3)


@pytest.mark.parametrize("name", ["rocket", "image_features"])
@pytest.mark.parametrize("loss", ["squared", "absolute", "pinball"])
def test_amounts_are_answered_under_the_loss_that_is_asked_for(name, loss, tmp_path):
    card, kind = CARDS[name]
    data = _made(kind, 100, amounts=True)
    task = Regress.of(data, loss=loss, **({"quantile": 0.9} if loss == "pinball" else {}))
    train, test = data.take(np.arange(70)), data.take(np.arange(70, 100))
    model = _fitted(name, task, train)
    answer = model.predict(test.asked())
    assert answer.shape == (30, 1)
    truth = task.truth(test)
    if loss == "pinball":
        assert (answer[:, 0] > truth).mean() > 0.6, "nine of ten amounts should lie below"
    else:
        assert np.abs(answer[:, 0] - truth).mean() < 0.5 * np.abs(truth - truth.mean()).mean()
    model.dump(tmp_path)
    params = {"features": 2016} if card is ROCKET else {}
    assert np.array_equal(card.build(task, data.schema, **params).load(tmp_path).predict(test.asked()), answer)


@pytest.mark.parametrize("name", CARDS)
def test_a_column_without_a_single_cell_says_nothing_and_stops_nothing(name):
    _, kind = CARDS[name]
    data = _made(kind, 12)
    nothing = Dataset(data.frame.with_columns(pl.lit(None, dtype=pl.Binary).alias("what")), data.schema)
    answer = _fitted(name, Classify.of(data), nothing).predict(data.asked())
    assert np.isfinite(answer).all()


def test_a_table_without_media_is_refused_with_a_sentence():
    for task_name in ("classify", "regress"):
        data = known()[task_name].example()
        task = known()[task_name].of(data)
        for card in (ROCKET, SEQUENCES, SOUNDS, IMAGES):
            assert "there is none" in str(card.refuses(task, data.schema))


def test_time_that_is_too_short_for_the_test_rows_is_said_at_once():
    data = _made("image", 40)
    with pytest.raises(TooSlow):
        _fitted("image_features", Classify.of(data), data, seconds=5.0, passes=None, predict_rows=10_000_000, predict_seconds=1.0)


def test_kernels_and_patches_get_fewer_and_pictures_smaller_until_there_is_no_cheaper_way():
    rows = _made("sequence", 40)
    rocket = ROCKET.build(Classify.of(rows), rows.schema)
    rocket.settle(rows, seed=0, budget=Budget())
    sizes = [rocket.config["features"]]
    while rocket.cheaper(3.0):
        sizes.append(rocket.config["features"])
        assert rocket.read("what", rows.frame["what"][:3]).shape == (3, sizes[-1] + 13)
    assert sizes[0] == 9996
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 504
    pictures = _made("image", 30)
    model = IMAGES.build(Classify.of(pictures), pictures.schema)
    model.settle(pictures, seed=0, budget=Budget())
    assert model.config["columns"]["what"] == {"side": 32, "grey": True, "atoms": 200}
    assert model.cheaper(10.0)
    assert model.config["columns"]["what"]["atoms"] == 0
    assert model.read("what", pictures.frame["what"][:2]).shape[0] == 2
    assert not model.cheaper(10.0)


def test_the_second_fit_of_a_trial_reads_no_row_again():
    data = _made("image", 60)
    memo: dict = {}
    task = Classify.of(data)
    _fitted("image_features", task, data.take(np.arange(48)), memo=memo)
    kept = next(iter(memo.values()))[2]["what"]
    before = set(kept)
    assert len(before) == 48
    first = next(iter(kept.values()))
    _fitted("image_features", task, data, memo=memo)
    assert before < set(kept)
    assert len(kept) == 60
    assert next(iter(kept.values())) is first


def test_memory_that_is_small_takes_patches_away_before_rows():
    data = _made("image", 60)
    task = Classify.of(data)
    model = _fitted("image_features", task, data, memory_mb=60 * 3300 * 4 / 0.12 / 1e6)
    assert model.facts["read_as"]["columns"]["what"]["atoms"] == 0
    assert "rows_used" not in model.facts


@settings(max_examples=20)
@given(st.integers(8, 60), st.integers(3, 9), st.integers(0, 1000))
def test_groups_stay_whole_and_every_row_judges_once_where_rows_are_few(rows, groups, seed):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"x": rng.normal(size=rows), "g": [f"g{i % groups}" for i in rng.permutation(rows)]})
    for group in (None, "g"):
        parts = parts_of(Dataset(frame, Schema((Column("x", "number"), Column("g", "category")), group=group)), None, seed)
        assert sorted(np.concatenate([held for _, held in parts]).tolist()) == list(range(rows))
        for rest, held in parts:
            assert not set(rest) & set(held)
            if group:
                assert not set(frame["g"][rest]) & set(frame["g"][held])


@pytest.mark.parametrize("kind", ["image", "audio", "sequence"])
def test_made_cells_are_cells_that_can_be_read(kind):
    data = _made(kind, 5)
    cell = data.frame["what"][0]
    if kind == "sequence":
        assert media.steps(cell, 2).shape[1] == 2
        return
    assert media.kind_of(cell[:32]) == kind
    assert media.pixels(cell, 32, grey=True).std() > 20 if kind == "image" else len(media.wave(cell, 8000)) >= 1600


# ---- MiniRocket


def test_the_84_kernels_weigh_nothing_together_and_are_all_different():
    weights = np.full((84, 9), -1)
    np.put_along_axis(weights, KERNELS, 2, axis=1)
    assert (weights.sum(axis=1) == 0).all()
    assert len(np.unique(weights, axis=0)) == 84


def test_features_are_the_shares_that_a_plain_convolution_says():
    rng = np.random.default_rng(3)
    own = rng.normal(size=(50, 1)).astype(np.float32)
    kernels = Kernels.learn([own], 84 * 20, rng)
    told = kernels.transform([own])[0].reshape(84, -1)
    ends = np.cumsum(kernels.counts)
    for kernel, column in ((0, 0), (17, 3), (40, 11), (83, 19)):
        d = int(np.searchsorted(ends, column, side="right"))
        dilation = int(kernels.dilations[d])
        weights = np.full(9, -1.0)
        weights[KERNELS[kernel]] = 2
        padded = np.pad(own[:, 0].astype(float), 4 * dilation)
        said = np.array([weights @ padded[i : i + 9 * dilation : dilation] for i in range(50)])
        if (d + kernel) % 2 and 8 * dilation < 50:
            said = said[4 * dilation : -4 * dilation]
        assert told[kernel, column] == pytest.approx((said > kernels.biases[kernel, column] + 1e-6).mean(), abs=1.01 / len(said))


@settings(max_examples=15)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 10_000))
def test_a_sequence_alone_answers_exactly_as_among_longer_ones(steps, channels, seed):
    rng = np.random.default_rng(seed)
    teachers = [rng.normal(size=(rng.integers(1, 60), channels)).astype(np.float32) for _ in range(5)]
    kernels = Kernels.learn(teachers, 504, rng)
    one = rng.normal(size=(steps, channels)).astype(np.float32)
    among = kernels.transform([*teachers, one])
    assert np.array_equal(kernels.transform([one])[0], among[-1])
    assert among.min() >= 0
    assert among.max() <= 1


# ---- sequences


@settings(max_examples=20)
@given(st.integers(1, 50), st.integers(0, 10_000), st.floats(1e-3, 1e6))
def test_what_is_said_of_a_sequence_knows_no_unit_and_is_finite(steps, seed, unit):
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(steps, 3))
    raw[rng.random(raw.shape) < 0.2] = np.nan
    teachers = rng.normal(size=(100, 3))
    plain = sequence.described([sequence.Scale.learn([teachers]).filled(raw)])
    other = sequence.described([sequence.Scale.learn([teachers * unit]).filled(raw * unit)])
    assert np.isfinite(plain).all()
    assert np.allclose(plain, other, atol=2e-3, rtol=2e-3)


def test_a_gap_holds_the_value_before_it_and_a_wild_value_is_cut():
    scale = sequence.Scale(np.zeros(2), np.ones(2))
    filled = scale.filled(np.array([[np.nan, np.nan], [2.0, np.nan], [np.nan, np.nan], [1e30, np.nan]], dtype=np.float32))
    assert filled[:, 0].tolist() == [2.0, 2.0, 2.0, 1e4]
    assert not filled[:, 1].any()


def test_a_faster_wave_has_more_crossings_and_its_energy_in_higher_bands():
    clock = np.arange(200)
    slow, fast = (np.sin(clock * pace)[:, None].astype(np.float32) for pace in (0.1, 1.0))
    told = sequence._rhythm(np.stack([slow, fast]).astype(float))
    crossings, bands = told[5][:, 0], np.stack([one[:, 0] for one in told[6:14]], axis=1)
    assert crossings[1] > 5 * crossings[0]
    assert bands[1].argmax() > bands[0].argmax()


# ---- sounds


def test_a_sound_is_described_without_the_silence_around_it():
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, 4000).astype(np.float32)
    around = np.stack([np.pad(wave, (800, 3200)), np.pad(wave, (2400, 1600))])
    one, other = sound.described(around, 8000)
    assert np.abs(one - other).max() < 0.05 * np.abs(one).max()
    assert np.isfinite(sound.described(np.zeros((2, 100), dtype=np.float32), 8000)).all()


@pytest.mark.parametrize("rate", [500, 4000, 8000, 16000, 44100])
def test_every_mel_band_hears_something_at_every_rate(rate):
    length = max(16, round(0.025 * rate))
    bank = sound._bank(1 << (length - 1).bit_length(), rate)
    assert np.allclose(bank.sum(axis=0), 1, atol=1e-5)


def test_a_tone_is_loudest_in_the_band_that_holds_it():
    clock = np.arange(8000) / 8000
    mels, _, _ = sound.log_mels(np.sin(2 * np.pi * np.array([[200.0], [1000.0], [3000.0]]) * clock).astype(np.float32), 8000)
    loudest = mels.mean(axis=1).argmax(axis=1)
    assert loudest[0] < loudest[1] < loudest[2]


# ---- pictures


@settings(max_examples=10)
@given(st.sampled_from([32, 64]), st.sampled_from([1, 3]), st.integers(0, 1000))
def test_a_picture_alone_has_the_features_it_has_among_others(side, depth, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (5, side, side, depth), dtype=np.uint8)
    pixels[0] = 7  # flat: nothing to normalise by
    together = image.everything(pixels)
    assert np.isfinite(together).all()
    assert np.allclose(together[:1], image.everything(pixels[:1]), atol=1e-5)
    assert np.allclose(together[3:4], image.everything(pixels[3:4]), atol=1e-5)


def test_gradients_do_not_see_brightness_and_turn_with_the_picture():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(40, 200, (1, 8, 8, 1)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    dark = (smooth * 0.5).astype(np.uint8)
    gap = np.abs(image.gradients(smooth, 8) - image.gradients(dark, 8)).mean()
    other = np.abs(image.gradients(smooth, 8) - image.gradients(np.rot90(smooth, axes=(1, 2)).copy(), 8)).mean()
    assert gap < 0.2 * other


def test_there_are_58_uniform_patterns():
    assert len(np.unique(image._UNIFORM)) == 59


def test_colour_is_seen_where_it_is_and_not_in_the_noise_of_jpeg():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (3, 32, 32, 1)), 3, axis=3)
    assert not image.coloured((grey + rng.integers(0, 2, grey.shape)).clip(0, 255).astype(np.uint8))
    assert image.coloured(rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))


def test_learnt_patches_are_found_again_where_they_are():
    rng = np.random.default_rng(0)
    pixels = np.full((40, 32, 32, 1), 128, dtype=np.uint8)
    pixels[:20, :, ::2] = 250  # stripes down
    pixels[20:, ::2] = 250  # stripes across
    pixels = (pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
    told = Patches.learn(pixels, 20, rng).transform(pixels)
    assert told.shape == (40, 160)
    within = np.abs(told[:10].mean(0) - told[10:20].mean(0)).sum()
    assert within < 0.1 * np.abs(told[:20].mean(0) - told[20:].mean(0)).sum()


# ---- the line


def test_the_turned_line_is_the_line_in_all_columns(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 200)).astype(np.float32)
    truth = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    parts = [(np.arange(40), np.arange(40, 60))]
    turned = learned(x, truth, Aim(2), parts)
    monkeypatch.setattr("assay.neural.plane.ROTATED_ROWS", 0)
    plain = learned(x, truth, Aim(2), parts)
    assert turned.penalty == plain.penalty
    assert np.allclose(softmax(turned.plane.scores(x)), softmax(plain.plane.scores(x)), atol=0.02)


def test_a_constant_column_and_one_wild_value_do_not_rule_a_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    x[:, 3] = 4.0
    truth = (x[:, 0] > 0).astype(np.int64)
    x[7, 0] = 1e12
    plane = learned(x, truth, Aim(2), [(np.arange(150), np.arange(150, 200))]).plane
    assert plane.scale[3] == 0
    assert (plane.scores(x).argmax(axis=1) == truth).mean() > 0.9
    odd = x[:1].copy()
    odd[0, 3] = 1e30
    assert np.isfinite(plane.scores(odd)).all()


@pytest.mark.parametrize("wide", [True, False])
def test_ridge_finds_the_least_squares_line(wide):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 100) if wide else (300, 20)).astype(np.float32)
    truth = 3 * x[:, 0] + 5
    half = len(x) // 2
    plane = learned(x, truth, Aim(0, "squared"), [(np.arange(half), np.arange(half, len(x)))]).plane
    assert np.abs(plane.scores(x)[:, 0] - truth).mean() < 0.15 * truth.std()


def test_a_line_comes_back_from_its_arrays():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    plane = learned(x, (x[:, 0] > 0).astype(np.int64), Aim(2), [(np.arange(40), np.arange(40, 50))]).plane
    assert np.array_equal(Plane.of(plane.arrays()).scores(x), plane.scores(x))


# ---- real data


@pytest.mark.real
def test_minirocket_tells_a_gun_from_a_finger():
    """Published accuracy of MiniRocket on GunPoint: about 0.99; 0.95 leaves room for another draw of biases."""
    folder = DATA / "14_ucr_gunpoint"
    if not folder.exists():
        pytest.skip("the folder of open datasets is not beside the checkout")
    sets = []
    for part in ("train", "test"):
        read = pl.read_csv(folder / f"{part}.csv")
        values = read.drop("label").to_numpy().astype(np.float32)
        cells = pl.Series([media.packed(one[:, None]) for one in values], dtype=pl.Binary)
        sets.append(Dataset(pl.DataFrame({"x": cells, "label": read["label"].cast(pl.String)}),
                            Schema((Column("x", "sequence", channels=("v",)), Column("label", "category")), target="label")))
    task = Classify.of(sets[0])
    model = ROCKET.build(task, sets[0].schema).fit(sets[0], seed=0, budget=Budget(seconds=math.inf, threads=1))
    answer = model.predict(sets[1].asked())
    assert (answer.argmax(axis=1) == task.truth(sets[1])).mean() >= 0.95
    assert task.losses(sets[0], sets[1], answer).mean() < 0.15
