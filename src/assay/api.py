"""The verbs of assay from Python: run, judge, resume, load. The command line is a thin skin over these."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import assay
from assay.case import Case
from assay.contest.budget import Clock, process_age_s
from assay.contest.cost import prices
from assay.contest.folder import Folder, Trial, write_json
from assay.contest.judge import Evidence, Verdict, gather
from assay.contest.judge import judge as judge_folder
from assay.contest.run import IMPORTS, Event, fit_again, line_up, play
from assay.contest.workers import Workers
from assay.data.dataset import KINDS, Dataset, Schema
from assay.data.read import read
from assay.data.split import Split, splits
from assay.errors import InputError, TaskError
from assay.families.base import Candidate
from assay.registry import get
from assay.report.facts import facts_for_report
from assay.ship.bundle import Bundle, pack
from assay.ship.bundle import load as load_bundle
from assay.tasks import choose, find
from assay.tasks.base import Task
from assay.words import Text, say

MOST_TEST_ROWS = 10_000
LEAST_ROWS = 20
KIND_WORDS = {"number": say("Numbers"), "category": say("Categories"), "text": say("Texts"), "time": say("Times"), "id": say("Ids (not used)")}


class Run:
    """A finished run: `verdict`, `folder`, `winner` and `cheapest` (paths of bundles), `report(path)`."""

    def __init__(self, folder: Folder, verdict: Verdict) -> None:
        self.folder, self.verdict = folder, verdict

    @property
    def winner(self) -> Path:
        return self.folder.path / "winner.assay"

    @property
    def cheapest(self) -> Path:
        return self.folder.path / "cheapest.assay"

    def report(self, path: str | Path, lang: str | None = None) -> Path:
        """Write the report as one self-contained HTML file, in the case's language or `lang`."""
        from assay.report.html import write

        return write(self.folder.path, Path(path), lang=lang or self.folder.about()["case"].get("lang", "en"))

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}: {self.verdict.sentence})"


def run(
    source: Any, *, target: str | None = None, out: str | Path | None = None, observe: Callable[[Event | Text], None] = lambda event: None,
    since_process_start: bool = False, **options: Any,
) -> Run:
    """Let all candidates answer the same rows and judge them. source: a path or a pandas, polars or Arrow frame.

    options: the fields of `Case` (time="60s", worth="error=4.5 CNY", requests="2M/month", ...). out: the run's folder.
    Raises InputError, TaskError, ReadError, BudgetError: each one sentence.
    """
    case = Case.of(options | {"target": target} if target else options)
    case = replace(case, data=str(source) if isinstance(source, (str, Path)) else case.data)
    prices(case.prices).rate(case.worth.currency if case.worth else "")  # a missing price is said now, not after the contest
    clock = Clock(case.time_s, used_s=process_age_s() if since_process_start else 0.0)
    folder = Folder(fresh_folder(source, out))
    observe(Event("clock", "", -1, clock.total_s))
    with Workers(IMPORTS) as workers:
        reading = read(source, target=case.target, kinds=case.kinds, group=case.group, time=case.time_column)
        data, notes = _with_answers(reading.dataset, case)
        task, why = _task(case, data)
        for note in (*columns_read(data.schema), *reading.notes, *notes, why):
            observe(note)
        entries = line_up(case, task, data.schema)
        parts, how = _splits(case, task, data)
        observe(how)
        data_about = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "assay": assay.__version__, "split": how.json(),
                      "notes": [n.json() for n in (*reading.notes, *notes, why)]}
        try:
            folder.begin(case, task, data, parts, data_about)
            return _play_and_judge(folder, case, task, data, parts, entries, workers, clock, observe)
        except BaseException:
            if not any(t.status == "done" for t in folder.trials()):
                shutil.rmtree(folder.path, ignore_errors=True)  # nothing finished: leave nothing half-written
            raise


def resume(path: str | Path, *, observe: Callable[[Event | Text], None] = lambda event: None, since_process_start: bool = False) -> Run:
    """Go on with a run that was killed: finished trials stay, the rest of the budget is spent on the others."""
    folder = Folder(Path(path))
    case, task, data, parts, _ = folder.open()
    entries = line_up(case, task, data.schema)
    used = sum(t.seconds for t in folder.trials())
    clock = Clock(case.time_s, used_s=used + (process_age_s() if since_process_start else 0.0))
    observe(Event("clock", "", -1, clock.total_s))
    with Workers(IMPORTS) as workers:
        return _play_and_judge(folder, case, task, data, parts, entries, workers, clock, observe)


def judge(path: str | Path, *, rival: str | None = None, **options: Any) -> Run:
    """Judge a finished run again under another worth, margin, confidence or rival. Nothing is retrained.

    The winner may be another one now: its bundle is packed from the model that was judged, or from its fit on all rows
    if the run made one. verdict.json and report.html are written anew.
    """
    folder = Folder(Path(path))
    case, task, data, parts, about = folder.open()
    case = Case.of(case.json() | {k: v for k, v in options.items() if v is not None})
    task = find(task.name).of(data, **_task_options(case))
    gathered = gather(folder, case, task, data, parts)
    verdict = judge_folder(folder, case, task, data, parts, rival=rival, gathered=gathered)
    _ship(folder, case, task, data, gathered[0], verdict, None, None, lambda event: None)
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], None)
    judged = Run(folder, verdict)
    judged.report(folder.path / "report.html", lang=case.lang)
    return judged


def load(path: str | Path) -> Bundle:
    """Open a `.assay` file. Nothing in it is executed."""
    return load_bundle(Path(path))


def columns_read(schema: Schema) -> list[Text]:
    """What each column was taken for, a sentence a kind; --kind COLUMN=KIND says otherwise."""
    out = []
    for kind in KINDS:
        names = [c.name + (f" ({c.language})" if c.language else "") for c in schema.columns if c.kind == kind and c.name != schema.target]
        if names:
            shown = [*names[:12], f"+{len(names) - 12}"] if len(names) > 12 else names
            out.append(say("{kind}: {names}", kind=KIND_WORDS[kind], names=shown))
    return out


def _play_and_judge(folder: Folder, case: Case, task: Task, data: Dataset, parts: list[Split], entries: list, workers: Workers,
                    clock: Clock, observe: Callable[[Any], None]) -> Run:
    finished = play(folder, case, entries, len(parts), workers, clock, observe)
    if not finished:
        observe(say("Stopped by you: judging what has finished."))
    gathered = gather(folder, case, task, data, parts)
    verdict = judge_folder(folder, case, task, data, parts, gathered=gathered)
    about = folder.about()
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], clock)  # before packing: a kill there loses no verdict
    _ship(folder, case, task, data, gathered[0], verdict, workers if finished else None, clock, observe)
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], clock)
    played = Run(folder, verdict)
    played.report(folder.path / "report.html")
    return played


def _ship(folder: Folder, case: Case, task: Task, data: Dataset, evidence: Evidence, verdict: Verdict, workers: Workers | None,
          clock: Clock | None, observe: Callable[[Any], None]) -> None:
    """Pack the winner and the cheapest that is good enough, fitted on all rows where there are workers and time."""
    scores = {row["candidate"]: row for row in verdict.scoreboard}
    packed: dict[str, Path] = {}
    for role, name in (("winner", verdict.winner), ("cheapest", verdict.cheapest)):
        bundle = folder.path / f"{role}.assay"
        if name in packed:
            shutil.copyfile(packed[name], bundle)
            continue
        trial = evidence.trials[name][0]
        calibration = _calibration(folder, task, data, evidence.trials[name])
        model_folder, rows = folder.model_folder(name, trial.split) / "model", trial.rows_used
        whole = folder.path / "models" / f"{name}.all"
        needed = trial.cost["fit_wall_s"] * len(data) / max(trial.train_rows, 1) * 1.3 + 0.3
        left = clock.left() - 0.9 if clock else 0.0
        if workers and needed < left:
            observe(Event("start", name, -1, note="refit"))
            fit_again(folder, case, trial, calibration, whole, max(needed * 1.5, 1.0), left, workers, observe)
        if (whole / "model").exists():  # a dump appears whole or not at all
            model_folder, rows = whole / "model", len(data)
        candidate = get("assay.families", Candidate, name)
        rng = np.random.default_rng(case.seed)
        sample = data.asked().take(np.sort(rng.choice(len(data), min(len(data), 500), replace=False)))
        row = scores[name]
        pack(bundle, task=task, candidate=candidate, params=trial.params, schema=data.schema, model_folder=model_folder,
             calibration=calibration, reference=sample.frame,
             facts={"loss": {"name": task.loss, "value": row["loss"], "low": row["low"], "high": row["high"]},
                    "metrics": row["metrics"], "cost": row["cost"], "rows_fitted": rows, "rows": len(data), "role": role,
                    "fingerprint": data.fingerprint, "seed": case.seed, "created": folder.about()["created"], "verdict": str(verdict.sentence)})
        packed[name] = bundle


def _calibration(folder: Folder, task: Task, data: Dataset, trials: list[Trial]) -> dict[str, Any]:
    """Learnt from the rows that each split held out of its own training rows, all splits together."""
    rows, raw = zip(*(folder.validation(t) for t in trials), strict=True)
    return task.calibration(task.truth(data.take(np.concatenate(rows))), np.concatenate(raw))


def _write_verdict(folder: Folder, case: Case, task: Task, data: Dataset, parts: list[Split], verdict: Verdict, about: dict[str, Any],
                   evidence: Evidence, clock: Clock | None) -> None:
    used = clock.used() if clock else sum(t.seconds for t in folder.trials())
    write_json(folder.verdict_file, facts_for_report(case, task, data, parts, verdict, about, evidence, used))


def fresh_folder(source: Any, out: str | Path | None = None) -> Path:
    """A folder for a new run: `out` if given (it must not hold a run), else assay-runs/<name>-<time>."""
    if out is not None:
        path = Path(out)
        if (path / "case.json").exists():
            raise InputError("'{path}' already holds a run. Go on with it: assay run --resume {path}, or name another folder.", path=str(path))
        return path
    stem = Path(source).name.split(".")[0] if isinstance(source, (str, Path)) else "frame"
    root, stamp = Path("assay-runs"), time.strftime("%Y%m%d-%H%M%S")
    path = root / f"{stem}-{stamp}"
    extra = 1
    while path.exists():
        extra += 1
        path = root / f"{stem}-{stamp}-{extra}"
    return path


def _with_answers(data: Dataset, case: Case) -> tuple[Dataset, list[Text]]:
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


def _task(case: Case, data: Dataset) -> tuple[Task, Text]:
    if case.task is None:
        chosen, why = choose(data)
    else:
        chosen, why = find(case.task), say("The question is '{task}', as you said.", task=case.task)
        reason = chosen.refuses(data)
        if reason is not None and not (data.y.dtype.is_integer() and 2 <= data.y.n_unique() <= 1000):
            raise TaskError("'{task}' cannot be asked here: {reason}.", task=case.task, reason=reason)
    return chosen.of(data, **_task_options(case)), why


def _task_options(case: Case) -> dict[str, Any]:
    options: dict[str, Any] = {"loss": case.loss, "quantile": case.quantile}
    return options | ({"costs": case.worth.costs, "currency": case.worth.currency} if case.worth else {})


def _affordable_folds(n: int, time_s: float) -> int:
    """Few rows need folds, or the interval is too wide to say anything; each fold costs every candidate a trial."""
    if time_s < 20:
        return 1
    if n < 1000:
        return 5 if time_s >= 60 else 3
    return 3 if n < 3000 and time_s >= 60 else 1


def _splits(case: Case, task: Task, data: Dataset) -> tuple[list[Split], Text]:
    """The splits of this case and a sentence that says how they were made."""
    kind = case.split or ("group" if data.schema.group else "time" if data.schema.time else "random")
    if kind not in ("random", "group", "time"):
        raise InputError("There is no split '{kind}'. There are: random, group, time.", kind=kind)
    n = len(data)
    folds = case.folds or _affordable_folds(n, case.time_s)
    if kind == "group" and data.schema.group:
        folds = min(folds, max(1, data.frame[data.schema.group].n_unique() // 2))
    most = case.test_rows or min(MOST_TEST_ROWS, max(500, int(100 * case.time_s)))
    if case.llm_url and not case.test_rows:
        most = min(most, 500)
        folds = 1
    parts = splits(data, folds=folds, share=1 / max(folds, 5), seed=case.seed, kind=kind, test_rows=most,
                   strata=task.strata(data) if kind == "random" else None)
    words = {"random": say("at random, the same shares of each answer on both sides"),
             "group": say("by '{name}': no group stands on both sides", name=data.schema.group or ""),
             "time": say("forward in time by '{name}': the future judges", name=data.schema.time or "")}
    same = {"train": len(parts[0].train), "test": len(parts[0].test), "how": words[kind]}
    if len(parts) > 1:
        return parts, say("{folds} folds, in each {train:,} rows teach and {test:,} judge, split {how}.", folds=len(parts), **same)
    return parts, say("{train:,} rows teach and {test:,} judge, split {how}.", **same)


__all__ = ["Run", "judge", "load", "resume", "run"]
