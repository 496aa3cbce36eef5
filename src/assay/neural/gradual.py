"""Gradual unfreezing: a pre-trained network learns from its last layer down, some layers more in each stage, so that what lies deep is not
overwritten while what lies above it still learns (Howard & Ruder 2018, arXiv:1801.06146, section 3.3).

Their first stage, the last layer alone, is the probe that the families put into it beforehand: it has converged on all that the frozen layers say.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.neural import fitting
from assay.neural.fitting import Allowance
from assay.neural.recipe import Recipe
from assay.neural.rows import Aim, Rows

MOST = 4  # stages


@dataclass(frozen=True)
class Stage:
    """layers: that learn, counted from the last. epochs: passes over the rows."""

    layers: int
    epochs: int


def stages(layers: int, epochs: int) -> list[Stage]:
    """One pass each for more and more of the layers, and all passes that are left, at least half of them, for all layers. Both at least 1."""
    count = max(1, min(layers, MOST, 1 + epochs // 2))
    return [Stage(-(-layers * (i + 1) // count), 1 if i + 1 < count else epochs - count + 1) for i in range(count)]


def freed(groups: Sequence[Sequence[Any]], layers: int) -> None:
    """The last group, the head, and so many groups before it learn; those nearer the input are frozen."""
    for i, group in enumerate(groups):
        for parameter in group:
            parameter.requires_grad_(i >= len(groups) - 1 - layers)


def teach(
    network: Any, groups: Sequence[Sequence[Any]], taught: Rows, held: Rows, aim: Aim, recipe: Recipe, *, seed: int, budget: Allowance, share: float,
    at: str = ".gradual",
) -> tuple[float, dict[str, Any]]:
    """(best held-out loss, facts as of `fitting.teach`). The network ends with the weights that were best in any stage.

    groups: its parameters from the first layer to the head. Each stage goes on from the best weights so far, has a schedule, optimizers and a
    checkpoint of its own, and its part of the time by its passes; what it does not need is left to the later ones. share: of the budget's
    seconds, from its start; a stage that could only begin after that is left out.
    """
    planned, best, kept = stages(len(groups) - 1, min(recipe.epochs, budget.passes or recipe.epochs)), math.inf, _weights(network)
    every: list[dict[str, Any]] = []
    done, best_epoch = 0.0, 0.0
    for number, stage in enumerate(planned):
        gone = (time.monotonic() - budget.started) / budget.seconds  # none of an endless time
        if number and gone >= share:
            break
        freed(groups, stage.layers)
        until = gone + max(0.0, share - gone) * stage.epochs / sum(later.epochs for later in planned[number:])
        made, facts = fitting.teach(network, taught, held, aim, replace(recipe, epochs=stage.epochs), seed=seed + number, budget=budget, share=until, at=f"{at}{number}")
        if made.best < best:
            best, kept, best_epoch = made.best, _weights(network), done + made.best_epoch
        else:
            network.load_state_dict(kept)
        every.append(facts | {"layers": stage.layers, "before": done, "best": made.best})
        done += facts["epochs"]
    return best, _together(every, len(planned)) | {"best_epoch": round(best_epoch, 3), "recipe": vars(recipe) | {}}


def _together(every: list[dict[str, Any]], planned: int) -> dict[str, Any]:
    """The facts of all stages as those of one training, whose curves go on from stage to stage."""
    out = {name: value for name, value in every[-1].items() if name not in ("layers", "before", "best", "rows_used", "resumed_at_step")}
    for name in ("loss_curve", "rate_curve"):
        out[name] = [[round(facts["before"] + row[0], 3), *row[1:]] for facts in every for row in facts[name]]
    for name in ("epochs", "steps", "training_s"):
        if name in out:
            out[name] = round(sum(facts[name] for facts in every), 3)
    if len(every) < planned or any("short_of_time" in facts for facts in every):
        out["short_of_time"] = True
    if all("rows_used" in facts for facts in every):  # one that went over all rows is enough
        out["rows_used"] = max(facts["rows_used"] for facts in every)
    before = 0
    for facts in every:  # the last one that went on from a checkpoint
        if "resumed_at_step" in facts:
            out["resumed_at_step"] = before + facts["resumed_at_step"]
        before += facts["steps"]
    return out | {"stages": [{"layers": facts["layers"], "epochs": facts["epochs"], "loss": round(facts["best"], 6)} for facts in every]}


def _weights(network: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
