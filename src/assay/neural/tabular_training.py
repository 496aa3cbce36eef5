"""Training of the table networks: timed, planned, and over before the deadline. Each network has a thread of its own.

Two networks on two threads never wait for each other, where two threads inside one small matrix product do so hundreds of
times a second (on a busy machine that was 30 times slower). It also makes the result independent of the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from assay.neural import forward
from assay.neural.columns import Inputs
from assay.neural.tabular import COMMON, NETWORKS, Drop, held_loss, initial, network, training_loss

FIXED = ("edges", "steps")  # learnt from the rows before training, not by it
FEWEST_EPOCHS = 3
EARLY = 0.6  # a best epoch before this share of the schedule is partly luck, because the rate was still high
_SHARES = (0.25, 0.75, 0.0, 1.0)  # of the first network in the answer, besides one half


@dataclass(frozen=True)
class Rows:
    """What is learnt from or judged on. target: int codes (n,), or standardised float amounts."""

    inputs: Inputs
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> Rows:
        return Rows(self.inputs.take(rows), self.target[rows])


@dataclass(frozen=True)
class Trained:
    """arrays and sizes feed `forward.answers`. curve: [[epoch, train loss, held-out loss], ...]. rows: learnt from."""

    arrays: dict[str, np.ndarray]
    sizes: dict[str, Any]
    lift: str
    curve: list[list[float]]
    best_epoch: int
    device: str
    rows: int
    whole: bool  # the default schedule on all rows: no time was lacking
    planned: int  # epochs of the schedule that held the best one
    epoch_s: float
    again: bool = False  # trained once more, on the held-out rows too


def train_all(
    taught: Rows, held: Rows, sizes: dict[str, Any], *, seed: int, deadline: float, threads: int = 1, passes: int | None = None,
    note: Callable[[int, int, float], None] = lambda epoch, epochs, loss: None, **options: Any,
) -> list[tuple[float, Trained]]:
    """The networks with their shares (0-1, sum 1) of the answer, chosen on `held`. Those without a share are dropped.

    sizes: `Columns.sizes` plus outputs, loss ('log', 'squared', 'absolute', 'pinball') and quantile.
    deadline: the time.monotonic() at which every schedule has to be over; infinite: no clock is read, so the answer is a
    function of rows, seed and threads. passes: each network goes over its rows at most this often.
    options: override `tabular.COMMON`.
    """
    import torch

    workers = min(len(NETWORKS), max(1, threads))
    inner = max(1, threads // workers)
    begun = time.monotonic()

    def one(i: int) -> Trained:
        torch.set_num_threads(inner)
        until = deadline if workers > 1 else begun + (deadline - begun) * (i + 1) / len(NETWORKS)
        return train(taught, held, sizes, seed=seed + 1000 * i, deadline=until, passes=passes, note=note if i == 0 else lambda *_: None,
                     **(COMMON | NETWORKS[i] | options))

    with ThreadPoolExecutor(workers) as pool:
        trained = list(pool.map(one, range(len(NETWORKS))))
    held = held.take(spread(len(held), 5000, None, np.random.default_rng(seed)))
    said = [forward.answers(t.arrays, t.sizes, held.inputs) for t in trained]
    share = _share_of_first(said[0], said[1], held.target, sizes)
    return [(s, t) for s, t in zip((share, 1 - share), trained, strict=True) if s]


def again_all(trained: list[tuple[float, Trained]], every: Rows, *, seed: int, deadline: float, threads: int = 1, **options: Any) -> list[tuple[float, Trained]]:
    """The networks of `train_all`, each trained again on all these rows; as they were if time is or becomes too short.

    Measured on 9 tables with 15 % held out, the loss fell by 4 % on average (median 5.5 %, 8 of 9). Where the best epoch had
    come early it was no better on average and once 10 % worse, so there the old network and the new one share the answer.
    """
    import torch

    workers = min(len(trained), max(1, threads))
    inner = max(1, threads // workers)
    needed = [t.epoch_s * t.best_epoch * len(every) / t.rows for _, t in trained]
    if 1.3 * (max(needed) if workers > 1 else sum(needed)) > deadline - time.monotonic() or any(3 * t.rows < 2 * len(every) for _, t in trained):
        return trained

    def one(t: Trained) -> Trained:
        torch.set_num_threads(inner)
        i = next(i for i, n in enumerate(NETWORKS) if n["lift"] == t.lift)
        return train_again(t, every, seed=seed + 1000 * i, deadline=deadline, **(COMMON | NETWORKS[i] | options))

    with ThreadPoolExecutor(workers) as pool:
        anew = list(pool.map(one, (t for _, t in trained)))
    out: list[tuple[float, Trained]] = []
    for (share, old), new in zip(trained, anew, strict=True):
        early = old.best_epoch < EARLY * old.planned and new.again
        out += [(share / 2, old), (share / 2, new)] if early else [(share, new)]
    return out


def _share_of_first(first: np.ndarray, second: np.ndarray, target: np.ndarray, sizes: dict[str, Any]) -> float:
    """One half, unless another share is better on the held-out rows by more than one standard error."""
    even = _judged((first + second) / 2, target, sizes)
    best, share = 0.0, 0.5
    for other in _SHARES if len(target) >= 50 else ():
        gain = even - _judged(other * first + (1 - other) * second, target, sizes)
        if gain.mean() > best and gain.mean() > gain.std() / math.sqrt(len(gain)):
            best, share = float(gain.mean()), other
    return share


def _judged(said: np.ndarray, target: np.ndarray, sizes: dict[str, Any]) -> np.ndarray:
    """The loss of each row, shape (n,)."""
    if sizes["loss"] == "log":
        return -np.log(np.maximum(said[np.arange(len(target)), target], 1e-6))
    error = target - said[:, 0]
    if sizes["loss"] == "squared":
        return error**2
    q = 0.5 if sizes["loss"] == "absolute" else sizes["quantile"]
    return 2 * np.maximum(q * error, (q - 1) * error)


def train(
    taught: Rows, held: Rows, sizes: dict[str, Any], *, seed: int, deadline: float, passes: int | None = None,
    note: Callable[[int, int, float], None], **settings: Any,
) -> Trained:
    """One network: the epoch that is best on `held` is kept.

    The first steps are timed on a throw-away copy, so that the number of epochs, and with it the learning rate's way to
    zero, is known before it starts. Where the default epochs fit, the result is a function of rows and seed only.
    Without a deadline nothing is timed, and the processor is taken, because a GPU adds in an order of its own.
    """
    import torch

    sizes = sizes | {"depth": settings["depth"]}
    clocked = math.isfinite(deadline)
    device = "cpu" if not clocked else "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    size = settings["batch"]
    start = initial(settings, sizes, taught.inputs.numbers, seed)
    fixed = {name: torch.from_numpy(start[name]).to(device) for name in FIXED if name in start}
    judged = _Batches(held, device)
    batches = _Batches(taught, device)
    epochs = settings["epochs"] or default_epochs(len(batches), size, bool(sizes["texts"]))
    epochs = max(1, min(epochs, passes or epochs))
    planned = epochs
    if clocked:
        step_s, judge_s = _paces(_Run(start, fixed, sizes, settings, seed, device), batches, judged, size, seed)
        left = deadline - time.monotonic()
        affordable = int((left / min(epochs, FEWEST_EPOCHS) - judge_s) / step_s) * size
        if affordable < len(taught):
            some = spread(len(taught), max(size, affordable), taught.target if sizes["loss"] == "log" else None, np.random.default_rng(seed))
            batches = _Batches(taught.take(some), device)
            few = spread(len(held), max(500, len(some) // 3), None, np.random.default_rng(seed))
            judged = _Batches(held.take(few), device)
            judge_s *= len(few) / len(held)
        planned = max(1, min(epochs, int(left / (math.ceil(len(batches) / size) * step_s + judge_s))))
    a_round = math.ceil(len(batches) / size)
    made = _schedule(_Run(start, fixed, sizes, settings, seed, device), batches, judged, planned, a_round, seed, deadline, settings["patience"], note)
    short = max(2, 2 * made.best_epoch)
    spare = math.inf if passes is None else passes - len(made.curve)
    whole = planned == epochs and len(batches) == len(taught) and not made.cut
    if 3 * made.best_epoch < planned and clocked and short * made.epoch_s >= deadline - time.monotonic():
        whole = False
    elif 3 * made.best_epoch < planned and short <= spare:
        # It learnt all it could while the rate was still high: the same again, with a rate that comes down in time.
        run = _Run(start, fixed, sizes, settings, seed, device)
        again = _schedule(run, batches, judged, short, a_round, seed, deadline, settings["patience"], note)
        whole = whole and not again.cut
        made = min(made, again, key=lambda m: m.best)
    return Trained(made.arrays or start, sizes, settings["lift"], made.curve, made.best_epoch, device, len(batches), whole, made.planned, made.epoch_s)


def train_again(trained: Trained, every: Rows, *, seed: int, deadline: float, **settings: Any) -> Trained:
    """The same network, from the start, on these rows, to the epoch that was best; as it was if the deadline comes first."""
    import torch

    if not trained.best_epoch:
        return trained
    start = initial(settings, trained.sizes, every.inputs.numbers, seed)
    fixed = {name: torch.from_numpy(start[name]).to(trained.device) for name in FIXED if name in start}
    run, batches = _Run(start, fixed, trained.sizes, settings, seed, trained.device), _Batches(every, trained.device)
    a_round = math.ceil(len(every) / settings["batch"])
    rng, rate = np.random.default_rng(seed), _Rate()
    for _ in range(trained.best_epoch):
        _round(run, batches, rng, rate, trained.planned, a_round)
        if time.monotonic() > deadline:
            return trained
    return replace(trained, arrays=run.arrays(), rows=len(every), again=True)


def _paces(run: _Run, batches: _Batches, judged: _Batches, size: int, seed: int) -> tuple[float, float]:
    """Seconds of a step, and of judging all held-out rows once."""
    rng = np.random.default_rng(seed)
    took = []
    for _ in range(8):
        begun = time.monotonic()
        run.step(batches, rng.integers(0, len(batches), min(len(batches), size)), 1.0)
        took.append(time.monotonic() - begun)
    begun = time.monotonic()
    run.judge(judged)
    return float(np.mean(took[2:])), time.monotonic() - begun


@dataclass(frozen=True)
class _Made:
    """What one schedule made: its best held-out loss, when, and with which arrays (none if no loss was finite)."""

    best: float
    best_epoch: int
    arrays: dict[str, np.ndarray]
    curve: list[list[float]]
    epoch_s: float
    planned: int
    cut: bool  # rounds were dropped, because they took longer than the first steps had promised


def _schedule(
    run: _Run, batches: _Batches, judged: _Batches, planned: int, a_round: int, seed: int, deadline: float, patience: float,
    note: Callable[[int, int, float], None],
) -> _Made:
    """Warm-up, then a cosine to zero over `planned` rounds of `a_round` steps, unless `judged` stops getting better."""
    rng, rate = np.random.default_rng(seed), _Rate()
    best, best_epoch, epoch = math.inf, 0, 0
    curve: list[list[float]] = []
    kept: dict[str, np.ndarray] = {}
    begun = time.monotonic()
    epoch_s, cut = 0.0, False
    while epoch < planned:
        epoch += 1
        loss = _round(run, batches, rng, rate, planned, a_round)
        now_loss = run.judge(judged)
        curve.append([epoch, round(loss, 6), round(now_loss, 6)])
        note(epoch, planned, now_loss)
        if now_loss < best:
            best, best_epoch, kept = now_loss, epoch, run.arrays()
        now = time.monotonic()
        epoch_s = (now - begun) / epoch
        if not math.isfinite(now_loss) or epoch - best_epoch > max(4, patience * planned):
            break
        if now + (planned - epoch) * epoch_s > deadline:  # slower than timed: a shorter schedule, still a whole one
            planned, cut = min(planned, epoch + max(1, int((deadline - now) / epoch_s))), True
    return _Made(best, best_epoch, kept, curve, epoch_s, planned, cut)


class _Rate:
    """The rate's way, 0-1 of the highest: warm-up, then a cosine to zero over the steps that are left, which may become fewer."""

    def __init__(self) -> None:
        self.done, self.progress = 0, 0.0

    def next(self, steps: int) -> float:
        warm = min(1.0, (self.done + 1) / min(50, 1 + steps // 10))
        out = warm * (1 + math.cos(math.pi * self.progress)) / 2
        self.done += 1
        self.progress += (1 - self.progress) / max(1, steps - self.done + 1)
        return out


def _round(run: _Run, batches: _Batches, rng: np.random.Generator, rate: _Rate, planned: int, a_round: int) -> float:
    """Once over all rows, in `a_round` steps; the mean training loss."""
    parts = np.array_split(rng.permutation(len(batches)), a_round)
    return sum(run.step(batches, rows, rate.next(planned * a_round)) for rows in parts) / a_round


def default_epochs(n: int, batch: int, texts: bool = False) -> int:
    """About 1,000 steps and at most 200 rounds over the rows; with texts, whose embeddings learn sooner and cost more, half."""
    steps, least, most = (500, 8, 100) if texts else (1000, 12, 200)
    return int(min(most, max(least, round(steps * batch / n))))


def spread(n: int, most: int, strata: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """`most` of n row numbers, sorted, spread evenly over the strata (codes, shape (n,))."""
    if most >= n:
        return np.arange(n)
    order = rng.permutation(n)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    return np.sort(order[(np.arange(most) * n) // most])


class _Run:
    """Weights and optimizer of one network."""

    def __init__(self, start: dict[str, np.ndarray], fixed: dict[str, Any], sizes: dict[str, Any], settings: dict[str, Any], seed: int, device: str) -> None:
        import torch

        self.torch, self.fixed, self.sizes, self.rate = torch, fixed, sizes, settings["rate"]
        self.p = {name: torch.from_numpy(array.copy()).to(device).requires_grad_() for name, array in start.items() if name not in FIXED}
        self.drop = Drop(settings["dropout"], settings["text_dropout"] if sizes["texts"] else 0.0, seed, device)
        heavy = [t for name, t in self.p.items() if name.startswith("w.") or name in ("mix", "head")]
        text = [t for name, t in self.p.items() if name.startswith(("text.", "wide."))]
        taken = {id(t) for t in heavy + text}
        light = [t for t in self.p.values() if id(t) not in taken]
        groups = [
            {"params": heavy, "weight_decay": settings["decay"], "scale": 1.0},
            {"params": light, "weight_decay": 0.0, "scale": 1.0},
            {"params": text, "weight_decay": settings["text_decay"], "scale": settings["text_rate"] / self.rate},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.rate, betas=(0.9, 0.99), fused=True)

    def step(self, batches: _Batches, rows: np.ndarray, share: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["scale"] * share
        batch, y = batches.take(rows)
        loss = training_loss(network(self.p | self.fixed, batch, self.sizes, self.drop), y, self.sizes)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def judge(self, batches: _Batches) -> float:
        total = 0.0
        with self.torch.no_grad():
            for i in range(0, len(batches), 1024):
                batch, y = batches.take(np.arange(i, min(i + 1024, len(batches))))
                total += float(held_loss(network(self.p | self.fixed, batch, self.sizes), y, self.sizes)) * len(y)
        return total / len(batches)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: t.detach().cpu().numpy().copy() for name, t in (self.p | self.fixed).items()}


class _Batches:
    """Rows on the device, taken by number; bags stay in numpy until they are asked for."""

    def __init__(self, rows: Rows, device: str) -> None:
        import torch

        self.inputs, self.device = rows.inputs, device
        inputs, target = rows.inputs, rows.target
        self.numbers, self.dense, self.codes = (torch.from_numpy(a).to(device) for a in (inputs.numbers, inputs.dense, inputs.codes))
        self.y = torch.from_numpy(target.astype(np.int64 if target.dtype.kind == "i" else np.float32)).to(device)

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> tuple[dict[str, Any], Any]:
        import torch

        at = torch.from_numpy(rows).to(self.device)
        batch: dict[str, Any] = {"numbers": self.numbers[at], "dense": self.dense[at], "codes": self.codes[at]}
        for i, bags in enumerate(self.inputs.bags):
            few = bags.take(rows)
            batch[f"text.{i}"] = tuple(torch.from_numpy(a).to(self.device) for a in (few.ids, few.weights, few.offsets))
        return batch, self.y[at]
