"""TabICL: a transformer pre-trained on made-up tables, from a local weights file. It is shown the training rows and answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Schema
from assay.families.base import Candidate, Model, TooSlow
from assay.neural.checkpoint import Checkpoint
from assay.neural.context_plan import Shown
from assay.neural.context_table import READ
from assay.neural.in_context import InContext, Limits, bytes_of, prepared
from assay.words import Text, say

MOST_ROWS, MOST_COLUMNS = 100_000, 2000  # what its authors tested TabICL 2 on

TOGETHER = 20_000  # cells whose views are answered in one pass: a single row took 67 ms of CPU instead of 166 (500 rows shown, 8 views)


class TabICLModel(InContext, Model):
    """params: `weights`, the path of a checkpoint as the hub repository jingang/TabICL holds them, or of the same as safetensors;
    `views` (8), at most so many passes."""

    too_slow = TooSlow
    package = "tabicl"

    @staticmethod
    def made_by(checkpoint: Checkpoint) -> bool:
        config = checkpoint.settings.get("config")
        return isinstance(config, dict) and {"embed_dim", "col_num_blocks", "icl_num_blocks"} <= config.keys()

    def limits(self, checkpoint: Checkpoint) -> Limits | Text:
        config = checkpoint.settings["config"]
        classifier = config.get("max_classes", 10) > 0
        if classifier != (self.task.name == "classify"):
            return say("the weights file '{file}' is that of a TabICL {found}; take the {wanted}'s", file=checkpoint.path.name,
                       found=say("classifier") if classifier else say("regressor"), wanted=say("regressor") if classifier else say("classifier"))
        return Limits(MOST_ROWS, MOST_COLUMNS, None, int(config["embed_dim"]))

    def open_network(self, weights: Path) -> Any:
        from safetensors.torch import load_file
        from tabicl._model.tabicl import TabICL

        network = TabICL(**self._checkpoint.settings["config"])
        network.load_state_dict(load_file(weights))
        return network.eval()

    def show(self, network: Any, x: np.ndarray, y: np.ndarray, *, categories: list[int], views: int, seed: int) -> Shown:
        """Hierarchical, and without keys and values kept, where there are more classes than the network has answers."""
        from tabicl import TabICLClassifier, TabICLRegressor

        kept = "kv" if self.task.name != "classify" or int(y.max()) < network.max_classes else False
        kind = TabICLClassifier if self.task.name == "classify" else TabICLRegressor
        estimator = _opened(kind)(n_estimators=views, kv_cache=kept, batch_size=1, device="cpu", random_state=seed, allow_auto_download=False,
                                  offload_mode=False)
        estimator.network = network
        estimator.fit(_coded(x, categories), y)
        if not kept:
            _ordered(estimator.ensemble_generator_)
        return _Shown(estimator, categories, self.task)


class _Shown:
    def __init__(self, estimator: Any, categories: list[int], task: Any) -> None:
        self.estimator, self.categories, self.task = estimator, categories, task
        self.cache_bytes = bytes_of(*(estimator.model_kv_cache_ or {}).values())

    def answer(self, x: np.ndarray) -> np.ndarray:
        x = _coded(x, self.categories)
        self.estimator.batch_size = None if x.size <= TOGETHER else 1
        if self.task.name == "classify":
            return self.estimator.predict_proba(x)
        if self.task.loss == "squared":
            return self.estimator.predict(x)
        level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
        return self.estimator.predict(x, output_type="quantiles", alphas=[level])[:, 0]


def _coded(x: np.ndarray, categories: list[int]) -> np.ndarray:
    """A missing or unknown category is -1, as in TabICL's own encoder; a missing number stays NaN and becomes the mean there."""
    x = x.copy()
    x[:, categories] = np.nan_to_num(x[:, categories], nan=-1.0)
    return x


def _opened(kind: Any) -> Any:
    """An estimator that takes an open network instead of loading a pickled file, and whose views stand in a fixed order."""

    class Opened(kind):
        network: Any
        model_config_: dict[str, Any]

        def _load_model(self) -> None:
            self.model_, self.model_path_, self.model_config_ = self.network, None, {}

        def _build_kv_cache(self) -> None:
            _ordered(self.ensemble_generator_)
            super()._build_kv_cache()

    return Opened


def _ordered(generator: Any) -> None:
    """Views by the name of their scaling. TabICL 2.2 keeps them in the order of a set of strings, which differs from process to
    process, and with it the last digits of their sum."""
    for name in ("ensemble_configs_", "feature_shuffles_", "class_shuffles_"):
        views = getattr(generator, name, None)
        if isinstance(views, dict):
            for key in sorted(views):
                views[key] = views.pop(key)


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    source = say("such files, under the licence BSD-3-Clause, lie in the Hugging Face repository jingang/TabICL, one for labels and one for amounts")
    return prepared(case, schema, name="tabicl", made_by=TabICLModel.made_by, source=source)


CANDIDATE = Candidate(
    name="tabicl", rung="pretrained", tasks=("classify", "regress"), build=TabICLModel, reads=READ, prepare=prepare,
    needs={"torch": "tabular", "tabicl": "tabular"}, share=8.0, at_least_s=8.0, valid_rows=1000, takes_weights=True,
    source="TabICL (Qu et al. 2025, arXiv:2502.05564) and TabICLv2 (arXiv:2602.11139), https://github.com/soda-inria/tabicl",
    licence="BSD-3-Clause, code and published weights", version="package tabicl, the weights named by --weights",
)
