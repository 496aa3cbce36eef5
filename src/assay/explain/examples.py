"""Rows to look at: what the winner said of some test rows, what was true, and what its answer rests on."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from assay.data import media
from assay.data.dataset import Dataset
from assay.explain import grounds
from assay.families.base import Model
from assay.tasks.base import Task

GRID = 25  # pictures that are shown with truth and answer
EXPLAINED = 6  # rows whose answer is explained, the clearest mistakes among them
SIDE = 112
_RAMP = np.array([[0, 0, 0, 0], [68, 1, 84, 60], [59, 82, 139, 110], [33, 145, 140, 140], [94, 201, 98, 165], [253, 231, 37, 190]], dtype=np.float64)


def examples(task: Task, model: Model, test: Dataset, prediction: np.ndarray, losses: np.ndarray, *, seed: int, numbers: np.ndarray | None = None) -> dict[str, Any]:
    """JSON-ready: {'kind', 'column', 'grid': [...], 'explained': [...], 'method' (a template)}; {} where no column can be drawn.

    test: rows that the model has not learnt from. prediction: calibrated, (n, width or more). losses: (n,). numbers: of the rows
    in their file. Every cell: truth, answer, right (labels only), number, and `image` (a data URI), `words` or `channels`;
    of a transformer also `attention`, a share for each of the words or sixteenths, or one more heat map.
    """
    column = next((c for kind in ("image", "sequence", "text") for c in test.schema.of_kind(kind)), None)
    if column is None or not len(test):
        return {}
    rng = np.random.default_rng(seed)
    some = np.sort(rng.permutation(len(test))[:GRID])
    mistakes = [int(i) for i in np.argsort(-losses)[: EXPLAINED // 2]]
    easy = [int(i) for i in rng.permutation(np.argsort(losses)[: max(EXPLAINED, len(test) // 2)]) if int(i) not in mistakes][: EXPLAINED - len(mistakes)]
    chosen = np.array((mistakes + easy)[: EXPLAINED // 2 + 1 if column.kind == "sequence" else EXPLAINED], dtype=int)

    def told(i: int) -> dict[str, Any]:
        return _about(task, test, prediction, i, numbers)

    codes = prediction[:, : task.width].argmax(axis=1)
    asked = test.take(chosen).asked()
    out: dict[str, Any] = {"kind": column.kind, "column": column.name, "grid": [], "explained": []}
    if column.kind == "image":
        out["grid"] = [told(int(i)) | {"image": uri(thumbnail(test.frame[column.name][int(i)]))} for i in some]
        maps, method = grounds.heat(model, asked, column.name, codes[chosen])
        if any(m.any() for m in maps):  # a winner that reads other columns rests on no part of the picture
            out["explained"] = [told(int(i)) | {"image": uri(thumbnail(test.frame[column.name][int(i)])), "heat": uri(coloured(m))} for i, m in zip(chosen, maps, strict=True)]
            for cell, own in zip(out["explained"], grounds.seen_patches(model, asked, column.name) or [], strict=False):
                cell["attention"] = uri(coloured(own))
    elif column.kind == "text":
        marked, method = grounds.words(model, asked, column.name, codes[chosen])
        out["explained"] = [told(int(i)) | {"words": [[w, round(v, 4)] for w, v in own]} for i, own in zip(chosen, marked, strict=True)]
        _looked(out, grounds.seen_words(model, asked, column.name))
    else:
        adds, method = grounds.stretches(model, asked, column.name, codes[chosen])
        out["explained"] = [told(int(i)) | {"channels": _channels(test.frame[column.name][int(i)], column.channels or (), own)} for i, own in zip(chosen, adds, strict=True)]
        _looked(out, grounds.seen_stretches(model, asked, column.name))
    out["method"] = str(method)
    moved = [abs(v) for e in out["explained"] for v in [*(w[1] for w in e.get("words", [])), *(a for c in e.get("channels", []) for a in c["adds"])]]
    if column.kind != "image" and max(moved, default=0.0) < 1e-6:
        out["explained"] = []
    return out


def _about(task: Task, test: Dataset, prediction: np.ndarray, i: int, numbers: np.ndarray | None) -> dict[str, Any]:
    truth, row = test.y[i], prediction[i]
    classes = getattr(task, "classes", None)
    out: dict[str, Any] = {"row": None if numbers is None else int(numbers[i]), "truth": str(truth)}
    if classes is None:
        return out | {"answer": f"{float(row[0]):.4g}"}
    code = int(row[: task.width].argmax())
    return out | {"answer": str(classes[code]), "probability": round(float(row[code]), 4), "right": str(classes[code]) == str(truth)}


def thumbnail(cell: bytes | None) -> np.ndarray:
    """uint8 (h, w, 3), the longer side 112; grey where there is no picture."""
    if cell is None:
        return np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    height, width = media.size_of(cell)
    scale = SIDE / max(height, width)
    return media.pixels(cell, (max(8, round(height * scale)), max(8, round(width * scale))))


def coloured(heat: np.ndarray) -> np.ndarray:
    """float (h, w), 0-1, as uint8 (h, w, 4): from nothing over violet and green to yellow."""
    at = np.clip(heat, 0, 1) * (len(_RAMP) - 1)
    low = np.floor(at).astype(int).clip(0, len(_RAMP) - 2)
    part = (at - low)[..., None]
    return (_RAMP[low] * (1 - part) + _RAMP[low + 1] * part).astype(np.uint8)


def uri(pixels: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    image = Image.fromarray(pixels)
    if pixels.shape[2] == 4:
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image.save(out, "PNG", optimize=True)
    else:
        image.save(out, "JPEG", quality=85)
    kind = "png" if pixels.shape[2] == 4 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _looked(out: dict[str, Any], weights: list[list[float]] | None) -> None:
    """Beside what adds to the answers: where a transformer looks, a share for each piece or sixteenth."""
    for cell, own in zip(out["explained"], weights or [], strict=False):
        cell["attention"] = [round(share, 4) for share in own]


def _channels(cell: bytes | None, names: tuple[str, ...], adds: np.ndarray) -> list[dict[str, Any]]:
    """The channels that matter most, at most four: their values (at most 200 points) and what each sixteenth of them adds; adds: (channels, 16)."""
    if not cell:
        return []
    steps = media.steps(cell, len(names))
    out = []
    for c in np.argsort(-np.abs(adds).max(axis=1))[:4]:
        values = steps[:: max(1, len(steps) // 200), c]
        out.append({"name": names[c], "values": [None if not np.isfinite(v) else round(float(v), 5) for v in values], "adds": np.round(adds[c], 5).tolist()})
    return out
