"""The rows of a forecasting question: a row is one series at one origin, with its past, what is known of its future, and the answer.

Column `history` is a sequence (steps x channels): the value first, then the covariates, as far as they were known at the origin. Column `ahead`, where there is
one, is a sequence (horizon x channels) of the covariates that are known ahead. `origin` is the time of the first step to be forecast. The target is a
sequence of `horizon` values. So nothing of a row's future can reach a model that is asked about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset, Schema

HISTORY, AHEAD, ORIGIN, PART = "history", "ahead", "origin", "part"


@dataclass(frozen=True)
class History:
    """One series up to one origin.

    values: float64 (t,), NaN where a step is missing. covariates: (t, p), in the order of `names`; ahead: (h, k) of those known ahead, in the order of
    `names_ahead` (each of which is also among `names`). origin: the time of the first step that is not known, or None. static: what does not change.
    """

    id: str
    values: np.ndarray
    covariates: np.ndarray
    ahead: np.ndarray
    names: tuple[str, ...] = ()
    names_ahead: tuple[str, ...] = ()
    origin: np.datetime64 | None = None
    static: dict[str, Any] = field(default_factory=dict)

    def filled(self) -> np.ndarray:
        """The values without gaps: between two known steps along a straight line, before the first and after the last the nearest; zeros where nothing is known."""
        there = np.flatnonzero(np.isfinite(self.values))
        if not len(there):
            return np.zeros(len(self.values))
        return np.interp(np.arange(len(self.values)), there, self.values[there])


def histories(data: Dataset) -> list[History]:
    """A History for each row of `data`, whether or not it has answers."""
    columns = {c.name: c for c in data.schema.columns}
    names = columns[HISTORY].channels or ()
    ahead = columns[AHEAD].channels or () if AHEAD in columns else ()
    frame, out = data.frame, []
    ids = frame[data.schema.group].to_list() if data.schema.group in frame.columns else [""] * frame.height
    origins = frame[ORIGIN].to_numpy() if ORIGIN in frame.columns else [None] * frame.height
    static = [c.name for c in data.schema.features if c.kind in ("number", "category")]
    fixed = frame.select(static).to_dicts() if static else [{}] * frame.height
    for i, cell in enumerate(frame[HISTORY].to_list()):
        steps = media.steps(cell, len(names)).astype(np.float64) if cell is not None else np.zeros((0, len(names)))
        known = media.steps(frame[AHEAD][i], len(ahead)).astype(np.float64) if ahead and frame[AHEAD][i] is not None else np.zeros((0, len(ahead)))
        origin: Any = origins[i]
        origin = None if origin is None or np.isnat(origin) else origin
        out.append(History(str(ids[i]), steps[:, 0], steps[:, 1:], known, tuple(names[1:]), tuple(ahead), origin, fixed[i]))
    return out


def futures(data: Dataset) -> np.ndarray:
    """The answers, float64 (n, horizon), NaN where a step is missing."""
    cells = [np.frombuffer(cell, dtype="<f4") for cell in data.y.to_list()]
    return np.stack(cells).astype(np.float64) if cells else np.zeros((0, 0))


def latest(train: Dataset) -> list[History]:
    """What may be learnt from: each series once, as long as `train` knows it, its latest answers included.

    Rows of earlier origins hold nothing that the latest one does not.
    """
    known, answers, best = histories(train), futures(train), dict[str, int]()
    for i, one in enumerate(known):
        if one.id not in best or len(one.values) >= len(known[best[one.id]].values):
            best[one.id] = i
    out = []
    for i in best.values():
        one, more = known[i], answers[i]
        covariates = np.full((len(more), one.covariates.shape[1]), np.nan)
        for k, name in enumerate(one.names_ahead):
            covariates[: len(one.ahead), one.names.index(name)] = one.ahead[:, k]
        out.append(History(one.id, np.concatenate([one.values, more]), np.concatenate([one.covariates, covariates]), np.zeros((0, len(one.names_ahead))), one.names,
                           one.names_ahead, None, one.static))
    return out


def row_of(one: History, horizon: int, schema: Schema) -> dict[str, Any]:
    """The cells of a row to be asked about, as `Dataset` holds them."""
    cells: dict[str, Any] = {HISTORY: media.packed(np.column_stack([one.values, one.covariates]).astype(np.float32)), **one.static}
    if any(c.name == AHEAD for c in schema.columns):
        cells[AHEAD] = media.packed(one.ahead[:horizon].astype(np.float32))
    if schema.group:
        cells[schema.group] = one.id
    if any(c.name == ORIGIN for c in schema.columns):
        cells[ORIGIN] = one.origin
    return {c.name: cells.get(c.name) for c in schema.columns}


def frame_of(rows: list[dict[str, Any]], schema: Schema) -> pl.DataFrame:
    """Rows of cells as the frame of a Dataset."""
    types: dict[str, Any] = {"number": pl.Float64, "time": pl.Datetime("us"), "sequence": pl.Binary}
    out = []
    for c in schema.columns:
        cells = [row.get(c.name) for row in rows]
        if c.kind == "time":
            out.append(pl.Series(c.name, np.array(cells, dtype="datetime64[us]")))
        else:
            out.append(pl.Series(c.name, cells, dtype=types.get(c.kind, pl.String)))
    return pl.DataFrame(out)
