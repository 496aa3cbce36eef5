"""Judge forecasters by what the plans made from them cost: every origin is planned with each one's quantiles, and the plan is carried out on what then came.

The oracle plans with the truth itself: nobody can plan better, and what is lost against it is the regret. The rule of thumb plans with the winner's forecast.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.contest.evidence import Evidence
from assay.contest.folder import Folder
from assay.data.dataset import Dataset
from assay.data.grid import written
from assay.data.history import ORIGIN, PART, origins_of
from assay.decide.base import Decision, Plan, Quantiles
from assay.decide.reading import kind_of, read_problem
from assay.errors import InputError
from assay.registry import get
from assay.tasks.base import Task
from assay.words import say

MOST_ORIGINS, LEAST_ORIGINS = 60, 4
SOLVE_S = 2.0  # a plan at most
SERIOUS = 6  # forecasters that are planned with, by validation, beside the naive one


@dataclass(frozen=True)
class Asked:
    """A decision and its problem, as the case names it."""

    decision: Decision
    problem: Any

    @classmethod
    def of(cls, path: str) -> Asked:
        """path: a TOML file whose `kind` names the decision. Raises InputError."""
        file = Path(path)
        kind = kind_of(file)
        decision = get("assay.decide", Decision, kind)  # type: ignore[type-abstract]
        if decision.forecast == "none":
            raise InputError("'{kind}' is decided without a forecast: assay decide {kind} {path}", kind=kind, path=path)
        return cls(decision, read_problem(decision, file))


def fits(asked: Asked, task: Task, data: Dataset, *, seed: int = 0) -> None:
    """Raises InputError if the problem cannot be planned for these series: tried with what came after the last origin, before anybody has learnt anything."""
    rows = data.take(np.flatnonzero((data.frame[PART] == "test").to_numpy()))
    _costs(asked, task, rows, None, _origins(rows)[-1:], seed)


def by_plan(folder: Folder, asked: Asked, task: Task, data: Dataset, evidence: Evidence, *, seconds: float, seed: int) -> tuple[Evidence, dict[str, Any]]:
    """(the evidence in which a row's loss is what its origin's plan cost, the facts for decision.json).

    A plan of many series that cannot be told apart by series is shared out evenly among them. Fewer origins are planned where `seconds` are short. Raises
    InputError if the problem does not fit the series.
    """
    stop = time.monotonic() + seconds
    names, asked_rows = _serious(evidence), evidence.test
    valid_rows = {n: folder.validation(evidence.trials[n][0]) for n in names}
    shared = _common([rows for rows, _ in valid_rows.values()])
    held_rows = data.take(shared)
    test, valid = _origins(asked_rows), _origins(held_rows)
    oracle = _costs(asked, task, asked_rows, None, test[:1], seed)  # loads the solver
    began = time.monotonic()
    _costs(asked, task, asked_rows, evidence.predictions[names[0]], test[:1], seed)
    one = max(time.monotonic() - began, 1e-3)
    affordable = int((stop - time.monotonic()) / (one * (2 * len(names) + 2)))
    test, valid = _spread(test, affordable), _spread(valid, min(affordable, MOST_ORIGINS // 2))
    rows = np.sort(np.concatenate(test))
    if len(test) > 1:
        oracle = _costs(asked, task, asked_rows, None, test, seed)
    losses, told = {}, {}
    for name in names:
        losses[name] = _costs(asked, task, asked_rows, evidence.predictions[name], test, seed)[rows]
        own, raw = valid_rows[name]
        place = {int(r): i for i, r in enumerate(own)}
        calibrated = task.calibrated(raw, task.calibration(task.truth(data.take(own)), raw))[[place[int(r)] for r in shared]]
        held = _costs(asked, task, held_rows, calibrated, valid, seed)
        told[name] = float(held[np.concatenate(valid)].mean()) if valid else float(losses[name].mean())
    best = min(told, key=lambda n: (told[n], n))
    rule = _costs(asked, task, asked_rows, evidence.predictions[best], test, seed, rule=True)[rows]
    share = len(np.concatenate(valid)) / (len(np.concatenate(valid)) + len(rows)) if valid else 0.0
    judged = replace(evidence, trials={n: evidence.trials[n] for n in names}, losses=losses, valid=told, predictions={n: evidence.predictions[n][rows] for n in names},
                     test=evidence.test.take(rows), clusters=evidence.clusters[rows], rows=evidence.rows[rows], seeds={},
                     both={n: share * told[n] + (1 - share) * float(losses[n].mean()) for n in names})
    facts = {"kind": asked.decision.name, "about": asked.decision.about.json(), "origins": len(test), "rows": len(rows), "oracle": float(oracle[rows].mean()),
             "rule": {"cost": float(rule.mean()), "doc": (asked.decision.rule.__doc__ or "").strip().split("\n")[0], "forecast": best},
             "costs": {n: float(v.mean()) for n, v in losses.items()}}
    return judged, facts


def _serious(evidence: Evidence) -> list[str]:
    ranked = sorted(evidence.valid, key=lambda n: (evidence.valid[n], n))
    naive = [n for n in ranked if evidence.trials[n][0].rung == "naive"]
    return [n for n in ranked if n not in naive][:SERIOUS] + naive


def _common(rows: list[np.ndarray]) -> np.ndarray:
    shared = rows[0]
    for other in rows[1:]:
        shared = np.intersect1d(shared, other, assume_unique=True)
    return shared


def _origins(rows: Dataset) -> list[np.ndarray]:
    """Row numbers of each origin at which all series are asked, in order of time."""
    code = origins_of(rows)
    parts = [np.flatnonzero(code == k) for k in range(int(code.max(initial=-1)) + 1)]
    most = max((len(p) for p in parts), default=0)
    return [p for p in parts if len(p) == most]


def _spread(origins: list[np.ndarray], affordable: int) -> list[np.ndarray]:
    """At most so many of them, evenly spread over time."""
    most = max(LEAST_ORIGINS, min(MOST_ORIGINS, affordable))
    return [origins[i] for i in np.unique(np.linspace(0, len(origins) - 1, min(most, len(origins))).astype(int))] if origins else []


def _names(rows: Dataset, some: np.ndarray) -> tuple[str, ...]:
    return tuple(str(i) for i in rows.frame[rows.schema.group][some].to_list()) if rows.schema.group else tuple(str(i) for i in range(len(some)))


def _times(task: Task, rows: Dataset, some: np.ndarray) -> tuple[str, ...]:
    if ORIGIN in rows.frame.columns and task.frequency:  # type: ignore[attr-defined]
        return written(task.times(rows.frame[ORIGIN][int(some[0])]).to_numpy())  # type: ignore[attr-defined]
    return tuple(str(k + 1) for k in range(task.horizon))  # type: ignore[attr-defined]


def _costs(asked: Asked, task: Task, rows: Dataset, prediction: np.ndarray | None, origins: list[np.ndarray], seed: int, *, rule: bool = False) -> np.ndarray:
    """(n,) what each row's share of its origin's plan cost; NaN for rows that were not planned. prediction None: the oracle's, who knows the truth."""
    out, truth = np.full(len(rows), np.nan), task.truth(rows)
    for some in origins:
        known, names, times = _known(truth[some]), _names(rows, some), _times(task, rows, some)
        quantiles = Quantiles.exact(known, names, times) if prediction is None else Quantiles(
            tuple(task.levels), task.floored(prediction[some], rows.take(some)), names, times)  # type: ignore[attr-defined]
        plan = asked.decision.rule(asked.problem, quantiles) if rule else asked.decision.solve(asked.problem, quantiles, seconds=SOLVE_S, seed=seed)
        out[some] = _paid(asked, plan, known, quantiles)
    return out


def _paid(asked: Asked, plan: Plan, truth: np.ndarray, quantiles: Quantiles) -> np.ndarray:
    """(n,): what the plan cost, shared out. Raises InputError where there is no plan, since nobody's forecast can be judged by one."""
    if not plan.choice:
        raise InputError("'{kind}' has no plan that can be carried out from {time} on: {why}", kind=asked.decision.name, time=quantiles.times[0],
                         why=plan.violations[0] if plan.violations else say("the demands of the problem clash."))
    return _shared(asked.decision.realised(asked.problem, plan, truth), len(truth))


def _known(truth: np.ndarray) -> np.ndarray:
    """A missing step is taken for the mean of its neighbours: a plan cannot be carried out on nothing."""
    out = truth.copy()
    for row in out:
        there = np.flatnonzero(np.isfinite(row))
        row[:] = np.interp(np.arange(len(row)), there, row[there]) if len(there) else 0.0
    return out


def _shared(parts: np.ndarray, n: int) -> np.ndarray:
    return parts if len(parts) == n else np.full(n, float(parts.sum()) / n)
