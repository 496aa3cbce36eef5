"""Play a contest: a file, its target, a time; watch it, read the verdict, serve the winner."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from assay.errors import InputError
from assay.report import wording
from assay.serve.held import served
from assay.serve.page.contests import SUFFIXES, Board, Contests
from assay.serve.page.desk import Live, View, Visit, ago
from assay.serve.page.parts import badge, bars, box, button, card, dialog, empty, field, file_input, form, line, link, select, table, tag
from assay.serve.page.uploads import MOST_FILE
from assay.ship.naming import model_name
from assay.words import say

_TONES = {"worth_it": "good", "not_worth_it": "bad", "unknown": "wait", "nothing_beats_naive": "", "not_a_result": "bad"}
_STATES = {"running": (say("running"), "wait"), "done": (say("judged"), "good"), "failed": (say("ended without a verdict"), "bad")}


@cache
def contests_of(home: Path) -> Contests:
    return Contests(home)


async def build(visit: Visit) -> None:
    if "run" in visit.query:
        await _watch(visit, visit.query["run"])
        return
    with box("halves"):
        with card(visit.say("New contest"), visit.say("Every candidate answers the same rows under one budget; the verdict says whether a large model is worth it.")):
            await _new(visit)
        with card(visit.say("Contests")):
            await Live(visit, lambda: [contests_of(visit.home).board(s, visit.lang) for s in contests_of(visit.home).all()[:30]], partial(_list, visit), every_s=5.0).begin()


# ---- a new one


async def _new(visit: Visit) -> None:
    settings = box()

    async def taken(path: Path, name: str) -> None:
        found = await visit.do("admin", lambda: Contests.preview(path))
        settings.clear()
        if found is not None:
            with settings:
                _settings(visit, path, name, *found)

    async def named(given: dict[str, Any]) -> None:
        path = await visit.do("admin", lambda: contests_of(visit.home).named(str(given.get("path", ""))))
        if path is not None:
            await taken(path, path.name)

    known = await visit.do("admin", contests_of(visit.home).data) or []
    field(visit.say("Upload a table"), lambda: file_input(visit, SUFFIXES, taken, most=MOST_FILE), visit.say("CSV, Excel, Parquet or JSON lines, at most {mb:g} MB.", mb=MOST_FILE / 2**20))
    with form(named, "inline"):
        if known:
            field(visit.say("Or a file in the folder 'data' of the home"), lambda: select("path", [(n, n) for n in known], known[0]))
        else:
            field(visit.say("Or a file in the folder 'data' of the home"), lambda: line("path", placeholder="machines/2026.csv"))
        button(visit.say("Take it"), type="submit")
    settings.move(target_index=-1)


def _settings(visit: Visit, path: Path, name: str, names: list[str], rows: list[list[str]], height: int) -> None:
    async def start(given: dict[str, Any]) -> None:
        started = await visit.do("admin", lambda: _started(visit, path, name, names, given))
        if started is not None:
            visit.client.open(f"/contest?run={quote(started.id)}")

    tag("h3", name)
    tag("p", visit.say("{rows:,} rows, {columns} columns", rows=height, columns=len(names)), "how", role="status")
    table(names[: len(rows[0])] if rows else names, rows, caption=visit.say("First rows of '{name}'", name=name), kind="small")
    with form(start, "questions"):
        with box("grid"):
            field(visit.say("What is to be answered (target)"), lambda: select("target", [(n, n) for n in names], _target(names)))
            field(visit.say("Time"), lambda: line("time", "5m", pattern=r"\s*[0-9.]+\s*(s|m|h)?\s*", required=True), visit.say("Such as 60s, 5m or 1h; a contract."))
            field(visit.say("Column of time"), lambda: select("time_column", [("", visit.say("none: rows at random")), *((n, n) for n in names)], ""), visit.say("The future judges."))
            field(visit.say("Rows that belong together"), lambda: select("group", [("", "–"), *((n, n) for n in names)], ""), visit.say("A patient, a machine, a customer."))
        with tag("label", "", "check"):
            tag("input", "", "", type="checkbox", name="offline", checked=True)
            tag("span", visit.say("Only models that need no network"))
        button(visit.say("Start the contest"), kind="main", type="submit")


def _target(names: list[str]) -> str:
    """Tables mostly end with what is asked of them, or say so."""
    return next((n for n in names if n.lower() in ("target", "label", "class", "y", "outcome")), names[-1])


def _started(visit: Visit, path: Path, name: str, names: list[str], given: dict[str, Any]) -> Any:
    def column(key: str) -> str:
        return given[key] if given.get(key) in names else ""

    started = contests_of(visit.home).start(path, name, target=column("target") or _target(names), time_text=str(given.get("time", "5m")), time_column=column("time_column"), group=column("group"),
                                            offline=bool(given.get("offline")), lang=visit.lang, actor=visit.session.actor)
    visit.app.store.audit.add(visit.session.actor, "contest started", {"contest": started.id, "file": name, "target": started.target, "time_s": started.time_s})
    return started


def _list(visit: Visit, boards: list[Board]) -> None:
    if not boards:
        empty(visit.say("No contest yet."))
        return

    def name(board: Board) -> None:
        link(board.started.name, f"/contest?run={quote(board.started.id)}")

    def state(board: Board) -> None:
        text, tone = _STATES[board.state] if not board.outcome else (wording.OUTCOMES.get(board.outcome, say("judged")), _TONES.get(board.outcome, ""))
        badge(text.to(visit.lang), tone)

    table([visit.say("File"), visit.say("Target"), visit.say("State"), visit.say("Started")],
          [[partial(name, b), b.started.target, partial(state, b), ago(visit, b.started.at)] for b in boards], caption=visit.say("Contests"))


# ---- one that runs, or has run


async def _watch(visit: Visit, number: str) -> None:
    contests = contests_of(visit.home)
    started = await visit.do("admin", lambda: contests.get(number))
    if started is None:
        empty(visit.say("There is no such contest."))
        return
    with tag("nav", "", "crumbs", aria_label=visit.say("Where you are")):
        link(visit.say("Contests"), "/contest")
        tag("span", started.name, aria_current="page")
    board = partial(contests.board, started, visit.lang)
    with card(visit.say("{file}: what is '{target}'?", file=started.name, target=started.target), kind="board"):
        await Live(visit, board, partial(_clock, visit), every_s=1.0).begin()
        await Live(visit, lambda: board().state, partial(_stopping, visit, contests, started.id), every_s=1.0).begin()
    await Live(visit, lambda: replace(board(), elapsed_s=0.0, told=""), partial(_board, visit, contests), every_s=1.5).begin()


def _clock(visit: Visit, board: Board) -> None:
    with box("row"):
        text, tone = _STATES[board.state]
        badge(text.to(visit.lang), tone)
        tag("span", visit.say("{elapsed} of {time}", elapsed=wording.duration(board.elapsed_s), time=wording.duration(board.started.time_s)), "how")
    tag("progress", "", "", max=1, value=round(min(1.0, board.elapsed_s / board.started.time_s), 3), aria_label=visit.say("Time used"))
    if board.state != "done":
        tag("p", board.told or visit.say("Starting …"), "how" if board.state == "running" else "said bad inline")


def _stopping(visit: Visit, contests: Contests, number: str, state: str) -> None:
    tag("p", _STATES[state][0].to(visit.lang), "unseen", role="status")
    if state == "running":
        dialog(visit.say("Stop this contest?"), visit.say("What has been played until now is judged."), lambda given: _stop(visit, contests, number), yes=visit.say("Stop"),
               no=visit.say("Cancel"), danger=True)(visit.say("Stop"), "small bad")


def _board(visit: Visit, contests: Contests, board: Board) -> None:
    if board.sentence:
        with card(visit.say("Verdict"), kind="verdict-card"):
            badge(wording.OUTCOMES[board.outcome].to(visit.lang) if board.outcome in wording.OUTCOMES else board.outcome, _TONES.get(board.outcome, ""))
            tag("p", board.sentence, "verdict")
            tag("p", board.next, "how")
            with box("row"):
                if board.report:
                    link(visit.say("Open the report"), f"/page/runs/{quote(board.started.id)}/report.html", "button", target="_blank", rel="noopener")
                if board.winner and visit.may("admin"):
                    _serve(visit, contests, board)
    with card(visit.say("Candidates"), kind="board"):
        if not board.rows:
            empty(visit.say("None has answered yet."))
            return
        known = sorted(((r[0], r[3]) for r in board.rows if r[3] is not None), key=lambda r: r[1])
        played = sorted((r for r in board.rows if r[3] is not None), key=lambda r: r[3] or 0.0)
        others = [r for r in board.rows if r[3] is None]
        if played:
            table([visit.say("candidate"), visit.say("rung"), visit.say("validation"), visit.say("test"), visit.say("time"), visit.say("state")],
                  [[r[0], r[1], wording.number(r[2]), wording.number(r[3]), wording.duration(r[4]), r[5]] for r in played], numbers=(2, 3, 4), caption=visit.say("Candidates"))
        if others:
            with tag("details"):
                tag("summary", visit.say("Without an answer: {n}", n=len(others)))
                table([visit.say("candidate"), visit.say("rung"), visit.say("state")], [[r[0], r[1], r[5]] for r in others], caption=visit.say("Without an answer: {n}", n=len(others)))
        if known:
            tag("h3", visit.say("Loss on the test rows, lower is better"))
            bars([(name, loss / known[-1][1] if known[-1][1] else 0.0, wording.number(loss)) for name, loss in known], visit.say("Loss on the test rows, lower is better"))


async def _stop(visit: Visit, contests: Contests, number: str) -> None:
    def stop() -> bool:
        contests.stop(number)
        visit.app.store.audit.add(visit.session.actor, "contest stopped", {"contest": number})
        return True

    await visit.do("admin", stop, say("The contest is asked to stop; it judges what it has."))


def _serve(visit: Visit, contests: Contests, board: Board) -> None:
    suggested = model_name(Path(re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(board.started.name).stem) or "model"))

    def serve(name: str) -> Any:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise InputError("'{name}' cannot be a model's name: letters, digits, dots, dashes and underscores, at most 64.", name=name[:64])
        store, actor = visit.app.store, visit.session.actor
        version = served(store, visit.home, name, contests.folder(board.started.id) / "winner.assay", by=actor)
        store.audit.add(actor, "contest served", {"contest": board.started.id, "model": name, "version": version.version})
        store.versions.promote(name, version.version, actor, f"winner of the contest {board.started.id}")
        visit.app.shelf.refresh()
        return version

    async def agreed(given: dict[str, Any]) -> None:
        version = await visit.do("admin", lambda: serve(str(given.get("reason", "")).strip()))
        if version is not None:
            visit.tell(say("Version {version} of '{model}' answers from now on.", version=version.version, model=version.model))
            visit.client.open(f"/try?model={quote(version.model)}")

    made = dialog(visit.say("Serve this winner?"), visit.say("It becomes the next version of the model of this name, and answers from now on. A version before it can be brought back."), agreed,
                  yes=visit.say("Serve"), no=visit.say("Cancel"), reason=visit.say("Name of the model"), value=suggested)
    made(visit.say("Serve this"), "main")


VIEW = View("/contest", say("Contest"), say("Let every candidate answer the same rows, and see with evidence who is worth it."), "admin", build)

