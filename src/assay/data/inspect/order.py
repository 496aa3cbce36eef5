"""Row numbers and ids that follow the answer: a file sorted by its labels, keys given out answer by answer."""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.inspect.base import Finding
from assay.data.inspect.power import power_of
from assay.data.inspect.view import View
from assay.words import say

TELLS = {True: 0.35, False: 0.5}  # share of the answer that the place of a row explains; 0.1 is not rare in files that were collected in parts


def tells(view: View, *, in_time: bool) -> list[Finding]:
    """in_time: the rows are known to follow one another in time; then their place and number tell the answer rightly."""
    if in_time or len(view) < 50:
        return []
    out = []
    place = power_of(np.arange(len(view), dtype=np.float64), view)
    if place >= TELLS[view.labels]:
        out.append(Finding("order_tells", "warning", say(
            "The file is sorted by '{target}': the place of a row alone explains {percent:.0f} % of it.", target=view.data.y.name, percent=100 * place),
            say("No split here cuts such a file by row number, so no harm is done. Never do it elsewhere, and drop columns that count its rows."), (),
            {"explained": round(place, 4), "rows": len(view), "sampled": not view.whole}))
    for column in view.data.schema.columns:
        if column.kind != "id":
            continue
        number = _number(view.frame[column.name])
        if number is None:
            continue
        share = power_of(number, view)
        if share < TELLS[view.labels] or (out and abs(float(np.corrcoef(number.argsort().argsort(), np.arange(len(view)))[0, 1])) > 0.98):
            continue
        out.append(Finding("order_tells", "warning", say(
            "The number in '{column}' follows '{target}': it alone explains {percent:.0f} % of it.", column=column.name, target=view.data.y.name, percent=100 * share),
            say("Ids are not read by any candidate here. Keep '{column}' out of any other model too.", column=column.name), (column.name,),
            {"explained": round(share, 4), "rows": len(view), "sampled": not view.whole}))
    return out


def _number(series: pl.Series) -> np.ndarray | None:
    """The last run of digits of each key as a number; None if a key has none."""
    digits = series.str.extract(r"(\d+)\D*$", 1).cast(pl.Float64, strict=False)
    return None if digits.null_count() else digits.to_numpy()
