"""Somebody else's model is judged on the same rows, whatever brings its answers; what is wrong with it is one sentence."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from llm_stub import stubbed

import assay
from assay.case import Case
from assay.checks import check_candidate
from assay.data.dataset import Dataset
from assay.data.external import command
from assay.data.external.answers import SLACK, flatters, table_of, understood
from assay.data.external.spec import entries
from assay.data.read import read
from assay.errors import AssayError, BundleError, EndpointError, InputError
from assay.families.base import Budget
from assay.families.external import External, external, worth_of_labels
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress

PYTHON = shlex.quote(sys.executable)
TRAIN, TEST = np.arange(0, 569, 2), np.arange(1, 569, 2)


# ---- real data, and a strong and a weak model of it, made elsewhere: out of fold, so that no answer comes from a row that taught it


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """cancer.csv (ids and 30 numbers) and answers about it: strong.csv, weak.csv (in another order), strong and weak labels."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    folder = tmp_path_factory.mktemp("cancer")
    raw = load_breast_cancer()
    truth = np.where(raw.target == 1, "benign", "malignant")
    rows = pl.DataFrame(raw.data, schema=[n.replace(" ", "_") for n in raw.feature_names])
    rows = rows.insert_column(0, pl.Series("patient_id", [f"P{i:04d}" for i in range(569)])).with_columns(diagnosis=pl.Series(truth))
    rows.write_csv(folder / "cancer.csv")
    strong = cross_val_predict(make_pipeline(StandardScaler(), LogisticRegression()), raw.data, truth, cv=5, method="predict_proba")
    weak = cross_val_predict(DecisionTreeClassifier(max_depth=2, random_state=0), raw.data[:, [9]], truth, cv=5, method="predict_proba")
    for name, p in (("strong", strong), ("weak", weak)):
        table = pl.DataFrame({"patient_id": rows["patient_id"], "benign": p[:, 0], "malignant": p[:, 1]})
        table.write_csv(folder / f"{name}.csv")
        table.sample(fraction=1.0, shuffle=True, seed=3).write_parquet(folder / f"{name}_shuffled.parquet")
        table.select(prediction=pl.when(pl.col("benign") > 0.5).then(pl.lit("benign")).otherwise(pl.lit("malignant"))).write_csv(folder / f"{name}_labels.csv")
    return folder


@pytest.fixture(autouse=True)
def prompt(monkeypatch):
    """Python's little server waits 40 ms for an acknowledgement between the head and the body of each reply."""
    monkeypatch.setattr("socketserver.StreamRequestHandler.disable_nagle_algorithm", True)


@pytest.fixture(scope="module")
def cancer(place) -> Dataset:
    data = read(place / "cancer.csv", target="diagnosis").dataset
    return replace(data, rows=np.arange(len(data)))


def built(data: Dataset, task, spec: str, **more) -> External:
    (_, params), = entries([spec], [])
    return External(task, data.schema, **(params | {"price": None, "rows": len(data)} | more))


def played(data: Dataset, spec: str, tmp_path: Path, *, seconds=20.0, loss="log", task=None, **more) -> tuple[float, External, np.ndarray]:
    """(loss on rows it was not given, the model as it comes back from its dump, its answers)."""
    task = task or Classify.of(data, loss=loss)
    train, test = data.take(TRAIN), data.take(TEST)
    model = built(data, task, spec, **more).fit(train, seed=1, budget=Budget(seconds=seconds, predict_seconds=seconds))
    answers = model.predict(test.asked())
    folder = tmp_path / "kept"
    folder.mkdir()
    model.dump(folder)
    assert {f.suffix for f in folder.iterdir()} <= {".json", ".parquet"}
    again = built(data, task, spec, **more).load(folder)
    assert np.array_equal(again.predict(test.asked()), answers)
    again.facts = again.facts | model.facts
    return float(task.losses(train, test, task.calibrated(answers, {})).mean()), again, answers


# ---- a file of answers


def test_a_strong_file_beats_a_weak_one_and_both_beat_the_shares(place, cancer, tmp_path):
    task = Classify.of(cancer)
    shares = np.bincount(task.truth(cancer.take(TRAIN)), minlength=2) / len(TRAIN)
    naive = task.losses(cancer, cancer.take(TEST), np.tile(shares, (len(TEST), 1))).mean()
    losses = {}
    for name in ("strong", "weak"):
        (tmp_path / name).mkdir()
        losses[name], model, _ = played(cancer, str(place / f"{name}.csv"), tmp_path / name)
        assert model.facts["matched_by"] == "patient_id"
    assert losses["strong"] < 0.5 * losses["weak"] < losses["weak"] < naive


def test_rows_in_another_order_are_found_by_their_id(place, cancer, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    _, _, straight = played(cancer, str(place / "strong.csv"), tmp_path / "a")
    _, model, shuffled = played(cancer, str(place / "strong_shuffled.parquet"), tmp_path / "b")
    assert np.allclose(straight, shuffled, atol=1e-6)
    row = cancer.take(TEST).asked().frame.row(7, named=True)
    assert np.array_equal(model.predict_row(row), shuffled[7:8])


def test_without_an_id_row_i_of_the_file_is_row_i_of_the_data(place, cancer, tmp_path):
    _, model, answers = played(cancer, str(place / "strong_labels.csv"), tmp_path, loss="error")
    said = pl.read_csv(place / "strong_labels.csv")["prediction"].to_numpy()[TEST]
    assert [Classify.of(cancer).classes[c] for c in answers.argmax(axis=1)] == said.tolist()
    assert model.facts["matched_by"] == "row order"


def test_labels_are_worth_what_training_rows_say(place, cancer, tmp_path):
    """Log loss with P(truth | answer) learnt is far below that of labels believed to 99 %, and near that of the best constant pair."""
    loss, model, answers = played(cancer, str(place / "weak_labels.csv"), tmp_path)
    task = Classify.of(cancer)
    sure = np.where(answers == answers.max(axis=1, keepdims=True), 0.99, 0.01)
    believed = task.losses(cancer, cancer.take(TEST), sure).mean()
    truth, codes = task.truth(cancer.take(TEST)), answers.argmax(axis=1)
    best = worth_of_labels(codes, truth, 2)[codes]
    assert loss < believed
    assert loss < task.losses(cancer, cancer.take(TEST), best).mean() + 0.02
    assert model.facts["answers"] == "labels"
    assert 0.5 < model.facts["agreement"] < 0.95
    assert model.facts["learnt_rows"] == len(TRAIN)


@pytest.mark.parametrize(("loss", "keeps"), [("error", True), ("log", False)])
def test_where_errors_are_counted_a_label_stays_what_was_said_even_if_it_is_mostly_wrong(cancer, tmp_path, loss, keeps):
    harsh = np.random.default_rng(0).random(569) < 0.9
    said = np.where((cancer.frame["diagnosis"].to_numpy() == "malignant") | harsh, "malignant", "benign")  # of the first, most are benign
    pl.DataFrame({"prediction": said}).write_csv(tmp_path / "harsh.csv")
    task = Classify.of(cancer, loss=loss)
    loss, _, answers = played(cancer, str(tmp_path / "harsh.csv"), tmp_path, task=task)
    assert (np.array(task.classes)[answers.argmax(axis=1)] == said[TEST]).all() == keeps


def test_a_price_and_an_unknown_latency_stand_in_the_facts(place, cancer, tmp_path):
    _, model, _ = played(cancer, str(place / "strong.csv"), tmp_path, price=0.002)
    assert model.facts["money_per_row"] == 0.002
    assert model.facts["latency_ms"] is None
    assert model.facts["packable"] is False


BROKEN = {
    "no_file": (None, "There is no file of answers"),
    "too_few": (lambda t: t.head(500), r"no usable answer for \d+ of 285 rows; the first of them is patient_id P0500"),
    "gaps": (lambda t: t.with_columns(pl.when(pl.col("patient_id") == "P0006").then(None).otherwise(pl.col("benign")).alias("benign")),
             r"no usable answer for 1 of 285 rows; the first of them is patient_id P0006"),
    "no_sum": (lambda t: t.with_columns(pl.col("benign") * 0.5), r"probabilities sum to 0\.\d+, not to 1"),
    "negative": (lambda t: t.with_columns(pl.col("benign") - 1, pl.col("malignant") + 1), r"is no probability"),
    "wrong_label": (lambda t: t.select("patient_id", answer=pl.lit("healthy")), r"'healthy' is no label of this target \(569 rows say so\)"),
    "no_answer": (lambda t: t.select("patient_id", a=pl.lit(1), b=pl.lit(2)), r"not clear which is the answer"),
    "which_class": (lambda t: t.select("patient_id", probability="benign"), r"not clear of which of the labels benign, malignant"),
    "short": (lambda t: t.select("benign", "malignant").head(500), r"has 500 rows, the data has 569"),
    "text": (lambda t: t.select("patient_id", "malignant", benign=pl.lit("high")), r"row 1: 'high' in column 'benign' is no number"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_file_is_one_sentence(place, cancer, tmp_path, what):
    change, words = BROKEN[what]
    file = tmp_path / "answers.csv"
    if change:
        change(pl.read_csv(place / "strong.csv")).write_csv(file)
    with pytest.raises(InputError, match=words):
        played(cancer, str(file), tmp_path)


def test_a_file_that_ends_early_is_noticed_even_if_nobody_knows_how_long_the_data_are(place, cancer, tmp_path):
    pl.read_csv(place / "strong.csv").drop("patient_id").head(400).write_csv(tmp_path / "answers.csv")
    with pytest.raises(InputError, match="ends after 400 rows; the data has at least 569"):
        played(cancer, str(tmp_path / "answers.csv"), tmp_path, rows=None)


def test_a_file_in_another_order_is_noticed_by_the_columns_that_both_have(place, cancer, tmp_path):
    wrong = pl.read_csv(place / "cancer.csv").drop("patient_id").with_columns(prediction=pl.col("diagnosis")).reverse()
    wrong.write_csv(tmp_path / "answers.csv")
    with pytest.raises(InputError, match="the rows are not in the same order"):
        played(cancer, str(tmp_path / "answers.csv"), tmp_path)


def test_amounts_are_taken_as_they_are_and_infinite_ones_refused(tmp_path):
    data = Regress.example()
    data = replace(data, rows=np.arange(len(data)))
    task = Regress.of(data)
    amounts = data.frame["price"].to_numpy() + 1.0
    pl.DataFrame({"price": amounts}).write_csv(tmp_path / "a.csv")
    model = built(data, task, str(tmp_path / "a.csv")).fit(data.take(np.arange(100)), seed=0, budget=Budget())
    assert np.allclose(model.predict(data.take(np.arange(100, 150)).asked())[:, 0], amounts[100:])
    pl.DataFrame({"price": np.where(np.arange(150) == 4, np.inf, amounts)}).write_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match="row 5: the answer is infinite"):
        built(data, task, str(tmp_path / "a.csv")).fit(data.take(np.arange(100)), seed=0, budget=Budget())


# ---- layouts


@pytest.mark.parametrize("layout", [
    {"no": "n", "yes": "y"}, {"p(no)": "n", "p(yes)": "y"}, {"prob_no": "n", "prob_yes": "y"}, {"predict": "l", "pno": "n", "pyes": "y"},
    {".pred_class": "l", ".pred_no": "n", ".pred_yes": "y"}, {"0": "n", "1": "y"}, {"column_1": "i", "0": "n", "1": "y"}, {"p(yes)": "y"},
    {"probability": "y"}, {"churn": "y"}, {"answer": "l", "probability": "s"}, {"prediction_label": "l", "prediction_score": "s"},
    {"answer": "l", "probability": "y"}, {"YES": "y", "No": "n"}, {"p(no)": "n%", "p(yes)": "y%"}, {"p(yes)": "y%"},
], ids=lambda layout: "+".join(layout))
def test_every_layout_says_the_same(layout):
    yes = np.array([0.1, 0.25, 0.9, 0.6])
    cells = {"y": yes, "n": 1 - yes, "l": np.where(yes > 0.5, "yes", "no"), "s": np.maximum(yes, 1 - yes), "i": np.arange(4), "y%": 100 * yes,
             "n%": 100 * (1 - yes)}
    found = understood(pl.DataFrame({name: cells[what] for name, what in layout.items()}), labels=("no", "yes"), target="churn", source="it")
    assert found.kind == "probabilities"
    assert np.allclose(found.values, np.column_stack([1 - yes, yes]), atol=1e-6)


@pytest.mark.parametrize(("cells", "labels"), [
    ([0.0, 1.0, 1.0], ("0", "1")), (["0", "1", "1"], ("0", "1")), ([0, 1, 1], ("0", "1")), ([False, True, True], ("0", "1")), ([False, True, True], ("false", "true")),
    ([0, 1, 1], ("false", "true")), ([" No", "YES", "yes"], ("no", "yes")), (["账单", "物流", "物流"], ("账单", "物流")),
])
def test_labels_are_the_same_however_they_are_written(cells, labels):
    assert understood(pl.DataFrame({"prediction": cells}), labels=labels, target="t", source="it").values[:, 0].tolist() == [0, 1, 1]


@given(arrays(float, (6, 3), elements=st.floats(0.01, 1)), st.floats(0.5, 1.5))
def test_probabilities_near_one_are_renormalised_and_others_refused(raw, scale):
    raw = raw / raw.sum(axis=1, keepdims=True)
    table = pl.DataFrame({f"p({c})": raw[:, i] * scale for i, c in enumerate("abc")})
    if abs(scale - 1) < SLACK - 1e-9:
        found = understood(table, labels=("a", "b", "c"), target="t", source="it")
        assert np.allclose(found.values, raw, atol=1e-5)
        assert ("renormalised" in found.facts) == (abs(scale - 1) > 1e-3)
    elif abs(scale - 1) > SLACK + 1e-9:
        with pytest.raises(InputError, match=r"sum to|no probability"):
            understood(table, labels=("a", "b", "c"), target="t", source="it")


def test_answers_that_come_as_json_leave_out_what_is_impossible():
    table = table_of([{"a": 0.7, "b": 0.3}, {"c": 1.0}, {"probabilities": {"a": 0.5, "c": 0.5}}], ("a", "b", "c"))
    assert np.allclose(understood(table, labels=("a", "b", "c"), target="t", source="it").values, [[0.7, 0.3, 0], [0, 0, 1], [0.5, 0, 0.5]])
    own = table_of([{"answer": "a", "probability": 0.8, "p(a)": 0.8, "p(b)": 0.2}], ("a", "b"))
    assert np.allclose(understood(own, labels=("a", "b"), target="t", source="it").values, [[0.8, 0.2]])


# ---- what a label is worth


@given(st.integers(2, 8), st.integers(0, 400), st.integers(0, 5))
def test_what_a_label_is_worth_are_probabilities_of_which_none_is_zero(classes, rows, seed):
    rng = np.random.default_rng(seed)
    worth = worth_of_labels(rng.integers(0, classes, rows), rng.integers(0, classes, rows), classes)
    assert np.allclose(worth.sum(axis=1), 1)
    assert (worth > 0).all()


def test_many_rows_show_what_labels_are_worth_and_few_lean_on_the_overall_share():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 30_000)
    channel = np.array([[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.0, 0.1, 0.9]])  # P(said | truth)
    said = np.array([rng.choice(3, p=channel[t]) for t in truth[:30_000]])
    exact = channel.T / channel.T.sum(axis=1, keepdims=True)
    assert np.abs(worth_of_labels(said, truth, 3) - exact).max() < 0.02
    few = worth_of_labels(np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1, 1, 1]), 3)
    assert few[2].argmax() == 2  # an answer never heard before is believed as the others deserve
    assert few[2, 2] > 0.6


def test_a_model_that_knows_the_training_rows_by_heart_is_found_out_and_an_honest_one_is_not():
    rng = np.random.default_rng(0)
    honest = rng.exponential(0.3, 1000)
    assert flatters(rng.exponential(0.02, 200), honest)
    assert not any(flatters(rng.exponential(0.3, 200), rng.exponential(0.3, 200)) for _ in range(300))
    assert not any(flatters(rng.exponential(0.3, 12), rng.exponential(0.3, 12)) for _ in range(300))  # a factor of 1.5 is nothing yet


# ---- a program


def script(folder: Path, body: str, name: str = "vendor.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return path


READY = """
    import csv, sys
    rows = list(csv.DictReader(open(sys.argv[1], encoding="utf-8")))
    assert "diagnosis" not in rows[0]
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        print("p(malignant)", file=out)
        for row in rows:
            print(min(0.99, max(0.01, (float(row["worst_radius"]) - 10) / 14)), file=out)
"""
LEARNS = """
    import csv, sys
    train = list(csv.DictReader(open(sys.argv[1], encoding="utf-8")))
    sick = [float(r["worst_radius"]) for r in train if r["diagnosis"] == "malignant"]
    well = [float(r["worst_radius"]) for r in train if r["diagnosis"] == "benign"]
    cut = (sum(sick) / len(sick) + sum(well) / len(well)) / 2
    rows = list(csv.DictReader(open(sys.argv[2], encoding="utf-8")))
    with open(sys.argv[3], "w", encoding="utf-8") as out:
        print("patient_id,answer", file=out)
        for row in reversed(rows):
            print(row["patient_id"], "malignant" if float(row["worst_radius"]) > cut else "benign", sep=",", file=out)
    open(sys.argv[4], "a").write(f"{len(train)} {len(rows)}\\n")
"""


def test_a_finished_program_answers_in_one_run(cancer, tmp_path):
    path = script(tmp_path, READY, "my vendor's model.py")
    loss, model, _ = played(cancer, f"cmd:{PYTHON} {shlex.quote(str(path))} {{asked}} {{answers}}", tmp_path)
    assert loss < 0.35
    assert model.facts["ready"] is True
    assert model.facts["run_s"] > 0
    assert model.facts["latency_ms"] is None


def test_a_program_that_learns_gets_the_training_rows_and_its_labels_are_weighed_on_rows_it_did_not_learn_from(cancer, tmp_path):
    path, log = script(tmp_path, LEARNS), tmp_path / "runs.txt"
    loss, model, _ = played(cancer, f"cmd:{PYTHON} {path} {{train}} {{asked}} {{answers}} {log}", tmp_path)
    runs = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    held = len(TRAIN) - runs[1][0]
    assert runs == [(len(TRAIN), len(TEST)), (len(TRAIN) - held, held), (len(TRAIN), len(TEST))]  # asked, weighed, asked again after load
    assert 50 <= held <= 80
    assert loss < 0.45
    assert model.facts["ready"] is False


def test_a_program_sees_none_of_assays_keys(cancer, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_EXTERNAL_KEY", "s3cret")
    monkeypatch.setenv("ASSAY_LLM_KEY", "s3cret")
    path = script(tmp_path, "import os, sys\nsys.exit('seen' if 's3cret' in os.environ.values() else 'not seen')")
    with pytest.raises(InputError, match="not seen"):
        played(cancer, f"cmd:{PYTHON} {path} {{asked}} {{answers}}", tmp_path)


MISBEHAVING = {
    "absent": ("", "nowhere/vendor {asked} {answers}", "cannot be started: No such file"),
    "fails": ("raise ValueError('no licence')", None, r"failed \(status 1\); its last words: ValueError: no licence"),
    "silent": ("pass", None, "ended well but wrote no answers.csv"),
    "few": ("import sys; open(sys.argv[2], 'w').write('answer\\nbenign\\n')", None, r"wrote 1 answers to \d+ rows"),
    "labels": ("import sys; n = len(open(sys.argv[1]).readlines()) - 1; open(sys.argv[2], 'w').write('answer\\n' + 'well\\n' * n)", None,
               "row 1: 'well' is no label"),
    "empty": ("import sys; open(sys.argv[2], 'w').close()", None, "is empty"),
    "holes": ("", "python vendor.py {train}", r"has to name a program, {asked}"),
    "hole": ("", "python vendor.py {asked} {answers} {budget}", r"hole {budget}, which nothing fills"),
    "quotes": ("", "python 'vendor.py {asked} {answers}", "cannot be read: No closing quotation"),
}


@pytest.mark.parametrize("what", MISBEHAVING)
def test_what_is_wrong_with_a_program_is_one_sentence(cancer, tmp_path, what):
    body, line, words = MISBEHAVING[what]
    path = script(tmp_path, body)
    with pytest.raises(InputError, match=words):
        played(cancer, f"cmd:{line or f'{PYTHON} {path} {{asked}} {{answers}}'}", tmp_path)


FORKS = """
    import os, subprocess, sys, time
    mark = sys.argv[3]
    open(mark, "w").write(" ".join(str(subprocess.Popen(c).pid) for c in (["sleep", "60"], ["setsid", "sleep", "60"])))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open(mark, "a").write(f" {os.getpid()}")
            time.sleep(60)
        os._exit(0)
    print("still thinking", file=sys.stderr, flush=True)
    while True:
        print("x" * 1000, file=sys.stderr if len(sys.argv) > 4 else sys.stdout)
"""


def gone(mark: Path) -> bool:
    pids = [int(p) for p in mark.read_text().split()]
    assert len(pids) == 3
    return not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids)


def test_a_program_that_hangs_is_ended_in_time_with_everything_it_started(cancer, tmp_path):
    path, mark = script(tmp_path, FORKS), tmp_path / "pids"
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"had not ended after 1\.\d s, and was stopped with all it had started; its last words: still thinking"):
        command.run(command.words_of(f"{PYTHON} {path} {{asked}} {{answers}} {mark}"), asked=cancer.frame, train=None, limits=command.Limits(1.5))
    assert time.monotonic() - begin < 20
    assert gone(mark)


def test_a_program_that_takes_too_much_memory_is_stopped(cancer, tmp_path):
    path = script(tmp_path, "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = bytearray(b\"1\" * 400_000_000); import time; time.sleep(30)'])")
    with pytest.raises(InputError, match="above the limit of 200 MB"):
        command.run(command.words_of(f"{PYTHON} {path} {{asked}} {{answers}}"), asked=cancer.frame, train=None, limits=command.Limits(30, 200))


def test_when_the_trial_is_killed_the_program_dies_and_no_rows_stay_behind(tmp_path):
    path, mark, rubbish = script(tmp_path, FORKS), tmp_path / "pids", tmp_path / "tmp"
    rubbish.mkdir()
    code = (f"import polars as pl; from assay.data.external import command; command.run(command.words_of({f'{PYTHON} {path} {{asked}} {{answers}} {mark} loud'!r}), "
            "asked=pl.DataFrame({'x': [1.0]}), train=None, limits=command.Limits(60))")
    trial = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(rubbish)}, start_new_session=True)
    for _ in range(200):
        if mark.exists() and len(mark.read_text().split()) == 3:
            break
        time.sleep(0.05)
    os.killpg(trial.pid, signal.SIGKILL)
    trial.wait()
    until = time.monotonic() + 60  # at most: a busy machine may let the leash wait
    while time.monotonic() < until and not (gone(mark) and not list(rubbish.iterdir())):
        time.sleep(0.05)
    assert gone(mark)
    assert not list(rubbish.iterdir())


def test_a_bundle_cannot_bring_a_program_of_its_own(cancer, tmp_path):
    path = script(tmp_path, READY, "own.py")
    (tmp_path / "external.json").write_text(json.dumps({"seed": 0, "target": "diagnosis", "learnt": None, "seconds": 5, "memory_mb": 500, "threads": 1}))
    model = built(cancer, Classify.of(cancer), f"cmd:{PYTHON} {path} {{asked}} {{answers}}").load(tmp_path)
    with pytest.raises(BundleError, match="cannot bring a program"):
        model.predict(cancer.asked())


# ---- an address


def served(body: dict, shape: str = "probabilities") -> list:
    """A real, if modest, model: the class from the radius; for the tasks' examples, from their first number."""
    out = []
    for row in body["rows"]:
        value = row.get("worst_radius", row.get("weight", row.get("size")))
        p = 0.3 if value is None else min(0.99, max(0.01, (float(value) - 10) / 14))
        out.append([1 - p, p] if shape == "lists" else {"benign": 1 - p, "malignant": p} if shape == "probabilities" else "malignant" if p > 0.5 else "benign")
    return out


def ok(answers) -> tuple[int, dict, bytes]:
    return 200, {}, json.dumps({"answers": answers}).encode()


@pytest.mark.parametrize("shape", ["probabilities", "labels", "lists"])
def test_a_model_behind_an_address_is_judged(cancer, tmp_path, shape):
    with stubbed(lambda body, n: ok(served(body, shape))) as server:
        loss, model, _ = played(cancer, f"{server.url}/v1/predict", tmp_path, price=0.5)
    assert loss < 0.45
    assert model.facts["answers"] == ("labels" if shape == "labels" else "probabilities")
    assert model.facts["latency_ms"] > 0
    assert server.headers[0]["path"] == "/v1/predict"
    assert "diagnosis" not in server.bodies[0]["rows"][0]
    assert "patient_id" not in server.bodies[0]["rows"][0]
    assert max(len(b["rows"]) for b in server.bodies) > 1
    asked_by_fit = 208 if shape == "labels" else 8
    assert sum(len(b["rows"]) for b in server.bodies) == asked_by_fit + 2 * len(TEST)
    assert model.facts["money"] == 0.5 * (asked_by_fit + len(TEST))


def test_an_address_holds_the_contract_of_every_contestant():
    with stubbed(lambda body, n: ok([{"complaint": 0.2, "praise": 0.5, "question": 0.3} if "shop" in r else (r["size"] or 1.0) * 3 for r in body["rows"]])) as server:
        (_, params), = entries([server.url], [])
        check_candidate(external, params=params)


def test_a_busy_server_is_asked_again_and_a_large_batch_is_halved(cancer, tmp_path):
    def moody(body, n):
        if n in (2, 5):
            return 429, {"Retry-After": "0"}, b"{}"
        if n == 7:
            return 503, {"Retry-After": "0"}, b"{}"
        return (413, {}, b"{}") if len(body["rows"]) > 20 else ok(served(body))

    with stubbed(moody) as server:
        loss, _, _ = played(cancer, server.url, tmp_path)
    assert loss < 0.45


def test_the_key_goes_out_as_bearer_and_is_nowhere_else(cancer, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSAY_EXTERNAL_KEY", "s3cret")
    with stubbed(lambda body, n: ok(served(body))) as server:
        played(cancer, server.url, tmp_path)
        assert all(h["Authorization"] == "Bearer s3cret" for h in server.headers)
    assert not [f for f in (tmp_path / "kept").iterdir() if b"s3cret" in f.read_bytes()]
    with stubbed(lambda body, n: (400, {}, b'{"error": "the key s3cret is not for this model"}')) as server, pytest.raises(EndpointError) as told:
        played(cancer, server.url, tmp_path)
    assert "s3cret" not in str(told.value)
    monkeypatch.setenv("ASSAY_EXTERNAL_KEY", "s3\ncret")
    with stubbed(lambda body, n: ok(served(body))) as server, pytest.raises(EndpointError, match="such as a line break"):
        played(cancer, server.url, tmp_path)


def test_nobody_gets_the_key_of_somebody_else(cancer, monkeypatch):
    case = Case(target="diagnosis", external=("a=https://a.example/x", "b-2=https://b.example/x", "c=https://a.example/y"))
    keys = [params["keys"] for _, params in external.instances(case, cancer.schema)]
    assert keys == [["ASSAY_EXTERNAL_KEY_A"], ["ASSAY_EXTERNAL_KEY_B_2"], ["ASSAY_EXTERNAL_KEY_C"]]
    alone = external.instances(replace(case, external=case.external[:1]), cancer.schema)
    assert alone[0][1]["keys"] == ["ASSAY_EXTERNAL_KEY_A", "ASSAY_EXTERNAL_KEY"]
    monkeypatch.setenv("ASSAY_EXTERNAL_KEY", "s3cret")
    with stubbed(lambda body, n: ok(served(body))) as server:
        built(cancer, Classify.of(cancer), server.url, keys=keys[0]).fit(cancer.take(TRAIN), seed=0, budget=Budget())
        assert not any("Authorization" in h for h in server.headers)


UNWILLING = {
    "labels": (lambda body, n: ok(["well"] * len(body["rows"])), "'well' is no label"),
    "few": (lambda body, n: ok(served(body)[1:]), "gave 0 answers to 1 rows"),
    "nan": (lambda body, n: (200, {}, b'{"answers": [' + b", ".join([b'{"malignant": NaN}'] * len(body["rows"])) + b"]}"), "no usable answer for 8 of 8 rows"),
    "null": (lambda body, n: ok([None] * len(body["rows"])), "no usable answer|not clear which is the answer"),
    "no_json": (lambda body, n: (200, {}, b"<html>welcome</html>"), "something that is not JSON: <html>"),
    "no_list": (lambda body, n: (200, {}, b'{"error": {"message": "out of quota"}}'), "without a list called \"answers\": out of quota"),
    "key": (lambda body, n: (401, {}, b"{}"), "refused the key"),
    "path": (lambda body, n: (404, {}, b'{"detail": "no such route"}'), r"refused the rows \(HTTP 404\): no such route"),
    "moved": (lambda body, n: (302, {"Location": "https://elsewhere.example/x"}, b""), "redirects to elsewhere.example/x"),
    "broken": (lambda body, n: (500, {"Retry-After": "0"}, b"oops"), "keeps answering HTTP 500 after 5 tries: oops"),
    "far": (lambda body, n: (429, {"Retry-After": "900"}, b"{}"), "asks to wait 900 s"),
}


@pytest.mark.parametrize("what", UNWILLING)
def test_what_is_wrong_with_an_address_is_one_sentence(cancer, tmp_path, what):
    behaviour, words = UNWILLING[what]
    with stubbed(behaviour) as server, pytest.raises(EndpointError, match=words):
        played(cancer, server.url, tmp_path)


def test_a_server_that_hangs_is_given_up_in_time(cancer, tmp_path):
    begin = time.monotonic()
    with stubbed(lambda body, n: time.sleep(20) or ok([])) as server, pytest.raises(EndpointError, match="did not answer"):
        played(cancer, server.url, tmp_path, seconds=1.5)
    assert time.monotonic() - begin < 15


def test_nobody_behind_an_address_is_one_sentence(cancer, tmp_path):
    with stubbed() as server:
        url = server.url
    with pytest.raises(EndpointError, match=r"Cannot connect to the model at 127\.0\.0\.1"):
        played(cancer, url, tmp_path)


@pytest.mark.parametrize(("url", "words"), [("https://", "is not the address"), ("https://me:pw@host/x", "must not carry a user"), ("https://h/x?key=1", "must not carry")])
def test_an_address_carries_no_secret(url, words):
    with pytest.raises(InputError, match=words) as told:
        entries([url], [])
    assert "pw" not in str(told.value)


# ---- names and prices


def test_names_are_given_or_made_and_always_safe_as_file_names(place):
    strong = str(place / "strong.csv")
    found = entries([strong, strong, f"mine={strong}", "cmd:python -u vendor.py {asked} {answers}", "cmd:nice ./score.sh {asked} {answers}",
                     "https://models.example.com/x", f"账单={strong}"], ["vendor"])
    assert [n for n, _ in found] == ["strong", "strong-2", "mine", "vendor-2", "score", "models.example.com", "账单"]
    assert [p["online"] for _, p in found] == [False] * 5 + [True, False]
    assert Path(found[0][1]["path"]).is_absolute()


@pytest.mark.parametrize(("specs", "words"), [
    (["linear={f}"], "'linear' is taken"), (["a={f}", "a={f}"], "'a' is taken"), (["../a={f}"], "There is no file of answers"), (["-x={f}"], "cannot be the name"),
    (["strng.csv"], "There is no file of answers 'strng.csv'"), (["autogluon:nowhere"], "holds no predictor.pkl"),
])
def test_a_name_or_place_that_cannot_be_is_refused(place, specs, words):
    with pytest.raises(InputError, match=words):
        entries([s.replace("{f}", str(place / "strong.csv")) for s in specs], ["linear"])


def test_a_misspelt_file_is_guessed(place):
    with pytest.raises(InputError, match=r"Did you mean 'strong\.csv'"):
        entries([str(place / "strongs.csv")], [])


def test_one_card_brings_every_model_of_the_case_with_its_price(place, cancer):
    case = Case(target="diagnosis", data=str(place / "cancer.csv"), external=(f"a={place / 'strong.csv'}", f"b={place / 'weak.csv'}"), external_price={"b": 0.01})
    assert external.instances is not None
    found = dict(external.instances(case, cancer.schema))
    assert (found["a"]["price"], found["b"]["price"], found["a"]["rows"]) == (None, 0.01, 569)
    assert external.instances(Case(target="diagnosis"), cancer.schema) == []
    assert external.prepare(Case(target="diagnosis"), cancer.schema) != {}
    with pytest.raises(InputError, match="no model of yours is called so"):
        external.instances(replace(case, external_price={"c": 1.0}), cancer.schema)


# ---- the whole contest


@pytest.mark.parametrize(("specs", "outcomes"), [(("strong", "weak"), {"worth_it"}), (("weak",), {"nothing_beats_naive", "unknown", "not_worth_it"})])
def test_the_referee_tells_a_strong_model_of_somebody_else_from_a_weak_one(place, tmp_path, specs, outcomes):
    run = assay.run(place / "cancer.csv", target="diagnosis", work=1, folds=1, candidates=["naive"], external=[str(place / f"{s}.csv") for s in specs],
                    external_price={specs[0]: 0.002}, out=tmp_path / "run")
    board = {row["candidate"]: row for row in run.verdict.scoreboard}
    assert run.verdict.outcome in outcomes
    assert [board[s]["status"] for s in specs] == ["done"] * len(specs)
    assert board[specs[0]]["cost"]["money_per_row"] == 0.002
    assert board[specs[0]]["cost"]["single_row_ms"] is None
    assert run.verdict.packed == "naive"  # answers cannot be handed over
    if "strong" in specs:
        assert (run.verdict.winner, run.verdict.large) == ("strong", "strong")
        assert board["weak"]["against_winner"]["p_holm"] < 0.01


# ---- AutoGluon, where it is


def autogluon_python() -> Path:
    peers = Path(os.environ.get("ASSAY_PEERS") or Path.home() / ".cache" / "assay-peers")
    return peers / "autogluon" / "bin" / "python"


def test_an_autogluon_predictor_without_its_environment_is_one_sentence(cancer, tmp_path):
    folder = tmp_path / "predictor"
    folder.mkdir()
    (folder / "predictor.pkl").write_bytes(b"")
    with pytest.raises(InputError, match="AutoGluon is not installed beside assay"):
        entries([f"autogluon:{folder}"], [])
    with pytest.raises(InputError, match="no Python that can be started"):
        entries([f"autogluon:{folder}?python=/nowhere/python"], [])
    with pytest.raises(InputError, match="AutoGluon is not installed in the environment of"):  # assay's own has none
        played(cancer, f"autogluon:{folder}?python={sys.executable}", tmp_path)


@pytest.mark.slow
def test_a_real_autogluon_predictor_answers_from_its_own_environment(place, cancer, tmp_path):
    python = autogluon_python()
    if not python.exists() or subprocess.run([python, "-c", "import autogluon.tabular"], capture_output=True).returncode:
        pytest.skip(f"no AutoGluon at {python}")
    rows, made = pl.read_csv(place / "cancer.csv"), tmp_path / "predictor"
    rows[TRAIN].write_csv(tmp_path / "train.csv")
    rows[TEST].drop("diagnosis").write_csv(tmp_path / "test.csv")
    made_there = script(tmp_path, f"""
        import pandas
        from autogluon.tabular import TabularPredictor
        predictor = TabularPredictor(label="diagnosis", path={str(made)!r}, verbosity=0).fit(
            pandas.read_csv({str(tmp_path / "train.csv")!r}), time_limit=20, presets="medium_quality", hyperparameters={{"GBM": {{}}, "RF": {{}}}})
        predictor.predict_proba(pandas.read_csv({str(tmp_path / "test.csv")!r}))[["benign", "malignant"]].to_csv({str(tmp_path / "said.csv")!r}, index=False)
    """)
    subprocess.run([python, "-I", made_there], check=True, capture_output=True, timeout=300)
    _, model, answers = played(cancer, f"autogluon:{made}?python={python}", tmp_path, seconds=120.0)
    assert np.allclose(answers, pl.read_csv(tmp_path / "said.csv").to_numpy(), atol=1e-6)  # what it says itself
    assert model.facts["answers"] == "probabilities"
    assert 0 < model.facts["latency_ms"] < 5000
    assert model.facts["made_by"].startswith("AutoGluon ")
    (made / "predictor.pkl").write_bytes(b"not a pickle")
    with pytest.raises(AssayError, match="does not open with"):
        built(cancer, Classify.of(cancer), f"autogluon:{made}?python={python}").fit(cancer.take(TRAIN), seed=0, budget=Budget())
