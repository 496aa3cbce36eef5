"""Classical features of pictures: oriented gradients, local binary patterns, colours, frequencies, patches learnt from the pictures.

All functions take uint8 pictures (n, side, side, 1 or 3) of one side, a multiple of 8, and give float32 (n, features).
"""

from __future__ import annotations

import numpy as np

_BINS = 18  # directions of a gradient, 20 degrees each
_BATCH = 64


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """float32 (n, side, side), 0 to 1: Rec. 601 luma."""
    if pixels.shape[3] == 1:
        return pixels[..., 0].astype(np.float32) / 255
    return (pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)) / np.float32(255)


def coloured(pixels: np.ndarray, *, least: float = 4.0) -> bool:
    """Do the channels of these pictures differ by more than `least` steps of 255 on average? JPEG alone makes about one."""
    if pixels.shape[3] == 1:
        return False
    values = pixels.astype(np.float32)
    return bool((values.max(axis=3) - values.min(axis=3)).mean() > least)


def everything(pixels: np.ndarray) -> np.ndarray:
    """All the features below except the patches, side by side."""
    parts = []
    for first in range(0, max(len(pixels), 1), _BATCH):
        some = pixels[first : first + _BATCH]
        grey = grey_of(some)
        parts.append(np.concatenate([gradients(some, 8), binary_patterns(grey), tones(some), frequencies(grey), small(some)], axis=1))
    return np.concatenate(parts)


def gradients(pixels: np.ndarray, cells: int) -> np.ndarray:
    """Histograms of oriented gradients in cells x cells and half as many (Dalal & Triggs 2005), 31 numbers a cell as in
    Felzenszwalb et al. 2010: 18 directions with sign, 9 without, each cut under four normalisations, and four energies.

    Of several channels, the one that changes most at a pixel speaks. Square roots of the values: half a gamma correction.
    """
    n, side = pixels.shape[:2]
    values = np.sqrt(pixels.astype(np.float32) / 255)
    right, down = np.zeros_like(values), np.zeros_like(values)
    right[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    if values.shape[3] > 1:
        loudest = (right**2 + down**2).argmax(axis=3)[..., None]
        right, down = np.take_along_axis(right, loudest, axis=3), np.take_along_axis(down, loudest, axis=3)
    right, down = right[..., 0], down[..., 0]
    size = np.sqrt(right**2 + down**2)
    angle = np.arctan2(down, right) * np.float32(_BINS / (2 * np.pi)) % _BINS
    first = np.floor(angle)
    later = angle - first
    one = first.astype(np.int64) % _BINS
    histogram = np.zeros(n * cells * cells * _BINS)
    # a pixel speaks for the four cells around it, by nearness, and for the two directions beside its own
    place = (np.arange(side) + 0.5) * cells / side - 0.5
    low = np.floor(place).astype(np.int64)
    rows = np.arange(n)[:, None, None] * cells
    for y_step in (0, 1):
        y, y_near = low + y_step, (1 - np.abs(place - low - y_step)).astype(np.float32)
        y_near = np.where((y >= 0) & (y < cells), y_near, 0)
        for x_step in (0, 1):
            x, x_near = low + x_step, (1 - np.abs(place - low - x_step)).astype(np.float32)
            x_near = np.where((x >= 0) & (x < cells), x_near, 0)
            cell = (rows + np.clip(y, 0, cells - 1)[None, :, None]) * cells + np.clip(x, 0, cells - 1)[None, None, :]
            weight = size * y_near[None, :, None] * x_near[None, None, :]
            for bin_, share in ((one, 1 - later), ((one + 1) % _BINS, later)):
                histogram += np.bincount((cell * _BINS + bin_).ravel(), weights=(weight * share).ravel(), minlength=len(histogram))
    fine = histogram.reshape(n, cells, cells, _BINS)
    coarse = fine.reshape(n, cells // 2, 2, cells // 2, 2, _BINS).sum(axis=(2, 4))
    return np.concatenate([_normalised(fine), _normalised(coarse)], axis=1)


def _normalised(histogram: np.ndarray) -> np.ndarray:
    n, cells = histogram.shape[:2]
    unsigned = histogram[..., :9] + histogram[..., 9:]
    energy = np.pad((unsigned**2).sum(axis=3), ((0, 0), (1, 1), (1, 1)), mode="edge")
    of_four = energy[:, :-1, :-1] + energy[:, 1:, :-1] + energy[:, :-1, 1:] + energy[:, 1:, 1:]
    typical = (unsigned.sum(axis=3).mean(axis=(1, 2)) * 0.05)[:, None, None] + 1e-3  # so that flat cells of a picture stay quiet
    signed, plain, energies = np.zeros(histogram.shape), np.zeros(unsigned.shape), []
    for y in (0, 1):
        for x in (0, 1):
            scale = (1 / np.sqrt(of_four[:, y : y + cells, x : x + cells] + typical**2))[..., None]
            cut = np.minimum(histogram * scale, 0.2)
            signed += 0.5 * cut
            plain += 0.5 * np.minimum(unsigned * scale, 0.2)
            energies.append(0.2357 * cut.sum(axis=3, keepdims=True))
    return np.concatenate([signed, plain, *energies], axis=3).reshape(n, -1).astype(np.float32)


def binary_patterns(grey: np.ndarray) -> np.ndarray:
    """Square roots of histograms of uniform local binary patterns (Ojala et al. 2002): neighbours at 1 and 2 pixels, whole and in
    quarters. Differences below one step of 255 count as equal, so that flat noise is no texture."""
    parts = []
    for radius in (1, 2):
        side = grey.shape[1]
        centre = grey[:, radius:-radius, radius:-radius] + np.float32(1 / 255)
        code = np.zeros(centre.shape, dtype=np.uint8)
        for bit, (y, x) in enumerate(((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))):
            y0, x0 = radius * (1 + y), radius * (1 + x)
            code |= (grey[:, y0 : y0 + side - 2 * radius, x0 : x0 + side - 2 * radius] > centre).astype(np.uint8) << np.uint8(bit)
        pattern = _UNIFORM[code]
        half = pattern.shape[1] // 2
        quarters = [_counts(q) for q in (pattern[:, :half, :half], pattern[:, :half, half:], pattern[:, half:, :half], pattern[:, half:, half:])]
        parts += [np.mean(quarters, axis=0), *quarters]
    return np.sqrt(np.concatenate(parts, axis=1)).astype(np.float32)


def _uniform() -> np.ndarray:
    """The number of each of 256 patterns: one of its own for those that change between 0 and 1 at most twice around, one for the rest."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    plain = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(plain, np.cumsum(plain) - 1, plain.sum()).astype(np.int64)


_UNIFORM = _uniform()  # 58 uniform patterns and one for all others


def _counts(pattern: np.ndarray) -> np.ndarray:
    n, kinds = len(pattern), int(_UNIFORM.max()) + 1
    flat = pattern.reshape(n, -1)
    counts = np.bincount((np.arange(n)[:, None] * kinds + flat).ravel(), minlength=n * kinds).reshape(n, kinds)
    return counts / flat.shape[1]


def tones(pixels: np.ndarray) -> np.ndarray:
    """Every channel: histogram of 16 (square roots), mean, spread, skew, quantiles; mean and spread in 4 x 4 fields; hues for colours."""
    n, side = pixels.shape[:2]
    parts = []
    values = pixels.astype(np.float32) / 255
    for channel in range(pixels.shape[3]):
        own = values[..., channel].reshape(n, -1)
        bins = pixels[..., channel].reshape(n, -1).astype(np.int64) + np.arange(n)[:, None] * 256
        counts = np.bincount(bins.ravel(), minlength=n * 256).reshape(n, 256) / own.shape[1]
        parts.append(np.sqrt(counts.reshape(n, 16, 16).sum(axis=2)))
        passed = counts.cumsum(axis=1)
        mean, spread = own.mean(1), own.std(1)
        unit = (own - mean[:, None]) / (spread[:, None] + 1e-3)
        skew = (unit * unit * unit).mean(1)  # numpy's ** 3 is ten times as slow
        quantiles = [(passed < share - 1e-9).sum(axis=1) / 255 for share in (0.01, 0.1, 0.5, 0.9, 0.99)]
        parts.append(np.column_stack([mean, spread, skew, *quantiles]))
        fields = values[..., channel].reshape(n, 4, side // 4, 4, side // 4)
        parts += [fields.mean(axis=(2, 4)).reshape(n, -1), fields.std(axis=(2, 4)).reshape(n, -1)]
    if pixels.shape[3] == 3:
        most, least = values.max(axis=3), values.min(axis=3)
        red, green, blue = np.moveaxis(values, 3, 0)
        wide = np.where(most > least, most - least, 1)
        hue = np.where(most == red, (green - blue) / wide % 6, np.where(most == green, (blue - red) / wide + 2, (red - green) / wide + 4))
        bins = np.minimum((hue * 2).astype(np.int64), 11) + np.arange(n)[:, None, None] * 12
        told = np.bincount(bins.ravel(), weights=(most - least).ravel(), minlength=n * 12).reshape(n, 12) / (side * side)
        parts.append(np.sqrt(told))
    return np.concatenate(parts, axis=1).astype(np.float32)


def frequencies(grey: np.ndarray) -> np.ndarray:
    """Log energy of the spectrum in eight rings and, of each ring, in four directions: how fine a texture is and how it runs."""
    from scipy import fft

    n, side = grey.shape[:2]
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    power = np.abs(fft.rfft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window[:, None] * window)).reshape(n, -1) ** 2
    y, x = np.meshgrid(np.fft.fftfreq(side) * side, np.arange(side // 2 + 1), indexing="ij")
    distance, turn = np.hypot(y, x), (np.arctan2(y, x) + np.pi / 2) / np.pi * 4
    ring = np.clip(np.floor(np.log(np.maximum(distance, 0.5)) / np.log(side / 2 + 1) * 8), 0, 7)
    place = (ring * 4 + np.minimum(np.floor(turn), 3)).astype(np.int64).ravel()
    member = np.zeros((len(place), 32), dtype=np.float32)
    member[np.arange(len(place)), place] = (distance > 0).ravel()
    energy = (power @ member) / side**2
    rings = energy.reshape(n, 8, 4).sum(axis=2)
    return np.log(np.concatenate([energy, rings], axis=1) + 1e-4).astype(np.float32)


def small(pixels: np.ndarray) -> np.ndarray:
    """The picture in 8 x 8 fields, each channel, standardised within the picture."""
    n, side = pixels.shape[:2]
    fields = pixels.reshape(n, 8, side // 8, 8, side // 8, -1).mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    centred = fields - fields.mean(axis=1, keepdims=True)
    return centred / (centred.std(axis=1, keepdims=True) + 4)
