"""Series -> the rows of a forecasting question: who is asked from which origin, what the season is, and new histories for a trained model."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.data.dataset import Column, Dataset, Schema
from assay.data.grid import at_step, split_frequency
from assay.data.history import AHEAD, HISTORY, ORIGIN, PART, About, History, frame_of, is_total, row_of
from assay.data.media import packed
from assay.data.series import Collection, Series
from assay.errors import InputError, TaskError
from assay.words import Text, say

MOST_HISTORY = 8192  # steps of a row that judges; what is learnt from is whole
TEST_ROWS, TEST_SHARE, VALID_SHARE = 100, 0.3, 0.2  # origins are added until so many rows judge, within these shares of a series
MOST_ORIGINS = 60
SEASONS = {"s": (60, 3600), "m": (60, 1440), "h": (24, 168), "d": (7, 30, 365), "b": (5, 21, 260), "w": (52, 4), "mo": (12, 3), "y": (1,)}
ANY_SEASON = (4, 5, 6, 7, 10, 12, 24, 30, 48, 52, 60, 96, 144, 168, 288, 336, 365)
CLEAR = 0.1  # share of the variance around the trend that a season has to explain
LEAST_HISTORY = 3
LEAST_SEASON = 4  # steps: a season within the season that is shorter is no news


def windowed(found: Collection, *, horizon: int | None, season: int | None, wide: bool, notes: list[Text], hierarchy: tuple[str, ...] = ()) -> Dataset:
    """The rows: for each series the latest origins judge, those before them validate, and one teaches all that came before. Raises TaskError."""
    lengths = np.array([len(s.values) for s in found.series])
    if not len(lengths) or lengths.max() < 2:
        if len(lengths) > 1 and found.by:
            raise TaskError("Each of the {n:,} series by '{by}' has one value at most, so there is nothing to forecast. Is there another column for --group?", n=len(lengths), by=found.by)
        raise TaskError("No series has two values, so there is nothing to forecast.")
    season = season or season_of(found)
    horizon = horizon or _usual_horizon(found.frequency, season, int(np.median(lengths)))
    steps = {"frequency": found.frequency or "?", "horizon": horizon}
    notes.append(say("Steps of {frequency}, a season of {season} steps, the next {horizon} are forecast; --season and --horizon say otherwise.", season=season, **steps) if season > 1
                 else say("Steps of {frequency}, no season, the next {horizon} are forecast; --season and --horizon say otherwise.", **steps))
    least = 3 * horizon + LEAST_HISTORY
    usable = [s for s in found.series if len(s.values) >= least]
    if not usable:
        raise TaskError("The longest series has {n:,} steps, and a horizon of {horizon:,} needs {least:,}: some to learn from, some to validate, some to judge. "
                        "Ask for a shorter --horizon.", n=int(lengths.max()), horizon=horizon, least=least)
    short = [s for s in found.series if horizon + 1 <= len(s.values) < least]
    if short:
        notes.append(say("{n:,} series with fewer than {least:,} steps only judge: nothing is learnt from them.", n=len(short), least=least))
    if (left := len(found.series) - len(usable) - len(short)) > 0:
        notes.append(say("{n:,} series with at most {steps:,} steps are too short even to judge and are left out.", n=left, steps=horizon))
    median = float(np.median([len(s.values) for s in usable]))
    judging = int(np.clip(np.ceil(TEST_ROWS / len(usable)), 1, max(1, min(MOST_ORIGINS, int(TEST_SHARE * median / horizon)))))
    checking = int(np.clip(judging, 1, max(1, int(VALID_SHARE * median / horizon))))
    about = About(horizon, season, found.frequency, found.value, found.by, found.time, wide, hierarchy)
    schema = schema_of(found, about)
    rows: list[dict[str, Any]] = []
    for one in usable:
        n = len(one.values)
        tests = min(judging, max(1, int(TEST_SHARE * n / horizon)), (n - LEAST_HISTORY) // horizon - 2)
        checks = min(checking, max(1, int(VALID_SHARE * n / horizon)), (n - LEAST_HISTORY) // horizon - 1 - tests)
        parts = ["test"] * tests + ["valid"] * checks + ["train"]
        rows += [_row(one, n - horizon * (k + 1), part, found, about, schema) for k, part in reversed([*enumerate(parts)])]
    rows += [_row(one, len(one.values) - horizon, "test", found, about, schema) for one in short]
    rows = [row for row in rows if row[PART] == "train" or _told(row[schema.target or ""])]
    judged = sum(row[PART] == "test" for row in rows)
    if judged < 3 or not any(row[PART] == "valid" for row in rows):
        raise TaskError("Only {n} forecasts of {horizon:,} steps could be judged, and that says nothing: the longest series has {steps:,} steps. Ask for a shorter --horizon, or bring "
                        "more series.", n=judged, horizon=horizon, steps=int(lengths.max()))
    notes.append(say("Origins: the last {tests} of each series judge, the {checks} before validate.", tests=judging, checks=checking))
    return Dataset(frame_of(rows, schema), schema)


def schema_of(found: Collection, about: About) -> Schema:
    """The column of parts holds in its unit what new rows need."""
    target = found.value if found.value not in (HISTORY, AHEAD, ORIGIN, PART) else "value"
    columns = [Column("id" if found.by is None else found.by, "id"), Column(PART, "id", unit=about.text())]
    columns += [Column(name, kind) for name, kind in found.kinds.items()]
    if about.frequency:
        columns.append(Column(ORIGIN, "time"))
    columns.append(Column(HISTORY, "sequence", channels=(target, *found.names)))
    if found.known:
        columns.append(Column(AHEAD, "sequence", channels=found.known))
    return Schema((*columns, Column(target, "sequence", channels=(target,))), target=target, group=columns[0].name)


def upto(one: Series, origin: int, found: Collection, horizon: int, most: int | None = None) -> History:
    """The series as it is known at this step."""
    begin = 0 if most is None else max(0, origin - most)
    ahead = one.covariates[origin : origin + horizon, [found.names.index(n) for n in found.known]]
    missing = np.full((max(0, horizon - len(ahead)), len(found.known)), np.nan)
    return History(one.id, one.values[begin:origin], one.covariates[begin:origin], np.concatenate([ahead, missing]), found.names, found.known,
                   None if one.start is None else at_step(one.start, found.frequency, origin), one.static)


def asked(found: Collection, schema: Schema) -> Dataset:
    """Rows for a trained model: every series from its end on. Raises InputError if what must be known ahead is missing."""
    about = About.of(schema)
    assert about is not None
    wanted = schema.without_target()
    channels = next(c.channels or () for c in wanted.columns if c.name == HISTORY)
    if absent := [n for n in channels[1:] if n not in found.names]:
        raise InputError("The rows lack columns the model was trained with: {absent}.", absent=absent)
    order = [found.names.index(n) for n in channels[1:]]
    known = next((c.channels or () for c in wanted.columns if c.name == AHEAD), ())
    same = Collection([Series(s.id, s.values, s.covariates[:, order], s.start, s.static) for s in found.series], tuple(channels[1:]), tuple(known), found.frequency, found.value,
                      found.by, found.time, found.kinds)
    rows = []
    for one in same.series:
        if not len(one.values):
            raise InputError("The series '{id}' has no value yet, so there is nothing to go on. Leave it out, or give it one.", id=one.id)
        history = upto(one, len(one.values), same, about.horizon, MOST_HISTORY)
        if known and np.isnan(history.ahead).any() and not (about.hierarchy and is_total(one.id)):
            raise InputError("'{names}' must be known for the next {horizon} steps of '{id}': add rows with its values and an empty '{value}'.", names=list(known),
                             horizon=about.horizon, id=one.id, value=about.value)
        rows.append(row_of(history, about.horizon, wanted))
    return Dataset(frame_of(rows, wanted), wanted)


def season_of(found: Collection) -> int:
    """The season that explains most of what is left around the trend, over at most 100 series; 1 for none."""
    count, unit = split_frequency(found.frequency) if found.frequency else (1, "")
    usual = tuple(max(1, round(s / count)) for s in SEASONS.get(unit, ANY_SEASON)) if found.frequency else ANY_SEASON
    some = sorted(found.series, key=lambda s: (-len(s.values), s.id))[:: max(1, len(found.series) // 100)][:100]
    best, clear = 1, CLEAR
    for season in usual:
        told = [e for s in some if len(s.values) >= 3 * season and season > 1 and np.isfinite(e := explained(s.values[-20 * season :], season))]
        if len(told) >= max(1, len(some) // 4) and float(np.median(told)) > clear:
            best, clear = season, float(np.median(told)) + 0.05
    return best


def seasons_within(frequency: str, season: int) -> list[int]:
    """The usual seasons of such steps that are shorter than this one: days within a week of hours."""
    if not frequency:
        return []
    count, unit = split_frequency(frequency)
    return sorted({steps for s in SEASONS.get(unit, ()) if LEAST_SEASON <= (steps := round(s / count)) < season})


def explained(values: np.ndarray, season: int) -> float:
    """The share of the variance around a moving mean over one season that the mean of each phase explains, corrected for their number; NaN if undefined."""
    there = np.isfinite(values)
    if there.sum() < 2 * season:
        return float("nan")
    filled = np.interp(np.arange(len(values)), np.flatnonzero(there), values[there])
    weights = np.ones(season) if season % 2 else np.r_[0.5, np.ones(season - 1), 0.5]
    trend = np.convolve(filled, weights / weights.sum(), mode="valid")
    skip = (len(weights) - 1) // 2
    rest, phase = filled[skip : skip + len(trend)] - trend, (np.arange(len(trend)) + skip) % season
    n = len(rest)
    total = float(((rest - rest.mean()) ** 2).sum())
    if n <= season + 1 or total <= 1e-12 * max(1.0, float((filled**2).sum())):
        return float("nan")
    means = np.bincount(phase, weights=rest, minlength=season) / np.maximum(np.bincount(phase, minlength=season), 1)
    return 1 - (float(((rest - means[phase]) ** 2).sum()) / (n - season)) / (total / (n - 1))


def _told(answer: bytes) -> bool:
    """Half of the steps at least are known, so that a forecast of them can be judged."""
    return float(np.isfinite(np.frombuffer(answer, dtype="<f4")).mean()) >= 0.5


def _row(one: Series, origin: int, part: str, found: Collection, about: About, schema: Schema) -> dict[str, Any]:
    history = upto(one, origin, found, about.horizon, None if part == "train" else MOST_HISTORY)
    answer = packed(one.values[origin : origin + about.horizon, None].astype(np.float32))
    return row_of(history, about.horizon, schema) | {schema.target or "": answer, PART: part}


def _usual_horizon(frequency: str, season: int, length: int) -> int:
    """Two days of hours, a day of minutes, four weeks of days (working days too), a quarter of weeks, a year of months, else two seasons; at most a tenth of a series."""
    count, unit = split_frequency(frequency) if frequency else (1, "")
    wanted = {"h": 48, "m": 1440, "d": 28, "b": 20, "w": 13, "mo": 12}.get(unit, 2 * season if 1 < season <= 48 else 12)
    return max(1, min(max(1, wanted // count), length // 10))
