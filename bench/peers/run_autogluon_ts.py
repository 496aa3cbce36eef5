"""AutoGluon-TimeSeries: python run_autogluon_ts.py SPLIT SECONDS OUT PRESET

SPLIT: a folder of `forecast_sets.split`. It is told to optimise the weighted quantile loss, which it is judged by; all else is its default, but for the pre-trained
models of its presets (Chronos-2, Toto-2), whose weights it would fetch from a hub: they are left out. OUT gets told.parquet (id, step, a column a quantile)
and facts.json.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd

FETCHED = ["Chronos", "Chronos2", "Toto", "Toto2"]


def main() -> None:
    split, seconds, out, preset = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    out.mkdir(parents=True, exist_ok=True)
    from autogluon.timeseries import TimeSeriesDataFrame, TimeSeriesPredictor

    about = json.loads((split / "about.json").read_text(encoding="utf-8"))
    train, asks = (TimeSeriesDataFrame.from_data_frame(pd.read_parquet(split / f"{name}.parquet"), id_column="id", timestamp_column="time") for name in ("train", "asks"))
    start = time.perf_counter()
    predictor = TimeSeriesPredictor(prediction_length=about["horizon"], target="value", freq=about["frequency"], eval_metric="WQL", quantile_levels=about["levels"],
                                    path=str(out / "whole"), verbosity=2)
    predictor.fit(train, presets=preset, time_limit=seconds, excluded_model_types=FETCHED, random_seed=0)
    fit_s = time.perf_counter() - start
    board = predictor.leaderboard(silent=True)
    start = time.perf_counter()
    told = predictor.predict(asks, random_seed=0).reset_index()
    predict_s = time.perf_counter() - start
    told["step"] = told.groupby("item_id").cumcount() + 1
    names = {str(level): f"q{level:g}" for level in about["levels"]}
    told.rename(columns={"item_id": "id"} | names)[["id", "step", *names.values()]].to_parquet(out / "told.parquet")
    best = predictor.model_best
    weights = {}
    if best.startswith("WeightedEnsemble"):
        weights = predictor._trainer.load_model(best).model_to_weight  # the share of each member; there is no public way to it
    (out / "facts.json").write_text(json.dumps({"fit_s": fit_s, "predict_s": predict_s, "best": best, "weights": {k: round(float(v), 3) for k, v in weights.items()},
                                                "models": board[["model", "score_val", "fit_time_marginal"]].to_dict("records"), "version": version("autogluon.timeseries")}), encoding="utf-8")
    shutil.rmtree(out / "whole", ignore_errors=True)


if __name__ == "__main__":
    main()
