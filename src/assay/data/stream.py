"""Tables that do not fit into memory: a sample of them, and their kinds, decided column by column.

Why column by column: a kind is decided on every cell of its column and on no other column, so this gives the very frame that the whole
table would give, and the peak is a few copies of one column instead of two of the table. A parquet file is laid out for it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.data.dataset import Column, Schema
from assay.data.disk import Shelf
from assay.data.kinds import Inferred, infer
from assay.data.table import Table
from assay.errors import InputError
from assay.words import Text, say

IN_MEMORY = 0.25  # of the memory: a larger table is kept on disk. Both the table as read and as understood are in memory otherwise
MOST = 0.5  # of the memory: of a larger table a sample is taken, because a trial holds its training rows and a matrix of them
MOST_COLUMN = 0.2  # of the memory: a column as read, as understood, and what lies between
_BLOCK = 10_000_000
_TOGETHER = 1 / 64  # of the memory: so many short columns are read at once that a file of 2,000 is not opened 2,000 times


def fitted(table: Table, memory_mb: float, seed: int) -> tuple[Table, list[list[str]] | None]:
    """The table, or a random part of its rows that `memory_mb` has room for; and None if it may be in memory as a whole, else its
    columns, in groups that may be read together.

    Rows keep their order, and `table.rows` says which they are. A sentence in `table.notes` says that it is a part.
    """
    memory = memory_mb * 2**20
    a_row = table.bytes_a_row()
    total, largest = sum(kept for _, kept in a_row.values()) * table.height, max(max(both) for both in a_row.values()) * table.height
    share = min(1.0, MOST * memory / total, MOST_COLUMN * memory / largest)
    if share < 1:
        rows = sampled(table.height, share, seed)
        note = say("The table has {rows:,} rows, about {size:,.0f} MB once read. With {memory:,.0f} MB of memory, {n:,} rows drawn at random (seed {seed}) "
                   "take part. For more rows: --memory.", rows=table.height, size=total / 2**20, memory=memory_mb, n=len(rows), seed=seed)
        table = table.take(rows)
        table.notes.append(note)
    if total <= IN_MEMORY * memory:
        return table, None
    groups: list[list[str]] = []
    size = 0.0
    for name, (read, _) in a_row.items():
        size += read * table.height
        if not groups or size > _TOGETHER * memory:
            groups.append([])
            size = read * table.height
        groups[-1].append(name)
    return table, groups


def all_there(table: Table, memory_mb: float) -> Table:
    """The same table. Raises InputError if there is no room for all of its rows: of sequences none can be left out."""
    size = sum(kept for _, kept in table.bytes_a_row().values()) * table.height / 2**20
    if size > MOST * memory_mb:
        raise InputError("The table takes about {size:,.0f} MB once read, and sequences are read as a whole: more than half of the {memory:,.0f} MB there are. Allow more with "
                         "--memory.", size=size, memory=memory_mb)
    return table


def sampled(n: int, share: float, seed: int) -> np.ndarray:
    """About `share` of the row numbers 0 to n - 1, sorted; at least one. Ten million are drawn at a time: 80 MB whatever n is."""
    rng = np.random.default_rng(seed)
    parts = [start + np.flatnonzero(rng.random(min(_BLOCK, n - start)) < share) for start in range(0, n, _BLOCK)]
    rows = np.concatenate(parts)
    return rows if len(rows) else np.array([rng.integers(n)])


def infer_by_column(
    table: Table, groups: list[list[str]], shelf: Shelf, *, target: str | None, overrides: dict[str, str] | None, time: str | None, group: str | None, target_as: str | None,
) -> Inferred:
    """What `kinds.infer` says of the whole frame; every column goes to the shelf as soon as it is understood."""
    kept: list[pl.Series] = []
    columns: list[Column] = []
    notes: list[Text] = []
    empty: list[str] = []
    for column in (c for names in groups for c in table.select(names).get_columns()):
        def own(role: str | None, name: str = column.name) -> str | None:
            return name if role == name else None

        try:
            found = infer(pl.DataFrame([column]), target=own(target), time=own(time), group=own(group), target_as=target_as,
                          overrides={k: v for k, v in (overrides or {}).items() if k == column.name})
        except InputError as error:
            raise type(error)(_renumbered(error.text, table.rows)) from None
        if found.schema.columns:
            columns += found.schema.columns
            kept.append(shelf.put(found.frame.to_series()))
        elif "names" in found.notes[0].values:  # no cell has a value: one sentence for all such columns
            empty.append(column.name)
            continue
        notes += [_renumbered(note, table.rows) for note in found.notes]
    if empty:
        notes.append(say("Columns without a single value are left out: {names}.", names=empty))
    return Inferred(pl.DataFrame(kept), Schema(tuple(columns), target, time, group), notes)


def _renumbered(text: Text, rows: np.ndarray | None) -> Text:
    """A sentence that names a row, with the row's number in the source instead of that in the sample."""
    row = text.values.get("row")
    return text if rows is None or row is None else Text(text.template, text.values | {"row": int(rows[row - 1]) + 1})
