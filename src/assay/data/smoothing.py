"""Exponential smoothing of thousands of series at once: every form on a grid runs over every series, and what it foresaw from earlier steps says how far to trust it.

The recursions are those of Holt and Winters with a damped trend (Hyndman et al. 2008, Forecasting with Exponential Smoothing, chapter 2), additive, on the values
and, where all are above zero, on their logarithms too, which makes them multiplicative. Nothing is optimised by steps, so that a form costs a few array operations
a time step for all series together: 30,000 series of 100 steps take seconds, where a fit to each by itself takes an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.data.lags import bridged

ALPHAS = (0.03, 0.1, 0.2, 0.4, 0.7, 0.97)
TRENDS = ((0.0, 0.0), (0.02, 1.0), (0.1, 0.98), (0.3, 0.9))  # (share of alpha that moves the trend, damping); damping 0: no trend
GAMMAS = (0.0, 0.1, 0.3, 0.9)
LOOKS = 8  # earlier steps from which each form is tried
STEPS = 12  # of the horizon that are looked at there
CELLS = 6_000_000  # series x forms x season in memory at once, 4 bytes each
SHARP = 12.0  # a form that errs 10 % more than the best counts exp(-1.2) = 0.3 times as much
OWN_LOOKS = 2.0  # a form's fame among all series weighs as much as so many looks of the series' own
FAR = 40.0  # sizes: no state runs further


@dataclass(frozen=True)
class Forms:
    """A grid of smoothing forms, each array (g,)."""

    alpha: np.ndarray
    beta: np.ndarray
    phi: np.ndarray
    gamma: np.ndarray

    @classmethod
    def of(cls, season: int) -> Forms:
        grid = [(a, a * b, p, g * (1 - a)) for a in ALPHAS for b, p in TRENDS for g in (GAMMAS if season > 1 else (0.0,))]
        return cls(*(np.array(column, dtype=np.float32) for column in zip(*grid, strict=True)))

    def __len__(self) -> int:
        return len(self.alpha)


@dataclass
class Run:
    """What every form did on some series. score: (n, g), mean size of its errors when it looked ahead, inf where it failed. looks: (n,), how often it did.
    level, trend: (n, g) and seasonal: (m, n, g) at the end; centre, size: (n,), of the values that were smoothed; logged: they were logarithms."""

    score: np.ndarray
    looks: np.ndarray
    level: np.ndarray
    trend: np.ndarray
    seasonal: np.ndarray | None
    centre: np.ndarray
    size: np.ndarray
    logged: bool

    def at(self, forms: Forms, k: int, end: int) -> np.ndarray:
        """(n, g): in units of the series, the step `k` (from 0) after the column `end`."""
        return self.back(self.level + self.trend * _reach(forms, k) + (0 if self.seasonal is None else self.seasonal[(end + k) % len(self.seasonal)]))

    def back(self, smoothed: np.ndarray) -> np.ndarray:
        value = self.centre[:, None] + self.size[:, None] * np.clip(smoothed, -FAR, FAR)
        return np.exp(np.minimum(value, 80.0)) if self.logged else value


class Smoother:
    """Runs the grid over tables of histories, see `lags.recent`. fame: (2 g,), how each form did among all series beside the mean of the forms, values then logarithms;
    ones before `learn`."""

    def __init__(self, horizon: int, season: int) -> None:
        self.horizon, self.season = horizon, max(1, season)
        self.forms, self.plain = Forms.of(self.season), Forms.of(1)
        self.fame = np.ones(2 * len(self.forms))
        self.plain_fame = np.ones(2 * len(self.plain))

    @property
    def reads(self) -> int:
        return int(np.clip(12 * self.season, 200, 1500)) + self.horizon

    def learn(self, table: np.ndarray) -> Smoother:
        """Fame from the histories of a table."""
        for seasonal, part in self._parts(table):
            fame = []
            for runs in self._runs(bridged(table[part]), seasonal):
                score, looks = np.concatenate([r.score for r in runs], axis=1), runs[0].looks
                score = score[looks > 0]
                usual: np.ndarray = np.where(np.isfinite(score), score, np.nan)
                count = np.isfinite(usual).sum(axis=1)
                mean = np.where(count > 0, np.nansum(usual, axis=1) / np.maximum(count, 1), 1.0)
                fame.append(np.minimum(score[mean > 0] / mean[mean > 0, None], 3.0))
            many = np.concatenate(fame) if fame else np.zeros((0, 1))
            if len(many):
                learnt = (many.sum(axis=0) + 5.0) / (len(many) + 5.0)
                if seasonal:
                    self.fame = learnt
                else:
                    self.plain_fame = learnt
        return self

    def point(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n, horizon), (n,)): the forms' forecasts, weighted by how they did, and the mean size of the errors of the best ones when they looked ahead (0: never)."""
        out, error = np.zeros((len(table), self.horizon)), np.zeros(len(table))
        for seasonal, part in self._parts(table):
            forms, fame = (self.forms, self.fame) if seasonal else (self.plain, self.plain_fame)
            done = 0
            for runs in self._runs(bridged(table[part]), seasonal):
                rows = part[done : done + len(runs[0].looks)]
                done += len(rows)
                weight, error[rows] = _weights(runs, fame)
                for k in range(self.horizon):
                    told = np.concatenate([run.at(forms, k, table.shape[1]) for run in runs], axis=1)
                    out[rows, k] = (weight * np.where(weight > 0, told, 0.0)).sum(axis=1)
        return out, error

    def _parts(self, table: np.ndarray) -> list[tuple[bool, np.ndarray]]:
        """Which rows are long enough for a season, and which are not."""
        known = _first(table)
        long = (table.shape[1] - known >= 2 * self.season + 2) if self.season > 1 else np.zeros(len(table), dtype=bool)
        return [(seasonal, rows) for seasonal, rows in ((True, np.flatnonzero(long)), (False, np.flatnonzero(~long))) if len(rows)]

    def _runs(self, table: np.ndarray, seasonal: bool):  # type: ignore[no-untyped-def]
        """For each chunk of rows, in their order: [a run on the values, a run on the logarithms]."""
        forms, season = (self.forms, self.season) if seasonal else (self.plain, 1)
        size = max(16, CELLS // (len(forms) * (season + 6)))
        for begin in range(0, len(table), size):
            part = table[begin : begin + size]
            yield [_run(part, forms, season, self.horizon, logged=logged) for logged in (False, True)]


def _run(table: np.ndarray, forms: Forms, season: int, horizon: int, *, logged: bool) -> Run:
    n, width = table.shape
    first = _first(table)
    order = np.argsort(first, kind="stable")  # the longest first: those that have begun are always the upper rows
    back = np.argsort(order)
    values, first = table[order], first[order]
    column = np.arange(width)
    begun = column[None, :] >= first[:, None]
    positive = np.asarray((np.where(begun, values, 1.0) > 0).all(axis=1))
    y = np.where(begun, np.log(np.where(begun & positive[:, None], values, 1.0)) if logged else values, 0.0)
    count = begun.sum(axis=1)
    centre = y.sum(axis=1) / count
    size = np.sqrt((np.where(begun, y - centre[:, None], 0.0) ** 2).sum(axis=1) / count)
    size = np.where(size > 1e-9 * np.maximum(np.abs(centre), 1e-9), size, 0.0)
    y = np.where(begun, (y - centre[:, None]) / np.where(size > 0, size, 1.0)[:, None], 0.0).astype(np.float32)
    level, trend, seasonal = (np.repeat(part[..., None], len(forms), axis=-1) for part in _begin(y, first, season))
    trend *= forms.phi > 0
    run = Run(np.zeros((n, len(forms))), np.zeros(n), level, trend, seasonal if season > 1 else None, centre, size, logged)
    looks = [width - horizon - r * max(1, horizon // 3) for r in range(LOOKS)]
    active = np.searchsorted(first, column, side="right")
    alpha, beta, phi, gamma = forms.alpha, forms.beta, forms.phi, forms.gamma
    for t in range(int(first.min()), width):
        if t in looks:
            _look(run, forms, values, t, horizon, ready=first <= t - max(4, 2 * season, (width - first.min()) // 4))
        k = int(active[t])
        one, slope = level[:k], trend[:k]
        slope *= phi
        one += slope
        if season > 1:
            error = y[:k, t, None] - one - seasonal[t % season, :k]
            seasonal[t % season, :k] += gamma * error
        else:
            error = y[:k, t, None] - one
        one += alpha * error
        slope += beta * error
    run.score = np.where(run.looks[:, None] > 0, run.score / np.maximum(run.looks, 1)[:, None], 1.0)
    run.score[~np.isfinite(run.score)] = np.inf
    if logged:
        run.score[~positive] = np.inf
    seasonal_back = None if run.seasonal is None else run.seasonal[:, back]
    return Run(run.score[back], run.looks[back], level[back], trend[back], seasonal_back, centre[back], size[back], logged)


def _look(run: Run, forms: Forms, values: np.ndarray, t: int, horizon: int, ready: np.ndarray) -> None:
    """Adds the mean size of the errors of the steps from column `t` on, as they are foreseen now."""
    rows = int(ready.sum())  # sorted by length: the upper ones
    if not rows:
        return
    upper = Run(run.score[:rows], run.looks[:rows], run.level[:rows], run.trend[:rows], None if run.seasonal is None else run.seasonal[:, :rows], run.centre[:rows],
                run.size[:rows], run.logged)
    steps = np.unique(np.linspace(0, horizon - 1, STEPS).round().astype(int))
    for k in steps:
        upper.score += np.abs(values[:rows, t + k, None] - upper.at(forms, int(k), t)) / len(steps)
    upper.looks += 1


def _begin(y: np.ndarray, first: np.ndarray, season: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level (n,), trend (n,) and season (m, n), by column modulo m, before the first step: a line through the first half of each series and what it leaves."""
    n, width = y.shape
    column = np.arange(width)
    length = width - first
    used = np.clip(length // (2 * season), 2, 10) * season if season > 1 else np.clip(length // 2, np.minimum(10, length), 40)
    inside = (column[None, :] >= first[:, None]) & (column[None, :] < (first + used)[:, None])
    time = np.where(inside, column[None, :] - first[:, None], 0.0)
    count = inside.sum(axis=1)
    middle = time.sum(axis=1) / count
    mean = np.where(inside, y, 0.0).sum(axis=1) / count
    away = np.where(inside, time - middle[:, None], 0.0)
    slope = (away * y).sum(axis=1) / np.maximum((away**2).sum(axis=1), 1e-9)
    left = np.where(inside, y - mean[:, None] - slope[:, None] * away, 0.0)
    seasonal = np.zeros((season, n), dtype=np.float32)
    if season > 1:
        for phase in range(season):
            seasonal[phase] = left[:, phase::season].sum(axis=1) / np.maximum(inside[:, phase::season].sum(axis=1), 1)
    else:
        slope = 0.5 * slope
    return (mean - slope * (middle + 1)).astype(np.float32), slope.astype(np.float32), seasonal


def _weights(runs: Sequence[Run], fame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((n, 2 g) that sum to 1, (n,) the weighted mean size of the errors)."""
    score, looks = np.concatenate([run.score for run in runs], axis=1), runs[0].looks
    there = np.isfinite(score)
    mean = np.where(there, score, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    relative = np.where(there, score, 0.0) / np.where(mean > 0, mean, 1.0)[:, None]
    mixed = (looks[:, None] * relative + OWN_LOOKS * fame) / (looks[:, None] + OWN_LOOKS)
    mixed = np.where(there, mixed, np.inf)
    least = mixed.min(axis=1, keepdims=True)
    weight = np.exp(-SHARP * (mixed / np.where(np.isfinite(least) & (least > 0), least, 1.0) - 1))
    weight = np.where(there, weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return weight, np.where(looks > 0, (weight * np.where(there, score, 0.0)).sum(axis=1), 0.0)


def _reach(forms: Forms, k: int) -> np.ndarray:
    """(g,): phi + phi^2 + ... + phi^(k + 1)."""
    phi = forms.phi.astype(np.float64)
    return np.where(phi >= 1, k + 1.0, phi * (1 - phi ** (k + 1)) / np.where(phi < 1, 1 - phi, 1.0)).astype(np.float32)


def _first(table: np.ndarray) -> np.ndarray:
    """(n,): the first known column of each row; the last one where nothing is known."""
    there = np.isfinite(table)
    return np.where(there.any(axis=1), np.argmax(there, axis=1), table.shape[1] - 1)
