"""Sound as a network reads it: log-mel frames, with SpecAugment (Park et al. 2019, arXiv:1904.08779) where rows teach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset
from assay.data.media import Broken
from assay.errors import InputError
from assay.neural import cells
from assay.neural.ragged import Ragged, RaggedRows, Reader, long_enough

MOST_RATE = 16_000
MOST_SECONDS = 30.0
MOST_FRAMES = 1000
FRAME_S, HOP_S = 0.025, 0.010
BANDS_PER_KHZ, FEWEST_BANDS, MOST_BANDS = 8, 32, 64
QUIET = 1e-6  # power below which silence is silence: 60 dB under a full-scale sine
LOOKED_AT = 500  # sounds whose length decides how many seconds are read
HIGH, LONG, SHIFT, LOUDER = 0.2, 0.2, 0.1, 0.3  # shares of the bands and frames that a stripe hides, of a roll; standard deviations of loudness


class Sounds(Reader):
    """The first 'audio' column as log-mel frames, each band standardised over the training rows; all rows have the same length.

    rate: samples a second, the usual one of the training rows, at most 16,000. hop: samples between two frames, 10 ms,
    more where the sounds are longer than 10 s.
    """

    kind = "audio"

    def __init__(self, column: str, rate: int, seconds: float, hop: int, bands: int, center: np.ndarray, spread: np.ndarray) -> None:
        self.column, self.rate, self.seconds, self.hop, self.bands, self.center, self.spread = column, rate, seconds, hop, bands, center, spread

    @classmethod
    def learn(cls, train: Dataset, *, threads: int = 2, cache: Path | None = None) -> Sounds:
        column = train.schema.of_kind("audio")[0].name
        some = train.frame[column].drop_nulls()
        some = some[np.unique(np.linspace(0, max(0, len(some) - 1), LOOKED_AT).astype(int)).tolist()] if len(some) else some
        rates, lengths = [], []
        for i, cell in enumerate(some):
            try:
                rates.append(min(MOST_RATE, media.rate_of(cell)))
                lengths.append(len(media.wave(cell, rates[-1])) / rates[-1])
            except Broken as broken:
                raise InputError("Column '{name}', row {row}: {reason}.", name=column, row=i + 1, reason=broken.reason) from None
        rate = int(np.median(rates)) if rates else MOST_RATE
        milliseconds = long_enough(np.ceil(np.array(lengths) * 1000).astype(np.int64), int(1000 * MOST_SECONDS))
        seconds = max(0.1, milliseconds / 1000)
        hop = max(int(HOP_S * rate), -(-int(seconds * rate) // MOST_FRAMES))
        bands = min(MOST_BANDS, max(FEWEST_BANDS, BANDS_PER_KHZ * rate // 1000))
        made = cls(column, rate, seconds, hop, bands, np.zeros(bands), np.ones(bands))
        looked = made._frames(some, threads, cache)
        if len(looked):
            made.center, made.spread = looked.mean(axis=(0, 1)).astype(np.float64), np.maximum(looked.std(axis=(0, 1)).astype(np.float64), 1e-3)
        return made

    def _frames(self, sounds: pl.Series, threads: int, cache: Path | None) -> np.ndarray:
        out = [log_mel(cells.waves(sounds[first : first + 256], self.rate, self.seconds, threads=threads, cache=cache), self.rate, self.hop, self.bands)
               for first in range(0, len(sounds), 256)]
        return np.concatenate(out) if out else np.zeros((0, 1, self.bands), np.float32)

    def read(self, data: Dataset, *, threads: int = 2, cache: Path | None = None) -> Ragged:
        return self._read(data.frame[self.column], threads, cache)

    def read_row(self, row: dict[str, Any]) -> Ragged:
        return self._read(pl.Series(self.column, [row.get(self.column)], dtype=pl.Binary), 1, None)

    def _read(self, sounds: pl.Series, threads: int, cache: Path | None) -> Ragged:
        frames = self._frames(sounds, threads, cache)
        frames -= self.center.astype(np.float32)
        frames /= self.spread.astype(np.float32)
        return Ragged(frames.reshape(-1, self.bands), np.arange(len(frames) + 1, dtype=np.int64) * frames.shape[1])

    def rows(self, read: Ragged, target: np.ndarray, strength: float) -> RaggedRows:
        def change(values: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            n, frames, bands = values.shape
            roll = np.round(SHIFT * strength * frames * rng.uniform(-1, 1, n)).astype(np.int64)
            at = np.clip(np.arange(frames) - roll[:, None], 0, frames - 1)
            out = np.take_along_axis(values, at[:, :, None], axis=1)
            out = out + (LOUDER * strength * rng.standard_normal((n, 1, 1))).astype(np.float32)
            for _ in range(2):
                out[_stripe(n, frames, LONG * strength, rng)] = 0
                out.transpose(0, 2, 1)[_stripe(n, bands, HIGH * strength, rng)] = 0
            return out

        return RaggedRows(read, target, change=change if strength else None)

    def sizes(self) -> dict[str, Any]:
        return {"reads": "steps", "channels": self.bands, "length": 1 + int(self.rate * self.seconds) // self.hop}

    def facts(self) -> dict[str, Any]:
        return {"rate_hz": self.rate, "seconds": round(self.seconds, 3), "frames": self.sizes()["length"], "bands": self.bands}

    def json(self) -> dict[str, Any]:
        return {"kind": self.kind, "column": self.column, "rate": self.rate, "seconds": self.seconds, "hop": self.hop, "bands": self.bands,
                "center": self.center.tolist(), "spread": self.spread.tolist()}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Sounds:
        return cls(packed["column"], packed["rate"], packed["seconds"], packed["hop"], packed["bands"], np.array(packed["center"]), np.array(packed["spread"]))


def _stripe(n: int, length: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(n, length), true in one stripe of at most this share."""
    wide = rng.random(n) * share * length
    begin = rng.random(n) * (length - wide)
    places = np.arange(length)
    return (places >= begin[:, None]) & (places < (begin + wide)[:, None])


def log_mel(waves: np.ndarray, rate: int, hop: int, bands: int) -> np.ndarray:
    """float32 (n, 1 + samples // hop, bands): the logarithm of the power in mel bands, frames centred, a Hann window of 25 ms.

    waves: (n, samples). The bands are triangles on the mel scale of O'Shaughnessy 1987, from 20 Hz to half the rate.
    """
    width = max(hop, round(FRAME_S * rate))
    size = 1 << (width - 1).bit_length()
    frames = 1 + waves.shape[1] // hop
    padded = np.pad(waves, ((0, 0), (width // 2, width // 2 + hop)))
    window = np.hanning(width + 2)[1:-1].astype(np.float32)
    at = np.arange(frames)[:, None] * hop + np.arange(width)
    filters = mel_filters(rate, size, bands)
    out = np.empty((len(waves), frames, bands), dtype=np.float32)
    for i, wave in enumerate(padded):
        spectrum = np.fft.rfft(wave[at] * window, size)
        power = (spectrum.real**2 + spectrum.imag**2) * np.float32(4 / window.sum() ** 2)
        out[i] = np.log(power.astype(np.float32) @ filters + QUIET)
    return out


def mel_filters(rate: int, size: int, bands: int) -> np.ndarray:
    """float32 (1 + size // 2, bands): each column a triangle of height 1; a band narrower than a bin takes the bin nearest to its middle."""
    def mel(hz: np.ndarray) -> np.ndarray:
        return 2595 * np.log10(1 + hz / 700)

    lowest, highest = mel(np.array([20.0, rate / 2])).tolist()
    edges = 700 * (10 ** (np.linspace(lowest, highest, bands + 2) / 2595) - 1)
    bins = np.arange(1 + size // 2) * rate / size
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(filters.sum(axis=0) < 0.5)
    filters[np.round(edges[1:-1][empty] * size / rate).astype(int), empty] = 1.0
    return filters.astype(np.float32)
