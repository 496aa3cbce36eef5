"""Text as hashed n-grams, vectorised over code points: a bag of (id, weight) a row, the same in every process.

Chinese is carried by characters 1 to 3 long, other scripts by words, word pairs and character runs 3 to 5 long: the
feature class of fastText (Bojanowski et al. 2017, doi:10.1162/tacl_a_00051). Hashing is a rolling polynomial over
UTF-32 code points modulo 2**64, finished with the mixer of splitmix64 (Steele et al. 2014): no Python loop over n-grams.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BUCKET_BITS = 22  # 4 million buckets: of 60,000 kept n-grams fewer than 1 % share one
LONGEST = 3000  # characters read of one text
_CHUNK = 2_000_000  # characters hashed at once: about 300 MB of temporaries
_BASE = np.uint64(0x9E3779B97F4A7C15)
_BASE_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


@dataclass(frozen=True)
class Bags:
    """Sparse rows: row i holds ids[offsets[i]:offsets[i + 1]] (int64, sorted) with float32 weights of length 1."""

    ids: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: np.ndarray) -> Bags:
        """These rows (int indices), in this order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Bags(self.ids[flat], self.weights[flat], offsets)


@dataclass(frozen=True)
class Vocabulary:
    """The n-grams worth an embedding. mode: 'chars' or 'words'. buckets: sorted uint32 (v,). idf: float32 (v,)."""

    mode: str
    buckets: np.ndarray
    idf: np.ndarray

    @classmethod
    def learn(cls, texts: Sequence[str | None], mode: str, most: int) -> Vocabulary:
        """The `most` n-grams that stand in the largest number of texts, and in at least two."""
        frequency = np.zeros(1 << BUCKET_BITS, dtype=np.int32)
        for first, part in _parts(texts):
            keys = np.sort(_keys(part, first, mode))  # np.unique hashes here, 10 times slower
            keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
            frequency += np.bincount(keys & ((1 << BUCKET_BITS) - 1), minlength=1 << BUCKET_BITS).astype(np.int32)
        kept = np.flatnonzero(frequency >= 2)
        if len(kept) > most:
            kept = np.sort(kept[np.argsort(-frequency[kept], kind="stable")[:most]])
        idf = np.log((1 + len(texts)) / (1 + frequency[kept])) + 1
        return cls(mode, kept.astype(np.uint32), idf.astype(np.float32))

    def bags(self, texts: Sequence[str | None]) -> Bags:
        """TF-IDF weights (sublinear counts, unit length a row) of the known n-grams. Unknown ones are left out."""
        ids, weights, lengths = [], [], []
        for first, part in _parts(texts):
            keys, counts = np.unique(_keys(part, first, self.mode), return_counts=True)
            bucket = (keys & ((1 << BUCKET_BITS) - 1)).astype(np.uint32)
            place = np.searchsorted(self.buckets, bucket)
            known = np.zeros(len(place), dtype=bool)
            inside = place < len(self.buckets)
            known[inside] = self.buckets[place[inside]] == bucket[inside]
            place, row = place[known], (keys[known] >> BUCKET_BITS) - first
            weight = (1 + np.log(counts[known])) * self.idf[place]
            norm = np.sqrt(np.bincount(row, weight * weight, minlength=len(part)))
            ids.append(place)
            weights.append((weight / norm[row]).astype(np.float32))
            lengths.append(np.bincount(row, minlength=len(part)))
        if not ids:
            return Bags(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(1, np.int64))
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        return Bags(np.concatenate(ids), np.concatenate(weights), offsets)


def share_of_han(texts: Sequence[str | None]) -> float:
    """The share (0-1) of letters that are Han characters, kana or Hangul: scripts written without spaces or nearly so."""
    codes = _codes([clean(t) for t in texts])
    han = ((codes >= 0x3040) & (codes <= 0x9FFF)) | ((codes >= 0xAC00) & (codes <= 0xD7AF)) | ((codes >= 0x20000) & (codes <= 0x323AF))
    letters = (codes > 0x40) & ~((codes >= 0x5B) & (codes <= 0x60)) & ~((codes >= 0x2000) & (codes <= 0x303F))
    return float(han.sum() / max(1, letters.sum()))


def clean(text: str | None) -> str:
    """One form for full-width and half-width characters, lower case, at most LONGEST characters."""
    return unicodedata.normalize("NFKC", text[:LONGEST]).lower() if text else ""


def _parts(texts: Sequence[str | None]) -> list[tuple[int, list[str]]]:
    """(first row, cleaned texts) in stretches of bounded size."""
    parts: list[tuple[int, list[str]]] = []
    now: list[str] = []
    first = filled = 0
    for i, text in enumerate(texts):
        now.append(clean(text))
        filled += len(now[-1]) + 1
        if filled > _CHUNK:
            parts.append((first, now))
            now, first, filled = [], i + 1, 0
    return [*parts, (first, now)] if now else parts


def _codes(texts: list[str]) -> np.ndarray:
    return np.frombuffer(("\0".join(texts) + "\0").encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _keys(texts: list[str], first: int, mode: str) -> np.ndarray:
    """row << BUCKET_BITS | bucket of every n-gram, int64, not sorted, repeats kept."""
    codes = _codes(texts)
    rows = np.repeat(np.arange(first, first + len(texts)), np.array([len(t) + 1 for t in texts]))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    letter = _letters(codes)
    wanted = (1, 2, 3) if mode == "chars" else (3, 4, 5)
    usable = codes != 0
    if mode == "chars":
        usable = usable & (codes != 32) & (codes != 9) & (codes != 10) & (codes != 13)
    values = codes.astype(np.uint64) + np.uint64(1)
    rolling, whole = values.copy(), usable
    for n in range(1, max(wanted) + 1):
        if n > 1:
            rolling = rolling[:-1] * _BASE + values[n - 1 :]
            whole = whole[:-1] & usable[n - 1 :]
        if n in wanted:
            at = np.flatnonzero(whole)
            found.append((_mixed(rolling[at], n), rows[at]))
    if mode == "chars":
        letter = letter & (codes < 0x2E80)  # the words inside Chinese text: names, sizes, prices
    starts = np.flatnonzero(letter & ~np.concatenate([[False], letter[:-1]]))
    if len(starts):
        powers = np.full(len(codes), _BASE)
        powers[0] = 1
        powers = np.cumprod(powers, dtype=np.uint64)
        back = np.full(len(codes), _BASE_INVERSE)
        back[0] = 1
        back = np.cumprod(back, dtype=np.uint64)
        words = np.add.reduceat(np.where(letter, values * powers, np.uint64(0)), starts) * back[starts]
        row = rows[starts]
        found.append((_mixed(words, 101), row))
        pair = np.flatnonzero(row[1:] == row[:-1])
        found.append((_mixed(words[pair] * _BASE + _mixed(words[pair + 1], 7), 102), row[pair]))
    hashes = np.concatenate([h for h, _ in found])
    of_row = np.concatenate([r for _, r in found])
    return (of_row.astype(np.int64) << BUCKET_BITS) | (hashes >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)


def _letters(codes: np.ndarray) -> np.ndarray:
    """Which code points are letters or digits."""
    if len(codes) < 20_000:
        kinds, at = np.unique(codes, return_inverse=True)
        return np.array([chr(c).isalnum() for c in kinds])[at]
    table = np.zeros(0x110000, dtype=bool)
    table[codes] = True
    kinds = np.flatnonzero(table)
    table[kinds] = [chr(c).isalnum() for c in kinds]
    return table[codes]


def _mixed(hashes: np.ndarray, salt: int) -> np.ndarray:
    z = hashes + np.uint64((salt * int(_BASE)) & 0xFFFFFFFFFFFFFFFF)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
