"""Does the promotion test err as seldom as it says, looked at after every label, and what does that cost in labels? Usage: python bench/promotion.py

No data and no model: streams of gains (loss of the champion minus loss of the challenger) from laws whose truth is known. About a minute on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from machine import publish

from assay.retrain.recorded import FAR, SURPRISE
from assay.retrain.sequential import LEAST, by_group, compare, log_capital, log_t_mixture, spent

ALPHA, STREAMS, ROWS = 0.05, 2000, 2000
PAGE = "retrain.md"
LOG, SQUARED, ABSOLUTE = -np.log(SURPRISE), (FAR * 1.645) ** 2, FAR * 2.353  # the caps of `recorded.cap_of`; of intervals that hold 90 %
Law = Callable[[np.random.Generator, tuple[int, int], float], np.ndarray]


# ---- laws: gains of the mean `gain`; the support where there is one


def errors(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """Right or wrong; the two disagree about 10 % of the rows."""
    u = rng.random(shape)
    return np.where(u < 0.05 + gain / 2, 1.0, np.where(u > 0.95 + gain / 2, -1.0, 0.0))


def catastrophe(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """A little better nearly always, and once in a hundred rows as bad as can be."""
    return np.where(rng.random(shape) < 0.01, -1.0, (0.01 + gain) / 0.99)


def luck(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """A little worse nearly always, and once in a hundred rows as good as can be."""
    return np.where(rng.random(shape) < 0.01 + gain, 1.0, -0.01 / 0.99)


def log_losses(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """Log losses of two models that each know a part of the log-odds, up to the cap; the challenger's noise shrinks with `gain`."""
    odds = rng.normal(0, 2, shape)
    truth = rng.random(shape) < 1 / (1 + np.exp(-odds))
    out = []
    for noise in (0.9, 0.9 * (1 - gain)):
        p = 1 / (1 + np.exp(-(odds + rng.normal(0, noise, shape))))
        out.append(np.minimum(-np.log(np.where(truth, p, 1 - p)), LOG))
    return out[0] - out[1]


def squared(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """Squared errors of two models of amounts, correlated by 0.8, up to the cap."""
    common = rng.normal(0, np.sqrt(0.8), shape)
    one, other = (common + rng.normal(0, np.sqrt(0.2), shape) for _ in range(2))
    return np.minimum(one**2, SQUARED) - np.minimum((1 - gain) * other**2, SQUARED)


def heavy(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """Absolute errors with tails of Student's t with 3 degrees of freedom, up to the cap."""
    return np.minimum(np.abs(rng.standard_t(3, shape)), ABSOLUTE) - np.minimum(np.abs(rng.standard_t(3, shape)) * (1 - gain), ABSOLUTE)


def skewed(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> np.ndarray:
    """Minus a log-normal: rare large harm, without an end."""
    return np.exp(0.5) - rng.lognormal(0, 1, shape) + gain


LAWS: dict[str, tuple[Law, float | None]] = {
    "errors, 10 % disagreement": (errors, 1.0), "rare catastrophe, 1 %": (catastrophe, 1.0), "rare luck, 1 %": (luck, 1.0), "log losses": (log_losses, LOG),
    "squared errors, normal": (squared, SQUARED), "absolute errors, t(3)": (heavy, ABSOLUTE), "rare large harm without an end": (skewed, None)}


# ---- when each test would first say 'better'


def first(crossed: np.ndarray) -> np.ndarray:
    """(streams,) the number of labels at the first crossing, infinite where there is none."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1.0, np.inf)


def tests(gains: np.ndarray, top: float | None) -> dict[str, np.ndarray]:
    n = np.arange(1, gains.shape[1] + 1)
    mean = np.cumsum(gains, axis=1) / n
    squares = np.maximum(np.cumsum(gains**2, axis=1) - n * mean**2, 0.0)
    approximate = log_t_mixture(n, mean, squares, alpha=ALPHA) >= -np.log(ALPHA)
    approximate[:, : LEAST - 1] = False
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(squares / np.maximum(n - 1, 1) / n)
    peeking = t > 1.645
    peeking[:, :29] = False
    found = {"approximate": first(approximate), "peeking": first(peeking), "fixed": np.where(t[:, -1] > 1.645, float(len(n)), np.inf)}
    if top is not None:
        found["exact"] = first(log_capital(gains, 0.0, -top, path=True) >= -np.log(ALPHA))
    return found


def wrong(part: int = 500) -> list[list[str]]:
    """Promotions of a challenger that is exactly as good."""
    rows = []
    for name, (law, top) in LAWS.items():
        counts: dict[str, float] = {}
        for seed in range(STREAMS // part):
            for test, labels in tests(law(np.random.default_rng([1, seed]), (part, ROWS), 0.0), top).items():
                counts[test] = counts.get(test, 0.0) + float(np.isfinite(labels).sum())
        rows.append([name, *(f"{counts[t] / STREAMS:.3f}" if t in counts else "–" for t in ("exact", "approximate", "fixed", "peeking"))])
    return rows


def power(streams: int = 400, longest: int = 6000) -> list[list[str]]:
    """Labels until a better challenger is promoted, against the fixed number with which a t-test has 80 % and 90 % power."""
    rows = []
    for name, gain in (("errors, 10 % disagreement", 0.02), ("errors, 10 % disagreement", 0.04), ("log losses", 0.3), ("log losses", 0.6), ("squared errors, normal", 0.1),
                       ("squared errors, normal", 0.2), ("absolute errors, t(3)", 0.15)):
        law, top = LAWS[name]
        gains = law(np.random.default_rng(2), (streams, longest), gain)
        effect = float(gains.mean() / gains.std())
        fixed = [((1.645 + z) / effect) ** 2 for z in (0.842, 1.282)]
        found = tests(gains, top)
        cells = []
        for test in ("exact", "approximate"):
            if test not in found:
                cells += ["–", "–"]
                continue
            labels = found[test]
            cells += [f"{np.quantile(labels, 0.5):,.0f}" if np.isfinite(np.quantile(labels, 0.5)) else f"> {longest:,}",
                      f"{np.quantile(labels, 0.8, method='higher'):,.0f}" if np.isfinite(np.quantile(labels, 0.8, method="higher")) else f"> {longest:,}"]
        rows.append([name, f"{gains.mean():.3f}", f"{effect:.3f}", f"{fixed[0]:,.0f}", f"{fixed[1]:,.0f}", *cells])
    return rows


def grouped(streams: int = 2000, groups: int = 60, labels: int = 600) -> list[list[str]]:
    """Wrong promotions where rows of a group are alike (0.4 of the variance is the group's) and come in any order, looked at after every tenth label."""
    rows = []
    for name, spread in (("trickling in: any group at any time", groups), ("a group after the other", 1)):
        rng = np.random.default_rng(3)
        own = rng.normal(0, np.sqrt(0.4), (streams, groups))
        order = rng.integers(0, groups, labels) if spread > 1 else np.sort(rng.integers(0, groups, labels))
        gains = np.clip(own[:, order] + rng.normal(0, np.sqrt(0.6), (streams, labels)), -3, 3) / 3
        ever, naive = np.zeros(streams, dtype=bool), np.zeros(streams, dtype=bool)
        for n in range(10, labels + 1, 10):
            seen, codes = np.unique(order[:n], return_inverse=True)
            held = np.zeros((n, len(seen)))
            held[np.arange(n), codes] = 1 / np.bincount(codes)[codes]
            ever |= log_capital(gains[:, :n] @ held, 0.0, -1.0) >= -np.log(ALPHA)
            naive |= log_capital(gains[:, :n], 0.0, -1.0) >= -np.log(ALPHA)
        assert np.allclose(by_group(gains[0], order), gains[0] @ held)
        rows.append([name, f"{ever.mean():.3f}", f"{naive.mean():.3f}"])
    return rows


def for_ever(models: int = 400, challengers: int = 20, labels: int = 500) -> list[list[str]]:
    """Share of wrong ones among all promotions, mean over models, where one of ten challengers is better."""
    rng = np.random.default_rng(4)
    better = rng.random((models, challengers)) < 0.1
    gains = errors(rng, (models * challengers, labels), 0.0).reshape(models, challengers, labels)
    flips = better[:, :, None] & (gains == 0) & (rng.random(gains.shape) < 0.08)
    gains = np.where(flips, 1.0, gains)
    best = log_capital(gains, 0.0, -1.0, path=True).max(axis=-1)
    rows = []
    for name, each in (("0.05 for each challenger", True), ("spent for ever (--for-ever)", False)):
        promoted = np.zeros((models, challengers), dtype=bool)
        for k in range(challengers):
            alpha = np.full(models, ALPHA) if each else np.array([spent(ALPHA, k + 1, int(d)) for d in promoted[:, :k].sum(axis=1)])
            promoted[:, k] = best[:, k] >= -np.log(alpha)
        share = (promoted & ~better).sum(axis=1) / np.maximum(promoted.sum(axis=1), 1)
        rows.append([name, f"{share.mean():.3f}", f"{promoted[better].mean():.2f}"])
    return rows


if __name__ == "__main__":
    begun = time.time()
    publish("promotion-error", f"## How often it errs\n\n`python bench/promotion.py`: {STREAMS:,} streams of {ROWS:,} labels in which the challenger is exactly as good as the champion; the share in "
            f"which it is ever promoted, looked at after every label. Allowed: {ALPHA} (standard error {np.sqrt(ALPHA * (1 - ALPHA) / STREAMS):.3f}). *Once*: a t-test at the last label, "
            "which nobody may look at before. *Peeking*: the same t-test after every label from the 30th. Losses are capped as the command does; the last law has no end.",
            ["law of the gains", "exact", "approximate", "t-test, once", "t-test, peeking"], wrong(), page=PAGE)
    publish("promotion-labels", "## How many labels it takes\n\n400 streams in which the challenger is better by *gain* (*effect*: gain over its standard deviation). The fixed number of labels with which "
            "a t-test, looked at once, has 80 % and 90 % power; and the labels at which the test that may be looked at always has promoted half, and 80 %, of the streams.",
            ["law of the gains", "gain", "effect", "t-test, 80 %", "t-test, 90 %", "exact, half", "exact, 80 %", "approximate, half", "approximate, 80 %"], power(), page=PAGE)
    publish("promotion-groups", "## Rows that belong together\n\n2,000 streams of 600 labels in 60 groups whose rows are alike (0.4 of the variance is the group's), no gain; the share ever promoted, "
            "looked at after every tenth label, with `--group` and without.", ["labels come", "with --group", "without"], grouped(), page=PAGE)
    publish("promotion-ever", "## One challenger after the other\n\n400 models with 20 challengers each, one of ten better, 500 labels each. *Wrong*: share of wrong promotions among all of a model, "
            "mean over models. *Found*: share of the better ones that are promoted.", ["alpha", "wrong", "found"], for_ever(), page=PAGE)
    print(f"{time.time() - begun:.0f} s; {compare(np.zeros(3), support=(-1.0, 1.0)).needed}")
