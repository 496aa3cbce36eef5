"""What each column of one row adds to its answer: Shapley values by sampling.

Štrumbelj & Kononenko 2014 (Knowledge and Information Systems 41), with antithetic orders (Mitchell et al. 2022, JMLR 23): each order of the columns is also
gone backwards, which halves the variance where columns act nearly additively.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.families.base import Model
from assay.tasks.base import Task

PAIRS = 16  # orders of the columns, each forwards and backwards
MOST_ROWS = 20_000  # that the model is asked at once


@dataclass(frozen=True)
class Share:
    """value: what the column adds to the explained number, in its unit. error: standard error of the sampling."""

    column: str
    value: float
    error: float


@dataclass(frozen=True)
class Explained:
    """shares add up to `told` - `usual` (exactly: each order's steps do). target: the class whose probability is explained, None for an amount."""

    told: float
    usual: float
    target: Any
    shares: tuple[Share, ...]


def shapley(task: Task, model: Model, asked: Dataset, reference: pl.DataFrame, calibration: dict[str, Any], *, seed: int = 0, pairs: int = PAIRS) -> Explained:
    """Why this row got its answer: how the answer moves as the columns of a usual row are replaced, in random order, by those of this row.

    asked: one row. reference: usual rows, at least one, with the plain columns of the schema. The model is asked
    2 * pairs * (columns + 1) rows at once. Amounts are explained in their unit, labels in probability of the answer.
    """
    names = [c.name for c in asked.schema.plain if c.name in reference.columns]
    rng = np.random.default_rng(seed)
    pairs = max(2, min(pairs, MOST_ROWS // (2 * (len(names) + 1))))
    orders = np.array([rng.permutation(len(names)) for _ in range(pairs)])
    orders = np.concatenate([orders, orders[:, ::-1]])
    usual = rng.choice(reference.height, pairs, replace=reference.height < pairs)
    usual = np.concatenate([usual, usual])
    width = len(names) + 1
    rank = np.empty_like(orders)  # rank[o, c]: when column c is taken from the row
    np.put_along_axis(rank, orders, np.broadcast_to(np.arange(len(names)), orders.shape), axis=1)
    taken = rank[:, None, :] < np.arange(width)[None, :, None]  # (orders, steps, columns)
    flat = taken.reshape(-1, len(names))
    columns = {}
    base = reference[np.repeat(usual, width)]
    for i, name in enumerate(names):
        own = asked.frame[name]
        both = pl.concat([base[name].cast(own.dtype), own])
        columns[name] = both[np.where(flat[:, i], len(base), np.arange(len(base)))].alias(name)
    repeated = asked.frame[np.zeros(len(flat), dtype=np.int64)]
    data = Dataset(repeated.with_columns(list(columns.values())), asked.schema)
    told = task.calibrated(model.predict(data), calibration)
    classes = getattr(task, "classes", None)
    code = int(task.calibrated(model.predict(asked), calibration)[0, : task.width].argmax()) if classes else 0
    value = told[:, code].reshape(len(orders), width)
    steps = np.take_along_axis(np.diff(value, axis=1), rank, axis=1)  # (orders, columns)
    each = (steps[:pairs] + steps[pairs:]) / 2  # an order and its reverse are one draw
    error = each.std(axis=0, ddof=1) / np.sqrt(pairs)
    mean = each.mean(axis=0)
    shares = sorted((Share(n, float(v), float(e)) for n, v, e in zip(names, mean, error, strict=True)), key=lambda s: -abs(s.value))
    return Explained(float(value[:, -1].mean()), float(value[:, 0].mean()), classes[code] if classes else None, tuple(shares))
