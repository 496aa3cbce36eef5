"""Recent rows of a file against what a bundle knows: one check, no service and no store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import MEDIA, Column, Schema
from assay.data.load import load as load_table
from assay.data.read import conform
from assay.errors import InputError
from assay.ship.bundle import Bundle
from assay.ship.bundle import load as load_bundle
from assay.watch import drift, quality, stream, two_sample
from assay.watch.finding import Finding
from assay.watch.gauge import Gauge
from assay.watch.performance import Judged, estimated, expected
from assay.watch.reference import ANSWERED, answers_frame, given, watched_columns
from assay.watch.sketch import Sketches
from assay.watch.traces import spread
from assay.words import Text, say

IN_MEMORY_MB = 256.0  # of parquet files; larger ones are streamed
ANSWERED_ROWS = 20_000  # that the model answers, to see whether its answers have changed
_GRADES = {level: i for i, level in enumerate(("critical", "warning", "info", "fine"))}


@dataclass(frozen=True)
class Watched:
    """findings: of every column, the gravest first; those that were tested and are nothing are 'fine'. notes: what was left out, and why. alpha: the false-discovery rate."""

    findings: tuple[Finding, ...]
    rows: int
    reference_rows: int
    columns: int
    notes: tuple[Text, ...]
    alpha: float
    tolerated: float

    @property
    def alarming(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.alarming)

    def json(self) -> dict[str, Any]:
        return {"rows": self.rows, "reference_rows": self.reference_rows, "columns": self.columns, "alpha": self.alpha, "tolerated": self.tolerated,
                "notes": [str(n) for n in self.notes], "findings": [f.json() for f in self.findings]}


def watched(bundle: Bundle | str | Path, recent: Any, reference: Any = None, *, query: str | None = None, alpha: float = drift.ALPHA, tolerated: float = drift.TOLERATED,
            together: bool = True, seed: int = 0) -> Watched:
    """recent, reference: whatever `read` takes (a file, a frame, a database URL with a `query`). Without `reference` the bundle's own: sketches of all training rows if it
    brings them, else its rows, at most 1,000. together: also ask a classifier (rows of both sides are needed for that). Raises ReadError, InputError, BundleError."""
    model = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if not model.task.by_rows:
        raise InputError("'{task}' answers whole series; they are watched by their errors once the values have come: give the service their labels.", task=model.task.name)
    columns = watched_columns(model.schema)
    notes: list[Text] = []
    gauge, answered, before = _reference(model, columns, reference, query, notes)
    sketches, now, found = _recent(gauge, model, columns, recent, query)
    if sketches.rows < drift.LEAST_ROWS:
        raise InputError("{rows} recent rows are too few to tell a shift from chance; {least} are needed. Collect more.", rows=sketches.rows, least=drift.LEAST_ROWS)
    tested = drift.compare(gauge, sketches, tolerated=tolerated) + quality.check(gauge, sketches)
    if together and before is not None and now.height and not any(f.code.startswith("absent") for f in found):
        tested += two_sample.check(gauge, before, now, seed=seed)
    tested += _answers(model, now, answered, before, tolerated, notes)
    quiet = sorted({c.name for c in columns} - {c.name for c in gauge.columns})
    if quiet:
        notes.append(say("Not watched, because the reference has no value of them: {columns}.", columns=[f"'{c}'" for c in quiet[:20]]))
    findings = found + drift.controlled(tested, alpha)
    # a column that moves as a whole is told once, by its gravest finding first
    findings.sort(key=lambda f: (_GRADES[f.level], f.facts.get("corrected", 0.0), -abs(f.facts.get("effect") or 0.0)))
    return Watched(tuple(findings), sketches.rows, gauge.reference.rows, len(gauge.columns), tuple(notes), alpha, tolerated)


def _reference(model: Bundle, columns: tuple[Column, ...], source: Any, query: str | None, notes: list[Text]) -> tuple[Gauge, Gauge | None, pl.DataFrame | None]:
    """(gauge of the rows, gauge of the answers if the bundle brings one, reference rows if there are any in memory)."""
    if source is None:
        gauge, answered = given(model)
        if gauge is None:
            raise InputError("The bundle holds no reference rows. Name the rows it was trained with: --reference train.csv")
        missing = [c.name for c in columns if c.kind in MEDIA and c not in gauge.columns]
        if missing:
            notes.append(say("A bundle holds no pictures, sounds or sequences to compare with; name the training rows by --reference to watch {columns}.", columns=[f"'{c}'" for c in missing]))
        return gauge, answered, model.reference
    if (parts := _streamed(source, columns)) is not None:
        names = set(pl.read_parquet_schema(parts[0]))
        there = tuple(c for c in columns if c.name in names)
        gauge, sample = stream.learnt(parts, there)
        return gauge, None, sample
    frame = _frame(model, columns, source, query)[0]
    return Gauge.learn(frame, [c for c in columns if c.name in frame.columns]), None, frame


def _recent(gauge: Gauge, model: Bundle, columns: tuple[Column, ...], source: Any, query: str | None) -> tuple[Sketches, pl.DataFrame, list[Finding]]:
    """(sketches of all recent rows, rows in memory for what needs them, what was wrong with the table itself)."""
    if (parts := _streamed(source, columns)) is not None:
        names = set(pl.read_parquet_schema(parts[0]))
        found = quality.read_leniently(pl.DataFrame(schema=dict.fromkeys(names, pl.Null)), columns)[1]
        gauge = _only(gauge, names)
        return stream.measured(gauge, parts), stream.sample(parts, [c for c in columns if c.name in names], rows=stream.rows_for(columns, ANSWERED_ROWS)), found
    frame, found = _frame(model, columns, source, query)
    return _only(gauge, set(frame.columns)).measure(frame), frame, found


def _only(gauge: Gauge, names: set[str]) -> Gauge:
    return Gauge(tuple(c for c in gauge.columns if c.name in names), gauge.grids, gauge.lenses, gauge.reference)


def _streamed(source: Any, columns: tuple[Column, ...]) -> list[Path] | None:
    if any(c.kind in MEDIA for c in columns):
        return None
    parts = stream.parts_of(source)
    return parts if parts and sum(p.stat().st_size for p in parts) > IN_MEMORY_MB * 2**20 else None


def _frame(model: Bundle, columns: tuple[Column, ...], source: Any, query: str | None) -> tuple[pl.DataFrame, list[Finding]]:
    if any(c.kind in MEDIA for c in columns):
        return model.read(source, query=query).frame, []
    table, _ = load_table(source, query=query)
    readable, found = quality.read_leniently(table, columns)
    if not readable.width:
        raise InputError("The rows have none of the bundle's columns: {columns}. Are they of another table?", columns=[c.name for c in columns][:20])
    return conform(readable, Schema(tuple(c for c in columns if c.name in readable.columns))).frame, found


def _answers(model: Bundle, now: pl.DataFrame, answered: Gauge | None, before: pl.DataFrame | None, tolerated: float, notes: list[Text]) -> list[Finding]:
    """Do the model's answers to recent rows differ, and what loss do they expect of themselves."""
    asked = {c.name for c in watched_columns(model.schema)}
    if not asked <= set(now.columns) or not now.height:
        notes.append(say("The model was not asked, because columns are missing."))
        return []
    told = _asked(model, now)
    out: list[Finding] = []
    if answered is None and before is not None and asked <= set(before.columns):
        learnt = answers_frame(_asked(model, before))
        # rows that taught the model are answered more surely than any others: confidences are not compared with those, only what was answered
        answered = Gauge.learn(learnt, [c for c in ANSWERED if c.name[1:] in ("answer", "amount")])
    if answered is not None:
        out += drift.compare(answered, answered.measure(answers_frame(told), copied=False), tolerated=tolerated)
    judged, losses = Judged.of(model.facts), expected(model.task, told)
    if isinstance(losses, Text):
        notes.append(say("No loss is estimated without labels: {reason}.", reason=losses))
    elif judged is not None and np.isfinite(losses).all():
        out.append(estimated(len(losses), float(losses.mean()), float(losses.var()), judged)[1])
    return out


def _asked(model: Bundle, frame: pl.DataFrame) -> list[dict[str, Any]]:
    rows = frame
    if frame.height > ANSWERED_ROWS:
        rows = frame[spread(pl.Series(np.arange(frame.height)), ANSWERED_ROWS).to_numpy()]
    return model.predict(rows).to_dicts()
