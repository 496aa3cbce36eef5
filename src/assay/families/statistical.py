"""Local statistical models, fitted to each series by itself (statsforecast): exponential smoothing, theta, ARIMA, and the Croston family for demand with many zeros."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.history import History, histories, latest
from assay.data.lags import SeasonAgain, bridged, normal, recent
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.tasks.base import Task
from assay.tasks.forecast import Forecast, pinball
from assay.words import say

INTERMITTENT = 1.32  # steps from one demand to the next, on average: Syntetos, Boylan & Croston 2005, doi:10.1057/palgrave.jors.2601841
TIMED = 3  # series on which a way is timed; the first one warms up and does not count
LONGEST_SEASON = 24  # ARIMA with a longer season takes minutes a series
WILD = 100.0  # a forecast so many times as large as all that was seen is a failed fit
LEAST = 5  # known values that a model needs
TRIALS = 200  # series on which the Croston family is compared

# a way: (name, seasons of the past that are read, at least so many steps, a function (models, season) -> model); the best first, each next one quicker
Way = tuple[str, int, int, Callable[[Any, int], Any]]


def _ways(model: str, season: int) -> list[Way]:
    if model == "ets":
        seasonal: list[Way] = [("AutoETS", 30, 400, lambda m, s: m.AutoETS(season_length=s)), ("AutoETS on 10 seasons", 10, 120, lambda m, s: m.AutoETS(season_length=s))]
        quick: list[Way] = [("MSTL, AutoETS", 30, 400, lambda m, s: m.MSTL([s], trend_forecaster=m.AutoETS(model="ZZN")) if s > 1 else m.AutoETS(model="ZZN"))]
        return [*(seasonal if season <= LONGEST_SEASON else []), *quick]
    if model == "theta":
        return [("AutoTheta", 30, 400, lambda m, s: m.AutoTheta(season_length=s)), ("DynamicOptimizedTheta", 30, 400, lambda m, s: m.DynamicOptimizedTheta(season_length=s)),
                ("Theta", 20, 200, lambda m, s: m.Theta(season_length=s))]
    if model == "arima":
        whole: list[Way] = [("AutoARIMA", 15, 200, lambda m, s: m.AutoARIMA(season_length=s, approximation=True))]
        parts: list[Way] = [("MSTL, AutoARIMA", n, n * 5, lambda m, s: m.MSTL([s], trend_forecaster=m.AutoARIMA(approximation=True)) if s > 1 else m.AutoARIMA(approximation=True))
                            for n in (20, 8)]
        return [*(whole if season <= LONGEST_SEASON // 2 else []), *parts]
    return [("CrostonSBA", 60, 400, lambda m, s: m.CrostonSBA()), ("TSB", 60, 400, lambda m, s: m.TSB(alpha_d=0.1, alpha_p=0.1)), ("ADIDA", 60, 400, lambda m, s: m.ADIDA())]


class Statistical(Model):
    """Fits each row's own past when it is asked: nothing is learnt before, but which way is quick enough for the rows and the time given.

    params: model, one of ets, theta, arima, croston. Quantiles: the normal ones of the model's own 80 % interval; of the Croston family those of a demand that
    comes with the model's rate and has one of the sizes seen. A row whose fit fails is answered by the last season, and `facts` count them.
    """

    task: Forecast

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.model = params.get("model", "theta")
        self.ways = _ways(self.model, self.task.season)
        self.way = 0
        self.again = SeasonAgain(self.task.horizon, self.task.season, self.task.levels)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Statistical:
        rows = latest(train)
        rng = np.random.default_rng(seed)
        some = [rows[i] for i in np.sort(rng.permutation(len(rows))[:5000])]
        self.again.learn(some)
        if self.model == "croston":
            share = float(np.mean([_intermittent(one) for one in some])) if some else 0.0
            if share < 0.05:
                raise TooSlow(say("{share:.0%} of the series are intermittent, and it is made for those: demand every {steps} steps or more rarely", share=share, steps=INTERMITTENT))
        self._import()
        if budget.left() < 0.3 * budget.seconds:
            raise TooSlow(say("loading statsforecast alone took {taken} of the {given} seconds", taken=round(budget.seconds - budget.left(), 1), given=round(budget.seconds, 1)))
        self.way = self._best([some[i] for i in np.sort(rng.permutation(len(some))[:TRIALS])]) if self.model == "croston" else 0
        if math.isfinite(budget.seconds) and budget.predict_rows:
            self.way = self._quick_enough([some[i] for i in rng.permutation(len(some))[:TIMED]], budget)
        self.facts = {"way": self.ways[self.way][0]}
        return self

    def _import(self) -> Any:
        from statsforecast import models

        return models

    def _quick_enough(self, some: Sequence[History], budget: Budget) -> int:
        """The first way that answers the rows in time. Raises TooSlow."""
        allowed = 0.7 * budget.predict_seconds / budget.predict_rows
        took = math.inf
        for way in range(self.way, len(self.ways)):
            timed = []
            for one in some:
                begin = time.monotonic()
                self._row(one, way)
                timed.append(time.monotonic() - begin)
                if timed[-1] < allowed and len(timed) > 1:
                    break
            took = min(timed[1:] or timed)
            if took < allowed:
                return way
            if budget.left() < 0.2 * budget.seconds:
                break
        raise TooSlow(say("it takes {took} s a series, and {rows:,} rows have {seconds} s", took=f"{took:.2g}", rows=budget.predict_rows, seconds=f"{budget.predict_seconds:.3g}"))

    def _best(self, some: Sequence[History]) -> int:
        """Of the Croston family: the least quantile loss on the last steps of some series."""
        h, losses = self.task.horizon, np.zeros(len(self.ways))
        for one in some:
            if len(one.values) > h + LEAST and np.isfinite(one.values[-h:]).all():
                cut = History(one.id, one.values[:-h], one.covariates[:-h], one.ahead, one.names, one.names_ahead)
                size = max(float(np.nanmean(np.abs(cut.values))), 1e-9) if np.isfinite(cut.values).any() else 1.0
                made = [self._row(cut, way) for way in range(len(self.ways))]
                if all(m is not None for m in made):
                    losses += [pinball(one.values[None, -h:], m[None], self.task.levels).mean() / size for m in made if m is not None]
        return int(np.argmin(losses))

    def _row(self, one: History, way: int) -> np.ndarray | None:
        """(horizon, levels), or None if there is too little to fit or the fit fails."""
        _, seasons, least, made = self.ways[way]
        values = bridged(recent([one], max(least, seasons * self.task.season)))[0]
        values = np.ascontiguousarray(values[np.isfinite(values)])
        if np.isfinite(one.values).sum() < LEAST or values.max() == values.min():
            return None
        season = self.task.season if len(values) >= 2 * self.task.season + 3 else 1
        models = self._import()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                if self.model == "croston":
                    return self._rare(values, float(np.ravel(made(models, season).forecast(y=values, h=1)["mean"])[0]))
                told = made(models, season).forecast(y=values, h=self.task.horizon, level=[80])
        except Exception:  # singular, not converged, too short for this form: whatever it is, the row is answered otherwise and counted
            return None
        mean, low, high = (np.asarray(told[k], dtype=np.float64) for k in ("mean", "lo-80", "hi-80"))
        z = normal(self.task.levels)
        side = np.where(z[None, :] < 0, (mean - low)[:, None], (high - mean)[:, None]) / normal([0.9])[0]
        cube = mean[:, None] + z[None, :] * np.maximum(side, 0.0)
        return cube if np.isfinite(cube).all() and np.abs(cube).max() < WILD * np.abs(values).max() else None

    def _rare(self, values: np.ndarray, rate: float) -> np.ndarray | None:
        """Quantiles of one step's demand: none, or as often as the rate says one of the sizes seen."""
        sizes = np.sort(values[values > 0])
        if not np.isfinite(rate) or not len(sizes) or values.min() < 0:
            return None
        share = float(np.clip(rate / sizes.mean(), 1e-6, 1.0))
        inside = (np.asarray(self.task.levels) - (1 - share)) / share
        one = np.where(inside > 0, np.quantile(sizes, np.clip(inside, 0, 1)), 0.0)
        return np.tile(one, (self.task.horizon, 1))

    def predict(self, asked: Dataset) -> np.ndarray:
        rows = histories(asked)
        out = np.zeros((len(rows), self.task.horizon, len(self.task.levels)))
        failed = 0
        for i, one in enumerate(rows):
            made = self._row(one, self.way)
            table = recent([one], self.again.reads)
            if made is None:
                made, failed = self.again.cube(table)[0], failed + 1
            out[i] = np.maximum(made, 0.0) if (np.nan_to_num(one.values) >= 0).all() else made
        if failed:
            self.facts["answered_by_last_season"] = failed
        return out.reshape(len(rows), self.task.width)

    def dump(self, folder: Path) -> None:
        (folder / "statistical.json").write_text(json.dumps({"way": self.ways[self.way][0], "again": self.again.json()}))

    def load(self, folder: Path) -> Statistical:
        packed = json.loads((folder / "statistical.json").read_text())
        self.way = [way[0] for way in self.ways].index(packed["way"])
        self.again.read(packed["again"])
        return self


def _intermittent(one: History) -> bool:
    known = one.values[np.isfinite(one.values)]
    some = int((known != 0).sum())
    return bool(some and (known >= 0).all() and len(known) / some > INTERMITTENT)


def _instances(case: Case, schema: Schema) -> list[tuple[str, dict[str, Any]]]:
    return [(name, {"model": name}) for name in ("ets", "theta", "arima", "croston")]


CANDIDATE = Candidate(
    name="statistical", rung="classical", tasks=("forecast",), build=Statistical, reads=("sequence",), requires=("sequence",), instances=_instances,
    needs={"statsforecast": "forecast"}, share=4.0, valid_rows=200, explainable=True, source="statsforecast: AutoETS, AutoTheta, AutoARIMA, CrostonSBA/TSB/ADIDA",
    licence="Apache-2.0", version="2.1.1",
)
