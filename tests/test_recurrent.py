"""recurrent: padding changes nothing, what is exported answers as what was taught, and order is learnt."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import media
from assay.data.dataset import Column, Dataset, Schema
from assay.families.base import Budget, TooSlow
from assay.families.recurrent import CANDIDATE, TEXT
from assay.neural import loop, sound_rows
from assay.neural.ragged import Ragged
from assay.neural.recurrence import CELLS
from assay.neural.sequence_rows import Signals
from assay.neural.stem import shortened, strides_for
from assay.tasks import find

torch = pytest.importorskip("torch")
SMALL = {"width": 16, "depth": 1, "batch": 16, "rate": 1e-2}


def sizes_of(**others):
    same = {"reads": "steps", "channels": 3, "width": 16, "hidden": 16, "depth": 1, "strides": (2,), "cell": "lstm", "both": True, "pooling": "concat", "dropout": 0.2}
    return same | {"outputs": 2} | others


def sequences(rows, target, channels=("v",)):
    frame = pl.DataFrame({"x": pl.Series([None if row is None else media.packed(row) for row in rows], dtype=pl.Binary), "y": target})
    schema = Schema((Column("x", "sequence", channels=channels), Column("y", "number" if frame["y"].dtype.is_float() else "category")), target="y")
    return Dataset(frame, schema)


def bumps(n, seed=0):
    """The answer is which of two equal bumps comes first, one up or one down: no mean or extreme of a row tells it."""
    rng = np.random.default_rng(seed)
    rows, target = [], []
    for _ in range(n):
        row = 0.1 * rng.standard_normal((int(rng.integers(16, 28)), 1))
        first, second = sorted(rng.choice(np.arange(2, len(row) - 4, 4), 2, replace=False))
        up = bool(rng.random() < 0.5)
        row[first : first + 3] += 2 if up else -2
        row[second : second + 3] -= 2 if up else -2
        rows.append(row)
        target.append("up first" if up else "down first")
    return sequences(rows, target)


def fitted(data, *, card=CANDIDATE, passes=None, seconds=float("inf"), seed=0, checkpoint=None, say=lambda note: None, **params):
    task = find("regress" if data.y.dtype.is_float() else "classify").of(data)
    budget = Budget(seconds=seconds, passes=passes, checkpoint=checkpoint, say=say)
    return card.build(task, data.schema, **params).fit(data, seed=seed, budget=budget)


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 30), min_size=2, max_size=5), depth=st.integers(1, 2), strides=st.sampled_from([(1,), (2,), (2, 2)]),
       pooling=st.sampled_from(["concat", "attention", "last", "mean"]))
def test_a_padded_row_answers_as_it_would_alone(cell, lengths, depth, strides, pooling):
    from assay.neural.recurrence import recurrent

    torch.manual_seed(0)
    network = recurrent(sizes_of(cell=cell, depth=depth, strides=strides, pooling=pooling)).eval()
    rng = np.random.default_rng(sum(lengths))
    read = Ragged.of([rng.standard_normal((n, 3)).astype(np.float32) for n in lengths], np.zeros((0, 3), np.float32))
    with torch.no_grad():
        together = network(*map(torch.from_numpy, read.padded(np.arange(len(lengths)))))
        alone = torch.cat([network(*map(torch.from_numpy, read.padded(np.array([i])))) for i in range(len(lengths))])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_the_exported_network_answers_like_torch_at_any_length_and_number_of_rows(cell):
    from assay.neural.export import Session, exported
    from assay.neural.recurrence import recurrent

    torch.manual_seed(1)
    network = recurrent(sizes_of(cell=cell, depth=2)).eval()
    onnx = exported(network, (torch.randn(2, 9, 3), torch.tensor([9, 4])), ("steps", "lengths"), long=("steps",))
    for n, longest in ((1, 1), (1, 23), (5, 40), (3, 9)):
        x, lengths = torch.randn(n, longest, 3), torch.randint(1, longest + 1, (n,))
        lengths[0] = longest
        with torch.no_grad():
            wanted = network(x, lengths).numpy()
        assert np.abs(Session(onnx, 1).run(steps=x.numpy(), lengths=lengths.numpy()) - wanted).max() < 1e-4


@given(length=st.integers(1, 5000), most=st.integers(1, 100))
def test_strides_shorten_below_the_limit_or_by_all_they_can(length, most):
    strides = strides_for(length, most)
    assert strides
    assert (shortened(length, strides) <= most or len(strides) == 6)


def test_it_learns_what_only_the_order_of_steps_tells():
    model, test = fitted(bumps(120), passes=25, **SMALL), bumps(80, seed=1)
    answer = model.predict(test.asked())
    assert (answer.argmax(axis=1) == model.task.truth(test)).mean() > 0.9
    row = model.predict_row(test.asked().frame.row(3, named=True))
    assert np.allclose(row, answer[3:4], atol=1e-5)


def test_it_comes_back_from_its_files_and_needs_no_torch_to_answer(tmp_path):
    import subprocess
    import sys

    data = bumps(40)
    model = fitted(data, passes=2, **SMALL)
    model.dump(tmp_path)
    loaded = CANDIDATE.build(model.task, data.schema).load(tmp_path)
    assert np.array_equal(loaded.predict(data.asked()), model.predict(data.asked()))
    data.frame.write_parquet(tmp_path / "rows.parquet")
    code = f"""import sys, polars as pl
sys.modules['torch'] = None
from pathlib import Path
from assay.neural.step_network import Served
from assay.data.dataset import Dataset, Schema
served, facts = Served.load(Path({str(tmp_path)!r}))
print(served.answers(Dataset(pl.read_parquet({str(tmp_path / 'rows.parquet')!r}), Schema(())))[0, 0])"""
    said = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert said == pytest.approx(model.predict(data.asked())[0, 0], abs=1e-6)


class _KilledError(Exception):
    pass


def test_the_same_seed_gives_the_same_bytes_also_when_it_was_killed_and_resumed(tmp_path, monkeypatch):
    data = bumps(60)
    whole = fitted(data, passes=6, seed=3, **SMALL)
    assert fitted(data, passes=6, seed=3, **SMALL).served.onnx == whole.served.onnx
    assert fitted(data, passes=6, seed=4, **SMALL).served.onnx != whole.served.onnx
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    told = []

    def killed(note):
        told.append(note)
        if len(told) == 3:
            raise _KilledError

    with pytest.raises(_KilledError):
        fitted(data, passes=6, seed=3, checkpoint=tmp_path / "fit", say=killed, **SMALL)
    resumed = fitted(data, passes=6, seed=3, checkpoint=tmp_path / "fit", **SMALL)
    assert resumed.facts["resumed_at_step"] > 0
    assert resumed.served.onnx == whole.served.onnx


def test_amounts_are_answered_in_their_unit_and_never_outside_what_was_learnt_from():
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((20, 2)) * 0.2 + level for level in rng.uniform(-2, 2, 120)]
    data = sequences(rows, [1000.0 + 100 * row[-5:, 0].mean() for row in rows], ("a", "b"))
    model = fitted(data, passes=30, **SMALL)
    answer = model.predict(data.asked())[:, 0]
    truth = data.y.to_numpy()
    assert np.sqrt(((answer - truth) ** 2).mean()) < 0.4 * truth.std()
    wild = model.predict(sequences([np.full((20, 2), 1e30)], [0.0], ("a", "b")).asked())
    assert truth.min() <= wild[0, 0] <= truth.max()


def test_gaps_are_marked_and_constant_channels_say_nothing():
    rng = np.random.default_rng(0)
    rows = [np.stack([rng.standard_normal(12), np.full(12, 7.0), rng.standard_normal(12)], axis=1) for _ in range(10)]
    rows[0][3:5, 2] = np.nan
    reader = Signals.learn(sequences(rows, ["a", "b"] * 5, ("one", "same", "holes")), amounts=False)
    read = reader.read(sequences([*rows, None], ["a"] * 11, ("one", "same", "holes")))
    assert read.values.shape == (10 * 12 + 1, 4)
    assert np.isfinite(read.values).all()
    assert (read.values[:, 1] == 0).all()
    assert read.row(0)[3:5, 3].tolist() == [1, 1]
    assert read.row(0)[3:5, 2].tolist() == [0, 0]
    assert read.row(10)[0].tolist() == [0, 0, 0, 1]
    assert np.array_equal(Signals.of(reader.json()).read(sequences(rows, ["a"] * 10)).values, read.values[:-1])


def test_a_small_signal_on_a_level_that_differs_from_row_to_row_is_seen():
    rng = np.random.default_rng(0)
    rows = [1000 * rng.standard_normal() + np.sin(np.arange(30) / 2)[:, None] for _ in range(50)]
    reader = Signals.learn(sequences(rows, ["a", "b"] * 25), amounts=False)
    read = reader.read(sequences(rows, ["a"] * 50))
    assert reader.width == 2
    assert read.row(0)[:, 0].std() < 0.01 < 0.5 < read.row(0)[:, 1].std()


def test_long_rows_are_averaged_and_the_last_steps_are_kept():
    rows = [np.arange(n, dtype=float)[:, None] for n in [5000] * 30 + [9000]]
    reader = Signals.learn(sequences(rows, ["a"] * 31), amounts=False)
    assert reader.every == 5
    assert reader.most == 1000
    read = reader.read(sequences(rows, ["a"] * 31))
    assert read.lengths.tolist() == [1000] * 31
    assert read.row(30)[-1, 0] * reader.spread[0] + reader.center[0] == pytest.approx(8997, abs=1)


def test_augmentation_is_a_function_of_its_generator_and_leaves_rows_that_are_judged_alone():
    data = bumps(30)
    reader = Signals.learn(data, amounts=False)
    read = reader.read(data)
    rows, some = reader.rows(read, np.zeros(30), 1.0), np.arange(8)
    one, other, third = (rows.batch(some, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert one.shape != third.shape or not torch.equal(one, third)
    values, lengths = rows.batch(some, None)
    assert np.array_equal(values.numpy(), read.padded(some)[0])
    assert np.array_equal(lengths.numpy(), read.lengths[some])


def tone(hz, rate=8000, seconds=0.3):
    from scipy.io import wavfile

    file = io.BytesIO()
    wavfile.write(file, rate, (0.3 * 32767 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.int16))
    return file.getvalue()


@settings(max_examples=20)
@given(hz=st.floats(150, 3800))
def test_a_tone_is_loudest_in_the_band_of_its_frequency(hz):
    rate = 8000
    wave = np.sin(2 * np.pi * hz * np.arange(rate) / rate).astype(np.float32)[None]
    frames = sound_rows.log_mel(wave, rate, 80, 64)[0]
    filters = sound_rows.mel_filters(rate, 256, 64)
    loudest = int(frames[50].argmax())
    middle = float((filters[:, loudest] * np.arange(129)).sum() / filters[:, loudest].sum()) * rate / 256
    assert abs(middle - hz) < 0.08 * hz + rate / 256
    assert frames[50].max() == pytest.approx(0, abs=0.7)  # a full-scale sine has a power of 0 dB in its band


def test_sounds_are_told_apart_and_a_silent_or_absent_one_is_answered():
    rng = np.random.default_rng(0)
    pitch = [400 if i % 2 else 900 for i in range(60)]
    frame = pl.DataFrame({"x": [tone(hz * rng.uniform(0.9, 1.1), seconds=rng.uniform(0.2, 0.4)) for hz in pitch], "y": [str(p) for p in pitch]})
    data = Dataset(frame, Schema((Column("x", "audio"), Column("y", "category")), target="y"))
    model = fitted(data, passes=10, **SMALL)
    assert (model.predict(data.asked()).argmax(axis=1) == model.task.truth(data)).mean() > 0.95
    odd = Dataset(pl.DataFrame({"x": pl.Series([None, tone(0)], dtype=pl.Binary)}), data.schema.without_target())
    assert np.isfinite(model.predict(odd)).all()
    assert np.allclose(model.predict_row({"x": tone(400)}), model.predict(Dataset(pl.DataFrame({"x": [tone(400)]}), data.schema.without_target())), atol=1e-5)


def test_a_broken_sound_is_named_with_its_row():
    frame = pl.DataFrame({"x": [tone(400)] * 30 + [b"RIFF    WAVE"], "y": ["a", "b"] * 15 + ["a"]})
    data = Dataset(frame, Schema((Column("x", "audio"), Column("y", "category")), target="y"))
    with pytest.raises(Exception, match="Column 'x', row"):
        fitted(data, passes=1, **SMALL)


def test_a_short_budget_gives_an_answer_and_one_that_is_over_a_sentence():
    data = bumps(60)
    model = fitted(data, seconds=8.0, **SMALL)
    assert model.predict(data.asked()).shape == (60, 2)
    late = Budget(seconds=3.0)
    late.started -= 2.0
    task = find("classify").of(data)
    with pytest.raises(TooSlow, match=r"of the 3\.0 seconds"):
        CANDIDATE.build(task, data.schema).fit(data, seed=0, budget=late)


def test_texts_are_read_by_a_candidate_of_their_own():
    words = [("good fine nice", "bad awful sad")[i % 2] for i in range(60)]
    frame = pl.DataFrame({"x": [f"order {i} was {w.split()[i % 3]} today" for i, w in enumerate(words)], "y": ["good" if i % 2 == 0 else "bad" for i in range(60)]})
    data = Dataset(frame, Schema((Column("x", "text"), Column("y", "category")), target="y"))
    assert CANDIDATE.refuses(find("classify").of(data), data.schema) is not None
    model = fitted(data, card=TEXT, passes=15, **SMALL)
    assert (model.predict(data.asked()).argmax(axis=1) == model.task.truth(data)).mean() > 0.95
    assert model.facts["input"]["kind"] == "text"
