"""The watch: how fast and how small, how often it is wrong, how late it is right. Usage: python bench/drift.py [--rows 3000000] [--columns 1000] [--streams 200]

Writes the table to a temporary folder (--folder) in parts of 100,000 rows and removes it; a child process of its own reads it, so that its peak memory is the watch's alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
from machine import publish

from assay.data.dataset import Column, Schema
from assay.store.records import Sketch
from assay.tasks.classify import Classify
from assay.watch import drift, stream
from assay.watch.alarms import Alarms
from assay.watch.monitor import Monitor

PART = 100_000
CATEGORIES = 50  # of 1,000 columns; 100 others have 5 % missing values
DISTINCT = 5  # parts that are drawn; the others are the same files under other names, which are read and decoded all the same
CHECKS, EACH = 20, 200
SHIFTED = 0.25  # standard deviations: an effect of 0.06, tolerated; the last 20 columns move by a whole one


# ---- a table larger than memory should hold


def columns_of(n: int) -> list[Column]:
    words = n * CATEGORIES // 1000
    return [Column(f"x{i}", "number") for i in range(n - words)] + [Column(f"c{i}", "category") for i in range(words)]


def part(columns: list[Column], rows: int, seed: int, *, recent: bool) -> pl.DataFrame:
    """Readings with two decimals, as sensors give them, and categories of 12 levels."""
    rng = np.random.default_rng(seed)
    out: dict[str, Any] = {}
    numbers = sum(c.kind == "number" for c in columns)
    for i, c in enumerate(columns):
        if c.kind == "category":
            out[c.name] = pl.Series(rng.integers(0, 12, rows, dtype=np.int8)).replace_strict({k: f"level {k}" for k in range(12)}, return_dtype=pl.String)
            continue
        values = rng.standard_normal(rows, dtype=np.float32)
        if recent:
            values += np.float32(1.0 if i >= numbers - 20 else SHIFTED if i % 2 else 0.0)
        np.round(values, 2, out=values)
        column = pl.Series(values)
        out[c.name] = column.set(pl.Series(rng.random(rows, dtype=np.float32) < 0.05), None) if i % 10 == 0 else column
    return pl.DataFrame(out)


def large(rows: int, n: int, folder: Path) -> dict[str, Any]:
    columns = columns_of(n)
    began = time.perf_counter()
    for i in range(rows // PART):
        here = folder / f"{i:03d}.parquet"
        if i < DISTINCT:
            part(columns, PART, i + 1, recent=True).write_parquet(here, compression="zstd", compression_level=1, row_group_size=PART)
        else:
            os.link(folder / f"{i % DISTINCT:03d}.parquet", here)
    part(columns, 20_000, 0, recent=False).write_parquet(folder / "reference.pq", compression="zstd")
    made = time.perf_counter() - began
    size = sum(p.stat().st_size for p in folder.glob("*.parquet"))
    told = subprocess.run([sys.executable, __file__, "--child", str(folder), "--columns", str(n)], capture_output=True, text=True, check=True)
    return json.loads(told.stdout.strip().splitlines()[-1]) | {"made_s": made, "gb": size / 1e9}


def child(folder: Path, n: int) -> None:
    """What `assay watch` does with large parquet files, without the model."""
    began, cpu = time.perf_counter(), time.process_time()
    columns = columns_of(n)
    gauge = stream.learnt([folder / "reference.pq"], columns)[0]
    learnt = time.perf_counter()
    recent = stream.measured(gauge, sorted(folder.glob("*.parquet")))
    measured = time.perf_counter()
    found = drift.controlled(drift.compare(gauge, recent), drift.ALPHA)
    done = time.perf_counter()
    alarms = {f.facts["column"] for f in found if f.alarming}
    numbers = [c.name for c in columns if c.kind == "number"]
    with open("/proc/self/status", encoding="utf-8") as lines:
        peak = next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) / 1024
    print(json.dumps({"rows": recent.rows, "columns": n, "learn_s": learnt - began, "measure_s": measured - learnt, "compare_s": done - measured, "wall_s": done - began,
                      "cpu_s": time.process_time() - cpu, "peak_mb": peak, "hit": len(alarms & set(numbers[-20:])), "false": len(alarms - set(numbers[-20:]))}))


# ---- streams


@dataclass
class Memory:
    """The part of the store that a monitor uses, in memory: 200 streams need no disk."""

    kept: list[Sketch] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def add(model: str, version: int, start: float, end: float, rows: int, data: bytes) -> int:
            self.kept.append(Sketch(len(self.kept) + 1, model, version, start, end, rows, data))
            return len(self.kept)

        self.sketches = SimpleNamespace(add=add, between=lambda m, v, since, until: [s for s in self.kept if s.start < until and s.end >= since])
        self.alarms = SimpleNamespace(add=lambda m, code, *a: self.opened.append(code) if code not in self.opened else None, open=lambda m: [])
        self.predictions = SimpleNamespace(labelled=lambda *a, **k: [])
        self.traffic = SimpleNamespace(between=lambda *a: [])


SCHEMA = Schema((Column("x", "number"), Column("price", "number"), Column("count", "number"), Column("shop", "category"), Column("city", "category"), Column("note", "text", language="en"),
                 Column("y", "category")), "y")
CITIES = np.array([f"city {i}" for i in range(300)])
COMMON = 1 / np.arange(1, 301)
COMMON /= COMMON.sum()
POST = np.array(["parcel", "late", "courier", "door", "broken", "box", "driver", "street", "lost", "stamp"])
BANK = np.array(["account", "card", "payment", "transfer", "bill", "interest", "loan", "branch", "fee", "limit"])


def draw(n: int, rng: np.random.Generator, what: str = "") -> pl.DataFrame:
    x = rng.normal(size=n) * {"spread x 1.5": 1.5, "spread x 2": 2.0}.get(what, 1.0) + {"mean + 0.5 sd": 0.5, "mean + 0.7 sd": 0.7, "mean + 1 sd": 1.0}.get(what, 0.0)
    shop = rng.choice(["north", "south", "east", "web"], n, p=[0.4, 0.3, 0.2, 0.1] if what != "category mix 40 -> 15 %" else [0.15, 0.3, 0.2, 0.35])
    frame = pl.DataFrame({"x": x, "price": rng.lognormal(2, 1, n), "count": rng.poisson(2, n).astype(float), "shop": shop, "city": rng.choice(CITIES, n, p=COMMON),
                          "note": [" ".join(w) for w in np.where(rng.random((n, 1)) < (0.4 if what == "40 % of texts on another topic" else 0.0), rng.choice(BANK, (n, 5)), rng.choice(POST, (n, 5)))]})
    if what == "10 % missing":
        frame = frame.with_columns(x=pl.when(pl.Series(rng.random(n) < 0.1)).then(None).otherwise("x"))
    if what == "new level in 8 %":
        frame = frame.with_columns(shop=pl.when(pl.Series(rng.random(n) < 0.08)).then(pl.lit("kiosk")).otherwise("shop"))
    return frame


def told(n: int, rng: np.random.Generator, what: str = "") -> list[dict[str, Any]]:
    p = np.clip(rng.beta(2, 4, n) + (0.25 if what == "answers 25 points up" else 0.0), 0.01, 0.99)
    return [{"answer": "yes" if v > 0.5 else "no", "probability": max(v, 1 - v), "p(no)": 1 - v, "p(yes)": v} for v in p.tolist()]


def monitor(rng: np.random.Generator, reference: int, tolerated: float) -> Monitor:
    bundle: Any = SimpleNamespace(task=Classify(("no", "yes")), schema=SCHEMA, facts={}, reference=draw(reference, rng))
    store = Memory()
    return Monitor(bundle, store, "m", 1, tolerated=tolerated, alarms=Alarms(store, "m", ()))


def false_alarms(streams: int, tolerated: float, reference: int = 500) -> tuple[int, int]:
    """(streams that ever alarmed, checks made) of streams that never change."""
    bad = checks = 0
    for s in range(streams):
        rng = np.random.default_rng([7, s])
        watch = monitor(rng, reference, tolerated)
        for i in range(CHECKS):
            watch.update(draw(EACH, rng), told(EACH, rng), 1e9 + 60 * i)
            checks += 1
            if any(f.alarming for f in watch.check(1e9 + 60 * i)):
                bad += 1
                break
    return bad, checks


def delay(what: str, streams: int = 15, most: int = 6000) -> list[int]:
    """Rows from the shift to the first alarm, `most` where there was none."""
    out = []
    for s in range(streams):
        rng = np.random.default_rng([11, s])
        watch = monitor(rng, 1000, drift.TOLERATED)
        for i in range(8):
            watch.update(draw(EACH, rng), told(EACH, rng), 1e9 + i)
            watch.check(1e9 + i)
        seen = 0
        while seen < most:
            watch.update(draw(EACH, rng, what), told(EACH, rng, what), 1e9 + 100 + seen)
            seen += EACH
            if any(f.alarming for f in watch.check(1e9 + 100 + seen)):
                break
        out.append(seen)
    return out


SHIFTS = ("mean + 0.5 sd", "mean + 0.7 sd", "mean + 1 sd", "spread x 1.5", "spread x 2", "category mix 40 -> 15 %", "10 % missing", "new level in 8 %", "40 % of texts on another topic", "answers 25 points up")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--rows", type=int, default=3_000_000)
    ask.add_argument("--columns", type=int, default=1000)
    ask.add_argument("--streams", type=int, default=200)
    ask.add_argument("--delays", type=int, default=15)
    ask.add_argument("--folder", type=Path)
    ask.add_argument("--child", type=Path)
    ask.add_argument("--dry", action="store_true", help="print, write no document")
    asked = ask.parse_args()
    if asked.child:
        child(asked.child, asked.columns)
        return
    rows: list[tuple[str, str, str]] = []
    if asked.rows:
        folder = Path(tempfile.mkdtemp(prefix="assay-drift-", dir=asked.folder))
        try:
            got = large(asked.rows, asked.columns, folder)
        finally:
            shutil.rmtree(folder)
        rows += [(f"{got['rows']:,} rows x {got['columns']:,} columns, {got['gb']:.1f} GB of parquet (in {asked.rows // PART} parts, {min(DISTINCT, asked.rows // PART)} of them different)", f"{got['wall_s']:.0f} s wall, {got['cpu_s']:.0f} s CPU on {len(os.sched_getaffinity(0))} cores", "n = 1; under 120 s"),
                 ("peak memory of that process", f"{got['peak_mb']:.0f} MB", "under 500 MB"),
                 (f"of 20 columns moved by 1 sd found; of {got['columns'] - 20:,} others (half moved by {SHIFTED:g} sd, tolerated) called drift", f"{got['hit']}; {got['false']}", "20; 0")]
    if asked.streams:
        for tolerated in (drift.TOLERATED, 1e-6):
            bad, checks = false_alarms(asked.streams, tolerated)
            rows.append((f"stationary streams that ever raised an alarm, tolerated {tolerated:g}", f"{bad} of {asked.streams} ({bad / asked.streams:.1%})",
                         f"n = {checks:,} checks of {EACH} rows, reference 500 rows; stated: at most {drift.ALPHA:.0%}"))
    for what in SHIFTS if asked.delays else ():
        late = delay(what, asked.delays)
        rows.append((f"rows until the alarm: {what}", f"{np.median(late):,.0f} (90 %: {np.quantile(late, 0.9):,.0f})", f"n = {len(late)} streams, checked every {EACH} rows, reference 1,000 rows"))
    if asked.dry:
        print("\n".join(" | ".join(r) for r in rows))
        return
    publish("drift", "## Watch\n\n`python bench/drift.py`: drift of a table larger than memory, false alarms on streams that never change, and how late planted shifts are seen. Readings have two decimals.",
            ["what", "measured", "n, goal"], rows)


if __name__ == "__main__":
    main()
