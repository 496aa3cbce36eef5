"""Looking before training: what is planted is found and named, what is honest is left in peace, and structure is seen."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.inspect import findings, structure
from assay.data.inspect.after import names_an_outcome
from assay.data.inspect.base import Finding
from assay.data.inspect.names import names_a_time, names_a_unit
from assay.data.inspect.relate import agreement, intraclass, serial
from assay.data.read import read

SHARED = Path(__file__).parents[2] / "shared" / "data"
real = pytest.mark.real
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the folder of open datasets is not beside the checkout")


def dataset(frame, target="y"):
    return read(frame, target=target).dataset


def look(frame, target="y", *, labels, seconds=30.0):
    return findings(dataset(frame, target), labels=labels, seed=0, seconds=seconds)


def codes(found, level=None):
    return {f.code for f in found if level in (None, f.level)}


def table(rng, n=600, *, labels=True, noise=1.0):
    """Four honest numbers and a category; the answer depends on two of them."""
    x = rng.normal(size=(n, 4))
    shop = rng.integers(0, 4, n)
    signal = x[:, 0] - x[:, 1] + 0.5 * shop + noise * rng.normal(size=n)
    y = np.where(signal > np.median(signal), "yes", "no") if labels else signal
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "shop": [f"shop {k}" for k in shop], "y": y})


# ---- leaks


@settings(max_examples=5)
@given(seed=st.integers(0, 1000), form=st.sampled_from(["same", "cents", "minus", "log"]))
def test_a_copy_of_an_amount_is_a_leak_in_any_unit(seed, form):
    frame = table(np.random.default_rng(seed), n=200, labels=False)
    y = frame["y"]
    other = {"same": y, "cents": (y * 100).round(2), "minus": -3 * y + 7, "log": (y - y.min() + 1).log()}[form]
    found = look(frame.with_columns(other.alias("honest_name")), labels=False)
    assert [(f.level, f.columns) for f in found if f.code == "leak"] == [("leak", ("honest_name",))]


def test_the_answer_under_other_words_is_a_leak():
    frame = table(np.random.default_rng(1))
    found = look(frame.with_columns(pl.col("y").replace({"yes": "J", "no": "N"}).alias("jn")), labels=True)
    assert [(f.level, f.columns) for f in found if f.code == "leak"] == [("leak", ("jn",))]


def test_a_noisy_copy_that_says_far_more_than_all_others_is_named():
    rng = np.random.default_rng(2)
    frame = table(rng, labels=False)
    found = look(frame.with_columns((pl.col("y") + 0.02 * pl.Series(rng.normal(size=600))).alias("measured")), labels=False)
    assert [f.columns for f in found if f.code == "leak"] == [("measured",)]


def test_honest_tables_have_no_leak_however_strong_their_best_column():
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        bunch = getattr(datasets, f"load_{name}")()
        labels = name != "diabetes"
        answers = [str(bunch.target_names[k]) for k in bunch.target] if labels else bunch.target
        frame = pl.DataFrame({str(c): bunch.data[:, i] for i, c in enumerate(bunch.feature_names)}).with_columns(pl.Series("y", answers))
        found = look(frame, labels=labels)
        assert not [f for f in found if f.level == "leak" or f.code == "leak"], name


def test_one_of_several_strong_columns_is_no_leak():
    """Odour and gill colour of mushrooms: each nearly decides, and the others know it too."""
    rng = np.random.default_rng(3)
    poison = rng.random(2000) < 0.5
    columns = {f"c{i}": [("abc" if p != (rng.random() < 0.01) else "def")[rng.integers(3)] for p in poison] for i in range(5)}
    found = look(pl.DataFrame({**columns, "y": np.where(poison, "poisonous", "edible")}), labels=True)
    assert "leak" not in codes(found)


def test_an_easy_question_has_no_leaks():
    y = np.random.default_rng(4).integers(0, 2, 300)
    frame = pl.DataFrame({f"x{i}": 10.0 * y + np.random.default_rng(i).normal(size=300) for i in range(6)}).with_columns(pl.Series("y", [f"kind {k}" for k in y]))
    assert "leak" not in codes(look(frame, labels=True))


def machines(rng, n=3000):
    heat, load = rng.normal(size=n), rng.normal(size=n)
    causes = [rng.random(n) < 0.02 * np.exp(0.5 * heat + k * 0.2 * load) for k in range(3)]
    chance = rng.random(n) < 0.01
    failed = np.any(causes, axis=0) | (rng.random(n) < 0.001)
    flags = {name: c.astype(int) for name, c in zip(("TWF", "HDF", "PWF"), causes, strict=True)} | {"RNF": chance.astype(int)}
    return pl.DataFrame({"heat": heat, "load": load, "ABC": rng.integers(0, 2, n), "kind": rng.choice(["L", "M"], n), **flags, "failure": failed.astype(int)})


def test_flags_that_imply_the_answer_are_named_with_the_one_that_stands_beside_them():
    found = [f for f in look(machines(np.random.default_rng(4)), "failure", labels=True) if f.level == "leak"]
    assert [f.columns for f in found] == [("TWF", "HDF", "PWF", "RNF")]
    assert found[0].figure["beside"] == ["RNF"]


@pytest.mark.parametrize("make", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b], ids=["sum", "difference", "product"])
def test_parts_that_make_up_an_amount_are_named(make):
    rng = np.random.default_rng(5)
    a, b = rng.integers(1, 200, 400), rng.integers(1, 90, 400)
    frame = pl.DataFrame({"a": a, "b": b, "other": rng.normal(size=400), "y": make(a, b).astype(float)})
    assert [set(f.columns) for f in look(frame, labels=False) if f.level == "leak"] == [{"a", "b"}]


def test_a_crooked_formula_of_nature_is_no_leak():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(400, 5))
    frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(5)}, "y": 2.31 * x[:, 0] - 0.47 * x[:, 1] + 1.9 * x[:, 2]})
    assert not [f for f in look(frame, labels=False) if f.level == "leak"]


def test_a_word_that_only_one_class_has_gives_the_answer_away():
    rng = np.random.default_rng(7)
    words = np.array(["parcel", "late", "invoice", "thanks", "refund", "colour", "size", "again"])
    y = rng.choice(["spam", "ham"], 400)
    texts = [" ".join(rng.choice(words, 9)) + (" [SPAM]" if k == "spam" else "") for k in y]
    found = [f for f in look(pl.DataFrame({"text": texts, "y": y}), labels=True) if f.code == "leak"]
    assert [f.level for f in found] == ["leak"]
    assert "[spam]" in str(found[0].text)


# ---- empty cells


def test_empty_cells_that_follow_the_answer_are_found_and_others_are_not():
    rng = np.random.default_rng(8)
    frame = table(rng, n=1500)
    yes = (frame["y"] == "yes").to_numpy()
    frame = frame.with_columns(told=pl.Series(np.where(rng.random(1500) < np.where(yes, 0.6, 0.05), np.nan, rng.normal(size=1500))).fill_nan(None),
                               chance=pl.Series(np.where(rng.random(1500) < 0.3, np.nan, rng.normal(size=1500))).fill_nan(None))
    found = [f for f in look(frame, labels=True) if f.code == "missing_tells"]
    assert [(f.level, f.columns) for f in found] == [("warning", ("told",))]


def test_gaps_filled_class_by_class_are_a_leak():
    rng = np.random.default_rng(9)
    frame = table(rng, n=1000)
    yes = (frame["y"] == "yes").to_numpy()
    filled = np.where(rng.random(1000) < 0.2, np.where(yes, 0.3117, -0.2981), rng.normal(size=1000))
    found = look(frame.with_columns(insulin=pl.Series(filled)), labels=True)
    assert [(f.level, f.columns) for f in found if f.code == "missing_tells"] == [("leak", ("insulin",))]


# ---- structure


def patients(rng, *, name="patient_id", near=0.2, labels=True, shuffle=False):
    sizes = rng.integers(3, 15, 60)
    g = np.repeat(np.arange(60), sizes)
    base = rng.normal(size=(60, 6))
    x = base[g] + near * rng.normal(size=(len(g), 6))
    own = base @ rng.normal(size=6) * 0.3 + rng.normal(size=60)
    y = np.where(own[g] > 0, "ill", "well") if labels else own[g] + 0.3 * rng.normal(size=len(g))
    frame = pl.DataFrame({name: rng.permutation(60)[g] + 100, **{f"m{i}": x[:, i] for i in range(6)}, "y": y})
    return frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6))) if shuffle else frame


def sales(rng, *, when="date", trend=10.0, season=4.0, n=700):
    t = np.arange(n)
    promo = rng.random(n) < 0.2
    y = 50 + trend * t / n + season * np.sin(2 * np.pi * t / 365) + 3 * (t % 7 > 4) + 5 * promo + 3 * rng.normal(size=n)
    columns = {"weekday": t % 7, "promo": promo.astype(int), "price": 10 + 0.3 * rng.normal(size=n), "y": y}
    stamps = {"date": pl.Series(np.datetime64("2023-01-01") + t), "day": t + 1}
    return pl.DataFrame({**({when: stamps[when]} if when else {}), **columns})


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["patient_id", "Machine", "病人编号", "g"]), labels=st.booleans(), shuffle=st.booleans())
def test_rows_of_one_patient_belong_together_whatever_the_column_is_called(seed, name, labels, shuffle):
    found = structure(dataset(patients(np.random.default_rng(seed), name=name, labels=labels, shuffle=shuffle)), labels=labels, seed=seed)
    assert (found.kind, found.column) == ("group", name)


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["city", "brand", "k"]), labels=st.booleans())
def test_a_category_that_comes_again_is_no_group_even_if_it_matters(seed, name, labels):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(200, 1500))
    x, kind = rng.normal(size=(n, 5)), rng.integers(0, 30, n)
    signal = x @ rng.normal(size=5) + rng.normal(size=30)[kind] + rng.normal(size=n)
    frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(5)}, name: kind, "age": rng.integers(18, 90, n),
                          "signup": pl.Series(np.datetime64("2020-01-01") + rng.integers(0, 900, n)), "y": np.where(signal > 0, "a", "b") if labels else signal})
    assert structure(dataset(frame), labels=labels, seed=seed).kind == "random"


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6))
def test_a_key_of_patients_that_means_nothing_is_no_group(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(800, 4))
    frame = pl.DataFrame({"patient_id": rng.integers(0, 100, 800), **{f"x{i}": x[:, i] for i in range(4)}, "y": x[:, 0] + rng.normal(size=800)})
    assert structure(dataset(frame), labels=False, seed=seed).kind == "random"


@pytest.mark.parametrize(("when", "kind", "column"), [("date", "time", "date"), ("day", "time", "day"), (None, "order", None)])
def test_sales_with_trend_and_season_are_split_forward_in_time(when, kind, column):
    found = [structure(dataset(sales(np.random.default_rng(seed), when=when)), labels=False, seed=seed) for seed in range(3)]
    assert {(s.kind, s.column) for s in found} == {(kind, column)}


def test_the_same_sales_shuffled_and_without_a_date_are_random():
    frame = sales(np.random.default_rng(0), when=None).sample(fraction=1.0, shuffle=True, seed=1)
    assert structure(dataset(frame), labels=False, seed=0).kind == "random"


def test_a_date_that_says_nothing_does_not_change_the_split():
    assert structure(dataset(sales(np.random.default_rng(1), trend=0, season=0)), labels=False, seed=0).kind == "random"


def test_patients_that_were_seen_one_after_the_other_are_groups_and_no_course_of_time():
    frame = patients(np.random.default_rng(2), labels=False)
    frame = frame.with_columns(seen=pl.Series(np.datetime64("2024-01-01") + np.arange(frame.height)))
    found = structure(dataset(frame), labels=False, seed=0)
    assert (found.kind, found.column) == ("group", "patient_id")


def test_year_month_and_day_in_three_columns_make_an_order():
    frame = sales(np.random.default_rng(3))
    dates = frame["date"]
    frame = frame.drop("date").with_columns(year=dates.dt.year(), month=dates.dt.month(), day=dates.dt.day())
    assert structure(dataset(frame), labels=False, seed=0).kind == "order"


def test_a_file_sorted_by_its_answer_is_random_but_said_to_be_sorted():
    frame = table(np.random.default_rng(4)).sort("y")
    assert structure(dataset(frame), labels=True, seed=0).kind == "random"
    assert "order_tells" in codes(look(frame, labels=True), "warning")


def test_structure_is_the_same_every_time():
    data = dataset(patients(np.random.default_rng(5)))
    assert structure(data, labels=True, seed=3) == structure(data, labels=True, seed=3)


def visits(rng):
    """Age and sex belong to the patient, laboratory values to the visit; what makes patients differ shows in both."""
    g = np.repeat(np.arange(80), rng.integers(3, 12, 80))
    own = rng.normal(size=80)
    lab = 0.5 * rng.normal(size=(len(g), 4)) + own[g, None] * rng.normal(size=4) * 0.5
    ill = own[g] + 0.5 * lab[:, 0] + 0.7 * rng.normal(size=len(g)) > 0
    return pl.DataFrame({"patient": [f"P{i:04d}" for i in g], "age": rng.integers(20, 90, 80)[g], "sex": rng.choice(["f", "m"], 80)[g],
                         **{f"lab{i}": lab[:, i] for i in range(4)}, "y": np.where(ill, "ill", "well")})


def batches(rng):
    b = np.repeat(np.arange(30), 20)
    x = rng.normal(size=(600, 4))
    return pl.DataFrame({"batch": b + 1, **{f"x{i}": x[:, i] for i in range(4)}, "y": x[:, 0] + rng.normal(size=30)[b] + 0.5 * rng.normal(size=600)})


def shops(rng):
    t, s = np.repeat(np.arange(200), 6), np.tile(np.arange(6), 200)
    y = 5 * rng.normal(size=6)[s] + np.cumsum(rng.normal(size=200))[t] + rng.normal(size=1200)
    return pl.DataFrame({"store": [f"S{k}" for k in s], "week": pl.Series(np.datetime64("2022-01-03") + 7 * t), "promo": rng.integers(0, 2, 1200), "price": rng.normal(size=1200), "y": y})


def fraud(rng):
    """What a sign means turns round in the middle: no level moves, but a model of the past is wrong about the future."""
    t = np.sort(rng.integers(0, 365 * 86400, 3000))
    x = rng.normal(size=(3000, 4))
    turn = np.where(np.arange(3000) < 1500, 1, -1)
    y = rng.random(3000) < 1 / (1 + np.exp(-(1.5 * turn * x[:, 0] + x[:, 1])))
    return pl.DataFrame({"timestamp": pl.Series(np.datetime64("2023-01-01", "us") + t.astype("timedelta64[s]").astype("timedelta64[us]")),
                         **{f"x{i}": x[:, i] for i in range(4)}, "y": np.where(y, "fraud", "fine")})


def houses(rng):
    """Sorted by place, as a register is; the place is among the inputs."""
    lat, lon = rng.uniform(0, 10, 2000), rng.uniform(0, 10, 2000)
    order = np.lexsort((lon, lat.round()))
    lat, lon = lat[order], lon[order]
    return pl.DataFrame({"lat": lat, "lon": lon, "rooms": rng.integers(1, 8, 2000), "y": 3 * np.sin(lat) + 2 * np.cos(lon) + 0.7 * rng.normal(size=2000)})


@pytest.mark.parametrize(("make", "kind", "column"), [(visits, "group", "patient"), (batches, "group", "batch"), (shops, "time", "week"), (fraud, "time", "timestamp"),
                                                      (houses, "random", None)])
def test_structure_is_seen_where_it_is_and_only_there(make, kind, column):
    for seed in range(2):
        frame = make(np.random.default_rng(seed))
        found = structure(dataset(frame), labels=frame["y"].dtype == pl.String, seed=seed)
        assert (found.kind, found.column) == (kind, column)


def test_a_leak_does_not_hide_that_rows_belong_together():
    frame = patients(np.random.default_rng(6)).with_columns(result=pl.col("y"))
    assert structure(dataset(frame), labels=True, seed=0).column == "patient_id"
    assert {f.columns for f in look(frame, labels=True) if f.level == "leak"} == {("result",)}


# ---- copies, conflicts, gaps and the rest


@settings(max_examples=4)
@given(seed=st.integers(0, 1000), copies=st.integers(5, 60))
def test_exact_copies_are_counted(seed, copies):
    frame = table(np.random.default_rng(seed), n=300)
    found = look(pl.concat([frame, frame.head(copies)]), labels=True)
    assert [f.figure["copies"] for f in found if f.code == "duplicates"] == [copies]


def test_rows_measured_twice_are_near_copies_and_smooth_data_have_none():
    rng = np.random.default_rng(6)
    frame = table(rng, n=900, labels=False)
    assert "near_duplicates" not in codes(look(frame, labels=False))
    again = frame.head(60).with_columns((pl.col(f"x{i}") + 1e-3 * pl.Series(rng.normal(size=60))) for i in range(4))
    counted = [f.figure["near_copies"] for f in look(pl.concat([frame, again]), labels=False) if f.code == "near_duplicates"]
    assert counted == [pytest.approx(120, abs=8)]


def test_a_text_with_one_word_changed_is_a_near_copy():
    rng = np.random.default_rng(7)
    words = [f"word{i}" for i in range(500)]
    texts = [" ".join(rng.choice(words, 15)) for _ in range(300)]
    changed = [t.rsplit(" ", 1)[0] + " other" for t in texts[:20]]
    frame = pl.DataFrame({"text": texts + changed, "y": rng.choice(["a", "b"], 320)})
    assert [f.figure["near_copies"] for f in look(frame, labels=True) if f.code == "near_duplicates"] == [40]
    assert "near_duplicates" not in codes(look(frame.head(300), labels=True))


@settings(max_examples=3)
@given(wrong=st.integers(10, 60))
def test_the_error_floor_of_conflicting_rows_is_exact(wrong):
    frame = table(np.random.default_rng(8), n=400)
    other = frame.head(wrong).with_columns(pl.col("y").replace({"yes": "no", "no": "yes"}))
    floor = [f.figure["error_floor"] for f in look(pl.concat([frame, other]), labels=True) if f.code == "conflicts"]
    assert floor == [pytest.approx(wrong / (400 + wrong), abs=1e-5)]


@settings(max_examples=3)
@given(start=st.integers(50, 400), width=st.integers(5, 60))
def test_missing_hours_are_counted(start, width):
    n = 600
    t = np.delete(np.arange(n), slice(start, start + width))
    y = np.sin(t / 30) * 5 + np.random.default_rng(start).normal(size=len(t))
    frame = pl.DataFrame({"hour": pl.Series(np.datetime64("2024-01-01T00", "us") + t.astype("timedelta64[h]")), "x": np.random.default_rng(0).normal(size=len(t)), "y": y})
    assert [f.figure["missing"] for f in look(frame, labels=False) if f.code == "gaps"] == [width]


def test_weekends_are_no_gaps():
    days = np.arange("2023-01-01", "2024-12-31", dtype="datetime64[D]")
    days = days[np.is_busday(days)]
    y = np.cumsum(np.random.default_rng(1).normal(size=len(days)))
    assert "gaps" not in codes(look(pl.DataFrame({"date": pl.Series(days), "x": np.random.default_rng(2).normal(size=len(days)), "y": y}), labels=False))


def test_test_rows_unlike_train_rows_are_said():
    frame = table(np.random.default_rng(9), n=800).with_columns(split=pl.Series(["train"] * 600 + ["test"] * 200))
    assert "shift" not in codes(look(frame, labels=True))
    moved = frame.with_columns(pl.when(pl.col("split") == "test").then(pl.col("x2") + 2).otherwise(pl.col("x2")).alias("x2"))
    assert [(f.level, f.columns) for f in look(moved, labels=True) if f.code == "shift"] == [("warning", ("x2",)), ("note", ("x2",))]


def test_rare_labels_and_constant_columns_are_named():
    frame = table(np.random.default_rng(10), n=400).with_columns(same=pl.lit("CNY"), y=pl.Series(["once", "twice", "twice"] + ["a", "b"] * 198 + ["a"]))
    found = {f.code: f for f in look(frame, labels=True)}
    assert found["rare_labels"].figure["classes"] == {"once": 1, "twice": 2}
    assert found["constant"].columns == ("same",)


def test_names_that_come_after_the_answer_are_noted_only_if_they_tell():
    rng = np.random.default_rng(11)
    frame = table(rng, n=800)
    yes = (frame["y"] == "yes").to_numpy()
    frame = frame.with_columns(pl.Series("处理结果", np.where(rng.random(800) < np.where(yes, 0.7, 0.3), "甲", "乙")), pl.Series("close_date_code", rng.choice(["p", "q"], 800)))
    assert [(f.level, f.columns) for f in look(frame, labels=True) if f.code == "after_the_fact"] == [("note", ("处理结果",))]


# ---- how it is told


def test_every_finding_survives_json_and_speaks_chinese():
    rng = np.random.default_rng(12)
    frame = patients(rng).with_columns(copy=pl.col("y"), same=pl.lit(1), told=pl.when((pl.col("y") == "ill") & (pl.col("m1") > -0.5)).then(None).otherwise(pl.col("m0")))
    found = look(frame, labels=True)
    assert {"leak", "group", "constant", "missing_tells"} <= codes(found)
    assert [f.level for f in found] == sorted((f.level for f in found), key=("leak", "warning", "note").index)
    for f in found:
        again = Finding.of(json.loads(json.dumps(f.json())))
        assert again.text.to("zh") == f.text.to("zh") != str(f.text)
        assert again.advice.to("zh") == f.advice.to("zh") != str(f.advice)


def test_no_time_leaves_a_note_of_what_was_not_looked_for():
    found = look(table(np.random.default_rng(13)), labels=True, seconds=0.0)
    assert [f.code for f in found] == ["unfinished"]
    assert "duplicates" in found[0].figure["codes"]


@pytest.mark.parametrize("frame", [pl.DataFrame({"x": [1.0] * 25, "y": ["a", "b"] * 12 + ["a"]}), pl.DataFrame({"x": [None, 2.0] * 15, "y": [1.5] * 30}),
                                   pl.DataFrame({"id": [f"k{i}" for i in range(40)], "y": [0, 1] * 20})])
def test_poor_tables_are_looked_at_without_complaint(frame):
    labels = frame["y"].dtype != pl.Float64
    assert structure(dataset(frame), labels=labels, seed=0).kind == "random"
    look(frame, labels=labels)


def test_names_tell_units_times_and_outcomes():
    assert [names_a_unit(n) for n in ("patient_id", "PatientID", "机器编号", "school", "patient_age", "store_id", "colour", "customer_type")] == [2, 2, 2, 2, 0, -1, 0, 0]
    assert [names_a_time(n) for n in ("date", "order_date", "timestamp", "day_index", "daytime_mood", "Year_Built")] == [True, True, True, True, False, False]
    assert [names_an_outcome(n) for n in ("close_date", "处理结果", "predicted_score", "age", "close_price")] == [True, True, True, False, False]


def test_agreement_inside_groups_is_one_for_copies_and_nothing_for_chance():
    rng = np.random.default_rng(14)
    group = np.repeat(np.arange(200), 5)
    assert intraclass(rng.normal(size=200)[group], group) == pytest.approx(1.0)
    assert abs(intraclass(rng.normal(size=1000), group)) < 0.06
    assert agreement(rng.integers(0, 3, 200)[group], group) == pytest.approx(1.0)
    assert abs(agreement(rng.integers(0, 3, 1000), group)) < 0.06
    walk = np.cumsum(rng.normal(size=500))[:, None]
    assert serial(walk, np.zeros(500, dtype=int))[0] > 0.95


# ---- real tables


TRUE_STRUCTURE = {
    "01_cmapss_fd001/train.csv": ("rul", False, "group", "unit"), "05_etth1/ETTh1.csv": ("OT", False, "time", "date"),
    "05_norway_car_sales/norway_car_sales_by_make.csv": ("Quantity", False, "order", None), "10_exam_scores/exam.csv": ("normexam", False, "group", "school"),
    "11_metro_traffic/Metro_Interstate_Traffic_Volume.csv": ("traffic_volume", False, "time", "date_time"),
    "06_adult/train.csv": ("income", True, "random", None), "08_telco_churn/telco_churn.csv": ("Churn", True, "random", None),
    "12_cwru_bearing_features/feature_time_48k_2048_load_1.csv": ("fault", True, "random", None),
    "16_tabular_benchmark/ames_housing.csv": ("Sale_Price", False, "random", None), "16_tabular_benchmark/california_housing.csv": ("medianHouseValue", False, "random", None),
    "16_tabular_benchmark/wine_quality_white.csv": ("quality", False, "random", None), "16_tabular_benchmark/concrete_strength.csv": ("compressive_strength", False, "random", None),
}


@real
@needs_shared
@pytest.mark.parametrize("file", TRUE_STRUCTURE)
def test_the_structure_of_real_tables_is_seen(file):
    target, labels, kind, column = TRUE_STRUCTURE[file]
    data = read(SHARED / file, target=target, target_as="label" if labels else "amount").dataset
    found = structure(data, labels=labels, seed=0)
    assert (found.kind, found.column) == (kind, column)


@real
@needs_shared
def test_exactly_the_five_columns_of_ai4i_that_give_failures_away_are_named():
    data = read(SHARED / "01_ai4i2020" / "ai4i2020.csv", target="Machine_failure").dataset
    found = findings(data, labels=True, seed=0)
    assert [f.columns for f in found if f.level == "leak"] == [("TWF", "HDF", "PWF", "OSF", "RNF")]


@real
@needs_shared
@pytest.mark.parametrize(("name", "target", "labels"), [("banknote", "class", True), ("kr_vs_kp", "class", True), ("spambase", "class", True), ("diamonds", "price", False),
                                                        ("car_evaluation", "class", True), ("sick_thyroid", "Class", True)])
def test_strong_columns_of_clean_tables_are_no_leaks(name, target, labels):
    data = read(SHARED / "16_tabular_benchmark" / f"{name}.csv", target=target, target_as="label" if labels else "amount").dataset
    assert not [f for f in findings(data, labels=labels, seed=0) if f.level == "leak"]
