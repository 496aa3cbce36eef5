"""Before the contest: which rows can be used, which question is asked, how the rows belong together and so how they are split."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from assay.case import Case
from assay.data.dataset import MEDIA, Dataset
from assay.data.inspect import structure
from assay.data.inspect.base import Structure
from assay.data.split import Split, judges, own_split, splits
from assay.errors import InputError, TaskError
from assay.tasks import choose, find
from assay.tasks.base import Task
from assay.words import Text, say

MOST_TEST_ROWS = 10_000
LEAST_ROWS = 20
SPLITS = ("random", "group", "time", "order", "given")


def with_structure(case: Case, task: Task, data: Dataset) -> tuple[Dataset, Text | None]:
    """The data with the role that its structure gives a column, and the sentence that says so.

    What the case says (`group`, `time_column`, `split`) wins, then the split that the data bring; then nothing is looked for.
    """
    schema = data.schema
    if _given(case, data):
        name = own_split(schema)
        taught = data.frame[name].n_unique() > 2  # type: ignore[index]
        return data, say("The data bring their own split in '{name}', and it is used{more}. --split random says otherwise.", name=name,
                         more=say("; validation rows teach too") if taught else "")
    if case.split == "order":
        return replace(data, schema=replace(schema, ordered=True)), None
    if case.split or schema.group or schema.time:
        return data, None
    found: Structure = structure(data, labels=task.name != "regress", seed=case.seed)
    if found.kind == "random":
        return data, None
    roles: dict[str, dict[str, Any]] = {"group": {"group": found.column}, "time": {"time": found.column}, "order": {"ordered": True}}
    return replace(data, schema=replace(schema, **roles[found.kind])), found.text


def _given(case: Case, data: Dataset) -> bool:
    """Does the split follow what the data themselves call train and test? A group or a time that the user names says something else, unless they
    only say what a sequence is."""
    if case.split or ((case.time_column or case.group) and not case.sequence):
        return case.split == "given"
    name = own_split(data.schema)
    return name is not None and judges(data.frame[name]) is not None


def with_answers(data: Dataset, case: Case) -> tuple[Dataset, list[Text]]:
    """Rows whose target is there. Missing and infinite answers are refused, or dropped where the case says so."""
    y = data.y
    bad = y.is_null()
    if y.dtype.is_float():
        bad = bad | y.is_nan().fill_null(False) | y.is_infinite().fill_null(False)
    missing = int(bad.sum())
    if missing == len(y):
        raise TaskError("The target '{name}' is empty in all {rows} rows.", name=y.name, rows=len(y))
    notes = []
    if missing and not case.drop_missing_target:
        raise TaskError("{missing:,} of {rows:,} rows have no usable value in '{name}' (the first is data row {first:,}). Fill them, or leave "
                        "them out with --drop-missing-target.", missing=missing, rows=len(y), name=y.name, first=int(bad.arg_max() or 0) + 1)
    if missing:
        data = data.take((~bad).to_numpy())
        notes.append(say("{missing:,} rows without a usable '{name}' were left out.", missing=missing, name=y.name))
    if len(data) < LEAST_ROWS:
        raise TaskError("Rows found: {rows}. At least {least} are needed before anything can be judged.", rows=len(data), least=LEAST_ROWS)
    if not data.schema.features:
        raise TaskError("Besides the target '{name}' there is no column to learn from (ids do not count).", name=y.name)
    return data, notes


def task_of(case: Case, data: Dataset) -> tuple[Task, Text]:
    if case.task is None:
        chosen, why = choose(data)
    else:
        chosen, why = find(case.task), say("The question is '{task}', as you said.", task=case.task)
        reason = chosen.refuses(data)
        if reason is not None and not (data.y.dtype.is_integer() and 2 <= data.y.n_unique() <= 1000):
            raise TaskError("'{task}' cannot be asked here: {reason}.", task=case.task, reason=reason)
    return chosen.of(data, **task_options(case)), why


def task_options(case: Case) -> dict[str, Any]:
    options: dict[str, Any] = {"loss": case.loss, "quantile": case.quantile}
    return options | ({"costs": case.worth.costs, "currency": case.worth.currency} if case.worth else {})


def _affordable_folds(data: Dataset, time_s: float) -> int:
    """Few rows need folds, or the interval is too wide to say anything; each fold costs every candidate a trial.

    Networks for pictures, sounds and sequences take minutes to learn: there one good trial tells more than three short ones.
    """
    n = len(data)
    if time_s < 20 or (data.schema.of_kind(*MEDIA) and (n >= 500 or time_s < 300)):
        return 1
    if n < 1000:
        return 5 if time_s >= 60 else 3
    return 3 if n < 3000 and time_s >= 60 else 1


def splits_of(case: Case, task: Task, data: Dataset) -> tuple[list[Split], Text]:
    """The splits of this case and a sentence that says how they were made."""
    if (own := task.splits(data)) is not None:
        return own, say("{train:,} rows teach and {test:,} judge, split {how}.", train=len(own[0].train), test=len(own[0].test), how=say("by origin: what comes later judges"))
    kind = case.split or ("given" if _given(case, data) else "group" if data.schema.group else "time" if data.schema.time else "order" if data.schema.ordered else "random")
    if kind not in SPLITS:
        raise InputError("There is no split '{kind}'. There are: {known}.", kind=kind, known=list(SPLITS))
    folds = case.folds or _affordable_folds(data, case.time_s)
    if kind == "given":
        folds = 1
    if kind == "group" and data.schema.group:
        folds = min(folds, max(1, data.frame[data.schema.group].n_unique() // 2))
    most = case.test_rows or min(MOST_TEST_ROWS, max(500, int(100 * case.time_s)))
    paid = any("://" in spec for spec in case.external)  # by the row, as an LLM is
    if (case.llm_url or paid) and not case.test_rows:
        most = min(most, 500)
        folds = 1
    parts = splits(data, folds=folds, share=1 / max(folds, 5), seed=case.seed, kind="time" if kind == "order" else kind, test_rows=most,
                   strata=task.strata(data) if kind in ("random", "given") else None)
    words = {"random": say("at random, the same shares of each answer on both sides"),
             "group": say("by '{name}': no group stands on both sides", name=data.schema.group or ""),
             "order": say("in the order of the rows: the later ones judge"),
             "time": say("forward in time by '{name}': the future judges", name=data.schema.time or ""),
             "given": say("as '{name}' says", name=own_split(data.schema) or "")}
    same = {"train": len(parts[0].train), "test": len(parts[0].test), "how": words[kind]}
    if len(parts) > 1:
        return parts, say("{folds} folds, in each {train:,} rows teach and {test:,} judge, split {how}.", folds=len(parts), **same)
    return parts, say("{train:,} rows teach and {test:,} judge, split {how}.", **same)
