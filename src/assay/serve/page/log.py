"""The audit log and its chain, and the keys that open the service."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from assay.errors import InputError
from assay.serve.page.desk import Live, View, Visit, at
from assay.serve.page.parts import badge, box, button, card, dialog, empty, field, form, line, table, tag
from assay.store.keys import SCOPES
from assay.store.records import AuditRow, Key
from assay.words import say

PAGE = 50
_SCOPES = {"predict": say("predict: ask"), "feedback": say("feedback: label and settle"), "admin": say("admin: everything")}


async def build(visit: Visit) -> None:
    with card(visit.say("Chain"), visit.say("Each row carries the hash of the one before; a row that was changed or taken out breaks the chain.")):
        chain = box(aria_live="polite")

        async def verify() -> None:
            chain.clear()
            with chain:
                tag("p", visit.say("Verifying …"), "how")
            found = await visit.do("admin", visit.app.store.audit.verify)
            chain.clear()
            if found is None:
                return
            with chain, box("row"):
                badge(visit.say("unbroken") if found.first_broken is None else visit.say("broken at row {row}", row=found.first_broken), "good" if found.first_broken is None else "bad")
                tag("span", visit.say("{n:,} rows checked", n=found.rows) if found.reason is None else found.reason.to(visit.lang), "how")

        button(visit.say("Verify now"), verify)
    with card(visit.say("Keys")):
        await _keys(visit)
    with card(visit.say("Log")):
        await _rows(visit)


# ---- keys


async def _keys(visit: Visit) -> None:
    shown = box("secret", role="status")

    async def make(given: dict[str, Any]) -> None:
        made = await visit.do("admin", lambda: _made(visit, given))
        shown.clear()
        if made is not None:
            with shown:
                tag("p", visit.say("The secret of '{name}', shown this once. Copy it now.", name=made[0].name))
                field_ = tag("input", "", "code", readonly=True, value=made[1], aria_label=visit.say("Secret"))
                button(visit.say("Copy")).on("click", js_handler=f"() => navigator.clipboard ? navigator.clipboard.writeText(document.getElementById('{field_.html_id}').value)"
                                             f" : document.getElementById('{field_.html_id}').select()")

    await Live(visit, visit.app.store.keys.all, partial(_listed, visit), every_s=5.0).begin()
    with tag("details"):
        tag("summary", visit.say("Make a key"))
        with form(make, "questions"):
            with box("grid"):
                field(visit.say("Name"), lambda: line("name", required=True, maxlength=100), visit.say("Who or what uses it."))
                field(visit.say("Good for days"), lambda: line("days", "90", inputmode="decimal"), visit.say("Empty: until it is revoked."))
                field(visit.say("Requests a minute"), lambda: line("rate", inputmode="numeric"), visit.say("Empty: as many as it likes."))
            with tag("fieldset", "", "checks"):
                tag("legend", visit.say("It may"))
                for scope in SCOPES:
                    with tag("label", "", "check"):
                        tag("input", "", "", type="checkbox", name=f"scope-{scope}", checked=scope == "predict")
                        tag("span", _SCOPES[scope].to(visit.lang))
            button(visit.say("Make the key"), kind="main", type="submit")
    shown.move(target_index=-1)


def _made(visit: Visit, given: dict[str, Any]) -> tuple[Key, str]:
    def number(key: str) -> float | None:
        text = str(given.get(key, "")).strip()
        try:
            return float(text) if text else None
        except ValueError:
            raise InputError("'{text}' is no number.", text=text[:40]) from None

    days, rate = number("days"), number("rate")
    return visit.app.store.keys.make(str(given.get("name", "")), [s for s in SCOPES if given.get(f"scope-{s}")], ttl_s=None if days is None else days * 86400,
                                     rate=None if rate is None else int(rate), by=visit.session.actor)


def _listed(visit: Visit, keys: list[Key]) -> None:
    if not keys:
        empty(visit.say("There is no key."))
        return

    def state(key: Key) -> None:
        if key.revoked is not None:
            badge(visit.say("revoked"), "bad")
        elif key.expires is not None and key.expires <= time.time():
            badge(visit.say("expired"), "wait")
        else:
            badge(visit.say("good"), "good")

    async def revoke(key: Key, given: dict[str, Any]) -> None:
        await visit.do("admin", lambda: visit.app.store.keys.revoke(key.id, by=visit.session.actor), say("The key '{name}' opens nothing any more.", name=key.name))

    def action(key: Key) -> None:
        if key.revoked is None:
            own = key.id == visit.session.key.id
            dialog(visit.say("Revoke the key '{name}'?", name=key.name), visit.say("It is the key that you are signed in with: you will be signed out.") if own
                   else visit.say("Whoever uses it is refused from now on."), partial(revoke, key), yes=visit.say("Revoke"), no=visit.say("Cancel"), danger=True)(
                       visit.say("Revoke"), "small", aria_label=visit.say("Revoke the key '{name}'", name=key.name))

    table([visit.say("Key"), visit.say("Name"), visit.say("May"), visit.say("Made"), visit.say("Expires"), visit.say("State"), ""],
          [[k.id, k.name, ", ".join(k.scopes), at(k.made)[:16], at(k.expires)[:16] if k.expires else "–", partial(state, k), partial(action, k)] for k in reversed(keys)],
          caption=visit.say("Keys"))


# ---- rows


async def _rows(visit: Visit) -> None:
    before = visit.query.get("before", "")
    earlier = int(before) if before.isdigit() and len(before) < 19 else None
    if earlier is not None:
        rows = await visit.do("admin", lambda: visit.app.store.audit.rows(PAGE, earlier))
        _shown(visit, rows or [])
        return
    await Live(visit, lambda: visit.app.store.audit.rows(PAGE), partial(_shown, visit), every_s=4.0).begin()


def _shown(visit: Visit, rows: list[AuditRow]) -> None:
    def detail(row: AuditRow) -> None:
        tag("code", json.dumps(row.detail, ensure_ascii=False)[:400], "detail")

    table([visit.say("Row"), visit.say("Time"), visit.say("Who"), visit.say("What"), visit.say("Details"), visit.say("Hash")],
          [[str(r.seq), at(r.at), r.actor, r.action, partial(detail, r), r.hash[:10]] for r in rows], caption=visit.say("Log"), kind="log")
    with box("row"):
        if visit.query.get("before"):
            tag("a", visit.say("Newest"), "button", href="/log")
        if rows and rows[-1].seq > 1:
            tag("a", visit.say("Earlier"), "button", href=f"/log?before={rows[-1].seq}")


VIEW = View("/log", say("Log"), say("Who did what, and who may."), "admin", build)
