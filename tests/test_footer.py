"""The footer of a parquet file, read without a library: it says what pyarrow says, and no bytes make it hang or crash."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import registry, tasks
from assay.errors import BundleError
from assay.families.base import Budget, Candidate
from assay.ship import cache
from assay.ship.bundle import load, pack
from assay.ship.footer import Footer, footer

CELLS: dict[str, Any] = {"number": st.none() | st.floats(), "text": st.none() | st.text(max_size=5), "whole": st.none() | st.integers(-9, 9), "yes": st.none() | st.booleans(),
                         "day": st.none() | st.dates(), "when": st.none() | st.datetimes()}
TYPES = {"number": pl.Float64, "text": pl.String, "whole": pl.Int64, "yes": pl.Boolean, "day": pl.Date, "when": pl.Datetime}


def written(frame: pl.DataFrame, compression: str = "uncompressed") -> bytes:
    out = io.BytesIO()
    frame.write_parquet(out, compression=compression)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    kind = tasks.find("regress")
    data = kind.example()
    task, candidate = kind.of(data), registry.get("assay.families", Candidate, "naive")
    model = candidate.build(task, data.schema).fit(data, seed=0, budget=Budget(seconds=5))
    return pack(tmp_path / "x.assay", task=task, candidate=candidate, params={}, schema=data.schema, model_folder=model, calibration={}, facts={},
                reference=data.asked().frame)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_it_says_what_pyarrow_says(data):
    import pyarrow.parquet

    kinds = data.draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=6))
    rows = data.draw(st.integers(0, 12))
    columns = {f"{kind} {i}": pl.Series(data.draw(st.lists(CELLS[kind], min_size=rows, max_size=rows)), dtype=TYPES[kind]) for i, kind in enumerate(kinds)}
    compression = data.draw(st.sampled_from(["uncompressed", "zstd", "snappy"]))
    raw = written(pl.DataFrame(columns), compression)
    facts = pyarrow.parquet.read_metadata(io.BytesIO(raw))
    assert footer(raw) == Footer(facts.schema.names, facts.num_rows, compression != "uncompressed" and rows > 0)


def test_nested_columns_are_refused():
    for cell in ([1.0], {"a": 1.0}):
        with pytest.raises(ValueError, match="flat"):
            footer(written(pl.DataFrame({"x": [cell]})))


def test_changed_bytes_end_in_a_footer_or_an_exception_at_once():
    whole = written(pl.DataFrame({"a": [1.5, None], "b": ["x", "y"]}))
    rng = np.random.default_rng(0)
    ends = {"read": 0, "refused": 0}
    for i in range(3000):
        raw = bytearray(whole)
        for _ in range(1 + i % 3):
            raw[int(rng.integers(len(raw) - 400 if i % 2 else 0, len(raw)))] = int(rng.integers(0, 256))
        try:
            assert isinstance(footer(bytes(raw)), Footer)
            ends["read"] += 1
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, struct.error):
            ends["refused"] += 1
    assert min(ends.values()) > 100


def test_a_list_that_claims_a_thousand_million_entries_is_refused_before_any_is_made():
    body = bytes([0x29, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x00])  # field 2: a list of 2**31 structs
    with pytest.raises(ValueError, match="beyond the end"):
        footer(b"PAR1" + body + len(body).to_bytes(4, "little") + b"PAR1")
    deep = bytes([0x1C]) * 5000
    with pytest.raises(ValueError, match="deep"):
        footer(b"PAR1" + deep + len(deep).to_bytes(4, "little") + b"PAR1")


def test_reference_rows_are_read_late_and_survive_a_pruned_cache(path):
    bundle = load(path)
    assert "reference" not in vars(bundle)
    cache.drop(bundle.digest)
    assert bundle.reference is not None
    assert bundle.reference.height == 150
    assert bundle.reference is bundle.reference


def test_reference_rows_that_were_changed_after_loading_are_refused_when_they_are_read(path):
    bundle = load(path)
    copy = cache.root() / bundle.digest / "reference.parquet"
    raw = bytearray(copy.read_bytes())
    raw[len(raw) // 3] ^= 1
    copy.chmod(0o600)
    with copy.open("r+b") as file:
        file.write(raw)
    with pytest.raises(BundleError, match=r"reference\.parquet"):
        _ = bundle.reference


def test_loading_and_a_first_answer_need_neither_pyarrow_nor_the_other_families(path):
    code = ("import sys; from assay.ship.bundle import load; b = load(sys.argv[1]); b.predict_one(b.reference.row(0, named=True));"
            "print([m for m in sys.modules if m.split('.')[0] in ('pyarrow', 'scipy', 'pandas', 'lightgbm') or m == 'assay.families.transformer'])")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
