"""LSTM and GRU networks trained from scratch on sequences, sounds and texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate, Model, Range
from assay.neural import fitting, step_network
from assay.neural.balance import WAYS as BALANCED
from assay.neural.recipe import Recipe
from assay.neural.recurrence import CELLS, recurrent
from assay.neural.stem import strides_for

RECIPE = Recipe(optimizer="adamw", rate=3e-3, decay=0.02, schedule="cosine", warm=0.1, batch=64, ema=0.98)
# Texts are learnt by heart within three passes at the rate of the others. Between 3e-3 with little and 1.5e-3 with much dropout, two sets
# disagree within their noise (English 0.79 to 0.75 of 1,821, Chinese 0.87 to 0.90 of 1,000, one seed each): this is the middle.
TEXT_RECIPE = replace(RECIPE, rate=2e-3, decay=0.1)
SIZES = ((32, 1), (64, 1), (96, 2), (128, 2))  # of stem and cell, layers
DEFAULT = 1
MOST_READ = 50  # steps that a cell goes over; the convolutions before it shorten longer rows
DROPOUT = {"sequence": 0.2, "audio": 0.3, "text": 0.5}


class Recurrent(step_network.Serves, Model):
    """params: any of `Recipe`; cell, pooling, dropout, width, depth, both, augment (0-1), balanced (one of `balance.WAYS`)."""

    kinds: ClassVar[tuple[str, ...]] = ("sequence", "audio")

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Recurrent:
        import torch  # noqa: F401 - seconds, which the next line counts

        budget.after_torch(0.5)
        lesson = step_network.lesson(self.kinds, self.task, train, seed=seed, budget=budget)
        budget.after_reading(0.3)
        recipe = fitting.tuned(TEXT_RECIPE if lesson.reader.kind == "text" else RECIPE, self.params)
        self.served, self.facts = step_network.learn(lesson, recurrent, self._options(lesson), recipe, default=DEFAULT, seed=seed, budget=budget,
                                                     strength=self.params.get("augment", 1.0), balanced=self.params.get("balanced", "no"))
        return self

    def _options(self, lesson: step_network.Lesson) -> list[dict[str, Any]]:
        params, sizes = self.params, lesson.reader.sizes()
        same = sizes | {"strides": strides_for(sizes["length"], MOST_READ), "cell": params.get("cell", CELLS[0]), "both": params.get("both", True),
                        "pooling": params.get("pooling", "concat"), "dropout": params.get("dropout", DROPOUT[lesson.reader.kind]), "outputs": lesson.aim.outputs}
        if "width" in params or "depth" in params:
            width, depth = params.get("width", SIZES[DEFAULT][0]), params.get("depth", SIZES[DEFAULT][1])
            return [same | {"width": width, "hidden": width, "depth": depth}]
        most = 2 if lesson.n < 300 else 3 if lesson.n < 3000 else 4
        return [same | {"width": width, "hidden": width, "depth": depth} for width, depth in SIZES[:most]]


class TextRecurrent(Recurrent):
    """The same for texts, which a small network learns too little from to hold a table's other candidates up."""

    kinds: ClassVar[tuple[str, ...]] = ("text",)


SMALLER = (("student", {"width": 24, "depth": 1, "teacher": True}),)
_SPACE: dict[str, Any] = {
    "rate": Range(5e-4, 1e-2, log=True), "dropout": Range(0.0, 0.5), "decay": Range(1e-3, 0.1, log=True), "cell": CELLS,
    "pooling": ("concat", "attention", "last"), "width": (32, 64, 96, 128), "depth": Range(1, 2, whole=True), "augment": Range(0.0, 1.0), "balanced": BALANCED,
}
_SOURCE = ("LSTM (Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735), GRU (Cho et al. 2014, arXiv:1406.1078), both directions "
           "(Schuster & Paliwal 1997), dropout (Gal & Ghahramani 2016, arXiv:1512.05287), concat pooling (Howard & Ruder 2018, arXiv:1801.06146)")
CANDIDATE = Candidate(
    name="recurrent", rung="scratch", tasks=("classify", "regress"), build=Recurrent, reads=("sequence", "audio"), requires=("sequence", "audio"),
    needs={"torch": "deep", "onnx": "deep"}, space=_SPACE, smaller=SMALLER, share=6.0, at_least_s=4.0, licence="MIT, assay's own code", version="1", source=_SOURCE,
)
TEXT = Candidate(
    name="recurrent_text", rung="scratch", tasks=("classify", "regress"), build=TextRecurrent, reads=("text",), requires=("text",),
    needs={"torch": "deep", "onnx": "deep"}, space=_SPACE, smaller=SMALLER, share=3.0, at_least_s=30.0, licence="MIT, assay's own code", version="1",
    source=_SOURCE + ", byte pairs (Sennrich et al. 2016, arXiv:1508.07909)",
)
