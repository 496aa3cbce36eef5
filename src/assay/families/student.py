"""Student: a small model taught by the best large one. The large model may pay as a teacher, even where it is too dear to answer."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
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

ASK_SHARE = 0.45  # of the time, for the teacher's answers
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


class Student(Model):
    """params: teacher = {family, params, folder, name}: a finished model of this task, as `dump` left it in `folder`.

    The teacher has learnt these very rows, so its answers on them are surer than it should be. Three things stand
    against that: how much of a target is the teacher's, and at which temperature, is chosen on held-out rows by their
    true answers; the teacher also answers made-up rows, which it has not learnt; and a pupil without a teacher is one of
    the choices, so that a teacher that has nothing to say is not followed.
    """

    def __init__(self, task: Any, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.aim = Aim.of(task)
        self.kind = ""
        self.pupil: Pupil = LinePupil(self.aim)
        self.reading = self._reader("line")

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Student:
        if "teacher" not in self.params:
            raise TooSlow(say("it has no teacher"))
        truth, strata = self.task.truth(train), self.task.strata(train)
        self.teacher = self._teacher()
        answered, answers, extra, extra_answers = self._lectures(train, seed, budget)
        if len(answered) < len(train):
            self.facts["answered_rows"] = len(answered)
        rest, held = holdout(train, share=0.2, seed=seed, strata=strata)
        said = np.full((len(train), self.task.width), np.nan)
        said[answered] = answers
        kinds = [k for k in ("trees", "line") if self._fits(k)]
        options: list[tuple[float, str, Recipe, Reading, Pupil]] = []
        alone: dict[str, float] = {}
        begun, left = time.monotonic(), budget.left() * 0.6
        recipes = [ALONE, *(r for r in RECIPES if not r.made_up or len(extra))]
        if not self.aim.classes:
            recipes = [r for r in recipes if r.temperature == 1.0]
        total = len(kinds) * len(recipes)
        for number, (kind, recipe) in enumerate((k, r) for r in recipes for k in kinds):
            if number >= len(kinds) and time.monotonic() > begun + left:
                break
            reader = self._reader(kind)
            x = reader.learn(train.take(rest))
            extra_x = reader.of(extra) if recipe.made_up else None
            lesson = self._lesson(x, truth[rest], said[rest], recipe, extra_x, extra_answers)
            pupil = self._pupil(kind, reader)
            until = begun + left * (number + 1) / total if math.isfinite(left) else math.inf
            loss = pupil.fit(lesson, (reader.of(train.take(held)), truth[held]), seed=seed, threads=budget.threads, deadline=until, passes=budget.passes)
            budget.say(f"{kind} {recipe.json()}: held-out loss {loss:.4f}")
            options.append((loss, kind, recipe, reader, pupil))
            if recipe == ALONE:
                alone[kind] = round(loss, 6)
        loss, self.kind, recipe, _, self.pupil = min(options, key=lambda o: o[0])
        self.reading = self._reader(self.kind)
        x = self.reading.learn(train)
        lesson = self._lesson(x, truth, said, recipe, self.reading.of(extra) if recipe.made_up else None, extra_answers)
        self.pupil.again(lesson, seed=seed, threads=budget.threads, deadline=time.monotonic() + max(budget.left() * 0.95, 0.5), passes=budget.passes)
        self.facts |= {"teacher": self.params["teacher"].get("name", self.params["teacher"]["family"]), "pupil": self.kind, **recipe.json(),
                       "held_loss": {"taught": round(loss, 6), "alone": min(alone.values())}, "made_up_rows": len(extra) if recipe.made_up else 0}
        del self.teacher
        return self

    def _teacher(self) -> Model:
        wanted = self.params["teacher"]
        folder = Path(wanted["folder"])
        if not folder.is_dir():
            raise InputError("The teacher's model is not in '{folder}' any more.", folder=str(folder))
        beside = folder.parent / "calibration.json"
        self.calibration = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        card = get("assay.families", Candidate, wanted["family"])
        return card.build(self.task, self.schema, **wanted.get("params", {})).load(folder)

    def _lectures(self, train: Dataset, seed: int, budget: Budget) -> tuple[np.ndarray, np.ndarray, Dataset, np.ndarray]:
        """(rows answered, their answers, made-up rows, their answers), as far as the time goes. What the trial's memo holds is not asked again."""
        rng = np.random.default_rng(seed)
        order = spread(len(train), self.task.strata(train), rng)
        asked = train.asked()
        most, rows_per_s = len(train), math.inf
        if math.isfinite(budget.seconds):
            probe = asked.take(order[:PROBE_ROWS])
            self._ask(probe.take(np.arange(1)))
            begin = time.monotonic()
            self.teacher.predict(probe)
            rows_per_s = len(probe) / max(time.monotonic() - begin, 1e-6)
            most = int(rows_per_s * budget.left() * ASK_SHARE)
        if most < min(len(train), 100):
            raise TooSlow(say("its teacher answers {rate} rows a second, too few to learn from", rate=round(rows_per_s, 1)))
        answered = np.sort(order[:most])
        budget.say(f"the teacher answers {len(answered):,} rows")
        answers = self._known(asked.take(answered), budget.memo)
        room = min(MOST_MADE_UP, COPIES * len(train))
        if math.isfinite(budget.seconds):
            room = min(room, int(rows_per_s * max(0.0, budget.left() - (1 - ASK_SHARE) * budget.seconds)))
        if room < 0.5 * len(train):
            return answered, answers, asked.take(np.arange(0)), np.zeros((0, self.task.width))
        table = TableEncoder(self.schema).fit(train.frame)
        extra = made_up(train, table.dense(train.frame), math.ceil(room / len(train)), seed=seed)
        extra = extra.take(np.arange(min(room, len(extra))))
        budget.say(f"the teacher answers {len(extra):,} made-up rows")
        return answered, answers, extra, self._ask(extra)

    def _known(self, asked: Dataset, memo: dict[Any, Any]) -> np.ndarray:
        keys = [("teacher", self.params["teacher"]["folder"], h) for h in asked.frame.hash_rows(seed=0).to_list()]
        new = np.array([i for i, key in enumerate(keys) if key not in memo], dtype=np.int64)
        if len(new):
            memo.update(zip([keys[i] for i in new], self._ask(asked.take(new)), strict=True))
        return np.stack([memo[key] for key in keys])

    def _ask(self, asked: Dataset) -> np.ndarray:
        """The teacher's answers, corrected by what its own held-out rows taught the contest about them, float64 (n, width)."""
        said = np.asarray(self.teacher.predict(asked), dtype=np.float64)
        return self.task.calibrated(said, self.calibration)[:, : self.task.width]  # amounts come with an interval beside them

    def _lesson(self, x: Any, truth: np.ndarray, said: np.ndarray, recipe: Recipe, extra_x: Any, extra: np.ndarray) -> Lesson:
        """Rows that the teacher did not answer teach their truth; made-up rows, which have no truth, the teacher's answer alone."""
        own = targets(truth, np.zeros_like(said), self.aim, 0.0, 1.0)
        target = np.where(np.isnan(said), own, targets(truth, np.where(np.isnan(said), own, said), self.aim, recipe.share, recipe.temperature))
        if extra_x is None:
            return Lesson(x, target, np.ones(len(target)))
        taught = targets(np.zeros(len(extra), dtype=np.int64 if self.aim.classes else np.float64), extra, self.aim, 1.0, recipe.temperature)
        weight = np.concatenate([np.ones(len(target)), np.full(len(taught), min(1.0, len(target) / len(taught)))])
        if hasattr(x, "indptr"):
            from scipy.sparse import vstack

            return Lesson(vstack([x, extra_x], format="csr"), np.concatenate([target, taught]), weight)
        return Lesson(np.concatenate([x, extra_x]), np.concatenate([target, taught]), weight)

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
