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
from assay.data.dataset import Dataset
from assay.data.split import holdout
from assay.errors import AssayError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.registry import get
from assay.tasks.base import Task
from assay.words import say

VALID_SHARE = 0.2
LATENCY_ROWS = 200


def main(job_file: str) -> None:
    """Play the job in `job_file`, write its result beside it. Never raises: a failure is a result too."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    folder = Folder(Path(job["folder"]))
    started = time.monotonic()
    candidate = get("assay.families", Candidate, job["candidate"])
    same: dict[str, Any] = {"candidate": candidate.name, "rung": candidate.rung, "split": job["split"], "seed": job["seed"],
                            "params": job["params"], "version": candidate.version}
    try:
        trial = (refit if job["kind"] == "refit" else play)(folder, candidate, job, same)
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


def play(folder: Folder, candidate: Candidate, job: dict[str, Any], same: dict[str, Any]) -> Trial:
    """Everything between the split and its line in trials.jsonl."""
    case, task, data, splits, _ = folder.open()
    split = splits[job["split"]]
    train, test = data.take(split.train), data.take(split.test)
    rate = prices(case.prices)
    clock = _Clock(job, len(test))

    rest, held = holdout(train, share=VALID_SHARE, seed=job["seed"], strata=task.strata(train), most=candidate.valid_rows)
    meter = Meter()
    model = candidate.build(task, data.schema, **job["params"])
    fit_started = time.monotonic()
    model.fit(train.take(rest), seed=job["seed"], budget=clock.budget(0.48))
    first_fit_s = time.monotonic() - fit_started
    clock.say("validating")
    held_out = train.take(held)
    begin = time.monotonic()
    valid = _checked(task, model.predict(held_out.asked()), len(held))
    clock.answering(begin, rows=len(held))
    np.savez(folder.validation_file(candidate.name, job["split"]), rows=split.train[held], prediction=valid)
    calibration = task.calibration(task.truth(held_out), valid)
    valid_loss = float(task.losses(train, held_out, task.calibrated(valid, calibration)).mean())

    facts, hurried = dict(model.facts), bool(model.facts.get("short_of_time"))
    if first_fit_s * len(train) / len(rest) < clock.left() - clock.predict_s:
        meter = Meter()  # the price of a fit is that of one fit
        model = candidate.build(task, data.schema, **job["params"])
        model.fit(train, seed=job["seed"], budget=clock.budget_left())
        facts = dict(model.facts)
    else:
        facts.setdefault("rows_used", len(rest))
    if hurried:  # its calibration was learnt by a model that was cut short
        facts["short_of_time"] = True
    spent = meter.read(rate.watts_per_core)
    peak = peak_mb()

    kept = folder.model_folder(candidate.name, job["split"])
    _dump(model, calibration, kept)
    model = candidate.build(task, data.schema, **job["params"]).load(kept / "model")
    clock.say("answering the test rows")
    asked = test.asked()
    if not candidate.online:
        model.predict(asked.take(np.arange(min(2, len(asked)))))  # imports and first touches are no cost of a row
    meter = Meter()
    raw = _checked(task, model.predict(asked), len(test))
    answering = meter.read(rate.watts_per_core)
    prediction = task.calibrated(raw, calibration)
    losses = task.losses(train, test, prediction)
    np.save(folder.prediction_file(candidate.name, job["split"]), prediction.astype(np.float32))
    rows = max(len(test), 1)
    cost = {
        "fit_s": spent["cpu_s"], "fit_wall_s": spent["wall_s"], "predict_s_per_row": answering["cpu_s"] / rows,
        "energy_wh": spent["energy_wh"], "predict_wh_per_row": answering["energy_wh"] / rows, "energy": spent["energy"],
        "peak_mb": max(peak, peak_mb()), "artefact_mb": _size_mb(kept),
        "money_per_row": model.facts.get("money_per_row") if candidate.online else 0.0,
        **_latency(model, task, calibration, asked, seconds=min(2.0, max(0.2, clock.left() * 0.2))),
    }
    facts = model.facts | facts  # what the fit cost wins over what the test rows cost, which stands per row
    return Trial(**same, status="done", train_rows=len(train), rows_used=int(facts.get("rows_used", len(train))), test_rows=len(test),
                 loss=float(losses.mean()), valid_loss=valid_loss, cost=cost, facts=facts)


def refit(folder: Folder, candidate: Candidate, job: dict[str, Any], same: dict[str, Any]) -> Trial:
    """Fit on every row, for the bundle. The calibration was learnt from all splits' held-out rows."""
    _, task, data, _, _ = folder.open()
    clock = _Clock(job, 0)
    model = candidate.build(task, data.schema, **job["params"]).fit(data, seed=job["seed"], budget=clock.budget(0.9))
    _dump(model, job["calibration"], Path(job["keep"]))
    return Trial(**same, status="done", train_rows=len(data), rows_used=int(model.facts.get("rows_used", len(data))), facts=model.facts)


class _Clock:
    """The trial's seconds: 48 % for the fit that validates (and embeds what both fits need), the rest for the fit that counts and for answering."""

    def __init__(self, job: dict[str, Any], test_rows: int) -> None:
        self.started, self.seconds, self.job, self.test_rows = time.monotonic(), float(job["seconds"]), job, test_rows
        self.predict_s = 0.3 * self.seconds
        self.memo: dict[Any, Any] = {}
        self._said = 0.0

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def answering(self, begin: float, rows: int) -> None:
        """From the time that the held-out rows took: keep twice what the test rows will need, and give the rest to the fit."""
        needed = (time.monotonic() - begin) / max(rows, 1) * self.test_rows * 2 + 0.5
        self.predict_s = min(self.predict_s, needed)

    def budget(self, share: float) -> Budget:
        return self._budget(self.seconds * share)

    def budget_left(self) -> Budget:
        return self._budget(max(0.1, self.left() - self.predict_s))

    def _budget(self, seconds: float) -> Budget:
        return Budget(seconds=seconds, memory_mb=self.job["memory_mb"], threads=self.job["threads"], predict_rows=self.test_rows,
                      predict_seconds=self.predict_s, memo=self.memo, say=self.say)

    def say(self, note: str) -> None:
        """What runs now, for the live table: at most five times a second."""
        now = time.monotonic()
        if now - self._said > 0.2:
            self._said = now
            Path(self.job["progress"]).write_text(note, encoding="utf-8")


def _checked(task: Task, prediction: np.ndarray, rows: int) -> np.ndarray:
    """A candidate's answer has the promised shape and is finite, or the trial fails with a sentence."""
    prediction = np.asarray(prediction, dtype=np.float64)
    if prediction.shape != (rows, task.width):
        raise AssayError("it answered with shape {got}, expected {wanted}", got=str(prediction.shape), wanted=str((rows, task.width)))
    if not np.isfinite(prediction).all():
        raise AssayError("{n} of its {rows} answers are not finite numbers", n=int((~np.isfinite(prediction)).any(axis=1).sum()), rows=rows)
    return prediction


def _dump(model: Model, calibration: dict[str, Any], kept: Path) -> None:
    partial = kept.with_name(kept.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "model").mkdir(parents=True)
    model.dump(partial / "model")
    (partial / "calibration.json").write_text(json.dumps(calibration))
    shutil.rmtree(kept, ignore_errors=True)
    partial.replace(kept)


def _latency(model: Model, task: Task, calibration: dict[str, Any], asked: Dataset, seconds: float) -> dict[str, float]:
    """Median and 95th percentile of one row at a time, in ms, after one warm-up row; rows repeat when there are few."""
    if "latency_ms" in model.facts:  # an endpoint has timed its own answers; asked again, they would come from the cache
        return {"single_row_ms": model.facts["latency_ms"], "single_row_p95_ms": model.facts["latency_p95_ms"]}
    rows = asked.frame.head(LATENCY_ROWS).to_dicts()
    task.calibrated(model.predict_row(rows[0]), calibration)
    taken: list[float] = []
    stop = time.perf_counter() + seconds
    for i in range(LATENCY_ROWS):
        begin = time.perf_counter()
        task.calibrated(model.predict_row(rows[i % len(rows)]), calibration)
        now = time.perf_counter()
        taken.append((now - begin) * 1000)
        if now > stop:
            break
    return {"single_row_ms": float(np.median(taken)), "single_row_p95_ms": float(np.quantile(taken, 0.95))}


def _size_mb(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main(sys.argv[1])
