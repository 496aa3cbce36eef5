"""What a glance shows: labels too rare to learn or to judge, columns that never change."""

from __future__ import annotations

from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.words import say

FEW = 10  # rows of a class: with a fifth of them judging, two


def rare_labels(data: Dataset) -> list[Finding]:
    counts = data.y.drop_nulls().value_counts().sort("count", data.y.name)
    rare = counts.filter(counts["count"] < FEW)
    if not len(rare):
        return []
    names = [str(v) for v in rare[data.y.name].head(8)]
    shown = [*names, f"+{len(rare) - 8}"] if len(rare) > 8 else names
    text = say("{classes} of {all} classes of '{target}' have fewer than {few} rows ({rows} rows in all): {names}.", classes=len(rare), all=len(counts),
               target=data.y.name, few=FEW, rows=int(rare["count"].sum()), names=shown)
    advice = say("They can hardly be learnt and not be judged. Merge them, leave them out, or collect more of them.")
    level = "warning" if int(rare["count"].sum()) >= 0.01 * len(data) or len(rare) >= 0.1 * len(counts) else "note"
    figure = {"classes": {str(v): int(c) for v, c in rare.head(50).iter_rows()}, "rows": len(data), "sampled": False}
    return [Finding("rare_labels", level, text, advice, (data.y.name,), figure)]


def constants(data: Dataset) -> list[Finding]:
    names = [c.name for c in data.schema.features if data.frame[c.name].null_count() == 0 and _one_value(data, c.name)]
    if not names:
        return []
    shown = [*names[:12], f"+{len(names) - 12}"] if len(names) > 12 else names
    return [Finding("constant", "note", say("{names} holds one value only and tells nothing.", names=shown), say("Leave it out, or find out why it never changes."),
                    tuple(names), {"rows": len(data), "sampled": False})]


def _one_value(data: Dataset, name: str) -> bool:
    series = data.frame[name]
    head = series.head(1000)
    return head.n_unique() == 1 and series.n_unique() == 1
