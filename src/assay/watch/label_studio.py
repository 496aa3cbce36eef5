"""Label Studio's JSON: tasks that show annotators a row and what the model suggests, and what annotators made of them.

Source: Label Studio's documented task format (data, predictions, annotations) and its JSON-MIN export (flat objects).
"""

from __future__ import annotations

import base64
import mimetypes
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from assay.data.dataset import Schema
from assay.errors import InputError
from assay.store.records import Prediction
from assay.tasks.base import Task
from assay.words import Text, say

LABEL, ROW = "label", "row"  # the names that tasks and configuration share
MOST_CHOICES = 500
_BESIDES = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "project", "inner_id")  # what JSON-MIN adds to a task's data


@dataclass(frozen=True)
class Annotated:
    """data: of the task. label: what its annotators say, None if nobody said anything. number: of the task in the file, from 1. agreed: all said the same."""

    data: dict[str, Any]
    label: Any
    number: int
    agreed: bool = True


def is_export(found: Any) -> bool:
    """A list of objects; whatever else a .json file may be, it is no export."""
    return isinstance(found, list) and bool(found) and all(isinstance(task, dict) for task in found)


def annotated(tasks: list[dict[str, Any]]) -> Iterator[Annotated]:
    """Every task with its label: of several annotators the one that most gave, of a tie the newest. Skipped and cancelled annotations do not count.

    Choices, numbers, ratings and texts are read. Raises InputError naming the task whose result is of another type.
    """
    for number, task in enumerate(tasks, 1):
        if "annotations" not in task and "completions" not in task:
            yield _flat(task, number)
            continue
        data = task.get("data")
        if not isinstance(data, dict):
            raise InputError("Task {number} has no 'data'. Export the project as JSON or JSON-MIN.", number=number)
        said: list[tuple[str, Any]] = []
        for one in task.get("annotations") or task.get("completions") or []:
            if isinstance(one, dict) and not one.get("was_cancelled"):
                label = _label(one.get("result") or [], number)
                if label is not None:
                    said.append((str(one.get("updated_at") or one.get("created_at") or ""), label))
        said.sort(key=lambda pair: pair[0])
        votes = Counter(str(label) for _, label in said)
        most = max(votes.values(), default=0)
        label = next((label for _, label in reversed(said) if votes[str(label)] == most), None)
        yield Annotated(data, label, number, len(votes) < 2)


def _flat(task: dict[str, Any], number: int) -> Annotated:
    """An object of JSON-MIN: data and answers side by side."""
    label = task.get(LABEL)
    if isinstance(label, dict) and isinstance(label.get("choices"), list):
        label = label["choices"]
    if isinstance(label, list):
        values = [v.get("number", v.get("rating")) if isinstance(v, dict) else v for v in label]
        label = _one(values, number)
    return Annotated({k: v for k, v in task.items() if k != LABEL and k not in _BESIDES}, label, number)


def _label(results: list[Any], number: int) -> Any:
    """The answer among the results of an annotation: the one that is called 'label', else the only one."""
    read: list[tuple[str, Any]] = []
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        for kind in ("choices", "number", "rating", "text"):
            if kind in value:
                answer = _one(value[kind], number) if isinstance(value[kind], list) else value[kind]
                read.append((str(result.get("from_name")), answer))
                break
        else:
            raise InputError("Task {number} has a result of the type '{found}'. Read are: {known}.", number=number, found=str(result.get("type"))[:40],
                             known=["choices", "number", "rating", "textarea"])
    named = [answer for name, answer in read if name == LABEL] or ([read[0][1]] if len(read) == 1 else [])
    if read and len(named) != 1:
        raise InputError("Task {number} has {found} results and none is called '{name}', so it is not clear which is the answer. Call it so in the labelling configuration.",
                         number=number, found=len(read), name=LABEL)
    return named[0] if named else None


def _one(values: list[Any], number: int) -> Any:
    if len(values) > 1:
        raise InputError("Task {number} has {found} answers at once ({values}), and one is expected. Use a single choice.", number=number, found=len(values),
                         values=[str(v)[:40] for v in values[:5]])
    return values[0] if values else None


# ---- the way out


def task_of(p: Prediction, why: str, task: Task, schema: Schema, media: Path | None) -> dict[str, Any]:
    """A task to import: the row, and as a pre-annotation what the model answered and how sure it was. media: where pictures and sounds lie by their sha256."""
    data = {name: _shown(value, media) for name, value in (p.row or {}).items()}
    suggested = p.answer.get("answer")
    result: dict[str, Any] = {"from_name": LABEL, "to_name": ROW}
    if getattr(task, "classes", None) is not None:
        result |= {"type": "choices", "value": {"choices": [choice(suggested)]}}
    else:
        result |= {"type": "number", "value": {"number": suggested}}
    score = p.answer.get("probability")
    shown: dict[str, Any] = {**data, "assay": {"prediction": p.id, "model": p.model, "version": p.version, "doubt": p.doubt, "why": why}}
    if _single(schema) is None:
        shown[ROW] = data
    return {"data": shown, "predictions": [{"model_version": f"{p.model}:{p.version}", "result": [result]} | ({} if score is None else {"score": score})]}


def configuration(task: Task, schema: Schema) -> str:
    """The labelling configuration that fits such tasks (XML)."""
    single = _single(schema)
    if single is None:
        shown = f'<Table name="{ROW}" value="${ROW}"/>'
    else:
        tag = {"text": "Text", "image": "Image", "audio": "Audio"}[single[1]]
        shown = f'<{tag} name="{ROW}" value={quoteattr("$" + single[0])}/>'
    classes = getattr(task, "classes", None)
    if classes is None:
        asked = f'<Number name="{LABEL}" toName="{ROW}" required="true"/>'
    else:
        if len(classes) > MOST_CHOICES:
            raise InputError("{n:,} classes are too many choices for an annotator; at most {most:,} are written. Export csv instead.", n=len(classes), most=MOST_CHOICES)
        choices = "".join(f"\n    <Choice value={quoteattr(choice(c))}/>" for c in classes)
        asked = f'<Choices name="{LABEL}" toName="{ROW}" choice="single" required="true">{choices}\n  </Choices>'
    return f"<View>\n  {shown}\n  {asked}\n</View>\n"


def choice(label: Any) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _single(schema: Schema) -> tuple[str, str] | None:
    """(name, kind) of the only feature, if it is a text, a picture or a sound; None for a table."""
    features = schema.features
    return (features[0].name, features[0].kind) if len(features) == 1 and features[0].kind in ("text", "image", "audio") else None


def _shown(value: Any, media: Path | None) -> Any:
    """A kept picture or sound as a data URI, which Label Studio shows without a server of its own."""
    if isinstance(value, dict) and isinstance(digest := value.get("sha256"), str) and len(digest) == 64 and digest.isalnum():
        file = media / digest if media else None
        if file is None or not file.is_file():
            return None
        content = file.read_bytes()
        return f"data:{_type(content)};base64,{base64.b64encode(content).decode()}"
    return value


def _type(content: bytes) -> str:
    for start, name in ((b"\x89PNG", "a.png"), (b"\xff\xd8", "a.jpg"), (b"GIF8", "a.gif"), (b"fLaC", "a.flac"), (b"OggS", "a.ogg"), (b"BM", "a.bmp")):
        if content.startswith(start):
            return mimetypes.guess_type(name)[0] or "application/octet-stream"
    return "image/webp" if content[8:12] == b"WEBP" else "audio/wav" if content[:4] == b"RIFF" else "application/octet-stream"


def note(export: list[Annotated]) -> Text | None:
    """What whoever imports should know: where annotators disagreed."""
    n = sum(not one.agreed for one in export)
    return say("In {n:,} tasks annotators disagreed; the label that most gave counts, of a tie the newest.", n=n) if n else None
