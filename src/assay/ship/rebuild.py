"""From a checked archive to a task, a contestant and its reference rows. Whatever goes wrong here is one BundleError.

A foreign file can make a parser or a constructor raise anything, so this is the one place that catches everything.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay import __version__, registry, tasks
from assay.errors import AssayError, BundleError, MissingExtra
from assay.families.base import Candidate, Model
from assay.ship.archive import Archive, printable, refused
from assay.ship.content import SUFFIXES, content_refused
from assay.ship.footer import footer
from assay.ship.formats import FORMAT, READERS
from assay.ship.formats.base import Contents, Malformed, plain, strict_json
from assay.tasks.base import Task
from assay.words import Text, say

REFERENCE_ROWS = 1000
REFERENCE_MOST = 32 << 20  # bytes
_MANIFEST_MOST = 16 << 20
_FLAT = (pl.Float64, pl.Int64, pl.String, pl.Boolean, pl.Date, pl.Datetime)


def contents_of(archive: Archive) -> tuple[Contents, str]:
    """What the archive says about itself, and the digest of its manifest; every check short of hashing the large members."""
    shown = archive.shown
    if "manifest.json" not in archive.members:
        raise refused(shown, say("no member '{name}'", name="manifest.json"), say("a zip file written by assay"))
    for name, member in archive.members.items():
        reason = content_refused(name, member.size, *archive.ends(name))
        if reason is not None:
            raise refused(shown, reason, say("data only, of the kinds {kinds}", kinds=list(SUFFIXES)))
    raw = archive.read("manifest.json", _MANIFEST_MOST)
    if zlib.crc32(raw) != archive.members["manifest.json"].crc:
        raise refused(shown, say("other bytes in '{name}' than its digest was made of", name="manifest.json"),
                      say("the bytes that were packed"))
    try:
        manifest = strict_json(raw)
        number = manifest.get("format") if isinstance(manifest, dict) else None
        if type(number) is not int or number < 1:
            raise Malformed(say("no format number in its manifest"))
        if number > FORMAT:
            raise _too_new(shown, number, manifest.get("assay"))
        return READERS[number](archive, manifest), hashlib.sha256(raw).hexdigest()
    except Malformed as error:
        raise refused(shown, say("it holds {found}", found=error.found), say("what docs/bundle.md describes")) from None


def _too_new(shown: str, number: int, written_by: Any) -> BundleError:
    version = written_by if isinstance(written_by, str) and re.fullmatch(r"\d+(\.\d+){0,3}", written_by) else "?"
    return BundleError(
        "'{file}' has the bundle format {found}, written by assay {version}; assay {here} reads formats up to {known}. "
        "Install assay {version} or newer.", file=shown, found=number, version=version, here=__version__, known=FORMAT)


def task_of(shown: str, contents: Contents) -> Task:
    name = contents.task["task"]
    known = tasks.known()
    if name not in known:
        raise BundleError("'{file}' answers the task '{name}', which is not installed here. Install what brings it; there are: {names}.",
                          file=shown, name=printable(name), names=list(known))
    try:
        task = known[name].from_json(contents.task)
        same = plain(task.json(), where="task") == contents.task  # "abc" for classes would pass as a list of letters
        task.calibrated(np.full((1, task.width), 1 / task.width), contents.calibration)
    except Exception as error:  # whatever a foreign file makes it raise
        raise _not_rebuilt(shown, say("the task '{name}'", name=name), error) from None
    if not same:
        raise _not_rebuilt(shown, say("the task '{name}'", name=name), Malformed(say("its settings change when they are read")))
    return task


def candidate_of(shown: str, contents: Contents, task: Task) -> Candidate:
    candidate = registry.one("assay.families", Candidate, contents.candidate)
    if candidate is None:
        known = registry.discover("assay.families", Candidate)
        raise BundleError("'{file}' was made by the candidate '{name}', which is not installed here. Install the plugin that brings it; "
                          "there are: {names}.", file=shown, name=printable(contents.candidate), names=_some([n for n in known if task.name in known[n].tasks]))
    if task.name not in candidate.tasks:
        raise refused(shown, say("the candidate '{name}' does not answer the task '{task}'", name=candidate.name, task=task.name),
                      say("one of {tasks}", tasks=list(candidate.tasks)))
    return candidate


def _some(names: list[str], most: int = 12) -> list[str]:
    return names if len(names) <= most else [*names[:most], "..."]


def model_of(shown: str, folder: Path, contents: Contents, task: Task, candidate: Candidate) -> Model:
    try:
        return candidate.build(task, contents.schema, **contents.params).load(folder)
    except AssayError:
        raise
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        raise MissingExtra(package or str(error), extra=candidate.needs.get(package, "all")) from None
    except Exception as error:  # whatever a foreign file makes it raise
        raise _not_rebuilt(shown, say("the candidate '{name}'", name=candidate.name), error) from None


def _not_rebuilt(shown: str, what: Text, error: BaseException) -> BundleError:
    detail: Text | str = printable(f"{type(error).__name__}: {error}")
    if isinstance(error, (Malformed, AssayError)):
        detail = error.found if isinstance(error, Malformed) else error.text
    return refused(shown, say("{what} could not be built from it ({detail})", what=what, detail=detail), say("what this version of it once wrote"))


class Reference:
    """The reference rows of a bundle: checked when it is loaded, read when they are first wanted (a table that nobody asks for is not held)."""

    def __init__(self, shown: str, file: Path, contents: Contents) -> None:
        self.shown, self.name, self.there = shown, file.name, file.name in contents.entries
        if not self.there:
            return
        self._names = [c.name for c in contents.schema.plain]
        self._entry = contents.entries[file.name]
        try:
            if self._entry.size > REFERENCE_MOST:
                raise Malformed(say("at most {most} bytes are read", most=REFERENCE_MOST))
            with file.open("rb") as opened:  # mapped, so that it is still there when the cache has been pruned
                self._raw = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            facts = footer(self._raw[:])
            if facts.packed or facts.rows > REFERENCE_ROWS or len(facts.columns) != len(self._names):
                raise Malformed(say("at most {rows} rows of {columns} uncompressed columns are read", rows=REFERENCE_ROWS, columns=len(self._names)))
            if facts.columns != self._names:
                raise Malformed(say("it has other columns than the schema"))
        except Exception as error:  # whatever a foreign file makes a parser raise
            raise self._refused(error) from None

    def read(self) -> pl.DataFrame | None:
        """The rows, or None if they were left out. Raises BundleError if they are no longer the bytes that were packed, or not plain columns."""
        if not self.there:
            return None
        try:
            raw = self._raw[:]
            if hashlib.sha256(raw).hexdigest() != self._entry.sha256:
                raise Malformed(say("other bytes in '{name}' than its digest was made of", name=self.name))
            if not all(kind in _FLAT for kind in pl.read_parquet_schema(io.BytesIO(raw)).values()):
                raise Malformed(say("only numbers, texts and times are read"))
            frame = pl.read_parquet(io.BytesIO(raw))
            if frame.columns != self._names or frame.height > REFERENCE_ROWS:
                raise Malformed(say("it has other columns than the schema"))
        except (Exception, pl.exceptions.PanicException) as error:  # whatever a foreign file makes a parser raise
            raise self._refused(error) from None
        return frame

    def _refused(self, error: BaseException) -> BundleError:
        return _not_rebuilt(self.shown, say("the table '{name}'", name=self.name), error)
