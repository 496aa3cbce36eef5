"""Nothing acknowledged is lost: kill -9, a power cut, a full disk, several processes at once. All of it on real files and real processes."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.errors import AssayError, BudgetError, InputError, ReadError
from assay.store import Store
from assay.store.address import Address
from assay.store.failures import explained

WRITES = """
import os, sys
from assay.store import Store
from assay.store.records import Feedback, Prediction, new_id
place, name, checkpoint = sys.argv[1:]
store = Store.open(place)
if checkpoint:
    from sqlalchemy import event
    store._database.engine.dispose()
    event.listen(store._database.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA wal_autocheckpoint = {checkpoint}").close())
n = 0
while True:
    n += 1
    key = f"{name}-{n}"
    store.write(predictions=[Prediction(key, float(n), "m", 1, {"label": "x" * (n % 700)})], feedback=[Feedback("m", prediction=key, label=n)])
    print(key, os.path.getsize(place + "-wal"), flush=True)
"""


def writing(place: Path, name: str, checkpoint: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITES, str(place), name, "" if checkpoint is None else str(checkpoint)], stdout=subprocess.PIPE, text=True)


def told(child: subprocess.Popen[str], lines: int) -> list[tuple[str, int]]:
    """What the child has acknowledged so far: key and size of the log after the commit."""
    assert child.stdout is not None
    out = []
    for _ in range(lines):
        key, size = child.stdout.readline().split()
        out.append((key, int(size)))
    return out


def kept(place: Path) -> set[str]:
    """The keys in the store, after a look at all its rows; labels and predictions are together."""
    with Store.open(place) as store:
        found = store.audit.verify()
        assert found, found.reason
        keys = {p.id for p in store.predictions.between("m", 0, 1e12)}
        assert keys == {p.id for p, _ in store.predictions.labelled("m")}
    return keys


def test_what_was_acknowledged_before_kill_9_is_there_and_the_chain_holds(tmp_path: Path) -> None:
    place = tmp_path / "store.sqlite"
    Store.open(place).close()
    children = [writing(place, name) for name in "ab"]
    said = [told(child, 30) for child in children]
    for child in children:
        child.send_signal(signal.SIGKILL)
    for child, lines in zip(children, said, strict=True):
        assert child.stdout is not None
        lines += [(line.split()[0], 0) for line in child.stdout.read().splitlines() if len(line.split()) == 2]
        child.wait()
    found = kept(place)
    assert {key for lines in said for key, _ in lines} <= found
    assert len(found) <= sum(map(len, said)) + 2, "at most the one that each was at"
    with Store.open(place) as store:
        store.audit.add("cli", "goes on", {})
        assert store.audit.verify()


@pytest.mark.parametrize("seed", range(2))
def test_after_a_power_cut_all_is_there_that_the_log_on_the_disk_holds(tmp_path: Path, seed: int) -> None:
    """The write-ahead log is cut at any byte (and what was behind it may be rubbish): what was acknowledged before that byte was written must be there."""
    place = tmp_path / "store.sqlite"
    Store.open(place).close()
    child = writing(place, "a", checkpoint=0)  # so that all of it stays in the log
    said = told(child, 40)
    child.send_signal(signal.SIGSTOP)  # nobody writes while the files are copied, as when the power is gone
    try:
        rng, amounts = random.Random(seed), set()
        whole = place.with_name("store.sqlite-wal").stat().st_size
        assert said[-1][1] <= whole
        for n in range(8):
            cut = tmp_path / f"cut{n}.sqlite"
            shutil.copy(place, cut)
            log = (tmp_path / "store.sqlite-wal").read_bytes()
            end = whole if n == 0 else rng.randrange(whole)
            rubbish = rng.randbytes(rng.randrange(9000)) if n % 2 else b""
            Path(f"{cut}-wal").write_bytes(log[:end] + rubbish)
            found = kept(cut)
            acknowledged = {key for key, size in said if size <= end}
            assert acknowledged <= found
            amounts.add(len(acknowledged))
            assert found <= {f"a-{i}" for i in range(1, 10_000)}
            with Store.open(cut) as store:
                store.audit.add("cli", "goes on", {})
                assert store.audit.verify()
        assert len(amounts) > 3, "some cuts left much, some little"
    finally:
        child.kill()
        child.wait()


def test_a_power_cut_while_the_log_is_folded_into_the_file_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "store.sqlite"
    Store.open(place).close()
    child = writing(place, "a", checkpoint=3)
    try:
        for n in range(4):
            said = told(child, 12)
            child.send_signal(signal.SIGSTOP)
            time.sleep(0.02)
            for end in ("", "-wal"):
                shutil.copy(f"{place}{end}", tmp_path / f"cut{n}.sqlite{end}")
            assert said[-1][0] in kept(tmp_path / f"cut{n}.sqlite")
            child.send_signal(signal.SIGCONT)
    finally:
        child.kill()
        child.wait()


def test_a_full_disk_keeps_the_queue_and_says_so_until_there_is_room(tmp_path: Path) -> None:
    """No file of this child may grow beyond a limit, which the system tells a program in the same place as a full disk."""
    code = """
import resource, signal, sys, time
from assay.store import Store, Writer
from assay.store.records import Feedback, Prediction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store.open(sys.argv[1])
writer = Writer(store, linger_s=0.01)
assert writer.submit(Feedback("m", label=0)).result(10) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
for i in range(300):
    assert writer.put(Prediction(f"p{i}", float(i), "m", 1, {"text": "x" * 5000}))
label = writer.submit(Feedback("m", prediction="p299", label=1))
until = time.monotonic() + 20
while writer.trouble is None and time.monotonic() < until:
    time.sleep(0.01)
print(writer.trouble)
print(writer.trouble.to("zh"))
assert not writer.drain(0.3) and not label.done() and writer.waiting > 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert label.result(20) == 2
assert writer.drain(20) and writer.trouble is None, writer.trouble
assert store.audit.verify() and store.predictions.count("m") == 300
print("all there")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store.sqlite")], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    english, chinese, last = done.stdout.splitlines()
    assert english.startswith("The store cannot be written at the moment, ")
    assert "No room is left for the store" in english
    assert "没有空间" in chinese
    assert last == "all there"
    assert done.stderr == ""


def test_processes_that_write_at_the_same_time_make_one_unbroken_chain(tmp_path: Path) -> None:
    """They also all open a store that is not there yet."""
    code = """
import sys
from assay.store import Store
from assay.store.records import Feedback, Prediction
store = Store.open(sys.argv[1])
for n in range(20):
    store.write(predictions=[Prediction(f"{sys.argv[2]}-{n}-{i}", 1.0, "m", 1, {}) for i in range(5)], feedback=[Feedback("m", prediction=f"{sys.argv[2]}-{n}-0", label=n)])
    store.alarms.add("m", "drift", "info", {}, {})
"""
    place = tmp_path / "new" / "store.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", code, str(place), str(n)], stderr=subprocess.PIPE, text=True) for n in range(5)]
    for child in children:
        assert child.communicate(timeout=90)[1] == ""
    with Store.open(place) as store:
        assert store.audit.verify().rows == 1 + 5 * 20 + 1
        assert store.predictions.count("m") == 500
        assert [f.id for f in store.feedback.since("m", 0)] == list(range(1, 101))
        assert len(store.alarms.open("m")) == 1


def test_a_new_store_that_many_open_at_the_same_moment_is_opened_by_all(tmp_path: Path) -> None:
    """SQLite itself refused one in a hundred: it does not wait before it changes the mode of the log."""
    code = """
import os, sys, time
import alembic.command, sqlalchemy
from assay.store import Store
for n in range(6):
    go, children = time.time() + 0.1, []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                time.sleep(max(0, go - time.time()))
                Store.open(f"{sys.argv[1]}/{n}/s").audit.add("cli", "x", {})
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert Store.open(f"{sys.argv[1]}/{n}/s").audit.verify().rows == 9
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_store_that_is_none_or_has_no_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(ReadError, match="is damaged, or no store"):
        Store.open(tmp_path / "x")
    with pytest.raises(InputError, match="There is no store at"):
        Store.open(tmp_path / "y", create=False)
    assert not (tmp_path / "y").exists()
    with pytest.raises(InputError, match="cannot be made"):
        Store.open(tmp_path / "x" / "store.sqlite")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BudgetError, match="cannot be opened"):
        Store.open(tmp_path / "folder")


def test_what_sqlite_says_is_told_apart(tmp_path: Path) -> None:
    """By its own errors, made on purpose: a writer tries again after some of them, not after others."""
    place = tmp_path / "s"
    Store.open(place).close()
    address = Address.of(place)

    def said(uri: str, sql: str) -> AssayError:
        connection = sqlite3.connect(f"file:{place}{uri}", uri=True, timeout=0)
        try:
            with pytest.raises(sqlite3.Error) as raised:
                connection.execute(sql)
            return explained(raised.value, address)
        finally:
            connection.close()

    readonly = said("?mode=ro", "DELETE FROM audit")
    assert isinstance(readonly, BudgetError)
    assert "Give this user the right to write" in str(readonly)
    holder = sqlite3.connect(place)
    holder.execute("BEGIN IMMEDIATE")
    busy = said("", "BEGIN IMMEDIATE")
    assert isinstance(busy, BudgetError)
    assert "is busy: database is locked" in str(busy)
    holder.close()
    assert isinstance(said("", "INSERT INTO head VALUES (1, 0, '', 0)"), InputError)
    assert not isinstance(said("", "SELECT nothing"), (BudgetError, InputError))


def test_every_connection_syncs_the_disk_at_a_commit_and_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s") as store, store._database.reading() as one, store._database.reading() as two:
        for connection in (one, two):
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
