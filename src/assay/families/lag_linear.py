"""Lines from the last steps to the next ones (the class of NLinear and DLinear: Zeng et al. 2023, arXiv:2205.13504), in closed form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset, Schema
from assay.data.echo import LOOKS, Echo
from assay.data.history import History, histories, latest
from assay.data.lags import CHUNK, floors
from assay.data.rare import Rare
from assay.data.windows import Spread, Windows, ahead_of, asked, cut, every, origins
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.tasks.base import Task
from assay.tasks.forecast import Forecast
from assay.words import say

WINDOWS = 20_000
MOST_STEPS = 400  # of the past: a line of 400 x 48 weights is solved in a second
STRENGTHS = 10.0 ** np.arange(-4, 2.1, 0.5)  # of the ridge, beside the mean square of the inputs
WIDEST = 30.0  # an input is no further from the centre than so many sizes


class LagLinear(Model):
    """One linear map for all series from a past free of units (centred on the last season, divided by its size) to what the last season repeated misses.

    How far back it looks and the strength of its ridge are chosen on later origins; a very strong one leaves the last season as it is. What is known ahead
    enters by its difference to the season before, with one weight for all steps, where that helps on the later origins. Quantiles: see `windows.Spread`.
    """

    task: Forecast

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.steps = self.past = 1
        self.weights = np.zeros((2, self.task.horizon))
        self.known = np.zeros((0, 2))  # a row a covariate: its scale, its weight
        self.spread = Spread(self.task.horizon, self.task.levels)
        self.rare = Rare(self.task.season, self.task.levels)
        self.echo = Echo(self.task.horizon, self.task.season, self.task.frequency, self.task.levels)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> LagLinear:
        rows = latest(train)
        horizon, season = self.task.horizon, self.task.season
        length = int(np.median([len(one.values) for one in rows])) if rows else 0
        tried = _pasts(season, max(1, length - horizon))
        most = WINDOWS if budget.seconds > 20 else WINDOWS // 5
        least = max(1, min(2 * season, length - 2 * horizon))
        chosen = origins(rows, horizon=horizon, least=least, most=most, seed=seed)
        if not len(chosen.series) or not len(chosen.held_series):
            raise TooSlow(say("no series is long enough to learn from: {longest} steps, and the horizon alone takes {horizon}",
                              longest=max((len(one.values) for one in rows), default=0), horizon=horizon))
        self.past = max(tried[-1], 3 * season + 8)  # sizes are learnt and asked over the same stretch
        teach, held = self._cut(rows, chosen.series, chosen.origin), self._cut(rows, chosen.held_series, chosen.held_origin)
        self.known = self._weigh(rows, teach, held)
        (target, good), (aim, judged) = self._target(rows, teach), self._target(rows, held)
        best = (np.inf, 0, 0.0)
        for steps in reversed(tried):  # the longest first: out of time after the shortest, load of half hours was validated at 0.81 and not at 0.45
            moments = _moments(_inputs(teach, steps, season)[good], target[good])
            judge = _inputs(held, steps, season)[judged]
            for strength in STRENGTHS:
                loss = float(np.abs(aim[judged] - judge @ _ridge(*moments, strength)).mean())
                if loss < best[0] * 0.999:
                    best = (loss, steps, strength)
            if budget.left() < 0.5 * budget.seconds:
                break
        _, self.steps, strength = best
        self.weights = _ridge(*_moments(_inputs(teach, self.steps, season)[good], target[good]), strength)
        point = self._point(rows, held)
        self.rare.learn(held.past, self.spread.learn(held.future - point, held.marks).cube(point, held.marks), held.future)
        self.echo.learn(train, held.future, self._cube(rows, held))
        last = self._cut(rows, *every(rows, horizon=horizon, least=least, most=most, seed=seed))
        target, good = self._target(rows, last)
        self.weights = _ridge(*_moments(_inputs(last, self.steps, season)[good], target[good]), strength)
        self.facts = {"steps": self.steps, "ridge": round(float(strength), 6), "windows": int(good.sum()), "covariates": int((self.known[:, 1] != 0).sum())}
        return self

    def _cut(self, rows: Sequence[History], series: np.ndarray, origin: np.ndarray) -> Windows:
        return cut(rows, series, origin, past=self.past, horizon=self.task.horizon, season=self.task.season)

    def _weigh(self, rows: Sequence[History], teach: Windows, held: Windows) -> np.ndarray:
        """(k, 2): scale and weight of each covariate known ahead; weights of zero where they do not help on the later origins."""
        change = self._changes(rows, teach)
        k = change.shape[2]
        scale = np.array([np.sqrt(np.nanmean(change[:, :, c] ** 2)) if np.isfinite(change[:, :, c]).any() else 0.0 for c in range(k)])
        scale[~(scale > 0)] = np.inf
        table = np.column_stack([scale, np.zeros(k)])
        if not k or not np.isfinite(scale).any():
            return table
        x = np.nan_to_num(change / scale).reshape(-1, k)
        y = teach.wanted.reshape(-1)
        there = np.isfinite(y)
        weights = np.linalg.solve(x[there].T @ x[there] + 0.001 * there.sum() * np.eye(k), x[there].T @ y[there])
        wanted = held.wanted
        without = np.nanmean(np.abs(wanted)) if np.isfinite(wanted).any() else 0.0
        with_it = np.nanmean(np.abs(wanted - np.nan_to_num(self._changes(rows, held) / scale) @ weights)) if without else 0.0
        return np.column_stack([scale, weights if with_it < without else np.zeros(k)])

    def _changes(self, rows: Sequence[History], windows: Windows) -> np.ndarray:
        values, before = ahead_of(rows, windows.series, windows.origin, horizon=self.task.horizon, season=self.task.season)
        return values - before

    def _ahead(self, rows: Sequence[History], windows: Windows) -> np.ndarray | float:
        """(w, h): what the covariates say, in sizes."""
        if not (self.known[:, 1] != 0).any():
            return 0.0
        return np.clip(np.nan_to_num(self._changes(rows, windows) / self.known[:, 0]) @ self.known[:, 1], -WIDEST, WIDEST)

    def _target(self, rows: Sequence[History], windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        """((w, h) without NaN, which windows may be learnt from: at most a fifth of the future is missing)."""
        target = windows.wanted - self._ahead(rows, windows)
        there = np.isfinite(target)
        return np.nan_to_num(target), there.mean(axis=1) >= 0.8

    def _point(self, rows: Sequence[History], windows: Windows) -> np.ndarray:
        move = np.clip(_inputs(windows, self.steps, self.task.season) @ self.weights, -WIDEST, WIDEST)
        return windows.base + windows.size[:, None] * (move + self._ahead(rows, windows))

    def predict(self, asked_rows: Dataset) -> np.ndarray:
        rows = histories(asked_rows)
        out = np.zeros((len(rows), self.task.horizon, len(self.task.levels)))
        size = CHUNK // (1 + LOOKS)
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            windows = asked(part, past=self.past, horizon=self.task.horizon, season=self.task.season)

            def told(series: np.ndarray, origin: np.ndarray, part: Sequence[History] = part) -> tuple[np.ndarray, np.ndarray]:
                earlier = self._cut(part, series, origin)
                return earlier.future, self._cube(part, earlier)

            out[first : first + size] = np.maximum(self.echo.scaled(self._cube(part, windows), part, told), floors(windows.past)[:, None, None])
        return out.reshape(len(rows), self.task.width)

    def _cube(self, rows: Sequence[History], windows: Windows) -> np.ndarray:
        cube = self.spread.cube(self._point(rows, windows), windows.marks)
        return np.maximum(self.rare.mixed(windows.past, cube), floors(windows.past)[:, None, None])

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({"weights": self.weights, "known": np.ascontiguousarray(self.known)}, folder / "lag_linear.safetensors")
        (folder / "lag_linear.json").write_text(json.dumps({"steps": self.steps, "past": self.past, "spread": self.spread.json(), "rare": self.rare.share,
                                                                 "echo": self.echo.json()}))

    def load(self, folder: Path) -> LagLinear:
        from safetensors.numpy import load_file

        arrays, packed = load_file(folder / "lag_linear.safetensors"), json.loads((folder / "lag_linear.json").read_text())
        self.weights, self.known, self.steps, self.past = arrays["weights"], arrays["known"], int(packed["steps"]), int(packed["past"])
        self.spread.read(packed["spread"])
        self.rare.share = float(packed["rare"])
        self.echo.read(packed.get("echo"))
        return self


def _pasts(season: int, room: int) -> list[int]:
    """How far back it may look, ascending: some seasons, or steps where there is none; as far as the usual series reaches."""
    wanted = [k * season for k in (1, 2, 4, 8)] if season > 1 else [4, 12, 32, 96]
    held = sorted({min(w, MOST_STEPS) for w in wanted if w <= max(room, wanted[0])})
    return held or [MOST_STEPS]


def _inputs(windows: Windows, steps: int, season: int) -> np.ndarray:
    """(w, steps + 1): the past in sizes from the centre of its last season, 0 before it began; and a one."""
    past = windows.past[:, -steps:]
    there = np.isfinite(windows.past[:, -season:])
    centre = np.where(there, windows.past[:, -season:], 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    size = np.where(windows.size > 0, windows.size, np.inf)
    x = np.nan_to_num(np.clip((past - centre[:, None]) / size[:, None], -WIDEST, WIDEST))
    x = np.pad(x, ((0, 0), (steps - x.shape[1], 0))) if x.shape[1] < steps else x
    return np.column_stack([x, np.ones(len(x))])


def _moments(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors of x'x, and x'y in their terms: then each strength costs two products."""
    values, vectors = np.linalg.eigh(x.T @ x)
    return np.maximum(values, 0.0), vectors, vectors.T @ (x.T @ y)


def _ridge(values: np.ndarray, vectors: np.ndarray, product: np.ndarray, strength: float) -> np.ndarray:
    return vectors @ (product / (values + strength * max(values.mean(), 1e-9))[:, None])


CANDIDATE = Candidate(
    name="lag_linear", rung="classical", tasks=("forecast",), build=LagLinear, reads=("sequence", "time"), requires=("sequence",), share=2.0, explainable=True,
    source="ridge on lags, the class of NLinear and DLinear (Zeng et al. 2023, arXiv:2205.13504)", version="1",
)
