"""Columns kept on disk and mapped from there: many processes share one copy, and it is not theirs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl

from assay.errors import BudgetError


class Shelf:
    """Columns on disk, a file each, mapped as they are put there. Raises BudgetError when the disk is full."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file_at: dict[int, Path] = {}

    def put(self, column: pl.Series) -> pl.Series:
        """The same column, its cells mapped from a file of one piece: polars would copy columns of many pieces to align them."""
        room(self.folder, column.estimated_size())
        path = self.folder / f"{len(self._file_at):05d}.arrow"
        _write(column, path)
        column = mapped(path).to_series()
        self._file_at[_address(column)] = path
        return column

    def keep(self, frame: pl.DataFrame, folder: Path) -> None:
        """Store `frame` in `folder`, a file a column, for `stored`. A column that is still as it was put costs a link, not a copy."""
        folder.mkdir(parents=True)
        for i, column in enumerate(frame.get_columns()):
            there = self._file_at.get(_address(column))
            path = folder / f"{i:05d}.arrow"
            if there is None or mapped(there).height != len(column):
                room(folder, column.estimated_size())
                _write(column, path)
                continue
            try:
                os.link(there, path)
            except OSError:  # another disk
                shutil.copyfile(there, path)


def stored(folder: Path) -> pl.DataFrame:
    """The frame that `Shelf.keep` stored, mapped."""
    return pl.DataFrame([mapped(path).to_series() for path in sorted(folder.glob("*.arrow"))])


def mapped(path: Path) -> pl.DataFrame:
    """The frame over the file's own pages (polars 2 reads Arrow files into memory of its own). They stay when the file is removed."""
    import pyarrow as pa

    frame = pl.from_arrow(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame


def room(folder: Path, size: float) -> None:
    """Raises BudgetError if `folder` cannot take `size` bytes more."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * size + (16 << 20):
        raise BudgetError("Reading needs {size:,.0f} MB more in the folder '{folder}', where {free:,.0f} MB are free. Make room, or set TMPDIR to another "
                          "folder.", size=size / 2**20, folder=str(folder), free=free / 2**20)


def _write(column: pl.Series, path: Path) -> None:
    import pyarrow as pa

    array = column.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    batch = pa.record_batch([array], names=[column.name])
    with pa.ipc.new_file(str(path), batch.schema) as file:
        file.write_batch(batch)


def _address(column: pl.Series) -> int:
    """Where the cells of the first piece lie in memory; 0 if that cannot be told."""
    buffers = column.get_chunks()[0].to_arrow(compat_level=pl.CompatLevel.newest()).buffers()
    return int(buffers[1].address) if len(buffers) > 1 and buffers[1] else 0

