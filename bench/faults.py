"""Faults to plant in honest tables: each gives back the spoiled table and says how it is recognised in the findings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from assay.data.inspect import Finding

Check = Callable[[list[Finding]], bool]


@dataclass(frozen=True)
class Fault:
    """plant: (frame, target, labels, rng) -> the spoiled frame, or None where this table cannot have it. Only the columns `base` needs are kept."""

    name: str
    finding: str
    plant: Callable[[pl.DataFrame, str, bool, np.random.Generator], pl.DataFrame | None]
    found: Check


def _named(code: str, column: str | None = None, level: str | None = None) -> Check:
    return lambda found: any(f.code == code and (column is None or column in f.columns) and (level is None or f.level == level) for f in found)


def _answer(frame: pl.DataFrame, target: str) -> np.ndarray:
    return frame[target].to_numpy()


def _half(frame: pl.DataFrame, target: str, labels: bool) -> np.ndarray:
    """True for about half of the rows, by their answer."""
    y = frame[target]
    if not labels:
        return (y > y.median()).to_numpy()
    counts = y.value_counts(sort=True)[target].to_list()
    return y.is_in(counts[: max(1, len(counts) // 2)]).to_numpy()


def copy(frame, target, labels, rng):
    y = frame[target]
    other = y.cast(pl.String).replace({str(v): f"code {i}" for i, v in enumerate(y.unique().sort().to_list())}) if labels else y * 1.0
    return frame.with_columns(other.alias("planted"))


def unit(frame, target, labels, rng):
    return None if labels else frame.with_columns((frame[target] * 0.45359237).round(4).alias("planted"))


def noisy_copy(frame, target, labels, rng):
    y = frame[target]
    if not labels:
        return frame.with_columns((y + 0.02 * float(y.std() or 1) * pl.Series(rng.normal(size=len(y)))).alias("planted"))
    values = [f"code {v}" for v in y.to_list()]
    for i in rng.choice(len(values), round(0.02 * len(values)), replace=False):
        values[i] = values[int(rng.integers(len(values)))]
    return frame.with_columns(pl.Series("planted", values))


def flags(frame, target, labels, rng):
    if not labels:
        return None
    counts = frame[target].value_counts().sort("count")
    rare, share = counts[target][0], counts["count"][0] / frame.height
    if share > 0.3 or counts["count"][0] < 30:
        return None
    cause = np.where((frame[target] == rare).to_numpy(), rng.integers(0, 3, frame.height), -1)
    cause[rng.random(frame.height) < 0.03] = -1
    return frame.with_columns(pl.Series(f"K{'ABC'[k]}X", (cause == k).astype(int)) for k in range(3))


def missingness(frame, target, labels, rng):
    inside = _half(frame, target, labels)
    empty = rng.random(frame.height) < np.where(inside, 0.6, 0.05)
    return frame.with_columns(pl.Series("planted", np.where(empty, np.nan, rng.normal(size=frame.height))).fill_nan(None))


def filled(frame, target, labels, rng):
    if not labels:
        return None
    y = frame[target]
    if y.n_unique() > 6:
        return None
    means = {v: 0.1 + 0.137 * i for i, v in enumerate(y.unique().sort().to_list())}
    gap = rng.random(frame.height) < 0.25
    return frame.with_columns(pl.Series("planted", np.where(gap, [means[v] for v in y.to_list()], rng.normal(size=frame.height))))


def sort(frame, target, labels, rng):
    return frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6))).sort(target, maintain_order=True)


def exact(frame, target, labels, rng):
    return pl.concat([frame, frame[np.sort(rng.choice(frame.height, frame.height // 20, replace=False))]])


def near(frame, target, labels, rng):
    some = frame[np.sort(rng.choice(frame.height, max(8, frame.height // 20), replace=False))]
    changed, texts = [], 0
    for name in some.columns:
        if name == target:
            continue
        spread = float(frame[name].std() or 0) if frame[name].dtype.is_float() else 0.0
        if spread and frame[name].n_unique() > 100:
            changed.append((pl.col(name) + 1e-3 * spread * pl.Series(rng.normal(size=some.height))).alias(name))
        elif frame[name].dtype == pl.String and frame[name].str.len_chars().mean() > 30:
            changed.append((pl.col(name) + " ok").alias(name))
            texts += 1
    return pl.concat([frame, some.with_columns(changed)]) if len(changed) >= 3 or texts else None


def conflict(frame, target, labels, rng):
    some = frame[np.sort(rng.choice(frame.height, frame.height // 20, replace=False))]
    y = frame[target]
    if labels:
        kinds = y.unique().sort().to_list()
        other = pl.Series(target, [kinds[(kinds.index(v) + 1) % len(kinds)] for v in some[target].to_list()], dtype=y.dtype)
    else:
        other = some[target] + 2 * float(y.std() or 1)
    return pl.concat([frame, some.with_columns(other)])


def group(frame, target, labels, rng, column="patient_id"):
    """Each of some rows becomes a patient with 4 to 12 visits: nearly the same numbers, the same answer (an amount: but for a little)."""
    numbers = [c for c in frame.columns if c != target and frame[c].dtype.is_float() and frame[c].n_unique() > 20]
    if len(numbers) < 3:
        return None
    people = frame[rng.permutation(frame.height)[: min(120, frame.height // 2)]]
    who = np.repeat(np.arange(people.height), rng.integers(4, 13, people.height))
    many = people[who]
    out = many.with_columns([(pl.col(c) + 0.1 * float(frame[c].std() or 0) * pl.Series(rng.normal(size=len(who)))).alias(c) for c in numbers])
    if not labels:
        out = out.with_columns((pl.col(target) + 0.2 * float(frame[target].std() or 0) * pl.Series(rng.normal(size=len(who)))).alias(target))
    return out.with_columns(pl.Series(column, rng.permutation(people.height)[who] + 1000)).sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6)))


def _in_time(frame, target, labels, rng):
    """The answer drifts and swings with the season beyond what its inputs say."""
    n = frame.height
    t = np.arange(n)
    if not labels:
        shuffled = frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6)))
        spread = float(frame[target].std() or 1)
        course = 1.5 * t / n + 0.5 * np.sin(2 * np.pi * t / 90)
        return shuffled.with_columns(pl.col(target) + spread * pl.Series(course))
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6)))
    common = frame[target].value_counts(sort=True)[target][0]
    turned = (t * 6 // n % 2 == 1) & (rng.random(n) < 0.6)  # in every second season six in ten answers become the commonest one
    return shuffled.with_columns(pl.when(pl.Series(turned)).then(pl.lit(common, dtype=frame[target].dtype)).otherwise(pl.col(target)).alias(target))


def dated(frame, target, labels, rng):
    moved = _in_time(frame, target, labels, rng)
    dates = pl.Series("day_of_visit_date", np.datetime64("2022-01-01") + np.arange(moved.height))
    return moved.with_columns(dates).sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6)))


def undated(frame, target, labels, rng):
    return None if labels else _in_time(frame, target, labels, rng)


def gap(frame, target, labels, rng):
    moved = _in_time(frame, target, labels, rng)
    hole = moved.height // 3
    kept = np.delete(np.arange(moved.height), slice(hole, hole + moved.height // 10))
    return moved.with_columns(pl.Series("day_of_visit_date", np.datetime64("2022-01-01") + np.arange(moved.height)))[kept]


def rare(frame, target, labels, rng):
    if not labels or frame[target].dtype != pl.String:
        return None
    return pl.concat([frame, frame.head(3).with_columns(pl.lit("a rare one").alias(target))])


def constant(frame, target, labels, rng):
    return frame.with_columns(pl.lit("CNY").alias("planted"))


def moved(frame, target, labels, rng):
    late = np.arange(frame.height) >= 0.8 * frame.height
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=int(rng.integers(10**6)))
    return shuffled.with_columns(pl.Series("planted", rng.normal(size=frame.height) + 2.0 * late), pl.Series("split", np.where(late, "test", "train")))


def later(frame, target, labels, rng):
    return frame.with_columns(pl.Series("处理结果", np.where(rng.random(frame.height) < np.where(_half(frame, target, labels), 0.8, 0.3), "甲", "乙")))


FAULTS = [
    Fault("copy of the answer", "leak", copy, _named("leak", "planted", "leak")),
    Fault("another unit", "leak", unit, _named("leak", "planted", "leak")),
    Fault("copy, 2 % wrong", "leak (any level)", noisy_copy, _named("leak", "planted")),
    Fault("three flags that imply the rarest class", "leak", flags, lambda found: any(f.level == "leak" and set(f.columns) == {"KAX", "KBX", "KCX"} for f in found)),
    Fault("empty in 60 % or 5 % by answer", "missing_tells", missingness, _named("missing_tells", "planted")),
    Fault("gaps filled class by class", "missing_tells", filled, _named("missing_tells", "planted", "leak")),
    Fault("sorted by the answer", "order_tells", sort, _named("order_tells")),
    Fault("5 % copies", "duplicates", exact, _named("duplicates")),
    Fault("5 % near copies", "near_duplicates", near, _named("near_duplicates")),
    Fault("5 % copies with another answer", "conflicts", conflict, _named("conflicts")),
    Fault("visits of patients", "group", group, _named("group", "patient_id")),
    Fault("visits, column called 'k'", "group", lambda f, t, y, r: group(f, t, y, r, column="k"), _named("group", "k")),
    Fault("drift and season, dated", "ordered", dated, _named("ordered", "day_of_visit_date")),
    Fault("drift and season, no date", "ordered", undated, _named("ordered")),
    Fault("a tenth of the days missing", "gaps", gap, _named("gaps")),
    Fault("a class of 3 rows", "rare_labels", rare, _named("rare_labels")),
    Fault("one value only", "constant", constant, _named("constant", "planted")),
    Fault("test rows moved by 2 sd", "shift", moved, _named("shift", "planted")),
    Fault("a result column", "after_the_fact", later, _named("after_the_fact", "处理结果")),
]
