"""Forecasting by networks: what windows may know, what is learnt, and pre-trained forecasters that answer as their own packages do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_stub import completion, error, stubbed

torch = pytest.importorskip("torch")

from assay.case import Case  # noqa: E402
from assay.data.dataset import Dataset  # noqa: E402
from assay.data.history import PART, History, frame_of, histories, latest, row_of  # noqa: E402
from assay.data.media import packed  # noqa: E402
from assay.errors import EndpointError, InputError  # noqa: E402
from assay.families import llm_forecast, nhits, patch_forecaster, zero_shot  # noqa: E402
from assay.families.base import Budget, TooSlow  # noqa: E402
from assay.neural.forecast_levels import at_levels  # noqa: E402
from assay.neural.forecasting import Reader, Taught, Windows, next_steps, parted, times_of  # noqa: E402
from assay.neural.rows import Aim, mean_loss  # noqa: E402
from assay.tasks.forecast import LEVELS, Forecast, example_schema, pinball, scale_of  # noqa: E402
from assay.words import Text  # noqa: E402

SCHEMA = example_schema("value", ("value",))
TASK = Forecast(horizon=7, season=7, frequency="1d")
NETWORKS = {"nhits": nhits.CANDIDATE, "patch_forecaster": patch_forecaster.CANDIDATE}


def series(values, name: str = "a") -> History:
    values = np.asarray(values, dtype=float)
    return History(name, values, np.zeros((len(values), 0)), np.zeros((0, 0)))


def rows(every: list[np.ndarray], horizon: int, parts: tuple[str, ...] = ("train", "valid", "test")) -> Dataset:
    """Each series at as many origins as there are parts, the last one last."""
    out = []
    for i, values in enumerate(every):
        for k, part in enumerate(reversed(parts)):
            origin = len(values) - horizon * (k + 1)
            out.append(row_of(series(values[:origin], f"s{i}"), horizon, SCHEMA) | {"value": packed(values[origin : origin + horizon, None]), PART: part})
    return Dataset(frame_of(out, SCHEMA), SCHEMA)


def asked(*every) -> Dataset:
    return Dataset(frame_of([row_of(series(values, f"s{i}"), 7, SCHEMA) for i, values in enumerate(every)], SCHEMA), SCHEMA).asked()


def unclocked(passes: int = 2) -> Budget:
    return Budget(seconds=math.inf, threads=1, passes=passes)


@pytest.fixture(scope="module")
def example() -> tuple[Dataset, Dataset]:
    data = Forecast.example()
    [split] = TASK.splits(data)
    return data.take(split.train), data.take(split.test)


@pytest.fixture(scope="module")
def learnt(example):
    return {name: card.build(TASK, example[0].schema).fit(example[0], seed=3, budget=unclocked()) for name, card in NETWORKS.items()}


# ---- what a window knows

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=40)


def reader(length: int = 8, horizon: int = 3, season: int = 4) -> Reader:
    return Reader(horizon, season, "", length)


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=12, max_size=40), st.integers(1, 9), st.floats(-1e6, 1e6))
def test_nothing_after_its_origin_changes_a_window(values, origin, other):
    later = np.array(values)
    later[origin:] = other
    one, two = (Windows(reader(), [series(v)], [None]).cut(np.array([0]), np.array([origin])) for v in (values, later))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@given(VALUES, st.sampled_from([0.5, 3.0, 1000.0]), st.sampled_from([-50.0, 0.0, 7.0]))
def test_a_window_looks_the_same_in_any_unit(values, factor, shift):
    values = np.round(values, 1)
    if scale_of(values, 4) < 1 or np.ptp(values) < 1:
        return
    at = np.array([0]), np.array([len(values)])
    x, _, center, unit = Windows(reader(), [series(values)], [None]).cut(*at)
    other, _, moved, bigger = Windows(reader(), [series(values * factor + shift)], [None]).cut(*at)
    np.testing.assert_allclose(other, x, atol=2e-3)
    np.testing.assert_allclose((moved, bigger), (center * factor + shift, unit * factor), rtol=1e-6, atol=1e-3 * factor)


@given(st.lists(st.one_of(st.floats(-100, 100), st.just(math.nan)), min_size=1, max_size=30))
def test_the_unit_of_a_window_is_what_the_question_divides_its_loss_by(values):
    values = np.array(values)
    if not np.isfinite(values).any():
        return
    found = Windows(reader(), [series(np.arange(9.0)), series(values)], [None, None]).scale(np.array([1]), np.array([len(values)]))[0]
    assert found == pytest.approx(scale_of(values, 4), rel=1e-6)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=90), st.integers(0, 5))
def test_no_step_is_learnt_from_and_judged_by(lengths, seed):
    windows = Windows(reader(), [series(np.zeros(n), str(i)) for i, n in enumerate(lengths)], [None] * len(lengths))
    latest, which, origin = parted(windows, seed)
    assert (origin + 3 <= windows.lengths[which]).all()
    assert ((latest + 3 <= windows.lengths) | (latest == -1)).all()
    for i, at in zip(which, origin, strict=True):
        assert latest[i] + 3 <= at or latest[i] == -1


def test_the_windows_of_a_step_follow_from_its_generator_alone():
    taught = Taught(Windows(reader(), [series(np.arange(50.0) ** 2), series(np.arange(30.0) ** 1.5)], [None, None]), np.array([44, 24]))
    one, two, other = (taught.batch(np.arange(20), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], other[0])
    inputs, answers = taught.mixed(one, None, np.random.default_rng(0))
    assert len(inputs) == 2
    assert answers.shape == (20, 3)
    assert torch.isfinite(answers).all()


def test_covariates_known_ahead_and_the_calendar_stand_beside_the_steps_they_belong_to():
    known = History("a", np.arange(40.0), np.arange(40.0)[:, None], np.array([[40.0], [41.0], [42.0]]), ("heat",), ("heat",), np.datetime64("2026-03-02"))
    read = Reader.learn([known], horizon=3, season=4, frequency="1d", length=8, timed=True)
    x, z, center, unit = Windows(read, [known], [known.origin]).cut(np.array([0]), np.array([40]))
    standard = (np.arange(32, 43) - 19.5) / np.arange(40.0).std()
    np.testing.assert_allclose(np.concatenate([x[0, :, 2], z[0, :, -1]]), standard, atol=1e-5)
    assert read.calendar == ("week",)
    np.testing.assert_allclose(z[0, :, 1:3] * unit + center, [[36, 30], [37, 31], [38, 32]], atol=1e-4)
    assert z[0, 0, 5] == pytest.approx(1.0), "2 March 2026 is a Monday: the cosine of the week is 1"
    assert Reader.of(json.loads(json.dumps(read.json()))) == read


def test_the_time_after_a_series_follows_from_its_longest_history(example):
    train = example[0]
    after = next_steps(train, latest(train), "1d")
    assert {str(t)[:10] for t in after} == {"2026-03-05"}, "the last origin of train is step 56 of a series that begins on 1 January, and 7 answers follow it"


def test_times_go_on_by_months_and_by_quarters_of_an_hour():
    assert times_of(np.datetime64("2025-11-01"), np.arange(3), "1mo").astype("datetime64[D]").tolist()[-1].isoformat() == "2026-01-01"
    assert str(times_of(np.datetime64("2026-01-01"), np.array([5]), "15m")[0])[:16] == "2026-01-01T01:15"


def test_the_loss_of_levels_is_the_quantile_loss_of_the_known_steps():
    rng = np.random.default_rng(0)
    said, truth = rng.normal(size=(5, 4 * 9)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    truth[1, 2] = np.nan
    found = mean_loss(torch.from_numpy(said), torch.from_numpy(truth), Aim("pinball", 36, levels=LEVELS))
    assert float(found) == pytest.approx(np.nanmean(pinball(truth, said.reshape(5, 4, 9), LEVELS).mean(axis=2)), rel=1e-5)


# ---- networks from scratch


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_every_row_with_finite_sorted_quantiles_and_so_does_its_copy(name, learnt, example, tmp_path):
    model, test = learnt[name], example[1].asked()
    said = model.predict(test)
    assert said.shape == (len(test), TASK.width)
    assert np.isfinite(said).all()
    assert (np.diff(TASK.cube(TASK.calibrated(said, {})), axis=2) >= 0).all()
    model.dump(tmp_path)
    again = NETWORKS[name].build(TASK, example[0].schema).load(tmp_path)
    np.testing.assert_array_equal(again.predict(test), said)
    np.testing.assert_allclose(again.predict_row(test.frame.row(3, named=True)), said[3:4], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_clock_the_same_seed_gives_the_same_network(name, learnt, example):
    train, test = example
    again = NETWORKS[name].build(TASK, train.schema).fit(train, seed=3, budget=unclocked())
    np.testing.assert_array_equal(again.predict(test.asked()), learnt[name].predict(test.asked()))


ODD = {"one point": [4.0], "zeros": np.zeros(40), "gaps": [math.nan, 3.0, *[math.nan] * 20, 5.0, 4.0, math.nan], "nothing known": [math.nan] * 10, "nothing": [], "constant": [7.0] * 30,
       "huge": np.arange(30) * 1e12, "known long ago only": [*range(20), *[math.nan] * 3000]}


@pytest.mark.parametrize("name", [*NETWORKS, "fracast"])
def test_odd_series_are_answered_finitely(name, learnt, example):
    if name == "fracast":
        pytest.importorskip("fracast")
        model = zero_shot.FRACAST.build(TASK, SCHEMA).fit(example[0], seed=0, budget=unclocked())
    else:
        model = learnt[name]
    said = model.predict(asked(*ODD.values()))
    assert said.shape == (len(ODD), TASK.width)
    assert np.isfinite(said).all()
    assert np.abs(said[list(ODD).index("zeros")]).max() < 5, "a series of zeros is answered near zero"


@pytest.mark.parametrize("name", NETWORKS)
def test_no_rows_and_empty_cells_are_answered_too(name, learnt, example):
    from assay.checks import _damaged

    test = example[1].asked()
    assert learnt[name].predict(test.take(np.arange(0))).shape == (0, TASK.width)
    assert np.isfinite(learnt[name].predict(_damaged(test))).all()


def test_nhits_beats_the_seasonal_naive_where_there_is_a_trend_and_a_season():
    rng, t = np.random.default_rng(5), np.arange(90)
    data = rows([50 + (0.6 + 0.05 * s) * t + 20 * np.sin(2 * np.pi * (t + s) / 7) + rng.normal(0, 3, 90) for s in range(20)], 7)
    train, test = data.take(np.flatnonzero(data.frame[PART].to_numpy() != "test")), data.take(np.flatnonzero(data.frame[PART].to_numpy() == "test"))
    model = nhits.CANDIDATE.build(TASK, SCHEMA, width=64, rate=3e-3).fit(train, seed=0, budget=unclocked(25))
    naive = np.repeat(np.stack([one.values[-7:] for one in histories(test)])[:, :, None], 9, axis=2).reshape(len(test), -1)
    mine, theirs = (TASK.metrics(train, test, said)["mase"] for said in (model.predict(test.asked()), naive))
    assert mine < 0.85 * theirs, f"{mine:.3f} against {theirs:.3f}"


def test_series_too_short_for_a_network_are_refused_with_a_sentence():
    with pytest.raises(InputError, match="too short"):
        nhits.CANDIDATE.build(TASK, SCHEMA).fit(rows([np.arange(7.0)], 7, ("train",)), seed=0, budget=unclocked())


# ---- pre-trained


def test_quantiles_of_a_normal_answer_are_exact_at_any_level():
    from statistics import NormalDist

    levels = [0.01, 0.1, 0.33, 0.5, 0.975]
    known = np.array([[NormalDist(5, 2).inv_cdf(q) for q in LEVELS]])
    np.testing.assert_allclose(at_levels(known, LEVELS, levels)[0], [NormalDist(5, 2).inv_cdf(q) for q in levels])


def test_fracast_answers_as_its_package_does_and_beyond_its_horizon(example, tmp_path):
    package = pytest.importorskip("fracast")
    rng, t = np.random.default_rng(0), np.arange(300)
    values = [50 + 9 * np.sin(2 * np.pi * t / 24) + rng.normal(size=300), rng.poisson(0.5, 300).astype(float)]
    values[0][40:50] = np.nan
    task = Forecast(horizon=60, season=24)
    model = zero_shot.FRACAST.build(task, SCHEMA).fit(example[0], seed=0, budget=unclocked())
    said = task.cube(model.predict(asked(*values)))
    theirs = np.sort(package.FracastModel.from_pretrained(weights="fp32").forecast_batch(np.stack(values), horizon=60), axis=2)
    np.testing.assert_allclose(said, theirs, atol=2e-3)
    model.dump(tmp_path)
    again = zero_shot.FRACAST.build(task, SCHEMA).load(tmp_path)
    np.testing.assert_array_equal(again.predict(asked(*values)), said.reshape(2, -1))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match="not the one"):
        zero_shot.FRACAST.build(task, SCHEMA).load(tmp_path)


def test_a_forecaster_that_cannot_answer_the_rows_in_time_says_so(example):
    pytest.importorskip("fracast")
    with pytest.raises(TooSlow):
        zero_shot.FRACAST.build(TASK, SCHEMA).fit(example[0], seed=0, budget=Budget(seconds=60, predict_rows=1_000_000, predict_seconds=1))


def chronos_folder(folder: Path, kind: str) -> Path:
    """A Chronos model with random weights."""
    pytest.importorskip("chronos")
    torch.manual_seed(0)
    levels = list(LEVELS)
    if kind == "bolt":
        from chronos.chronos_bolt import ChronosBoltModelForForecasting
        from transformers import T5Config

        config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2, vocab_size=2, decoder_start_token_id=0, pad_token_id=0, feed_forward_proj="relu")
        config.chronos_config = {"context_length": 64, "prediction_length": 8, "input_patch_size": 8, "input_patch_stride": 8, "quantiles": levels, "use_reg_token": True}
        ChronosBoltModelForForecasting(config).save_pretrained(folder)
    else:
        from chronos.chronos2 import Chronos2Model
        from chronos.chronos2.config import Chronos2CoreConfig

        config = Chronos2CoreConfig(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        config.chronos_config = {"context_length": 64, "output_patch_size": 8, "input_patch_size": 8, "input_patch_stride": 8, "quantiles": levels, "use_reg_token": True,
                                 "use_arcsinh": True, "max_output_patches": 2}
        Chronos2Model(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bolt", "2"])
def test_a_chronos_folder_is_asked_packed_and_opened_again(kind, example, tmp_path):
    folder = chronos_folder(tmp_path / "given", kind)
    train, test = example
    assert zero_shot.prepare(_case(folder), SCHEMA) == {"folder": str(folder.resolve())}
    model = zero_shot.CHRONOS.build(TASK, SCHEMA, folder=str(folder)).fit(train, seed=0, budget=unclocked())
    said = model.predict(test.asked())
    assert said.shape == (len(test), TASK.width)
    assert np.isfinite(said).all()
    model.dump(tmp_path / "packed")
    again = zero_shot.CHRONOS.build(TASK, SCHEMA, folder="gone").load(tmp_path / "packed")
    np.testing.assert_allclose(again.predict(test.asked()), said, rtol=1e-5, atol=1e-4)
    assert np.isfinite(again.predict(asked(*ODD.values()))).all()
    if kind == "2":
        one = History("a", np.arange(40.0), np.arange(40.0)[:, None] % 5, np.arange(7.0)[:, None], ("heat",), ("heat",))
        other = History("a", np.arange(40.0), np.arange(40.0)[:, None] % 5, 90 * np.arange(7.0)[:, None], ("heat",), ("heat",))
        assert not np.allclose(model._cube([one]), model._cube([other])), "Chronos-2 reads what is known ahead"


def test_a_folder_with_pickled_weights_or_another_model_is_refused(tmp_path):
    assert "no config.json" in str(zero_shot.folder_refuses(tmp_path))
    config = {"architectures": ["ChronosBoltModelForForecasting"], "chronos_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    assert "pickle" in str(zero_shot.folder_refuses(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["T5ForConditionalGeneration"]}))
    assert "none of" in str(zero_shot.folder_refuses(tmp_path))
    assert isinstance(zero_shot.prepare(_case(None), SCHEMA), Text)


def _case(folder: Path | None) -> Case:
    case = Case(target="value")
    object.__setattr__(case, "forecaster", None if folder is None else str(folder))
    return case


# ---- a language model


def goes_on(body: dict, n: int):
    """Repeats the last season of what it is shown."""
    shown = [int(word) for word in body["messages"][-1]["content"].partition("\n")[0].split(",")]
    values = (shown[-7:] * 2)[:7]
    return completion(json.dumps({"values": values}) if "response_format" in body else f"<think>[1, 2]</think>The next are {values}.")


@pytest.fixture
def answers_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "kept"))


@pytest.mark.usefixtures("answers_kept")
def test_a_language_model_is_shown_whole_numbers_and_goes_on(example, tmp_path):
    def behaviour(body, n):
        return error(400, "response_format is not supported") if "response_format" in body else goes_on(body, n)

    train, test = example
    with stubbed(behaviour) as stub:
        params = llm_forecast._prepare(Case(target="value", llm_url=stub.url, llm_model="stub-1"), SCHEMA)
        model = llm_forecast.llm_forecast.build(TASK, SCHEMA, **params).fit(train, seed=0, budget=Budget(seconds=60, predict_rows=len(test)))
        said = TASK.cube(model.predict(test.asked()))
        shown = stub.bodies[-1]["messages"][-1]["content"].partition("\n")[0].split(",")
        model.dump(tmp_path)
        again = llm_forecast.llm_forecast.build(TASK, SCHEMA).load(tmp_path)
        np.testing.assert_array_equal(again.predict(test.asked()), said.reshape(len(test), -1))
    for one, cube in zip(histories(test), said, strict=True):
        last = one.filled()[-7:]
        np.testing.assert_allclose(cube[:, 4], last, atol=np.ptp(one.filled()) / 700 + 1e-9)
        assert (np.diff(cube, axis=1) >= 0).all()
    assert all(0 <= int(word) <= 999 for word in shown)
    assert model.facts["constrained"] is False
    assert model.facts["unparsed"] == 0


@pytest.mark.usefixtures("answers_kept")
def test_a_language_model_that_says_no_numbers_is_reported_and_few_slips_fall_back_on_the_last_season(example):
    test = example[1]
    with stubbed(lambda body, n: completion("I cannot know the future.")) as stub:
        model = llm_forecast.llm_forecast.build(TASK, SCHEMA, url=stub.url, model="stub-1")
        with pytest.raises(EndpointError, match="no usable answer"):
            model.predict(test.asked())
    with stubbed(lambda body, n: completion("no") if n == 3 else goes_on(body, n)) as stub:
        model = llm_forecast.llm_forecast.build(TASK, SCHEMA, url=stub.url, model="stub-2")
        said = model.predict(test.asked())
        assert np.isfinite(said).all()
        assert model.facts["unparsed"] == 1
        assert np.isfinite(model.predict(asked(*ODD.values()))).all()
        assert model.predict(test.take(np.arange(0))).shape == (0, TASK.width)


def test_the_numbers_of_an_answer_are_its_last_list():
    assert llm_forecast.numbers_in('Thinking of [3, 4] ... {"values": [5, -6, 7.5]}').tolist() == [5, -6, 7.5]
    assert llm_forecast.numbers_in("none, [a, b]") is None
