"""Patches of the past, mixed over time and channels: one small network for all series, trained from scratch."""

from __future__ import annotations

from typing import Any

from assay.families.base import Candidate, Model, Range
from assay.neural.forecast_layers import patches
from assay.neural.forecast_learning import Forecasts
from assay.neural.recipe import Recipe

PATCHES = 16  # tokens that a window is cut into, about: with 27 in place of 18 a step took 60 ms in place of 34 (one core, 128 windows of 216 steps)


class PatchForecaster(Forecasts, Model):
    """params: any of `Recipe`; width (a multiple of 16), depth, dropout, length (steps of a window), mix ('lines' or 'attention')."""

    recipe = Recipe(optimizer="adamw", rate=2.5e-3, decay=0.02, schedule="cosine", warm=0.1, batch=64, ema=0.99, precision="fp32")
    sizes = ((32, 2), (64, 2), (96, 3))  # width, depth

    def build(self, size: dict[str, Any]) -> Any:
        return patches(size)

    def options(self, same: dict[str, Any]) -> list[dict[str, Any]]:
        params = self.params
        more = {"dropout": float(params.get("dropout", 0.1)), "mix": params.get("mix", "lines")}
        if "width" in params or "depth" in params:
            chosen = [(same["lengths"][1], int(params.get("width", 64)), int(params.get("depth", 2)))]
        else:
            chosen = [(length, width, depth) for length, (width, depth) in zip(same["lengths"], self.sizes, strict=True)]
        return [same | more | {"length": length, "width": width, "depth": depth, "patch": patch_of(length, same["season"])} for length, width, depth in chosen]


def patch_of(length: int, season: int) -> int:
    """Steps of a patch: the part of a season that gives about `PATCHES` of them, so that the same hours share a place; without a season, any."""
    about = max(1, round(length / PATCHES))
    parts = [part for part in range(1, season + 1) if season % part == 0]
    return min(parts, key=lambda part: abs(part - about)) if 1 < season <= length else about


CANDIDATE = Candidate(
    name="patch_forecaster", rung="scratch", tasks=("forecast",), build=PatchForecaster, reads=("sequence",), requires=("sequence",),
    needs={"torch": "deep", "onnx": "deep"},
    space={"rate": Range(3e-4, 4e-3, log=True), "dropout": Range(0.0, 0.4), "decay": Range(0.001, 0.1, log=True), "width": (32, 64, 96), "depth": Range(1, 4, whole=True),
           "mix": ("lines", "attention")},
    share=6.0, at_least_s=8.0, licence="MIT, assay's own code", version="1",
    source="TSMixer (Chen et al. 2023, arXiv:2303.06053), PatchTST (Nie et al. 2023, arXiv:2211.14730), RevIN (Kim et al. 2022), DLinear (Zeng et al. 2023, arXiv:2205.13504)",
)
