"""The model in MLflow's own format, for `mlflow models serve`: python serve_mlflow.py MODEL.txt FOLDER"""

from __future__ import annotations

import sys

import lightgbm
import mlflow.lightgbm

if __name__ == "__main__":
    mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2])
