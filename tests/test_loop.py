"""The training loop of networks: it ends in time, resumes bit for bit, and does what the recipe says."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from assay.neural import balance, loop, recipe, resume  # noqa: E402
from assay.neural.export import Session, exported  # noqa: E402
from assay.neural.recipe import OPTIMIZERS, SCHEDULES, Recipe, rate_at  # noqa: E402
from assay.neural.rows import Aim, Rows, answers, mean_loss  # noqa: E402
from assay.neural.run import order  # noqa: E402


class Points(Rows):
    """Two numbers a row; the label says whether their product is positive."""

    def __init__(self, n: int, seed: int, slow_s: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(n, 2)).astype(np.float32)
        self.target = (self.x[:, 0] * self.x[:, 1] > 0).astype(np.int64)
        self.slow_s = slow_s

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows, rng):
        if self.slow_s:
            time.sleep(self.slow_s)
        noise = 0 if rng is None else rng.normal(0, 0.05, (len(rows), 2)).astype(np.float32)
        return (torch.from_numpy(self.x[rows] + noise),)


def made(seed: int = 0, dropout: float = 0.1):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Dropout(dropout), torch.nn.Linear(32, 2))


AIM = Aim("log", 2)


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_learns(optimizer):
    rates = {"sgd": 0.3, "adam": 0.02, "adamw": 0.02, "muon": 0.05}
    network, taught, held = made(), Points(400, 0), Points(200, 1)
    result = loop.train(network, taught, held, AIM, Recipe(optimizer=optimizer, rate=rates[optimizer], epochs=15), seed=0)
    assert result.best < 0.35 < mean_loss(torch.zeros(200, 2), torch.eye(2)[held.target], AIM) == pytest.approx(math.log(2))
    assert [row[0] for row in result.curve] == sorted(row[0] for row in result.curve)


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.floats(0, 0.5))
def test_a_rate_is_between_none_and_the_highest_and_ends_low(schedule, progress, warm):
    told = Recipe(schedule=schedule, warm=warm)
    assert 0 <= rate_at(told, progress) <= 1 + 1e-9
    if schedule not in ("constant",):
        assert rate_at(told, 1.0) <= 0.1


@given(st.integers(5, 60), st.integers(1, 70), st.integers(0, 3))
def test_every_row_is_seen_once_before_any_is_seen_twice(n, batch, seed):
    seen = np.concatenate([order(np.arange(n), i, batch, seed)[0] for i in range(math.ceil(2 * n / batch))])
    assert sorted(seen[:n]) == list(range(n)) == sorted(seen[n : 2 * n])


@pytest.mark.parametrize("told", [
    Recipe(epochs=6, ema=0.9, batch=32), Recipe(optimizer="muon", rate=0.05, epochs=6, batch=32, accumulate=2), Recipe(optimizer="sgd", rate=0.1, epochs=6, l1=1e-4),
], ids=["adamw with a running mean", "muon with accumulation", "sgd with l1"])
def test_a_training_that_is_resumed_ends_with_the_same_weights_bit_for_bit(told, tmp_path, monkeypatch):
    taught, held = Points(300, 0), Points(100, 1)
    whole = made()
    loop.train(whole, taught, held, AIM, told, seed=3)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)

    class Killed(Exception):
        pass

    def note(epoch, epochs, loss):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        loop.train(made(), taught, held, AIM, told, seed=3, checkpoint=tmp_path / "c.safetensors", note=note)
    resumed = made(seed=99)
    result = loop.train(resumed, taught, held, AIM, told, seed=3, checkpoint=tmp_path / "c.safetensors")
    assert result.resumed > 0
    assert same(whole, resumed)
    other = loop.train(made(), taught, held, AIM, copy.replace(told, rate=0.01) if hasattr(copy, "replace") else Recipe(**(vars(told) | {"rate": 0.01})), seed=3,
                       checkpoint=tmp_path / "c.safetensors")
    assert other.resumed == 0  # a checkpoint of another recipe is none of its business


CHILD = """
import sys; sys.path.insert(0, {tests!r})
import test_loop as t
from pathlib import Path
from assay.neural import loop
loop.SAVE_EVERY_S = 0.0
network = t.made()
loop.train(network, t.Points(300, 0, slow_s=0.002), t.Points(100, 1), t.AIM, t.Recipe(epochs=20, batch=32), seed=1, checkpoint=Path({file!r}))
from safetensors.torch import save_file
save_file(network.state_dict(), {out!r})
"""


def test_a_training_killed_without_warning_goes_on_where_it_was(tmp_path):
    file, out = tmp_path / "c.safetensors", tmp_path / "w.safetensors"
    code = CHILD.format(tests=os.path.dirname(__file__), file=str(file), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 60
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.15)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert file.exists()
    assert not out.exists()
    subprocess.run([sys.executable, "-c", code], check=True)
    whole = made()
    loop.train(whole, Points(300, 0), Points(100, 1), AIM, Recipe(epochs=20, batch=32), seed=1)
    from safetensors.torch import load_file

    found = load_file(out)
    assert all(torch.equal(found[name], value) for name, value in whole.state_dict().items())


def test_a_schedule_ends_with_the_time_it_was_given():
    begun = time.monotonic()
    result = loop.train(made(), Points(2000, 0, slow_s=0.02), Points(200, 1), AIM, Recipe(epochs=500), seed=0, deadline=begun + 3)
    assert time.monotonic() - begun < 4.5
    assert not result.plan.whole
    assert result.curve[-1][3] < 0.2 * max(row[3] for row in result.curve)  # the rate has come down


def test_steps_that_become_slow_end_the_schedule_at_once():
    """A machine that slows down after the first steps: the deadline passes in the middle of a round, and that is the end."""
    calls = []

    class Slower(Points):
        def batch(self, rows, rng):
            calls.append(1)
            time.sleep(0.001 if len(calls) < 12 else 0.25)
            return Points.batch(self, rows, rng)

    taught = Slower(3000, 0)
    begun = time.monotonic()
    result = loop.train(made(), taught, Points(50, 1), AIM, Recipe(epochs=50, batch=32), seed=0, deadline=begun + 2)
    assert time.monotonic() - begun < 4
    assert not result.plan.whole
    assert result.curve


def test_rows_that_do_not_fit_are_left_away_with_each_labels_share():
    result = loop.train(made(), Points(40_000, 0, slow_s=0.03), Points(100, 1), AIM, Recipe(epochs=10, batch=32), seed=0, deadline=time.monotonic() + 3)
    assert result.plan.rows < 40_000
    drawn = loop._drawn(Points(40_000, 0), 400, AIM, 0)
    labels = Points(40_000, 0).target
    assert abs(labels[drawn].mean() - labels.mean()) < 0.01


def test_two_processes_learn_what_one_learns():
    from assay.neural.parallel import train_parallel

    told = Recipe(optimizer="sgd", rate=0.1, epochs=3, batch=64)
    taught, held = Points(512, 0), Points(64, 1)
    taught.batch = partial(_plain, taught)
    alone = made(dropout=0.0)
    loop.train(alone, taught, held, AIM, told, seed=5)
    weights, result = train_parallel(partial(made, 0, 0.0), Still(512, 0), held, AIM, told, seed=5, processes=2)
    assert result.steps == 24
    for name, value in alone.state_dict().items():
        assert torch.allclose(weights[name], value, atol=1e-5)


def _plain(points, rows, rng):
    return (torch.from_numpy(points.x[rows]),)


class Still(Points):
    """Points without noise, which differs between processes."""

    def batch(self, rows, rng):
        return _plain(self, rows, rng)


def test_an_unknown_optimizer_or_schedule_is_refused_by_name():
    for wrong in ({"optimizer": "lion"}, {"schedule": "sawtooth"}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match="is one of"):
            Recipe(**wrong)


def test_earlier_layers_learn_slower_where_the_recipe_says_so():
    network = made()
    network.groups = lambda: [network[0].parameters(), network[3].parameters()]
    peaks = sorted({g["peak"] for o in recipe.optimizers(network, Recipe(rate=0.01, layer_rate=0.5)) for g in o.param_groups})
    assert peaks == pytest.approx([0.005, 0.01])


def test_bf16_learns_too():
    result = loop.train(made(), Points(400, 0), Points(200, 1), AIM, Recipe(rate=0.02, epochs=10, precision="bf16"), seed=0)
    assert result.precision == "bf16"
    assert result.best < 0.4


def test_a_checkpoint_holds_no_code(tmp_path):
    from safetensors import safe_open

    network = made()
    run = loop.Run(network, AIM, Recipe(ema=0.9), "cpu", 0)
    resume.Checkpoint(tmp_path / "c.safetensors", Recipe(ema=0.9), 0).write(run, loop.State(loop.Plan(1, 1, 1, 1, 0, 0, True)))
    with safe_open(tmp_path / "c.safetensors", framework="np") as file:
        assert {name.split("/")[0] for name in file.keys()} == {"network", "mean"}  # noqa: SIM118


def test_what_is_exported_answers_as_the_network_did():
    network, rows = made(), Points(100, 0)
    loop.train(network, rows, rows, AIM, Recipe(epochs=2), seed=0)
    session = Session(exported(network, (torch.from_numpy(rows.x[:3]),), ("x",)))
    assert np.allclose(session.run(x=rows.x), answers(network, rows, AIM), atol=1e-5)


def test_rare_labels_weigh_more_but_not_without_bound():
    truth = np.array([0] * 900 + [1] * 99 + [2])
    weights = np.array(balance.balanced(truth, 3))
    assert weights[2] / weights[0] == pytest.approx(10)
    assert (weights[truth]).mean() == pytest.approx(1, abs=1e-3)
