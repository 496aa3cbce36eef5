"""What is kept of a column: counts on a fixed grid. One pass, mergeable, a few hundred bytes for a number column however many rows there were.

The grid (its edges, its known levels) belongs to the reference and lies in `gauge.py`; a sketch holds counts only, so merging is adding,
and the sketch of a concatenation is the merge of the sketches. Rank error of a quantile read from it: at most the share of one cell, 5 %.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.errors import InputError

NEW_LEVELS = 64  # heavy hitters kept of levels that the reference does not have
KEPT_ROWS = 1024  # hashes by which duplicates are counted
_FORMAT = 1


@dataclass
class Numbers:
    """Counts (k,) of the grid's cells, missing values, values outside of the reference's range, moments of (x - centre) / scale, ends."""

    counts: np.ndarray
    missing: int = 0
    below: int = 0
    above: int = 0
    total: float = 0.0
    square: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def merge(self, other: Numbers) -> Numbers:
        return Numbers(self.counts + other.counts, self.missing + other.missing, self.below + other.below, self.above + other.above,
                       self.total + other.total, self.square + other.square, min(self.low, other.low), max(self.high, other.high))

    @property
    def mean(self) -> float:
        """In units of the grid's scale, from its centre."""
        return self.total / self.n if self.n else 0.0

    @property
    def variance(self) -> float:
        return max(self.square / self.n - self.mean**2, 0.0) if self.n else 0.0


@dataclass
class Levels:
    """Counts (k,) of the known levels, missing values, and of levels that are not known the sum and the most frequent.

    new: {level: count} by Misra and Gries (1982) with NEW_LEVELS counters; merged as in Agarwal et al. (2013), doi:10.1145/2500128: a count is
    too low by at most unknown / (NEW_LEVELS + 1). unknown: exact.
    """

    counts: np.ndarray
    missing: int = 0
    unknown: int = 0
    new: dict[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return int(self.counts.sum()) + self.unknown

    def merge(self, other: Levels) -> Levels:
        return Levels(self.counts + other.counts, self.missing + other.missing, self.unknown + other.unknown, frequent([self.new, other.new]))


def frequent(parts: Iterable[dict[str, int]], most: int = NEW_LEVELS) -> dict[str, int]:
    """The sum of the counts; where there are more than `most`, the (most + 1)-th largest is taken off all and what is left above zero kept."""
    summed: dict[str, int] = {}
    for part in parts:
        for level, count in part.items():
            summed[level] = summed.get(level, 0) + count
    if len(summed) <= most:
        return summed
    cut = sorted(summed.values(), reverse=True)[most]
    return {level: count - cut for level, count in summed.items() if count > cut}


@dataclass
class Copies:
    """Duplicate rows from the KEPT_ROWS smallest hashes and how often each came (bottom-k, Cohen & Kaplan 2007): a kept hash was
    below the limit from its first row on, so its count is exact."""

    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    times: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, hashes: np.ndarray) -> Copies:
        unique, times = np.unique(hashes.astype(np.uint64), return_counts=True)
        return cls(unique[:KEPT_ROWS], times[:KEPT_ROWS].astype(np.int64))

    def merge(self, other: Copies) -> Copies:
        unique, place = np.unique(np.concatenate([self.hashes, other.hashes]), return_inverse=True)
        times = np.bincount(place, weights=np.concatenate([self.times, other.times]), minlength=len(unique)).astype(np.int64)
        return Copies(unique[:KEPT_ROWS], times[:KEPT_ROWS])

    @property
    def share(self) -> float:
        """Share of rows that repeat an earlier one."""
        return 1.0 - len(self.times) / float(self.times.sum()) if len(self.times) else 0.0


@dataclass
class Sketches:
    """The sketches of some rows. gauge: digest of the grids they were counted on. traces: {key: Numbers or Levels}, see `traces.py`."""

    gauge: str
    rows: int = 0
    traces: dict[str, Numbers | Levels] = field(default_factory=dict)
    copies: Copies = field(default_factory=Copies)
    unread: dict[str, int] = field(default_factory=dict)

    def merge(self, other: Sketches) -> Sketches:
        """The sketches of both. A trace that one side lacks is taken from the other. Raises ValueError if they were counted on different grids."""
        if self.gauge != other.gauge:
            raise ValueError("sketches of different gauges cannot be merged")
        traces = dict(self.traces)
        for key, mine in other.traces.items():
            traces[key] = traces[key].merge(mine) if key in traces else mine  # type: ignore[arg-type]
        unread = {k: self.unread.get(k, 0) + other.unread.get(k, 0) for k in self.unread | other.unread}
        return Sketches(self.gauge, self.rows + other.rows, traces, self.copies.merge(other.copies), unread)

    def to_bytes(self) -> bytes:
        """A compressed npz without pickled objects: counts of all traces in one array, the rest as JSON."""
        said: dict[str, Any] = {"format": _FORMAT, "gauge": self.gauge, "rows": self.rows, "unread": self.unread, "traces": []}
        for key, trace in self.traces.items():
            if isinstance(trace, Numbers):
                said["traces"].append([key, "n", len(trace.counts), trace.missing, trace.below, trace.above, trace.total, trace.square,
                                       *((trace.low, trace.high) if trace.n else (None, None))])
            else:
                said["traces"].append([key, "l", len(trace.counts), trace.missing, trace.unknown, trace.new])
        counts = np.concatenate([t.counts for t in self.traces.values()]) if self.traces else np.zeros(0, np.int64)
        return packed(said, counts=counts.astype(np.int64), hashes=self.copies.hashes, times=self.copies.times)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sketches:
        """Raises InputError if these are no sketches, or of a newer format."""
        said, arrays = unpacked(data)
        made, at, counts = cls(said["gauge"], said["rows"], unread=said["unread"]), 0, arrays["counts"]
        for key, kind, k, *rest in said["traces"]:
            own, at = counts[at: at + k], at + k
            if kind == "n":
                *sums, low, high = rest
                made.traces[key] = Numbers(own, *sums, *((np.inf, -np.inf) if low is None else (low, high)))
            else:
                made.traces[key] = Levels(own, *rest)
        made.copies = Copies(arrays["hashes"], arrays["times"])
        return made


def packed(said: dict[str, Any], **arrays: np.ndarray) -> bytes:
    """JSON and arrays as one npz."""
    out = io.BytesIO()
    held: dict[str, Any] = {"said": np.frombuffer(json.dumps(said, ensure_ascii=False).encode(), dtype=np.uint8), **arrays}
    np.savez_compressed(out, **held)
    return out.getvalue()


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        said = json.loads(arrays.pop("said").tobytes())
        number = said["format"]
    except Exception as error:  # whatever bytes of unknown origin make a parser raise
        raise InputError("These are no sketches of assay ({error}). Let `assay watch` make them again from the rows.", error=type(error).__name__) from None
    if number != _FORMAT:
        raise InputError("These sketches have format {found}; this version of assay reads format {known}. Make them again from the rows.", found=number, known=_FORMAT)
    return said, arrays
