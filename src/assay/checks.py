"""Public checks: what a plugin has to hold, for families, tasks and decisions inside assay and outside it.

    from assay.checks import check_candidate
    check_candidate(MY_CANDIDATE)          # raises CheckFailed with one sentence
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import KINDS, MEDIA, Dataset
from assay.data.made_media import beside
from assay.decide.base import Decision, Example, Plan, Quantiles
from assay.errors import AssayError, InputError
from assay.families.base import RUNGS, Budget, Candidate, Model, TooSlow
from assay.tasks import known
from assay.tasks.base import Task
from assay.words import Text

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
        if not task.by_rows:
            _foresees(candidate, task, data, params or {}, {"seconds": float("inf"), "passes": PASSES})
        elif wanted is None:
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


def _foresees(candidate: Candidate, task: Task, data: Dataset, params: dict[str, Any], limits: dict[str, Any]) -> None:
    """The same for who forecasts: rows are origins, and what teaches comes before what judges."""
    split = (task.splits(data) or [])[0]
    train, test = data.take(split.train), data.take(split.test)

    def fitted() -> Model:
        return candidate.build(task, data.schema, **params).fit(train, seed=1, budget=Budget(predict_rows=len(test), **limits))

    name, model = candidate.name, fitted()
    answer = model.predict(test.asked())
    _finite(name, task, answer, len(test))
    _hold(np.array_equal(answer, fitted().predict(test.asked())), "{name}: two fits with one seed answer differently (by up to {gap:.3g}).", name=name,
          gap=float(np.abs(answer - fitted().predict(test.asked())).max()))
    with tempfile.TemporaryDirectory() as folder:
        model.dump(Path(folder))
        odd = [f.name for f in Path(folder).rglob("*") if f.is_file() and f.suffix not in DATA_SUFFIXES]
        _hold(not odd, "{name}: it writes files that are not data: {files}.", name=name, files=odd)
        loaded = candidate.build(task, data.schema, **params).load(Path(folder))
        _hold(np.allclose(loaded.predict(test.asked()), answer, rtol=1e-5, atol=1e-6), "{name}: it answers differently after dump and load.", name=name)
        row = loaded.predict_row(test.asked().frame.row(0, named=True))
        _hold(np.allclose(row, answer[:1], rtol=1e-4, atol=1e-5), "{name}: predict_row differs from predict.", name=name)
    _finite(name, task, model.predict(test.asked().take(np.arange(0))), 0)


def _damaged(asked: Dataset) -> Dataset:
    """Empty cells, unknown categories, huge numbers, texts of another script: answers must stay finite."""
    frame = asked.frame
    for column in asked.schema.features:
        cells = frame[column.name].to_list()
        cells[0] = None
        cells[1] = {"number": 1e30, "category": "never seen", "text": "从来没有见过 🚚\x00", "time": cells[1]}.get(column.kind, cells[1])
        frame = frame.with_columns(pl.Series(column.name, cells, dtype=frame[column.name].dtype))
    return Dataset(frame, asked.schema)


def _finite(name: str, task: Task, answer: np.ndarray, rows: int) -> None:
    _hold(answer.shape == (rows, task.width), "{name}: it answers with shape {got}, expected {wanted}.", name=name, got=str(answer.shape),
          wanted=str((rows, task.width)))
    _hold(bool(np.isfinite(answer).all()), "{name}: some answers are not finite.", name=name)


def _shape(name: str, task: Task, answer: np.ndarray, rows: int) -> None:
    _finite(name, task, answer, rows)
    if task.width > 1:
        _hold(bool(np.allclose(answer.sum(axis=1), 1, atol=1e-4) and (answer >= 0).all()), "{name}: its probabilities do not sum to 1.", name=name)


def check_task(task: type[Task]) -> None:
    """A task's example can be asked, its losses are per row, a perfect answer costs least, and JSON brings it back."""
    data = task.example()
    _hold(task.refuses(data) is None, "{name}: it refuses its own example.", name=task.name)
    one = task.of(data)
    truth = one.truth(data)
    perfect = one.perfect(truth)
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


def check_decision(decision: Decision, *, seeds: tuple[int, ...] = (0, 1, 2), seconds: float = 5.0, infeasible: dict[str, Any] | None = None) -> None:
    """A decision's examples are solved, its plans are JSON and can be judged from it, knowing the future costs no more than not knowing it, bad input is
    refused with a sentence, and the clock is kept. infeasible: a table that no plan can meet, on the first example's quantiles."""
    name = decision.name
    _hold(decision.forecast in ("needed", "possible", "none"), "{name}: forecast is '{found}', expected needed, possible or none.", name=name, found=decision.forecast)
    _hold(isinstance(decision.about, Text), "{name}: 'about' is no sentence made by say(...).", name=name)
    known: list[float] = []
    unknown: list[float] = []
    for seed in seeds:
        example = decision.example(seed)
        problem = decision.problem(example.table, Path("."))
        plan, rule = decision.solve(problem, example.quantiles, seconds=seconds, seed=seed), decision.rule(problem, example.quantiles)
        _plan_holds(name, plan)
        _hold(not plan.violations, "{name}: the plan of its own example breaks something: {one}", name=name, one=plan.violations[0] if plan.violations else "")
        _hold(bool(rule.choice) and math.isfinite(rule.cost), "{name}: its rule of thumb has no plan for its own example.", name=name)
        cost = _judged(decision, problem, plan, example)
        _hold(cost.shape == _judged(decision, problem, rule, example).shape, "{name}: plan and rule are judged in different parts.", name=name)
        picture = decision.picture(problem, plan, lambda text: text.to("zh") if isinstance(text, Text) else str(text))
        _drawn(name, picture)
        if example.quantiles is not None and example.truth is not None:
            oracle = decision.solve(problem, Quantiles.exact(example.truth, example.quantiles.ids, example.quantiles.times), seconds=seconds, seed=seed)
            known.append(float(_judged(decision, problem, oracle, example).sum()))
            unknown.append(float(cost.sum()))
    if known:
        mine, theirs = float(np.mean(known)), float(np.mean(unknown))
        _hold(mine <= theirs + 0.01 * abs(theirs) + 1e-6, "{name}: who knows the future pays {mine:.6g} on average, who does not {theirs:.6g}.", name=name, mine=mine, theirs=theirs)
    _refuses(decision, decision.example(seeds[0]))
    example = decision.example(seeds[0])
    took = []
    for _ in range(2):  # the better of two, because other work may share the processor
        began = time.monotonic()
        _plan_holds(name, decision.solve(decision.problem(example.table, Path(".")), example.quantiles, seconds=0.5, seed=0))
        took.append(time.monotonic() - began)
    _hold(min(took) < 3, "{name}: half a second was given, {took:.2g} s were taken.", name=name, took=min(took))
    if infeasible is not None:
        plan = decision.solve(decision.problem(infeasible, Path(".")), example.quantiles, seconds=seconds, seed=0)
        _hold(not plan.choice and bool(plan.violations), "{name}: what cannot be done is not answered by a plan without a choice whose violations say why.", name=name)
        _hold(plan.facts.get("status") == "infeasible", "{name}: the status of what cannot be done is '{found}'.", name=name, found=plan.facts.get("status"))


def _plan_holds(name: str, plan: Plan) -> None:
    _hold(bool(plan.choice), "{name}: a problem that can be solved got no plan: {why}", name=name, why=[str(v) for v in plan.violations])
    _hold(math.isfinite(plan.cost), "{name}: the cost of its plan is {cost}.", name=name, cost=plan.cost)
    _hold(plan.facts.get("status") in ("optimal", "feasible"), "{name}: facts['status'] is '{found}', expected optimal or feasible.", name=name, found=plan.facts.get("status"))
    _hold(isinstance(plan.facts.get("seconds"), (int, float)), "{name}: facts['seconds'] is missing.", name=name)
    gap = plan.facts.get("gap")
    _hold(gap is None or (isinstance(gap, (int, float)) and gap >= 0), "{name}: facts['gap'] is {gap}, expected a share of 0 or more.", name=name, gap=gap)
    rows = [row for table in plan.choice.values() for row in table]
    _hold(all(isinstance(row, dict) for row in rows) and bool(rows), "{name}: its plan is no tables of rows.", name=name)
    try:
        packed = json.dumps(plan.json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckFailed("{name}: its plan is no JSON: {error}.", name=name, error=str(error)) from None
    _hold(json.loads(packed)["choice"] == plan.choice, "{name}: its plan does not come back from its JSON.", name=name)


def _judged(decision: Decision, problem: Any, plan: Plan, example: Example) -> np.ndarray:
    """What the plan cost, as it is and as it comes back from its file."""
    cost = np.asarray(decision.realised(problem, plan, example.truth), dtype=float)
    _hold(cost.ndim == 1 and len(cost) > 0 and bool(np.isfinite(cost).all()), "{name}: its realised cost is not a list of finite numbers.", name=decision.name)
    packed = json.loads(json.dumps(plan.json()))
    again = decision.realised(problem, Plan(packed["choice"], packed["cost"], (), packed["facts"]), example.truth)
    _hold(np.array_equal(cost, again), "{name}: a plan is judged otherwise after it came back from its JSON.", name=decision.name)
    return cost


def _drawn(name: str, picture: str) -> None:
    try:
        root = ElementTree.fromstring(picture)
    except ElementTree.ParseError as error:
        raise CheckFailed("{name}: its picture is no well-formed XML: {error}.", name=name, error=str(error)) from None
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    _hold(root.tag.rsplit("}", 1)[-1] == "svg", "{name}: its picture is a '{tag}', expected one svg element.", name=name, tag=root.tag)
    _hold("script" not in tags and len(tags) > 1, "{name}: its picture is empty, or holds a script.", name=name)


def _refuses(decision: Decision, example: Example) -> None:
    """Bad input gets one sentence: a field that does not exist, an empty table, no forecast where one is needed."""
    for table, what in ((example.table | {"no_such_field": 1}, "a field that does not exist"), ({}, "an empty table")):
        try:
            decision.problem(table, Path("."))
        except InputError as error:
            _hold("\n" not in str(error) and str(error).endswith((".", ")")), "{name}: for {what} it says '{error}', expected one sentence.", name=decision.name, what=what, error=str(error))
        else:
            _hold(what == "an empty table", "{name}: it takes {what}.", name=decision.name, what=what)
    if decision.forecast == "needed":
        try:
            decision.solve(decision.problem(example.table, Path(".")), None, seconds=1.0, seed=0)
        except InputError:
            return
        raise CheckFailed("{name}: it plans without the forecast that it needs.", name=decision.name)


def _hold(true: bool, template: str, **values: Any) -> None:
    if not true:
        raise CheckFailed(template, **values)
