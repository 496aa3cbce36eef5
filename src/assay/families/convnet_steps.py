"""Convolutional networks from scratch for sequences (dilated, over time) and sounds (residual, over a spectrogram)."""

from __future__ import annotations

from typing import Any

from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate, Model, Range
from assay.neural import fitting, step_network
from assay.neural.balance import WAYS as BALANCED
from assay.neural.recipe import Recipe
from assay.neural.stem import strides_for
from assay.neural.step_convolution import convolution

RECIPE = Recipe(optimizer="adamw", rate=4e-3, decay=0.02, schedule="one_cycle", batch=64, ema=0.98, smoothing=0.05, patience=1.0)
STEPS = ((32, 3), (64, 4), (96, 5))  # width, depth; the last block sees 2 ** depth * 4 steps
PLANES = ((16, 32, 64), (24, 48, 96), (32, 64, 128, 128))
DEFAULT = 1
MOST_READ = 256  # steps; the stem shortens longer rows


class StepConvnet(step_network.Serves, Model):
    """params: any of `Recipe`; width, depth, dropout, augment (0-1), balanced (one of `balance.WAYS`)."""

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> StepConvnet:
        lesson = step_network.lesson(("sequence", "audio"), self.task, train, seed=seed, budget=budget)
        budget.after_reading(0.3)
        recipe = fitting.tuned(RECIPE, self.params)
        self.served, self.facts = step_network.learn(lesson, convolution, self._options(lesson), recipe, default=DEFAULT, seed=seed, budget=budget,
                                                     strength=self.params.get("augment", 1.0), balanced=self.params.get("balanced", "no"))
        return self

    def _options(self, lesson: step_network.Lesson) -> list[dict[str, Any]]:
        read, planar = lesson.reader.sizes(), lesson.reader.kind == "audio"
        same = read | {"planar": planar, "dropout": self.params.get("dropout", 0.2), "outputs": lesson.aim.outputs, "strides": strides_for(read["length"], MOST_READ)}
        if planar:
            return [same | {"widths": list(widths)} for widths in PLANES]
        if "width" in self.params or "depth" in self.params:
            return [same | {"width": self.params.get("width", STEPS[DEFAULT][0]), "depth": self.params.get("depth", STEPS[DEFAULT][1])}]
        return [same | {"width": width, "depth": depth} for width, depth in STEPS[: 2 if lesson.n < 300 else 3]]


CANDIDATE = Candidate(
    name="convnet_steps", rung="scratch", tasks=("classify", "regress"), build=StepConvnet, reads=("sequence", "audio"), requires=("sequence", "audio"),
    needs={"torch": "deep", "onnx": "deep"}, share=6.0, at_least_s=4.0, licence="MIT, assay's own code", version="1",
    space={"rate": Range(1e-3, 2e-2, log=True), "dropout": Range(0.0, 0.5), "decay": Range(1e-3, 0.1, log=True), "smoothing": Range(0.0, 0.2), "augment": Range(0.0, 1.0),
           "balanced": BALANCED},
    source="temporal convolutional networks (Bai et al. 2018, arXiv:1803.01271), residual networks (He et al. 2016, arXiv:1603.05027), SpecAugment (Park et al. "
    "2019, arXiv:1904.08779)",
)
