"""Changes of a training batch of pictures that leave its meaning: flips, shifts, turns, colour, cutout, mixup, cutmix.

All on the batch as one tensor, from the generator given, so that a step's pictures are a function of its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Changes:
    """flip: 'none', 'horizontal', 'both' (also upside down) or 'all' (also turned by 90 degrees). shift: share of the side. turn: degrees.
    colour: of brightness and contrast, 0-1. cutout: side of the hole as a share. mixup, cutmix: chance that a batch is mixed, together at most 1
    (Zhang et al. 2018, arXiv:1710.09412; Yun et al. 2019, arXiv:1905.04899): its targets are then shares of two labels, or amounts between two."""

    flip: str = "horizontal"
    shift: float = 0.1
    turn: float = 0.0
    colour: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


def wanted(usual: dict[str, Any], params: dict[str, Any]) -> Changes:
    """The usual changes, with those that a model's params name."""
    return Changes(**usual | {name: params[name] for name in Changes.__dataclass_fields__ if params.get(name) is not None})


def changed(x: Any, changes: Changes, rng: np.random.Generator) -> Any:
    """x: float (b, channels, h, w), standardised, on any device. The same shape."""
    import torch
    from torch.nn import functional

    n, _, height, width = x.shape

    def there(array: np.ndarray) -> Any:
        return torch.from_numpy(array).to(x.device)

    def half() -> Any:
        return there(rng.random(n) < 0.5)[:, None, None, None]

    if changes.flip in ("horizontal", "both", "all"):
        x = torch.where(half(), x.flip(3), x)
    if changes.flip in ("both", "all"):
        x = torch.where(half(), x.flip(2), x)
    if changes.flip == "all" and height == width:
        x = torch.where(half(), x.transpose(2, 3), x)
    if changes.turn:
        angle = rng.uniform(-1, 1, n) * math.radians(changes.turn)
        size = 1 + rng.uniform(-1, 1, n) * changes.shift
        move = rng.uniform(-2, 2, (n, 2)) * changes.shift
        theta = np.stack([np.stack([np.cos(angle) * size, -np.sin(angle) * size, move[:, 0]], 1), np.stack([np.sin(angle) * size, np.cos(angle) * size, move[:, 1]], 1)], 1)
        grid = functional.affine_grid(there(theta.astype(np.float32)), list(x.shape), align_corners=False)
        x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    elif changes.shift:
        x = _shifted(x, max(1, round(changes.shift * min(height, width))), rng)
    if changes.colour:
        gain = there((1 + rng.uniform(-1, 1, (n, 1, 1, 1)) * changes.colour).astype(np.float32))
        bias = there((rng.uniform(-1, 1, (n, 1, 1, 1)) * changes.colour).astype(np.float32))
        x = x * gain + bias
    if changes.cutout:
        x = x * _holes(x, changes.cutout, rng)
    return x


def _shifted(x: Any, most: int, rng: np.random.Generator) -> Any:
    """Each picture moved by up to `most` pixels, its border reflected."""
    import torch
    from torch.nn import functional

    n, _, height, width = x.shape
    padded = functional.pad(x, (most,) * 4, mode="reflect")
    top, left = rng.integers(0, 2 * most + 1, n), rng.integers(0, 2 * most + 1, n)
    if x.device.type != "cpu":  # all pictures in one step; on a processor slices are three times as fast
        rows, columns = (torch.from_numpy(first[:, None] + np.arange(size)).to(x.device) for first, size in ((top, height), (left, width)))
        return padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    out = torch.empty_like(x)
    for place in {*zip(top.tolist(), left.tolist(), strict=True)}:  # by place: a few dozen slices, not one a picture
        some = torch.from_numpy(np.flatnonzero((top == place[0]) & (left == place[1])))
        out[some] = padded[some, :, place[0] : place[0] + height, place[1] : place[1] + width]
    return out


def _holes(x: Any, share: float, rng: np.random.Generator) -> Any:
    """(b, 1, h, w): 0 within a square at a random place of each picture, else 1."""
    import torch

    n, _, height, width = x.shape
    top, left = (torch.from_numpy(rng.integers(0, size, (n, 1))).to(x.device) for size in (height, width))
    rows = (torch.arange(height, device=x.device) - top).abs() <= share * height / 2
    columns = (torch.arange(width, device=x.device) - left).abs() <= share * width / 2
    return (~(rows[:, :, None] & columns[:, None, :])).to(x.dtype)[:, None]


def mixed(x: Any, target: Any, changes: Changes, rng: np.random.Generator) -> tuple[Any, Any]:
    """The batch mixed with itself in another order, by chance. target: (b, outputs) or (b,)."""
    import torch

    chance = rng.random()
    if chance >= changes.mixup + changes.cutmix:
        return x, target
    order, share = torch.from_numpy(rng.permutation(len(x))), float(rng.beta(0.8, 0.8))
    if chance < changes.mixup:
        return share * x + (1 - share) * x[order], share * target + (1 - share) * target[order]
    height, width = x.shape[2:]
    side = math.sqrt(1 - share)
    h, w = round(height * side), round(width * side)
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    x = x.clone()
    x[:, :, top : top + h, left : left + w] = x[order][:, :, top : top + h, left : left + w]
    kept = 1 - h * w / (height * width)
    return x, kept * target + (1 - kept) * target[order]
