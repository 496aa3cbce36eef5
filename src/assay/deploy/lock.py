"""The packages of the image, each pinned to the version that is installed here: what answered on this machine answers there."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

from assay.errors import InputError, MissingExtra
from assay.words import say

PIP_S = 1800.0


@dataclass(frozen=True)
class Pin:
    """One package. hashes: sha256 of the files that pip may take, none where they were not asked for. requires: normalised names.
    direct: assay asks for it itself."""

    name: str
    version: str
    requires: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    licence: str = ""
    direct: bool = False

    @property
    def line(self) -> str:
        return " \\\n    ".join([f"{self.name}=={self.version}", *(f"--hash=sha256:{h}" for h in self.hashes)])


def pins(requires: Iterable[str], *, extras: Iterable[str] = (), modules: Iterable[str] = ()) -> tuple[Pin, ...]:
    """Everything that assay's own requirements, those of its `extras`, and the packages that bring these `modules` lead to, sorted by name.

    requires: Requires-Dist lines of assay. Raises InputError for an extra that does not exist or a package that is not installed here.
    """
    lines, wanted = list(requires), list(extras)
    try:
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
    except ImportError:
        raise MissingExtra("packaging", extra="deploy") from None
    parsed = [Requirement(line) for line in lines]
    names = set(_extras(lines))
    for extra in wanted:
        if extra not in names:
            raise InputError("assay has no extra '{extra}'. It has: {names}.", extra=extra, names=sorted(names))
    queue: deque[tuple[str, tuple[str, ...]]] = deque((r.name, tuple(r.extras)) for r in parsed if _applies(r, ("", *wanted)))
    brought = packages_distributions()
    for module in modules:
        queue.extend((name, ()) for name in brought.get(module, ()))
    roots: set[str] = set()
    for name, its_extras in queue:
        roots |= {canonicalize_name(name)} if name != "assay" else {canonicalize_name(r.name) for r in parsed if _applies(r, its_extras)}
    found: dict[str, Pin] = {}
    done: set[tuple[str, tuple[str, ...]]] = set()
    while queue:
        name, its_extras = queue.popleft()
        key = canonicalize_name(name)
        if (key, its_extras) in done:
            continue
        done.add((key, its_extras))
        if key == "assay":  # extras that name other extras
            queue.extend((r.name, tuple(r.extras)) for r in parsed if _applies(r, its_extras))
            continue
        try:
            there = distribution(name)
        except PackageNotFoundError:
            raise InputError("The image needs the package '{package}', which is not installed here: its version cannot be known. "
                             "Install it, then deploy again: pip install {package}", package=name) from None
        needs = [Requirement(line) for line in there.requires or ()]
        wanted_now = [r for r in needs if _applies(r, ("", *its_extras))]
        before = found[key].requires if key in found else ()
        found[key] = Pin(key, there.version, tuple(sorted({*before, *(canonicalize_name(r.name) for r in wanted_now)})), licence=licence_of(there), direct=key in roots)
        queue.extend((r.name, tuple(r.extras)) for r in wanted_now)
    return tuple(found[key] for key in sorted(found))


def hashed(found: tuple[Pin, ...]) -> tuple[Pin, ...]:
    """The same with the sha256 of the file that pip would take on this platform from the index that it is set to use here (it may download them)."""
    with tempfile.TemporaryDirectory() as made:
        lock, report = Path(made) / "lock.txt", Path(made) / "report.json"
        lock.write_text("\n".join(pin.line for pin in found), encoding="utf-8")
        done = subprocess.run([sys.executable, "-P", "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--disable-pip-version-check",
                               "--report", str(report), "-r", str(lock)], capture_output=True, text=True, timeout=PIP_S, check=False)
        if done.returncode:
            raise InputError("pip could not find the files of these versions to take their digests: {reason}. Check the index that pip uses, or leave out --hashes.",
                             reason=(done.stderr.strip().splitlines() or ["?"])[-1])
        told: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    from packaging.utils import canonicalize_name

    digests: dict[str, str | None] = {canonicalize_name(item["metadata"]["name"]): item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256") for item in told}
    checked = tuple(replace(pin, hashes=(digest,)) for pin in found if (digest := digests.get(pin.name)))
    absent = sorted({pin.name for pin in found} - {pin.name for pin in checked})
    if absent:
        raise InputError("pip gave no digest for: {packages}. Leave out --hashes, or install these from an index.", packages=absent)
    return checked


def text(found: tuple[Pin, ...]) -> str:
    """requirements.lock as pip reads it."""
    python = ".".join(map(str, sys.version_info[:3]))
    checked = all(pin.hashes for pin in found)
    head = [f"# Python {python}: the versions that were installed where this was made, and what they need themselves.",
            "# pip refuses a file whose digest is not one of these." if checked else
            "# Versions only, no digests: made without --hashes. Fill it again with `assay deploy docker --hashes` where an index can be reached."]
    local = [pin.name for pin in found if "+" in pin.version]
    if local:
        head.append(f"# {', '.join(local)}: a build with a label of its own (+...), from an index of its own: docker build --build-arg PIP_EXTRA_INDEX_URL=URL")
    return "\n".join([*head, *(pin.line for pin in found)]) + "\n"


def licence_of(there: Distribution) -> str:
    """An SPDX expression where the package gives one, else what it calls its licence, in one line; '' if it says nothing."""
    about = there.metadata
    for expression in about.get_all("License-Expression") or []:
        return str(expression)
    classified = [c.rpartition("::")[2].strip() for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    named = str((about.get_all("License") or [""])[0]).strip().splitlines()
    return named[0][:100] if named and len(named) == 1 and named[0] not in ("UNKNOWN", "") else ", ".join(classified)


def local_notes(found: tuple[Pin, ...]) -> list[Any]:
    local = [f"{pin.name}=={pin.version}" for pin in found if "+" in pin.version]
    if not local:
        return []
    return [say("{packages} come from an index of their own: docker build --build-arg PIP_EXTRA_INDEX_URL=URL", packages=local)]


def _applies(requirement: Any, extras: tuple[str, ...]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)


def _extras(lines: list[str]) -> list[str]:
    import re

    return [name for line in lines for name in re.findall(r"""extra\s*==\s*["']([\w-]+)["']""", line)]
