"""A network trained from scratch on tables and texts, after the best published recipes: the referee's honest deep contestant."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.data.split import holdout
from assay.families.base import Budget, Candidate, Model, Range
from assay.neural import forward
from assay.neural.columns import Columns, Inputs
from assay.neural.tabular_training import Rows, again_all, spread, train_all
from assay.words import say

HELD_SHARE = 0.15
AGAIN_BY = 0.65  # of the time
MOST_AGAIN = 200_000  # with more rows the held-out ones add next to nothing, and a second copy costs memory
_PILOT = 1000  # rows on which reading is timed


class Mlp(Model):
    """params: any of `tabular.COMMON`, for tuning by hand."""

    columns: Columns
    networks: list[tuple[float, dict[str, np.ndarray], dict[str, Any]]]

    def fit(self, train: Dataset, *, seed: int, budget: Budget) -> Mlp:
        import torch

        deadline = budget.started + 0.85 * budget.seconds
        budget.after_torch(0.15)
        torch.set_num_threads(budget.threads)
        rng = np.random.default_rng(seed)
        truth, strata = self.task.truth(train), self.task.strata(train)
        rest, held = holdout(train, share=HELD_SHARE, seed=seed, strata=strata)
        readable = self._readable_rows(train, rest, deadline)
        if readable < len(rest):
            rest = rest[spread(len(rest), readable, None if strata is None else strata[rest], rng)]
        if len(held) > max(200, 0.3 * len(rest)):
            held = held[spread(len(held), max(200, int(0.3 * len(rest))), None if strata is None else strata[held], rng)]
        self.center, self.spread, self.low, self.high, loss, quantile = 0.0, 1.0, 0.0, 1.0, "log", 0.5
        if self.task.name == "regress":
            known = truth[np.concatenate([rest, held])]
            self.center, self.spread = float(known.mean()), float(known.std()) or 1.0
            self.low, self.high = float(known.min()), float(known.max())
            truth = (truth - self.center) / self.spread
            loss, quantile = self.task.loss, getattr(self.task, "quantile", 0.5)
        self.columns = Columns.learn(train.take(rest))
        sizes = self.columns.sizes | {"outputs": self.task.width, "loss": loss, "quantile": quantile}
        every = np.concatenate([rest, held])
        rows = Rows(self.columns.read(train.take(every)), truth[every])
        same: dict[str, Any] = {"seed": seed, "threads": budget.threads, **self.params}
        trained = train_all(rows.take(np.arange(len(rest))), rows.take(np.arange(len(rest), len(every))), sizes, deadline=deadline,
                            passes=budget.passes, note=_noted(budget), **same)
        if len(rows) < MOST_AGAIN:  # in time that is over only: a trial fits twice, and a first fit that takes all leaves none to the second
            trained = again_all(trained, rows, deadline=budget.started + AGAIN_BY * budget.seconds, **same)
        self.networks = [(share, t.arrays, t.sizes) for share, t in trained]
        first = trained[0][1]
        self.facts = {"loss_curve": first.curve, "epochs": len(first.curve), "best_epoch": first.best_epoch, "device": first.device,
                      "networks": [[t.lift, share, t.rows] for share, t in trained]}
        used = len(rows) if any(t.again for _, t in trained) else first.rows + len(held)
        if used < len(train):
            self.facts["rows_used"] = used
        if not all(t.whole for _, t in trained):
            self.facts["short_of_time"] = True
        return self

    def _readable_rows(self, train: Dataset, rest: np.ndarray, deadline: float) -> int:
        """How many rows can be turned into arrays in a fifth of the time that is left."""
        if len(rest) <= 5 * _PILOT or math.isinf(deadline):
            return len(rest)
        pilot = train.take(rest[:: len(rest) // _PILOT])
        begun = time.monotonic()
        Columns.learn(pilot).read(pilot)
        row_s = (time.monotonic() - begun) / len(pilot)
        return max(_PILOT, int(0.2 * (deadline - time.monotonic()) / row_s))

    def predict(self, asked: Dataset) -> np.ndarray:
        if not len(asked):
            return np.zeros((0, self.task.width))
        return self._finished(self._said(self.columns.read(asked)))

    def predict_row(self, row: dict[str, Any]) -> np.ndarray:
        inputs = self.columns.read_row(row)
        return super().predict_row(row) if inputs is None else self._finished(self._said(inputs))

    def _said(self, inputs: Inputs) -> np.ndarray:
        return sum((share * forward.answers(arrays, sizes, inputs) for share, arrays, sizes in self.networks), np.zeros(()))

    def _finished(self, raw: np.ndarray) -> np.ndarray:
        """Amounts in their own unit, never outside the range that was learnt from (as RealMLP does)."""
        if self.task.name == "regress":
            return np.clip(raw * self.spread + self.center, self.low, self.high)
        return raw

    def dump(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        columns, arrays = self.columns.dump()
        packed = {"format": 1, "columns": columns, "networks": [[share, sizes] for share, _, sizes in self.networks], "center": self.center, "spread": self.spread,
                  "low": self.low, "high": self.high, "facts": self.facts}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mlp.json").write_text(json.dumps(packed, ensure_ascii=False), encoding="utf-8")
        for i, (_, own, _) in enumerate(self.networks):
            arrays |= {f"{i}/{name}": array for name, array in own.items()}
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "mlp.safetensors")

    def load(self, folder: Path) -> Mlp:
        from safetensors.numpy import load_file

        packed = json.loads((folder / "mlp.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "mlp.safetensors")
        self.columns = Columns.of(packed["columns"], arrays)
        self.networks = [
            (share, {k.removeprefix(f"{i}/"): v for k, v in arrays.items() if k.startswith(f"{i}/")}, sizes)
            for i, (share, sizes) in enumerate(packed["networks"])
        ]
        self.facts = packed["facts"]
        self.center, self.spread, self.low, self.high = packed["center"], packed["spread"], packed["low"], packed["high"]
        return self


def _noted(budget: Budget) -> Callable[[int, int, float], None]:
    def note(epoch: int, epochs: int, loss: float) -> None:
        budget.say(str(say("epoch {epoch} of {epochs}, held-out loss {loss}", epoch=epoch, epochs=epochs, loss=f"{loss:.4g}")))

    return note


CANDIDATE = Candidate(
    name="mlp",
    rung="scratch",
    tasks=("classify", "regress"),
    build=Mlp,
    needs={"torch": "deep"},
    # as in the searches of TabM and RealMLP, around the defaults that were measured here
    space={"rate": Range(0.001, 0.02, log=True), "dropout": Range(0.0, 0.4), "decay": Range(0.001, 0.1, log=True),
           "width": Range(64, 256, log=True, whole=True), "depth": Range(1, 3, whole=True)},
    share=6.0,
    at_least_s=2.0,
    licence="MIT, assay's own code",
    version="1",
    source="TabM (Gorishniy et al. 2025, arXiv:2410.24210), RealMLP (Holzmüller et al. 2024, arXiv:2407.04491), "
    "number embeddings (Gorishniy et al. 2022, arXiv:2203.05556), fastText (Joulin et al. 2017, arXiv:1607.01759)",
)
