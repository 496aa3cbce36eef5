"""Are labels that the queue chooses worth more than labels drawn at random? Same model, same rows, same number of labels, several seeds.

A pool of rows without labels, 30 of them labelled at random to begin with; then six rounds of 15 labels each, chosen by the queue (a tenth by
lot, as it is) or at random, and the model fitted again after each. Judged on rows that were never in the pool. The data come with scikit-learn.

    python bench/labels.py            # 10 seeds, 4 sets, 2 families: about 15 minutes on one core
    python bench/labels.py --seeds 3
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import polars as pl

from assay import registry, tasks
from assay.data.dataset import Column, Dataset, Schema
from assay.families.base import Budget, Candidate
from assay.watch.queue import chosen

START, A_ROUND, ROUNDS = 30, 15, 6


def sets() -> dict[str, Dataset]:
    """Real tables that come in the package, none of them made for this."""
    from sklearn import datasets

    out = {}
    for name, given in (("digits", datasets.load_digits()), ("breast cancer", datasets.load_breast_cancer()), ("wine", datasets.load_wine()), ("diabetes", datasets.load_diabetes())):
        names = [str(n).replace(" ", "_") for n in given.feature_names]
        amounts = name == "diabetes"
        frame = pl.DataFrame({n: given.data[:, i].astype(float) for i, n in enumerate(names)}).with_columns(
            y=pl.Series(given.target.astype(float)) if amounts else pl.Series([str(v) for v in given.target]))
        out[name] = Dataset(frame, Schema((*(Column(n, "number") for n in names), Column("y", "number" if amounts else "category")), target="y"))
    return out


def curve(data: Dataset, family: str, seed: int, by_queue: bool) -> np.ndarray:
    """(rounds, 2): share of errors and log loss (for amounts twice the mean absolute error) on rows kept aside, from the same start for both ways."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    test, pool = order[: len(data) // 3], order[len(data) // 3:]
    task = tasks.find("regress" if data.y.dtype == pl.Float64 else "classify").of(data)
    candidate = registry.get("assay.families", Candidate, family)
    labelled = list(pool[:START])
    out = []
    for _ in range(ROUNDS + 1):
        train = data.take(np.array(labelled))
        model = candidate.build(task, data.schema).fit(train, seed=seed, budget=Budget(seconds=20))
        judged = data.take(test)
        answered = task.calibrated(model.predict(judged.asked()), {})
        found = task.metrics(train, judged, answered)
        out.append([1 - found["accuracy"], found["log_loss"]] if task.name == "classify" else [found["mae"]] * 2)
        there = set(labelled)
        rest = np.array([i for i in pool if i not in there])
        if len(rest) < A_ROUND:
            break
        if not by_queue:
            labelled += list(rng.permutation(rest)[:A_ROUND])
            continue
        asked = data.take(rest).asked()
        if task.name == "classify":
            top = np.sort(task.calibrated(model.predict(asked), {}), axis=1)
            doubt = 1 - (top[:, -1] - top[:, -2])
        else:
            doubt = np.full(len(rest), 0.5)  # one width for all: only what differs from the labelled rows counts
        found = chosen(asked.frame, doubt, asked.schema, A_ROUND, known=train.asked().frame, reference=train.asked().frame, lots=rng.random(len(rest)))
        labelled += [int(rest[c.row]) for c in found]
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--families", default="linear,extra_trees")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    for name, data in sets().items():
        if asked.only and name not in asked.only.split(","):
            continue
        for family in asked.families.split(","):
            pairs = [(curve(data, family, seed, True), curve(data, family, seed, False)) for seed in range(asked.seeds)]
            by_queue, drawn = (np.array([p[k] for p in pairs]) for k in (0, 1))  # (seeds, rounds, 2)
            for k, loss in enumerate(("errors", "log loss") if data.y.dtype != pl.Float64 else ("absolute error",)):
                saved = drawn[:, 1:, k].mean(axis=1) - by_queue[:, 1:, k].mean(axis=1)  # over all rounds; the same rows judge both
                whole = drawn[:, 1:, k].mean()
                error = saved.std(ddof=1) / np.sqrt(len(saved))
                print(json.dumps({"set": name, "family": family, "loss": loss, "seeds": len(pairs), "labels": START + A_ROUND * (by_queue.shape[1] - 1),
                                  "random": round(float(whole), 4), "queue": round(float(by_queue[:, 1:, k].mean()), 4), "saved": round(float(saved.mean() / whole), 3),
                                  "low": round(float((saved.mean() - 2 * error) / whole), 3), "high": round(float((saved.mean() + 2 * error) / whole), 3),
                                  "better_seeds": int((saved > 0).sum())}), flush=True)


if __name__ == "__main__":
    main()
