"""A small residual network trained from scratch on pictures: the honest deep contestant where weights from elsewhere are not wanted."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate, Model, Range
from assay.neural import cells, fitting, pictures, sizes
from assay.neural.augment import Changes, wanted
from assay.neural.balance import WAYS as BALANCED
from assay.neural.export import Session, exported
from assay.neural.recipe import Recipe
from assay.neural.run import device_of

# 4,000 pictures of CIFAR-10, 8 passes: AdamW 63.6 % in 21 s of one core, SGD 59.3 % in 23 s, Muon 62.7 % in 33 s (dev/LOG.md)
RECIPE = Recipe(optimizer="adamw", rate=0.006, decay=0.02, schedule="one_cycle", batch=64, epochs=60, smoothing=0.1, ema=0.99, patience=1.0)
# 10,000 pictures of CIFAR-10 on one H100, 15 s, n = 1: Muon 84.3 %, AdamW (rate 0.003, batch 256) 83.4 %; batches of 64 leave the GPU idle
ON_GPU, GPU_ROWS = replace(RECIPE, optimizer="muon", rate=0.05, batch=256), 2000
# side of the pictures (at most; never larger than they are), channels of the stages, how often the stem halves the sides
Size = tuple[int, tuple[int, ...], int]
SIZES: tuple[Size, ...] = (
    (32, (16, 32, 64), 1), (32, (32, 64, 128), 1), (48, (32, 64, 128), 1), (64, (32, 64, 128, 128), 1), (64, (48, 96, 192, 192), 1),
    (96, (48, 96, 192, 192), 1), (128, (48, 96, 192, 256), 1), (160, (64, 128, 256, 256), 1),
)
SMALL, WHOLE = 40, ((32, (64, 128, 256), 0), (32, (128, 256, 512), 0))  # of pictures with at most so long a side no pixel need be left out: a GPU's sizes
DEFAULT = 3
MOST_SIDE = 160
FEW = 1500  # rows below which smaller batches make more steps of them
_SEEN = 300  # pictures that are looked at before the size is chosen


class Convnet(Model):
    """params: any of `Recipe` and of `augment.Changes`, `dropout`, `balanced` (one of `balance.WAYS`), `size` (an index of SIZES)."""

    session: Session
    onnx: bytes
    about: dict[str, Any]

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Convnet:
        import torch

        column = self.schema.of_kind("image")[0].name
        truth, strata, labels = self.task.truth(train), self.task.strata(train), self.task.name != "regress"
        rest, held = fitting.parts(train, strata, seed)
        scale = fitting.Scale.learn(truth[rest], labels=labels)
        target = scale.target(truth)
        aim = fitting.aim_of(labels=labels, width=self.task.width, loss=self.task.loss, quantile=getattr(self.task, "quantile", 0.5))
        fast = device_of(math.isfinite(budget.seconds)) == "cuda" and len(rest) >= GPU_ROWS
        recipe = fitting.tuned(ON_GPU if fast else RECIPE if len(rest) >= FEW else replace(RECIPE, batch=32), self.params)
        pictured = train.frame[column]
        some = pictured[np.random.default_rng(seed).permutation(rest)[:_SEEN]].drop_nulls()
        native = _native(some)
        torch.set_num_threads(max(1, budget.threads))
        first = cells.pixels(some, min(native, 96), grey=False, threads=budget.threads, cache=budget.cache)
        grey = pictures.is_grey(first)
        room = 0.85 * budget.seconds - (time.monotonic() - budget.started)
        budget.after_torch(0.15)
        options = _options(native)
        begun = fitting.size_begun(options, len(rest), budget)
        options = options if begun is None else [options[begun]]
        chosen = self._chosen(options, some, grey, aim, recipe, len(rest), room, budget)
        side, widths, halved = options[chosen.index]
        pixels = cells.pixels(pictured, side, grey=grey, threads=budget.threads, cache=budget.cache)
        mean, spread = pictures.moments(pixels[rest])
        flip = self.params.get("flip") or pictures.flips_that_keep(pixels[rest], truth[rest], labels=labels, seed=seed)
        changes = wanted({"flip": flip, "shift": 0.1, "cutout": 0.25 if side >= 24 else 0.0}, self.params)
        taught = pictures.Pictures(pixels[rest], fitting.softened(target[rest], self.task.width, budget.memo, rest), mean, spread, changes)
        judged = pictures.Pictures(pixels[held], target[held], mean, spread, changes)
        torch.manual_seed(seed)
        network = self._network(widths, 1 if grey else 3, halved)
        _, self.facts = fitting.teach(network, taught, judged, aim, recipe, seed=seed, budget=budget, at=fitting.mark(options[chosen.index], len(rest)), params=self.params)
        example = torch.from_numpy(pictures.standard(pixels[:2] if len(pixels) > 1 else np.repeat(pixels, 2, axis=0), mean, spread))
        self.onnx = exported(network, (example,), ("x",), more=("maps",))
        self.session = Session(self.onnx, budget.threads)
        mirrored = flip != "none"
        self.about = {"side": side, "grey": grey, "mean": mean.tolist(), "spread": spread.tolist(), "mirrored": mirrored, "scale": vars(scale), "column": column,
                      "head": [[round(float(w), 6) for w in row] for row in network.head.weight.detach()]}
        self.facts |= {"architecture": {"side": side, "widths": list(widths), "channels": 1 if grey else 3, "epochs_possible": round(chosen.epochs, 1)
                                        if chosen.tried else None, "tried": chosen.tried,
                                        "reason": sizes.reason(chosen, 1 if "size" in self.params else len(options), len(rest), begun=begun is not None).json()}, "augmentation": vars(changes)}
        return self

    def _chosen(self, options: list[Size], some: pl.Series, grey: bool, aim: Any, recipe: Recipe, n: int, room: float,
                budget: Budget) -> sizes.Chosen:
        if "size" in self.params or len(options) == 1:
            return sizes.Chosen(min(int(self.params.get("size", 0)), len(options) - 1), 0.0, [])
        few = some[np.arange(2 * recipe.batch) % len(some)]
        target = np.zeros(len(few), dtype=np.int64 if aim.labels else np.float32)

        def rows(size: Size) -> pictures.Pictures:
            small = cells.pixels(few, size[0], grey=grey, threads=budget.threads, cache=budget.cache)
            return pictures.Pictures(small, target, *pictures.moments(small), Changes())

        return sizes.choose(options, lambda s: self._network(s[1], 1 if grey else 3, s[2]), rows, aim, recipe, n=n, seconds=room, default=min(DEFAULT, len(options) - 1))

    def _network(self, widths: tuple[int, ...], channels: int, halved: int) -> Any:
        from assay.neural.residual import network

        return network(channels=channels, widths=widths, outputs=self.task.width if self.task.name != "regress" else 1, flat=False,
                       dropout=self.params.get("dropout", 0.1), halved=halved)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        pixels = cells.pixels(asked.frame[self.about["column"]], self.about["side"], grey=self.about["grey"])
        return self._said(pixels)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        cell = row.get(self.about["column"])
        if not isinstance(cell, bytes):
            return super().predict_row(row)
        return self._said(media.pixels(cell, self.about["side"], grey=self.about["grey"])[None])

    def _standard(self, pixels: np.ndarray) -> np.ndarray:
        mean, spread = (np.asarray(self.about[k], dtype=np.float32) for k in ("mean", "spread"))
        return pictures.standard(pixels, mean, spread)

    def _said(self, pixels: np.ndarray) -> np.ndarray:
        def batch(rows: np.ndarray) -> dict[str, np.ndarray]:
            return {"x": self._standard(pixels[rows])}

        def flipped(rows: np.ndarray) -> dict[str, np.ndarray]:
            return {"x": np.ascontiguousarray(batch(rows)["x"][..., ::-1])}

        said = self.session.answers(batch, len(pixels))
        if self.about["mirrored"]:
            said = (said + self.session.answers(flipped, len(pixels))) / 2
        return fitting.Scale(**self.about["scale"]).finished(said)

    def heat(self, asked: Dataset, codes: np.ndarray) -> np.ndarray:
        """Grad-CAM, (n, h, w): what in each picture speaks for the label with this code. The head being linear after pooling, the gradient
        of a label with respect to a map is known without torch: the mean's weight everywhere, the maximum's at its place."""
        pixels = cells.pixels(asked.frame[self.about["column"]], self.about["side"], grey=self.about["grey"])
        maps = self.session.output("maps", x=self._standard(pixels))
        n, depth, height, width = maps.shape
        head = np.asarray(self.about["head"], dtype=np.float32)[codes if self.task.name != "regress" else np.zeros(n, dtype=int)]
        weight = (head[:, :depth] + head[:, depth:]) / (height * width)
        return np.maximum((weight[:, :, None, None] * maps).sum(axis=1), 0)

    def feeds(self, asked: Dataset) -> Iterator[dict[str, np.ndarray]]:
        """What the network is given for these rows, in batches: to calibrate a network of whole numbers."""
        pixels = cells.pixels(asked.frame[self.about["column"]], self.about["side"], grey=self.about["grey"])
        for first in range(0, len(pixels), 32):
            yield {"x": self._standard(pixels[first : first + 32])}

    def dump(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "network.onnx").write_bytes(self.onnx)
        (folder / "convnet.json").write_text(json.dumps({"format": 1, "about": self.about, "facts": self.facts}, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Convnet:
        packed = json.loads((folder / "convnet.json").read_text(encoding="utf-8"))
        self.about, self.facts = packed["about"], packed["facts"]
        self.onnx = (folder / "network.onnx").read_bytes()
        self.session = Session(self.onnx)
        return self


def _options(native: int) -> list[Size]:
    """The sizes for pictures of this side, smallest first."""
    known = [(min(side, native), widths, halved if native >= 20 else 0) for side, widths, halved in (*SIZES, *(WHOLE if native <= SMALL else ()))]
    return [size for i, size in enumerate(known) if size not in known[:i]]


def _native(some: pl.Series) -> int:
    """The side that most pictures have at least, at most `MOST_SIDE`, even."""
    sides = [min(media.size_of(cell)) for cell in some[:50]]
    return max(8, min(MOST_SIDE, int(np.median(sides)) // 2 * 2)) if sides else 32


CANDIDATE = Candidate(
    name="convnet",
    rung="scratch",
    tasks=("classify", "regress"),
    build=Convnet,
    reads=("image",),
    requires=("image",),
    needs={"torch": "deep", "onnx": "deep", "PIL": "media"},
    space={"rate": Range(0.001, 0.02, log=True), "dropout": Range(0.0, 0.4), "decay": Range(0.001, 0.1, log=True), "smoothing": Range(0.0, 0.2),
           "batch": Range(32, 256, log=True, whole=True), "mixup": Range(0.0, 0.5), "cutmix": Range(0.0, 0.5), "balanced": BALANCED},
    smaller=(("student", {"size": 0, "teacher": True}),),
    share=8.0,
    at_least_s=5.0,
    licence="MIT, assay's own code",
    version="1",
    source="residual networks (He et al. 2016, arXiv:1603.05027), the habits of airbench (Jordan 2024, arXiv:2404.00498), "
    "cutout (DeVries & Taylor 2017, arXiv:1708.04552)",
)
