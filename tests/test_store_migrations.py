"""The schema: what the migrations build is what the code expects; old stores are brought up, newer ones refused; nothing is imported for nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

from assay.errors import InputError, MissingExtra, ReadError
from assay.store import Store, migrate
from assay.store.address import Address, masked
from assay.store.records import Prediction
from assay.store.tables import tables

SECOND = '''"""For a test."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    import sqlalchemy as sa
    from alembic import op

    op.add_column("drafts", sa.Column("mood", sa.String(8), nullable=True))


def downgrade() -> None:
    from alembic import op

    op.drop_column("drafts", "mood")
'''


def differences(store: Store) -> list[object]:
    """Between the tables in the database and those that the code expects."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": migrate.VERSION_TABLE})
        return list(compare_metadata(context, tables().metadata))


def test_the_migrations_build_what_the_code_expects(tmp_path: Path) -> None:
    from sqlalchemy import create_engine

    with Store.open(tmp_path / "s") as store:
        assert differences(store) == []
        with store._database.reading() as connection:
            built = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name <> 'schema_version' AND sql IS NOT NULL").all())
    engine = create_engine("sqlite://")
    tables().metadata.create_all(engine)
    with engine.connect() as connection:
        wanted = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    def plain(tables: dict[str, str]) -> dict[str, str]:
        return {name: " ".join(sql.replace('"', "").split()).replace("( ", "(").replace(" )", ")") for name, sql in tables.items()}

    assert plain(built) == plain(wanted)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A folder of migrations with one more."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "0002_second.py").write_text(SECOND)
    return folder


def test_an_old_store_is_brought_up_with_its_rows_and_a_newer_one_is_refused(tmp_path: Path, newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "s"
    with Store.open(place) as store:
        store.write(predictions=[Prediction("p", 1.0, "m", 1, {})])
    try:
        with monkeypatch.context() as tomorrow:
            tomorrow.setattr(migrate, "FOLDER", newer)
            migrate.revisions.cache_clear()
            with Store.open(place, create=False) as store:
                assert any("mood" in str(d) for d in differences(store))
                assert store.predictions.count("m") == 1
                assert store.audit.verify().rows == 2
    finally:
        migrate.revisions.cache_clear()
    with pytest.raises(ReadError, match=r"has the schema 0002, but this assay knows only up to 0001.*Install that version") as raised:
        Store.open(place)
    assert "0002" in raised.value.text.to("zh")


def test_the_way_back_leaves_nothing(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    with Store.open(tmp_path / "s") as store, store._database.alone() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.FOLDER))
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        left = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    assert list(left) == [migrate.VERSION_TABLE]


def test_a_store_that_is_up_to_date_opens_without_alembic(tmp_path: Path) -> None:
    Store.open(tmp_path / "s").close()
    code = f"import sys; from assay.store import Store; Store.open({str(tmp_path / 's')!r}).audit.verify(); print(sorted({{'alembic', 'polars', 'numpy', 'psycopg', 'pymysql'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_migrations_are_in_the_installed_package() -> None:
    packages = find_packages(str(Path(migrate.__file__).parents[2]))
    assert {"assay.store.migrations", "assay.store.migrations.versions"} <= set(packages)
    assert migrate.revisions()[0] == "0001"


# ---- addresses


@pytest.mark.parametrize(("text", "shown"), [
    ("postgresql://ann:s3cret@h/db", "postgresql://ann:***@h/db"), ("mysql+pymysql://ann:a@b:c/d@h:3306/db?x=1", "mysql+pymysql://ann:***@h:3306/db?x=1"),
    ("mariadb://h/db?password=s3cret&x=1", "mariadb://h/db?password=***&x=1"), ("sqlite:///a.db", "sqlite:///a.db"), ("a:b@c.sqlite", "a:b@c.sqlite"),
    ("postgres://ann@h/db", "postgres://ann@h/db")])
def test_an_address_is_shown_without_its_password(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_plain_addresses_find_the_drivers_that_are_installed() -> None:
    assert Address.of("postgres://u@h/d").url == "postgresql+psycopg://u@h/d"
    assert Address.of("mariadb://u@h/d").url == "mariadb+pymysql://u@h/d?charset=utf8mb4"
    assert Address.of("mysql+pymysql://u@h/d?charset=utf8").url == "mysql+pymysql://u@h/d?charset=utf8"
    assert Address.of("sqlite:////tmp/a%20b.sqlite").file == Path("/tmp/a b.sqlite")
    assert Address.of("a b?c#d.sqlite").file == Path("a b?c#d.sqlite").absolute()
    assert "secret" not in repr(Address.of("postgresql://u:secret@h/d"))


@pytest.mark.parametrize("text", ["mongodb://ann:hunter2@h/db", "sqlite://", "sqlite://h/x", "https://ann:hunter2@example.com/x", "postgresql://ann:hunter2/b@h:port/db", "mysql://ann:hunter2@h"])
def test_what_is_no_address_is_one_sentence_without_the_password(text: str) -> None:
    with pytest.raises(InputError) as raised:
        Store.open(text)
    assert "hunter2" not in str(raised.value)
    assert "postgresql://user:password@host:5432/name" in raised.value.text.to("zh")


def test_a_file_with_an_odd_name_is_that_file(tmp_path: Path) -> None:
    odd = tmp_path / "a?b#c%20d 'e\".sqlite"
    with Store.open(odd) as store:
        store.audit.add("cli", "x", {})
    assert {p.name for p in tmp_path.iterdir()} == {odd.name}


@pytest.mark.parametrize(("url", "package"), [("postgresql://u@127.0.0.1/d", "psycopg"), ("mysql://u@127.0.0.1/d", "pymysql")])
def test_without_the_driver_the_extra_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.store.address.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=rf"'{package}'.*assay\[store\]"):
        Store.open(url)
