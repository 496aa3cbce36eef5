"""Are the rows themselves in order: missing and unreadable values, values and levels out of what is known, stuck columns, copied rows, volume.

Shares are compared on the arcsine scale, where their noise is 1/n0 + 1/n1 whatever they are (Anscombe 1948); the null is that the share has grown by no more
than TOLERATED. Each check of a share gives a p-value and so joins the false-discovery control of `drift.controlled`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from assay.data.dataset import Column
from assay.watch.drift import LEAST_ROWS
from assay.watch.finding import Finding, code
from assay.watch.gauge import Gauge, Grid, Lexicon
from assay.watch.sketch import Levels, Numbers, Sketches
from assay.watch.tails import normal_below
from assay.watch.traces import named
from assay.words import say

TOLERATED = 0.02
MUCH = 0.2
STUCK_ROWS = 30
VOLUME = 3.0  # times more or fewer rows than usual
_LEAST_PERIODS = 8


def grown(old: int, of: int, new: int, out_of: int, tolerated: float = TOLERATED) -> tuple[float, float, float, float]:
    """(growth of the share, low, high, p) for old of `of` reference rows and new out of `out_of` recent rows. Interval: Agresti & Caffo (2000), 95 %."""
    # the tolerance is added before the transform, so the transform never stands at 0, where it bends most
    allowed = min(old / of + tolerated, 1.0)
    z = 2 * (np.arcsin(np.sqrt(new / out_of)) - np.arcsin(np.sqrt(allowed))) / np.sqrt(1 / of + 1 / out_of)
    p0, p1 = (old + 1) / (of + 2), (new + 1) / (out_of + 2)
    se = np.sqrt(p0 * (1 - p0) / (of + 2) + p1 * (1 - p1) / (out_of + 2))
    return new / out_of - old / of, float(p1 - p0 - 1.96 * se), float(p1 - p0 + 1.96 * se), normal_below(-float(z))


def check(gauge: Gauge, recent: Sketches) -> list[Finding]:
    """Missing values, values out of range, levels never seen, and columns that are stuck, for each column that has the rows for it; and copied rows."""
    out: list[Finding] = []
    seen: set[str] = set()
    for name, old in gauge.reference.traces.items():
        new, grid = recent.traces.get(name), gauge.grids[name]
        column, part = named(name)
        if new is None or not column:
            continue
        if column not in seen:  # the first trace of a column knows what is missing
            seen.add(column)
            out += _missing(column, old, new)
        if isinstance(old, Numbers) and isinstance(new, Numbers) and isinstance(grid, Grid):
            out += _range(column, old, new, grid) + _stuck(column, new, grid) if not part else []
        elif isinstance(old, Levels) and isinstance(new, Levels) and isinstance(grid, Lexicon) and not part:
            out += _levels(column, old, new) + _stuck_level(column, old, new, grid)
    return out + _broken(recent) + _copied(gauge.reference, recent)


def _missing(column: str, old: Numbers | Levels, new: Numbers | Levels) -> list[Finding]:
    of, out_of = old.n + old.missing, new.n + new.missing
    if min(of, out_of) < LEAST_ROWS:
        return []
    effect, low, high, p = grown(old.missing, of, new.missing, out_of)
    facts = {"column": column, "effect": effect, "low": low, "high": high, "p": p, "was": old.missing / of, "now": new.missing / out_of, "rows": out_of}
    return [Finding(code("missing", column), "critical" if low > MUCH else "warning",
                    say("'{column}' is missing in {now:.1%} of the rows, before in {was:.1%}.", column=column, now=facts["now"], was=facts["was"]), facts)]


def _range(column: str, old: Numbers, new: Numbers, grid: Grid) -> list[Finding]:
    if min(old.n, new.n) < LEAST_ROWS:
        return []
    outside = new.below + new.above
    # of n rows the two that are its ends leave 2 / (n + 1) of all others outside
    effect, low, high, p = grown(2 + old.below + old.above, old.n + 1, outside, new.n)
    facts = {"column": column, "effect": effect, "low": low, "high": high, "p": p, "now": outside / new.n, "least": new.low, "most": new.high,
             "known_least": grid.low, "known_most": grid.high, "rows": new.n}
    return [Finding(code("range", column), "critical" if low > MUCH else "warning",
                    say("'{column}' is outside of what was known ({known_least:.4g} to {known_most:.4g}) in {now:.1%} of the rows: now {least:.4g} to {most:.4g}.",
                        **{k: facts[k] for k in ("column", "known_least", "known_most", "now", "least", "most")}), facts)]


def _levels(column: str, old: Levels, new: Levels) -> list[Finding]:
    if min(old.n, new.n) < LEAST_ROWS:
        return []
    once = int((old.counts == 1).sum())  # what a sample has once is how much it has not seen: Good (1953)
    effect, low, high, p = grown(min(once + old.unknown, old.n), old.n, new.unknown, new.n)
    names = [level for level, _ in sorted(new.new.items(), key=lambda item: -item[1])[:5]]
    facts = {"column": column, "effect": effect, "low": low, "high": high, "p": p, "now": new.unknown / new.n, "expected": once / old.n, "levels": names, "rows": new.n}
    return [Finding(code("new_levels", column), "critical" if low > MUCH else "warning",
                    say("'{column}' has values never seen before in {now:.1%} of the rows: {levels}.", column=column, now=facts["now"], levels=[f"'{n}'" for n in names]), facts)]


def _stuck(column: str, new: Numbers, grid: Grid) -> list[Finding]:
    if new.n < STUCK_ROWS or new.low != new.high or grid.low == grid.high:
        return []
    return [_stands(column, f"{new.low:.6g}", new.n, grid.atom)]


def _stuck_level(column: str, old: Levels, new: Levels, grid: Lexicon) -> list[Finding]:
    held = np.flatnonzero(new.counts)
    if new.n < STUCK_ROWS or len(grid.levels) < 2 or len(held) + (new.unknown > 0) != 1 or (new.unknown and len(new.new) != 1):
        return []
    level = grid.levels[held[0]] if len(held) else next(iter(new.new))
    return [_stands(column, level, new.n, float(old.counts.max()) / old.n)]


def _stands(column: str, value: str, n: int, most: float) -> Finding:
    """most: share of the reference's most frequent value; n rows in a row have it with the chance most**n."""
    p = float(min(most + 0.01, 0.999) ** n)  # 0.01: the reference's own noise
    return Finding(code("stuck", column), "critical", say("'{column}' stands still: {value} in all of the last {n:,} rows.", column=column, value=value, n=n),
                   {"column": column, "value": value, "rows": n, "p": p})


def _broken(recent: Sketches) -> list[Finding]:
    out = []
    for column, n in recent.unread.items():
        share = n / max(recent.rows, 1)
        if n:
            out.append(Finding(code("unread", column), "warning" if share > TOLERATED else "info",
                               say("{n:,} of {rows:,} values of '{column}' cannot be read as what they were.", n=n, rows=recent.rows, column=column),
                               {"column": column, "effect": share, "rows": recent.rows}))
    return out


def _copied(old: Sketches, recent: Sketches) -> list[Finding]:
    """Rows that repeat another row. How many do so by chance grows with the rows; two rows of the reference tell how likely any two are equal."""
    if min(old.rows, recent.rows) < LEAST_ROWS or not len(recent.copies.times) or not len(old.copies.times):
        return []
    times, n0 = old.copies.times, float(old.copies.times.sum())
    pairs = float((times * (times - 1.0)).sum()) / 2
    alike = (pairs + 3.0) / (n0 * (n0 - 1) / 2)  # none seen: below three with 95 %
    by_chance = 1 - np.exp(-(recent.rows - 1) * alike / 2)
    kept = int(recent.copies.times.sum())
    repeated = kept - len(recent.copies.times)
    effect, low, high, p = grown(round(min(max(by_chance, old.copies.share), 1.0) * kept), kept, repeated, kept, tolerated=0.05)
    share = recent.copies.share
    return [Finding("duplicates", "warning", say("{share:.1%} of the rows repeat another row; {was:.1%} were to be expected.", share=share, was=float(by_chance)),
                    {"effect": effect, "low": low, "high": high, "p": p, "now": share, "expected": float(by_chance), "rows": recent.rows})]


# ---- before anything is counted


def read_leniently(frame: pl.DataFrame, columns: Sequence[Column]) -> tuple[pl.DataFrame, list[Finding]]:
    """A table whose columns can be conformed: what is no number or no time becomes missing, an absent column is empty, and both are findings."""
    from assay.data.values import numbers, times

    out: list[Finding] = []
    cells: list[pl.Series] = []
    for column in columns:
        if column.name not in frame.columns:
            out.append(Finding(code("absent", column.name), "critical", say("The column '{column}' is not there.", column=column.name), {"column": column.name}))
            continue
        own = frame[column.name]
        if column.kind in ("number", "time") and own.dtype == pl.String:
            parse = numbers if column.kind == "number" else lambda s, unit=column.unit: times(s, unit)
            whole = parse(own)
            if whole.bad is not None:
                own, bad = _each(own, parse)
                if bad:
                    out += _broken(Sketches("", own.len(), unread={column.name: bad}))
        cells.append(own)
    return pl.DataFrame(cells), out


def _each(own: pl.Series, parse) -> tuple[pl.Series, int]:  # type: ignore[no-untyped-def]
    """The column with the values that cannot be read taken away, and how many they were: told by distinct values, of which there are fewer."""
    bad = [v for v in own.drop_nulls().unique().to_list() if parse(pl.Series(own.name, [v])).bad is not None]
    gone = own.is_in(bad)
    return own.set(gone.fill_null(False), None), int(gone.sum())


def volume(rows_per_period: Sequence[float], recent: float, *, times: float = VOLUME) -> list[Finding]:
    """Rows of the last period against earlier periods of the same length (at least eight, such as the same hour of earlier days).

    An alarm if it is `times` fewer or more than their median and outside of six of their median absolute deviations on the scale of logarithms.
    """
    before = np.log1p(np.asarray(rows_per_period, dtype=np.float64))
    if len(before) < _LEAST_PERIODS or np.median(before) < np.log1p(20):
        return []
    usual, spread = float(np.median(before)), float(1.4826 * np.median(np.abs(before - np.median(before))))
    step = float(np.log1p(recent)) - usual
    if abs(step) < max(np.log(times), 6 * spread):
        return []
    facts = {"effect": float(np.exp(step)), "now": float(recent), "was": float(np.expm1(usual)), "periods": len(before)}
    text = say("{now:,.0f} rows came where {was:,.0f} are usual.", now=facts["now"], was=facts["was"])
    return [Finding("volume_drop" if step < 0 else "volume_surge", "critical" if recent == 0 else "warning", text, facts)]


def refused(requests: int, refused_: int) -> list[Finding]:
    """Requests that the service turned away as unreadable."""
    if requests < LEAST_ROWS:
        return []
    effect, low, high, p = grown(0, max(requests, 1000), refused_, requests)
    return [Finding("refused", "critical" if low > MUCH else "warning", say("{share:.1%} of {n:,} requests were refused.", share=refused_ / requests, n=requests),
                    {"effect": effect, "low": low, "high": high, "p": p, "requests": requests})]

