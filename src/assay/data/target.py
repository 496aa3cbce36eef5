"""Inputs seen through the target: categories as what it did there, and the n-grams that tell most about it."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_CLASSES = 50  # the commonest; the share of a rarer one says little about a level
FOLDS = 5


class LevelMeans:
    """Each level of a category becomes the mean of the target over its rows, pulled to the overall mean by `prior` rows
    (Micci-Barreca 2001): one number for amounts, for classes their shares - distances between levels are then the value
    difference metric (Stanfill & Waltz 1986). More than `most` columns are turned into their principal components.

    A training row is told what the other folds say of its level (Pargent et al. 2022, doi:10.1007/s00180-022-01207-6): its
    own answer must not be found in its input. Codes as `TableEncoder.codes` gives them, -1 for missing or unknown.
    """

    def __init__(self, *, most: int = 4, prior: float = 10.0) -> None:
        self.most, self.prior = most, prior
        self.tables: list[np.ndarray] = []  # one a category, float32 (levels + 1, width); the last row is for code -1

    def fit_transform(self, codes: np.ndarray, sizes: list[int], truth: np.ndarray, *, classes: int, seed: int) -> np.ndarray:
        """float32 (n, columns of all tables). codes: (n, categories); sizes: levels of each; truth: class codes, or amounts if classes is 0."""
        target = standard(truth, classes)
        fold = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
        self.tables, parts = [], []
        for given, size in zip(codes.astype(np.int64).T, sizes, strict=True):
            code = given % (size + 1)  # -1 is the last row
            sums, rows = _sums(code, size, target), np.bincount(code, minlength=size + 1)
            whole = self._means(sums, rows)
            axes = _axes(whole, rows, self.most)
            self.tables.append((whole @ axes).astype(np.float32))
            out = np.empty((len(code), axes.shape[1]), dtype=np.float32)
            for k in range(FOLDS):
                mine = fold == k
                others = self._means(sums - _sums(code[mine], size, target[mine]), rows - np.bincount(code[mine], minlength=size + 1))
                out[mine] = (others @ axes)[code[mine]]
            parts.append(out)
        return np.column_stack(parts) if parts else np.zeros((len(truth), 0), dtype=np.float32)

    def transform(self, codes: np.ndarray) -> np.ndarray:
        parts = [table[code] for table, code in zip(self.tables, codes.astype(np.int64).T, strict=True)]
        return np.column_stack(parts) if parts else np.zeros((len(codes), 0), dtype=np.float32)

    @property
    def width(self) -> int:
        return sum(table.shape[1] for table in self.tables)

    def _means(self, sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return sums / (rows + self.prior)[:, None]

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"levels.{i}": np.ascontiguousarray(table) for i, table in enumerate(self.tables)}

    def load(self, arrays: dict[str, Any]) -> LevelMeans:
        self.tables = [arrays[f"levels.{i}"] for i in range(sum(name.startswith("levels.") for name in arrays))]
        return self


def telling(grams: Any, y: np.ndarray, classes: int, most: int) -> np.ndarray:
    """The columns of a sparse matrix that vary most with the target: summed squared correlations, at most `most`, in order."""
    target = standard(y, classes)
    n = grams.shape[0]
    mean = np.asarray(grams.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(grams.multiply(grams).mean(axis=0)).ravel() - mean**2, 1e-12))
    together = (np.asarray(grams.T @ target) / n / spread[:, None])
    return np.sort(np.argsort(-(together**2).sum(axis=1), kind="stable")[:most])


def standard(truth: np.ndarray, classes: int) -> np.ndarray:
    """The target as columns of mean 0 and spread 1: (n, 1) for amounts and two classes, else one for each common class."""
    if not classes:
        return ((truth - truth.mean()) / (truth.std() or 1.0))[:, None]
    common = np.argsort(-np.bincount(truth.astype(np.int64), minlength=classes), kind="stable")[: 1 if classes == 2 else MOST_CLASSES]
    hit = (truth[:, None] == common[None, :]).astype(np.float32)
    spread = hit.std(axis=0)
    return (hit - hit.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _sums(code: np.ndarray, size: int, target: np.ndarray) -> np.ndarray:
    return np.column_stack([np.bincount(code, weights=column, minlength=size + 1) for column in target.T])


def _axes(means: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """(columns, at most `most`): the identity, or the principal axes of the level means, signs fixed."""
    if means.shape[1] <= most:
        return np.eye(means.shape[1])
    _, _, turned = np.linalg.svd(means * np.sqrt(rows)[:, None], full_matrices=False)
    axes = turned[:most].T
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
