"""What comes next: quantiles of the next `horizon` values of each series, judged by the scaled quantile loss from several origins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset, Schema
from assay.data.grid import times_after
from assay.data.hierarchy import coherent
from assay.data.history import HISTORY, ORIGIN, PART, History, frame_of, futures, histories, origins_of, row_of
from assay.data.media import packed
from assay.data.origins import About
from assay.data.split import Split
from assay.errors import InputError
from assay.tasks.base import Task
from assay.words import Text, say

LEVELS = tuple(round(0.1 * i, 1) for i in range(1, 10))
SPREADS = (0.4, 2.5)  # factors of the spread that calibration may choose
PRIOR_ROWS, PRIOR_WIDER = 20.0, 5.0  # a factor below (above) 1 learnt on so many rows is drawn half-way to 1: too narrow is the worse mistake
DOUBT = 0.5  # standard errors of the share of truths held by which calibration aims higher: it counts on few origins, close in time
ENOUGH_SERIES = 10  # of fewer series stretches of time are what is independent


class Forecast(Task):
    """loss: 'quantile' (default) or 'absolute', of a row: the mean over steps and levels, divided by the mean absolute step of the row's own history from
    one season to the next (Hyndman & Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001), so that series of all sizes count alike.

    A raw prediction has shape (n, horizon * levels), a step's levels side by side; `cube` gives it as (n, horizon, levels).
    frequency: of the steps, as polars writes it ('1h', '1mo'), '' where steps have no time. season: steps, 1 for none. series: how many the data hold, 0 where
    that is not known.
    """

    name: ClassVar[str] = "forecast"
    losses_known: ClassVar[tuple[str, ...]] = ("quantile", "absolute")
    by_rows: ClassVar[bool] = False  # a row is an origin, and the latest of a series holds all the others

    def __init__(self, *, horizon: int, season: int = 1, frequency: str = "", levels: tuple[float, ...] = LEVELS, loss: str = "quantile", value: str = "value",
                 series: int = 0) -> None:
        self.series = series
        self.horizon, self.season, self.frequency, self.levels, self.loss, self.value = horizon, season, frequency, tuple(levels), loss, value
        self._measured: list[tuple[pl.DataFrame, np.ndarray]] = []

    @classmethod
    def refuses(cls, data: Dataset) -> Text | None:
        if any(c.name == HISTORY and c.kind == "sequence" for c in data.schema.columns) and data.schema.target and data.y.dtype == pl.Binary:
            return None
        return say("its rows are no histories; --task forecast makes them of a table of time stamps and values")

    @classmethod
    def of(cls, data: Dataset, *, loss: str | None = None, horizon: int | None = None, season: int | None = None, frequency: str | None = None,
           levels: tuple[float, ...] = LEVELS, costs: dict[str, float] | None = None, **_: Any) -> Forecast:
        """horizon, season, frequency: those that the data were made with, unless said otherwise."""
        if loss and loss not in cls.losses_known:
            raise InputError("Forecasting has no loss '{loss}'. It knows: {known}.", loss=loss, known=list(cls.losses_known))
        if costs:
            raise InputError("What an error of a forecast costs is said by a decision: --decide problem.toml.")
        about = About.of(data.schema)
        return cls(horizon=about.horizon if about else horizon or len(data.y[0]) // 4, season=season or (about.season if about else 1),
                   frequency=(about.frequency if about else "") if frequency is None else frequency, levels=levels, loss=loss or "quantile", value=data.schema.target or "value",
                   series=data.frame[data.schema.group].n_unique() if data.schema.group in data.frame.columns else 1)

    @property
    def width(self) -> int:
        return self.horizon * len(self.levels)

    def cube(self, prediction: np.ndarray) -> np.ndarray:
        return prediction.reshape(len(prediction), self.horizon, len(self.levels))

    def truth(self, data: Dataset) -> np.ndarray:
        return futures(data).reshape(len(data), self.horizon)

    def scales(self, data: Dataset, *, squared: bool = False) -> np.ndarray:
        """(n,), above zero: the mean absolute (squared: root mean squared) difference of steps a season apart; of a constant series its level, of nothing at all 1."""
        return self._measures(data)[int(squared)]

    def sizes(self, data: Dataset) -> np.ndarray:
        """(n,): the mean absolute value of the row's own history, 0 where nothing is known of it."""
        return self._measures(data)[2]

    def _measures(self, data: Dataset) -> np.ndarray:
        """(3, n): both scales and the size. An ensemble is chosen by some thousand looks at the same rows, and every candidate is drawn from them."""
        for frame, known in self._measured:
            if frame is data.frame:
                return known
        known = np.array([[scale_of(h.values, self.season), scale_of(h.values, self.season, squared=True),
                           float(np.nanmean(np.abs(h.values))) if np.isfinite(h.values).any() else 0.0] for h in histories(data)]).reshape(-1, 3).T
        self._measured = [*self._measured[-3:], (data.frame, known)]
        return known

    def losses(self, train: Dataset, test: Dataset, prediction: np.ndarray) -> np.ndarray:
        return self._losses(self.truth(test), prediction) / self.scales(test)

    def _losses(self, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Unscaled, (n,). Steps whose truth is missing do not count."""
        if self.loss == "absolute":
            return _mean(np.abs(truth - self.point(prediction)))
        return _mean(pinball(truth, self.cube(prediction), self.levels).mean(axis=2))

    def point(self, prediction: np.ndarray) -> np.ndarray:
        """The median, (n, horizon)."""
        cube, levels = self.cube(prediction), np.asarray(self.levels)
        above = int(np.clip(np.searchsorted(levels, 0.5), 1, len(levels) - 1)) if len(levels) > 1 else 0
        if len(levels) == 1 or levels[above] == 0.5:
            return cube[:, :, above]
        share = (0.5 - levels[above - 1]) / (levels[above] - levels[above - 1])
        return (1 - share) * cube[:, :, above - 1] + share * cube[:, :, above]

    def metrics(self, train: Dataset, test: Dataset, prediction: np.ndarray, weight: np.ndarray | None = None) -> dict[str, float]:
        """mase, rmsse: scaled by the mean absolute and the root mean squared seasonal step of the row's own history.
        smape: 0-2 as in the M4 competition. wape, wql: of the sum of all values. coverage: of the outermost levels."""
        truth, point, scale = self.truth(test), self.point(prediction), self.scales(test)
        weight = (np.ones(len(truth)) if weight is None else weight) * np.isfinite(truth).any(axis=1)
        error, cube = truth - point, self.cube(prediction)
        size = max(float(np.sum(weight * _mean(np.abs(truth)))), 1e-12)
        bad = np.abs(truth) + np.abs(point)
        smape = np.where(bad > 0, 2 * np.abs(error) / np.where(bad > 0, bad, 1), 0.0)
        inside = np.where(np.isnan(truth), np.nan, (truth >= cube[:, :, 0]) & (truth <= cube[:, :, -1]))
        return {
            "mase": float(np.average(_mean(np.abs(error)) / scale, weights=weight)),
            "rmsse": float(np.average(np.sqrt(_mean(error**2)) / self.scales(test, squared=True), weights=weight)),
            "smape": float(np.average(_mean(np.where(np.isnan(truth), np.nan, smape)), weights=weight)),
            "wape": float(np.sum(weight * _mean(np.abs(error))) / size),
            "wql": float(np.sum(weight * _mean(pinball(truth, cube, self.levels).mean(axis=2))) / size),
            "coverage": float(np.average(_mean(inside), weights=weight)),
        }

    def calibration(self, truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        """A factor of the spread around the median for each third of the horizon, with which the outermost levels hold the share of truths that they promise on rows
        the model did not see: conformal, with the width as the unit of the score (Lei et al. 2018, arXiv:1604.04173). The factor that makes the quantile loss least
        was tried and left 70 % of the truths of M4 hourly in intervals of 80 %. It aims half a standard error above what the levels promise, counted in series or, of few
        series, in stretches of time: with the bare share intervals of 80 % held 66-79 % of what came later in five single series, and with it 69-83 %."""
        cube, point = np.sort(self.cube(prediction), axis=2), self.point(prediction)
        above = truth > point
        width = np.where(above, cube[:, :, -1] - point, point - cube[:, :, 0])
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.abs(truth - point) / width  # 0/0 where both say the same: no news about the spread
        promised = self.levels[-1] - self.levels[0]
        aimed = min(1.0, promised + DOUBT * float(np.sqrt(promised * (1 - promised) / self._independent(len(truth)))))
        out = []
        for part in np.array_split(np.arange(self.horizon), min(3, self.horizon)):
            known = score[:, part][~np.isnan(score[:, part])]
            best = float(np.clip(np.quantile(known, aimed, method="higher"), *SPREADS)) if len(known) else 1.0
            prior = PRIOR_ROWS if best < 1 else PRIOR_WIDER
            out.append(round(float(np.exp(np.log(best) * len(truth) / (len(truth) + prior))), 4))
        return {"spread": out}

    def _independent(self, rows: int) -> float:
        """How many of the rows count as independent: the series, or stretches as long as the cube root of the number of origins (Kuensch 1989)."""
        series = min(max(self.series, 1), max(rows, 1)) if self.series else max(rows, 1)
        if series >= ENOUGH_SERIES:
            return float(series)
        origins = max(1.0, rows / series)
        return max(1.0, origins / max(1, round(origins ** (1 / 3))))

    def calibrated(self, prediction: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
        cube = np.sort(self.cube(np.asarray(prediction, dtype=np.float64)), axis=2)
        parts = calibration.get("spread")
        if parts:
            factor = np.concatenate([np.full(len(p), s) for p, s in zip(np.array_split(np.arange(self.horizon), len(parts)), parts, strict=True)])
            point = self.point(cube.reshape(len(cube), -1))[:, :, None]
            cube = point + factor[None, :, None] * (cube - point)
        return cube.reshape(len(cube), -1)

    def answers(self, prediction: np.ndarray) -> pl.DataFrame:
        """A row a series: a list of medians, and of the outermost levels."""
        cube, point = self.cube(prediction), self.point(prediction)
        return pl.DataFrame({"answer": point.tolist(), "low": cube[:, :, 0].tolist(), "high": cube[:, :, -1].tolist()},
                            schema=dict.fromkeys(("answer", "low", "high"), pl.List(pl.Float64)))

    def handed(self, prediction: np.ndarray, asked: Dataset) -> np.ndarray:
        """The calibrated prediction as it is handed out, (n, horizon, levels): in a hierarchy it adds up."""
        return coherent(self.floored(prediction, asked), asked)

    def floored(self, prediction: np.ndarray, asked: Dataset) -> np.ndarray:
        """(n, horizon, levels), nowhere below zero for a series that never was: demand is not negative."""
        never = np.array([bool((h.values[np.isfinite(h.values)] >= 0).all()) for h in histories(asked)], dtype=bool)
        cube = self.cube(prediction)
        return np.where(never[:, None, None], np.maximum(cube, 0.0), cube) if len(cube) else cube

    def table(self, prediction: np.ndarray, asked: Dataset) -> pl.DataFrame:
        """A row a series and step: id, step (from 1), time, and a column a level (q0.1, ...)."""
        n, cube = len(asked), self.handed(prediction, asked)
        ids = asked.frame[asked.schema.group].cast(pl.String).to_list() if asked.schema.group in asked.frame.columns else [""] * n
        names = np.array([i or "series" for i in ids], dtype=object)  # a table of one series does not name it
        out: dict[str, Any] = {asked.schema.group or "id": pl.Series(np.repeat(names, self.horizon), dtype=pl.String), "step": np.tile(np.arange(1, self.horizon + 1), n)}
        if self.frequency and ORIGIN in asked.frame.columns:
            out["time"] = self._after(asked.frame[ORIGIN].to_numpy())
        flat = cube.reshape(n * self.horizon, len(self.levels))
        return pl.DataFrame(out | {f"q{level:g}": flat[:, i] for i, level in enumerate(self.levels)})

    def times(self, origin: Any) -> pl.Series:
        """The times of the steps from this origin on; empty cells where it has none."""
        return self._after([origin])

    def _after(self, origins: Sequence[Any] | np.ndarray) -> pl.Series:
        """The times of the steps of each origin, one below the other."""
        starts = np.array(origins, dtype="datetime64[us]")
        return pl.Series("time", times_after(starts[:, None], self.frequency, np.arange(self.horizon)[None]).ravel(), dtype=pl.Datetime("us"))

    def strata(self, data: Dataset) -> np.ndarray | None:
        return None

    def perfect(self, truth: np.ndarray) -> np.ndarray:
        return np.repeat(np.nan_to_num(truth)[:, :, None], len(self.levels), axis=2).reshape(len(truth), -1)

    def splits(self, data: Dataset) -> list[Split]:
        """The origins kept for it judge; a series' own origins are not independent."""
        part = data.frame[PART].to_numpy()
        test, train = np.flatnonzero(part == "test"), np.flatnonzero(part != "test")
        series = data.frame[data.schema.group][test].rank("dense").to_numpy().astype(np.int64) - 1 if data.schema.group else np.zeros(len(test), dtype=np.int64)
        when = origins_of(data.take(test))
        count = int(when.max(initial=0)) + 1
        if len(np.unique(series)) < ENOUGH_SERIES and count > 2:  # too few series: stretches of time instead, as long as the cube root of their number (Kuensch 1989)
            series = when // max(1, round(count ** (1 / 3)))
        return [Split("origins", train, test, np.unique(series, return_inverse=True)[1])]

    def holdout(self, train: Dataset, *, share: float = 0.2, seed: int = 0, most: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
        """(rest, held): the origins kept for validation are held out, at most `most` of them."""
        part = train.frame[PART].to_numpy()
        held = np.flatnonzero(part == "valid")
        if len(held) > most:
            held = np.sort(np.random.default_rng(seed).permutation(held)[:most])
        return np.flatnonzero(part != "valid"), held

    def json(self) -> dict[str, Any]:
        return {"task": self.name, "horizon": self.horizon, "season": self.season, "frequency": self.frequency, "levels": list(self.levels), "loss": self.loss, "value": self.value,
                "series": self.series}

    @classmethod
    def from_json(cls, packed: dict[str, Any]) -> Forecast:
        return cls(**{k: v for k, v in packed.items() if k not in ("task", "levels")}, levels=tuple(packed["levels"]))

    @classmethod
    def example(cls, seed: int = 0) -> Dataset:
        """40 weekly-seasonal daily series, one of them all zeros, some with gaps, at 4 origins each."""
        rng = np.random.default_rng(seed)
        schema = example_schema("value", ("value",))
        rows = []
        for s in range(40):
            t = np.arange(70)
            values = np.round(np.maximum(0, 20 * (s + 1) * (1 + 0.4 * np.sin(2 * np.pi * t / 7) + 0.003 * t) + rng.normal(0, 4 + s, 70)), 2) * (s > 0)
            if s % 5 == 1:
                values[rng.integers(0, 40, 3)] = np.nan
            for origin in (42, 49, 56, 63):
                one = History(f"s{s:02d}", values[:origin], np.zeros((origin, 0)), np.zeros((0, 0)), origin=np.datetime64("2026-01-01") + origin)
                answer = packed(np.nan_to_num(values[origin : origin + 7])[:, None].astype(np.float32))
                rows.append(row_of(one, 7, schema) | {"value": answer, PART: "train" if origin < 56 else "valid" if origin < 63 else "test"})
        return Dataset(frame_of(rows, schema), schema)


def example_schema(target: str, channels: tuple[str, ...]) -> Schema:
    columns = (Column("id", "id"), Column(PART, "id"), Column(ORIGIN, "time"), Column(HISTORY, "sequence", channels=channels), Column(target, "sequence", channels=(target,)))
    return Schema(columns, target=target, group="id")


def scale_of(values: np.ndarray, season: int, *, squared: bool = False) -> float:
    """The mean absolute (squared: root mean squared) difference of values `season` steps apart, or of neighbours where there are too few; above zero.

    What is constant but for rounding, a millionth of a millionth of its level, has no differences: its level is taken.
    """
    there = np.abs(values[np.isfinite(values)])
    level = float(there.mean()) if len(there) else 0.0
    for lag in (season, 1):
        gap = np.abs(values[lag:] - values[:-lag]) if len(values) > lag else np.zeros(0)
        gap = gap[np.isfinite(gap)]
        size = float(np.sqrt((gap**2).mean()) if squared else gap.mean()) if len(gap) else 0.0
        if size > 1e-12 * level and size > 0:
            return size
    return level if level > 0 else 1.0


def pinball(truth: np.ndarray, cube: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Twice the quantile loss, so that at the median it is the absolute error. truth: (n, h); cube: (n, h, q)."""
    error, level = truth[:, :, None] - cube, np.asarray(levels)
    return 2 * np.maximum(level * error, (level - 1) * error)


def _mean(by_step: np.ndarray) -> np.ndarray:
    """(n, h) -> (n,), without missing steps; 0 where all are."""
    there = np.isfinite(by_step)
    return np.where(there, by_step, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)

