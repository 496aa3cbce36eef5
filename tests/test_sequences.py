"""Tables of steps as sequences: whole units, histories and wide columns, the same when they are read for training and asked later."""

import json
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import api
from assay.contest.prepare import splits_of
from assay.data.dataset import Dataset, Schema
from assay.data.media import steps
from assay.data.read import conform, named_by, read
from assay.data.sequences import Made, runs
from assay.errors import InputError
from assay.tasks import find


def long(lengths: list[int], *, seed: int = 0, channels: int = 2, answer: str = "unit") -> pl.DataFrame:
    """unit, t, x0..., site and y: the same throughout a unit, or counting down in it."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(len(lengths)), lengths)
    t = np.concatenate([np.arange(n) for n in lengths])
    rest = np.concatenate([np.arange(n)[::-1] for n in lengths])
    y = [f"c{u % 2}" for u in unit] if answer == "unit" else rest + 0.5
    return pl.DataFrame({"unit": unit, "t": t, **{f"ch{'abcdef'[i]}": rng.normal(size=len(unit)) for i in range(channels)}, "site": [f"s{u % 3}" for u in unit], "y": y})


def told(table, **options) -> tuple[Dataset, list[str]]:
    found = read(table, **{"target": "y", "group": "unit", "sequence": True} | options)
    return found.dataset, [str(n) for n in found.notes]


def cells(data: Dataset) -> list[np.ndarray]:
    column = data.schema.of_kind("sequence")[0]
    return [steps(c, len(column.channels)) for c in data.frame[column.name]]


LENGTHS = st.lists(st.integers(1, 9), min_size=2, max_size=8).filter(lambda n: max(n) > 1)


@given(LENGTHS, st.integers(2, 6), st.integers(0, 5))
@settings(max_examples=30)
def test_a_history_holds_the_last_steps_of_its_own_unit_up_to_and_including_itself(lengths, window, seed):
    table = long(lengths, seed=seed, answer="step")
    data, _ = told(table.sample(fraction=1.0, shuffle=True, seed=seed), window=window)
    assert data.frame.select("unit", "t").rows() == sorted(data.frame.select("unit", "t").rows(), key=lambda r: (data.frame["unit"].to_list().index(r[0]), r[1]))
    values = {(r["unit"], r["t"]): (r["cha"], r["chb"]) for r in table.iter_rows(named=True)}
    for row, history in zip(data.frame.iter_rows(named=True), cells(data), strict=True):
        expected = [values[row["unit"], t] for t in range(max(0, int(row["t"]) - window + 1), int(row["t"]) + 1)]
        assert np.allclose(history, np.array(expected, dtype=np.float32))


@given(LENGTHS, st.integers(0, 5))
@settings(max_examples=30)
def test_a_unit_with_one_answer_is_one_row_with_all_its_steps_in_order_of_time(lengths, seed):
    table = long(lengths, seed=seed)
    data, _ = told(table.sample(fraction=1.0, shuffle=True, seed=seed))
    assert len(data) == len(lengths)
    assert data.schema.group is None
    kinds = {c.name: c.kind for c in data.schema.columns}
    assert kinds == {"unit": "id", "site": "category", "y": "category", "steps": "sequence"} | ({"cha": "number"} if "cha" in kinds else {})
    for row, sequence in zip(data.frame.iter_rows(named=True), cells(data), strict=True):
        mine = table.filter(pl.col("unit") == int(row["unit"])).sort("t")
        assert np.allclose(sequence, mine.select("cha", "chb").to_numpy().astype(np.float32))
        assert row["y"] == mine["y"][0]


@given(LENGTHS, st.sampled_from(["unit", "step"]))
@settings(max_examples=30)
def test_new_rows_become_the_sequences_that_training_made_of_them(lengths, answer):
    table = long(lengths, answer=answer)
    data, _ = told(table, window=3)
    schema = Schema.of(json.loads(json.dumps(data.schema.json())))
    assert schema == data.schema
    asked = table.drop("y").reverse()
    got = conform(asked, schema).frame
    name = schema.of_kind("sequence")[0].name
    if answer == "unit":
        assert got["unit"].to_list() == [str(u) for u in asked["unit"].unique(maintain_order=True)]
        both = got.join(data.frame, on="unit", suffix=" taught")
    else:
        assert got["t"].to_list() == asked["t"].to_list()
        both = got.join(data.frame, on=["unit", "t"], suffix=" taught")
    assert both.height == len(data)
    assert both[name].equals(both[f"{name} taught"], check_names=False)
    listed = conform(asked.to_dicts(), schema).frame
    assert listed[name].equals(got[name])
    assert named_by(schema) == (["unit"] if answer == "unit" else ["unit", "t"])


def test_the_answer_is_never_inside_the_history():
    table = long([30, 40], answer="step")
    one, _ = told(table)
    other, _ = told(table.with_columns(y=pl.col("y") * 3 - 7))
    assert one.frame["history"].equals(other.frame["history"])
    assert "y" not in one.schema.of_kind("sequence")[0].channels


def test_a_history_belongs_to_its_unit_in_the_split_and_the_plain_columns_stay():
    data, notes = told(long([30] * 10, answer="step"), window=5)
    assert data.schema.group == "unit"
    assert {"t", "cha", "chb", "site", "history"} == {c.name for c in data.schema.features}
    assert Made.of(data.schema.columns[-1]).last == 5
    case = api._case("x", "y", {"group": "unit", "sequence": True})
    part = splits_of(case, find("regress").of(data), data)[0][0]
    units = data.frame["unit"].to_numpy()
    assert not set(units[part.train]) & set(units[part.test])
    assert any("the last 5 steps of 2 channels" in n for n in notes)


def test_whole_numbers_that_count_down_are_an_amount_and_states_that_last_are_labels():
    table = long([40] * 8, answer="step").with_columns(y=pl.col("y").cast(pl.Int64), state=pl.col("t") // 20)
    assert told(table.drop("state"))[0].y.dtype == pl.Float64
    assert told(table.drop("state"), kinds={"y": "category"})[0].y.dtype == pl.Int64
    states = told(table.drop("y"), target="state")[0]
    assert states.y.dtype == pl.Int64
    assert len(states) == 320


def test_units_of_train_and_test_parts_with_the_same_number_are_two(tmp_path):
    for side, seed in (("train", 0), ("test", 1)):
        long([5, 6, 7], seed=seed).write_parquet(tmp_path / f"{side}.parquet")
    data, _ = told(tmp_path)
    assert data.frame.select("unit", "split").rows() == [("0", "test"), ("1", "test"), ("2", "test"), ("0", "train"), ("1", "train"), ("2", "train")]


def test_gaps_missing_values_shared_moments_and_short_units_are_fine_and_told():
    table = long([1, 4, 6]).with_columns(cha=pl.when(pl.col("t") == 2).then(None).otherwise(pl.col("cha")))
    table = table.filter(~((pl.col("unit") == 2) & pl.col("t").is_between(2, 3)))
    data, _ = told(table, time="t")
    assert [len(c) for c in cells(data)] == [1, 4, 4]
    assert np.isnan(cells(data)[1][2, 0])
    assert any("leaps further" in n for n in told(table, time="t")[1])
    assert any("share their 't'" in n for n in told(table.with_columns(t=pl.col("t") // 2), time="t")[1])
    assert any("as they stand in the file" in n for n in told(table.drop("t"))[1])


@pytest.mark.parametrize(("table", "options", "words"), [
    (long([1] * 30), {}, "one row only"),
    (long([5, 5]).with_columns(unit=pl.when(pl.col("t") == 3).then(None).otherwise(pl.col("unit"))), {}, "2 rows have no value in 'unit'"),
    (long([5, 5]).with_columns(t=pl.when(pl.col("t") == 3).then(None).otherwise(pl.col("t"))), {"time": "t"}, "2 rows have no value in 't'"),
    (long([5, 5]).select("unit", "t", "site", "y"), {}, "No column of numbers changes"),
    (long([5, 5]), {"group": None}, "No sequence was found"),
    (long([300] * 40, answer="step"), {"memory_mb": 1.0}, "Allow more with --memory"),
    (long([300] * 40, answer="step"), {"memory_mb": 20.0, "window": 500}, "--window"),
    (long([5, 5]), {"group": "case"}, "No column is called 'case'"),
])
def test_what_is_no_sequence_is_told_in_a_sentence(table, options, words):
    with pytest.raises(InputError) as error:
        told(table, **options)
    assert words in str(error.value)


@pytest.mark.parametrize("stem", ["t", "x_", "ch1 ", ""])
def test_numbered_columns_are_the_steps_of_a_sequence(stem):
    rng = np.random.default_rng(0)
    wide = pl.DataFrame({f"{stem}{i}": rng.normal(size=12) for i in rng.permutation(np.arange(3, 14))} | {"age": rng.normal(size=12), "y": [f"c{i % 2}" for i in range(12)]})
    data, _ = told(wide, group=None)
    assert data.frame.columns == ["age", "y", "steps"]
    assert np.allclose(np.stack(cells(data))[:, :, 0], wide.select(f"{stem}{i}" for i in range(3, 14)).to_numpy().astype(np.float32))
    assert conform(wide.reverse(), data.schema).frame["steps"].equals(data.frame["steps"].reverse())
    with pytest.raises(InputError, match="lack columns"):
        conform(wide.drop(f"{stem}7"), data.schema)


def test_stems_of_one_length_are_channels_and_of_another_length_another_sequence():
    rng = np.random.default_rng(0)
    wide = pl.DataFrame({f"{s}{i}": rng.normal(size=5) for s, n in (("ax", 10), ("ay", 10), ("b", 20)) for i in range(n)} | {"s1": [1.0] * 5, "y": list("ababa")})
    data, _ = told(wide, group=None)
    assert [(c.name, c.channels) for c in data.schema.of_kind("sequence")] == [("steps", ("ax", "ay")), ("steps_", ("b",))]
    assert runs([f"t{i}" for i in range(7)]) == []
    assert runs([f"t{i}" for i in range(20) if i != 9]) == []
    assert runs(["t01", "t02", *(f"t{i:02d}" for i in range(3, 12))])[0][1][0] == "t01"


def test_a_row_of_unequal_length_ends_where_its_numbers_end():
    wide = pl.DataFrame({f"t{i}": [1.0, None if i > 8 else 2.0, None, 4.0 if i != 5 else None] for i in range(12)} | {"y": list("abab")})
    data, _ = told(wide, group=None)
    assert [None if c is None else len(c) // 4 for c in data.frame["steps"]] == [12, 9, None, 12]


def test_cells_that_are_lists_of_steps_are_sequences_already(tmp_path):
    lists = [[[i + k, -k] for k in range(2 + i % 3)] for i in range(6)]
    table = pl.DataFrame({"course": lists, "pulse": [[float(v) for v in range(i + 1)] for i in range(6)], "y": list("ababab")})
    table.write_ndjson(tmp_path / "t.jsonl")
    for source in (table, tmp_path / "t.jsonl"):
        data = read(source, target="y", kinds={"pulse": "sequence"}).dataset
        assert [(c.name, c.kind, c.channels) for c in data.schema.features] == [("course", "sequence", ("c0", "c1")), ("pulse", "sequence", ("pulse",))]
        assert [steps(c, 2).tolist() for c in data.frame["course"]] == lists
        assert conform(table, data.schema).frame["pulse"].equals(data.frame["pulse"])
    assert read(table, target="y").dataset.frame.columns == ["course", "y"]
    with pytest.raises(InputError, match="list of 2 numbers"):
        read(table.with_columns(course=pl.Series([[[1, 2]], [[1]], *lists[:4]])), target="y")


@pytest.mark.parametrize("given", [[], [[1, 2, 3]], [1, 2], "x", [["a", "b"]], [[1], [1, 2]], 5, b"123"])
def test_what_is_no_list_of_steps_is_refused_with_the_channels(given):
    schema = told(long([5, 6]))[0].schema
    with pytest.raises(InputError, match=r"Column 'steps', row 1: a list of steps is expected, each a list of 2 numbers \(cha, chb\)"):
        conform([{"steps": given, "site": "s0"}], schema)
    assert np.isnan(steps(conform([{"steps": [[1, None], [2, 3]], "site": "s0"}], schema).frame["steps"][0], 2)[0, 1])


def test_twenty_thousand_steps_of_24_channels_are_read_in_about_a_second():
    table = long([206] * 100, channels=6, answer="step")
    table = table.with_columns([pl.col(f"ch{'abcdef'[i % 6]}").alias(f"s{'abcdefghijklmnopqr'[i]}") for i in range(18)])
    began = time.process_time()
    data, _ = told(table)
    assert data.frame.shape == (20_600, 29)
    assert len(data.schema.of_kind("sequence")[0].channels) == 24
    assert time.process_time() - began < 2.5  # 0.8 s on an idle core; a loop over steps in Python takes 10
