"""Windows of many series, as the networks that forecast read them: the last steps of one series, scaled by the series itself, and what is known of the next ones.

A window's centre is the mean of its last season; its unit is the mean absolute step from one season to the next up to its origin, which is what the
loss of the question divides by, so that a network's loss on windows is the loss that it is judged by. Nothing after a window's origin enters it but
covariates that are known ahead and the calendar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.data.grid import seconds_of, times_after
from assay.data.history import ORIGIN, History
from assay.data.windows import begun
from assay.neural.rows import Rows

SLOTS = (512, 8192)  # windows of a pass over the series: at least and at most
HELD, FEW_SERIES = (64, 1000), 64  # windows that judge: at least and at most; up to so many series judge by several origins each
LATE_SHARE = 0.2  # of a series' steps that may be kept for judging
SMOOTHEST = 20.0  # times its unit that a window may spread
SEASONS = 4  # whose mean at a step's place stands beside the step, however far back they reach
OWN = 3  # channels of the steps to be forecast that every window has


@dataclass(frozen=True)
class Reader:
    """How series become windows. Learnt from the series that teach, and kept as JSON.

    calendar: of 'day', 'week', 'year', whose phase the steps have. names, names_ahead: covariates; centers and spreads: of all of them, by name.
    center, unit: of a typical series, for one of which nothing is known.
    """

    horizon: int
    season: int
    frequency: str
    length: int
    names: tuple[str, ...] = ()
    names_ahead: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    centers: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    center: float = 0.0
    unit: float = 1.0

    @classmethod
    def learn(cls, series: Sequence[History], *, horizon: int, season: int, frequency: str, length: int, timed: bool) -> Reader:
        """timed: the rows say when their steps are."""
        names = series[0].names if series else ()
        centers, spreads = {}, {}
        for k, name in enumerate(names):
            every = np.concatenate([one.covariates[:, k] for one in series])
            known = every[np.isfinite(every)]
            if len(known):
                centers[name], spreads[name] = float(known.mean()), float(known.std()) or 1.0
        levels = [float(np.nanmean(one.values)) for one in series if np.isfinite(one.values).any()]
        longest = max((len(one.values) for one in series), default=0)
        made = cls(horizon, season, frequency, length, names, series[0].names_ahead if series else (), _phases(frequency, longest) if timed else (), centers, spreads)
        units = Windows(made, series, [None] * len(series)).scale(np.arange(len(series)), np.array([len(one.values) for one in series], dtype=np.int64))
        return cls(**vars(made) | {"center": float(np.median(levels)) if levels else 0.0, "unit": float(np.median(units)) if len(units) else 1.0})

    @property
    def past(self) -> int:
        """Channels of a window's own steps: the value, whether it is known, the covariates."""
        return 2 + len(self.names)

    @property
    def ahead(self) -> int:
        """Channels of the steps to be forecast: how far they are, the value a season before, the mean of `SEASONS` seasons, the calendar, the covariates."""
        return OWN + sum(3 if phase == "week" else 2 for phase in self.calendar) + len(self.names_ahead)

    def json(self) -> dict[str, Any]:
        return vars(self) | {"names": list(self.names), "names_ahead": list(self.names_ahead), "calendar": list(self.calendar)}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Reader:
        return cls(**packed | {name: tuple(packed[name]) for name in ("names", "names_ahead", "calendar")})

    def phases(self, next_step: np.datetime64 | None, steps: np.ndarray) -> np.ndarray:
        """The calendar of some steps, float32 (len(steps), c). next_step: the time of step 0; None: nothing is known, zeros."""
        wide = self.ahead - OWN - len(self.names_ahead)
        if not wide or next_step is None:
            return np.zeros((len(steps), wide), dtype=np.float32)
        times = times_of(next_step, steps, self.frequency)
        days = times.astype("datetime64[D]")
        out = []
        for phase in self.calendar:
            if phase == "day":
                share = (times - days) / np.timedelta64(1, "D")
            elif phase == "week":
                share = ((times - np.datetime64("1970-01-05")) / np.timedelta64(1, "D")) % 7 / 7  # a Monday
                out.append((share >= 5 / 7).astype(float))
            else:
                share = (days - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(float) / 365.25
            out += [np.sin(2 * np.pi * share), np.cos(2 * np.pi * share)]
        return np.stack(out, axis=1).astype(np.float32)


class Windows:
    """Series end to end, from which a window is cut by the numbers of its series and its first step to be forecast.

    next_steps: the time of the step after each series' last, or None.
    """

    def __init__(self, reader: Reader, series: Sequence[History], next_steps: Sequence[np.datetime64 | None]) -> None:
        self.reader, pad, h = reader, reader.length, reader.horizon
        lengths = np.array([len(one.values) for one in series], dtype=np.int64)
        self.lengths = lengths
        self.first = np.cumsum(lengths + pad + h) - lengths - h if len(lengths) else lengths
        total = int((lengths + pad + h).sum())
        self.values, self.there = np.zeros(total), np.zeros(total, dtype=np.float32)
        self.past = np.zeros((total, len(reader.names)), dtype=np.float32)
        self.ahead = np.zeros((total, reader.ahead - OWN), dtype=np.float32)
        self._sums = np.zeros((3, 2, total))  # of the seasonal steps, of the steps to the neighbour, of the level: up to each step, and how many
        self.begin = self.first.copy()  # where the first known value of each lies
        for i, one in enumerate(series):
            here = slice(int(self.first[i]), int(self.first[i] + lengths[i]))
            self.values[here], gap = carried(one.values, reader.season)
            self.there[here] = np.isfinite(one.values)
            self.begin[i] += gap
            self._covariates(one, here)
            self._sum(one.values, int(self.first[i]))
            phases = reader.phases(next_steps[i], np.arange(-int(lengths[i]), h))
            self.ahead[here.start : here.stop + h, : phases.shape[1]] = phases

    def _covariates(self, one: History, here: slice) -> None:
        reader = self.reader
        column = {name: k for k, name in enumerate(one.names)}
        for k, name in enumerate(reader.names):
            if name in column and name in reader.centers:
                self.past[here, k] = self._standard(one.covariates[:, column[name]], name)
        for k, name in enumerate(reader.names_ahead):
            place = self.ahead.shape[1] - len(reader.names_ahead) + k
            self.ahead[here, place] = self.past[here, reader.names.index(name)]
            if name in one.names_ahead and name in reader.centers:
                known = one.ahead[: reader.horizon, one.names_ahead.index(name)]
                self.ahead[here.stop : here.stop + len(known), place] = self._standard(known, name)

    def _standard(self, values: np.ndarray, name: str) -> np.ndarray:
        """Missing ones are 0, the mean."""
        scaled = (values - self.reader.centers[name]) / self.reader.spreads[name]
        return np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32)

    def _sum(self, values: np.ndarray, first: int) -> None:
        """Running sums of one series; each has its own, so that a series of billions beside it costs no digits."""
        for sums, lag in zip(self._sums, (self.reader.season, 1, 0), strict=True):
            if lag < len(values):
                size = np.abs(values[lag:] - values[:-lag]) if lag else np.abs(values)
                known = np.isfinite(size)
                at = slice(first + lag + 1, first + len(values) + 1)
                sums[0, at], sums[1, at] = np.cumsum(np.where(known, size, 0.0)), np.cumsum(known)

    def scale(self, which: np.ndarray, origin: np.ndarray) -> np.ndarray:
        """(b,), above zero: the mean absolute seasonal step before the origin; of neighbours, or the level, where there is none; of a typical series
        where nothing is known."""
        total, number = self._sums[:, :, self.first[which] + origin].transpose(1, 0, 2)
        season, step, level = total / np.maximum(number, 1)
        out = np.where(level > 0, level, self.reader.unit)
        for size in (step, season):
            out = np.where((size > 1e-12 * level) & (size > 0), size, out)
        return out

    def cut(self, which: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x float32 (b, length, past), z float32 (b, horizon, ahead), center (b,), unit (b,) of the windows before these origins."""
        reader, n = self.reader, len(which)
        at = (self.first[which] + origin)[:, None]
        back = at + np.arange(-reader.length, 0)
        values, there = self.values[back], self.there[back]
        inside = back >= self.begin[which][:, None]
        late = min(max(reader.season, 4), reader.length)
        center = _mean(values[:, -late:], there[:, -late:])
        center = np.where(np.isnan(center), _mean(values, there), center)
        ever = self._sums[2, 1, at[:, 0]] > 0
        center = np.where(np.isnan(center), np.where(ever, values[:, -1], reader.center), center)
        apart = np.where(inside, values - center[:, None], 0.0)
        spread = np.sqrt(np.mean(apart**2, axis=1))
        unit = np.maximum(self.scale(which, origin), spread / SMOOTHEST)
        x = np.empty((n, reader.length, reader.past), dtype=np.float32)
        x[:, :, 0], x[:, :, 1] = apart / unit[:, None], there
        x[:, :, 2:] = self.past[back]
        z = np.empty((n, reader.horizon, reader.ahead), dtype=np.float32)
        z[:, :, 0] = np.arange(1, reader.horizon + 1) / reader.horizon
        z[:, :, 1:OWN] = (self._seasons(which, origin, center) - center[:, None, None]) / unit[:, None, None]
        z[:, :, OWN:] = self.ahead[at + np.arange(reader.horizon)]
        return x, z, center, unit

    def _seasons(self, which: np.ndarray, origin: np.ndarray, center: np.ndarray) -> np.ndarray:
        """(b, horizon, 2): the value one season before each step, or two where that is yet to come, and the mean over some seasons; where the series
        does not reach back so far, its last value; the centre where it has none."""
        season, first, begin = max(1, self.reader.season), self.first[which][:, None, None], self.begin[which]
        steps = np.arange(self.reader.horizon)[:, None]
        back = season * (steps // season + 1 + np.arange(SEASONS))
        at = first + origin[:, None, None] + steps - back
        there = at >= begin[:, None, None]
        values = np.where(there, self.values[np.where(there, at, 0)], 0.0)
        number = there.sum(axis=2)
        newest = self.first[which] + origin - 1
        last = np.where(newest >= begin, self.values[np.maximum(newest, 0)], center)[:, None]
        mean = np.where(number > 0, values.sum(axis=2) / np.maximum(number, 1), last)
        return np.stack([np.where(there[:, :, 0], values[:, :, 0], last), mean], axis=2)

    def answers(self, which: np.ndarray, origin: np.ndarray, center: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """What came, in the window's units: float32 (b, horizon), NaN where a step is missing."""
        at = (self.first[which] + origin)[:, None] + np.arange(self.reader.horizon)
        return np.where(self.there[at] > 0, (self.values[at] - center[:, None]) / unit[:, None], np.nan).astype(np.float32)


class Taught(Rows):
    """A pass over windows at random origins. latest: (series,), the last origin of each that may teach; a series without windows has none (-1).

    A row is one draw: which window it is follows from the step's own generator, so `target` holds nothing; `mixed` brings the answers.
    """

    def __init__(self, windows: Windows, latest: np.ndarray) -> None:
        self.windows, h = windows, windows.reader.horizon
        self.series = np.flatnonzero(latest >= 1)
        self.high = latest[self.series]
        self.low = np.minimum(self.high, np.clip(self.high // 2, 1, max(windows.reader.length, windows.reader.season)))
        self._upto = np.cumsum(1 + (self.high - self.low) / h)
        self.n = int(np.clip(self._upto[-1], *SLOTS)) if len(self.series) else 0
        self.target = np.zeros((self.n, 1), dtype=np.float32)

    def __len__(self) -> int:
        return self.n

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        rng = rng or np.random.default_rng(0)
        drawn = np.searchsorted(self._upto, rng.uniform(0, self._upto[-1], len(rows)), side="right").clip(0, len(self.series) - 1)
        origin = rng.integers(self.low[drawn], self.high[drawn], endpoint=True)
        which = self.series[drawn]
        x, z, center, unit = self.windows.cut(which, origin)
        return torch.from_numpy(x), torch.from_numpy(z), torch.from_numpy(self.windows.answers(which, origin, center, unit))

    def mixed(self, inputs: tuple[Any, ...], target: Any, rng: np.random.Generator) -> tuple[tuple[Any, ...], Any]:
        return inputs[:2], inputs[2]


class Judging(Rows):
    """Windows that were cut once."""

    def __init__(self, windows: Windows, which: np.ndarray, origin: np.ndarray) -> None:
        self.x, self.z, center, unit = windows.cut(which, origin)
        self.target = windows.answers(which, origin, center, unit)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        return torch.from_numpy(self.x[rows]), torch.from_numpy(self.z[rows])


def parted(windows: Windows, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(latest, which, origin): the last origin of each series that may teach (-1: none), and the windows that judge: the latest of all, or of a third where
    there are many. No step is both learnt from and judged by."""
    h, n = windows.reader.horizon, len(windows.lengths)
    latest = windows.lengths - h
    able = np.flatnonzero(latest - h >= 1)
    if not len(able):  # no series is long enough for both: a quarter of them judges
        able = np.flatnonzero(latest >= 1)
        chosen = np.sort(np.random.default_rng(seed).permutation(able)[: min(HELD[1], -(-len(able) // 4))])
        origin = latest[chosen]
        latest[chosen] = -1
        return np.where(latest >= 1, latest, -1), chosen, origin
    if n > FEW_SERIES:
        most = int(np.clip(len(able) // 3, *HELD))
        chosen = np.sort(np.random.default_rng(seed).permutation(able)[:most])
        origin = latest[chosen]
        latest[chosen] -= h
        return np.where(latest >= 1, latest, -1), chosen, origin
    which, origin = [], []
    for i in able:
        room = int(windows.lengths[i] * LATE_SHARE) - h
        origins = np.arange(latest[i], latest[i] - max(0, room) - 1, -max(1, h // 2))[: -(-HELD[0] // len(able))]
        which.append(np.full(len(origins), i))
        origin.append(origins)
        latest[i] = origins.min() - h
    return (np.where(latest >= 1, latest, -1), np.concatenate(which) if which else np.zeros(0, dtype=np.int64),
            np.concatenate(origin) if origin else np.zeros(0, dtype=np.int64))


def carried(values: np.ndarray, season: int) -> tuple[np.ndarray, int]:
    """(t,) without gaps, and how many steps lie before the first known value. A missing step is that of a season before, or its neighbour before where
    there is none: what comes after a gap fills nothing, because it is not known yet at an origin inside the gap."""
    missing = ~np.isfinite(values)
    first = int(np.argmin(missing)) if not missing.all() else len(values)
    out = np.where(missing, 0.0, values)
    for i in np.flatnonzero(missing[first:]) + first:
        out[i] = out[i - season] if i - season >= first else out[i - 1]
    return out, first


def next_steps(train: Any, series: Sequence[History], frequency: str) -> list[np.datetime64 | None]:
    """The time after the last step of each of `latest(train)`, None where the rows have no times."""
    if ORIGIN not in train.frame.columns or not frequency:
        return [None] * len(series)
    ends = begun(train)

    def after(one: History) -> np.datetime64 | None:
        known, when = ends[one.id]
        return one.origin if one.origin is not None or when is None else times_of(when, np.array([len(one.values) - known]), frequency)[0]

    return [after(one) for one in series]


def times_of(start: np.datetime64, steps: np.ndarray, frequency: str) -> np.ndarray:
    """The times so many steps after `start`, datetime64[us]. frequency: as polars writes it."""
    return times_after(np.array([start]), frequency, steps)


def _phases(frequency: str, longest: int) -> tuple[str, ...]:
    """The cycles of the calendar that steps of this frequency run through at least twice, in series of this length."""
    if not frequency:
        return ()
    step_s = seconds_of(frequency)
    cycles = (("day", 86400.0), ("week", 7 * 86400.0), ("year", 365.25 * 86400))
    return tuple(name for name, cycle in cycles if 2 * step_s <= cycle * 1.01 and longest * step_s >= 2 * cycle)


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(b,), NaN where nothing is known."""
    number = there.sum(axis=1)
    return np.where(number > 0, (values * there).sum(axis=1) / np.maximum(number, 1), np.nan)
