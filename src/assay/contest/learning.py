"""What the extra trials of a run say: learning curves with their crossing, and what each kind of column adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.case import Case
from assay.contest.curve import Curve, Point, crossing, learning_curve, rows_sentence
from assay.contest.evidence import Evidence
from assay.contest.folder import Folder, Trial
from assay.contest.more_time import more_rows, more_training
from assay.contest.sentences import UNITS
from assay.contest.statistics import Bootstrap, fold_factor
from assay.data.dataset import Dataset
from assay.data.split import Split
from assay.tasks.base import Task
from assay.words import Text, say

MARGIN = 0.02  # of the small model's loss, as in the verdict
CONFIDENCE = 0.8
MORE_S = 90.0


def learning(folder: Folder, case: Case, task: Task, data: Dataset, splits: list[Split], evidence: Evidence, *, margin: float | None,
             less: float) -> dict[str, Any] | None:
    """Learning curves of the candidates that were also fitted on fewer rows, and where large crosses small. None without such trials.

    margin: in loss, or None for 2 % of the small model's. less: what answering a row costs more with the large model.
    """
    points = _points(folder, task, data, splits)
    if not points:
        return None
    clusters = splits[0].clusters
    found = {n: learning_curve(p, clusters, confidence=CONFIDENCE, seed=case.seed) for n, p in points.items()}
    unit = UNITS.get(task.loss, say("loss"))
    out: dict[str, Any] = {"confidence": CONFIDENCE, "split": 0, "crossing": None, "curves": {
        n: c.json() | {"more_rows": None if c.reason else rows_sentence(n, unit, c).json(),
                       "more_time": _more_time(case, c, evidence.trials[n][0], n, unit)} for n, c in found.items()}}
    large = _best([n for n in points if evidence.trials[n][0].rung not in ("naive", "classical")], evidence)
    small = _best([n for n in points if evidence.trials[n][0].rung == "classical"], evidence)
    if large and small:
        in_money = case.worth is not None
        met = crossing(points[large], points[small], clusters, less=less, confidence=CONFIDENCE, seed=case.seed,
                       margin=margin if margin is not None else 0.0 if in_money else lambda loss: MARGIN * loss)
        out["crossing"] = {"large": large, "small": small, "sentence": met.sentence(large, small).json()} | met.json()
    return out


def _more_time(case: Case, curve: Curve, trial: Trial, name: str, unit: Text) -> dict[str, Any] | None:
    """What `MORE_S` more seconds would buy this candidate, as a sentence; None where a clock has no say."""
    if case.work or curve.reason:
        return None
    seconds = trial.cost["fit_wall_s"]
    if trial.rows_used < trial.train_rows:
        bought = more_rows(curve, rows_used=trial.rows_used, train_rows=trial.train_rows, seconds=seconds, extra=MORE_S)
    elif trial.facts.get("loss_curve"):
        bought = more_training(trial.facts["loss_curve"], seconds=seconds, extra=MORE_S, seed=case.seed)
    else:
        return None
    return (say("{name}: {reason}", name=name, reason=bought) if isinstance(bought, Text) else bought.sentence(name, unit)).json()


def _points(folder: Folder, task: Task, data: Dataset, splits: list[Split]) -> dict[str, list[Point]]:
    """By candidate: one point for each share of the rows, on the first split; those with fewer than three sizes are left out."""
    test = data.take(splits[0].test)
    mine = [t for t in folder.trials() if t.split == 0 and t.status == "done" and not t.blind and folder.prediction_file(t.key).exists()]
    out: dict[str, list[Point]] = {}
    for name in dict.fromkeys(t.candidate for t in mine if t.share < 1):
        trials = [t for t in mine if t.candidate == name]
        points = [Point(min(t.rows_used, t.train_rows), t.seed, task.losses(data, test, folder.prediction(t).astype(np.float64))) for t in trials]
        if len({p.rows for p in points}) >= 3:
            out[name] = sorted(points, key=lambda p: (p.rows, p.seed))
    return out


def ablation(folder: Folder, case: Case, task: Task, data: Dataset, splits: list[Split], evidence: Evidence) -> tuple[dict[str, Any], ...]:
    """By candidate and hidden kind: how much loss the columns of this kind save, with its interval, and the metrics both ways."""
    trials = folder.trials()
    out = []
    test = data.take(splits[0].test)
    factor = fold_factor(1, len(splits[0].train), len(splits[0].test))
    for t in trials:
        whole = _whole(trials, t)
        if not t.blind or t.status != "done" or whole is None:
            continue
        seeing, blind = (folder.prediction(x).astype(np.float64) for x in (whole, t))
        losses = {"seeing": task.losses(data, test, seeing), "blind": task.losses(data, test, blind)}
        gain = Bootstrap(losses, splits[0].clusters, confidence=case.confidence, seed=case.seed, widen=factor).gain("blind", "seeing")
        out.append({"candidate": t.candidate, "hidden": list(t.blind), "columns": [c.name for c in data.schema.of_kind(*t.blind)],
                    "gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p, "loss": float(losses["seeing"].mean()),
                    "loss_without": float(losses["blind"].mean()), "metrics": task.metrics(evidence.train, test, seeing),
                    "metrics_without": task.metrics(evidence.train, test, blind)})
    return tuple(out)


def _whole(trials: list[Trial], blind: Trial) -> Trial | None:
    return next((t for t in trials if t.candidate == blind.candidate and t.split == blind.split and t.contest and t.status == "done"), None)


def _best(names: list[str], evidence: Evidence) -> str | None:
    known = [n for n in names if n in evidence.valid]
    return min(known, key=lambda n: (evidence.valid[n], n)) if known else None
