"""The second level of late fusion: lines, trees and networks over the same views, and the weights with which they answer."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.data.trees import Trees
from assay.neural import forward
from assay.neural.columns import Inputs
from assay.neural.fusion import path
from assay.neural.head import Aim, grow, tree_scores
from assay.neural.solver import Linear, softmax

LEAST_TREE_ROWS = 200
MOST_TREE_CLASSES = 20
MOST_ROUNDS = 1500
PICKS, BAGS = 25, 20


@dataclass(frozen=True)
class Views:
    """What is known of n rows. scores: the lines' text scores (n, s). main: directions of the embeddings (n, c).
    dense, codes: the table as `TableEncoder` gives it. grams: n-grams of the texts, CSR. inputs: the table as a network
    reads it, if one is asked."""

    scores: np.ndarray
    main: np.ndarray
    dense: np.ndarray
    codes: np.ndarray
    grams: Any = None
    inputs: Inputs | None = None

    def take(self, rows: np.ndarray) -> Views:
        return Views(self.scores[rows], self.main[rows], self.dense[rows], self.codes[rows], None if self.grams is None else self.grams[rows],
                     None if self.inputs is None else self.inputs.take(rows))


@dataclass(frozen=True)
class Lesson:
    """What a member learns from. rest, held: row numbers; `held` chooses strengths and rounds. deadline: time.monotonic().

    categories: which columns of `codes` are categories. embedded: how many codes each category of `inputs` has.
    """

    views: Views
    truth: np.ndarray
    rest: np.ndarray
    held: np.ndarray
    categories: list[int]
    seed: int
    threads: int
    deadline: float
    passes: int | None = None
    embedded: tuple[int, ...] = ()

    def most(self, default: int) -> int:
        return min(default, self.passes or default)


class Member(ABC):
    """Learns on `rest`, then, if it earns a weight, again on all rows."""

    name: ClassVar[str]
    reads_text: ClassVar[bool] = True
    reads_table: ClassVar[bool] = True

    def __init__(self, aim: Aim) -> None:
        self.aim = aim

    @abstractmethod
    def fit(self, lesson: Lesson) -> None:
        """Learn from `lesson.rest`."""

    @abstractmethod
    def again(self, lesson: Lesson) -> bool:
        """Learn from all rows as `fit` found best. False if there was no time: it stays as it is."""

    @abstractmethod
    def answer(self, views: Views) -> np.ndarray:
        """float64 (n, classes) probabilities, or (n, 1) amounts."""

    @abstractmethod
    def dump(self, folder: Path) -> None: ...

    @abstractmethod
    def load(self, folder: Path) -> Member: ...


class LineMember(Member):
    """A line over text scores and the dense table: additive evidence needs no more, and few rows allow no more."""

    name = "line"

    line: Linear
    strength = shift = 0.0

    def _x(self, views: Views) -> Any:
        scores = views.scores.astype(np.float32)
        return np.concatenate([scores, views.dense], axis=1) if self.reads_table else scores

    def fit(self, lesson: Lesson) -> None:
        x, truth, best = self._x(lesson.views), lesson.truth, np.inf
        level = {"absolute": 0.5, "pinball": self.aim.quantile}.get(self.aim.loss)
        for strength, line in self._lines(x[lesson.rest], truth[lesson.rest], lesson, ()):
            scores = line.scores(x[lesson.held])
            # least squares finds the mean; another loss asks for a quantile of what is left over, on rows it has not seen
            shift = 0.0 if level is None else float(np.quantile(truth[lesson.held] - scores[:, 0], level))
            loss = float(self.aim.losses(truth[lesson.held], softmax(scores) if self.aim.classes else scores + shift).mean())
            if loss < best:
                best, self.strength, self.line, self.shift = loss, strength, line, shift
            if loss > 1.02 * best or time.monotonic() > lesson.deadline:
                break

    def again(self, lesson: Lesson) -> bool:
        _, self.line = next(self._lines(self._x(lesson.views), lesson.truth, lesson, (self.strength,)))
        return True

    def _lines(self, x: Any, truth: np.ndarray, lesson: Lesson, strengths: tuple[float, ...]) -> Iterator[tuple[float, Linear]]:
        return path(x, truth, self.aim, lesson.deadline, lesson.most(200), strengths,
                    lesson.views.dense.shape[1] if self.reads_table else 0)

    def answer(self, views: Views) -> np.ndarray:
        scores = self.line.scores(self._x(views))
        return softmax(scores) if self.aim.classes else scores + self.shift

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {"weights": self.line.weights, "intercept": self.line.intercept, "shift": np.array([self.shift])}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / f"{self.name}.safetensors")

    def load(self, folder: Path) -> LineMember:
        from safetensors.numpy import load_file

        arrays = load_file(folder / f"{self.name}.safetensors")
        self.line, self.shift = Linear(arrays["weights"], arrays["intercept"]), float(arrays["shift"][0])
        return self


class TextMember(LineMember):
    """The text alone: what it says without the table."""

    name = "text"
    reads_table = False


class WordsMember(LineMember):
    """A line over n-grams and the dense table, learnt together: with few rows there is nothing left to learn scores from."""

    name = "words"

    def _x(self, views: Views) -> Any:
        from scipy.sparse import csr_matrix, hstack

        return hstack([csr_matrix(views.dense), views.grams], format="csr")


class TreesMember(Member):
    """Boosted trees over text scores, main directions and the table: rules that join a text with a number."""

    name = "trees"

    def _x(self, views: Views) -> np.ndarray:
        return np.concatenate([views.codes, views.scores, views.main], axis=1) if self.reads_text else views.codes

    def fit(self, lesson: Lesson) -> None:
        x = self._x(lesson.views)
        held = x[lesson.held], lesson.truth[lesson.held]
        self.trees, self.rounds = grow(x[lesson.rest], lesson.truth[lesson.rest], self.aim, held=held, rounds=lesson.most(MOST_ROUNDS), patience=50,
                                       deadline=lesson.deadline, **self._settings(lesson, x.shape[1]))

    def again(self, lesson: Lesson) -> bool:
        x = self._x(lesson.views)
        self.trees, _ = grow(x, lesson.truth, self.aim, rounds=max(1, round(self.rounds * 1.1)), deadline=lesson.deadline,
                             **self._settings(lesson, x.shape[1]))
        return True

    def _settings(self, lesson: Lesson, width: int) -> dict[str, Any]:
        n = len(lesson.truth)  # few leaves: on five tables of 700 to 4,000 rows, 7 lost 2 % less than 31
        return {"categories": lesson.categories, "seed": lesson.seed, "threads": lesson.threads, "learning_rate": 0.03 if n < 20_000 else 0.06,
                "num_leaves": 7 if n < 5000 else 15 if n < 20_000 else 31, "min_data_in_leaf": 5 if n < 500 else 10 if n < 2000 else 20, "bagging_fraction": 0.8,
                "bagging_freq": 1, "lambda_l2": 1.0, "cat_smooth": 20.0, "feature_fraction": 0.6 if width > 4 else 1.0}

    def answer(self, views: Views) -> np.ndarray:
        scores = tree_scores(self.trees, self._x(views), self.aim)
        return softmax(scores) if self.aim.classes else scores

    def dump(self, folder: Path) -> None:
        (folder / f"{self.name}.txt").write_text(self.trees.model_to_string(), encoding="utf-8")

    def load(self, folder: Path) -> TreesMember:
        self.trees = Trees.read(folder / f"{self.name}.txt")
        return self


class TableMember(TreesMember):
    """Boosted trees over the table alone: what it says without the text."""

    name = "table"
    reads_text = False


class NetworkMember(Member):
    """The networks of `neural.tabular` over the table, the text scores and the main directions."""

    name = "network"

    def _inputs(self, views: Views) -> Inputs:
        assert views.inputs is not None
        scores = (views.scores - self.centre) / self.spread
        beside = np.concatenate([views.inputs.dense, scores / np.sqrt(1 + (scores / 3) ** 2), views.main], axis=1)
        return replace(views.inputs, dense=beside.astype(np.float32))

    def _target(self, truth: np.ndarray) -> np.ndarray:
        return truth if self.aim.classes else (truth - self.level) / self.scale

    def fit(self, lesson: Lesson) -> None:
        from assay.neural.tabular_training import Rows, train_all

        known, views = lesson.truth[lesson.rest], lesson.views
        self.level, self.scale, self.low, self.high = 0.0, 1.0, 0.0, 1.0
        if not self.aim.classes:
            self.level, self.scale = float(known.mean()), float(known.std()) or 1.0
            self.low, self.high = float(known.min()), float(known.max())
        self.centre, spread = views.scores.mean(axis=0), views.scores.std(axis=0)
        self.spread = np.where(spread > 1e-9, spread, 1.0)
        inputs, target = self._inputs(views), self._target(lesson.truth)
        sizes = {"numbers": inputs.numbers.shape[1], "dense": inputs.dense.shape[1], "embedded": list(lesson.embedded), "texts": [],
                 "outputs": self.aim.classes or 1, "loss": "log" if self.aim.classes else self.aim.loss, "quantile": self.aim.quantile}
        self.trained = train_all(Rows(inputs.take(lesson.rest), target[lesson.rest]), Rows(inputs.take(lesson.held), target[lesson.held]), sizes,
                                 seed=lesson.seed, deadline=lesson.deadline, threads=lesson.threads, passes=lesson.passes)
        self.networks = [(share, t.arrays, t.sizes) for share, t in self.trained]

    def again(self, lesson: Lesson) -> bool:
        from assay.neural.tabular_training import Rows, again_all

        if not self.aim.classes:
            self.low, self.high = float(lesson.truth.min()), float(lesson.truth.max())
        every = Rows(self._inputs(lesson.views), self._target(lesson.truth))
        self.trained = again_all(self.trained, every, seed=lesson.seed, deadline=lesson.deadline, threads=lesson.threads)
        self.networks = [(share, t.arrays, t.sizes) for share, t in self.trained]
        return any(t.again for _, t in self.trained)

    def answer(self, views: Views) -> np.ndarray:
        inputs = self._inputs(views)
        said: np.ndarray = sum((share * forward.answers(arrays, sizes, inputs) for share, arrays, sizes in self.networks), np.zeros(()))
        return said if self.aim.classes else np.clip(said * self.scale + self.level, self.low, self.high)

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {"centre": self.centre, "spread": self.spread} | {f"{i}/{k}": v for i, (_, own, _) in enumerate(self.networks) for k, v in own.items()}
        packed = {"networks": [[share, sizes] for share, _, sizes in self.networks], "level": self.level, "scale": self.scale, "low": self.low,
                  "high": self.high}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "network.safetensors")
        (folder / "network.json").write_text(json.dumps(packed), encoding="utf-8")

    def load(self, folder: Path) -> NetworkMember:
        from safetensors.numpy import load_file

        arrays, packed = load_file(folder / "network.safetensors"), json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self.centre, self.spread = arrays["centre"], arrays["spread"]
        self.level, self.scale, self.low, self.high = packed["level"], packed["scale"], packed["low"], packed["high"]
        self.networks = [(share, {k.removeprefix(f"{i}/"): v for k, v in arrays.items() if k.startswith(f"{i}/")}, sizes)
                         for i, (share, sizes) in enumerate(packed["networks"])]
        return self


MEMBERS: tuple[type[Member], ...] = (TextMember, LineMember, WordsMember, TableMember, TreesMember, NetworkMember)


def weights_of(answers: list[np.ndarray], truth: np.ndarray, aim: Aim, seed: int, *, least: float = 0.05) -> np.ndarray:
    """Weights (members,) that sum to one, by greedy choice with replacement on resampled rows (Caruana et al. 2004,
    doi:10.1145/1015330.1015432): a plain greedy choice on 100 held-out rows follows their noise.

    answers: each (n, width) on held-out rows. A weight under `least` is not worth a member's time and becomes zero.
    """
    rng = np.random.default_rng(seed)
    n, stacked = len(truth), np.stack(answers)
    total = np.zeros(len(answers))
    for _ in range(BAGS):
        rows = rng.integers(0, n, n)
        own, aimed = stacked[:, rows], truth[rows]
        losses = [float(aim.losses(aimed, one).mean()) for one in own]
        picked = np.zeros(len(answers))
        picked[int(np.argmin(losses))] = 1
        best, kept, mix = min(losses), picked.copy(), own[int(np.argmin(losses))].copy()
        for size in range(1, PICKS):
            losses = [float(aim.losses(aimed, (mix * size + one) / (size + 1)).mean()) for one in own]
            at = int(np.argmin(losses))
            picked[at] += 1
            mix = (mix * size + own[at]) / (size + 1)
            if losses[at] < best:
                best, kept = losses[at], picked.copy()
        total += kept / kept.sum()
    total /= total.sum()
    total[total < least] = 0.0
    return total / total.sum()
