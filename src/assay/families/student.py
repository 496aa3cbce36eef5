"""Student: a small model taught by the best large one. The large model may pay as a teacher, even where it is too dear to answer."""

from __future__ import annotations

import json
import math
import time
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.split import holdout
from assay.errors import InputError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural.distil import Lesson, LinePupil, Pupil, TreesPupil, made_up, targets
from assay.neural.frozen import spread
from assay.neural.head import Aim
from assay.registry import get
from assay.words import Text, say

YOUNG_SHARE = 0.45  # of the time, for a teacher that has not seen the held-out rows
COPIES = 3  # made-up rows a row
MOST_MADE_UP = 20_000
PROBE_ROWS = 64
GRAMS = {"line": 100_000, "trees": 1000}


@dataclass(frozen=True)
class Recipe:
    """share: of the target, the teacher's (0-1). temperature of its probabilities. copies: with made-up rows."""

    share: float
    temperature: float = 1.0
    made_up: bool = False

    def json(self) -> dict[str, Any]:
        return {"teacher_share": self.share, "temperature": self.temperature, "made_up": self.made_up}


ALONE = Recipe(0.0)
RECIPES = (Recipe(0.5), Recipe(0.9), Recipe(0.5, 2.0), Recipe(0.5, made_up=True), Recipe(0.9, made_up=True))
# 0.9, not 1: a quantile of the teacher's amounts is no quantile of the truth


class Reading:
    """Rows -> the matrix of one pupil: dense table and n-grams for a line, codes and the commonest n-grams for trees."""

    def __init__(self, kind: str, table: TableEncoder, text: TextEncoder) -> None:
        self.kind, self.table, self.text = kind, table, text

    def learn(self, data: Dataset) -> Any:
        self.table.fit(data.frame)
        return self._joined(self._table(data), self.text.fit_transform(data.frame) if self.text.columns else None)

    def of(self, data: Dataset) -> Any:
        return self._joined(self._table(data), self.text.transform(data.frame) if self.text.columns else None)

    def row(self, row: dict[str, Any]) -> Any:
        table = self.table.dense_row(row) if self.kind == "line" else self.table.codes_row(row)
        return self._joined(table, self.text.transform_row(row) if self.text.columns else None)

    def _table(self, data: Dataset) -> np.ndarray:
        return self.table.dense(data.frame) if self.kind == "line" else self.table.codes(data.frame)

    @staticmethod
    def _joined(table: np.ndarray, grams: Any) -> Any:
        if grams is None:
            return table
        from scipy.sparse import csr_matrix, hstack

        return hstack([csr_matrix(table.astype(np.float32)), grams], format="csr") if table.shape[1] else grams


@dataclass(frozen=True)
class Teacher:
    """A large model, and what held-out rows have taught about its probabilities or amounts."""

    task: Any
    model: Model
    calibration: dict[str, Any]

    def answers(self, asked: Dataset) -> np.ndarray:
        """float64 (n, task.width); a calibrated amount has its interval beside it, which is not taught."""
        said = np.asarray(self.model.predict(asked), dtype=np.float64)
        return self.task.calibrated(said, self.calibration)[:, : self.task.width]


@dataclass(frozen=True)
class Lecture:
    """own: the teacher's answers on training rows (n, width), NaN where there was no time to ask. extra: made-up rows, and what it says of them."""

    own: np.ndarray
    extra: Dataset
    said: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The recipe of least true loss on held-out rows, its pupil, and the least loss of the same pupils without a teacher."""

    kind: str
    recipe: Recipe
    pupil: Pupil
    loss: float
    alone: float


class Student(Model):
    """params: teacher = {family, params, folder, name, train_rows}: a finished model of this task, as `dump` left it in `folder`,
    and the number of rows that it has learnt from.

    A teacher gives away the answers of the rows it has learnt from: taught by a network that had seen the held-out rows, a
    student seemed to lose 0.195 where it lost 0.240 on new ones. So whatever is chosen or validated on held-out rows is
    taught by a young teacher, of the same kind but fitted here on the other rows only. The finished one teaches where it has
    seen nothing that its student has not. Made-up rows carry what the labels do not say, and a pupil without a teacher is
    always among the choices, so that a teacher with nothing to say is not followed.
    """

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.aim = Aim.of(task)
        self.kind = "line"
        self.pupil: Pupil = LinePupil(self.aim)
        self.reading = self._reader("line")

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Student:
        if "teacher" not in self.params:
            raise TooSlow(say("it has no teacher"))
        wanted, memo, truth = self.params["teacher"], budget.memo, self.task.truth(train)
        if not Path(wanted["folder"]).is_dir():
            raise InputError("The teacher's model is not in '{folder}' any more.", folder=wanted["folder"])
        finished = len(train) >= wanted.get("train_rows", math.inf)
        lecture = None
        if "choice" not in memo:
            rest, held = holdout(train, share=0.2, seed=seed, strata=self.task.strata(train))
            young = memo["young"] = self._young(train, rest, held, seed, budget)
            heard = self._lecture(young, train.take(rest), seed, budget, until=0.35)
            memo["choice"] = self._choose(train, truth, rest, held, heard, seed, budget)
            if not finished:
                own = np.empty((len(train), self.task.width))
                own[rest], own[held] = heard.own, young.answers(train.take(held).asked())
                lecture = Lecture(own, heard.extra, heard.said)
        if lecture is None:
            lecture = self._lecture(self._finished() if finished else memo["young"], train, seed, budget, until=0.3)
        choice: Choice = memo["choice"]
        self.kind, self.reading, self.pupil = choice.kind, self._reader(choice.kind), copy(choice.pupil)
        lesson = self._lesson(self.reading, self.reading.learn(train), truth, lecture, choice.recipe)
        self.pupil.again(lesson, seed=seed, threads=budget.threads, deadline=time.monotonic() + max(budget.left() * 0.95, 0.5), passes=budget.passes)
        asked = int((~np.isnan(lecture.own[:, 0])).sum())
        self.facts |= {"teacher": wanted.get("name", wanted["family"]), "pupil": self.kind, **choice.recipe.json(), "answered_rows": asked,
                       "made_up_rows": len(lecture.extra) if choice.recipe.made_up else 0, "taught_by": "finished" if finished else "young",
                       "held_loss": {"taught": round(choice.loss, 6), "alone": round(choice.alone, 6)}}
        return self

    def _card(self) -> Candidate:
        return get("assay.families", Candidate, self.params["teacher"]["family"])

    def _finished(self) -> Teacher:
        wanted = self.params["teacher"]
        folder = Path(wanted["folder"])
        beside = folder.parent / "calibration.json"
        calibration = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        return Teacher(self.task, self._card().build(self.task, self.schema, **wanted.get("params", {})).load(folder), calibration)

    def _young(self, train: Dataset, rest: np.ndarray, held: np.ndarray, seed: int, budget: Budget) -> Teacher:
        """A teacher that has not seen the rows `held`, calibrated on them."""
        budget.say(f"a teacher that has not seen the held-out rows learns {len(rest):,} rows")
        model = self._card().build(self.task, train.schema, **self.params["teacher"].get("params", {}))
        model.fit(train.take(rest), seed=seed, budget=replace(budget, seconds=YOUNG_SHARE * budget.left(), started=time.monotonic(), predict_rows=0))
        held_out = train.take(held)
        return Teacher(self.task, model, self.task.calibration(self.task.truth(held_out), model.predict(held_out.asked())))

    def _lecture(self, teacher: Teacher, data: Dataset, seed: int, budget: Budget, *, until: float) -> Lecture:
        """What the teacher says of these rows and of made-up ones, as far as it comes in this share of the time that is left."""
        order = spread(len(data), self.task.strata(data), np.random.default_rng(seed))
        asked, most, rows_per_s, end = data.asked(), len(data), math.inf, math.inf
        if math.isfinite(budget.seconds):
            probe, begin = asked.take(order[:PROBE_ROWS]), time.monotonic()
            end = begin + until * budget.left()
            teacher.answers(probe.take(np.arange(1)))
            begin = time.monotonic()
            teacher.answers(probe)
            rows_per_s = len(probe) / max(time.monotonic() - begin, 1e-6)
            most = int(rows_per_s * (end - time.monotonic()))
        if most < min(len(data), 100):
            raise TooSlow(say("its teacher answers {rate} rows a second, too few to learn from", rate=round(rows_per_s, 1)))
        some = np.sort(order[:most])
        budget.say(f"the teacher answers {len(some):,} rows")
        own = np.full((len(data), self.task.width), np.nan)
        own[some] = teacher.answers(asked.take(some))
        room = min(MOST_MADE_UP, COPIES * len(data))
        if math.isfinite(end):
            room = min(room, int(rows_per_s * max(0.0, end - time.monotonic())))
        if room < 0.5 * len(data):
            return Lecture(own, asked.take(np.arange(0)), np.zeros((0, self.task.width)))
        dense = TableEncoder(self.schema).fit(data.frame).dense(data.frame)
        extra = made_up(data, dense, math.ceil(room / len(data)), seed=seed)
        extra = extra.take(np.arange(min(room, len(extra))))
        budget.say(f"the teacher answers {len(extra):,} made-up rows")
        return Lecture(own, extra, teacher.answers(extra))

    def _choose(self, train: Dataset, truth: np.ndarray, rest: np.ndarray, held: np.ndarray, heard: Lecture, seed: int, budget: Budget) -> Choice:
        kinds = [kind for kind in ("trees", "line") if self._fits(kind)]
        recipes = [ALONE, *(r for r in RECIPES if (len(heard.extra) or not r.made_up) and (self.aim.classes or r.temperature == 1.0))]
        begun, left = time.monotonic(), budget.left() * 0.6
        readers = {kind: self._reader(kind) for kind in kinds}
        seen = {kind: (reader.learn(train.take(rest)), reader.of(train.take(held))) for kind, reader in readers.items()}
        options: list[tuple[float, str, Recipe, Pupil]] = []
        for number, (recipe, kind) in enumerate((r, k) for r in recipes for k in kinds):
            if number >= len(kinds) and time.monotonic() > begun + left:
                break
            pupil = self._pupil(kind, readers[kind])
            lesson = self._lesson(readers[kind], seen[kind][0], truth[rest], heard, recipe)
            deadline = begun + left * (number + 1) / (len(recipes) * len(kinds))
            loss = pupil.fit(lesson, (seen[kind][1], truth[held]), seed=seed, threads=budget.threads, deadline=deadline, passes=budget.passes)
            budget.say(f"{kind} {recipe.json()}: held-out loss {loss:.4f}")
            options.append((loss, kind, recipe, pupil))
        loss, kind, recipe, pupil = min(options, key=lambda option: option[0])
        return Choice(kind, recipe, pupil, loss, min(option[0] for option in options if option[2] == ALONE))

    def _lesson(self, reader: Reading, x: Any, truth: np.ndarray, heard: Lecture, recipe: Recipe) -> Lesson:
        """Rows that the teacher did not answer teach their truth; made-up rows, which have no truth, the teacher's answer alone."""
        alone = targets(truth, np.zeros_like(heard.own), self.aim, 0.0, 1.0)
        unasked = np.isnan(heard.own)
        target = np.where(unasked, alone, targets(truth, np.where(unasked, alone, heard.own), self.aim, recipe.share, recipe.temperature))
        if not recipe.made_up or not len(heard.extra):
            return Lesson(x, target, np.ones(len(target)))
        nobody = np.zeros(len(heard.said), dtype=np.int64 if self.aim.classes else np.float64)
        taught = targets(nobody, heard.said, self.aim, 1.0, recipe.temperature)
        weight = np.concatenate([np.ones(len(target)), np.full(len(taught), min(1.0, len(target) / len(taught)))])
        both, target = [x, reader.of(heard.extra)], np.concatenate([target, taught])
        if hasattr(x, "indptr"):
            from scipy.sparse import vstack

            return Lesson(vstack(both, format="csr"), target, weight)
        return Lesson(np.concatenate(both), target, weight)

    def _fits(self, kind: str) -> bool:
        return kind == "line" or (self.aim.classes <= TreesPupil.MOST_CLASSES and bool(self.schema.of_kind("number", "category", "time")))

    def _reader(self, kind: str) -> Reading:
        return Reading(kind, TableEncoder(self.schema), TextEncoder(self.schema, most=GRAMS[kind], min_rows=2 if kind == "line" else 5))

    def _pupil(self, kind: str, reader: Reading) -> Pupil:
        names = reader.table.names
        return LinePupil(self.aim) if kind == "line" else TreesPupil(self.aim, [names.index(c) for c in reader.table.categories])

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self.pupil.answer(self.reading.of(asked))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        return self.pupil.answer(self.reading.row(row))

    def dump(self, folder: Path) -> None:
        """student.json, student.safetensors and the pupil's own files; nothing of the teacher."""
        from safetensors.numpy import save_file

        self.pupil.dump(folder)
        save_file({k: np.ascontiguousarray(v) for k, v in self.reading.text.arrays().items()}, folder / "student.safetensors")
        packed = {"kind": self.kind, "table": self.reading.table.json(), "text": self.reading.text.json(), "facts": self.facts}
        (folder / "student.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> Student:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "student.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "student.safetensors")
        self.kind, self.facts = packed["kind"], packed["facts"]
        self.reading = Reading(self.kind, TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays))
        self.pupil = self._pupil(self.kind, self.reading).load(folder)
        return self


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    return say("it learns from a large model that has finished, so it plays after the others")


candidate = Candidate(
    name="student", rung="classical", tasks=("classify", "regress"), build=Student, prepare=prepare, share=6.0, at_least_s=2.0,
    source="distillation (Bucila et al. 2006; Hinton et al. 2015) into a line on n-grams or LightGBM", licence="MIT, assay's own code", version="1",
)
