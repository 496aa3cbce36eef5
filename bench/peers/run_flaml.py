"""FLAML AutoML with its default learners (LightGBM, XGBoost, CatBoost, forests, linear), told the loss that is scored.

The artefact is the pickled AutoML object, as its documentation saves it: the transformer and the best model.
"""

from __future__ import annotations

import pickle
import time

from contract import dates_read, deliver, question, single_row_ms


def main() -> None:
    q = question()
    from flaml import AutoML

    x, y, test = dates_read(q.x), q.y, dates_read(q.test)
    model = AutoML()
    start = time.perf_counter()
    model.fit(x, y, task="regression" if q.task == "regress" else "classification", metric="rmse" if q.task == "regress" else "log_loss",
              time_budget=q.seconds, n_jobs=2, seed=0, verbose=1)
    fit_s = time.perf_counter() - start
    one = model.predict if q.task == "regress" else model.predict_proba
    start = time.perf_counter()
    answers = one(test)
    predict_s = time.perf_counter() - start
    latency = single_row_ms(one, test)
    size = len(pickle.dumps(model, pickle.HIGHEST_PROTOCOL)) / 2**20
    deliver(q, answers, None if q.task == "regress" else list(model.classes_), ("flaml", "lightgbm", "catboost", "xgboost-cpu", "scikit-learn"),
            fit_s=fit_s, predict_s=predict_s, artefact_mb=round(size, 4), single_row_ms=latency, artefact="pickle of the AutoML object",
            best=model.best_estimator, tried=len(model.config_history or {}))


if __name__ == "__main__":
    main()
