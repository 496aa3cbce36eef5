"""Tables of time stamps and values become series on an even grid: the step and the season are found, and what is wrong with a table is said in a sentence."""

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Schema
from assay.data.grid import at_step, frequency_of, steps_since, times_after, written
from assay.data.history import HISTORY, ORIGIN, PART, futures, histories, latest
from assay.data.origins import MOST_HISTORY
from assay.data.read_series import conform_series, history_given, read_series
from assay.errors import AssayError, InputError, TaskError

D = np.datetime64


def stamps(start, n, unit, step=1):
    return (D(start, unit) + step * np.arange(n)).astype("datetime64[us]")


def table(values, when, **more):
    return pl.DataFrame({"when": when, "y": np.asarray(values, dtype=float), **more})


def made(source, **options):
    reading = read_series(source, **{"target": "y"} | options)
    return reading.dataset, " ".join(map(str, reading.notes))


def known(data):
    """{(series, origin): (history, answer)} whatever the order of the rows."""
    when = data.frame[ORIGIN].to_list() if ORIGIN in data.frame.columns else [None] * len(data)
    return {(h.id, str(t), part): (h.values.tolist(), a.tolist(), h.covariates.tolist())
            for h, t, part, a in zip(histories(data), when, data.frame[PART], futures(data), strict=True)}


# ---- the grid

FREQUENCIES = [("1mo", stamps("2019-01", 40, "M")), ("3mo", stamps("2010-01", 24, "M", 3)), ("1y", stamps("1980", 30, "Y")), ("1w", stamps("2023-01-02", 60, "D", 7)),
               ("1d", stamps("2023-01-02", 90, "D")), ("30m", stamps("2023-01-02T00:00", 200, "m", 30)), ("1h", stamps("2023-01-02T00", 200, "h")),
               ("2mo", stamps("2015-02", 30, "M", 2)), ("4w", stamps("2015-01-05", 40, "D", 28)), ("30d", stamps("2015-01-05", 40, "D", 30)), ("15s", stamps("2023-01-02T00:00:00", 50, "s", 15)),
               ("20ms", stamps("2023-01-02T00:00:00.000", 50, "ms", 20))]


@pytest.mark.parametrize(("frequency", "when"), FREQUENCIES, ids=[f for f, _ in FREQUENCIES])
def test_the_step_is_found_with_gaps_in_any_order_and_every_stamp_has_its_step(frequency, when):
    rng = np.random.default_rng(1)
    kept = when[rng.permutation(np.r_[0, 1 + np.flatnonzero(rng.random(len(when) - 1) > 0.15)])]
    assert frequency_of(kept) == frequency
    at, off = steps_since(when, when[0], frequency)
    assert (at == np.arange(len(when))).all()
    assert off == 0
    assert (times_after(when[:1], frequency, np.arange(len(when))) == when).all()


def test_months_may_be_told_by_their_last_day_and_stay_there():
    ends = (np.arange(D("2022-02"), D("2025-02")).astype("datetime64[D]") - 1).astype("datetime64[us]")
    assert frequency_of(ends) == "1mo"
    assert (times_after(ends[:1], "1mo", np.arange(len(ends))) == ends).all()
    assert at_step(D("2024-02-29"), "1mo", 1) == D("2024-03-31")
    assert at_step(D("2024-01-30"), "1mo", 1) == D("2024-02-29")
    assert at_step(D("2024-01-30"), "1mo", 2) == D("2024-03-30")
    assert frequency_of(ends[2::3]) == "3mo"
    assert frequency_of(np.busday_offset(ends.astype("datetime64[D]"), 0, roll="backward")) == "1mo"


def test_a_week_without_weekends_goes_by_working_days():
    when = np.busday_offset("2023-01-02", np.arange(200)).astype("datetime64[us]")
    assert frequency_of(when) == "1b"
    assert frequency_of(np.delete(when, [20, 77])) == "1b"
    assert frequency_of(stamps("2023-01-02", 5, "D")) == "1d"
    assert frequency_of(stamps("2023-01-02", 60, "D")) == "1d"
    at, off = steps_since(when, when[0], "1b")
    assert (at == np.arange(200)).all()
    assert off == 0
    assert (times_after(when[:1], "1b", np.arange(200)) == when).all()
    assert at_step(when[10], "1b", -10) == when[0]
    assert steps_since(np.array([D("2023-01-07T00:00")]), D("2023-01-06T00:00"), "1b") == (np.array([0]), 1)  # a Saturday counts for its Friday


@given(start=st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2040, 1, 1)), frequency=st.sampled_from(["7m", "1h", "1d", "2w", "1b", "1mo", "3mo", "1y"]), step=st.integers(0, 500))
@settings(max_examples=60)
def test_a_step_and_its_time_are_the_same_thing(start, frequency, step):
    begin = at_step(D(start.replace(microsecond=0), "us"), frequency, 0)  # a start on a weekend is a Friday
    assert steps_since(np.array([at_step(begin, frequency, step)]), begin, frequency)[0][0] == step


def test_uneven_clocks_are_read_for_what_they_mean_and_local_midnights_stay_whole_days():
    rng = np.random.default_rng(2)
    shaky = stamps("2024-01-01T00:00", 300, "m", 10) + rng.integers(-40, 40, 300).astype("timedelta64[s]")
    assert frequency_of(shaky) == "10m"
    assert (steps_since(shaky, shaky[0], "10m")[0] == np.arange(300)).all()
    for zone in ("Europe/London", "Europe/Berlin", "America/New_York"):
        local = pl.datetime_range(dt.datetime(2023, 1, 1), dt.datetime(2023, 12, 31), "1d", time_zone=zone, eager=True).dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        instants = local.to_numpy().astype("datetime64[us]")
        assert frequency_of(instants) == "1d"
        assert (steps_since(instants, instants[0], "1d")[0] == np.arange(365)).all()


def test_series_that_begin_at_other_minutes_do_not_make_the_step_smaller():
    assert frequency_of(stamps("2024-01-01T00:00", 50, "m", 60), stamps("2024-01-01T00:30", 50, "m", 60)) == "1h"


def test_times_are_written_without_a_time_of_day_where_all_are_midnight():
    assert written(stamps("2026-02-16", 2, "D")) == ("2026-02-16", "2026-02-17")
    assert written(stamps("2026-02-16T23", 2, "h")) == ("2026-02-16 23:00:00", "2026-02-17 00:00:00")


# ---- from tables to rows


@pytest.mark.parametrize(("season", "n", "start", "unit"), [(24, 24 * 20, "2024-01-01T00", "h"), (7, 140, "2024-01-01", "D"), (12, 72, "2018-01", "M"), (1, 200, "2024-01-01", "D")])
def test_the_season_is_found_and_none_where_there_is_none(season, n, start, unit):
    rng, t = np.random.default_rng(3), np.arange(n)
    values = 50 + 0.05 * t + (8 * np.sin(2 * np.pi * t / season) if season > 1 else 0) + rng.normal(0, 2, n)
    _data, notes = made(table(values, stamps(start, n, unit)), horizon=max(4, season // 2))
    assert (f"a season of {season} steps" in notes) == (season > 1)
    assert ("no season" in notes) == (season == 1)


def test_stocks_go_by_working_days_with_a_week_of_five_and_no_gaps():
    t = np.arange(160)
    data, notes = made(table(100 + 3.0 * (t % 5), np.busday_offset("2023-01-02", t).astype("datetime64[us]")), horizon=5)
    assert "a season of 5 steps" in notes
    assert "working days" in notes
    assert "missing" not in notes
    assert (data.frame[ORIGIN].dt.weekday() <= 5).all()


def long_table(seed=0, series=3, n=50):
    rng = np.random.default_rng(seed)
    return pl.concat([table(rng.normal(size=n).round(3), stamps("2024-01-01", n, "D"), shop=[f"s{s}"] * n, price=rng.normal(size=n).round(3)) for s in range(series)])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_a_table_in_any_order_of_rows_gives_the_same_rows(seed):
    frame = long_table()
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=seed)
    options = {"group": "shop", "horizon": 5, "known": ("price",)}
    (plain, _), (mixed, notes) = made(frame, **options), made(shuffled, **options)
    assert known(plain) == known(mixed)
    assert "not in order" in notes


def test_wide_and_long_forms_of_the_same_series_give_the_same_histories_gaps_and_all():
    days = [str(d) for d in np.arange(D("2024-01-01"), D("2024-02-15"))]
    rng = np.random.default_rng(4)
    values = {f"s{s}": [None if rng.random() < 0.1 or i < 3 * s else round(float(v), 3) for i, v in enumerate(rng.normal(size=len(days)))] for s in range(3)}
    rows = pl.DataFrame([{"id": name, **dict(zip(days, cells, strict=True))} for name, cells in values.items()]).drop(days[20])
    melted = rows.unpivot(index="id", variable_name="when", value_name="y").drop_nulls("y")
    backwards = rows.select("id", *reversed(rows.columns[1:]))
    long_form, wide_form, turned = made(melted, group="id", horizon=4)[0], made(rows, target=None, horizon=4)[0], made(backwards, target=None, horizon=4)[0]
    strip = {key: value[:2] for key, value in known(long_form).items()}
    assert str(strip) == str({key: value[:2] for key, value in known(wide_form).items()}) == str({key: value[:2] for key, value in known(turned).items()})


def test_a_wide_table_keeps_its_number_column_of_names_out_of_the_steps():
    frame = pl.DataFrame([{"id": s, "region": "north", **{f"d_{t}": float(10 * s + t) for t in (2, 1, *range(3, 31))}} for s in range(1, 5)])
    data, notes = made(frame, target=None, horizon=3)
    one = next(h for h in histories(data) if h.id == "2")
    assert one.values[:3].tolist() == [21, 22, 23]
    assert "left out: region" in notes


@given(data=st.data())
@settings(max_examples=25)
def test_nothing_at_or_after_an_origin_reaches_the_rows_that_are_asked_from_it_or_before(data):
    n, h = data.draw(st.integers(24, 60)), data.draw(st.integers(1, 5))
    values = np.array(data.draw(st.lists(st.one_of(st.floats(-1e3, 1e3, width=32), st.just(float("nan"))), min_size=n, max_size=n)))
    values[[0, -1]] = 1.0
    price = np.arange(n, dtype=float)
    change = data.draw(st.integers(0, n - 1))
    when = stamps("2024-01-01", n, "D")
    try:
        before = made(table(np.nan_to_num(values, nan=7.0), when, price=price), horizon=h, season=3)[0]
    except TaskError:
        return
    other = np.nan_to_num(values, nan=7.0)
    other[change] += 100.0
    after = made(table(other, when, price=np.where(np.arange(n) == change, -5.0, price)), horizon=h, season=3)[0]
    first = before.asked()
    same = [i for i, t in enumerate(before.frame[ORIGIN].to_numpy()) if t <= when[change]]
    assert len(before) == len(after)
    assert first.schema.target is None
    assert HISTORY in first.frame.columns
    assert first.frame[same].equals(after.asked().frame[same])
    later = [i for i, t in enumerate(before.frame[ORIGIN].to_numpy()) if t > when[change]]
    assert all(first.frame[HISTORY][i] != after.asked().frame[HISTORY][i] for i in later)  # the test can fail: what came before an origin is there


def test_no_origin_teaches_that_is_later_than_one_that_judges_and_each_answer_follows_its_history():
    data, _ = made(long_table(series=4, n=90), group="shop", horizon=6)
    for name in {h.id for h in histories(data)}:
        own = data.frame.filter(pl.col("shop") == name)
        last = {part: own.filter(pl.col(PART) == part)[ORIGIN] for part in ("train", "valid", "test")}
        assert len(last["train"]) == 1
        assert last["train"].max() < last["valid"].min() <= last["valid"].max() < last["test"].min()
        values = long_table(series=4, n=90).filter(pl.col("shop") == name)["y"].to_numpy().astype(np.float32)
        for one, answer in zip(histories(data), futures(data), strict=True):
            if one.id == name:
                np.testing.assert_array_equal(np.concatenate([one.values, answer]), values[: len(one.values) + 6])


def test_a_series_longer_than_a_judging_history_is_learnt_to_its_end():
    n = MOST_HISTORY + 1500
    values = np.random.default_rng(5).normal(size=n).round(2)
    data, _ = made(table(values, stamps("2023-01-01T00", n, "h")), horizon=24, season=24)
    assert max(len(h.values) for h in histories(data.take(np.flatnonzero(data.frame[PART].to_numpy() == "test")))) == MOST_HISTORY
    learnt = latest(data)[0].values
    np.testing.assert_array_equal(learnt, values.astype(np.float32))


def test_a_forecast_into_a_gap_is_not_judged():
    values = np.r_[np.arange(60.0), np.full(20, np.nan), np.arange(20.0)]
    data, _ = made(table(values, stamps("2024-01-01", 100, "D")), horizon=5, season=1)
    assert np.isfinite(futures(data)[data.frame[PART].to_numpy() != "train"]).any(axis=1).all()


# ---- bad input: one sentence each

N = 60


def bad(name):
    when, y = stamps("2024-01-01", N, "D"), np.arange(N) % 7 + 1.0
    text = [str(t)[:10] for t in when]
    return {
        "text": (pl.DataFrame({"when": text, "y": ["abc"] * N}), {}, "'abc'"),
        "empty": (pl.DataFrame({"when": text, "y": [None] * N}, schema_overrides={"y": pl.Float64}), {}, "no values at all"),
        "no target": (table(y, when), {"target": "z"}, "No column is called 'z'"),
        "target not said": (table(y, when), {"target": None}, "--target COLUMN"),
        "one point": (table(y[:1], when[:1]), {}, "nothing to forecast"),
        "one row a group": (table(y, when, shop=[f"s{i}" for i in range(N)]), {"group": "shop"}, "Each of the 60 series by 'shop' has one value"),
        "horizon": (table(y, when), {"horizon": 50}, "shorter --horizon"),
        "time that is none": (pl.DataFrame({"when": ["soon"] * N, "y": y}), {"time": "when"}, "when"),
        "empty time": (table(y, [None, *when[1:].astype(dt.datetime)]), {}, "1 empty or unreadable"),
        "empty part of a time": (pl.DataFrame({"year": [2020, None, *[2021] * 10], "month": list(range(1, 13)), "y": y[:12]}), {}, "'year' has 1 empty"),
        "many series": (table(np.tile(y, 4), np.tile(when, 4)), {}, "--group"),
        "events": (table(y[:30], D("2024-01-01", "us") + np.cumsum(np.random.default_rng(0).exponential(2e9, 30)).astype("timedelta64[us]").astype("timedelta64[s]")), {}, "list of events"),
        "known is no number": (table(y, when, note=["a"] * N), {"known": ("note",)}, "no column of numbers"),
        "wide text": (pl.DataFrame([{"id": "a", **{f"t{i}": "x" if i == 5 else str(i) for i in range(30)}}]), {"target": None}, "'t5' holds 'x' in row 1"),
        "wide twice": (pl.DataFrame([{"id": "a", **{f"t{i}": float(i) for i in range(30)}}] * 2), {"target": None}, "'a' stands twice"),
        "wide without rows": (pl.DataFrame({"id": [], **{f"t{i}": [] for i in range(30)}}, schema_overrides={f"t{i}": pl.Float64 for i in range(30)}), {"target": None}, "but no rows"),
    }[name]


@pytest.mark.parametrize("name", ["text", "empty", "no target", "target not said", "one point", "one row a group", "horizon", "time that is none", "empty time", "empty part of a time",
                                  "many series", "events", "known is no number", "wide text", "wide twice", "wide without rows"])
def test_what_cannot_be_forecast_is_one_sentence(name):
    frame, options, said = bad(name)
    with pytest.raises(AssayError) as error:
        made(frame, **{"horizon": 4} | options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.text.to("zh") != str(error.value)


def test_what_is_mended_is_said():
    when, y = stamps("2024-01-01", N, "D"), np.arange(N) % 7 + 1.0
    rows = table(y, when)
    twice = pl.concat([rows, rows.head(3).with_columns(y=pl.lit(99.0))])
    data, notes = made(twice, horizon=4)
    assert "3 time stamps stand twice" in notes
    assert histories(data)[0].values[0] == 50.0
    assert "10 steps are missing" in made(rows.filter(~pl.col("when").is_in(rows["when"][20:30].to_list())), horizon=4)[1]
    assert "not in order" in made(rows.reverse(), horizon=4)[1]
    negative, zero = made(table(-y, when), horizon=4)[0], made(table(0 * y, when), horizon=4)[0]
    assert (futures(negative) < 0).all()
    assert (futures(zero) == 0).all()


def test_offsets_from_utc_are_taken_off_and_said_and_so_are_cells_without_one():
    utc = stamps("2024-10-26T00", 48, "h")
    local = [f"{str(t + np.timedelta64(h, 'h'))[:16]}+0{h}:00" for t in utc for h in [2 if t < D("2024-10-27T01") else 1]]
    data, notes = made(pl.DataFrame({"when": local, "y": np.arange(48.0)}), horizon=3)
    assert "carry offsets from UTC (+01:00, +02:00)" in notes
    assert "twice" not in notes
    assert "missing" not in notes
    assert histories(data)[-1].values.tolist() == list(range(45))
    assert data.frame[ORIGIN][-1] == dt.datetime(2024, 10, 27, 21)
    mixed = [t[:16] if i < 5 else t for i, t in enumerate(local)]
    assert "5 of 48 times in 'when' carry no offset" in made(pl.DataFrame({"when": mixed, "y": np.arange(48.0)}), horizon=3)[1]
    zoned = pl.DataFrame({"when": pl.Series(utc).dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Shanghai"), "y": np.arange(48.0)})
    assert "are in Asia/Shanghai" in made(zoned, horizon=3)[1]


def test_local_hours_are_doubled_and_lost_with_the_clocks_and_that_is_said():
    utc = pl.datetime_range(dt.datetime(2024, 3, 1), dt.datetime(2024, 11, 15), "1h", time_zone="UTC", eager=True)
    local = utc.dt.convert_time_zone("Europe/Berlin").dt.replace_time_zone(None)
    _data, notes = made(pl.DataFrame({"when": local, "y": np.arange(len(local)) % 24 + 0.0}), horizon=24)
    assert "1 time stamps stand twice" in notes
    assert "clocks are set back" in notes
    assert "1 steps are missing" in notes
    assert "a season of 24" in notes
    assert made(pl.DataFrame({"when": [*local[:50], local[20]], "y": np.arange(51.0)}), horizon=3)[1].count("clocks") == 0


def test_flags_are_numbers_whole_numbers_tell_series_apart_and_a_column_may_be_called_by():
    n = 40
    frame = pl.concat([table(np.arange(n) + s, stamps("2024-01-01", n, "D"), store=[s] * n, by=["x" if s else "z"] * n, holiday=[t % 9 == 0 for t in range(n)]) for s in range(3)])
    data, notes = made(frame, horizon=4, known=("holiday",))
    assert "Each 'store' is a series of its own" in notes
    assert {h.id for h in histories(data)} == {"0", "1", "2"}
    assert histories(data)[0].names_ahead == ("holiday",)
    assert set(np.unique(histories(data)[0].covariates)) == {0.0, 1.0}
    assert histories(data)[0].static == {"by": "z"}


# ---- new rows for a trained model


@pytest.fixture(scope="module")
def trained():
    n = 60
    frame = pl.concat([table(np.arange(n) % 7 + s, stamps("2024-01-01", n, "D"), shop=[f"s{s}"] * n, region=["north" if s % 2 else "south"] * n, promo=(np.arange(n) % 5 == 0).astype(int),
                             stock=np.arange(n) * 0.5) for s in range(4)])
    return frame, made(frame, group="shop", horizon=3, known=("promo",))[0].schema


def ahead_of(frame, shop="s1", steps=3):
    """The rows of one shop, and of the next days with what is known of them."""
    own = frame.filter(pl.col("shop") == shop)
    more = own.tail(steps).with_columns(pl.col("when") + dt.timedelta(days=steps), y=pl.lit(None, dtype=pl.Float64), stock=pl.lit(None, dtype=pl.Float64))
    return pl.concat([own, more])


def test_one_series_alone_is_asked_with_all_that_it_was_trained_with(trained):
    frame, schema = trained
    one = histories(conform_series(ahead_of(frame), schema))[0]
    assert one.id == "s1"
    assert one.static == {"region": "north"}
    assert len(one.values) == 60
    assert one.names == ("promo", "stock")
    assert one.ahead.shape == (3, 1)
    assert one.origin.astype("datetime64[D]") == D("2024-03-01")
    same = histories(conform_series(ahead_of(frame).with_columns(pl.col("when").cast(pl.String)).to_dicts(), schema))[0]
    np.testing.assert_array_equal(same.values, one.values)
    np.testing.assert_array_equal(same.ahead, one.ahead)


@pytest.mark.parametrize(("change", "said"), [
    (lambda f: f.filter(pl.col("y").is_not_null()), "'promo' must be known for the next 3 steps of 's1'"),
    (lambda f: f.drop("promo"), "no column of numbers is called so"),
    (lambda f: f.drop("stock"), "lack columns the model was trained with: stock"),
    (lambda f: f.drop("region"), "lack columns the model was trained with: region"),
    (lambda f: f.drop("when"), "No column is called 'when'"),
    (lambda f: f.drop("shop"), "No column is called 'shop'"),
    (lambda f: f.rename({"y": "sales"}), "No column is called 'y'"),
    (lambda f: f.with_columns(stock=pl.lit("many")), "'stock' holds 'many' in row 1"),
    (lambda f: f.with_columns(y=pl.lit(None, dtype=pl.Float64)), "no values at all"),
    (lambda f: [1, 2], "Row 1 is no object"), (lambda f: [], "no rows"), (lambda f: [{"when": "2024-01-01", "y": [1]}], "no single value"),
    (lambda f: [{"when": "2024-01-01", "y": "a", "shop": "s1", "region": "n", "promo": 1, "stock": 1}], "'a'")])
def test_rows_that_do_not_fit_the_model_are_refused_in_one_sentence(trained, change, said):
    frame, schema = trained
    with pytest.raises(AssayError) as error:
        conform_series(change(ahead_of(frame)), schema)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_of_a_wide_table_says_so_when_it_is_asked_with_another():
    frame = pl.DataFrame([{"id": f"s{s}", **{f"2024-{m:02d}": float(s + m) for m in range(1, 13)}, **{f"2025-{m:02d}": float(s - m) for m in range(1, 13)}} for s in range(5)])
    schema: Schema = made(frame, target=None, horizon=2)[0].schema
    longer = frame.with_columns(**{"2026-01": pl.lit(3.0)})
    assert histories(conform_series(longer, schema))[0].origin.astype("datetime64[D]") == D("2026-02-01")
    with pytest.raises(InputError, match="one series a row"):
        conform_series(pl.DataFrame({"when": ["2024-01-01"], "y": [1.0]}), schema)
    undated = frame.rename({n: f"t{i}" for i, n in enumerate(frame.columns[1:])})
    assert histories(conform_series(undated, schema))[0].origin is None


GIVEN = {"history": [1, 2, None, 4, 5], "promo": [0, 1, 0, 0, 1, 1, 0, 0], "stock": [1, 1, 1, 1, 1], "region": "north", "shop": "s9", "origin": "2024-03-01"}


def test_a_series_may_be_given_as_lists(trained):
    one = histories(history_given(GIVEN, trained[1].without_target()))[0]
    assert one.id == "s9"
    assert one.values[-1] == 5
    assert np.isnan(one.values[2])
    assert one.ahead.ravel().tolist() == [1, 0, 0]
    assert str(one.origin)[:10] == "2024-03-01"
    assert histories(history_given({k: v for k, v in GIVEN.items() if k != "origin"}, trained[1].without_target()))[0].origin is None


@pytest.mark.parametrize(("change", "said"), [
    ({"history": ["a"]}, "'history' has to be a list of numbers"), ({"history": [[1]]}, "'history' has to be a list"), ({"history": [None]}, "holds no value"),
    ({"history": [float("inf")]}, "holds no value"), ({"history": []}, "holds no value"), ({"history": [10**400]}, "'history' has to be"), ({"promo": "1"}, "'promo' has to be a list"),
    ({"promo": [1, 2]}, "expected 8"), ({"stock": [{}] * 5}, "'stock' has to be a list"), ({"stock": [1]}, "expected 5"), ({"promo": [0, 1, 0, 0, 1, None, 0, 0]}, "must be known"),
    ({"origin": 7}, "'7' is no time"), ({"origin": "soon"}, "'soon' is no time"), ({"region": ["a"]}, "a word is expected"), ({"region": {"a": 1}}, "a word is expected")])
def test_lists_that_are_none_are_refused_in_one_sentence(trained, change, said):
    with pytest.raises(InputError) as error:
        history_given(GIVEN | change, trained[1].without_target())
    assert said in str(error.value)
    for name in ("region", "stock"):
        with pytest.raises(InputError, match=f"lack columns the model was trained with: {name}"):
            history_given({k: v for k, v in GIVEN.items() if k != name}, trained[1].without_target())
