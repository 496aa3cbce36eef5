"""Are its verdicts right? On each of many real sets assay sees a quarter of the rows; what it says is held against the rest.

    python bench/verdicts.py [--sets a,b] [--work 60] [--out FOLDER]

A quarter of the rows that are not kept aside goes into a contest (`work` instead of a clock, so that the machine's load decides nothing). The rows
kept aside then say what is true of the two models that the verdict compares, and of the same candidates taught with four times the rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from curve_sets import check_sets
from machine import publish

from assay import api
from assay.contest.statistics import Bootstrap
from assay.data.dataset import Dataset
from assay.data.read import read
from assay.data.split import splits
from assay.families.base import Budget, Candidate
from assay.registry import get

MOST_ROWS = 9000
ASIDE = 0.3
LEAST_POOL = 400
CANDIDATES = ("linear", "boosting", "extra_trees", "mlp", "minilm", "multilingual", "ensemble", "ensemble_large")


def one(name: str, make: Any, work: int, out: Path) -> dict[str, Any] | None:
    """What assay said about a quarter of the rows of this set, and what the others show. None for a set that is too small."""
    frame, target, kind = make()
    if frame.height > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, seed=0)
    reading = read(frame, target=target, target_as=kind)
    data = reading.dataset.take((~reading.dataset.y.is_null()).to_numpy())
    labels = not data.y.dtype.is_float()
    strata = np.unique(data.y.cast(str).to_numpy(), return_inverse=True)[1] if labels else None
    aside = splits(data, folds=1, share=ASIDE, seed=1, kind="random", strata=strata)[0]
    if len(aside.train) < LEAST_POOL:
        return None
    quarter = np.random.default_rng(2).permutation(aside.train)[: len(aside.train) // 4]
    seen = np.sort(quarter)
    folder = out / name.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    started = time.time()
    run = api.run(data.frame[seen], target=target, kinds={c.name: c.kind for c in data.schema.columns if c.name != target}, split="random", folds=1,
                  task="classify" if labels else "regress", work=work, tune=False, candidates=CANDIDATES, out=folder)
    _, task, own, _, _ = run.folder.open()
    rest = Dataset(data.frame[aside.test].select(own.frame.columns), own.schema)
    rest = rest.take(rest.y.is_in(own.y.unique().implode()).to_numpy()) if labels else rest  # a label that the quarter lacks cannot be answered
    verdict = run.verdict
    found: dict[str, Any] = {"set": name, "rows": len(seen), "aside": len(rest), "outcome": verdict.outcome, "seconds": round(time.time() - started, 1), "curves": []}
    trials = {t.candidate: t for t in run.folder.trials() if t.contest and t.status == "done"}
    if verdict.effect and verdict.large and verdict.small:
        losses = {n: _answered(run, task, own, trials[n], rest) for n in {verdict.large, verdict.small, verdict.naive}}
        gain = Bootstrap(losses, np.arange(len(rest)), confidence=0.95, seed=0).gain(verdict.small, verdict.large)
        margin = verdict.effect["margin"]
        found |= {"large": verdict.large, "small": verdict.small, "said": verdict.effect["gain"], "low": verdict.effect["low"], "high": verdict.effect["high"],
                  "margin": margin, "stated": NormalDist().cdf((verdict.effect["gain"] - margin) / max(verdict.effect["se"], 1e-12)),
                  "true": gain.value, "true_low": gain.low, "true_high": gain.high}
    more = Dataset(data.frame[np.sort(np.setdiff1d(aside.train, []))].select(own.frame.columns), own.schema)
    for candidate, curve in ((verdict.learning or {}).get("curves") or {}).items():
        if not curve["grid"]:
            continue
        most = curve["measured"][-1]["rows"]
        taught = more.take(np.random.default_rng(3).permutation(len(more))[: 4 * most])
        if labels:
            taught = taught.take(taught.y.is_in(own.y.unique().implode()).to_numpy())
        if len(taught) < 3.6 * most:
            continue
        said, now = curve["grid"][-1], curve["measured"][-1]["mean"]
        truth = _taught(candidate, trials[candidate].params, task, own, taught, rest, work)
        found["curves"].append({"candidate": candidate, "rows": most, "now": now, "median": said["median"], "low": said["low"], "high": said["high"], "true": truth})
    shutil.rmtree(folder / "models", ignore_errors=True)
    return found


def _answered(run: api.Run, task: Any, own: Dataset, trial: Any, rest: Dataset) -> np.ndarray:
    """Losses (n,) of the model that this trial left on disk."""
    kept = run.folder.model_folder(trial.key)
    model = get("assay.families", Candidate, trial.family or trial.candidate).build(task, own.schema, **trial.params).load(kept / "model")
    calibration = json.loads((kept / "calibration.json").read_text())
    return task.losses(own, rest, task.calibrated(model.predict(rest.asked()), calibration))


def _taught(name: str, params: dict[str, Any], task: Any, own: Dataset, taught: Dataset, rest: Dataset, work: int) -> float:
    """Mean loss on the rows kept aside of the same candidate taught with these rows, calibrated as a trial does it."""
    from assay.data.split import holdout

    def fit(rows: Dataset) -> Any:
        return get("assay.families", Candidate, name).build(task, own.schema, **params).fit(
            rows, seed=0, budget=Budget(seconds=float("inf"), predict_rows=len(rest), predict_seconds=float("inf"), passes=work))

    teach, held = holdout(taught, share=0.2, seed=0, strata=task.strata(taught))
    valid = taught.take(held)
    calibration = task.calibration(task.truth(valid), fit(taught.take(teach)).predict(valid.asked()))
    return float(task.losses(own, rest, task.calibrated(fit(taught).predict(rest.asked()), calibration)).mean())


def score(found: list[dict[str, Any]]) -> None:
    """The tables of docs/calibration.md."""
    judged = [f for f in found if "true" in f]
    yes, no = [f for f in judged if f["outcome"] == "worth_it"], [f for f in judged if f["outcome"] == "not_worth_it"]
    right = [f["true"] > f["margin"] for f in yes] + [f["true"] < f["margin"] for f in no]
    clearly = sum(f["true_high"] < f["margin"] for f in yes) + sum(f["true_low"] > f["margin"] for f in no)
    edges = (0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0001)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = [f for f in judged if low <= f["stated"] < high]
        if inside:
            bins.append([f"{low:.0%} to {min(high, 1):.0%}", len(inside), f"{np.mean([f['stated'] for f in inside]):.0%}",
                         f"{np.mean([f['true'] > f['margin'] for f in inside]):.0%}"])
    held = np.mean([f["low"] <= f["true"] <= f["high"] for f in judged])
    publish("verdicts", f"## Verdicts against the rows kept aside\n\n`python bench/verdicts.py`: {len(found)} real sets, a quarter of the rows seen. Reliability: how sure the "
            "verdict was that the gain is above the margin, and how often it was on the rows kept aside.",
            ["stated chance that the large one pays", "sets", "stated, mean", "true"], bins, page="calibration.md",
            after=f"Outcomes: {len(yes)} worth it, {len(no)} not worth it, {sum(f['outcome'] == 'unknown' for f in found)} not known yet, "
                  f"{sum(f['outcome'] == 'nothing_beats_naive' for f in found)} nothing beats naive, {sum(f['outcome'] == 'not_a_result' for f in found)} not a result. "
                  f"Of the {len(right)} that say yes or no, {sum(right)} agree with the sign of the truth, and {clearly} are clearly contradicted (95 % interval on the rows kept "
                  f"aside wholly on the other side). {held:.0%} of {len(judged)} intervals of the gain hold what the rows kept aside show.\n\n"
                  + "\n".join(f"- {f['set']} ({f['rows']:,} rows): {f['outcome']}, {f['large']} against {f['small']}: said {f['said']:+.3g} "
                              f"({f['low']:+.3g} to {f['high']:+.3g}, margin {f['margin']:.2g}), true {f['true']:+.3g}" for f in judged))
    curves = [c for f in found for c in f["curves"]]
    if curves:
        inside = [c["low"] <= c["true"] <= c["high"] for c in curves]
        error = [abs(c["median"] / c["true"] - 1) for c in curves if c["true"] > 0]
        still = [abs(c["now"] / c["true"] - 1) for c in curves if c["true"] > 0]
        publish("verdict curves", "## Learning curves of real contests, at four times the rows\n\n`python bench/verdicts.py`: the curve that the contest drew from its quarter, against the same "
                "candidate taught with four times the rows. What counts as true is itself one training, judged on the rows kept aside; its own luck is not taken off, so that fewer "
                "than 80 % is expected.", ["curves", "80 % interval holds the truth", "median error", "error of 'no change'"],
                [[len(curves), f"{np.mean(inside):.0%}", f"{np.median(error):.1%}", f"{np.median(still):.1%}"]], page="calibration.md")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--sets", default="")
    options.add_argument("--work", type=int, default=40)
    options.add_argument("--out", default="/tmp/assay-verdicts")
    options.add_argument("--score", action="store_true", help="only score what is there")
    given = options.parse_args()
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    log = out / "results.jsonl"
    there = {r["set"]: r for r in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    wanted = check_sets()
    for name, make in wanted.items():
        if given.score or name in there or (given.sets and name not in given.sets.split(",")):
            continue
        try:
            found = one(name, make, given.work, out)
        except Exception as error:  # one set that breaks is reported, not the end of the bench
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        if found:
            there[name] = found
            with log.open("a") as sink:
                sink.write(json.dumps(found) + "\n")
            print(name, {k: v for k, v in found.items() if k in ("rows", "outcome", "large", "small", "said", "true", "seconds")}, len(found["curves"]), flush=True)
    score(list(there.values()))


if __name__ == "__main__":
    main()
