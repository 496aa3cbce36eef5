"""Answers to files and tables larger than memory: the same bytes whatever stopped the run, and every row once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import database_server as servers
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import registry, tasks
from assay.data.read_series import read_series
from assay.errors import EndpointError, InputError, ReadError
from assay.families.base import Budget, Candidate
from assay.ship import asked as opening
from assay.ship import progress
from assay.ship.asked import asked
from assay.ship.batch import predict_file
from assay.ship.bundle import load, pack
from assay.ship.lines import records

N = 2_500


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def packed(folder: Path, task_name: str) -> Path:
    kind = tasks.find(task_name)
    data = kind.example()
    task = kind.of(data)
    candidate = registry.get("assay.families", Candidate, "linear")
    model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=20))
    calibration = task.calibration(task.truth(data), model.predict(data.asked()))
    return pack(folder / f"{task_name}.assay", task=task, candidate=candidate, params={}, schema=data.schema, model_folder=model, calibration=calibration,
                facts={}, reference=data.asked().frame)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("bundle"), "classify")


def rows(n: int = N, seed: int = 0) -> pl.DataFrame:
    """Rows of the task's example, drawn again, with an id."""
    example = tasks.find("classify").example()
    rng = np.random.default_rng(seed)
    frame = example.asked().frame[rng.integers(0, len(example), n)].with_columns(weight=pl.Series(rng.normal(2, 1, n)))
    return frame.with_columns(id=pl.Series(10 * np.arange(n)), when=pl.col("when").dt.strftime("%Y-%m-%d"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows().write_csv(path)
    return path


WRITE: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "rows.csv": lambda f, p: f.write_csv(p), "rows.tsv": lambda f, p: f.write_csv(p, separator="\t"), "rows.jsonl": lambda f, p: f.write_ndjson(p),
    "rows.parquet": lambda f, p: f.write_parquet(p, row_group_size=330), "rows.csv.gz": lambda f, p: p.write_bytes(gzip.compress(f.write_csv().encode())),
    "folder": lambda f, p: (p.mkdir(), f[:700].write_parquet(p / "part-0.parquet"), f[700:].write_parquet(p / "part-1.parquet")),
    "shop=a": lambda f, p: (p.mkdir(), f[:700].write_csv(p / "part-0.csv"), f[700:].write_csv(p / "part-1.csv")),
}


# ---- the same answers, whatever the rows lie in and however they are cut


@pytest.mark.parametrize("name", WRITE)
def test_chunks_of_any_source_answer_as_the_whole_does(bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_STAGED_MB", 0.001)  # text is parsed onto disk
    frame = rows()
    WRITE[name](frame, tmp_path / name)
    done = predict_file(bundle, tmp_path / name, tmp_path / "out.parquet", at_once=600, key="id")
    found, whole = pl.read_parquet(tmp_path / "out.parquet"), load(bundle).predict(frame)
    assert done.rows == N
    assert found["id"].to_list() == frame["id"].to_list()
    assert found["answer"].equals(whole["answer"])
    assert np.allclose(found["probability"], whole["probability"], atol=1e-12)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "out.parquet"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_holds_the_same_answers(bundle: Path, source: Path, tmp_path: Path, suffix: str) -> None:
    read = {".csv": pl.read_csv, ".tsv": lambda p: pl.read_csv(p, separator="\t"), ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}[suffix]
    predict_file(bundle, source, tmp_path / f"out{suffix}", at_once=700)
    found = read(tmp_path / f"out{suffix}")
    whole = load(bundle).predict(rows())
    assert found["answer"].to_list() == whole["answer"].to_list()
    assert np.allclose(found["probability"], whole["probability"])


@settings(max_examples=12)
@given(st.integers(1, 900), st.integers(0, 300), st.booleans())
def test_chunks_from_any_start_are_the_rest_of_all_rows(n: int, start: int, gaps: bool) -> None:
    import tempfile

    frame = pl.DataFrame({"a": np.arange(300), "b": [f"x{i}" for i in range(300)]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        text = frame.write_csv().splitlines(keepends=True)
        path.write_text("".join(line + (",\n" if gaps and i % 7 == 1 else "") for i, line in enumerate(text)))  # rows without a single value are left out
        with asked(path) as source:
            found = list(source.chunks({"at": start}, n, ["a", "b"]))
        got = [int(v) for c in found for v in c.given["a"]]  # type: ignore[call-overload]
        assert got == list(range(start, 300))
        assert all(c.given.height == n for c in found[:-1])  # type: ignore[union-attr]
        assert not found or found[-1].share == 1


# ---- stopped, and gone on


def stopped(bundle: Path, source: Path, out: Path, after: int, moment: str, patch: pytest.MonkeyPatch, **options: object) -> None:
    """Run until the chunk `after`, and die there as a kill would: nothing of what would follow is done, no file is tidied."""

    class Killed(BaseException):
        pass

    count = [0]
    real = {"ledger": progress.write_durably, "rename": os.replace, "fsync": os.fsync}[moment]

    def dies(*given: object) -> object:
        count[0] += 1
        if count[0] >= after:
            raise Killed
        return real(*given)  # type: ignore[operator]

    with patch.context() as p:
        p.setattr(progress.FileOut, "close", lambda self: self._file.close())
        p.setattr(progress.RefusedRows, "close", lambda self: None)
        if moment == "ledger":
            p.setattr(progress, "write_durably", dies)
        else:
            p.setattr(progress.os, {"rename": "replace", "fsync": "fsync"}[moment], dies)
        try:
            predict_file(bundle, source, out, at_once=400, **options)  # type: ignore[arg-type]
        except Killed:
            return


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("moment", ["ledger", "rename", "fsync"])
def test_a_run_stopped_anywhere_and_begun_again_gives_the_same_bytes(bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, moment: str) -> None:
    predict_file(bundle, source, tmp_path / f"whole{suffix}", at_once=400)
    out = tmp_path / f"out{suffix}"
    for after in (2, 4, 7):
        out.unlink(missing_ok=True)
        stopped(bundle, source, out, after, moment, monkeypatch)
        done = predict_file(bundle, source, out, at_once=400)
        assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert done.rows == N
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"out{suffix}", f"whole{suffix}"]


def test_a_run_goes_on_where_it_stopped_and_not_from_the_beginning(bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(bundle, source, tmp_path / "out.csv", 4, "ledger", monkeypatch)
    said: list[str] = []
    done = predict_file(bundle, source, tmp_path / "out.csv", at_once=400, observe=lambda t: said.append(str(t)))
    assert (done.before, done.rows) == (1200, N)
    assert "1,200 rows were answered by an earlier run" in said[0]


def test_a_killed_process_leaves_what_the_same_command_finishes(bundle: Path, tmp_path: Path) -> None:
    """The real thing: SIGKILL from outside, in the middle of whatever it does."""
    rows(4_000).write_csv(tmp_path / "in.csv")
    command = [sys.executable, "-m", "assay.cli", "predict", str(bundle), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv"), "--chunk", "100"]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until and child.poll() is None:
        if (tmp_path / "out.csv.progress").exists() and json.loads((tmp_path / "out.csv.progress").read_text())["done"]["chunks"] >= 5:
            child.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "out.csv").exists()
    done = predict_file(bundle, tmp_path / "in.csv", tmp_path / "out.csv", at_once=100)
    assert done.before >= 500
    predict_file(bundle, tmp_path / "in.csv", tmp_path / "whole.csv", at_once=100)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_bundle_or_other_rows_are_not_mixed_into_what_is_there(bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.csv"
    stopped(bundle, source, out, 4, "ledger", monkeypatch)
    other = tmp_path / "other.csv"
    rows(seed=1).write_csv(other)
    with pytest.raises(InputError, match=r"the rows to answer changed.*--restart"):
        predict_file(bundle, other, out, at_once=400)
    with pytest.raises(InputError, match="the options changed"):
        predict_file(bundle, source, out, at_once=500)
    assert predict_file(bundle, other, out, at_once=400, restart=True).before == 0
    assert pl.read_csv(out).height == N


def test_two_runs_do_not_write_one_file(bundle: Path, source: Path, tmp_path: Path) -> None:
    first = progress.FileOut(tmp_path / "out.csv")
    first.begin({}, False)
    with pytest.raises(InputError, match="another run"):
        predict_file(bundle, source, tmp_path / "out.csv")
    first.close()
    assert predict_file(bundle, source, tmp_path / "out.csv").rows == N


# ---- rows that cannot be read


def broken(folder: Path) -> tuple[Path, list[int]]:
    """A file with a row of too many fields, a stray quotation mark, and cells that are no number or no time; the rows (from 1) that are well."""
    lines = rows(500).write_csv().splitlines()
    lines[11] += ",more"
    lines[101] = lines[101].replace(",", ',"', 1)
    lines[201] = "heavy" + lines[201][lines[201].index(","):]
    lines[202] = "light" + lines[202][lines[202].index(","):]
    cells = lines[301].split(",")
    cells[3] = "soon"
    lines[301] = ",".join(cells)
    path = folder / "broken.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path, [i for i in range(1, 501) if i not in (11, 101, 201, 202, 301)]


def test_the_first_row_that_cannot_be_read_stops_the_run_and_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    path, _ = broken(tmp_path)
    with pytest.raises(ReadError, match=r"[Ll]ine 12 of"):
        predict_file(bundle, path, tmp_path / "out.csv")
    frame = rows(500).with_columns(pl.col("weight").cast(pl.String))
    frame[402, "weight"] = "heavy"
    frame.write_csv(tmp_path / "cells.csv")
    with pytest.raises(InputError, match="Column 'weight', row 403: 'heavy' is no number"):
        predict_file(bundle, tmp_path / "cells.csv", tmp_path / "out.csv", at_once=100)
    assert {p.name for p in tmp_path.iterdir()} == {"broken.csv", "cells.csv"}


@pytest.mark.parametrize("at_once", [60, 1000])
def test_rows_that_cannot_be_read_are_named_and_the_others_answered(bundle: Path, tmp_path: Path, at_once: int) -> None:
    path, well = broken(tmp_path)
    done = predict_file(bundle, path, tmp_path / "out.csv", keep_going=True, at_once=at_once)
    found, refused = pl.read_csv(tmp_path / "out.csv"), pl.read_csv(tmp_path / "out.csv.rejected.csv")
    assert found["row"].to_list() == well
    assert refused["row"].to_list() == [11, 101, 201, 202, 301]
    assert refused["line"].to_list() == [12, 102, 202, 203, 302]
    assert [w in r for w, r in zip(["6 fields", "never closed", "'heavy' is no number", "'light' is no number", "'soon' is no time"], refused["reason"], strict=True)] == [True] * 5
    assert (done.rows, done.refused, done.rejected) == (495, 5, tmp_path / "out.csv.rejected.csv")
    whole = load(bundle).predict(rows(500)[[i - 1 for i in well]])
    assert found["answer"].to_list() == whole["answer"].to_list()


def test_lines_of_json_are_refused_one_by_one_with_their_number(bundle: Path, tmp_path: Path) -> None:
    lines = rows(300).write_ndjson().splitlines()
    lines[49], lines[99] = "{broken", "[1, 2]"
    lines[149] = json.dumps(json.loads(lines[149]) | {"weight": "heavy"})
    lines.insert(20, "")
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with pytest.raises(ReadError, match=r"Line 51 of 'in\.jsonl' is no JSON"):
        predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    done = predict_file(bundle, tmp_path / "in.jsonl", tmp_path / "out.jsonl", keep_going=True, at_once=70)
    refused = pl.read_csv(tmp_path / "out.jsonl.rejected.csv")
    assert refused["line"].to_list() == [51, 101, 151]
    assert refused["row"].to_list() == [50, 100, 150]
    assert done.rows == 297


def test_refused_rows_survive_a_stop_too(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = broken(tmp_path)
    predict_file(bundle, path, tmp_path / "whole.csv", keep_going=True, at_once=100)
    for moment, after in (("ledger", 3), ("fsync", 5), ("rename", 6), ("rename", 7)):
        (tmp_path / "out.csv").unlink(missing_ok=True)
        stopped(bundle, path, tmp_path / "out.csv", after, moment, monkeypatch, keep_going=True, **{})
        predict_file(bundle, path, tmp_path / "out.csv", keep_going=True, at_once=400)
        assert pl.read_csv(tmp_path / "out.csv")["row"].to_list() == pl.read_csv(tmp_path / "whole.csv")["row"].to_list()
        assert (tmp_path / "out.csv.rejected.csv").read_bytes() == (tmp_path / "whole.csv.rejected.csv").read_bytes(), (moment, after)


@given(st.lists(st.sampled_from(["a,b\n", "\n", '"x,y",z\n', '"two\nlines",z\n', "a,b,c\n", 'a,"b\n']), max_size=30))
def test_records_hold_every_line_that_is_not_blank_once(lines: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_text("h,i\n" + "".join(lines))
        width, found = records(path)
        held = list(found)
        assert width == 2
        assert sum(r.text.count(b"\n") for r in held) + ("h,i\n" + "".join(lines)).count("\n\n") >= 1 + sum(bool(x.strip()) for x in lines)
        assert [r.line for r in held] == sorted({r.line for r in held})


# ---- into a table


def table_of(url: str, name: str = "answers") -> pl.DataFrame:
    import sqlalchemy as sa

    from assay.ship.batch_sql import _engine

    engine = _engine(url, url)
    try:
        with engine.connect() as connection:
            found = connection.execute(sa.text(f"SELECT * FROM {name} ORDER BY 1"))
            return pl.DataFrame([dict(r._mapping) for r in found])
    finally:
        engine.dispose()


def answers_in_the_table(bundle: Path, source: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What every database has to keep: each row once, through kills at every chunk, and the answers of a second run instead of the first."""
    import assay.ship.batch_sql as sink

    expected = load(bundle).predict(rows())
    real = sink.TableOut.write
    for after in (2, 3, 5):

        class Killed(BaseException):
            pass

        def dies(self: object, answers: pl.DataFrame, refused: list, done: progress.Done, after: int = after, killed: type = Killed) -> progress.Done:
            if done.chunks >= after:
                raise killed
            return real(self, answers, refused, done)  # type: ignore[arg-type]

        with monkeypatch.context() as p:
            p.setattr(sink.TableOut, "write", dies)
            with pytest.raises(Killed):
                predict_file(bundle, source, url, table="answers", key="id", at_once=500)
    done = predict_file(bundle, source, url, table="answers", key="id", at_once=500)
    assert (done.before, done.rows) == (2000, N)
    found = table_of(url)
    assert found["id"].to_list() == rows()["id"].to_list()
    assert found["answer"].to_list() == expected["answer"].to_list()
    assert np.allclose(found["p(praise)"].cast(pl.Float64), expected["p(praise)"])
    predict_file(bundle, source, url, table="answers", key="id", at_once=1000)
    assert table_of(url).equals(found)
    assert not len(table_of(url, "assay_progress"))
    # a transaction that breaks in its middle leaves neither rows nor note
    with monkeypatch.context() as p:
        p.setattr(sink.json, "dumps", lambda *a, **k: 1 / 0 if "position" in str(a) else json.JSONEncoder().encode(a[0]))
        with pytest.raises(ZeroDivisionError):
            predict_file(bundle, source, url, table="second", key="id", at_once=500)
    assert not len(table_of(url, "second"))


def test_an_sqlite_table_holds_every_row_once_through_kills(bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers_in_the_table(bundle, source, f"sqlite:///{tmp_path}/a.db", monkeypatch)


@pytest.mark.skipif(servers.postgres() is None, reason="PostgreSQL's programs are not installed")
def test_a_postgresql_table_holds_every_row_once_through_kills(bundle: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.postgres_server("s3cr€t/@") as server:
        answers_in_the_table(bundle, source, f"postgresql://postgres:s3cr%E2%82%ACt%2F%40@127.0.0.1:{server.port}/postgres", monkeypatch)
        with pytest.raises(EndpointError) as raised:
            predict_file(bundle, source, f"postgresql://postgres:wr0ng@127.0.0.1:{server.port}/postgres", table="answers", key="id")
        assert "wr0ng" not in str(raised.value)


@pytest.mark.skipif(not servers.mariadb(), reason="MariaDB's programs are not installed")
def test_a_mariadb_table_holds_every_row_once_through_kills(bundle: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pymysql

    with servers.mariadb_server() as server:
        pymysql.connect(host="127.0.0.1", port=server.port, user="root").query("CREATE DATABASE shop")
        answers_in_the_table(bundle, source, f"mysql://root@127.0.0.1:{server.port}/shop", monkeypatch)


def test_a_killed_process_has_written_whole_chunks_into_a_table_and_the_same_command_does_the_rest(bundle: Path, tmp_path: Path) -> None:
    """SIGKILL from outside, while transactions are under way."""
    rows(3_000).write_csv(tmp_path / "in.csv")
    url = f"sqlite:///{tmp_path}/a.db"
    child = subprocess.Popen([sys.executable, "-m", "assay.cli", "predict", str(bundle), str(tmp_path / "in.csv"), "-o", url, "--table", "answers", "--key", "id", "--chunk", "50"],
                             stderr=subprocess.DEVNULL, cwd=tmp_path)
    until = time.monotonic() + 60

    def written() -> int:
        try:
            with sqlite3.connect(f"file:{tmp_path}/a.db?mode=ro", uri=True) as connection:
                return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:
            return 0

    while time.monotonic() < until and child.poll() is None and written() < 300:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    there = written()
    assert 300 <= there < 3_000
    assert there % 50 == 0
    done = predict_file(bundle, tmp_path / "in.csv", url, table="answers", key="id", at_once=50)
    assert (done.before, done.rows) == (there, 3_000)
    assert table_of(url)["id"].to_list() == rows(3_000)["id"].to_list()


def test_rows_of_a_database_go_back_into_it_and_a_changed_query_is_noticed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import assay.ship.batch_sql as sink

    url, query = f"sqlite:///{tmp_path}/shop.db", "SELECT * FROM orders ORDER BY id"
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        frame = rows()
        connection.execute("CREATE TABLE orders (weight REAL, shop TEXT, note TEXT, 'when' TEXT, id INTEGER)")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", frame.select("weight", "shop", "note", "when", "id").rows())
    real = sink.TableOut.write

    def fails(self: object, answers: pl.DataFrame, refused: list, done: progress.Done) -> progress.Done:
        if done.chunks == 4:
            raise EndpointError("gone")
        return real(self, answers, refused, done)  # type: ignore[arg-type]

    with monkeypatch.context() as p:
        p.setattr(sink.TableOut, "write", fails)
        with pytest.raises(EndpointError):
            predict_file(bundle, url, url, query=query, table="answers", key="id", at_once=500)
    assert predict_file(bundle, url, url, query=query, table="answers", key="id", at_once=500).before == 1500
    assert table_of(url)["answer"].to_list() == load(bundle).predict(frame)["answer"].to_list()
    with monkeypatch.context() as p:
        p.setattr(sink.TableOut, "write", fails)
        with pytest.raises(EndpointError):
            predict_file(bundle, url, url, query=query, table="again", key="id", at_once=500)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("UPDATE orders SET weight = 7 WHERE id = 100")
    with pytest.raises(InputError, match="other rows"):
        predict_file(bundle, url, url, query=query, table="again", key="id", at_once=500)


@pytest.mark.parametrize(("made", "words"), [("CREATE TABLE answers (id INTEGER PRIMARY KEY)", "lacks the columns answer, probability"),
                                            ('CREATE TABLE answers (id, answer, probability, "p(complaint)", "p(praise)", "p(question)")', "neither primary key nor unique")])
def test_a_table_that_does_not_fit_is_one_sentence(bundle: Path, source: Path, tmp_path: Path, made: str, words: str) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute(made)
    with pytest.raises(InputError, match=words):
        predict_file(bundle, source, f"sqlite:///{tmp_path}/a.db", table="answers", key="id")


@pytest.mark.parametrize(("out", "options", "words"), [
    ("sqlite:///a.db", {}, "name it with --table"), ("a.xml", {}, "cannot be written"), ("a.csv", {"table": "t"}, "'a.csv' is none"),
    ("sqlite://", {"table": "t"}, "no address"), ("a.csv", {"key": "idd"}, "Did you mean 'id'"), (None, {"keep_going": True}, "name a file with --out")])
def test_what_cannot_be_asked_is_one_sentence(bundle: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str | None, options: dict, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words) as raised:
        predict_file(bundle, source, out, **options)
    assert raised.value.text.to("zh") != str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_forecast_is_read_as_a_whole_and_says_so(tmp_path: Path) -> None:
    days = pl.Series(np.datetime64("2026-01-01") + np.arange(90))
    frame = pl.concat([pl.DataFrame({"day": days, "shop": [shop] * 90, "units": np.arange(90) % 7 + 10.0}) for shop in ("a", "b", "c")])
    data = read_series(frame, target="units", group="shop", time="day", horizon=7).dataset
    task = tasks.find("forecast").of(data)
    candidate = registry.get("assay.families", Candidate, "seasonal_naive")
    model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=20))
    path = pack(tmp_path / "f.assay", task=task, candidate=candidate, params={}, schema=data.schema, model_folder=model, calibration={}, facts={}, reference=None)
    frame.write_csv(tmp_path / "past.csv")
    said: list[str] = []
    done = predict_file(path, tmp_path / "past.csv", tmp_path / "out.csv", observe=lambda t: said.append(str(t)))
    assert done.rows == pl.read_csv(tmp_path / "out.csv").height > 0
    assert "as a whole" in said[0]
    with pytest.raises(InputError, match="one by one"):
        predict_file(path, tmp_path / "past.csv", tmp_path / "out.csv", keep_going=True)


# ---- memory and the terminal


def test_memory_is_that_of_a_chunk_and_not_of_the_file(bundle: Path, tmp_path: Path) -> None:
    from private_memory import peak_of

    rows(10_000).sample(60_000, with_replacement=True, seed=0).write_csv(tmp_path / "in.csv")
    code = ("from assay.ship.batch import predict_file\n"
            f"size = predict_file(__import__('pathlib').Path({str(bundle)!r}), {str(tmp_path / 'in.csv')!r}, {str(tmp_path / 'out.csv')!r}, at_once=%d).rows * 2**20")
    _, small = peak_of(code % 3_000)
    _, large = peak_of(code % 60_000)
    assert small < 0.7 * large


def test_a_terminal_sees_rows_a_second_and_what_is_left_and_a_file_nothing() -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, plain = Terminal(), io.StringIO()
    for stream in (screen, plain):
        bar = progress.Bar("en", stream)
        bar.start(0, 0.0)
        bar._last = bar._begin = time.monotonic() - 10
        bar.at(1_000, 0.25)
        bar.close()
    assert "1,000 rows  100 rows/s  0:29 left" in screen.getvalue() or "1,000 rows  100 rows/s  0:30 left" in screen.getvalue()
    assert plain.getvalue() == ""
