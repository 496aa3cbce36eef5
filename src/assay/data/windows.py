"""Windows of many histories: a past and the future that followed it, cut at many origins, and what is common to all ways of learning from them.

A window is made free of units: `base` is the last season repeated, `size` the mean error that this makes in the window's past, so that (future - base) / size is
what there is to learn, and a model that has learnt nothing answers the last season.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.history import HISTORY, ORIGIN, History
from assay.data.lags import bridged, level_of, normal, repeated, row_quantiles

CLIPPED = 8.0  # no window may pull a line further than so many of its own sizes
MOST_HELD = 3000  # windows that judge
FEW_ROWS = 20.0  # with so many judging windows, learnt quantiles and the normal's count half each
PARTS = 6  # stretches of the horizon with errors of their own


@dataclass(frozen=True)
class Windows:
    """past: float64 (w, l), gaps bridged, NaN before the series began. future: (w, h), NaN where missing or not asked. series: (w,), which history.
    origin: (w,), how many of its steps were known. base: (w, h); level, size: (w,), size 0 where the past is one value all along."""

    past: np.ndarray
    future: np.ndarray
    series: np.ndarray
    origin: np.ndarray
    base: np.ndarray
    level: np.ndarray
    size: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.series)

    @property
    def wanted(self) -> np.ndarray:
        """(w, h): what there is to learn, clipped; NaN where the future is missing or the past is constant."""
        size = np.where(self.size > 0, self.size, np.nan)[:, None]
        return np.clip((self.future - self.base) / size, -CLIPPED, CLIPPED)


def cut(rows: Sequence[History], series: np.ndarray, origin: np.ndarray, *, past: int, horizon: int, season: int) -> Windows:
    """The windows that end after `origin` steps of the histories `series` (sorted), `past` steps long."""
    pasts, futures = np.full((len(series), past), np.nan), np.full((len(series), horizon), np.nan)
    for at in np.split(np.arange(len(series)), np.flatnonzero(np.diff(series)) + 1) if len(series) else []:
        values = rows[series[at[0]]].values
        padded = np.concatenate([np.full(past, np.nan), values, np.full(horizon, np.nan)])
        pasts[at] = np.lib.stride_tricks.sliding_window_view(padded, past)[origin[at]]
        futures[at] = np.lib.stride_tricks.sliding_window_view(padded[past:], horizon)[origin[at]]
    return _windows(pasts, futures, series, origin, season)


def asked(rows: Sequence[History], *, past: int, horizon: int, season: int) -> Windows:
    """The windows at the end of each history, whose future is asked for."""
    return cut(rows, np.arange(len(rows)), np.array([len(one.values) for one in rows], dtype=np.int64), past=past, horizon=horizon, season=season)


def _windows(past: np.ndarray, future: np.ndarray, series: np.ndarray, origin: np.ndarray, season: int) -> Windows:
    past[~np.isfinite(past)] = np.nan
    future[~np.isfinite(future)] = np.nan
    whole = bridged(past) if len(past) else past
    base = repeated(whole, season, future.shape[1])
    level = level_of(whole)
    marks = np.column_stack([_steps(whole[:, -3 * season - 8 :], season), _steps(whole, season), _steps(whole, 1), level])
    size = np.where(marks[:, 0] > 0, (marks[:, 0] * marks[:, 1]) ** 0.5, marks[:, 1])
    size = np.where(size > 0, np.maximum(size, 1e-3 * level), 0.0)
    return Windows(whole, future, series, origin, base, level, size, marks)


def _steps(table: np.ndarray, lag: int) -> np.ndarray:
    """(n,): the mean size of the differences `lag` steps apart, of neighbours where there are none."""
    out = np.zeros(len(table))
    for gap in (lag, 1):
        if table.shape[1] > gap:
            out = np.where(out > 0, out, level_of(table[:, gap:] - table[:, :-gap]))
    return out


@dataclass(frozen=True)
class Origins:
    """Which windows teach (`series`, `origin`) and which judge (`held_series`, `held_origin`): later ones, whose futures no teaching window has seen."""

    series: np.ndarray
    origin: np.ndarray
    held_series: np.ndarray
    held_origin: np.ndarray


def origins(rows: Sequence[History], *, horizon: int, least: int, most: int, seed: int) -> Origins:
    """At most `most` teaching windows, evenly over all series and times, each with `least` known steps before it or more; and up to 3,000 judging ones.

    Where no series is long enough to teach and to judge, some series teach and others judge.
    """
    rng = np.random.default_rng(seed)
    lengths = np.array([len(one.values) for one in rows], dtype=np.int64)
    usable = lengths - horizon - least  # the last possible origin, counted from `least`
    able = np.flatnonzero(usable >= 0)
    if not len(able):
        nothing = np.zeros(0, dtype=np.int64)
        return Origins(nothing, nothing, nothing, nothing)
    repeats = int(np.clip(300 // len(able), 1, 40))
    gap = max(1, horizon // 2)
    held: list[tuple[int, int]] = []
    teach_until = np.full(len(rows), -1, dtype=np.int64)
    for i in able:
        own = max(1, min(repeats, 1 + int(0.25 * lengths[i]) // gap))
        first = lengths[i] - horizon - (own - 1) * gap
        while own > 1 and first - horizon < least:
            own, first = own - 1, first + gap
        held += [(int(i), int(lengths[i]) - horizon - k * gap) for k in range(own)]
        teach_until[i] = first - horizon
    if (teach_until >= least).sum() < max(1, len(able) // 4):  # short series: a quarter of them judges
        judges = set(rng.permutation(able)[: max(1, len(able) // 4)].tolist()) if len(able) > 3 else set(able.tolist())
        held = [pair for pair in held if pair[0] in judges]
        for i in able:
            teach_until[i] = lengths[i] - horizon if i not in judges or len(able) <= 3 else -1
    if len(held) > MOST_HELD:
        held = [held[j] for j in np.sort(rng.permutation(len(held))[:MOST_HELD])]
    held.sort()
    return Origins(*_spread(teach_until, least, most, rng), *(np.array(side, dtype=np.int64) for side in zip(*held, strict=True)))


def every(rows: Sequence[History], *, horizon: int, least: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(series, origin) of at most `most` windows, the latest included: for the fit after the choices are made."""
    until = np.array([len(one.values) for one in rows], dtype=np.int64) - horizon
    return _spread(until, least, most, np.random.default_rng(seed))


def _spread(until: np.ndarray, least: int, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    counts = np.maximum(until - least + 1, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    chosen = np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))
    series = np.searchsorted(ends, chosen, side="right")
    return series, chosen - (ends - counts)[series] + least


class Spread:
    """Quantiles around a point, learnt from the errors of judging windows: how large they are beside the window's marks, and how they are distributed in each
    stretch of the horizon (their median too, which takes away a bias)."""

    def __init__(self, horizon: int, levels: Sequence[float]) -> None:
        self.horizon, self.levels = horizon, np.asarray(levels)
        self.parts = np.array_split(np.arange(horizon), min(PARTS, horizon))
        self.line = np.zeros(4)
        walk = np.sqrt(np.array([part.mean() + 1 for part in self.parts]) / (horizon / 2 + 0.5))
        self.quantiles = 1.2533 * walk[:, None] * normal(self.levels)[None, :]

    def learn(self, errors: np.ndarray, marks: np.ndarray) -> Spread:
        """errors: (w, h), truth - point, NaN where unknown. marks: (w, 4), see Windows."""
        size = level_of(errors)
        good = (marks[:, 0] > 0) & np.isfinite(errors).any(axis=1) & (size > 0)
        if good.sum() < 2:
            return self
        errors, x, y = errors[good], _ratios(marks[good]), np.log(size[good] / marks[good, 0])
        x[:, 0] = 1.0
        inverse = x.T @ x + np.diag([1e-6, *[0.1 * FEW_ROWS] * 3])
        self.line = np.linalg.solve(inverse, x.T @ y)
        scaled = errors / self.sizes(marks[good])[:, None]
        weight = len(scaled) / (len(scaled) + FEW_ROWS)
        for p, part in enumerate(self.parts):
            own = scaled[:, part].reshape(1, -1)
            if np.isfinite(own).any():
                bell = level_of(own)[0] * 1.2533 * normal(self.levels)
                self.quantiles[p] = weight * row_quantiles(own, self.levels)[0] + (1 - weight) * bell
        return self

    def sizes(self, marks: np.ndarray) -> np.ndarray:
        """(n,): how large errors are expected to be; 0 where the past is one value all along."""
        x = _ratios(marks)
        x[:, 0] = 1.0
        return np.where(marks[:, 1] > 0, np.maximum(marks[:, 0], 0.1 * marks[:, 1]) * np.exp(np.clip(x @ self.line, -3, 3)), 0.0)

    def cube(self, point: np.ndarray, marks: np.ndarray) -> np.ndarray:
        """(n, h, levels) around (n, h)."""
        by_step = np.concatenate([np.repeat(q[None], len(part), axis=0) for q, part in zip(self.quantiles, self.parts, strict=True)])
        return point[:, :, None] + self.sizes(marks)[:, None, None] * by_step[None]

    def json(self) -> dict[str, Any]:
        return {"line": self.line.tolist(), "quantiles": self.quantiles.tolist()}

    def read(self, packed: dict[str, Any]) -> Spread:
        self.line, self.quantiles = np.array(packed["line"]), np.array(packed["quantiles"])
        return self


def _ratios(marks: np.ndarray) -> np.ndarray:
    """(n, 4): the logarithm of each mark beside the first, within a factor of 30."""
    first = np.maximum(marks[:, :1], 0.1 * marks[:, 1:2])
    return np.log(np.clip(np.divide(marks, first, out=np.ones_like(marks), where=first > 0), 1 / 30, 30))


def ahead_of(rows: Sequence[History], series: np.ndarray, origin: np.ndarray, *, horizon: int, season: int) -> tuple[np.ndarray, np.ndarray]:
    """(values, before): the covariates known ahead of each window at its steps, and at the steps that its base repeats, both (w, horizon, k), NaN where unknown."""
    k = len(rows[0].names_ahead) if rows else 0
    values, before = np.full((len(series), horizon, k), np.nan), np.full((len(series), horizon, k), np.nan)
    if not k:
        return values, before
    for j, (i, known) in enumerate(zip(series, origin, strict=True)):
        one = rows[i]
        own = one.covariates[:, [one.names.index(name) for name in one.names_ahead]]
        after = own[known : known + horizon] if known < len(own) else one.ahead[:horizon]
        values[j, : len(after)] = after
        last = own[max(0, known - season) : known]
        if len(last) == season:
            before[j] = last[np.arange(horizon) % season]
        elif len(last):
            before[j] = last[-1]
    return values, before


def begun(train: Dataset) -> dict[str, tuple[int, Any]]:
    """{series: (steps known, time of the step after them)} of its longest history, so that each step of it has a time."""
    frame = train.frame
    out: dict[str, tuple[int, Any]] = {}
    channels = next(len(c.channels or ("",)) for c in train.schema.columns if c.name == HISTORY)
    ids = [str(i) for i in frame[train.schema.group].to_list()] if train.schema.group in frame.columns else [""] * frame.height
    whens = frame[ORIGIN].to_numpy() if ORIGIN in frame.columns else np.full(frame.height, np.datetime64("NaT"))
    for name, size, when in zip(ids, frame[HISTORY].bin.size().fill_null(0).to_list(), whens, strict=True):
        known = size // (4 * channels)
        if name not in out or known >= out[name][0]:
            out[name] = (known, None if np.isnat(when) else when)
    return out


