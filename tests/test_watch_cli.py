"""`assay watch`: files against a bundle, and the open alarms of a home."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from assay.cli import app
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.families.base import Budget, Candidate
from assay.registry import get
from assay.ship.bundle import pack
from assay.store.records import Prediction, new_id
from assay.store.store import Store
from assay.tasks.classify import Classify
from assay.watch.offline import watched
from assay.watch.picture import write
from assay.words import say

SCHEMA = Schema((Column("age", "number"), Column("town", "category"), Column("buys", "category")), "buys")


def rows(n: int, seed: int, *, older: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(40 + older, 8, n)
    town = rng.choice(["Bern", "Lyon", "Graz"], n, p=[0.5, 0.3, 0.2])
    return pl.DataFrame({"age": age, "town": town, "buys": np.where(age + 10 * (town == "Lyon") + rng.normal(0, 4, n) > 44, "yes", "no")})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    data = Dataset(rows(700, 0), SCHEMA)
    task = Classify.of(data)
    candidate = get("assay.families", Candidate, "linear")
    model = candidate.build(task, SCHEMA).fit(data, seed=0, budget=Budget(seconds=20))
    told = task.calibrated(model.predict(data.asked()), {})
    loss = float(task.losses(data, data, told).mean())
    return pack(tmp_path_factory.mktemp("b") / "winner.assay", task=task, candidate=candidate, params={}, schema=SCHEMA, model_folder=model, calibration={},
                facts={"loss": {"name": "log", "value": loss, "low": loss * 0.9, "high": loss * 1.1}}, reference=data.frame)


def call(*words: object):
    return CliRunner().invoke(app, ["watch", *map(str, words)])


def test_rows_like_those_of_training_are_fine_and_the_exit_code_says_so(bundle, tmp_path):
    rows(900, 1).write_csv(tmp_path / "new.csv")
    done = call(bundle, "--recent", tmp_path / "new.csv")
    assert done.exit_code == 0, done.output
    assert "Nothing has moved further than is tolerated." in done.output


def test_a_shift_is_told_with_effect_interval_and_corrected_p_in_table_json_and_picture(bundle, tmp_path):
    rows(900, 1, older=9).write_csv(tmp_path / "new.csv")
    done = call(bundle, "--recent", tmp_path / "new.csv", "-o", tmp_path / "new.html")
    assert done.exit_code == 1
    assert "drift:age" in done.output
    assert "drift:town" not in done.output
    said = json.loads(call(bundle, "--recent", tmp_path / "new.csv", "--json").stdout)
    age = next(f for f in said["findings"] if f["code"] == "drift:age")
    assert age["facts"]["low"] < age["facts"]["effect"] < age["facts"]["high"]
    assert age["facts"]["corrected"] < 1e-6
    assert age["facts"]["moved_low"] < 9 / 8 < age["facts"]["moved_high"]
    assert any(f["code"] == "prediction_drift:answer" for f in said["findings"] if f["level"] != "fine")
    page = (tmp_path / "new.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "drift:age" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_the_picture_is_one_svg_and_names_are_escaped(bundle, tmp_path):
    frame = rows(600, 2, older=9)
    found = watched(bundle, frame.with_columns(town=pl.lit("<script>alert(1)</script>")))
    for name in ("p.svg", "p.html"):
        text = write(found, tmp_path / name, title="<b>", lang="zh").read_text(encoding="utf-8")
        assert "<script" not in text
    import xml.etree.ElementTree as ET

    ET.parse(tmp_path / "p.svg")


def test_a_table_with_a_missing_column_and_words_for_numbers_is_still_watched(bundle, tmp_path):
    frame = rows(400, 3).with_columns(age=pl.when(pl.int_range(400) % 4 == 0).then(pl.lit("old")).otherwise(pl.col("age").cast(pl.String))).drop("town")
    found = watched(bundle, frame)
    codes = {f.code: f.level for f in found.alarming}
    assert codes["absent:town"] == "critical"
    assert codes["unread:age"] == "warning"
    assert any("not asked" in str(n) for n in found.notes)


def test_a_reference_of_ones_own_wins_and_parts_are_streamed(bundle, tmp_path, monkeypatch):
    older = rows(2000, 4, older=9)
    older.write_parquet(tmp_path / "train.parquet")
    rows(2000, 5, older=9).write_parquet(tmp_path / "new.parquet", row_group_size=300)
    assert "drift:age" in {f.code for f in watched(bundle, tmp_path / "new.parquet").alarming}
    assert watched(bundle, tmp_path / "new.parquet", older).alarming == ()
    monkeypatch.setattr("assay.watch.offline.IN_MEMORY_MB", 0.0)
    streamed = watched(bundle, tmp_path / "new.parquet", tmp_path / "train.parquet")
    assert (streamed.rows, streamed.reference_rows, streamed.alarming) == (2000, 2000, ())


def test_too_few_rows_and_a_table_of_another_kind_are_refused_in_a_sentence(bundle):
    with pytest.raises(InputError, match="too few to tell a shift from chance"):
        watched(bundle, rows(60, 1))
    with pytest.raises(InputError, match="none of the bundle's columns"):
        watched(bundle, pl.DataFrame({"colour": ["red"] * 200}))


def test_a_home_shows_its_models_and_open_alarms_and_the_exit_code_rings(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with Store.open(home / "store.sqlite") as store:
        store.versions.add("shop", "0" * 64, "bundles/x.assay", "serve", {})
        store.write(predictions=[Prediction(new_id(), 1.0, "shop", 1, {"answer": "yes"})])
        quiet = call("--home", home)
        assert quiet.exit_code == 0, quiet.output
        assert "shop" in quiet.output
        store.alarms.add("shop", "drift:age", "warning", say("'{column}' is missing in {now:.1%} of the rows, before in {was:.1%}.", column="age", now=0.4, was=0.0), {"effect": 0.4})
    done = call("shop", "--home", home)
    assert done.exit_code == 1
    assert "drift:age: 'age' is missing in 40.0% of the rows" in done.output
    assert json.loads(call("--home", home, "--json").stdout)[0]["alarms"][0]["facts"] == {"effect": 0.4}
    assert "serves no model 'stop'" in str(call("stop", "--home", home).exception)


def test_a_bundle_without_rows_to_compare_says_what_to_type(bundle):
    done = call(bundle)
    assert done.exit_code == 2
    assert "--recent new.csv" in done.output
