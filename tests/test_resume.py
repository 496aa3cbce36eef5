"""A run that is killed with -9 at any moment goes on, and ends where an unbroken one ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.data.demo import demo

ASSAY = [sys.executable, "-m", "assay.cli"]


def started(folder, *more):
    table = folder.parent / "diagnosis.csv"
    if not table.exists():
        demo("diagnosis").frame().write_csv(table)
    command = [*ASSAY, "run", str(table), "--target", "diagnosis", "--work", "25", "--no-tune", "--folds", "2", "-o", str(folder), "--json", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def facts(text):
    """What has to be the same: with a work budget, the whole verdict. Only the order of trials that a kill changed is not looked at."""
    return json.loads(text)


def broken_and_resumed(folder, moment, *more):
    run = started(folder, *more)
    deadline = time.monotonic() + 60
    while not (folder / "case.json").exists() and time.monotonic() < deadline:  # before that nothing has begun
        time.sleep(0.02)
    time.sleep(moment)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    lines = (folder / "trials.jsonl").read_text().count("\n") if (folder / "trials.jsonl").exists() else 0
    done = subprocess.run([*ASSAY, "run", "--resume", str(folder), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "trials.jsonl").read_text().count("\n") >= lines, "finished trials stay"
    return facts(done.stdout)


def compare(tmp_path, moments, *more):
    out, err = (run := started(tmp_path / "whole", *more)).communicate()
    assert run.returncode == 0, err
    for i, moment in enumerate(moments):
        assert broken_and_resumed(tmp_path / f"broken{i}", moment, *more) == facts(out), f"killed {moment:.2f} s after the first write"


def test_a_killed_run_that_is_resumed_gives_the_verdict_of_an_unbroken_one(tmp_path):
    compare(tmp_path, [random.uniform(0.0, 5.0) for _ in range(2)], "--only", "linear", "--only", "boosting", "--only", "ensemble")


@pytest.mark.slow
def test_the_same_holds_with_a_network_at_ten_random_moments(tmp_path):
    compare(tmp_path, [random.uniform(0.0, 40.0) for _ in range(10)])


def test_a_run_that_never_began_says_so(tmp_path):
    done = subprocess.run([*ASSAY, "run", "--resume", str(tmp_path)], capture_output=True, text=True, check=False, cwd=Path(tmp_path))
    assert done.returncode == 2
    assert "holds no case.json" in done.stderr
    assert "Traceback" not in done.stderr
