"""The store in real PostgreSQL and MariaDB servers: the same rows, the same chain, and sentences without passwords."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote, unquote, urlsplit

import database_server as servers
import msgspec
import pytest

from assay.errors import AssayError, EndpointError, InputError
from assay.store import Store, Writer, migrate
from assay.store.records import Draft, Feedback, Prediction, Traffic
from assay.store.scribe import Scribe
from assay.store.tables import tables
from assay.words import say

SECRET = "p@ss:w/rd%1"  # every character that an address gives a meaning to
New = Callable[[], str]


@pytest.fixture(scope="module")
def postgres() -> Iterator[New]:
    """Makes an empty database in a running PostgreSQL; its address."""
    if servers.postgres() is None:
        pytest.skip("PostgreSQL's programs are not installed (Debian: postgresql)")
    psycopg = pytest.importorskip("psycopg", reason="the driver is not installed (extra store)")
    with servers.postgres_server(SECRET) as server:
        made = []

        def new() -> str:
            made.append(f"shop{len(made)}")
            with psycopg.connect(host="127.0.0.1", port=server.port, user="postgres", password=SECRET, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {made[-1]}")
            return f"postgresql://postgres:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/{made[-1]}"

        yield new


@pytest.fixture(scope="module")
def mariadb() -> Iterator[New]:
    if not servers.mariadb():
        pytest.skip("MariaDB's programs are not installed (Debian: mariadb-server)")
    pymysql = pytest.importorskip("pymysql", reason="the driver is not installed (extra store)")
    with servers.mariadb_server() as server:
        made = []

        def new() -> str:
            made.append(f"shop{len(made)}")
            with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {made[-1]} CHARACTER SET latin1")  # an old one: the tables say themselves what they hold
                cursor.execute(f"CREATE USER IF NOT EXISTS reader IDENTIFIED BY '{SECRET}'")
                cursor.execute("GRANT ALL ON *.* TO reader")
            return f"mysql://reader:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/{made[-1]}"

        yield new


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def answered(i: int, **changes: object) -> Prediction:
    made = Prediction(f"p{i:06d}", 1e9 + i / 7, "churn", 1, {"label": "第", "p": 0.1 + i / 3}, {"text": "x" * 100_000 if i == 5 else "网速 😀", "n": i / 3}, doubt=i / 977, ms=1 / 3)
    return msgspec.structs.replace(made, **changes)


def unspoken(error: BaseException) -> str:
    sentence = str(error)
    assert not [s for s in (SECRET, quote(SECRET), quote(SECRET, safe="")) if s in sentence]
    assert "\n" not in sentence
    return sentence


def refused(url: str, *, error: type[AssayError]) -> str:
    with pytest.raises(error) as raised:
        Store.open(url)
    raised.value.text.to("zh")
    return unspoken(raised.value)


def test_rows_come_back_as_they_were_and_the_chain_verifies(store: Store) -> None:
    hostile = "Robert'); DROP TABLE predictions;-- %s %(x)s :y \\ \" `"
    rows = [answered(i) for i in range(700)] + [answered(800, model=hostile, actor="键\0"), answered(801, model="CHURN", of="p000001", arm="shadow", doubt=float("nan"))]
    said = [Feedback("churn", prediction="p000001", label="no", note=hostile), Feedback("churn", prediction="p000001", label={"half": "\ud800", "zero": "\0"}), Feedback("churn", label=1, row={})]
    assert store.write(predictions=rows, feedback=said, traffic=[Traffic(5, "churn", 0, 1, 0, 0, 0.1, {"5": 1})]) == [1, 2, 3]
    store.write(traffic=[Traffic(5, "churn", 0, 1, 0, 0, 0.2, {"5": 1})])
    assert [store.predictions.get(row.id) for row in rows[:6]] == rows[:6]
    assert list(store.predictions.between("churn", 0, 2e9)) == rows[:700]
    odd = store.predictions.get("p000800")
    assert odd is not None
    assert (odd.model, odd.actor) == (hostile, "键\ufffd")
    assert store.predictions.count("CHURN") == 1, "names differ by case"
    assert [(p.id, f.label) for p, f in store.predictions.labelled("churn")] == [("p000001", {"half": "\ud800", "zero": "\0"})]
    assert [p.id for p in store.predictions.unlabelled("churn", 2)] == ["p000699", "p000698"]
    assert store.traffic.between("churn", 300, 301)[0].requests == 2
    assert store.audit.verify()
    assert store.predictions.expire(rows[300].at) == 300
    assert store.audit.verify()
    with store._database.writing() as transaction:
        transaction.connection.execute(tables().predictions.update().where(tables().predictions.c.id == "p000500").values(doubt=0.5))
    assert "was changed" in str(store.audit.verify().reason)


def test_the_other_rooms_work_as_on_sqlite(store: Store) -> None:
    key, secret = store.keys.make("shop", ["predict"], ttl_s=100)
    assert store.keys.find(secret, time.time()) == key
    new, _ = store.keys.rotate(key.id, 5)
    assert store.keys.revoke(new.id).revoked is not None
    store.versions.add("churn", "a" * 64, "f", "serve", {"第": [1.5, None]})
    store.versions.add("churn", "b" * 64, "f", "retrain", {})
    store.versions.promote("churn", 1, "cli", "first")
    store.versions.challenge("churn", 2, "canary", 1 / 3)
    assert store.versions.promote("churn", 2, "service", "won").previous == 1
    assert store.versions.rollback("churn", "cli", "no") == store.versions.stage("churn")
    alarm = store.alarms.add("churn", "drift", "warning", say("again"), {})
    assert alarm is not None
    assert store.alarms.add("churn", "drift", "warning", say("again"), {}) is None
    assert store.alarms.close(alarm.id, "cli").closed is not None
    store.sketches.add("churn", 1, 0.0, 5.0, 10, bytes(range(256)) * 1000)
    assert next(store.sketches.between("churn", 1, 0, 1)).data == bytes(range(256)) * 1000
    store.drafts.add(Draft("d", 1.0, "reply", "q", "😀"))
    assert store.drafts.settle("d", "accepted", None, "x").final == "😀"
    with pytest.raises(InputError, match="such a row already"):
        store.drafts.add(Draft("d", 1.0, "reply", "q", "a"))
    assert store.audit.verify().rows == 13


def test_the_migrations_build_what_the_code_expects(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, tables().metadata) == []


def test_processes_that_write_at_the_same_time_make_one_unbroken_chain(url: str) -> None:
    """They also all open a store whose tables are not there yet."""
    code = """
import sys
from assay.store import Store
from assay.store.records import Feedback, Prediction
store = Store.open(sys.argv[1])
for n in range(10):
    store.write(predictions=[Prediction(f"{sys.argv[2]}-{n}-{i}", 1.0, "m", 1, {}) for i in range(5)], feedback=[Feedback("m", prediction=f"{sys.argv[2]}-{n}-0", label=n)])
    store.alarms.add("m", "drift", "info", {}, {})
"""
    children = [subprocess.Popen([sys.executable, "-c", code, url, str(n)], stderr=subprocess.PIPE, text=True) for n in range(3)]
    for child in children:
        assert child.communicate(timeout=90)[1] == ""
    with Store.open(url) as store:
        assert store.audit.verify().rows == 1 + 3 * 10 + 1
        assert [f.id for f in store.feedback.since("m", 0)] == list(range(1, 31))
        assert len(store.alarms.open("m")) == 1


def test_a_connection_that_is_cut_is_made_again_and_the_writer_loses_nothing(url: str, store: Store) -> None:
    writer = Writer(store, linger_s=0.01)
    writer.put(answered(0))
    assert writer.drain(10)
    labels = []
    for i in range(4):
        _cut(url)
        writer.put(answered(i + 1))
        labels.append(writer.submit(Feedback("churn", prediction=f"p{i + 1:06d}", label=i)))
        assert labels[-1].result(20) == i + 1
    assert writer.close()
    assert store.predictions.count("churn") == 5
    assert store.audit.verify()


def test_a_scribe_that_is_cut_off_or_killed_loses_nothing(url: str, store: Store) -> None:
    scribe = Scribe(url)
    writer = Writer(scribe, linger_s=0.01, owns=True)
    for i in range(6):
        assert writer.put(answered(i))
        if i % 2:
            _cut(url)
        elif scribe.pid is not None:
            os.kill(scribe.pid, signal.SIGKILL)
        assert writer.submit(Feedback("churn", prediction=f"p{i:06d}", label=i)).result(30) == i + 1
    assert writer.close()
    assert store.predictions.count("churn") == 6
    assert store.audit.verify()


def _cut(url: str) -> None:
    """All connections to this database but our own."""
    parts = urlsplit(url)
    if url.startswith("postgres"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as own:
            own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        return
    import pymysql

    with pymysql.connect(host="127.0.0.1", port=parts.port or 0, user="root") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s AND id <> connection_id()", (parts.path[1:],))
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {int(number)}")


class Wire:
    """Between the store and its server: may refuse calls (away), and may be cut when a COMMIT has arrived but its answer has not (deaf)."""

    def __init__(self, port: int) -> None:
        self.away, self.deaf, self._port = False, False, port
        self._ends: list[socket.socket] = []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self) -> None:
        while True:
            near, _ = self._door.accept()
            if self.away:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [near, far]
            for source, sink, asks in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, asks), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if asks and self.deaf and re.search(rb"COMMIT(?!TED)", data):
                    self.deaf = False
                    self._ends.remove(source)
                    source.shutdown(socket.SHUT_RDWR)
                    sink.sendall(data)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


def test_a_commit_whose_answer_is_lost_is_not_done_twice_and_a_server_may_come_back(url: str) -> None:
    wire = Wire(urlsplit(url).port or 0)
    with Store.open(re.sub(r"(@127.0.0.1):\d+/", rf"\1:{wire.port}/", url)) as store:
        writer = Writer(store, linger_s=0.01)
        assert writer.submit(Feedback("m", label=0)).result(20) == 1
        wire.deaf = True
        writer.put(answered(1, model="m"))
        lost = writer.submit(Feedback("m", prediction="p000001", label=1))
        assert lost.result(20) == 2
        assert not wire.deaf, "the answer to a COMMIT was cut off"
        wire.away = True
        wire.cut()
        waits = writer.submit(Feedback("m", label=2))
        until = time.monotonic() + 20
        while writer.trouble is None and time.monotonic() < until:
            time.sleep(0.01)
        assert "The store cannot be written at the moment, 1 rows wait: " in str(writer.trouble)
        assert SECRET not in str(writer.trouble)
        assert not waits.done()
        wire.away = False
        assert waits.result(20) == 3
        assert writer.trouble is None
        assert writer.close()
        assert [f.label for f in store.feedback.since("m", 0)] == [0, 1, 2]
        assert store.predictions.count("m") == 1
        assert store.audit.verify().rows == 4


def test_a_server_that_does_not_let_us_in_says_why_in_one_sentence(url: str) -> None:
    wrong = re.sub(r":[^:@]*@", ":hunter2%40@", url)
    sentence = refused(wrong, error=InputError)
    assert "does not let us in" in sentence
    assert "hunter2" not in sentence
    assert ":***@" in sentence
    sentence = refused(re.sub(r"/\w+$", "/nodatabase", url), error=InputError)
    assert "nodatabase" in sentence
    assert "No database answers at" in refused(re.sub(r":\d+/", ":9/", url), error=EndpointError)
    assert SECRET not in unquote(refused(re.sub(r"@127.0.0.1", "@no.such.host.invalid", url), error=EndpointError))


def test_a_newer_schema_is_refused(store: Store, url: str) -> None:
    with store._database.writing() as transaction:
        transaction.connection.exec_driver_sql("UPDATE schema_version SET version_num = '9999'")
    assert "has the schema 9999, but this assay knows only up to" in refused(url, error=AssayError)


def test_an_empty_database_is_no_store_unless_one_may_be_made(postgres: New) -> None:
    url = postgres()
    with pytest.raises(InputError, match="There is no store at"):
        Store.open(url, create=False)
    Store.open(url).close()
    Store.open(url, create=False).close()
