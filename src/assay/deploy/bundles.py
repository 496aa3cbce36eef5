"""What a deployment has to know of a bundle: digests, and what answering really imports."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import registry
from assay.errors import BundleError, InputError
from assay.families.base import Candidate
from assay.ship.archive import opened
from assay.ship.formats.base import Contents
from assay.ship.naming import named
from assay.ship.rebuild import contents_of
from assay.words import Text, say

ANSWER_S = 300.0  # loading a model of several GB from a slow disk takes minutes


@dataclass(frozen=True)
class Packed:
    """A bundle as it is handed over. model: the name it answers to. imports: top-level modules that answering asked for by itself,
    measured; None where the bundle holds no row that it could be asked. needs: {module: extra} that its card names."""

    path: Path
    model: str
    digest: str
    sha256: str
    size: int
    task: str
    candidate: str
    licence: str
    source: str
    created: str
    written_by: str
    needs: dict[str, str]
    imports: tuple[str, ...] | None

    @property
    def file(self) -> str:
        """Its name in the image."""
        return f"{self.model}.assay"


def packed(spec: str | Path, *, answer: bool = True) -> Packed:
    """Read, check every byte of, and ask the bundle at `spec`: 'FILE', or 'NAME=FILE' as `assay serve` takes it. Nothing in the file is executed.

    answer: load it in a process of its own and let it answer its reference rows: what cannot answer here is not deployed,
    and what was imported for it is what the image needs. Raises BundleError, MissingExtra as a BundleError with the same sentence.
    """
    model, path = named(str(spec))
    with opened(path) as archive:
        contents, digest = contents_of(archive)
        for name, entry in contents.entries.items():
            found = hashlib.sha256()
            for chunk in archive.chunks(name):
                found.update(chunk)
            if found.hexdigest() != entry.sha256:
                raise BundleError("'{file}' is damaged: the bytes of '{name}' are not those that were packed. Copy it again from where it was made.",
                                  file=path.name, name=name)
    cards = _cards(contents)
    needs = {module: extra for c in cards.values() for module, extra in c.needs.items()} | _media(contents)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    card = cards.get(contents.candidate)
    facts = contents.facts
    return Packed(path, model, digest, sha256, path.stat().st_size, str(contents.task["task"]), contents.candidate,
                  card.licence if card else "", card.source if card else "", str(facts.get("created") or ""), contents.written_by,
                  needs, imported_for(path, needs) if answer else None)


def distinct(bundles: list[Packed]) -> list[Packed]:
    """The same; InputError where two would have one name in the image, or there is none."""
    if not bundles:
        raise InputError("Name at least one .assay file to deploy.")
    seen: dict[str, Path] = {}
    for bundle in bundles:
        other = seen.setdefault(bundle.model, bundle.path)
        if other != bundle.path:
            raise InputError("Two bundles are called '{model}': {one} and {other}. A service tells its models apart by these names; give one another: NAME=FILE",
                             model=bundle.model, one=str(other), other=str(bundle.path))
    return bundles


def imported_for(path: Path, needs: dict[str, str]) -> tuple[str, ...] | None:
    """Top-level modules that assay itself, or the plugin that brings the candidate, imports when this bundle answers; None without a row to ask.

    A module of `needs` whose files are looked for without importing it (a package of weights) counts, and so does what decodes pictures and sounds.
    """
    done = subprocess.run([sys.executable, "-P", "-m", "assay.deploy.asked", str(path)], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise BundleError("'{file}' did not answer its own reference rows: {reason}. Pack it again, or see: assay predict {file}", file=path.name, reason=last) from None
    if "error" in told:
        raise BundleError(Text.of(told["error"]))
    media = {module for module, extra in needs.items() if extra == "media"}
    return tuple(sorted({*told["imports"], *media, *(name for name in told["located"] if name in needs)})) if told["rows"] else None


def _cards(contents: Contents) -> dict[str, Candidate]:
    """The card of the candidate and, of an ensemble, of its members; what is not installed here is said when it is loaded."""
    known = registry.discover("assay.families", Candidate)
    members: list[dict[str, Any]] = contents.params.get("members") or []
    names = [contents.candidate, *(str(m.get("family")) for m in members if isinstance(m, dict))]
    return {name: known[name] for name in names if name in known}


def _media(contents: Contents) -> dict[str, str]:
    """Reference rows hold no pictures or sounds, so that decoding them is never measured."""
    kinds = {column.kind for column in contents.schema.features}
    return ({"PIL": "media"} if "image" in kinds else {}) | ({"soundfile": "media"} if "audio" in kinds else {})


def left_out(bundle: Packed, installed: set[str]) -> Text | None:
    """A sentence for what taught the model and is not in the image, or None."""
    missing = sorted({extra for module, extra in bundle.needs.items() if module not in installed})
    if not missing:
        return None
    return say("'{model}' answers without {extras}, which its training needed: left out. Add it for retraining inside the container: --extra {first}.",
               model=bundle.model, extras=[f"assay[{m}]" for m in missing], first=missing[0])
