"""The laws that learning curves follow, as a library of shapes, and what a handful of measured sizes says about them.

A shape is a loss relative to the loss at the largest measured size m: h(r) at r = rows / m, with h(1) = 1, never
rising. Every shape is `floor + (1 - floor) * g(r)`, where g is one of the laws of the learning-curve literature
(Domhan et al. 2015, IJCAI; Mohr et al. 2022, LCDB; Viering & Loog 2021, arXiv:2103.10948) at fixed parameters, and
`floor` is the share of today's loss that no number of rows removes. So a curve has one free number, its level, and
four measured sizes can weigh 258 shapes against each other without overfitting any of them. The exponential law is left
out: on the 53 calibration sets the forecasts' mean log density is 1.005 without it, 1.000 with it (0.979 without the
inverse logarithm, 0.994 with powers and the constant alone).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

LOWEST = 0.02  # the logarithmic law falls below zero: a shape stops at this share of today's loss


@dataclass(frozen=True)
class Law:
    """g(r, *p) for each p of `params`, 1 at r = 1. floors: whether it comes with all of `FLOORS`, or with none. prior: its weight
    before the data, shared by its parameters."""

    name: str
    curve: Callable[..., np.ndarray]
    params: tuple[tuple[float, ...], ...]
    floors: bool
    prior: float


# Prior weights of laws and floors, and the noise below: `python bench/curves.py --fit` on 53 data sets (1,313 windows of four sizes,
# n of 200 to 4,096 rows); checked on 42 others in docs/calibration.md.
FLOORS = {0.0: 0.168, 0.25: 0.189, 0.5: 0.217, 0.7: 0.111, 0.85: 0.139, 0.95: 0.176}
_ALONE = [(c,) for c in (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)]
LAWS = (
    Law("constant", lambda r: np.ones_like(r), ((),), False, 0.035),
    Law("power", lambda r, c: r**-c, tuple(_ALONE), True, 0.135),
    Law("shifted power", lambda r, c, d: ((r + d) / (1 + d)) ** -c, tuple(product((0.5, 1.0, 2.0, 4.0), (0.1, 0.4, 1.5))), True, 0.118),
    Law("logarithm", lambda r, s: np.maximum(1 - s * np.log(r), LOWEST), tuple((s,) for s in (0.02, 0.05, 0.1, 0.2, 0.4)), False, 0.085),
    Law("inverse logarithm", lambda r, c: np.log1p(c) / np.log1p(c * r), ((10.0,), (100.0,), (1000.0,)), True, 0.480),
    Law("MMF", lambda r, d, s: (1 + s) / (1 + s * r**d), tuple(product((0.7, 1.5, 3.0), (0.3, 1.0, 3.0))), True, 0.071),
    Law("vapor pressure", lambda r, b, c: np.exp(b * (1 / r - 1)) * r**-c, tuple(product((0.02, 0.06, 0.2), (0.0, 0.1, 0.3))), True, 0.076),
)


@dataclass(frozen=True)
class Noise:
    """What besides the law moves a measured loss; all in units of log loss.

    seed: standard deviation of one fit on 1,000 rows (which rows, which seed) before anything is seen; it falls as
    rows ** -fade. trust: how many observations that knowledge is worth against what the points themselves show. drift:
    standard deviation, one doubling beyond the largest size, by which curves leave the law that fitted them, as a share
    of what a doubling brought among the measured sizes; it grows with the root of the doublings.
    """

    seed: float
    trust: float
    fade: float
    drift: float

    def of_size(self, rows: np.ndarray) -> np.ndarray:
        """`seed` at these sizes."""
        return self.seed * (np.asarray(rows, dtype=np.float64) / 1000) ** -self.fade


NOISE = Noise(seed=0.021, trust=1.0, fade=0.90, drift=0.21)
TRAINING = Noise(seed=0.014, trust=1.0, fade=2.93, drift=0.12)  # for steps of training in the place of rows: a whole training counts as 1,000


@dataclass(frozen=True)
class Posterior:
    """D joint draws of one candidate's curve. shape: (D,) index into `shapes()`. level: (D,) log loss at `rows`.

    luck: (D,) log deviation of one single fit at `rows`. drift: (D,) log deviation from the law one doubling beyond, see `Noise`.
    weights: (K,) weight of each shape.
    """

    rows: float
    shape: np.ndarray
    level: np.ndarray
    luck: np.ndarray
    drift: np.ndarray
    weights: np.ndarray
    noise: Noise

    def losses(self, rows: np.ndarray, *, single_fit: bool = False) -> np.ndarray:
        """(D, G) losses at `rows` (G,): of the average fit, or of one single fit, whose rows and seed have their luck."""
        ratio = np.asarray(rows, dtype=np.float64) / self.rows
        log = self.level[:, None] + log_shapes(ratio)[self.shape] + self.drift[:, None] * np.log2(np.maximum(ratio, 1.0)) ** 0.5
        if single_fit:
            log = log + self.luck[:, None] * ratio**-self.noise.fade
        return np.exp(log)

    def laws(self) -> dict[str, float]:
        """The weight of each law after the data, largest first."""
        names = np.array([shape.law.name for shape in shapes()])
        found = {law.name: float(self.weights[names == law.name].sum()) for law in LAWS}
        return dict(sorted(found.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Shape:
    """One law at one parameter, above one floor."""

    law: Law
    params: tuple[float, ...]
    floor: float
    prior: float


@cache
def shapes() -> tuple[Shape, ...]:
    """The library: every law at every parameter and floor."""
    floors = {f: w / sum(FLOORS.values()) for f, w in FLOORS.items()}
    return tuple(Shape(law, p, floor, law.prior * part / len(law.params))
                 for law in LAWS for floor, part in (floors if law.floors else {0.0: 1.0}).items() for p in law.params)


def log_shapes(ratio: np.ndarray) -> np.ndarray:
    """(K, G) logarithms of all shapes at rows / m = `ratio` (G,)."""
    return np.log(np.stack([s.floor + (1 - s.floor) * s.law.curve(ratio, *s.params) for s in shapes()]))


def posterior(rows: np.ndarray, logs: np.ndarray, shift: np.ndarray, *, seed: Sequence[int], noise: Noise = NOISE) -> Posterior:
    """What the measured sizes say, in as many draws as `shift` has.

    rows: (P,) the size of each measured point (a size comes once for each seed). logs: (P,) log mean losses. shift: (D,)
    how far, in log loss, other test rows would lift or lower the whole curve. Conjugate: with level flat and variance
    inverse gamma, the evidence of a shape is a Student t in its squared residuals, so that a law which misses the points
    loses weight by how far the others miss them, and points that no law meets leave all of them in play.
    """
    rng = np.random.default_rng(list(seed))
    draws, most = len(shift), float(rows.max())
    weight = (rows / most) ** (2 * noise.fade)  # precision relative to a fit at the largest size
    share = weight / weight.sum()
    shape = log_shapes(rows / most)
    level = logs @ share - shape @ share
    squares = (logs - level[:, None] - shape) ** 2 @ weight + noise.trust * float(noise.of_size(np.array(most))) ** 2
    freedom = noise.trust + len(rows) - 1
    evidence = np.log([s.prior for s in shapes()]) - freedom / 2 * np.log(squares)
    evidence = np.exp(evidence - evidence.max())
    evidence /= evidence.sum()
    picked = rng.choice(len(evidence), draws, p=evidence)
    spread = np.sqrt(squares[picked] / rng.chisquare(freedom, draws))
    doubling = abs(logs[rows == rows.min()].mean() - logs[rows == most].mean()) / np.log2(most / rows.min())
    return Posterior(rows=most, shape=picked, level=level[picked] + spread * rng.standard_normal(draws) / np.sqrt(weight.sum()) + shift,
                     luck=spread * rng.standard_normal(draws), drift=noise.drift * doubling * rng.standard_normal(draws),
                     weights=evidence, noise=noise)
