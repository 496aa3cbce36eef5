"""Where a model fails: the parts of the test rows on which its loss is worse than elsewhere, found by themselves.

Every value of a category, quarter of a number, third of a text's length, and pairs of the worst of those is looked at
(slice finding: Chung et al. 2019, arXiv:1807.06068); what is named has survived a correction for all that were looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import polars as pl

from assay.contest.statistics import holm
from assay.data.dataset import Column, Dataset
from assay.words import Text, say

LEAST_ROWS = 30
MOST_VALUES = 20  # of a category: the commonest
MOST_SHOWN = 8
PAIRED = 6  # the worst single conditions, of which pairs are made


@dataclass(frozen=True)
class Slice:
    """rows: how many test rows. loss: mean there. excess: that minus the mean of all other rows, with its interval."""

    where: Text
    columns: tuple[str, ...]
    rows: int
    share: float
    loss: float
    excess: float
    low: float
    high: float
    p: float

    def json(self) -> dict[str, Any]:
        return vars(self) | {"where": self.where.json(), "columns": list(self.columns)}


def worst_slices(test: Dataset, losses: np.ndarray, clusters: np.ndarray, *, confidence: float) -> list[Slice]:
    """The slices with the most excess loss in all, the largest first; [] if none is worse for sure.

    losses, clusters: (n_test,). Rows of one cluster count as one (cluster-robust variance, Liang & Zeger 1986). A pair of conditions
    is named only if it is clearly worse than either of its parts.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    single = [(text, (column.name,), mask) for column in test.schema.features for text, mask in _conditions(test, column)
              if LEAST_ROWS <= mask.sum() <= len(losses) - LEAST_ROWS]
    if not single:
        return []
    scored: list[tuple[float, float, Text, tuple[str, ...], np.ndarray]] = [(*_excess(losses, codes, mask), text, names, mask) for text, names, mask in single]
    worst = sorted(scored, key=lambda s: -s[0] / max(s[1], 1e-12))[:PAIRED]
    for a, b in combinations(worst, 2):
        mask = a[4] & b[4]
        if a[3] == b[3] or not mask.sum() >= LEAST_ROWS:
            continue
        value, se = _excess(losses, codes, mask)
        if value - se > max(a[0], b[0]):
            scored.append((value, se, say("{one} and {other}", one=a[2], other=b[2]), (*a[3], *b[3]), mask))
    from scipy.special import ndtr, ndtri

    p = holm({str(i): float(2 * ndtr(-abs(s[0]) / max(s[1], 1e-12))) for i, s in enumerate(scored)})
    reach = float(ndtri((1 + confidence) / 2))
    found = [Slice(text, names, int(mask.sum()), float(mask.mean()), float(losses[mask].mean()), value, value - reach * se, value + reach * se, p[str(i)])
             for i, (value, se, text, names, mask) in enumerate(scored) if value > 0 and p[str(i)] < 1 - confidence]
    return sorted(found, key=lambda s: -s.excess * s.share)[:MOST_SHOWN]


def _excess(losses: np.ndarray, codes: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """(mean inside - mean outside, its cluster-robust standard error)."""
    inside, outside = losses[mask].mean(), losses[~mask].mean()
    influence = np.where(mask, (losses - inside) / mask.sum(), -(losses - outside) / (~mask).sum())
    by_cluster = np.bincount(codes, weights=influence)
    c = len(by_cluster)
    return float(inside - outside), float(np.sqrt((by_cluster**2).sum() * c / max(c - 1, 1)))


def _conditions(test: Dataset, column: Column) -> list[tuple[Text, np.ndarray]]:
    """Each condition on this column: its sentence and the rows (n,) where it holds."""
    cells, name = test.frame[column.name], column.name
    out = [(say("{name} is empty", name=name), cells.is_null().to_numpy())]
    if column.kind == "category":
        common = cells.drop_nulls().value_counts(sort=True).head(MOST_VALUES)[name].to_list()
        return out + [(say("{name} = {value}", name=name, value=str(v)[:60]), (cells == v).fill_null(False).to_numpy()) for v in common]
    if column.kind == "text":
        return out + _bins(cells.str.len_chars().cast(pl.Float64), say("length of {name}", name=name), 3)
    if column.kind == "number":
        return out + _bins(cells, say("{name}", name=name), 4)
    return out


def _bins(values: pl.Series, what: Text, count: int) -> list[tuple[Text, np.ndarray]]:
    there = values.drop_nulls().to_numpy()
    if len(there) < LEAST_ROWS:
        return []
    edges = np.unique(np.quantile(there, np.linspace(0, 1, count + 1)))
    if len(edges) < 3:  # two values or fewer: each by itself
        return [(say("{what} = {value:g}", what=what, value=float(v)), (values == v).fill_null(False).to_numpy()) for v in np.unique(there)[:2]]
    cells = values.to_numpy()
    inner = edges[1:-1]
    out = [(say("{what} at most {high:.4g}", what=what, high=float(inner[0])), cells <= inner[0])]
    out += [(say("{what} above {low:.4g}, at most {high:.4g}", what=what, low=float(a), high=float(b)), (cells > a) & (cells <= b))
            for a, b in pairwise(inner)]
    return [*out, (say("{what} above {low:.4g}", what=what, low=float(inner[-1])), cells > inner[-1])]
