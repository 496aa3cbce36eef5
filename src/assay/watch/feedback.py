"""Labels from a file into the store: by the id of an answer, by a key that the asked rows hold, or with the whole row.

A label is one more fact, never a change: importing a file twice adds nothing, a file that grew adds what is new, and a label that somebody
gave on the page in the meantime is not overruled by the same old line of a file.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.data.dataset import MEDIA
from assay.data.load import load as load_table
from assay.data.load import nearest
from assay.errors import InputError, ReadError
from assay.ship.bundle import Bundle
from assay.store.records import Feedback
from assay.store.store import Store
from assay.tasks.base import Task
from assay.tasks.labels import is_class, label_of, spelt
from assay.watch import label_studio
from assay.words import Text, say

ID_NAMES, LABEL_NAMES = ("prediction", "prediction_id", "assay.prediction"), ("label", "truth", "answer_should_be", "标签")
SHOWN = 20
_EVER = 1e12  # seconds; MySQL knows no infinity


@dataclass(frozen=True)
class Imported:
    """added: labels that were new. known: there already. unlabelled: rows of the file without a label. waiting: labels whose answer is not in the store (yet).
    notes: what a reader should know."""

    added: int
    known: int
    unlabelled: int
    waiting: int
    notes: tuple[Text, ...] = ()


@dataclass(frozen=True)
class _Said:
    """One line of the file. prediction, key, row: one of them names what the label is about."""

    number: int
    label: Any
    prediction: str | None = None
    key: str | None = None
    row: dict[str, Any] | None = None
    note: str | None = None

    @property
    def about(self) -> str:
        """Names what the label is about, in a file and in the store alike."""
        return self.prediction or row_digest(self.row or {})


def import_file(store: Store, model: str, bundle: Bundle, file: str | Path, *, label: str | None = None, id_column: str | None = None, key: str | None = None,
                allow_new: bool = False, actor: str = "cli", since: float = 0.0) -> Imported:
    """All labels of the file in one transaction, or none and the reason.

    file: csv, tsv, jsonl, parquet, xlsx, or Label Studio's JSON (.json). label: the column with the label (default: 'label', or the target's name).
    id_column: the column with the id of the answer (default: 'prediction', or 'id' where it holds such ids). key: a column of the file that the
    asked rows have too, under the same name; answers since `since` (seconds since 1970) are looked through, and the newest with that key takes
    the label. Without either, each line has to be a whole row. allow_new: take classes that the model has never learnt.
    Raises InputError, ReadError.
    """
    task = bundle.task
    if not task.by_rows:
        raise InputError("'{model}' forecasts series: a label of a single row says nothing about it. Give the values that came to a new contest: assay run.", model=model)
    lines, notes = _read(Path(file) if not isinstance(file, Path) else file, bundle, label, id_column, key)
    said, unlabelled = _understood(task, lines, allow_new)
    if not said:
        raise InputError("'{file}' has {n:,} lines and no label in any of them. The label is expected in the column '{name}'.", file=Path(file).name, n=unlabelled,
                         name=label or LABEL_NAMES[0])
    waiting = 0
    if key is not None:
        said, waiting = _joined(store, model, said, key, since)
        if waiting:
            notes.append(say("{n:,} labels have no answer with their '{key}' yet. Import the same file again later: what is in the store already is not added twice.", n=waiting,
                             key=key))
    said = list({s.about: s for s in said}.values())  # of two lines about one answer the later one
    fresh = _fresh(store, model, said)
    unknown = [s for s in fresh if s.prediction is not None and store.predictions.get(s.prediction) is None]
    by_id = [s for s in said if s.prediction is not None]
    if unknown and key is None:
        if len(unknown) == len(by_id) and all(s.row is None for s in unknown):
            raise InputError("None of the {n:,} ids in the file is the id of an answer of '{model}', such as '{found}'. The ids are in each answer of /v1/predict and in what "
                             "`assay feedback export` writes; or join by a column of the rows with --key.", n=len(unknown), model=model, found=str(unknown[0].prediction)[:40])
        waiting = len(unknown)
        notes.append(say("{n:,} labels are about answers that are not in the store; they are kept, and join them if they arrive.", n=waiting))
    at = time.time()
    store.write(feedback=[Feedback(model, "label", s.prediction, s.label, s.row if s.prediction is None or s in unknown else None, "file", actor, s.note, at) for s in fresh])
    if fresh:
        store.audit.add(actor, "import feedback", {"model": model, "file": Path(file).name, "labels": len(fresh)})
    return Imported(len(fresh), len(said) - len(fresh), unlabelled, waiting, tuple(notes))


def understood(task: Task, given: Any) -> tuple[Any, Text | None]:
    """(the label as the task's own, None), or (None, why it cannot be one)."""
    classes = getattr(task, "classes", None)
    if classes is not None:
        if isinstance(given, (dict, list)):
            return None, say("it is no single value")
        return (label_of(task, given), None) if is_class(task, given) else (None, say("no such class"))
    amount = label_of(task, given)
    return (None, say("it is no finite number")) if amount is None else (amount, None)


def row_digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


# ---- the file


def _read(file: Path, bundle: Bundle, label: str | None, id_column: str | None, key: str | None) -> tuple[list[_Said], list[Text]]:
    if file.suffix.lower() == ".json":
        lines, notes = _tasks(file)
    else:
        frame, _ = load_table(file)
        lines, notes = [(i, row, row) for i, row in enumerate(frame.iter_rows(named=True), 1)], []
    names = list(dict.fromkeys(name for _, fields, row in lines for name in (*fields, *row)))
    target = bundle.schema.target or ""
    label = _column(label, [*LABEL_NAMES, target], names, say("the label"))
    if key is not None:
        key = _column(key, [], names, say("the key"))
    elif id_column is not None or any(n in names for n in ID_NAMES):
        id_column = _column(id_column, [*ID_NAMES], names, say("the id of the answer"))
    elif "id" in names and all(_is_id(fields.get("id")) for _, fields, _ in lines):
        id_column = "id"
    features = [c.name for c in bundle.schema.features]
    whole = set(features) <= set(names)
    if key is None and id_column is None and not whole:
        absent = [n for n in features if n not in names]
        raise InputError("The file says of no line what its label is about: there is no column 'prediction' with the ids of answers, and for whole rows it lacks {absent}. Name the "
                         "column with --id, or a column of the asked rows with --key.", absent=absent[:SHOWN])
    known = [c.name for c in bundle.schema.columns if c.name != target and c.name in names]
    media = {c.name for c in bundle.schema.features if c.kind in MEDIA}
    rows: list[dict[str, Any] | None] = [None] * len(lines)
    if whole and not media:
        given = [{n: _json(row.get(n)) for n in known} for _, _, row in lines]
        if id_column is None and key is None:
            bundle.read(given)  # one sentence that names column and row, if a value cannot be read
        rows = list(given)
    elif key is None and id_column is None:
        raise InputError("Pictures, sounds and sequences cannot be imported as whole rows: name the answers with a column 'prediction', or ask the rows first.")
    out = []
    for (number, fields, _), row in zip(lines, rows, strict=True):
        said = fields.get(label)
        said = None if said is None or (isinstance(said, str) and not said.strip()) or (isinstance(said, float) and math.isnan(said)) else said
        named = fields.get(id_column) if id_column else None
        found = fields.get(key) if key else None
        if said is not None and ((id_column and not named) or (key and found is None)):
            raise InputError("Row {number} has a label and no '{name}', so nobody knows what it is about.", number=number, name=id_column or key)
        out.append(_Said(number, _json(said), str(named).strip() if named else None, None if found is None else spelt(_json(found)), row, fields.get("note") or None))
    return out, notes


def _tasks(file: Path) -> tuple[list[tuple[int, dict[str, Any], dict[str, Any]]], list[Text]]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReadError("There is no file '{file}' in '{folder}'.", file=file.name, folder=str(file.absolute().parent)[-120:]) from None
    except (ValueError, RecursionError) as error:
        raise ReadError("'{file}' is no JSON: {error}. A .json file is taken as Label Studio's export.", file=file.name, error=str(error)[:200]) from None
    if not label_studio.is_export(found):
        raise ReadError("'{file}' is no export of Label Studio: a list of tasks is expected. Export the project as JSON or JSON-MIN.", file=file.name)
    tasks = list(label_studio.annotated(found))
    note = label_studio.note(tasks)
    lines = []
    for t in tasks:
        ours = t.data.get("assay")
        row = {k: v for k, v in t.data.items() if k not in ("assay", label_studio.ROW)}
        fields = {**row, **({"prediction": ours.get("prediction")} if isinstance(ours, dict) else {}), LABEL_NAMES[0]: t.label}
        lines.append((t.number, fields, row))
    return lines, [note] if note else []


def _column(wanted: str | None, usual: list[str], names: list[str], what: Text) -> str:
    if wanted is not None:
        if wanted in names:
            return wanted
        near = nearest(wanted, names)
        if near:
            raise InputError("No column is called '{name}'. The file has: {columns}. Did you mean '{near}'?", name=wanted, columns=names[:SHOWN], near=near)
        raise InputError("No column is called '{name}'. The file has: {columns}.", name=wanted, columns=names[:SHOWN])
    found = next((n for n in usual if n in names), None)
    if found is None:
        raise InputError("The file has no column for {what}: one of {usual} is expected, and there are: {columns}.", what=what, usual=[n for n in usual if n], columns=names[:SHOWN])
    return found


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 24 and all(c in "0123456789abcdef" for c in value)


def _json(value: Any) -> Any:
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


# ---- what the labels mean, and what is there already


def _understood(task: Task, lines: Iterable[_Said], allow_new: bool) -> tuple[list[_Said], int]:
    good: list[_Said] = []
    wrong: dict[str, list[int]] = {}
    unlabelled = 0
    for one in lines:
        if one.label is None:
            unlabelled += 1
            continue
        value, reason = understood(task, one.label)
        if reason is not None and allow_new and getattr(task, "classes", None) is not None and not isinstance(one.label, (dict, list)):
            value, reason = one.label, None
        if reason is not None:
            wrong.setdefault(str(one.label)[:60], []).append(one.number)
        else:
            good.append(_Said(one.number, value, one.prediction, one.key, one.row, one.note))
    if wrong:
        first = next(iter(wrong))
        n = sum(len(rows) for rows in wrong.values())
        classes = getattr(task, "classes", None)
        if classes is None:
            raise InputError("{n:,} labels are no finite numbers; the first is '{label}' in row {line}. Mend them, or leave the cell empty.", n=n, label=first, line=wrong[first][0])
        near = nearest(first, [str(c) for c in classes])
        shown = [str(c) for c in classes[:SHOWN]] + ["..."] * (len(classes) > SHOWN)
        if near:
            raise InputError("{n:,} labels are none of the known classes {classes}: {found} (first in row {line}). Did you mean '{near}'? --allow-new takes new classes.", n=n,
                             classes=shown, found=list(wrong)[:5], line=wrong[first][0], near=near)
        raise InputError("{n:,} labels are none of the known classes {classes}: {found} (first in row {line}). --allow-new takes new classes.", n=n, classes=shown,
                         found=list(wrong)[:5], line=wrong[first][0])
    return good, unlabelled


def _joined(store: Store, model: str, said: list[_Said], key: str, since: float) -> tuple[list[_Said], int]:
    """The labels with the id of the newest handed-out answer whose row has their key; how many found none. One pass over the answers; memory: that of the file."""
    wanted = {s.key for s in said}
    found: dict[str, str] = {}
    kept = seen = 0
    for p in store.predictions.between(model, since, _EVER):
        if p.of is not None:
            continue
        kept, seen = kept + (p.row is not None), seen + 1
        if p.row is not None and key in p.row and (name := spelt(p.row[key])) in wanted:
            found[name] = p.id
    if seen and not kept:
        raise InputError("The rows asked of '{model}' were not kept, so no label can be joined by '{key}'. Join by the ids of the answers.", model=model, key=key)
    there = [_Said(s.number, s.label, found[s.key], s.key, None, s.note) for s in said if s.key in found]
    return there, len(said) - len(there)


def _fresh(store: Store, model: str, said: list[_Said]) -> list[_Said]:
    """Those whose label is neither the last one known nor the last one that a file gave. One pass over the labels; memory: that of the file."""
    wanted = {s.about for s in said}
    last: dict[str, Any] = {}
    of_file: dict[str, Any] = {}
    for known in _labels(store, model):
        about = known.prediction or row_digest(known.row or {})
        if about in wanted:
            last[about] = known.label
            if known.source == "file":
                of_file[about] = known.label
    return [s for s in said if not (s.about in last and spelt(last[s.about]) == spelt(s.label)) and not (s.about in of_file and spelt(of_file[s.about]) == spelt(s.label))]


def _labels(store: Store, model: str) -> Iterator[Feedback]:
    return (f for f in store.feedback.since(model, 0.0) if f.label is not None)


def model_of(store: Store, home: Path, model: str | None) -> tuple[str, Bundle]:
    """The name and the champion of a model; the only one, where none is named. Raises InputError, BundleError."""
    from assay.ship.bundle import load

    names = store.versions.models()
    if model is None and len(names) == 1:
        model = names[0]
    if model is None or model not in names:
        if not names:
            raise InputError("There is no model in this home. Start with: assay serve winner.assay")
        if model is None:
            raise InputError("There are several models: {models}. Say which: --model NAME.", models=names)
        raise InputError("There is no model '{model}'. There are: {models}.", model=model, models=names)
    stage = store.versions.stage(model)
    version = store.versions.get(model, stage.champion) if stage else None
    if version is None:
        raise InputError("The model '{model}' has no version that answers. See: assay models", model=model)
    return model, load(home / version.file)


