"""A contestant made of a frozen encoder and a head: what to embed in the time there is, fit, predict, dump, load."""

from __future__ import annotations

import json
import math
import os
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder
from assay.data.split import holdout
from assay.neural.base import Encoder
from assay.neural.head import Head
from assay.words import say

PROBE_ROWS = 64
CHUNK_ROWS = 512
EMBED_SHARE = 0.65  # of the fit's time; the rest is for the head


class FrozenEncoder:
    """Mix in before `families.base.Model`; the family says which encoder, and which exception means "too slow"."""

    too_slow: ClassVar[type[Exception]]
    task: Any
    schema: Schema
    params: dict[str, Any]
    facts: dict[str, Any]
    encoder: Encoder
    head: Head
    table: TableEncoder
    ready = False

    @abstractmethod
    def open_encoder(self, threads: int) -> Encoder:
        """The encoder as installed on this machine."""

    @abstractmethod
    def load_encoder(self, folder: Path, threads: int) -> Encoder:
        """The encoder from a bundle."""

    @property
    def text_columns(self) -> list[str]:
        return [c.name for c in self.schema.of_kind("text")]

    @property
    def _sources(self) -> Sources:
        return [(self.encoder, self.text_columns)]

    def fit(self, train: Dataset, *, seed: int, budget: Any) -> Any:
        """Raises `too_slow` if the test rows cannot be embedded in their time, or too few training rows in this one's.

        Without a clock (infinite seconds) nothing is timed: every row is embedded, and facts hold no speed.
        """
        self.encoder = self.open_encoder(budget.threads)
        self.facts |= {"encoder": self.encoder.name, "dimension": self.encoder.dimension, "encoder_version": self.encoder.version}
        strata = self.task.strata(train)
        order = spread(len(train), strata, np.random.default_rng(seed))
        rows_per_s = math.inf
        if math.isfinite(budget.seconds):
            rows_per_s = pace(self._sources, train.take(order[:PROBE_ROWS]))
            self.facts["rows_per_s"] = round(rows_per_s, 1)
        if budget.predict_rows > rows_per_s * budget.predict_seconds:
            raise self.too_slow(say(
                "{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s",
                rows=budget.predict_rows, rows_per_s=round(rows_per_s, 1), needed=round(budget.predict_rows / rows_per_s, 1),
                there=round(budget.predict_seconds, 1),
            ))
        rows, embedding = embed(self._sources, train, order, budget)
        if len(rows) < min(len(train), max(20, 2 * len(np.unique(self.task.truth(train))))):
            raise self.too_slow(say(
                "only {done} of {rows} training rows could be embedded in the time there was ({rows_per_s} rows a second)",
                done=len(rows), rows=len(train), rows_per_s=round(rows_per_s, 1),
            ))
        if len(rows) < len(train):
            self.facts["rows_used"] = len(rows)
        taught = train.take(rows)
        self.table = TableEncoder(self.schema).fit(taught.frame)
        rest, held = holdout(taught, share=0.2, seed=seed, strata=self.task.strata(taught))
        classes = self.task.width if self.task.name == "classify" else 0
        self.head = Head(classes=classes, loss=self.task.loss, quantile=getattr(self.task, "quantile", 0.5))
        codes = self.table.codes(taught.frame)
        categories = list(range(codes.shape[1] - len(self.table.categories), codes.shape[1]))
        budget.say(f"embedded {len(rows):,} rows; fitting the head")
        self.head.fit(embedding, self.table.dense(taught.frame), codes, self.task.truth(taught), rest, held, categories=categories,
                      seed=seed, seconds=max(budget.left(), 1.0), threads=budget.threads, passes=budget.passes)
        self.facts |= self.head.facts
        self.ready = True
        return self

    def predict(self, asked: Dataset) -> np.ndarray:
        return self.head.predict(embedded(self._sources, asked.frame), self.table.dense(asked.frame), self.table.codes(asked.frame))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        embedding = self.encoder.encode([row.get(name) for name in self.text_columns]).reshape(1, -1)
        return self.head.predict(embedding, self.table.dense_row(row), self.table.codes_row(row))

    def dump(self, folder: Path) -> None:
        """head.json, head.safetensors, trees.txt (if trees won), frozen.json, and the encoder's files under encoder/."""
        self.head.dump(folder)
        self.encoder.copy_to(folder / "encoder")
        packed = {"table": self.table.json(), "digest": self.encoder.digest, "threads": self.encoder.threads, "name": self.encoder.name}
        (folder / "frozen.json").write_text(json.dumps(packed), encoding="utf-8")

    def load(self, folder: Path) -> Any:
        packed = json.loads((folder / "frozen.json").read_text(encoding="utf-8"))
        self.encoder = self.load_encoder(folder / "encoder", min(packed["threads"], len(os.sched_getaffinity(0))))
        self.encoder.check(packed["digest"])
        self.encoder.name = packed["name"]
        self.table = TableEncoder.of(packed["table"])
        self.head = Head.load(folder)
        self.ready = True
        return self


Sources = list[tuple[Encoder, list[str]]]  # encoders, each with the columns that it reads


def pace(sources: Sources, probe: Dataset) -> float:
    """Rows a second, measured after a first cell has opened everything."""
    start, seconds = 0.0, 0.0
    for encoder, names in sources:
        cells = [cell for name in names for cell in probe.frame[name].to_list()]
        encoder.encode(cells[:1])
        start = time.monotonic()
        encoder.encode(cells)
        seconds += time.monotonic() - start
    return len(probe) / max(seconds, 1e-6)


def embedded(sources: Sources, frame: pl.DataFrame) -> np.ndarray:
    """float32 (n, sum of dimensions x columns), encoder after encoder, column after column."""
    return np.concatenate([encoder.encode(frame[name].to_list()) for encoder, names in sources for name in names], axis=1)


def embed(sources: Sources, train: Dataset, order: np.ndarray, budget: Any, *, share: float = EMBED_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Embeds rows in `order` until `share` of the time is up. Returns the rows done, sorted, and their embeddings (n, d).

    Cells found in the trial's memo cost nothing: a trial that fits several times embeds each text once.
    """
    memo = budget.memo
    stop = -math.inf if math.isinf(budget.seconds) else budget.left() * (1 - share)
    parts: list[np.ndarray] = []
    done = 0
    slowest = 0.0
    while done < len(order) and (done == 0 or budget.left() - slowest > stop):
        start = time.monotonic()
        part = train.take(order[done : done + CHUNK_ROWS])
        sides = []
        for encoder, names in sources:
            cells = [cell or "" for name in names for cell in part.frame[name].to_list()]
            missing = list(dict.fromkeys(cell for cell in cells if (encoder.digest, cell) not in memo))
            memo.update(zip(((encoder.digest, cell) for cell in missing), encoder.encode(missing), strict=True) if missing else ())
            sides += list(np.stack([memo[encoder.digest, cell] for cell in cells]).reshape(len(names), len(part), -1))
        parts.append(np.concatenate(sides, axis=1))
        done += len(part)
        slowest = max(slowest, time.monotonic() - start)
        budget.say(f"embedded {done:,} of {len(order):,} rows")
    rows = order[:done]
    back = np.argsort(rows)
    return rows[back], np.concatenate(parts)[back]


def spread(n: int, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """All rows in a random order of which every beginning keeps the shares of the strata."""
    shuffled = rng.permutation(n)
    if strata is None:
        return shuffled
    by_stratum = shuffled[np.argsort(strata[shuffled], kind="stable")]
    sizes = np.bincount(strata)
    first = np.cumsum(sizes) - sizes
    place = np.arange(n) - first[strata[by_stratum]]
    return by_stratum[np.argsort((place + rng.random(n)) / sizes[strata[by_stratum]], kind="stable")]
