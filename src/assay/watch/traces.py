"""A column of any kind as traces: numbers and levels, one a row, whose distribution can be counted.

A number is one trace, a category one; a time is its weekday and hour (the date itself always moves on); a text is its length, its scripts and a few
directions in the space of its n-grams; a picture is its size, light and a few directions of its 8 x 8 thumbnail; and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import MEDIA, Column
from assay.data.media import Broken, pixels, size_of, steps, wave
from assay.data.ngrams import hashed
from assay.errors import ReadError
from assay.words import Text, say

APART = "\x1f"  # between a column's name and its part; no name holds it
BITS = 10  # n-grams of a text fall into 2 * 2**BITS places
MOST_TEXTS, MOST_MEDIA = 5_000, 500  # rows of one call that are looked into, evenly spread: 60 us a text, 2 ms a picture
_SIDE = 8
_HAN, _LATIN = r"[\x{3400}-\x{9fff}\x{3040}-\x{30ff}]", r"[A-Za-z]"

ANSWERS = ("answer", "confidence", "amount", "width")  # parts of the column of answers, whose name is ''

PARTS = {
    "weekday": say("weekday"), "hour": say("hour of the day"), "length": say("length"), "han": say("share of Chinese letters"), "latin": say("share of Latin letters"),
    "new": say("share of n-grams never seen"), "pixels": say("size of the picture"), "shape": say("width by height"), "light": say("brightness"), "contrast": say("contrast"),
    "colour": say("colour"), "sharp": say("sharpness"), "seconds": say("duration"), "loud": say("loudness"), "pitch": say("pitch"), "steps": say("number of steps"),
    "mean": say("mean of the steps"), "spread": say("spread of the steps"), "answer": say("the answer"), "confidence": say("confidence"), "amount": say("the amount answered"),
    "width": say("width of the interval"),
}


@dataclass
class Described:
    """numbers: {part: (n,), NaN where missing}; levels: {part: strings}; space: (m, d) of the m rows that have one, dense or sparse."""

    numbers: dict[str, np.ndarray] = field(default_factory=dict)
    levels: dict[str, pl.Series] = field(default_factory=dict)
    space: Any = None
    broken: int = 0


def key(column: str, part: str = "") -> str:
    return f"{column}{APART}{part}" if part else column


def named(trace: str) -> tuple[str, str]:
    """(column, part) of a trace's key; '' for a trace that is the column itself."""
    column, _, part = trace.partition(APART)
    return column, part


def shown(part: str) -> Text | str:
    """What a part is called: 'direction 3' or one of PARTS."""
    if part.startswith("direction"):
        return say("direction {k} of its content", k=part[9:])
    name, _, channel = part.partition(" ")
    found = PARTS.get(name)
    return part if found is None else say("{what} of channel {k}", what=found, k=channel) if channel else found


def described(column: Column, cells: pl.Series) -> Described:
    """cells: as `data.read.conform` makes them for a column of this kind."""
    kind = column.kind
    if kind == "number":
        return Described(numbers={"": numpy_of(cells)})
    if kind == "category":
        return Described(levels={"": cells.cast(pl.String)})
    if kind == "time":
        return Described(levels={"weekday": cells.dt.weekday().cast(pl.String), "hour": cells.dt.hour().cast(pl.String)})
    if kind == "text":
        return _texts(spread(cells, MOST_TEXTS))
    if kind in MEDIA:
        return _media(column, spread(cells, MOST_MEDIA))
    raise ValueError(f"a column of kind {kind} has no traces")


def spread(cells: pl.Series, most: int) -> pl.Series:
    """At most `most` cells, evenly spread."""
    return cells if len(cells) <= most else cells.gather(np.linspace(0, len(cells) - 1, most).astype(np.int64))


def numpy_of(cells: pl.Series) -> np.ndarray:
    """float32 stays float32, all else becomes float64; null is NaN."""
    wanted = pl.Float32 if cells.dtype == pl.Float32 else pl.Float64
    return cells.cast(wanted).fill_null(float("nan")).to_numpy() if cells.null_count() else cells.cast(wanted).to_numpy()


def _texts(cells: pl.Series) -> Described:
    length = cells.str.len_chars()
    several = pl.max_horizontal(length, 1)
    shares = pl.select(han=cells.str.count_matches(_HAN) / several, latin=cells.str.count_matches(_LATIN) / several)
    numbers = {"length": numpy_of(length), "han": numpy_of(shares["han"]), "latin": numpy_of(shares["latin"])}
    known = cells.drop_nulls()
    space = hashed(known.to_list(), chars=(1, 2), words=(1, 1), bits=BITS) if len(known) else None
    return Described(numbers, space=space)


def _media(column: Column, cells: pl.Series) -> Described:
    one = {"image": _picture, "audio": _sound, "sequence": _sequence}[column.kind]
    rows, missing, broken = [], 0, 0
    for cell in cells:
        if cell is None:
            missing += 1
            continue
        try:
            rows.append(one(column, cell))
        except (Broken, ReadError):
            broken += 1
    gone = np.full(missing, np.nan)
    if not rows:
        return Described({"steps" if column.kind == "sequence" else "pixels" if column.kind == "image" else "seconds": gone}, broken=broken)
    parts = {part: np.array([r[0][part] for r in rows]) for part in rows[0][0]}
    first = next(iter(parts))
    parts[first] = np.concatenate([parts[first], gone])
    return Described(parts, space=np.array([r[1] for r in rows], dtype=np.float32), broken=broken)


def _picture(column: Column, cell: bytes) -> tuple[dict[str, float], np.ndarray]:
    height, width = size_of(cell)
    small = pixels(cell, 4 * _SIDE).astype(np.float32) / 255
    grey = small @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    thumb = grey.reshape(_SIDE, 4, _SIDE, 4).mean(axis=(1, 3)).ravel()
    sharp = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    colour = float((small.max(axis=2) - small.min(axis=2)).mean())
    return {"pixels": float(np.log2(height * width)), "shape": width / height, "light": float(grey.mean()), "contrast": float(grey.std()), "colour": colour,
            "sharp": float(sharp)}, thumb - thumb.mean()


def _sound(column: Column, cell: bytes) -> tuple[dict[str, float], np.ndarray]:
    rate = 8000
    heard = wave(cell, rate)
    power = np.abs(np.fft.rfft(heard[: rate * 30])) ** 2 + 1e-12
    hertz = np.linspace(0, rate / 2, len(power))
    bands = np.array([power[(hertz >= a) & (hertz < b)].sum() + 1e-12 for a, b in zip(*(np.geomspace(60, rate / 2, 17)[s] for s in (slice(-1), slice(1, None))), strict=True)])
    level = float(np.sqrt((heard.astype(np.float64) ** 2).mean()))
    return {"seconds": len(heard) / rate, "loud": 20 * float(np.log10(level + 1e-6)), "pitch": float((hertz * power).sum() / power.sum())}, np.log(bands / bands.sum()).astype(np.float32)


def _sequence(column: Column, cell: bytes) -> tuple[dict[str, float], np.ndarray]:
    channels = column.channels or ("",)
    values = steps(cell, len(channels)).astype(np.float64)
    known = np.isfinite(values)
    n = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0).sum(axis=0) / n
    spread_ = np.sqrt(np.where(known, (values - mean) ** 2, 0).sum(axis=0) / n)
    parts = {"steps": float(len(values))}
    for name, m, s in zip(channels[:8], mean, spread_, strict=False):  # eight channels: a sensor box; more would make each test weaker
        parts |= {f"mean {name}".strip(): float(m), f"spread {name}".strip(): float(s)}
    pieces = [np.array_split(np.where(known, values, mean), 8)[i].mean(axis=0) if len(values) >= 8 else mean for i in range(8)]
    scale = np.where(spread_ > 0, spread_, 1.0)
    return parts, ((np.array(pieces) - mean) / scale).astype(np.float32).ravel()[:64]
