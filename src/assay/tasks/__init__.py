"""What a question looks like: which rows teach, which judge, what an error costs. One file a task."""

from __future__ import annotations

import importlib
import pkgutil

from assay.data.dataset import Dataset
from assay.errors import InputError, TaskError
from assay.tasks.base import Task
from assay.words import Text, say


def known() -> dict[str, type[Task]]:
    """{name: class} of every task in this folder."""
    found: dict[str, type[Task]] = {}
    for info in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{info.name}")).values():
            if isinstance(value, type) and issubclass(value, Task) and value is not Task:
                found[value.name] = value
    return dict(sorted(found.items()))


def find(name: str) -> type[Task]:
    """The task called `name`; otherwise InputError naming those which exist."""
    tasks = known()
    if name not in tasks:
        raise InputError("There is no task '{name}'. There are: {names}.", name=name, names=list(tasks))
    return tasks[name]


def choose(data: Dataset) -> tuple[type[Task], Text]:
    """The one task that fits these answers, and why. Raises TaskError with every reason if none or several fit."""
    reasons = {name: task.refuses(data) for name, task in known().items()}
    fitting = [name for name, reason in reasons.items() if reason is None]
    if len(fitting) == 1:
        others = [f"{name}" for name in reasons if name not in fitting]
        return find(fitting[0]), say("The question is '{task}' (not {others}); --task says otherwise.", task=fitting[0], others=others)
    if fitting:
        raise TaskError("Several questions fit this target: {names}. Pick one with --task.", names=fitting)
    raise TaskError("No question fits this target: {reasons}.",
                    reasons=[say("{task}: {reason}", task=name, reason=reason) for name, reason in reasons.items()])
