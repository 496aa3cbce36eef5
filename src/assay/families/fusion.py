"""Fusion: texts read by frozen sentence encoders, numbers, categories and times by trees and a network, one answer from all."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural.columns import Columns, Inputs
from assay.neural.encoders import folder_encoder, folder_refuses
from assay.neural.frozen import PROBE_ROWS, Sources, embed, embedded, pace, spread
from assay.neural.fusion import FOLDS, TABLE, CrossLine, Directions, folds_of, opened, readers, table_only
from assay.neural.head import Aim
from assay.neural.members import (
    LEAST_TREE_ROWS,
    MEMBERS,
    MOST_TREE_CLASSES,
    Lesson,
    Member,
    NetworkMember,
    TextMember,
    TreesMember,
    Views,
    weights_of,
)
from assay.neural.solver import Linear
from assay.words import Text, say

EMBED_SHARE = 0.45  # of the fit's time
LEARN_SHARE = 0.6  # of what is left then: a trial fits twice, and a first fit that takes all its time leaves none to the second
COMPONENTS = 32
GRAMS = 50_000
TORCH_S = 8.0  # a network that would have less time than it takes to load torch twice is left out


class Fusion(Model):
    """params: `folder`, an encoder of the user's own for all texts; `components`, directions of the embedding for trees and network."""

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.aim = Aim.of(task)
        self.table = TableEncoder(self.schema, TABLE)
        self.words = TextEncoder(self.schema, most=GRAMS)
        self.columns: Columns | None = None
        self.lines = (CrossLine(), CrossLine())  # on embeddings, on n-grams
        self.main = Directions(np.zeros(0), np.zeros((0, 0)))
        self.members: list[tuple[float, Member]] = []
        self.sources: Sources = []

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Fusion:
        own = self.params.get("folder")
        self.names = {"folder": [c.name for c in self.schema.of_kind("text")]} if own else readers(self.schema) or {}
        self.sources = [(folder_encoder(Path(own), budget.threads), self.names["folder"])] if own else opened(self.names, budget.threads)
        taught, embedding = self._read(train, seed, budget)
        truth, strata = self.task.truth(taught), self.task.strata(taught)
        rest, held = holdout(taught, share=0.2, seed=seed, strata=strata)
        started, left = time.monotonic(), max(budget.left() * LEARN_SHARE, 0.5)

        def until(share: float) -> float:
            return started + left * share

        budget.say(f"embedded {len(taught):,} rows; lines")
        self.table.fit(taught.frame)
        grams = self.words.fit_transform(taught.frame)
        folds = folds_of(taught, min(FOLDS, len(taught) // 2), seed=seed, strata=strata)
        most = min(200, budget.passes or 200)
        scores = [line.fit(x, truth, folds, self.aim, deadline=until(share), most_steps=most)
                  for line, x, share in zip(self.lines, (embedding, grams), (0.15, 0.3), strict=True)]
        self.main = Directions.learn(embedding, self.params.get("components", COMPONENTS))
        names = self.table.names
        views = Views(np.concatenate(scores, axis=1), self.main.of(embedding), self.table.dense(taught.frame), self.table.codes(taught.frame),
                      grams)
        lesson = Lesson(views, truth, rest, held, [names.index(c) for c in self.table.categories], seed, budget.threads, math.inf, budget.passes)
        members = self._line_up(taught, views, budget)
        if any(isinstance(m, NetworkMember) for m in members):
            self.columns = Columns.learn(table_only(taught))
            lesson = replace(lesson, views=replace(views, inputs=self.columns.read(table_only(taught))), embedded=tuple(self.columns.sizes["embedded"]))
        answers = []
        for i, member in enumerate(members):
            budget.say(f"{member.name} ({i + 1} of {len(members)})")
            member.fit(replace(lesson, deadline=until(0.3 + 0.45 * (i + 1) / len(members))))
            answers.append(member.answer(lesson.views.take(held)))
        weights = weights_of(answers, truth[held], self.aim, seed)
        self.members = [(float(w), m) for w, m in zip(weights, members, strict=True) if w]
        whole = [m.again(replace(lesson, deadline=until(1.0))) for _, m in self.members]
        if not any(isinstance(m, NetworkMember) for _, m in self.members):
            self.columns = None
        if not any(m.reads_text for _, m in self.members):
            self.sources, self.names = [], {}  # the text adds nothing: no answer has to wait for an encoder
        losses = {m.name: float(self.aim.losses(truth[held], a).mean()) for m, a in zip(members, answers, strict=True)}
        fused = float(self.aim.losses(truth[held], sum(w * a for w, a in zip(weights, answers, strict=True))).mean())
        self.facts |= {"encoders": {e.name: columns for e, columns in self.sources}, "weights": {m.name: round(w, 3) for w, m in self.members},
                       "held_loss": {k: round(v, 6) for k, v in losses.items()} | {"all": round(fused, 6)},
                       "again_on_all_rows": [m.name for (_, m), again in zip(self.members, whole, strict=True) if again]}
        return self

    def _read(self, train: Dataset, seed: int, budget: Budget) -> tuple[Dataset, np.ndarray]:
        """The rows that could be embedded in the time there is, and their embeddings."""
        strata = self.task.strata(train)
        order = spread(len(train), strata, np.random.default_rng(seed))
        width = sum(e.dimension * len(names) for e, names in self.sources)
        order = order[: max(200, int(budget.memory_mb * 0.3e6 / (4 * width)))]
        rows_per_s = math.inf
        if math.isfinite(budget.seconds):
            rows_per_s = pace(self.sources, train.take(order[:PROBE_ROWS]))
            self.facts["rows_per_s"] = round(rows_per_s, 1)
        if budget.predict_rows > rows_per_s * budget.predict_seconds:
            raise TooSlow(say(
                "{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s",
                rows=budget.predict_rows, rows_per_s=round(rows_per_s, 1), needed=round(budget.predict_rows / rows_per_s, 1),
                there=round(budget.predict_seconds, 1),
            ))
        rows, embedding = embed(self.sources, train, order, budget, share=EMBED_SHARE)
        if len(rows) < min(len(train), max(40, 3 * len(np.unique(self.task.truth(train))))):
            raise TooSlow(say(
                "only {done} of {rows} training rows could be embedded in the time there was ({rows_per_s} rows a second)",
                done=len(rows), rows=len(train), rows_per_s=round(rows_per_s, 1),
            ))
        if len(rows) < len(train):
            self.facts["rows_used"] = len(rows)
        return train.take(rows), embedding

    def _line_up(self, taught: Dataset, views: Views, budget: Budget) -> list[Member]:
        """The members that these rows and this time allow."""
        out: list[Member] = []
        for kind in MEMBERS:
            few = issubclass(kind, TreesMember) and (len(taught) < LEAST_TREE_ROWS or self.aim.classes > MOST_TREE_CLASSES)
            bare = not views.codes.shape[1] and kind not in (TextMember, TreesMember)
            late = kind is NetworkMember and not _torch_in_time(budget)
            if not (few or bare or late):
                out.append(kind(self.aim))
        return out

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        frame = asked.frame
        text = (embedded(self.sources, frame), self.words.transform(frame)) if self.sources else None
        return self._fused(text, self.table.dense(frame), self.table.codes(frame), self.columns.read(table_only(asked)) if self.columns else None)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        inputs = self.columns.read_row(row) if self.columns else None
        if self.columns and inputs is None:
            return super().predict_row(row)
        text = None
        if self.sources:
            cells = [encoder.encode([row.get(name) for name in names]).reshape(1, -1) for encoder, names in self.sources]
            text = np.concatenate(cells, axis=1), self.words.transform_row(row)
        return self._fused(text, self.table.dense_row(row), self.table.codes_row(row), inputs)

    def _fused(self, text: tuple[np.ndarray, Any] | None, dense: np.ndarray, codes: np.ndarray, inputs: Inputs | None) -> np.ndarray:
        """text: (embeddings, n-grams), None if no member reads it."""
        nothing = np.zeros((len(dense), 0))
        scores = nothing if text is None else np.concatenate([line.scores(x) for line, x in zip(self.lines, text, strict=True)], axis=1)
        views = Views(scores, nothing if text is None else self.main.of(text[0]), dense, codes, None if text is None else text[1], inputs)
        return sum((weight * member.answer(views) for weight, member in self.members), np.zeros((len(dense), self.task.width)))

    def dump(self, folder: Path) -> None:
        """fusion.json, fusion.safetensors, one or two files a member, and every encoder's files in a folder of its name."""
        from safetensors.numpy import save_file

        arrays = {"centre": self.main.centre, "vectors": self.main.vectors, **self.words.arrays()}
        for name, cross in zip(("sentence", "words"), self.lines, strict=True):
            assert cross.line is not None
            arrays |= {f"{name}.weights": cross.line.weights, f"{name}.intercept": cross.line.intercept}
        packed: dict[str, Any] = {"table": self.table.json(), "words": self.words.json(), "names": self.names, "facts": self.facts,
                                  "digests": [e.digest for e, _ in self.sources], "threads": max((e.threads for e, _ in self.sources), default=1), "columns": None,
                                  "called": [e.name for e, _ in self.sources], "members": [[w, m.name] for w, m in self.members]}
        if self.columns:
            packed["columns"], found = self.columns.dump()
            arrays |= found
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "fusion.safetensors")
        (folder / "fusion.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")
        for _, member in self.members:
            member.dump(folder)
        for name, (encoder, _) in zip(self.names, self.sources, strict=True):
            encoder.copy_to(folder / name)

    def load(self, folder: Path) -> Fusion:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "fusion.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "fusion.safetensors")
        self.names, self.facts = packed["names"], packed["facts"]
        self.sources = opened(self.names, min(packed["threads"], len(os.sched_getaffinity(0))), folder)
        for (encoder, _), digest, called in zip(self.sources, packed["digests"], packed["called"], strict=True):
            encoder.check(digest)
            encoder.name = called
        self.table, self.words = TableEncoder.of(packed["table"]), TextEncoder.of(packed["words"], arrays)
        self.columns = Columns.of(packed["columns"], arrays) if packed["columns"] else None
        sentence, words = (CrossLine(Linear(arrays[f"{name}.weights"], arrays[f"{name}.intercept"])) for name in ("sentence", "words"))
        self.lines, self.main = (sentence, words), Directions(arrays["centre"], arrays["vectors"])
        kinds = {kind.name: kind for kind in MEMBERS}
        self.members = [(weight, kinds[name](self.aim).load(folder)) for weight, name in packed["members"]]
        return self


def _torch_in_time(budget: Budget) -> bool:
    loaded = "torch" in sys.modules
    return (loaded or importlib.util.find_spec("torch") is not None) and budget.left() > (2.0 if loaded else TORCH_S)


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    if not schema.of_kind(*TABLE):
        return say("it fuses texts with numbers, categories or times, and here there are texts only")
    if case.encoder and folder_refuses(Path(case.encoder)) is None:
        return {"folder": str(Path(case.encoder).resolve())}
    return {} if readers(schema) is not None else say("it needs: pip install 'assay[{extra}]'", extra="encoders")


candidate = Candidate(
    name="fusion", rung="pretrained", tasks=("classify", "regress"), build=Fusion, requires=("text",), prepare=prepare, share=10.0, at_least_s=5.0,
    source="late fusion (Snoek et al. 2005) of sentence encoders, LightGBM and TabM; stacked generalisation (Wolpert 1992), "
    "ensemble selection (Caruana et al. 2004)",
    licence="that of the encoders; MIT, assay's own code", version="1",
)
