"""What networks learn from and aim at: Rows (arrays or files in, tensors out), Aim (the loss), and what a network answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

JUDGED_BATCH = 256


class Rows(ABC):
    """Rows that a network can be taught: arrays or files in, tensors out."""

    target: np.ndarray  # int codes (n,), float amounts (n,) standardised or (n, steps) with levels, or float probabilities (n, outputs) of a teacher

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        """Tensors that the network is called with, on the processor or where `on` put them. rng: to augment with, None where rows are judged."""

    def on(self, device: str) -> Rows:
        """These rows made ready for the device: a GPU is faster than what brings it its batches, so those that can be there, should."""
        return self

    def mixed(self, inputs: tuple[Any, ...], target: Any, rng: np.random.Generator) -> tuple[tuple[Any, ...], Any]:
        """A training batch in which rows were mixed (mixup, cutmix); target: (b, outputs) probabilities or (b,) amounts."""
        return inputs, target


@dataclass(frozen=True)
class Aim:
    """What is minimised. loss: 'log' or 'squared', 'absolute', 'pinball' (with quantile). outputs: numbers that the network says a row.

    weights: of the labels, (outputs,), for class-balanced training; None for equal ones.
    levels: of the quantiles that are said of each of several steps, a step's side by side: outputs is steps * levels, and the loss pinball.
    """

    loss: str
    outputs: int
    quantile: float = 0.5
    weights: tuple[float, ...] | None = None
    levels: tuple[float, ...] | None = None

    @property
    def labels(self) -> bool:
        return self.loss == "log"


def answers(network: Any, rows: Rows, aim: Aim, *, device: str = "cpu", batch: int = JUDGED_BATCH) -> np.ndarray:
    """What the network says of every row, float32 (n, outputs): raw scores before any softmax."""
    import torch

    network.eval()
    out = np.zeros((len(rows), aim.outputs), dtype=np.float32)
    with torch.no_grad():
        for first in range(0, len(rows), batch):
            chosen = np.arange(first, min(first + batch, len(rows)))
            out[chosen] = network(*(t.to(device) for t in rows.batch(chosen, None))).float().cpu().numpy().reshape(len(chosen), -1)
    return out


def mean_loss(said: Any, target: Any, aim: Aim, smoothing: float = 0.0, weights: Any = None) -> Any:
    """said: (b, outputs). target: (b, outputs) probabilities, (b,) amounts, or with levels (b, steps), NaN where a step is missing. A scalar tensor."""
    import torch

    if aim.levels is not None:
        return _levels_loss(said, target, aim.levels)
    if aim.labels:
        if smoothing:
            target = target * (1 - smoothing) + smoothing / aim.outputs
        losses = -(target * torch.log_softmax(said, dim=1))
        if weights is not None:
            losses = losses * weights
        return losses.sum() / len(said)
    error = target - said[:, 0]
    if aim.loss == "squared":
        return (error * error).mean()
    if aim.loss == "absolute":
        return error.abs().mean()
    return 2 * (error.clamp_min(0) * aim.quantile - error.clamp_max(0) * (1 - aim.quantile)).mean()


def _levels_loss(said: Any, target: Any, levels: tuple[float, ...]) -> Any:
    """Twice the quantile loss, the mean over levels and the steps that are known."""
    import torch

    there = torch.isfinite(target)
    error = torch.where(there, target, torch.zeros_like(target))[:, :, None] - said.reshape(len(said), target.shape[1], len(levels))
    level = torch.tensor(levels, dtype=said.dtype, device=said.device)
    losses = torch.maximum(level * error, (level - 1) * error).mean(dim=2) * there
    return 2 * losses.sum() / there.sum().clamp_min(1)


class Few(Rows):
    """The first rows of others."""

    def __init__(self, rows: Rows, most: int) -> None:
        self.rows, self.most, self.target = rows, most, rows.target[:most]

    def __len__(self) -> int:
        return self.most

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        return self.rows.batch(rows, rng)
