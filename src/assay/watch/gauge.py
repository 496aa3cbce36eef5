"""What recent rows are held against: for every trace a grid or a list of levels, and the reference's own counts on it.

Where a lens (directions in a text's or a picture's space) is learnt from reference rows, it is learnt from one half of them and the
counts are taken from the other: rows always look more usual to a lens that was made of them, and every new row would seem strange.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column
from assay.watch.sketch import Copies, Levels, Numbers, Sketches, frequent, packed, unpacked
from assay.watch.traces import Described, described, key

CELLS = 20  # of a grid, each with a twentieth of the reference
MOST_LEVELS = 1000
DIRECTIONS = 6
_LENS_ROWS = 400  # for the directions: the time grows with their square
_AT_ONCE = 1 << 18  # values whose comparisons stay in the cache: 1.3 ns a value and 19 edges, searchsorted takes 25


@dataclass(frozen=True)
class Grid:
    """edges: (k - 1,) ascending, k cells, a value on an edge belongs to the lower one. low, high: ends of the reference. atom: share of its most frequent value."""

    edges: np.ndarray
    low: float
    high: float
    centre: float
    scale: float
    atom: float

    @classmethod
    def of(cls, values: np.ndarray) -> Grid | None:
        """None where no value is known. Edges are values that occur, so that few different values keep cells of their own."""
        known = values[np.isfinite(values)].astype(np.float64)
        if not len(known):
            return None
        distinct, times = np.unique(known, return_counts=True)
        edges = distinct[:-1] if len(distinct) <= CELLS else np.unique(np.quantile(known, np.arange(1, CELLS) / CELLS, method="inverted_cdf"))
        edges = edges[edges < distinct[-1]]
        scale = float(known.std())
        return cls(edges, float(distinct[0]), float(distinct[-1]), float(known.mean()), scale if scale > 0 else max(abs(float(known[0])), 1.0), float(times.max() / len(known)))

    def count(self, values: np.ndarray) -> Numbers:
        """values: (n,) of any float, NaN and infinity count as missing."""
        made = Numbers(np.zeros(len(self.edges) + 1, dtype=np.int64))
        for at in range(0, len(values), _AT_ONCE):
            made = made.merge(self._count(values[at: at + _AT_ONCE]))
        return made

    def _count(self, values: np.ndarray) -> Numbers:
        finite = np.isfinite(values)
        n = int(np.count_nonzero(finite))
        missing, known = len(values) - n, values if n == len(values) else values[finite]
        if not n:
            return Numbers(np.zeros(len(self.edges) + 1, dtype=np.int64), missing)
        low, high = float(known.min()), float(known.max())
        if n < 4096:
            edges = self.edges.astype(known.dtype)
            counts = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1)
        else:
            held = np.empty(n, dtype=bool)
            above = [n, *(np.count_nonzero(np.greater(known, edge, out=held)) for edge in self.edges.tolist()), 0]
            counts = -np.diff(np.array(above))
        # the reference's ends in the precision of the values, or 0.1 of a 32-bit column would lie outside of 0.1
        below = int(np.count_nonzero(known < known.dtype.type(self.low))) if low < self.low else 0
        beyond = int(np.count_nonzero(known > known.dtype.type(self.high))) if high > self.high else 0
        centred = known - known.dtype.type(self.centre)
        total = float(centred.sum(dtype=np.float64)) / self.scale
        square = float(np.square(centred, out=centred).sum()) / self.scale**2
        return Numbers(counts.astype(np.int64), missing, below, beyond, total, square, low, high)


@dataclass(frozen=True)
class Lexicon:
    """The levels that the reference knows, most frequent first."""

    levels: tuple[str, ...]

    @classmethod
    def of(cls, cells: pl.Series) -> Lexicon:
        counts = cells.drop_nulls().value_counts(sort=False)
        counts = counts.sort(["count", counts.columns[0]], descending=[True, False])
        return cls(tuple(counts[counts.columns[0]].head(MOST_LEVELS).to_list()))

    @cached_property
    def places(self) -> dict[str, int]:
        return {level: i for i, level in enumerate(self.levels)}

    def count(self, cells: pl.Series) -> Levels:
        counts = np.zeros(len(self.levels), dtype=np.int64)
        found = cells.drop_nulls().value_counts()
        level, times = found.columns
        known = found.filter(pl.col(level).is_in(self.levels)) if found.height > 4 * len(self.levels) + 64 else found
        new: dict[str, int] = {}
        for name, n in known.iter_rows():
            place = self.places.get(name)
            if place is None:
                new[name] = n
            else:
                counts[place] = n
        if known is not found:
            new = dict(found.filter(~pl.col(level).is_in(self.levels)).top_k(65, by=times).iter_rows())
        return Levels(counts, cells.null_count(), int(found[times].sum()) - int(counts.sum()), frequent([new]))


@dataclass(frozen=True)
class Lens:
    """Directions in the space of a text's or a picture's features: centre (d,), axes (k, d). seen: (d,) places that half the reference fills, texts only."""

    centre: np.ndarray
    axes: np.ndarray
    seen: np.ndarray | None = None

    @classmethod
    def of(cls, space: Any) -> Lens:
        """The principal directions, none if there are too few rows; their signs are fixed by the largest weight."""
        seen = None if isinstance(space, np.ndarray) else np.asarray(space.getnnz(axis=0) > 0)
        some = space[np.linspace(0, space.shape[0] - 1, min(space.shape[0], _LENS_ROWS)).astype(np.int64)]
        space = some if seen is None else _dense(some)
        centre = space.mean(axis=0)
        away = (space - centre).astype(np.float64)
        weight, place = np.linalg.eigh(away @ away.T)  # of the rows, which are fewer than the features: a tenth of the time of a decomposition
        best = np.argsort(-weight)[: min(DIRECTIONS, len(space) // 20, space.shape[1])]
        best = best[weight[best] > 1e-9 * max(weight.max(), 1e-12)]
        axes = (place[:, best].T @ away) / np.sqrt(weight[best])[:, None]
        axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
        return cls(centre.astype(np.float32), axes.astype(np.float32), seen)

    def parts(self, space: Any) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        if self.seen is not None:
            total = np.maximum(np.asarray(space.sum(axis=1)).ravel(), 1)
            out["new"] = np.round(np.asarray(space @ (~self.seen).astype(np.float64)).ravel() / total, 4)
            space = _dense(space)
        # rounded, because a product of matrices differs in its last digits with the number of rows, and equal texts would fall on either side of an edge
        places = np.round(((space - self.centre) @ self.axes.T).astype(np.float64), 4)
        return out | {f"direction{i + 1}": places[:, i] for i in range(places.shape[1])}


def _dense(space: Any) -> np.ndarray:
    """Rows of damped counts at length 1, so that long texts count like short ones."""
    full = np.log1p(space.toarray())
    return full / np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class Gauge:
    """columns: those that are watched. grids: {trace: Grid or Lexicon}. lenses: {column: Lens}. reference: the reference's own sketches."""

    columns: tuple[Column, ...]
    grids: dict[str, Grid | Lexicon]
    lenses: dict[str, Lens]
    reference: Sketches = field(repr=False)

    @classmethod
    def learn(cls, frame: pl.DataFrame, columns: Sequence[Column]) -> Gauge:
        """frame: reference rows as `conform` makes them. A column without one known value is left out; `columns` then lacks it."""
        grids: dict[str, Grid | Lexicon] = {}
        lenses: dict[str, Lens] = {}
        traces: dict[str, Numbers | Levels] = {}
        kept = []
        for column in columns:
            about = described(column, frame[column.name])
            if about.space is not None and about.space.shape[0] >= 40:
                half = np.arange(about.space.shape[0]) % 2 == 0
                lenses[column.name] = lens = Lens.of(about.space[half])
                about.numbers |= lens.parts(about.space[~half])
            made: dict[str, Grid | Lexicon] = {key(column.name, part): Lexicon.of(cells) for part, cells in about.levels.items() if cells.null_count() < len(cells)}
            made |= {key(column.name, part): grid for part, values in about.numbers.items() if (grid := Grid.of(values)) is not None}
            if made:
                kept.append(column)
                grids |= made
                traces |= _counted(column, about, made)
        digest = hashlib.sha256(repr([(k, g.levels if isinstance(g, Lexicon) else g.edges.tolist()) for k, g in grids.items()]).encode()).hexdigest()[:16]
        return cls(tuple(kept), grids, lenses, Sketches(digest, frame.height, traces, copies(frame, kept)))

    def measure(self, frame: pl.DataFrame, *, copied: bool = True) -> Sketches:
        """The sketches of new rows, which hold at least this gauge's columns, as `conform` makes them. copied: count duplicates too."""
        made = Sketches(self.reference.gauge, frame.height)
        for column in self.columns:
            about = described(column, frame[column.name])
            lens = self.lenses.get(column.name)
            if lens is not None and about.space is not None:
                about.numbers |= lens.parts(about.space)
            made.traces |= _counted(column, about, self.grids)
            if about.broken:
                made.unread[column.name] = about.broken
        if copied:
            made.copies = copies(frame, self.columns)
        return made

    def counted_on(self, reference: Sketches) -> Gauge:
        """The same grids with the counts of more reference rows than those that made the grids."""
        return replace(self, reference=reference)

    def to_bytes(self) -> bytes:
        """One npz without pickled objects, the reference's sketches inside."""
        arrays: dict[str, np.ndarray] = {"reference": np.frombuffer(self.reference.to_bytes(), dtype=np.uint8)}
        grids: list[list[Any]] = []
        for name, grid in self.grids.items():
            grids.append([name, list(grid.levels)] if isinstance(grid, Lexicon) else [name, grid.edges.tolist(), grid.low, grid.high, grid.centre, grid.scale, grid.atom])
        for i, lens in enumerate(self.lenses.values()):
            arrays |= {f"centre{i}": lens.centre, f"axes{i}": lens.axes} | ({} if lens.seen is None else {f"seen{i}": lens.seen})
        columns = [{k: v for k, v in vars(c).items() if v is not None} for c in self.columns]
        return packed({"format": 1, "columns": columns, "grids": grids, "lenses": list(self.lenses)}, **arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Gauge:
        said, arrays = unpacked(data)
        grids = {name: Lexicon(tuple(rest[0])) if len(rest) == 1 else Grid(np.array(rest[0], dtype=np.float64), *rest[1:]) for name, *rest in said["grids"]}
        lenses = {name: Lens(arrays[f"centre{i}"], arrays[f"axes{i}"], arrays.get(f"seen{i}")) for i, name in enumerate(said["lenses"])}
        columns = tuple(Column(**c | ({"channels": tuple(c["channels"])} if "channels" in c else {})) for c in said["columns"])
        return cls(columns, grids, lenses, Sketches.from_bytes(arrays["reference"].tobytes()))


def _counted(column: Column, about: Described, grids: dict[str, Grid | Lexicon]) -> dict[str, Numbers | Levels]:
    out: dict[str, Numbers | Levels] = {}
    for part, values in (*about.numbers.items(), *about.levels.items()):
        grid = grids.get(name := key(column.name, part))
        if grid is not None:
            out[name] = grid.count(values)  # type: ignore[arg-type]
    return out


def copies(frame: pl.DataFrame, columns: Sequence[Column]) -> Copies:
    """Hashes of whole rows; the same on the same version of polars, which is enough for windows of days."""
    return Copies.of(frame.select(c.name for c in columns).hash_rows(seed=0).to_numpy()) if columns and frame.height else Copies()
