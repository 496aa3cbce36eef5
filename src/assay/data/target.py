"""Inputs seen through the target: categories as what it did there, and the n-grams that tell most about it."""

from __future__ import annotations

from typing import Any

import numpy as np

MOST_CLASSES = 50  # the commonest; the share of a rarer one says little about a level
FOLDS = 5
MOST_NUMBERS = 300  # columns of the ridge line: its cost grows with their square


class LevelMeans:
    """Each level of a category becomes the mean of the target over its rows, pulled to the overall mean by `prior` rows
    (Micci-Barreca 2001): one number for amounts, for classes their shares - distances between levels are then the value
    difference metric (Stanfill & Waltz 1986). More than `most` columns are turned into their principal components.

    Beside numbers there is a second such mean, of what a ridge line on them leaves unexplained: the clearest diamonds are
    the smallest, so their mean price says the opposite of what clarity is worth.

    A training row is told what the other folds say of its level (Pargent et al. 2022, doi:10.1007/s00180-022-01207-6): its
    own answer must not be found in its input. Codes as `TableEncoder.codes` gives them, -1 for missing or unknown.
    """

    def __init__(self, *, most: int = 4, prior: float = 10.0) -> None:
        self.most, self.prior = most, prior
        self.tables: list[list[np.ndarray]] = []  # of each category: one or two, float32 (levels + 1, width); the last row is for code -1

    def fit_transform(self, codes: np.ndarray, sizes: list[int], truth: np.ndarray, *, classes: int, seed: int,
                      numbers: np.ndarray | None = None) -> np.ndarray:
        """float32 (n, columns of all tables). codes: (n, categories); sizes: levels of each; truth: class codes, or amounts if
        classes is 0; numbers: (n, d) without gaps."""
        targets = [standard(truth, classes)]
        if numbers is not None and 0 < numbers.shape[1] <= MOST_NUMBERS and sizes:
            targets.append(targets[0] - _line(numbers, targets[0]))
        fold = np.random.default_rng(seed).permutation(len(truth)) % FOLDS
        self.tables, parts = [], []
        for given, size in zip(codes.astype(np.int64).T, sizes, strict=True):
            made = [self._learn(given % (size + 1), size, target, fold) for target in targets]  # -1 is the last row
            self.tables.append([table for table, _ in made])
            parts += [rows for _, rows in made]
        return np.column_stack(parts) if parts else np.zeros((len(truth), 0), dtype=np.float32)

    def _learn(self, code: np.ndarray, size: int, target: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The table of one category, and what its training rows are told."""
        sums, rows = _sums(code, size, target), np.bincount(code, minlength=size + 1)
        whole = sums / (rows + self.prior)[:, None]
        axes = _axes(whole, rows, self.most)
        out = np.empty((len(code), axes.shape[1]), dtype=np.float32)
        for k in range(FOLDS):
            mine = fold == k
            others = rows - np.bincount(code[mine], minlength=size + 1)
            means = (sums - _sums(code[mine], size, target[mine])) / (others + self.prior)[:, None]
            means[others == 0] = 0.0  # what rounding leaves of a sum is no knowledge
            out[mine] = (means @ axes)[code[mine]]
        return (whole @ axes).astype(np.float32), out

    def transform(self, codes: np.ndarray) -> np.ndarray:
        parts = [table[code] for tables, code in zip(self.tables, codes.astype(np.int64).T, strict=True) for table in tables]
        return np.column_stack(parts) if parts else np.zeros((len(codes), 0), dtype=np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        return {f"levels.{i}.{k}": np.ascontiguousarray(table) for i, tables in enumerate(self.tables) for k, table in enumerate(tables)}

    def load(self, arrays: dict[str, Any]) -> LevelMeans:
        names = sorted((int(i), int(k)) for i, k in (name.split(".")[1:] for name in arrays if name.startswith("levels.")))
        self.tables = [[arrays[f"levels.{i}.{k}"] for j, k in names if j == i] for i in sorted({i for i, _ in names})]
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


def _line(numbers: np.ndarray, target: np.ndarray) -> np.ndarray:
    """What a ridge line on the standardised numbers and their sizes says of each target, (n, columns of target)."""
    spread = numbers.std(axis=0)
    z = np.clip((numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, np.inf), -8, 8)
    z = np.concatenate([z, np.abs(z) - np.abs(z).mean(axis=0)], axis=1)
    return z @ np.linalg.solve(z.T @ z + (1 + 0.01 * len(z)) * np.eye(z.shape[1]), z.T @ target)


def _sums(code: np.ndarray, size: int, target: np.ndarray) -> np.ndarray:
    return np.column_stack([np.bincount(code, weights=column, minlength=size + 1) for column in target.T])


def _axes(means: np.ndarray, rows: np.ndarray, most: int) -> np.ndarray:
    """(columns, at most `most`): the identity, or the principal axes of the level means, signs fixed."""
    if means.shape[1] <= most:
        return np.eye(means.shape[1])
    _, _, turned = np.linalg.svd(means * np.sqrt(rows)[:, None], full_matrices=False)
    axes = turned[:most].T
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
