"""How much is it: one amount a row, judged by squared, absolute or pinball loss, with conformal intervals."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.errors import InputError
from assay.tasks.base import Task, schema_of
from assay.words import Text, say

LEVEL = 0.9  # the share of truths that an interval should hold


class Regress(Task):
    """loss: 'squared' (default), 'absolute', or 'pinball' at `quantile`; `cost` is money per unit of absolute error.

    A calibrated prediction has shape (n, 3): the point, and the ends of its interval.
    """

    name: ClassVar[str] = "regress"
    losses_known: ClassVar[tuple[str, ...]] = ("squared", "absolute", "pinball")

    def __init__(self, *, loss: str = "squared", quantile: float = 0.5, unit_cost: float | None = None, currency: str = "") -> None:
        self.loss, self.quantile, self.unit_cost, self.currency = loss, quantile, unit_cost, currency

    @classmethod
    def refuses(cls, data: Dataset) -> Text | None:
        y = data.y
        if y.dtype in (pl.String, pl.Boolean):
            return say("the target '{name}' holds labels, not amounts", name=y.name)
        if y.n_unique() < 2:
            return say("the target '{name}' has one value only, {value}: there is nothing to learn", name=y.name, value=repr(y[0]))
        if y.dtype.is_integer() and whole_number_labels(y):
            return say("the target '{name}' has only {kinds} different whole numbers: labels, unless you say --task regress",
                       name=y.name, kinds=y.n_unique())
        return None

    @classmethod
    def of(cls, data: Dataset, *, loss: str | None = None, quantile: float = 0.5, costs: dict[str, float] | None = None,
           currency: str = "", **_: Any) -> Regress:
        if data.y.dtype in (pl.String, pl.Boolean):
            raise InputError("The target '{name}' holds labels such as {value}, not amounts. Ask for --task classify.",
                             name=data.y.name, value=repr(data.y[0]))
        if costs and set(costs) != {"unit"}:
            raise InputError("For amounts, say what one unit of error costs: --worth 'unit=2 EUR'.")
        loss = loss or ("absolute" if costs else "squared")
        if loss not in cls.losses_known:
            raise InputError("Regression has no loss '{loss}'. It knows: {known}.", loss=loss, known=list(cls.losses_known))
        if costs and loss == "squared":
            raise InputError("Money per unit of error goes with --loss absolute or pinball, not with squared.")
        if not 0 < quantile < 1:
            raise InputError("A quantile lies between 0 and 1; {quantile} does not.", quantile=quantile)
        return cls(loss=loss, quantile=quantile, unit_cost=costs["unit"] if costs else None, currency=currency)

    @property
    def width(self) -> int:
        return 1

    def truth(self, data: Dataset) -> np.ndarray:
        return data.y.cast(pl.Float64).to_numpy()

    def losses(self, train: Dataset, test: Dataset, prediction: np.ndarray) -> np.ndarray:
        error = self.truth(test) - prediction[:, 0]
        if self.loss == "squared":
            return error**2
        if self.loss == "absolute":
            return np.abs(error) * (self.unit_cost or 1.0)
        return 2 * np.maximum(self.quantile * error, (self.quantile - 1) * error) * (self.unit_cost or 1.0)

    def metrics(self, train: Dataset, test: Dataset, prediction: np.ndarray, weight: np.ndarray | None = None) -> dict[str, float]:
        truth = self.truth(test)
        weight = np.ones(len(truth)) if weight is None else weight
        error = truth - prediction[:, 0]
        spread = np.average((truth - np.average(truth, weights=weight)) ** 2, weights=weight)
        mse = np.average(error**2, weights=weight)
        out = {
            "rmse": float(np.sqrt(mse)),
            "mae": float(np.average(np.abs(error), weights=weight)),
            "r2": float(1 - mse / spread) if spread > 0 else float("nan"),
            "coverage": float(np.average((truth >= prediction[:, 1]) & (truth <= prediction[:, 2]), weights=weight)),
            "interval_width": float(np.average(prediction[:, 2] - prediction[:, 1], weights=weight)),
        }
        if self.loss == "pinball":
            out["pinball"] = float(np.average(np.maximum(self.quantile * error, (self.quantile - 1) * error), weights=weight))
        return out

    def calibration(self, truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        """Half-width from absolute residuals on held-out rows: split conformal (Lei et al. 2018, arXiv:1604.04173)."""
        residual = np.sort(np.abs(truth - prediction[:, 0]))
        rank = int(np.ceil((len(residual) + 1) * LEVEL)) - 1
        return {"radius": float(residual[min(rank, len(residual) - 1)]), "level": LEVEL}

    def calibrated(self, prediction: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
        radius = calibration.get("radius", np.inf)
        return prediction[:, :1] + np.array([0.0, -radius, radius])

    def answers(self, prediction: np.ndarray) -> pl.DataFrame:
        return pl.DataFrame({"answer": prediction[:, 0], "low": prediction[:, 1], "high": prediction[:, 2]})

    def answer_row(self, prediction: np.ndarray, calibration: dict[str, Any]) -> dict[str, Any]:
        """One row as the model gave it, shape (1, k), calibrated, as the columns of `answers`, without building a frame."""
        point, radius = prediction.item(0, 0), calibration.get("radius", math.inf)
        return {"answer": point, "low": point - radius, "high": point + radius}

    def strata(self, data: Dataset) -> np.ndarray | None:
        """Tenths of the target, so that a random split keeps its tails on both sides."""
        truth = self.truth(data)
        return np.searchsorted(np.quantile(truth, np.linspace(0.1, 0.9, 9)), truth)

    def json(self) -> dict[str, Any]:
        return {"task": self.name, "loss": self.loss, "quantile": self.quantile, "unit_cost": self.unit_cost,
                "currency": self.currency}

    @classmethod
    def from_json(cls, packed: dict[str, Any]) -> Regress:
        return cls(loss=packed["loss"], quantile=packed["quantile"], unit_cost=packed["unit_cost"], currency=packed["currency"])

    @classmethod
    def example(cls, seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        size = rng.uniform(20, 200, 150)
        place = rng.choice(["centre", "edge", "village"], 150)
        worn = rng.random(150) < 0.4
        price = 3 * size + np.where(place == "centre", 200, 0) - 120 * worn + rng.normal(0, 20, 150)
        frame = pl.DataFrame({
            "size": size, "place": place,
            "note": [f"{'old worn leaking' if w else 'new bright renovated'} flat with {rng.choice(['lift', 'garden'])}" for w in worn],
            "when": pl.Series(np.datetime64("2026-01-01") + rng.integers(0, 500, 150)).cast(pl.Datetime),
            "price": price,
        })
        return Dataset(frame, schema_of({"size": "number", "place": "category", "note": "text", "when": "time",
                                         "price": "number"}, target="price"))


def whole_number_labels(y: pl.Series) -> bool:
    """Few different whole numbers are more often labels (stars, grades, 0/1) than amounts."""
    return y.n_unique() <= 10
