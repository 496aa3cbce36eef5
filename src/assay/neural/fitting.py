"""What every network family does in `fit` besides its own rows and layers: hold rows out, scale amounts, plan, report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from assay.data.dataset import Dataset
from assay.data.split import holdout
from assay.neural import prune
from assay.neural.balance import evened, shifted
from assay.neural.loop import Trained, train
from assay.neural.recipe import Recipe
from assay.neural.rows import Aim, Rows
from assay.words import say

HELD_SHARE = 0.15
MOST_HELD = 2000
LEARNT_BEFORE = 0.65  # share of the time before pruning
PRUNES = ("prune", "prune_weights")


class Allowance(Protocol):
    """What is asked of a `families.base.Budget`."""

    seconds: float
    threads: int
    passes: int | None
    started: float
    checkpoint: Path | None
    cache: Path | None

    @property
    def say(self) -> Callable[[str], None]: ...


@dataclass(frozen=True)
class Scale:
    """Between answers and what a network says: labels as they are; amounts standardised, and never outside what was learnt from."""

    labels: bool
    center: float = 0.0
    spread: float = 1.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def learn(cls, truth: np.ndarray, *, labels: bool) -> Scale:
        if labels:
            return cls(True)
        return cls(False, float(truth.mean()), float(truth.std()) or 1.0, float(truth.min()), float(truth.max()))

    def target(self, truth: np.ndarray) -> np.ndarray:
        return truth if self.labels else ((truth - self.center) / self.spread).astype(np.float32)

    def finished(self, said: np.ndarray) -> np.ndarray:
        """Raw scores (n, outputs) as probabilities, or as amounts in their own unit."""
        said = said.astype(np.float64)
        if not self.labels:
            return np.clip(said * self.spread + self.center, self.low, self.high)
        said = np.exp(said - said.max(axis=1, keepdims=True))
        return said / said.sum(axis=1, keepdims=True)


def parts(train: Dataset, strata: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rest, held): rows that teach, and rows for early stopping, which follow the structure of the data."""
    return holdout(train, share=HELD_SHARE, seed=seed, strata=strata, most=MOST_HELD)


def aim_of(*, labels: bool, width: int, loss: str, quantile: float = 0.5) -> Aim:
    """Labels are always learnt by log loss; amounts by the loss of the question."""
    return Aim("log", width) if labels else Aim(loss if loss in ("squared", "absolute", "pinball") else "squared", 1, quantile)


def teach(
    network: Any, taught: Rows, held: Rows, aim: Aim, recipe: Recipe, *, seed: int, budget: Allowance, share: float = 0.85, at: str = "",
    params: dict[str, Any] | None = None,
) -> tuple[Trained, dict[str, Any]]:
    """Train, and the facts of it. share: of the budget's seconds, from its start. at: tells the checkpoints of several stages apart.

    params: of the model; `prune` (share of the channels) or `prune_weights` (share of the weights): when it has learnt, those
    are taken away and it learns on for a third of the time. `balanced`: one of `balance.WAYS`.
    """
    params = params or {}
    pruned, other = {k: v for k, v in params.items() if k in PRUNES and v}, {k: v for k, v in params.items() if k not in PRUNES}
    if pruned:
        _, before = teach(network, taught, held, aim, recipe, seed=seed, budget=budget, share=share * LEARNT_BEFORE, at=at + ".whole", params=other)
        return _taught_pruned(network, taught, held, aim, recipe, seed, budget, share, at, pruned, before, other)
    import torch

    torch.set_num_threads(max(1, budget.threads))

    def note(epoch: int, epochs: int, loss: float) -> None:
        budget.say(str(say("epoch {epoch} of {epochs}, held-out loss {loss}", epoch=epoch, epochs=epochs, loss=f"{loss:.4g}")))

    deadline = budget.started + share * budget.seconds
    checkpoint = None if budget.checkpoint is None else budget.checkpoint.with_suffix(f"{at}.safetensors")
    begun, even, told, passes = time.monotonic(), evened(taught, aim, params.get("balanced", "no")), recipe, budget.passes
    if len(even.rows) > len(taught):  # rows that are drawn more often make a pass longer: as many steps in all
        fewer = len(taught) / len(even.rows)
        told, passes = replace(recipe, epochs=max(1, round(recipe.epochs * fewer))), passes and max(1, round(passes * fewer))
    hook = None if even.shift is None else shifted(network, even.shift)
    made = train(network, even.rows, held, even.aim, told, seed=seed, deadline=deadline, passes=passes, checkpoint=checkpoint, note=note)
    if hook is not None:
        hook.remove()
    facts: dict[str, Any] = {
        "loss_curve": [[epoch, loss, valid] for epoch, loss, valid, _ in made.curve], "rate_curve": [[row[0], row[3]] for row in made.curve],
        "epochs": made.curve[-1][0] if made.curve else 0, "best_epoch": round(made.best_epoch, 3), "steps": made.steps, "device": made.device,
        "precision": made.precision, "recipe": vars(recipe) | {}, "parameters": int(sum(p.numel() for p in network.parameters())),
    }
    if made.resumed:
        facts["resumed_at_step"] = made.resumed
    if not made.plan.whole:
        facts["short_of_time"] = True
    if even.way != "no":
        facts["balanced"] = even.way
    if made.plan.rows < len(even.rows):
        facts["rows_used"] = round(made.plan.rows * len(taught) / len(even.rows)) + len(held)
    if budget.seconds != float("inf"):
        facts["training_s"] = round(time.monotonic() - begun, 2)
    return made, facts


def _taught_pruned(network: Any, taught: Rows, held: Rows, aim: Aim, recipe: Recipe, seed: int, budget: Allowance, share: float, at: str,
                   pruned: dict[str, float], before: dict[str, Any], other: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """Prune what has been learnt and go on, with a third of the rate."""
    taken = prune.channels_pruned(network, pruned["prune"]) if "prune" in pruned else 0
    hooks = prune.weights_pruned(network, pruned["prune_weights"]) if "prune_weights" in pruned else []
    later = replace(recipe, rate=recipe.rate / 3, epochs=max(2, recipe.epochs // 3))
    made, facts = teach(network, taught, held, aim, later, seed=seed + 1, budget=budget, share=share, at=at + ".pruned", params=other)
    for hook in hooks:
        hook.remove()
    return made, facts | {"pruned": pruned | {"channels": taken, "zeros": round(prune.zeros(network), 4), "parameters_before": before["parameters"]},
                          "loss_curve": before["loss_curve"] + [[before["epochs"] + e, a, b] for e, a, b in facts["loss_curve"]]}


def softened(target: np.ndarray, width: int, memo: dict[Any, Any], rows: np.ndarray) -> np.ndarray:
    """Half what is true, half what a teacher says of these rows, if `memo` has one (Hinton et al. 2015, arXiv:1503.02531).

    memo["teacher"]: probabilities (n, width) of all training rows. Amounts are left as they are.
    """
    teacher = memo.get("teacher")
    if teacher is None or target.dtype.kind == "f":
        return target
    return (0.5 * np.eye(width, dtype=np.float32)[target] + 0.5 * teacher[rows].astype(np.float32)).astype(np.float32)


def tuned(recipe: Recipe, params: dict[str, Any]) -> Recipe:
    """The recipe with those of `params` that it has."""
    return replace(recipe, **{name: value for name, value in params.items() if name in Recipe.__dataclass_fields__})


def mark(size: Any, n: int) -> str:
    """Tells the checkpoint of one size (JSON-ready) and so many rows from others, whose weights have other shapes."""
    return "." + hashlib.blake2b(json.dumps([size, n], sort_keys=True).encode(), digest_size=6).hexdigest()


def size_begun(sizes: Sequence[Any], n: int, budget: Allowance) -> int | None:
    """Which of the sizes a training that was killed had chosen: the first that has a checkpoint under its `mark`, whatever would be chosen now."""
    if budget.checkpoint is None:
        return None
    return next((i for i, size in enumerate(sizes) if any(budget.checkpoint.parent.glob(f"{budget.checkpoint.name}{mark(size, n)}*.safetensors"))), None)
