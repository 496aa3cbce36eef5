"""How a network is trained: the recipe, the learning rate's way, the optimizers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("cosine", "one_cycle", "linear", "step", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Recipe:
    """All that `loop.train` may be told.

    rate: the highest learning rate. warm: share of the steps in which it rises from zero. decay: decoupled weight decay (L2 for sgd and adam).
    l1: weight of the sum of absolute weights in the loss. smoothing: of labels, 0-1. ema: decay of the running mean of the weights that is judged
    and kept, 0 for none. clip: largest gradient norm, 0 for none. accumulate: batches a step. patience: share of the epochs without a better held-out
    loss after which it stops. layer_rate: factor of the rate from each group of weights to the one before it (discriminative rates, Howard & Ruder
    2018, arXiv:1801.06146); 1 for none. processes: copies of the network that share each step's batch (data-parallel).
    """

    optimizer: str = "adamw"
    rate: float = 2e-3
    momentum: float = 0.9
    decay: float = 0.01
    l1: float = 0.0
    schedule: str = "cosine"
    warm: float = 0.1
    batch: int = 64
    epochs: int = 30
    smoothing: float = 0.0
    ema: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    precision: str = "auto"
    patience: float = 0.4
    layer_rate: float = 1.0
    processes: int = 1

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}")


def rate_at(recipe: Recipe, progress: float) -> float:
    """The learning rate as a share of the highest, at `progress` (0-1) of all steps.

    one_cycle: up for 30 % and down, both along a cosine (Smith & Topin 2019, arXiv:1708.07120). step: a tenth after 50 % and again after 75 %.
    """
    if recipe.schedule == "one_cycle":
        part = progress / 0.3 if progress < 0.3 else (progress - 0.3) / 0.7
        return 0.04 + 0.96 * (1 - math.cos(math.pi * part)) / 2 if progress < 0.3 else (1 + math.cos(math.pi * part)) / 2
    if progress < recipe.warm:
        return progress / recipe.warm
    part = (progress - recipe.warm) / max(1e-9, 1 - recipe.warm)
    if recipe.schedule == "cosine":
        return (1 + math.cos(math.pi * part)) / 2
    if recipe.schedule == "linear":
        return 1 - part
    if recipe.schedule == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    return 1.0


def optimizers(network: Any, recipe: Recipe) -> list[Any]:
    """The torch optimizers of this network's weights; each group carries `peak`, its own highest rate.

    Biases and norms do not decay. muon: matrices and filters by Muon, the rest by AdamW at a tenth of its rate.
    `network.groups()`, if it has one, lists its parameters from the first layer to the last, for `layer_rate`.
    """
    import torch

    layers: list[Iterable[Any]] = network.groups() if hasattr(network, "groups") else [network.parameters()]
    heavy: list[dict[str, Any]] = []
    light: list[dict[str, Any]] = []
    for depth, layer in enumerate(reversed([[p for p in group if p.requires_grad] for group in layers])):
        peak = recipe.rate * recipe.layer_rate**depth
        heavy.append({"params": [p for p in layer if p.ndim > 1], "peak": peak, "weight_decay": recipe.decay})
        light.append({"params": [p for p in layer if p.ndim <= 1], "peak": peak, "weight_decay": 0.0})
    heavy, light = [g for g in heavy if g["params"]], [g for g in light if g["params"]]
    if recipe.optimizer == "sgd":
        return [torch.optim.SGD(heavy + light, lr=0.0, momentum=recipe.momentum, nesterov=recipe.momentum > 0)]
    if recipe.optimizer == "adam":
        return [torch.optim.Adam(heavy + light, lr=0.0)]
    if recipe.optimizer == "adamw":
        return [torch.optim.AdamW(heavy + light, lr=0.0, betas=(recipe.momentum, 0.99))]
    rest = [g | {"peak": g["peak"] / 10} for g in light]
    return [o for o in (_muon()(heavy, momentum=recipe.momentum) if heavy else None,
                        torch.optim.AdamW(rest, lr=0.0, betas=(recipe.momentum, 0.99)) if rest else None) if o is not None]


def _muon() -> Any:
    """The class Muon: momentum whose matrix is made orthogonal by five Newton-Schulz steps (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/); a filter bank is one matrix, a row a filter."""
    import torch

    class Muon(torch.optim.Optimizer):
        def __init__(self, params: Any, momentum: float) -> None:
            super().__init__(params, {"lr": 0.0, "momentum": momentum, "weight_decay": 0.0})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(p)
                    buffer = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
                    matrix = p.grad.lerp(buffer, group["momentum"]).flatten(1)
                    update = _orthogonal(matrix) * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p), alpha=-group["lr"])

    return Muon


def _orthogonal(matrix: Any) -> Any:
    """The nearest matrix with orthogonal rows or columns, roughly: singular values end between 0.7 and 1.2."""
    x = matrix / (matrix.norm() + 1e-7)
    flipped = x.shape[0] > x.shape[1]
    x = x.T if flipped else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if flipped else x
