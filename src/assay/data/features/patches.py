"""Small patches that the pictures themselves are made of, learnt without labels, and how strongly each quarter of a picture holds them.

Single-layer feature learning (Coates, Ng & Lee 2011, AISTATS; Coates & Ng 2011, ICML): whitened patches, a dictionary of unit
vectors found by the gain-shape form of k-means, a soft threshold as the code, sums over quarters. On small pictures this is the
strongest of the classical features, and the last step before a convolutional network.
"""

from __future__ import annotations

import numpy as np

PATCH = 6
_TAUGHT = 20_000  # patches that the dictionary is learnt from
_ROUNDS = 10
_BATCH = 32
_QUIET = 0.8  # share of the responses that are cut to zero


class Patches:
    """State: `shift` (d,) and `turn` (d, atoms), the whitening and the dictionary in one matrix; `threshold`, one number."""

    def __init__(self, shift: np.ndarray, turn: np.ndarray, threshold: float) -> None:
        self.shift, self.turn, self.threshold = shift, turn, threshold

    @classmethod
    def learn(cls, pixels: np.ndarray, atoms: int, rng: np.random.Generator) -> Patches:
        """pixels: uint8 (n, side, side, channels) of training pictures."""
        n, side = pixels.shape[:2]
        which, y, x = rng.integers(n, size=_TAUGHT), rng.integers(side - PATCH + 1, size=_TAUGHT), rng.integers(side - PATCH + 1, size=_TAUGHT)
        step = np.arange(PATCH)
        taught = _unit(pixels[which[:, None, None], (y[:, None] + step)[:, :, None], (x[:, None] + step)[:, None, :]].reshape(_TAUGHT, -1))
        shift = taught.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov((taught - shift).T.astype(np.float64)) + 1e-9 * np.eye(taught.shape[1]))
        white = (vectors / np.sqrt(np.maximum(values, 0) + 0.1) @ vectors.T).astype(np.float32)
        seen = (taught - shift) @ white
        dictionary = rng.normal(size=(atoms, seen.shape[1])).astype(np.float32)
        dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
        for _ in range(_ROUNDS):
            said = seen @ dictionary.T
            best = np.abs(said).argmax(axis=1)
            code = np.zeros_like(said)
            code[np.arange(len(seen)), best] = said[np.arange(len(seen)), best]
            dictionary = code.T @ seen + 1e-3 * dictionary
            dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True) + 1e-9
        return cls(shift, (white @ dictionary.T).astype(np.float32), float(np.quantile(np.abs(seen[:2000] @ dictionary.T), _QUIET)))

    def transform(self, pixels: np.ndarray) -> np.ndarray:
        """float32 (n, 8 * atoms): how much of every atom, and of its negative, is in every quarter."""
        n, side = pixels.shape[:2]
        stride, cut = max(1, side // 32), np.float32(self.threshold)
        out = np.empty((n, 2, 2, 2, self.turn.shape[1]), dtype=np.float32)  # picture, sign, upper or lower, left or right, atom
        for first in range(0, n, _BATCH):
            some = pixels[first : first + _BATCH]
            windows = np.lib.stride_tricks.sliding_window_view(some, (PATCH, PATCH), axis=(1, 2))[:, ::stride, ::stride]
            wide = windows.shape[1]
            said = (_unit(windows.transpose(0, 1, 2, 4, 5, 3).reshape(len(some) * wide * wide, -1)) - self.shift) @ self.turn
            code = said.reshape(len(some), wide, wide, -1)
            halves = (slice(wide // 2), slice(wide // 2, None))
            for sign, signed in enumerate((np.maximum(code - cut, 0), np.maximum(-code - cut, 0))):
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    out[first : first + len(some), sign, y, x] = signed[:, halves[y], halves[x]].mean(axis=(1, 2))
        return out.reshape(n, -1)


def _unit(patches: np.ndarray) -> np.ndarray:
    """float32 (n, d): each patch without its mean and with the same contrast, unless it is flat."""
    values = patches.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.sqrt((values**2).mean(axis=1, keepdims=True) + 10)
    return values
