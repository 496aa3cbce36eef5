"""What the service remembers, on SQLite: rows as they were, labels joined, keys, versions, and a chain that shows every change."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InputError
from assay.store import Store
from assay.store.batches import Removed, spans
from assay.store.packing import canonical, link, pack, unpack
from assay.store.records import Draft, Feedback, Prediction, Stage, Traffic, new_id
from assay.store.verify import Anchor
from assay.words import Text, say


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("empty") / "store.sqlite"
    Store.open(place).close()
    return place


@pytest.fixture
def store(tmp_path: Path, empty: Path) -> Iterator[Store]:
    """A copy of an empty store: migrations take a third of a second."""
    shutil.copy(empty, tmp_path / "store.sqlite")
    with Store.open(tmp_path / "store.sqlite") as opened:
        yield opened


def answered(i: int = 0, **changes: object) -> Prediction:
    made = Prediction(f"p{i:06d}", 1000.0 + i, "churn", 1, {"label": "yes", "p": 0.1 + i / 3}, {"age": i, "note": "网速太慢"}, doubt=(i % 10) / 10, ms=1 / 3, actor="key:1")
    return msgspec.structs.replace(made, **changes)


def by_hand(store: Store, sql: str, *values: object) -> None:
    """What somebody does who can write to the file but does not go through assay."""
    path = store._database.address.file
    assert path is not None
    with sqlite3.connect(path) as connection:
        assert connection.execute(sql, values).rowcount != 0
    connection.close()


# ---- rows


CELLS = st.recursive(st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),  # type: ignore[call-overload]
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)


@given(CELLS)
def test_what_json_can_say_comes_back_as_it_was(value: object) -> None:
    text = pack(value)
    assert unpack(text) == value
    if text is not None:
        text.encode()
        canonical(value).encode()
        assert json.loads(canonical(value)) == value


def test_rows_come_back_as_they_were_written(store: Store) -> None:
    hostile = "'; DROP TABLE predictions; --"
    rows = [answered(1), answered(2, row=None, doubt=None), answered(3, model=hostile, actor=hostile, row={hostile: hostile}),
            answered(4, answer={"half": "\ud800", "zero": "\0"}, arm="shadow", of="p000001"), answered(5, row={"x": math.inf})]
    said = [Feedback("churn", prediction="p000001", label={"a": [1, None]}, note=hostile, at=7.5), Feedback(hostile, label=hostile, row={"x": 1}, source="file", at=8.0)]
    assert store.write(predictions=rows, feedback=said) == [1, 2]
    rows[-1] = answered(5, row={"x": None})  # JSON knows no infinity
    assert [store.predictions.get(row.id) for row in rows] == rows
    assert store.feedback.recent("churn") == [dataclasses.replace(said[0], id=1)]
    assert list(store.feedback.since(hostile, 0)) == [dataclasses.replace(said[1], id=2)]
    assert store.predictions.get("nothing") is None
    assert store.audit.verify()


def test_numpy_values_are_kept_as_numbers_and_what_is_no_data_is_refused(store: Store) -> None:
    store.write(predictions=[answered(1, row={"x": np.float32(0.5), "y": np.arange(2)}, doubt=float("nan"))])
    kept = store.predictions.get("p000001")
    assert kept is not None
    assert (kept.row, kept.doubt) == ({"x": 0.5, "y": [0, 1]}, None)
    with pytest.raises(InputError, match="'object' cannot be kept"):
        store.write(predictions=[answered(2), answered(3, row={"x": object()})])
    with pytest.raises(InputError, match="65 characters; 64 are kept"):
        store.write(predictions=[answered(2, model="m" * 65)])
    assert store.predictions.get("p000002") is None, "all or nothing"


def test_the_same_id_twice_is_refused_and_nothing_of_that_write_is_kept(store: Store) -> None:
    store.write(predictions=[answered(1)])
    with pytest.raises(InputError, match="such a row already"):
        store.write(predictions=[answered(2), answered(1)], feedback=[Feedback("churn", label=1)])
    assert store.predictions.count("churn") == 1
    assert store.write(feedback=[Feedback("churn", label=1)]) == [1]
    assert store.audit.verify()


def test_a_thousand_predictions_are_written_in_one_quick_transaction(store: Store) -> None:
    seconds = []
    for n in range(3):
        rows = [answered(1000 * n + i) for i in range(1000)]
        begin = time.thread_time()
        store.write(predictions=rows)
        seconds.append(time.thread_time() - begin)
    assert min(seconds) < 0.1
    assert [row.detail["predictions"] for row in store.audit.rows(3)] == [1000] * 3


def test_a_large_write_is_several_links_of_the_chain_and_one_transaction(store: Store) -> None:
    store.write(predictions=[answered(i) for i in range(6000)])
    assert [row.detail["predictions"] for row in store.audit.rows(2)] == [1000, 5000]
    assert store.audit.verify()


def test_rows_are_read_by_time_model_version_and_arm(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.store.predictions.PAGE", 7)
    rows = [answered(i, at=1000.0 + i // 5, version=1 + i % 2, arm="shadow" if i % 3 == 0 else "champion") for i in range(60)]
    store.write(predictions=[*rows, *(answered(100 + i, model="other") for i in range(5))])
    found = list(store.predictions.between("churn", 1002.0, 1010.0))
    assert found == [row for row in rows if 1002 <= row.at < 1010]
    assert list(store.predictions.between("churn", 0, 2000, version=2, arm="shadow")) == [r for r in rows if r.version == 2 and r.arm == "shadow"]
    assert store.predictions.recent("churn", 3) == rows[:-4:-1]
    assert store.predictions.recent("churn", 3, before=1002.0) == rows[9:6:-1]
    assert (store.predictions.count("churn"), store.predictions.count("churn", since=1010.0), store.predictions.count("churn", version=1)) == (60, 10, 30)


def test_reading_a_large_table_needs_no_memory_of_its_size(tmp_path: Path) -> None:
    code = f"""
import resource
from assay.store import Store
from assay.store.records import Prediction
store = Store.open({str(tmp_path / "s")!r})
for n in range(12):
    store.write(predictions=[Prediction(f"{{n}}-{{i}}", float(i), "m", 1, {{}}, {{"text": "x" * 10_000}}) for i in range(500)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(len(p.row["text"]) for p in store.predictions.between("m", 0, 1e9)) == 60_000_000
assert store.audit.verify()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 45_000, "kB; all rows are 60,000"


# ---- labels


def test_the_last_label_wins_and_comes_with_its_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.store.predictions.PAGE", 3)
    store.write(predictions=[answered(i) for i in range(10)] + [answered(20, model="other")])
    for i in range(10):
        store.write(feedback=[Feedback("churn", prediction=f"p{i:06d}", label="no"), Feedback("churn", kind="reject", prediction=f"p{i:06d}")])
    store.write(feedback=[Feedback("churn", prediction="p000003", label="maybe"), Feedback("churn", prediction="p000020", label="of another model"), Feedback("churn", label="free", row={})])
    found = [(p.id, f.label) for p, f in store.predictions.labelled("churn")]
    assert found == [(f"p{i:06d}", "no") for i in range(10) if i != 3] + [("p000003", "maybe")]
    assert [p.id for p, _ in store.predictions.labelled("churn", since=1008.0)] == ["p000008", "p000009"]
    last = store.feedback.get_label("p000003")
    assert last is not None
    assert last.label == "maybe"


def test_a_label_that_comes_before_its_prediction_joins_it_and_whoever_sent_it_is_told(store: Store) -> None:
    early = Feedback("churn", prediction="p000001", label="no")
    store.write(feedback=[early])
    assert "joins it if it arrives" in str(store.feedback.remark(early))
    assert "with the row that came with it" in str(store.feedback.remark(dataclasses.replace(early, row={})))
    assert list(store.predictions.labelled("churn")) == []
    store.write(predictions=[answered(1)])
    assert store.feedback.remark(early) is None
    assert store.feedback.remark(dataclasses.replace(early, model="other")) is not None, "another model's answers are not told of"
    assert [p.id for p, _ in store.predictions.labelled("churn")] == ["p000001"]


def test_a_shadow_answer_takes_the_label_of_the_answer_it_shadows(store: Store) -> None:
    store.write(predictions=[answered(1), answered(2, arm="shadow", version=2, of="p000001"), answered(3)], feedback=[Feedback("churn", prediction="p000001", label="no")])
    assert [p.id for p, _ in store.predictions.labelled("churn")] == ["p000001", "p000002"]
    assert [p.id for p, _ in store.predictions.labelled("churn", arm="shadow")] == ["p000002"]
    assert [p.id for p, _ in store.predictions.labelled("churn", version=1)] == ["p000001"]


def test_the_most_doubtful_without_a_label_come_first(store: Store) -> None:
    store.write(predictions=[answered(i) for i in range(20)] + [answered(30, doubt=None), answered(31, arm="shadow", doubt=1.0)],
                feedback=[Feedback("churn", prediction="p000019", label="yes"), Feedback("churn", prediction="p000018", kind="accept"), Feedback("churn", prediction="p000009", kind="reject")])
    assert [p.id for p in store.predictions.unlabelled("churn", 3)] == ["p000009", "p000008", "p000017"]
    assert len(store.predictions.unlabelled("churn", 100)) == 19
    assert store.predictions.unlabelled("churn", 100)[-1].id == "p000030"
    assert [p.id for p in store.predictions.unlabelled("churn", 2, since=1015.0)] == ["p000017", "p000016"]


# ---- the audit chain


def test_a_link_is_sha256_of_the_previous_hash_and_the_rest_as_canonical_json() -> None:
    import hashlib

    rest = json.dumps({"seq": 2, "at": 1.5, "actor": "甲", "action": "x\"y", "detail": {"b": 1, "a": [None]}}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert link("0" * 64, 2, 1.5, "甲", "x\"y", '{"a":[null],"b":1}') == hashlib.sha256(("0" * 64 + rest).encode()).hexdigest()


@pytest.fixture
def written(store: Store) -> Store:
    for i in range(5):
        store.write(predictions=[answered(10 * i + j) for j in range(3)], feedback=[Feedback("churn", prediction=f"p{10 * i:06d}", label="no")])
    store.audit.add("cli", "note", {"said": "hello"})
    assert store.audit.verify().rows == 7
    return store


SWAP = "UPDATE audit SET detail = (SELECT detail FROM audit a WHERE a.seq = 7 - audit.seq) WHERE seq IN (3, 4)"


@pytest.mark.parametrize(("sql", "broken", "why"), [
    ("UPDATE audit SET actor = 'somebody else' WHERE seq = 4", 4, "was changed"),
    ("UPDATE audit SET detail = detail || ' ' WHERE seq = 4", 4, "was changed"),
    ("UPDATE audit SET at = at + 1 WHERE seq = 1", 1, "was changed"),
    ("DELETE FROM audit WHERE seq = 3", 3, "is missing"),
    ("DELETE FROM audit WHERE seq = 1", 1, "is missing"),
    (SWAP, 3, "was changed"),
    ("DELETE FROM audit WHERE seq >= 6", 6, "its end was cut off"),
    ("DELETE FROM audit", 1, "its end was cut off"),
    ("UPDATE predictions SET answer = '{}' WHERE id = 'p000011'", 3, "was changed"),
    ("UPDATE predictions SET doubt = 0.123 WHERE id = 'p000011'", 3, "was changed"),
    ("DELETE FROM predictions WHERE id = 'p000020'", 4, "3 predictions and 1 labels should be there; 2 and 1 are"),
    ("DELETE FROM predictions", 2, "0 and 1 are"),
    ("UPDATE feedback SET label = '\"yes\"' WHERE id = 5", 6, "was changed"),
    ("DELETE FROM feedback WHERE id = 2", 3, "3 and 0 are"),
    ("INSERT INTO predictions SELECT 'new', at, model, version, arm, of, row, answer, doubt, ms, actor, audit FROM predictions WHERE id = 'p000000'", 2, "4 and 1 are"),
    ("UPDATE feedback SET audit = 7 WHERE id = 5", 6, "3 and 0 are"),
    ("INSERT INTO predictions SELECT 'new', at, model, version, arm, of, row, answer, doubt, ms, actor, 7 FROM predictions WHERE id = 'p000000'", 7, "which wrote none"),
    ("INSERT INTO predictions SELECT 'new', at, model, version, arm, of, row, answer, doubt, ms, actor, 8 FROM predictions WHERE id = 'p000000'", 8, "put in past the service"),
    ("UPDATE predictions SET answer = x'00ff' WHERE id = 'p000011'", 3, "was changed"),
    ("UPDATE predictions SET id = x'00ff' WHERE id = 'p000011'", 3, "was changed"),
    ("INSERT INTO audit SELECT 8, at, actor, action, detail, hash, hash FROM audit WHERE seq = 7", 8, "put in past the service"),
])
def test_every_change_past_the_service_is_found(written: Store, sql: str, broken: int, why: str) -> None:
    by_hand(written, sql)
    found = written.audit.verify()
    assert (found.first_broken, bool(found)) == (broken, False)
    assert isinstance(found.reason, Text)
    assert why in str(found.reason)
    assert found.reason.to("zh") != str(found.reason)


def test_an_anchor_kept_elsewhere_shows_what_the_chain_alone_cannot(written: Store) -> None:
    anchor = written.audit.anchor()
    assert Anchor.of(f" {anchor}\n") == anchor
    written.audit.add("cli", "note", {})
    assert written.audit.verify(anchor)
    by_hand(written, "DELETE FROM audit WHERE seq >= 6")  # somebody who knows all tables: rows and head
    by_hand(written, "DELETE FROM feedback WHERE audit >= 6")
    by_hand(written, "DELETE FROM predictions WHERE audit >= 6")
    by_hand(written, "UPDATE head SET seq = 5, feedback = 4, hash = (SELECT hash FROM audit WHERE seq = 5)")
    assert written.audit.verify(), "a shorter chain is a chain"
    assert "the anchor names row 7" in str(written.audit.verify(anchor).reason)
    for _ in range(4):
        written.audit.add("cli", "note", {})
    assert "is not the one of the anchor" in str(written.audit.verify(anchor).reason)
    with pytest.raises(InputError, match="is no anchor"):
        Anchor.of("7:abc")


def test_retention_leaves_a_chain_that_verifies_and_still_guards_what_is_left(written: Store) -> None:
    assert written.predictions.expire(1012.0) == 5  # two batches: one whole, one in part
    assert [p.id for p in written.predictions.between("churn", 0, 2000)][:2] == ["p000012", "p000020"]
    assert written.audit.verify()
    assert written.audit.rows(1)[0].detail["left"].keys() == {"2", "3"}, "both still have a label"
    assert written.predictions.expire(1021.0, feedback=True) == 2
    assert written.predictions.expire(1021.0) == 0
    assert written.audit.verify()
    by_hand(written, "UPDATE predictions SET answer = '{}' WHERE id = 'p000022'")
    assert written.audit.verify().first_broken == 4
    with pytest.raises(InputError, match="changed past the service, so nothing of them is deleted"):
        written.predictions.expire(1022.5)


def test_retention_while_the_log_is_verified_is_no_alarm(written: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written.predictions.expire(1012.0)
    read, calls = Removed.read, []

    def too_early(self: Removed, *rest: object) -> Removed:
        calls.append(rest)
        return self if len(calls) == 1 else read(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Removed, "read", too_early)
    assert written.audit.verify()
    assert len(calls) == 3, "asked again for each of the two batches that it took from"


def test_a_person_s_rows_can_be_forgotten_with_what_was_said_about_them(written: Store) -> None:
    written.write(predictions=[answered(50, arm="shadow", of="p000010")])
    assert written.predictions.forget(["p000010", "unknown"], "cli", "asked by letter") == 2
    assert written.predictions.get("p000010") is None
    assert written.feedback.get_label("p000010") is None
    assert written.audit.verify()


@given(st.sets(st.integers(0, 60)))
def test_spans_name_the_same_numbers(numbers: set[int]) -> None:
    found = spans(numbers)
    assert {n for a, b in found for n in range(a, b + 1)} == numbers
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(found))


def test_retention_by_model_and_row_by_row_leaves_the_others(store: Store) -> None:
    for i in range(60):
        store.write(predictions=[answered(i), answered(100 + i, model="other")][: 1 + i % 2])
    assert store.predictions.expire(1050.0, model="churn") == 50
    assert (store.predictions.count("churn"), store.predictions.count("other")) == (10, 30)
    assert store.audit.verify()
    assert store.predictions.expire(1e9, by="cli") == 40
    assert store.audit.verify()


def test_the_store_s_own_actions_cannot_be_written_by_others(store: Store) -> None:
    for action in ("write", "expire"):
        with pytest.raises(InputError, match="of the store itself"):
            store.audit.add("cli", action, {})


def test_the_file_is_nobody_else_s_to_read(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new" / "s") as store:
        store.audit.add("cli", "x", {})
        assert {p.stat().st_mode & 0o077 for p in (tmp_path / "new").iterdir()} == {0}


def test_audit_rows_are_read_newest_first_page_by_page(written: Store) -> None:
    rows = written.audit.rows(3)
    assert [row.seq for row in rows] == [7, 6, 5]
    assert [row.seq for row in written.audit.rows(3, before=5)] == [4, 3, 2]
    assert rows[0].previous == rows[1].hash
    assert rows[0].detail == {"said": "hello"}


# ---- keys


def test_a_key_opens_until_it_is_revoked_and_its_secret_is_not_in_the_file(store: Store, tmp_path: Path) -> None:
    key, secret = store.keys.make("shop", ["predict", "feedback", "predict"], rate=600)
    assert secret.startswith(f"assay_{key.id}_")
    assert len(secret.split("_", 2)[2]) == 43
    assert key.scopes == ("predict", "feedback")
    assert store.keys.find(secret, time.time()) == key
    for wrong in (secret[:-1] + ("A" if secret[-1] != "A" else "B"), secret + "x", "", "assay__", f"assay_{key.id}_", f"assay_%_{secret[-43:]}", "assay_" + "x" * 1000, "\ud800_\0_x",
                  f"ASSAY_{key.id}_{secret[-43:]}", f" {secret}"):
        assert store.keys.find(wrong, time.time()) is None
    assert all(secret[-43:].encode() not in file.read_bytes() for file in tmp_path.iterdir())
    assert store.keys.revoke(key.id).revoked is not None
    assert store.keys.find(secret, time.time()) is None
    with pytest.raises(InputError, match="No key has the id"):
        store.keys.revoke("nothing")
    with pytest.raises(InputError, match="found: root"):
        store.keys.make("x", ["root"])
    assert store.audit.verify()


def test_a_key_expires_and_a_rotated_one_works_for_its_grace(store: Store) -> None:
    old, secret = store.keys.make("shop", ["predict"], ttl_s=1000, rate=5)
    assert store.keys.find(secret, old.made + 999) is not None
    assert store.keys.find(secret, old.made + 1000) is None
    new, fresh = store.keys.rotate(old.id, grace_s=60)
    now = time.time()
    assert (new.replaces, new.rate, new.scopes) == (old.id, 5, ("predict",))
    assert new.expires == pytest.approx(new.made + 1000)
    assert store.keys.find(secret, now + 50) is not None
    assert store.keys.find(secret, now + 70) is None
    assert store.keys.find(fresh, now + 900) == new
    store.keys.revoke(old.id)
    with pytest.raises(InputError, match="cannot be rotated"):
        store.keys.rotate(old.id)
    assert [key.id for key in store.keys.all()] == [old.id, new.id]


# ---- versions


def test_versions_are_counted_and_the_same_bundle_is_the_same_version(store: Store) -> None:
    first = store.versions.add("churn", "a" * 64, "bundles/a.assay", "serve", {"auc": 0.9})
    assert store.versions.add("churn", "a" * 64, "elsewhere", "import", {}) == first
    second = store.versions.add("churn", "b" * 64, "bundles/b.assay", "retrain", {}, fingerprint="f" * 64)
    assert (first.version, second.version) == (1, 2)
    assert store.versions.of("churn") == [first, second]
    assert store.versions.get("churn", 2) == second
    assert store.versions.models() == ["churn"]
    assert store.versions.stage("churn") is None


def test_who_answers_changes_with_an_audit_row_and_can_be_taken_back_once(store: Store) -> None:
    for letter in "abc":
        store.versions.add("churn", letter * 64, "f", "serve", {})
    assert store.versions.promote("churn", 1, "cli", "first").previous is None
    assert store.versions.challenge("churn", 2, "canary", 0.1).share == 0.1
    assert store.versions.withdraw("churn").challenger is None
    store.versions.challenge("churn", 3, "shadow")
    promoted = store.versions.promote("churn", 3, "service", "won")
    assert (promoted.champion, promoted.challenger, promoted.previous) == (3, None, 1)
    back = store.versions.rollback("churn", "cli", "complaints")
    assert isinstance(back, Stage)
    assert (back.champion, back.previous) == (1, None)
    assert store.versions.stage("churn") == back
    with pytest.raises(InputError, match="no version to go back to"):
        store.versions.rollback("churn", "cli", "")
    assert [row.action for row in store.audit.rows(20)][::-1][4:] == ["promoted", "challenged", "withdrawn", "challenged", "promoted", "rolled back"]
    assert store.audit.rows(1)[0].detail == {"model": "churn", "version": 1, "from": 3, "reason": "complaints"}


@pytest.mark.parametrize(("act", "words"), [
    (lambda v: v.promote("churn", 9, "cli", ""), "has no version 9. It has: 1, 2"), (lambda v: v.promote("nobody", 1, "cli", ""), "No model is called 'nobody'"),
    (lambda v: v.challenge("churn", 1, "shadow"), "is the champion already"), (lambda v: v.challenge("churn", 2, "canary"), "a share above 0"),
    (lambda v: v.challenge("churn", 2, "twin"), "a shadow, or a canary"), (lambda v: v.withdraw("idle"), "No version of 'idle' answers yet")])
def test_a_stage_that_cannot_be_is_refused(store: Store, act: Callable, words: str) -> None:
    for model, letter in (("churn", "a"), ("churn", "b"), ("idle", "c")):
        store.versions.add(model, letter * 64, "f", "serve", {})
    store.versions.promote("churn", 1, "cli", "")
    before = store.audit.anchor()
    with pytest.raises(InputError, match=words):
        act(store.versions)
    assert store.audit.anchor() == before


# ---- alarms, drafts, sketches, traffic


def test_an_alarm_is_raised_once_until_it_is_closed(store: Store) -> None:
    first = store.alarms.add("churn", "drift", "warning", say("{n} columns have moved.", n=3), {"columns": ["age"]})
    assert first is not None
    assert str(Text.of(first.text)) == "3 columns have moved."
    assert store.alarms.add("churn", "drift", "warning", say("again"), {}) is None
    assert store.alarms.add("other", "drift", "info", say("again"), {}) is not None
    assert [a.model for a in store.alarms.open()] == ["churn", "other"]
    closed = store.alarms.close(first.id, "cli")
    assert store.alarms.close(first.id, "somebody else") == closed
    assert closed.closed_by == "cli"
    assert store.alarms.open("churn") == []
    assert store.alarms.add("churn", "drift", "critical", say("again"), {}) is not None
    assert [a.level for a in store.alarms.recent("churn", 5)] == ["critical", "warning"]


def test_a_draft_is_settled_once(store: Store) -> None:
    store.drafts.add(Draft("d1", 1.0, "reply", "杯子裂了", "抱歉，马上补发 😀"))
    store.drafts.add(Draft("d2", 2.0, "reply", "q", "a"))
    assert [d.id for d in store.drafts.open("reply", 10)] == ["d1", "d2"]
    assert store.drafts.settle("d1", "accepted", None, "page:1").final == "抱歉，马上补发 😀"
    assert store.drafts.settle("d2", "edited", "better", "page:1").final == "better"
    store.drafts.add(Draft("d4", 4.0, "reply", "q", "a"))
    store.drafts.settle("d4", "rejected", None, "page:1")
    assert [d.id for d in store.drafts.settled("reply", 5)] == ["d1", "d2"]
    assert store.drafts.expire(1.5) == 1
    assert store.drafts.get("d1") is None
    store.drafts.add(Draft("d1", 1.0, "reply", "q", "a", status="accepted"))
    assert store.drafts.get("d2") == Draft("d2", 2.0, "reply", "q", "a", "better", "edited", "page:1")
    with pytest.raises(InputError, match="is accepted already"):
        store.drafts.settle("d1", "rejected", None, "x")
    with pytest.raises(InputError, match="No draft"):
        store.drafts.settle("d3", "rejected", None, "x")


def test_traffic_of_the_same_minute_adds_up_and_needs_no_audit_row(store: Store) -> None:
    before = store.audit.anchor()
    store.write(traffic=[Traffic(10, "churn", 0, 5, 1, 0, 12.5, {"5": 4, "inf": 1}), Traffic(10, "churn", 1, 1, 0, 0, 1.0, {"5": 1})])
    store.write(traffic=[Traffic(10, "churn", 0, 2, 0, 1, 2.5, {"5": 1, "10": 1})])
    assert store.traffic.between("churn", 600, 660) == [Traffic(10, "churn", 0, 7, 1, 1, 15.0, {"5": 5, "10": 1, "inf": 1}), Traffic(10, "churn", 1, 1, 0, 0, 1.0, {"5": 1})]
    assert store.traffic.between("churn", 660, 720) == []
    assert store.audit.anchor() == before


def test_sketches_are_found_by_the_time_they_reach_into(store: Store) -> None:
    for i in range(4):
        store.sketches.add(model="churn", version=1 + i % 2, start=10.0 * i, end=10.0 * i + 9, rows=5, data=bytes([0, i, 255]))
    assert [s.data[1] for s in store.sketches.between("churn", None, 5.0, 20.0)] == [0, 1]
    assert [s.data for s in store.sketches.between("churn", 2, 0.0, 100.0)] == [b"\0\1\xff", b"\0\3\xff"]
    assert store.sketches.expire(15.0) == 1


# ---- processes


def test_a_backup_is_a_store_of_one_moment(store: Store, tmp_path: Path) -> None:
    store.write(predictions=[answered(i) for i in range(50)])
    store.backup(tmp_path / "copy.sqlite")
    store.write(predictions=[answered(99)])
    with Store.open(tmp_path / "copy.sqlite", create=False) as copy:
        assert copy.predictions.count("churn") == 50
        assert copy.audit.verify().rows == 2
    with pytest.raises(InputError, match="exists already"):
        store.backup(tmp_path / "copy.sqlite")


def test_a_forked_child_makes_connections_of_its_own(store: Store) -> None:
    store.write(predictions=[answered(1)])
    child = os.fork()
    if child == 0:
        try:
            store.write(predictions=[answered(2)])
            os._exit(0)
        finally:
            os._exit(1)
    store.write(predictions=[answered(3)])
    assert os.waitpid(child, 0)[1] == 0
    assert store.predictions.count("churn") == 3
    assert store.audit.verify()


def test_new_ids_sort_by_time_and_differ() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [i[:12] for i in ids] == sorted(i[:12] for i in ids)
