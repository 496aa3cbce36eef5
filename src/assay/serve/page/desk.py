"""What a view has at hand: the service, who is there, in which language; and how it changes things."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from assay.errors import AssayError
from assay.serve.page.parts import tag
from assay.serve.page.sessions import Session, Sessions
from assay.serve.page.uploads import Uploads
from assay.words import Text, say

if TYPE_CHECKING:
    from assay.serve.app import Service

log = logging.getLogger("assay.service")
T = TypeVar("T")
SPOKEN_S = 12.0
# what was pressed may be gone with the change that it made: the keyboard then goes on from the content, not from the top of the window
_FOCUS = "setTimeout(() => { if (document.activeElement === document.body) document.getElementById('content').focus({preventScroll: true}) }, 300)"


@dataclass(frozen=True)
class View:
    """One page. scope: what a key needs to see it. build: draws it."""

    path: str
    title: Text
    about: Text
    scope: str
    build: Callable[[Visit], Awaitable[None]]


@dataclass(eq=False)
class Visit:
    """One browser tab."""

    app: Service
    home: Path
    session: Session
    sessions: Sessions
    uploads: Uploads
    lang: str
    client: Any
    query: dict[str, str] = field(default_factory=dict)
    voice: Any = None  # where `tell` speaks

    def say(self, template: str, /, **values: Any) -> str:
        return say(template, **values).to(self.lang)

    def may(self, scope: str) -> bool:
        return self.session.may(scope)

    def tell(self, text: Text | str, *, bad: bool = False) -> None:
        """A sentence that screen readers speak and that stands at the foot of the window for a while."""
        if self.client.is_deleted or self.voice is None:
            return
        self.voice.clear()
        with self.voice:
            tag("p", text.to(self.lang) if isinstance(text, Text) else text, "said bad" if bad else "said", role="alert" if bad else "status")
            if not bad:
                from nicegui import ui

                ui.timer(SPOKEN_S, self.voice.clear, once=True)  # gone with what it would clear, if something else is told before
        self.client.run_javascript(_FOCUS)

    async def do(self, scope: str, work: Callable[[], T], done: Text | None = None) -> T | None:
        """Do something that may take time or fail: on a thread, if the key may do it. None, and a sentence on the page, if not."""
        if not await self.sessions.alive(self.session):
            self.client.run_javascript("location.assign('/login')")
            return None
        if not self.may(scope):
            self.tell(say("This key may not do that: it has the scopes {scopes}, and '{scope}' is needed.", scopes=list(self.session.key.scopes), scope=scope), bad=True)
            return None
        try:
            result = await asyncio.to_thread(work)
        except AssayError as error:
            self.tell(error.text, bad=True)
            return None
        except Exception:
            number = f"{time.time_ns() & 0xFFFFFFFF:08x}"
            log.exception("page: %s failed", number)
            self.tell(say("Something went wrong here. Whoever runs the service finds the reason in the log under {number}.", number=number), bad=True)
            return None
        if done is not None:
            self.tell(done)
        return result

    def again(self) -> None:
        """Load the view anew."""
        self.client.run_javascript("location.reload()")


class Live:
    """A part of a view that follows what is in the store: read on a thread, drawn again only when it has changed."""

    def __init__(self, visit: Visit, read: Callable[[], Any], draw: Callable[[Any], Any], *, every_s: float = 3.0, kind: str = "") -> None:
        self._visit, self._read, self._draw = visit, read, draw
        self._shown: Any = _NOTHING
        self._box = tag("div", "", kind)
        self.every_s = every_s

    async def begin(self) -> Live:
        from nicegui import ui

        await self.look()
        with self._box.parent_slot.parent:
            self._timer = ui.timer(self.every_s, self.look, immediate=False)
        return self

    async def look(self) -> None:
        if self._visit.client.is_deleted:
            return
        found = await self._visit.do("", self._read)
        if found is None or found == self._shown:
            return
        self._shown = found
        self._box.clear()
        with self._box:
            result = self._draw(found)
            if result is not None:
                await result

    def stop(self) -> None:
        self._timer.deactivate()


_NOTHING = object()


def at(seconds: float, *, date: bool = True) -> str:
    """A time as it is read everywhere: local time of the service."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S")


def ago(visit: Visit, seconds: float) -> str:
    """How long ago."""
    past = max(0.0, time.time() - seconds)
    if past < 90:
        return visit.say("{n:.0f} s ago", n=past)
    if past < 5400:
        return visit.say("{n:.0f} min ago", n=past / 60)
    if past < 129600:
        return visit.say("{n:.0f} h ago", n=past / 3600)
    return visit.say("{n:.0f} days ago", n=past / 86400)


__all__ = ["Live", "View", "Visit", "ago", "at"]
