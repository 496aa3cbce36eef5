"""A contestant made of hand-made features and a head: what to read in the time there is, fit, predict, dump, load."""

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
from assay.neural.feature_head import FeatureHead, parts_of
from assay.neural.frozen import spread
from assay.neural.head import Aim
from assay.words import say

PILOT_ROWS = 24
CHUNK_ROWS = 256
READ_SHARE = 0.5  # of the fit's time
HEAD_SHARE = 0.85  # of what is left then; the rest is for what cannot be stopped half-way
MEMO_SHARE = 0.15  # of the memory, for features that the trial's next fit need not make again
ROWS_SHARE = 0.12  # of the memory, for the features of this fit; the head makes up to four copies


class Described:
    """Mix in before `families.base.Model`; the family says how a cell becomes numbers, and which exception means "too slow".

    `config` (JSON) and `state` (arrays) are all that `read` needs beside the cells: `settle` makes them from training rows.
    """

    kinds: ClassVar[tuple[str, ...]]
    trees: ClassVar[bool] = True
    too_slow: ClassVar[type[Exception]]
    task: Any
    schema: Schema
    params: dict[str, Any]
    facts: dict[str, Any]
    config: dict[str, Any]
    state: dict[str, np.ndarray]
    table: TableEncoder
    head: FeatureHead
    cache: Path | None = None
    threads: int = 1

    @abstractmethod
    def settle(self, train: Dataset, *, seed: int, budget: Any) -> None:
        """Set `config` and `state` from the training rows."""

    @abstractmethod
    def read(self, name: str, cells: pl.Series) -> np.ndarray:
        """float32 (n, features) of the cells of the column `name`; a null is a cell like any other."""

    def cheaper(self, times: float) -> bool:
        """Make `read` quicker, by about `times` if that can be; False if it cannot be made any quicker."""
        return False

    def narrower(self) -> bool:
        """Make `read` say fewer numbers; False if it cannot."""
        return False

    def settled(self) -> None:
        """Forget what only `settle` and `cheaper` needed."""

    def importance(self) -> np.ndarray | None:
        """(features,) of all columns, under the line's penalty; None for equal ones."""
        return None

    @property
    def media_columns(self) -> list[str]:
        return [c.name for c in self.schema.of_kind(*self.kinds)]

    def fit(self, train: Dataset, *, seed: int, budget: Any) -> Any:
        """Raises `too_slow` if the test rows cannot be read in their time, or too few training rows in this one's.

        Without a clock (infinite seconds) nothing is timed and every row is read.
        """
        self.threads, self.cache = max(1, budget.threads), budget.cache
        clocked = math.isfinite(budget.seconds)
        order = spread(len(train), self.task.strata(train), np.random.default_rng(seed))
        key = (type(self).__name__, json.dumps(self.params, sort_keys=True, default=str))
        kept: dict[str, dict[int, np.ndarray]] = {name: {} for name in self.media_columns}
        known = budget.memo.get(key)
        if known is None:
            self.settle(train, seed=seed, budget=budget)
            pilot = train.take(np.sort(order[:PILOT_ROWS]))
            while 4 * len(train) * self._read(pilot.frame[:2]).shape[1] > ROWS_SHARE * budget.memory_mb * 1e6 and self.narrower():
                pass
            if clocked:
                self._fit_in(pilot, len(train), budget)
            self.settled()
            budget.memo[key] = (self.config, self.state, kept)
        else:  # an earlier fit of this trial has settled on something from rows of the same kind, and has read most of them
            self.config, self.state, kept = known
        rows, x, in_time = self._read_all(train, order, budget, kept)
        if len(rows) < min(len(train), max(20, 2 * self.task.width)):
            raise self.too_slow(say("only {done} of {rows} training rows could be read in the time there was", done=len(rows), rows=len(train)))
        if len(rows) < len(train):
            self.facts |= {"rows_used": len(rows)} | ({} if in_time else {"short_of_time": True})
        taught = train.take(rows)
        self.table = TableEncoder(self.schema).fit(taught.frame)
        budget.say(f"read {len(rows):,} rows, {x.shape[1]:,} features each; fitting the head")
        self.head = FeatureHead(Aim.of(self.task)).fit(
            x, self.table.dense(taught.frame), self.table.codes(taught.frame), self.task.truth(taught), parts_of(taught, self.task.strata(taught), seed),
            categories=len(self.table.categories), seed=seed, seconds=max(1.0, HEAD_SHARE * budget.left()) if clocked else math.inf, threads=budget.threads,
            passes=budget.passes, importance=self.importance(), trees=self.trees, note=budget.say)
        self.facts |= self.head.facts | {"read_as": self.config}
        return self

    def _fit_in(self, pilot: Dataset, rows: int, budget: Any) -> None:
        """Make reading cheaper until training and test rows fit into their times, as far as it goes. The pilot that is timed has been
        touched before: imports are no cost of a row."""
        while True:
            begun = time.monotonic()
            self._read(pilot.frame)
            row_s = (time.monotonic() - begun) / max(len(pilot), 1)
            over = max(row_s * rows / max(READ_SHARE * budget.left(), 1e-3), row_s * budget.predict_rows / max(budget.predict_seconds, 1e-3))
            if over <= 1 or not self.cheaper(over):
                break
        if budget.predict_rows * row_s > budget.predict_seconds:
            raise self.too_slow(say("{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s", rows=budget.predict_rows,
                                    rows_per_s=round(1 / row_s, 1), needed=round(budget.predict_rows * row_s, 1), there=round(budget.predict_seconds, 1)))

    def _read_all(self, train: Dataset, order: np.ndarray, budget: Any, kept: dict[str, dict[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, bool]:
        """(rows, their features, whether the time was enough): rows in `order` until their share of the time and of the memory is used, sorted."""
        stop = budget.left() * (1 - READ_SHARE) if math.isfinite(budget.seconds) else -math.inf
        first = self._remembered(train.frame[order[:PILOT_ROWS]], kept, math.inf)
        done, slowest = len(first), 0.0
        most = min(len(order), max(200, int(ROWS_SHARE * budget.memory_mb * 1e6 / (4 * first.shape[1]))))
        whole = np.empty((most, first.shape[1]), dtype=np.float32)
        whole[:done] = first[:most]
        while done < most and budget.left() - slowest > stop:
            begun = time.monotonic()
            rows = order[done : min(most, done + CHUNK_ROWS)]
            whole[done : done + len(rows)] = self._remembered(train.frame[rows], kept, MEMO_SHARE * budget.memory_mb * 1e6)
            done += len(rows)
            slowest = max(slowest, time.monotonic() - begun)
            budget.say(f"read {done:,} of {len(order):,} rows")
        back = np.argsort(order[:done])
        return order[:done][back], whole[back], done == most

    def _remembered(self, frame: pl.DataFrame, kept: dict[str, dict[int, np.ndarray]], most_bytes: float) -> np.ndarray:
        sides = []
        for name in self.media_columns:
            own, keys = kept[name], frame[name].hash(seed=0).to_list()
            new = [i for i, cell in enumerate(keys) if cell not in own]
            fresh = self._cells(name, frame[name][new]) if new else np.zeros((0, 0), dtype=np.float32)
            place = {keys[i]: row for i, row in zip(new, fresh, strict=True)}
            sides.append(np.stack([own[cell] if cell in own else place[cell] for cell in keys]))
            if sum(len(one) for one in kept.values()) * sides[-1].shape[1] * 4 < most_bytes:
                own.update(place)
        return np.concatenate(sides, axis=1)

    def _cells(self, name: str, cells: pl.Series) -> np.ndarray:
        """What `read` says, and in the last column whether there was a cell at all."""
        return np.concatenate([self.read(name, cells), cells.is_null().to_numpy().astype(np.float32)[:, None]], axis=1)

    def _read(self, frame: pl.DataFrame) -> np.ndarray:
        return np.concatenate([self._cells(name, frame[name]) for name in self.media_columns], axis=1)

    def predict(self, asked: Dataset) -> np.ndarray:
        parts = [np.zeros((0, self.task.width))]
        for first in range(0, len(asked), CHUNK_ROWS):
            frame = asked.frame[first : first + CHUNK_ROWS]
            parts.append(self.head.predict(self._read(frame), self.table.dense(frame), self.table.codes(frame)))
        return np.concatenate(parts)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        x = [self._cells(name, pl.Series(name, [row.get(name)], dtype=pl.Binary)) for name in self.media_columns]
        return self.head.predict(np.concatenate(x, axis=1), self.table.dense_row(row), self.table.codes_row(row))

    def dump(self, folder: Path) -> None:
        """features.json, features.safetensors and the head's files."""
        from safetensors.numpy import save_file

        self.head.dump(folder)
        save_file({name: np.ascontiguousarray(value) for name, value in self.state.items()}, folder / "features.safetensors")
        packed = {"format": 1, "config": self.config, "table": self.table.json()}
        (folder / "features.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Any:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self.config, self.state, self.table = packed["config"], load_file(folder / "features.safetensors"), TableEncoder.of(packed["table"])
        self.head = FeatureHead.load(folder)
        self.cache, self.threads = None, min(2, len(os.sched_getaffinity(0)))
        return self
