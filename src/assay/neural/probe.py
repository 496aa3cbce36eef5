"""A linear probe of what a frozen network sees, and as the first state of its last layer when the network is taught as well.

Probing first and teaching everything from there loses less of what a network knew than teaching from a last layer of noise
(Kumar et al. 2022, arXiv:2202.10054).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.neural.head import MOST_STEPS, Aim, Head
from assay.neural.solver import Linear, logistic, ridge, softmax

LEAST_GAIN, SURE = 0.02, 1.64  # of the probe's held-out loss; standard errors, one-sided 5 %


@dataclass(frozen=True)
class Probe:
    """line: of all rows. first: of the rows that teach only, whose loss on the held-out ones is `loss`. strength: of its penalty."""

    line: Linear
    first: Linear
    strength: float
    loss: float

    def facts(self) -> dict[str, Any]:
        return {"probe_loss": round(self.loss, 6), "strength": self.strength}


def probe(features: np.ndarray, target: np.ndarray, rest: np.ndarray, held: np.ndarray, aim: Aim, *, seconds: float = math.inf, passes: int | None = None) -> Probe:
    """Logistic regression or ridge on features (n, m); target (n,): codes, or amounts in the unit of a network's output."""
    head = Head(classes=aim.classes, loss=aim.loss, quantile=aim.quantile)
    head.most_steps = min(MOST_STEPS, passes or MOST_STEPS)
    stop, blocks = time.monotonic() + seconds, (features.shape[1], 0)
    line, strength, loss = head._line(features, blocks, target, rest, held, stop - 0.5 * seconds if math.isfinite(seconds) else stop,
                                      stop - 0.2 * seconds if math.isfinite(seconds) else stop)
    if aim.classes:
        first = logistic(features[rest], target[rest], aim.classes, strength, blocks, deadline=stop, tolerance=1e-4, most_steps=head.most_steps)[0]
    else:
        first = ridge(features[rest], target[rest], (strength,), blocks)[0]
        if aim.loss != "squared":
            level = aim.quantile if aim.loss == "pinball" else 0.5
            first = Linear(first.weights, first.intercept + np.float32(np.quantile(target[held] - first.scores(features[held])[:, 0], level)))
    return Probe(line, first, strength, loss)


def loss_of(line: Linear, features: np.ndarray, target: np.ndarray, aim: Aim) -> float:
    """Mean loss of a line on these rows."""
    scores = line.scores(features)
    return float(aim.losses(target, softmax(scores) if aim.classes else scores).mean())


def clearly_better(scores: np.ndarray, before: np.ndarray, target: np.ndarray, aim: Aim) -> bool:
    """Do these raw scores (n, outputs) of held-out rows lose less than those before, by 2 % and by 1.64 standard errors of the paired gain?

    The round that was kept is the best of several on the same rows: on 38 of them, one standard error was reached by luck.
    """
    was, now = (aim.losses(target, softmax(s) if aim.classes else s) for s in (before, scores))
    gain = was - now
    return bool(gain.mean() > max(LEAST_GAIN * was.mean(), SURE * gain.std(ddof=1) / np.sqrt(len(gain)))) if len(gain) > 1 else False


def put(line: Linear, layer: Any) -> None:
    """A torch linear layer is set to say what the line says."""
    import torch

    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(line.weights.T)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(line.intercept)))


def taken(layer: Any) -> Linear:
    """A torch linear layer as a line."""
    return Linear(np.ascontiguousarray(layer.weight.detach().cpu().numpy().T), layer.bias.detach().cpu().numpy().copy())
