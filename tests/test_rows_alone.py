"""A time in a row asked alone is the time in a table, whatever reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.dataset import Column, Dataset, Schema
from assay.data.encode import TableEncoder
from assay.neural.columns import Columns

TIMES = st.none() | st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1))
SCHEMA = Schema((Column("when", "time"), Column("x", "number"), Column("shop", "category"), Column("town", "category"), Column("y", "category")), target="y")


def rows(times: list[datetime | None]) -> Dataset:
    n = len(times)
    return Dataset(pl.DataFrame({"when": pl.Series(times, dtype=pl.Datetime("us")), "x": pl.Series([None if i % 5 == 0 else i / 7 for i in range(n)], dtype=pl.Float64), "shop": ["ab"[i % 2] for i in range(n)],
                                 "town": pl.Series([None if i % 4 == 0 else str(i % 20) for i in range(n)], dtype=pl.String), "y": ["uv"[i % 2] for i in range(n)]}), SCHEMA)


LEARNT = Columns.learn(rows([datetime(2024, 1 + i % 12, 1 + i % 28, i % 24, i % 60, i % 59) for i in range(100)]))
TABLE = TableEncoder(SCHEMA.without_target()).fit(rows([datetime(2024, 1 + i % 12, 1 + i % 28, i % 24) for i in range(100)]).frame)


@settings(max_examples=60, deadline=None)
@given(times=st.lists(TIMES, min_size=1, max_size=4))
def test_networks_and_trees_read_a_time_alone_as_in_a_table(times):
    data = rows(times)
    whole, codes = LEARNT.read(data), TABLE.codes(data.frame)
    for i, row in enumerate(data.frame.iter_rows(named=True)):
        alone: Any = LEARNT.read_row(row)
        assert alone is not None
        for name in ("numbers", "dense", "codes"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(whole, name)[i], rtol=1e-6)
        np.testing.assert_allclose(TABLE.codes_row(row)[0], codes[i], rtol=1e-15)  # polars divides by a constant its own way
