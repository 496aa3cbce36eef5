"""Fits what `assay.contest.laws` holds: prior weights of laws and floors, and the noise. Used by `bench/curves.py --fit`.

Each window (four measured sizes, then the losses at 2 and 4 times the largest) has a predictive density: a mixture over all
shapes of Student t's, in closed form. The score is its mean logarithm at what came, every data set counting once. Priors are
fitted by expectation maximisation, the noise by Nelder-Mead, in turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.contest.laws import FLOORS, LAWS, Noise, log_shapes, shapes

AHEAD = (2, 4)
STEPS = np.array([1 / 8, 1 / 4, 1 / 2, 1.0])


@dataclass(frozen=True)
class Window:
    """Four sizes and what came: log mean losses on all test rows. logs (4,), later {2: log loss, 4: log loss}."""

    name: str
    learner: str
    seed: int
    rows: int
    logs: np.ndarray
    later: dict[int, float]


def once_a_set(windows: list[Window]) -> np.ndarray:
    """Weights that add up to 1 over each set's windows."""
    _, place, count = np.unique([w.name for w in windows], return_inverse=True, return_counts=True)
    return 1 / count[place] / len(count)


def prior(laws: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """(K,) prior of the shapes from the weights of laws and floors."""
    names, levels = [law.name for law in LAWS], list(FLOORS)
    floors = floors / floors.sum()
    out = np.array([laws[names.index(s.law.name)] / len(s.law.params) * (floors[levels.index(s.floor)] if s.law.floors else 1.0) for s in shapes()])
    return out / out.sum()


def densities(windows: list[Window], noise: Noise, weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For 2 x and 4 x: (which windows have it, log density at what came, (n, K) share of each shape in it)."""
    from scipy.special import gammaln, logsumexp

    logs, rows = np.array([w.logs for w in windows]), np.array([w.rows for w in windows])
    ahead = log_shapes(np.r_[STEPS, AHEAD])
    weight = STEPS ** (2 * noise.fade)
    share = weight / weight.sum()
    shape = ahead[:, : len(STEPS)]
    off, seen = shape - (shape @ share)[:, None], logs - (logs @ share)[:, None]
    squares = (seen**2 @ weight)[:, None] - 2 * (seen * weight) @ off.T + (off**2 @ weight)[None, :]
    squares = np.maximum(squares, 0) + noise.trust * noise.of_size(rows)[:, None] ** 2
    freedom = noise.trust + len(STEPS) - 1
    known = np.log(weights)[None, :] - freedom / 2 * np.log(squares)
    known -= logsumexp(known, axis=1, keepdims=True)
    level = (logs @ share)[:, None] - (shape @ share)[None, :]
    doubling = np.abs(logs[:, :1] - logs[:, -1:]) / np.log2(STEPS[-1] / STEPS[0])
    out = []
    for i, times in enumerate(AHEAD):
        came = np.array([w.later.get(times, np.nan) for w in windows])
        own = squares / freedom * (1 / weight.sum() + times ** (-2 * noise.fade))
        scale = np.sqrt(own + (noise.drift * doubling) ** 2 * np.log2(times))
        z = (np.nan_to_num(came)[:, None] - level - ahead[:, len(STEPS) + i][None, :]) / scale
        each = known + gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * np.log(freedom * np.pi) - np.log(scale)
        each -= (freedom + 1) / 2 * np.log1p(z**2 / freedom)
        total = logsumexp(each, axis=1)
        out.append((np.isfinite(came), total, np.exp(each - total[:, None])))
    return out


def score(windows: list[Window], noise: Noise, weights: np.ndarray) -> float:
    """Mean log density, to be maximised."""
    one = once_a_set(windows)
    return float(np.mean([(one * np.where(has, total, 0)).sum() / (one * has).sum() for has, total, _ in densities(windows, noise, weights)]))


def fit(windows: list[Window], start: Noise, rounds: int = 3) -> tuple[Noise, dict[str, float], dict[float, float]]:
    """(noise, weights of the laws, weights of the floors), fitted in turns from even weights."""
    names, levels = np.array([s.law.name for s in shapes()]), np.array([s.floor if s.law.floors else -1.0 for s in shapes()])
    laws, floors, one, noise = np.ones(len(LAWS)) / len(LAWS), np.ones(len(FLOORS)) / len(FLOORS), once_a_set(windows), start
    for _ in range(rounds):
        for _ in range(8):
            held = sum((one * has) @ part for has, _, part in densities(windows, noise, prior(laws, floors)))
            # 0.01 of a law and of a floor is always left: no set of curves rules one out
            laws = np.array([held[names == law.name].sum() for law in LAWS]) / held.sum() + 0.01
            floors = np.array([held[levels == f].sum() for f in FLOORS]) / held.sum() + 0.01
            laws, floors = laws / laws.sum(), floors / floors.sum()
        noise = fit_noise(windows, noise, prior(laws, floors))
    return noise, dict(zip([law.name for law in LAWS], laws, strict=True)), dict(zip(FLOORS, floors, strict=True))


def fit_noise(windows: list[Window], start: Noise, weights: np.ndarray) -> Noise:
    """The noise under which what came is likeliest, under these priors of the shapes.

    `trust` stays as it is: left free it runs towards 0 for 0.3 % of a better score, and a width that trusts nothing but three residuals is no help.
    """
    from scipy.optimize import minimize

    def of(x: np.ndarray) -> Noise:
        seed, fade, drift = np.exp(np.clip(x, -6, 2))
        return Noise(seed=float(seed), trust=start.trust, fade=float(fade), drift=float(drift))

    begin = np.log([start.seed, start.fade, max(start.drift, 0.01)])
    best = minimize(lambda x: -score(windows, of(x), weights), begin, method="Nelder-Mead", options={"maxfev": 80, "xatol": 0.02, "fatol": 1e-4})
    print(f"  mean log density {-best.fun:.4f}: {of(best.x)}", flush=True)
    return of(best.x)
