"""LoRA: each matrix of a large network stays as it is and learns a difference of low rank, which is added into it at the end.

Hu et al. 2021, arXiv:2106.09685; on all matrices of the layers, as Dettmers et al. 2023 (arXiv:2305.14314) found best. Written here because it
is 40 lines, and importing the package peft took 9 s of a trial's time; a test holds it against peft.
"""

from __future__ import annotations

import math
from typing import Any


def add_lora(body: Any, *, rank: int = 8, alpha: float = 16.0, dropout: float = 0.05, seed: int = 0) -> int:
    """Give every linear layer inside `body` (a torch module) a difference of this rank, which says nothing yet; all else is frozen.

    alpha: the difference is scaled by alpha / rank. Returns the number of layers; `merged` takes them back.
    """
    import torch
    from torch import nn

    class Lora(nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base, self.scale, self.drop = base, alpha / rank, nn.Dropout(dropout)
            self.down, self.up = nn.Parameter(torch.empty(rank, base.in_features)), nn.Parameter(torch.zeros(base.out_features, rank))
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
            self.train(base.training)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.scale * (self.drop(x) @ self.down.T @ self.up.T)

    for parameter in body.parameters():
        parameter.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _replaced(body, lambda layer: Lora(layer) if isinstance(layer, nn.Linear) else None)


def merged(body: Any) -> int:
    """Add each difference into its matrix and put the plain layers back. Returns the number of layers."""
    import torch

    def plain(layer: Any) -> Any:
        if not {"base", "down", "up", "scale"} <= vars(layer).keys() | vars(layer).get("_parameters", {}).keys() | vars(layer).get("_modules", {}).keys():
            return None
        with torch.no_grad():
            layer.base.weight += layer.scale * (layer.up @ layer.down)
        return layer.base

    return _replaced(body, plain)


def _replaced(body: Any, other: Any) -> int:
    """Every module for which `other` returns one is replaced by it; what is inside a replaced one is left alone."""
    done = 0
    for name, child in list(body.named_children()):
        made = other(child)
        if made is None:
            done += _replaced(child, other)
        else:
            setattr(body, name, made)
            done += 1
    return done
