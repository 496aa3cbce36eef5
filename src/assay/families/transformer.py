"""Transformer encoders trained from scratch on sequences, sounds, pictures and texts: what is read decides the first layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate, Model, Range
from assay.neural import fitting, step_network
from assay.neural.attention import transformer
from assay.neural.balance import WAYS as BALANCED
from assay.neural.recipe import Recipe
from assay.neural.stem import strides_for

RECIPE = Recipe(optimizer="adamw", rate=1e-3, decay=0.05, schedule="cosine", warm=0.15, batch=64, smoothing=0.1, ema=0.99)
# texts are learnt by heart soonest: at the rate of the others, 6,920 sentences were best after two of six passes
TEXT_RECIPE = replace(RECIPE, rate=5e-4, decay=0.1)
SIZES = ((64, 2), (96, 3), (128, 4), (192, 6))  # width, blocks
DEFAULT = 1
MOST_TOKENS = 40  # of a sequence or a sound, after the convolutions
DROPOUT = {"sequence": 0.1, "audio": 0.1, "image": 0.1, "text": 0.3}


class Transformer(step_network.Serves, Model):
    """params: any of `Recipe`; dropout, path (stochastic depth), width (a multiple of 32), depth, augment (0-1), balanced (one of `balance.WAYS`)."""

    kinds: ClassVar[tuple[str, ...]] = ("sequence", "audio", "image")

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Transformer:
        import torch  # noqa: F401 - seconds, which the next line counts

        budget.after_torch(0.5)
        lesson = step_network.lesson(self.kinds, self.task, train, seed=seed, budget=budget)
        budget.after_reading(0.3)
        recipe = fitting.tuned(TEXT_RECIPE if lesson.reader.kind == "text" else RECIPE, self.params)
        self.served, self.facts = step_network.learn(lesson, transformer, self._options(lesson), recipe, default=DEFAULT, seed=seed, budget=budget,
                                                     strength=self.params.get("augment", 1.0), balanced=self.params.get("balanced", "no"))
        return self

    def _options(self, lesson: step_network.Lesson) -> list[dict[str, Any]]:
        params, sizes = self.params, lesson.reader.sizes()
        same = sizes | {"strides": strides_for(sizes["length"], MOST_TOKENS), "wider": 2, "dropout": params.get("dropout", DROPOUT[lesson.reader.kind]),
                        "path": params.get("path", 0.1), "outputs": lesson.aim.outputs}
        if "width" in params or "depth" in params:
            return [same | {"width": params.get("width", SIZES[DEFAULT][0]), "depth": params.get("depth", SIZES[DEFAULT][1])}]
        most = 2 if lesson.n < 500 else 3 if lesson.n < 5000 else 4
        return [same | {"width": width, "depth": depth} for width, depth in SIZES[:most]]


class TextTransformer(Transformer):
    """The same for texts, which a small network learns too little from to hold a table's other candidates up."""

    kinds: ClassVar[tuple[str, ...]] = ("text",)


_SPACE: dict[str, Any] = {
    "rate": Range(2e-4, 4e-3, log=True), "dropout": Range(0.0, 0.4), "decay": Range(0.01, 0.2, log=True), "path": Range(0.0, 0.3),
    "smoothing": Range(0.0, 0.2), "width": (64, 96, 128), "depth": Range(1, 4, whole=True), "augment": Range(0.0, 1.0), "balanced": BALANCED,
}
_SOURCE = ("transformer (Vaswani et al. 2017, arXiv:1706.03762), pre-norm (Xiong et al. 2020, arXiv:2002.04745), rotary positions (Su et al. 2021, "
           "arXiv:2104.09864), stochastic depth (Huang et al. 2016, arXiv:1603.09382)")
CANDIDATE = Candidate(
    name="transformer", rung="scratch", tasks=("classify", "regress"), build=Transformer, reads=("sequence", "audio", "image"),
    requires=("sequence", "audio", "image"), needs={"torch": "deep", "onnx": "deep"}, space=_SPACE, share=6.0, at_least_s=5.0, licence="MIT, assay's own code",
    version="1", source=_SOURCE + ", convolutional patches and attention pooling (Hassani et al. 2021, arXiv:2104.05704)",
)
TEXT = Candidate(
    name="transformer_text", rung="scratch", tasks=("classify", "regress"), build=TextTransformer, reads=("text",), requires=("text",),
    needs={"torch": "deep", "onnx": "deep"}, space=_SPACE, share=3.0, at_least_s=30.0, licence="MIT, assay's own code", version="1",
    source=_SOURCE + ", byte pairs (Sennrich et al. 2016, arXiv:1508.07909)",
)
