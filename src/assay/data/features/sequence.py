"""What a statistician writes down about a sequence: level, spread, shape, trend, rhythm, and what its end looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAGS = (1, 2, 4, 8, 16)
BANDS = 8
EIGHTHS = 8  # of a sequence, whose means are its course
_FAR = 1e4  # in units of a channel's own spread: a number further away is a fault, and enough to show it


class Scale:
    """The centre and the spread of every channel, from training sequences: medians, which one wild number cannot move."""

    def __init__(self, centre: np.ndarray, spread: np.ndarray) -> None:
        self.centre, self.spread = centre, spread

    @classmethod
    def learn(cls, sequences: Sequence[np.ndarray], *, most: int = 1_000_000) -> Scale:
        """sequences: (steps, channels), NaN where missing. most: numbers that are looked at."""
        steps = sum(len(one) for one in sequences)
        every = max(1, steps * sequences[0].shape[1] // most)
        values = np.concatenate([one[::every] for one in sequences] if every < 50 else list(sequences[::every]))
        values = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
        centre, spread = np.zeros(values.shape[1]), np.ones(values.shape[1])
        for i, column in enumerate(values.T):
            known = column[~np.isnan(column)]
            if len(known):
                low, centre[i], high = np.quantile(known, [0.1, 0.5, 0.9])
                near = np.clip(known, low - 3 * (high - low), high + 3 * (high - low)) if high > low else known
                wide = float(near.std())
                spread[i] = wide if wide > 1e-9 * max(abs(centre[i]), 1e-300) else 1.0
        return cls(centre, spread)

    def filled(self, steps: np.ndarray) -> np.ndarray:
        """float32 (steps, channels) in units of the spread: a gap holds the last value before it, or the first after it, or 0 (the centre)."""
        values = (steps.astype(np.float64) - self.centre) / self.spread
        values = np.clip(values, -_FAR, _FAR)
        if not np.isfinite(values).all():
            place = np.arange(len(values))[:, None]
            before = np.maximum.accumulate(np.where(np.isnan(values), -1, place), axis=0)
            after = np.minimum.accumulate(np.where(np.isnan(values), len(values), place)[::-1], axis=0)[::-1]
            source = np.where(before >= 0, before, after)
            known = source < len(values)
            values = np.where(known, np.take_along_axis(values, np.minimum(source, len(values) - 1), axis=0), 0.0)
        return values.astype(np.float32)


def levels(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (n, 6 * channels + 1) of filled sequences: mean, spread, least, most, last and change of every channel, and the length."""
    out = [np.concatenate([one.mean(0), one.std(0), one.min(0), one.max(0), one[-1], one[-1] - one[0], [np.log1p(len(one))]]) for one in sequences]
    return np.array(out, dtype=np.float32)


def described(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """float32 (n, features) of filled sequences (steps, channels), of any lengths; the same features whatever the length.

    Sequences of one length are worked on together. About 50 numbers a channel, and for up to 12 channels how each two go together.
    """
    out: np.ndarray | None = None
    lengths = np.array([len(one) for one in sequences])
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        size = max(1, 2_000_000 // max(int(length) * sequences[0].shape[1], 1))
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            made = _described(np.stack([sequences[i] for i in some]).astype(np.float64))
            if out is None:
                out = np.empty((len(sequences), made.shape[1]), dtype=np.float32)
            out[some] = made
    return np.zeros((0, 0), dtype=np.float32) if out is None else out


def _described(x: np.ndarray) -> np.ndarray:
    """x: (n, steps, channels)."""
    n, steps, channels = x.shape
    parts = _plain(x) + _trend(x) + _rhythm(x)
    parts += _plain(x[:, -max(1, steps // 4) :])  # the end by itself: what failed, failed there
    parts += [x[:, : max(1, steps // 4)].mean(1), x[:, -1], x[:, 0], x[:, -1] - x.mean(1)]
    course = [part.mean(1) for part in np.array_split(x, EIGHTHS, axis=1) if part.shape[1]]
    parts += course + [course[-1]] * (EIGHTHS - len(course))
    out = np.concatenate(parts, axis=1)
    if 1 < channels <= 12:
        centred = x - x.mean(1, keepdims=True)
        size = np.sqrt((centred**2).sum(1)) + 1e-9
        together = np.einsum("ntc,ntd->ncd", centred, centred) / (size[:, :, None] * size[:, None, :])
        out = np.concatenate([out, together[:, *np.triu_indices(channels, 1)]], axis=1)
    out = np.concatenate([out, np.full((n, 1), np.log1p(steps))], axis=1)
    return np.nan_to_num(out, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6)


def _plain(x: np.ndarray) -> list[np.ndarray]:
    """Level, spread and shape of the values, and of their changes."""
    mean, spread = x.mean(1), x.std(1)
    unit = (x - mean[:, None]) / (spread[:, None] + 1e-6)
    square = unit * unit
    change = np.diff(x, axis=1) if x.shape[1] > 1 else np.zeros_like(x)
    quantiles = np.quantile(x, QUANTILES, axis=1)
    return [mean, np.log(spread + 1e-3), x.min(1), x.max(1), *quantiles, (unit * square).mean(1), np.minimum((square * square).mean(1), 100.0),
            np.log(np.abs(change).mean(1) + 1e-3), np.log(change.std(1) + 1e-3), np.abs(change).max(1)]


def _trend(x: np.ndarray) -> list[np.ndarray]:
    """Slope of the least-squares line over the whole, what it leaves, and where the extremes stand (0 to 1)."""
    steps = x.shape[1]
    clock = np.linspace(-1, 1, steps) if steps > 1 else np.zeros(1)
    slope = np.einsum("t,ntc->nc", clock, x) / max(float((clock**2).sum()), 1e-9)
    left = x - x.mean(1, keepdims=True) - slope[:, None] * clock[None, :, None]
    return [slope, np.log(left.std(1) + 1e-3), x.argmax(1) / steps, x.argmin(1) / steps]


def _rhythm(x: np.ndarray) -> list[np.ndarray]:
    """Autocorrelation, crossings of the mean, shares of the spectrum in bands of equal ratio, its centre and its peak."""
    from scipy import fft

    n, steps, channels = x.shape
    centred = x - x.mean(1, keepdims=True)
    power = (centred**2).mean(1) + 1e-9
    out = [(centred[:, lag:] * centred[:, :-lag]).sum(1) / (steps * power) if lag < steps else np.zeros((n, channels)) for lag in LAGS]
    out.append((np.diff(np.signbit(centred), axis=1)).mean(1) if steps > 1 else np.zeros((n, channels)))
    spectrum = np.abs(fft.rfft(centred * np.hanning(steps + 2)[1:-1][None, :, None], axis=1)[:, 1:]) ** 2
    if not spectrum.shape[1]:
        return out + [np.zeros((n, channels))] * (BANDS + 2)
    total = spectrum.sum(1) + 1e-9
    pitch = np.arange(1, spectrum.shape[1] + 1) / steps  # cycles a step, to 0.5
    for low, high in zip(0.5 ** np.arange(BANDS, 0, -1), 0.5 ** np.arange(BANDS - 1, -1, -1), strict=True):
        inside = (pitch > low / 2) & (pitch <= high / 2)
        out.append(np.log10(spectrum[:, inside].sum(1) / total + 1e-4))
    centre = np.einsum("t,ntc->nc", np.log(pitch), spectrum) / total
    return [*out, centre, np.log(pitch[spectrum.argmax(1)])]
