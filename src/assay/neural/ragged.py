"""Rows of unequal length: kept end to end, padded batch by batch, and told to a network together with their lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.data.dataset import Dataset
from assay.neural.rows import Rows

LONG_SHARE = 0.95  # of the training rows are read whole


@dataclass(frozen=True)
class Ragged:
    """values: (all steps, channels) float32 or (all steps,) int64, row after row. starts: (n + 1,), where each row begins; no row is empty."""

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], empty: np.ndarray) -> Ragged:
        """empty: what no rows at all look like, of shape (0, ...)."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
        return cls(np.concatenate(rows) if rows else empty, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def row(self, i: int) -> np.ndarray:
        return self.values[self.starts[i] : self.starts[i + 1]]

    def take(self, rows: np.ndarray) -> Ragged:
        return Ragged.of([self.row(i) for i in rows], self.values[:0])

    def padded(self, rows: np.ndarray, ends: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(b, longest, ...) with zeros behind each row's end, and the lengths int64 (b,).

        ends: (b, 2), the part [first, last) of each row that is wanted; None for whole rows.
        """
        first, lengths = self.starts[rows], self.lengths[rows]
        if ends is not None:
            first, lengths = first + ends[:, 0], ends[:, 1] - ends[:, 0]
        steps = np.arange(int(lengths.max(initial=1)))
        inside = steps < lengths[:, None]
        out = self.values[np.where(inside, first[:, None] + steps, 0)]
        out[~inside] = 0
        return out, lengths.astype(np.int64)


class Reader(ABC):
    """Cells of a table -> what a network reads; learnt from the training rows, kept as JSON.

    names: of the network's inputs. long: those of them whose second axis has any length.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ("steps", "lengths")
    long: ClassVar[tuple[str, ...]] = ("steps",)

    @abstractmethod
    def read(self, data: Dataset, *, threads: int = 2, cache: Path | None = None) -> Any:
        """The rows as Ragged, or as uint8 pictures (n, side, side, depth)."""

    @abstractmethod
    def read_row(self, row: dict[str, Any]) -> Any:
        """One row given as {column: cell}."""

    @abstractmethod
    def rows(self, read: Any, target: np.ndarray, strength: float) -> Rows:
        """What `read` returned, to be taught. strength: of augmentation, 0 for none, 1 for all."""

    def batch(self, read: Any) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """(row numbers) -> the arrays that the exported network is called with."""
        return lambda rows: dict(zip(self.names, read.padded(rows), strict=True))

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """What the first layer has to know, JSON-ready: 'reads' ('steps', 'pieces' or 'picture') and its numbers; 'length', of the longest rows."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the report says about the input, JSON-ready."""

    @abstractmethod
    def json(self) -> dict[str, Any]: ...

    @classmethod
    @abstractmethod
    def of(cls, packed: dict[str, Any]) -> Reader: ...


class RaggedRows(Rows):
    """Padded batches. part: (lengths, rng) -> ends (b, 2), the part of each row that a step sees. change: (values, lengths, rng) -> values."""

    def __init__(self, read: Ragged, target: np.ndarray, *, part: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
                 change: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray] | None = None) -> None:
        self.read, self.target, self.part, self.change = read, target, part, change

    def __len__(self) -> int:
        return len(self.read)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        ends = None if rng is None or self.part is None else self.part(self.read.lengths[rows], rng)
        values, lengths = self.read.padded(rows, ends)
        if rng is not None and self.change is not None:
            values = self.change(values, lengths, rng)
        return torch.from_numpy(values), torch.from_numpy(lengths)


def long_enough(lengths: np.ndarray, most: int) -> int:
    """Steps that nearly all rows do not exceed: the 95th percentile, all if that is hardly more, and at most `most`."""
    usual = int(np.ceil(np.quantile(lengths, LONG_SHARE))) if len(lengths) else 1
    longest = int(lengths.max(initial=1))
    return max(1, min(most, longest if longest <= 1.2 * usual else usual))
