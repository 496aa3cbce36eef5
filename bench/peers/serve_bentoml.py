"""The model behind BentoML: MODEL=model.txt bentoml serve serve_bentoml:Answers --port PORT. One worker."""

from __future__ import annotations

import os
from typing import Any

import bentoml
import numpy as np


@bentoml.service(workers=1, traffic={"timeout": 30}, logging={"access": {"enabled": False}})
class Answers:
    def __init__(self) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_file=os.environ["MODEL"])

    @bentoml.api(route="/v1/predict")
    def predict(self, row: dict[str, Any]) -> dict[str, float]:
        return {"probability": float(self.booster.predict(np.array([[np.nan if v is None else v for v in row.values()]]), num_threads=1)[0])}
