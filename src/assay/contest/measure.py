"""What every trial measures by: its clock, the shape of an answer, the size on disk, the time of a single row."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.contest.folder import Folder
from assay.data.dataset import Dataset
from assay.errors import AssayError
from assay.families.base import Budget, Model
from assay.tasks.base import Task

LATENCY_ROWS = 200


class TrialClock:
    """The trial's seconds: 48 % for the fit that validates (and embeds what both fits need), the rest for the fit that counts and for answering."""

    def __init__(self, job: dict[str, Any], test_rows: int) -> None:
        self.started, self.seconds, self.job, self.test_rows = time.monotonic(), float(job["seconds"]), job, test_rows
        self.unlimited = self.seconds == float("inf")
        self.predict_s = 0.3 * self.seconds
        self.memo: dict[Any, Any] = {}
        self.fits = 0
        self._said = 0.0

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.started)

    def answering(self, begin: float, rows: int) -> None:
        """From the time that the held-out rows took: keep twice what the test rows will need, and give the rest to the fit."""
        needed = (time.monotonic() - begin) / max(rows, 1) * self.test_rows * 2 + 0.5
        self.predict_s = min(self.predict_s, needed)

    def budget(self, share: float) -> Budget:
        return self._budget(self.seconds * share)

    def seconds_of(self, seconds: float) -> Budget:
        """A budget of these seconds."""
        return self._budget(seconds)

    def budget_left(self) -> Budget:
        return self._budget(self.seconds if self.unlimited else max(0.1, self.left() - self.predict_s))

    def _budget(self, seconds: float) -> Budget:
        self.fits += 1
        run = Folder(Path(self.job["folder"])) if "folder" in self.job else None
        return Budget(seconds=seconds, memory_mb=self.job["memory_mb"], threads=self.job["threads"], predict_rows=self.test_rows,
                      predict_seconds=self.predict_s, passes=self.job["passes"], memo=self.memo, say=self.say, cache=run.path / "cache" if run else None,
                      checkpoint=run.checkpoints(self.job["key"]) / str(self.fits) if run else None)

    def say(self, note: str) -> None:
        """What runs now, for the live table: at most five times a second."""
        now = time.monotonic()
        if now - self._said > 0.2:
            self._said = now
            Path(self.job["progress"]).write_text(note, encoding="utf-8")


def checked(task: Task, prediction: np.ndarray, rows: int) -> np.ndarray:
    """A candidate's answer has the promised shape and is finite, or the trial fails with a sentence."""
    prediction = np.asarray(prediction, dtype=np.float64)
    if prediction.shape != (rows, task.width):
        raise AssayError("it answered with shape {got}, expected {wanted}", got=str(prediction.shape), wanted=str((rows, task.width)))
    if not np.isfinite(prediction).all():
        raise AssayError("{n} of its {rows} answers are not finite numbers", n=int((~np.isfinite(prediction)).any(axis=1).sum()), rows=rows)
    return prediction


def keep(model: Model, calibration: dict[str, Any], kept: Path) -> None:
    partial = kept.with_name(kept.name + ".tmp")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "model").mkdir(parents=True)
    model.dump(partial / "model")
    (partial / "calibration.json").write_text(json.dumps(calibration))
    shutil.rmtree(kept, ignore_errors=True)
    partial.replace(kept)


def same_answers(before: Model, after: Model, asked: Dataset) -> None:
    """A model that answers otherwise once it was packed and opened again fails here, with a sentence, and not at a user's."""
    one, other = before.predict(asked), after.predict(asked)
    if not np.allclose(one, other, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(one).max(initial=0.0)))):
        raise AssayError("it answers otherwise once it was packed and opened again (by up to {gap:.3g})", gap=float(np.abs(one - other).max()))


def latency(model: Model, task: Task, calibration: dict[str, Any], asked: Dataset, seconds: float) -> dict[str, float]:
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


def size_mb(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
