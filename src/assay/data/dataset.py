"""Column, Schema, Dataset: rows with names, kinds and roles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

KINDS = ("number", "category", "text", "time", "id", "image", "audio", "sequence")
MEDIA = ("image", "audio", "sequence")  # cells are bytes, see `data/media.py`


@dataclass(frozen=True)
class Column:
    """One column. kind: one of KINDS. language: 'zh', 'en' or 'other', for text only. channels: names, for sequences only."""

    name: str
    kind: str
    unit: str | None = None
    language: str | None = None
    channels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Schema:
    """Columns in file order (the target among them), and roles by column name.

    ordered: the rows stand in order of time although no column says when; used where `time` is None.
    """

    columns: tuple[Column, ...]
    target: str | None = None
    time: str | None = None
    group: str | None = None
    ordered: bool = False

    @property
    def features(self) -> tuple[Column, ...]:
        """What a model may read: all but the target, ids and the group."""
        skip = {self.target, self.group}
        return tuple(c for c in self.columns if c.name not in skip and c.kind != "id")

    def of_kind(self, *kinds: str) -> tuple[Column, ...]:
        """The features of these kinds, in file order."""
        return tuple(c for c in self.features if c.kind in kinds)

    @property
    def plain(self) -> tuple[Column, ...]:
        """The features that are no pictures, sounds or sequences."""
        return tuple(c for c in self.features if c.kind not in MEDIA)

    def without_target(self) -> Schema:
        return replace(self, columns=tuple(c for c in self.columns if c.name != self.target), target=None)

    def json(self) -> dict[str, Any]:
        columns = [{k: v for k, v in vars(c).items() if v is not None} for c in self.columns]
        roles = {"target": self.target, "time": self.time, "group": self.group}
        return {"columns": columns, **roles, **({"ordered": True} if self.ordered else {})}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Schema:
        columns = tuple(Column(**c | ({"channels": tuple(c["channels"])} if "channels" in c else {})) for c in packed["columns"])
        return cls(columns, packed["target"], packed["time"], packed["group"], packed.get("ordered", False))


@dataclass(frozen=True)
class Dataset:
    """Rows and what their columns mean.

    The frame's dtypes follow the kinds: number Float64 (no inf; NaN is null), category, text and id String,
    time Datetime, image and audio Binary (a file's bytes as it was found), sequence Binary (float32 little-endian,
    steps x channels). The target keeps a dtype of its own: String, Boolean or Int64 for labels, Float64 for amounts.
    rows: shape (n,), the number of each row in the file it was read from, from 0; None where that is not known.
    """

    frame: pl.DataFrame = field(repr=False)
    schema: Schema
    rows: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self.frame.height

    def take(self, rows: np.ndarray) -> Dataset:
        """These rows (int indices or a boolean mask), in this order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Dataset(self.frame[rows], self.schema, None if self.rows is None else self.rows[rows])

    def asked(self) -> Dataset:
        """The rows with the answer removed: all that `predict` ever sees."""
        if self.schema.target is None:
            return self
        return Dataset(self.frame.drop(self.schema.target), self.schema.without_target(), self.rows)

    def without(self, names: tuple[str, ...]) -> Dataset:
        """These columns left away; they must be neither the target nor a role."""
        schema = replace(self.schema, columns=tuple(c for c in self.schema.columns if c.name not in names))
        return Dataset(self.frame.drop(names), schema, self.rows)

    def blind(self, kinds: tuple[str, ...]) -> Dataset:
        """The features of these kinds left away."""
        return self.without(tuple(c.name for c in self.schema.of_kind(*kinds))) if kinds else self

    @property
    def y(self) -> pl.Series:
        if self.schema.target is None:
            raise ValueError("this dataset has no target: its answers were removed")
        return self.frame[self.schema.target]

    @cached_property
    def fingerprint(self) -> str:
        """Same rows, names, dtypes and order on the same polars version: same 16 hex digits."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr([(n, str(t)) for n, t in self.frame.schema.items()]).encode())
        digest.update(self.frame.hash_rows(seed=0).to_numpy().tobytes())
        return digest.hexdigest()
