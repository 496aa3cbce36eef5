"""The training loop of every network: planned to end in time, resumable bit for bit, on any device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.neural.recipe import Recipe, rate_at
from assay.neural.resume import Checkpoint
from assay.neural.rows import Aim, Rows
from assay.neural.run import TIMED_STEPS, Plan, Run, State, device_of

LEAST_STEPS = 20  # a plan with fewer is made of fewer rows a step
SAVE_EVERY_S = 20.0


@dataclass(frozen=True)
class Trained:
    """curve: [[epoch, train loss, held-out loss, rate], ...]. The network that was trained holds the best weights."""

    curve: list[list[float]]
    best_epoch: float
    best: float
    plan: Plan
    device: str
    precision: str
    steps: int
    resumed: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


def train(
    network: Any, taught: Rows, held: Rows, aim: Aim, recipe: Recipe, *, seed: int, deadline: float = math.inf, passes: int | None = None,
    checkpoint: Path | None = None, note: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None, device: str | None = None,
) -> Trained:
    """Teach `network` in place; it ends with the weights that were best on `held`, on the processor, in eval mode.

    deadline: the time.monotonic() at which it has to be over; the schedule is planned from timed steps so that the rate
    is at zero by then. Infinite: no clock is read. passes: over the taught rows at most so often. checkpoint: a file; if it is there, training goes
    on from it, and it is written now and then. note: called with (epoch, epochs, held-out loss).
    """
    import torch

    clocked = math.isfinite(deadline)
    device = device or device_of(clocked)
    taught, held = taught.on(device), held.on(device)
    network.to(device, memory_format=torch.channels_last if device.startswith("cuda") else torch.preserve_format)
    run = Run(network, aim, recipe, device, seed)
    went = Checkpoint(checkpoint, recipe, seed)
    state = went.read(run)
    plan = state.plan if state else run.agreed_plan(_planned(run, taught, held, recipe, seed, deadline, passes))
    some = _drawn(taught, plan.rows, aim, seed)
    state = state or State(plan)
    resumed, begun, saved = state.step, time.monotonic(), time.monotonic()
    steps, epoch_rows = plan.steps, len(some)
    while state.step < steps:
        run.step(taught, some, state.step, plan, rate_at(recipe, state.progress), state)
        state.step += 1
        state.progress = min(1.0, state.progress + (1 - state.progress) / max(1, steps - state.step + 1))
        now = time.monotonic()
        if clocked and state.step - resumed >= TIMED_STEPS and state.step < steps:
            pace = (now - begun) / (state.step - resumed)
            if now + (steps - state.step) * pace > deadline:  # slower than timed: a shorter schedule, still a whole one
                steps, state.cut = min(steps, state.step + max(0, int((deadline - now) / pace))), True
            steps = run.agreed(steps)
        if state.step % plan.a_round == 0 or state.step >= steps:
            state.judged(run, held, state.step * plan.batch * recipe.accumulate / epoch_rows)
            note(max(1, round(state.step / plan.a_round)), max(1, math.ceil(steps / plan.a_round)), state.curve[-1][2])
            stop = not math.isfinite(state.curve[-1][2]) or (state.step - state.best_step) > max(4 * plan.a_round, recipe.patience * steps)
            if run.agreed(int(stop)):
                break
        if checkpoint and now - saved > SAVE_EVERY_S:
            went.write(run, state)
            saved = now
    run.finish(state)
    network.to("cpu", memory_format=torch.contiguous_format).eval()
    return Trained(state.curve, state.best_step * plan.batch * recipe.accumulate / epoch_rows, state.best, replace(plan, whole=plan.whole and not state.cut),
                   device, run.precision, state.step, resumed)


# ---- the plan


def _planned(run: Run, taught: Rows, held: Rows, recipe: Recipe, seed: int, deadline: float, passes: int | None) -> Plan:
    """Epochs as the recipe says, fewer if `passes` or the deadline say so, and fewer rows if not even one fits."""
    batch = min(recipe.batch, max(4, len(taught) // 4))
    epochs = max(1, min(recipe.epochs, passes or recipe.epochs))
    a_round = max(1, math.ceil(len(taught) / (batch * recipe.accumulate)))
    whole = Plan(a_round * epochs, a_round, batch, len(taught), 0.0, 0.0, True)
    if not math.isfinite(deadline):
        return whole
    step_s, judge_s = run.timed(taught, held, batch, seed)
    left = 0.92 * (deadline - time.monotonic())
    affordable = int(left / (step_s + judge_s / a_round))
    if affordable >= whole.steps:
        return Plan(whole.steps, a_round, batch, len(taught), step_s, judge_s, True)
    if affordable >= 2 * a_round:
        return Plan(affordable, a_round, batch, len(taught), step_s, judge_s, False)
    steps = max(LEAST_STEPS, int((left - 2 * judge_s) / step_s))  # less than twice over: judged twice, the rows that fit
    return Plan(steps, max(1, steps // 2), batch, min(len(taught), steps * batch * recipe.accumulate), step_s, judge_s, False)


def _drawn(taught: Rows, most: int, aim: Aim, seed: int) -> np.ndarray:
    """`most` row numbers, each label with its share."""
    n = len(taught)
    if most >= n:
        return np.arange(n)
    order = np.random.default_rng(seed).permutation(n)
    if aim.labels and taught.target.ndim == 1:
        order = order[np.argsort(taught.target[order], kind="stable")]
    return np.sort(order[(np.arange(most) * n) // most])
