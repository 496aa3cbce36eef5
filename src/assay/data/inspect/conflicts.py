"""The same inputs with different answers, and the error that no model can go below because of them."""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.data.inspect.base import Finding
from assay.data.inspect.view import whole_or_head
from assay.data.split import copies
from assay.words import say

LEAST = 0.002  # of the rows


def conflicts(data: Dataset, *, labels: bool) -> list[Finding]:
    all_rows, data = len(data), whole_or_head(data)
    names = [c.name for c in data.schema.of_kind("image", "audio")] or [c.name for c in data.schema.features]
    if not names or not len(data):
        return []
    y = data.y
    frame = pl.DataFrame({"key": data.frame.select(names).hash_rows(seed=0), "y": y}).drop_nulls("y")
    n = frame.height
    if labels:
        counts = frame.group_by("key", "y").len().group_by("key").agg(pl.col("len").sum().alias("rows"), pl.col("len").max().alias("most"))
        torn = counts.filter(pl.col("rows") > pl.col("most"))
        if (rows := int(torn["rows"].sum())) < max(2, LEAST * n):
            return []
        wrong = int((torn["rows"] - torn["most"]).sum())
        text = say("{rows:,} rows share all their inputs with rows of another '{target}': no model can be right on more than {percent:.1f} % of these {n:,} rows.",
                   rows=rows, target=y.name, percent=100 - 100 * wrong / n, n=n)
        figure = {"rows_in_conflict": rows, "error_floor": round(wrong / n, 5), "rows": n, "sampled": len(data) < all_rows}
        level = "warning" if copies(data) is not None and wrong >= 0.01 * n else "note"
    else:
        within = frame.group_by("key").agg(pl.len().alias("rows"), (pl.col("y").cast(pl.Float64).var(ddof=0) * pl.len()).alias("square"), pl.col("y").n_unique().alias("kinds"))
        torn = within.filter(pl.col("kinds") > 1)
        if (rows := int(torn["rows"].sum())) < max(4, LEAST * n):
            return []
        floor = float(np.sqrt(float(torn["square"].sum()) / n))
        spread = float(y.cast(pl.Float64).std() or 0.0)  # type: ignore[arg-type]
        text = say("{rows:,} rows share all their inputs with rows of another '{target}': no model's root mean squared error on these {n:,} rows goes below {floor:.3g} "
                   "(standard deviation: {spread:.3g}).", rows=rows, target=y.name, n=n, floor=floor, spread=spread)
        figure = {"rows_in_conflict": rows, "error_floor": floor, "rows": n, "sampled": len(data) < all_rows}
        level = "warning" if copies(data) is not None and floor >= 0.1 * spread else "note"
    advice = say("Some of them may be wrong answers; or what tells them apart is not in the table: another column would lower the floor.")
    return [Finding("conflicts", level, text, advice, (), figure)]
