"""After the contest proper, in the time kept for it: ensembles, a taught small model, other seeds, learning curves, ablations.

Each step plays ordinary trials. What is on disk is not played again, so a killed run goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import replace

from assay.contest.arena import Arena, Entry
from assay.contest.evidence import MADE, gather
from assay.contest.folder import Trial
from assay.contest.judge import LARGE
from assay.contest.judge import judge as judge_folder
from assay.data.dataset import MEDIA, Dataset
from assay.data.split import Split
from assay.errors import BudgetError
from assay.families.base import Candidate
from assay.registry import discover

SHARES = (0.5, 0.25, 0.125)
LEAST_CURVE_ROWS = 40  # of the smallest point: fewer teach nothing that a curve could be drawn through
REPEATS = 2
PARTS = {"text": ("text",), "table": ("number", "category", "time")}
MIXES = {"ensemble": "classical", "ensemble_large": "large"}
SERIOUS = 1.10  # a validation loss within this factor of the best: worth a learning curve


def after(arena: Arena, entries: list[Entry], data: Dataset, splits: list[Split]) -> bool:
    """Everything that fits into the time left. Returns False if Ctrl-C ended it early."""
    try:
        finished = [t for t in arena.folder.trials() if t.contest and t.status == "done"]
        whole = [t for t in finished if {o.split for o in finished if o.candidate == t.candidate} == set(range(len(splits)))]
        if not any(t.rung != "naive" for t in whole):
            return True
        ensembles(arena, whole, len(splits))
        by_name = {e.name: e for e in entries if not e.reason}
        if arena.task.by_rows:
            student(arena, whole, len(splits))
        pair = rivals(whole)
        if len(pair) == 2:
            repeats(arena, [by_name[n] for n in pair if n in by_name], data, splits)
        if not arena.task.by_rows:
            return True
        curves(arena, [by_name[n] for n in (*pair, *serious(whole)) if n in by_name], splits)
        ablations(arena, [by_name[n] for n in serious(whole) if n in by_name], data)
    except KeyboardInterrupt:
        return False
    return True


def ensembles(arena: Arena, finished: list[Trial], folds: int) -> None:
    """The greedy mean of the small candidates, and that of all; so that small and large are compared at their best."""
    card = discover("assay.families", Candidate)["ensemble"]
    allowed = [t for t in finished if t.rung not in ("naive", "llm", "external") and t.candidate not in MIXES]
    if len({t.candidate for t in allowed if t.rung in LARGE}) == 0:
        kinds = {"ensemble": "classical"}
    else:
        kinds = MIXES
    for name, kind in kinds.items():
        if (arena.case.candidates and name not in arena.case.candidates) or name in arena.case.without:
            continue
        for split in range(folds):
            members = [t for t in allowed if t.split == split and (kind == "large" or t.rung not in LARGE)]
            if len(members) < 2:
                break
            rung = "classical" if kind == "classical" else max((t.rung for t in members if t.rung in LARGE), key=LARGE.index)
            blank = arena.blank(Entry(replace(card, name=name, rung=rung), {}, family="ensemble"), split)
            expected = 1.0 + 4 * sum(t.cost["predict_s_per_row"] for t in members) * 20
            trial = _affordable(arena, blank, expected, needs={p: "" for t in members for p in _card(t).needs}, kind="mix",
                                members=[t.json() for t in members], needs_large=list(LARGE) if kind == "large" else [])
            if trial is None or trial.status != "done":
                break


def student(arena: Arena, finished: list[Trial], folds: int) -> None:
    """The best large candidate teaches a small one, if it has something to teach."""
    card = discover("assay.families", Candidate).get("student")
    names = rivals(finished, packable=True)
    if card is None or len(names) < 2 or "student" in arena.case.without or (arena.case.candidates and "student" not in arena.case.candidates):
        return
    large, small = names
    teaches = _card(next(t for t in finished if t.candidate == large))
    if _valid(finished, large) >= _valid(finished, small) or set(teaches.reads) & set(MEDIA) - set(card.reads):
        return  # what a pupil does not see it cannot be taught
    for split in range(folds):
        teacher = next(t for t in finished if t.candidate == large and t.split == split)
        params = {"teacher": {"name": large, "family": teacher.family or large, "params": teacher.params,
                              "folder": str(arena.folder.model_folder(teacher.key) / "model")}}
        blank = arena.blank(Entry(card, params, family="student"), split)
        expected = teacher.seconds * 0.6 + max((t.seconds for t in finished if t.candidate == small), default=1.0) * 1.5
        trial = _affordable(arena, blank, expected, needs=card.needs | _card(teacher).needs)
        if trial is None or trial.status != "done":
            return


def repeats(arena: Arena, pair: list[Entry], data: Dataset, splits: list[Split]) -> None:
    """Other seeds for the two whose gap is too close to call."""
    try:
        gathered = gather(arena.folder, arena.case, arena.task, data, splits)
        verdict = judge_folder(arena.folder, arena.case, arena.task, data, splits, gathered=gathered)
    except BudgetError:
        return
    effect = verdict.effect
    if len(pair) < 2 or effect is None or not effect["low"] < effect["margin"] < effect["high"]:
        return
    for repeat in range(1, REPEATS + 1):
        for split in range(len(splits)):
            for entry in pair:
                base = arena.done.get(arena.blank(entry, split).key)
                if base is None or base.facts.get("ready"):
                    return
                if _affordable(arena, replace(arena.blank(entry, split, repeat=repeat), params=base.params), base.seconds,
                                               needs=entry.candidate.needs, spare=0.4) is None:
                    return


def curves(arena: Arena, entries: list[Entry], splits: list[Split]) -> None:
    """Fewer rows for the serious ones, on the first split: the two rivals at every size first."""
    entries = list({e.name: e for e in entries}.values())
    for group in (entries[:2], entries[2:5]):
        for share in SHARES:
            if len(splits[0].train) * share < LEAST_CURVE_ROWS:
                continue
            for entry in group:
                base = arena.done.get(arena.blank(entry, 0).key)
                if base is not None and not base.facts.get("ready"):  # a ready model answers alike, whatever it is shown
                    blank = replace(arena.blank(entry, 0, share=share), params=base.params)
                    _affordable(arena, blank, base.seconds * share + 0.3, needs=entry.candidate.needs)


def ablations(arena: Arena, entries: list[Entry], data: Dataset) -> None:
    """What each kind of column adds: the best candidates again, blind for one kind. Only where rows are mixed."""
    there = {name: kinds for name, kinds in PARTS.items() if data.schema.of_kind(*kinds)}
    if len(there) < 2:
        return
    for entry in entries[:2]:
        for kinds in there.values():
            seen = data.blind(kinds)
            base = arena.done.get(arena.blank(entry, 0).key)
            if base is not None and entry.candidate.refuses(arena.task, seen.schema) is None:
                _affordable(arena, replace(arena.blank(entry, 0, blind=kinds), params=base.params), base.seconds, needs=entry.candidate.needs)


def rivals(finished: list[Trial], *, packable: bool = False) -> tuple[str, ...]:
    """(best large, best small) by validation loss, ensembles and students aside; fewer if there are none."""
    names = {t.candidate: t.rung for t in finished if t.rung != "naive" and t.family not in MADE}
    large = [n for n, rung in names.items() if rung in LARGE and not (packable and rung in ("llm", "external"))]
    small = [n for n, rung in names.items() if rung not in LARGE]
    return tuple(min(group, key=lambda n: (_valid(finished, n), n)) for group in (large, small) if group)


def serious(finished: list[Trial]) -> list[str]:
    """By validation loss, best first: those within `SERIOUS` of the best."""
    names = {t.candidate for t in finished if t.rung not in ("naive", "llm", "external") and t.family not in MADE}
    losses = {n: _valid(finished, n) for n in names}
    best = min(losses.values(), default=0.0)
    return [n for n in sorted(losses, key=lambda n: (losses[n], n)) if losses[n] <= best * SERIOUS]


def _valid(finished: list[Trial], name: str) -> float:
    mine = [t.valid_loss for t in finished if t.candidate == name and t.valid_loss is not None]
    return sum(mine) / len(mine)


def _card(trial: Trial) -> Candidate:
    return discover("assay.families", Candidate)[trial.family or trial.candidate]


def _affordable(arena: Arena, blank: Trial, expected_s: float, *, needs: dict[str, str], spare: float = 1.0, **job: object) -> Trial | None:
    """Play it if its expected seconds fit into (a share of) the time left; None if not, or if it is on disk already (then that one)."""
    there = arena.done.get(blank.key)
    if there is not None:
        return there
    left = arena.clock.left_for_trials()
    if not arena.case.work and 1.2 * expected_s + 0.2 > spare * left:
        return None
    part = min(left, 1.5 * expected_s + 0.5)
    return arena.play(blank, needs=needs, part=part, limit=left if arena.case.work else min(left, max(2 * part, part + 3.0)), **job)  # type: ignore[arg-type]
