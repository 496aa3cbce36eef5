"""Answers into a table of a database: SQLite, PostgreSQL, MySQL and MariaDB through SQLAlchemy.

A chunk of answers and the note of how far the job is are one transaction, so a kill at any moment neither doubles nor loses a row: either
both are there or neither is. Rows are written by key: asked again, an answer replaces the one before.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from assay.data.load import shown
from assay.errors import EndpointError, InputError, MissingExtra
from assay.ship.lines import Refused
from assay.ship.progress import Done, RefusedRows

PROGRESS = "assay_progress"
ROW = "row"  # the key where none is named: the number of the row in the source, from 1
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mysql+pymysql"}
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts silently


class TableOut:
    """Answers into `table` of the database at `url`, by `key`. The table is made if it is not there.

    rejected: where refused rows go. Raises InputError (address, names, a table that does not fit), MissingExtra.
    """

    def __init__(self, url: str, table: str, key: str | None, rejected: Path, language: str = "en") -> None:
        self.url, self.name, self.key = url, table, key or ROW
        self.rejected = rejected
        self._shown = shown(url)
        self._rejects = RefusedRows(rejected, language)
        self._engine = _engine(url, self._shown)
        self._secret = self._engine.url.password
        self._table: Any = None
        self._job = ""

    def begin(self, job: dict[str, Any], restart: bool) -> Done:
        """What an earlier run of the same job has finished, by the note in the database itself."""
        import sqlalchemy as sa

        self._job = hashlib.blake2b(json.dumps({**job, "table": self.name, "key": self.key}, sort_keys=True).encode(), digest_size=16).hexdigest()
        with self._explained():
            self._notes = sa.Table(PROGRESS, sa.MetaData(), sa.Column("job", sa.String(32), primary_key=True), sa.Column("target", sa.String(128)),
                                   sa.Column("done", sa.Text), sa.Column("at", sa.Double), mysql_engine="InnoDB", mysql_charset="utf8mb4")
            self._notes.create(self._engine, checkfirst=True)
            with self._engine.begin() as connection:
                if restart:
                    connection.execute(self._notes.delete().where(self._notes.c.job == self._job))
                kept = connection.execute(sa.select(self._notes.c.done).where(self._notes.c.job == self._job)).scalar()
        done = Done(**json.loads(kept)) if kept else Done()
        self._rejects.begin(done.refused_size)
        return done

    def write(self, answers: pl.DataFrame, refused: list[Refused], done: Done) -> Done:
        """Upsert a chunk and say so, in one transaction. Of rows with the same key the last one stays."""
        done = Done(**asdict(done) | {"refused_size": self._rejects.add(refused)})
        with self._explained():
            if answers.height and self._table is None:
                self._table = self._fitting(answers)
            with self._engine.begin() as connection:
                if answers.height:
                    single = answers.unique(subset=[self.key], keep="last", maintain_order=True)
                    named = pl.DataFrame([_finite(cells).alias(f"c{i}") for i, cells in enumerate(single.get_columns())])
                    connection.execute(_upsert(self._table, "c" + str(answers.columns.index(self.key)), self._engine.dialect.name), named.to_dicts())
                told = {"job": self._job, "target": self.name[:128], "done": json.dumps(asdict(done)), "at": time.time()}
                connection.execute(_upsert(self._notes, "job", self._engine.dialect.name), [told])
        return done

    def _fitting(self, answers: pl.DataFrame) -> Any:
        """The table with these columns, made if it is not there; in Python they are called c0, c1, ..., whatever signs their names hold."""
        import sqlalchemy as sa

        if long := next((n for n in answers.columns if len(n.encode()) > _LONGEST_NAME), None):
            raise InputError("The column '{name}' has a name of {size} bytes; a table of a database takes {most}. Write a file instead.", name=long,
                             size=len(long.encode()), most=_LONGEST_NAME)
        schema, _, plain = self.name.rpartition(".")
        columns = [sa.Column(sa.quoted_name(n, True), _type(answers[n].dtype, n == self.key), key=f"c{i}", primary_key=n == self.key, autoincrement=False)
                   for i, n in enumerate(answers.columns)]
        table = sa.Table(sa.quoted_name(plain, True), sa.MetaData(), *columns, schema=schema or None, mysql_engine="InnoDB", mysql_charset="utf8mb4")
        inspector = sa.inspect(self._engine)
        if not inspector.has_table(plain, schema=schema or None):
            table.create(self._engine)
            return table
        there = [c["name"] for c in inspector.get_columns(plain, schema=schema or None)]
        if absent := [n for n in answers.columns if n not in there]:
            raise InputError("The table '{table}' lacks the columns {absent}; it has: {columns}. Add them, or name a table that is not there yet.", table=self.name,
                             absent=absent, columns=there[:40])
        single = [inspector.get_pk_constraint(plain, schema=schema or None).get("constrained_columns") or []]
        single += [c["column_names"] for c in inspector.get_unique_constraints(plain, schema=schema or None)]
        single += [i["column_names"] for i in inspector.get_indexes(plain, schema=schema or None) if i.get("unique")]
        if [self.key] not in [list(names) for names in single]:
            raise InputError("In the table '{table}' the column '{key}' is neither primary key nor unique, so no answer could replace the one before. Make it unique, or "
                             "name another --key.", table=self.name, key=self.key)
        return table

    def finish(self) -> None:
        """Take the note away: the job is done."""
        self._rejects.finish()
        with self._explained(), self._engine.begin() as connection:
            connection.execute(self._notes.delete().where(self._notes.c.job == self._job))
        self._engine.dispose()

    def forget(self) -> None:
        """The rows cannot be answered as they are: rows written before stay, and the note goes."""
        self._rejects.forget()
        with self._explained(), self._engine.begin() as connection:
            connection.execute(self._notes.delete().where(self._notes.c.job == self._job))
        self._engine.dispose()

    def close(self) -> None:
        self._rejects.close()
        self._engine.dispose()

    def _explained(self) -> _Explained:
        return _Explained(self._shown, self._secret)


class _Explained:
    """What a database says, in one sentence without its password."""

    def __init__(self, place: str, secret: str | None) -> None:
        self._place, self._secret = place, secret

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import sqlalchemy.exc as exc

        if not isinstance(error, exc.SQLAlchemyError):
            return
        words = " ".join(str(getattr(error, "orig", None) or error).split())
        for secret in filter(None, (self._secret, quote(self._secret or "", safe=""))):
            words = words.replace(secret, "***")
        raise EndpointError("The database at {place} does not take the answers: {error}. Nothing of this chunk was kept; the same command goes on from there.",
                            place=self._place, error=words[:300].rstrip(".")) from None


def _engine(url: str, place: str) -> Any:
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url.strip())
        dialect = parsed.drivername.partition("+")[0].lower()
        if dialect == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ValueError
        return sa.create_engine(parsed.set(drivername=_DRIVERS[dialect]), pool_pre_ping=True, pool_size=1, max_overflow=0)
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "sqlalchemy", extra="store") from None
    except (sa.exc.ArgumentError, KeyError, ValueError):
        raise InputError("'{url}' is no address of a database. Write it like sqlite:///file.db or postgresql://user:password@host:5432/name; in a password, write "
                         "@ as %40, : as %3A and / as %2F.", url=place) from None


def _finite(cells: pl.Series) -> pl.Series:
    """NULL for what MySQL cannot hold."""
    return cells.set(~cells.is_finite().fill_null(True), None) if cells.dtype.is_float() else cells


def _type(dtype: pl.DataType, key: bool) -> Any:
    import sqlalchemy as sa

    if dtype == pl.Boolean:
        return sa.Boolean()
    if dtype.is_integer():
        return sa.BigInteger()
    if dtype.is_float():
        return sa.Double()
    if dtype == pl.Date:
        return sa.Date()
    if isinstance(dtype, pl.Datetime):
        return sa.DateTime()
    return sa.String(191) if key else sa.Text()  # MySQL takes no key without a length; 191 signs of four bytes fit everywhere


def _upsert(table: Any, key: str, dialect: str) -> Any:
    """INSERT of one row with named holes; if a row with that key is there, all else in it is replaced."""
    others = [c for c in table.c if c.key != key]
    if dialect == "mysql":
        from sqlalchemy.dialects import mysql

        added = mysql.insert(table)
        return added.on_duplicate_key_update({c.key: added.inserted[c.key] for c in others})
    from sqlalchemy.dialects import postgresql, sqlite

    new: Any = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return new.on_conflict_do_update(index_elements=[table.c[key]], set_={c: new.excluded[c.key] for c in others})
