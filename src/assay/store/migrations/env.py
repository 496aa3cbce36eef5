"""Alembic runs this file; the connection comes from `assay.store.migrate`, whose transaction it is."""

from __future__ import annotations


def _run() -> None:
    from alembic import context

    context.configure(connection=context.config.attributes["connection"], version_table="schema_version", transaction_per_migration=False)
    context.run_migrations()


_run()
