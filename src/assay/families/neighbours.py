"""Nearest neighbours (Fix & Hodges 1951): what happened in the rows most like this one, found by exact search."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.afford import affordable, settings
from assay.data.dataset import Dataset, Schema
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.metric import TIE, heaviest, told_alone, weighed, weighted_quantile, whitening
from assay.data.split import holdout
from assay.data.target import LevelMeans, standard
from assay.families.base import Budget, Candidate, Model, Range, TooSlow
from assay.tasks.base import Task
from assay.words import say

MOST_ROWS = 100_000  # one row is compared with all of these in about a millisecond
MOST_CELLS = 2_500_000  # rows x columns, for the same reason
GRAMS = 30_000
HEAVIEST = 120  # n-grams kept of each text
SIZES = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 130)
SPARE = 16  # candidates beyond the neighbours, so that float32 cannot push one out
PAIRS = 40_000_000  # distances of one try on held-out rows
JUDGES = 600  # held-out rows: with fewer, another holdout is asked too
MOST_TWICE = 20_000  # rows, above which one is enough whatever it holds
BLOCK = 2_000_000  # distances held at once, 8 MB
PULLS = (0.1, 0.3, 1.0, 3.0, 10.0)  # rows that the prior counts for
SPACE: dict[str, Range | tuple[Any, ...]] = {
    "k": Range(1, 130, log=True, whole=True), "weights": ("even", "near"), "metric": ("scaled", "relevant", "whitened"),
    "numbers": ("scaled", "ranks"), "text_share": Range(0.0, 1.0),
}


class Nearest(Model):
    """k, weights and metric are chosen on rows held out of train, one change at a time.

    numbers: standardised, or ranks. Categories: means of the target at each level. Texts: cosine of TF-IDF n-grams, which
    counts for `text_share` of the squared distance. metric: columns count alike (scaled), by how much of the target each
    tells alone (relevant), or by Mahalanobis' distance with the covariance within classes or tenths of the amounts (whitened).
    weights: even, rows at the same distance as the k-th sharing its weight; or 1 - (distance / that of the next neighbour)^2
    (Samworth 2012, arXiv:1101.5783). Classes: shares, pulled to those of all rows. Amounts: mean, or weighted quantile.
    """

    def __init__(self, task: Task, schema: Schema, **params: Any) -> None:
        super().__init__(task, schema, **params)
        settings(params, SPACE)
        self._forget()
        self.kept: dict[str, np.ndarray] = {}  # truth, prior, points, centre, turn, knots
        self.grams: Any = None  # CSR (n-grams, rows)
        self.chosen: dict[str, Any] = {}

    def _forget(self) -> None:
        self.table, self.levels, self.text = TableEncoder(self.schema), LevelMeans(prior=5.0), TextEncoder(self.schema, most=GRAMS)

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Nearest:
        whole, columns = len(train), len(self.table.names) + 3 * len(self.table.categories) + 1
        train = affordable(train, seed=seed, bytes_a_row=30 * columns + 4000 * len(self.text.columns), memory_mb=0.4 * budget.memory_mb,
                           reading_s=budget.left() / 4, most=min(MOST_ROWS, MOST_CELLS / columns, self._answerable(columns, budget)))
        if len(train) < whole:
            self.facts["rows_used"] = len(train)
        self.chosen = self._choose(train, seed, budget)
        self._place(*self._read(train, seed), self.chosen)
        self.facts |= {name: value for name, value in self.chosen.items() if name != "text_share" or self.text.columns}
        return self

    def _answerable(self, columns: int, budget: Budget) -> float:
        """Rows that leave the test rows answered in time: 10 ns a distance, 0.2 ns for each column of it, 40 ns with texts."""
        if not (math.isfinite(budget.seconds) and math.isfinite(budget.predict_seconds)):
            return math.inf
        pairs = budget.predict_seconds / (1e-8 + 2e-10 * columns + 4e-8 * bool(self.text.columns))
        return max(2000.0, pairs / max(budget.predict_rows, 1))

    # ---- rows -> points

    def _read(self, train: Dataset, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray, np.ndarray]:
        """Learn the encoders. Returns train, its codes, the level means as its rows see them, and the truth."""
        truth, codes = self.task.truth(train), self.table.fit(train.frame).codes(train.frame)
        classes = self.task.width if self.task.name == "classify" else 0
        sizes = [len(self.table.levels[name]) for name in self.table.categories]
        raw = codes[:, : len(self.table.fill)]
        means = self.levels.fit_transform(codes[:, raw.shape[1]:], sizes, truth, classes=classes, seed=seed,
                                          numbers=np.where(np.isnan(raw), self.table.fill, raw))
        if self.text.columns:
            self.grams = heaviest(self.text.fit_transform(train.frame), HEAVIEST).T.tocsr()
        elif codes.shape[1] == 0:
            raise TooSlow(say("no column holds anything to learn from"))
        return train, codes, means, truth

    def _place(self, train: Dataset, codes: np.ndarray, means: np.ndarray, truth: np.ndarray, setting: dict[str, Any]) -> None:
        """Every row of `train` becomes a point; squared distances have mean 1, texts included."""
        classes = self.task.width if self.task.name == "classify" else 0
        self.kept = {"truth": truth.astype(np.int32 if classes else np.float64)}
        if classes:
            self.kept["prior"] = np.bincount(truth, minlength=classes) / len(truth)
        if setting["numbers"] == "ranks":
            raw = codes[:, : len(self.table.fill)]
            self.kept["knots"] = np.ascontiguousarray(np.quantile(np.where(np.isnan(raw), self.table.fill, raw), np.linspace(0, 1, 65), axis=0).T)
        x = self._columns(codes, means)
        centre, spread = x.mean(axis=0), x.std(axis=0)
        turn = np.diag(1 / np.where(spread > 1e-9 * (1 + np.abs(centre)), spread, np.inf))
        if setting["metric"] == "relevant":
            turn = turn * np.sqrt(told_alone(x, standard(truth, classes)))
        elif setting["metric"] == "whitened":
            strata = self.task.strata(train)
            turn = turn @ whitening((x - centre) @ turn, truth if strata is None else strata)
        size = ((x - centre) @ turn).var(axis=0).sum() * 2 or 1.0
        self.share = (setting["text_share"] if x.shape[1] else 1.0) if self.text.columns else 0.0
        self.kept |= {"centre": centre, "turn": turn * math.sqrt((1 - self.share) / size)}
        self.kept["points"] = ((x - centre) @ self.kept["turn"]).astype(np.float32)
        self._ready()

    def _ready(self) -> None:
        points = self.kept["points"]
        self._opposite = np.ascontiguousarray(-2 * points.T)
        self._norms = (points.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)

    def _columns(self, codes: np.ndarray, means: np.ndarray) -> np.ndarray:
        """float64: numbers and time parts, missing flags, level means. Numbers stay within 8 spreads of their middle."""
        table = self.table
        raw = codes[:, : len(table.fill)]
        missing = np.isnan(raw)
        raw = np.where(missing, table.fill, raw)
        if "knots" in self.kept:
            place = np.linspace(0, 1, self.kept["knots"].shape[1])
            raw = np.column_stack([np.interp(column, knots, place) for column, knots in zip(raw.T, self.kept["knots"], strict=True)]) if raw.size else raw
        else:
            raw = np.clip((raw - table.centre) / table.scale, -8, 8)
        return np.column_stack([raw, missing[:, table.flagged], means]).astype(np.float64)

    def _points(self, codes: np.ndarray) -> np.ndarray:
        x = self._columns(codes, self.levels.transform(codes[:, len(self.table.fill):]))
        return (x - self.kept["centre"]) @ self.kept["turn"]

    # ---- points -> neighbours

    def _near(self, points: np.ndarray, grams: Any, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, exact squared distances, rough distances to all) of the `most` nearest, nearest first: (n, most), (n, most), (n, all)."""
        rough = points.astype(np.float32) @ self._opposite
        rough += self._norms
        alike = None
        if grams is not None:
            alike = (grams @ self.grams).toarray()
            rough -= np.float32(self.share) * alike
        most = min(most, rough.shape[1])
        found = np.argpartition(rough, most - 1, axis=1)[:, :most] if most < rough.shape[1] else np.tile(np.arange(most), (len(points), 1))
        exact = self._exact(points, found, alike)
        order = np.argsort(exact, axis=1, kind="stable")
        return np.take_along_axis(found, order, 1), np.take_along_axis(exact, order, 1), rough

    def _exact(self, points: np.ndarray, found: np.ndarray, alike: np.ndarray | None) -> np.ndarray:
        out = np.empty(found.shape)
        step = max(1, BLOCK // max(1, found.shape[1] * points.shape[1]))
        for at in range(0, len(points), step):
            apart = self.kept["points"][found[at: at + step]] - points[at: at + step, None, :]
            out[at: at + step] = np.einsum("nmd,nmd->nm", apart, apart)
        if alike is not None:
            out += self.share * (1 - np.take_along_axis(alike, found, 1))
        return np.maximum(out, 0.0)

    # ---- neighbours -> answers

    def _told(self, near: np.ndarray, weights: np.ndarray, setting: dict[str, Any], of: np.ndarray | None = None) -> np.ndarray:
        """Class shares (n, width), or only that of the class `of` (n,); amounts (n,)."""
        said = self.kept["truth"][near]
        total = weights.sum(axis=1)
        if self.task.name == "classify":
            prior, pull = self.kept["prior"], setting["pull"]
            if of is not None:
                return ((weights * (said == of[:, None])).sum(axis=1) + pull * prior[of]) / (total + pull)
            cells = np.arange(len(near))[:, None] * self.task.width + said
            shares = np.bincount(cells.ravel(), weights=weights.ravel(), minlength=len(near) * self.task.width).reshape(-1, self.task.width)
            return (shares + pull * prior) / (total + pull)[:, None]
        if self.task.loss == "squared":
            return (weights * said).sum(axis=1) / total
        return weighted_quantile(said, weights, self._level())

    def _level(self) -> float:
        return getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5

    def _answer(self, points: np.ndarray, grams: Any) -> np.ndarray:
        k, how = min(self.chosen["k"], len(self.kept["truth"])), self.chosen["weights"]
        near, far, rough = self._near(points, grams, k + 1 + SPARE)
        weights = weighed(far, k, how)
        told = self._told(near, weights, self.chosen).reshape(len(points), -1)
        edge = far[:, min(k, far.shape[1] - 1)]
        more = far.shape[1] < len(self.kept["truth"])
        for i in np.flatnonzero((far[:, -1] <= edge * (1 + TIE)) & (weights[:, -1] > 0) & more):  # more rows at the same distance than there are candidates: all of them share the weight
            reach = rough[i][near[i]].max() + 1e-4
            row = np.flatnonzero(rough[i] <= reach)[None, :]
            alike = None if grams is None else (grams[[i]] @ self.grams).toarray()
            exact = self._exact(points[i: i + 1], row, alike)
            order = np.argsort(exact, axis=1, kind="stable")
            row, exact = np.take_along_axis(row, order, 1), np.take_along_axis(exact, order, 1)
            told[i] = self._told(row, weighed(exact, k, how), self.chosen).ravel()
        return told

    def predict(self, asked: Dataset) -> np.ndarray:
        step = max(1, BLOCK // len(self.kept["truth"]))
        out = [np.zeros((0, self.task.width))]
        for start in range(0, len(asked), 20_000):
            frame = asked.frame[start: start + 20_000]
            points, grams = self._points(self.table.codes(frame)), self.text.transform(frame) if self.text.columns else None
            out += [self._answer(points[at: at + step], None if grams is None else grams[at: at + step]) for at in range(0, len(points), step)]
        return np.concatenate(out)

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        return self._answer(self._points(self.table.codes_row(row)), self.text.transform_row(row) if self.text.columns else None)

    # ---- choosing

    def _parts(self, train: Dataset, seed: int) -> list[tuple[Dataset, Dataset]]:
        """Rows that are known and rows that ask, once, or up to five times where one holdout is too small to choose by."""
        strata, judged = self.task.strata(train), 0
        out: list[tuple[Dataset, Dataset]] = []
        again = 1 if train.schema.time or train.schema.ordered else 5  # forward in time there is but one
        while len(out) < again and judged < JUDGES:
            rest, held = holdout(train, share=0.2, seed=seed + len(out), strata=strata)
            held = held[:: max(1, math.ceil(len(held) * len(rest) / PAIRS))]
            out.append((train.take(rest), train.take(held)))
            judged += len(held) if len(rest) < MOST_TWICE else JUDGES
        return out

    def _choose(self, train: Dataset, seed: int, budget: Budget) -> dict[str, Any]:
        parts, fixed = self._parts(train, seed), {name: value for name, value in self.params.items() if name not in ("k", "weights")}
        best: dict[str, Any] = {"numbers": "scaled", "metric": "scaled", "text_share": 0.5} | fixed
        least, stop, took = math.inf, 0.6 * budget.left(), 0.0
        changes: list[dict[str, Any]] = [{}]
        if self.text.columns and self.table.names:
            changes += [{"text_share": 0.8}, {"text_share": 0.2}, {"text_share": 0.95}]
        if self.table.names:
            changes += [{"metric": "relevant"}, {"metric": "whitened"}, {"numbers": "ranks"}]
        reads: dict[int, tuple[Any, ...]] = {}
        for change in changes:
            if change.keys() & fixed.keys() or (change and budget.left() - took < stop):
                continue
            started, setting, losses = time.monotonic(), best | change, np.zeros(0)
            for i, (rest, held) in enumerate(parts):
                if i not in reads:
                    self._forget()
                    read = self._read(rest, seed)
                    asked = self.table.codes(held.frame), self.text.transform(held.frame) if self.text.columns else None
                    reads[i] = self.table, self.levels, self.grams, read, asked
                self.table, self.levels, self.grams, read, asked = reads[i]
                self._place(read[0], read[1], read[2], read[3], setting)
                found, tried = self._sizes(self._points(asked[0]), asked[1], self.task.truth(held), min(len(r) for r, _ in parts))
                losses = tried + losses if len(losses) else tried
            took = time.monotonic() - started
            loss = float(losses.min()) / sum(len(held) for _, held in parts)
            if loss < least:
                least, best = loss, setting | found[int(losses.argmin())]
            budget.say(f"{', '.join(str(v) for v in best.values())}: held-out loss {least:.4f}")
        return best

    def _sizes(self, points: np.ndarray, grams: Any, answers: np.ndarray, known: int) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Every k, weights and pull, and the summed loss of each."""
        sizes = [min(int(self.params["k"]), known)] if "k" in self.params else [k for k in SIZES if k == 1 or k < known / 2]
        step = max(1, BLOCK // len(self.kept["truth"]))
        parts = [self._near(points[at: at + step], None if grams is None else grams[at: at + step], max(sizes) + 1)[:2] for at in range(0, len(points), step)]
        near, far = (np.concatenate(p) for p in zip(*parts, strict=True))
        found, losses = [], []
        for k in sizes:
            for how in (self.params["weights"],) if "weights" in self.params else ("even", "near"):
                weights = weighed(far, k, how)
                for pull in PULLS if self.task.name == "classify" else (0.0,):
                    found.append({"k": k, "weights": how, "pull": pull})
                    losses.append(self._loss(self._told(near, weights, found[-1], answers if self.task.name == "classify" else None), answers))
        return found, np.array(losses) * len(answers)

    def _loss(self, told: np.ndarray, answers: np.ndarray) -> float:
        if self.task.name == "classify":
            return float(-np.log(np.maximum(told, 1e-6)).mean())
        error, level = answers - told, self._level()
        return float((error**2 if self.task.loss == "squared" else np.maximum(level * error, (level - 1) * error)).mean())

    # ---- files

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        arrays = {**self.kept, **self.levels.arrays(), **self.text.arrays()}
        if self.grams is not None:
            arrays |= {"grams.data": self.grams.data, "grams.indices": self.grams.indices, "grams.indptr": self.grams.indptr}
        save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, folder / "nearest.safetensors")
        packed = {"table": self.table.json(), "text": self.text.json(), "chosen": self.chosen, "share": self.share}
        (folder / "nearest.json").write_text(json.dumps(packed))

    def load(self, folder: Path) -> Nearest:
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "nearest.json").read_text()), load_file(folder / "nearest.safetensors")
        self.table, self.text = TableEncoder.of(packed["table"]), TextEncoder.of(packed["text"], arrays)
        self.levels.load(arrays)
        self.chosen, self.share = packed["chosen"], packed["share"]
        self.kept = {name: a for name, a in arrays.items() if "." not in name}
        if self.text.columns:
            from scipy.sparse import csr_matrix

            parts = tuple(arrays[f"grams.{name}"] for name in ("data", "indices", "indptr"))
            self.grams = csr_matrix(parts, shape=(len(self.text.kept), len(self.kept["truth"])))
        self._ready()
        return self


CANDIDATE = Candidate(
    name="nearest", rung="classical", tasks=("classify", "regress"), build=Nearest, share=3.0, space=SPACE,
    source="k nearest neighbours (Fix & Hodges 1951; Cover & Hart 1967)", licence="MIT, assay's own code", version="1",
)
