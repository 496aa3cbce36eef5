"""The floor. OPTION dummy: class shares or the mean. OPTION linear: scikit-learn's logistic or ridge regression on standardised
numbers, one-hot categories and TF-IDF of 1-2 grams (of characters for Chinese).
"""

from __future__ import annotations

import pickle
import time

import numpy as np
import pandas as pd
from contract import chinese, dates_read, deliver, question, single_row_ms, texts
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def ready(frame: pd.DataFrame) -> pd.DataFrame:
    frame = dates_read(frame)
    for name in [c for c in frame if pd.api.types.is_datetime64_any_dtype(frame[c])]:
        at = frame.pop(name).dt
        for part in ("year", "month", "dayofweek", "hour"):
            frame[f"{name}.{part}"] = getattr(at, part)
    return frame.fillna(dict.fromkeys(frame.select_dtypes("object").columns, ""))


def linear(frame: pd.DataFrame, task: str) -> object:
    free = texts(frame)
    words = [(f"words.{c}", TfidfVectorizer(analyzer="char" if chinese(frame[c]) else "word", ngram_range=(1, 2), min_df=2, sublinear_tf=True), c)
             for c in free]
    labels = [c for c in frame.select_dtypes("object").columns if c not in free]
    numbers = [c for c in frame.columns if c not in free and c not in labels]
    columns = ColumnTransformer([*words, ("labels", OneHotEncoder(handle_unknown="ignore"), labels),
                                 ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers)])
    last = RidgeCV(np.logspace(-3, 3, 13)) if task == "regress" else LogisticRegression(C=10.0 if free else 1.0, max_iter=1000)
    return make_pipeline(columns, last)


def main() -> None:
    q = question()
    x, test = ready(q.x), ready(q.test)
    start = time.perf_counter()
    if q.option == "dummy":
        model = DummyRegressor() if q.task == "regress" else DummyClassifier(strategy="prior")
    else:
        model = linear(x, q.task)
    model.fit(x, q.y)
    fit_s = time.perf_counter() - start
    answer = model.predict if q.task == "regress" else model.predict_proba
    start = time.perf_counter()
    answers = answer(test)
    predict_s = time.perf_counter() - start
    deliver(q, answers, None if q.task == "regress" else list(model.classes_), ("scikit-learn",), fit_s=fit_s, predict_s=predict_s,
            artefact_mb=round(len(pickle.dumps(model)) / 2**20, 4), single_row_ms=single_row_ms(answer, test), artefact="pickle", best=q.option)


if __name__ == "__main__":
    main()
