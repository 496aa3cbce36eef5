"""Sketches of a table larger than memory: parquet, read a row group and a block of columns at a time, on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import local
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Column, Schema
from assay.data.read import conform
from assay.errors import InputError
from assay.watch.gauge import Gauge, Grid, Lexicon, copies
from assay.watch.sketch import Numbers, Sketches
from assay.watch.traces import key

BLOCK_MB = 24  # decoded at a time by each thread
MOST_SAMPLED, SAMPLED_CELLS = 20_000, 4_000_000
HASHED = 64  # duplicates are looked for in tables of at most so many columns


def parts_of(source: Any) -> list[Path] | None:
    """The parquet files of a path (a file, or a folder of them), None for anything else."""
    if not isinstance(source, (str, Path)) or "://" in str(source):
        return None
    path = Path(source)
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*.parquet") if p.is_file())
        return parts if parts and len(parts) == sum(p.is_file() and not p.name.startswith(("_", ".")) for p in path.rglob("*")) else None
    return [path] if path.suffix.lower() in (".parquet", ".pq") and path.is_file() else None


def sample(parts: Sequence[Path], columns: Sequence[Column], *, rows: int, absent: Sequence[str] = ()) -> pl.DataFrame:
    """About `rows` rows, evenly spread over the row groups, as `conform` makes them: what grids are learnt from."""
    import pyarrow.parquet as pq

    sizes = [pq.ParquetFile(p).metadata.num_rows for p in parts]
    total = sum(sizes)
    if not total:
        raise InputError("There are no rows in '{file}'.", file=str(parts[0]))
    wanted = np.unique(np.linspace(0, total - 1, min(rows, total)).astype(np.int64))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    names = [c.name for c in columns]
    frames = []
    for i, part in enumerate(parts):
        own = wanted[(wanted >= starts[i]) & (wanted < starts[i + 1])] - starts[i]
        if not len(own):
            continue
        blocks = []
        for at in range(0, len(names), 64):  # narrow blocks: of a wide table only these are decoded at once
            scan = pl.scan_parquet(part).select(names[at: at + 64])
            picked = scan.with_row_index("\x1fat").filter(pl.col("\x1fat").is_in(own.tolist())).drop("\x1fat")
            blocks.append(picked.collect(engine="streaming"))
        frames.append(pl.concat(blocks, how="horizontal"))
    return conform(pl.concat(frames, how="vertical_relaxed"), Schema(tuple(columns))).frame


def rows_for(columns: Sequence[Column], most: int = MOST_SAMPLED) -> int:
    """How many rows of such a table are held in memory at once: `most`, fewer where it is wide."""
    return max(1000, min(most, SAMPLED_CELLS // max(len(columns), 1)))


def learnt(parts: Sequence[Path], columns: Sequence[Column]) -> tuple[Gauge, pl.DataFrame]:
    """(the gauge, the sample that made its grids): edges and levels from a sample, their counts from all rows, unless lenses need the rows themselves."""
    some = sample(parts, columns, rows=rows_for(columns))
    gauge = Gauge.learn(some, columns)
    return (gauge if gauge.lenses else gauge.counted_on(measured(gauge, parts))), some


def measured(gauge: Gauge, parts: Sequence[Path], *, threads: int | None = None) -> Sketches:
    """The sketches of all rows of these files on the grids of `gauge`. Memory: BLOCK_MB a thread and the largest column chunk of a file.

    Number columns are counted as they are decoded; others go through `conform`, so that a category written as 1.0 is the level '1' here too.
    """
    import pyarrow.parquet as pq

    threads = threads or min(len(os.sched_getaffinity(0)), 8)
    columns = {c.name: c for c in gauge.columns}
    own = local()

    def opened(path: Path) -> Any:
        held = getattr(own, "held", None)
        if held is None or held[0] != path:
            own.held = held = (path, pq.ParquetFile(path, memory_map=False, pre_buffer=False, buffer_size=1 << 20))
        return held[1]

    def tasks() -> Iterator[tuple[Path, int, list[str]]]:
        for path in parts:
            about = pq.ParquetFile(path).metadata
            for group in range(about.num_row_groups):
                each = max(1, min(len(columns), BLOCK_MB * 2**20 // max(about.row_group(group).num_rows * 8, 1)))
                if len(columns) <= HASHED and all(c.kind != "text" for c in columns.values()) and each >= len(columns) // 2:
                    each = len(columns)
                names = list(columns)
                yield from ((path, group, names[at: at + each]) for at in range(0, len(names), each))

    def one(task: tuple[Path, int, list[str]]) -> Sketches:
        path, group, names = task
        table = opened(path).read_row_group(group, columns=names, use_threads=False)
        made = Sketches(gauge.reference.gauge)
        rest = []
        for name in names:
            grid = gauge.grids.get(key(name))
            kind = str(table.schema.field(name).type)
            if isinstance(grid, Grid) and columns[name].kind == "number" and kind in ("float", "double"):
                counts = Numbers(np.zeros(len(grid.edges) + 1, dtype=np.int64))
                for chunk in table.column(name).chunks:
                    counts = counts.merge(grid.count(chunk.to_numpy(zero_copy_only=False)))
                made.traces[name] = counts
            else:
                rest.append(columns[name])
        if rest:
            frame = conform(pl.DataFrame(table.select([c.name for c in rest])), Schema(tuple(rest))).frame
            made.traces |= replace(gauge, columns=tuple(rest)).measure(frame, copied=False).traces
        if len(names) == len(columns) <= HASHED:
            made.copies = copies(conform(pl.DataFrame(table), Schema(gauge.columns)).frame, gauge.columns)
        made.rows = table.num_rows if names[0] == next(iter(columns)) else 0
        return made

    whole = Sketches(gauge.reference.gauge)
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[Any] = []
        for task in tasks():
            waiting.append(pool.submit(one, task))
            if len(waiting) > 2 * threads:
                whole = whole.merge(waiting.pop(0).result())
        for last in waiting:
            whole = whole.merge(last.result())
    return whole


def empty(gauge: Gauge) -> Sketches:
    """The sketches of no rows."""
    traces = {name: Lexicon.count(grid, pl.Series([], dtype=pl.String)) if isinstance(grid, Lexicon) else Grid.count(grid, np.zeros(0)) for name, grid in gauge.grids.items()}
    return Sketches(gauge.reference.gauge, 0, traces)
