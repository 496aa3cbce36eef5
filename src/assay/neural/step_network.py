"""What the families of sequence networks share: rows read and held out, a size chosen, taught, exported, and served without torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from assay.data.dataset import Dataset
from assay.neural import fitting, sizes
from assay.neural.export import Session, exported
from assay.neural.fitting import Allowance, Scale
from assay.neural.grounds import Grounds
from assay.neural.patch_rows import Patches
from assay.neural.ragged import Ragged, Reader
from assay.neural.recipe import Recipe
from assay.neural.rows import Aim
from assay.neural.sequence_rows import Signals
from assay.neural.sound_rows import Sounds
from assay.neural.text_rows import Texts

READERS: dict[str, type[Reader]] = {"sequence": Signals, "audio": Sounds, "image": Patches, "text": Texts}
ENOUGH = 20  # passes over the rows that a size must have time for
FEWEST_STEPS, MOST_STEPS, A_ROW = 300, 2000, 10  # of the optimizer: so many, and for each row so many more
FEWEST_EPOCHS, MOST_EPOCHS = 12, 150
FIT_SHARE = 0.8  # of the time; export and its check take a second
READ_SHARE = 0.25  # of the time, for turning cells into arrays
PILOT = 200
ANSWERED = 64  # rows of a batch


class Question(Protocol):
    """What is asked of a `tasks.base.Task`."""

    loss: str

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...

    def truth(self, data: Dataset) -> np.ndarray: ...

    def strata(self, data: Dataset) -> np.ndarray | None: ...


@dataclass
class Lesson:
    """All that is learnt from: what was read of the rows that teach and of those held out, and how answers are scaled."""

    reader: Reader
    taught: Any
    held: Any
    target: np.ndarray
    held_target: np.ndarray
    scale: Scale
    aim: Aim
    left_out: int  # rows that could not be read in time

    @property
    def n(self) -> int:
        return len(self.taught)


def lesson(kinds: tuple[str, ...], task: Question, train: Dataset, *, seed: int, budget: Allowance) -> Lesson:
    """Reads the first of `kinds` that the rows have. Raises InputError for a cell that cannot be decoded."""
    labels, truth = task.name != "regress", task.truth(train)
    rest, held = fitting.parts(train, task.strata(train), seed)
    given = len(rest) + len(held)
    kind = next(k for k in kinds if train.schema.of_kind(k))
    deadline = budget.started + READ_SHARE * budget.seconds
    if math.isfinite(deadline) and len(rest) > 5 * PILOT:
        begun = time.monotonic()
        _read(kind, train.take(rest[:: len(rest) // PILOT]), truth[rest[:: len(rest) // PILOT]], labels, seed, budget)
        affordable = int(PILOT * max(0.0, deadline - time.monotonic()) / max(1e-6, time.monotonic() - begun))
        if affordable < given:
            rng, share = np.random.default_rng(seed), max(5 * PILOT, affordable) / given
            rest, held = (np.sort(rng.permutation(part)[: max(1, round(share * len(part)))]) if share < 1 else part for part in (rest, held))
    reader, taught = _read(kind, train.take(rest), truth[rest], labels, seed, budget)
    scale = Scale.learn(truth[rest], labels=labels)
    target = fitting.softened(scale.target(truth[rest]), task.width, getattr(budget, "memo", {}), rest)
    return Lesson(reader, taught, reader.read(train.take(held), threads=budget.threads, cache=budget.cache), target, scale.target(truth[held]), scale,
                  fitting.aim_of(labels=labels, width=task.width, loss=task.loss, quantile=getattr(task, "quantile", 0.5)), given - len(rest) - len(held))


def _read(kind: str, rows: Dataset, truth: np.ndarray, labels: bool, seed: int, budget: Allowance) -> tuple[Reader, Any]:
    same: dict[str, Any] = {"threads": budget.threads, "cache": budget.cache}
    reader: Reader
    if kind == "sequence":
        reader = Signals.learn(rows, amounts=not labels)
    elif kind == "audio":
        reader = Sounds.learn(rows, **same)
    elif kind == "image":
        reader = Patches.learn(rows, truth, labels=labels, seed=seed, **same)
    else:
        reader = Texts.learn(rows, threads=budget.threads)
    return reader, reader.read(rows, **same)


class Served:
    """A network that answers: its reader, its scale and its ONNX file. Needs numpy and onnxruntime only."""

    def __init__(self, reader: Reader, scale: Scale, onnx: bytes) -> None:
        self.reader, self.scale, self.onnx = reader, scale, onnx
        self._sessions: dict[int, Session] = {}

    def session(self, threads: int) -> Session:
        if threads not in self._sessions:
            self._sessions[threads] = Session(self.onnx, threads)
        return self._sessions[threads]

    def answers(self, asked: Dataset) -> np.ndarray:
        """(n, width): probabilities, or amounts in their own unit."""
        return self._said(self.reader.read(asked), 2)

    def answer_row(self, row: dict[str, Any]) -> np.ndarray:
        return self._said(self.reader.read_row(row), 1)

    def _said(self, read: Any, threads: int) -> np.ndarray:
        n = len(read)
        order = np.argsort(read.lengths, kind="stable") if isinstance(read, Ragged) else np.arange(n)  # rows of like length: little padding
        batch = self.reader.batch(read)
        said = self.session(threads).answers(lambda rows: batch(order[rows]), n, ANSWERED)
        out = np.empty_like(said)
        out[order] = said
        return self.scale.finished(out)

    def dump(self, folder: Path, facts: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "network.onnx").write_bytes(self.onnx)
        packed = {"format": 1, "reader": self.reader.json(), "scale": vars(self.scale), "facts": facts}
        (folder / "network.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> tuple[Served, dict[str, Any]]:
        packed = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        reader = READERS[packed["reader"]["kind"]].of(packed["reader"])
        return cls(reader, Scale(**packed["scale"]), (folder / "network.onnx").read_bytes()), packed["facts"]


class Serves(Grounds):
    """What the models of these families have in common once they have learnt: they answer, are dumped and loaded as their `served` is."""

    task: Any
    served: Served
    facts: dict[str, Any]

    def predict(self, asked: Dataset) -> np.ndarray:
        return self.served.answers(asked) if len(asked) else np.zeros((0, self.task.width))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        return self.served.answer_row(row)

    def dump(self, folder: Path) -> None:
        self.served.dump(folder, self.facts)

    def load(self, folder: Path) -> Any:
        self.served, self.facts = Served.load(folder)
        return self


def learn(
    of: Lesson, build: Callable[[dict[str, Any]], Any], options: list[dict[str, Any]], recipe: Recipe, *, default: int, strength: float, seed: int,
    budget: Allowance, balanced: str = "no",
) -> tuple[Served, dict[str, Any]]:
    """One network. build: (sizes) -> torch module. options: sizes, smallest first; with one only, nothing is chosen. default: without a clock.

    strength: of augmentation, 0-1. balanced: one of `balance.WAYS`.
    """
    import torch

    torch.set_num_threads(max(1, budget.threads))
    taught, held = of.reader.rows(of.taught, of.target, strength), of.reader.rows(of.held, of.held_target, 0.0)
    recipe = enough_epochs(recipe, of.n, text=of.reader.kind == "text")
    chosen = sizes.Chosen(0, 0.0, [])
    begun = fitting.size_begun(options, of.n, budget)
    if begun is not None:
        options = [options[begun]]
    elif len(options) > 1:
        few = np.arange(min(of.n, 2 * recipe.batch))
        some = of.reader.rows(of.taught.take(few) if isinstance(of.taught, Ragged) else of.taught[few], of.target[few], strength)
        room = budget.started + FIT_SHARE * budget.seconds - time.monotonic()
        chosen = sizes.choose(options, build, lambda _: some, of.aim, recipe, n=of.n, seconds=room, default=min(default, len(options) - 1), enough=min(ENOUGH, recipe.epochs))
    own = options[chosen.index]
    torch.manual_seed(seed)
    network = build(own)
    _, facts = fitting.teach(network, taught, held, of.aim, recipe, seed=seed, budget=budget, share=FIT_SHARE, at=fitting.mark(own, of.n),
                             params={"balanced": balanced})
    reader, batch = of.reader, of.reader.batch(of.taught)
    two = batch(np.array([0, of.n - 1]))
    onnx = exported(network, tuple(torch.from_numpy(two[name]) for name in reader.names), reader.names, long=reader.long)
    facts["architecture"] = {k: v for k, v in own.items() if k not in ("outputs", "reads", *(() if own["reads"] == "steps" else ("strides",)))} | {"reason": sizes.reason(chosen, len(options), of.n, least=min(ENOUGH, recipe.epochs), begun=begun is not None).json()}
    facts["input"] = {"kind": reader.kind} | reader.facts()
    if of.left_out:
        facts.setdefault("rows_used", of.n + len(of.held))
        facts["short_of_time"] = True
    return Served(reader, of.scale, onnx), facts


def enough_epochs(recipe: Recipe, n: int, *, text: bool) -> Recipe:
    """300 steps and 10 more for each row, at most 2,000: few rows are seen often, many at least twelve times. Texts get six passes and 200
    steps: with the rate of the others, small networks on 3,000 Chinese and 6,920 English texts were best after two or three passes and learnt
    by heart from then on; with the lower rate and more dropout of their own recipe, five were too few. Few rows also come in smaller
    batches, so that there are steps at all."""
    batch = min(recipe.batch, max(8, 1 << max(0, n // 12).bit_length() - 1))
    if text:
        return replace(recipe, batch=batch, epochs=round(6 + 200 * batch / n))
    steps = min(MOST_STEPS, FEWEST_STEPS + A_ROW * n)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(steps * batch / n)))
    return replace(recipe, batch=batch, epochs=epochs)
