"""Texts -> sparse counts of hashed word and character n-grams: no vocabulary, no fit, the same on every machine.

Character n-grams carry Chinese, which has no spaces; word n-grams carry English. Hashing (Weinberger et al. 2009,
arXiv:0902.2206) keeps memory flat for five million rows. All arithmetic is modulo 2**64 on whole columns of code points.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_PAIR = np.uint64(0xC2B2AE3D27D4EB4F)
_AT_ONCE = 20_000  # texts: what is on the way takes about 100 bytes a character
MOST_CHARACTERS = 4000  # of one text; what a longer one says after that is not read


def hashed(texts: Sequence[str | None], *, chars: tuple[int, int], words: tuple[int, int], bits: int) -> Any:
    """Counts as a scipy CSR matrix, float32, shape (n, 2**bits + 2**bits): words first, characters after.

    chars, words: shortest and longest n-gram, (0, 0) for none. Case and full-width forms are folded (NFKC).
    """
    from scipy.sparse import csr_matrix, vstack

    if len(texts) > _AT_ONCE:
        return vstack([hashed(texts[i: i + _AT_ONCE], chars=chars, words=words, bits=bits) for i in range(0, len(texts), _AT_ONCE)], format="csr")
    folded = [" " + _fold(t) + " " for t in texts]
    points = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    text_of = np.repeat(np.arange(len(folded), dtype=np.int32), lengths)
    mask = np.uint64((1 << bits) - 1)
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    if words[1]:
        hashes, owners = _words(points, text_of)
        gram = hashes
        for n in range(1, words[1] + 1):
            if n > 1:
                gram = gram[:-1] * _PAIR + hashes[n - 1:]
            keep = owners[: len(gram)] == owners[n - 1: n - 1 + len(gram)]
            if n >= words[0]:
                rows.append(owners[: len(gram)][keep])
                columns.append((_mix(gram[keep]) & mask).astype(np.int64))
    if chars[1]:
        gram = np.zeros(len(points), dtype=np.uint64)
        for n in range(1, chars[1] + 1):
            stop = max(len(points) - n + 1, 0)
            gram = gram[:stop] * _BASE + points[n - 1:]
            if n >= chars[0]:
                keep = text_of[:stop] == text_of[n - 1:]
                if n == 1:
                    keep = keep & (points != 32)
                rows.append(text_of[:stop][keep])
                columns.append((_mix(gram[keep] + np.uint64(n)) & mask).astype(np.int64) + (1 << bits))
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = csr_matrix((np.ones(len(row), dtype=np.float32), (row, column)), shape=(len(folded), 2 << bits))
    matrix.sum_duplicates()
    return matrix


def _fold(text: str | None) -> str:
    if not text:
        return ""
    text = text[:MOST_CHARACTERS]
    return " ".join((text if text.isascii() else unicodedata.normalize("NFKC", text)).lower().split())


def _mix(h: np.ndarray) -> np.ndarray:
    """Spread the bits (the finaliser of splitmix64, Steele et al. 2014)."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def _words(points: np.ndarray, text_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hash, text number) of every word: a run of letters and digits; one Han character is a word of its own."""
    unique, place = np.unique(points, return_inverse=True)
    kind = np.array([_kind(int(p)) for p in unique], dtype=np.int8)[place]
    inside = kind > 0
    before = np.r_[False, inside[:-1]]
    start = inside & (~before | (kind == 2) | np.r_[False, kind[:-1] == 2])
    starts = np.flatnonzero(start)
    if not len(starts):
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int32)
    powers = _powers(len(points))
    total = np.r_[np.uint64(0), np.cumsum(points * powers[0][: len(points)])]
    boundary = np.flatnonzero(start | ~inside)
    stops = np.r_[boundary, len(points)][np.searchsorted(boundary, starts, side="right")]
    return (total[stops] - total[starts]) * powers[1][starts], text_of[starts]


def _kind(point: int) -> int:
    """0 a gap, 1 part of a word, 2 a word of its own (Han, kana)."""
    if 0x3040 <= point <= 0x30FF or 0x3400 <= point <= 0x9FFF or 0x20000 <= point <= 0x3FFFF:
        return 2
    return 1 if chr(point).isalnum() else 0


def _powers(n: int) -> tuple[np.ndarray, np.ndarray]:
    size = 1 << max(10, int(n).bit_length())
    return _power_table(size)


@cache
def _power_table(size: int) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones(size, dtype=np.uint64)
    up, down = ones * _BASE, ones * _INVERSE
    up[0] = down[0] = 1
    return np.cumprod(up), np.cumprod(down)
