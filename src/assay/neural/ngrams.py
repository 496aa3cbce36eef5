"""Text as bags of n-grams for a network: the hashed n-grams of `data.ngrams`, as ids and weights a row.

Chinese is carried by characters 1 to 3 long, other scripts by words, word pairs and character runs 3 to 5 long: the
feature class of fastText (Bojanowski et al. 2017, doi:10.1162/tacl_a_00051).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.data.encode import TextEncoder


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
    """The n-grams worth an embedding. mode: 'chars' or 'words'. buckets: sorted int64 (v,). idf: float32 (v,)."""

    mode: str
    buckets: np.ndarray
    idf: np.ndarray

    @classmethod
    def learn(cls, texts: Sequence[str | None], mode: str, most: int) -> Vocabulary:
        """The `most` n-grams that stand in the largest number of texts, and in at least two."""
        encoder = _encoder(mode, np.zeros(0, np.int64), np.zeros(0, np.float32))
        encoder.most = most
        encoder.learn([texts])
        return cls(mode, encoder.kept, encoder.idf)

    def bags(self, texts: Sequence[str | None]) -> Bags:
        """TF-IDF weights (sublinear counts, unit length a row) of the known n-grams. Unknown ones are left out."""
        rows = _encoder(self.mode, self.buckets, self.idf).rows([texts])
        return Bags(rows.indices.astype(np.int64), rows.data, rows.indptr.astype(np.int64))


def _encoder(mode: str, kept: np.ndarray, idf: np.ndarray) -> TextEncoder:
    return TextEncoder.of({"columns": [""], "chinese": [mode == "chars"], "bits": 20}, {"text.kept": kept, "text.idf": idf})


def share_of_han(texts: Sequence[str | None]) -> float:
    """The share (0-1) of letters that are Han characters, kana or Hangul: scripts written without spaces or nearly so."""
    codes = np.frombuffer("".join(t or "" for t in texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    han = ((codes >= 0x3040) & (codes <= 0x9FFF)) | ((codes >= 0xAC00) & (codes <= 0xD7AF)) | ((codes >= 0x20000) & (codes <= 0x323AF))
    letters = (codes > 0x40) & ~((codes >= 0x5B) & (codes <= 0x60)) & ~((codes >= 0x2000) & (codes <= 0x303F))
    return float(han.sum() / max(1, letters.sum()))
