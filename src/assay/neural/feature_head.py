"""The head on hand-made features: a regularised line, boosted trees, or their mean, whichever answers rows it has not seen best.

Means of unlike models are rarely worse than either (Caruana et al. 2004, doi:10.1145/1015330.1015432); the share is chosen on those rows.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import Labels, pace
from assay.data.dataset import Dataset
from assay.data.split import splits
from assay.data.trees import Trees
from assay.neural.head import Aim, grow, tree_scores
from assay.neural.plane import Parts, Plane, learned
from assay.neural.solver import softmax

FEW_ROWS = 1000  # up to here every row judges once, in five folds; more rows are judged by a fifth of them
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the trees
MOST_ROUNDS = 400
MOST_TREES = 6000  # of all classes
MOST_TREE_CLASSES = 60
TREE_COLUMNS = 300  # features that the trees are offered: those that tell most by themselves
LEAST_TREE_ROWS = 40


def parts_of(data: Dataset, strata: np.ndarray | None, seed: int) -> Parts:
    """Which rows teach and which judge, for choosing: five folds of few rows, a fifth of many; groups stay whole, and time runs forward."""
    schema = data.schema
    kind = "group" if schema.group and data.frame[schema.group].n_unique() >= 3 else "time" if (schema.time or schema.ordered) and len(data) >= 10 else "random"
    folds = 1
    if len(data) <= FEW_ROWS and kind != "time":
        folds = min(5, len(data) if kind == "random" else data.frame[schema.group].n_unique())  # type: ignore[index]
    made = splits(data, folds=folds, share=0.2, seed=seed, kind=kind, strata=strata, test_rows=20_000 if folds == 1 else None)
    return [(one.train, one.test) for one in made]


class FeatureHead:
    """Features -> answers: float64 (n, classes) probabilities, or (n, 1) amounts."""

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self.plane: Plane | None = None
        self.trees: Any = None
        self.share = 0.0  # of the trees in the answer
        self.chosen = np.zeros(0, dtype=np.int64)  # the features that the trees read, in front of the table's codes
        self.labels = Labels([])
        self.prior = np.zeros(0)
        self.doubt = 0.0  # share of the prior in every answer: n rows cannot make surer than 1 in n
        self.reach = (-math.inf, math.inf)
        self.facts: dict[str, Any] = {}

    def fit(self, x: np.ndarray, dense: np.ndarray, codes: np.ndarray, truth: np.ndarray, parts: Parts, *, categories: int, seed: int, seconds: float,
            threads: int, passes: int | None = None, importance: np.ndarray | None = None, trees: bool = True,
            note: Callable[[str], None] = lambda note: None) -> FeatureHead:
        """x (n, d) features; dense (n, m) and codes (n, c) the table beside them, standardised and raw, the last `categories` codes being
        categories. seconds: may be infinite, then no clock decides anything; passes: the most steps and rounds. importance: of the
        d features under the line's penalty. Without `trees` there is the line alone.
        """
        begun = time.monotonic()
        by = (lambda share: begun + seconds * share) if math.isfinite(seconds) else (lambda share: math.inf)
        aim, width = self.aim, max(self.aim.classes, 1)
        if aim.classes:
            self.prior = (np.bincount(truth, minlength=width) + 1.0) / (len(truth) + width)
            self.doubt = 1.0 / (len(truth) + 10)
            self.labels = Labels.of(truth)
        else:
            low, high = float(truth.min()), float(truth.max())
            self.reach = (low - 0.1 * (high - low), high + 0.1 * (high - low))
        beside = np.full(dense.shape[1], 1.0 if importance is None else float(np.sqrt((importance**2).sum() / 10 / max(dense.shape[1], 1))))
        weighed = np.concatenate([np.ones(x.shape[1]) if importance is None else importance, beside])
        use_trees = trees and len(truth) >= LEAST_TREE_ROWS and (not aim.classes or 2 <= len(self.labels.seen) <= MOST_TREE_CLASSES)
        found = learned(np.concatenate([x, dense], axis=1) if dense.shape[1] else x, truth, aim, parts, importance=weighed,
                        deadline=by(0.4 if use_trees else 0.6), steps=min(200, passes or 200), note=note)
        self.plane, parts = found.plane, found.parts
        held = np.concatenate([one for _, one in parts])
        line = self._finished(softmax(found.scores) if aim.classes else found.scores)
        losses = {"line": float(aim.losses(truth[held], line).mean())}
        self.facts = {"head": "line", "penalty": float(found.penalty), "features": int(x.shape[1]), "head_loss": losses}
        if not found.whole:
            self.facts["short_of_time"] = True
        if use_trees and time.monotonic() < by(0.75):
            self._add_trees(x, codes, truth, parts, line, categories, seed, by, threads, min(MOST_ROUNDS, passes or MOST_ROUNDS))
        losses |= {name: round(value, 6) for name, value in losses.items()}
        return self

    def _add_trees(self, x: np.ndarray, codes: np.ndarray, truth: np.ndarray, parts: Parts, line: np.ndarray, categories: int, seed: int,
                   by: Callable[[float], float], threads: int, most: int) -> None:
        """Trees of as many folds as the time holds; they enter the answer with the share that is best on rows that neither has seen."""
        aim = self.aim
        seen = Aim(len(self.labels.seen) if aim.classes else 0, aim.loss, aim.quantile)
        target = self.labels.codes(truth) if aim.classes else truth.astype(np.float64)
        self.chosen = _telling(x, truth, aim)
        columns = np.concatenate([x[:, self.chosen], codes], axis=1)
        most = max(20, min(most, MOST_TREES // max(seen.classes, 1)))
        settings: dict[str, Any] = {
            "categories": list(range(columns.shape[1] - categories, columns.shape[1])), "seed": seed,
            "threads": 1 if columns.size < 200_000 else threads, "min_data_in_leaf": 5 if len(truth) < 1000 else 20, "max_bin": 63,
            "feature_fraction": min(0.8, max(0.15, 40 / columns.shape[1])), "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0,
            "learning_rate": self._rate(columns, target, seen, parts[0], categories, seed, by, most),
        }
        if time.monotonic() > by(0.75):
            return
        answers, rounds, folds = [], [], 0
        begun = time.monotonic()
        for rest, held in parts:
            if folds and begun + (time.monotonic() - begun) * (folds + 1) / folds > by(0.8):
                break
            grown, best = grow(columns[rest], target[rest], seen, held=(columns[held], target[held]), rounds=most, deadline=by(0.75), **settings)
            answers.append(self._said(tree_scores(grown, columns[held], seen)))
            rounds.append(best)
            folds += 1
        tree, spent = np.concatenate(answers), time.monotonic() - begun
        held = np.concatenate([one for _, one in parts[:folds]])
        truths, line = truth[held], line[: len(held)]
        losses = [float(aim.losses(truths, (1 - share) * line + share * tree).mean()) for share in SHARES]
        self.facts["head_loss"] |= {"line": losses[0], "trees": losses[-1], "both": min(losses)}  # of the same rows
        best_share = int(np.argmin(losses))
        whole = max(1, round(float(np.median(rounds)) * (len(truth) / len(parts[0][0])) ** 0.5))
        needed = spent / max(sum(rounds), 1) * whole * 1.2
        if best_share == 0 or (math.isfinite(by(1.0)) and time.monotonic() + needed > by(1.0)):
            return
        self.share = SHARES[best_share]
        self.trees, _ = grow(columns, target, seen, rounds=whole, deadline=by(1.2), **settings)
        self.facts |= {"head": "trees" if self.share == 1 else "both", "rounds": whole, "share_of_trees": self.share}

    def _rate(self, columns: np.ndarray, target: np.ndarray, seen: Aim, part: tuple[np.ndarray, np.ndarray], categories: int, seed: int,
              by: Callable[[float], float], most: int) -> float:
        """A learning rate for as many rounds as the time holds, by a pilot of three."""
        if math.isinf(by(1.0)):
            return pace(0.05, most)
        begun, left = time.monotonic(), by(0.75) - time.monotonic()
        grow(columns[part[0]], target[part[0]], seen, rounds=3, categories=[], seed=seed, threads=1, deadline=by(0.75), max_bin=63,
             feature_fraction=min(0.8, max(0.15, 40 / columns.shape[1])))
        round_s = (time.monotonic() - begun) / 3
        return pace(0.05, min(most, int(left / 2 / max(round_s, 1e-6))))

    def _said(self, scores: np.ndarray) -> np.ndarray:
        """Answers of the trees from their raw scores of the classes that they know."""
        return self._finished(self.labels.spread(softmax(scores), self.aim.classes) if self.aim.classes else scores)

    def _finished(self, raw: np.ndarray) -> np.ndarray:
        if self.aim.classes:
            return (1 - self.doubt) * raw + self.doubt * self.prior
        return np.clip(raw, *self.reach)

    def predict(self, x: np.ndarray, dense: np.ndarray, codes: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x), max(self.aim.classes, 1)))
        if self.plane is not None and self.share < 1:
            scores = self.plane.scores(np.concatenate([x, dense], axis=1) if dense.shape[1] else x)
            out += (1 - self.share) * self._finished(softmax(scores) if self.aim.classes else scores)
        if self.trees is not None:
            seen = Aim(len(self.labels.seen) if self.aim.classes else 0, self.aim.loss, self.aim.quantile)
            out += self.share * self._said(tree_scores(self.trees, np.concatenate([x[:, self.chosen], codes], axis=1), seen))
        return out

    def dump(self, folder: Path) -> None:
        """head.json, head.safetensors, and trees.txt if there are trees."""
        from safetensors.numpy import save_file

        arrays = {"chosen": self.chosen, "prior": self.prior}
        if self.plane is not None:
            arrays |= self.plane.arrays()
        if self.trees is not None:
            (folder / "trees.txt").write_text(self.trees.model_to_string(), encoding="utf-8")
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, folder / "head.safetensors")
        packed = {"classes": self.aim.classes, "loss": self.aim.loss, "quantile": self.aim.quantile, "share": self.share, "doubt": self.doubt,
                  "seen": self.labels.seen, "reach": [v if math.isfinite(v) else None for v in self.reach]}
        (folder / "head.json").write_text(json.dumps(packed), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> FeatureHead:
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "head.json").read_text(encoding="utf-8")), load_file(folder / "head.safetensors")
        made = cls(Aim(packed["classes"], packed["loss"], packed["quantile"]))
        made.share, made.doubt, made.labels = packed["share"], packed["doubt"], Labels(packed["seen"])
        low, high = packed["reach"]
        made.reach = (-math.inf if low is None else low, math.inf if high is None else high)
        made.chosen, made.prior, made.plane = arrays["chosen"], arrays["prior"], Plane.of(arrays)
        if made.share > 0:
            made.trees = Trees.read(folder / "trees.txt")
        return made


def _telling(x: np.ndarray, truth: np.ndarray, aim: Aim) -> np.ndarray:
    """The columns that tell most by themselves, at most 300, sorted: by the share of their variance between the classes (the F test),
    or by their correlation with the amount."""
    if x.shape[1] <= TREE_COLUMNS:
        return np.arange(x.shape[1])
    some = np.linspace(0, len(x) - 1, min(len(x), 5000)).astype(np.int64)
    values, answers = x[some].astype(np.float64), truth[some]
    values -= values.mean(0)
    spread = values.std(0)
    values /= np.where(spread > 1e-9, spread, np.inf)
    if aim.classes:
        told = np.zeros(x.shape[1])
        for label in np.unique(answers):
            own = values[answers == label]
            told += len(own) * own.mean(0) ** 2
    else:
        told = np.abs((answers - answers.mean()) @ values)
    return np.sort(np.argsort(-told, kind="stable")[:TREE_COLUMNS])
