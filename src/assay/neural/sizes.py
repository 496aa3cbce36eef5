"""Which size of a network the time allows: the largest that still sees every row often enough, timed on real steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from assay.neural.recipe import Recipe
from assay.neural.rows import Aim, Rows
from assay.neural.run import Plan, Run, State, device_of
from assay.words import Text, say

GPU_STEPS = 8  # the first ones choose their kernels
ENOUGH = 12  # passes over the rows below which a smaller network that sees them more often is the better one
T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """index: into the sizes. epochs: passes that it has time for. tried: [(index, seconds a pass), ...]."""

    index: int
    epochs: float
    tried: list[tuple[int, float]]


def choose(
    sizes: Sequence[T], build: Callable[[T], Any], rows: Callable[[T], Rows], aim: Aim, recipe: Recipe, *, n: int, seconds: float, default: int,
    enough: int = ENOUGH,
) -> Chosen:
    """sizes: smallest first. rows(size): some 100 rows of that size are enough. n: rows that a pass goes over. default: without a clock.

    From the smallest up: the next one is tried while the last had time for twice `enough` passes. Timing takes at most a tenth of `seconds`.
    """
    if not math.isfinite(seconds):
        return Chosen(default, float(recipe.epochs), [])
    begun, tried, index, epochs, device = time.monotonic(), [], 0, 0.0, device_of(True)
    for i, size in enumerate(sizes):
        few = rows(size).on(device)
        run, batch = Run(build(size).to(device), aim, recipe, device, 0), min(recipe.batch, len(few))
        plan, took = Plan(1, 1, batch, len(few), 0.0, 0.0, True), []
        for step in range(3 if device == "cpu" else GPU_STEPS):
            start = time.monotonic()
            run.step(few, np.arange(len(few)), step, plan, 0.0, State(plan))
            took.append(time.monotonic() - start)
        pass_s = min(took[len(took) // 2 :]) * n / batch
        tried.append((i, round(pass_s, 3)))
        possible = seconds / pass_s
        if i and possible < enough:
            break
        index, epochs = i, possible
        if possible < 2 * enough or time.monotonic() - begun > 0.1 * seconds:
            break
    return Chosen(index, epochs, tried)


def reason(chosen: Chosen, options: int, n: int, *, least: int = ENOUGH, begun: bool = False) -> Text:
    """Why this size, as a sentence. options: sizes there were. n: rows. least: passes that a size had to have time for. begun: before a break."""
    if begun:
        return say("the size that was chosen before the run was interrupted")
    if options == 1:
        return say("the size that was asked for")
    if not chosen.tried:
        return say("without a clock: the usual size for {rows:,} rows", rows=n)
    if chosen.index == options - 1:
        return say("the largest that {rows:,} rows can teach, and there is time to go over them {epochs:.0f} times", rows=n, epochs=chosen.epochs)
    return say("there is time to go over {rows:,} rows {epochs:.0f} times; a larger one would see them less than {least} times", rows=n, epochs=chosen.epochs,
               least=least)
