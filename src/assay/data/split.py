"""Which rows teach and which judge: stratified, grouped or forward in time. Made once, saved, overlap refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from assay.data.dataset import MEDIA, Dataset, Schema
from assay.errors import InputError, TaskError

OWN = "split"  # the unit of a column, of kind id, that says which rows teach and which judge
_SIDES = {"train": ("train", "training", "trn", "训练", "训练集"), "test": ("test", "testing", "tst", "测试", "测试集"),
          "valid": ("val", "valid", "validation", "dev", "eval", "验证", "验证集")}
_SIDE_OF = {word: side for side, words in _SIDES.items() for word in words}


@dataclass(frozen=True)
class Split:
    """Row numbers that teach and row numbers that judge, both sorted, never overlapping.

    clusters: shape (len(test),), rows with the same code are not independent (one patient, one stretch of time).
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    clusters: np.ndarray

    def __post_init__(self) -> None:
        if np.intersect1d(self.train, self.test, assume_unique=True).size:
            raise ValueError(f"split {self.name}: a row would both teach and judge")
        if not len(self.train) or not len(self.test):
            raise TaskError("There are too few rows to split: {n}.", n=len(self.train) + len(self.test))


def splits(
    data: Dataset, *, folds: int, share: float, seed: int, kind: str, strata: np.ndarray | None = None,
    test_rows: int | None = None,
) -> list[Split]:
    """`folds` splits of kind random, group or time, or the one that the data bring: given.

    folds 1: one holdout of `share` of the rows (at most `test_rows`). folds > 1: each row is tested once for random and
    group; for time, `folds` equal stretches of the last `share * folds`, each judged by a model that knows only what
    came before. strata: codes (n,) whose shares a random split keeps. Copies of a row (see `copies`) stay on one side.
    given: what the data call test judges, at most `test_rows` of it; all else teaches, but for copies of what judges.
    """
    n = len(data)
    rng = np.random.default_rng(seed)
    codes: np.ndarray | None
    if kind == "time":
        return _forward(data, folds, share, test_rows)
    if kind == "given":
        return [_given(data, test_rows, rng, strata)]
    if kind == "group":
        if data.schema.group is None:
            raise InputError("A split by group needs a group column. Name it with --group COLUMN.")
        codes = _codes(data.frame[data.schema.group])
        if codes.max() + 1 < 2:
            raise TaskError("The group column '{name}' has one value only, so no group can be kept aside.", name=data.schema.group)
    else:
        codes = copies(data)
    fold_of = _folds(n, max(folds, round(1 / share)), rng, strata, codes)
    out = []
    for k in range(folds):
        test = np.flatnonzero(fold_of == k)
        train = np.flatnonzero(fold_of != k)
        if folds == 1 and test_rows and len(test) > test_rows:
            kept = _stratified_sample(test, test_rows, rng, strata)
            back = np.setdiff1d(test, kept, assume_unique=True)
            if codes is not None:  # what is not needed for the test may teach, unless a relative of it judges
                back = back[~np.isin(codes[back], codes[kept])]
            train, test = np.sort(np.r_[train, back]), kept
        clusters = np.arange(len(test)) if codes is None else _compact(codes[test])
        out.append(Split(f"fold {k + 1}" if folds > 1 else "holdout", train, test, clusters))
    return out


def copies(data: Dataset) -> np.ndarray | None:
    """Codes (n,) that rows with the same inputs share, or None where equal inputs are no sign of a copied row.

    A row counts as a copy if all its features are equal and they would hardly be so by chance: there is a text or a sequence, or the
    numbers alone tell most rows apart. Where there are pictures or sounds, the same file is a copy whatever stands beside it.
    A copy on both sides of a split would reward memory, not knowledge.
    """
    names = [c.name for c in data.schema.of_kind("image", "audio")] or [c.name for c in data.schema.features]
    telling = [c.name for c in data.schema.of_kind("text", *MEDIA) if c.name in names] or [
        c.name for c in data.schema.of_kind("number") if data.frame[c.name].n_unique() > len(data) / 4]
    if not telling:
        return None
    hashes = data.frame.select(names).hash_rows(seed=0).to_numpy()
    codes = np.unique(hashes, return_inverse=True)[1]
    blank = data.frame.select(pl.all_horizontal(pl.col(telling).is_null())).to_series().to_numpy()
    codes[blank] = codes.max() + 1 + np.arange(int(blank.sum()))  # rows that say nothing are alike, but no copies
    codes = np.unique(codes, return_inverse=True)[1]
    return codes if codes.max() + 1 < len(data) else None


def side_of(word: str) -> str | None:
    """'train', 'test' or 'valid' for a word that means it (Train, dev, 测试集), else None."""
    return _SIDE_OF.get(word.strip().lower())


def judges(column: pl.Series) -> np.ndarray | None:
    """Bool (n,), True for the rows that judge, if every cell says train, test or validation and both sides are there; else None.

    Validation rows teach; where nothing is called test, they judge.
    """
    words = column.unique().to_list()
    found = {w: side_of(w) if isinstance(w, str) else None for w in words}
    sides = set(found.values())
    if None in sides or "train" not in sides or len(sides) < 2:
        return None
    late = "test" if "test" in sides else "valid"
    return column.is_in([w for w, s in found.items() if s == late]).to_numpy()


def own_split(schema: Schema) -> str | None:
    """The column that says which rows teach and which judge, if the data bring one."""
    return next((c.name for c in schema.columns if c.kind == "id" and c.unit == OWN), None)


def _given(data: Dataset, test_rows: int | None, rng: np.random.Generator, strata: np.ndarray | None) -> Split:
    name = own_split(data.schema)
    late = None if name is None else judges(data.frame[name])
    if late is None:
        raise InputError("The data bring no split of their own: that takes folders called train and test, or a column called split whose cells say train or test.")
    test, train = np.flatnonzero(late), np.flatnonzero(~late)
    codes = copies(data)
    if codes is not None:
        train = train[~np.isin(codes[train], codes[test])]
    if test_rows and len(test) > test_rows:
        test = _stratified_sample(test, test_rows, rng, strata)
    return Split("given", train, test, np.arange(len(test)) if codes is None else _compact(codes[test]))


def holdout(data: Dataset, *, share: float, seed: int, strata: np.ndarray | None = None, most: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """(rest, held) row numbers, for a model's own tuning and early stopping inside its training rows.

    Follows the group, then the time column or the order of the rows, of the schema; else random, keeping the shares of `strata`.
    """
    kind = "group" if data.schema.group else "time" if data.schema.time or data.schema.ordered else "random"
    if kind == "group" and data.frame[data.schema.group].n_unique() < 3:  # type: ignore[index]
        kind = "random"
    if kind == "time" and len(data) < 10:
        kind = "random"
    one = splits(data, folds=1, share=share, seed=seed, kind=kind, strata=strata, test_rows=most)[0]
    return one.train, one.test


def fewer(data: Dataset, rows: np.ndarray, *, share: float, seed: int, strata: np.ndarray | None = None) -> np.ndarray:
    """The `share` of these row numbers that a smaller data set would have had, sorted: whole groups, the latest stretch of time, or
    a random part that keeps the shares of `strata` (n,) over all rows. For one seed, a smaller share is a part of a larger one."""
    wanted = max(1, round(len(rows) * share))
    if data.schema.group is not None:
        codes = _compact(_codes(data.frame[data.schema.group])[rows])
        place = np.random.default_rng(seed).permutation(int(codes.max()) + 1)[codes]
        counts = np.cumsum(np.bincount(place))
        return rows[place <= np.searchsorted(counts, wanted)]
    if data.schema.time is not None or data.schema.ordered:
        ranks = np.arange(len(data)) if data.schema.time is None else _codes(data.frame[data.schema.time])
        return np.sort(rows[np.argsort(ranks[rows], kind="stable")][-wanted:])
    shuffled = np.random.default_rng(seed).permutation(rows)
    if strata is not None:  # dealt out evenly, so that every beginning keeps the shares
        by_stratum = np.argsort(strata[shuffled], kind="stable")
        sizes = np.bincount(strata[shuffled])
        place = np.empty(len(rows))
        place[by_stratum] = (np.concatenate([np.arange(n) for n in sizes]) + 0.5) / np.repeat(sizes, sizes)
        shuffled = shuffled[np.argsort(place, kind="stable")]
    return np.sort(shuffled[:wanted])


def save(parts: list[Split], path: Path) -> None:
    arrays: dict[str, np.ndarray] = {}
    for i, part in enumerate(parts):
        arrays |= {f"{i}.train": part.train, f"{i}.test": part.test, f"{i}.clusters": part.clusters}
    with path.open("wb") as sink:
        np.savez(sink, names=np.array([p.name for p in parts]), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> list[Split]:
    with np.load(path, allow_pickle=False) as saved:
        return [Split(str(name), saved[f"{i}.train"], saved[f"{i}.test"], saved[f"{i}.clusters"])
                for i, name in enumerate(saved["names"])]


def _folds(n: int, folds: int, rng: np.random.Generator, strata: np.ndarray | None, groups: np.ndarray | None) -> np.ndarray:
    """The fold of each row: groups stay whole and folds equal in rows; strata are dealt out like cards."""
    if groups is not None:
        sizes = np.bincount(groups)
        shuffled = rng.permutation(len(sizes))
        if len(sizes) > 20 * folds and sizes.max() < n / (20 * folds):  # many small groups: deal them out like rows
            first = np.zeros(len(sizes), dtype=np.int64)
            first[groups[::-1]] = np.arange(n)[::-1]
            order = shuffled if strata is None else shuffled[np.argsort(strata[first[shuffled]], kind="stable")]
            fold_of_group = np.empty(len(sizes), dtype=np.int64)
            fold_of_group[order] = (np.arange(len(sizes)) + rng.integers(folds)) % folds
            return fold_of_group[groups]
        order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]  # few or large ones: the largest first, each to the emptiest fold
        filled = np.zeros(min(folds, len(sizes)))
        fold_of_group = np.zeros(len(sizes), dtype=np.int64)
        for g in order:
            fold_of_group[g] = int(filled.argmin())
            filled[fold_of_group[g]] += sizes[g]
        return fold_of_group[groups]
    shuffled = rng.permutation(n)
    order = shuffled if strata is None else shuffled[np.argsort(strata[shuffled], kind="stable")]
    out = np.empty(n, dtype=np.int64)
    out[order] = (np.arange(n) + rng.integers(folds)) % folds
    return out


def _stratified_sample(rows: np.ndarray, most: int, rng: np.random.Generator, strata: np.ndarray | None) -> np.ndarray:
    """`most` of `rows`, spread evenly over the strata, sorted."""
    shuffled = rng.permutation(rows)
    order = shuffled if strata is None else shuffled[np.argsort(strata[shuffled], kind="stable")]
    return np.sort(order[(np.arange(most) * len(order)) // most])


def _forward(data: Dataset, folds: int, share: float, test_rows: int | None) -> list[Split]:
    n = len(data)
    if data.schema.time is None and not data.schema.ordered:
        raise InputError("A split forward in time needs a time column. Name it with --time-column COLUMN.")
    ranks = np.arange(n)
    if data.schema.time is not None:
        stamps = data.frame[data.schema.time]
        if stamps.null_count():
            raise InputError(
                "The time column '{name}' has {n} empty or unreadable rows, so they cannot be ordered.",
                name=data.schema.time, n=stamps.null_count(),
            )
        ranks = _codes(stamps)
    size = max(1, min(round(n * share), test_rows or n))
    size = min(size, (n - 1) // (folds + 1) or 1)
    order = np.argsort(ranks, kind="stable")
    out = []
    for k in range(folds):
        stop = n - (folds - 1 - k) * size
        start = stop - size
        test = order[start:stop]
        train = order[:start]
        train = train[ranks[train] < ranks[test[0]]]  # rows of the same instant never stand on both sides
        length = max(1, round(len(test) ** 0.5))
        blocks = np.arange(len(test)) // length  # neighbours in time are not independent: blocks of sqrt(n)
        back = np.argsort(test)
        out.append(Split(f"fold {k + 1}" if folds > 1 else "holdout", np.sort(train), test[back], blocks[back]))
    return out


def _codes(column: pl.Series) -> np.ndarray:
    """0, 1, 2... in the order of the values; empty values share one code."""
    return column.rank("dense").fill_null(0).to_numpy().astype(np.int64) - (0 if column.null_count() else 1)


def _compact(codes: np.ndarray) -> np.ndarray:
    return np.unique(codes, return_inverse=True)[1]
