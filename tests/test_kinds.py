"""Kinds: what a data scientist would say each column is."""

from __future__ import annotations

import datetime
import random
import uuid
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.kinds import infer, language, schema_table
from assay.data.read import read
from assay.data.values import label, labels, numbers, times
from assay.errors import InputError

DATA = Path(__file__).parents[2] / "shared" / "data"
RNG = random.Random(0)
WORDS = ["the", "card", "was", "not", "charged", "but", "my", "account", "shows", "two", "payments", "from", "last", "week", "in", "another", "shop"]
HAN = "北京上海天气新闻公司市场学校医院服务质量问题客户订单配送时间价格产品手机电脑游戏体育"


def kind(values: list, name: str = "c", **options) -> str | None:
    schema = infer(pl.DataFrame({name: values, "other": range(len(values))}), **options).schema
    return next((c.kind for c in schema.columns if c.name == name), None)


def sentence(words: int) -> str:
    return " ".join(RNG.choice(WORDS) for _ in range(words))


def han(length: int) -> str:
    return "".join(RNG.choice(HAN) for _ in range(length))


N = 400
CASES = {
    "small whole numbers": ([i % 3 for i in range(N)], "x", "number"),
    "amounts with gaps": ([None if i % 9 == 0 else i / 7 for i in range(N)], "x", "number"),
    "numbers as text with gaps": (["" if i % 9 == 0 else "NA" if i % 11 == 0 else str(i / 7) for i in range(N)], "x", "number"),
    "a rising clock": (list(range(N)), "cycle", "number"),
    "row numbers": (list(range(1, N + 1)), "UDI", "id"),
    "row numbers without a name": (list(range(N)), "column_1", "id"),
    "row numbers in Chinese": (list(range(1, N + 1)), "客户编号", "id"),
    "shuffled keys": (RNG.sample(range(10**6), N), "PassengerId", "id"),
    "a key that repeats": ([i % 37 for i in range(N)], "user_id", "category"),
    "paid is no id": (list(range(N)), "paid", "number"),
    "codes": ([f"C{i:06d}" for i in range(N)], "code", "id"),
    "uuids": ([str(uuid.UUID(int=RNG.getrandbits(128))) for i in range(N)], "key", "id"),
    "codes that repeat": ([f"S{RNG.randrange(40):03d}" for _ in range(N)], "store", "category"),
    "digits with leading zeros": ([f"{RNG.randrange(40):05d}" for _ in range(N)], "zip", "category"),
    "eighteen digits": ([str(10**17 + RNG.randrange(10**16)) for _ in range(N)], "身份证", "id"),
    "booleans": ([i % 2 == 0 for i in range(N)], "flag", "category"),
    "yes and no": (["yes", "no"] * (N // 2), "flag", "category"),
    "long labels": (["Bank transfer (automatic)", "Electronic check", "Mailed check to the office"] * 100, "pay", "category"),
    "Chinese labels": ([RNG.choice(["北京", "上海", "广州"]) for _ in range(N)], "city", "category"),
    "English sentences": ([sentence(12) for _ in range(N)], "text", "text"),
    "short queries": ([sentence(4) + "?" for _ in range(N)], "text", "text"),
    "Chinese titles": ([han(18) for _ in range(N)], "title", "text"),
    "Chinese reviews that repeat": ([han(RNG.choice([2, 12, 30])) for _ in range(N)], "review", "text"),
    "one-word names": ([han(3) for _ in range(N)], "名字", "text"),
    "timestamps": ([f"2024-03-{i % 28 + 1:02d} 10:{i % 60:02d}" for i in range(N)], "t", "time"),
    "Chinese dates": ([f"2024年{i % 12 + 1}月{i % 28 + 1}日" for i in range(N)], "日期", "time"),
    "compact dates": ([20240100 + i % 28 + 1 for i in range(N)], "date", "time"),
    "years": ([2000 + i % 20 for i in range(N)], "year", "number"),
    "nothing": ([None] * N, "x", None),
    "only blanks": ([" ", ""] * (N // 2), "x", None),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_column_is_recognised_in_any_row_order(case: str) -> None:
    values, name, expected = CASES[case]
    assert kind(values, name) == expected
    shuffled = values[:]
    random.Random(1).shuffle(shuffled)
    assert kind(shuffled, name) == expected


def test_many_store_codes_over_many_rows_stay_a_category() -> None:
    rng = np.random.default_rng(0)
    codes = pl.Series([f"S{i:05d}" for i in range(2000)])[rng.integers(0, 2000, 100_000)]
    assert kind(codes.to_list()) == "category"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-5, 5).map(str), st.sampled_from(["a", "b c d e", "2024-01-02", "3/4/2020", "NA", "北京", "C01"])),
                min_size=1, max_size=40), st.randoms())
def test_the_order_of_rows_never_changes_a_kind(values: list, chance: random.Random) -> None:
    shuffled = values[:]
    chance.shuffle(shuffled)
    frame = pl.DataFrame({"c": pl.Series(values, dtype=pl.String)})
    other = pl.DataFrame({"c": pl.Series(shuffled, dtype=pl.String)})
    assert infer(frame).schema == infer(other).schema


@settings(max_examples=60, deadline=None)
@given(st.lists(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)), min_size=1, max_size=30), st.sampled_from([
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y.%m.%d %H:%M:%S", "%Y年%m月%d日 %H:%M:%S", "%d-%b-%Y %H:%M:%S",
    "%B %d, %Y %H:%M:%S", "%Y-%m-%d %I:%M:%S %p"]))
def test_a_written_instant_is_read_back(stamps: list[datetime.datetime], form: str) -> None:
    parsed = times(pl.Series([s.strftime(form) for s in stamps]))
    assert parsed.bad is None
    assert parsed.values.to_list() == [s.replace(microsecond=0) for s in stamps]


def test_the_order_of_day_and_month_is_decided_by_the_whole_column() -> None:
    assert times(pl.Series(["1/2/2024"] * 500 + ["13/2/2024"])).order == "day/month/year"
    assert times(pl.Series(["1/2/2024"] * 500 + ["2/13/2024"])).order == "month/day/year"
    assert times(pl.Series(["1/2/2024", "3/4/2024"])).unsure
    monthly = times(pl.Series([f"1/{m}/2024" for m in range(1, 13)]))
    assert monthly.order == "day/month/year"
    assert not monthly.unsure
    notes = infer(pl.DataFrame({"d": ["1/2/2024", "3/4/2024"]})).notes
    assert "fit both orders" in str(notes[0])
    assert "月/日/年" in notes[0].to("zh")


def test_no_thousands_separator_is_guessed() -> None:
    assert numbers(pl.Series(["1,000", "2,000"])).bad == 0
    assert kind(["1,000", "2,000", "1,000"]) == "category"


def test_infinite_and_undefined_numbers_become_missing_and_are_said() -> None:
    found = infer(pl.DataFrame({"x": [1.0, float("inf"), float("nan"), -float("inf")]}))
    assert found.frame["x"].to_list() == [1.0, None, None, None]
    assert "2 infinite" in str(found.notes[0])


TARGETS = [
    (["a", "b", None], None, pl.String, ["a", "b", None]),
    ([True, False, None], None, pl.Boolean, [True, False, None]),
    ([1.0, 0.0, None], None, pl.Int64, [1, 0, None]),
    (["1", "0", ""], None, pl.Int64, [1, 0, None]),
    (["1.5", "2", "NA"], None, pl.Float64, [1.5, 2.0, None]),
    (["01", "02", "01"], None, pl.String, ["01", "02", "01"]),
    ([1, 2, 3], "amount", pl.Float64, [1.0, 2.0, 3.0]),
    (["1", "2", "3"], "label", pl.Int64, [1, 2, 3]),
    ([0.5, 1.0, None], "label", pl.String, ["0.5", "1", None]),
    ([1.0, float("nan"), 2.5], None, pl.Float64, [1.0, None, 2.5]),
    ([1.0, float("inf"), 2.0], None, pl.Float64, [1.0, float("inf"), 2.0]),
]


@pytest.mark.parametrize(("values", "target_as", "dtype", "expected"), TARGETS)
def test_the_target_keeps_a_dtype_of_its_own(values: list, target_as: str | None, dtype: type, expected: list) -> None:
    found = infer(pl.DataFrame({"y": values, "x": [1, 2, 3]}), target="y", target_as=target_as)
    assert found.frame["y"].dtype == dtype
    assert found.frame["y"].to_list() == expected


def test_an_amount_that_is_text_is_refused_with_the_cell() -> None:
    with pytest.raises(InputError) as error:
        infer(pl.DataFrame({"y": ["1", "high", "2"]}), target="y", target_as="amount")
    assert "row 2 holds 'high'" in str(error.value)
    with pytest.raises(InputError):
        infer(pl.DataFrame({"y": [None, None], "x": [1, 2]}), target="y")


@pytest.mark.parametrize(("values", "want", "expected"), [
    ([1.0, 2.0, None], "category", ["1", "2", None]), (["1", "?", "2"], "number", [1.0, None, 2.0]),
    ([0, 86400, None], "time", [datetime.datetime(1970, 1, 1), datetime.datetime(1970, 1, 2), None]), ([7, 8, 9], "id", ["7", "8", "9"]),
])
def test_an_override_decides(values: list, want: str, expected: list) -> None:
    found = infer(pl.DataFrame({"c": values}), overrides={"c": want})
    assert found.schema.columns[0].kind == want
    assert found.frame["c"].to_list() == expected


@pytest.mark.parametrize("want", ["number", "time"])
def test_an_override_that_the_cells_contradict_is_refused(want: str) -> None:
    with pytest.raises(InputError) as error:
        infer(pl.DataFrame({"c": ["2024-01-01" if want == "time" else "1", "soon"]}), overrides={"c": want})
    assert "row 2 holds 'soon'" in str(error.value)


def test_the_time_column_is_a_time_or_a_number() -> None:
    frame = pl.DataFrame({"t": ["2024-01-01", "2024-01-02"], "id": [1, 2], "w": ["a", "b"], "y": [1, 2]})
    assert infer(frame, time="t").schema.columns[0].kind == "time"
    assert infer(frame, time="id").schema.columns[1].kind == "number"
    with pytest.raises(InputError):
        infer(frame, time="w")


def test_language_follows_the_script() -> None:
    assert language(["体验2D巅峰 倚天屠龙记十大创新概览", "OPPO手机发布"]) == "zh"
    assert language(["I am still waiting on my card?"]) == "en"
    assert language(["これはテストです", "日本語の文章"]) == "other"
    assert language(["Это не английский"]) == "other"


def test_labels_of_whole_numbers_carry_no_point() -> None:
    assert labels(pl.Series([1.0, 2.5, None, 3.0])).to_list() == ["1", "2.5", None, "3"]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=6), st.sampled_from([" True", "FALSE", "-3.0", "007", "1.50", "\u3000x\t", "٣.0", "\x1c"])))
def test_one_cell_becomes_the_same_label_as_in_a_column(cell: str) -> None:
    assert labels(pl.Series([cell]))[0] == label(cell)


def test_the_schema_prints_a_line_a_column() -> None:
    found = infer(pl.DataFrame({"id": [3, 1, 2], "text": [sentence(9), sentence(9), sentence(9)], "y": [1, 0, 1]}), target="y")
    assert [(n, str(k), str(d)) for n, k, d in schema_table(found.schema)] == [
        ("id", "id", "not a feature"), ("text", "text", "English"), ("y", "number", "target")]


REAL = [
    ("08_telco_churn/telco_churn.csv", "Churn", {"customerID": "id", "TotalCharges": "number", "tenure": "number", "Contract": "category"}),
    ("06_adult/train.csv", "income", {"age": "number", "workclass": "category", "native_country": "category"}),
    ("05_bike_sharing_hourly/bike_hour.csv", "cnt", {"dteday": "time", "hr": "number", "temp": "number"}),
    ("11_metro_traffic/Metro_Interstate_Traffic_Volume.csv", "traffic_volume", {"date_time": "time", "holiday": "category", "weather_description": "category"}),
    ("04_thucnews_titles_zh/train.csv", "label", {"text": "text"}),
    ("04_banking77/train.csv", "category", {"text": "text"}),
    ("04_waimai_10k_zh/waimai_10k.csv", "label", {"review": "text"}),
    ("01_ai4i2020/ai4i2020.csv", "Machine_failure", {"UDI": "id", "Product ID": "id", "Type": "category", "TWF": "number"}),
    ("10_exam_scores/exam.csv", "normexam", {"schgend": "category", "standLRT": "number"}),
    ("11_beijing_pm25/PRSA_data_2010-2014.csv", "pm2.5", {"No": "id", "year": "number", "cbwd": "category"}),
    ("08_online_retail_germany/online_retail_germany.csv", "Quantity", {"InvoiceDate": "time", "CustomerID": "category", "Description": "text"}),
    ("07_esol_solubility/delaney.csv", "measured log solubility in mols per litre", {"Compound ID": "id", "smiles": "text"}),
    ("08_movielens100k/ratings.csv", "rating", {"user_id": "category", "item_id": "category", "timestamp": "number"}),
    ("05_air_passengers/air_passengers.csv", "passengers", {"month": "time"}),
]


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of open datasets is not beside the checkout")
@pytest.mark.parametrize(("name", "target", "expected"), REAL)
def test_real_columns_are_what_a_data_scientist_would_say(name: str, target: str, expected: dict[str, str]) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in the folder of open datasets")
    schema = read(DATA / name, target=target).dataset.schema
    found = {c.name: c.kind for c in schema.columns}
    assert {n: found[n] for n in expected} == expected
