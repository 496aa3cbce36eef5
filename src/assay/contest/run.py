"""Play: every candidate on every split, cheapest rung first, each in a child process, each result on disk at once."""

from __future__ import annotations

from dataclasses import replace

from assay.case import Case
from assay.contest.arena import SLOW_IMPORTS, Arena, Entry
from assay.contest.evidence import MADE
from assay.contest.folder import Trial
from assay.data.dataset import Schema
from assay.errors import InputError
from assay.families.base import RUNGS, Candidate
from assay.registry import discover
from assay.tasks.base import Task
from assay.words import Text, say

UNSEEING = 0.25  # of its share goes to a candidate that cannot see the pictures or hear the sounds there are
LEAST_S = 0.3  # a trial with less than this is not started
LEAST_FOR_SLOW_S = 15.0
_GRACE = 1.25  # a trial that plans badly is killed after this many times its part, if others wait for theirs


def line_up(case: Case, task: Task, schema: Schema) -> list[Entry]:
    """All candidates, cheapest rung first; those that cannot take part carry their reason."""
    found = discover("assay.families", Candidate)
    out = []
    for card in sorted(found.values(), key=lambda c: (RUNGS.index(c.rung), c.share, c.name)):
        if schema.of_kind("image", "audio") and not set(card.reads) & {"image", "audio"}:
            card = replace(card, share=card.share * UNSEEING)
        if card.name in MADE:  # made of finished candidates: `after` brings them
            continue
        if card.instances is None:
            out.append(_entry(case, task, schema, card, card.name, None))
            continue
        for name, params in card.instances(case, schema):
            if name in found and name != card.name:
                raise InputError("'{name}' is the name of a candidate of assay. Call yours otherwise: NAME={name}...", name=name)
            out.append(_entry(case, task, schema, replace(card, name=name), card.name, params))
    out.sort(key=lambda e: 0 if e.candidate.rung == "naive" else 1 if e.params.get("kind") == "file" else 2)  # a file of answers need not wait: it takes no time
    names = [*(e.name for e in out), *MADE, "ensemble_large"]
    for name in (*case.candidates, *case.without):
        if name not in names and name not in found:
            raise InputError("There is no candidate '{name}'. There are: {names}.", name=name, names=names)
    takers = [n for n, card in found.items() if card.takes_weights]
    for name in case.weights:
        if name not in takers:
            raise InputError("No candidate called '{name}' reads a weights file. Those that do: {names}.", name=name, names=takers)
    return out


def _entry(case: Case, task: Task, schema: Schema, card: Candidate, family: str, params: dict | None) -> Entry:
    reason = None
    if (case.candidates and card.name not in case.candidates and card.rung not in ("naive", "external")) or card.name in case.without:
        reason = say("it was left out on request")
    elif case.explainable and not card.explainable:
        reason = say("the case asks for an explainable model, and it is not one")
    elif case.time_s < LEAST_FOR_SLOW_S and any(p in card.needs for p in SLOW_IMPORTS):
        reason = say("its libraries take seconds to load, too long for a budget of {time:g} s; {least:g} s would do", time=case.time_s,
                     least=LEAST_FOR_SLOW_S)
    elif case.offline and (params or {}).get("online", card.online) and not _loopback((params or {}).get("url", case.llm_url)):
        reason = say("the case asks for an offline model, and it needs a network")
    reason = reason or card.refuses(task, schema)
    prepared = params or {}
    if params is None and not reason:
        made = card.prepare(case, schema)
        if isinstance(made, Text):
            reason = made
        else:
            prepared = made
    return Entry(card, prepared, reason, family)


def play(arena: Arena, entries: list[Entry], folds: int) -> bool:
    """Fill `trials.jsonl`. Trials that are there already are not repeated. Returns False if Ctrl-C ended it early.

    A candidate that fails or is refused on one split is not tried on the next. Ctrl-C kills the running trial only.
    """
    done = {(t.candidate, t.split): t for t in arena.folder.trials() if t.contest}
    out_of = {t.candidate for t in done.values() if t.status != "done"}
    taken = {t.candidate: t.seconds for t in done.values()}
    queue = [(e, split) for split in range(folds) for e in entries]
    try:
        for at, (entry, split) in enumerate(queue):
            name = entry.name
            if (name, split) in done or name in out_of:
                continue
            waiting = [e for e, s in queue[at:] if (e.name, s) not in done and e.name not in out_of and not e.reason]
            trial = _one(arena, entry, split, waiting, taken)
            taken[name] = max(taken.get(name, 0.0), trial.seconds)
            if trial.status != "done":
                out_of.add(name)
    except KeyboardInterrupt:
        return False
    return True


def _one(arena: Arena, entry: Entry, split: int, waiting: list[Entry], taken: dict[str, float]) -> Trial:
    """waiting: this and all later trials. taken: seconds of a trial of those candidates that have finished one."""
    card, clock = entry.candidate, arena.clock
    blank = arena.blank(entry, split)
    if entry.reason:
        return _refused(arena, replace(blank, reason=entry.reason))
    others = [e.candidate for e in waiting if e.name != entry.name]
    unknown = sum(c.share for c in others if c.name not in taken) + card.share * (len(waiting) - len(others))
    part = clock.part(card.share, unknown, 1.2 * sum(taken[c.name] for c in others if c.name in taken))
    if card.rung == "naive":  # the floor of every verdict: without it nobody can be judged; with millions of rows it is not free
        part = max(part, min(2.0, clock.left_for_trials()), 0.3 * clock.left_for_trials())
    if part < max(LEAST_S, card.at_least_s):
        return _refused(arena, replace(blank, reason=say("it needs at least {needed:.1f} s, and its part of the time left was {part:.1f} s",
                                                         needed=max(LEAST_S, card.at_least_s), part=part)))
    limit = min(part * _GRACE + 0.5, clock.left_for_trials()) if len(waiting) > 1 else max(part, clock.left_for_contest())
    if arena.case.work or card.rung == "naive":  # killed, it would take the whole contest with it
        limit = clock.left_for_trials()
    return arena.play(blank, needs=card.needs, part=part, limit=limit, tune=arena.case.tune)


def _refused(arena: Arena, trial: Trial) -> Trial:
    arena.folder.append(trial)
    return trial


def _loopback(url: str | None) -> bool:
    from urllib.parse import urlsplit

    return (urlsplit(url or "").hostname or "") in ("127.0.0.1", "localhost", "::1")
