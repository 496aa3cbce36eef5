"""The spread of a forecaster that is asked again and again without new training."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Dataset
from assay.data.echo import LOOKS, MOST_FACTOR, Echo
from assay.data.history import HISTORY, ORIGIN, PART, History, frame_of, row_of
from assay.data.media import packed
from assay.tasks.forecast import LEVELS, Forecast, example_schema

H, SEASON = 6, 6
BELL = np.array([-1.28, -0.84, -0.52, -0.25, 0.0, 0.25, 0.52, 0.84, 1.28])
START = np.datetime64("2026-01-01")


def series(steps: int, seed: int, timed: bool = True) -> History:
    values = np.random.default_rng(seed).normal(0, 1, steps)
    return History("a", values, np.zeros((steps, 0)), np.zeros((0, 0)), origin=START + steps if timed else None)


def taught(steps: int, timed: bool = True) -> Echo:
    """By a series of so many steps, by a forecaster whose quantiles are right."""
    one, schema = series(steps - H, 0, timed), example_schema("value", ("value",))
    row = row_of(one, H, schema) | {"value": packed(np.zeros((H, 1), dtype=np.float32)), PART: "train"}
    train = Dataset(frame_of([row], schema), schema)
    if not timed:
        train = Dataset(train.frame.with_columns(pl.lit(None, dtype=pl.Datetime("us")).alias(ORIGIN)), schema)
    assert train.frame[HISTORY].len() == 1
    future = np.random.default_rng(1).normal(0, 1, (200, H))
    return Echo(H, SEASON, "1d" if timed else "", LEVELS).learn(train, future, said(200))


def said(rows: int) -> np.ndarray:
    return np.broadcast_to(BELL, (rows, H, len(LEVELS)))


def asked_again(echo: Echo, steps: int, *, larger: float = 1.0, timed: bool = True) -> float:
    """The factor of the spread once so many steps are known; errors since are so many times as large as the forecaster says."""
    one = series(steps, 2, timed)
    looked: list[int] = []

    def told(rows: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        looked.append(len(origin))
        assert (origin >= 200).all(), "an origin of the training"
        assert (origin + H <= steps).all(), "an origin whose future is not known"
        return larger * np.random.default_rng(3).normal(0, 1, (len(rows), H)), said(len(rows))

    cube = echo.scaled(said(1).copy(), [one], told)
    assert not looked or looked[0] <= LOOKS
    return float((cube[0, 0, -1] - cube[0, 0, 0]) / (BELL[-1] - BELL[0]))


def test_a_forecaster_that_was_taught_just_now_answers_as_it_learnt_to():
    for timed in (True, False):
        for steps in (200, 200 + H - 1):
            assert asked_again(taught(200, timed), steps, larger=9.0, timed=timed) == 1.0


@settings(max_examples=25, deadline=None)
@given(horizons=st.integers(1, 12), larger=st.floats(1.6, 8.0), timed=st.booleans())
def test_larger_errors_widen_and_smaller_ones_narrow_within_bounds(horizons, larger, timed):
    echo, steps = taught(200, timed), 200 + horizons * H
    wide, narrow = (asked_again(echo, steps, larger=size, timed=timed) for size in (larger, 1 / larger))
    assert 1.0 < wide <= MOST_FACTOR
    assert 1 / MOST_FACTOR <= narrow < 1.0


def test_what_was_learnt_of_errors_is_packed_and_an_older_model_without_it_keeps_its_spread():
    for timed in (True, False):
        echo = taught(200, timed)
        again = Echo(H, SEASON, "1d" if timed else "", LEVELS).read(json.loads(json.dumps(echo.json())))
        assert asked_again(again, 260, larger=3.0, timed=timed) == asked_again(echo, 260, larger=3.0, timed=timed) > 1.0
    assert asked_again(Echo(H, SEASON, "1d", LEVELS).read(None), 260, larger=3.0) == 1.0


def test_calibration_aims_higher_the_fewer_origins_are_independent():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, (60, H))
    told = np.broadcast_to(BELL, (60, H, len(LEVELS))).reshape(60, -1)
    factors = [np.mean(Forecast(horizon=H, series=count).calibration(truth, told)["spread"]) for count in (1, 20, 60)]
    assert factors[0] > factors[1] > factors[2] > 0.95
    many = rng.normal(0, 1, (4000, H))
    promised = Forecast(horizon=H, series=4000).calibration(many, np.broadcast_to(BELL, (4000, H, len(LEVELS))).reshape(4000, -1))["spread"]
    np.testing.assert_allclose(promised, 1.0, atol=0.03)
