"""The bundle: what goes in comes out and answers alike; whatever was changed on the way is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay import registry, tasks
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import AssayError, BudgetError, BundleError, InputError
from assay.families.base import Budget, Candidate, Model
from assay.ship import cache
from assay.ship.archive import write
from assay.ship.bundle import Bundle, load, pack
from assay.ship.formats import FORMAT, READERS
from assay.ship.formats.base import DEEPEST, Malformed, plain, strict_json

Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bundles"


def fitted(task_name: str, candidate_name: str) -> dict[str, Any]:
    """All that `pack` asks for, from the example of the task."""
    kind = tasks.find(task_name)
    data = kind.example()
    task = kind.of(data)
    candidate = registry.get("assay.families", Candidate, candidate_name)
    model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=20))
    calibration = task.calibration(task.truth(data), model.predict(data.asked()))
    return {"task": task, "candidate": candidate, "params": {}, "schema": data.schema, "model_folder": model, "calibration": calibration,
            "facts": {"rows": len(data), "auc": float("nan"), "seed": 0}, "reference": data.asked().frame}


@pytest.fixture(scope="module")
def linear() -> dict[str, Any]:
    return fitted("classify", "linear")


@pytest.fixture(scope="module")
def bundle_bytes(linear, tmp_path_factory) -> bytes:
    return pack(tmp_path_factory.mktemp("b") / "x.assay", **linear).read_bytes()


@pytest.fixture
def path(tmp_path, bundle_bytes) -> Path:
    (tmp_path / "x.assay").write_bytes(bundle_bytes)
    return tmp_path / "x.assay"


def members_of(raw: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(members: Members, /, **changes: Any) -> bytes:
    """An archive whose manifest is right about its members again, as a careful forger would make it."""
    manifest = json.loads(members["manifest.json"])
    manifest["members"] = {n: {"size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in members.items() if n != "manifest.json"}
    manifest |= changes
    return unsealed(members | {"manifest.json": json.dumps(manifest).encode()})


def unsealed(members: Members) -> bytes:
    out = io.BytesIO()
    write(out, dict(members))
    return out.getvalue()


def refusal(path: Path, raw: bytes | None = None, kind: type[AssayError] = BundleError) -> str:
    """The refusal, one sentence in two languages; and nothing of the file is left in the cache."""
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(kind) as caught:
        load(path)
    english, chinese = str(caught.value), caught.value.text.to("zh")
    assert english.isprintable()
    assert english.endswith(".")
    assert any("一" <= c <= "鿿" for c in chinese)
    assert not any(word in chinese for word in ("expected:", "the member", "manifest says", "installed"))
    assert caught.value.__cause__ is None
    home = cache.root()
    assert list(home.iterdir()) == []
    return english


# ---- what goes in comes out


@pytest.mark.parametrize(("candidate", "task"), [(name, task) for name in ("naive", "linear", "boosting") for task in ("classify", "regress")])  # forecasts: test_forecast.py
def test_a_bundle_answers_as_the_model_that_was_packed(tmp_path, task, candidate):
    packed = fitted(task, candidate)
    bundle = load(pack(tmp_path / "x.assay", **packed))
    asked = tasks.find(task).example().asked()
    expected = packed["task"].calibrated(packed["model_folder"].predict(asked), packed["calibration"])
    assert bundle.predict(asked.frame).equals(packed["task"].answers(expected))
    assert bundle.schema == packed["schema"]
    assert bundle.calibration == packed["calibration"]
    assert bundle.reference is not None
    assert bundle.reference.equals(asked.frame)
    one, many = bundle.predict_one(asked.frame.row(7, named=True)), bundle.predict(asked.frame).row(7, named=True)
    assert one.keys() == many.keys()
    assert all(a == b if isinstance(a, str) else a == pytest.approx(b, rel=1e-4) for a, b in zip(one.values(), many.values(), strict=True))


def test_equal_input_gives_equal_bytes(tmp_path, linear):
    folder = tmp_path / "model"
    folder.mkdir()
    linear["model_folder"].dump(folder)
    first = pack(tmp_path / "a.assay", **linear).read_bytes()
    second = pack(tmp_path / "b.assay", **{**linear, "model_folder": folder}).read_bytes()
    assert first == second


def test_all_kinds_of_tables_come_back_as_they_were_given(tmp_path, path):
    import pandas
    import pyarrow

    bundle = load(path)
    assert bundle.reference is not None
    rows = bundle.reference.head(5)
    expected = bundle.predict(rows)
    indexed = rows.to_pandas().set_index(pandas.Index([9, 7, 5, 3, 1]), drop=True)
    assert isinstance(bundle.predict(indexed), pandas.DataFrame)
    assert list(bundle.predict(indexed).index) == [9, 7, 5, 3, 1]
    assert bundle.predict(indexed)["answer"].tolist() == expected["answer"].to_list()
    assert isinstance(bundle.predict(rows.to_arrow()), pyarrow.Table)
    assert bundle.predict(rows.to_dicts())[2]["answer"] == expected["answer"][2]
    rows.write_csv(tmp_path / "rows.csv")
    assert bundle.predict(tmp_path / "rows.csv").equals(expected)


def test_describe_is_json_and_says_where_the_bundle_comes_from(path):
    facts = json.loads(json.dumps(load(path).describe(), allow_nan=False))
    assert facts["facts"] == {"rows": 150, "auc": None, "seed": 0}
    assert facts["candidate"]["name"] == "linear"
    assert facts["format"] == FORMAT
    assert facts["reference_rows"] == 150
    assert facts["digest"] == hashlib.sha256(members_of(path.read_bytes())["manifest.json"]).hexdigest()


def test_reference_rows_hold_no_answers_ids_or_groups_and_can_be_left_out(tmp_path):
    data = Dataset(pl.DataFrame({"id": list("abcdef") * 400, "x": np.arange(2400.0), "g": list("uvwxyz") * 400, "y": list("pq") * 1200}),
                   Schema((Column("id", "id"), Column("x", "number"), Column("g", "category"), Column("y", "category")), "y", None, "g"))
    task = tasks.find("classify").of(data)
    candidate = registry.get("assay.families", Candidate, "naive")
    model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget())
    packed = {"task": task, "candidate": candidate, "params": {}, "schema": data.schema, "model_folder": model, "calibration": {}, "facts": {}}
    bundle = load(pack(tmp_path / "x.assay", **packed, reference=data.frame))
    assert bundle.reference is not None
    assert bundle.reference.columns == ["x"]
    assert bundle.reference.height == 1000
    assert bundle.reference["x"].is_sorted()
    assert bundle.reference["x"][-1] == 2399
    without = pack(tmp_path / "y.assay", **packed, reference=None)
    assert load(without).reference is None
    assert "reference.parquet" not in members_of(without.read_bytes())


def test_what_json_would_change_in_silence_is_not_packed(tmp_path, linear):
    for params in ({"depth": {1: "a"}}, {"rate": float("nan")}, {"f": np}, {"s": {1, 2}}):
        with pytest.raises((TypeError, ValueError)):
            pack(tmp_path / "x.assay", **{**linear, "params": params})
    assert list(tmp_path.iterdir()) == []
    assert plain({"a": np.float64(2), "b": (np.int64(1),), "c": np.arange(2)}, where="x") == {"a": 2.0, "b": [1], "c": [0, 1]}


@pytest.mark.parametrize("name", ["model.pkl", "模型.json", "a b.txt", "code.py", ".hidden.json"])
def test_a_model_that_writes_other_files_than_data_is_refused_when_packed(tmp_path, linear, name):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(BundleError, match="was not packed"):
        pack(tmp_path / "x.assay", **{**linear, "model_folder": folder})
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_packing_over_an_older_bundle_replaces_it_in_one_step(tmp_path, linear, path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="rate"):
        pack(path, **{**linear, "params": {"rate": float("inf")}})
    assert path.read_bytes() == before
    with path.open("rb") as older:
        pack(path, **{**linear, "facts": {"second": True}})
        assert older.read() == before  # who was reading it reads on undisturbed
    assert load(path).facts == {"second": True}


def test_packing_into_a_folder_that_does_not_exist_is_one_sentence(tmp_path, linear):
    with pytest.raises(InputError, match="does not exist"):
        pack(tmp_path / "none" / "x.assay", **linear)


# ---- one row


def test_one_row_lacking_a_column_is_refused_by_name(path):
    bundle = load(path)
    with pytest.raises(InputError, match="note"):
        bundle.predict_one({"weight": 1.0, "shop": "web", "when": None})
    assert bundle.predict_one({"weight": None, "shop": None, "note": None, "when": None, "more": 1})["answer"] in ("complaint", "praise", "question")


VALUES = {
    "number": st.one_of(st.floats(), st.integers(), st.booleans(), st.sampled_from(["1.5", " 2 ", "n/a", "", "1e400"])),
    "category": st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.sampled_from(["2.0", " a ", "True", "-3.0", "\u3000x", "null"])),
    "text": st.one_of(st.text(), st.integers(), st.booleans(), st.sampled_from([" ", "\u3000", "\x1f"])),
    "time": st.one_of(st.datetimes().map(str), st.dates().map(str), st.datetimes(), st.dates(),
                      st.sampled_from(["2024-03-05T11:22:33Z", "2024-13-05", "2024年3月5日", "2024-03-05 11:22:33.5", "", "5 Mar 2024"])),
    "epoch": st.sampled_from(["2024-03-05", "1700000000", 1_700_000_000, 1.7e12, "20240305", ""]),
}


def column(name: str, kind: str) -> Column:
    return Column(name, "time", unit="epoch") if kind == "epoch" else Column(name, kind)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(["number", *sorted(VALUES)]).flatmap(lambda kind: st.tuples(st.just(kind), st.one_of(st.none(), VALUES[kind]))), min_size=1, max_size=4), st.booleans())
def test_a_row_is_read_as_the_same_row_in_a_table(cells, more):
    from assay.data.read import conform
    from assay.ship.row import row_reader

    schema = Schema(tuple(column(f"x{i}", kind) for i, (kind, _) in enumerate(cells)))
    row = {f"x{i}": value for i, (_, value) in enumerate(cells)}

    def outcome(reading: Callable[[], Any]) -> Any:
        try:
            return reading()
        except InputError as error:
            return str(error)

    table = outcome(lambda: conform([row], schema).frame.row(0, named=True))
    assert outcome(lambda: row_reader(schema)(row | ({"more": 1} if more else {}))) == table
    with pytest.raises(KeyError):
        row_reader(schema)({name: value for name, value in row.items() if name != "x0"})


# ---- attacks


def test_one_changed_byte_anywhere_is_refused_or_changes_no_answer(tmp_path, bundle_bytes):
    bundle = load(saved(tmp_path, bundle_bytes))
    assert bundle.reference is not None
    rows = bundle.reference.head(3)
    expected = bundle.predict(rows)
    path = tmp_path / "y.assay"
    rng = np.random.default_rng(0)
    places = {*range(0, 60), *range(len(bundle_bytes) - 420, len(bundle_bytes)), *rng.choice(len(bundle_bytes), 300, replace=False).tolist()}
    harmless = 0
    for place in sorted(places):
        flipped = bytearray(bundle_bytes)
        flipped[place] ^= int(rng.integers(1, 256))
        path.write_bytes(flipped)
        try:
            changed = load(path)
        except BundleError as error:
            assert str(error).isprintable()  # noqa: PT017
            continue
        harmless += 1
        assert changed.digest == bundle.digest
        assert changed.predict(rows).equals(expected)
    assert harmless < 0.2 * len(places)  # dates, versions and attributes of the zip entries


def saved(tmp_path: Path, raw: bytes) -> Path:
    (tmp_path / "x.assay").write_bytes(raw)
    return tmp_path / "x.assay"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_of_the_content_is_always_refused(tmp_path, bundle_bytes, place, bit):
    with zipfile.ZipFile(io.BytesIO(bundle_bytes)) as archive:
        inside = [i for e in archive.infolist() for i in range(e.header_offset + 30 + len(e.filename), e.header_offset + 30 + len(e.filename) + e.file_size)]
    flipped = bytearray(bundle_bytes)
    flipped[inside[int(place * len(inside))]] ^= 1 << bit
    refusal(tmp_path / "x.assay", bytes(flipped))


def test_a_changed_byte_is_seen_although_the_cache_is_warm(path, bundle_bytes):
    load(path)
    flipped = bytearray(bundle_bytes)
    flipped[bundle_bytes.index(b"PAR1") + 100] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(BundleError, match=r"reference\.parquet"):
        load(path)


@pytest.mark.parametrize("name", ["calibration.json", "schema.json"])
def test_the_quick_check_still_hashes_what_is_read_from_the_file_itself(path, bundle_bytes, name):
    load(path)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    raw = bytearray(bundle_bytes)
    start = entry.header_offset + 30 + len(name)
    digit = next(i for i in range(start, start + entry.file_size) if raw[i:i + 1] in (b"5", b"6", b"7", b"8", b"w"))
    raw[digit] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=name):
        load(path, verify=False)


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"{}", pickle.dumps({"a": 1}), b"\x1f\x8b\x08\0" + b"\0" * 99])
def test_what_is_no_bundle_is_refused(tmp_path, raw):
    refusal(tmp_path / "x.assay", raw)


def test_a_zip_without_a_manifest_is_refused(path):
    assert "manifest.json" in refusal(path, unsealed({"a.json": b"{}"}))


def test_a_truncated_bundle_is_refused(path, bundle_bytes):
    for share in (0.1, 0.5, 0.9, 0.99):
        refusal(path, bundle_bytes[:int(share * len(bundle_bytes))])


def test_members_and_manifest_have_to_agree(path, bundle_bytes):
    members = members_of(bundle_bytes)
    assert "does not list" in refusal(path, unsealed(members | {"model/more.txt": b"x"}))
    for name in members:
        fewer = {n: b for n, b in members.items() if n != name}
        assert name in refusal(path, unsealed(fewer))
        if name != "manifest.json" and not name.startswith("model/") and name != "reference.parquet":
            assert name in refusal(path, sealed(fewer))


def test_a_manifest_that_lies_about_size_or_digest_is_refused(path, bundle_bytes):
    members = members_of(bundle_bytes)
    manifest = json.loads(members["manifest.json"])
    for lie in ({"size": 5}, {"size": -1}, {"size": 10**30}, {"size": True}, {"size": "5"}, {"sha256": "0" * 64}, {"sha256": "x"},
                {"sha256": None}, {"path": "/etc"}):
        entries = {name: entry | lie for name, entry in manifest["members"].items()}
        refusal(path, unsealed(members | {"manifest.json": json.dumps(manifest | {"members": entries}).encode()}))


def test_a_place_that_the_format_does_not_know_is_refused(path, bundle_bytes):
    for name in ("code.json", "modeling/x.json", "assay/__init__.json"):
        assert "no place" in refusal(path, sealed(members_of(bundle_bytes) | {name: b"{}"}))


@pytest.mark.parametrize("suffix", [".json", ".txt", ".safetensors", ".onnx", ".onnx_data", ".parquet", ".gguf", ".model"])
def test_a_pickle_or_zip_in_disguise_is_refused(path, bundle_bytes, suffix):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/assay-was-here",)

    for payload in (pickle.dumps(Evil()), bundle_bytes):
        assert "holds" in refusal(path, sealed(members_of(bundle_bytes) | {f"model/x{suffix}": payload}))
    assert not Path("/tmp/assay-was-here").exists()


@pytest.mark.parametrize("name", ["os.system", "assay.families.naive", "../naive", "naive\x1b[2J", "朴素", "", "NAIVE", "builtins:eval", "n" * 10_000])
def test_a_family_that_is_not_installed_is_named_and_never_imported(path, bundle_bytes, name):
    before = set(sys.modules)
    sentence = refusal(path, sealed(members_of(bundle_bytes), candidate={"name": name, "version": "1"}))
    assert "not installed" in sentence
    assert len(sentence) < 500
    assert not set(sys.modules) - before


def test_a_task_that_is_not_installed_is_named(path, bundle_bytes):
    assert "'os.system'" in refusal(path, sealed(members_of(bundle_bytes), task={"task": "os.system"}))


@pytest.mark.parametrize("changes", [
    {"task": {"task": "classify"}}, {"task": {}}, {"task": []}, {"params": []}, {"params": {"no such": 1, "task": 2}}, {"facts": None},
    {"candidate": "linear"}, {"candidate": {"name": "linear"}}, {"candidate": {"name": ["linear"], "version": "1"}}, {"members": {}},
    {"members": []}, {"more": 1}, {"assay": 1}, {"format": True}, {"format": 0}, {"format": "1"}, {"format": None}, {"format": 1.0},
])
def test_a_manifest_of_another_shape_is_refused(path, bundle_bytes, changes):
    refusal(path, sealed(members_of(bundle_bytes), **changes))


def test_task_settings_that_do_not_survive_reading_are_refused(path, bundle_bytes):
    task = json.loads(members_of(bundle_bytes)["manifest.json"])["task"]
    assert "settings" in refusal(path, sealed(members_of(bundle_bytes), task=task | {"classes": "abc"}))
    refusal(path, sealed(members_of(bundle_bytes), task=task | {"classes": 3}))


def test_a_newer_format_says_which_assay_wrote_it(path, bundle_bytes):
    sentence = refusal(path, sealed(members_of(bundle_bytes), format=99, assay="7.2.0", more="things"))
    assert "format 99" in sentence
    assert "assay 7.2.0" in sentence
    assert "7.2" not in refusal(path, sealed(members_of(bundle_bytes), format=99, assay="7.2; rm -rf /"))


def test_schemas_and_calibrations_of_another_shape_are_refused(path, bundle_bytes):
    members = members_of(bundle_bytes)
    schema = json.loads(members["schema.json"])
    wrong = [[], {}, schema | {"target": "none"}, schema | {"time": 3}, schema | {"columns": {}}, schema | {"columns": [[]]},
             schema | {"columns": [{"name": "a"}]}, schema | {"columns": [{"name": "a", "kind": "code"}]},
             schema | {"columns": [{"name": "a", "kind": "number", "import": "os"}]}, schema | {"columns": schema["columns"] * 2}, schema | {"x": 1}]
    for value in wrong:
        refusal(path, sealed(members | {"schema.json": json.dumps(value).encode()}))
    for value in ([], {"temperature": "hot"}, {"temperature": [1, 2]}, 3):
        refusal(path, sealed(members | {"calibration.json": json.dumps(value).encode()}))


@pytest.mark.parametrize("raw", [
    b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a":' * 100_000, b"[" * 50 + b"]" * 50,
    b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"{", b'{"a": 1}x', b'"' + b'\\"' * 100_000, b"1" * 5000, b'{"a": "b', b"", b"\xef\xbb\xbf{}",
])
def test_json_that_breaks_or_fools_parsers_is_refused(raw):
    with pytest.raises(Malformed):
        strict_json(raw)


def test_deep_json_is_refused_in_every_json_of_the_bundle(path, bundle_bytes):
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for name in members_of(bundle_bytes):
        if name.endswith(".json"):
            changed = members_of(bundle_bytes) | {name: deep}
            refusal(path, unsealed(changed) if name == "manifest.json" else sealed(changed))
    assert strict_json(b'{"a":' * DEEPEST + b'"[[[["' + b"}" * DEEPEST)


def test_a_reference_that_would_swell_or_does_not_fit_is_refused(path, bundle_bytes):
    members = members_of(bundle_bytes)
    frame = pl.read_parquet(io.BytesIO(members["reference.parquet"]))

    def parquet(frame: pl.DataFrame, compression: Any = "uncompressed") -> bytes:
        out = io.BytesIO()
        frame.write_parquet(out, compression=compression)
        return out.getvalue()

    nested = frame.with_columns(pl.concat_list("weight").alias("weight"))
    for changed in (parquet(frame, "zstd"), parquet(pl.concat([frame] * 8)), parquet(frame.drop("note")), parquet(nested),
                    parquet(frame.rename({"note": "other"})), b"PAR1" + b"\0" * 20 + b"PAR1"):
        assert "reference.parquet" in refusal(path, sealed(members | {"reference.parquet": changed}))


def test_model_files_of_another_shape_are_refused(path, bundle_bytes):
    members = members_of(bundle_bytes)
    names = [n for n in members if n.startswith("model/")]
    assert names
    for name in names:
        broken = b"{}" if name.endswith(".json") else (2).to_bytes(8, "little") + b"{}"
        assert "linear" in refusal(path, sealed(members | {name: broken}))
        assert "linear" in refusal(path, sealed({n: b for n, b in members.items() if n != name}))


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(tmp_path, linear, path, monkeypatch):
    def build(*_: Any, **__: Any) -> Model:
        import no_such_package  # noqa: F401

        raise AssertionError

    card = Candidate(name="linear", rung="scratch", tasks=("classify",), build=build, needs={"no_such_package": "deep"})
    monkeypatch.setattr(registry, "one", lambda package, kind, name: card)
    with pytest.raises(AssayError, match=r"no_such_package.*assay\[deep\]"):
        load(path)


# ---- the cache


def test_processes_that_load_at_the_same_time_share_one_copy(path, home):
    code = "import sys; from assay.ship.bundle import load; b = load(sys.argv[1]); print(b.predict(b.reference)['probability'].sum())"
    running = [subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert results[0][1] == results[1][1] == ""
    assert len(list(home.iterdir())) == 1


def test_threads_that_load_and_ask_at_the_same_time_agree(path, home):
    answers: list[Any] = []

    def ask() -> None:
        bundle = load(path)
        assert bundle.reference is not None
        answers.extend(bundle.predict(bundle.reference)["probability"].sum() for _ in range(3))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 24
    assert len(set(answers)) == 1
    assert len(list(home.iterdir())) == 1


def test_the_cache_is_for_its_owner_only(path, home):
    load(path)
    assert home.stat().st_mode & 0o777 == 0o700
    files = [f for f in home.rglob("*") if f.is_file()]
    assert {f.stat().st_mode & 0o777 for f in files} == {0o400}


def test_a_cache_that_others_can_write_to_is_not_used(path, home):
    home.mkdir(parents=True)
    home.chmod(0o777)
    with pytest.raises(AssayError, match="Others can write"):
        load(path)


def test_a_cached_copy_that_was_changed_is_seen_and_replaced(path, home):
    expected = load(path)
    assert expected.reference is not None
    folder = home / expected.digest
    victim = next((folder / "model").glob("*.safetensors"))

    def same_size_and_date() -> None:
        raw = bytearray(victim.read_bytes())
        raw[-4:] = b"\xff" * 4
        victim.chmod(0o600)
        victim.write_bytes(raw)
        os.utime(victim, (cache.DATE, cache.DATE))

    def removed() -> None:
        victim.unlink()

    def added() -> None:
        (folder / "model" / "more.json").write_text("{}")

    def linked() -> None:
        victim.rename(home.parent / "elsewhere")
        victim.symlink_to(home.parent / "elsewhere")

    for tamper in (same_size_and_date, removed, added, linked):
        tamper()
        with pytest.warns(UserWarning, match="had been changed"):
            again = load(path)
        assert again.predict(expected.reference).equals(expected.predict(expected.reference))
        assert len(list(home.iterdir())) == 1


def test_the_quick_check_sees_a_changed_date_and_the_full_one_sees_all(path, home):
    victim = next((home / load(path).digest / "model").glob("*.safetensors"))
    load(path, verify=False)
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(raw)
    with pytest.warns(UserWarning, match="had been changed"):
        load(path, verify=False)
    assert victim.read_bytes() != bytes(raw)


def test_pruning_drops_what_was_not_used_for_longest(tmp_path, linear, home):
    paths = [pack(tmp_path / f"{i}.assay", **{**linear, "facts": {"i": i}}) for i in range(3)]
    digests = [load(p).digest for p in paths]
    for age, digest in enumerate(digests):
        os.utime(home / digest, (1000 + age, 1000 + age))
    load(paths[0])
    size = sum(f.stat().st_size for f in home.rglob("*") if f.is_file()) / 2**30
    left = cache.prune(size * 0.7)
    assert left < size * 0.7
    assert {f.name for f in home.iterdir()} == {digests[0], digests[2]}
    assert load(paths[1]).facts == {"i": 1}


# ---- a full disk


def run_with_file_limit(code: str, bytes_: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Files may not grow over `bytes_` in the child: the same error path as a full disk (EFBIG for ENOSPC)."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_)))


def test_a_disk_that_fills_up_while_loading_is_one_sentence_and_leaves_nothing(path, home):
    code = """
        import sys
        sys.dont_write_bytecode = True
        from assay.errors import BudgetError
        from assay.ship.bundle import load
        try:
            load(sys.argv[1])
        except BudgetError as error:
            print(error)
    """
    done = run_with_file_limit(code, 1000, str(path))
    assert done.stdout.startswith("The disk is full"), done.stderr
    assert list(home.iterdir()) == []


def test_a_disk_that_fills_up_while_packing_is_one_sentence_and_leaves_nothing(tmp_path, path):
    code = """
        import sys
        from pathlib import Path
        sys.dont_write_bytecode = True
        from assay.errors import BudgetError
        from assay.ship.bundle import load, pack
        b = load(sys.argv[1])
        import resource
        limit = int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            pack(sys.argv[2], task=b.task, candidate=b.candidate, params=b.params, schema=b.schema, model_folder=b.model,
                 calibration=b.calibration, facts=b.facts, reference=b.reference)
        except BudgetError as error:
            print(error)
    """
    out = tmp_path / "out"
    out.mkdir()
    for limit in (100, 8000):  # the model's own file does not fit; the whole does not fit
        done = run_with_file_limit(code, 1 << 20, str(path), str(out / "y.assay"), str(limit))
        assert done.stdout.startswith("The disk is full"), done.stderr
        assert list(out.iterdir()) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_names_the_way_out(path, home):
    home.parent.mkdir(mode=0o500)
    with pytest.raises(AssayError, match="ASSAY_CACHE"):
        load(path)


# ---- documents


def test_the_document_opens_a_bundle_with_and_without_assay(tmp_path, monkeypatch, capsys):
    packed = fitted("regress", "linear")
    pack(tmp_path / "winner.assay", **packed)
    packed["reference"].head(3).write_csv(tmp_path / "new-rows.csv")
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[1] / "docs" / "bundle.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
    assert "'name': 'linear'" in capsys.readouterr().out


# ---- formats are for good


def test_a_format_1_bundle_made_by_hand_from_the_documents_is_read(tmp_path):
    """Never change this test: it is the promise that a bundle written by assay 0.1.0 can be opened."""
    rows = pl.DataFrame({"size": [1.0, 2.0, None], "place": ["a", None, "b"]})
    table = io.BytesIO()
    rows.write_parquet(table, compression="uncompressed")
    parts = {
        "schema.json": json.dumps({"columns": [{"name": "size", "kind": "number", "unit": "m2"}, {"name": "place", "kind": "category"},
                                               {"name": "kind", "kind": "category"}], "target": "kind", "time": None, "group": None}).encode(),
        "calibration.json": b'{"temperature": 2.0}',
        "reference.parquet": table.getvalue(),
        "model/naive.json": b'{"answer": [0.9, 0.1]}',
    }
    manifest = {
        "format": 1, "assay": "0.1.0", "params": {}, "facts": {"rows": 3},
        "task": {"task": "classify", "classes": ["no", "yes"], "loss": "log", "currency": "", "positive": 1, "costs": None},
        "candidate": {"name": "naive", "version": "1"},
        "members": {name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in parts.items()},
    }
    path = tmp_path / "old.assay"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, raw in {**parts, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, raw)
    bundle = load(path)
    assert isinstance(bundle, Bundle)
    answer = bundle.predict_one({"size": 3, "place": "a"})
    assert answer["answer"] == "no"
    assert answer["probability"] == pytest.approx(0.75)  # odds 9:1 at temperature 2 are 3:1
    assert bundle.reference is not None
    assert bundle.reference.equals(rows)


def test_every_format_number_up_to_now_has_its_reader():
    assert sorted(READERS) == list(range(1, FORMAT + 1))


def test_a_disk_error_in_words_only_is_known_as_a_full_disk():
    assert cache.disk_full(OSError(28, "No space left on device"))
    assert cache.disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not cache.disk_full(OSError(13, "Permission denied"))
    with pytest.raises(BudgetError), cache.writing(Path("x")):
        raise RuntimeError("No space left on device")
