"""The command line as a user meets it: verdicts, judging again, predicting, and one clear sentence for every wrong input."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from jsonschema import validate

import assay
from assay.cli import main
from assay.data.demo import demo

N = 240


def call(monkeypatch, capsys, *words):
    """(exit code, standard output, standard error) of the command line, in this process."""
    monkeypatch.setattr(sys, "argv", ["assay", *map(str, words)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    good = pl.DataFrame({"x": x, "shop": rng.choice(["north", "south"], N), "y": np.where(x + rng.normal(size=N) > 0, "yes", "no")})
    good.write_csv(place / "good.csv")
    good.with_columns(y=pl.lit("yes")).write_csv(place / "one_class.csv")
    good.with_columns(y=pl.lit(None, dtype=pl.String)).write_csv(place / "no_target.csv")
    good.head(3).write_csv(place / "three.csv")
    pl.DataFrame({"x": rng.normal(size=6000), "y": [f"c{i % 2000}" for i in range(6000)]}).write_csv(place / "2000_classes.csv")
    (place / "nan.csv").write_text("x,y\n" + "\n".join(f"{i},{v}" for i, v in enumerate([1.5, float("nan"), float("inf"), *rng.normal(size=97)])))
    (place / "twice.csv").write_text("x,x,y\n1,2,a\n3,4,b\n")
    (place / "binary.csv").write_bytes(bytes(range(256)) * 20)
    good.write_parquet(place / "cut.parquet")
    (place / "cut.parquet").write_bytes((place / "cut.parquet").read_bytes()[:600])
    (place / "ragged.csv").write_text("x,y\n" + "1,a\n" * 9 + "1,a,9\n" + "2,b\n" * 9)
    (place / "empty.csv").write_text("")
    (place / "broken.toml").write_text("target = ")
    (place / "odd.toml").write_text("target = 'y'\ncolour = 'red'")
    (place / "prices.toml").write_text("currency = 'USD'")
    return place


WRONG = [
    ("one_class.csv --target y", 4, "one value only"),
    ("no_target.csv --target y", 2, "no values at all"),
    ("three.csv --target y", 4, "Rows found: 3"),
    ("2000_classes.csv --target y", 4, "2000 classes; at most 1000"),
    ("nan.csv --target y", 4, "2 of 100 rows have no usable value in 'y' \\(the first is data row 2\\)"),
    ("twice.csv --target y", 3, "more than one of: x"),
    ("binary.csv --target y", 3, "is not text"),
    ("cut.parquet --target y", 3, "cut off"),
    ("ragged.csv --target y", 3, "Line 11 .* has 3 fields, the header has 2"),
    ("empty.csv --target y", 3, "is empty"),
    ("missing.csv --target y", 3, "There is no file"),
    ("good.csv --target shap", 2, "Did you mean 'shop'"),
    ("good.csv", 2, "--target COLUMN"),
    ("good.csv --target y --time soon", 2, "'soon' is not a time"),
    ("good.csv --target y --time 0s", 2, "above zero"),
    ("good.csv --target y --memory 2Q", 2, "'2Q' is not a size"),
    ("good.csv --target y --requests 2M/fortnight", 2, "is not a rate"),
    ("good.csv --target y --worth cheap", 2, "does not say what an error costs"),
    ("good.csv --target y --worth maybe>no=5EUR", 2, "The labels are: no, yes"),
    ("good.csv --target y --worth error=5XXX", 2, "no rate for XXX"),
    ("good.csv --target y --task regress", 4, "holds labels, not amounts"),
    ("good.csv --target y --task segment", 2, "There is no task 'segment'"),
    ("good.csv --target y --loss hinge", 2, "no loss 'hinge'"),
    ("good.csv --target y --kind x=colour", 2, "no kind of column"),
    ("good.csv --target y --weights tabpfn", 2, "is not NAME=FILE"),
    ("good.csv --target y --weights tabpf=a.safetensors", 2, "No candidate called 'tabpf' reads a weights file. Those that do: tabicl, tabpfn."),
    ("good.csv --target y --external-price v", 2, "is not NAME=PRICE"),
    ("good.csv --target y --kind x", 2, "is not COLUMN=KIND"),
    ("good.csv --target y --split sideways", 2, "no split 'sideways'"),
    ("good.csv --target y --split group", 2, "needs a group column"),
    ("good.csv --target y --group nobody", 2, "No column is called 'nobody'"),
    ("good.csv --target y --only nobody", 2, "There is no candidate 'nobody'"),
    ("good.csv --target y --prices prices.toml", 2, "is not usable"),
    ("good.csv --case broken.toml", 2, "is not TOML"),
    ("good.csv --case odd.toml", 2, "A case has no field 'colour'"),
]


@pytest.mark.parametrize(("words", "code", "sentence"), WRONG, ids=[w for w, *_ in WRONG])
def test_a_wrong_input_gets_one_sentence_and_an_exit_code(folder, tmp_path, monkeypatch, capsys, words, code, sentence):
    monkeypatch.chdir(folder)
    got, out, err = call(monkeypatch, capsys, "run", *words.split(), "-o", tmp_path / "run")
    last = err.strip().splitlines()[-1]
    assert got == code, err
    assert re.search(sentence, last), last
    assert last.startswith("Error: ")
    assert "Traceback" not in err
    assert not out
    assert not (tmp_path / "run").exists(), "nothing half-written"


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """One real run, shared by the tests below."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return assay.run(folder / "good.csv", target="y", time="25s", without=["mlp"], out=out)


def test_a_run_leaves_a_verdict_a_report_and_two_bundles(finished):
    names = {p.name for p in finished.folder.path.iterdir()}
    assert {"verdict.json", "report.html", "winner.assay", "cheapest.assay", "trials.jsonl", "splits.npz"} <= names
    schema = json.loads((__import__("pathlib").Path(assay.__file__).parent / "report" / "verdict.schema.json").read_text())
    validate(json.loads(finished.folder.verdict_file.read_text()), schema)
    assert str(finished.verdict.sentence) == str(finished.verdict)


def test_judging_again_changes_the_unit_and_retrains_nothing(finished, monkeypatch, capsys):
    before = finished.folder.trials_file.read_bytes()
    code, out, err = call(monkeypatch, capsys, "judge", finished.folder.path, "--worth", "error=4.5 CNY", "--requests", "2M/month", "--rival",
                          "boosting", "--json")
    verdict = json.loads(out)
    assert code == 0, err
    assert finished.folder.trials_file.read_bytes() == before
    assert verdict["money"]["currency"] == "CNY"
    assert verdict["large"] == "boosting"
    wrong = {row["candidate"]: row["metrics"]["accuracy"]["value"] for row in verdict["scoreboard"] if row["status"] == "done"}
    for row in verdict["scoreboard"]:
        if row["status"] == "done":
            assert row["loss"] == pytest.approx(4.5 * (1 - wrong[row["candidate"]]), abs=1e-6)


def test_a_limit_removes_a_candidate_with_the_reason(finished, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "judge", finished.folder.path, "--latency", "0.00001ms", "--json")
    assert code == 0, err
    removed = [row for row in json.loads(out)["scoreboard"] if row.get("removed")]
    assert removed
    assert all("the limit is" in row["removed"]["text"] for row in removed)


def test_predict_writes_one_answer_a_row_in_every_format(finished, folder, tmp_path, monkeypatch, capsys):
    for suffix, reader in ((".csv", pl.read_csv), (".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson)):
        code, _, err = call(monkeypatch, capsys, "predict", finished.winner, folder / "good.csv", "-o", tmp_path / f"out{suffix}")
        assert code == 0, err
        answers = reader(tmp_path / f"out{suffix}")
        assert answers.height == N
        assert set(answers["answer"]) <= {"yes", "no"}


def test_the_frame_that_goes_in_is_the_kind_that_comes_out(finished, folder):
    bundle = assay.load(finished.winner)
    frame = pl.read_csv(folder / "good.csv")
    expected = bundle.predict(frame)
    assert isinstance(expected, pl.DataFrame)
    arrow = bundle.predict(frame.to_arrow())
    assert type(arrow).__module__.startswith("pyarrow")
    assert arrow.column("answer").to_pylist() == expected["answer"].to_list()
    pandas = pytest.importorskip("pandas")
    answered = bundle.predict(frame.to_pandas())
    assert isinstance(answered, pandas.DataFrame)
    assert answered["answer"].tolist() == expected["answer"].to_list()


def test_a_run_accepts_pandas_and_arrow_frames(folder, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(folder / "good.csv")
    first = assay.run(frame, target="y", time="12s", candidates=["linear"], out=tmp_path / "pandas")
    second = assay.run(pl.read_csv(folder / "good.csv").to_arrow(), target="y", time="12s", candidates=["linear"], out=tmp_path / "arrow")
    assert first.verdict.winner == second.verdict.winner
    assert first.verdict.scoreboard[0]["loss"] == second.verdict.scoreboard[0]["loss"]


def test_coin_flips_end_in_nothing_beats_naive(tmp_path):
    rng = np.random.default_rng(5)
    frame = pl.DataFrame({f"x{i}": rng.normal(size=1500) for i in range(5)}).with_columns(y=pl.Series(rng.choice(["up", "down"], 1500)))
    run = assay.run(frame, target="y", time="20s", without=["mlp"], out=tmp_path / "run")
    assert run.verdict.outcome == "nothing_beats_naive"
    assert run.verdict.winner == "naive"


@pytest.mark.real
def test_the_next_days_direction_of_an_index_ends_in_nothing_beats_naive(tmp_path):
    source = __import__("pathlib").Path(__file__).parents[2] / "shared" / "data" / "06_sp500_daily" / "sp500_daily.csv"
    if not source.exists():
        pytest.skip("the folder of open datasets is not beside the checkout")
    frame = pl.read_csv(source).with_columns(next_day=pl.when(pl.col("Close").shift(-1) > pl.col("Close")).then(pl.lit("up")).otherwise(pl.lit("down")))
    run = assay.run(frame.head(-1), target="next_day", time="45s", out=tmp_path / "run")
    assert run.verdict.outcome == "nothing_beats_naive"


def test_chinese_is_spoken_from_the_first_line_to_the_last(folder, tmp_path):
    done = subprocess.run([sys.executable, "-m", "assay.cli", "run", str(folder / "good.csv"), "--target", "y", "--time", "12s", "--without", "mlp", "--lang", "zh",
                           "-o", str(tmp_path / "run")], capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "下一步" in done.stdout
    assert "大模型" in done.stdout or "朴素" in done.stdout
    assert 'lang="zh' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_help_shows_an_example_for_every_command_in_both_languages():
    for lang, word in (("en", "Usage"), ("zh", "assay run churn.csv")):
        done = subprocess.run([sys.executable, "-m", "assay.cli", "run", "--help"], capture_output=True, text=True, check=True,
                              env=os.environ | {"ASSAY_LANG": lang})
        assert word in done.stdout
        assert "assay run churn.csv --target churn --time 60s" in done.stdout


def test_the_demos_are_the_data_that_their_sources_describe():
    assert demo("reviews").frame().height == 35_124
    assert demo("diagnosis").frame()["diagnosis"].value_counts().sort("count")["count"].to_list() == [212, 357]
    assert demo("diabetes").frame().height == 442


def test_the_time_of_a_run_is_a_contract(folder, tmp_path):
    """A guard, not a benchmark: bench/budget.py measures a hundred runs."""
    import time

    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "assay.cli", "run", str(folder / "good.csv"), "--target", "y", "--time", "8s", "-o", str(tmp_path / "run"), "--json"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 8 * 1.02 + 1 + 2, "two seconds of slack for a busy machine"
