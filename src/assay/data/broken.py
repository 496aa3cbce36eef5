"""Every picture and sound is decoded once when it is read, so that no broken file stops a contest later."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset
from assay.data.media import Broken, kind_of, pixels, rate_of, wave
from assay.errors import ReadError
from assay.words import Text, say

SIDE = 32  # pixels: a JPEG is then decoded at an eighth of its size
SAY_AFTER_S, SAY_EVERY_S = 5.0, 15.0
_SHOWN = 5


def whole(data: Dataset, files: dict[str, str | None], *, skip: bool | None, notes: list[Text], observe: Callable[[Text], None] = lambda note: None) -> Dataset:
    """The rows whose pictures and sounds can be decoded; the very same dataset if all can.

    files: {column of cells: the column that names their files, or None}. skip: leave broken ones out (a note says how many), instead of raising
    ReadError, which names them; None: there is no such choice. An empty cell is allowed, but not where a file was named.
    """
    bad = np.zeros(len(data), dtype=bool)
    for column in (c for c in data.schema.columns if c.kind in ("image", "audio") and c.name != data.schema.target):
        paths = files.get(column.name)
        named = data.frame[paths] if paths in data.frame.columns else None
        reasons = _reasons(data.frame[column.name], column, named, observe)
        if not reasons:
            continue
        shown = [say("{name} ({reason})", name=str(named[i]) if named is not None else say("row {row}", row=_row(data, i)), reason=reason)
                 for i, reason in list(reasons.items())[:_SHOWN]]
        shown += ["..."] * (len(reasons) > _SHOWN)  # type: ignore[list-item]
        values = {"n": len(reasons), "all": len(data), "names": shown, "column": column.name}
        if len(reasons) == len(data):
            raise ReadError("Of {all:,} cells of '{column}' none can be used: {names}.", **values)
        if skip is None:
            raise ReadError("{n:,} of {all:,} cells of '{column}' cannot be used: {names}. Mend or remove the files.", **values)
        if not skip:
            raise ReadError("{n:,} of {all:,} cells of '{column}' cannot be used: {names}. Mend or remove the files, or leave their rows out with --skip-broken.", **values)
        notes.append(say("{n:,} of {all:,} rows were left out, because their cell of '{column}' cannot be used: {names}.", **values))
        bad[list(reasons)] = True
    return data.take(~bad) if bad.any() else data


def _row(data: Dataset, i: int) -> int:
    return int(i if data.rows is None else data.rows[i]) + 1


def _reasons(cells: pl.Series, column: Column, named: pl.Series | None, observe: Callable[[Text], None]) -> dict[int, Text]:
    """{row: why its cell cannot be used}, in order."""
    absent = cells.is_null() & named.is_not_null() if named is not None else pl.repeat(False, len(cells), eager=True)
    out: dict[int, Text] = {int(i): say("there is no such file") for i in absent.arg_true()}
    rows = cells.is_not_null().arg_true().to_list()
    started = said = time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (i, reason) in enumerate(zip(rows, pool.map(lambda i: _reason(cells[i], column.kind), rows), strict=True)):
            if reason is not None:
                out[i] = reason
            now = time.monotonic()
            if now - started > SAY_AFTER_S and now - said > SAY_EVERY_S:
                said = now
                observe(say("Looking at each cell of '{column}': {done:,} of {all:,}.", column=column.name, done=done + 1, all=len(rows)))
    return dict(sorted(out.items()))


def _reason(cell: bytes, kind: str) -> Text | None:
    """None if the cell can be decoded, else why not."""
    found = kind_of(cell[:64])
    if cell and found is None:
        return say("it begins like no picture and no sound that is read")
    if cell and found != kind:
        return say("it is a sound, where a picture is expected") if kind == "image" else say("it is a picture, where a sound is expected")
    try:
        if kind == "image":
            pixels(cell, SIDE)
        else:
            wave(cell, rate_of(cell))
    except Broken as broken:
        return broken.reason
    return None
