"""Keys of the service. Only the sha256 of a secret is kept: 256 random bits need no slow hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Any

from assay.errors import InputError
from assay.store.database import Database, Transaction
from assay.store.packing import plain
from assay.store.records import Key
from assay.store.tables import tables

SCOPES = ("predict", "feedback", "admin")


def _key(row: Any) -> Key:
    return Key(row.id, row.name, tuple(row.scopes.split()), row.made, row.expires, row.revoked, row.rate, row.replaces)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def make(self, name: str, scopes: Sequence[str], ttl_s: float | None = None, rate: int | None = None, by: str = "cli") -> tuple[Key, str]:
        """The key and its secret, `assay_<id>_<43 characters>`, which is not kept. rate: requests a minute."""
        wanted = tuple(dict.fromkeys(scopes))
        unknown = [s for s in wanted if s not in SCOPES]
        if unknown or not wanted:
            raise InputError("A key is for one or more of {known}; found: {found}.", known=list(SCOPES), found=unknown or "–")
        if (ttl_s is not None and not 0 < ttl_s < 1e11) or (rate is not None and not 0 < rate < 2**31):
            raise InputError("How long a key is good for and how many requests a minute it may make are positive numbers.")
        with self._database.writing() as transaction:
            made = _made(transaction, name, wanted, ttl_s, rate, None)
            transaction.audit(by, "key made", {"key": made[0].id, "name": made[0].name, "scopes": list(wanted), "expires": made[0].expires, "rate": rate})
        return made

    def find(self, secret: str, at: float) -> Key | None:
        """The key of a secret, None where it is unknown, revoked or expired. The comparison takes as long for a wrong secret as for a right one."""
        parts = secret.split("_", 2)
        k = tables().keys
        known = len(parts) == 3 and parts[0] == "assay" and 0 < len(parts[1]) <= 16 and parts[1].isalnum() and parts[1].isascii() and len(secret) < 200
        with self._database.reading() as connection:
            row = connection.execute(k.select().where(k.c.id == (parts[1] if known else ""))).first()
        same = hmac.compare_digest(_hash(secret), row.hash if row is not None else "0" * 64)
        if row is None or not same or row.revoked is not None or (row.expires is not None and row.expires <= at):
            return None
        return _key(row)

    def revoke(self, id: str, by: str = "cli") -> Key:
        """From now on it opens nothing. Raises InputError where there is no such key."""
        k = tables().keys
        with self._database.writing() as transaction:
            found = self._one(transaction, id)
            if found.revoked is None:
                transaction.connection.execute(k.update().where(k.c.id == id).values(revoked=transaction.at))
                transaction.audit(by, "key revoked", {"key": id})
            return self._one(transaction, id)

    def rotate(self, id: str, grace_s: float = 0.0, by: str = "cli") -> tuple[Key, str]:
        """A new key with the same rights for as long a time; the old one works for `grace_s` seconds more."""
        k = tables().keys
        if not 0 <= grace_s < 1e11:
            raise InputError("How long a key is good for and how many requests a minute it may make are positive numbers.")
        with self._database.writing() as transaction:
            old = self._one(transaction, id)
            if old.revoked is not None or (old.expires is not None and old.expires <= transaction.at):
                raise InputError("The key '{id}' is revoked or expired, so it cannot be rotated. Make a new one with assay keys make.", id=id[:16])
            made = _made(transaction, old.name, old.scopes, None if old.expires is None else old.expires - old.made, old.rate, id)
            until = transaction.at + grace_s if old.expires is None else min(old.expires, transaction.at + grace_s)
            transaction.connection.execute(k.update().where(k.c.id == id).values(expires=until))
            transaction.audit(by, "key rotated", {"key": id, "by": made[0].id, "until": until})
        return made

    def all(self) -> list[Key]:
        k = tables().keys
        with self._database.reading() as connection:
            return [_key(row) for row in connection.execute(k.select().order_by(k.c.made, k.c.id))]

    def _one(self, transaction: Transaction, id: str) -> Key:
        k = tables().keys
        row = transaction.connection.execute(k.select().where(k.c.id == id)).first()
        if row is None:
            raise InputError("No key has the id '{id}'. See: assay keys list", id=id[:16])
        return _key(row)


def _made(transaction: Transaction, name: str, scopes: tuple[str, ...], ttl_s: float | None, rate: int | None, replaces: str | None) -> tuple[Key, str]:
    id = secrets.token_hex(6)
    secret = f"assay_{id}_{secrets.token_urlsafe(32)}"
    at = max(time.time(), transaction.at)
    key = Key(id, plain(name, 128, "name"), scopes, at, None if ttl_s is None else at + ttl_s, None, rate, replaces)
    transaction.connection.execute(tables().keys.insert(), [{
        "id": id, "hash": _hash(secret), "name": key.name, "scopes": " ".join(scopes), "made": key.made, "expires": key.expires, "revoked": None, "rate": rate,
        "replaces": replaces}])
    return key, secret
