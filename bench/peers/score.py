"""Predictions against truth: loss of each row, the interval of a difference, and the tally over the sets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from peers.sets import Set

FLOOR = 1e-6  # log loss is cut at 13.8 nats a row
DRAWS = 4000
BLOCK = 168  # rows of a block where rows follow each other in time: a week of hours


@dataclass(frozen=True)
class Judged:
    """losses: (n_test,); mean: of the losses; figures: what the field reports."""

    losses: np.ndarray
    figures: dict[str, float]

    @property
    def mean(self) -> float:
        return float(self.losses.mean())


def judge(one: Set, out: Path) -> Judged:
    """Score OUT/predictions.npy. Raises ValueError if answers are missing, infinite or of the wrong shape."""
    truth = pl.read_parquet(one.folder / "truth.parquet")[one.target]
    answers = np.load(out / "predictions.npy", allow_pickle=False)
    if not np.isfinite(answers).all():
        raise ValueError(f"{int((~np.isfinite(answers)).sum())} answers are not finite")
    if one.task == "regress":
        if answers.shape != (len(truth),) and answers.shape != (len(truth), 1):
            raise ValueError(f"shape {answers.shape} for {len(truth)} rows")
        y = truth.to_numpy().astype(float)
        losses = (answers.reshape(-1) - y) ** 2
        return Judged(losses, {"rmse": float(np.sqrt(losses.mean())), "r2": float(1 - losses.mean() / y.var())})
    classes = json.loads((out / "classes.json").read_text(encoding="utf-8"))
    place = {c: i for i, c in enumerate(classes)}
    code = np.array([place.get(str(v), -1) for v in truth.to_list()])
    if answers.shape != (len(truth), len(classes)):
        raise ValueError(f"shape {answers.shape} for {len(truth)} rows and {len(classes)} classes")
    total = answers.sum(axis=1)
    if answers.min() < -1e-6 or np.abs(total - 1).max() > 1e-3:
        raise ValueError("the answers are no probabilities")
    hit = np.where(code >= 0, answers[np.arange(len(code)), code], 0.0)
    figures = {"log_loss": 0.0, "accuracy": float((answers.argmax(axis=1) == code).mean())}
    losses = -np.log(np.clip(hit, FLOOR, 1.0))
    figures["log_loss"] = float(losses.mean())
    if len(classes) == 2:
        figures["auc"] = _auc(code == 1, answers[:, 1])
    return Judged(losses, figures)


def _auc(up: np.ndarray, score: np.ndarray) -> float:
    from scipy.stats import rankdata

    ranks, n = rankdata(score), int(up.sum())
    return float((ranks[up].sum() - n * (n + 1) / 2) / (n * (len(up) - n)))


def interval(one: Set, ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap of mean(ours - theirs), paired: rows, whole groups, or blocks of a week of rows in time."""
    gap = ours - theirs
    rng = np.random.default_rng(0)
    if one.how == "random":
        means = np.array([gap[rng.integers(0, len(gap), len(gap))].mean() for _ in range(DRAWS)])
    else:
        key = pl.read_parquet(one.folder / "truth.parquet")[one.by]
        part = key.rank("dense").to_numpy() - 1 if one.how == "group" else key.rank("ordinal").to_numpy() // BLOCK
        total, size = np.bincount(part, weights=gap), np.bincount(part)
        total, size = total[size > 0], size[size > 0]
        draws = rng.integers(0, len(size), (DRAWS, len(size)))
        means = total[draws].sum(axis=1) / size[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def outcome(one: Set, ours: Judged, theirs: Judged) -> str:
    """'win', 'tie' or 'loss' of ours at 95 %."""
    low, high = interval(one, ours.losses, theirs.losses)
    return "win" if high < 0 else "loss" if low > 0 else "tie"


@dataclass(frozen=True)
class Tally:
    """ratio: geometric mean of loss ours / theirs (squared error: of the root). p: two-sided Wilcoxon signed-rank of its logarithm."""

    win: int
    tie: int
    loss: int
    ratio: float
    p: float
    lost: tuple[str, ...]

    @property
    def n(self) -> int:
        return self.win + self.tie + self.loss

    @property
    def share(self) -> float:
        return (self.win + self.tie) / self.n


def tally(pairs: list[tuple[Set, Judged, Judged]]) -> Tally:
    from scipy.stats import wilcoxon

    outcomes = [outcome(*pair) for pair in pairs]
    logs = np.array([np.log(max(a.mean, 1e-12) / max(b.mean, 1e-12)) * (0.5 if one.task == "regress" else 1.0) for one, a, b in pairs])
    p = float(wilcoxon(logs).pvalue) if len(logs) > 5 and np.any(logs != 0) else float("nan")
    return Tally(outcomes.count("win"), outcomes.count("tie"), outcomes.count("loss"), float(np.exp(logs.mean())), p,
                 tuple(pair[0].name for pair, o in zip(pairs, outcomes, strict=True) if o == "loss"))
