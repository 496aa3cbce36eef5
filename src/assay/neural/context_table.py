"""A table as models that learn from rows shown to them read it: one float matrix, categories as codes, nothing scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Schema

READ = ("number", "category", "time")
_DAY_S = 86_400
FURTHEST = 1e15  # float32 overflows when 1e20 is squared; what lies beyond this is a typing error, not a measurement


@dataclass
class Table:
    """Which columns, and the values that each category had. Columns of the matrix: categories, numbers, then four parts of each time."""

    levels: dict[str, list[str]]
    numbers: list[str]
    times: list[str]

    @classmethod
    def learn(cls, frame: pl.DataFrame, schema: Schema) -> Table:
        """Codes follow the alphabet, as scikit-learn's OrdinalEncoder and with it TabICL and TabPFN number them."""
        levels = {c.name: sorted(frame[c.name].drop_nulls().unique().to_list()) for c in schema.of_kind("category")}
        return cls(levels, [c.name for c in schema.of_kind("number")], [c.name for c in schema.of_kind("time")])

    @property
    def width(self) -> int:
        return len(self.levels) + len(self.numbers) + 4 * len(self.times)

    @property
    def categories(self) -> list[int]:
        """Columns of the matrix that hold codes."""
        return list(range(len(self.levels)))

    def read(self, frame: pl.DataFrame) -> np.ndarray:
        """float64 (n, width): codes from 0, amounts, days since 1970, month, weekday, hour. NaN: missing, or a value never seen."""
        out = np.full((frame.height, self.width), np.nan)
        at = 0
        for name, levels in self.levels.items():
            if levels:
                codes = frame[name].replace_strict(levels, list(range(len(levels))), default=None, return_dtype=pl.Float64)
                out[:, at] = codes.fill_null(float("nan")).to_numpy()
            at += 1
        for name in self.numbers:
            out[:, at] = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            at += 1
        for name in self.times:
            stamp = frame[name].cast(pl.Datetime)
            for part in (stamp.dt.epoch("s") / _DAY_S, stamp.dt.month(), stamp.dt.weekday(), stamp.dt.hour()):
                out[:, at] = part.cast(pl.Float64).fill_null(float("nan")).to_numpy()
                at += 1
        return np.clip(out, -FURTHEST, FURTHEST)

    def json(self) -> dict[str, Any]:
        return {"levels": self.levels, "numbers": self.numbers, "times": self.times}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Table:
        return cls(packed["levels"], packed["numbers"], packed["times"])
