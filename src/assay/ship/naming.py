"""What a bundle's model is called, wherever one is named: when it is served, and when it is deployed."""

from __future__ import annotations

import re
from pathlib import Path

from assay.errors import InputError


def model_name(path: Path) -> str:
    """What a bundle is called if nobody says: its run's folder for winner.assay and cheapest.assay, else its own stem; letters, digits, dots, dashes."""
    stem = path.resolve().parent.name if path.stem in ("winner", "cheapest") else path.stem
    stem = re.sub(r"-\d{8}-\d{6}(-\d+)?$", "", stem)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64] or "model"


def named(spec: str) -> tuple[str, Path]:
    """'NAME=FILE' or 'FILE' -> (name, path). Raises InputError."""
    name, sign, rest = spec.partition("=")
    if not sign or "/" in name:
        return model_name(Path(spec)), Path(spec)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise InputError("'{name}' cannot be a model's name: letters, digits, dots, dashes and underscores, at most 64.", name=name[:64])
    return name, Path(rest)
