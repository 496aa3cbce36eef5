"""The first schema."""

from __future__ import annotations

from typing import Any

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MYSQL: dict[str, Any] = {f"{kind}_{option}": value for kind in ("mysql", "mariadb") for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"), ("engine", "InnoDB"))}


def upgrade() -> None:
    import sqlalchemy as sa
    from alembic import op
    from sqlalchemy.dialects import mysql

    long = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    blob = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    big = sa.BigInteger()
    auto = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    real: Any = sa.Double()

    def short(length: int) -> sa.String:
        return sa.String(length)

    def table(name: str, *parts: sa.Column) -> None:
        op.create_table(name, *parts, **MYSQL)

    def must(name: str, kind: Any, **options: Any) -> sa.Column:
        return sa.Column(name, kind, nullable=False, quote=True, **options)

    def may(name: str, kind: Any) -> sa.Column:
        return sa.Column(name, kind, nullable=True, quote=True)

    table("predictions", must("id", short(40), primary_key=True), must("at", real), must("model", short(64)), must("version", sa.Integer()), must("arm", short(12)),
          may("of", short(40)), may("row", long), must("answer", long), may("doubt", real), must("ms", real), must("actor", short(64)), must("audit", big))
    op.create_index("predictions_time", "predictions", ["model", "at", "id"])
    op.create_index("predictions_doubt", "predictions", ["model", "doubt"])
    op.create_index("predictions_audit", "predictions", ["audit"])
    shadows = sa.text('"of" IS NOT NULL')
    op.create_index("predictions_of", "predictions", ["of"], sqlite_where=shadows, postgresql_where=shadows)
    table("feedback", must("id", auto, primary_key=True, autoincrement=False), must("at", real), must("model", short(64)), may("prediction", short(40)), must("kind", short(12)),
          may("label", long), may("row", long), must("source", short(12)), must("actor", short(64)), may("note", long), must("audit", big))
    op.create_index("feedback_time", "feedback", ["model", "at"])
    op.create_index("feedback_order", "feedback", ["model", "id"])
    op.create_index("feedback_prediction", "feedback", ["prediction", "id"])
    op.create_index("feedback_audit", "feedback", ["audit"])
    table("drafts", must("id", short(40), primary_key=True), must("at", real), must("model", short(64)), must("asked", long), must("draft", long), may("final", long),
          must("status", short(12)), must("actor", short(64)))
    op.create_index("drafts_open", "drafts", ["model", "status", "at"])
    table("audit", must("seq", auto, primary_key=True, autoincrement=False), must("at", real), must("actor", short(64)), must("action", short(64)), must("detail", long),
          must("previous", short(64)), must("hash", short(64)))
    op.create_index("audit_action", "audit", ["action", "seq"])
    table("head", must("id", sa.Integer(), primary_key=True, autoincrement=False), must("seq", big), must("hash", short(64)), must("feedback", big))
    table("alarms", must("id", auto, primary_key=True), must("at", real), must("model", short(64)), must("code", short(64)), must("level", short(12)), must("text", long),
          must("facts", long), may("closed", real), may("closed_by", short(64)))
    op.create_index("alarms_time", "alarms", ["model", "at"])
    table("keys", must("id", short(16), primary_key=True), must("hash", short(64)), must("name", short(128)), must("scopes", short(64)), must("made", real), may("expires", real),
          may("revoked", real), may("rate", sa.Integer()), may("replaces", short(16)))
    table("versions", must("model", short(64), primary_key=True), must("version", sa.Integer(), primary_key=True, autoincrement=False), must("digest", short(64)),
          must("file", long), must("made", real), must("source", short(12)), must("facts", long), may("fingerprint", short(64)))
    table("stages", must("model", short(64), primary_key=True), must("champion", sa.Integer()), may("challenger", sa.Integer()), may("mode", short(12)), must("share", real),
          must("since", real), may("previous", sa.Integer()))
    table("sketches", must("id", auto, primary_key=True), must("model", short(64)), must("version", sa.Integer()), must("start", real), must("end", real), must("rows", big),
          must("data", blob))
    op.create_index("sketches_time", "sketches", ["model", "start"])
    table("traffic", must("minute", sa.Integer(), primary_key=True, autoincrement=False), must("model", short(64), primary_key=True),
          must("worker", sa.Integer(), primary_key=True, autoincrement=False), must("requests", big), must("errors", big), must("refused", big), must("ms_sum", real),
          must("histogram", long))


def downgrade() -> None:
    from alembic import op

    for name in ("traffic", "sketches", "stages", "versions", "keys", "alarms", "head", "audit", "drafts", "feedback", "predictions"):
        op.drop_table(name)
