"""Rows that stand there twice: exact copies, and near ones - a text with a word changed, numbers rounded or measured again."""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.data.inspect.view import View, whole_or_head
from assay.data.split import copies as copied
from assay.words import say

MANY = 0.01  # share of the rows from which it is a warning
TEXTS = 6000
NUMBERS = 10_000
LIKE = 0.8  # Jaccard similarity of two texts' 4-character pieces
CLOSE = 0.01  # of a column's spread: the most that two near copies differ by


def exact(data: Dataset) -> list[Finding]:
    """Rows whose inputs are all equal, where that is hardly chance (see data.split.copies)."""
    all_rows, data = len(data), whole_or_head(data)
    codes = copied(data)
    if codes is None:
        return []
    n, different = len(data), int(codes.max()) + 1
    spare = n - different
    if spare < 2 and spare / n < 0.001:
        return []
    answers = data.y.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    unlike = n - spare - len(np.unique(codes * np.int64(answers.max() + 1) + answers))
    text = say("{spare:,} of {n:,} rows ({percent:.1f} %) repeat the inputs of another row{unlike}.", spare=spare, n=n, percent=100 * spare / n,
               unlike=say("; {count:,} of them with another answer", count=-unlike) if unlike else "")
    advice = say("Copies are kept on one side of every split here, so they do not flatter. Drop them if they are no separate cases.")
    return [Finding("duplicates", "warning" if spare >= MANY * n else "note", text, advice, (), {"copies": spare, "rows": n, "share": round(spare / n, 5), "sampled": n < all_rows})]


def near(view: View) -> list[Finding]:
    """Pairs of rows that differ a little, beyond what the density of the data explains."""
    schema = view.data.schema
    out = []
    for column in [c for c in schema.of_kind("text") if c.language == "zh" or _worded(view.frame[c.name])][:2]:
        pairs, looked = like_texts(view.frame[column.name].to_list()[:TEXTS], view.seed)
        rows = len(np.unique(pairs))
        if rows >= max(4, 0.002 * looked):
            out.append(_finding(view, rows, looked, pairs, say("texts in '{column}' are nearly the same as another one", column=column.name), (column.name,)))
    if not out and not schema.of_kind("text"):
        pairs, looked = like_numbers(view)
        rows = len(np.unique(pairs))
        if rows >= max(4, 0.002 * looked):
            out.append(_finding(view, rows, looked, pairs, say("rows are nearly the same as another one in every column"), ()))
    return out


def _worded(series: pl.Series) -> bool:
    """Words with spaces between them; formulas and codes are alike by nature."""
    return float(series.drop_nulls().head(500).str.count_matches(" ").median() or 0) >= 2  # type: ignore[arg-type]


def _finding(view: View, rows: int, looked: int, pairs: np.ndarray, what: object, columns: tuple[str, ...]) -> Finding:
    a, b = (view.rows[pairs[0]] + 1).tolist()
    text = say("{rows:,} of {looked:,} {what}, such as rows {a:,} and {b:,}.", rows=rows, looked=looked, what=what, a=a, b=b)
    advice = say("If they are the same case measured or written twice, a random split flatters: name what they share with --group COLUMN, or drop them.")
    figure = {"near_copies": rows, "rows": looked, "share": round(rows / looked, 5), "example": [a, b], "sampled": looked < len(view.data)}
    return Finding("near_duplicates", "warning" if rows >= 0.05 * looked else "note", text, advice, columns, figure)


def like_texts(texts: list[str | None], seed: int) -> tuple[np.ndarray, int]:
    """Pairs (p, 2) of texts that share LIKE of their pieces but are not equal, and how many were looked at. MinHash (Broder 1997) in 10 bands of 5."""
    from assay.data.ngrams import hashed

    counts = hashed(texts, chars=(4, 4), words=(0, 0), bits=20)
    sizes = np.diff(counts.indptr)
    usable = np.flatnonzero(sizes >= 12)  # shorter ones are alike by nature
    if len(usable) < 2:
        return np.zeros((0, 2), dtype=np.int64), len(texts)
    matrix = counts[usable]
    rng = np.random.default_rng(seed)
    bands = np.empty((10, len(usable)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for band in range(10):
            code = np.zeros(len(usable), dtype=np.uint64)
            for _ in range(5):
                factor, shift = rng.integers(1, 2**63, 2, dtype=np.uint64) | np.uint64(1)
                mixed = (matrix.indices.astype(np.uint64) * factor + shift) >> np.uint64(20)
                code = code * np.uint64(0x9E3779B97F4A7C15) + np.minimum.reduceat(mixed, matrix.indptr[:-1])
            bands[band] = code
    pairs = _pairs_of(bands)
    a, b = matrix[pairs[:, 0]], matrix[pairs[:, 1]]
    a.data[:] = 1
    b.data[:] = 1
    both = np.asarray(a.multiply(b).sum(axis=1)).ravel()
    either = np.diff(a.indptr) + np.diff(b.indptr) - both
    pairs = usable[pairs[both >= LIKE * either]]
    different = np.array([texts[i] != texts[j] for i, j in pairs], dtype=bool)
    return pairs[different] if len(pairs) else pairs, len(texts)


def _pairs_of(bands: np.ndarray) -> np.ndarray:
    """Pairs (p, 2) of columns that agree in a row; neighbours in each bucket only, so that a thousand equal ones make 999 pairs, not half a million."""
    found = []
    for code in bands:
        order = np.argsort(code, kind="stable")
        same = code[order][1:] == code[order][:-1]
        found.append(np.column_stack([order[:-1][same], order[1:][same]]))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def like_numbers(view: View) -> tuple[np.ndarray, int]:
    """Pairs (p, 2) of rows that differ by at most CLOSE of the spread in every number and nowhere else, but somewhere; and the rows looked at.

    Smooth data have close pairs too: on a line as many between once and twice the distance as below it, in more dimensions more. Only
    if far more than that are close they are a kind of their own. Else an empty array.
    """
    from scipy.spatial import cKDTree

    nothing = np.zeros((0, 2), dtype=np.int64)
    n = min(len(view), NUMBERS)
    numbers = [c for c in view.inputs if not c.nominal and c.levels > min(100, n / 5) and c.column.kind == "number"]
    if len(numbers) < 3 or n < 50:
        return nothing, n
    rows = np.arange(n) if n == len(view) else np.sort(np.random.default_rng(view.seed).choice(len(view), n, replace=False))
    columns = []
    for cells in numbers:
        values = np.nan_to_num(cells.values[rows], nan=0.0)
        spread = max(float(np.subtract(*np.quantile(values, [0.75, 0.25]))), 0.3 * float(values.std()))
        columns.append(values / (spread or 1.0))
    columns += [10.0 * c.codes[rows] for c in view.inputs if c.nominal or c not in numbers]
    tree = cKDTree(np.column_stack(columns))
    equal, close, wider = tree.count_neighbors(tree, np.array([0.0, CLOSE, 2 * CLOSE]), p=np.inf) // 2
    inside, outside = int(close - equal), int(wider - close)
    if inside - outside < 4 + 3 * (inside + outside) ** 0.5:
        return nothing, n
    pairs = tree.query_pairs(CLOSE, p=np.inf, output_type="ndarray")
    different = np.any(tree.data[pairs[:, 0]] != tree.data[pairs[:, 1]], axis=1)
    return rows[pairs[different]], n
