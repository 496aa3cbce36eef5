"""How good are the answers now: estimated from the model's own confidence while labels are not there, measured as soon as they are.

An estimate without labels always rests on an assumption, and says which. Labels that came late are joined to the answers they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.tasks.base import Task
from assay.tasks.classify import FLOOR
from assay.tasks.labels import spelt
from assay.watch.finding import Finding
from assay.watch.tails import t_at, t_below
from assay.words import Text, say

LEAST_LABELS = 50
WORSE = 0.1  # share of the judged loss by which it may grow
_Z = 1.96

CALIBRATED = say("if the probabilities are as well calibrated on these rows as they were in the contest: new kinds of rows yes, a changed meaning of the same rows no")
THRESHOLD = say("if the share of answers above the confidence at which labelled rows were right so often still says how often they are right")
LABELLED = say("on the rows that were labelled; those that nobody labelled may be harder")


@dataclass(frozen=True)
class Judged:
    """The loss that the contest found, per row, with its interval; taken from a bundle's facts."""

    loss: str
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Judged | None:
        found = facts.get("loss") or {}
        value = found.get("value")
        if not isinstance(value, (int, float)):
            return None
        low, high = (found.get(k) if isinstance(found.get(k), (int, float)) else value for k in ("low", "high"))
        return cls(str(found.get("name", "")), float(value), float(low), float(high))  # type: ignore[arg-type]

    @property
    def se(self) -> float:
        return (self.high - self.low) / (2 * _Z)


@dataclass(frozen=True)
class Estimate:
    """A mean loss (or, `what` = 'accuracy', a share of right answers) of n rows, its 95 % interval, and what it rests on."""

    what: str
    value: float
    low: float
    high: float
    n: int
    method: str
    assumption: Text

    def json(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "assumption"} | {"assumption": str(self.assumption)}


def expected(task: Task, answers: Sequence[dict[str, Any]]) -> np.ndarray | Text:
    """The loss (n,) that each answer expects of itself by its own probabilities (Guillory et al. 2021, arXiv:2107.03315, for classes: confidence-based), or why it has none."""
    if task.name == "regress":
        return say("an amount's interval is equally wide for every row, so it says nothing about single rows; label some")
    if task.name != "classify":
        return say("answers to '{task}' carry no probabilities", task=task.name)
    told: Any = task
    labels = [f"p({label})" for label in told.classes]
    if not answers or any(name not in answers[0] for name in labels):
        if task.loss == "error" and answers and "probability" in answers[0]:
            return 1 - np.array([a["probability"] for a in answers], dtype=np.float64)
        return say("there are too many classes for all their probabilities to be in the answers")
    p = np.array([[a[name] for name in labels] for a in answers], dtype=np.float64)
    if task.loss == "log":
        return -(p * np.log(np.maximum(p, FLOOR))).sum(axis=1)
    if task.loss == "brier":
        return 1 - (p**2).sum(axis=1)
    codes = told.decisions(p)
    if task.loss == "cost":
        return (p @ told.costs)[np.arange(len(p)), codes]
    return 1 - p[np.arange(len(p)), codes]


def loss_of(task: Task, answer: dict[str, Any], label: Any) -> float | None:
    """The loss of one answer now that its label is there, as the contest counts it; None if the label is none of the task's, or the answer lacks what the loss needs."""
    told: Any = task
    if task.name == "regress":
        try:
            error = float(label) - float(answer["answer"])
        except (TypeError, ValueError, KeyError):
            return None
        if not np.isfinite(error):
            return None
        unit = told.unit_cost or 1.0
        return error**2 if task.loss == "squared" else abs(error) * unit if task.loss == "absolute" else 2 * max(told.quantile * error, (told.quantile - 1) * error) * unit
    if task.name != "classify":
        return None
    code = next((i for i, c in enumerate(told.classes) if spelt(c) == spelt(label)), None)
    if code is None:
        return None
    if task.loss == "error":
        return float(str(answer.get("answer")) != str(told.classes[code]))
    if task.loss == "cost":
        chosen = next((i for i, c in enumerate(told.classes) if str(c) == str(answer.get("answer"))), None)
        return None if chosen is None else float(told.costs[code, chosen])
    if any(answer.get(f"p({c})") is None for c in told.classes):
        return None
    p = [float(answer[f"p({c})"]) for c in told.classes]
    return float(-np.log(max(p[code], FLOOR))) if task.loss == "log" else float(sum(v * v for v in p) - 2 * p[code] + 1)


def estimated(n: int, mean: float, variance: float, judged: Judged, *, worse: float = WORSE) -> tuple[Estimate, Finding]:
    """The estimate without labels, from the sums of the losses that answers expect of themselves, and whether it is above the judged loss by more than `worse`."""
    se = float(np.sqrt(variance / n))
    made = Estimate(judged.loss, mean, mean - _Z * se, mean + _Z * se, n, "confidence", CALIBRATED)
    return made, _against(made, se, judged, worse, "loss_expected",
                          say("Without labels, the {loss} loss is estimated at {value:.4g} [{low:.4g}, {high:.4g}]; judged was {judged:.4g}. It holds {assumption}.", loss=judged.loss,
                              value=made.value, low=made.low, high=made.high, judged=judged.value, assumption=CALIBRATED))


def realised(losses: np.ndarray, judged: Judged, *, worse: float = WORSE) -> tuple[Estimate, Finding] | Text:
    """The loss on labelled rows against the judged one: a one-sided t-test whose null is 'at most `worse` above it', the contest's own uncertainty included."""
    n = len(losses)
    if n < LEAST_LABELS:
        return say("{n} labels are too few to measure the loss; {least} are needed", n=n, least=LEAST_LABELS)
    mean, se = float(losses.mean()), float(losses.std(ddof=1) / np.sqrt(n))
    wide = t_at(0.975, n - 1) * se
    made = Estimate(judged.loss, mean, mean - wide, mean + wide, n, "labels", LABELLED)
    return made, _against(made, se, judged, worse, "loss_realised",
                          say("On {n:,} labelled rows the {loss} loss is {value:.4g} [{low:.4g}, {high:.4g}]; judged was {judged:.4g}.", n=n, loss=judged.loss, value=made.value,
                              low=made.low, high=made.high, judged=judged.value))


def _against(made: Estimate, se: float, judged: Judged, worse: float, what: str, text: Text) -> Finding:
    allowed = judged.value + worse * abs(judged.value)
    whole = max(float(np.hypot(se, judged.se)), 1e-12)
    p = t_below(-(made.value - allowed) / whole, max(made.n - 1, 1))
    facts = made.json() | {"effect": made.value - judged.value, "judged": judged.value, "judged_low": judged.low, "judged_high": judged.high, "p": p, "rows": made.n}
    return Finding(what, "critical" if made.low > judged.value * 1.5 and made.low > judged.high else "warning", text, facts)


def atc(confidence: np.ndarray, right: np.ndarray, recent: np.ndarray) -> Estimate | Text:
    """Average thresholded confidence (Garg et al. 2022, arXiv:2201.04234): accuracy on rows without labels.

    confidence, right: (m,) of labelled answers; recent: (n,) confidences of answers without. The threshold is where as large a share of the labelled lies above as were right;
    the interval holds the noise of the labels and of both samples.
    """
    if len(right) < LEAST_LABELS:
        return say("{n} labels are too few to measure the loss; {least} are needed", n=len(right), least=LEAST_LABELS)
    share = float(np.mean(right))
    at = float(np.quantile(confidence, 1 - share)) if share < 1 else -np.inf
    value = float(np.mean(recent > at)) if np.isfinite(at) else 1.0
    # 2 / m: the labels' luck in the share, and the threshold's place among their confidences
    se = float(np.sqrt(max(value * (1 - value), 0.25 / len(recent)) / len(recent) + 2 * max(share * (1 - share), 0.25 / len(right)) / len(right)))
    return Estimate("accuracy", value, max(value - _Z * se, 0.0), min(value + _Z * se, 1.0), len(recent), "atc", THRESHOLD)


def windows(pairs: Iterable[tuple[float, float]], width_s: float) -> list[dict[str, Any]]:
    """(time of the answer, loss) in any order -> per window of `width_s` its start, rows, mean and 95 % interval: what the page draws."""
    held: dict[int, list[float]] = {}
    for at, loss in pairs:
        held.setdefault(int(at // width_s), []).append(loss)
    out = []
    for k in sorted(held):
        x = np.array(held[k])
        wide = _Z * float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else None
        out.append({"start": k * width_s, "rows": len(x), "mean": float(x.mean()), "low": None if wide is None else float(x.mean()) - wide, "high": None if wide is None else float(x.mean()) + wide})
    return out
