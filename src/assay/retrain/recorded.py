"""Answers as they were recorded, beside the labels that came later -> the loss of each row, the same loss as in the contest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.tasks.base import Task
from assay.tasks.classify import FLOOR, Classify
from assay.tasks.labels import label_of, spelt
from assay.tasks.regress import Regress
from assay.words import Text, say

SURPRISE = 0.01  # in the test of a challenger a smaller probability of what came true counts as this one: without a limit one row in 1,000 decides
FAR = 2.5  # half-widths of the champion's 90 % interval; an error further off counts as this far: one normal error in 25,000 is, and of t(3) errors 1.5 %


@dataclass(frozen=True)
class Losses:
    """of: (n,) by row, NaN where the label could not be used. support: the greatest loss possible, None where there is none. notes: what a reader should know."""

    of: np.ndarray
    most: float | None
    notes: tuple[Text, ...] = ()


def losses(task: Task, answers: list[dict[str, Any]], labels: list[Any], *, cap: float | None = None) -> Losses:
    """The loss of every answer under its label. answers: as `Bundle.predict_one` gives them. cap: a greater loss counts as this one.

    A label that the model has never learnt is a miss. With more than 20 classes only the answer itself is recorded, and wrong answers are counted instead of
    'log' and 'brier'. Raises InputError for a task whose answers are judged by origins and not by rows.
    """
    if isinstance(task, Classify):
        found = _classes(task, answers, labels)
    elif isinstance(task, Regress):
        found = _amounts(task, answers, labels)
    else:
        raise InputError("Versions that answer the task '{task}' cannot be compared by labels of single rows. Compare them by a contest on the whole series: assay run.", task=task.name)
    if cap is None or not np.isfinite(cap):
        return found
    return Losses(np.minimum(found.of, cap), cap if found.most is None else min(cap, found.most), found.notes)


def cap_of(task: Task, calibration: dict[str, Any]) -> float | None:
    """The loss above which losses count as it in a comparison, so that it can be exact; known before the first label. None: the loss has an end of its own, or nothing
    is known of its size.

    Measured (200 streams): with these caps the exact test needs 1.2 to 2.9 times the labels of the approximate one, whose error is not bounded where harm is rare and large;
    without them, of log losses, 5 times.
    """
    if isinstance(task, Classify) and task.loss == "log":
        return -float(np.log(SURPRISE))
    radius = calibration.get("radius")
    if not isinstance(task, Regress) or not isinstance(radius, (int, float)) or not 0 < radius < np.inf:
        return None
    error = pl.Series([FAR * radius, -FAR * radius])
    return float(_judged(task, error, np.zeros((2, 3))).max())


def _classes(task: Classify, answers: list[dict[str, Any]], labels: list[Any]) -> Losses:
    own = len(task.classes)
    code_of = {spelt(c): k for k, c in enumerate(task.classes)}
    truth = np.full(len(labels), -1)
    for place, label in enumerate(labels):
        if label is not None and not isinstance(label, (dict, list)):
            truth[place] = code_of.setdefault(spelt(label), len(code_of))
    width, loss, notes = max(len(code_of), own), task.loss, []
    whole = [all(f"p({c})" in answer for c in task.classes) for answer in answers]
    if not all(whole) and loss in ("log", "brier"):
        loss = "error"
        notes.append(say("With more than 20 classes only the answer is recorded, so wrong answers are counted here and not the loss '{loss}'.", loss=task.loss))
    strange = truth >= own
    usable = truth >= 0
    if strange.any():
        notes.append(say("{n:,} labels name a class that version's training data did not have; they count as misses.", n=int(strange.sum())) if loss != "cost" else
                     say("{n:,} labels name a class without a price in the cost matrix and were left out.", n=int(strange.sum())))
    if loss == "cost":
        usable &= ~strange
    out = np.full(len(answers), np.nan)
    rows = np.flatnonzero(usable)
    if loss == "cost" and task.costs is not None:
        out[rows] = [task.costs[truth[i], code_of[spelt(answers[i]["answer"])]] for i in rows]
    elif len(rows):
        told = np.zeros((len(rows), width))
        for k, i in enumerate(rows):
            if loss == "error":  # what was answered, also where prices made it another than the likeliest
                told[k, code_of[spelt(answers[i]["answer"])]] = 1.0
            else:
                told[k, :own] = [answers[i][f"p({c})"] for c in task.classes]
        out[rows] = _judged(Classify(tuple(range(width)), loss=loss), pl.Series(truth[rows], dtype=pl.Int64), told)
    most = {"log": -float(np.log(FLOOR)), "error": 1.0, "brier": 2.0}.get(loss)
    return Losses(out, float(np.max(task.costs)) if loss == "cost" and task.costs is not None else most, tuple(notes))


def _amounts(task: Regress, answers: list[dict[str, Any]], labels: list[Any]) -> Losses:
    truth = np.array([np.nan if (amount := label_of(task, label)) is None else amount for label in labels], dtype=np.float64)
    told = np.array([[np.nan if a.get(k) is None else float(a[k]) for k in ("answer", "low", "high")] for a in answers], dtype=np.float64).reshape(-1, 3)
    usable = np.isfinite(truth) & np.isfinite(told[:, 0])
    out = np.full(len(answers), np.nan)
    if usable.any():
        out[usable] = _judged(task, pl.Series(truth[usable]), told[usable])
    return Losses(out, None)


def _judged(task: Task, truth: pl.Series, told: np.ndarray) -> np.ndarray:
    kind = "category" if truth.dtype.is_integer() else "number"
    data = Dataset(truth.alias("label").to_frame(), Schema((Column("label", kind),), target="label"))
    return np.asarray(task.losses(data, data, told), dtype=np.float64)

