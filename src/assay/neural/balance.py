"""Rare labels that count for more while a network learns, and answers that are none the less those of the rows as they are.

Where rows of label y weigh w_y (or are shown w_y times), the scores that lose least are those of w_y p(y | x): too high by log w_y. So log w is
added to what the network says while it learns, and never when it is judged, kept or exported; what is left to the network is log p(y | x), up to a
constant (Saerens et al. 2002, doi:10.1162/089976602753284446; adding it inside the loss: Menon et al. 2021, arXiv:2007.07314). The log loss
of its answers stays honest, and the held-out rows choose among rounds by that same loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assay.neural.rows import Aim, Rows

WAYS = ("no", "weights", "rows")  # the loss of rare labels weighs more; their rows are drawn more often, changed anew each time
MOST = 10.0  # times the least


def balanced(truth: np.ndarray, width: int) -> tuple[float, ...]:
    """Weights of the labels, inverse to their number, at most ten times the least; their mean over the rows is 1.

    truth: codes (n,), or probabilities (n, width).
    """
    counts = np.maximum(np.bincount(truth, minlength=width) if truth.ndim == 1 else truth.sum(axis=0, dtype=np.float64), 1)
    weights = np.minimum(1 / counts, MOST / counts.max())
    return tuple((weights / (weights * counts).sum() * counts.sum()).round(6).tolist())


def repeats(truth: np.ndarray, width: int) -> np.ndarray:
    """How often a row of each label is drawn while one of the most frequent label is drawn once: whole numbers (width,), 1 to 10. truth: codes (n,)."""
    counts = np.maximum(np.bincount(truth, minlength=width), 1)
    return np.clip(np.round(counts.max() / counts), 1, MOST).astype(np.int64)


class Repeated(Rows):
    """Other rows, some of them several times. index: (m,), row numbers of `rows`."""

    def __init__(self, rows: Rows, index: np.ndarray) -> None:
        self.rows, self.index, self.target = rows, index, rows.target[index]

    def __len__(self) -> int:
        return len(self.index)

    def on(self, device: str) -> Rows:
        self.rows = self.rows.on(device)
        return self

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        return self.rows.batch(self.index[rows], rng)

    def mixed(self, inputs: tuple[Any, ...], target: Any, rng: np.random.Generator) -> tuple[tuple[Any, ...], Any]:
        return self.rows.mixed(inputs, target, rng)


@dataclass(frozen=True)
class Even:
    """What is taught in place of the rows and the aim. shift: (outputs,), added to the scores while learning; None: nothing is changed."""

    rows: Rows
    aim: Aim
    way: str = "no"
    shift: np.ndarray | None = None


def evened(taught: Rows, aim: Aim, way: str) -> Even:
    """way: one of WAYS. Amounts have no rare labels; rows with a teacher's probabilities have no label of their own and are weighed, not drawn.
    Raises ValueError for another way."""
    if way not in WAYS:
        raise ValueError(f"balanced is one of {', '.join(WAYS)}, not {way!r}")
    if way == "no" or not aim.labels:
        return Even(taught, aim)
    if way == "rows" and taught.target.ndim == 1:
        times = repeats(taught.target, aim.outputs)
        return Even(Repeated(taught, np.repeat(np.arange(len(taught)), times[taught.target])), aim, "rows", np.log(times).astype(np.float32))
    weights = balanced(taught.target, aim.outputs)
    return Even(taught, replace(aim, weights=weights), "weights", np.log(weights).astype(np.float32))


def shifted(network: Any, shift: np.ndarray) -> Any:
    """From now on `network` says `shift` (outputs,) more while it is in training mode; in eval mode it says what it said. Returns a handle with `remove`."""
    import torch

    more = torch.from_numpy(shift)

    def learning(module: Any, _: Any, said: Any) -> Any:
        return said + more.to(said.device) if module.training else said

    return network.register_forward_hook(learning)
