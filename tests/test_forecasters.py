"""The classical forecasters: they answer anything, never cross, come back from their files, and beat the last season where there is more than a season."""

import importlib.util

import numpy as np
import pytest

from assay.case import Case
from assay.data.dataset import Column, Dataset, Schema
from assay.data.history import AHEAD, HISTORY, ORIGIN, PART, About, History, frame_of, row_of
from assay.data.media import packed
from assay.families.base import Budget, TooSlow
from assay.families.lag_boosting import CANDIDATE as BOOSTING
from assay.families.lag_linear import CANDIDATE as LINEAR
from assay.families.seasonal_naive import CANDIDATE as NAIVE
from assay.families.smoothing import CANDIDATE as SMOOTHING
from assay.families.statistical import CANDIDATE as STATISTICAL
from assay.tasks.forecast import Forecast, example_schema

QUICK = {"seasonal_naive": NAIVE, "lag_linear": LINEAR, "lag_boosting": BOOSTING, "smoothing": SMOOTHING}
UNHURRIED = {"seconds": float("inf"), "passes": 40}


def rows_of(series, *, horizon, parts=(("train", 3), ("valid", 2), ("test", 1)), start="2024-01-01", unit="D"):
    """Each series of `series` {name: values} at the origins that lie so many horizons before its end."""
    schema, rows = example_schema("value", ("value",)), []
    for name, values in series.items():
        for part, back in parts:
            known = len(values) - back * horizon
            one = History(name, values[:known], np.zeros((known, 0)), np.zeros((0, 0)), origin=(np.datetime64(start, unit) + known).astype("datetime64[us]"))
            rows.append(row_of(one, horizon, schema) | {"value": packed(values[known : known + horizon, None].astype(np.float32)), PART: part})
    return Dataset(frame_of(rows, schema), schema)


def sides(task, data):
    split = task.splits(data)[0]
    return data.take(split.train), data.take(split.test)


def fitted(card, task, train, **params):
    return card.build(task, train.schema, **params).fit(train, seed=1, budget=Budget(predict_rows=100, **UNHURRIED))


@pytest.fixture(scope="module")
def example():
    data = Forecast.example()
    task = Forecast.of(data, season=7, frequency="1d")
    train, test = sides(task, data)
    return task, train, test, {name: fitted(card, task, train) for name, card in QUICK.items()}


@pytest.fixture(scope="module")
def growing():
    """24 monthly series with a trend, a season and noise."""
    rng, t = np.random.default_rng(3), np.arange(96)
    series = {}
    for s in range(24):
        season = rng.normal(0, 8, 12)
        series[f"s{s}"] = (2.0 ** rng.integers(0, 6)) * (100 + rng.uniform(-0.6, 1.2) * t + season[t % 12] + rng.normal(0, 3, 96))
    data = rows_of(series, horizon=12, unit="M", start="2015-01")
    return Forecast(horizon=12, season=12, frequency="1mo"), data


@pytest.mark.parametrize("name", QUICK)
def test_answers_have_their_shape_are_finite_and_never_cross_once_calibrated(example, name):
    task, _train, test, models = example
    raw = models[name].predict(test.asked())
    assert raw.shape == (len(test), task.width)
    assert np.isfinite(raw).all()
    cube = task.cube(task.calibrated(raw, {}))
    assert (np.diff(cube, axis=2) >= 0).all()
    assert models[name].predict(test.asked().take(np.arange(0))).shape == (0, task.width)


@pytest.mark.parametrize("name", QUICK)
def test_what_was_written_answers_alike_row_by_row_too_and_one_seed_gives_one_model(example, name, tmp_path):
    task, train, test, models = example
    answer = models[name].predict(test.asked())
    models[name].dump(tmp_path)
    loaded = QUICK[name].build(task, train.schema).load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(test.asked()), answer)
    for i in (0, 7, 21):
        np.testing.assert_allclose(loaded.predict_row(test.asked().frame.row(i, named=True)), answer[i : i + 1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(fitted(QUICK[name], task, train).predict(test.asked()), answer)


@pytest.mark.parametrize("name", QUICK)
def test_one_point_no_point_all_zeros_gaps_and_a_constant_are_answered_sensibly(example, name):
    task, _train, test, models = example
    gap = 50 + np.sin(np.arange(40) * 2 * np.pi / 7)
    gap[10:35] = np.nan
    odd = {"one": np.array([5.0]), "zero": np.zeros(40), "gap": gap, "same": np.full(30, 7.0), "none": np.array([]), "unknown": np.full(20, np.nan)}
    schema = test.schema.without_target()
    rows = [row_of(History(k, v, np.zeros((len(v), 0)), np.zeros((0, 0)), origin=np.datetime64("2026-03-01", "us")), 7, schema) for k, v in odd.items()]
    cube = dict(zip(odd, task.cube(models[name].predict(Dataset(frame_of(rows, schema), schema))), strict=True))
    assert all(np.isfinite(c).all() for c in cube.values())
    np.testing.assert_allclose(cube["one"][:, 4], 5.0, atol=0.5)
    np.testing.assert_allclose(cube["same"], 7.0, atol=0.5)
    assert np.abs(cube["zero"]).max() < 1e-6
    assert np.abs(cube["none"]).max() < 1e-6
    assert (np.abs(cube["gap"][:, 4] - 50) < 5).all()


def test_the_last_season_costs_about_one_in_its_own_units_and_its_intervals_hold():
    rng = np.random.default_rng(0)
    series = {f"s{i}": 100 + 10 * np.tile(rng.normal(size=7), 20) + rng.normal(0, 3, 140) for i in range(60)}
    task, data = Forecast(horizon=7, season=7, frequency="1d"), rows_of(series, horizon=7)
    train, test = sides(task, data)
    told = task.metrics(train, test, task.calibrated(fitted(NAIVE, task, train).predict(test.asked()), {}))
    assert 0.9 < told["mase"] < 1.1
    assert 0.74 < told["coverage"] < 0.86


@pytest.mark.parametrize("name", [n for n in QUICK if n != "seasonal_naive"])
def test_each_beats_the_last_season_where_there_is_a_trend(growing, name):
    task, data = growing
    train, test = sides(task, data)

    def loss(card):
        return task.losses(train, test, task.calibrated(fitted(card, task, train).predict(test.asked()), {})).mean()

    assert loss(QUICK[name]) < 0.9 * loss(NAIVE)


def test_quantiles_of_a_series_that_was_never_below_zero_are_not_either(example):
    _, _, test, models = example
    for name, model in models.items():
        assert (model.predict(test.asked()) >= 0).all(), name


@pytest.mark.parametrize("card", [LINEAR, BOOSTING], ids=lambda c: c.name)
def test_what_is_known_ahead_is_read(card):
    rng = np.random.default_rng(5)
    schema = Schema((Column("id", "id"), Column(PART, "id"), Column(ORIGIN, "time"), Column(HISTORY, "sequence", channels=("value", "price")),
                     Column(AHEAD, "sequence", channels=("price",)), Column("value", "sequence", channels=("value",))), target="value", group="id")
    rows = []
    for s in range(30):
        price = rng.normal(0, 10, 90)
        values = 50 + price
        for part, known in (("train", 69), ("valid", 76), ("test", 83)):
            one = History(f"s{s}", values[:known], price[:known, None], price[known : known + 7, None], ("price",), ("price",), np.datetime64("2026-01-01", "us"))
            rows.append(row_of(one, 7, schema) | {"value": packed(values[known : known + 7, None].astype(np.float32)), PART: part})
    data = Dataset(frame_of(rows, schema), schema)
    task = Forecast(horizon=7, season=1, frequency="1d")
    train, test = sides(task, data)
    model = fitted(card, task, train)
    assert np.abs(task.point(model.predict(test.asked())) - task.truth(test)).mean() < 3.0, "without the price the error is 8"


def test_holidays_of_a_country_reach_the_trees_and_an_unknown_country_is_a_sentence():
    from assay.data.calendar import Calendar
    from assay.errors import InputError

    if importlib.util.find_spec("holidays") is None:
        pytest.skip("holidays is not installed")
    told = Calendar("1d", "CN").of(np.array(["2026-09-30", "NaT"], dtype="datetime64[us]"), 3)
    names = Calendar("1d", "CN").names
    assert told[0, :, names.index("holiday")].tolist() == [0, 1, 1]
    assert np.isnan(told[1]).all()
    assert told[0, :, names.index("weekday")].tolist() == [2, 3, 4]
    with pytest.raises(InputError, match="No holidays are known"):
        Calendar("1h", "Atlantis")


def test_months_step_over_their_different_lengths():
    from assay.data.calendar import Calendar

    times = Calendar("1mo").times(np.array(["2026-11-01"], dtype="datetime64[us]"), 4)
    assert times.astype("datetime64[D]").astype(str).tolist() == [["2026-11-01", "2026-12-01", "2027-01-01", "2027-02-01"]]
    assert Calendar("1mo").moved(np.array(["2026-03-15"], dtype="datetime64[us]"), np.array([-3])).astype("datetime64[D]").astype(str).tolist() == ["2025-12-15"]


def test_series_too_short_for_the_horizon_are_refused_with_a_sentence():
    data = rows_of({f"s{i}": np.arange(9.0) for i in range(5)}, horizon=4, parts=(("train", 1),))
    short = Dataset(data.frame, data.schema)
    task = Forecast(horizon=40, season=1)
    for card in (LINEAR, BOOSTING):
        with pytest.raises(TooSlow, match="no series is long enough"):
            fitted(card, task, short)


@pytest.mark.skipif(importlib.util.find_spec("statsforecast") is None, reason="statsforecast is not installed")
def test_local_models_answer_every_row_and_say_how_many_fell_back(growing, tmp_path):
    task, data = growing
    train, test = sides(task, data)
    some = test.take(np.arange(4))
    model = fitted(STATISTICAL, task, train, model="theta")
    answer = model.predict(some.asked())
    assert np.isfinite(answer).all()
    assert "answered_by_last_season" not in model.facts
    model.dump(tmp_path)
    np.testing.assert_array_equal(STATISTICAL.build(task, train.schema, model="theta").load(tmp_path).predict(some.asked()), answer)
    schema = some.schema.without_target()
    one = row_of(History("one", np.array([3.0]), np.zeros((1, 0)), np.zeros((0, 0))), 12, schema)
    np.testing.assert_allclose(task.cube(model.predict(Dataset(frame_of([one], schema), schema)))[0, :, 4], 3.0)
    assert model.facts["answered_by_last_season"] == 1
    with pytest.raises(TooSlow, match="intermittent"):
        fitted(STATISTICAL, task, train, model="croston")
    with pytest.raises(TooSlow, match="needs about"):
        STATISTICAL.build(task, train.schema, model="theta").fit(train, seed=1, budget=Budget(seconds=1000, predict_rows=10**9, predict_seconds=1))


@pytest.mark.skipif(importlib.util.find_spec("statsforecast") is None, reason="statsforecast is not installed")
@pytest.mark.parametrize("kind", ["ets", "theta", "arima"])
def test_origins_of_one_series_share_fits_and_no_answer_depends_on_the_rows_beside_it(kind, tmp_path):
    rng, t = np.random.default_rng(5), np.arange(150)
    values = 50 + 8 * np.sin(2 * np.pi * t / 7) + np.cumsum(rng.normal(0, 0.3, 150)) + rng.normal(0, 1, 150)
    data = rows_of({"one": values}, horizon=2, parts=(("train", 16), ("valid", 15), *(("test", back) for back in range(14, 0, -1))))
    task = Forecast(horizon=2, season=7, frequency="1d")
    train, test = sides(task, data)
    fitted(STATISTICAL, task, train, model=kind).dump(tmp_path)
    model = STATISTICAL.build(task, train.schema, model=kind).load(tmp_path)
    together = model.predict(test.asked())
    assert len(model.fits) == (0 if kind == "arima" else 1)
    for row in (0, 6, 13):
        alone = STATISTICAL.build(task, train.schema, model=kind).load(tmp_path)
        np.testing.assert_array_equal(alone.predict(test.asked().take(np.array([row])))[0], together[row])
    assert task.losses(train, test, together).mean() < task.losses(train, test, fitted(NAIVE, task, train).predict(test.asked())).mean()


def test_days_within_weeks_are_gone_on_from_as_well_and_an_hour_is_no_season_of_a_day():
    names = {}
    for frequency, season in (("1h", 168), ("1h", 24), ("1mo", 12), ("1d", 7), ("1m", 1440)):
        about = About(24, season, frequency, "value", None, "time", False)
        column = Column(PART, "id", unit=about.text())
        names[frequency, season] = [name for name, _ in BOOSTING.instances(Case(data="x.csv", target="value"), Schema((column,)))]
    short = {key for key, made in names.items() if "lag_boosting_short" in made}
    assert short == {("1h", 168)}


@pytest.mark.skipif(importlib.util.find_spec("statsforecast") is None, reason="statsforecast is not installed")
def test_rare_demand_is_none_at_most_levels_and_its_sizes_above():
    rng = np.random.default_rng(2)
    series = {f"s{i}": np.where(rng.random(60) < 0.25, rng.integers(4, 9, 60), 0).astype(float) for i in range(12)}
    task, data = Forecast(horizon=4, season=1, frequency="1w"), rows_of(series, horizon=4)
    train, test = sides(task, data)
    cube = task.cube(fitted(STATISTICAL, task, train, model="croston").predict(test.asked()))
    assert (cube[:, :, 4] == 0).all()
    assert (cube[:, :, -1] >= 4).mean() > 0.9
