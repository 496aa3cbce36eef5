"""What more seconds would buy: the machinery of the learning curves, with seconds of fit in the place of rows.

Two candidates can be short of time in two ways. One went over all its rows and was still getting better: its own curve
of held-out loss goes on (`more_training`). The other took fewer rows than there are: more seconds are more rows, and
its learning curve says what those are worth (`more_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.contest.curve import DRAWS, HARDLY, Curve
from assay.contest.laws import TRAINING, Noise, posterior
from assay.words import Text, say

RESTED = 1 / 3  # no better held-out loss in this last share of the steps: it has stopped getting better
WHOLE = 1000.0  # a whole training counts as so many rows: its noise does not depend on how many seconds it took
PARTS = (1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class MoreTime:
    """The loss now and after `extra` more seconds, with its interval. rows: what it would learn from then, where seconds are rows."""

    seconds: float
    extra: float
    now: float
    then: float
    low: float
    high: float
    confidence: float
    used: int | None = None
    rows: int | None = None

    def sentence(self, name: str, unit: Text) -> Text:
        same = {"name": name, "unit": unit, "percent": self.confidence * 100, **vars(self)}
        if self.rows is not None:
            return say("{extra:.3g} more seconds would let {name} learn from about {rows:,} rows instead of {used:,}, and its {unit} would go from {now:.4g} "
                       "to about {then:.4g} [{percent:.0f} % interval {low:.4g} to {high:.4g}].", **same)
        if self.then > (1 - HARDLY) * self.now:
            return say("{extra:.3g} more seconds of training would leave the held-out {unit} of {name} about where it is: {now:.4g} now, {then:.4g} then "
                       "[{percent:.0f} % interval {low:.4g} to {high:.4g}].", **same)
        return say("{extra:.3g} more seconds of training would lower the held-out {unit} of {name} from {now:.4g} to about {then:.4g} "
                   "[{percent:.0f} % interval {low:.4g} to {high:.4g}].", **same)

    def json(self) -> dict[str, Any]:
        return dict(vars(self))


def more_training(trace: Sequence[Sequence[float | None]], *, seconds: float, extra: float, confidence: float = 0.8, seed: int,
                  noise: Noise = TRAINING) -> MoreTime | Text:
    """From a candidate's own curve [[step, train loss, held-out loss], ...] (`facts["loss_curve"]`), or why that cannot be told.

    seconds: what these steps took; steps are taken for equally long. The best held-out loss so far counts, since models keep
    their best state: at an eighth, a quarter, half and all of the steps, as at four sizes of the rows.
    """
    known = [(float(row[0]), float(row[2])) for row in trace if row[0] is not None and row[2] is not None and np.isfinite(row[2])]
    if len(known) < 8:
        return say("its training left {count} held-out losses, and 8 are needed to see where it was going", count=len(known))
    steps, held = np.array(known).T
    best = np.minimum.accumulate(held)
    if best[-1] <= 0:
        return say("its held-out loss is not above zero, and no law of learning goes there")
    if has_rested(steps, best):
        return say("its held-out loss had stopped falling in the last third of its training, so more time would hardly lower it")
    after = posterior(WHOLE * np.array(PARTS), np.log(best_so_far(steps, best)), np.zeros(DRAWS), seed=(seed, 3), noise=noise)
    then = after.losses(np.array([WHOLE * (seconds + extra) / seconds]), single_fit=True)[:, 0]
    low, middle, high = np.quantile(np.minimum(then, best[-1]), [(1 - confidence) / 2, 0.5, (1 + confidence) / 2])  # its best state is kept
    return MoreTime(seconds, extra, float(best[-1]), float(middle), float(low), float(high), confidence)


def has_rested(steps: np.ndarray, best: np.ndarray) -> bool:
    """Whether the best held-out loss so far did not move in the last third of the steps."""
    return bool(best[-1] >= best[max(np.searchsorted(steps, steps[-1] * (1 - RESTED), side="right") - 1, 0)])


def best_so_far(steps: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(4,) the best held-out loss at an eighth, a quarter, half and all of the steps."""
    return np.array([best[max(np.searchsorted(steps, steps[-1] * part, side="right") - 1, 0)] for part in PARTS])


def more_rows(curve: Curve, *, rows_used: int, train_rows: int, seconds: float, extra: float) -> MoreTime | Text:
    """For a candidate that learnt from fewer rows than there are, to stay in time, or why that cannot be told.

    The seconds of a fit are taken to grow with its rows, so the rows are at best what is said here.
    """
    if rows_used >= train_rows:
        return say("it learnt from all {rows:,} training rows", rows=train_rows)
    if curve.reason is not None:
        return curve.reason
    rows = min(train_rows, int(rows_used * (seconds + extra) / seconds))
    now, then = curve.at(rows_used), curve.at(rows)
    return MoreTime(seconds, extra, now.median, then.median, then.low, then.high, curve.confidence, rows_used, rows)
