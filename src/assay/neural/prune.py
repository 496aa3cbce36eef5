"""Magnitude pruning of a trained network: single weights, or whole channels with what reads and writes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def weights_pruned(network: Any, share: float) -> list[Any]:
    """Set the smallest `share` (0-1) of all weights in matrices and filters to zero, and keep them there while training goes on.

    The threshold is one for the whole network (Han et al. 2015, arXiv:1506.02626). Returns the hooks on the gradients, to be removed
    by `.remove()` when training is over.
    """
    import torch

    heavy = [p for p in network.parameters() if p.ndim > 1]
    sizes = np.concatenate([p.detach().abs().flatten().numpy() for p in heavy])
    edge = float(np.quantile(sizes, share))
    hooks = []
    with torch.no_grad():
        for p in heavy:
            mask = (p.abs() > edge).float()
            p.mul_(mask)
            hooks.append(p.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device)))
    return hooks


def zeros(network: Any) -> float:
    """Share of the weights in matrices and filters that are zero."""
    heavy = [p for p in network.parameters() if p.ndim > 1]
    return float(sum(int((p == 0).sum()) for p in heavy) / sum(p.numel() for p in heavy))


def channels_pruned(network: Any, share: float) -> int:
    """Take the weakest `share` (0-1) of the channels away inside every pair of `network.pairs()`; returns how many.

    A pair is (writer, norm or None, reader): layers between which the channels meet nothing else, so that both can be cut (Li et al.
    2017, arXiv:1608.08710). Weak is a channel whose writer's filter, times its norm's gain, is small.
    """
    import torch

    taken = 0
    for writer, norm, reader in network.pairs():
        strength = writer.weight.detach().abs().flatten(1).sum(1)
        if norm is not None:
            strength = strength * norm.weight.detach().abs() / (norm.running_var.detach().sqrt() + 1e-5)
        keep = torch.sort(torch.argsort(strength, descending=True)[: max(1, round(len(strength) * (1 - share)))]).values
        taken += len(strength) - len(keep)
        _cut(writer, keep, 0)
        if norm is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                old = getattr(norm, name)
                new = old.detach()[keep].clone()
                setattr(norm, name, torch.nn.Parameter(new) if isinstance(old, torch.nn.Parameter) else new)
            norm.num_features = len(keep)
        _cut(reader, keep, 1)
    return taken


def _cut(layer: Any, keep: Any, axis: int) -> None:
    import torch

    layer.weight = torch.nn.Parameter(layer.weight.detach().index_select(axis, keep).clone())
    if axis == 0 and layer.bias is not None:
        layer.bias = torch.nn.Parameter(layer.bias.detach()[keep].clone())
    names = ("out_channels", "out_features") if axis == 0 else ("in_channels", "in_features")
    for name in names:
        if hasattr(layer, name):
            setattr(layer, name, len(keep))
