"""Every version of a model that was ever served, and who answers now. Each change of who answers is one row of the audit log, in the same transaction."""

from __future__ import annotations

from typing import Any

from assay.errors import InputError
from assay.store.database import Database, Transaction
from assay.store.packing import pack, plain, unpack
from assay.store.records import Stage, Version
from assay.store.tables import tables


def _version(row: Any) -> Version:
    return Version(row.model, row.version, row.digest, row.file, row.made, row.source, unpack(row.facts), row.fingerprint)


class Versions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: str, digest: str, file: str, source: str, facts: dict[str, Any], fingerprint: str | None = None, by: str = "service") -> Version:
        """The next version of a model; the one that is there if it has this digest already. It answers nothing until it is promoted."""
        v = tables().versions
        values = {"model": plain(model, 64, "model"), "digest": plain(digest, 64, "digest"), "file": plain(file, 4096, "file"), "source": plain(source, 12, "source"),
                  "facts": pack(facts) or "{}", "fingerprint": None if fingerprint is None else plain(fingerprint, 64, "fingerprint")}
        if not values["model"]:
            raise InputError("A model needs a name.")
        with self._database.writing() as transaction:
            rows = transaction.connection.execute(v.select().where(v.c.model == values["model"]).order_by(v.c.version)).all()
            same = next((row for row in rows if row.digest == digest), None)
            if same is not None:
                return _version(same)
            number = rows[-1].version + 1 if rows else 1
            transaction.connection.execute(v.insert(), [values | {"version": number, "made": transaction.at}])
            transaction.audit(by, "version added", {"model": values["model"], "version": number, "digest": digest, "source": source})
            return Version(str(values["model"]), number, digest, file, transaction.at, source, facts, fingerprint)

    def of(self, model: str) -> list[Version]:
        """The oldest first."""
        v = tables().versions
        with self._database.reading() as connection:
            return [_version(row) for row in connection.execute(v.select().where(v.c.model == model).order_by(v.c.version))]

    def get(self, model: str, version: int) -> Version | None:
        v = tables().versions
        with self._database.reading() as connection:
            row = connection.execute(v.select().where(v.c.model == model, v.c.version == version)).first()
        return None if row is None else _version(row)

    def models(self) -> list[str]:
        from sqlalchemy import select

        v = tables().versions
        with self._database.reading() as connection:
            return list(connection.execute(select(v.c.model).distinct().order_by(v.c.model)).scalars())

    def stage(self, model: str) -> Stage | None:
        """None for a model of which no version was promoted yet."""
        with self._database.reading() as connection:
            return _stage(connection, model)

    def promote(self, model: str, version: int, by: str, reason: str) -> Stage:
        """This version answers from now on; what answered before is what `rollback` goes back to. A challenge ends."""
        with self._database.writing() as transaction:
            self._must_have(transaction, model, version)
            old = _stage(transaction.connection, model)
            if old is not None and old.champion == version and old.challenger is None:
                return old
            previous = None if old is None else old.previous if old.champion == version else old.champion
            stage = Stage(model, version, None, None, 0.0, transaction.at, previous)
            return _put(transaction, stage, old, by, "promoted", {"version": version, "from": None if old is None else old.champion, "reason": reason})

    def challenge(self, model: str, version: int, mode: str, share: float = 0.0, by: str = "service") -> Stage:
        """mode: shadow (it answers unseen) or canary (it answers this share of the requests)."""
        if mode not in ("shadow", "canary") or not 0 <= share <= 1 or (mode == "canary" and share == 0):
            raise InputError("A challenger is a shadow, or a canary with a share above 0 and at most 1; found: {mode}, {share:g}.", mode=mode[:40], share=float(share))
        with self._database.writing() as transaction:
            self._must_have(transaction, model, version)
            old = self._must_answer(transaction, model)
            if old.champion == version:
                raise InputError("Version {version} of '{model}' is the champion already; a challenger is another version.", version=version, model=model)
            stage = Stage(model, old.champion, version, mode, float(share), transaction.at, old.previous)
            return _put(transaction, stage, old, by, "challenged", {"version": version, "mode": mode, "share": float(share)})

    def withdraw(self, model: str, by: str = "service", reason: str = "") -> Stage:
        """No challenger from now on."""
        with self._database.writing() as transaction:
            old = self._must_answer(transaction, model)
            if old.challenger is None:
                return old
            stage = Stage(model, old.champion, None, None, 0.0, transaction.at, old.previous)
            return _put(transaction, stage, old, by, "withdrawn", {"version": old.challenger, "reason": reason})

    def rollback(self, model: str, by: str, reason: str) -> Stage:
        """Back to what answered before the last promotion. Only once: a second time would bring back what was just sent away."""
        with self._database.writing() as transaction:
            old = self._must_answer(transaction, model)
            if old.previous is None:
                raise InputError("'{model}' has no version to go back to. Choose one with: assay promote {model} VERSION", model=model)
            stage = Stage(model, old.previous, None, None, 0.0, transaction.at, None)
            return _put(transaction, stage, old, by, "rolled back", {"version": old.previous, "from": old.champion, "reason": reason})

    def _must_have(self, transaction: Transaction, model: str, version: int) -> None:
        v = tables().versions
        known = list(transaction.connection.execute(v.select().with_only_columns(v.c.version).where(v.c.model == model).order_by(v.c.version)).scalars())
        if not known:
            raise InputError("No model is called '{model}'. See: assay models", model=model[:64])
        if version not in known:
            raise InputError("'{model}' has no version {version}. It has: {known}.", model=model, version=version, known=known[-20:])

    def _must_answer(self, transaction: Transaction, model: str) -> Stage:
        stage = _stage(transaction.connection, model)
        if stage is None:
            raise InputError("No version of '{model}' answers yet. Choose one with: assay promote {model} VERSION", model=model[:64])
        return stage


def _stage(connection: Any, model: str) -> Stage | None:
    s = tables().stages
    row = connection.execute(s.select().where(s.c.model == model)).first()
    return None if row is None else Stage(*row)


def _put(transaction: Transaction, stage: Stage, old: Stage | None, by: str, action: str, detail: dict[str, Any]) -> Stage:
    s = tables().stages
    values = {"champion": stage.champion, "challenger": stage.challenger, "mode": stage.mode, "share": stage.share, "since": stage.since, "previous": stage.previous}
    if old is None:
        transaction.connection.execute(s.insert(), [values | {"model": stage.model}])
    else:
        transaction.connection.execute(s.update().where(s.c.model == stage.model).values(**values))
    transaction.audit(by, action, {"model": stage.model} | detail)
    return stage
