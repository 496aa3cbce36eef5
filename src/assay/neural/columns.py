"""A table as the arrays a network reads: numbers, flags, codes and bags. What was learnt is arrays and json, no code.

Numbers are centred on the median, scaled by the quartiles and softly clipped, as RealMLP does (Holzmüller et al. 2024,
arXiv:2407.04491); few-valued categories are one-hot, others get a code for an embedding; a time becomes its parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.neural.ngrams import Bags, Vocabulary, share_of_han

ONE_HOT = 9  # RealMLP's limit: more values than these are embedded
MOST_VALUES = 2000  # of one category; the rest share the code 0
MOST_NGRAMS = 60_000  # of all text columns together
_SAMPLE = 100_000  # rows from which quantiles are read
_PARTS = {
    "age_days": lambda c: c.dt.epoch("s") / 86_400,
    "month": lambda c: c.dt.month(),
    "day": lambda c: c.dt.day(),
    "weekday": lambda c: c.dt.weekday(),
    "hour": lambda c: c.dt.hour() + c.dt.minute() / 60,
}
_PARTS_ROW = {  # the same of one instant
    "age_days": lambda t: (t - datetime(1970, 1, 1)) // timedelta(seconds=1) / 86_400,
    "month": lambda t: t.month,
    "day": lambda t: t.day,
    "weekday": lambda t: t.isoweekday(),
    "hour": lambda t: t.hour + t.minute / 60,
}


@dataclass(frozen=True)
class Inputs:
    """What a network reads. numbers: float32 (n, p), about -3 to 3. dense: float32 (n, d), flags and one-hot values.
    codes: int64 (n, c), 0 means unknown. bags: one a text column."""

    numbers: np.ndarray
    dense: np.ndarray
    codes: np.ndarray
    bags: tuple[Bags, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: np.ndarray) -> Inputs:
        return Inputs(self.numbers[rows], self.dense[rows], self.codes[rows], tuple(b.take(rows) for b in self.bags))


@dataclass
class Columns:
    """The preparation learnt from training rows.

    numbers: (column, part), where part is "" or a part of a time. flags: numbers whose absence is a fact of its own.
    one_hot, embedded: (column, {value or None: code}). texts: (column, vocabulary).
    """

    numbers: list[tuple[str, str]] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    one_hot: list[tuple[str, dict[str | None, int]]] = field(default_factory=list)
    embedded: list[tuple[str, dict[str | None, int]]] = field(default_factory=list)
    texts: list[tuple[str, Vocabulary]] = field(default_factory=list)
    center: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def learn(cls, data: Dataset) -> Columns:
        """What these training rows say of the schema's features. A column with one value only is left out."""
        out = cls()
        frame = data.frame
        center: list[float] = []
        scale: list[float] = []
        for column in data.schema.of_kind("number", "time"):
            parts = [""] if column.kind == "number" else list(_PARTS)
            for part in parts:
                values = _amounts(frame[column.name], part)
                known = values[~np.isnan(values)]
                absent = len(known) < len(values)
                if not len(known) or (not absent and known.min() == known.max()):
                    continue
                low, middle, high = np.quantile(known[:: max(1, len(known) // _SAMPLE)], [0.25, 0.5, 0.75])
                spread = high - low if high > low else (known.max() - known.min()) / 2
                if absent and part in ("", "age_days"):
                    out.flags.append(len(center))
                out.numbers.append((column.name, part))
                center.append(middle)
                scale.append(1 / spread if spread > 0 else 0.0)
        out.center, out.scale = np.array(center), np.array(scale)
        for column in data.schema.of_kind("category"):
            counts = frame[column.name].value_counts(sort=True).sort(["count", column.name], descending=[True, False])
            if counts.height < 2:
                continue
            seen = counts if counts.height <= ONE_HOT else counts.filter(pl.col("count") >= 2).head(MOST_VALUES)
            codes = {value: code for code, value in enumerate(seen[column.name].to_list(), 1)}
            if codes:
                (out.one_hot if counts.height <= ONE_HOT else out.embedded).append((column.name, codes))
        texts = data.schema.of_kind("text")
        for column in texts:
            words = frame[column.name].to_list()
            mode = "chars" if share_of_han(words[:500]) > 0.3 else "words"
            vocabulary = Vocabulary.learn(words, mode, MOST_NGRAMS // len(texts))
            if len(vocabulary.buckets):
                out.texts.append((column.name, vocabulary))
        return out

    @property
    def sizes(self) -> dict[str, Any]:
        """The widths a network is built with."""
        return {
            "numbers": len(self.numbers),
            "dense": len(self.flags) + sum(len(codes) for _, codes in self.one_hot),
            "embedded": [len(codes) + 1 for _, codes in self.embedded],
            "texts": [len(v.buckets) for _, v in self.texts],
        }

    def read(self, data: Dataset) -> Inputs:
        """Rows as arrays. A missing column, an unknown category and a missing value are all allowed."""
        frame, n = data.frame, len(data)
        missing = [c for c in {name for name, _ in [*self.numbers, *self.one_hot, *self.embedded, *self.texts]} if c not in frame.columns]
        if missing:
            frame = frame.with_columns(pl.lit(None).alias(c) for c in missing)
        raw = np.empty((n, len(self.numbers)))
        for i, (name, part) in enumerate(self.numbers):
            raw[:, i] = _amounts(frame[name], part)
        codes = [_coded(frame[name], known) for name, known in self.embedded]
        hot = [_coded(frame[name], known) for name, known in self.one_hot]
        bags = tuple(v.bags(frame[name].to_list()) for name, v in self.texts)
        return self._inputs(raw, hot, codes, bags)

    def read_row(self, row: dict[str, Any]) -> Inputs | None:
        """One row as arrays, without a frame. None if a value needs the general path (one of odd type)."""
        raw = np.empty((1, len(self.numbers)))
        for i, (name, part) in enumerate(self.numbers):
            value = row.get(name)
            if part and type(value) is datetime and value.tzinfo is None:
                value = _PARTS_ROW[part](value)
            elif value is not None and (part or not isinstance(value, (float, int))):
                return None
            raw[0, i] = np.nan if value is None or value in (np.inf, -np.inf) else value
        hot: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        for columns, found in ((self.one_hot, hot), (self.embedded, codes)):
            for name, known in columns:
                value = row.get(name)
                if not (value is None or isinstance(value, str)):
                    return None
                found.append(np.array([known.get(value, 0)]))
        texts = [row.get(name) for name, _ in self.texts]
        if not all(t is None or isinstance(t, str) for t in texts):
            return None
        return self._inputs(raw, hot, codes, tuple(v.bags([t]) for (_, v), t in zip(self.texts, texts, strict=True)))

    def _inputs(self, raw: np.ndarray, hot: list[np.ndarray], codes: list[np.ndarray], bags: tuple[Bags, ...]) -> Inputs:
        n = len(raw)
        absent = np.isnan(raw)
        scaled = np.where(absent, 0.0, (raw - self.center) * self.scale)  # an absent number stands at the median
        numbers = (scaled / np.sqrt(1 + (scaled / 3) ** 2)).astype(np.float32)
        dense = np.zeros((n, self.sizes["dense"]), dtype=np.float32)
        dense[:, : len(self.flags)] = absent[:, self.flags]
        first = len(self.flags)
        for at, (_, known) in zip(hot, self.one_hot, strict=True):
            rows = np.flatnonzero(at)
            dense[rows, first + at[rows] - 1] = 1
            first += len(known)
        stacked = np.stack(codes, axis=1) if codes else np.zeros((n, 0), dtype=np.int64)
        return Inputs(numbers, dense, stacked, bags)

    def dump(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(json-ready, arrays) from which `of` builds it again."""
        packed = {
            "numbers": self.numbers,
            "flags": self.flags,
            "one_hot": [[name, list(known)] for name, known in self.one_hot],
            "embedded": [[name, list(known)] for name, known in self.embedded],
            "texts": [[name, v.mode] for name, v in self.texts],
        }
        arrays = {"columns.center": self.center, "columns.scale": self.scale}
        for i, (_, v) in enumerate(self.texts):
            arrays |= {f"columns.buckets.{i}": v.buckets, f"columns.idf.{i}": v.idf}
        return packed, arrays

    @classmethod
    def of(cls, packed: dict[str, Any], arrays: dict[str, np.ndarray]) -> Columns:
        return cls(
            [(name, part) for name, part in packed["numbers"]],
            packed["flags"],
            [(name, {v: i for i, v in enumerate(values, 1)}) for name, values in packed["one_hot"]],
            [(name, {v: i for i, v in enumerate(values, 1)}) for name, values in packed["embedded"]],
            [(name, Vocabulary(mode, arrays[f"columns.buckets.{i}"], arrays[f"columns.idf.{i}"])) for i, (name, mode) in enumerate(packed["texts"])],
            arrays["columns.center"],
            arrays["columns.scale"],
        )


def _amounts(column: pl.Series, part: str) -> np.ndarray:
    """float64 (n,), NaN where absent or infinite."""
    values = _PARTS[part](column) if part and column.dtype.is_temporal() else column
    out = values.cast(pl.Float64, strict=False).to_numpy(writable=True)
    out[np.isinf(out)] = np.nan
    return out


def _coded(column: pl.Series, known: dict[str | None, int]) -> np.ndarray:
    """int64 codes (n,), 0 where the value is unknown."""
    named = {value: code for value, code in known.items() if value is not None}
    text = column.cast(pl.String)
    codes = text.replace_strict(list(named), list(named.values()), default=0, return_dtype=pl.Int64) if named else pl.repeat(0, len(text), eager=True)
    return np.where(text.is_null().to_numpy(), known.get(None, 0), codes.fill_null(0).to_numpy()).astype(np.int64)
