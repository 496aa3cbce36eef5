"""Forecasters that were taught on other people's series and learn nothing here: Fracast-0, which a package ships, and a Chronos model in a local folder."""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.data.history import History, histories
from assay.errors import InputError, MissingExtra
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural.forecast_levels import at_levels, of_few
from assay.neural.fracast import LEAST, PACKAGE, PINS, VERSION, Fracast
from assay.words import Text, say

TRIED, BATCH = 8, 64  # histories that are timed; that are answered together
VALID_ROWS = 1000
OWN_SHARE = 0.85  # of the trial's seconds that answers may be planned to take
KNOWN = {"ChronosBoltModelForForecasting": "Chronos-Bolt", "Chronos2Model": "Chronos-2"}
FILES = ("config.json", "model.safetensors")


class ZeroShot(Model):
    """params: `mode`, 'zero-shot' - there is no other yet."""

    task: Any
    threads = 1
    trial: dict[Any, np.ndarray] | None = None  # while a trial lasts: its rows are asked two or three times before it is judged, and answered once
    least = 1  # known values of a series below which the network is not asked

    @abstractmethod
    def _open(self, budget: Budget) -> dict[str, Any]:
        """Make the network ready to be asked. Facts for the report."""

    @abstractmethod
    def _answers(self, asked: list[History]) -> np.ndarray:
        """(len(asked), horizon, levels)."""

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> ZeroShot:
        if self.params.get("mode", "zero-shot") != "zero-shot":
            raise InputError("'{mode}' is no way to use a pre-trained forecaster here; it knows: {known}.", mode=str(self.params["mode"]), known=["zero-shot"])
        self.threads = max(1, budget.threads)
        self.facts = {"mode": "zero-shot"} | self._open(budget)
        known = budget.memo.get(("zero-shot", type(self)))
        if known is None:
            self._timed(train, budget)
            known = budget.memo[("zero-shot", type(self))] = {"facts": self.facts, "answers": {}}
        self.facts, self.trial = dict(known["facts"]), known["answers"]
        return self

    def _timed(self, train: Dataset, budget: Budget) -> None:
        """Raises TooSlow if the rows that validate and those that judge cannot be answered in the time there is: nothing else takes any."""
        if not math.isfinite(budget.seconds) or not len(train):
            return
        few = histories(train.take(np.linspace(0, len(train) - 1, min(TRIED, len(train))).astype(int)))
        self._cube(few[:1])
        begun = time.monotonic()
        self._cube(few)
        row_s = (time.monotonic() - begun) / len(few)
        self.facts["rows_per_s"] = round(1 / max(row_s, 1e-9), 2)
        rows, there = budget.predict_rows + min(budget.predict_rows, VALID_ROWS), OWN_SHARE * (budget.left() + budget.predict_seconds)
        if rows * row_s > there:
            raise TooSlow(say("{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s", rows=rows, rows_per_s=round(1 / row_s, 1),
                              needed=round(rows * row_s, 1), there=round(there, 1)))

    def predict(self, asked: Dataset) -> np.ndarray:
        out = [self._block(histories(asked.take(np.arange(first, min(first + BATCH, len(asked)))))) for first in range(0, len(asked), BATCH)]
        return np.concatenate(out).reshape(len(asked), -1) if out else np.zeros((0, self.task.width))

    def _block(self, asked: list[History]) -> np.ndarray:
        if self.trial is None:
            return self._cube(asked)
        keys = [(one.id, str(one.origin), len(one.values), one.values[-self.task.horizon - 1 :].tobytes()) for one in asked]
        new = [i for i, key in enumerate(keys) if key not in self.trial]
        for i, cube in zip(new, self._cube([asked[i] for i in new]) if new else [], strict=True):
            self.trial[keys[i]] = cube
        return np.stack([self.trial[key] for key in keys])

    def _cube(self, asked: list[History]) -> np.ndarray:
        known = np.array([np.isfinite(one.values).sum() for one in asked])
        out = np.empty((len(asked), self.task.horizon, len(self.task.levels)))
        for i in np.flatnonzero(known < self.least):
            out[i] = of_few(asked[i].values, self.task.horizon, self.task.levels)
        enough = np.flatnonzero(known >= self.least)
        if len(enough):
            out[enough] = self._answers([asked[i] for i in enough])
        return out


class FracastModel(ZeroShot):
    """Fracast-0 with the weights of its package; 30 series a second on one core (n = 6, 2,048 steps each)."""

    network: Fracast
    least = LEAST

    def _open(self, budget: Budget) -> dict[str, Any]:
        found = Fracast.installed()
        if found is None:
            raise MissingExtra(PACKAGE, extra="forecast")
        self.network = found
        return {"base": VERSION, "parameters": int(sum(array.size for array in found.w.values())), "context": found.length}

    def _answers(self, asked: list[History]) -> np.ndarray:
        length = max(min(self.network.length, len(one.values)) for one in asked)
        values = np.full((len(asked), length), np.nan)
        for i, one in enumerate(asked):
            tail = one.values[-length:]
            values[i, length - len(tail) :] = tail
        short = np.isfinite(values).sum(axis=1) < LEAST  # known long ago only
        values[short] = np.nan_to_num(np.stack([_latest(one, length) for one in asked])[short])
        blocks: list[np.ndarray] = []
        middle = int(np.argmin(np.abs(np.asarray(self.network.levels) - 0.5)))
        while sum(block.shape[1] for block in blocks) < self.task.horizon:  # further on it goes on from its own medians, as the package does
            blocks.append(self.network.block(values, threads=self.threads))
            values = np.concatenate([values, blocks[-1][:, :, middle]], axis=1)[:, -self.network.length :]
        return at_levels(np.sort(np.concatenate(blocks, axis=1)[:, : self.task.horizon], axis=2), self.network.levels, self.task.levels)

    def dump(self, folder: Path) -> None:
        """model.safetensors and config.json of the package, zero_shot.json."""
        _copied(self.network.folder, folder, tuple(PINS), self.facts)

    def load(self, folder: Path) -> FracastModel:
        self.network, self.facts = Fracast(folder), json.loads((folder / "zero_shot.json").read_text(encoding="utf-8"))["facts"]
        return self


class ChronosModel(ZeroShot):
    """params: `folder`, with config.json and model.safetensors of a Chronos-Bolt or Chronos-2 model. Chronos-2 reads covariates as well."""

    folder: Path
    pipeline: Any
    kind: str

    def _open(self, budget: Budget) -> dict[str, Any]:
        import torch

        torch.set_num_threads(self.threads)
        self._loaded(Path(self.params["folder"]))
        budget.after_torch(0.1)
        return {"base": KNOWN[self.kind], "parameters": int(sum(p.numel() for p in self.pipeline.model.parameters())), "context": int(self.pipeline.model_context_length)}

    def _loaded(self, folder: Path) -> None:
        reason = folder_refuses(folder)
        if reason is not None:
            raise InputError(reason)
        import torch
        from chronos import Chronos2Pipeline, ChronosBoltPipeline
        from chronos.chronos2 import Chronos2Model
        from chronos.chronos_bolt import ChronosBoltModelForForecasting

        self.folder, self.kind = folder, json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
        network, pipeline = (Chronos2Model, Chronos2Pipeline) if self.kind == "Chronos2Model" else (ChronosBoltModelForForecasting, ChronosBoltPipeline)
        made: Any = network.from_pretrained(str(folder), use_safetensors=True, local_files_only=True, dtype=torch.float32)
        self.pipeline = pipeline(made.to("cuda" if torch.cuda.is_available() else "cpu").eval())

    def _answers(self, asked: list[History]) -> np.ndarray:
        import torch

        h, context = self.task.horizon, int(self.pipeline.model_context_length)
        told: list[Any] = [torch.from_numpy(one.values[-context:].astype(np.float32)) for one in asked]
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that long horizons are less sure
            if self.kind == "Chronos2Model":
                if asked[0].names:
                    told = [_with_covariates(one, context, h) for one in asked]
                said = np.stack([part[0].cpu().numpy() for part in self.pipeline.predict(told, prediction_length=h)])
            else:
                said = self.pipeline.predict(told, prediction_length=h).cpu().numpy()
        cube = np.sort(said.transpose(0, 2, 1).astype(np.float64), axis=2)
        return at_levels(cube, [float(q) for q in self.pipeline.quantiles], self.task.levels)

    def dump(self, folder: Path) -> None:
        """model.safetensors and config.json as they were given, zero_shot.json."""
        _copied(self.folder, folder, FILES, self.facts)

    def load(self, folder: Path) -> ChronosModel:
        self.facts = json.loads((folder / "zero_shot.json").read_text(encoding="utf-8"))["facts"]
        self._loaded(folder)
        return self


def folder_refuses(folder: Path) -> Text | None:
    """None if the folder holds a Chronos model that can be read without running what it brings, else the reason."""
    if not (folder / "config.json").is_file():
        return say("there is no config.json in '{folder}'; the folder of a Chronos-Bolt or Chronos-2 model has one", folder=str(folder))
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return say("the config.json in '{folder}' is not JSON", folder=str(folder))
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(kinds, list) or not kinds or kinds[0] not in KNOWN or "chronos_config" not in config:
        return say("the model in '{folder}' is none of {known}", folder=str(folder), known=list(KNOWN.values()))
    if (folder / "adapter_config.json").exists():
        return say("'{folder}' holds an adapter; merge it into its model first", folder=str(folder))
    if not (folder / "model.safetensors").is_file():
        return say("there is no model.safetensors in '{folder}'; weights in a .bin file are a pickle, which could run anything, and are not read", folder=str(folder))
    return None


def _latest(one: History, length: int) -> np.ndarray:
    """The last known values of a series, repeated from the front as often as is needed, (length,)."""
    known = one.values[np.isfinite(one.values)][-length:]
    return np.resize(known, length)


def _with_covariates(one: History, context: int, horizon: int) -> dict[str, Any]:
    """The series as Chronos-2 reads it, steps and all."""
    ahead = np.full((horizon, len(one.names_ahead)), np.nan, dtype=np.float32)
    ahead[: len(one.ahead)] = one.ahead[:horizon]
    return {"target": one.values[-context:].astype(np.float32), "past_covariates": {name: one.covariates[-context:, k].astype(np.float32) for k, name in enumerate(one.names)},
            "future_covariates": {name: ahead[:, k] for k, name in enumerate(one.names_ahead)}}


def _copied(origin: Path, folder: Path, files: tuple[str, ...], facts: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copyfile(origin / name, folder / name)
    (folder / "zero_shot.json").write_text(json.dumps({"format": 1, "facts": facts}, ensure_ascii=False), encoding="utf-8")


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    folder = getattr(case, "forecaster", None)
    if not folder:
        return say("it needs --forecaster FOLDER, a local folder of a Chronos-Bolt or Chronos-2 model")
    reason = folder_refuses(Path(folder))
    return reason if reason is not None else {"folder": str(Path(folder).resolve())}


FRACAST = Candidate(
    name="fracast", rung="pretrained", tasks=("forecast",), build=FracastModel, reads=("sequence",), requires=("sequence",), needs={PACKAGE: "forecast"},
    share=4.0, at_least_s=1.0, valid_rows=VALID_ROWS, source="Fracast-0 (github.com/ztxtech/fracast-0), after TinyCast (arXiv:2608.15767)", licence="Apache-2.0", version=VERSION,
)
CHRONOS = Candidate(
    name="chronos", rung="pretrained", tasks=("forecast",), build=ChronosModel, reads=("sequence",), requires=("sequence",), prepare=prepare,
    needs={"chronos": "forecast", "torch": "deep", "transformers": "hf"}, share=4.0, at_least_s=8.0,
    source="Chronos (Ansari et al. 2024, arXiv:2403.07815), Chronos-2 (Ansari et al. 2025, arXiv:2510.15821)", licence="that of the folder",
    version="the folder named by --forecaster",
)
