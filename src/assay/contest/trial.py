"""One trial, inside a child process: validate, fit, pack, load again, answer the test rows, measure.

What is judged is the model as it comes back from its own dump, so a bundle cannot behave otherwise than its score.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from assay.contest.cost import Meter, peak_mb, prices
from assay.contest.folder import Folder, Trial, write_json
from assay.contest.measure import TrialClock, checked, keep, latency, same_answers, size_mb
from assay.contest.mix import mix
from assay.contest.tune import tune
from assay.data.dataset import Dataset
from assay.data.external.answers import flatters
from assay.data.split import fewer
from assay.errors import AssayError
from assay.families.base import Candidate, Model, TooSlow
from assay.registry import get
from assay.tasks.base import Task
from assay.words import say

VALID_SHARE = 0.2
ORIGINS_LONGER = 1.2  # a forecaster's second fit knows some origins more of each series, not some rows more
CHECKED_ROWS = 500  # on which a second fit is compared with the first


def main(job_file: str) -> None:
    """Play the job in `job_file`, write its result beside it. Never raises: a failure is a result too."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    folder = Folder(Path(job["folder"]))
    started = time.monotonic()
    candidate = get("assay.families", Candidate, job["family"])
    same: dict[str, Any] = {name: job[name] for name in ("candidate", "family", "rung", "split", "seed", "params", "repeat", "share")}
    same |= {"version": candidate.version, "blind": tuple(job["blind"])}
    try:
        trial = {"trial": play, "refit": refit, "mix": mix}[job["kind"]](folder, candidate, job, same)
    except (TooSlow, AssayError) as reason:
        text = reason.reason if isinstance(reason, TooSlow) else reason.text
        trial = Trial(**same, status="refused" if isinstance(reason, TooSlow) else "failed", reason=text)
    except MemoryError:
        trial = Trial(**same, status="failed", reason=say("it ran out of memory"))
    except Exception as error:  # a candidate may fail in any way; the contest goes on and the table says why
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0][:200]
        trial = Trial(**same, status="failed", reason=say("it failed: {kind}: {message}", kind=type(error).__name__, message=first))
    write_json(Path(job["result"]), trial.json() | {"seconds": time.monotonic() - started})
    shutil.rmtree(folder.checkpoints(job["key"]), ignore_errors=True)


def play(folder: Folder, candidate: Candidate, job: dict[str, Any], same: dict[str, Any]) -> Trial:
    """Everything between the split and its line in trials.jsonl.

    A trial that does not stand in the scoreboard (another seed, fewer rows, hidden columns) answers as well, but is not
    packed and its single rows are not timed.
    """
    case, task, data, splits, _ = folder.open()
    key = Trial(**same, status="done").key
    split, data = splits[job["split"]], data.blind(tuple(job["blind"]))
    teach = split.train
    if job["share"] < 1:
        teach = fewer(data, teach, share=job["share"], seed=job["seed"], strata=task.strata(data))
    train, test = data.take(teach), data.take(split.test)
    rate = prices(case.prices)
    clock = TrialClock(job, len(test))

    rest, held = task.holdout(train, share=VALID_SHARE, seed=job["seed"], most=candidate.valid_rows)
    meter, params = Meter(), job["params"]
    fit_started = time.monotonic()
    model = candidate.build(task, data.schema, **params)
    model.fit(train.take(rest), seed=job["seed"], budget=clock.budget(0.48))
    first_fit_s = time.monotonic() - fit_started
    tuned: dict[str, Any] = {}
    if job["tune"] and candidate.space and task.by_rows:
        better, tuned = tune(candidate, task, train.take(rest), params=params, seed=job["seed"], clock=clock, fit_s=first_fit_s)
        if better is not None:
            params = same["params"] = better
            model = candidate.build(task, data.schema, **params)
            model.fit(train.take(rest), seed=job["seed"], budget=clock.budget(0.3))
    clock.say("validating")
    held_out = train.take(held)
    begin = time.monotonic()
    valid = checked(task, model.predict(held_out.asked()), len(held))
    clock.answering(begin, rows=len(held))
    np.savez(folder.validation_file(key), rows=teach[held], prediction=valid)
    calibration = task.calibration(task.truth(held_out), valid)
    valid_loss = float(task.losses(train, held_out, task.calibrated(valid, calibration)).mean())

    facts, hurried = dict(model.facts), bool(model.facts.get("short_of_time"))
    longer = len(train) / len(rest) if task.by_rows else ORIGINS_LONGER
    if clock.unlimited or first_fit_s * longer < clock.left() - clock.predict_s:
        first, meter = model, Meter()  # the price of a fit is that of one fit
        model = candidate.build(task, data.schema, **params)
        model.fit(train, seed=job["seed"], budget=clock.budget_left())
        facts = dict(model.facts)
        if candidate.rung not in ("naive", "llm", "external") and _worse(task, model, first, held_out, calibration):
            model, facts = first, dict(first.facts) | {"refit": "worse"}  # it ran out of time half-way: the model that was validated stands
            facts.setdefault("rows_used", len(rest))
    else:
        facts.setdefault("rows_used", len(rest))
    if hurried:  # its calibration was learnt by a model that was cut short
        facts["short_of_time"] = True
    spent = meter.read(rate.watts_per_core)
    peak = peak_mb()

    kept = folder.model_folder(key)
    counts = Trial(**same, status="done").contest
    asked, online = test.asked(), bool(params.get("online", candidate.online))
    if counts:
        keep(model, calibration, kept)
        packed = candidate.build(task, data.schema, **params).load(kept / "model")
        if candidate.rung not in ("llm", "external"):
            same_answers(model, packed, asked.take(np.arange(min(8, len(asked)))))
        model = packed
    clock.say("answering the test rows")
    if not online and params.get("kind") not in ("command", "autogluon"):  # a program would run once more, learning included
        model.predict(asked.take(np.arange(min(2, len(asked)))))  # imports and first touches are no cost of a row
    meter = Meter()
    raw = checked(task, model.predict(asked), len(test))
    answering = meter.read(rate.watts_per_core)
    prediction = task.calibrated(raw, calibration)
    losses = task.losses(train, test, prediction)
    if facts.get("ready") and flatters(task.losses(train, held_out, task.calibrated(valid, calibration)), losses):
        facts["flattered"] = True
    np.save(folder.prediction_file(key), prediction.astype(np.float32))
    rows = max(len(test), 1)
    cost = {
        "fit_s": spent["cpu_s"], "fit_wall_s": spent["wall_s"], "predict_s_per_row": model.facts.get("predict_s_per_row") or answering["cpu_s"] / rows,
        "energy_wh": spent["energy_wh"], "predict_wh_per_row": answering["energy_wh"] / rows, "energy": spent["energy"],
        "peak_mb": max(peak, peak_mb(), model.facts.get("run_peak_mb", 0.0)),
        "artefact_mb": size_mb(kept) if counts and candidate.rung != "external" else None,  # the table of its answers is not the model
        "money_per_row": model.facts.get("money_per_row") if online or candidate.rung == "external" else 0.0,
        **(latency(model, task, calibration, asked, seconds=min(2.0, max(0.2, clock.left() * 0.2))) if counts else {}),
    }
    facts = model.facts | facts | tuned  # what the fit cost wins over what the test rows cost, which stands per row
    same["params"] = {k: v for k, v in params.items() if k != "teacher"}  # a taught model needs its teacher no more
    return Trial(**same, status="done", train_rows=len(train), rows_used=int(facts.get("rows_used", len(train))), test_rows=len(test),
                 loss=float(losses.mean()), valid_loss=valid_loss, cost=cost, facts=facts)


def _worse(task: Task, again: Model, first: Model, held_out: Dataset, calibration: dict[str, Any]) -> bool:
    """Does a model that has learnt these rows answer them clearly worse than one that has not? Then its fit was cut short."""
    some = held_out.take(np.unique(np.linspace(0, len(held_out) - 1, CHECKED_ROWS).astype(int)))
    known, unseen = (task.losses(some, some, task.calibrated(checked(task, m.predict(some.asked()), len(some)), calibration)) for m in (again, first))
    gap = known - unseen
    return bool(gap.mean() > 0.02 * unseen.mean() + 2 * gap.std() / np.sqrt(len(gap)))


def refit(folder: Folder, candidate: Candidate, job: dict[str, Any], same: dict[str, Any]) -> Trial:
    """Fit on every row, for the bundle. The calibration was learnt from all splits' held-out rows."""
    _, task, data, splits, _ = folder.open()
    clock = TrialClock(job, len(splits[0].test))  # as when it was judged: a forecaster chooses its way by the rows that it has to answer
    model = candidate.build(task, data.schema, **job["params"]).fit(data, seed=job["seed"], budget=clock.budget(0.9))
    keep(model, job["calibration"], Path(job["keep"]))
    return Trial(**same, status="done", train_rows=len(data), rows_used=int(model.facts.get("rows_used", len(data))), facts=model.facts)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main(sys.argv[1])
