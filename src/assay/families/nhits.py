"""N-HiTS: one network for all series, trained from scratch; each of its blocks sees the past at its own pace and says its part of the future at its own."""

from __future__ import annotations

from typing import Any

from assay.families.base import Candidate, Model, Range
from assay.neural.forecast_layers import nhits
from assay.neural.forecast_learning import Forecasts
from assay.neural.recipe import Recipe


class NHits(Forecasts, Model):
    """params: any of `Recipe`; width, dropout, length (steps of a window)."""

    # rate 1e-3 in its place: 0.635 for 0.620 on 100 series of M4 hourly, 0.805 for 0.788 on 44 of car sales (scaled quantile loss, n = 1)
    recipe = Recipe(optimizer="adamw", rate=2.5e-3, decay=0.01, schedule="cosine", warm=0.1, batch=128, ema=0.99, precision="fp32")
    widths = (128, 256, 512)

    def build(self, size: dict[str, Any]) -> Any:
        return nhits(size)

    def options(self, same: dict[str, Any]) -> list[dict[str, Any]]:
        more = {"dropout": float(self.params.get("dropout", 0.1))}
        if "width" in self.params:
            return [same | more | {"length": same["lengths"][1], "width": int(self.params["width"])}]
        return [same | more | {"length": length, "width": width} for length, width in zip(same["lengths"], self.widths, strict=True)]


CANDIDATE = Candidate(
    name="nhits", rung="scratch", tasks=("forecast",), build=NHits, reads=("sequence",), requires=("sequence",), needs={"torch": "deep", "onnx": "deep"},
    space={"rate": Range(3e-4, 4e-3, log=True), "dropout": Range(0.0, 0.4), "decay": Range(0.001, 0.1, log=True), "width": (128, 256, 512)},
    share=6.0, at_least_s=8.0, licence="MIT, assay's own code", version="1",
    source="N-HiTS (Challu et al. 2022, arXiv:2201.12886), RevIN (Kim et al. 2022), DLinear (Zeng et al. 2023, arXiv:2205.13504)",
)
