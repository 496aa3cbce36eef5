"""AutoGluon tabular. OPTION: the preset. Scored by log loss or RMSE, so it is told to optimise that; all else is its default.

Before timing single rows the predictor is cloned for deployment and its models are kept in memory (`persist`), as its
documentation advises; the artefact is that clone. Its text features are word n-grams: left alone it takes Chinese, which has no
spaces, for a category and answers with the shares of the classes (waimai_10k_zh: log loss 0.637, AUC 0.5), so Chinese is spaced.
"""

from __future__ import annotations

import shutil
import time

from contract import chinese, deliver, folder_mb, question, single_row_ms, spaced, texts


def main() -> None:
    q = question()
    from autogluon.tabular import TabularPredictor

    kind = "regression" if q.task == "regress" else "binary" if q.y.nunique() == 2 else "multiclass"
    metric = "root_mean_squared_error" if q.task == "regress" else "log_loss"
    whole, small = q.out / "whole", q.out / "deployed"
    start = time.perf_counter()
    wide = [c for c in texts(q.x) if chinese(q.train[c].dropna().astype(str))]
    q.train, q.test = spaced(q.train, wide), spaced(q.test, wide)
    predictor = TabularPredictor(label=q.target, problem_type=kind, eval_metric=metric, path=str(whole), verbosity=2)
    predictor.fit(q.train, presets=q.option, time_limit=q.seconds)
    fit_s = time.perf_counter() - start
    board = predictor.leaderboard(silent=True)
    best = predictor.model_best
    whole_mb = folder_mb(whole)
    predictor = TabularPredictor.load(predictor.clone_for_deployment(str(small)))
    kept = predictor.persist()
    start = time.perf_counter()
    if q.task == "regress":
        answers, classes = predictor.predict(q.test).to_numpy(), None
    else:
        frame = predictor.predict_proba(q.test)
        answers, classes = frame.to_numpy(), list(frame.columns)
    predict_s = time.perf_counter() - start
    one = predictor.predict if q.task == "regress" else predictor.predict_proba
    latency = single_row_ms(one, q.test)
    deliver(q, answers, classes, ("autogluon.tabular", "lightgbm", "catboost", "xgboost-cpu", "torch", "fastai", "scikit-learn"),
            fit_s=fit_s, predict_s=predict_s, artefact_mb=folder_mb(small), whole_mb=whole_mb, single_row_ms=latency,
            artefact="clone_for_deployment", persisted=len(kept or []), spaced=wide, best=best,
            models=board[["model", "score_val", "fit_time"]].to_dict("records"))
    shutil.rmtree(whole, ignore_errors=True)
    shutil.rmtree(small, ignore_errors=True)


if __name__ == "__main__":
    main()
