"""LightGBM as a careful engineer runs it: categories as such, dates as their parts, TF-IDF of 1-2 grams for text (of characters for
Chinese), the number of trees by early stopping on 15 % of the rows, then one fit on all rows. Learning rate 0.05, else defaults.
"""

from __future__ import annotations

import pickle
import time

import lightgbm
import numpy as np
import pandas as pd
from contract import Question, chinese, dates_read, deliver, question, single_row_ms, texts
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split


class Table:
    """Frame -> what LightGBM takes: a frame of numbers and categories, or a sparse matrix where there is text."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.words = {}
        for name in texts(frame):
            cells = frame[name].fillna("").astype(str)
            self.words[name] = TfidfVectorizer(analyzer="char" if chinese(cells) else "word", ngram_range=(1, 2), min_df=2, max_features=30_000,
                                               sublinear_tf=True, dtype=np.float32).fit(cells)
        plain = frame.drop(columns=list(self.words))
        self.dates = [c for c in plain if pd.api.types.is_datetime64_any_dtype(plain[c])]
        self.levels = {c: pd.CategoricalDtype(sorted(plain[c].dropna().unique())) for c in plain.select_dtypes("object").columns}

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame | csr_matrix:
        plain = frame.drop(columns=list(self.words)).astype(self.levels)
        for name in self.dates:
            at = plain.pop(name).dt
            for part in ("year", "month", "day", "dayofweek", "hour"):
                plain[f"{name}.{part}"] = getattr(at, part)
        if not self.words:
            return plain
        sides = [words.transform(frame[name].fillna("").astype(str)) for name, words in self.words.items()]
        if plain.shape[1]:
            sides.append(csr_matrix(plain.apply(lambda c: c.cat.codes if c.dtype == "category" else c).to_numpy(dtype=np.float32)))
        return hstack(sides, format="csr")


def fit(q: Question) -> tuple[Table, lightgbm.Booster, np.ndarray | None]:
    start = time.perf_counter()
    x = dates_read(q.x)
    table = Table(x)
    ready = table(x)
    classes, y = (None, q.y.to_numpy(dtype=float)) if q.task == "regress" else np.unique(q.y, return_inverse=True)
    params = {"learning_rate": 0.05, "num_threads": 2, "verbosity": -1, "seed": 0}
    if classes is None:
        params |= {"objective": "regression", "metric": "l2"}
    elif len(classes) == 2:
        params |= {"objective": "binary", "metric": "binary_logloss"}
    else:
        params |= {"objective": "multiclass", "metric": "multi_logloss", "num_class": len(classes)}
    learn, hold = train_test_split(np.arange(len(y)), test_size=0.15, random_state=0, stratify=None if classes is None else y)
    take = (lambda rows: ready[rows]) if table.words else (lambda rows: ready.iloc[rows])

    def stop_in_time(env: lightgbm.callback.CallbackEnv) -> None:
        if time.perf_counter() - start > 0.5 * q.seconds:  # the other half is for the fit on all rows
            raise lightgbm.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    data = lightgbm.Dataset(take(learn), y[learn], free_raw_data=False)
    first = lightgbm.train(params, data, 10_000, valid_sets=[data.create_valid(take(hold), y[hold])],
                           callbacks=[lightgbm.early_stopping(100, verbose=False), stop_in_time])
    trees = first.best_iteration or first.current_iteration()
    return table, lightgbm.train(params, lightgbm.Dataset(ready, y), trees), classes


def main() -> None:
    q = question()
    start = time.perf_counter()
    table, booster, classes = fit(q)
    fit_s = time.perf_counter() - start

    def answer(frame: pd.DataFrame) -> np.ndarray:
        found = booster.predict(table(frame))
        return np.column_stack([1 - found, found]) if classes is not None and len(classes) == 2 else found

    test = dates_read(q.test)
    start = time.perf_counter()
    answers = answer(test)
    predict_s = time.perf_counter() - start
    size = (len(booster.model_to_string().encode()) + len(pickle.dumps(table))) / 2**20
    deliver(q, answers, None if classes is None else list(classes), ("lightgbm", "scikit-learn"), fit_s=fit_s, predict_s=predict_s,
            artefact_mb=round(size, 4), single_row_ms=single_row_ms(answer, test), artefact="model text + pickled preparation",
            best="lightgbm", trees=booster.num_trees())


if __name__ == "__main__":
    main()
