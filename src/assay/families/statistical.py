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
from assay.data.grid import steps_since
from assay.data.history import History, histories, latest
from assay.data.lags import SeasonAgain, bridged, normal, recent
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.tasks.base import Task
from assay.tasks.forecast import Forecast, pinball
from assay.words import Text, say

INTERMITTENT = 1.32  # steps from one demand to the next, on average: Syntetos, Boylan & Croston 2005, doi:10.1057/palgrave.jors.2601841
TIMED = 4  # series on which a way is timed; the first one warms up and does not count
LONGEST_SEASON = 24  # ARIMA with a longer season takes minutes a series
WILD = 100.0  # a forecast so many times as large as all that was seen is a failed fit
LEAST = 5  # known values that a model needs
TRIALS = 200  # series on which the Croston family is compared
FEW_SERIES = 33  # of so few series many origins are asked: then origins share a fit
SHARED = 20  # horizons: as old as a fit may be that a history goes on from
KEPT = 256  # fits that are remembered
WORTH_A_LOOK = 1.3  # a way that needs this many times less than there is: the next better one is timed
OWN_SHARE = 0.85  # of the trial's seconds that fitting may be planned to take

# a way: (name, seasons of the past that are read, at least so many steps, a function (models, season) -> model); the best first, each next one quicker
Way = tuple[str, int, int, Callable[[Any, int], Any]]


def _ways(model: str, season: int) -> list[Way]:
    """Seconds a series of M4 hourly, one core: ets 0.44, 0.14, 0.035, 0.008; theta 0.08, 0.03, 0.023, 0.006; arima (season 24) 0.24, 0.07, 0.012."""
    if model == "ets":
        seasonal: list[Way] = [("AutoETS", 30, 400, lambda m, s: m.AutoETS(season_length=s)), ("AutoETS on 10 seasons", 10, 120, lambda m, s: m.AutoETS(season_length=s))]
        parts: list[Way] = [("MSTL, AutoETS", 30, 400, lambda m, s: _parts(m, s, m.AutoETS(model="ZZN"))),
                            ("MSTL, damped trend on 10 seasons", 10, 120, lambda m, s: _parts(m, s, m.AutoETS(model="AAN", damped=True)))]
        return [*(seasonal if season <= LONGEST_SEASON else []), *parts]
    if model == "theta":
        return [("AutoTheta", 30, 400, lambda m, s: m.AutoTheta(season_length=s)), ("DynamicOptimizedTheta", 30, 400, lambda m, s: m.DynamicOptimizedTheta(season_length=s)),
                ("Theta", 20, 200, lambda m, s: m.Theta(season_length=s)), ("Theta on 8 seasons", 8, 80, lambda m, s: m.Theta(season_length=s))]
    if model == "arima":
        whole: list[Way] = [("AutoARIMA", 15, 200, lambda m, s: m.AutoARIMA(season_length=s, approximation=True))]
        split: list[Way] = [(f"MSTL, AutoARIMA on {n} seasons", n, n * 5, lambda m, s: _parts(m, s, m.AutoARIMA(approximation=True))) for n in (20, 8)]
        plain: Way = ("MSTL, ARIMA(1, 1, 1) on 8 seasons", 8, 80, lambda m, s: _parts(m, s, m.ARIMA(order=(1, 1, 1))))
        return [*(whole if season <= LONGEST_SEASON // 2 else []), *split, plain]
    return [("CrostonSBA", 60, 400, lambda m, s: m.CrostonSBA()), ("TSB", 60, 400, lambda m, s: m.TSB(alpha_d=0.1, alpha_p=0.1)), ("ADIDA", 60, 400, lambda m, s: m.ADIDA())]


def _parts(models: Any, season: int, trend: Any) -> Any:
    """The season taken out by Loess, the rest forecast by `trend`."""
    return models.MSTL([season], trend_forecaster=trend) if season > 1 else trend


class Statistical(Model):
    """Fits each row's own past when it is asked: nothing is learnt before, but which way is quick enough for the rows and the time given.

    Of few series, many origins are asked. Then a model is fitted once to what was known at the last of certain steps, every 20 horizons, and goes on from there to
    the origin with its parameters as they are: 60 origins of a series of half hours take 4 fits. Which steps these are depends on the row alone. ARIMA is fitted at each
    origin: gone on with, a seasonal one with drift erred 24 % more than one fitted anew (a daily series, 14 origins; ets and theta 2 % less).

    params: model, one of ets, theta, arima, croston. Quantiles: the normal ones of the model's own 80 % interval; of the Croston family those of a demand that
    comes with the model's rate and has one of the sizes seen. A row whose fit fails is answered by the last season, and `facts` count them.
    """

    task: Forecast

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.model = params.get("model", "theta")
        self.ways = _ways(self.model, self.task.season)
        self.way = 0
        self.share = False
        self.again = SeasonAgain(self.task.horizon, self.task.season, self.task.levels)
        self.fits: dict[Any, Any] = {}
        self.trial: dict[str, Any] | None = None  # what the fits of one trial share: way, answers (the same rows are asked two or three times), until, judging (rows)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Statistical:
        rows = latest(train)
        rng = np.random.default_rng(seed)
        some = [rows[i] for i in np.sort(rng.permutation(len(rows))[:5000])]
        self.again.learn(some)
        self.share = self.model in ("ets", "theta") and 0 < len(rows) <= FEW_SERIES
        if self.model == "croston":
            share = float(np.mean([_intermittent(one) for one in some])) if some else 0.0
            if share < 0.05:
                raise TooSlow(say("{share:.0%} of the series are intermittent, and it is made for those: demand every {steps} steps or more rarely", share=share, steps=INTERMITTENT))
        self._import()
        if budget.left() < 0.3 * budget.seconds:
            raise TooSlow(say("loading statsforecast alone took {taken} of the {given} seconds", taken=round(budget.seconds - budget.left(), 1), given=round(budget.seconds, 1)))
        trial = budget.memo.setdefault(("statistical", self.model), {"answers": {}})
        if "way" not in trial:  # the second fit answers as the first one did, which was validated
            self.way = self._best([some[i] for i in np.sort(rng.permutation(len(some))[:TRIALS])]) if self.model == "croston" else 0
            clocked = math.isfinite(budget.seconds) and budget.predict_rows > 0
            trial["until"] = time.monotonic() + budget.left() + budget.predict_seconds if clocked else math.inf
            trial["judging"] = budget.predict_rows
            trial["way"] = self._quick_enough([some[i] for i in rng.permutation(len(some))[:TIMED]], len(rows), budget) if clocked else self.way
        self.way, self.trial = trial["way"], trial
        self.facts = {"way": self.ways[self.way][0]}
        return self

    def _import(self) -> Any:
        from statsforecast import models

        return models

    def _quick_enough(self, some: Sequence[History], series: int, budget: Budget) -> int:
        """The best way that answers the rows that validate and those that judge in time, tried from the quickest one on. Raises TooSlow."""
        rows = budget.predict_rows + min(budget.predict_rows, CANDIDATE.valid_rows)
        fits = min(rows, 2 * series * (1 + math.ceil(budget.predict_rows / series / SHARED))) if self.share else rows
        found, last = None, self.way if self.model == "croston" else 0
        for way in range(len(self.ways) - 1, last - 1, -1):
            fit_s, row_s = [], []
            for one in some:
                self.fits.clear()
                begin = time.monotonic()
                self._row(one, way)
                fit_s.append(time.monotonic() - begin)
                if self.share:
                    self._row(one, way)
                row_s.append(time.monotonic() - begin - fit_s[-1])
                if len(fit_s) > 1 and fit_s[-1] * fits > budget.left() + budget.predict_seconds:
                    break
            needed = float(np.mean(fit_s[1:] or fit_s)) * fits + float(np.mean(row_s[1:] or row_s)) * rows
            there = OWN_SHARE * (budget.left() + budget.predict_seconds)
            if needed > there:
                if found is None:
                    raise TooSlow(self._needs(way, needed, rows, there))
                break
            found = way
            if WORTH_A_LOOK * needed > there:
                break
        return last if found is None else found

    def _needs(self, way: int, needed: float, rows: int, there: float) -> Text:
        return say("even as '{way}' it needs about {needed} s for {rows:,} rows, and it has {there} s", way=self.ways[way][0], needed=f"{needed:.2g}", rows=rows,
                   there=f"{max(there, 0.0):.2g}")

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
        if np.isfinite(one.values).sum() < LEAST:
            return None
        values, old = self._window(one, way)
        if values.max() == values.min():
            return None
        season = self.task.season if len(values) - old >= 2 * self.task.season + 3 else 1
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                told = self._told(values, old, way, season)
        except Exception:  # singular, not converged, too short for this form: whatever it is, the row is answered otherwise and counted
            return None
        if isinstance(told, float):
            return self._rare(values, told)
        mean, low, high = (np.asarray(told[k], dtype=np.float64) for k in ("mean", "lo-80", "hi-80"))
        z = normal(self.task.levels)
        side = np.where(z[None, :] < 0, (mean - low)[:, None], (high - mean)[:, None]) / normal([0.9])[0]
        cube = mean[:, None] + z[None, :] * np.maximum(side, 0.0)
        return cube if np.isfinite(cube).all() and np.abs(cube).max() < WILD * np.abs(values).max() else None

    def _window(self, one: History, way: int) -> tuple[np.ndarray, int]:
        """(the values that are read, how many of the last ones came after the fit)."""
        _, seasons, least, _ = self.ways[way]
        wanted = max(least, seasons * self.task.season)
        old = 0
        if self.share:
            every = SHARED * self.task.horizon
            if one.origin is not None and self.task.frequency:
                old = int(steps_since(np.array([one.origin]), np.datetime64("1970-01-01", "us"), self.task.frequency)[0][0]) % every
            else:
                old = len(one.values) % every
            if len(one.values) - old < min(wanted, 2 * self.task.season + 3 + LEAST):
                old = 0
        known = bridged(recent([one], wanted + old))[0]
        if old:  # as it was filled then, so that rows share it
            then = History(one.id, one.values[:-old], one.covariates[:-old], one.ahead)
            known[: len(known) - old] = bridged(recent([then], wanted))[0][-(len(known) - old) :]
        return np.ascontiguousarray(known[np.isfinite(known)]), old

    def _told(self, values: np.ndarray, old: int, way: int, season: int) -> Any:
        made, models, horizon = self.ways[way][3], self._import(), self.task.horizon
        if self.model == "croston":
            return float(np.ravel(made(models, season).forecast(y=values, h=1)["mean"])[0])
        if not self.share:
            return made(models, season).forecast(y=values, h=horizon, level=[80])
        begin = values[: len(values) - old]
        key = (way, season, len(begin), hash(begin.tobytes()))
        if key not in self.fits:
            while len(self.fits) >= KEPT:
                self.fits.pop(next(iter(self.fits)))
            self.fits[key] = made(models, season).fit(begin)
        model = self.fits[key]
        return model.forward(y=values, h=horizon, level=[80]) if old else model.predict(h=horizon, level=[80])

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
        failed, i, begin = 0, 0, time.monotonic()
        while i < len(rows):
            one = rows[i]
            made = self._remembered(one)
            table = recent([one], self.again.reads)
            if made is None:
                made, failed = self.again.cube(table)[0], failed + 1
            out[i] = np.maximum(made, 0.0) if (np.nan_to_num(one.values) >= 0).all() else made
            i += 1
            if self.trial is not None and self._too_slow(i, len(rows), time.monotonic() - begin):
                failed, i, begin = 0, 0, time.monotonic()
        if failed:
            self.facts["answered_by_last_season"] = failed
        return out.reshape(len(rows), self.task.width)

    def _too_slow(self, done: int, rows: int, took: float) -> bool:
        """In a trial whose time is running out it begins again in a quicker way. Raises TooSlow where there is none."""
        assert self.trial is not None
        if self.trial["way"] != self.way or done < 5 or done == rows or time.monotonic() + took / done * (rows - done + self.trial["judging"]) < self.trial["until"]:
            return False
        if self.way + 1 == len(self.ways) or self.model == "croston":
            raise TooSlow(self._needs(self.way, took / done * (rows + self.trial["judging"]), rows + self.trial["judging"], self.trial["until"] - time.monotonic() + took))
        self.way = self.trial["way"] = self.way + 1
        self.trial["answers"].clear()
        self.facts["way"] = self.ways[self.way][0]
        return True

    def _remembered(self, one: History) -> np.ndarray | None:
        """As `_row`; the rows of one trial are asked two or three times before it is judged, and answered once."""
        if self.trial is None:
            return self._row(one, self.way)
        key = (one.id, str(one.origin), len(one.values), hash(one.values[-self.task.horizon - 1 :].tobytes()))
        answers: dict[Any, np.ndarray | None] = self.trial["answers"]
        if key not in answers:
            answers[key] = self._row(one, self.way)
        return answers[key]

    def dump(self, folder: Path) -> None:
        (folder / "statistical.json").write_text(json.dumps({"way": self.ways[self.way][0], "share": self.share, "again": self.again.json()}))

    def load(self, folder: Path) -> Statistical:
        packed = json.loads((folder / "statistical.json").read_text())
        self.way, self.share = [way[0] for way in self.ways].index(packed["way"]), bool(packed.get("share", False))
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
    needs={"statsforecast": "forecast"}, share=4.0, valid_rows=500, explainable=True, source="statsforecast: AutoETS, AutoTheta, AutoARIMA, CrostonSBA/TSB/ADIDA",
    licence="Apache-2.0", version="2.1.1",
)
