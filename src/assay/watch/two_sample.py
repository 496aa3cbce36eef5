"""Can a classifier tell recent rows from the reference? What no single column shows, a broken relation between columns say, shows here.

Classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545): trees learn 'recent or reference' on a half of the rows and are judged on the other, then
the halves change places. An area under the curve of 0.5 means that nobody can tell.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from assay.watch.drift import LEAST_ROWS
from assay.watch.finding import Finding
from assay.watch.gauge import Gauge
from assay.watch.tails import normal_below
from assay.watch.traces import described, key, named
from assay.words import say

MOST_ROWS = 50_000
TOLERATED = 0.6  # an AUC of 0.6 is a shift of a third of a standard deviation in one column
_SHOWN = 5


def check(gauge: Gauge, reference: pl.DataFrame, recent: pl.DataFrame, *, seed: int = 0, tolerated: float = TOLERATED) -> list[Finding]:
    """reference, recent: rows as `conform` makes them; at most MOST_ROWS of both together are used. [] if a side has fewer than 2 * LEAST_ROWS rows."""
    rng = np.random.default_rng(seed)
    sides = [frame if frame.height <= MOST_ROWS // 2 else frame[np.sort(rng.choice(frame.height, MOST_ROWS // 2, replace=False))] for frame in (reference, recent)]
    if min(s.height for s in sides) < 2 * LEAST_ROWS:
        return []
    names, x = _matrix(gauge, sides)
    if not names:
        return []
    y = np.repeat([0, 1], [s.height for s in sides])
    value, low, high, p, weight = auc(x, y, seed=seed, tolerated=tolerated)
    by_column: dict[str, float] = {}
    for name, share in zip(names, weight, strict=True):
        by_column[named(name)[0]] = by_column.get(named(name)[0], 0.0) + float(share)
    told = sorted(by_column, key=lambda c: -by_column[c])[:_SHOWN]
    facts = {"effect": value, "low": low, "high": high, "p": p, "tolerated": tolerated, "columns": {c: round(by_column[c], 4) for c in told}, "rows": len(y)}
    return [Finding("drift_together", "critical" if low > 0.8 else "warning",
                    say("A classifier tells recent rows from the reference with an AUC of {value:.3f} [{low:.3f}, {high:.3f}] (0.5: it cannot), mostly by: {columns}.",
                        value=value, low=low, high=high, columns=[f"'{c}'" for c in told]), facts)]


def auc(x: np.ndarray, y: np.ndarray, *, seed: int, tolerated: float) -> tuple[float, float, float, float, np.ndarray]:
    """(area, low, high, p of an area of `tolerated`, share of the gain by column). Two folds; variance by DeLong et al. (1988), doi:10.2307/2531595."""
    import lightgbm as lgb

    rng = np.random.default_rng(seed)
    half = np.zeros(len(y), dtype=bool)
    for side in (0, 1):
        rows = np.flatnonzero(y == side)
        half[rng.permutation(rows)[: len(rows) // 2]] = True
    areas, variances, gain = [], [], np.zeros(x.shape[1])
    settings = {"objective": "binary", "num_leaves": 15, "learning_rate": 0.08, "min_data_in_leaf": 40, "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1,
                "lambda_l2": 1.0, "verbosity": -1, "seed": seed, "deterministic": True, "force_row_wise": True, "is_unbalance": True, "num_threads": 2}
    for learns in (half, ~half):
        model = lgb.train(settings, lgb.Dataset(x[learns], y[learns], free_raw_data=True), num_boost_round=80)
        area, variance = _delong(np.asarray(model.predict(x[~learns])), y[~learns])
        areas.append(area)
        variances.append(variance)
        gain += model.feature_importance("gain")
    value, se = float(np.mean(areas)), float(np.sqrt(np.sum(variances)) / 2)
    se = max(se, 1e-6)
    return value, max(value - 1.96 * se, 0.0), min(value + 1.96 * se, 1.0), normal_below(-(value - tolerated) / se), gain / max(gain.sum(), 1e-12)


def _delong(score: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    from scipy.stats import rankdata

    up, down = score[y == 1], score[y == 0]
    m, n = len(up), len(down)
    both = rankdata(np.concatenate([up, down]))
    place_up, place_down = (both[:m] - rankdata(up)) / n, 1 - (both[m:] - rankdata(down)) / m
    return float(place_up.mean()), float(place_up.var(ddof=1) / m + place_down.var(ddof=1) / n)


def _matrix(gauge: Gauge, sides: list[pl.DataFrame]) -> tuple[list[str], np.ndarray]:
    """Every number trace as it is, every level as its place among the reference's, one column each; dates are left out, they always tell."""
    blocks: list[dict[str, np.ndarray]] = []
    for frame in sides:
        block: dict[str, np.ndarray] = {}
        for column in gauge.columns:
            if column.kind in ("number", "category"):
                about = described(column, frame[column.name])
                block |= {key(column.name, p): v.astype(np.float64) for p, v in about.numbers.items()}
                places = {key(column.name, p): (gauge.grids[key(column.name, p)].places, cells) for p, cells in about.levels.items()}  # type: ignore[union-attr]
                block |= {name: np.array([np.nan if v is None else known.get(v, len(known)) for v in cells.to_list()], dtype=np.float64) for name, (known, cells) in places.items()}
            elif column.kind == "text":
                block[key(column.name, "length")] = frame[column.name].str.len_chars().cast(pl.Float64).fill_null(float("nan")).to_numpy()
        blocks.append(block)
    names = [name for name in blocks[0] if name in blocks[1]]
    return names, np.column_stack([np.concatenate([b[name] for b in blocks]) for name in names]) if names else np.zeros((0, 0))
