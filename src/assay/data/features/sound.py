"""Classical features of sounds: log-mel energies and cepstra over time, what the spectrum looks like, how the loudness moves.

All functions take float32 waves (n, samples) of one rate; zeros around a shorter sound are not part of it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl

from assay.data import media

MOST_RATE = 16_000  # above 8 kHz there is little that tells sounds apart
MOST_SECONDS = 10.0  # of a longer sound
MELS = 40
CEPSTRA = 20
SLICES = 10  # equal parts of a sound's own span, for what comes after what
_BATCH_SAMPLES = 1_000_000
_QUIET = 1e-5  # of full scale, squared: below it there is nothing to be heard in 16 bits


def usual(cells: pl.Series) -> tuple[int, float]:
    """(rate, seconds) at which sounds such as these are read: the commonest rate, and the length of nearly the longest.

    A cell that cannot be decoded is passed over: reading it will say so, with its row.
    """
    rates, seconds = Counter[int](), []
    for cell in cells.drop_nulls():
        try:
            rate = media.rate_of(cell)
            seconds.append(len(media.wave(cell, rate)) / rate)
            rates[rate] += 1
        except media.Broken:
            continue
    if not rates:
        return MOST_RATE, 1.0
    return min(MOST_RATE, rates.most_common(1)[0][0]), round(max(0.1, min(MOST_SECONDS, float(np.quantile(seconds, 0.99)))), 3)


def described(waves: np.ndarray, rate: int) -> np.ndarray:
    """float32 (n, features); the same features whatever the length and the rate."""
    size = max(1, _BATCH_SAMPLES // max(waves.shape[1], 1))
    return np.concatenate([_described(waves[first : first + size], rate) for first in range(0, max(len(waves), 1), size)])


def log_mels(waves: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(log-mel energies (n, frames, 40), power spectra (n, frames, bins), which frames hold sound (n, frames)).

    Frames of 25 ms every 10 ms under a Hann window; mel bands to half the rate (Davis & Mermelstein 1980).
    """
    from scipy import fft

    length, hop = max(16, round(0.025 * rate)), max(8, round(0.010 * rate))
    if waves.shape[1] < length:
        waves = np.pad(waves, ((0, 0), (0, length - waves.shape[1])))
    frames = np.lib.stride_tricks.sliding_window_view(waves, length, axis=1)[:, ::hop]
    held = (frames != 0).any(axis=2)
    held[~held.any(axis=1)] = True  # silence altogether is a sound of silence
    window = np.hanning(length + 1)[:-1].astype(np.float32)
    points = 1 << (length - 1).bit_length()
    power = np.abs(fft.rfft(frames * window, n=points, axis=2)).astype(np.float32) ** 2 / np.float32((window**2).sum())
    return np.log(power @ _bank(points, rate) + _QUIET), power, held


@cache
def _bank(points: int, rate: int) -> np.ndarray:
    """Triangles, equal on the mel scale, (bins, 40); each sums to one so that a broad band is not louder."""
    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hertz) / 700)

    edges = 700 * (10 ** (np.linspace(mel(min(50.0, rate / 40)), mel(rate / 2), MELS + 2) / 2595) - 1)
    bins = np.arange(points // 2 + 1) * rate / points
    wide = rate / points  # a low band may be narrower than one bin: it takes at least that
    rising = (bins[:, None] - edges[:-2]) / np.maximum(edges[1:-1] - edges[:-2], wide)
    falling = (edges[2:] - bins[:, None]) / np.maximum(edges[2:] - edges[1:-1], wide)
    bank = np.maximum(np.minimum(rising, falling), 0)
    empty = np.flatnonzero(bank.sum(axis=0) < 1e-9)
    bank[np.abs(bins[:, None] - edges[1:-1][empty]).argmin(axis=0), empty] = 1.0
    return (bank / bank.sum(axis=0)).astype(np.float32)


def _described(waves: np.ndarray, rate: int) -> np.ndarray:
    from scipy import fft

    mels, power, held = log_mels(waves, rate)
    cepstra = fft.dct(mels, axis=2, norm="ortho")[:, :, :CEPSTRA]
    change = _changes(cepstra)
    shape = _shape(power, rate)
    loud = np.log(power.mean(axis=2) + _QUIET)
    crossing = _crossings(waves, rate, held.shape[1])
    low = np.concatenate([shape, loud[:, :, None], crossing[:, :, None]], axis=2)
    parts = [*_over_time(mels, held, quantiles=False), *_over_time(cepstra, held), *_over_time(change, held, quantiles=False),
             *_over_time(_changes(change), held, quantiles=False), *_over_time(low, held)]
    slices, loudness = _slices(mels, held), _slices(loud[:, :, None], held)
    parts += [slices, loudness - loudness.mean(axis=1, keepdims=True)]
    parts.append(_movement(loud, held))
    seconds = held.sum(axis=1, keepdims=True) * 0.010
    parts += [np.log(seconds), np.log(np.abs(waves).max(axis=1, keepdims=True) + 1e-4)]
    return np.nan_to_num(np.concatenate(parts, axis=1)).astype(np.float32)


def _changes(x: np.ndarray) -> np.ndarray:
    """Slope over five frames (the usual delta)."""
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0)), mode="edge")
    return (padded[:, 3:-1] - padded[:, 1:-3] + 2 * (padded[:, 4:] - padded[:, :-4])) / 10


def _shape(power: np.ndarray, rate: int) -> np.ndarray:
    """Of every frame: centroid, bandwidth, roll-off (log hertz), flatness, and how much of its spectrum is new; (n, frames, 5)."""
    hertz = np.linspace(0, rate / 2, power.shape[2], dtype=np.float32)
    total = power.sum(axis=2) + _QUIET
    centre = power @ hertz / total
    wide = np.sqrt(np.maximum(power @ (hertz * hertz) / total - centre**2, 0))
    passed = np.cumsum(power, axis=2)
    roll = hertz[(passed < 0.85 * passed[:, :, -1:]).sum(axis=2).clip(max=len(hertz) - 1)]
    flat = np.log(power + _QUIET).mean(axis=2) - np.log(power.mean(axis=2) + _QUIET)
    root = np.sqrt(power / total[:, :, None])
    new = np.sqrt((np.diff(root, axis=1, prepend=root[:, :1]) ** 2).sum(axis=2))
    return np.stack([np.log(centre + 20), np.log(wide + 20), np.log(roll + 20), flat, new], axis=2)


def _crossings(waves: np.ndarray, rate: int, frames: int) -> np.ndarray:
    """Share of samples where the wave changes its sign, (n, frames)."""
    length, hop = max(16, round(0.025 * rate)), max(8, round(0.010 * rate))
    passed = np.pad(np.cumsum(np.diff(np.signbit(waves), axis=1), axis=1, dtype=np.float32), ((0, 0), (1, 0)))
    first = np.arange(frames) * hop
    last = np.minimum(first + length - 1, passed.shape[1] - 1)
    return (passed[:, last] - passed[:, np.minimum(first, passed.shape[1] - 1)]) / length


def _over_time(x: np.ndarray, held: np.ndarray, *, quantiles: bool = True) -> list[np.ndarray]:
    """Mean and spread, and quantiles, of each number over the frames that hold sound."""
    count = held.sum(axis=1)[:, None].astype(np.float32)
    kept = np.where(held[:, :, None], x, 0)
    mean = kept.sum(axis=1) / count
    spread = np.sqrt(np.maximum((np.where(held[:, :, None], x - mean[:, None], 0) ** 2).sum(axis=1) / count, 0))
    if not quantiles:
        return [mean, spread]
    ordered = np.sort(np.where(held[:, :, None], x, np.inf), axis=1)
    places = [np.floor(share * (count[:, 0] - 1) + 0.5).astype(np.int64) for share in (0.1, 0.5, 0.9)]
    return [mean, spread, *(ordered[np.arange(len(x)), place] for place in places)]


def _slices(x: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Means of ten equal slices of each sound's own span, (n, 10 * numbers): a word said slowly is the same word."""
    n, frames, numbers = x.shape
    first = held.argmax(axis=1)
    stop = frames - held[:, ::-1].argmax(axis=1)
    passed = np.concatenate([np.zeros((n, 1, numbers)), np.cumsum(x, axis=1, dtype=np.float64)], axis=1)
    rows, out = np.arange(n), []
    for i in range(SLICES):
        low = first + (stop - first) * i // SLICES
        high = np.maximum(first + (stop - first) * (i + 1) // SLICES, low + 1)
        out.append((passed[rows, high] - passed[rows, low]) / (high - low)[:, None])
    return np.concatenate(out, axis=1)


def _movement(loud: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Spectrum of the loudness, 1 to 50 times a second, in eight bands: speech moves at 4, a machine at its own pace."""
    from scipy import fft

    centred = np.where(held, loud - (loud * held).sum(axis=1, keepdims=True) / held.sum(axis=1, keepdims=True), 0)
    power = np.abs(fft.rfft(centred, n=max(200, centred.shape[1]), axis=1)) ** 2
    pitch = np.linspace(0, 50, power.shape[1])
    edges = np.geomspace(1, 50.001, 9)
    bands = np.stack([power[:, (pitch >= low) & (pitch < high)].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    return np.log(bands / (power[:, 1:].sum(axis=1, keepdims=True) + 1e-6) + 1e-4)
