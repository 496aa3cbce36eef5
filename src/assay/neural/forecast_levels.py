"""Quantiles at other levels than a forecaster knows, and answers where there is too little to ask one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def at_levels(cube: np.ndarray, known: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    """Quantiles at the levels `wanted`, (..., len(wanted)), from those at `known`, (..., len(known)), rising.

    Between two, and beyond the outermost, along a straight line over the normal scores of the levels: exact for normal answers.
    """
    if len(known) == 1:
        return np.repeat(cube, len(wanted), axis=-1)
    scores = np.array([NormalDist().inv_cdf(level) for level in known])
    asked = np.array([NormalDist().inv_cdf(level) for level in wanted])
    above = np.clip(np.searchsorted(scores, asked - 1e-12), 1, len(scores) - 1)
    share = (asked - scores[above - 1]) / (scores[above] - scores[above - 1])
    return (1 - share) * cube[..., above - 1] + share * cube[..., above]


def of_few(values: np.ndarray, horizon: int, levels: Sequence[float]) -> np.ndarray:
    """(horizon, levels): the quantiles of the few values that are known, at each step the same; zeros where none is."""
    known = values[np.isfinite(values)]
    return np.tile(np.quantile(known, levels) if len(known) else np.zeros(len(levels)), (horizon, 1))
