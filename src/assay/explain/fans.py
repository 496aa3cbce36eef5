"""Forecasts to look at: the best, the worst and usual ones among the test rows, and how the error moves along the horizon and with the size of a series."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.history import histories
from assay.tasks.base import Task
from assay.tasks.forecast import pinball

SHOWN = (("worst", 2), ("usual", 2), ("best", 2))
MOST_POINTS = 240
SIZES = 5


def fans(task: Task, test: Dataset, prediction: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """JSON-ready, in the form of `explain.examples`: 'explained' holds a fan each, {id, which, loss, origin, history, truth, levels, quantiles}.

    prediction: calibrated, (n, width). losses: (n,). history: the last steps before the origin, at most three horizons; None for a missing one.
    """
    order = np.argsort(losses, kind="stable")
    middle, taken = len(order) // 2, set[int]()
    picked: list[tuple[str, int]] = []
    for which, count in SHOWN:
        pool = order[::-1] if which == "worst" else order if which == "best" else np.r_[order[middle:], order[:middle]]
        fresh = [int(i) for i in pool if int(i) not in taken][:count]
        taken |= set(fresh)
        picked += [(which, i) for i in fresh]
    cube, truth = task.cube(prediction), task.truth(test)  # type: ignore[attr-defined]
    out = []
    for which, i in picked:
        one = histories(test.take(np.array([i])))[0]
        past = one.values[-max(3 * task.horizon, 24) :][-MOST_POINTS:]  # type: ignore[attr-defined]
        out.append({"id": one.id, "which": which, "loss": round(float(losses[i]), 5), "origin": None if one.origin is None else str(one.origin)[:19],
                    "history": _plain(past), "truth": _plain(truth[i]), "levels": list(task.levels), "quantiles": [_plain(cube[i, :, k]) for k in range(cube.shape[2])]})  # type: ignore[attr-defined]
    return {"kind": "fans", "column": test.schema.target or "", "grid": [], "explained": out, "method": ""}


def shape_of(task: Task, test: Dataset, prediction: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """by_step: mean scaled loss of each step (at most 60 stretches of them), as [step, loss]. by_size: [mean size, loss, rows] of fifths of the rows by the mean of
    their history. levels: [stated, reached] share of truths below each quantile."""
    cube, truth, scale = task.cube(prediction), task.truth(test), task.scales(test)  # type: ignore[attr-defined]
    loss = pinball(truth, cube, task.levels).mean(axis=2) / scale[:, None]  # type: ignore[attr-defined]
    parts = [p for p in np.array_split(np.arange(loss.shape[1]), min(60, loss.shape[1])) if np.isfinite(loss[:, p]).any()]  # of a step that is always missing nothing is known
    size = task.sizes(test)  # type: ignore[attr-defined]
    fifths = [p for p in np.array_split(np.argsort(size, kind="stable"), min(SIZES, max(1, len(size) // 8))) if len(p)]
    known = np.isfinite(truth)
    return {"by_step": [[int(p[0]) + 1, round(float(np.nanmean(loss[:, p])), 6)] for p in parts],
            "by_size": [[float(f"{size[p].mean():.4g}"), round(float(losses[p].mean()), 6), len(p)] for p in fifths],
            "levels": [[level, round(float((truth <= cube[:, :, k])[known].mean()), 4)] for k, level in enumerate(task.levels) if known.any()]}  # type: ignore[attr-defined]


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if not np.isfinite(v) else float(f"{v:.6g}") for v in values]
