"""Public checks: what a plugin has to hold, for families and tasks inside assay and outside it.

    from assay.checks import check_candidate
    check_candidate(MY_CANDIDATE)          # raises CheckFailed with one sentence
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import KINDS, MEDIA, Dataset
from assay.data.made_media import beside
from assay.errors import AssayError
from assay.families.base import RUNGS, Budget, Candidate, Model, TooSlow
from assay.tasks import known
from assay.tasks.base import Task

PASSES = 3
DATA_SUFFIXES = {".json", ".safetensors", ".onnx", ".onnx_data", ".txt", ".parquet", ".gguf", ".model"}


class CheckFailed(AssayError):
    """A plugin breaks its contract; the sentence says how."""


def check_candidate(candidate: Candidate, *, params: dict[str, Any] | None = None, seconds: float = 60.0) -> None:
    """Everything the contest, the bundle and the report rely on, for each task that the candidate names."""
    _hold(candidate.rung in RUNGS, "{name}: '{rung}' is not a rung; there are {rungs}.", name=candidate.name, rung=candidate.rung, rungs=RUNGS)
    _hold(set(candidate.reads) <= set(KINDS), "{name}: it reads kinds that do not exist: {reads}.", name=candidate.name, reads=candidate.reads)
    tasks = known()
    for task_name in candidate.tasks:
        _hold(task_name in tasks, "{name}: there is no task '{task}'.", name=candidate.name, task=task_name)
        data = tasks[task_name].example()
        task = tasks[task_name].of(data)
        wanted = next((kind for kind in candidate.requires if kind in MEDIA), None)
        if wanted is None:
            _behaves(candidate, task, data, params or {}, {"seconds": seconds})
        else:  # a network's size follows from the clock; without one, the same seed has to give the same network
            codes = task.truth(data) if task.width > 1 else task.strata(data) // 4  # type: ignore[operator]
            _behaves(candidate, task, beside(data, wanted, np.asarray(codes).astype(int)), params or {}, {"seconds": float("inf"), "passes": PASSES})


def _behaves(candidate: Candidate, task: Task, data: Dataset, params: dict[str, Any], limits: dict[str, Any]) -> None:
    name = candidate.name
    train, test = data.take(np.arange(100)), data.take(np.arange(100, len(data)))

    def fitted(rows: Dataset) -> Model:
        return candidate.build(task, data.schema, **params).fit(rows, seed=1, budget=Budget(predict_rows=len(test), **limits))

    model = fitted(train)
    answer = model.predict(test.asked())
    _shape(name, task, answer, len(test))
    again = fitted(train).predict(test.asked())
    _hold(np.array_equal(answer, again), "{name}: two fits with one seed answer differently (by up to {gap:.3g}).", name=name,
          gap=float(np.abs(answer - again).max()))
    with tempfile.TemporaryDirectory() as folder:
        model.dump(Path(folder))
        odd = [f.name for f in Path(folder).rglob("*") if f.is_file() and f.suffix not in DATA_SUFFIXES]
        _hold(not odd, "{name}: it writes files that are not data: {files}.", name=name, files=odd)
        loaded = candidate.build(task, data.schema, **params).load(Path(folder))
        _hold(np.array_equal(loaded.predict(test.asked()), answer), "{name}: it answers differently after dump and load.", name=name)
        row = loaded.predict_row(test.asked().frame.row(0, named=True))
        _hold(np.allclose(row, answer[:1], rtol=1e-4, atol=1e-5), "{name}: predict_row differs from predict.", name=name)
    _shape(name, task, model.predict(_damaged(test.asked())), len(test))
    _shape(name, task, model.predict(test.asked().take(np.arange(0))), 0)
    if task.width > 2:
        absent = train.take(task.truth(train) != 0)
        _shape(name, task, fitted(absent).predict(test.asked()), len(test))
    for kind in ("number", "category", "text"):  # a table of one kind only is a table too
        others = tuple(k for k in ("number", "category", "text", "time") if k != kind)
        narrow = data.blind(others)
        if not params and kind in candidate.reads and narrow.schema.features and candidate.refuses(task, narrow.schema) is None:
            try:
                own = candidate.build(task, narrow.schema, **params).fit(train.blind(others), seed=1, budget=Budget(predict_rows=len(test), **limits | {"seconds": min(limits["seconds"], 20.0)}))
            except (TooSlow, AssayError):  # it may refuse, with a sentence
                continue
            _shape(name, task, own.predict(test.blind(others).asked()), len(test))
    gaps = Dataset(train.frame.with_columns([pl.lit(None).cast(t).alias(c) for c, t in train.frame.schema.items()
                                             if c == data.schema.of_kind("number")[0].name]), train.schema)
    _shape(name, task, fitted(gaps).predict(test.asked()), len(test))


def _damaged(asked: Dataset) -> Dataset:
    """Empty cells, unknown categories, huge numbers, texts of another script: answers must stay finite."""
    frame = asked.frame
    for column in asked.schema.features:
        cells = frame[column.name].to_list()
        cells[0] = None
        cells[1] = {"number": 1e30, "category": "never seen", "text": "从来没有见过 🚚\x00", "time": cells[1]}.get(column.kind, cells[1])
        frame = frame.with_columns(pl.Series(column.name, cells, dtype=frame[column.name].dtype))
    return Dataset(frame, asked.schema)


def _shape(name: str, task: Task, answer: np.ndarray, rows: int) -> None:
    _hold(answer.shape == (rows, task.width), "{name}: it answers with shape {got}, expected {wanted}.", name=name, got=str(answer.shape),
          wanted=str((rows, task.width)))
    _hold(bool(np.isfinite(answer).all()), "{name}: some answers are not finite.", name=name)
    if task.width > 1:
        _hold(bool(np.allclose(answer.sum(axis=1), 1, atol=1e-4) and (answer >= 0).all()), "{name}: its probabilities do not sum to 1.", name=name)


def check_task(task: type[Task]) -> None:
    """A task's example can be asked, its losses are per row, a perfect answer costs least, and JSON brings it back."""
    data = task.example()
    _hold(task.refuses(data) is None, "{name}: it refuses its own example.", name=task.name)
    one = task.of(data)
    truth = one.truth(data)
    perfect = np.eye(one.width)[truth] if one.width > 1 else truth[:, None]
    shuffled = np.roll(perfect, 1, axis=0)
    calibration = one.calibration(truth, shuffled)
    losses = one.losses(data, data, one.calibrated(perfect, calibration))
    _hold(losses.shape == (len(data),), "{name}: losses are not one a row.", name=task.name)
    _hold(losses.mean() < one.losses(data, data, one.calibrated(shuffled, calibration)).mean(),
          "{name}: a perfect answer does not cost less than a shuffled one.", name=task.name)
    ones = one.metrics(data, data, one.calibrated(shuffled, calibration), np.ones(len(data)))
    none = one.metrics(data, data, one.calibrated(shuffled, calibration))
    _hold(ones == none, "{name}: weights of one change its metrics.", name=task.name)
    _hold(task.from_json(one.json()).json() == one.json(), "{name}: it does not come back from its JSON.", name=task.name)
    _hold(one.answers(one.calibrated(perfect, calibration)).height == len(data), "{name}: answers are not one a row.", name=task.name)


def _hold(true: bool, template: str, **values: Any) -> None:
    if not true:
        raise CheckFailed(template, **values)
