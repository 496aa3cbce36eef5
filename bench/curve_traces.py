"""Training curves for bench/curves.py: held-out loss by step of boosted trees and of a small network, far past what a short budget allows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from curve_fit import Window

from assay.contest.more_time import best_so_far, has_rested
from assay.data.dataset import Dataset
from assay.data.encode import TableEncoder
from assay.tasks.base import Task

ROWS = 2000  # to learn from; up to 1,000 more show the held-out loss
ROUNDS, EPOCHS = 800, 64
CUTS = (1 / 16, 1 / 8, 1 / 4)  # of all steps: where the training is taken to have stopped


def traces(name: str, table: Callable[[], tuple[Task, Dataset]], cache: Path) -> dict[str, np.ndarray]:
    """{learner: (steps, 2) step and held-out loss}, from the cache if it is there."""
    path = cache / f"{name.replace(' ', '_')}.trace.npz"
    if not path.exists():
        task, data = table()
        order = np.random.default_rng(0).permutation(len(data))
        held, rest = data.take(order[: min(1000, len(data) // 3)]), data.take(order[min(1000, len(data) // 3):][:ROWS])
        made = {"boosting": _boosting(task, rest, held), "mlp": _mlp(task, rest, held)}
        with path.open("wb") as sink:
            np.savez(sink, **made)
    with np.load(path) as saved:
        return {k: saved[k] for k in saved.files}


def _boosting(task: Task, rest: Dataset, held: Dataset) -> np.ndarray:
    import lightgbm as lgb

    table = TableEncoder(rest.schema.without_target()).fit(rest.frame)
    kind: dict[str, Any] = {"objective": "l2"}
    if task.name == "classify":
        kind = {"objective": "binary"} if task.width == 2 else {"objective": "multiclass", "num_class": task.width}
    settings = kind | {"learning_rate": 0.03, "num_leaves": 15, "seed": 0, "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}
    train = lgb.Dataset(table.codes(rest.frame), task.truth(rest))
    seen: dict[str, Any] = {}
    lgb.train(settings, train, ROUNDS, valid_sets=[train.create_valid(table.codes(held.frame), task.truth(held))], valid_names=["held"],
              callbacks=[lgb.record_evaluation(seen)])
    loss = next(iter(seen["held"].values()))
    return np.column_stack([np.arange(1, len(loss) + 1), loss])


def _mlp(task: Task, rest: Dataset, held: Dataset) -> np.ndarray:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    table = TableEncoder(rest.schema.without_target()).fit(rest.frame)
    x, new, y, truth = table.dense(rest.frame), table.dense(held.frame), task.truth(rest), task.truth(held)
    model = (MLPRegressor if task.name == "regress" else MLPClassifier)(hidden_layer_sizes=(48,), batch_size=64, learning_rate_init=5e-4, random_state=0)
    out = []
    if task.name == "regress":
        y, truth = (y - y.mean()) / y.std(), (truth - y.mean()) / y.std()
    for epoch in range(1, EPOCHS + 1):
        if task.name == "regress":
            model.partial_fit(x, y)
            loss = ((model.predict(new) - truth) ** 2).mean()
        else:
            model.partial_fit(x, y, classes=np.arange(task.width))
            loss = -np.log(np.maximum(model.predict_proba(new)[np.arange(len(truth)), truth], 1e-6)).mean()
        out.append((epoch, loss))
    return np.array(out)


def trace_windows(name: str, found: dict[str, np.ndarray]) -> tuple[list[Window], list[float]]:
    """Windows of trainings that had not rested when they were cut; and for those that had, by what share their loss fell later."""
    going, rested = [], []
    for learner, trace in found.items():
        for cut in CUTS:
            seen = trace[: round(len(trace) * cut)]
            if len(seen) < 8:
                continue
            steps, best = trace[:, 0], np.minimum.accumulate(trace[:, 1])
            last = seen[-1, 0]
            if best[len(seen) - 1] <= 0:
                continue
            later = {k: float(np.log(best[int(last * k) - 1])) for k in (2, 4) if last * k <= steps[-1]}
            if has_rested(seen[:, 0], best[: len(seen)]):
                rested.append(1 - best[int(last * 4) - 1] / best[len(seen) - 1])
            else:
                going.append(Window(name, learner, 0, 1000, np.log(best_so_far(seen[:, 0], best[: len(seen)])), later))
    return going, rested
