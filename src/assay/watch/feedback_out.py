"""Answers for people to label, in a file: what the queue asks for, or what is labelled already; and the file comes back through `feedback import`."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.errors import InputError
from assay.ship.bundle import Bundle
from assay.store.records import Prediction
from assay.store.store import Store
from assay.watch import label_studio
from assay.watch.queue import RANDOM, queue

FORMATS = ("csv", "jsonl", "label-studio")
WHICH = ("queue", "labelled", "all")
_OURS = ("prediction", "at", "version", "answer", "probability", "low", "high", "doubt", "why")


def export_file(store: Store, model: str, bundle: Bundle, out: Path, *, format: str | None = None, which: str = "queue", limit: int = 100,
                media: Path | None = None, random_share: float = RANDOM) -> int:
    """Write tasks for annotators; how many. The file appears whole or not at all.

    format: csv and jsonl have a column `label` to fill in beside what the model answered; label-studio has its suggestion as a pre-annotation, and
    the labelling configuration lies beside it (OUT.xml). None: by the ending of `out`. which: 'queue' (the rows whose label is worth most),
    'labelled' (those that have one), 'all' (the newest). Raises InputError.
    """
    format = format or {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "label-studio"}.get(out.suffix.lower(), "")
    if format not in FORMATS:
        raise InputError("Feedback is written as one of {known}; '{found}' is none. Say --format, or end the name in .csv, .jsonl or .json.", known=list(FORMATS), found=format or out.name)
    if which not in WHICH:
        raise InputError("What is written is one of {known}; '{found}' is none.", known=list(WHICH), found=which)
    if not bundle.task.by_rows:
        raise InputError("'{model}' forecasts series: there are no single rows to label.", model=model)
    found = list(_chosen(store, model, bundle, which, limit, random_share))
    if not found:
        raise InputError("There is nothing to write: '{model}' has no answers of this kind whose rows were kept.", model=model)
    if format == "label-studio":
        tasks = [label_studio.task_of(p, why, bundle.task, bundle.schema, media) | ({} if label is None else _annotation(bundle, label)) for p, why, label in found]
        _whole(out, json.dumps(tasks, ensure_ascii=False, indent=1).encode())
        _whole(out.with_name(out.name + ".xml"), label_studio.configuration(bundle.task, bundle.schema).encode())
        return len(found)
    rows = [_row(p, why, label, bundle) for p, why, label in found]
    if format == "jsonl":
        _whole(out, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows).encode())
        return len(rows)
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else v for k, v in row.items()} for row in rows)
    _whole(out, text.getvalue().encode())
    return len(rows)


def _chosen(store: Store, model: str, bundle: Bundle, which: str, limit: int, random_share: float) -> Iterator[tuple[Prediction, str, Any]]:
    if which == "queue":
        yield from ((a.prediction, a.why, None) for a in queue(store, bundle, model, limit, random_share=random_share))
    elif which == "labelled":
        own = ((p, "", f.label) for p, f in store.predictions.labelled(model) if p.of is None)
        yield from itertools.islice(own, limit)
    else:
        for p in store.predictions.recent(model, limit):
            if p.of is None:
                said = store.feedback.get_label(p.id)
                yield p, "", None if said is None else said.label


def _row(p: Prediction, why: str, label: Any, bundle: Bundle) -> dict[str, Any]:
    """label first, to be filled in; then what the model says; then the row, whose columns keep their names unless they are called like one of these."""
    told = {"prediction": p.id, "at": p.at, "version": p.version, "doubt": p.doubt, "why": why or None} | {k: p.answer.get(k) for k in ("answer", "probability", "low", "high")}
    ours = {k: told[k] for k in _OURS if told[k] is not None or k in ("doubt", "why")}
    row = {(f"{k} (asked)" if k in ours or k == "label" else k): v for k, v in (p.row or {}).items() if k in {c.name for c in bundle.schema.columns}}
    return {"prediction": p.id, "label": label_studio.choice(label) if isinstance(label, bool) else label, **ours, **row}


def _annotation(bundle: Bundle, label: Any) -> dict[str, Any]:
    classes = getattr(bundle.task, "classes", None)
    value = {"number": label} if classes is None else {"choices": [label_studio.choice(label)]}
    kind = "number" if classes is None else "choices"
    return {"annotations": [{"result": [{"from_name": label_studio.LABEL, "to_name": label_studio.ROW, "type": kind, "value": value}]}]}


def _whole(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
