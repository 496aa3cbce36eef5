"""What a new contest learns from: the rows the first one had, rows given since, and rows asked of the service whose answer somebody has told."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case, Worth
from assay.contest.folder import Folder, write_json
from assay.data.dataset import Dataset, Schema
from assay.data.read import conform, read
from assay.errors import InputError
from assay.ship.bundle import Bundle
from assay.store.store import Store
from assay.tasks.base import Task
from assay.tasks.labels import label_of
from assay.words import Text, say

_NOT_AGAIN = ("data", "query", "drop", "kinds", "target", "lang", "sequence", "window", "skip_broken", "drop_missing_target")  # of a case: how its file was read, not what was asked


@dataclass(frozen=True)
class Material:
    """frame: the old rows, then the labelled ones in the order of asking. at: (labelled,) when each of the latter was asked, seconds since 1970.

    parts: the fingerprints of the kept files. notes: what could not be used, and why. fingerprint: of rows, labels and case together.
    """

    frame: pl.DataFrame
    at: np.ndarray
    parts: tuple[str, ...]
    notes: tuple[Text, ...]

    @property
    def labelled(self) -> int:
        return len(self.at)

    @property
    def old(self) -> int:
        return self.frame.height - self.labelled

    def fingerprint(self, case: Case) -> str:
        """64 hexadecimal digits; the same rows, labels and case give the same."""
        seen = hashlib.sha256(json.dumps({k: v for k, v in case.json().items() if k not in ("lang", "data")}, sort_keys=True, default=str).encode())
        seen.update(Dataset(self.frame, Schema(())).fingerprint.encode())
        return seen.hexdigest()


class Kept:
    """The rows that were given by file, in the home: `data/MODEL/0001-FINGERPRINT.parquet`, ..., and the case of the first contest, where its folder was named."""

    def __init__(self, home: Path, model: str) -> None:
        self.folder = home / "data" / model

    def parts(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-*.parquet"))

    def fingerprints(self) -> tuple[str, ...]:
        return tuple(p.stem.partition("-")[2] for p in self.parts())

    def frame(self, schema: Schema) -> pl.DataFrame | None:
        frames = [pl.read_parquet(p) for p in self.parts()]
        return pl.concat(_same_answers(frames, schema.target or "")) if frames else None

    def case(self) -> dict[str, Any]:
        file = self.folder / "case.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def take(self, source: str | Path, bundle: Bundle) -> bool:
        """Keep the rows of a file, a database or the folder of a run; False if the same rows are kept already. Raises ReadError, InputError."""
        path = Path(source)
        run = path.is_dir() and (path / "case.json").exists()
        frame = _of_run(path, bundle) if run else _of_file(source, bundle)
        print_ = Dataset(frame, Schema(())).fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        if run and not (self.folder / "case.json").exists():
            write_json(self.folder / "case.json", Folder(path).about()["case"])
        if print_ in self.fingerprints():
            return False
        partial = self.folder / f".{os.getpid()}.tmp"
        frame.write_parquet(partial)
        partial.replace(self.folder / f"{len(self.parts()) + 1:04d}-{print_}.parquet")
        return True


def case_of(bundle: Bundle, known: dict[str, Any], **options: Any) -> Case:
    """The case of the new contest: what the first one was asked, as far as its folder or the bundle tell; `options` win."""
    schema, told = bundle.schema, bundle.task.json()
    fields: dict[str, Any] = {k: v for k, v in known.items() if k not in _NOT_AGAIN}
    if not fields:
        fields = {"seed": bundle.facts.get("seed", 0), "quantile": told.get("quantile", 0.5)}
    worth = _worth(bundle.task, told)
    if worth is not None and "worth" not in fields:
        fields["worth"] = worth
    fields |= {"target": schema.target, "task": bundle.task.name, "loss": told["loss"], "group": schema.group, "time_column": schema.time,
               "kinds": {c.name: c.kind for c in schema.columns if c.name != schema.target}}
    return Case.of(fields | options)


def gather(store: Store, model: str, bundle: Bundle, kept: Kept, *, media: Path | None = None, recent: int | None = None) -> Material:
    """All that can teach. recent: at most so many of the old rows, the last of them; 0 leaves only the labelled ones.

    media: where the service keeps pictures and sounds by their sha256.
    """
    schema, task = bundle.schema, bundle.task
    rows, labels, at, notes = _told(store, model, task)
    features, good = _features(rows, schema, media)
    if schema.time and any(good) and features[schema.time].null_count():  # no row without a time can be put in order
        timed = iter(features[schema.time].is_not_null())
        good = [g and next(timed) for g in good]
        features = features.filter(pl.col(schema.time).is_not_null())
    if not all(good):
        notes.append(say("{n:,} labelled rows cannot be read with the columns of '{model}' and do not teach.", n=good.count(False), model=model))
        labels, at = ([v for v, g in zip(values, good, strict=True) if g] for values in (labels, at))
    fresh = features.with_columns(_answers(schema.target or "", labels, task)).select(c.name for c in schema.columns) if labels else None
    old = kept.frame(schema)
    if old is not None and recent is not None and old.height > recent:
        notes.append(say("Of {all:,} older rows the last {recent:,} teach.", all=old.height, recent=recent))
        old = (old.sort(schema.time, maintain_order=True) if schema.time else old)[old.height - recent:]
    frames = [f for f in (old, fresh) if f is not None and f.height]
    frame = pl.concat(_same_answers(frames, schema.target or "")) if frames else pl.DataFrame()
    return Material(frame, np.array(at, dtype=np.float64), kept.fingerprints(), tuple(notes))


def _told(store: Store, model: str, task: Task) -> tuple[list[dict[str, Any]], list[Any], list[float], list[Text]]:
    """Rows asked, their labels and times, in the order of asking; the last label of an answer counts."""
    found: list[tuple[float, dict[str, Any], Any]] = []
    unkept = unusable = 0
    seen: set[str] = set()
    for prediction, said in store.predictions.labelled(model):
        if prediction.of is not None:
            continue
        seen.add(prediction.id)
        row, label = said.row or prediction.row, label_of(task, said.label)
        unkept, unusable = unkept + (row is None), unusable + (row is not None and label is None)
        if row is not None and label is not None:
            found.append((prediction.at, row, label))
    for said in store.feedback.since(model, 0.0):
        if said.row is None or said.label is None or said.prediction in seen:
            continue
        label = label_of(task, said.label)
        unusable += label is None
        if label is not None:
            found.append((said.at, said.row, label))
    found.sort(key=lambda f: f[0])
    notes = []
    if unkept:
        notes.append(say("{n:,} labels belong to answers whose rows were not kept, and cannot teach; they still count in the test of a challenger.", n=unkept))
    if unusable:
        notes.append(say("{n:,} labels were left out: they are no answer to the question.", n=unusable))
    return [row for _, row, _ in found], [label for _, _, label in found], [at for at, _, _ in found], notes


def _features(rows: list[dict[str, Any]], schema: Schema, media: Path | None) -> tuple[pl.DataFrame, list[bool]]:
    """The rows in the schema's columns, and which of them could be read."""
    if not rows:
        return pl.DataFrame(), []
    filled = [{name: _cell(value, media) for name, value in row.items()} for row in rows]
    whole = [all(c.name in row for c in schema.features) for row in filled]
    try:
        if all(whole):
            return conform(filled, schema).frame, whole
    except InputError:
        pass
    frames, good = [], []
    for row, complete in zip(filled, whole, strict=True):
        try:
            frames.append(conform([row], schema).frame if complete else None)
        except InputError:
            frames.append(None)
        good.append(frames[-1] is not None)
    return pl.concat([f for f in frames if f is not None]) if any(good) else pl.DataFrame(), good


def _cell(value: Any, media: Path | None) -> Any:
    """A picture or sound that the service wrote down by its digest, as its bytes again."""
    if isinstance(value, dict) and media is not None and isinstance(name := value.get("sha256"), str) and len(name) == 64 and name.isalnum():
        file = media / name
        return file.read_bytes() if file.is_file() else value
    return value


def _answers(name: str, labels: list[Any], task: Task) -> pl.Series:
    if task.name == "regress":
        return pl.Series(name, labels, dtype=pl.Float64)
    kinds = {type(label) for label in labels}
    if kinds in ({bool}, {int}):
        return pl.Series(name, labels)
    return pl.Series(name, [str(label) for label in labels], dtype=pl.String)


def _same_answers(frames: list[pl.DataFrame], target: str) -> list[pl.DataFrame]:
    """Where parts give their answers in different types (a label 'other' among whole numbers), all of them as text."""
    types = {f.schema[target] for f in frames}
    if len(types) < 2:
        return frames
    kind = pl.Float64() if all(t.is_numeric() for t in types) else pl.String()
    return [f.with_columns(pl.col(target).cast(kind)) for f in frames]


def _of_run(path: Path, bundle: Bundle) -> pl.DataFrame:
    _, task, data, _, _ = Folder(path).open()
    wanted = [c.name for c in bundle.schema.columns]
    if task.name != bundle.task.name or data.schema.target != bundle.schema.target or set(wanted) - set(data.frame.columns):
        raise InputError("The run in '{path}' asks another question than the model: the target '{found}' in place of '{wanted}', or other columns.", path=str(path),
                         found=data.schema.target, wanted=bundle.schema.target)
    return data.frame.select(wanted)


def _of_file(source: str | Path, bundle: Bundle) -> pl.DataFrame:
    schema = bundle.schema
    kinds = {c.name: c.kind for c in schema.columns if c.name != schema.target}
    data = read(source, target=schema.target, kinds=kinds, group=schema.group, time=schema.time, target_as="amount" if bundle.task.name == "regress" else "label").dataset
    there = ~data.y.is_null()
    return data.frame.select(c.name for c in schema.columns).filter(there)


def _worth(task: Task, told: dict[str, Any]) -> Worth | None:
    """What an error costs, as the bundle's task tells it."""
    if told.get("unit_cost"):
        return Worth({"unit": float(told["unit_cost"])}, told["currency"])
    if not told.get("costs"):
        return None
    costs, names = np.array(told["costs"]), [str(c) for c in task.classes]  # type: ignore[attr-defined]
    away = ~np.eye(len(names), dtype=bool)
    if len(set(costs[away].tolist())) == 1:
        return Worth({"error": float(costs[away][0])}, told["currency"])
    return Worth({f"{t}>{a}": float(costs[i, k]) for i, t in enumerate(names) for k, a in enumerate(names) if i != k}, told["currency"])


def refused(bundle: Bundle) -> Text | None:
    """None if labelled rows can teach a successor of this model, else why not."""
    if not bundle.task.by_rows:
        return say("it forecasts series: run the contest again on all of them, and challenge with its winner")
    if any(c.kind == "sequence" for c in bundle.schema.features):
        return say("it reads sequences, which are made of many rows: run the contest again on the table, and challenge with its winner")
    return None


def in_order(case: Case, material: Material) -> Case:
    """The case whose newest labelled rows judge: after a shift the old rows say little about what is asked today.

    Where rows have a time or a group, those decide as they always do.
    """
    if material.labelled < 40 or case.group or case.time_column:
        return case
    return replace(case, split="order", folds=1, test_rows=max(20, material.labelled // 2))
