"""The parts of the image as CycloneDX 1.6 JSON: every Python package of the lock, the bundles, the base image."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from assay import __version__
from assay.deploy.base import Service
from assay.deploy.lock import Pin
from assay.deploy.wheel import Wheel

_SPDX = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)+|\((?:.*)\)")
_IDS = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "PSF-2.0", "MPL-2.0", "ISC", "0BSD", "MIT-CMU", "Unlicense", "Zlib"}


def sbom(service: Service, pins: tuple[Pin, ...], wheel: Wheel, base_image: str) -> str:
    """JSON text. No date and no random serial number, so that equal input gives equal bytes. The packages of the base image's own
    distribution are not listed, and `compositions` says so."""
    assay_ref = f"pkg:pypi/assay@{__version__}"
    packages = [_package(pin) for pin in pins]
    models = [_model(bundle) for bundle in service.bundles]
    base_name, _, base_tag = base_image.partition("@")[0].rpartition(":")
    base = {"type": "container", "bom-ref": f"base:{base_image}", "name": base_name or base_image, "version": base_tag,
            "description": "The base image; what is in it is listed by its maker, or by a scanner of images."}
    root_ref = f"image:{service.image}"
    components = [base, {"type": "application", "bom-ref": assay_ref, "name": "assay", "version": __version__, "purl": assay_ref,
                         "licenses": [{"license": {"id": "MIT"}}], "hashes": [{"alg": "SHA-256", "content": wheel.sha256}]}, *packages, *models]
    edges = [{"ref": root_ref, "dependsOn": [base["bom-ref"], assay_ref, *(m["bom-ref"] for m in models)]},
             {"ref": assay_ref, "dependsOn": [_ref(pin) for pin in pins if pin.direct]}]
    known = {pin.name: pin for pin in pins}
    edges += [{"ref": _ref(pin), "dependsOn": [_ref(known[name]) for name in pin.requires if name in known]} for pin in pins]
    edges += [{"ref": m["bom-ref"], "dependsOn": [assay_ref]} for m in models]
    name, _, tag = service.image.partition("@")[0].rpartition(":") if ":" in service.image.rpartition("/")[2] else (service.image, "", "latest")
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"tools": {"components": [{"type": "application", "name": "assay", "version": __version__}]},
                     "component": {"type": "container", "bom-ref": root_ref, "name": name, "version": tag}},
        "components": components, "dependencies": edges,
        "compositions": [{"aggregate": "incomplete", "assemblies": [base["bom-ref"]]}],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))}"
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _ref(pin: Pin) -> str:
    return f"pkg:pypi/{pin.name}@{pin.version.replace('+', '%2B')}"


def _package(pin: Pin) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "library", "bom-ref": _ref(pin), "name": pin.name, "version": pin.version, "purl": _ref(pin)}
    if pin.licence in _IDS:
        out["licenses"] = [{"license": {"id": pin.licence}}]
    elif _SPDX.fullmatch(pin.licence):
        out["licenses"] = [{"expression": pin.licence}]
    elif pin.licence:
        out["licenses"] = [{"license": {"name": pin.licence}}]
    if pin.hashes:
        out["hashes"] = [{"alg": "SHA-256", "content": digest} for digest in pin.hashes]
    return out


def _model(bundle: Any) -> dict[str, Any]:
    properties = {"assay:digest": bundle.digest, "assay:task": bundle.task, "assay:candidate": bundle.candidate, "assay:written-by": bundle.written_by,
                  "assay:size-bytes": str(bundle.size), "assay:created": bundle.created, "assay:licence-of-candidate": bundle.licence, "assay:source": bundle.source}
    return {"type": "machine-learning-model", "bom-ref": f"bundle:{bundle.digest}", "name": bundle.file, "version": bundle.digest[:12],
            "hashes": [{"alg": "SHA-256", "content": bundle.sha256}],
            "modelCard": {"modelParameters": {"task": bundle.task, "architectureFamily": bundle.candidate}},
            "properties": [{"name": key, "value": value} for key, value in properties.items() if value]}
