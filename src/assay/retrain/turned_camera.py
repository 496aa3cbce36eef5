"""The traffic of `assay demo loop`: a camera reads digits on meters, and after a maintenance it hangs upside down under a dimmer lamp.

Every row is a real scan (1,797 handwritten digits of 43 writers, Alpaydin & Kaynak 1998, shipped inside scikit-learn) and is shown once. The shift is planted:
the dim lamp moves all numbers (the inputs change), and a turned 6 looks like a 9 (what an input means changes), so no model of the old pictures can stay right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

TARGET = "digit"
TAUGHT, BEFORE = 600, 400  # rows that teach the first champion, and rows asked before the shift; the other 797 come after it
LAMP, DARK = 0.7, 1.5  # what is left of the contrast, and grey that is there without ink; ink is 0 to 16
MINUTES = 20.0  # between two meters


@dataclass(frozen=True)
class Asked:
    """One request: minutes since the start, the 64 pixels as columns, the true digit (which nobody knows yet), and whether the camera is turned."""

    minute: float
    row: dict[str, float]
    truth: str
    turned: bool


@dataclass(frozen=True)
class Replay:
    """training: pixels and the target, as they were when the camera was mounted. asked: the traffic in order of time."""

    training: pl.DataFrame
    asked: tuple[Asked, ...]

    @property
    def shift(self) -> int:
        """The number of the first request after the maintenance."""
        return next(i for i, a in enumerate(self.asked) if a.turned)


def replay(seed: int = 0) -> Replay:
    """The same traffic for the same seed. Needs scikit-learn only."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(bunch.target))
    ink, truth = bunch.images[order], [str(d) for d in bunch.target[order]]
    first = TAUGHT + BEFORE
    ink = np.concatenate([ink[:first], turned(ink[first:], rng)])
    names = [f"r{r}c{c}" for r in range(8) for c in range(8)]
    pixels = ink.reshape(len(ink), 64).round(2)
    minutes = np.cumsum(rng.exponential(MINUTES, len(ink) - TAUGHT))
    training = pl.DataFrame({name: pixels[:TAUGHT, k] for k, name in enumerate(names)}).with_columns(pl.Series(TARGET, truth[:TAUGHT]))
    asked = tuple(Asked(float(minutes[i - TAUGHT]), dict(zip(names, pixels[i].tolist(), strict=True)), truth[i], i >= first) for i in range(TAUGHT, len(ink)))
    return Replay(training, asked)


def turned(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures (n, 8, 8) as the turned camera sees them under the dimmer lamp, with its noise; ink 0 to 16."""
    return np.clip(ink[:, ::-1, ::-1] * LAMP + DARK + rng.normal(0, 0.5, ink.shape), 0, 16)
