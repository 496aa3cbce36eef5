"""Do the judge's intervals hold what they promise? Simulated contests with a known truth -> docs/calibration.md.

Each contest draws data, fits real models (lines on some of the inputs), judges them as `assay run` does - one holdout, the candidate to
defend chosen on validation rows, paired cluster bootstrap, widened for the luck of one training - and compares with the truth: the
expected gain of the procedure over all data sets of that size, itself from many other draws. Two questions: does the nominal 95 %
interval of the gain hold the truth, and how often is 'worth it' said although no large candidate is better?
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

import numpy as np
from machine import publish

from assay.contest.statistics import Bootstrap, fold_factor

CONTESTS = 400
TRUTHS = 1000
FRESH = 12_000  # new rows on which the two fitted models are compared
CONFIDENCE = 0.95
INPUTS = 12


@dataclass(frozen=True)
class World:
    """rows in all; size of a cluster (rows of one patient share a latent part of the answer); loss; how many large rivals; do they know more?"""

    rows: int
    cluster: int
    loss: str
    rivals: int
    better: bool

    def cells(self) -> list[str]:
        return [f"{self.rows:,}", str(self.cluster), self.loss, str(self.rivals), "yes" if self.better else "no"]


def draw(world: World, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs, answers, clusters). The first 4 inputs matter much, the next 4 a little, the last 4 not at all."""
    groups = np.arange(world.rows) // world.cluster
    shared = rng.normal(size=(groups.max() + 1, INPUTS))[groups]
    x = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=(world.rows, INPUTS)) if world.cluster > 1 else rng.normal(size=(world.rows, INPUTS))
    weights = np.r_[np.full(4, 0.6), np.full(4, 0.25), np.zeros(4)]
    latent = 0.7 * rng.normal(size=groups.max() + 1)[groups] if world.cluster > 1 else 0.0
    score = x @ weights + latent
    if world.loss == "squared":
        return x, score + rng.standard_t(5, size=world.rows), groups
    return x, (rng.random(world.rows) < 1 / (1 + np.exp(-1.5 * score))).astype(float), groups


def columns(world: World) -> list[np.ndarray]:
    """Which inputs each candidate sees: the small one 4 (or 8); the large ones 8 of the useful ones (or 8 and some that are only noise)."""
    small = np.arange(4) if world.better else np.arange(8)
    rng = np.random.default_rng(7)
    large = [np.arange(8)] if world.better else [np.r_[np.arange(8), 8 + rng.permutation(4)[: 1 + k % 4]] for k in range(world.rivals)]
    if world.better:
        large += [np.r_[np.arange(4), 4 + rng.permutation(8)[:4]] for _ in range(world.rivals - 1)]
    return [small, *large]


def fit(x: np.ndarray, y: np.ndarray, loss: str) -> np.ndarray:
    x = np.column_stack([x, np.ones(len(x))])
    ridge = 1e-2 * np.eye(x.shape[1])
    if loss == "squared":
        return np.linalg.solve(x.T @ x + ridge, x.T @ y)
    w = np.zeros(x.shape[1])
    for _ in range(8):  # Newton
        p = 1 / (1 + np.exp(-x @ w))
        w += np.linalg.solve((x * (p * (1 - p) + 1e-6)[:, None]).T @ x + ridge, x.T @ (y - p) - ridge @ w)
    return w


def losses(x: np.ndarray, y: np.ndarray, w: np.ndarray, loss: str) -> np.ndarray:
    score = np.column_stack([x, np.ones(len(x))]) @ w
    return (y - score) ** 2 if loss == "squared" else np.logaddexp(0, score) - y * score


def halves(groups: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask of rows on the other side: whole clusters."""
    count = groups.max() + 1
    return np.isin(groups, rng.permutation(count)[: max(1, round(count * share))])


def truth(world: World, seen: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Expected loss of each procedure: trained on as many rows as in a contest, judged on other rows of the same world."""
    total = np.zeros(len(seen))
    for _ in range(TRUTHS):
        x, y, groups = draw(world, rng)
        test = halves(groups, 0.5, rng)
        teach = np.flatnonzero(~test)
        extra = draw(world, rng)
        x, y = np.concatenate([x[teach], extra[0]]), np.concatenate([y[teach], extra[1]])
        train = round(0.8 * world.rows)
        for k, own in enumerate(seen):
            w = fit(x[:train, own], y[:train], world.loss)
            total[k] += losses(x[train:, own], y[train:], w, world.loss).mean()
    return total / TRUTHS


def contest(world: World, seen: list[np.ndarray], rng: np.random.Generator) -> tuple[int, float, float, float]:
    """(the large candidate that was chosen, low, high of its gain over the small one, the true gain of these two fitted models)."""
    x, y, groups = draw(world, rng)
    test = halves(groups, 0.2, rng)
    rest = np.flatnonzero(~test)
    held = np.isin(rest, rest[halves(np.unique(groups[rest], return_inverse=True)[1], 0.2, rng)])
    valid = [losses(x[rest[held]][:, own], y[rest[held]], fit(x[rest[~held]][:, own], y[rest[~held]], world.loss), world.loss).mean() for own in seen]
    best = 1 + int(np.argmin(valid[1:]))
    fitted = {k: fit(x[rest][:, seen[k]], y[rest], world.loss) for k in (0, best)}
    own = {str(k): losses(x[test][:, seen[k]], y[test], w, world.loss) for k, w in fitted.items()}
    new_x, new_y, _ = draw(replace(world, rows=FRESH), rng)
    fresh = [losses(new_x[:, seen[k]], new_y, w, world.loss).mean() for k, w in fitted.items()]
    boot = Bootstrap(own, groups[test], confidence=CONFIDENCE, seed=int(rng.integers(1 << 30)), widen=fold_factor(1, len(rest), test.sum()))
    gain = boot.gain("0", str(best))
    return best, gain.low, gain.high, float(fresh[0] - fresh[1])


def main() -> None:
    started = time.time()
    rows = []
    worlds = [World(n, c, loss, rivals, better) for better in (True, False) for loss in ("squared", "log") for n, c in ((250, 1), (1000, 1), (1000, 10), (3000, 30))
              for rivals in ((1, 8) if n == 1000 else (3,))]
    held = of_these = claimed = many = wrongly = 0
    for i, world in enumerate(worlds):
        rng = np.random.default_rng([11, i])
        seen = columns(world)
        expected = truth(world, seen, rng)
        ends = [contest(world, seen, rng) for _ in range(CONTESTS)]
        inside = sum(low <= expected[0] - expected[k] <= high for k, low, high, _ in ends)
        these = sum(low <= own <= high for _, low, high, own in ends)
        wrong = sum(low > 0 >= expected[0] - expected[k] for k, low, high, _ in ends)
        false = [low > 0 for k, low, high, _ in ends if expected[0] - expected[k] <= 0]
        held, of_these, many = held + inside, of_these + these, many + CONTESTS
        claimed, wrongly = claimed + len(false), wrongly + wrong
        rows.append([*world.cells(), f"{these / CONTESTS:.1%}", f"{inside / CONTESTS:.1%}", f"{wrong / len(false):.1%} of {len(false)}" if false else "-"])
        print(rows[-1], f"{time.time() - started:.0f} s", flush=True)
    publish("coverage", f"## Intervals of a verdict\n\n`python bench/coverage.py`: {CONTESTS} simulated contests in each of {len(worlds)} worlds, lines fitted for "
            f"real, the truth from {TRUTHS:,} other draws. Goal: 95 % intervals hold the truth in 93-97 % of contests; 'worth it' wrong at most 5 % of the time.",
            ["rows", "rows of a cluster", "loss", "large rivals", "do they know more?", "95 % interval holds the gain of these two models", "... of the procedure", "'worth it' where it is not"], rows,
            page="calibration.md",
            after=f"All worlds together: {of_these / many:.1%} of {many:,} intervals hold the true gain of the two models that were fitted, {held / many:.1%} that of the procedure; 'worth it' was said wrongly in "
                  f"{wrongly / max(claimed, 1):.1%} of {claimed:,} contests in which the large candidate defended was no better than the small one.")


if __name__ == "__main__":
    sys.exit(main())
