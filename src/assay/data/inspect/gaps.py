"""Moments that are missing from a regular course of time, or stand there twice."""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.words import say

REGULAR = 0.6  # share of the steps that have to be the commonest one
_UNITS = ((86_400_000_000, say("day")), (3_600_000_000, say("hour")), (60_000_000, say("minute")), (1_000_000, say("second")))


def gaps(data: Dataset, column: str, *, in_time: bool) -> list[Finding]:
    """column: a column of times; where rows are not known to follow it, it has to differ in most rows. A step that makes at least a twentieth of all (weekends, nights) belongs to the calendar."""
    series = data.frame[column].drop_nulls()
    if series.dtype != pl.Datetime or len(series) < 30:
        return []
    moments = series.unique().sort()
    if not in_time and len(moments) < 0.8 * len(series):
        return []
    monthly = bool(((moments.dt.day() == 1) & (moments.dt.hour() == 0)).all())
    stamps = (moments.dt.year().cast(pl.Int64) * 12 + moments.dt.month() if monthly else moments.dt.epoch("us")).to_numpy()
    steps = np.diff(stamps)
    if len(steps) < 20:
        return []
    kinds, counts = np.unique(steps, return_counts=True)
    step = int(kinds[counts.argmax()])
    if counts.max() < REGULAR * len(steps):
        return []
    odd = (kinds > step) & (counts < 0.05 * len(steps))
    missing = int(((np.round(kinds[odd] / step) - 1) * counts[odd]).sum())
    if not monthly and step == _UNITS[0][0] and bool((moments.dt.weekday() <= 5).all()):
        days = moments.dt.date().to_numpy().astype("datetime64[D]")
        missing = int((np.busday_count(days[:-1], days[1:]) - 1).sum())
    twice = len(series) - len(moments)
    twice = twice if twice < 0.2 * len(series) else 0  # more: several series stand in one table
    if missing + twice < max(1, 0.001 * len(moments)):
        return []
    whole = len(moments) + missing
    widest = int(steps.argmax())
    text = say("'{column}' goes in steps of {step}; {missing:,} of {whole:,} moments ({percent:.1f} %) are missing, the longest gap begins at {start}{twice}.",
               column=column, step=_worded(step, monthly), missing=missing, whole=whole, percent=100 * missing / whole, start=str(moments[widest])[:16],
               twice=say("; {n:,} moments stand there twice", n=twice) if twice else "")
    advice = say("A feature that looks back a number of rows looks back over the gap too: fill the moments in, or compute with the times.")
    figure = {"missing": missing, "twice": twice, "moments": whole, "rows": len(data), "sampled": False}
    return [Finding("gaps", "warning" if missing >= 0.05 * whole else "note", text, advice, (column,), figure)]


def _worded(step: int, monthly: bool) -> object:
    if monthly:
        return say("one month") if step == 1 else say("{n} months", n=step)
    for size, name in _UNITS:
        if step % size == 0:
            return say("{n} x {unit}", n=step // size, unit=name) if step != size else say("one {unit}", unit=name)
    return say("{n:.3g} seconds", n=step / 1e6)
