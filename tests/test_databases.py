"""Databases: SQLite from a file, PostgreSQL and MariaDB from servers that are started for these tests."""

from __future__ import annotations

import datetime
import os
import re
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import database_server as servers
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from private_memory import peak_of

from assay.data import drivers, sql
from assay.data.load import load, opened, shown
from assay.data.query import reading
from assay.data.read import read
from assay.errors import InputError, MissingExtra, ReadError


def refused(source: object, *, error: type[InputError] = ReadError, **options: object) -> str:
    with pytest.raises(error) as raised:
        read(source, **options)  # type: ignore[arg-type]
    raised.value.text.to("zh")
    return str(raised.value)


# ---- databases: SQLite


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with a table of 3,000 complaints, cells of every type among them."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE complaints (number INTEGER, text TEXT, price REAL, day DATE, odd, category TEXT)")
        connection.executemany("INSERT INTO complaints VALUES (?, ?, ?, ?, ?, ?)", (
            (i, f"第{i}单，快递太慢", None if i % 10 == 0 else i / 4, f"2024-03-{1 + i % 28:02d}", i if i < 2000 else "更多", "物流" if i % 3 else "质量") for i in range(3000)))
        connection.execute("CREATE TABLE refunds (a, b)")
    return path


def test_sqlite_gives_its_rows_with_types_gaps_and_chinese_intact(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "ROWS", 700)  # the odd column changes its type between batches
    for source in (f"sqlite:///{shop}", shop):
        frame, _ = load(source, query="SELECT * FROM complaints ORDER BY number; -- all\n")
        assert frame["number"].to_list() == list(range(3000))
        assert frame["text"][7] == "第7单，快递太慢"
        assert frame["price"].dtype == pl.Float64
        assert frame["price"].null_count() == 300
        assert frame["odd"].to_list() == [str(i) for i in range(2000)] + ["更多"] * 1000
    reading = read(shop, query="SELECT text, price, day, category FROM complaints", target="category")
    assert {c.name: c.kind for c in reading.dataset.schema.columns} == {"text": "text", "price": "number", "day": "time", "category": "category"}


def test_batches_beyond_what_is_held_lie_on_disk_and_give_the_same_table(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = load(shop, query="SELECT * FROM complaints")
    monkeypatch.setattr(drivers, "ROWS", 400)
    monkeypatch.setattr(sql, "_HELD", 50_000)
    with opened(shop, query="SELECT * FROM complaints") as table:
        assert len(table.pieces) > 3
        assert table.frame().equals(whole)


def test_a_database_without_a_query_lists_its_tables(shop: Path) -> None:
    assert "SELECT * FROM complaints" in refused(f"sqlite:///{shop}")
    assert "complaints, refunds" in refused(shop)


@pytest.mark.parametrize(("query", "words"), [
    ("DELETE FROM complaints", "begins with 'DELETE'"), ("SELECT 1; DROP TABLE complaints", "more than one statement"), ("", "SELECT * FROM complaints"),
    ("-- nothing", "is empty"), ("WITH a AS (SELECT 1) DELETE FROM complaints", "write or lock"), ("PRAGMA journal_mode = delete", "begins with 'PRAGMA'"),
    ("SELECT * FROM complaint", "no such table: complaint. Its tables are: complaints, refunds"), ("SELECT nocolumn FROM complaints", "no such column"),
    ("SELECT * FROM complaints WHERE number < 0", "no rows. Its columns are: number, text, price"), ("SELECT * FROM refunds", "columns are: a, b"),
    ("SELECT a.text, b.text FROM complaints a, complaints b LIMIT 3", "more than one column called: text"), ("SELEC 1", "begins with 'SELEC'"),
    ("SELECT load_extension('x')", "refuses the query")])
def test_a_query_that_gives_no_table_is_one_sentence(shop: Path, query: str, words: str) -> None:
    assert words in refused(shop, query=query)


def test_nothing_is_written_even_by_a_query_that_looks_harmless(shop: Path) -> None:
    before = shop.read_bytes()
    assert "ATTACH" in refused(shop, query="ATTACH DATABASE 'other.db' AS other")
    assert load(shop, query="SELECT ';' AS a, 'DROP TABLE x' AS b, \"text\" AS 'insert into' FROM complaints LIMIT 1")[0].width == 3
    assert shop.read_bytes() == before
    assert sorted(p.name for p in shop.parent.iterdir()) == ["shop.db"]


def test_a_query_without_end_is_left_at_the_deadline(shop: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    begin = time.monotonic()
    with pytest.raises(ReadError, match=r"did not deliver within 0\.5 s"):
        read(shop, query=endless, timeout_s=0.5)
    assert time.monotonic() - begin < 5


def test_what_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert refused(tmp_path / "x.db", query="SELECT * FROM t")
    assert "no file 'y.db'" in refused(f"sqlite:///{tmp_path}/y.db", query="SELECT 1")
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert "'t.csv' is none" in refused(tmp_path / "t.csv", query="SELECT 1", error=InputError)
    assert "DataFrame' is none" in refused(pl.DataFrame({"a": [1]}), query="SELECT 1", error=InputError)


def test_rows_of_a_database_need_no_memory_of_their_size(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "e.db").execute("CREATE TABLE t (a)").connection.close()
    query = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT i, hex(zeroblob(400)) AS t FROM n"
    size, peak = peak_of("from assay.data.load import opened\n"
                         f"with opened({str(tmp_path / 'e.db')!r}, query={query!r}) as table: size = table.height * (8 + 816)")
    assert size > 230
    assert peak < 0.75 * size


@given(st.lists(st.sampled_from(["'a;b'", '"x;y"', "-- ; drop\n", "/* ; */", "''", "'it''s; so'", " 1 ", "+"]), max_size=8))
def test_marks_inside_strings_and_comments_end_no_statement(parts: list[str]) -> None:
    query = "SELECT " + " ".join(parts) + " 1"
    assert reading(query, "sqlite") == query
    with pytest.raises(ReadError, match="more than one"):
        reading(query + " ; SELECT 2", "sqlite")


@pytest.mark.parametrize(("dialect", "query", "words"), [
    ("mysql", "SELECT 'it\\'s' INTO OUTFILE '/tmp/x'", "write or lock"), ("mysql", "SELECT 1 /*!50000 INTO OUTFILE '/tmp/x' */", "would execute"),
    ("mysql", "SELECT 1 # ; comment\n; DELETE FROM t", "more than one"), ("postgresql", "SELECT E'\\'' ; DROP TABLE t --'", "more than one"),
    ("postgresql", "SELECT * INTO copy FROM t", "write or lock"), ("postgresql", "SELECT * FROM t FOR UPDATE", "write or lock"),
    ("postgresql", "COPY t TO PROGRAM 'rm -rf /'", "begins with 'COPY'"), ("postgresql", "SELECT $a$;$a$; DELETE FROM t", "more than one"),
    ("postgresql", "WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x", "write or lock")])
def test_a_query_that_writes_is_refused_before_it_is_sent(dialect: str, query: str, words: str) -> None:
    with pytest.raises(ReadError, match=words):
        reading(query, dialect)


@pytest.mark.parametrize(("dialect", "query"), [
    ("postgresql", "SELECT $$; DROP TABLE t$$ AS a"), ("mysql", "SELECT `a;b`, REPLACE(x, 'a', 'b'), INSERT('abc', 1, 1, 'x') FROM t"),
    ("postgresql", "(SELECT 1) UNION (SELECT 2)"), ("postgresql", "VALUES (1), (2)"), ("mysql", "WITH a AS (SELECT 1) SELECT updated, deleted FROM a")])
def test_a_query_that_reads_is_sent_as_it_is(dialect: str, query: str) -> None:
    assert reading(query + " ;; ", dialect) == query


# ---- databases: real servers


SECRET = "p@ss:w/rd%1"  # every character that an address gives a meaning to


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a running PostgreSQL with a table of 20,000 rows."""
    if servers.postgres() is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: postgresql)")
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi", reason="the driver is not installed (extra sql)")
    with servers.postgres_server(SECRET) as server:
        url = f"postgresql://postgres:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/postgres"
        with dbapi.connect(url) as connection, connection.cursor() as cursor:
            for statement in (
                "CREATE TABLE complaints AS SELECT i AS number, '第' || i || '单，快递太慢' AS text, CASE WHEN i % 10 > 0 THEN i / 4.0 END::numeric(12, 2) AS price, "
                "DATE '2024-01-01' + i % 300 AS day, i % 2 = 0 AS paid, TIMESTAMPTZ '2024-01-01 08:00+08' + i * INTERVAL '1 minute' AS at, "
                "CASE WHEN i % 3 > 0 THEN '物流' ELSE '质量' END AS category, 12345678901234567890123456 + i AS long, gen_random_uuid() AS key "
                "FROM generate_series(0, 19999) i",
                "CREATE FUNCTION sneak() RETURNS int LANGUAGE plpgsql AS $$ BEGIN DELETE FROM complaints; RETURN 1; END $$",
                "CREATE USER weak PASSWORD 'weak'"):
                cursor.execute(statement)
            connection.commit()
        yield url


@pytest.fixture(scope="module")
def mariadb() -> Iterator[str]:
    """The address of a running MariaDB with the same table."""
    if not servers.mariadb():
        pytest.skip("MariaDB's programs are not installed (Debian: mariadb-server)")
    pymysql = pytest.importorskip("pymysql", reason="the driver is not installed (extra sql)")
    with servers.mariadb_server() as server:
        with pymysql.connect(host="127.0.0.1", port=server.port, user="root", charset="utf8mb4") as connection, connection.cursor() as cursor:
            for statement in (
                "CREATE DATABASE shop CHARACTER SET utf8mb4", "USE shop",
                "CREATE TABLE complaints AS SELECT CAST(seq AS INT) AS number, concat('第', seq, '单，快递太慢') AS text, CAST(IF(seq % 10, seq / 4, NULL) AS DECIMAL(12, 2)) AS price, "
                "DATE_ADD(DATE '2024-01-01', INTERVAL seq % 300 DAY) AS day, seq % 2 = 0 AS paid, TIMESTAMP('2024-01-01 00:00:00') + INTERVAL seq MINUTE AS at, "
                "IF(seq % 3, '物流', '质量') AS category, CAST('12345678901234567890123456' AS DECIMAL(30, 0)) + seq AS long_number FROM seq_0_to_19999",
                f"CREATE USER reader IDENTIFIED BY '{SECRET}'", "GRANT ALL ON shop.* TO reader", "COMMIT"):
                cursor.execute(statement)
        yield f"mysql://reader:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/shop"


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def unspoken(sentence: str) -> str:
    """The sentence, which must not hold the password in any form."""
    assert not [s for s in (SECRET, quote(SECRET), quote(SECRET, safe="")) if s in sentence]
    return sentence


def test_a_server_gives_its_rows_with_types_gaps_and_chinese_intact(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "ROWS", 3000)
    frame, _ = load(server, query="SELECT number, text, price, day, paid, at, category FROM complaints ORDER BY number")
    i = list(range(20_000))
    assert frame["number"].to_list() == i
    assert frame["text"].to_list() == [f"第{n}单，快递太慢" for n in i]
    assert frame["price"].dtype == pl.Float64
    assert frame["price"].to_list() == [n / 4 if n % 10 else None for n in i]
    assert frame["day"].to_list() == [datetime.date(2024, 1, 1) + datetime.timedelta(n % 300) for n in i]
    assert frame["paid"].cast(pl.Boolean).to_list() == [n % 2 == 0 for n in i]
    assert frame["at"].dt.replace_time_zone(None).to_list() == [datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=n) for n in i]
    reading = read(server, query="SELECT text, price, day, category FROM complaints", target="category")
    assert {c.name: c.kind for c in reading.dataset.schema.columns} == {"text": "text", "price": "number", "day": "time", "category": "category"}


def test_numbers_too_long_for_a_float_keep_their_digits(postgres: str, mariadb: str) -> None:
    for url, name in ((postgres, "long"), (mariadb, "long_number")):
        frame, _ = load(url, query=f"SELECT {name} AS n FROM complaints ORDER BY number")
        assert frame["n"][7] == "12345678901234567890123463"
    assert load(postgres, query="SELECT key, INTERVAL '1 day 02:00' AS t FROM complaints")[0].row(0)[1] == 93_600
    assert "money::numeric" in refused(postgres, query="SELECT 1::money")


def test_a_server_without_a_query_lists_its_tables(server: str) -> None:
    assert "--query 'SELECT * FROM complaints'. Its tables are: complaints." in unspoken(refused(server))


def test_a_server_that_refuses_says_why_in_one_sentence(server: str) -> None:
    assert "complaint" in unspoken(refused(server, query="SELECT * FROM complaint"))
    assert "Its tables are: complaints" in refused(server, query="SELECT * FROM complaint")
    assert "refuses the query" in refused(server, query="SELECT nocolumn FROM complaints")
    assert "no rows. Its columns are: number, text" in refused(server, query="SELECT number, text FROM complaints WHERE number < 0")
    wrong = re.sub(r":[^:@]*@", ":hunter2%40@", server)
    for url in (wrong, re.sub(r"/\w+$", "/nodatabase", server)):
        sentence = unspoken(refused(url, query="SELECT 1 AS a"))
        assert "does not let us in" in sentence
        assert "hunter2" not in sentence
        assert "***" in sentence
    assert "does not let us in" in refused(wrong)
    assert "No database answers at 127.0.0.1, port 9" in unspoken(refused(re.sub(r":\d+/", ":9/", server), query="SELECT 1 AS a"))
    assert "is no address" in refused("postgresql://ann:a/b@h:port/db", query="SELECT 1")


def test_what_is_no_database_s_address_is_one_sentence() -> None:
    assert "is no address" in refused("sqlite://", query="SELECT 1")
    sentence = refused("mongodb://ann:hunter2@h/db", query="SELECT 1")
    assert "mongodb://ann:***@h/db" in sentence
    assert "name the file" in refused("https://example.com/t.csv")


def test_a_server_that_sleeps_is_left_at_the_deadline(server: str) -> None:
    begin = time.monotonic()
    sleeping = "SELECT pg_sleep(30)" if server.startswith("postgres") else "SELECT sleep(30)"
    with pytest.raises(ReadError, match="did not deliver within 1 s"):
        read(server, query=sleeping, timeout_s=1.0)
    assert time.monotonic() - begin < 8


def test_nothing_is_written_by_a_function_that_writes(postgres: str) -> None:
    assert "read-only" in refused(postgres, query="SELECT sneak()")
    assert load(postgres, query="SELECT count(*) AS n FROM complaints")[0].item() == 20_000


LONG = {"postgresql": "SELECT i, repeat('x', 500) AS t FROM generate_series(1, 400000) i", "mysql": "SELECT seq, repeat('x', 500) AS t FROM shop.seq_1_to_400000"}


def interrupted(url: str, act, monkeypatch: pytest.MonkeyPatch, **options: float) -> str:  # type: ignore[no-untyped-def]
    """The sentence when `act` is done to the server after some rows have come."""
    whole, seen = sql._on_disk, []

    def once(frames: list[pl.DataFrame], path: Path) -> pl.DataFrame:
        if not seen:
            seen.append(sum(f.height for f in frames))
            act()
        return whole(frames, path)

    monkeypatch.setattr(sql, "_HELD", 1 << 20)
    monkeypatch.setattr(sql, "_on_disk", once)
    sentence = unspoken(refused(url, query=LONG[url.partition(":")[0]], **options))  # type: ignore[arg-type]
    assert seen
    return sentence


def test_a_connection_that_is_ended_half_way_is_no_shorter_table(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        if server.startswith("postgres"):
            load(server, query="SELECT pg_terminate_backend(pid) AS a FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 400000)%' AND pid <> pg_backend_pid()")
        else:
            import pymysql

            parts = urlsplit(server)
            with pymysql.connect(host="127.0.0.1", port=parts.port, user="root") as connection, connection.cursor() as cursor:
                cursor.execute("SELECT id FROM information_schema.processlist WHERE info LIKE '%seq_1_to_400000%' AND id <> connection_id()")
                for (number,) in cursor.fetchall():
                    cursor.execute(f"KILL {number}")

    sentence = interrupted(server, end, monkeypatch)
    assert "broke off after" in sentence
    assert "Nothing of it was kept" in sentence


def test_a_server_that_is_killed_half_way_is_no_shorter_table(monkeypatch: pytest.MonkeyPatch) -> None:
    if servers.postgres() is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: postgresql)")
    pytest.importorskip("adbc_driver_postgresql.dbapi", reason="the driver is not installed (extra sql)")
    with servers.postgres_server(SECRET) as running:
        url = f"postgresql://postgres:{quote(SECRET, safe='')}@127.0.0.1:{running.port}/postgres"
        assert "broke off after" in interrupted(url, lambda: os.kill(running.pid, signal.SIGQUIT), monkeypatch)


def test_a_server_that_hangs_half_way_is_left_at_the_deadline(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = []

    def freeze() -> None:
        pid.append(load(postgres, query="SELECT pid FROM pg_stat_activity WHERE query LIKE '%generate_series(1, 400000)%' AND pid <> pg_backend_pid()")[0].item())
        os.kill(pid[0], signal.SIGSTOP)

    try:
        assert "did not deliver within 5 s" in interrupted(postgres, freeze, monkeypatch, timeout_s=5.0)
    finally:
        os.kill(pid[0], signal.SIGCONT)


def test_an_error_half_way_is_no_shorter_table(postgres: str) -> None:
    assert "division by zero" in refused(postgres, query="SELECT 1 / (i - 300000) AS a, repeat('x', 500) AS t FROM generate_series(1, 400000) i")


@pytest.mark.parametrize(("url", "module", "package"), [
    ("postgresql://u@127.0.0.1:{port}/d", "adbc_driver_postgresql.dbapi", "adbc-driver-postgresql"), ("mysql://u@127.0.0.1:{port}/d", "pymysql", "pymysql")])
def test_without_the_driver_the_extra_is_named(url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises(MissingExtra, match=rf"'{package}'.*assay\[sql\]"):
        load(url.replace("{port}", str(listening.getsockname()[1])), query="SELECT 1 AS a")


# ---- sources as they may be shown


@pytest.mark.parametrize(("url", "masked"), [
    ("postgresql://ann:s3cret@h/db", "postgresql://ann:***@h/db"), ("mysql+pymysql://ann:a@b:c/d@h:3306/db?x=1", "mysql+pymysql://ann:***@h:3306/db?x=1"),
    ("mariadb://h/db?password=s3cret&x=1", "mariadb://h/db?password=***&x=1"), ("sqlite:///a.db", "sqlite:///a.db"), ("a:b@c.csv", "a:b@c.csv"),
    ("postgres://ann@h/db", "postgres://ann@h/db")])
def test_a_source_is_shown_without_its_password(url: str, masked: str) -> None:
    assert shown(url) == masked
