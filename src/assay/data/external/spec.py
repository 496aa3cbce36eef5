"""What `--external` was given: NAME=SPEC or SPEC, taken apart and given a name that is safe as a file name.

SPEC is a file of answers, `cmd:PROGRAM ...`, an http(s) address, or `autogluon:FOLDER?python=/path/to/venv/bin/python`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from assay.data.external import autogluon, command
from assay.data.external.endpoint import Address
from assay.data.load import nearest
from assay.errors import InputError

MOST_LETTERS = 40
_NAME = re.compile(r"[^\W_][\w.\-]*")
_PAIR = re.compile(r"([^=:/\\?\s]+)=(.+)", re.DOTALL)
_INTERPRETERS = re.compile(r"(?:python|pypy|sh|bash|zsh|env|node|rscript|julia|java|perl|ruby|nice|uv|run)[\d.]*$", re.IGNORECASE)


def entries(specs: Iterable[str], taken: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    """[(name, params), ...] in the order given. taken: names that others have.

    A name that was given has to be free; one that is made up gets a number. Raises InputError.
    """
    used = set(taken)
    split = [_named(spec) for spec in specs]
    given = [name for name, _ in split if name is not None]
    for name in given:
        if not _NAME.fullmatch(name) or len(name) > MOST_LETTERS:
            raise InputError("'{name}' cannot be the name of a model: up to {most} letters, digits, points, '-' and '_', beginning with a letter or a digit.",
                             name=name[:60], most=MOST_LETTERS)
        if name in used or given.count(name) > 1:
            raise InputError("The name '{name}' is taken by another model. Give this one another: --external NAME={spec}.", name=name,
                             spec=next(spec for n, spec in split if n == name))
    used |= set(given)
    out = []
    for wanted, spec in split:
        params, made_up = _params(spec)
        name = wanted or _free(made_up, used)
        used.add(name)
        out.append((name, params))
    return out


def _named(entry: str) -> tuple[str | None, str]:
    entry = entry.strip()
    pair = _PAIR.fullmatch(entry)
    return (None, entry) if pair is None or Path(entry).exists() else (pair[1], pair[2].strip())


def _params(spec: str) -> tuple[dict[str, Any], str]:
    """(what the model is built with, a name made of it)."""
    if spec.startswith("cmd:"):
        text = spec.removeprefix("cmd:").strip()
        words = command.words_of(text)
        return {"kind": "command", "command": text, "online": False}, _program(words)
    if re.match(r"https?://", spec):
        address = Address.of(spec)
        return {"kind": "endpoint", "url": spec, "online": not address.loopback}, address.host
    if spec.startswith("autogluon:"):
        return _autogluon(spec.removeprefix("autogluon:"))
    path = Path(spec).expanduser()
    if not path.is_file():
        parent = path.parent
        near = nearest(path.name, [p.name for p in sorted(parent.iterdir())[:5000]]) if parent.is_dir() else None
        if near:
            raise InputError("There is no file of answers '{file}'. Did you mean '{near}'?", file=spec, near=near)
        raise InputError("There is no file of answers '{file}'. A model of your own is a file (csv, parquet, jsonl), cmd:PROGRAM, https://ADDRESS, "
                         "or autogluon:FOLDER.", file=spec)
    return {"kind": "file", "path": os.path.abspath(path), "online": False}, path.name.partition(".")[0] or path.name


def _autogluon(spec: str) -> tuple[dict[str, Any], str]:
    place, _, query = spec.partition("?")
    key, _, interpreter = query.partition("=")
    folder = Path(place).expanduser()
    if query and (key != "python" or not interpreter):
        raise InputError("'{query}' is not understood. Write it like autogluon:FOLDER?python=/path/to/venv/bin/python.", query=query)
    if not (folder / "predictor.pkl").is_file():
        raise InputError("'{folder}' is not the folder of an AutoGluon predictor: it holds no predictor.pkl.", folder=place)
    if not interpreter:
        if _absent("autogluon.tabular"):
            raise InputError("AutoGluon is not installed beside assay. Name the Python of the environment that it lives in: "
                             "autogluon:{folder}?python=/path/to/venv/bin/python", folder=place)
        interpreter = sys.executable
    program = Path(interpreter).expanduser()
    if not os.access(program, os.X_OK) or program.is_dir():
        raise InputError("'{python}' is no Python that can be started. Name the one of AutoGluon's environment: "
                         "autogluon:{folder}?python=/path/to/venv/bin/python", python=interpreter, folder=place)
    # not resolved: the Python of a venv is a link, and only under its own name does it find its packages
    return {"kind": "autogluon", "folder": os.path.abspath(folder), "python": os.path.abspath(program), "online": False}, f"autogluon-{folder.name}"


def autogluon_words(folder: str, python: str, quantile: float) -> list[str]:
    """The command that answers with a predictor, with the holes of `command.run`."""
    return [python, "-I", autogluon.__file__, folder, "{asked}", "{answers}", str(quantile)]


def _absent(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ModuleNotFoundError:
        return True


def _program(words: list[str]) -> str:
    """The script of a command line rather than its interpreter: 'vendor' of 'python -u vendor.py {asked} {answers}'."""
    plain = [PurePath(w).name for w in words if "{" not in w and not w.startswith("-") and "=" not in w]
    named = [w for w in plain if not _INTERPRETERS.match(w)] or plain
    return named[0].partition(".")[0] or "command"


def _free(made_up: str, used: set[str]) -> str:
    """A safe name that nobody has."""
    name = re.sub(r"[^\w.\-]+", "-", made_up)[:MOST_LETTERS - 4].strip("-._") or "external"
    number, base = 2, name
    while name in used:
        name, number = f"{base}-{number}", number + 1
    return name
