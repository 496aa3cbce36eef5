"""The wheel of the assay that runs here, made from its own files: the name may belong to somebody else on a public index."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import tomllib
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import assay

_SKIPPED = {"__pycache__"}


@dataclass(frozen=True)
class Wheel:
    """A wheel as bytes. requires: its Requires-Dist lines, extras among them."""

    file: str
    content: bytes
    requires: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def wheel() -> Wheel:
    """Pure Python, any platform. Equal sources give equal bytes (members sorted by name, dated 1980-01-01)."""
    about = distribution("assay")
    project = _project(about)
    text = _metadata(project, about.metadata["Version"]) if project else about.read_text("METADATA") or ""
    points = _points(project) if project else about.read_text("entry_points.txt") or ""
    root = Path(assay.__file__).parent
    members = {f"assay/{file.relative_to(root).as_posix()}": file.read_bytes() for file in root.rglob("*")
               if file.is_file() and not _SKIPPED & set(file.parts) and file.suffix not in (".pyc", ".so")}
    info = f"assay-{assay.__version__}.dist-info"
    members |= {f"{info}/METADATA": text.encode(), f"{info}/entry_points.txt": points.encode(), f"{info}/top_level.txt": b"assay\n",
                f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: assay deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    members[f"{info}/RECORD"] = _record(members, f"{info}/RECORD")
    requires = tuple(line.removeprefix("Requires-Dist:").strip() for line in text.split("\n\n")[0].splitlines() if line.startswith("Requires-Dist:"))
    return Wheel(f"assay-{assay.__version__}-py3-none-any.whl", _zipped(members), requires)


def _project(about: Distribution) -> dict[str, Any] | None:
    """The [project] table of the checkout, where assay runs from one: what pip wrote when it was installed may be older than that."""
    direct = json.loads(about.read_text("direct_url.json") or "{}")
    if not direct.get("dir_info", {}).get("editable"):
        return None
    file = Path(unquote(urlsplit(direct["url"]).path)) / "pyproject.toml"
    if not file.is_file():
        file = Path(assay.__file__).parents[2] / "pyproject.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))["project"] if file.is_file() else None


def _metadata(project: dict[str, Any], version: str) -> str:
    """Core metadata 2.4 (PEP 566, 685) of a [project] table (PEP 621)."""
    lines = ["Metadata-Version: 2.4", f"Name: {project['name']}", f"Version: {project.get('version', version)}", f"Summary: {project.get('description', '')}",
             f"Requires-Python: {project.get('requires-python', '')}", *(["License-Expression: " + project["license"]] if isinstance(project.get("license"), str) else [])]
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", [])]
    for extra, requirements in project.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        for requirement in requirements:
            plain, _, marker = requirement.partition(";")
            lines.append(f"Requires-Dist: {plain.strip()}; " + (f"({marker.strip()}) and " if marker.strip() else "") + f'extra == "{extra}"')
    return "\n".join(lines) + "\n"


def _points(project: dict[str, Any]) -> str:
    groups = {"console_scripts": project.get("scripts", {})} | project.get("entry-points", {})
    return "".join(f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items()) for group, points in groups.items() if points)


def _record(members: dict[str, bytes], own: str) -> bytes:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for name in sorted(members):
        digest = base64.urlsafe_b64encode(hashlib.sha256(members[name]).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(members[name])])
    rows.writerow([own, "", ""])
    return out.getvalue().encode()


def _zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name)
            member.create_system, member.external_attr, member.compress_type = 3, 0o100644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(member, members[name])
    return out.getvalue()
