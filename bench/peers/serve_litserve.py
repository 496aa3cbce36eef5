"""The model behind LitServe, as its documents show it: python serve_litserve.py MODEL.txt PORT. One worker, its quick loop of uvicorn."""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np


class Answers(litserve.LitAPI):
    def setup(self, device: str) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_file=sys.argv[1])

    def decode_request(self, request, **_: Any) -> np.ndarray:  # type: ignore[no-untyped-def]  # an annotation would tell LitServe to look for a query
        return np.array([[np.nan if v is None else v for v in request["row"].values()]])

    def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
        return self.booster.predict(x, num_threads=1)

    def encode_response(self, output: np.ndarray, **_: Any) -> dict[str, float]:
        return {"probability": float(output[0])}


if __name__ == "__main__":
    litserve.LitServer(Answers(), accelerator="cpu", workers_per_device=1).run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="warning")
