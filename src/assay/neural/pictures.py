"""Pictures and spectrograms as rows of a network: standardised, augmented in training, mirrored in answering where that is allowed."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.neural.augment import Changes, changed, mixed
from assay.neural.rows import Rows

_SMALL = 16  # side of the pictures on which flips are tried
_TRIED = 1500
GPU_SHARE = 0.25  # of the GPU's free memory that pictures may take, all of them at once


class Pictures(Rows):
    """pixels: uint8 (n, h, w, channels). mean, spread: (channels,) of the training pictures, 0-255."""

    held: tuple[Any, Any, Any] | None = None  # pixels, mean, spread on a GPU

    def __init__(self, pixels: np.ndarray, target: np.ndarray, mean: np.ndarray, spread: np.ndarray, changes: Changes) -> None:
        self.pixels, self.target, self.mean, self.spread, self.changes = pixels, target, mean, spread, changes

    def __len__(self) -> int:
        return len(self.pixels)

    def on(self, device: str) -> Pictures:
        if device.startswith("cuda"):
            import torch

            if self.pixels.nbytes < GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
                pixels, mean, spread = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (self.pixels, self.mean, self.spread))
                self.held = (pixels, mean, spread)
        return self

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        if self.held is not None:
            pixels, mean, spread = self.held
            x = ((pixels[torch.from_numpy(rows).to(pixels.device)].float() - mean) / spread).permute(0, 3, 1, 2)
        else:
            x = torch.from_numpy(standard(self.pixels[rows], self.mean, self.spread))
        return (changed(x, self.changes, rng) if rng is not None else x,)

    def mixed(self, inputs: tuple[Any, ...], target: Any, rng: np.random.Generator) -> tuple[tuple[Any, ...], Any]:
        x, target = mixed(inputs[0], target, self.changes, rng)
        return (x,), target


def standard(pixels: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """float32 (n, channels, h, w), about mean 0 and spread 1."""
    return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / spread).transpose(0, 3, 1, 2), dtype=np.float32)


def moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of each channel, (channels,), from at most 2,000 pictures."""
    some = pixels[:: max(1, len(pixels) // 2000)].reshape(-1, pixels.shape[3]).astype(np.float64)
    return some.mean(axis=0).astype(np.float32), np.maximum(some.std(axis=0), 1.0).astype(np.float32)


def is_grey(pixels: np.ndarray) -> bool:
    """pixels: uint8 (n, h, w, 3). True if no picture has a colour, up to what a JPEG adds."""
    some = pixels[:: max(1, len(pixels) // 200)].astype(np.int16)
    return bool(np.abs(some - some.mean(axis=3, keepdims=True)).mean() < 1.0)


def flips_that_keep(pixels: np.ndarray, truth: np.ndarray, *, labels: bool, seed: int) -> str:
    """'all', 'both', 'horizontal' or 'none': the most flips that leave a picture's meaning as it is, asked of nearest neighbours.

    pixels: uint8 (n, h, w, channels). Small pictures are answered by their five neighbours, once among the others and once among
    the others and their mirror images. If the mirror images lead astray (a 2 is no mirrored 5), the loss rises; if by more
    than its standard error, the flip is not used. Costs some tenths of a second.
    """
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(pixels))[:_TRIED]
    height, width = pixels.shape[1:3]
    rows = np.linspace(0, height - 1, min(_SMALL, height)).astype(int)
    columns = np.linspace(0, width - 1, min(_SMALL, width)).astype(int)
    small = pixels[some][:, rows][:, :, columns].astype(np.float32).mean(axis=3)
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= small.std(axis=(1, 2), keepdims=True) + 1e-3
    asked = len(some) // 3
    if asked < 20:
        return "none"
    known, y = small[asked:], truth[some]
    plain = _neighbours(small[:asked], known, y[asked:], y[:asked], labels)
    kept = "none"
    copies = [known, known[:, :, ::-1]]
    turned = known.transpose(0, 2, 1) if known.shape[1] == known.shape[2] else known[:0]
    for name, more in (("horizontal", []), ("both", [known[:, ::-1], known[:, ::-1, ::-1]]),
                       ("all", [turned, turned[:, :, ::-1], turned[:, ::-1], turned[:, ::-1, ::-1]])):
        if more and not len(more[0]):
            break
        copies = copies + more
        loss = _neighbours(small[:asked], np.concatenate(copies), np.tile(y[asked:], len(copies)), y[:asked], labels)
        gap = loss - plain
        if gap.mean() > gap.std() / np.sqrt(asked):
            break
        kept = name
    return kept


def _neighbours(asked: np.ndarray, known: np.ndarray, y: np.ndarray, truth: np.ndarray, labels: bool) -> np.ndarray:
    """Loss of each asked picture, by its five nearest."""
    a, b = asked.reshape(len(asked), -1), known.reshape(len(known), -1)
    distance = (b**2).sum(axis=1)[None] - 2 * a @ b.T
    near = np.argpartition(distance, 5, axis=1)[:, :5]
    if labels:
        return 1 - (y[near] == truth[:, None]).mean(axis=1)
    return (y[near].mean(axis=1) - truth) ** 2
