"""The evidence of a run: what its finished trials answered, row by row, on the splits that all of them finished."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from assay.case import Case
from assay.contest.folder import Folder, Trial
from assay.contest.statistics import fold_factor
from assay.data.dataset import Dataset
from assay.data.split import Split
from assay.errors import BudgetError
from assay.tasks.base import Task

MADE = ("ensemble", "student")  # families of contestants that are made of finished ones


@dataclass(frozen=True)
class Evidence:
    """Everything about the finished candidates, row by row, on the splits that all of them finished.

    losses: (n_test over the splits,) by candidate; the mean over its seeds where it was played with several. seeds: for
    those, the loss by row of each seed, (seeds, n_test). valid: mean loss on the rows that each held out of its training
    rows; both: that and the test rows' together, each row with the same weight. first: rows of the first split, where learning
    curves are drawn.
    """

    trials: dict[str, list[Trial]]
    losses: dict[str, np.ndarray]
    valid: dict[str, float]
    predictions: dict[str, np.ndarray]
    train: Dataset
    test: Dataset
    clusters: np.ndarray
    factor: float
    rows: np.ndarray
    both: dict[str, float] = field(default_factory=dict)
    seeds: dict[str, np.ndarray] = field(default_factory=dict)


def gather(folder: Folder, case: Case, task: Task, data: Dataset, splits: list[Split]) -> tuple[Evidence, list[Trial]]:
    """The evidence, and all trials of the scoreboard (the refused and failed among them). Raises BudgetError if nothing finished.

    Only splits that the most candidates finished count, and only candidates that finished all of those: everybody is
    judged on the same rows. Losses are computed anew from the saved answers, so a finished run can be judged otherwise.
    """
    everything = folder.trials()
    every = [t for t in everything if t.contest]
    done: dict[str, dict[int, Trial]] = {}
    for trial in every:
        if trial.status == "done" and folder.prediction_file(trial.key).exists():
            done.setdefault(trial.candidate, {})[trial.split] = trial
    if not done:
        raise BudgetError("No candidate finished within {seconds:g} s. Give more time: --time {more:g}s.",
                          seconds=case.time_s, more=max(10.0, case.time_s * 3))
    shared = _common_splits(done)
    names = [name for name, mine in done.items() if shared <= mine.keys()]
    order = sorted(shared)
    test_rows = np.concatenate([splits[k].test for k in order])
    test = data.take(test_rows)
    clusters = np.concatenate([splits[k].clusters + 10**9 * k for k in order])  # codes of different folds never meet

    def answers(trials: list[Trial]) -> np.ndarray:
        return np.concatenate([folder.prediction(t) for t in trials]).astype(np.float64)

    predictions = {n: answers([done[n][k] for k in order]) for n in names}
    losses = {n: task.losses(data, test, predictions[n]) for n in names}
    seeds = {}
    for n in names:
        again = [[t for t in everything if t.candidate == n and t.repeat == r and t.whole and t.status == "done" and t.split in shared]
                 for r in sorted({t.repeat for t in everything if t.candidate == n and t.repeat})]
        whole = [sorted(trials, key=lambda t: t.split) for trials in again if len(trials) == len(order)]
        if whole:
            seeds[n] = np.stack([losses[n], *(task.losses(data, test, answers(trials)) for trials in whole)])
            losses[n] = seeds[n].mean(axis=0)
    valid, held_rows = {}, []
    for n in names:
        parts = []
        for k in order:
            rows, raw = folder.validation(done[n][k])
            held = data.take(rows)
            held_rows.append(len(rows) * len(order))
            parts.append(task.losses(data, held, task.calibrated(raw, task.calibration(task.truth(held), raw))).mean())
        valid[n] = float(np.mean(parts))
    share = float(np.median(held_rows)) / (float(np.median(held_rows)) + len(test_rows))  # one for all: a language model validates on fewer
    both = {n: share * valid[n] + (1 - share) * float(losses[n].mean()) for n in names}
    train_rows = float(np.mean([len(splits[k].train) for k in order]))
    factor = fold_factor(len(order), train_rows, len(test_rows) / len(order))
    train = data.take(splits[order[0]].train)
    return Evidence({n: [done[n][k] for k in order] for n in names}, losses, valid, predictions, train, test, clusters, factor, test_rows, both, seeds), every


def _common_splits(done: dict[str, dict[int, Trial]]) -> set[int]:
    """The splits on which to compare: those that the most contestants finished. Who is made of others (ensembles, students) has no say."""
    counts: dict[int, int] = {}
    for mine in done.values():
        for k, trial in mine.items():
            if trial.family not in MADE:
                counts[k] = counts.get(k, 0) + 1
    most = max(counts.values())
    return {k for k, c in counts.items() if c == most}
