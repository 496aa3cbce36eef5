"""The least that an HTTP service of the model can be: one ASGI function, no checks, no keys, nothing kept.

python serve_bare.py convert MODEL.txt MODEL.onnx              the same trees for ONNX Runtime
python serve_bare.py onnx MODEL.onnx PORT | booster MODEL.txt PORT | empty - PORT
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import numpy as np


def convert(source: str, target: str) -> None:
    import lightgbm
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    booster = lightgbm.Booster(model_file=source)
    graph = convert_lightgbm(booster, initial_types=[("x", FloatTensorType([None, booster.num_feature()]))], zipmap=False, target_opset=15)
    with open(target, "wb") as file:
        file.write(graph.SerializeToString())


def model(kind: str, file: str) -> Any:
    """row (list of numbers) -> probability of the second class."""
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda row: float(session.run(["probabilities"], {"x": np.array([row], dtype=np.float32)})[0][0, 1])
    if kind == "booster":
        import lightgbm

        booster = lightgbm.Booster(model_file=file)
        return lambda row: float(booster.predict(np.array([row]), num_threads=1)[0])
    return None


def application(kind: str, file: str) -> Any:
    answer, decode, encode = model(kind, file), msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        said = encode({"probability": answer([v if v is not None else np.nan for v in decode(body)["row"].values()])}) if answer else b"{}"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode())]})
        await send({"type": "http.response.body", "body": said})

    return app


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:4])
    else:
        import uvicorn

        uvicorn.run(application(sys.argv[1], sys.argv[2]), port=int(sys.argv[3]), loop="uvloop", http="httptools", access_log=False, log_level="warning", server_header=False, date_header=False)
