"""Texts as a network reads them: pieces of a vocabulary that was learnt from the training rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.neural.ragged import Ragged, RaggedRows, Reader, long_enough
from assay.neural.vocabulary import HIDDEN, Vocabulary

MOST_PIECES = 256
HEAD_SHARE = 0.75  # of a text that is too long, the beginning; the rest is its end (Sun et al. 2019, arXiv:1905.05583)
HIDE = 0.2  # of the pieces at most, where rows teach: word dropout (Gal & Ghahramani 2016, arXiv:1512.05287)
CHARACTERS = 1.5  # a piece shorter than this on average is in truth a character


class Texts(Reader):
    """All 'text' columns of a row, one after the other."""

    kind = "text"

    def __init__(self, columns: list[str], vocabulary: Vocabulary, most: int, told: dict[str, Any]) -> None:
        self.columns, self.vocabulary, self.most, self.told = columns, vocabulary, most, told

    @classmethod
    def learn(cls, train: Dataset, *, threads: int = 2) -> Texts:
        columns = [c.name for c in train.schema.of_kind("text")]
        texts = _texts(train.frame, columns)
        vocabulary = Vocabulary.learn(texts)
        lengths = np.array([len(ids) for ids in vocabulary.ids(texts, threads)])
        a_piece = sum(len(text) for text in texts) / max(1, int(lengths.sum()))
        told = {"pieces": vocabulary.size, "characters_a_piece": round(a_piece, 2), "units": "characters" if a_piece < CHARACTERS else "pieces of words"}
        return cls(columns, vocabulary, long_enough(lengths, MOST_PIECES), told)

    def read(self, data: Dataset, *, threads: int = 2, cache: Path | None = None) -> Ragged:
        return self._read(_texts(data.frame, self.columns), threads)

    def read_row(self, row: dict[str, Any]) -> Ragged:
        return self._read(["\n".join(row.get(name) or "" for name in self.columns)], 1)

    def _read(self, texts: list[str], threads: int) -> Ragged:
        head = max(1, round(HEAD_SHARE * self.most))
        ids = [one if len(one) <= self.most else np.concatenate([one[:head], one[len(one) - self.most + head :]]) for one in self.vocabulary.ids(texts, threads)]
        return Ragged.of(ids, np.zeros(0, np.int64))

    def rows(self, read: Ragged, target: np.ndarray, strength: float) -> RaggedRows:
        def change(values: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            hidden = (rng.random(values.shape) < HIDE * strength) & (np.arange(values.shape[1]) < lengths[:, None])
            return np.where(hidden, HIDDEN, values)

        return RaggedRows(read, target, change=change if strength else None)

    def sizes(self) -> dict[str, Any]:
        return {"reads": "pieces", "vocabulary": self.vocabulary.size, "length": self.most}

    def facts(self) -> dict[str, Any]:
        return self.told | {"longest": self.most}

    def json(self) -> dict[str, Any]:
        return {"kind": self.kind, "columns": self.columns, "vocabulary": self.vocabulary.json(), "most": self.most, "told": self.told}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Texts:
        return cls(packed["columns"], Vocabulary.of(packed["vocabulary"]), packed["most"], packed["told"])


def _texts(frame: pl.DataFrame, columns: list[str]) -> list[str]:
    parts = [frame[name].fill_null("").to_list() for name in columns]
    return ["\n".join(own) for own in zip(*parts, strict=True)]
