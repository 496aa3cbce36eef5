"""Tables of steps as sequences: a row a unit where its answer is one, a history beside each step where it changes, and wide columns as steps.

A long table has one row a step (unit, time, channels). If the answer is the same throughout each unit, as an activity or a fault is, every unit
becomes one row. If it changes, as the remaining life of an engine does, every step stays a row and gets the last steps up to and including
itself; the answer is never among them. How a sequence was made stands in its column, so that new rows are read the same way.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset, Schema
from assay.data.inspect.names import names_a_counter
from assay.data.media import packed
from assay.data.split import own_split
from assay.data.values import labels
from assay.errors import InputError
from assay.words import Text, say

WINDOW = 50
LEAST_STEPS = 8  # of wide columns: fewer numbered columns are measurements, not a course
_NUMBERED = re.compile(r"(.*?)0*(\d{1,9})$", re.DOTALL)


@dataclass(frozen=True)
class Made:
    """How a sequence column came about. by, time: columns of the unit and of the order of its steps (None: as they stand). last: steps of
    the history, None for whole units. wide: for each channel the columns of its steps. It is kept in `Column.unit`, as JSON."""

    by: str | None = None
    time: Column | None = None
    last: int | None = None
    wide: tuple[tuple[str, ...], ...] = ()

    def text(self) -> str:
        time = {k: v for k, v in vars(self.time).items() if v is not None} if self.time else None
        return json.dumps({k: v for k, v in (("by", self.by), ("time", time), ("last", self.last), ("wide", self.wide)) if v}, ensure_ascii=False)

    @classmethod
    def of(cls, column: Column) -> Made | None:
        """None for a sequence that was one already where it was read."""
        if column.kind != "sequence" or not column.unit:
            return None
        held = json.loads(column.unit)
        time = Column(**held["time"]) if "time" in held else None
        return cls(held.get("by"), time, held.get("last"), tuple(tuple(names) for names in held.get("wide", ())))

    @property
    def needs(self) -> list[str]:
        """Columns without which it cannot be made, channels apart."""
        return [n for names in self.wide for n in names] + ([self.by] if self.by else []) + ([self.time.name] if self.time else [])


def with_sequences(data: Dataset, *, window: int, memory_mb: float, notes: list[Text]) -> Dataset:
    """The dataset of a long table (its schema names the group) or a wide one, with its sequences. Raises InputError."""
    return _long(data, window, memory_mb, notes) if data.schema.group else _wide(data, notes)


# ---- long


@dataclass(frozen=True)
class _Steps:
    """The rows of a long table, ordered by unit and time. order: int (n,). start: int (units + 1,), where each unit begins."""

    order: np.ndarray
    start: np.ndarray

    @property
    def unit(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    def constant(self, series: pl.Series) -> bool:
        """The same value at all steps of a unit, for every unit."""
        code = series.rank("dense").fill_null(0).to_numpy()[self.order]
        same = code[1:] == code[:-1]
        same[self.start[1:-1] - 1] = True
        return bool(same.all())


def ordered(keys: list[pl.Series], time: pl.Series | None) -> _Steps:
    """keys: what makes a unit, without nulls; units stand in the order in which they first appear, their steps in that of time, else of the file."""
    n = len(keys[0])
    code = np.zeros(n, dtype=np.int64)
    for key in keys:
        rank = key.rank("dense").fill_null(0).to_numpy().astype(np.int64)
        code = code * (int(rank.max(initial=0)) + 1) + rank
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    unit = place[inverse]
    order = np.argsort(unit, kind="stable") if time is None else np.lexsort((np.arange(n), time.rank("dense").fill_null(0).to_numpy(), unit))
    return _Steps(order, np.concatenate([[0], np.cumsum(np.bincount(unit, minlength=len(first)))]))


def cells_of(values: np.ndarray, steps: _Steps, last: int | None) -> list[bytes]:
    """values: float32 (n, channels) in the order of `steps`. A cell a unit, or of every row the last steps up to and including it."""
    if last is None:
        return [packed(values[a:b]) for a, b in zip(steps.start[:-1], steps.start[1:], strict=True)]
    row = np.arange(len(values))
    begin = np.maximum(row - last + 1, np.repeat(steps.start[:-1], np.diff(steps.start)))
    whole, width = memoryview(packed(values)), 4 * values.shape[1]
    return [bytes(whole[a * width : (b + 1) * width]) for a, b in zip(begin.tolist(), row.tolist(), strict=True)]


def _long(data: Dataset, window: int, memory_mb: float, notes: list[Text]) -> Dataset:
    schema, frame = data.schema, data.frame
    unit, target, own = schema.group or "", schema.target, own_split(schema)
    if lost := frame[unit].null_count():
        raise InputError("{n:,} rows have no value in '{unit}', so it is not known to which sequence they belong. Fill it in, or take them out.", n=lost, unit=unit)
    keys = [frame[unit], *([frame[own]] if own else [])]
    time = schema.time or _counter(data, keys, notes)
    steps = ordered(keys, frame[time] if time else None)
    if time:
        _check_time(frame, time, steps, unit, notes)
    units, n = len(steps.start) - 1, len(data)
    if units == n:
        raise InputError("Every '{unit}' has one row only, so there are no sequences. A row a step is expected; name the column that steps share with --group COLUMN.", unit=unit)
    whole = target is not None and steps.constant(frame[target])
    fixed = {c.name for c in schema.columns if steps.constant(frame[c.name])}
    columns = {c.name: c for c in schema.columns}
    channels = [c.name for c in schema.of_kind("number") if c.name != time and (not whole or c.name not in fixed)]
    if not channels:
        raise InputError("No column of numbers changes within a '{unit}', so there is no sequence to learn from. Leave --sequence away.", unit=unit)
    size = 4 * n * len(channels) * (1 if whole else window) / 2**20
    if size > 0.25 * memory_mb:
        raise InputError("The sequences would take {size:,.0f} MB, more than a quarter of the {memory:,.0f} MB there are. Shorten the history with --window, or allow more with "
                         "--memory.", size=size, memory=memory_mb)
    values = frame.select(channels).to_numpy().astype(np.float32)[steps.order]
    values[~np.isfinite(values)] = np.nan
    made = Made(unit, columns[time] if time else None, None if whole else window)
    name = _free("steps" if whole else "history", schema)
    sequence = Column(name, "sequence", unit=made.text(), channels=tuple(channels))
    rows = np.arange(n) if data.rows is None else data.rows
    cells = pl.Series(name, cells_of(values, steps, made.last), dtype=pl.Binary)
    lengths = np.diff(steps.start)
    about = {"units": units, "unit": unit, "short": int(lengths.min()), "long": int(lengths.max()), "channels": len(channels)}
    if not whole:
        notes.append(say("{units:,} sequences by '{unit}' with {short:,} to {long:,} steps: '{target}' changes within them, so each step is a row, with the last {window} steps "
                         "of {channels} channels in '{name}'.", **about, target=target or "", window=window, name=name))
        ready = frame[steps.order].with_columns(cells)
        if target and columns[target].kind == "number" and _moves(ready[target], steps):
            notes.append(say("'{target}' changes with most steps, so it is taken for an amount; --kind {target}=category says otherwise.", target=target))
            ready = ready.with_columns(pl.col(target).cast(pl.Float64))
        return Dataset(ready, replace(schema, columns=(*schema.columns, sequence)), rows[steps.order])
    away = [c.name for c in schema.columns if c.name not in fixed and c.name not in channels and c.name != time]
    if away:
        notes.append(say("Columns that change within a '{unit}' but hold no numbers are left out: {names}.", unit=unit, names=away))
    notes.append(say("{units:,} sequences by '{unit}' with {short:,} to {long:,} steps of {channels} channels: each is one row.", **about))
    firsts = steps.order[steps.start[:-1]]
    kept = [c for c in schema.columns if c.name in fixed and c.name != time]
    ready = frame[firsts].select(labels(frame[firsts][c.name]) if c.name == unit else pl.col(c.name) for c in kept).with_columns(cells)
    kept = [Column(c.name, "id") if c.name == unit else c for c in kept]
    return Dataset(ready, Schema((*kept, sequence), target), rows[firsts])


def _moves(answer: pl.Series, steps: _Steps) -> bool:
    """Whole numbers that change with most steps count something; labels last."""
    if not answer.dtype.is_integer() or answer.n_unique() <= 10:
        return False
    same_unit = np.diff(steps.unit) == 0
    changed = (answer.diff().fill_null(0) != 0).to_numpy()[1:]
    return bool(same_unit.any()) and float(changed[same_unit].mean()) > 0.5


def _counter(data: Dataset, keys: list[pl.Series], notes: list[Text]) -> str | None:
    """The column that counts the steps, if one is named so and has no value twice in a unit."""
    for column in data.schema.columns:
        if column.name in (data.schema.target, data.schema.group) or column.kind not in ("number", "time") or not names_a_counter(column.name):
            continue
        series = data.frame[column.name]
        if not series.null_count() and pl.DataFrame([k.alias(str(i)) for i, k in enumerate(keys)] + [series.alias("time")]).is_unique().all():
            notes.append(say("Steps are in the order of '{time}'; --time-column says otherwise.", time=column.name))
            return column.name
    notes.append(say("No column says when a step was, so they are taken as they stand in the file; --time-column says otherwise."))
    return None


def _check_time(frame: pl.DataFrame, time: str, steps: _Steps, unit: str, notes: list[Text]) -> None:
    if lost := frame[time].null_count():
        raise InputError("{n:,} rows have no value in '{time}', so their step cannot be placed. Fill it in, or take them out.", n=lost, time=time)
    moments = frame[time].to_physical().cast(pl.Float64).to_numpy()[steps.order]
    gap = np.diff(moments)
    inside = np.ones(len(gap), dtype=bool)
    inside[steps.start[1:-1] - 1] = False
    usual = float(np.median(gap[inside])) if inside.any() else 0.0
    twice, wide = int((gap[inside] == 0).sum()), int((gap[inside] > 1.5 * usual).sum()) if usual > 0 else 0
    if twice:
        notes.append(say("{n:,} steps share their '{time}' with another one of the same '{unit}'; they stay in the order of the file.", n=twice, time=time, unit=unit))
    if wide:
        notes.append(say("{n:,} times '{time}' leaps further than usual within a '{unit}'; steps are taken as if they followed each other evenly.", n=wide, time=time, unit=unit))


def _free(name: str, schema: Schema) -> str:
    taken = {c.name for c in schema.columns}
    while name in taken:
        name += "_"
    return name


# ---- wide


def runs(names: list[str]) -> list[tuple[str, list[str]]]:
    """[(what the names begin with, names in the order of their numbers)] of columns such as t0, t1, t2, ...: at least LEAST_STEPS, none missing."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if m := _NUMBERED.fullmatch(name):
            found.setdefault(m[1], {}).setdefault(int(m[2]), name)
    out = []
    for stem, numbered in found.items():
        first, last = min(numbered), max(numbered)
        if last - first + 1 == len(numbered) >= LEAST_STEPS:
            out.append((stem, [numbered[i] for i in range(first, last + 1)]))
    return out


def _wide(data: Dataset, notes: list[Text]) -> Dataset:
    schema, frame = data.schema, data.frame
    found = runs([c.name for c in schema.of_kind("number")])
    if not found:
        raise InputError("No sequence was found: --sequence reads the rows of each --group COLUMN as one, or at least {least} columns of numbers with consecutive numbers in "
                         "their names (t0, t1, t2, ...).", least=LEAST_STEPS)
    lengths = list(dict.fromkeys(len(names) for _, names in found))
    taken = {n for _, names in found for n in names}
    schema = replace(schema, columns=tuple(c for c in schema.columns if c.name not in taken))
    added: list[tuple[Column, pl.Series]] = []
    for length in lengths:
        stems = [(stem, names) for stem, names in found if len(names) == length]
        name = _free("steps", replace(schema, columns=(*schema.columns, *(c for c, _ in added))))
        channels = tuple(stem.rstrip("_-. ") or name for stem, _ in stems)
        made = Made(wide=tuple(tuple(names) for _, names in stems))
        column = Column(name, "sequence", unit=made.text(), channels=channels if len(set(channels)) == len(channels) else tuple(stem for stem, _ in stems))
        added.append((column, wide_cells(frame, made).alias(name)))
        notes.append(say("The columns {names} are read as sequences of {steps} steps and {channels} channels.", steps=length, channels=len(stems),
                         names=[f"{names[0]} ... {names[-1]}" for _, names in stems]))
    ready = frame.drop(taken).with_columns([cells for _, cells in added])
    return Dataset(ready, replace(schema, columns=(*schema.columns, *(c for c, _ in added))), data.rows)


def wide_cells(frame: pl.DataFrame, made: Made) -> pl.Series:
    """A cell a row of columns that hold one step each. What is missing at the end of a row was never there; a gap inside stays."""
    values = np.stack([frame.select(names).to_numpy().astype(np.float32) for names in made.wide], axis=2)
    values[~np.isfinite(values)] = np.nan
    there = np.asarray(np.isfinite(values).any(axis=2))
    lengths = np.where(there.any(axis=1), values.shape[1] - there[:, ::-1].argmax(axis=1), 0)
    return pl.Series("steps", [packed(one[:length]) if length else None for one, length in zip(values, lengths.tolist(), strict=True)], dtype=pl.Binary)


# ---- new rows


def remade(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """The frame with its sequences, for new rows of the plain columns that training had. frame: canonical dtypes. A unit is one row where it was.

    Rows keep their order; units stand in the order in which they first appear.
    """
    out = frame
    for column in schema.columns:
        made = Made.of(column)
        if made is None or column.name in frame.columns:
            continue
        if made.by is None:
            out = out.with_columns(wide_cells(frame, made).alias(column.name))
            continue
        steps = ordered([frame[made.by]], frame[made.time.name] if made.time else None)
        values = frame.select(column.channels or ()).to_numpy().astype(np.float32)[steps.order]
        values[~np.isfinite(values)] = np.nan
        cells = pl.Series(column.name, cells_of(values, steps, made.last), dtype=pl.Binary)
        if made.last is None:
            return out[steps.order[steps.start[:-1]]].with_columns(cells)
        back = np.empty(len(frame), dtype=np.int64)
        back[steps.order] = np.arange(len(frame))
        out = out.with_columns(cells.gather(back))
    return out
