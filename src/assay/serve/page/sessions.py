"""Who is at the page: a key is shown once at the door, and a random number in a cookie stands for it until it expires."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass, field

from assay.serve.auth import ANYBODY, Bucket, Door
from assay.store.records import Key
from assay.store.store import Store

LASTS_S = 12 * 3600.0
LOOK_S = 5.0  # a revoked key is noticed after so many seconds
MOST = 10_000


@dataclass(eq=False)
class Session:
    """token: what stands in the cookie; only its digest is kept."""

    key: Key
    until: float
    digest: bytes = b""
    looked: float = field(default_factory=time.monotonic)

    @property
    def actor(self) -> str:
        """Who is named in the audit log."""
        return f"page:{self.key.id}"

    def may(self, scope: str) -> bool:
        return not scope or scope in self.key.scopes or "admin" in self.key.scopes


class Sessions:
    """In the memory of the process: a service that starts anew asks for the key again."""

    def __init__(self, door: Door, store: Store) -> None:
        self._door, self._store = door, store
        self._held: dict[bytes, Session] = {}
        self._tries: dict[str, Bucket] = {}
        self.everybody = Session(ANYBODY, float("inf")) if door.known({}) is ANYBODY else None

    def wait(self, address: str) -> float:
        """Seconds until this address may try another key: 10 at once, then one in 3 s."""
        if len(self._tries) > MOST:
            self._tries.clear()
        return self._tries.setdefault(address, Bucket(1 / 3, burst=10.0)).take()

    def begin(self, secret: str) -> tuple[str, Session]:
        """A token and its session. Raises Refused 401 where no such key lets anybody in. May wait for the store."""
        key = self._door.find({b"authorization": b"Bearer " + secret.encode("latin-1", "replace")})
        now = time.time()
        for old in [d for d, s in self._held.items() if s.until <= now] or ([next(iter(self._held))] if len(self._held) >= MOST else []):
            del self._held[old]
        token = secrets.token_urlsafe(32)
        session = Session(key, min(now + LASTS_S, key.expires or float("inf")), _digest(token))
        self._held[session.digest] = session
        return token, session

    async def find(self, token: str) -> Session | None:
        if self.everybody is not None:
            return self.everybody
        session = self._held.get(_digest(token)) if token else None
        return session if session is not None and await self.alive(session) else None

    async def alive(self, session: Session) -> bool:
        """Not ended, not expired, and its key not revoked since."""
        if session is self.everybody:
            return True
        if self._held.get(session.digest) is not session:
            return False
        if time.monotonic() - session.looked > LOOK_S:
            session.looked = time.monotonic()
            keys = {k.id: k for k in await asyncio.to_thread(self._store.keys.all)}
            known = keys.get(session.key.id)
            if known is not None:  # a token of an identity provider stands in no table: it is good until it expires
                session.key = known
                session.until = min(session.until, known.expires or float("inf"))
                if known.revoked is not None:
                    self.end(session)
                    return False
        if session.until <= time.time():
            self.end(session)
            return False
        return True

    def end(self, session: Session) -> None:
        self._held.pop(session.digest, None)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
