"""Drafts of replies that wait for a person: accepted as they are, edited, or rejected."""

from __future__ import annotations

from functools import partial
from typing import Any

from assay.serve.page.desk import Live, View, Visit, ago
from assay.serve.page.parts import area, box, button, card, empty, field, form, tag
from assay.store.records import Draft, Feedback
from assay.words import say

MOST = 50


async def build(visit: Visit) -> None:
    await Live(visit, partial(_read, visit), partial(_draw, visit), every_s=5.0, kind="stack").begin()


def _read(visit: Visit) -> list[Draft]:
    return [d for name in visit.app.store.versions.models() for d in visit.app.store.drafts.open(name, MOST)][:MOST]


def _draw(visit: Visit, drafts: list[Draft]) -> None:
    if not drafts:
        empty(visit.say("No draft is waiting."), visit.say("Drafts of replies appear here when a model that writes is asked; a person settles each of them."))
    for draft in drafts:
        _draft(visit, draft)


def _draft(visit: Visit, draft: Draft) -> None:
    async def settle(given: dict[str, Any]) -> None:
        text = str(given.get("reply", "")).replace("\r\n", "\n")
        await _settled(visit, draft, "accepted" if text.strip() == draft.draft.strip() else "edited", text)

    async def reject() -> None:
        await _settled(visit, draft, "rejected", None)

    with card(draft.model, ago(visit, draft.at), kind="draft"), box("halves"):
        with box():
            tag("h3", visit.say("Asked"))
            tag("p", draft.asked, "text")
        with form(settle):
            field(visit.say("Reply"), lambda: area("reply", draft.draft, rows=6, required=True), visit.say("Change it where it is wrong; what you send is kept beside the draft."))
            with box("row"):
                button(visit.say("Send"), kind="main", type="submit")
                button(visit.say("Reject"), reject, "bad")


async def _settled(visit: Visit, draft: Draft, status: str, final: str | None) -> None:
    kind = {"accepted": "accept", "edited": "edit", "rejected": "reject"}[status]

    def settle() -> Draft:
        settled = visit.app.store.drafts.settle(draft.id, status, final, visit.session.actor)
        visit.app.writer.submit(Feedback(draft.model, kind, draft.id, final if status == "edited" else None, source="page", actor=visit.session.actor)).result(30.0)
        return settled

    words = {"accepted": say("The draft is accepted."), "edited": say("Your reply is kept beside the draft."), "rejected": say("The draft is rejected.")}
    await visit.do("feedback", settle, words[status])


VIEW = View("/replies", say("Replies"), say("Drafts that a language model has written, and a person settles."), "feedback", build)
