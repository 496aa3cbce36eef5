"""Sensor sequences as a network reads them: standardised channels, gaps marked, the shape of a row beside its level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset
from assay.neural import cells
from assay.neural.ragged import Ragged, RaggedRows, Reader, long_enough

MOST_STEPS = 1024
FARTHEST = 10.0  # standard deviations; a broken sensor's 1e30 must not drown the others
LEVEL_SHARE = 0.8  # of a channel's variance that lies between rows: within a row it would hardly move
CUT_MOST = 0.2  # of a row, at its beginning: the latest steps are what a forecast needs
NOISE, GAIN, HOLE = 0.1, 0.15, 0.15  # standard deviations, factor, share of a row


class Signals(Reader):
    """All 'sequence' columns, their channels side by side, aligned at the last step.

    every: steps that are averaged to one, where rows are longer than 1,024. most: steps read of a row, the last ones.
    level: channels that get a second one, the same without the row's own mean, because rows differ more than steps do.
    gaps: channels that get one more that says where a value was missing.
    """

    kind = "sequence"

    def __init__(self, columns: list[tuple[str, int]], names: list[str], every: int, most: int, center: np.ndarray, spread: np.ndarray, within: np.ndarray,
                 gaps: np.ndarray, level: np.ndarray, amounts: bool) -> None:
        self.columns, self.channels, self.every, self.most, self.amounts = columns, names, every, most, amounts
        self.center, self.spread, self.within, self.gaps, self.level = center, spread, within, gaps, level

    @classmethod
    def learn(cls, train: Dataset, *, amounts: bool) -> Signals:
        """amounts: the answer is a number, for which the level of a signal may be the point; augmentation then leaves it alone."""
        columns = [(c.name, _width(c)) for c in train.schema.of_kind("sequence")]
        names = [n if len(columns) == 1 else f"{c.name}.{n}" for c in train.schema.of_kind("sequence") for n in c.channels or ("value",)]
        total = sum(width for _, width in columns)
        rows = _joined(train.frame, columns)
        lengths = np.array([len(row) for row in rows])
        most = long_enough(lengths, int(lengths.max(initial=1)))
        every = max(1, -(-most // MOST_STEPS))
        values = np.concatenate([_shortened(row[-most:], every) for row in rows]).astype(np.float64)
        known = np.isfinite(values)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, values, 0.0)
        center = filled.sum(axis=0) / count
        away = np.where(known, values - center, 0.0)
        spread = np.sqrt((away**2).sum(axis=0) / count)
        kept = Ragged.of([np.zeros((-(-min(n, most) // every), 0), np.int8) for n in lengths], np.zeros((0, 0), np.int8))
        of_row = np.repeat(np.arange(len(kept)), kept.lengths)
        per_row = np.zeros((len(kept), total))
        counts = np.zeros((len(kept), total))
        np.add.at(per_row, of_row, away)
        np.add.at(counts, of_row, known)
        inner = np.where(known, away - (per_row / np.maximum(counts, 1))[of_row], 0.0)
        within = np.sqrt((inner**2).sum(axis=0) / count)
        constant = spread <= 1e-6 * np.maximum(np.abs(center), 1e-6)
        level = ~constant & (within**2 < (1 - LEVEL_SHARE) * spread**2) & (within > 1e-6 * spread) & (most >= 8)
        spread = np.where(constant, np.inf, spread)  # says nothing: always 0
        return cls(columns, names, every, -(-most // every), center, spread, np.where(within > 0, within, 1.0), np.asarray(~known.all(axis=0)), level, amounts)

    def read(self, data: Dataset, *, threads: int = 2, cache: Path | None = None) -> Ragged:
        return self._read(_joined(data.frame, self.columns))

    def read_row(self, row: dict[str, Any]) -> Ragged:
        return self._read(_joined({name: pl.Series(name, [row.get(name)], dtype=pl.Binary) for name, _ in self.columns}, self.columns))

    def _read(self, rows: list[np.ndarray]) -> Ragged:
        return Ragged.of([self._standardised(_shortened(row[-self.most * self.every :], self.every)) for row in rows], np.zeros((0, self.width), np.float32))

    def _standardised(self, row: np.ndarray) -> np.ndarray:
        known = np.isfinite(row)
        away = np.where(known, row - self.center, 0.0)
        parts = [away / self.spread]
        if self.level.any():
            some = away[:, self.level]
            mean = some.sum(axis=0) / np.maximum(known[:, self.level].sum(axis=0), 1)
            parts.append(np.where(known[:, self.level], some - mean, 0.0) / self.within[self.level])
        parts = [part.clip(-FARTHEST, FARTHEST) for part in parts]
        parts.append((~known[:, self.gaps]).astype(np.float64))
        return np.concatenate(parts, axis=1).astype(np.float32)

    @property
    def width(self) -> int:
        return len(self.channels) + int(self.level.sum()) + int(self.gaps.sum())

    def rows(self, read: Ragged, target: np.ndarray, strength: float) -> RaggedRows:
        measured = self.width - int(self.gaps.sum())

        def part(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            cut = rng.random(len(lengths)) * CUT_MOST * strength * (rng.random(len(lengths)) < 0.5)
            return np.stack([(lengths * cut).astype(np.int64), lengths], axis=1)

        def change(values: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            n, longest, _ = values.shape
            inside = (np.arange(longest) < lengths[:, None])[:, :, None]
            own = values[:, :, :measured]
            if not self.amounts:
                own = own * (1 + GAIN * strength * rng.standard_normal((n, 1, measured))).astype(np.float32)
            own = own + (NOISE * strength * rng.standard_normal(own.shape)).astype(np.float32) * inside
            length = rng.random(n) * HOLE * strength * lengths
            begin = rng.random(n) * (lengths - length)
            hole = (np.arange(longest) >= begin[:, None]) & (np.arange(longest) < (begin + length)[:, None])
            values = values.copy()
            values[:, :, :measured] = np.where(hole[:, :, None], 0, own)
            return values

        return RaggedRows(read, target, part=part if strength and self.most >= 16 else None, change=change if strength else None)

    def sizes(self) -> dict[str, Any]:
        return {"reads": "steps", "channels": self.width, "length": self.most}

    def facts(self) -> dict[str, Any]:
        return {"channels": len(self.channels), "steps": self.most * self.every} | ({"steps_averaged": self.every} if self.every > 1 else {})

    def json(self) -> dict[str, Any]:
        spread = [None if np.isinf(s) else s for s in self.spread.tolist()]
        return {"kind": self.kind, "columns": self.columns, "channels": self.channels, "every": self.every, "most": self.most, "amounts": self.amounts,
                "center": self.center.tolist(), "spread": spread, "within": self.within.tolist(), "gaps": self.gaps.tolist(), "level": self.level.tolist()}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Signals:
        spread = np.array([np.inf if s is None else s for s in packed["spread"]])
        return cls([(name, width) for name, width in packed["columns"]], packed["channels"], packed["every"], packed["most"], np.array(packed["center"]), spread,
                   np.array(packed["within"]), np.array(packed["gaps"], dtype=bool), np.array(packed["level"], dtype=bool), packed["amounts"])


def _width(column: Column) -> int:
    return len(column.channels) if column.channels else 1


def _joined(frame: Any, columns: list[tuple[str, int]]) -> list[np.ndarray]:
    """(steps, all channels) of each row; where one column's sequence is shorter than another's, its first steps are missing."""
    read = [cells.steps(frame[name], width) for name, width in columns]
    if len(read) == 1:
        return [_not_empty(row) for row in read[0]]
    out = []
    for own in zip(*read, strict=True):
        joined = np.full((max(1, *(len(part) for part in own)), sum(part.shape[1] for part in own)), np.nan, dtype=np.float32)
        at = 0
        for part in own:
            joined[len(joined) - len(part) :, at : at + part.shape[1]] = part
            at += part.shape[1]
        out.append(joined)
    return out


def _not_empty(row: np.ndarray) -> np.ndarray:
    return row if len(row) else np.full((1, row.shape[1]), np.nan, dtype=np.float32)


def _shortened(row: np.ndarray, every: int) -> np.ndarray:
    """The mean of each `every` steps, counted from the end; missing ones do not count."""
    if every == 1:
        return row
    short = -len(row) % every
    whole = np.concatenate([np.full((short, row.shape[1]), np.nan, dtype=row.dtype), row]).reshape(-1, every, row.shape[1])
    known = np.isfinite(whole)
    count = known.sum(axis=1)
    return np.where(count, np.where(known, whole, 0).sum(axis=1) / np.maximum(count, 1), np.nan)
