"""The rows of a forecasting question: a row is one series at one origin, with its past, what is known of its future, and the answer.

Column `history` is a sequence (steps x channels): the value first, then the covariates, as far as they were known at the origin. Column `ahead`, where there is
one, is a sequence (horizon x channels) of the covariates that are known ahead. `origin` is the time of the first step to be forecast. The target is a
sequence of `horizon` values. So nothing of a row's future can reach a model that is asked about it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from assay.data import media
from assay.data.dataset import Dataset, Schema
from assay.data.grid import at_step

TOTAL = "*"  # the id of the sum of all series of a hierarchy
HISTORY, AHEAD, ORIGIN, PART = "history", "ahead", "origin", "part"
SAME = 512  # steps that two histories have to share to be the same one
NO_TIME = 0  # the order of rows without times: as they stand


@dataclass(frozen=True)
class About:
    """What new rows need to be read as these were; kept in the schema. horizon, season: steps."""

    horizon: int
    season: int
    frequency: str
    value: str
    by: str | None
    time: str | None
    wide: bool
    hierarchy: tuple[str, ...] = ()

    def text(self) -> str:
        return json.dumps(vars(self), ensure_ascii=False)

    @classmethod
    def of(cls, schema: Schema) -> About | None:
        """What the schema's column of parts says, None where it says nothing."""
        column = next((c for c in schema.columns if c.name == PART and c.unit), None)
        return None if column is None else cls(**(told := json.loads(column.unit or "")) | {"hierarchy": tuple(told.get("hierarchy", ()))})


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


def origins_of(data: Dataset) -> np.ndarray:
    """Codes of the rows' origins, (n,), in order of time; without times the k-th origin of each series."""
    if ORIGIN in data.frame.columns:
        return np.unique(data.frame[ORIGIN].to_numpy(), return_inverse=True)[1]
    ids = data.frame[data.schema.group].to_list() if data.schema.group in data.frame.columns else [""] * len(data)
    out, seen = np.zeros(len(data), dtype=np.int64), dict[str, int]()
    for i, name in enumerate(ids):
        out[i] = seen[name] = seen.get(name, -1) + 1
    return out


def is_total(name: str) -> bool:
    """Whether a series of a hierarchy is a sum of others."""
    return name == TOTAL or "=" in name


def futures(data: Dataset) -> np.ndarray:
    """The answers, float64 (n, horizon), NaN where a step is missing."""
    cells = [np.frombuffer(cell, dtype="<f4") for cell in data.y.to_list()]
    return np.stack(cells).astype(np.float64) if cells else np.zeros((0, 0))


def latest(train: Dataset) -> list[History]:
    """What may be learnt from: each series once, as long as `train` knows it, its latest answers included. origin: the time after these, where it is known.

    Rows of earlier origins hold nothing that the latest one does not, unless the histories of later ones were cut short: then the earliest is gone on with.
    """
    known, answers, about = histories(train), futures(train), About.of(train.schema)
    own: dict[str, list[int]] = {}
    for i, one in enumerate(known):
        own.setdefault(one.id, []).append(i)
    out = []
    for rows in own.values():
        rows = sorted(rows, key=lambda i: NO_TIME if (t := known[i].origin) is None else int(t.astype("datetime64[us]").astype(np.int64)))  # stable: else as they stand
        one, last = known[rows[0]], rows[-1]
        values, covariates = known[last].values, known[last].covariates
        if not np.array_equal(one.values, values[: len(one.values)], equal_nan=True):
            values, covariates, last = one.values, one.covariates, rows[0]
            for i in rows[1:]:
                if new := _further(values, known[i].values, answers.shape[1]):
                    values, last = np.concatenate([values, known[i].values[-new:]]), i
                    covariates = np.concatenate([covariates, known[i].covariates[-new:]])
        more, ahead, origin = answers[last], known[last].ahead, known[last].origin
        beside = np.full((len(more), covariates.shape[1]), np.nan)
        for k, name in enumerate(one.names_ahead):
            beside[: len(ahead), one.names.index(name)] = ahead[:, k]
        after = at_step(origin, about.frequency, len(more)) if origin is not None and about and about.frequency else None
        out.append(History(one.id, np.concatenate([values, more]), np.concatenate([covariates, beside]), np.zeros((0, len(one.names_ahead))), one.names, one.names_ahead,
                           after, one.static))
    return out


def _further(before: np.ndarray, after: np.ndarray, horizon: int) -> int:
    """By how many steps a history that was cut at its beginning goes on beyond another: a number of horizons, told by what both hold; 0 if they do not fit."""
    for new in range(horizon, len(after) - horizon, horizon):
        both = min(len(before), len(after) - new, SAME)
        if np.array_equal(before[-both:], after[-new - both : -new], equal_nan=True):
            return new
    return 0


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
