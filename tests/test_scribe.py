"""The process that writes for a service: the same rows, the same errors, and nothing lost or written twice when it is killed."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from assay.errors import EndpointError, ReadError
from assay.store import Store, Writer
from assay.store.packing import RowError
from assay.store.records import Feedback, Prediction, Traffic
from assay.store.scribe import Scribe


@pytest.fixture
def place(tmp_path: Path) -> str:
    place = str(tmp_path / "store.sqlite")
    Store.open(place).close()
    return place


def answered(i: int, **row: object) -> Prediction:
    return Prediction(f"p{i:06d}", float(i), "m", 1, {"answer": "yes", "probability": 0.75}, row or {"x": 1.5, "word": "好"}, doubt=0.5, ms=0.25, actor="key")


ODD = [{"x": math.nan}, {"x": np.float32(0.5), "many": np.arange(3)}, {"half": "a\ud800b"}, {"large": 2**80}, {"deep": [{"a": None}]}, {1: "a number as a key"}, {"none": None, "yes": True}]


def test_rows_are_written_as_the_store_itself_writes_them(place: str, tmp_path: Path) -> None:
    rows = [answered(i, **row) if all(isinstance(k, str) for k in row) else Prediction(f"p{i:06d}", float(i), "m", 1, {"answer": 1}, row) for i, row in enumerate(ODD)]
    said, traffic = Feedback("m", prediction="p000000", label={"a": [1, "否"]}, note="why", at=5.0), Traffic(7, "m", 0, 3, 1, 1, 2.5, {"1": 3})
    scribe = Scribe(place)
    numbers = scribe.write(predictions=[scribe.held(r) for r in rows], feedback=[said], traffic=[traffic], token="t")
    assert scribe.written("t", time.time()) == numbers
    scribe.close()
    with Store.open(tmp_path / "other.sqlite") as other:
        assert other.write(predictions=rows, feedback=[said], traffic=[traffic]) == numbers
        with Store.open(place, create=False) as store:
            for one in rows:
                assert store.predictions.get(one.id) == other.predictions.get(one.id)
            assert store.feedback.recent("m") == other.feedback.recent("m")
            assert store.traffic.between("m", 0, 1e9) == other.traffic.between("m", 0, 1e9)
            assert store.audit.verify()


def test_a_row_that_is_there_already_is_refused_alone(place: str) -> None:
    scribe = Scribe(place)
    writer = Writer(scribe, linger_s=0.01, owns=True)
    assert all(writer.put(answered(i)) for i in (1, 2))
    assert writer.drain()
    assert all(writer.put(answered(i)) for i in (3, 2, 4))
    assert writer.drain()
    assert writer.refused == 1
    with pytest.raises(RowError, match="holds such a row already"):
        scribe.write(predictions=[scribe.held(answered(1))])
    assert writer.close()
    with Store.open(place, create=False) as store:
        assert store.predictions.count("m") == 4
        assert store.audit.verify()


def test_a_store_that_is_none_is_said_and_what_waits_is_written_when_it_is_there(tmp_path: Path) -> None:
    place = tmp_path / "store.sqlite"
    place.write_bytes(b"no database, but long enough to be taken for one" * 40)
    scribe = Scribe(str(place))
    with pytest.raises(ReadError, match="damaged, or no store"):
        scribe.opened()
    writer = Writer(scribe, linger_s=0.0, owns=True)
    assert writer.put(answered(0))
    until = time.monotonic() + 20
    while writer.trouble is None and time.monotonic() < until:
        time.sleep(0.01)
    assert "damaged, or no store" in str(writer.trouble)
    place.unlink()
    Store.open(place).close()
    assert writer.drain(20)
    assert writer.trouble is None
    assert writer.close()
    with Store.open(place, create=False) as store:
        assert store.predictions.count("m") == 1


def test_killed_again_and_again_it_loses_nothing_and_writes_nothing_twice(place: str) -> None:
    scribe = Scribe(place)
    writer = Writer(scribe, linger_s=0.005, owns=True)
    labels, killed, sent = [], 0, 0
    until = time.monotonic() + 60
    while killed < 8 and time.monotonic() < until:
        for _ in range(40):
            assert writer.put(answered(sent))
            sent += 1
        labels.append(writer.submit(Feedback("m", prediction=f"p{sent - 1:06d}", label=sent)))
        if labels[-1].done() or len(labels) % 5 == 0:
            time.sleep(0.004 * (killed % 4))
            if scribe.pid is not None:
                os.kill(scribe.pid, signal.SIGKILL)
                killed += 1
            labels[-1].result(30)
    assert killed == 8
    numbers = [label.result(30) for label in labels]
    assert writer.close(30)
    with Store.open(place, create=False) as store:
        assert store.predictions.count("m") == sent
        assert numbers == list(range(1, len(labels) + 1))
        assert [f.id for f in store.feedback.since("m", 0)] == numbers
        assert store.audit.verify()


def test_large_rows_wait_by_their_bytes_and_not_by_their_number(place: str) -> None:
    scribe = Scribe(place)
    writer = Writer(scribe, linger_s=0.0, owns=True)
    assert writer.put(answered(0, text="x" * 4_000_000))
    assert writer.drain()
    assert scribe.pid is not None
    os.kill(scribe.pid, signal.SIGSTOP)  # a disk that stands still
    try:
        taken = 0
        while writer.put(answered(taken + 1, text="x" * 4_000_000)) and taken < 500:
            taken += 1
        assert 40 < taken < 120, "256 MB, and what is on its way"
        assert not writer.room
    finally:
        os.kill(scribe.pid, signal.SIGCONT)
    assert writer.drain(60)
    assert writer.close()
    with Store.open(place, create=False) as store:
        assert store.predictions.count("m") == taken + 1


def test_who_ends_before_an_answer_is_a_reason_to_try_again(place: str) -> None:
    scribe = Scribe(place)
    scribe.opened()
    assert scribe.pid is not None
    process = psutil.Process(scribe.pid)
    process.kill()
    with pytest.raises(EndpointError, match="another one is started"):
        scribe.opened()
    scribe.opened()
    assert scribe.pid not in (None, process.pid)
    scribe.close()
    assert scribe.pid is None


def test_it_outlives_the_signals_of_a_service_that_stops_and_ends_with_it(place: str) -> None:
    """Ctrl-C and a stop by systemd reach every process of a service; a kill reaches only the first."""
    code = "import sys, time; from assay.store.scribe import Scribe; s = Scribe(sys.argv[1]); s.opened(); print(s.pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        scribe = psutil.Process(int(parent.stdout.readline()))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            scribe.send_signal(number)
        time.sleep(0.3)
        assert scribe.is_running()
        parent.kill()
    assert scribe.wait(10) in (0, None)


def test_an_address_with_a_password_stands_in_no_argument_list(place: str) -> None:
    scribe = Scribe("sqlite:////nowhere/word-that-is-secret.sqlite")
    assert scribe.pid is not None
    assert "secret" not in " ".join(psutil.Process(scribe.pid).cmdline())
    scribe.close()
