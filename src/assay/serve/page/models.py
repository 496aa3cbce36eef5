"""Which model answers, what its contest said of it, and the challenger that is being tested."""

from __future__ import annotations

import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.report import wording
from assay.retrain.promotion import Decision, verdict
from assay.serve.page.desk import Live, View, Visit, at
from assay.serve.page.parts import badge, box, button, card, dialog, empty, figures, table, tag
from assay.store.records import Stage, Version
from assay.store.store import Store
from assay.words import Text, say

_OUTCOMES = {"promote": (say("better, shown"), "good"), "keep": (say("not better"), "wait"), "not_yet": (say("not settled yet"), "wait"), "roll_back": (say("worse, shown"), "bad")}
_SOURCES = {"serve": say("served"), "retrain": say("retrained"), "import": say("imported")}


async def build(visit: Visit) -> None:
    await Live(visit, partial(_read, visit), partial(_draw, visit), every_s=4.0).begin()


def _read(visit: Visit) -> list[tuple[str, Stage | None, list[Version], Decision | None, Text | None]]:
    store, found = visit.app.store, []
    for name in store.versions.models():
        stage = store.versions.stage(name)
        told, trouble = None, None
        if stage is not None and stage.challenger is not None:
            try:
                newest = store.feedback.recent(name, 1)
                told = _told(store, visit.home, name, stage, newest[0].id if newest else None, int(time.time() // 60))
            except AssayError as error:  # its file is gone, or its loss is another: the model answers all the same
                trouble = error.text
        held = visit.app.shelf.trouble.get(name)
        found.append((name, stage, store.versions.of(name), told, held.text if held is not None else trouble))
    return found


@lru_cache(64)
def _told(store: Store, home: Path, name: str, stage: Stage, newest: int | None, minute: int) -> Decision:
    """The state of the test, worked out anew after each label and each minute, not for each tab that looks."""
    return verdict(store, name, home=home)


def _draw(visit: Visit, found: list[Any]) -> None:
    if not found:
        empty(visit.say("No model is served yet."), visit.say("Play a contest and serve its winner, or: assay serve RUN/winner.assay"))
    for name, stage, versions, told, trouble in found:
        _model(visit, name, stage, versions, told, trouble)


def _model(visit: Visit, name: str, stage: Stage | None, versions: list[Version], told: Decision | None, trouble: Text | None) -> None:
    by_number = {v.version: v for v in versions}
    champion = by_number.get(stage.champion) if stage is not None else None
    with card(name, kind="model"):
        if trouble is not None:
            tag("p", trouble.to(visit.lang), "said bad inline", role="alert")
        if champion is None or stage is None:
            tag("p", visit.say("No version answers yet."), "how")
        else:
            with box("row"):
                badge(visit.say("champion · version {version}", version=champion.version), "good")
                tag("span", visit.say("since {at}", at=at(stage.since)), "how")
            if champion.facts.get("verdict"):
                tag("p", wording.text_of(champion.facts["verdict"], visit.lang), "verdict", lang="en" if isinstance(champion.facts["verdict"], str) and visit.lang != "en" else None)
            figures(_figures(visit, champion))
            _challenger(visit, stage, told, by_number)
        _versions(visit, name, stage, versions)


def _figures(visit: Visit, version: Version) -> list[tuple[str, str, str]]:
    facts, out = version.facts, []
    who = str(facts.get("name") or facts.get("candidate") or "–")
    out.append((visit.say("Candidate"), who, str(facts.get("task") or "")))
    loss = facts.get("loss")
    if isinstance(loss, dict) and loss.get("value") is not None:
        name = wording.LOSSES.get(str(loss.get("name")), say("loss")).to(visit.lang)
        out.append((name, wording.number(loss["value"]), wording.interval(loss.get("low"), loss.get("high"))))
    metrics: dict[str, Any] = facts.get("metrics") or {}
    for key in [k for k in wording.SHOWN.get(str(facts.get("task")), ()) if k in metrics][:3]:
        value, ends = wording.metric(key, metrics[key])
        out.append((wording.METRICS[key].to(visit.lang), value, ends))
    if facts.get("rows_fitted"):
        out.append((visit.say("Taught by"), visit.say("{n:,} rows", n=int(facts["rows_fitted"])), ""))
    return out


def _challenger(visit: Visit, stage: Stage, told: Decision | None, by_number: dict[int, Version]) -> None:
    if stage.challenger is None:
        tag("p", visit.say("There is no challenger."), "how")
        return
    with box("challenger"):
        tag("h3", visit.say("Challenger"))
        with box("row"):
            mode = say("unseen") if stage.mode == "shadow" else say("canary, {share:.0%} of the requests", share=stage.share)
            badge(visit.say("version {version} · {mode}", version=stage.challenger, mode=mode), "wait")
            if told is not None:
                text, tone = _OUTCOMES[told.outcome]
                badge(text.to(visit.lang), tone)
            if stage.challenger == stage.previous:
                tag("span", visit.say("It was the champion before, and is compared for a while."), "how")
        if told is not None:
            tag("p", told.text.to(visit.lang), "verdict")
            if told.gain is not None:
                figures([(visit.say("Gain a row"), wording.number(told.gain, sign=True), wording.interval(told.low, told.high, sign=True)),
                         (visit.say("Labelled by both"), visit.say("{n:,} rows", n=told.labels), ""),
                         (visit.say("Still to label, about"), visit.say("{n:,} rows", n=told.needed) if told.needed else "–", "")])
            for note in told.notes:
                tag("p", note.to(visit.lang), "how")


def _versions(visit: Visit, name: str, stage: Stage | None, versions: list[Version]) -> None:
    store, admin = visit.app.store, visit.may("admin")

    async def change(work: Any, done: Text) -> None:
        if await visit.do("admin", work, done) is not None:
            await visit.do("", visit.app.shelf.refresh)

    def promote(version: int, given: dict[str, Any]) -> Any:
        return change(lambda: store.versions.promote(name, version, visit.session.actor, str(given.get("reason", ""))[:500]),
                      say("Version {version} of '{model}' answers from now on.", version=version, model=name))

    def role(version: Version) -> None:
        if stage is not None and version.version == stage.champion:
            badge(visit.say("champion"), "good")
        elif stage is not None and version.version == stage.challenger:
            badge(visit.say("challenger"), "wait")
        elif stage is not None and version.version == stage.previous:
            badge(visit.say("before"))

    def action(version: Version) -> None:
        if admin and (stage is None or version.version != stage.champion):
            dialog(visit.say("Promote version {version} of '{model}'?", version=version.version, model=name),
                   visit.say("It answers every request from now on. What answered before can be brought back."), partial(promote, version.version),
                   yes=visit.say("Promote"), no=visit.say("Cancel"), reason=visit.say("Reason, for the log"))(
                       visit.say("Promote"), "small", aria_label=visit.say("Promote version {version} of '{model}'", version=version.version, model=name))

    with tag("details", open=len(versions) > 1):
        tag("summary", visit.say("Versions: {n}", n=len(versions)))
        table([visit.say("Version"), visit.say("Role"), visit.say("Candidate"), visit.say("Loss"), visit.say("Size"), visit.say("From"), visit.say("Made"), ""],
              [[str(v.version), partial(role, v), str(v.facts.get("name") or v.facts.get("candidate") or "–"), wording.number((v.facts.get("loss") or {}).get("value")),
                wording.megabytes(v.facts.get("file_mb")), (_SOURCES[v.source].to(visit.lang) if v.source in _SOURCES else v.source) + f" · {v.facts.get('from', '')}".rstrip(" ·"),
                at(v.made)[:16], partial(action, v)] for v in reversed(versions)],
              numbers=(3, 4), caption=visit.say("Versions of '{model}'", model=name))
        if admin and stage is not None:
            with box("row"):
                if stage.previous is not None:
                    dialog(visit.say("Roll back '{model}' to version {version}?", model=name, version=stage.previous),
                           visit.say("Version {version} answers every request again.", version=stage.previous),
                           lambda given: change(lambda: store.versions.rollback(name, visit.session.actor, str(given.get("reason", ""))[:500]),
                                                say("'{model}' is back at the version before.", model=name)),
                           yes=visit.say("Roll back"), no=visit.say("Cancel"), reason=visit.say("Reason, for the log"), danger=True)(visit.say("Roll back"), "bad")
                if stage.challenger is not None:
                    button(visit.say("Withdraw the challenger"), lambda: change(lambda: store.versions.withdraw(name, visit.session.actor), say("The challenger is withdrawn.")))


VIEW = View("/", say("Models"), say("What answers now, what its contest said of it, and what is being tested against it."), "", build)

