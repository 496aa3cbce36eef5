"""Pictures, sounds and sequences made up for checks: small files from which a code can be told, written without any library."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from dataclasses import replace

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Column, Dataset


def beside(data: Dataset, kind: str, codes: np.ndarray, *, name: str = "media", seed: int = 0) -> Dataset:
    """`data` with one more column of kind image, audio or sequence, made from `codes`: whole numbers from 0, shape (n,)."""
    rng = np.random.default_rng(seed)
    make = {"image": picture, "audio": sound, "sequence": sequence}[kind]
    cells = pl.Series(name, [make(int(code), rng) for code in codes], dtype=pl.Binary)
    column = Column(name, kind, channels=("pace", "noise") if kind == "sequence" else None)
    return Dataset(data.frame.with_columns(cells), replace(data.schema, columns=(column, *data.schema.columns)), data.rows)


def picture(code: int, rng: np.random.Generator) -> bytes:
    """A PNG of 40 x 30 grey pixels: stripes, turned by 50 degrees for each code."""
    y, x = np.mgrid[:30, :40]
    turn = np.deg2rad(50.0) * code
    values = 128 + 60 * np.sin((x * np.cos(turn) + y * np.sin(turn)) * 0.9 + rng.uniform(0, 6)) + rng.normal(0, 15, x.shape)
    rows = values.clip(0, 255).astype(np.uint8)
    packed = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")


def sound(code: int, rng: np.random.Generator) -> bytes:
    """A WAV of 0.2 to 0.5 s at 8 kHz: a tone, three semitones and more higher for each code."""
    clock = np.arange(rng.integers(1600, 4000)) / 8000
    tone = 300 * 1.5 ** (code % 6) * rng.uniform(0.95, 1.05)
    values = 0.3 * np.sin(2 * np.pi * tone * clock) + rng.normal(0, 0.02, len(clock))
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes((values * 32767).astype("<i2").tobytes())
    return held.getvalue()


def sequence(code: int, rng: np.random.Generator) -> bytes:
    """30 to 60 steps of two channels, one a wave that is faster for each code, one of noise; three of a hundred numbers are missing."""
    clock = np.arange(rng.integers(30, 60))
    values = np.column_stack([np.sin(clock * (0.3 + 0.35 * (code % 6)) + rng.uniform(0, 6)), rng.normal(size=len(clock))])
    values += rng.normal(0, 0.1, values.shape)
    values[rng.random(values.shape) < 0.03] = np.nan
    return media.packed(values.astype(np.float32))
