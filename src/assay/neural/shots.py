"""Which known rows a prompt shows: a balanced few for all questions, or the nearest ones for each question.

Nearest-neighbour shots: Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?" (arXiv:2101.06804).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset, Schema

MOST_POOL = 20_000
MOST_SHOTS = 40
_HAN = re.compile(r"[\u4e00-\u9fff]")


def balanced(strata: np.ndarray, lengths: np.ndarray, characters: int, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of a few rows, the strata taken in turn, until `characters` are used up. In shown (shuffled) order.

    strata: codes (n,). lengths: characters of each row (n,); rows far longer than the median are passed over. At least
    one row of the first stratum is returned, however long.
    """
    usual = max(4 * float(np.median(lengths)), 200.0)
    queues = []
    for code in rng.permutation(np.unique(strata)):
        rows = rng.permutation(np.flatnonzero(strata == code))
        queues.append(sorted(rows, key=lambda r: lengths[r] > usual)[:MOST_SHOTS])  # a stable sort keeps the random order
    chosen: list[int] = []
    left = characters
    for round_ in range(MOST_SHOTS):
        for queue in queues:
            if round_ < len(queue) and len(chosen) < MOST_SHOTS and (lengths[queue[round_]] <= left or not chosen):
                chosen.append(int(queue[round_]))
                left -= int(lengths[queue[round_]])
    return rng.permutation(np.array(chosen, dtype=np.int64))


class Nearest:
    """The known rows most alike, by TF-IDF of character n-grams of texts, categories and the deciles of numbers."""

    def __init__(self, pool: Dataset, schema: Schema) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.schema = schema
        self.cuts = {
            c.name: np.unique(np.nanquantile(v, np.arange(0.1, 1.0, 0.1)))
            for c in schema.of_kind("number", "time")
            if c.name in pool.frame.columns and len(v := _numbers(pool, c.name)) and np.isfinite(v).any()
        }
        self.vectors = TfidfVectorizer(analyzer=_same, sublinear_tf=True, dtype=np.float32)
        self.known = self.vectors.fit_transform(self.marks(pool))

    def marks(self, data: Dataset) -> list[list[str]]:
        """The features of each row as words. No row is without any, so that the vocabulary is never empty."""
        out: list[list[str]] = [[""] for _ in range(len(data))]
        for column in self.schema.features:
            if column.name not in data.frame.columns:
                continue
            if column.kind == "text":
                for words, value in zip(out, data.frame[column.name].to_list(), strict=True):
                    words += _ngrams(value or "")
            elif column.kind == "category":
                for words, value in zip(out, data.frame[column.name].to_list(), strict=True):
                    words.append(f"{column.name}={value}")
            elif column.name in self.cuts:
                values = _numbers(data, column.name)
                for words, decile, value in zip(out, np.searchsorted(self.cuts[column.name], values).tolist(), values, strict=True):
                    # the neighbouring decile is shared, so that 10 and 11 are more alike than 10 and 90
                    words += [f"{column.name}~{decile}", f"{column.name}~{decile + 1}"] if np.isfinite(value) else [f"{column.name}~?"]
        return out

    def rows(self, asked: Dataset, lengths: np.ndarray, characters: int) -> list[list[int]]:
        """For each asked row the pool rows to show, the most alike last, within `characters`. lengths: (n_pool,)."""
        out: list[list[int]] = []
        most = min(MOST_SHOTS, self.known.shape[0])
        for begin in range(0, len(asked), 512):
            part = asked.take(np.arange(begin, min(begin + 512, len(asked))))
            alike = (self.vectors.transform(self.marks(part)) @ self.known.T).toarray()
            for line in np.argsort(-alike, axis=1, kind="stable")[:, :most]:
                used = np.cumsum(lengths[line])
                out.append(line[: max(1, int((used <= characters).sum()))][::-1].tolist())
        return out


def strata_of(answers: np.ndarray, bins: int = 8) -> np.ndarray:
    """Amounts as codes of about equally many rows."""
    return np.searchsorted(np.unique(np.quantile(answers, np.linspace(0, 1, bins + 1)[1:-1])), answers)


def _ngrams(text: str) -> list[str]:
    """Chinese: characters and pairs and triples of them. Else words, and their parts of 3 to 5 letters."""
    text = text[:2000].casefold()
    if len(_HAN.findall(text)) > 0.2 * len(text):
        return [text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1)]
    out = []
    for word in re.findall(r"\w+|[^\w\s]", text):
        padded = f" {word} "
        out.append(padded)
        out += [padded[i : i + n] for n in (3, 4, 5) for i in range(len(padded) - n + 1)]
    return out


def _numbers(data: Dataset, name: str) -> np.ndarray:
    column = data.frame[name]
    return (column.dt.epoch("s") if column.dtype.is_temporal() else column).cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()


def _same(words: Any) -> Any:
    return words
