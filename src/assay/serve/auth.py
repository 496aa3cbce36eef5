"""Who asks: keys of the store, or bearer tokens of an identity provider.

A key found once is kept for a few seconds under its digest, so that the store is not asked for each request: a revoked key is refused
after `KEPT_S` at the latest.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, Protocol

from assay.serve.http import Refused
from assay.store.records import Key
from assay.store.store import Store

KEPT_S = 5.0
MOST_KEPT = 10_000
SCOPES = ("predict", "feedback", "admin")
ANYBODY = Key("none", "without a key", SCOPES, 0.0)
_CHALLENGE = ((b"www-authenticate", b'Bearer realm="assay"'),)


class Tokens(Protocol):
    def key_of(self, token: str) -> Key:
        """The key that a bearer token stands for. Raises Refused 401."""


class Door:
    """Lets requests in. required: False lets everybody do everything (only sensible on loopback)."""

    def __init__(self, store: Store, *, required: bool = True, tokens: Tokens | None = None, workers: int = 1) -> None:
        self._store, self._required, self._tokens, self._workers = store, required, tokens, workers
        self._kept: dict[bytes, tuple[float, Key]] = {}
        self._buckets: dict[str, Bucket] = {}

    def known(self, headers: dict[bytes, bytes]) -> Key | None:
        """The key, if it was seen in the last seconds: no store, no waiting. None: ask `find`."""
        if not self._required:
            return ANYBODY
        given = _given(headers)
        found = self._kept.get(hashlib.sha256(given).digest()) if given else None
        now = time.time()
        if found is None or found[0] < now or (found[1].expires is not None and found[1].expires <= now):
            return None
        return found[1]

    def find(self, headers: dict[bytes, bytes]) -> Key:
        """The key of this request, from the store or the identity provider; may wait for either. Raises Refused 401."""
        given = _given(headers)
        if not given:
            raise Refused(401, "A key is needed: send 'Authorization: Bearer KEY'. Keys are made with `assay keys make`.", headers=_CHALLENGE)
        text = given.decode("latin-1")
        now = time.time()
        if self._tokens is not None and text.count(".") == 2:
            key: Key | None = self._tokens.key_of(text)
        else:
            key = self._store.keys.find(text, now)
        if key is None:
            raise Refused(401, "This key is not known, has expired, or was revoked. Ask whoever runs the service for another one.", headers=_CHALLENGE)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[hashlib.sha256(given).digest()] = (now + KEPT_S, key)
        return key

    def allow(self, key: Key, scope: str) -> None:
        """Raises Refused 403 (the key may not do this) or 429 (it asks too often)."""
        if not self.may(key, scope):
            raise Refused(403, "This key may not do that: it has the scopes {scopes}, and '{scope}' is needed.", scopes=list(key.scopes), scope=scope)
        self.pay(key)

    def may(self, key: Key, scope: str) -> bool:
        return not scope or scope in key.scopes or "admin" in key.scopes

    def pay(self, key: Key) -> None:
        """One request of those that the key may ask in a minute. Raises Refused 429."""
        if key.rate is None:
            return
        bucket = self._buckets.get(key.id)
        if bucket is None or bucket.rate != key.rate / 60 / self._workers:
            bucket = self._buckets[key.id] = Bucket(key.rate / 60 / self._workers, burst=max(1.0, key.rate / 60 / self._workers * 10))
        wait = bucket.take()
        if wait > 0:
            raise Refused(429, "This key may ask {rate} times a minute. Try again in {wait:.1f} seconds.", rate=key.rate, wait=wait, retry_s=wait)

    def forget(self) -> None:
        """Ask the store again for every key."""
        self._kept.clear()


class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once."""

    def __init__(self, rate: float, *, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._left, self._at = burst, time.monotonic()

    def take(self) -> float:
        """0 and one token fewer, or the seconds until there is one."""
        now = time.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self.rate


def _given(headers: dict[bytes, bytes]) -> bytes:
    value = headers.get(b"authorization", b"")
    if value[:7].lower() == b"bearer ":
        return value[7:].strip()[:8192]
    return headers.get(b"x-api-key", b"").strip()[:8192]


def scopes_of(claim: Any) -> tuple[str, ...]:
    """The scopes of assay among those of a token: 'predict feedback' or ['predict', ...], with or without 'assay:' before them."""
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, (list, tuple)) else []
    return tuple(s for s in SCOPES if s in words or f"assay:{s}" in words)
