"""The tables of the store. What a migration builds is compared with this by tests/test_store_migrations.py."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table


class Tables(NamedTuple):
    """Every table, and the metadata that holds them."""

    metadata: MetaData
    predictions: Table
    feedback: Table
    drafts: Table
    audit: Table
    head: Table
    alarms: Table
    keys: Table
    versions: Table
    stages: Table
    sketches: Table
    traffic: Table


@cache
def tables() -> Tables:
    """`audit` in predictions and feedback is the audit row that was written with them; `head` has one row: where the chain and the feedback's numbers stand.

    Long texts are LONGTEXT in MySQL, whose TEXT ends at 64 kB. Texts compare byte by byte everywhere: a model 'A' is not 'a'.
    """
    from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, MetaData, String, Table
    from sqlalchemy import Text as Long
    from sqlalchemy.dialects import mysql

    long = Long().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    blob = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    auto = BigInteger().with_variant(Integer(), "sqlite")
    metadata = MetaData()

    def table(name: str, *parts: Column | Index) -> Table:
        return Table(name, metadata, *parts, mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin", mysql_engine="InnoDB",
                     mariadb_charset="utf8mb4", mariadb_collate="utf8mb4_bin", mariadb_engine="InnoDB")

    def must(name: str, kind: Any, **options: Any) -> Column:
        return Column(name, kind, nullable=False, quote=True, **options)

    def may(name: str, kind: Any) -> Column:
        return Column(name, kind, nullable=True, quote=True)

    predictions = table(
        "predictions", must("id", String(40), primary_key=True), must("at", Double()), must("model", String(64)), must("version", Integer()),
        must("arm", String(12)), may("of", String(40)), may("row", long), must("answer", long), may("doubt", Double()), must("ms", Double()),
        must("actor", String(64)), must("audit", BigInteger()))
    Index("predictions_time", predictions.c.model, predictions.c.at, predictions.c.id)
    Index("predictions_doubt", predictions.c.model, predictions.c.doubt)
    Index("predictions_audit", predictions.c.audit)
    Index("predictions_of", predictions.c.of, sqlite_where=predictions.c.of.isnot(None), postgresql_where=predictions.c.of.isnot(None))
    feedback = table(
        "feedback", must("id", auto, primary_key=True, autoincrement=False), must("at", Double()), must("model", String(64)), may("prediction", String(40)),
        must("kind", String(12)), may("label", long), may("row", long), must("source", String(12)), must("actor", String(64)), may("note", long),
        must("audit", BigInteger()))
    Index("feedback_time", feedback.c.model, feedback.c.at)
    Index("feedback_order", feedback.c.model, feedback.c.id)
    Index("feedback_prediction", feedback.c.prediction, feedback.c.id)
    Index("feedback_audit", feedback.c.audit)
    drafts = table(
        "drafts", must("id", String(40), primary_key=True), must("at", Double()), must("model", String(64)), must("asked", long), must("draft", long), may("final", long),
        must("status", String(12)), must("actor", String(64)))
    Index("drafts_open", drafts.c.model, drafts.c.status, drafts.c.at)
    audit = table(
        "audit", must("seq", auto, primary_key=True, autoincrement=False), must("at", Double()), must("actor", String(64)), must("action", String(64)), must("detail", long),
        must("previous", String(64)), must("hash", String(64)))
    Index("audit_action", audit.c.action, audit.c.seq)
    head = table("head", must("id", Integer(), primary_key=True, autoincrement=False), must("seq", BigInteger()), must("hash", String(64)), must("feedback", BigInteger()))
    alarms = table(
        "alarms", must("id", auto, primary_key=True), must("at", Double()), must("model", String(64)), must("code", String(64)), must("level", String(12)),
        must("text", long), must("facts", long), may("closed", Double()), may("closed_by", String(64)))
    Index("alarms_time", alarms.c.model, alarms.c.at)
    keys = table(
        "keys", must("id", String(16), primary_key=True), must("hash", String(64)), must("name", String(128)), must("scopes", String(64)), must("made", Double()),
        may("expires", Double()), may("revoked", Double()), may("rate", Integer()), may("replaces", String(16)))
    versions = table(
        "versions", must("model", String(64), primary_key=True), must("version", Integer(), primary_key=True, autoincrement=False), must("digest", String(64)),
        must("file", long), must("made", Double()), must("source", String(12)), must("facts", long), may("fingerprint", String(64)))
    stages = table(
        "stages", must("model", String(64), primary_key=True), must("champion", Integer()), may("challenger", Integer()), may("mode", String(12)),
        must("share", Double()), must("since", Double()), may("previous", Integer()))
    sketches = table(
        "sketches", must("id", auto, primary_key=True), must("model", String(64)), must("version", Integer()), must("start", Double()), must("end", Double()),
        must("rows", BigInteger()), must("data", blob))
    Index("sketches_time", sketches.c.model, sketches.c.start)
    traffic = table(
        "traffic", must("minute", Integer(), primary_key=True, autoincrement=False), must("model", String(64), primary_key=True),
        must("worker", Integer(), primary_key=True, autoincrement=False), must("requests", BigInteger()), must("errors", BigInteger()), must("refused", BigInteger()),
        must("ms_sum", Double()), must("histogram", long))
    return Tables(metadata, predictions, feedback, drafts, audit, head, alarms, keys, versions, stages, sketches, traffic)
