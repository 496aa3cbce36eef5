"""/v1/explain: what an answer rests on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from assay.explain import grounds
from assay.explain.columns import shapley
from assay.serve.held import Held, Shelf, rows_given
from assay.serve.http import Asked, Refused, Said, as_json
from assay.serve.wire import only_known

MOST_WAITING = 8  # explanations; each asks the model some hundred rows


class Explaining:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explains")
        self._waiting = 0

    async def explain(self, asked: Asked) -> Said:
        """One row -> its answer, and what each column, word, part of a picture or stretch of a sequence adds to it."""
        held, given = await rows_given(self._shelf, asked)
        if not given.single:
            raise Refused(422, "One row is explained at a time: send {{\"row\": {{column: value}}}}.")
        if not held.champion.bundle.task.by_rows:
            raise Refused(501, "Forecasts are explained in the report of their run, not row by row.")
        only_known(given.rows, held.champion.known)
        if self._waiting >= MOST_WAITING:
            raise Refused(429, "{n} explanations are waiting already. Try again in {wait:.0f} seconds.", n=self._waiting, wait=2.0, retry_s=2.0)
        self._waiting += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._pool, explained, held, given.rows[0])
        finally:
            self._waiting -= 1
        return as_json(found)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def explained(held: Held, row: dict[str, Any]) -> dict[str, Any]:
    """JSON-ready. `columns` where the bundle has rows to compare with; `words`, `heat` or `stretches` for a column of text, pictures or steps."""
    bundle = held.champion.bundle
    data = bundle.read([row])
    prediction = bundle.task.calibrated(bundle.model.predict(data), bundle.calibration)
    answer = bundle.task.answers(prediction).row(0, named=True) if bundle.task.by_rows else {}
    out: dict[str, Any] = {"model": held.model, "version": held.champion.version.version, "answer": answer}
    if bundle.reference is not None and bundle.reference.height and bundle.schema.plain:
        found = shapley(bundle.task, bundle.model, data, bundle.reference, bundle.calibration)
        out |= {"told": found.told, "usual": found.usual, "explains": None if found.target is None else str(found.target),
                "columns": [{"column": s.column, "adds": s.value, "error": s.error} for s in found.shares], "method": "Shapley values, sampled"}
    column = next((c for kind in ("image", "sequence", "text") for c in bundle.schema.of_kind(kind)), None)
    if column is None or data.frame[column.name][0] is None:
        return out
    codes = prediction[:, : bundle.task.width].argmax(axis=1)
    if column.kind == "image":
        maps, method = grounds.heat(bundle.model, data, column.name, codes)
        out |= {"heat": np.round(maps[0], 3).tolist(), "heat_column": column.name, "heat_method": str(method)}
    elif column.kind == "text":
        marked, method = grounds.words(bundle.model, data, column.name, codes)
        out |= {"words": [[w, round(v, 5)] for w, v in marked[0]], "words_column": column.name, "words_method": str(method)}
    else:
        parts, method = grounds.stretches(bundle.model, data, column.name, codes)
        out |= {"stretches": np.round(parts[0], 5).tolist(), "stretches_column": column.name, "stretches_method": str(method)}
    return out
