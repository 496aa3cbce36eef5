"""The verbs of assay from Python: run, judge, resume, load. The command line is a thin skin over these."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import assay
from assay.case import Case
from assay.contest.after import after
from assay.contest.again import fit_on_all
from assay.contest.arena import IMPORTS, UNLIMITED, Arena, Entry, Event
from assay.contest.budget import Clock, process_age_s
from assay.contest.by_plan import Asked, by_plan, fits
from assay.contest.cost import prices
from assay.contest.evidence import Evidence, gather
from assay.contest.folder import Folder, Trial, write_json
from assay.contest.judge import Verdict
from assay.contest.judge import judge as judge_folder
from assay.contest.prepare import splits_of, task_of, task_options, with_answers, with_structure
from assay.contest.run import line_up, play
from assay.contest.statistics import Bootstrap
from assay.contest.suspects import label_errors
from assay.contest.workers import Workers
from assay.data.calendar import holidays_of
from assay.data.dataset import KINDS, MEDIA, Dataset, Schema
from assay.data.disk import Shelf
from assay.data.inspect import findings
from assay.data.inspect.base import LEVELS, Finding
from assay.data.load import shown
from assay.data.read import read
from assay.data.read_series import read_series
from assay.data.split import Split
from assay.errors import InputError
from assay.explain.examples import examples
from assay.explain.fans import fans
from assay.families.base import Candidate
from assay.registry import get
from assay.report.facts import facts_for_report, read_beside, write_facts
from assay.ship.bundle import Bundle, pack
from assay.ship.bundle import load as load_bundle
from assay.tasks import find
from assay.tasks.base import Task
from assay.tasks.forecast import Forecast
from assay.watch.reference import for_facts
from assay.words import Text, say

MOST_EXPLAINED_MS = 50.0  # a row is asked some 300 times
DAY_S = 86_400.0  # the limit of a run that has a work budget and no other
PLANNING = 0.15  # share of the time for plans made from forecasts
WATCHED, WATCHED_MEDIA = 20_000, 500  # rows whose sketches the bundle takes along for the watch; a picture takes milliseconds
MOST_SHOWN = 8  # findings shown before the contest; the report holds all
KIND_WORDS = {"number": say("Numbers"), "category": say("Categories"), "text": say("Texts"), "time": say("Times"), "id": say("Ids (not used)"),
              "image": say("Images"), "audio": say("Sounds"), "sequence": say("Sequences")}


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

    def report(self, path: str | Path, lang: str | None = None, *, summary: bool = False) -> Path:
        """Write the report as one self-contained HTML file, in the case's language or `lang`. summary: one page for whoever decides."""
        from assay.report.html import write

        return write(self.folder.path, Path(path), lang=lang or self.folder.about()["case"].get("lang", "en"), summary=summary)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.path)!r}: {self.verdict.sentence})"


def run(
    source: Any, *, target: str | None = None, out: str | Path | None = None, observe: Callable[[Event | Text], None] = lambda event: None,
    since_process_start: bool = False, **options: Any,
) -> Run:
    """Let all candidates answer the same rows and judge them. source: what `assay.data.read` takes: a path, a database URL
    (with `query=`), a pandas, polars or Arrow frame.

    options: the fields of `Case` (time="60s", worth="error=4.5 CNY", requests="2M/month", ...). out: the run's folder.
    Raises InputError, TaskError, ReadError, BudgetError: each one sentence.
    """
    case = _case(source, target, options)
    prices(case.prices).rate(case.worth.currency if case.worth else "")  # a missing price is said now, not after the contest
    clock = Clock(case.time_s, used_s=process_age_s() if since_process_start else 0.0, planning_share=PLANNING if case.decide else 0.0)
    folder = Folder(fresh_folder(source, out))
    observe(Event("clock", "", -1, clock.total_s))
    with Workers(IMPORTS) as workers:
        asked = _ask(source, case, folder.path / "columns", observe)
        case = asked.case
        for note in _told(asked):
            observe(note)
        findings = _findings(asked, case, seconds=UNLIMITED if case.work else min(10.0, 0.05 * case.time_s))
        for finding in findings[:MOST_SHOWN]:
            observe(finding.text)
        entries = line_up(case, asked.task, asked.data.schema)
        parts, how = splits_of(case, asked.task, asked.data)
        observe(how)
        data_about = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "assay": assay.__version__, "split": how.json(),
                      "notes": [n.json() for n in asked.notes], "findings": [f.json() for f in findings]}
        try:
            folder.begin(case, asked.task, asked.data, parts, data_about, asked.shelf)
            return _play_and_judge(Arena(folder, case, asked.task, workers, clock, observe), asked.data, parts, entries)
        except BaseException:
            if not any(t.status == "done" for t in folder.trials()):
                shutil.rmtree(folder.path, ignore_errors=True)  # nothing finished: leave nothing half-written
            raise


class Looked(list[Finding]):
    """The findings, most severe first. target: the column that was taken for the answer."""

    target: str = ""


def look(source: Any, *, target: str | None = None, seconds: float = 60.0, observe: Callable[[Text], None] = lambda note: None, **options: Any) -> Looked:
    """What one should know about this data before training on it: leaks, duplicates, label errors, structure, ..., most severe first."""
    case = _case(source, target, options)
    asked = _ask(source, case, None, observe)
    case = asked.case
    for note in _told(asked):
        observe(note)
    found = _findings(asked, case, seconds=seconds)
    suspects = label_errors(asked.data, asked.task, seed=case.seed, seconds=seconds) if asked.task.by_rows else None
    looked = Looked(sorted([*found, *([suspects] if suspects else [])], key=lambda f: LEVELS.index(f.level)))
    looked.target = case.target
    return looked


@dataclass(frozen=True)
class _Asked:
    """The data with its roles, the case with its target, the question, and what was noticed on the way."""

    data: Dataset
    case: Case
    task: Task
    notes: list[Text]
    shelf: Shelf | None = None


def _case(source: Any, target: str | None, options: dict[str, Any]) -> Case:
    case = Case.of({"target": target or ""} | options if not target else options | {"target": target})
    if case.work and not options.keys() & {"time", "time_s"}:
        case = replace(case, time_s=DAY_S)
    return replace(case, data=shown(source) if isinstance(source, (str, Path)) else case.data)


def _ask(source: Any, case: Case, folder: Path | None = None, observe: Callable[[Any], None] = lambda note: None) -> _Asked:
    """folder: where the columns of a table larger than memory may lie."""
    if case.decide and case.task != "forecast":
        raise InputError("A decision needs forecasts: --decide goes with --task forecast.")
    if case.task == "forecast":
        if case.decide and case.hierarchy:
            raise InputError("Plans are made for series, not for totals: --decide and --hierarchy do not go together.")
        if case.country:
            holidays_of(case.country, 2020, 2020)
        plan = Asked.of(case.decide) if case.decide else None  # a wrong problem is said now, not after the contest
        reading = read_series(source, target=case.target or None, group=case.group, time=case.time_column, known=case.known, horizon=case.horizon, season=case.season,
                              kinds=case.kinds, drop=case.drop, query=case.query, memory_mb=case.memory_mb, timeout_s=case.time_s, hierarchy=case.hierarchy)
        series = reading.dataset
        task = find("forecast").of(series, **task_options(case))
        if plan is not None:
            fits(plan, task, series)
        return _Asked(series, replace(case, target=series.schema.target or ""), task, reading.notes)
    reading = read(source, target=case.target or None, kinds=case.kinds, group=case.group, time=case.time_column, query=case.query,
                   memory_mb=case.memory_mb, timeout_s=case.time_s, seed=case.seed, folder=folder, drop=case.drop, choose=True,
                   skip_broken=case.skip_broken, sequence=case.sequence, window=case.window, observe=observe)
    data, notes = reading.dataset, []
    if not case.target:
        case = replace(case, target=data.y.name)
        notes.append(say("The answer is '{target}'; --target says otherwise.", target=case.target))
    data, missing = with_answers(data, case)
    task, why = task_of(case, data)
    data, belongs = with_structure(case, task, data)
    return _Asked(data, case, task, [*reading.notes, *notes, *missing, why, *([belongs] if belongs else [])], reading.shelf)


def _told(asked: _Asked) -> list[Text]:
    """What was read, for the user: the columns of rows, and what was noticed; of series the notes say all."""
    return [*(columns_read(asked.data.schema) if asked.task.by_rows else ()), *asked.notes]


def _findings(asked: _Asked, case: Case, *, seconds: float) -> list[Finding]:
    """Findings are about rows; the origins of a series are none."""
    if not asked.task.by_rows:
        return []
    return findings(asked.data, labels=asked.task.name != "regress", seed=case.seed, seconds=seconds)


def resume(path: str | Path, *, observe: Callable[[Event | Text], None] = lambda event: None, since_process_start: bool = False) -> Run:
    """Go on with a run that was killed: finished trials stay, the rest of the budget is spent on the others."""
    folder = Folder(Path(path))
    case, task, data, parts, _ = folder.open()
    entries = line_up(case, task, data.schema)
    used = sum(t.seconds for t in folder.trials())
    clock = Clock(case.time_s, used_s=used + (process_age_s() if since_process_start else 0.0), planning_share=PLANNING if case.decide else 0.0)
    observe(Event("clock", "", -1, clock.total_s))
    with Workers(IMPORTS) as workers:
        return _play_and_judge(Arena(folder, case, task, workers, clock, observe), data, parts, entries)


def judge(path: str | Path, *, rival: str | None = None, **options: Any) -> Run:
    """Judge a finished run again under another worth, margin, confidence or rival. Nothing is retrained.

    The winner may be another one now: its bundle is packed from the model that was judged, or from its fit on all rows
    if the run made one. verdict.json and report.html are written anew.
    """
    folder = Folder(Path(path))
    case, task, data, parts, about = folder.open()
    case = Case.of(case.json() | {k: v for k, v in options.items() if v is not None})
    task = find(task.name).of(data, **task_options(case))
    gathered = _planned(folder, case, task, data, gather(folder, case, task, data, parts), case.time_s, lambda note: None)
    verdict = _adding_up(case, task, judge_folder(folder, case, task, data, parts, rival=rival, gathered=gathered), gathered[0])
    _ship(folder, case, task, data, gathered[0], verdict, None)
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], None)
    judged = Run(folder, verdict)
    judged.report(folder.path / "report.html", lang=case.lang)
    judged.report(folder.path / "summary.html", lang=case.lang, summary=True)
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


def _play_and_judge(arena: Arena, data: Dataset, parts: list[Split], entries: list[Entry]) -> Run:
    folder, case, task, clock = arena.folder, arena.case, arena.task, arena.clock
    finished = play(arena, entries, len(parts)) and after(arena, entries, data, parts)
    if not finished:
        arena.observe(say("Stopped by you: judging what has finished."))
    gathered = _planned(folder, case, task, data, gather(folder, case, task, data, parts), clock.left() - clock.reserve_s, arena.observe)
    verdict = _adding_up(case, task, judge_folder(folder, case, task, data, parts, gathered=gathered), gathered[0])
    about = folder.about()
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], clock)  # before packing: a kill there loses no verdict
    _ship(folder, case, task, data, gathered[0], verdict, arena if finished else None)
    _write_verdict(folder, case, task, data, parts, verdict, about, gathered[0], clock)
    try:
        _write_examples(folder, task, data, gathered[0], verdict)
    except Exception as error:  # the verdict stands; a picture that cannot be drawn must not take its report away
        arena.observe(say("The rows to look at could not be drawn ({kind}: {message}).", kind=type(error).__name__, message=str(error)[:200]))
    played = Run(folder, verdict)
    played.report(folder.path / "report.html")
    played.report(folder.path / "summary.html", summary=True)
    if finished:
        folder.clean()
    return played


def _adding_up(case: Case, task: Task, verdict: Verdict, evidence: Evidence) -> Verdict:
    """In a hierarchy: the note that says what it costs or saves that the forecasts handed out add up."""
    if not case.hierarchy or not isinstance(task, Forecast):
        return verdict
    told = evidence.predictions[verdict.packed]
    losses = {"apart": task.losses(evidence.train, evidence.test, told),
              "adding up": task.losses(evidence.train, evidence.test, task.handed(told, evidence.test).reshape(told.shape))}
    gain = Bootstrap(losses, evidence.clusters, confidence=case.confidence, seed=case.seed, widen=evidence.factor).gain("apart", "adding up")
    note = say("Made to add up, the forecasts of {name} change their loss by {change:+.3g} ({percent:g} % interval {low:+.3g} to {high:+.3g}).", name=verdict.packed, change=-gain.value,
               percent=100 * case.confidence, low=-gain.high, high=-gain.low)
    return replace(verdict, notes=(*verdict.notes, note))


def _planned(folder: Folder, case: Case, task: Task, data: Dataset, gathered: tuple[Evidence, list[Trial]], seconds: float,
             observe: Callable[[Event | Text], None]) -> tuple[Evidence, list[Trial]]:
    """Where the case names a problem: the evidence in which each row's loss is what the plan made from its forecast cost; decision.json says the rest."""
    if not case.decide:
        return gathered
    asked = Asked.of(case.decide)
    observe(say("Planning with each forecast, and carrying the plans out on what came ({kind})", kind=asked.decision.name))
    evidence, facts = by_plan(folder, asked, task, data, gathered[0], seconds=max(seconds, 1.0), seed=case.seed)
    write_json(folder.path / "decision.json", facts)
    left = say("others forecast better on the validation origins, and plans were made with the best {n} only", n=len(evidence.losses))
    return evidence, [replace(t, status="refused", reason=left) if t.status == "done" and t.candidate not in evidence.losses else t for t in gathered[1]]


def _write_examples(folder: Folder, task: Task, data: Dataset, evidence: Evidence, verdict: Verdict) -> None:
    """Test rows to look at, with what the answers of the winner as it was judged rest on; where asking it again is cheap."""
    trial = evidence.trials[verdict.packed][0]
    if task.name == "forecast":  # nothing has to be asked again
        test, told = data.take(evidence.rows), evidence.predictions[verdict.packed]
        write_json(folder.path / "examples.json", fans(task, test, told, task.losses(data, test, told)))
        return
    kept = folder.model_folder(trial.key) / "model"
    if trial.rung in ("naive", "llm", "external") or not kept.is_dir() or (trial.cost.get("single_row_ms") or 0.0) > MOST_EXPLAINED_MS:
        return
    candidate = get("assay.families", Candidate, trial.family or trial.candidate)
    model = candidate.build(task, data.schema, **trial.params).load(kept)
    n = trial.test_rows
    test = data.take(evidence.rows[:n])
    found = examples(task, model, test, evidence.predictions[verdict.packed][:n], evidence.losses[verdict.packed][:n], seed=folder.about()["case"].get("seed", 0),
                     numbers=test.rows)
    if found:
        write_json(folder.path / "examples.json", found)


def _ship(folder: Folder, case: Case, task: Task, data: Dataset, evidence: Evidence, verdict: Verdict, arena: Arena | None) -> None:
    """Pack the winner and the cheapest that is good enough, fitted on all rows where there is an arena and time."""
    scores = {row["candidate"]: row for row in verdict.scoreboard}
    packed: dict[str, Path] = {}
    for role, name in (("winner", verdict.packed), ("cheapest", verdict.cheapest)):
        bundle = folder.path / f"{role}.assay"
        if name in packed:
            shutil.copyfile(packed[name], bundle)
            continue
        trial = evidence.trials[name][0]
        calibration = _calibration(folder, task, data, evidence.trials[name])
        model_folder, rows = folder.model_folder(trial.key) / "model", trial.rows_used
        whole = fit_on_all(folder, task, data, evidence, name, calibration, arena)
        if whole is not None:
            model_folder, rows = whole / "model", len(data)
        candidate = get("assay.families", Candidate, trial.family or name)
        rng = np.random.default_rng(case.seed)
        sample = data.asked().take(_some(rng, len(data), 500))
        row = scores[name]
        pack(bundle, task=task, candidate=candidate, params=trial.params, schema=data.schema, model_folder=model_folder,
             calibration=calibration, reference=sample.frame,
             facts={"loss": {"name": task.loss, "value": row["loss"], "low": row["low"], "high": row["high"]},
                    "metrics": row["metrics"], "cost": row["cost"], "rows_fitted": rows, "rows": len(data), "role": role, "name": name,
                    "fingerprint": data.fingerprint, "seed": case.seed, "created": folder.about()["created"], "verdict": str(verdict.sentence), "verdict_text": verdict.sentence.json(),
                    **(for_facts(data.asked().take(_some(rng, len(data), WATCHED_MEDIA if set(MEDIA) & {c.kind for c in data.schema.features} else WATCHED)).frame, data.schema, task.answers(evidence.predictions[name]).to_dicts()) if task.by_rows else {})})
        packed[name] = bundle


def _some(rng: np.random.Generator, n: int, most: int) -> np.ndarray:
    return np.sort(rng.choice(n, min(n, most), replace=False))


def _calibration(folder: Folder, task: Task, data: Dataset, trials: list[Trial]) -> dict[str, Any]:
    """Learnt from the rows that each split held out of its own training rows, all splits together."""
    rows, raw = zip(*(folder.validation(t) for t in trials), strict=True)
    return task.calibration(task.truth(data.take(np.concatenate(rows))), np.concatenate(raw))


def _write_verdict(folder: Folder, case: Case, task: Task, data: Dataset, parts: list[Split], verdict: Verdict, about: dict[str, Any],
                   evidence: Evidence, clock: Clock | None) -> None:
    used = clock.used() if clock else sum(t.seconds for t in folder.trials())
    facts = facts_for_report(case, task, data, parts, verdict, about, evidence, used)
    if case.decide:
        facts["decision"] = read_beside(folder.path, "decision.json")
    write_facts(folder.path, facts, repeatable=bool(case.work))


def fresh_folder(source: Any, out: str | Path | None = None) -> Path:
    """A folder for a new run: `out` if given (it must not hold a run), else assay-runs/<name>-<time>."""
    if out is not None:
        path = Path(out)
        if (path / "case.json").exists():
            raise InputError("'{path}' already holds a run. Go on with it: assay run --resume {path}, or name another folder.", path=str(path))
        return path
    stem = "query" if "://" in str(source)[:20] else Path(source).name.split(".")[0] if isinstance(source, (str, Path)) else "frame"
    root, stamp = Path("assay-runs"), time.strftime("%Y%m%d-%H%M%S")
    path = root / f"{stem}-{stamp}"
    extra = 1
    while path.exists():
        extra += 1
        path = root / f"{stem}-{stamp}-{extra}"
    return path


__all__ = ["Run", "judge", "load", "look", "resume", "run"]
