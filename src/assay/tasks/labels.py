"""Labels as people, files and JSON spell them, and the task's own."""

from __future__ import annotations

import math
from typing import Any

from assay.tasks.base import Task


def spelt(label: Any) -> str:
    """True, 'true' and 'TRUE' are one label, and so are 1, 1.0 and '1': files and JSON do not agree about them."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    text = str(label).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    whole = text.removesuffix(".0")
    return whole if whole.lstrip("-").isdigit() else text


def is_class(task: Task, given: Any) -> bool:
    """Whether this is one of the task's classes, however it is spelt. (True == 1 in Python; here it is not.)"""
    return not isinstance(given, (dict, list)) and spelt(given) in {spelt(c) for c in getattr(task, "classes", ())}


def label_of(task: Task, given: Any) -> Any:
    """A label as it came (JSON or a file) as the task's own: the class, or a finite amount; None if it cannot be one. A class never seen stays as it is."""
    if given is None or isinstance(given, (dict, list)):
        return None
    classes = getattr(task, "classes", None)
    if classes is not None:
        return {spelt(c): c for c in classes}.get(spelt(given), given)
    try:
        amount = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and not isinstance(given, bool) else None
