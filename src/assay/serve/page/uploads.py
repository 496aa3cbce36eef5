"""Files that come from the browser: each is announced by a view, arrives at a random address once, and is written as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from assay.serve.http import Refused, shown
from assay.serve.page.sessions import Session
from assay.words import say

MOST_FILE = 512 << 20
MOST_SLOTS = 1_000
KEPT_S = 7 * 86400.0  # a contest copies its rows into its own folder; what was uploaded goes after a week, when the page is made anew
PAUSE_S = 30.0  # between two parts of a body


@dataclass(frozen=True, eq=False)
class Slot:
    """done(path, name): path of the file, and what the browser calls it. suffixes: small, with the dot."""

    session: Session
    suffixes: tuple[str, ...]
    most: int
    done: Callable[[Path, str], Awaitable[None]]


class Uploads:
    """folder: where files are written, under random names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for file in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < time.time() - KEPT_S:
                    file.unlink()
        self._slots: dict[str, Slot] = {}

    def expect(self, session: Session, suffixes: tuple[str, ...], done: Callable[[Path, str], Awaitable[None]], *, most: int = MOST_FILE) -> str:
        """The path that a file of one of these kinds may be sent to, as often as the view lives."""
        if len(self._slots) >= MOST_SLOTS:
            del self._slots[next(iter(self._slots))]
        number = secrets.token_urlsafe(24)
        self._slots[number] = Slot(session, suffixes, most, done)
        return f"/page/upload/{number}"

    def forget(self, path: str) -> None:
        self._slots.pop(path.rpartition("/")[2], None)

    async def take(self, number: str, session: Session, scope: dict[str, Any], receive: Any, headers: dict[bytes, bytes]) -> dict[str, Any]:
        """Write the body of this request. Raises Refused 403, 408, 413, 415, 507."""
        slot = self._slots.get(number)
        if slot is None or slot.session is not session:
            raise Refused(403, "This file is not expected any more. Load the page again, then choose the file again.")
        name = parse_qs(scope["query_string"].decode("latin-1"), errors="replace").get("name", ["file"])[0].replace("\\", "/").rpartition("/")[2][:200] or "file"
        suffix = next((s for s in slot.suffixes if name.lower().endswith(s)), None)
        if suffix is None:
            raise Refused(415, "'{name}' is none of the kinds that are read here: {known}.", name=shown(name), known=list(slot.suffixes))
        announced = headers.get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > slot.most:
            raise _too_large(slot.most)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._folder / f"{secrets.token_hex(12)}{suffix}"
        try:
            await self._written(place, receive, slot.most)
        except BaseException as error:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise Refused(507, "The file could not be kept: {reason}. Make room on the disk of the service.", reason=str(error.strerror)) from None
            raise
        await slot.done(place, name)
        return {"kept": place.stat().st_size if place.exists() else 0, "sentence": say("'{name}' has arrived.", name=shown(name)).to(scope["assay.lang"])}

    async def _written(self, place: Path, receive: Any, most: int) -> None:
        size = 0
        with place.open("xb") as file:
            while True:
                try:
                    async with asyncio.timeout(PAUSE_S):
                        message = await receive()
                except TimeoutError:
                    raise Refused(408, "The body did not arrive in time. Send it faster, or in smaller parts.") from None
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The connection was closed before the body had arrived.")
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise _too_large(most)
                await asyncio.to_thread(file.write, part)
                if not message.get("more_body"):
                    return


def _too_large(most: int) -> Refused:
    return Refused(413, "The file is larger than {mb:,.0f} MB. Put it into the folder 'data' of the service's home, and name it there.", mb=most / 2**20)
