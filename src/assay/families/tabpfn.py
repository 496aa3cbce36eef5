"""TabPFN: a transformer pre-trained on made-up tables, from a local weights file. It is shown the training rows and answers at once."""

from __future__ import annotations

import os
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

# Files older than version 2.6 do not say what they were made for; rows, columns, classes as the package assumes for them.
_ASSUMED = {"tabpfn_v2": (10_000, 500, 10), "base": (50_000, 2000, 10), "tabpfn_v2_5": (50_000, 2000, 10)}
_LIMITS = ("MAX_NUMBER_OF_SAMPLES", "MAX_NUMBER_OF_FEATURES", "MAX_NUMBER_OF_CLASSES")


class TabPFNModel(InContext, Model):
    """params: `weights`, the path of a checkpoint of TabPFN 2 to 3.5, as .ckpt or .safetensors; `views` (8), at most so many passes."""

    too_slow = TooSlow
    package = "tabpfn"

    @staticmethod
    def made_by(checkpoint: Checkpoint) -> bool:
        config = checkpoint.settings.get("config")
        return isinstance(config, dict) and {"max_num_classes", "num_buckets"} <= config.keys()

    def limits(self, checkpoint: Checkpoint) -> Limits | Text:
        config = checkpoint.settings["config"]
        name = checkpoint.settings.get("architecture_name", "tabpfn_v2")
        labels, amounts = (config["max_num_classes"] or 0) >= 2, any("borders" in tensor for tensor in checkpoint.tensors)
        if amounts and name != "tabpfn_v3_5":
            amounts = not labels  # version 3 keeps borders in its classifier too; version 3.5 answers both
        if self.task.name == "classify" and not labels:
            return _other(checkpoint, say("regressor"), say("classifier"))
        if self.task.name == "regress" and not amounts:
            return _other(checkpoint, say("classifier"), say("regressor"))
        rows, columns, classes = _ASSUMED.get(name, _ASSUMED["tabpfn_v2"])
        made_for = checkpoint.settings.get("inference_config") or {}
        rows, columns, classes = (int(made_for.get(key, known)) for key, known in zip(_LIMITS, (rows, columns, classes), strict=True))
        return Limits(rows, columns, min(classes, config["max_num_classes"]) if labels else None,
                      int(config.get("emsize") or config.get("embed_dim") or 192))

    def open_network(self, weights: Path) -> Any:
        os.environ.setdefault("TABPFN_DISABLE_TELEMETRY", "1")  # versions before 9 report their use; 9 has nothing to switch off
        from tabpfn import ModelSpecs, model_loading
        from tabpfn.preprocessing.steps import add_fingerprint_features_step as fingerprint

        # A row's fingerprint is a hash of its cells rounded to 12 decimals. Alone or among others a row differs by up to 3e-14, which
        # crosses such a border for one row in ten, and then changed its probabilities by up to 0.006. Six decimals are never crossed.
        fingerprint._HASH_ROUND_DECIMALS = 6
        regress = self.task.name == "regress"
        networks, criterion, configs, settings = model_loading.load_model_criterion_config(
            [weights], check_bar_distribution_criterion=regress, estimator_type="regressor" if regress else "classifier", version="v2",
            download_if_not_exists=False)
        model_loading._load_checkpoint_cached.cache_clear()  # else the numbers stay in memory twice
        return ModelSpecs(model=networks[0], architecture_config=configs[0], inference_config=settings,
                          norm_criterion=criterion if regress else None)

    def show(self, network: Any, x: np.ndarray, y: np.ndarray, *, categories: list[int], views: int, seed: int) -> Shown:
        """Everything in 32 bits: by default the package computes in bfloat16 even where that is no faster, and a row alone then gets
        other digits than among others."""
        import torch
        from tabpfn import TabPFNClassifier, TabPFNRegressor

        kind = TabPFNClassifier if self.task.name == "classify" else TabPFNRegressor
        estimator = kind(model_path=network, n_estimators=views, categorical_features_indices=categories, device="cpu", random_state=seed,
                         ignore_pretraining_limits=True, fit_mode="fit_with_cache", kv_cache_precision="auto", inference_precision=torch.float32)
        estimator.fit(x, y)
        return _Shown(estimator, self.task)


class _Shown:
    def __init__(self, estimator: Any, task: Any) -> None:
        self.estimator, self.task = estimator, task
        self.cache_bytes = bytes_of(*getattr(estimator.executor_, "kv_caches", ()))

    def answer(self, x: np.ndarray) -> np.ndarray:
        if self.task.name == "classify":
            return self.estimator.predict_proba(x)
        if self.task.loss == "squared":
            return self.estimator.predict(x)
        level = getattr(self.task, "quantile", 0.5) if self.task.loss == "pinball" else 0.5
        return self.estimator.predict(x, output_type="quantiles", quantiles=[float(level)])[0]


def _other(checkpoint: Checkpoint, found: Text, wanted: Text) -> Text:
    return say("the weights file '{file}' is that of a TabPFN {found}; take the {wanted}'s", file=checkpoint.path.name, found=found, wanted=wanted)


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    source = say("such files lie in the Hugging Face repositories Prior-Labs/TabPFN-v2-clf and TabPFN-v2-reg (Prior Labs License: Apache 2.0 with "
                 "attribution) and tabpfn_2_5, tabpfn_2_6, tabpfn_3, tabpfn_3_5 (non-commercial licences, to be accepted there)")
    return prepared(case, schema, name="tabpfn", made_by=TabPFNModel.made_by, source=source)


CANDIDATE = Candidate(
    name="tabpfn", rung="pretrained", tasks=("classify", "regress"), build=TabPFNModel, reads=READ, prepare=prepare,
    needs={"torch": "tabular", "tabpfn": "tabular"}, share=8.0, at_least_s=12.0, valid_rows=1000, takes_weights=True,
    source="TabPFN (Hollmann et al. 2025, doi:10.1038/s41586-024-08328-6), https://github.com/PriorLabs/TabPFN",
    licence="package Apache-2.0; weights: Prior Labs License (version 2), non-commercial (2.5 and later)",
    version="package tabpfn, the weights named by --weights",
)
