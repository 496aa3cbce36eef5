"""Frames -> arrays. What is learnt (means, levels, document frequencies) is data: JSON and plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Schema
from assay.data.ngrams import hashed

MOST_LEVELS = 100  # one-hot columns of one category; the rest share one
_DAY_S = 86400.0
_NAN = float("nan")
_PARTS = ("days", "month", "weekday", "hour")


class TableEncoder:
    """Numbers, categories and times -> one float matrix. Fit on training rows only.

    `dense`: standardised numbers with missing flags, one-hot categories, standardised time parts - for linear models
    and heads. `codes`: raw numbers with NaN, category codes, time parts - for trees.
    """

    def __init__(self, schema: Schema, kinds: tuple[str, ...] = ("number", "category", "time")) -> None:
        self.numbers = [c.name for c in schema.of_kind("number")] if "number" in kinds else []
        self.categories = [c.name for c in schema.of_kind("category")] if "category" in kinds else []
        self.times = [c.name for c in schema.of_kind("time")] if "time" in kinds else []
        self.levels: dict[str, list[str]] = {}
        self.centre = self.scale = self.fill = np.zeros(0)
        self.flagged: list[int] = []
        self._place: dict[str, dict[str, int]] = {}
        self._pick: Callable[[dict[str, Any]], tuple[Any, ...]] | None = None  # all numbers of a row at once

    def fit(self, frame: pl.DataFrame) -> TableEncoder:
        for name in self.categories:
            counts = frame[name].drop_nulls().value_counts(sort=True)
            self.levels[name] = counts[name].to_list()
        raw = self._raw(frame)
        with np.errstate(all="ignore"):
            missing = np.isnan(raw)
            self.fill = np.where(missing.all(axis=0), 0.0, np.nan_to_num(np.nanmedian(np.where(missing.all(axis=0), 0.0, raw), axis=0)))
            filled = np.where(missing, self.fill, raw)
            self.centre = filled.mean(axis=0)
            self.scale = np.where(filled.std(axis=0) > 1e-12 * np.abs(self.centre) + 1e-300, filled.std(axis=0), 1.0)
        self.flagged = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0)).tolist()
        return self._ready()

    def _ready(self) -> TableEncoder:
        self._pick = itemgetter(*self.numbers) if len(self.numbers) > 1 else None
        self._place = {name: {level: i for i, level in enumerate(levels)} for name, levels in self.levels.items()}
        return self

    @property
    def width(self) -> int:
        """Columns of `dense`."""
        return len(self.fill) + len(self.flagged) + sum(min(len(v), MOST_LEVELS) + 1 for v in self.levels.values())

    @property
    def names(self) -> list[str]:
        """Names of the columns of `codes`: numbers, time parts, then categories."""
        return [*self.numbers, *(f"{t}.{part}" for t in self.times for part in _PARTS), *self.categories]

    def dense(self, frame: pl.DataFrame) -> np.ndarray:
        """float32 (n, width). Values further than 8 standard deviations are cut, so that one typo cannot rule a row."""
        return self._dense(self._raw(frame), [self._codes(frame[name], name) for name in self.categories])

    def dense_row(self, row: dict[str, Any]) -> np.ndarray:
        return self._dense(np.array([self._raw_row(row)]), [np.array([self._code(row.get(n), n)]) for n in self.categories])

    def _dense(self, raw: np.ndarray, codes: list[np.ndarray]) -> np.ndarray:
        missing = np.isnan(raw)
        scaled = np.clip((np.where(missing, self.fill, raw) - self.centre) / self.scale, -8, 8)
        out = np.zeros((len(raw), self.width), dtype=np.float32)
        out[:, : raw.shape[1]] = scaled
        at = raw.shape[1]
        out[:, at: at + len(self.flagged)] = missing[:, self.flagged]
        at += len(self.flagged)
        rows = np.arange(len(raw))
        for name, code in zip(self.categories, codes, strict=True):
            size = min(len(self.levels[name]), MOST_LEVELS) + 1
            out[rows, at + np.where((code < 0) | (code >= size - 1), size - 1, code)] = 1.0
            at += size
        return out

    def codes(self, frame: pl.DataFrame) -> np.ndarray:
        """float64 (n, len(names)): raw numbers and time parts, NaN where missing; category codes, -1 unknown or missing."""
        columns = [self._codes(frame[name], name) for name in self.categories]
        return np.column_stack([self._raw(frame), *columns]) if columns else self._raw(frame)

    def codes_row(self, row: dict[str, Any]) -> np.ndarray:
        """`codes` of one {column: value}, shape (1, len(names))."""
        return np.array([self.codes_list(row)], dtype=np.float64)

    def codes_list(self, row: dict[str, Any]) -> list[float]:
        """The same as len(names) numbers, for what needs no array."""
        return self._raw_row(row) + [self._code(row.get(name), name) for name in self.categories]

    def _raw(self, frame: pl.DataFrame) -> np.ndarray:
        width = len(self.numbers) + len(_PARTS) * len(self.times)
        out = np.empty((frame.height, width), dtype=np.float64)
        for i, name in enumerate(self.numbers):
            out[:, i] = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        at = len(self.numbers)
        for name in self.times:
            stamp = frame[name]
            parts = (stamp.dt.epoch("s") / _DAY_S, stamp.dt.month(), stamp.dt.weekday(), stamp.dt.hour())
            for part in parts:
                out[:, at] = part.cast(pl.Float64).fill_null(float("nan")).to_numpy()
                at += 1
        return out

    def _raw_row(self, row: dict[str, Any]) -> list[float]:
        out = self._numbers_row(row)
        for name in self.times:
            stamp = row.get(name)
            if isinstance(stamp, str):
                stamp = datetime.fromisoformat(stamp)
            if stamp is None:
                out += [_NAN] * len(_PARTS)
            else:
                seconds = (stamp - datetime(1970, 1, 1)).total_seconds() // 1
                out += [seconds / _DAY_S, stamp.month, stamp.isoweekday(), stamp.hour]
        return out

    def _numbers_row(self, row: dict[str, Any]) -> list[float]:
        if self._pick is not None:
            try:
                return list(map(float, self._pick(row)))  # nearly always: a third of the time
            except (KeyError, TypeError):  # some are not known
                pass
        return [_NAN if (v := row.get(name)) is None else float(v) for name in self.numbers]

    def _codes(self, column: pl.Series, name: str) -> np.ndarray:
        levels = self.levels[name]
        if not levels:
            return np.full(len(column), -1)
        return column.replace_strict(levels, list(range(len(levels))), default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()

    def _code(self, value: Any, name: str) -> int:
        return -1 if value is None else self._place[name].get(str(value), -1)

    def json(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "categories": self.categories, "times": self.times, "levels": self.levels,
                "centre": self.centre.tolist(), "scale": self.scale.tolist(), "fill": self.fill.tolist(), "flagged": self.flagged}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> TableEncoder:
        made = cls(Schema(()))
        made.numbers, made.categories, made.times = packed["numbers"], packed["categories"], packed["times"]
        made.levels, made.flagged = packed["levels"], packed["flagged"]
        made.centre, made.scale, made.fill = (np.array(packed[k], dtype=np.float64) for k in ("centre", "scale", "fill"))
        return made._ready()


class TextEncoder:
    """Text columns -> TF-IDF of hashed n-grams, kept to the columns that occur in at least `min_rows` texts.

    Sublinear counts, smoothed idf, rows of length one (Salton & Buckley 1988). English: words 1-2 and characters 3-5;
    Chinese: characters 1-3 (a Han character is a word, so words 1-2 too). State: `kept` int64, `idf` float32.
    """

    def __init__(self, schema: Schema, *, bits: int = 20, most: int = 200_000, min_rows: int = 2) -> None:
        columns = schema.of_kind("text")
        self.columns = [c.name for c in columns]
        self.chinese = [c.language == "zh" for c in columns]
        self.bits, self.most, self.min_rows = bits, most, min_rows
        self.kept = np.zeros(0, dtype=np.int64)
        self.idf = np.zeros(0, dtype=np.float32)

    def _counts(self, texts: Sequence[Sequence[str | None]]) -> Any:
        from scipy.sparse import hstack

        parts = [hashed(column, chars=(1, 3) if zh else (3, 5), words=(1, 2), bits=self.bits)
                 for column, zh in zip(texts, self.chinese, strict=True)]
        return parts[0] if len(parts) == 1 else hstack(parts, format="csr")

    def fit_transform(self, frame: pl.DataFrame) -> Any:
        """CSR float32 (n, len(kept)); learns `kept` and `idf`."""
        return self.learn([frame[c].to_list() for c in self.columns])

    def learn(self, texts: Sequence[Sequence[str | None]]) -> Any:
        """`fit_transform` of lists of texts, one list a column."""
        counts = self._counts(texts)
        n = counts.shape[0]
        rows_with = np.bincount(counts.indices, minlength=counts.shape[1])
        enough = np.flatnonzero(rows_with >= min(self.min_rows, max(1, n // 20)))
        if len(enough) > self.most:
            enough = np.sort(enough[np.argsort(-rows_with[enough], kind="stable")[: self.most]])
        self.kept = enough
        self.idf = (np.log((1 + n) / (1 + rows_with[enough])) + 1).astype(np.float32)
        return self._weighted(counts)

    def transform(self, frame: pl.DataFrame) -> Any:
        return self.rows([frame[c].to_list() for c in self.columns])

    def transform_row(self, row: dict[str, Any]) -> Any:
        return self.rows([[row.get(c)] for c in self.columns])

    def rows(self, texts: Sequence[Sequence[str | None]]) -> Any:
        """CSR float32 (n, len(kept)) of lists of texts, one list a column."""
        return self._weighted(self._counts(texts))

    def _weighted(self, counts: Any) -> Any:
        from scipy.sparse import csr_matrix

        place = np.searchsorted(self.kept, counts.indices)
        known = np.zeros(len(place), dtype=bool)
        inside = place < len(self.kept)
        known[inside] = self.kept[place[inside]] == counts.indices[inside]
        row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[known]
        place = place[known]
        value = (1 + np.log(counts.data[known])) * self.idf[place]
        length = np.sqrt(np.bincount(row, weights=value**2, minlength=counts.shape[0]))
        value = (value / np.maximum(length, 1e-12)[row]).astype(np.float32)
        indptr = np.r_[0, np.cumsum(np.bincount(row, minlength=counts.shape[0]))]
        return csr_matrix((value, place, indptr), shape=(counts.shape[0], len(self.kept)))

    def json(self) -> dict[str, Any]:
        return {"columns": self.columns, "chinese": self.chinese, "bits": self.bits}

    def arrays(self) -> dict[str, np.ndarray]:
        return {"text.kept": self.kept, "text.idf": self.idf}

    @classmethod
    def of(cls, packed: dict[str, Any], arrays: dict[str, np.ndarray]) -> TextEncoder:
        made = cls(Schema(()), bits=packed["bits"])
        made.columns, made.chinese = packed["columns"], packed["chinese"]
        made.kept, made.idf = arrays["text.kept"], arrays["text.idf"]
        return made
