"""What the families of networks that forecast share: windows held out, a size chosen, taught, exported, and served without torch."""

from __future__ import annotations

import json
import math
import time
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.history import histories, latest
from assay.errors import InputError
from assay.neural import fitting, sizes
from assay.neural.export import Session, exported
from assay.neural.forecasting import Judging, Reader, Taught, Windows, next_steps, parted
from assay.neural.recipe import Recipe
from assay.neural.rows import Aim

ENOUGH = 12  # passes over the windows that a size must have time for
STEPS, CLOCKED_STEPS = 1500, 3000  # of the optimizer, without a clock and with one: 100 series of M4 hourly were still getting better after 1,200
FEWEST_EPOCHS, MOST_EPOCHS = 12, 120
FIT_SHARE = 0.85  # of the time; export and its check take a second
ANSWERED = 256  # rows of a batch
LONGEST = 512  # steps of a window


class Forecasts:
    """What the models of these families have in common. params: any of `Recipe`; dropout, width, length (steps of a window)."""

    task: Any
    params: dict[str, Any]
    facts: dict[str, Any]
    reader: Reader
    session: Session
    onnx: bytes
    recipe: Recipe
    name: str

    @abstractmethod
    def build(self, size: dict[str, Any]) -> Any:
        """The torch module of this size."""

    @abstractmethod
    def options(self, same: dict[str, Any]) -> list[dict[str, Any]]:
        """The sizes, smallest first; `same` holds what they share, and the three lengths of a window under 'lengths'."""

    def fit(self, train: Dataset, *, seed: int, budget: Any) -> Any:
        import torch

        budget.after_torch(0.3)
        torch.set_num_threads(max(1, budget.threads))
        task, series = self.task, latest(train)
        lengths = lengths_for([len(one.values) for one in series], task.horizon, task.season)
        if "length" in self.params:
            lengths = (max(2, int(self.params["length"])),) * 3
        after = next_steps(train, series, task.frequency)
        longest = Reader.learn(series, horizon=task.horizon, season=task.season, frequency=task.frequency, length=lengths[-1], timed=any(t is not None for t in after))
        levels = tuple(float(level) for level in task.levels)
        same = {"horizon": task.horizon, "season": task.season, "levels": levels, "past": longest.past, "ahead": longest.ahead, "lengths": lengths}
        options = [{k: v for k, v in option.items() if k != "lengths"} for option in self.options(same)]
        options = [option for i, option in enumerate(options) if option not in options[:i]]
        aim, recipe = Aim("pinball", task.horizon * len(levels), levels=levels), fitting.tuned(self.recipe, self.params)
        windows = Windows(longest, series, after)
        newest, which, origin = parted(windows, seed)
        taught = Taught(windows, newest)
        if not len(taught) or not len(which):
            raise InputError("The series are too short for a network: the longest has {n} steps, and {horizon} are to be forecast; twice that and one is the least.",
                             n=int(windows.lengths.max(initial=0)), horizon=task.horizon)
        budget.after_reading(0.2)
        recipe = _enough(recipe, len(taught), CLOCKED_STEPS if math.isfinite(budget.seconds) else STEPS, whole="epochs" in self.params)
        begun = fitting.size_begun(options, len(taught), budget)
        options = options if begun is None else [options[begun]]

        def read(size: dict[str, Any]) -> Windows:
            reader = replace(longest, length=size["length"])
            return windows if reader == longest else Windows(reader, series, after)

        chosen = sizes.Chosen(0, 0.0, [])
        if len(options) > 1:
            room = budget.started + FIT_SHARE * budget.seconds - time.monotonic()
            chosen = sizes.choose(options, self.build, lambda size: Taught(read(size), newest), aim, recipe, n=len(taught), seconds=room,
                                  default=min(1, len(options) - 1), enough=min(ENOUGH, recipe.epochs))
        size = options[chosen.index]
        windows = read(size)
        self.reader = windows.reader
        taught, held = Taught(windows, newest), Judging(windows, which, origin)
        torch.manual_seed(seed)
        network = self.build(size)
        made, self.facts = fitting.teach(network, taught, held, aim, recipe, seed=seed, budget=budget, share=FIT_SHARE, at=fitting.mark(size, len(taught)), params=self.params)
        two = np.arange(2) % len(held)
        self.onnx = exported(network, held.batch(two, None), ("x", "z"))
        self.session = Session(self.onnx, budget.threads)
        self.facts.pop("rows_used", None)
        self.facts |= {"held_loss": round(made.best, 6), "architecture": {k: v for k, v in size.items() if k not in ("levels", "horizon")} | {
            "reason": sizes.reason(chosen, len(options), len(taught), least=min(ENOUGH, recipe.epochs), begun=begun is not None).json()},
            "input": {"series": len(series), "windows_a_pass": len(taught), "judged_by": len(held), "calendar": list(self.reader.calendar), "covariates": list(self.reader.names)}}
        return self

    def predict(self, asked: Dataset) -> np.ndarray:
        out = np.zeros((len(asked), self.task.width))
        for first in range(0, len(asked), 16 * ANSWERED):  # so many histories lie end to end at once
            rows = np.arange(first, min(len(asked), first + 16 * ANSWERED))
            out[rows] = self._said(asked.take(rows))
        return out

    def _said(self, asked: Dataset) -> np.ndarray:
        series, reader = histories(asked), self.reader
        windows = Windows(reader, series, [one.origin for one in series])
        x, z, center, unit = windows.cut(np.arange(len(series)), windows.lengths)
        said = self.session.answers(lambda rows: {"x": x[rows], "z": z[rows]}, len(series), ANSWERED).astype(np.float64)
        known = np.array([_bounds(one.values) for one in series])
        return np.clip(said * unit[:, None] + center[:, None], known[:, :1], known[:, 1:])

    def dump(self, folder: Path) -> None:
        """network.onnx (x, z in; quantiles out) and network.json."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "network.onnx").write_bytes(self.onnx)
        packed = {"format": 1, "reader": self.reader.json(), "facts": self.facts}
        (folder / "network.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Any:
        packed = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.reader, self.facts = Reader.of(packed["reader"]), packed["facts"]
        self.onnx = (folder / "network.onnx").read_bytes()
        self.session = Session(self.onnx)
        return self


def lengths_for(series: list[int], horizon: int, season: int) -> tuple[int, int, int]:
    """Steps of a small, a usual and a long window: a few seasons and horizons, never longer than most series leave room for.

    The usual one reaches back seven seasons from its last answer, so that hours know their weekday of the week before.
    """
    typical = int(np.median(series)) if series else 0
    most = max(2, min(LONGEST, max(min(2 * season, typical - horizon), (typical - horizon) * 2 // 3)))
    wanted = (max(2 * horizon, 2 * season, 8), max(4 * horizon, 7 * season + horizon if season <= 24 else 3 * season, 16), max(7 * horizon, 14 * season if season <= 24 else 4 * season, 32))
    small, usual, long = (min(most, n) for n in wanted)
    return small, max(small, usual), max(small, usual, long)


def _enough(recipe: Recipe, n: int, steps: int, *, whole: bool) -> Recipe:
    """Passes that make about so many steps. whole: the user has said how many."""
    batch = min(recipe.batch, max(16, n // 8))
    return replace(recipe, batch=batch, epochs=recipe.epochs if whole else min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(steps * batch / n))))


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """What an answer may be: at most three times its known range beyond what was seen, and never below zero where nothing was."""
    known = values[np.isfinite(values)]
    if not len(known):
        return -np.inf, np.inf
    low, high = float(known.min()), float(known.max())
    room = 3 * (high - low) + abs(high) * 0.5 + 1e-9
    return (0.0 if low >= 0 else low - room), high + room
