"""Mix: the ensemble of what has finished, chosen greedily on rows that every member held out of its training rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.contest.folder import Folder, Trial
from assay.contest.measure import TrialClock, keep, latency, size_mb
from assay.data.dataset import Dataset
from assay.errors import AssayError
from assay.families.base import RUNGS, Candidate, TooSlow
from assay.families.ensemble import Ensemble
from assay.tasks.base import Task
from assay.words import say

ROUNDS = 30
LEAST_WEIGHT = 0.04  # a member with less costs its whole time for next to nothing
LEAST_ROWS = 30


def mix(folder: Folder, candidate: Candidate, job: dict[str, Any], same: dict[str, Any]) -> Trial:
    """job["members"]: the finished trials (as JSON) to choose from. Raises TooSlow with the reason if no ensemble comes of it.

    The validation answers are those of weights chosen on the other half of the rows, so that they flatter nobody. The test
    answers are the mean of answers that lie on disk already; the packed ensemble has to give the same ones.
    """
    _, task, data, splits, _ = folder.open()
    trials = [Trial.of(m) for m in job["members"]]
    clock = TrialClock(job, len(splits[job["split"]].test))
    rows, answers = held_out(folder, task, data, trials)
    if len(rows) < LEAST_ROWS:
        raise TooSlow(say("only {rows} held-out rows are shared by its members", rows=len(rows)))
    held = data.take(rows)
    weights = greedy(task, held, answers)
    first = job["split"] == 0  # decides whether there is such an ensemble; later splits follow, be it with one member
    if first and (len(weights) < 2 or (job["needs_large"] and not any(trials[i].rung in job["needs_large"] for i in weights))):
        names = [trials[i].candidate for i in weights]
        raise TooSlow(say("the mean of several was not better than {names} alone", names=names))
    half = np.random.default_rng(job["seed"]).permutation(len(rows)) % 2
    valid = np.empty((len(rows), task.width))
    for side in (0, 1):
        learnt = greedy(task, held.take(half != side), [a[half != side] for a in answers])
        valid[half == side] = np.sum([w * answers[i][half == side] for i, w in learnt.items()], axis=0)
    calibration = task.calibration(task.truth(held), valid)
    key = Trial(**same, status="done").key
    np.savez(folder.validation_file(key), rows=rows, prediction=valid)

    members = [trials[i] for i in weights]
    params = {"members": [{"family": t.family or t.candidate, "params": t.params, "weight": w} for t, w in zip(members, weights.values(), strict=True)]}
    split = splits[job["split"]]
    train, test = data.take(split.train), data.take(split.test)
    raw = np.sum([w * folder.prediction(t)[:, : task.width].astype(np.float64) for t, w in zip(members, weights.values(), strict=True)], axis=0)
    model = Ensemble(task, data.schema, **params).gather([folder.model_folder(t.key) for t in members])
    kept = folder.model_folder(key)
    keep(model, calibration, kept)
    model = Ensemble(task, data.schema, **params).load(kept / "model")
    _same(model, test.asked().take(np.arange(min(20, len(test)))), raw)
    prediction = task.calibrated(raw, calibration)
    np.save(folder.prediction_file(key), prediction.astype(np.float32))
    losses = task.losses(train, test, prediction)
    total = {name: float(np.sum([t.cost[name] for t in members])) for name in
             ("fit_s", "fit_wall_s", "predict_s_per_row", "energy_wh", "predict_wh_per_row")}
    cost = {**total, "energy": members[0].cost["energy"], "peak_mb": max(t.cost["peak_mb"] for t in members), "artefact_mb": size_mb(kept),
            "money_per_row": 0.0, **latency(model, task, calibration, test.asked(), seconds=min(1.0, max(0.2, clock.left() * 0.2)))}
    largest = max((t.rung for t in members), key=RUNGS.index)
    facts: dict[str, Any] = {"weights": {t.candidate: round(w, 4) for t, w in zip(members, weights.values(), strict=True)}}
    if any(t.facts.get("short_of_time") for t in members):
        facts["short_of_time"] = True
    return Trial(**same | {"params": params, "rung": largest}, status="done", train_rows=len(train), rows_used=min(t.rows_used for t in members),
                 test_rows=len(test), loss=float(losses.mean()), valid_loss=float(task.losses(train, held, task.calibrated(valid, calibration)).mean()),
                 cost=cost, facts=facts)


def held_out(folder: Folder, task: Task, data: Dataset, trials: list[Trial]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The rows that all of these trials held out, and each one's calibrated answers to them, (n, width)."""
    found = [folder.validation(t) for t in trials]
    rows = found[0][0]
    for other, _ in found[1:]:
        rows = np.intersect1d(rows, other, assume_unique=True)
    out = []
    for own, raw in found:
        calibration = task.calibration(task.truth(data.take(own)), raw)
        place = {int(r): i for i, r in enumerate(own)}
        out.append(task.calibrated(raw[[place[int(r)] for r in rows]], calibration)[:, : task.width])
    return rows, out


def greedy(task: Task, held: Dataset, answers: list[np.ndarray]) -> dict[int, float]:
    """{number of the member: weight}: again and again the one that helps the mean most, with replacement (Caruana et al. 2004).

    answers: (n, width) of each candidate member. The best mean over all rounds counts; weights below `LEAST_WEIGHT` go.
    """
    def loss(mean: np.ndarray) -> float:
        return float(task.losses(held, held, task.calibrated(mean, {})).mean())

    total = np.zeros_like(answers[0])
    picked: list[int] = []
    best, best_size = np.inf, 0
    for size in range(1, ROUNDS + 1):
        tried = [loss((total + a) / size) for a in answers]
        chosen = int(np.argmin(tried))
        picked.append(chosen)
        total += answers[chosen]
        if tried[chosen] < best - 1e-12:
            best, best_size = tried[chosen], size
    counts = np.bincount(picked[:best_size], minlength=len(answers)) / best_size
    counts[counts < LEAST_WEIGHT] = 0.0
    counts /= counts.sum()
    return {int(i): float(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i] > 0}


def _same(model: Ensemble, asked: Dataset, mean: np.ndarray) -> None:
    again = model.predict(asked)
    if not np.allclose(again, mean[: len(again)], rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(mean).max()))):
        raise AssayError("its members answer otherwise than they did in their own trials (by up to {gap:.3g})",
                         gap=float(np.abs(again - mean[: len(again)]).max()))
