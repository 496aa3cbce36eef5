"""Learning curves: what a candidate loses at a few sizes of its training rows, what it would lose at more, and from how
many rows on a large model pays.

All points are judged on the same test rows, so one bootstrap of those rows moves every size, and both rivals, together.
What the rows cannot show - the luck of one fit, which law the curve follows, and how far curves leave any law - is
added draw by draw in `laws.py`, with widths measured on other datasets (docs/calibration.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from assay.contest.laws import NOISE, Noise, Posterior, posterior
from assay.contest.statistics import Bootstrap, student_tail
from assay.words import Text, say

DRAWS = 2000  # of the test rows: the end of an 80 % interval then lies within 1 % of the draws
HARDLY = 0.02  # a fall of the loss by less than this share is said to be none: it is the margin that matters by default
MOST = 100.0  # a crossing beyond so many times the rows is not looked for
Margin = float | Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Point:
    """One fit: training rows used, seed, and the loss of every test row (n_test,); all points share their test rows."""

    rows: int
    seed: int
    losses: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A loss at `rows` and its interval."""

    rows: int
    median: float
    low: float
    high: float

    def json(self) -> dict[str, float]:
        return {"rows": self.rows, "median": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Curve:
    """sizes: rows of each measured size, rising. means: mean loss there, over its seeds. intervals: of those means, from
    the test rows alone. laws: weight of each law after the data. Below the largest size `at` is a smoothed measurement."""

    sizes: tuple[int, ...]
    means: tuple[float, ...]
    intervals: tuple[Estimate, ...]
    laws: dict[str, float]
    confidence: float
    notes: tuple[Text, ...] = ()
    reason: Text | None = None  # why nothing can be said about other sizes; then only what was measured is known
    after: Posterior | None = field(default=None, repr=False)

    @property
    def rows(self) -> int:
        """The largest size measured."""
        return self.sizes[-1]

    def draws(self, rows: Sequence[float] | np.ndarray, *, single_fit: bool = False) -> np.ndarray:
        """(draws, len(rows)) losses at `rows`; single_fit adds the luck that the rows and the seed of one fit have.
        Raises ValueError where `reason` says why not."""
        if self.after is None:
            raise ValueError(str(self.reason))
        return self.after.losses(np.atleast_1d(np.asarray(rows, dtype=np.float64)), single_fit=single_fit)

    def at(self, rows: float) -> Estimate:
        """The loss to expect of one fit on `rows` rows. Raises ValueError where `reason` says why not."""
        return self._estimates(np.array([float(rows)]))[0]

    def json(self, grid: Sequence[float] | None = None) -> dict[str, Any]:
        """JSON-ready. grid: rows at which the curve is drawn; None: 25 sizes from the smallest measured to 4 x the largest."""
        wanted: np.ndarray = np.array([])
        if self.after is not None:
            wanted = np.geomspace(self.sizes[0], 4 * self.rows, 25).round() if grid is None else np.asarray(grid, dtype=np.float64)
        return {"confidence": self.confidence, "measured": [{**e.json(), "mean": m} for e, m in zip(self.intervals, self.means, strict=True)],
                "grid": [e.json() for e in self._estimates(wanted)], "laws": {k: round(v, 4) for k, v in self.laws.items()},
                "reason": self.reason.json() if self.reason else None, "notes": [n.json() for n in self.notes]}

    def _estimates(self, rows: np.ndarray) -> list[Estimate]:
        if not len(rows):
            return []
        tail = (1 - self.confidence) / 2
        cut = np.quantile(self.draws(rows, single_fit=True), [tail, 0.5, 1 - tail], axis=0)
        return [Estimate(int(r), float(m), float(a), float(b)) for r, a, m, b in zip(rows, *cut, strict=True)]


def learning_curve(points: Sequence[Point], clusters: np.ndarray, *, confidence: float = 0.8, seed: int, noise: Noise = NOISE,
                   salt: int = 0) -> Curve:
    """The curve of one candidate; where none can be drawn, `reason` says why.

    points: one for each fit that finished, in any order; sizes may have several seeds. clusters: (n_test,) codes of test
    rows that belong together. seed: curves of one contest share it, so that their draws are paired. salt: a number of its
    own for each candidate whose luck is independent of the others'. Raises ValueError if points differ in their test rows.
    """
    if any(len(p.losses) != len(clusters) for p in points):
        raise ValueError("all points of a curve are judged on the same test rows")
    points = sorted((p for p in points if p.rows > 0 and np.isfinite(p.losses).all()), key=lambda p: (p.rows, p.seed))
    sizes = tuple(sorted({p.rows for p in points}))
    if not points:
        return Curve((), (), (), {}, confidence, reason=say("no size of the training rows finished, and a curve needs two"))
    boot = Bootstrap({str(i): p.losses for i, p in enumerate(points)}, clusters, confidence=confidence, seed=seed)
    means = np.array([boot.mean[str(i)] for i in range(len(points))])
    drawn = np.column_stack([boot.drawn[str(i)][:DRAWS] for i in range(len(points))]).astype(np.float64)
    drawn = means + (drawn - means) * _stretch(boot.clusters, confidence)
    of_size = np.array([[1.0 if p.rows == s else 0.0 for s in sizes] for p in points])
    of_size /= of_size.sum(axis=0)
    lowest = min(0.0, min(float(p.losses.min()) for p in points))
    cut = np.quantile(np.maximum(drawn @ of_size, lowest), [(1 - confidence) / 2, 0.5, (1 + confidence) / 2], axis=0)
    measured = tuple(Estimate(s, float(m), float(a), float(b)) for s, a, m, b in zip(sizes, *cut, strict=True))
    size_means = tuple(float(m) for m in means @ of_size)
    positive = np.concatenate([p.losses[p.losses > 0] for p in points])
    reason = None
    if len(sizes) < 2:
        reason = say("only one size of the training rows finished ({rows:,}), and a curve needs two", rows=sizes[0])
    elif lowest < 0:
        reason = say("some losses lie below zero, and no law of learning goes there")
    elif not len(positive):
        reason = say("there is no loss left at any size")
    if reason is not None:
        return Curve(sizes, size_means, measured, {}, confidence, reason=reason)
    least = positive.mean() / (2 * len(clusters))  # no loss on n rows is taken for half a loss
    rows = np.array([p.rows for p in points], dtype=np.float64)
    # other test rows would lift or lower the curve as they do its last point; what they do to single sizes is part of the residuals already
    last = of_size[:, -1]
    shift = np.log(np.maximum(drawn @ last, least)) - np.log(max(float(means @ last), least))
    after = posterior(rows, np.log(np.maximum(means, least)), shift, seed=(seed, salt), noise=noise)
    return Curve(sizes, size_means, measured, after.laws(), confidence, _notes(sizes, drawn @ of_size, confidence, noise, seed), None, after)


def _stretch(clusters: int, confidence: float) -> float:
    """How much wider than its normal the spread of a bootstrapped mean of few clusters has to be (Hesterberg 2015, section 5.3)."""
    from statistics import NormalDist

    c = max(clusters, 2)
    tail = (1 - confidence) / 2
    z = NormalDist().inv_cdf
    return float(np.sqrt(c / (c - 1)) * z(student_tail(tail, c - 1)) / z(tail))


def _notes(sizes: tuple[int, ...], drawn: np.ndarray, confidence: float, noise: Noise, seed: int) -> tuple[Text, ...]:
    """drawn: (draws, sizes) means of the test rows. The luck of the fits is added, or a lucky fit would look like a law."""
    luck = np.sqrt((noise.of_size(np.array(sizes))[[0, -1]] ** 2).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = np.log(drawn[:, 0] / drawn[:, -1]) + luck * np.random.default_rng([seed, 4]).standard_normal(len(drawn))
    fall = np.nan_to_num(fall, nan=0.0, posinf=99.0, neginf=-99.0)
    if np.quantile(fall, (1 + confidence) / 2) < 0:
        return (say("the loss rises with the rows, from {first:,} to {last:,}; no law of learning does, so little is said about more rows",
                    first=sizes[0], last=sizes[-1]),)
    if np.quantile(fall, (1 - confidence) / 2) <= 0:
        return (say("from {first:,} to {last:,} rows the loss fell by less than chance can explain", first=sizes[0], last=sizes[-1]),)
    return ()


def rows_sentence(name: str, unit: Text, curve: Curve, *, times: float = 2.0) -> Text:
    """What `times` the rows would do to the loss of `name`."""
    now, then = curve.at(curve.rows), curve.at(curve.rows * times)
    same = {"times": times, "rows": then.rows, "unit": unit, "name": name, "now": curve.means[-1], "then": then.median, "low": then.low,
            "high": then.high, "percent": curve.confidence * 100}
    if then.median > (1 - HARDLY) * now.median:
        return say("{times:g} times the rows ({rows:,}) would leave the {unit} of {name} about where it is: {now:.4g} now, {then:.4g} then "
                   "[{percent:.0f} % interval {low:.4g} to {high:.4g}].", **same)
    return say("{times:g} times the rows ({rows:,}) would lower the {unit} of {name} from {now:.4g} to about {then:.4g} "
               "[{percent:.0f} % interval {low:.4g} to {high:.4g}].", **same)


# ---- from how many rows on a large model pays


@dataclass(frozen=True)
class Crossing:
    """From how many rows on the large model pays (kind 'from'), or up to how many it does ('until'); None: that cannot be told, `reason` says why.

    rows, low, high: the median crossing and its interval, None where that cannot be told; at `first`, the smallest size that both
    have, they mean "here or earlier". share: of the draws in which the large one starts to pay within `most` times the
    rows (kind 'until': stops). pays_now: share of the draws in which it pays at `have` rows.
    """

    kind: str | None
    first: int
    have: int
    rows: int | None
    low: int | None
    high: int | None
    share: float | None
    pays_now: float | None
    confidence: float
    reason: Text | None = None

    def sentence(self, large: str, small: str) -> Text:
        same = {"large": large, "small": small, "rows": self.rows, "low": self.low, "high": self.high, "have": self.have, "first": self.first,
                "percent": self.confidence * 100}
        if self.kind is None:
            return say("From how many rows on {large} pays against {small} cannot be told: {reason}.", **same | {"reason": self.reason})
        if self.reason is not None:
            return say("{large} against {small}: {reason}.", **same | {"reason": self.reason})
        if self.kind == "until":
            return say("{large} pays against {small} up to about {rows:,} rows only [{percent:.0f} % interval {low:,} to {high:,}]; you have {have:,}.", **same)
        if self.low == self.first:
            return say("{large} pays against {small} from about {rows:,} rows on [{percent:.0f} % interval: {high:,} at most; {first:,} is the smallest size "
                       "measured]; you have {have:,}.", **same)
        return say("{large} pays against {small} from about {rows:,} rows on [{percent:.0f} % interval {low:,} to {high:,}]; you have {have:,}.", **same)

    def json(self) -> dict[str, Any]:
        return {**{k: getattr(self, k) for k in ("kind", "first", "have", "rows", "low", "high", "share", "pays_now", "confidence")},
                "reason": self.reason.json() if self.reason else None}


def crossing(large: Sequence[Point], small: Sequence[Point], clusters: np.ndarray, *, margin: Margin, less: float = 0.0, confidence: float = 0.8,
             seed: int, most: float = MOST, noise: Noise = NOISE) -> Crossing:
    """Where the gain of `large` over `small` crosses the margin that matters.

    margin: in units of loss, or a function of the small one's losses (draws, sizes) that returns it. less: extra cost of
    the large one a row, in units of loss. In each draw the large one starts to pay at the smallest size from which on it pays up to the
    rows you have, or else at the first size beyond where it pays.
    """
    one = learning_curve(large, clusters, confidence=confidence, seed=seed, salt=1, noise=noise)
    two = learning_curve(small, clusters, confidence=confidence, seed=seed, salt=2, noise=noise)
    have = max((p.rows for p in (*large, *small)), default=0)
    if one.after is None or two.after is None:
        why = say("of the large model, {reason}", reason=one.reason) if one.reason else say("of the small model, {reason}", reason=two.reason)
        return Crossing(None, 0, have, None, None, None, None, None, confidence, why)
    first = max(one.sizes[0], two.sizes[0])
    grid = np.unique(np.r_[np.geomspace(first, have, 60), np.geomspace(have, have * most, 120)])
    here = int(np.searchsorted(grid, have))
    loss = two.draws(grid)
    need = margin(loss) if callable(margin) else margin
    return _read(loss - one.draws(grid) - less >= need, grid, here, most, confidence)


def _read(pays: np.ndarray, grid: np.ndarray, here: int, most: float, confidence: float) -> Crossing:
    """pays: (draws, sizes) whether the large one pays."""
    now, ahead, back = pays[:, here], pays[:, here:], pays[:, here::-1]  # back: from here to smaller sizes

    def when(hit: np.ndarray, step: int, otherwise: float) -> np.ndarray:
        """The size of the first hit in each draw, going from here in steps of +1 or -1."""
        return np.where(hit.any(axis=1), grid[here + step * hit.argmax(axis=1)], otherwise)

    unbroken = np.where(back.all(axis=1), here + 1, (~back).argmax(axis=1))  # sizes in a row, up to here, that pay
    start = np.where(now, grid[np.minimum(here + 1 - unbroken, here)], when(ahead, 1, np.inf))
    stop = np.where(now, when(~ahead, 1, np.inf), when(back, -1, -np.inf))
    tail = (1 - confidence) / 2
    always, pays_now, starts, ends = float(back.all(axis=1).mean()), float(now.mean()), float(np.isfinite(start).mean()), float(np.isfinite(stop).mean())
    have, first, far = int(grid[here]), int(grid[0]), int(grid[here] * most)

    def told(kind: str, at: np.ndarray, share: float, reason: Text | None = None) -> Crossing:
        low, middle, high = np.quantile(at, [tail, 0.5, 1 - tail], method="inverted_cdf")
        return Crossing(kind, first, have, int(middle), int(low), int(high), share, pays_now, confidence, reason)

    def untold(reason: Text, kind: str | None = None) -> Crossing:
        return Crossing(kind, first, have, None, None, None, starts, pays_now, confidence, reason)

    if pays[:, 0].mean() > max(0.5, pays[:, -1].mean()) and ends >= 1 - tail:
        return told("until", stop, ends)
    if always >= 1 - tail:
        if ends <= tail:
            return told("from", start, starts, say("it pays at every size measured, from {first:,} rows on, and would with more", first=first))
        return told("from", start, starts, say("it pays at every size measured, from {first:,} rows on", first=first))
    if starts >= 1 - tail:
        return told("from", start, starts)
    if starts <= tail:
        return untold(say("it does not pay at any number of rows up to {far:,}, {times:g} times what you have", far=far, times=most), "from")
    low, middle = np.quantile(start, [tail, 0.5], method="inverted_cdf")
    if np.isfinite(middle):
        return untold(say("the interval spans from {low:,} to more than {far:,} rows, {times:g} times what you have", low=int(low), far=far, times=most))
    return untold(say("the curves run too much alike: in {percent:.0f} % of the draws it never pays up to {far:,} rows, {times:g} times what you have",
                      percent=100 * (1 - starts), far=far, times=most))
