"""Forecasts are judged as the field judges them, nobody sees a future, and from a table to a plan everything goes through one door: run, report, bundle, predict, decide."""

import datetime as dt
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate

import assay
from assay import api
from assay.cli import main
from assay.contest.by_plan import Asked, fits
from assay.data.dataset import Dataset
from assay.data.history import PART, History, frame_of, row_of
from assay.data.media import packed
from assay.data.read_series import read_series
from assay.decide.base import Quantiles
from assay.errors import AssayError, InputError
from assay.explain.fans import fans, shape_of
from assay.report.fans import fan_chart
from assay.ship.quantiles import quantiles_of
from assay.tasks.forecast import Forecast, example_schema, scale_of

SCHEMA = example_schema("value", ("value",))


def asked_rows(series, horizon, part="test"):
    """Each series asked once, a horizon before its end."""
    rows = []
    for i, values in enumerate(series):
        known = len(values) - horizon
        one = History(f"s{i}", values[:known], np.zeros((known, 0)), np.zeros((0, 0)), origin=np.datetime64("2024-01-01", "us") + np.timedelta64(known, "D"))
        rows.append(row_of(one, horizon, SCHEMA) | {"value": packed(np.asarray(values[known:], dtype=np.float32)[:, None]), PART: part})
    return Dataset(frame_of(rows, SCHEMA), SCHEMA)


def certain(task, point):
    """Every quantile at the same value."""
    return np.repeat(np.asarray(point, dtype=float)[:, :, None], len(task.levels), axis=2).reshape(len(point), -1)


series_of = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).normal(50, 10, (6, 40)).astype(np.float32).astype(float))


# ---- laws of the task


@given(values=series_of, season=st.integers(1, 7))
@settings(max_examples=20)
def test_the_seasonal_naive_has_a_mase_and_an_rmsse_of_one_in_sample(values, season):
    for one in values:
        step = one[season:] - one[:-season]
        assert np.abs(step).mean() / scale_of(one, season) == pytest.approx(1)
        assert np.sqrt((step**2).mean()) / scale_of(one, season, squared=True) == pytest.approx(1)


@given(values=series_of)
@settings(max_examples=10)
def test_a_perfect_forecast_costs_nothing_and_its_metrics_say_so(values):
    task, data = Forecast(horizon=5, season=7), asked_rows(values, 5)
    perfect = certain(task, task.truth(data))
    assert task.losses(data, data, perfect).max() == 0
    found = task.metrics(data, data, perfect)
    assert all(found[name] == 0 for name in ("mase", "rmsse", "smape", "wape", "wql"))
    assert found["coverage"] == 1
    assert (task.losses(data, data, perfect + 1) > 0).all()


@given(values=series_of, factor=st.sampled_from([2.0**-30, 0.125, 8.0, 2.0**30, -4.0]), loss=st.sampled_from(["quantile", "absolute"]))
@settings(max_examples=20)
def test_loss_does_not_change_when_a_series_is_measured_in_another_unit(values, factor, loss):
    task = Forecast(horizon=5, season=7, loss=loss)
    raw = task.cube(np.random.default_rng(0).normal(50, 10, (6, task.width)))
    raw.sort(axis=2)
    plain, scaled = asked_rows(values, 5), asked_rows(values * factor, 5)
    turned = factor * raw if factor > 0 else factor * raw[:, :, ::-1]  # of -y the lowest quantile is the highest
    one, other = (task.losses(d, d, p.reshape(6, -1)) for d, p in ((plain, raw), (scaled, turned)))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    before, after = (task.metrics(d, d, p.reshape(6, -1)) for d, p in ((plain, raw), (scaled, turned)))
    assert before == pytest.approx(after, rel=1e-9)


def test_the_loss_is_the_scaled_pinball_loss_as_it_is_written_down():
    task, values = Forecast(horizon=2, season=1, levels=(0.1, 0.5)), np.array([[1.0, 3.0, 2.0, 6.0, 4.0, 9.0]])
    data = asked_rows(values, 2)
    scale = (2 + 1 + 4) / 3
    by_hand = np.mean([0.1 * 1, 0.5 * 2, 0.9 * 2, 0.5 * 1]) * 2 / scale  # truths 4, 9; forecasts 3, 2 and 11, 10
    assert task.losses(data, data, np.array([[3.0, 2.0, 11.0, 10.0]]))[0] == pytest.approx(by_hand)


@given(values=series_of, seed=st.integers(0, 99))
@settings(max_examples=10)
def test_weights_of_one_change_no_metric_and_a_weight_of_two_is_a_row_that_stands_twice(values, seed):
    task, data = Forecast(horizon=5, season=7), asked_rows(values, 5)
    prediction = np.random.default_rng(seed).normal(50, 10, (6, task.width))
    assert task.metrics(data, data, prediction) == task.metrics(data, data, prediction, np.ones(6))
    twice = np.r_[np.arange(6), 2]
    assert task.metrics(data, data, prediction, np.bincount(twice)) == pytest.approx(task.metrics(data, data.take(twice), prediction[twice]))


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([(0.1, 0.5, 0.9), (0.2, 0.4, 0.7), (0.5,), (0.5, 0.9), tuple(i / 10 for i in range(1, 10))]), rows=st.integers(1, 30))
@settings(max_examples=40)
def test_calibrated_quantiles_never_cross_and_the_median_keeps_its_place(seed, levels, rows):
    rng, task = np.random.default_rng(seed), Forecast(horizon=4, levels=levels)
    raw, truth = rng.normal(0, 10.0 ** rng.integers(-6, 9), (rows, task.width)), rng.normal(0, 10, (rows, 4))
    calibration = task.calibration(truth, raw)
    cube = task.cube(task.calibrated(raw, json.loads(json.dumps(calibration))))
    assert (np.diff(cube, axis=2) >= 0).all()
    in_order = np.sort(task.cube(raw), axis=2).reshape(rows, -1)
    np.testing.assert_allclose(task.point(cube.reshape(rows, -1)), task.point(in_order), rtol=1e-9, atol=1e-12)


def test_a_spread_that_is_too_narrow_is_widened_and_one_too_wide_is_narrowed_to_what_it_promises():
    rng, task = np.random.default_rng(1), Forecast(horizon=6)
    normal = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
    truth, later = rng.normal(size=(400, 6)), rng.normal(size=(400, 6))
    for spread in (0.6, 1.0, 1.7):
        raw = np.broadcast_to(spread * normal, (400, 6, 9)).reshape(400, -1)
        cube = task.cube(task.calibrated(raw, task.calibration(truth, raw)))
        assert 0.76 <= ((later >= cube[:, :, 0]) & (later <= cube[:, :, -1])).mean() <= 0.84


def test_steps_whose_truth_is_missing_count_for_nothing_anywhere():
    task, values = Forecast(horizon=4, season=1), np.random.default_rng(2).normal(10, 1, (5, 30))
    values[:, -3] = np.nan
    data, prediction = asked_rows(values, 4), np.random.default_rng(3).normal(10, 1, (5, 36))
    other = task.cube(prediction.copy())
    other[:, 1] += 1000
    np.testing.assert_array_equal(task.losses(data, data, prediction), task.losses(data, data, other.reshape(5, -1)))
    assert task.metrics(data, data, prediction) == task.metrics(data, data, other.reshape(5, -1))
    shape = shape_of(task, data, prediction, task.losses(data, data, prediction))
    assert [p[0] for p in shape["by_step"]] == [1, 3, 4]
    assert all(math.isfinite(v) for rows in shape.values() for row in rows for v in row)


def test_a_table_of_answers_has_a_row_a_series_and_step_and_names_a_series_without_a_name():
    task, data = Forecast(horizon=2, frequency="1d"), asked_rows(np.ones((2, 20)), 2)
    found = task.table(np.zeros((2, task.width)), data)
    assert found.columns == ["id", "step", "time", *(f"q0.{i}" for i in range(1, 10))]
    assert found.select("id", "step").rows() == [("s0", 1), ("s0", 2), ("s1", 1), ("s1", 2)]
    assert task.table(np.zeros((0, task.width)), data.take(np.arange(0))).columns == found.columns
    nameless = Dataset(data.frame.with_columns(id=pl.lit("")).head(1), data.schema)
    assert task.table(np.zeros((1, task.width)), nameless)["id"].to_list() == ["series", "series"]


def test_times_of_a_forecast_follow_the_calendar():
    def days(frequency, origin, horizon=3):
        return [str(t)[:10] for t in Forecast(horizon=horizon, frequency=frequency).times(origin).to_list()]

    assert days("1b", dt.datetime(2026, 11, 20)) == ["2026-11-20", "2026-11-23", "2026-11-24"]
    assert days("1mo", dt.datetime(2023, 12, 31)) == ["2023-12-31", "2024-01-31", "2024-02-29"]
    assert days("3mo", dt.datetime(2024, 1, 15)) == ["2024-01-15", "2024-04-15", "2024-07-15"]
    assert days("1y", dt.datetime(2024, 2, 29), 2) == ["2024-02-29", "2025-02-28"]
    assert Forecast(horizon=2, frequency="1h").times(None).to_list() == [None, None]


def test_fans_are_drawn_with_gaps_of_a_series_that_is_all_zeros_and_of_one_row():
    task, values = Forecast(horizon=4, season=1), np.zeros((2, 30))
    values[1, 5:9] = values[1, -2] = np.nan
    data = asked_rows(values, 4)
    for rows in ([0], [0, 1]):
        some = data.take(np.array(rows))
        found = fans(task, some, np.zeros((len(rows), 36)), np.zeros(len(rows)))
        assert len(found["explained"]) == len(rows)
        json.dumps(found, allow_nan=False)
        assert all("nan" not in fan_chart(fan, {"title": "t", "x": "x", "y": "y"}).lower().replace("finance", "") for fan in found["explained"])


# ---- from a table to a plan


def shops(n=12, days=120):
    rng, t = np.random.default_rng(0), np.arange(days)
    return pl.concat([pl.DataFrame({"day": [dt.date(2026, 1, 1) + dt.timedelta(days=int(i)) for i in t], "shop": f"shop-{s:02d}",
                                    "units": np.round((50 + 5 * s) * (1 + 0.4 * np.sin(2 * np.pi * t / 7) + 0.01 * t) + rng.normal(0, 2, days), 1)}) for s in range(n)])


PROBLEM = 'kind = "inventory"\nmode = "newsvendor"\n[default]\nprice = 10.0\ncost = 4.0\nsalvage = 1.0\n'
OPTIONS = {"target": "units", "task": "forecast", "horizon": 7, "group": "shop", "time_column": "day", "candidates": ("lag_linear",), "tune": False}


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """One run, judged by its plans: a budget of work, because a clock would stop it on a busy machine."""
    place, notes = tmp_path_factory.mktemp("forecast"), []
    (place / "problem.toml").write_text(PROBLEM)
    run = api.run(shops(), out=place / "run", work=2, decide=str(place / "problem.toml"), observe=lambda note: notes.append(str(note)), **OPTIONS)
    return place, run, " ".join(notes)


def test_a_verdict_on_forecasts_keeps_to_its_schema(played):
    verdict = json.loads(played[1].folder.verdict_file.read_text())
    validate(verdict, json.loads((Path(assay.__file__).parent / "report" / "verdict.schema.json").read_text()))
    assert verdict["decision"]["kind"] == "inventory"


def test_a_run_says_what_it_found_and_its_report_is_whole_in_both_languages(played):
    place, run, notes = played
    assert "12 series by 'shop' with 120 to 120 steps" in notes
    assert "Steps of 1d, a season of 7 steps" in notes
    shown = json.loads((place / "run" / "examples.json").read_text())
    assert shown["kind"] == "fans"
    assert {fan["which"] for fan in shown["explained"]} == {"worst", "usual", "best"}
    for lang, words in (("en", ("Loss along the horizon", "Do the quantiles hold")), ("zh", ("损失随预测步变化", "分位数是否可信"))):
        page = run.report(place / f"{lang}.html", lang=lang).read_text()
        assert all(word in page for word in words)
        assert "<script" not in page
        assert page.count('class="curve truth"') >= 6


def test_a_bundle_forecasts_frames_files_and_lists_alike_and_new_history_moves_the_origin(played, tmp_path):
    _, run, _ = played
    bundle, frame = api.load(run.winner), shops()
    answer = bundle.predict(frame)
    assert answer.columns[:3] == ["shop", "step", "time"]
    assert answer.height == 12 * 7
    assert str(answer["time"][0])[:10] == "2026-05-01"
    frame.write_csv(tmp_path / "history.csv")
    assert bundle.predict(tmp_path / "history.csv").equals(answer)
    assert bundle.predict(frame.sample(fraction=1.0, shuffle=True, seed=1)).sort("shop", "step").equals(answer.sort("shop", "step"))
    more = pl.concat([frame, frame.filter(pl.col("day") > dt.date(2026, 4, 27)).with_columns(pl.col("day") + dt.timedelta(days=3))])
    assert str(bundle.predict(more)["time"][0])[:10] == "2026-05-04"
    one = frame.filter(pl.col("shop") == "shop-03")
    said = bundle.predict_one({"history": one["units"].to_list(), "shop": "shop-03", "origin": "2026-05-01"})
    rows = bundle.predict_one({"rows": one.with_columns(pl.col("day").cast(pl.String)).to_dicts()})
    np.testing.assert_allclose(said["q0.5"], answer.filter(pl.col("shop") == "shop-03")["q0.5"], rtol=1e-5)
    assert said["time"] == rows["time"]
    known = quantiles_of(bundle, frame)
    assert isinstance(known, Quantiles)
    assert known.values.shape == (12, 7, 9)
    assert known.times[:2] == ("2026-05-01", "2026-05-02")
    assert (np.diff(known.values, axis=2) >= 0).all()
    with pytest.raises(InputError, match="end at 2 different times"):
        quantiles_of(bundle, more.filter((pl.col("shop") != "shop-00") | (pl.col("day") < dt.date(2026, 5, 1))))


@pytest.mark.parametrize("given", [{}, {"history": "1,2"}, {"history": ["a"]}, {"history": []}, {"history": None}, {"rows": []}, {"rows": [1]}, {"rows": [{"day": "x"}]},
                                   {"rows": [{"day": "2026-01-01", "shop": "a", "units": "many"}]}, {"history": [1, 2], "origin": [1]}, {"history": {"a": 1}}])
def test_what_is_no_series_is_refused_by_a_bundle_in_one_sentence(played, given):
    with pytest.raises(AssayError) as error:
        api.load(played[1].winner).predict_one(given)
    assert "\n" not in str(error.value)


def test_forecasters_are_judged_by_their_plans_and_nobody_beats_the_oracle(played):
    place, run, _ = played
    facts = json.loads((place / "run" / "decision.json").read_text())
    assert facts["kind"] == "inventory"
    assert facts["origins"] >= 4
    assert {"lag_linear", "seasonal_naive"} <= set(facts["costs"])
    assert all(facts["oracle"] <= cost + 1e-9 for cost in [*facts["costs"].values(), facts["rule"]["cost"]])
    assert facts["costs"]["lag_linear"] > facts["oracle"]
    scores = {row["candidate"]: row["loss"] for row in json.loads(run.folder.verdict_file.read_text())["scoreboard"] if row.get("loss") is not None}
    assert {name: pytest.approx(cost) for name, cost in facts["costs"].items()} == {name: scores[name] for name in facts["costs"]}


def test_a_problem_that_does_not_fit_the_series_or_has_no_plan_is_said_before_anybody_learns(tmp_path):
    data = read_series(shops(3, 60), target="units", group="shop", time="day", horizon=7).dataset
    task = Forecast.of(data)
    for text, said in ((PROBLEM + '[[item]]\nid = "no such shop"\n', "no such shop"),
                       ('kind = "storage"\nprice = 0.2\nload = "shop-00"\n[battery]\ncapacity = 999.0\npower = 1.0\nstart = 0.0\nend = 999.0\n', "No schedule brings the battery")):
        (tmp_path / "p.toml").write_text(text)
        with pytest.raises(InputError, match=said):
            fits(Asked.of(str(tmp_path / "p.toml")), task, data)
    (tmp_path / "p.toml").write_text(PROBLEM)
    fits(Asked.of(str(tmp_path / "p.toml")), task, data)


# ---- wrong words on the command line


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["assay", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("files")
    shops(3, 60).write_csv(place / "good.csv")
    shops(3, 60).with_columns(units=pl.lit("abc")).write_csv(place / "text.csv")
    shops(3, 60).rename({"units": "sales"}).write_csv(place / "other.csv")
    (place / "empty.csv").write_text("")
    (place / "head.csv").write_text("day,shop,units\n")
    (place / "good.toml").write_text(PROBLEM)
    (place / "broken.toml").write_text("kind = ")
    (place / "kind.toml").write_text('kind = "magic"')
    (place / "none.toml").write_text("mode = 1")
    return place


FORECAST = "--task forecast --target units --group shop --horizon 7"
WRONG = [(f"empty.csv {FORECAST}", "is empty"), (f"head.csv {FORECAST}", "no rows"), (f"text.csv {FORECAST}", "'abc'"), (f"other.csv {FORECAST}", "No column is called 'units'"),
         ("good.csv --task forecast --horizon 7", "--target COLUMN"), (f"good.csv {FORECAST} --horizon 40", "shorter --horizon"),
         (f"good.csv {FORECAST} --known price", "named as known ahead"), ("good.csv --target units --decide good.toml", "goes with --task forecast"),
         (f"good.csv {FORECAST} --decide broken.toml", "is not TOML"), (f"good.csv {FORECAST} --decide kind.toml", "magic"), (f"good.csv {FORECAST} --decide none.toml", "kind = "),
         (f"good.csv {FORECAST} --decide nowhere.toml", "no problem file"),
         (f"good.csv {FORECAST} --loss squared", "no loss 'squared'"), (f"good.csv {FORECAST} --worth unit=2 EUR", "--decide problem.toml")]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[w for w, _ in WRONG])
def test_wrong_words_are_answered_by_one_sentence_and_leave_nothing_behind(files, monkeypatch, capsys, words, said):
    monkeypatch.chdir(files)
    words = words.replace("unit=2 EUR", "unit=2_EUR").split()
    code, text = call(monkeypatch, capsys, "run", *[w.replace("_EUR", " EUR") for w in words])
    lines = [line for line in text.splitlines() if line.startswith("Error:")]
    assert code not in (0, 1), text
    assert len(lines) == 1, text
    assert said in lines[0]
    assert "Traceback" not in text
    assert not (files / "assay-runs").exists()


def test_a_bundle_that_meets_another_table_says_what_it_lacks_from_the_command_line(played, files, monkeypatch, capsys):
    for file, said in (("other.csv", "No column is called 'units'"), ("empty.csv", "is empty"), ("text.csv", "'abc'")):
        code, text = call(monkeypatch, capsys, "predict", played[1].winner, files / file)
        assert code in (2, 3), text
        assert said in text
        assert "Traceback" not in text
    code, text = call(monkeypatch, capsys, "predict", played[1].winner, files / "good.csv")
    assert code == 0
    assert text.splitlines()[0].startswith("shop,step,time,q0.1")
    assert len(text.splitlines()) == 1 + 3 * 7


@pytest.mark.slow
def test_the_demo_of_a_plant_goes_from_demand_to_a_schedule(tmp_path):
    words = ["demo", "production", "--time", "40s", "--out", str(tmp_path / "plant"), "--lang", "en"]
    done = subprocess.run([sys.executable, "-m", "assay.cli", *words], capture_output=True, text=True, timeout=300)  # its time runs from the start of its process
    assert done.returncode == 0, done.stdout + done.stderr
    costs = json.loads((tmp_path / "plant" / "production.json").read_text())["costs"]
    assert costs["oracle"] <= min(costs["plan"], costs["rule"]) * 1.01
    page = (tmp_path / "plant" / "production.html").read_text()
    assert page.count("<svg") >= 2
    assert "<script" not in page
