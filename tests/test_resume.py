"""A run that is killed with -9 at any moment goes on, and ends where an unbroken one ends."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from pictures import lines

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


def pictured(folder):
    """Pictures of lines that stand or lie, in a folder for each label."""
    frame = lines(120)
    for i, (cell, label) in enumerate(zip(frame["picture"], frame["label"], strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i}.png").write_bytes(cell)
    return folder


def killed_in_training(command, checkpoint, environment):
    """Runs the command until a file of this pattern was written for the fifth time, then kills its group with -9."""
    folder, pattern = checkpoint
    written: set[int] = set()
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment)
    try:
        deadline = time.monotonic() + 300
        while len(written) < 5:
            assert run.poll() is None, f"the run ended before {pattern} was written five times"
            assert time.monotonic() < deadline
            with contextlib.suppress(FileNotFoundError):
                written |= {file.stat().st_mtime_ns for file in folder.glob(pattern)}
            time.sleep(0.005)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


# A checkpoint after every step, and a tenth of a second to be killed in, where there is one every 20 s: the test need not train for minutes.
OFTEN = """
import time
from assay.neural import loop, resume
write = resume.Checkpoint.write
def slowly(*given):
    write(*given)
    time.sleep(0.1)
loop.SAVE_EVERY_S, resume.Checkpoint.write = 0.0, slowly
"""


def networks(folder):
    """The network of the trial and the one in the bundle, as they lie on disk."""
    with zipfile.ZipFile(folder / "winner.assay") as bundle:
        (name,) = [n for n in bundle.namelist() if n.endswith("network.onnx")]
        return (folder / "models" / "convnet.0" / "model" / "network.onnx").read_bytes(), bundle.read(name)


@pytest.mark.slow
def test_a_network_killed_in_mid_training_ends_with_the_weights_of_an_unbroken_run(tmp_path):
    """Killed twice: while the trial's second fit learns, and while the winner learns from all rows."""
    pytest.importorskip("torch")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(OFTEN)
    often = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])}

    def command(folder):
        return [*ASSAY, "run", str(pictured(tmp_path / "shots")), "--only", "convnet", "--work", "6", "--folds", "1", "--no-tune", "-o", str(folder), "--json"]

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole), check=True, capture_output=True)
    resumed = [*ASSAY, "run", "--resume", str(broken), "--json"]
    killed_in_training(command(broken), (broken, "checkpoints/convnet.0.trial/2.*.safetensors"), often)
    killed_in_training(resumed, (broken, "checkpoints/convnet.0.refit/1.*.safetensors"), often)
    subprocess.run(resumed, check=True, capture_output=True)
    trial = next(t for t in map(json.loads, (broken / "trials.jsonl").read_text().splitlines()) if t["candidate"] == "convnet" and t["share"] == 1)
    again = json.loads((broken / "logs" / "convnet.0.refit.result.json").read_text())
    for made in (trial, again):
        assert 5 <= made["facts"]["resumed_at_step"] < made["facts"]["steps"]
    assert networks(broken) == networks(whole)


def test_a_run_that_never_began_says_so(tmp_path):
    done = subprocess.run([*ASSAY, "run", "--resume", str(tmp_path)], capture_output=True, text=True, check=False, cwd=Path(tmp_path))
    assert done.returncode == 2
    assert "holds no case.json" in done.stderr
    assert "Traceback" not in done.stderr
