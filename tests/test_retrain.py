"""Retraining: old rows and labels go through the same contest; the same rows do nothing twice; a kill leaves no half version."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from assay import api
from assay.cli import app
from assay.contest.folder import Folder
from assay.data.dataset import Column
from assay.errors import InputError
from assay.retrain.material import Kept, case_of, gather, in_order
from assay.retrain.retrain import retrain
from assay.retrain.turned_camera import BEFORE, TARGET, TAUGHT, replay
from assay.serve.held import served
from assay.ship.bundle import load
from assay.store import Store
from assay.store.records import Feedback, Prediction, new_id

QUICK = {"work": 20, "tune": False, "candidates": ("linear",)}


def tickets(n: int, seed: int, *, moved: bool = False) -> pl.DataFrame:
    """Two numbers and a shop decide; after the move the other sign counts."""
    rng = np.random.default_rng(seed)
    heat, load_ = rng.normal(size=n), rng.normal(size=n)
    fails = (heat if not moved else -heat) + 0.5 * load_ + rng.normal(0, 0.4, n) > 0
    return pl.DataFrame({"heat": heat.round(4), "load": load_.round(4), "shop": rng.choice(["north", "south"], n), "failure": np.where(fails, "yes", "no")})


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """The run that made the first champion."""
    place = tmp_path_factory.mktemp("first")
    os.environ["ASSAY_CACHE"] = str(place / "cache")
    return api.run(tickets(160, 0), target="failure", worth="error=4 CNY", out=place / "run", **QUICK).folder.path


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(home, first) -> Iterator[Store]:
    home.mkdir()
    with Store.open(home / "store.sqlite") as opened:
        version = served(opened, home, "mill", first / "winner.assay")
        opened.versions.promote("mill", version.version, "cli", "the first one")
        yield opened


def labelled(store: Store, frame: pl.DataFrame, *, rows: bool = True) -> None:
    predictions, feedback = [], []
    for row in frame.to_dicts():
        label, key = row.pop("failure"), new_id()
        predictions.append(Prediction(key, time.time(), "mill", 1, {"answer": "no", "probability": 0.5, "p(no)": 0.5, "p(yes)": 0.5}, row if rows else None))
        feedback.append(Feedback("mill", prediction=key, label=label))
    store.write(predictions=predictions, feedback=feedback)


# ---- what teaches


def test_rows_that_were_not_kept_or_cannot_be_read_are_counted_and_do_not_teach(store, home, first):
    bundle = load(first / "winner.assay")
    labelled(store, tickets(5, 1))
    labelled(store, tickets(3, 2), rows=False)
    store.write(feedback=[Feedback("mill", label="yes", row={"heat": "warm", "load": 1, "shop": "north"}), Feedback("mill", label="yes", row={"heat": 2}),
                          Feedback("mill", label="yes", row={"heat": 2, "load": 1, "shop": "north"}), Feedback("mill", label=["yes"], row={"heat": 2, "load": 1, "shop": "north"})])
    found = gather(store, "mill", bundle, Kept(home, "mill"))
    assert found.labelled == found.frame.height == 6
    told = " ".join(map(str, found.notes))
    assert "3 labels belong to answers whose rows were not kept" in told
    assert "2 labelled rows cannot be read" in told
    assert "1 labels were left out" in told
    assert found.frame.columns == [c.name for c in bundle.schema.columns]


def test_old_rows_come_first_only_the_recent_of_them_if_asked_and_the_same_file_once(store, home, first, tmp_path):
    bundle, kept = load(first / "winner.assay"), Kept(home, "mill")
    tickets(30, 3).write_csv(tmp_path / "march.csv")
    assert kept.take(first, bundle)
    assert kept.take(tmp_path / "march.csv", bundle)
    assert not kept.take(first, bundle)
    assert not kept.take(tmp_path / "march.csv", bundle)
    labelled(store, tickets(5, 1))
    every, few, none = (gather(store, "mill", bundle, kept, recent=n) for n in (None, 30, 0))
    assert [(m.old, m.labelled) for m in (every, few, none)] == [(190, 5), (30, 5), (0, 5)]
    assert every.frame[160:190].equals(few.frame[:30])
    assert every.fingerprint(case_of(bundle, kept.case())) == gather(store, "mill", bundle, kept).fingerprint(case_of(bundle, kept.case()))
    labelled(store, tickets(1, 9))
    assert every.fingerprint(case_of(bundle, {})) != gather(store, "mill", bundle, kept).fingerprint(case_of(bundle, {}))
    tickets(5, 1).drop("shop").write_csv(tmp_path / "less.csv")
    with pytest.raises(InputError, match="No column is called 'shop'"):
        kept.take(tmp_path / "less.csv", bundle)


def test_a_labelled_row_without_its_time_does_not_stop_the_others(store, home, first):
    bundle = load(first / "winner.assay")
    timed = replace(bundle, schema=replace(bundle.schema, columns=(*bundle.schema.columns, Column("day", "time")), time="day"))
    row = {"heat": 1.0, "load": 0.0, "shop": "north"}
    store.write(feedback=[Feedback("mill", label="yes", row=row | {"day": day}) for day in ("2026-03-01", None, "2026-03-02")])
    found = gather(store, "mill", timed, Kept(home, "mill"))
    assert found.labelled == found.frame.height == 2
    assert found.frame["day"].null_count() == 0


def test_the_case_is_that_of_the_first_contest_and_the_newest_labelled_rows_judge(store, home, first):
    bundle, kept = load(first / "winner.assay"), Kept(home, "mill")
    kept.take(first, bundle)
    labelled(store, tickets(60, 1))
    for known in (kept.case(), {}):
        case = in_order(case_of(bundle, known, time="30s"), gather(store, "mill", bundle, kept))
        assert (case.target, case.task, case.loss, case.time_s, case.worth.costs, case.worth.currency) == ("failure", "classify", "cost", 30.0, {"error": 4.0}, "CNY")
        assert (case.split, case.folds, case.test_rows) == ("order", 1, 30)


# ---- the command


def test_without_the_old_rows_or_with_nothing_new_no_contest_is_played(store, home, first):
    stray = home.parent / "lathe.assay"  # a bundle far from its run
    shutil.copyfile(first / "winner.assay", stray)
    store.versions.promote("lathe", served(store, home, "lathe", stray).version, "cli", "the first one")
    with pytest.raises(InputError, match="--data FILE"):
        retrain(home, "lathe", store=store, **QUICK)
    with pytest.raises(InputError, match="has 0 rows to learn from; at least 40"):
        retrain(home, "lathe", store=store, recent=0, **QUICK)
    assert retrain(home, "lathe", store=store, data=first, **QUICK).status == "nothing_new"
    done = retrain(home, "mill", store=store, **QUICK)  # served from its run's folder, which is still there
    assert (done.status, done.run_folder) == ("nothing_new", None)
    with pytest.raises(InputError, match="canary with a share above 0"):
        retrain(home, "mill", store=store, mode="canary", **QUICK)
    with pytest.raises(InputError, match="There are: lathe, mill"):
        retrain(home, "../mile", store=store, **QUICK)
    assert not list(home.rglob("*mile*"))


def test_after_a_shift_the_challenger_is_better_and_is_made_once(store, home, first):
    labelled(store, tickets(120, 5, moved=True))
    dry = retrain(home, "mill", store=store, data=first, dry_run=True, **QUICK)
    assert dry.status == "dry_run"
    assert len(store.versions.of("mill")) == 1
    done = retrain(home, "mill", store=store, recent=20, mode="canary", share=0.2, **QUICK)
    assert (done.status, done.version) == ("challenger", 2), str(done.text)
    version, stage = store.versions.get("mill", 2), store.versions.stage("mill")
    assert (stage.champion, stage.challenger, stage.mode, stage.share) == (1, 2, "canary", 0.2)
    assert version.source == "retrain"
    assert version.fingerprint == done.fingerprint
    assert version.facts["gain"] > 0
    assert load(home / version.file).digest == version.digest
    answer = load(home / version.file).predict_one({"heat": -2.0, "load": 0.0, "shop": "north"})
    assert answer["answer"] == "yes", "it has learnt the new sign"
    assert retrain(home, "mill", store=store, recent=20, **QUICK).status == "testing"
    store.versions.withdraw("mill")
    again = retrain(home, "mill", store=store, recent=20, **QUICK)
    assert again.status == "nothing_new"
    assert again.version == 2
    assert len(store.versions.of("mill")) == 2


def test_a_clearly_worse_winner_does_not_challenge_and_is_not_tried_again(store, home, first):
    labelled(store, tickets(160, 6))
    naive = QUICK | {"candidates": ("naive",)}
    done = retrain(home, "mill", store=store, data=first, **naive)
    assert done.status == "not_better"
    assert "loses" in str(done.text)
    assert len(store.versions.of("mill")) == 1
    assert store.versions.stage("mill").challenger is None
    assert retrain(home, "mill", store=store, **naive).status == "nothing_new"


def test_killed_in_the_middle_and_called_again_it_goes_on_and_leaves_one_whole_version(store, home, first):
    labelled(store, tickets(80, 7, moved=True))
    code = f"""
from pathlib import Path
from assay.retrain.retrain import retrain
from assay.store import Store
def told(event):
    if getattr(event, "kind", "") == "end" and event.candidate == "naive": print("naive", flush=True)
with Store.open(Path({str(home)!r}) / "store.sqlite") as store:
    retrain(Path({str(home)!r}), "mill", store=store, data={str(first)!r}, recent=20, observe=told, work=20, tune=False, candidates=("linear",))
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline().strip() == "naive"
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert len(store.versions.of("mill")) == 1
    assert not list((home / "bundles").glob(".*"))
    done = retrain(home, "mill", store=store, recent=20, **QUICK)
    assert done.status == "challenger", str(done.text)
    assert [t.candidate for t in Folder(done.run_folder).trials()].count("naive") == 1, "what had finished is not played again"
    assert len(list((home / "runs").glob("mill-*"))) == 1
    assert len(store.versions.of("mill")) == 2
    store.versions.withdraw("mill")
    (done.run_folder / "retrained.json").unlink()  # as if the kill had come between the version and the challenge
    again = retrain(home, "mill", store=store, recent=20, **QUICK)
    assert again.status == "challenger"
    assert again.version == 2
    assert len(store.versions.of("mill")) == 2


def test_the_command_line_says_what_came_of_it_and_prints_a_schedule(store, home, first, monkeypatch):
    labelled(store, tickets(3, 1))
    done = CliRunner().invoke(app, ["retrain", "mill", "--home", str(home), "--data", str(first), "--dry-run", "--lang", "en"])
    assert "would be played on 163 rows" in done.output, done.output
    done = CliRunner().invoke(app, ["challenge", "mill", "--home", str(home), "--lang", "zh"])
    assert "没有正在检验的挑战者" in done.output
    done = CliRunner().invoke(app, ["retrain", "mill", "--home", str(home), "--cron", "30 3 * * 1", "--lang", "en"])
    assert "30 3 * * 1 " in done.output
    assert "OnCalendar=Mon *-*-* 3:30:00" in done.output
    assert shutil.which("assay") is None or f"{shutil.which('assay')} retrain mill" in done.output


# ---- the demo's traffic


def test_the_turned_camera_shows_every_real_scan_once_and_spoils_a_model_of_the_straight_one():
    from sklearn.linear_model import LogisticRegression

    shown = replay(0)
    assert shown.training.height == TAUGHT
    assert shown.shift == BEFORE
    assert len(shown.asked) == 1797 - TAUGHT
    assert replay(0).asked[:3] == shown.asked[:3]
    assert replay(1).asked[:3] != shown.asked[:3]
    pixels = shown.training.drop(TARGET)
    assert len({tuple(a.row.values()) for a in shown.asked[:BEFORE]} & set(pixels.rows())) <= 1  # two writers may draw the same by chance
    model = LogisticRegression(max_iter=300).fit(pixels.to_numpy() / 16, shown.training[TARGET].to_numpy())

    def right(part) -> float:
        return float(np.mean(model.predict(np.array([list(a.row.values()) for a in part]) / 16) == np.array([a.truth for a in part])))

    assert right(shown.asked[:BEFORE]) > 0.9
    assert right(shown.asked[BEFORE:]) < 0.5
    later = shown.asked[BEFORE:]
    taught = LogisticRegression(max_iter=300).fit(np.array([list(a.row.values()) for a in later[:250]]) / 16, [a.truth for a in later[:250]])
    assert np.mean(taught.predict(np.array([list(a.row.values()) for a in later[250:]]) / 16) == [a.truth for a in later[250:]]) > 0.8
