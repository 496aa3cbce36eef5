"""From a bundle that forecasts to the quantiles that a decision takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.data.grid import written
from assay.data.history import ORIGIN
from assay.decide.base import Quantiles
from assay.errors import InputError
from assay.ship.bundle import Bundle, load


def quantiles_of(bundle: str | Path | Bundle, history: Any, *, query: str | None = None) -> Quantiles:
    """What the model says of the next steps of every series in `history` (a file, a frame, or a database URL with `query`).

    Raises BundleError, ReadError, InputError (the bundle does not forecast, or the series end at different times).
    """
    model = bundle if isinstance(bundle, Bundle) else load(bundle)
    if model.task.by_rows:
        raise InputError("'{task}' gives an answer a row; a decision needs the winner of a run with --task forecast.", task=model.task.name)
    data = model.read(history, query=query)
    cube = model.task.handed(model.task.calibrated(model.model.predict(data), model.calibration), data)  # type: ignore[attr-defined]
    origins = data.frame[ORIGIN].drop_nulls().unique() if ORIGIN in data.frame.columns else None
    if origins is not None and len(origins) > 1:
        raise InputError("The series end at {n} different times, from {first} to {last}; a plan needs them to end together.", n=len(origins), first=str(origins.min()),
                         last=str(origins.max()))
    ids = tuple(str(i) for i in data.frame[data.schema.group].to_list()) if data.schema.group else ("series",)
    times = (written(model.task.times(origins[0]).to_numpy()) if origins is not None and len(origins) and model.task.frequency  # type: ignore[attr-defined]
             else tuple(str(k + 1) for k in range(cube.shape[1])))
    return Quantiles(tuple(model.task.levels), cube, tuple(i or "series" for i in ids), times)  # type: ignore[attr-defined]
