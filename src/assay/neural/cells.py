"""Many cells at once: pictures, sounds and sequences as arrays, decoded on all threads, each only once in a run."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from assay.data import media
from assay.data.media import Broken
from assay.errors import InputError


def pixels(cells: pl.Series, side: int, *, grey: bool, threads: int = 2, cache: Path | None = None) -> np.ndarray:
    """uint8, shape (n, side, side, 1 or 3); an absent picture is all 128. cache: a folder in which what is decoded stays. Raises InputError."""
    depth = 1 if grey else 3
    empty = np.full((side, side, depth), 128, dtype=np.uint8)
    return _each(cells, lambda cell: media.pixels(cell, side, grey=grey), empty, threads, None if cache is None else cache / f"pixels-{side}-{depth}")


def waves(cells: pl.Series, rate: int, seconds: float, *, threads: int = 2, cache: Path | None = None) -> np.ndarray:
    """float32, shape (n, rate * seconds): the loudest stretch of a longer sound, silence around a shorter one. Raises InputError."""
    length = int(rate * seconds)

    def one(cell: bytes) -> np.ndarray:
        return framed(media.wave(cell, rate), length)

    return _each(cells, one, np.zeros(length, dtype=np.float32), threads, None if cache is None else cache / f"waves-{rate}-{length}")


def framed(wave: np.ndarray, length: int) -> np.ndarray:
    """`length` samples: the stretch with the most energy, or the whole in the middle of silence."""
    if len(wave) <= length:
        before = (length - len(wave)) // 2
        return np.pad(wave, (before, length - len(wave) - before))
    energy = np.concatenate([[0.0], np.cumsum(wave.astype(np.float64) ** 2)])
    step = max(1, length // 20)
    starts = np.arange(0, len(wave) - length + 1, step)
    first = int(starts[np.argmax(energy[starts + length] - energy[starts])])
    return wave[first : first + length]


def steps(cells: pl.Series, channels: int, most: int | None = None) -> list[np.ndarray]:
    """float32 (its steps, channels) of each sequence, the last `most` steps; an absent one has a single step of NaN."""
    absent = np.full((1, channels), np.nan, dtype=np.float32)
    out = [absent if cell is None or not len(cell) else media.steps(cell, channels) for cell in cells]
    return out if most is None else [one[-most:] for one in out]


def _each(cells: pl.Series, decode: Callable[[bytes], np.ndarray], empty: np.ndarray, threads: int, file: Path | None) -> np.ndarray:
    if file is None:
        return _decoded(cells, decode, empty, threads)
    keys = cells.hash(seed=0).to_numpy()
    file.parent.mkdir(parents=True, exist_ok=True)
    known_file, size = file.with_suffix(".keys"), empty.nbytes
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = np.fromfile(known_file, dtype=np.uint64) if known_file.exists() else np.zeros(0, dtype=np.uint64)
        with file.open("ab") as data:
            data.truncate(len(known) * size)  # a process that was killed left half a cell
            fresh = np.unique(keys[~np.isin(keys, known)], return_index=True)[1]
            where = np.flatnonzero(~np.isin(keys, known))[fresh]
            for first in range(0, len(where), 256):
                some = where[first : first + 256]
                data.write(_decoded(cells[some], decode, empty, threads).tobytes())
                data.flush()
                with known_file.open("ab") as more:
                    more.write(keys[some].tobytes())
    known = np.fromfile(known_file, dtype=np.uint64)
    order = np.argsort(known, kind="stable")
    at = order[np.searchsorted(known, keys, sorter=order)]
    if not len(known):
        return np.zeros((0, *empty.shape), dtype=empty.dtype)
    return np.array(np.memmap(file, dtype=empty.dtype, mode="r", shape=(len(known), *empty.shape))[at])


def _decoded(cells: pl.Series, decode: Callable[[bytes], np.ndarray], empty: np.ndarray, threads: int) -> np.ndarray:
    out = np.empty((len(cells), *empty.shape), dtype=empty.dtype)

    def one(i: int) -> None:
        cell = cells[i]
        try:
            out[i] = empty if cell is None else decode(cell)
        except Broken as broken:
            raise InputError("Column '{name}', row {row}: {reason}.", name=cells.name, row=i + 1, reason=broken.reason) from None

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for _ in pool.map(one, range(len(cells))):
            pass
    return out
