"""Extremely randomised trees (Geurts et al. 2006), grown by scikit-learn, kept and run as plain arrays."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import Labels, affordable, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.forest import Forest, leaf_quantiles
from assay.data.split import holdout
from assay.data.target import LevelMeans, telling
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.tasks.base import Task
from assay.words import say

TREES = 100
LEAST_TREES = 10
TRIED = 25  # trees of a forest that only says which setting is better
GRAMS = 2000  # n-grams read; the `columns` of them that tell most about the target become columns
MOST_NODES = 2_400_000  # of all trees, 8 bytes each on disk: 20 MB
SMOOTHED = (0.001, 0.005, 0.02, 0.06)  # share of the prior in an answer; never none, because full-grown trees are sure of everything
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "max_features": Range(0.05, 1.0), "min_samples_leaf": Range(1, 50, log=True, whole=True), "columns": (64, 256, 1024),
}


class ExtraTrees(Model):
    """What a leaf is told to be is chosen on rows held out of train: how many rows it holds, how many columns each split looks at.

    Categories are the means of the target at each level beside their codes, texts the n-grams that tell most. For absolute and pinball loss a
    leaf answers with that quantile of its rows, and the forest is moved to where the held-out rows ask for it.
    """

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        self.params = settings(params, SPACE, columns=256)
        self.table = TableEncoder(self.schema)
        self.levels = LevelMeans()
        self.text = TextEncoder(self.schema, most=GRAMS, min_rows=5)
        self.grams = np.zeros(0, dtype=np.int64)  # of text.kept, those that became columns
        self.forest = Forest()
        self.labels = Labels([])
        self.prior = np.zeros(0)
        self.smoothed = self.moved = self.shift = 0.0
        self.scale = 1.0

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> ExtraTrees:
        whole = len(train)
        columns = len(self.table.names) + self.params["columns"] * bool(self.text.columns)
        train = affordable(train, seed=seed, bytes_a_row=16 * columns + 400 + 1500 * len(self.text.columns), memory_mb=0.5 * budget.memory_mb,
                           reading_s=budget.left() / 3)
        truth = self.task.truth(train)
        rest, held = holdout(train, share=0.2, seed=seed, strata=self.task.strata(train))
        if self.task.name == "classify":
            self.labels = Labels.of(truth)
            y: np.ndarray = self.labels.codes(truth)
            self.prior = np.bincount(y, minlength=len(self.labels.seen)) / len(y)
            if len(self.labels.seen) < 2:
                raise TooSlow(say("the training rows hold one class only"))
        else:
            self.shift, self.scale = float(np.median(truth)), float(truth.std()) or 1.0
            y = (truth - self.shift) / self.scale
        x = self._learn(train, y, rest, seed)
        chosen, tree_s = self._choose(x, y, rest, held, seed, budget)
        trees = self._affordable_trees(tree_s * len(x) / len(rest), budget)
        self.forest = self._grown(x, y, chosen, trees, seed, budget)
        if len(train) < whole:
            self.facts["rows_used"] = len(train)
        self.facts |= {"trees": len(self.forest.roots), "nodes": len(self.forest.feature), **chosen}
        return self

    def _learn(self, train: Dataset, y: np.ndarray, rest: np.ndarray, seed: int) -> np.ndarray:
        """The matrix of `train`, and all that makes such a matrix of other rows. Which n-grams tell most is learnt on `rest`."""
        codes = self.table.fit(train.frame).codes(train.frame)
        first = codes.shape[1] - len(self.table.categories)
        sizes = [len(self.table.levels[c]) for c in self.table.categories]
        raw = np.where(np.isnan(codes[:, :first]), self.table.fill, codes[:, :first])
        means = self.levels.fit_transform(codes[:, first:], sizes, y, classes=len(self.labels.seen), seed=seed, numbers=raw)
        grams = None
        if self.text.columns:
            grams = self.text.fit_transform(train.frame)
            self.grams = telling(grams[rest], y[rest], len(self.labels.seen), self.params["columns"])
        return self._joined(codes, means, grams)

    def _joined(self, codes: np.ndarray, means: np.ndarray, grams: Any) -> np.ndarray:
        raw = np.clip(codes[:, : len(self.table.fill)], -3e38, 3e38)
        missing = np.isnan(raw)
        parts = [np.where(missing, self.table.fill, raw), missing[:, self.table.flagged], means, codes[:, raw.shape[1]:]]
        if grams is not None:
            parts.append(grams[:, self.grams].toarray())
        return np.column_stack(parts).astype(np.float32)

    def _choose(self, x: np.ndarray, y: np.ndarray, rest: np.ndarray, held: np.ndarray, seed: int,
                budget: Budget) -> tuple[dict[str, Any], float]:
        """The settings of least held-out loss, and what one of their trees takes on `rest`. Small forests, one change at a time."""
        width = x.shape[1]
        if width == 0:
            raise TooSlow(say("no column holds anything to learn from"))
        few, sure = (width**0.5 / width, 1) if self.task.name == "classify" else (1.0, 1)
        if self.task.name == "regress" and self.task.loss == "pinball":
            sure = 10  # a tail is not seen in fewer rows
        start = {"max_features": self.params.get("max_features", few), "min_samples_leaf": self.params.get("min_samples_leaf", sure)}
        half, trees = budget.left() / 2, min(TRIED, budget.passes or TRIED)
        best, best_loss, tree_s = start, np.inf, 0.0
        tried: list[dict[str, Any]] = []
        if budget.seconds < float("inf"):
            tree_s = self._tree_s(x[rest], y[rest], start, seed, budget)
            trees = int(np.clip(0.2 * half / tree_s, 5, TRIED))

            self._affordable_trees(1.5 * tree_s, budget)

        def trial(setting: dict[str, Any]) -> None:
            nonlocal best, best_loss, tree_s
            if setting in tried or (tried and budget.left() - 2 * trees * tree_s < half):
                return
            tried.append(setting)
            begin = time.monotonic()
            forest = self._grown(x[rest], y[rest], setting, trees, seed, budget)
            took = (time.monotonic() - begin) / len(forest.roots)
            loss, smoothed, moved = self._judged(forest.answer(x[held]), y[held])
            budget.say(f"leaves of {setting['min_samples_leaf']}, {setting['max_features']:.2g} of the columns: held-out loss {loss:.4f}")
            if loss < best_loss:
                best, best_loss, self.smoothed, self.moved, tree_s = setting, loss, smoothed, moved, took

        trial(start)
        if "max_features" not in self.params and width > 1:
            trial(start | {"max_features": 0.5})
        if "min_samples_leaf" not in self.params:
            for leaf in (2, 5, 15) if sure == 1 else (5, 20, 50):
                before = best_loss
                trial(best | {"min_samples_leaf": leaf})
                if best_loss == before:
                    break
        return best, tree_s

    def _tree_s(self, x: np.ndarray, y: np.ndarray, setting: dict[str, Any], seed: int, budget: Budget) -> float:
        import sklearn.ensemble  # noqa: F401  # a second or two the first time, which is no time of a tree

        begin = time.monotonic()
        self._grown(x, y, setting, 1, seed, budget)
        return time.monotonic() - begin

    def _affordable_trees(self, tree_s: float, budget: Budget) -> int:
        """How many trees the time is enough for; raises TooSlow if they are no forest."""
        most = min(TREES, budget.passes or TREES)
        if budget.seconds == float("inf") or tree_s * most < 0.7 * budget.left():
            return most
        trees = max(0, int(0.7 * budget.left() / tree_s))
        if trees < LEAST_TREES:
            raise TooSlow(say("one of its trees takes {tree} s, and its time is enough for {n} of them; it needs {least}", tree=f"{tree_s:.2g}",
                              n=trees, least=LEAST_TREES))
        return trees

    def _judged(self, answer: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
        """(held-out loss, the share of the prior and the shift that make it least)."""
        if self.task.name == "classify":
            hit = np.arange(len(y))
            losses = [(float(-np.log(np.maximum((1 - s) * answer[hit, y] + s * self.prior[y], 1e-6)).mean()), s, 0.0) for s in SMOOTHED]
            return min(losses)
        error = y - answer[:, 0]
        if self.task.loss == "squared":
            return float((error**2).mean()), 0.0, 0.0
        level = self._level()
        moved = float(np.quantile(error, level))
        error = error - moved
        return float(np.maximum(level * error, (level - 1) * error).mean()), 0.0, moved

    def _level(self) -> float:
        return getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5

    def _grown(self, x: np.ndarray, y: np.ndarray, setting: dict[str, Any], trees: int, seed: int, budget: Budget) -> Forest:
        """`trees` trees, turned into arrays a few at a time: scikit-learn holds 64 bytes a node and 8 more for each class."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        classes = len(self.labels.seen)
        sure = max(setting["min_samples_leaf"], -(-2 * len(x) * trees // MOST_NODES))
        at_once = int(np.clip(100_000_000 // (2 * len(x) // sure * max(classes, 1) + 1), 1, 20))
        forest = Forest()
        kind = ExtraTreesClassifier if classes else ExtraTreesRegressor
        for start in range(0, trees, at_once):
            made = kind(min(at_once, trees - start), min_samples_leaf=sure, max_features=setting["max_features"], random_state=(seed * 1000 + start) % 2**32,
                        n_jobs=budget.threads if len(x) > 2000 else 1).fit(x, y)
            for tree in made.estimators_:
                leaf = None
                if not classes and self.task.loss != "squared":
                    leaf = leaf_quantiles(tree.tree_.apply(x), y, self._level(), tree.tree_.node_count)
                forest.add(tree.tree_, made.classes_ if classes else None, leaf)
            if start:
                budget.say(f"{start} of {trees} trees")
        return forest.ready(classes)

    def _answer(self, x: np.ndarray) -> np.ndarray:
        raw = self.forest.answer(x)
        if self.task.name == "regress":
            return (raw + self.moved) * self.scale + self.shift
        return self.labels.spread((1 - self.smoothed) * raw + self.smoothed * self.prior, self.task.width)

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        first, step, out = len(self.table.fill), 20_000, []
        for at in range(0, len(asked), step):
            frame = asked.frame[at: at + step]
            codes = self.table.codes(frame)
            grams = self.text.transform(frame) if self.text.columns else None
            out.append(self._answer(self._joined(codes, self.levels.transform(codes[:, first:]), grams)))
        return np.concatenate(out)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        codes = self.table.codes_row(row)
        grams = self.text.transform_row(row) if self.text.columns else None
        return self._answer(self._joined(codes, self.levels.transform(codes[:, len(self.table.fill):]), grams))

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        save_file({**self.forest.arrays(), **self.levels.arrays(), **self.text.arrays(), "grams": self.grams, "prior": self.prior},
                  folder / "extra_trees.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "seen": self.labels.seen, "smoothed": self.smoothed, "moved": self.moved,
                  "shift": self.shift, "scale": self.scale}
        (folder / "extra_trees.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> ExtraTrees:
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "extra_trees.json").read_text()), load_file(folder / "extra_trees.safetensors")
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        self.levels.load(arrays)
        self.grams, self.prior, self.labels = arrays["grams"], arrays["prior"], Labels(packed["seen"])
        self.smoothed, self.moved, self.shift, self.scale = (packed[name] for name in ("smoothed", "moved", "shift", "scale"))
        self.forest = Forest.of(arrays, len(self.labels.seen))
        return self


CANDIDATE = Candidate(
    name="extra_trees", rung="classical", tasks=("classify", "regress"), build=ExtraTrees, share=4.0, at_least_s=1.5, space=SPACE,
    source="extremely randomised trees (Geurts et al. 2006, doi:10.1007/s10994-006-6226-1), scikit-learn", licence="BSD-3-Clause", version="1",
)
