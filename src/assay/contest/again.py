"""The chosen contestant once more, on every row: what the bundle holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from assay.contest.arena import Arena
from assay.contest.evidence import Evidence
from assay.contest.folder import Folder, Trial
from assay.contest.measure import keep
from assay.data.dataset import Dataset
from assay.families.ensemble import Ensemble
from assay.tasks.base import Task

_SPARE_S = 0.9  # for packing and the report, after the last refit


def fit_on_all(folder: Folder, task: Task, data: Dataset, evidence: Evidence, name: str, calibration: dict[str, Any], arena: Arena | None) -> Path | None:
    """The folder of `name` fitted on all rows (made now, if there is an arena and time for it), or None if there is none.

    An ensemble is fitted member by member, with the weights of its first split; all of them or none.
    """
    trial = evidence.trials[name][0]
    kept = folder.path / "models" / f"{name}.all"
    if (kept / "model").exists() or arena is None:
        return kept if (kept / "model").exists() else None
    if trial.family != "ensemble":
        return _again(arena, trial, data, calibration, kept)
    members = [next(t for t in evidence.trials[n] if t.split == trial.split) for n in trial.facts["weights"]]
    if sum(_needed(t, data) for t in members) > arena.clock.left() - _SPARE_S and not arena.case.work:
        return None
    parts = []
    for member in members:
        raw = [folder.validation(t) for t in evidence.trials[member.candidate]]
        own = task.calibration(task.truth(data.take(_joined([r for r, _ in raw]))), _joined([p for _, p in raw]))
        part = _again(arena, member, data, own, folder.path / "models" / f"{member.candidate}.all")
        if part is None:
            return None
        parts.append(part)
    keep(Ensemble(task, data.schema, **trial.params).gather(parts), calibration, kept)
    return kept


def _again(arena: Arena, trial: Trial, data: Dataset, calibration: dict[str, Any], kept: Path) -> Path | None:
    if not (kept / "model").exists():
        needed, left = _needed(trial, data), arena.clock.left() - _SPARE_S
        if needed >= left and not arena.case.work:
            return None
        shutil.rmtree(kept, ignore_errors=True)
        arena.fit_again(trial, calibration, kept, seconds=max(needed * 1.5, 1.0), limit=left)
    return kept if (kept / "model").exists() else None  # a dump appears whole or not at all


def _needed(trial: Trial, data: Dataset) -> float:
    return trial.cost["fit_wall_s"] * len(data) / max(trial.train_rows, 1) * 1.3 + 0.3


def _joined(parts: list) -> Any:
    import numpy as np

    return np.concatenate(parts)
