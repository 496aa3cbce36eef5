"""What the other columns together can say: boosted trees, out of fold, on a sample. The yardstick for one column that says too much."""

from __future__ import annotations

import numpy as np

from assay.data.inspect.view import Cells, View, ranks

ROWS = 4000
FOLDS = 3
ROUNDS = 60
GRAMS = 300  # hashed n-grams of each text, the commonest
MOST_CLASSES = 15


def out_of_fold(inputs: list[Cells], view: View, *, texts: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(rows, predicted): rows of the view, int (m,), and what trees that did not see them say: class shares (m, classes) or ranks (m,)."""
    import lightgbm as lgb

    rng = np.random.default_rng(view.seed)
    rows = np.arange(len(view)) if len(view) <= ROWS else np.sort(rng.choice(len(view), ROWS, replace=False))
    y = view.y[rows].astype(np.int64) if view.labels else ranks(view.y[rows])
    x, nominal = _matrix(inputs, view, rows, texts)
    fold = rng.permutation(len(rows)) % FOLDS
    classes = len(view.classes)
    if x.shape[1] == 0 or (view.labels and classes < 2):
        return rows, np.tile(np.bincount(y.astype(np.int64), minlength=classes) / len(y), (len(y), 1)) if view.labels else np.full(len(y), y.mean())
    objective = {"objective": "regression"} if not view.labels else {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
    settings = objective | {"learning_rate": 0.15, "num_leaves": 15, "min_data_in_leaf": max(2, min(10, len(rows) // 50)), "num_threads": 1, "seed": view.seed,
                            "deterministic": True, "force_row_wise": True, "verbosity": -1, "feature_fraction": min(1.0, 30 / x.shape[1]), "max_bin": 127,
                            "cat_smooth": 10.0, "min_data_per_group": 5}
    predicted = np.zeros((len(rows), classes)) if view.labels else np.zeros(len(rows))
    rounds = ROUNDS if classes <= 3 else max(15, 3 * ROUNDS // classes)
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        booster = lgb.train(settings, lgb.Dataset(x[train], y[train], categorical_feature=nominal, free_raw_data=True), rounds)
        told = np.asarray(booster.predict(x[test], num_threads=1))
        predicted[test] = np.column_stack([1 - told, told]) if view.labels and classes == 2 else told
    return rows, predicted


def error(inputs: list[Cells], view: View) -> float:
    """The error of `power.Power`, of many columns together."""
    if view.labels and len(view.classes) > MOST_CLASSES:
        view = common_classes(view)
        inputs = [view.cells[c.name] for c in inputs]
    rows, predicted = out_of_fold(inputs, view)
    y = view.y[rows]
    if not view.labels:
        place = ranks(y)
        return float(min(1.0, ((place - predicted) ** 2).mean() / max(place.var(), 1e-12)))
    shares = np.bincount(y.astype(np.int64), minlength=len(view.classes)) / len(y)
    answer = (predicted / np.maximum(shares, 1e-12)).argmax(axis=1)
    right = np.bincount(y.astype(np.int64)[answer == y], minlength=len(shares))
    seen = shares > 0
    balanced = float((right[seen] / (shares[seen] * len(y))).mean())
    return float(np.clip((1 - balanced) / (1 - 1 / int(seen.sum())), 0, 1))


def common_classes(view: View) -> View:
    """The rows of the MOST_CLASSES commonest classes only: enough to compare columns, and trees for 77 classes cost too much."""
    counts = np.bincount(view.y.astype(np.int64))
    kept = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    return View.of(view.data, labels=True, seed=view.seed, rows=view.rows[np.isin(view.y, kept)], seconds=60.0)


def _matrix(inputs: list[Cells], view: View, rows: np.ndarray, texts: bool) -> tuple[np.ndarray, list[int]]:
    columns = [c.values[rows] for c in inputs]
    nominal = [i for i, c in enumerate(inputs) if c.nominal and c.levels <= 200]
    for column in view.data.schema.of_kind("text") if texts else ():
        from assay.data.ngrams import hashed

        zh = column.language == "zh"
        counts = hashed(view.frame[column.name][rows].to_list(), chars=(1, 2) if zh else (0, 0), words=(0, 0) if zh else (1, 1), bits=16).tocsc()
        common = np.argsort(-np.diff(counts.indptr), kind="stable")[:GRAMS]
        columns += list(counts[:, np.sort(common)].toarray().T)
    return np.column_stack(columns) if columns else np.zeros((len(rows), 0)), nominal
