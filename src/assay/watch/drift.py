"""Has a column moved further than is tolerated? An effect with its interval, and a test that does not call a trifle drift because there are many rows.

The effect is 4 * sum (sqrt(p) - sqrt(q))**2 over the cells, p the reference, q what is recent: four times the squared Hellinger distance (without its half).
For small shifts it equals the population stability index, so the usual marks hold (0.1 little, 0.25 much; Siddiqi 2006), but an empty cell does
not make it infinite: it ends at 8. With n = n0 n1 / (n0 + n1), n times its estimate is close to non-central chi-squared with k - 1 degrees of
freedom and non-centrality n * effect (Freeman & Tukey 1950, doi:10.1214/aoms/1177729756). So the null 'the effect is at most the tolerance' has a
p-value, the effect has an interval by inversion, and the noise of the reference, which may have 1,000 rows only, is inside of both.
Half a count is added to each cell: simulated 30,000 times with 100 to 2,000 recent rows, the test then kept its level at 5 %, 1 % and 0.1 %; at 0.01 % it rejects
up to 2.3 times as often as it says (counts are no normal numbers so far out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from assay.watch.finding import Finding, code
from assay.watch.gauge import Gauge, Grid, Lexicon
from assay.watch.sketch import Levels, Numbers, Sketches
from assay.watch.tails import chi2_above, normal_below
from assay.watch.traces import named, shown
from assay.words import Text, say

TOLERATED, MUCH = 0.1, 0.25
LEAST_ROWS = 100  # of either side; below, cells of five rows each are too few
LEAST_IN_CELL = 5.0
MOST_CELLS = 10  # twice as many from MANY_ROWS on: narrow outer cells see a wider spread, which tenths hardly do
MANY_ROWS = 400
ALPHA = 0.05
CONFIDENCE = 0.95
_SPENT = 2.10974  # sum over m >= 2 of 1 / (m log(m)**2)
_NORMAL = NormalDist()
_EXACT = 2000.0  # up to this non-centrality the exact distribution is used


@dataclass(frozen=True)
class Shift:
    """effect: bias corrected, from 0 to 8. p: of such data if the effect were `tolerated`. cells: compared."""

    effect: float
    low: float
    high: float
    p: float
    cells: int


def shift(reference: np.ndarray, recent: np.ndarray, *, tolerated: float = TOLERATED, confidence: float = CONFIDENCE) -> Shift:
    """reference, recent: counts (k,) of the same cells; the cells should hold five rows each or more (`merged`)."""
    k = len(reference)
    n0, n1 = float(reference.sum()), float(recent.sum())
    p, q = (reference + 0.5) / (n0 + 0.5 * k), (recent + 0.5) / (n1 + 0.5 * k)
    n = n0 * n1 / (n0 + n1)
    seen = n * 4 * float(((np.sqrt(p) - np.sqrt(q)) ** 2).sum())
    if k < 2:
        return Shift(0.0, 0.0, 0.0, 1.0, k)
    tail = (1 - confidence) / 2
    low, high = _noncentrality(seen, k - 1, tail), _noncentrality(seen, k - 1, 1 - tail)
    effect = max(seen - (k - 1), 0.0) / n
    return Shift(min(max(effect, low / n), 8.0), min(low / n, 8.0), min(high / n, 8.0), _tail(seen, k - 1, tolerated * n), k)


def _tail(x: float, df: int, nc: float) -> float:
    """P(X > x) of the non-central chi-squared, to its far tail."""
    return chi2_above(x, df, nc) if nc < _EXACT and x < 4 * _EXACT else _sankaran(x, df, nc)


def _sankaran(x: float, df: int, nc: float) -> float:
    """The same by Sankaran (1963): from a non-centrality of 1,000 on to three digits, as far out as 1e-9."""
    h = 1 - 2 * (df + nc) * (df + 3 * nc) / (3 * (df + 2 * nc) ** 2)
    p = (df + 2 * nc) / (df + nc) ** 2
    m = (h - 1) * (1 - 3 * h)
    z = ((x / (df + nc)) ** h - (1 + h * p * (h - 1 - 0.5 * (2 - h) * m * p))) / (h * np.sqrt(2 * p) * (1 + 0.5 * m * p))
    return normal_below(-float(z))


def _noncentrality(x: float, df: int, tail: float) -> float:
    """The non-centrality at which P(X > x) = tail; 0 where even 0 makes more than that."""
    def above(nc: float) -> float:
        return chi2_above(x, df, nc) if x < _EXACT / 4 else _sankaran(x, df, nc)

    def distance(root: float) -> float:
        return _NORMAL.inv_cdf(min(max(above(root * root), 1e-300), 1 - 1e-16)) - aim  # nearly a straight line

    aim = _NORMAL.inv_cdf(tail)
    low, high = 0.0, math.sqrt(x + 10 * math.sqrt(x + 1) + 50)
    at_low, at_high = distance(low), distance(high)
    if at_low >= 0:
        return 0.0
    for _ in range(50):  # regula falsi, Illinois: some eight steps
        middle = high - at_high * (high - low) / (at_high - at_low)
        found = distance(middle)
        if found * at_high < 0:
            low, at_low = high, at_high
        else:
            at_low /= 2
        high, at_high = middle, found
        if abs(found) < 1e-9 or abs(high - low) < 1e-9 * (1 + high):
            break
    return high * high


def merged(reference: np.ndarray, recent_rows: int, most: int = MOST_CELLS) -> list[slice]:
    """Neighbouring cells brought together until each has, in the reference and expected of the recent rows, LEAST_IN_CELL; at most `most`."""
    n0 = float(reference.sum())
    least = max(LEAST_IN_CELL, LEAST_IN_CELL * n0 / max(recent_rows, 1), n0 / most * 0.999)
    out, start, held = [], 0, 0.0
    for i, count in enumerate(reference):
        held += count
        if held >= least:
            out.append(slice(start, i + 1))
            start, held = i + 1, 0.0
    if start < len(reference):
        if out and held < LEAST_IN_CELL * max(1.0, n0 / max(recent_rows, 1)):
            out[-1] = slice(out[-1].start, len(reference))
        else:
            out.append(slice(start, len(reference)))
    return out


def of_numbers(grid: Grid, reference: Numbers, recent: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """(reference counts, recent counts) of the merged cells. A reference of one value has one cell, so what lies below and above of it gets a cell each."""
    if grid.low == grid.high:
        return tuple(np.array([t.below, t.n - t.below - t.above, t.above]) for t in (reference, recent))  # type: ignore[return-value]
    cells = merged(reference.counts, recent.n, MOST_CELLS if min(reference.n, recent.n) < MANY_ROWS else 2 * MOST_CELLS)
    return np.array([reference.counts[c].sum() for c in cells]), np.array([recent.counts[c].sum() for c in cells])


def of_levels(reference: Levels, recent: Levels, most: int = 2 * MOST_CELLS) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(reference counts, recent counts, places of the levels that keep a cell): the frequent levels and one cell for the rest, known or not.

    A sample knows too little of rare levels: those with at most c rows in it have together, in the next rows, about the share that those with
    at most c + 1 rows have in the sample (Good 1953, doi:10.1093/biomet/40.3-4.237). So the rest is given that share, and new levels of
    a column with thousands of them are no alarm.
    """
    n0 = float(reference.counts.sum() + reference.unknown)
    n1 = recent.n
    least = max(LEAST_IN_CELL, LEAST_IN_CELL * n0 / max(n1, 1))
    kept = [int(i) for i in np.argsort(-reference.counts, kind="stable")[:most] if reference.counts[i] >= least]
    own = reference.counts[kept].astype(np.float64)
    rest = n0 - own.sum()
    if len(reference.counts) > len(kept):
        among = np.delete(reference.counts, kept)
        edge = among.max() + 1  # the pooled ones have fewer than this; those that have just this many belong to Good's sum
        rest += float((reference.counts[kept] == edge).sum() * edge)
        own = own * (n0 - rest) / max(own.sum(), 1.0)
    a = np.append(own, rest)
    b = np.append(recent.counts[kept], n1 - recent.counts[kept].sum())
    return a, b, kept


def compare(gauge: Gauge, recent: Sketches, *, tolerated: float = TOLERATED, confidence: float = CONFIDENCE) -> list[Finding]:
    """One Finding a trace that both sides have LEAST_ROWS of: its level says what it would be if its p-value is small enough; see `controlled`."""
    out = []
    for name, old in gauge.reference.traces.items():
        new, grid = recent.traces.get(name), gauge.grids[name]
        if new is None or min(old.n, new.n) < LEAST_ROWS:
            continue
        if isinstance(old, Numbers) and isinstance(new, Numbers) and isinstance(grid, Grid):
            found = shift(*of_numbers(grid, old, new), tolerated=tolerated, confidence=confidence)
            out.append(_of_numbers(name, found, grid, old, new, tolerated))
        elif isinstance(old, Levels) and isinstance(new, Levels) and isinstance(grid, Lexicon):
            a, b, kept = of_levels(old, new)
            out.append(_of_levels(name, shift(a, b, tolerated=tolerated, confidence=confidence), grid, a, b, kept, tolerated))
    return out


def _of_numbers(name: str, found: Shift, grid: Grid, old: Numbers, new: Numbers, tolerated: float) -> Finding:
    column, part = named(name)
    # 0.8 mm where the reference has 0.5 +- 0.1: the mean's step in reference standard deviations, with the noise of both means
    moved = new.mean - old.mean
    se = float(np.sqrt(old.variance / old.n + new.variance / new.n))
    facts: dict[str, Any] = {"column": column, "part": part, "effect": found.effect, "low": found.low, "high": found.high, "p": found.p, "tolerated": tolerated,
                             "rows": new.n, "reference_rows": old.n, "was": _plain(grid, old.mean), "now": _plain(grid, new.mean),
                             "moved_sd": moved, "moved_low": moved - 1.96 * se, "moved_high": moved + 1.96 * se, "spread_ratio": float(np.sqrt(new.variance / old.variance)) if old.variance else None,
                             "wasserstein_sd": wasserstein(grid, old, new), "psi": psi(old.counts, new.counts)}
    text = say("{column} has shifted by {effect:.2f} [{low:.2f}, {high:.2f}] (tolerated: {tolerated:g}): on average {now:.4g}, before {was:.4g}.", column=_called(column, part),
               **{k: facts[k] for k in ("effect", "low", "high", "tolerated", "now", "was")})
    return Finding(code("prediction_drift" if not column else "drift", column or part if not part or not column else f"{column}/{part}"), _grade(found), text, facts)


def _plain(grid: Grid, mean: float) -> float:
    value = grid.centre + grid.scale * mean
    return value if abs(value) > 1e-9 * grid.scale else 0.0  # a column of zeros has the mean 0, not -1.7e-16


def _of_levels(name: str, found: Shift, grid: Lexicon, a: np.ndarray, b: np.ndarray, kept: list[int], tolerated: float) -> Finding:
    column, part = named(name)
    p, q = a / a.sum(), b / b.sum()
    most = int(np.abs(q - p).argmax())
    level: Text | str = grid.levels[kept[most]] if most < len(kept) else say("all other values")
    both = a + b
    chi2 = float((((a - both * a.sum() / both.sum()) ** 2) / np.maximum(both * a.sum() / both.sum(), 1e-9) + ((b - both * b.sum() / both.sum()) ** 2) / np.maximum(both * b.sum() / both.sum(), 1e-9)).sum())
    total = float(both.sum())
    facts: dict[str, Any] = {"column": column, "part": part, "effect": found.effect, "low": found.low, "high": found.high, "p": found.p, "tolerated": tolerated, "rows": int(b.sum()),
                             "reference_rows": int(a.sum()), "level": str(level), "was": float(p[most]), "now": float(q[most]), "psi": psi(a, b),
                             "cramers_v": float(np.sqrt(max(chi2 / total - (len(a) - 1) / (total - 1), 0.0)))}  # bias corrected, Bergsma 2013
    text = say("{column} has another mix, by {effect:.2f} [{low:.2f}, {high:.2f}] (tolerated: {tolerated:g}): '{level}' is {now:.1%}, before {was:.1%}.",
               column=_called(column, part), level=level, **{k: facts[k] for k in ("effect", "low", "high", "tolerated", "now", "was")})
    return Finding(code("prediction_drift" if not column else "drift", column or part if not part or not column else f"{column}/{part}"), _grade(found), text, facts)


def _grade(found: Shift) -> str:
    return "critical" if found.low > MUCH else "warning"


def _called(column: str, part: str) -> Text | str:
    if not column:
        return shown(part)
    return say("'{column}' ({part})", column=column, part=shown(part)) if part else f"'{column}'"


def psi(reference: np.ndarray, recent: np.ndarray) -> float:
    """Population stability index of counts (k,) on the same cells, half a count added to each: sum (q - p) log(q / p)."""
    p, q = (reference + 0.5) / (reference.sum() + 0.5 * len(reference)), (recent + 0.5) / (recent.sum() + 0.5 * len(recent))
    return float(((q - p) * np.log(q / p)).sum())


def wasserstein(grid: Grid, old: Numbers, new: Numbers) -> float:
    """Earth mover's distance in reference standard deviations, straight lines between the edges; what lies outside of the reference counts at the farther end."""
    left, right = min(grid.low, new.low), max(grid.high, new.high)
    ends = np.concatenate([[left], grid.edges, [right]])
    gap = np.concatenate([[0.0], np.cumsum(new.counts) / new.n - np.cumsum(old.counts) / old.n])
    return float((np.abs(gap[:-1] + gap[1:]) / 2 * np.diff(ends)).sum() / grid.scale)


# ---- many columns, many checks


def adjusted(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini & Yekutieli (2001), doi:10.1214/aos/1013699998: the false-discovery rate holds whatever the dependence of the columns.

    Not Benjamini & Hochberg, which needs positive dependence: two columns of a table may move against each other. The price for 1,000 columns is
    a factor 7.5 in p, some percent of the rows that a detection takes.
    """
    p = np.asarray(p_values, dtype=np.float64)
    m = len(p)
    if not m:
        return p
    order = np.argsort(p)
    factor = m * (1.0 / np.arange(1, m + 1)).sum() / np.arange(1, m + 1)
    out = np.empty(m)
    out[order] = np.minimum(np.minimum.accumulate((p[order] * factor)[::-1])[::-1], 1.0)
    return out


def spent(check: int, alpha: float = ALPHA) -> float:
    """What check number 1, 2, ... may spend of `alpha`: the sums over any checks stay below alpha, so nothing is won or lost by looking often.

    Proportional to 1 / ((t + 1) log(t + 1)**2), the slowest common sequence that sums up: check 10,000 still has 3e-8 of 0.05.
    """
    return alpha / (_SPENT * (check + 1) * np.log(check + 1) ** 2)


def controlled(findings: Sequence[Finding], alpha: float) -> list[Finding]:
    """The same findings with their corrected p-value; those above `alpha` become 'fine'. What was not tested (no `p`) stays as it is."""
    tested = [f for f in findings if f.facts.get("p") is not None]
    corrected = dict(zip(map(id, tested), adjusted([f.facts["p"] for f in tested]).tolist(), strict=True))
    out = []
    for f in findings:
        if id(f) in corrected:
            value = corrected[id(f)]
            f = replace(f, level=f.level if value <= alpha else "fine", facts=f.facts | {"corrected": value, "alpha": alpha})
        out.append(f)
    return out
