"""Log-mel energies as Kaldi computes them, which audio transformers (AST) hear through, in numpy.

As torchaudio.compliance.kaldi.fbank with a Hann window: frames of 25 ms every 10 ms, each without its mean, pre-emphasis 0.97, power
spectrum, triangles on the mel scale from 20 Hz to half the rate.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_LEAST = float(np.finfo(np.float32).eps)


def fbank(waves: np.ndarray, rate: int, bins: int) -> np.ndarray:
    """float32 (n, frames, bins) of waves (n, samples); at least one frame of 25 ms."""
    length, step = int(rate * 0.025), int(rate * 0.010)
    if waves.shape[1] < length:
        waves = np.pad(waves, ((0, 0), (0, length - waves.shape[1])))
    frames = np.lib.stride_tricks.sliding_window_view(waves.astype(np.float64), length, axis=1)[:, ::step]
    frames = frames - frames.mean(axis=2, keepdims=True)
    before = np.concatenate([frames[:, :, :1], frames[:, :, :-1]], axis=2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))
    size = 1 << (length - 1).bit_length()
    power = np.abs(np.fft.rfft((frames - 0.97 * before) * window, size, axis=2)) ** 2
    return np.log(np.maximum(power @ _triangles(rate, size, bins), _LEAST)).astype(np.float32)


@lru_cache(maxsize=4)
def _triangles(rate: int, size: int, bins: int) -> np.ndarray:
    """(size // 2 + 1, bins): each column a triangle in mel."""
    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(20.0), mel(rate / 2), bins + 2)
    at = mel(np.arange(size // 2 + 1) * rate / size)[:, None]
    out = np.minimum((at - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - at) / (edges[2:] - edges[1:-1]))
    out[-1] = 0.0  # Kaldi leaves out the highest frequency
    return np.maximum(out, 0.0)
