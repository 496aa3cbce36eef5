"""The bundle: task, contestant and everything it learnt in one `.assay` file that holds data only.

`load` finds the contestant's code in the registry, by name; the file can neither bring code nor name code to import. What it
can do is choose among installed contestants and hand them params, so a contestant checks its params like any user's input.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay import __version__
from assay.data.dataset import Dataset, Schema
from assay.data.read import conform
from assay.data.read_series import conform_series, history_given
from assay.errors import BundleError, InputError
from assay.families.base import Candidate, Model
from assay.ship import cache
from assay.ship.archive import name_refused, opened, write
from assay.ship.content import SUFFIXES, content_refused
from assay.ship.formats import FORMAT
from assay.ship.formats.base import Contents, as_json, plain
from assay.ship.rebuild import REFERENCE_MOST, REFERENCE_ROWS, Reference, candidate_of, contents_of, model_of, task_of
from assay.ship.row import row_reader
from assay.tasks.base import Task


@dataclass(frozen=True, eq=False)
class Bundle:
    """A contestant ready to answer. Nothing in it changes after `load`, so threads may share it.

    kept: where `reference` comes from when it is first asked for. digest: sha256 of the manifest, which holds the digests of all else: it names the content. file_mb: size of the file.
    """

    task: Task
    candidate: Candidate
    params: dict[str, Any]
    schema: Schema
    model: Model
    calibration: dict[str, Any]
    facts: dict[str, Any]
    kept: Reference
    digest: str = ""
    file_mb: float = 0.0
    contents: Contents | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_asked", self.schema.without_target())
        object.__setattr__(self, "_read_row", row_reader(self.schema.without_target()))
        object.__setattr__(self, "_answer_row", getattr(self.task, "answer_row", None) or self._answer_by_frame)

    @cached_property
    def reference(self) -> pl.DataFrame | None:
        """At most 1,000 rows it was asked about in training (features only, no answers), or None if they were left out. Raises BundleError if they cannot be read."""
        return self.kept.read()

    def predict(self, asked: Any, *, query: str | None = None) -> Any:
        """Answers, one row each, as the kind of table that was given: polars, pandas (same index), Arrow, or a list of dicts.
        For a path, or a database URL with a `query`: polars. Raises InputError or ReadError if the rows do not have the columns of the schema."""
        return _as_given(asked, self.table(self.read(asked, query=query)), by_rows=self.task.by_rows)

    def read(self, asked: Any, *, query: str | None = None) -> Dataset:
        """New rows in the form that the model was trained with; for a forecast every series with all that is known of it."""
        known: Schema = self._asked  # type: ignore[attr-defined]
        return conform(asked, known, query=query) if self.task.by_rows else conform_series(asked, known, query=query)

    def table(self, data: Dataset) -> pl.DataFrame:
        """The answers to rows that `read` has made."""
        return self.task.table(self.task.calibrated(self.model.predict(data), self.calibration), data)

    def predict_one(self, given: dict[str, Any]) -> dict[str, Any]:
        """The answer to one row {column: value} without building a frame where the model allows it.

        A value that is not known is None; a column that is missing is refused, because it is more often a typing error.
        """
        if not self.task.by_rows:
            return self._history_answered(given)
        try:
            clean = self._read_row(given)  # type: ignore[attr-defined]
        except KeyError:
            return self.predict([given])[0]  # says which columns are absent; a sequence may be made of the others
        return self._answer_row(self.model.predict_row(clean), self.calibration)  # type: ignore[attr-defined]

    def _history_answered(self, given: dict[str, Any]) -> dict[str, Any]:
        """{"history": [values], "origin": time of the first step to forecast} or {"rows": [{time, value, ...}, ...]} of one series -> its quantiles by step."""
        if isinstance(given.get("rows"), list):
            data = self.read(given["rows"])
        elif isinstance(given.get("history"), list):
            data = history_given(given, self._asked)  # type: ignore[attr-defined]
        else:
            raise InputError("A forecast is asked with 'history', a list of values, or with 'rows', a list of objects with the columns of the table.")
        table = self.table(data)
        return {name: table[name].to_list() for name in table.columns}

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts for `assay show`: where it comes from, what it asks for, what it scored."""
        contents = self.contents
        return {
            "format": contents.format if contents else None, "written_by": contents.written_by if contents else None,
            "digest": self.digest, "file_mb": round(self.file_mb, 3), "members": len(contents.entries) + 1 if contents else None,
            "task": self.task.json(), "params": self.params, "schema": self.schema.json(), "calibration": self.calibration,
            "candidate": {"name": self.candidate.name, "rung": self.candidate.rung, "source": self.candidate.source,
                          "licence": self.candidate.licence, "version": self.candidate.version,
                          "packed_version": contents.candidate_version if contents else self.candidate.version},
            "facts": {k: v for k, v in self.facts.items() if k not in ("watch", "verdict_text")}, "reference_rows": 0 if self.reference is None else self.reference.height,
        }

    def _answer_by_frame(self, prediction: np.ndarray, calibration: dict[str, Any]) -> dict[str, Any]:
        return self.task.answers(self.task.calibrated(prediction, calibration)).row(0, named=True)


def pack(path: str | Path, *, task: Task, candidate: Candidate, params: dict[str, Any], schema: Schema, model_folder: Path | Model,
         calibration: dict[str, Any], facts: dict[str, Any], reference: pl.DataFrame | None, max_gb: float = 8.0) -> Path:
    """Write the bundle in one step (temporary file, fsync, rename) and return its path. Equal input gives equal bytes.

    model_folder: where the fitted model was dumped, or the model itself. facts: what a reader should know (scores, training rows,
    fingerprint, created, seed); NaN becomes null. reference: rows that were asked; at most 1,000 of them, evenly spread, and
    only their features are kept. They are real data: None leaves them out, and with them the drift check and the warm-up.
    Raises BudgetError if the disk is full, BundleError if the model wrote files that a bundle does not hold.
    """
    path = Path(path)
    if candidate.rung == "external":
        raise BundleError("'{name}' is somebody else's model: it stays where it is, and cannot be packed.", name=candidate.name)
    if not path.parent.is_dir():
        raise InputError("The folder '{folder}' does not exist. Make it, or choose another place for the bundle.", folder=str(path.parent))
    with cache.writing(path), tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as made:
        folder = Path(made) / "model"
        if isinstance(model_folder, Path):
            folder = model_folder
            if not folder.is_dir():
                raise ValueError(f"no model was dumped to {folder}")
        else:
            folder.mkdir()
            model_folder.dump(folder)
        members: dict[str, Path | bytes] = {
            f"model/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}
        members["schema.json"] = as_json(replace(schema, ordered=False).json())  # new rows stand in no order
        members["calibration.json"] = as_json(plain(calibration, where="calibration"))
        if reference is not None and schema.plain:
            members["reference.parquet"] = _sample(reference, schema)
        for name, source in members.items():
            _check_member(path.name, name, source)
        members["manifest.json"] = as_json({
            "format": FORMAT, "assay": __version__, "task": plain(task.json(), where="task"),
            "candidate": {"name": candidate.name, "version": candidate.version},
            "params": plain(params, where="params"), "facts": plain(facts, where="facts", nan=True),
            "members": {name: _entry(source) for name, source in members.items()},
        })
        whole = Path(made) / "bundle"
        with whole.open("xb") as file:
            write(file, members)
            file.flush()
            os.fsync(file.fileno())
        with opened(whole, max_gb=max_gb) as archive:  # what cannot be read again is not handed over
            contents, _ = contents_of(archive)
            task_of(path.name, contents)
        os.replace(whole, path)
        at = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(at)
        finally:
            os.close(at)
    return path


def load(path: str | Path, *, verify: bool = True, max_gb: float = 8.0) -> Bundle:
    """Read, check and rebuild a bundle. Never runs anything from the file.

    verify: hash every member of the file, and compare the cached copy with it. False trusts a copy in the cache whose sizes
    and dates are right; use it only for files of many GB that are loaded often. max_gb: what the members may have together.
    Raises BundleError (damaged, hostile, too new, contestant not installed), MissingExtra, BudgetError (cache disk full).
    """
    path = Path(path)
    with opened(path, max_gb=max_gb) as archive:
        contents, digest = contents_of(archive)
        task = task_of(path.name, contents)
        candidate = candidate_of(path.name, contents, task)
        folder = cache.held(archive, contents.entries, digest, verify=verify)
    try:
        kept = Reference(path.name, folder / "reference.parquet", contents)
        model = model_of(path.name, folder / "model", contents, task, candidate)
    except BundleError:
        cache.drop(digest)
        raise
    return Bundle(task, candidate, contents.params, contents.schema, model, contents.calibration, contents.facts, kept,
                  digest=digest, file_mb=path.stat().st_size / 2**20, contents=contents)


def _check_member(shown: str, name: str, source: Path | bytes) -> None:
    """What a model dumped is refused here already, not on the day when the bundle is opened."""
    if isinstance(source, bytes):
        size, head, tail = len(source), source[:4096], source[-32:]
    else:
        size = source.stat().st_size
        with source.open("rb") as file:
            head = file.read(4096)
            file.seek(max(0, size - 32))
            tail = file.read(32)
    reason = name_refused(name) or content_refused(name, size, head, tail)
    if reason is not None:
        raise BundleError("The bundle '{file}' was not packed: {found}. A bundle holds data only, in files of the kinds {kinds} with plain "
                          "names; let the model's `dump` write those.", file=shown, found=reason, kinds=list(SUFFIXES))


def _entry(source: Path | bytes) -> dict[str, Any]:
    if isinstance(source, bytes):
        return {"size": len(source), "sha256": hashlib.sha256(source).hexdigest()}
    with source.open("rb") as file:
        return {"size": source.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _sample(reference: pl.DataFrame, schema: Schema) -> bytes:
    """At most 1,000 rows, evenly spread and in order, plain features only (no answers, ids, groups, pictures, sounds or sequences), uncompressed parquet.

    Uncompressed, so that the reader can refuse what could swell. Fewer rows if their texts would fill over 32 MB.
    """
    asked = reference.select(c.name for c in schema.plain)
    rows = min(asked.height, REFERENCE_ROWS)
    while True:
        out = io.BytesIO()
        asked[np.linspace(0, asked.height - 1, rows).astype(int)].write_parquet(out, compression="uncompressed")
        if out.tell() <= REFERENCE_MOST or rows < 2:
            return out.getvalue()
        rows //= 2


def _as_given(asked: Any, answers: pl.DataFrame, *, by_rows: bool) -> Any:
    if isinstance(asked, (list, tuple)):
        return answers.to_dicts()
    module = type(asked).__module__.partition(".")[0]
    if module == "pandas":
        frame = answers.to_pandas()
        if by_rows and len(frame) == len(asked):  # a unit of many steps has one answer
            frame.index = asked.index
        return frame
    if module == "pyarrow":
        return answers.to_arrow()
    return answers
