"""Hugging Face: any sentence encoder that lies in a local folder, frozen, with a head. Nothing is downloaded, no code is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.case import Case
from assay.data.dataset import Schema
from assay.families.base import Candidate, Model, TooSlow
from assay.neural.base import Encoder
from assay.neural.encoders import folder_encoder, folder_refuses
from assay.neural.frozen import FrozenEncoder
from assay.words import Text, say


class HuggingFaceModel(FrozenEncoder, Model):
    """params: `folder`, with config.json, tokenizer.json and either onnx/model.onnx, model.onnx or model.safetensors."""

    too_slow = TooSlow

    def open_encoder(self, threads: int) -> Encoder:
        return folder_encoder(Path(self.params["folder"]), threads)

    def load_encoder(self, folder: Path, threads: int) -> Encoder:
        return folder_encoder(folder, threads)


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    if not case.encoder:
        return say("it needs --encoder FOLDER")
    reason = folder_refuses(Path(case.encoder))
    return reason if reason is not None else {"folder": str(Path(case.encoder).resolve())}


candidate = Candidate(
    name="hf", rung="pretrained", tasks=("classify", "regress"), build=HuggingFaceModel, requires=("text",), prepare=prepare,
    share=8.0, at_least_s=3.0, source="https://huggingface.co", licence="that of the folder", version="the folder named by --encoder",
)
