"""Demand that is mostly none: quantiles around a point do not fit it, those of what was seen lately do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from assay.data.lags import row_quantiles

INTERMITTENT = 1.32  # steps from one demand to the next, on average: Syntetos, Boylan & Croston 2005, doi:10.1057/palgrave.jors.2601841
LATELY = 52  # steps that are looked at, and two seasons at least
SHARES = np.linspace(0.0, 1.0, 6)
FEW = 10.0  # rows that count as much as the first guess, half and half


class Rare:
    """Mixes the quantiles of a model with those of a row's last values, for rows whose demand is intermittent. The share of the latter is learnt on later origins."""

    def __init__(self, season: int, levels: Sequence[float]) -> None:
        self.steps, self.levels, self.share = max(LATELY, 2 * season), np.asarray(levels), 0.5

    def rows(self, past: np.ndarray) -> np.ndarray:
        """(n,) bool. past: a table, see `lags`."""
        late = past[:, -self.steps :]
        known, some = np.isfinite(late).sum(axis=1), (np.nan_to_num(late) > 0).sum(axis=1)
        return (known > INTERMITTENT * np.maximum(some, 1)) & (known >= 4) & (np.nan_to_num(late) >= 0).all(axis=1)

    def learn(self, past: np.ndarray, cube: np.ndarray, truth: np.ndarray) -> Rare:
        """cube: (n, h, levels) of the model; truth: (n, h), NaN where unknown. Sets `share` to what makes the quantile loss least, each row in units of its mean."""
        rare = self.rows(past)
        if rare.any():
            size = np.nan_to_num(past[rare]).mean(axis=1)
            size = np.where(size > 0, size, 1.0)[:, None, None]
            own, other, true = cube[rare] / size, self._lately(past[rare]) / size, truth[rare][:, :, None] / size
            losses = [float(np.nanmean(_pinball(true - (1 - share) * own - share * other, self.levels))) for share in SHARES] if np.isfinite(true).any() else []
            if losses:
                n = int(rare.sum())
                self.share = (n * float(SHARES[int(np.argmin(losses))]) + FEW * 0.5) / (n + FEW)
        return self

    def mixed(self, past: np.ndarray, cube: np.ndarray) -> np.ndarray:
        rare = self.rows(past)
        if rare.any():
            cube = cube.copy()
            cube[rare] = (1 - self.share) * np.maximum(cube[rare], 0.0) + self.share * self._lately(past[rare])
        return cube

    def _lately(self, past: np.ndarray) -> np.ndarray:
        return row_quantiles(past[:, -self.steps :], self.levels)[:, None, :]


def _pinball(error: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.maximum(levels * error, (levels - 1) * error)
