"""The bundles that answer: champion and challenger of each model, exchanged without losing a request.

What has been loaded never changes; a promotion puts another `Held` in its place by one assignment, and requests under way keep the old one.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import AssayError, InputError
from assay.serve.http import Asked, Refused
from assay.serve.wire import FORM, Rows, form_rows, known_columns, rows_of
from assay.ship.bundle import Bundle, load
from assay.store.records import Stage, Version
from assay.store.store import Store

INLINE_MS = 2.0  # a row that takes less is answered on the event loop: handing it to a thread costs about 0.1 ms and the batch its wait


@dataclass(frozen=True, eq=False)
class Arm:
    """One version, ready to answer. row_ms: median of a row alone when it was warmed up; None where it could not be warmed up.

    known: the columns that a row may have. inline: answered on the event loop. classes: of a classification, else None.
    """

    bundle: Bundle
    version: Version
    row_ms: float | None
    known: frozenset[str] | None = field(init=False)
    inline: bool = field(init=False)
    classes: tuple[Any, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", known_columns(self.bundle.schema))
        object.__setattr__(self, "inline", self.row_ms is not None and self.row_ms < INLINE_MS)
        object.__setattr__(self, "classes", getattr(self.bundle.task, "classes", None))


@dataclass(frozen=True, eq=False)
class Held:
    """handed: the arms whose answers clients get: the champion, and the challenger if it is a canary."""

    model: str
    stage: Stage
    champion: Arm
    challenger: Arm | None = None
    handed: tuple[Arm, ...] = field(init=False)

    def __post_init__(self) -> None:
        canary = self.challenger is not None and self.stage.mode == "canary"
        object.__setattr__(self, "handed", (self.champion, self.challenger) if canary else (self.champion,))


class Shelf:
    """All models of one service. `get` is safe on any thread; `refresh` follows what the store says of stages."""

    def __init__(self, store: Store, home: Path, *, loaded: dict[str, Bundle] | None = None) -> None:
        """loaded: bundles by digest that this process has opened a moment ago, and need not open again."""
        self._store, self._home = store, home
        self._loaded = loaded if loaded is not None else {}
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self.trouble: dict[str, AssayError] = {}

    def names(self) -> list[str]:
        return list(self._held)

    def all(self) -> list[Held]:
        return list(self._held.values())

    def get(self, name: str | None) -> Held:
        """The model of this name, or the only one. Raises Refused 404 (no such model) or 422 (several, none named)."""
        held = self._held
        if name is None:
            if len(held) == 1:
                return next(iter(held.values()))
            raise Refused(422, "This service has several models: name one with ?model=. There are: {names}.", names=sorted(held))
        try:
            return held[name]
        except KeyError:
            raise Refused(404, "No model is called '{name}'. There are: {names}.", name=name[:64], names=sorted(held)) from None

    def refresh(self) -> list[str]:
        """Load what the store's stages name and is not loaded yet, and put it in place; the names that changed.

        A version that cannot be loaded leaves what is there in its place, and stands in `trouble`.
        """
        changed = []
        with self._lock:
            for name in self._store.versions.models():
                stage = self._store.versions.stage(name)
                there = self._held.get(name)
                if stage is None or (there is not None and there.stage == stage):
                    continue
                try:
                    champion = self._arm(there, name, stage.champion)
                    challenger = self._arm(there, name, stage.challenger) if stage.challenger is not None else None
                except AssayError as error:
                    self.trouble[name] = error
                    if there is None:
                        raise
                    continue
                self.trouble.pop(name, None)
                self._held = {**self._held, name: Held(name, stage, champion, challenger)}
                changed.append(name)
        return changed

    def _arm(self, there: Held | None, name: str, number: int) -> Arm:
        for arm in (there.champion, there.challenger) if there else ():
            if arm is not None and arm.version.version == number:
                return arm
        version = self._store.versions.get(name, number)
        if version is None:
            raise InputError("The store names version {version} of '{model}', which it does not hold. See: assay models {model}", version=number, model=name)
        bundle = self._loaded.get(version.digest) or load(self._home / version.file)
        if bundle.digest != version.digest:
            raise InputError("The file '{file}' is not the bundle that was served as version {version} of '{model}': its digest is another one. Put the file back.",
                             file=version.file, version=number, model=name)
        return warmed(bundle, version)


def warmed(bundle: Bundle, version: Version) -> Arm:
    """Ask it a few rows of its reference, so that the first client does not pay for what is loaded late."""
    row = example_row(bundle)
    if row is None:
        return Arm(bundle, version, None)
    times: list[float] = []
    bundle.predict_one(row)
    until = time.perf_counter() + 0.25
    while len(times) < 9 and time.perf_counter() < until:
        begin = time.perf_counter()
        bundle.predict_one(row)
        times.append(time.perf_counter() - begin)
    return Arm(bundle, version, 1000 * sorted(times)[len(times) // 2] if times else 250.0)


async def rows_given(shelf: Shelf, asked: Asked) -> tuple[Held, Rows]:
    """The rows of a request, whatever form they came in, and the model that shall answer them. Raises Refused."""
    name = asked.query().get("model")
    if asked.kind == FORM:
        held = shelf.get(name)
        given = await form_rows(asked, held.champion.bundle.schema)
    else:
        given = rows_of(asked)
        held = shelf.get(name or given.model)
    asked.model = held.model
    return held, given


def example_row(bundle: Bundle, number: int = 0) -> dict[str, Any] | None:
    """A row that the model can be asked, from its reference; None where the bundle holds none (pictures, sounds, series, or left out)."""
    if bundle.reference is None or not bundle.reference.height or not bundle.task.by_rows:
        return None
    row = bundle.reference.row(number % bundle.reference.height, named=True)
    if any(c.name not in row for c in bundle.schema.features):
        return None
    return {name: value.isoformat(sep=" ") if hasattr(value, "isoformat") else value for name, value in row.items()}


def served(store: Store, home: Path, name: str, path: Path, *, by: str = "service", bundle: Bundle | None = None) -> Version:
    """Take a bundle into the home under a name: the version it becomes or already is. The first one is the champion; a further one waits until it is promoted.

    bundle: what lies at `path`, if it was opened a moment ago.
    """
    import shutil

    bundle = bundle or load(path)  # what cannot be opened is refused before anything is copied
    kept = home / "bundles" / f"{bundle.digest}.assay"
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        partial = kept.with_suffix(f".{threading.get_ident()}.tmp")
        shutil.copyfile(path, partial)
        partial.replace(kept)
    facts = {"task": bundle.task.name, "candidate": bundle.candidate.name, "name": bundle.facts.get("name"), "loss": bundle.facts.get("loss"), "metrics": bundle.facts.get("metrics"),
             "rows_fitted": bundle.facts.get("rows_fitted"), "created": bundle.facts.get("created"), "verdict": bundle.facts.get("verdict_text") or bundle.facts.get("verdict"), "file_mb": round(bundle.file_mb, 3),
             "from": path.name, **({"run": os.path.relpath(path.resolve().parent, home.resolve())} if (path.parent / "case.json").exists() else {})}
    return store.versions.add(name, bundle.digest, str(kept.relative_to(home)), "serve", facts, by=by)
