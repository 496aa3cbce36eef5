"""Label errors: which answers contradict all that the other rows teach, how many of them are wrong, and what mending them would be worth.

Confident learning (Northcutt et al. 2021, arXiv:1911.00068) names the suspects. It cannot tell a wrong label from one that the inputs
do not determine: on credit defaults a tenth of the rows contradict any model, and rightly so. What tells them apart is where they
stand. Where nature is uncertain, the rows of which the model is surest contradict it least; labels that were flipped by mistake
contradict it there as often as elsewhere. So the share of contradictions among the surest rows bounds the share of wrong labels from
above, and only if it does not fall towards them is it taken for an estimate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.data.split import splits
from assay.errors import AssayError
from assay.families.base import Budget, Candidate, TooSlow
from assay.registry import get
from assay.tasks.base import Task
from assay.words import say

FOLDS = 5
MOST_ROWS = 10_000
LEAST_ROWS = 100
SHOWN = 20
UNKNOWN = 0.1  # of a class contradicted beyond what flips explain: 0.17 of the churners of telecom_churn, of whom no label is known to be wrong
WORST = 6.0  # robust standard deviations of an amount's residual; of 10,000 normal ones none lies beyond 5
Predict = Callable[[Dataset, Dataset], np.ndarray]


@dataclass(frozen=True)
class Suspects:
    """rows: positions in the data looked at, most suspicious first. suggested: the answer in its place, class codes or amounts.

    low, high: how many of all rows carry a wrong label, 95 % interval. flat: the contradictions do not thin out where the model is sure.
    """

    rows: np.ndarray
    suggested: np.ndarray
    doubt: np.ndarray
    low: float
    high: float
    flat: bool


def label_errors(data: Dataset, task: Task, *, seed: int, seconds: float, predict: Predict | None = None) -> Finding | None:
    """The suspects among the answers as a finding; None if there are none, or if rows or time are too few to tell.

    predict: (train, asked) -> raw predictions (n, task.width) of a model fitted on `train`; None: trees, or a line where there are texts.
    `figure["suspects"]` lists the 20 worst: row (from 1, as in the file), given, suggested, doubt (0-1); `figure["rows_suspected"]` the
    row numbers of the worst 2,000.
    """
    if predict is None:
        import lightgbm  # noqa: F401  its first import takes seconds, which the first fit should not be judged by

    deadline = time.monotonic() + seconds
    rng = np.random.default_rng(seed)
    looked, found = _affordable(data, rng, MOST_ROWS), None
    while len(looked) >= LEAST_ROWS:
        started = time.monotonic()
        found = _out_of_fold(looked, task, seed, predict, (deadline - started) / (2 * FOLDS))
        if not isinstance(found, float):
            break
        fewer = int(len(looked) * min(0.5, 0.8 * found))  # too slow: the share of the rows that fits
        looked, found = _affordable(looked, rng, fewer), None
    if found is None or isinstance(found, float):
        return None
    parts, raw = found
    truth = task.truth(looked)
    if task.name == "regress":
        suspects = _amounts(truth, raw[:, 0])
    else:
        suspects = _labels(truth, task.calibrated(raw, task.calibration(truth, raw)))
    if not len(suspects.rows):
        return None
    worth = None
    if time.monotonic() < deadline:
        worth = _worth(looked, task, seed, predict, parts, raw, suspects, max((deadline - time.monotonic()) / FOLDS, 0.1))
    return _finding(data, looked, task, truth, suspects, worth)


# ---- answers from rows that did not teach


def _affordable(data: Dataset, rng: np.random.Generator, most: int) -> Dataset:
    if data.y.null_count():
        data = data.take(data.y.is_not_null().to_numpy())
    if data.rows is None:
        data = replace(data, rows=np.arange(len(data)))
    return data if len(data) <= most else data.take(np.sort(rng.choice(len(data), most, replace=False)))


def _out_of_fold(data: Dataset, task: Task, seed: int, predict: Predict | None, seconds: float) -> tuple[list[Any], np.ndarray] | float | None:
    """(splits, raw predictions), or if the first fit took too long the share of rows that would not; None if no model can be fitted."""
    kind = "group" if data.schema.group and data.frame[data.schema.group].n_unique() >= FOLDS else "random"
    parts = splits(data, folds=FOLDS, share=1 / FOLDS, seed=seed, kind=kind, strata=task.strata(data) if kind == "random" else None)
    raw = np.zeros((len(data), task.width))
    for i, part in enumerate(parts):
        started = time.monotonic()
        told = _fit(task, data.take(part.train), data.take(part.test).asked(), seed, predict, seconds)
        if told is None:
            return None
        raw[part.test] = told
        took = time.monotonic() - started
        if i == 0 and took > 1.2 * seconds:
            return seconds / took
    return parts, raw


def _fit(task: Task, train: Dataset, asked: Dataset, seed: int, predict: Predict | None, seconds: float) -> np.ndarray | None:
    if predict is not None:
        return predict(train, asked)
    name = "linear" if train.schema.of_kind("text") else "boosting"
    candidate = get("assay.families", Candidate, name)
    if candidate.refuses(task, train.schema) is not None:
        return None
    try:
        model = candidate.build(task, train.schema).fit(train, seed=seed, budget=Budget(seconds=max(seconds, 0.5), threads=1))
        return model.predict(asked)
    except (AssayError, TooSlow):
        return None


# ---- who contradicts


def _labels(truth: np.ndarray, shares: np.ndarray) -> Suspects:
    """shares: calibrated out-of-fold class probabilities (n, k)."""
    n, k = shares.shape
    counts = np.bincount(truth, minlength=k)
    usual = np.array([shares[truth == c, c].mean() if counts[c] else 1.0 for c in range(k)])
    above = np.where(shares >= usual, shares, -1.0)
    said = above.argmax(axis=1)
    suspect = (above.max(axis=1) > 0) & (said != truth)
    own = shares[np.arange(n), truth]
    for c in range(k):  # a class of which the model knows less than half is not recognised, not mislabelled
        mine = truth == c
        if counts[c] and suspect[mine].mean() > 0.4:
            suspect[mine] = False
    doubt = shares[np.arange(n), said] - own
    rows = np.flatnonzero(suspect)
    rows = rows[np.argsort(-doubt[rows], kind="stable")]
    low, high, flat = _share_wrong(truth, shares)
    return Suspects(rows, said[rows], (doubt[rows] + 1) / 2, low * n, high * n, flat)


def _share_wrong(truth: np.ndarray, shares: np.ndarray) -> tuple[float, float, bool]:
    """(low, high, flat): bounds of the share of wrong labels, from the contradictions among the rows of which the model is surest.

    Flat: they are no rarer in the surest quarter than in the second, and no class is contradicted far more often than flips at that rate would
    make it: a class that is, is not recognised rather than mislabelled.
    Then low is the lower end for the surest tenth (or quarter, or half, if lower), where nature adds least, and high the upper end for the surest half.
    """
    sure, wrong = shares.max(axis=1), shares.argmax(axis=1) != truth
    order = np.argsort(-sure, kind="stable")
    tenth, quarter = max(len(order) // 10, 1), max(len(order) // 4, 1)
    top, second, half = wrong[order[:quarter]], wrong[order[quarter: 2 * quarter]], wrong[order[: 2 * quarter]]
    a, b, c = float(top.mean()), float(second.mean()), float(half.mean())
    error = math.sqrt((a * (1 - a) + b * (1 - b) + 1 / quarter**2) / quarter)
    counts = np.bincount(truth, minlength=shares.shape[1]).astype(float)
    flips = c * (len(truth) - counts) / max(shares.shape[1] - 1, 1) / np.maximum(counts, 1)
    seen = np.bincount(truth, weights=wrong, minlength=len(counts)) / np.maximum(counts, 1)
    beyond = (seen - flips)[counts >= 20]
    known = not len(beyond) or float(beyond.max() if len(counts) == 2 else beyond.mean()) <= UNKNOWN  # of two classes it is the rarer that is not recognised
    if known and a >= 0.6 * b and b - a <= 0.5 * c + 2 * error and c > 0.004:
        low = min(_wilson(int(part.sum()), len(part))[0] for part in (wrong[order[:tenth]], top, half))
        return low, _wilson(int(half.sum()), len(half))[1], True
    return 0.0, _wilson(int(top.sum()), quarter)[1], False


def _wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p = hits / n
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))


def _amounts(truth: np.ndarray, told: np.ndarray) -> Suspects:
    """Residuals far outside what rows with a like prediction show. How many of them are mistakes and how many rare but true cannot be told."""
    residual = truth - told
    n = len(truth)
    bins = max(1, min(20, n // 100))
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(told, kind="stable")] = np.arange(n) * bins // n
    whole = 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) or float(residual.std()) or 1.0
    scale = np.empty(bins)
    for b in range(bins):
        mine = residual[place == b]
        scale[b] = max(1.4826 * float(np.median(np.abs(mine - np.median(mine)))), 0.3 * whole)
    far = np.abs(residual) / scale[place]
    rows = np.flatnonzero(far > WORST)
    rows = rows[np.argsort(-far[rows], kind="stable")]
    return Suspects(rows, told[rows], np.minimum(1.0, 1 - WORST / far[rows] / 2), 0.0, float(len(rows)), False)


# ---- what mending them would be worth


def _worth(data: Dataset, task: Task, seed: int, predict: Predict | None, parts: list[Any], raw: np.ndarray, suspects: Suspects, seconds: float) -> dict[str, Any] | None:
    """Error of models that were taught all rows and of models that were taught no suspects, on the rows that are none; paired, 95 % interval."""
    doubtful = np.zeros(len(data), dtype=bool)
    doubtful[suspects.rows] = True
    clean = np.full_like(raw, np.nan)
    for part in parts:
        kept = part.train[~doubtful[part.train]]
        told = _fit(task, data.take(kept), data.take(part.test).asked(), seed, predict, seconds)
        if told is None:
            return None
        clean[part.test] = told
    truth, judged = task.truth(data), ~doubtful
    if task.name == "regress":
        before, after = (np.abs(truth - p[:, 0])[judged] for p in (raw, clean))
    else:
        before, after = ((p.argmax(axis=1) != truth)[judged].astype(float) for p in (raw, clean))
    gain = before - after
    error = 1.96 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
    return {"error_with": float(before.mean()), "error_without": float(after.mean()), "gain": float(gain.mean()), "low": float(gain.mean()) - error,
            "high": float(gain.mean()) + error, "measure": "mean absolute error" if task.name == "regress" else "error rate", "rows": int(judged.sum())}


def _finding(data: Dataset, looked: Dataset, task: Task, truth: np.ndarray, suspects: Suspects, worth: dict[str, Any] | None) -> Finding:
    assert looked.rows is not None
    named = getattr(task, "classes", None)
    shown = [{"row": int(looked.rows[i]) + 1, "given": named[int(truth[i])] if named else float(truth[i]), "suggested": named[int(s)] if named else round(float(s), 6),
              "doubt": round(float(d), 4)} for i, s, d in list(zip(suspects.rows, suspects.suggested, suspects.doubt, strict=True))[:SHOWN]]
    count, n = len(suspects.rows), len(looked)
    figure: dict[str, Any] = {"suspects": shown, "rows_suspected": (looked.rows[suspects.rows[:2000]] + 1).tolist(), "count": count, "wrong_low": round(suspects.low, 1), "wrong_high": round(suspects.high, 1), "flat": suspects.flat,
                              "worth": worth, "rows": n, "sampled": n < len(data)}
    target, first = data.y.name, shown[0]
    example = say("row {row:,} says {given}, {suggested} would fit", row=first["row"], given=str(first["given"]), suggested=str(first["suggested"]))
    if task.name == "regress":
        text = say("{count:,} of {n:,} amounts in '{target}' lie far from what the other rows teach ({example}). Whether they are mistakes or rare but true cannot be "
                   "told from the table.", count=count, n=n, target=target, example=example)
    elif suspects.flat:
        text = say("{count:,} of {n:,} answers in '{target}' contradict what the other rows teach ({example}), also where a model is surest: {low:,.0f} to {high:,.0f} wrong "
                   "labels would explain that.", count=count, n=n, target=target, example=example, low=suspects.low, high=suspects.high)
    else:
        text = say("{count:,} of {n:,} answers in '{target}' contradict what the other rows teach ({example}), but mostly where a model is unsure anyway: at most {high:,.0f} "
                   "labels are wrong at random, perhaps none.", count=count, n=n, target=target, example=example, high=suspects.high)
    level = "warning" if suspects.flat and suspects.low >= 0.005 * n else "note"
    return Finding("label_errors", level, text, _advice(worth, told_apart=suspects.flat or (task.name == "regress" and count <= 0.01 * n)), (target,), figure)


def _advice(worth: dict[str, Any] | None, *, told_apart: bool) -> Any:
    if not told_apart:  # a model that was taught no contradictions errs less where there are none: that proves nothing about labels
        return say("Look at the rows that are listed, but drop none of them for being listed: what mending would be worth cannot be told here.")
    if worth is None:
        return say("Look at the rows that are listed. What mending them would be worth was not measured.")
    numbers = {"before": worth["error_with"], "after": worth["error_without"], "low": worth["low"], "high": worth["high"]}
    if worth["low"] > 0:
        return say("Look at the rows that are listed. A model taught without the suspects errs less on all other rows: {before:.4g} -> {after:.4g} (gain 95 %: {low:.2g} to {high:.2g}).",
                   **numbers)
    if worth["high"] < 0:
        return say("Look at the rows that are listed, but do not drop the suspects: a model taught without them errs more on all other rows: {before:.4g} -> {after:.4g} "
                   "(gain 95 %: {low:.2g} to {high:.2g}).", **numbers)
    return say("Look at the rows that are listed. Teaching without the suspects makes no sure difference on all other rows: {before:.4g} -> {after:.4g} (gain 95 %: {low:.2g} to "
               "{high:.2g}).", **numbers)
