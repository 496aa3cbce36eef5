"""What a bundle brings for its watch: sketches of all training rows and of answers to rows it had not seen, or at least its reference rows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column, Schema
from assay.errors import InputError
from assay.watch.gauge import Gauge
from assay.watch.traces import APART

FACT = "watch"
_STEPS = 50  # of a confidence
_FEW_WIDTHS = 20  # one a split and seed of the contest
ANSWERED = tuple(Column(f"{APART}{name}", kind) for name, kind in (("answer", "category"), ("confidence", "number"), ("amount", "number"), ("width", "number")))


def watched_columns(schema: Schema) -> tuple[Column, ...]:
    return schema.without_target().features


def for_facts(features: pl.DataFrame, schema: Schema, answers: Sequence[dict[str, Any]] | None = None) -> dict[str, dict[str, str]]:
    """What belongs into a bundle's facts, so that its watch need not learn from the first live rows: {"watch": {"rows": ..., "answers": ...}}.

    features: all training rows without the answer, as the dataset holds them. answers: as `Task.answers` makes them, to rows that the model had not seen (the contest's test rows).
    """
    said = {"rows": _text(Gauge.learn(features, watched_columns(schema)))}
    if answers:
        said["answers"] = _text(gauge_of_answers(answers_frame(answers)))
    return {FACT: said}


def given(bundle: Any) -> tuple[Gauge | None, Gauge | None]:
    """(gauge of the rows, gauge of the answers) of a bundle, each None where it brings none. Reference rows make no gauge of answers: the model has
    learnt from them, and is surer of them than of any row to come."""
    packed = bundle.facts.get(FACT)
    if isinstance(packed, dict) and "rows" in packed:
        return _gauge(packed["rows"]), _gauge(packed["answers"]) if "answers" in packed else None
    if bundle.reference is None:
        return None, None
    known = [c for c in watched_columns(bundle.schema) if c.name in bundle.reference.columns]
    return Gauge.learn(bundle.reference, known), None


def gauge_of_answers(told: pl.DataFrame) -> Gauge:
    """told: as `answers_frame` made it. An interval of one width for all rows says nothing of a row: it changes only when the model is fitted or calibrated again."""
    width = f"{APART}width"
    if told[width].n_unique() <= _FEW_WIDTHS:
        told = told.with_columns(pl.lit(None, dtype=pl.Float64).alias(width))
    return Gauge.learn(told, ANSWERED)


def answers_frame(answers: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Answers as the columns that are watched: class and confidence, or amount and width of the interval; empty ones where the task has none.

    Confidences to the nearest fiftieth: a winner is fitted again on all rows, or its few voters give the same numbers again and again, and 0.9979 instead of 0.9986
    is no shift; on a grid of quantiles it looked like a large one. Amounts to six digits: the last ones of a row asked alone may be others than of the same row among many.
    """
    n = len(answers)
    label = [a.get("answer") for a in answers]
    amounts = all(v is None or (isinstance(v, float) and "low" in a) for v, a in zip(label, answers, strict=True)) and any("low" in a for a in answers)
    numbers = {"confidence": [a.get("probability") for a in answers], "amount": label if amounts else [None] * n,
               "width": [a["high"] - a["low"] if a.get("low") is not None and a.get("high") is not None else None for a in answers]}
    frame = {f"{APART}answer": pl.Series([None if amounts or v is None else str(v) for v in label], dtype=pl.String)}
    for name, values in numbers.items():
        cells = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        frame[f"{APART}{name}"] = pl.Series(np.round(cells * _STEPS) / _STEPS if name == "confidence" else _six_digits(cells)).fill_nan(None)
    return pl.DataFrame(frame)


def _six_digits(cells: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = 5 - np.floor(np.log10(np.abs(cells)))
        power = 10.0 ** np.abs(places)  # exact, and so is what is divided by it: 0.0999999999 becomes the same 0.1 as 0.1
        rounded = np.where(places >= 0, np.round(cells * power) / power, np.round(cells / power) * power)
    return np.where(np.isfinite(rounded), rounded, cells)


def _text(gauge: Gauge) -> str:
    return base64.b64encode(gauge.to_bytes()).decode()


def _gauge(text: Any) -> Gauge:
    try:
        return Gauge.from_bytes(base64.b64decode(text, validate=True))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError("The bundle's sketches for the watch are damaged ({error}). Pack it again.", error=type(error).__name__) from None
