"""A winner made smaller: sizes, speeds and losses are those of what is written, and it opens like every bundle."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from pictures import lines
from typer.testing import CliRunner

import assay
from assay.cli import app
from assay.compress import compress
from assay.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compress") / "run"
    return assay.run(lines(400).drop("brightness"), target="label", work=8, candidates=("convnet",), tune=False, folds=1, out=folder)


def test_eight_bits_are_smaller_and_answer_almost_alike(run):
    assert run.verdict.packed == "convnet"
    found = compress(run.winner, int8=True, anyway=True)
    assert [r.name for r in found.rows][:2] == ["whole", "int8 static"]
    kept = next(r for r in found.rows if r.name == found.kept)
    assert kept.mb < 0.5 * found.rows[0].mb
    before, after = assay.load(run.winner), assay.load(found.out)
    new = lines(100, seed=7).select("picture")
    one, other = (np.array(b.predict(new)["answer"]) for b in (before, after))
    assert (one == other).mean() > 0.9
    assert after.facts["of"] == before.digest
    assert after.facts["compressed"]["name"] == found.kept


def test_the_interval_is_of_the_difference_on_the_same_rows(run):
    found = compress(run.winner, int8=True, anyway=True)
    for row in found.rows[1:]:
        assert row.low <= row.more <= row.high
        assert row.more == pytest.approx(row.loss - found.rows[0].loss, abs=1e-9)
        assert row.within == (row.high <= found.margin)


def test_nothing_is_written_that_may_lose_too_much(run, tmp_path, monkeypatch):
    monkeypatch.setattr("assay.compress.MARGIN", -1.0)  # nothing can be that good
    found = compress(run.winner, int8=True, out=tmp_path / "small.assay")
    assert found.kept is None
    assert not (tmp_path / "small.assay").exists()


def test_the_command_prints_the_table_and_the_bundle_predicts(run, tmp_path):
    out = tmp_path / "small.assay"
    said = CliRunner().invoke(app, ["compress", str(run.winner), "--int8", "--anyway", "-o", str(out), "--json"])
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["kept"].startswith("int8")
    assert out.stat().st_size < run.winner.stat().st_size
    frame = lines(5, seed=3).select("picture")
    frame.write_parquet(tmp_path / "new.parquet")
    answered = CliRunner().invoke(app, ["predict", str(out), str(tmp_path / "new.parquet")])
    assert answered.exit_code == 0, answered.output
    assert len(answered.stdout.strip().splitlines()) == 6


def test_a_bundle_without_its_run_is_refused_with_the_reason(run, tmp_path):
    lonely = tmp_path / "lonely.assay"
    lonely.write_bytes(run.winner.read_bytes())
    with pytest.raises(InputError, match="does not lie in the folder of its run"):
        compress(lonely, int8=True)


def test_to_ask_for_nothing_is_answered_with_what_there_is(run):
    with pytest.raises(InputError, match="--int8, --prune"):
        compress(run.winner)


@pytest.mark.slow
def test_a_pupil_and_a_pruned_network_are_judged_beside_their_winner(run):
    found = compress(run.winner, prune=0.5, student=True, seconds=20, anyway=True)
    assert {"pruned", "student"} <= {r.name for r in found.rows}
    assert all(np.isfinite(r.loss) for r in found.rows)
