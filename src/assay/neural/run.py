"""A network with its optimizers on a device: one step, one judgement, and where a training stands.

Whatever is random in a step - the rows' order, augmentation, dropout - is a function of the seed and the step's number alone. So a
checkpoint needs no generator's state, and a run that was killed and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from assay.neural.recipe import Recipe, optimizers
from assay.neural.rows import JUDGED_BATCH, Aim, Few, Rows, answers, mean_loss

TIMED_STEPS = 4


@dataclass(frozen=True)
class Plan:
    """steps: of the whole schedule. a_round: steps after which the held-out rows are judged. rows: so many of the taught ones are used."""

    steps: int
    a_round: int
    batch: int
    rows: int
    step_s: float
    judge_s: float
    whole: bool  # all epochs on all rows: no time was lacking


@dataclass
class State:
    """Where a training stands, apart from weights and optimizers."""

    plan: Plan
    step: int = 0
    progress: float = 0.0
    best: float = math.inf
    best_step: int = 0
    loss_sum: float = 0.0
    loss_n: int = 0
    rate: float = 0.0
    cut: bool = False
    curve: list[list[float]] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)

    def judged(self, run: Run, held: Rows, epoch: float) -> None:
        loss = run.judge(held)
        self.curve.append([round(epoch, 3), round(self.loss_sum / max(1, self.loss_n), 6), round(loss, 6), round(self.rate, 8)])
        self.loss_sum, self.loss_n = 0.0, 0
        if loss < self.best:
            self.best, self.best_step, self.kept = loss, self.step, run.weights()


class Run:
    """A network with its optimizers on a device."""

    def __init__(self, network: Any, aim: Aim, recipe: Recipe, device: str, seed: int) -> None:
        import torch

        self.torch, self.network, self.aim, self.recipe, self.device, self.seed = torch, network, aim, recipe, device, seed
        self.optimizers = optimizers(network, recipe)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.mean = copy.deepcopy(network).eval() if recipe.ema else None
        self.precision = precision_of(recipe, device)
        self.scaler = torch.amp.GradScaler(device) if self.precision == "fp16" and device == "cuda" else None
        self.label_weights = None if aim.weights is None else torch.tensor(aim.weights, device=device)

    def near(self) -> Any:
        """The autocast of this precision."""
        if self.precision == "fp32":
            return nullcontext()
        return self.torch.autocast(self.device, dtype=self.torch.bfloat16 if self.precision == "bf16" else self.torch.float16)

    def step(self, taught: Rows, some: np.ndarray, number: int, plan: Plan, rate: float, state: State) -> None:
        """One step of the optimizers, on `accumulate` batches."""
        self.network.train()
        state.rate = rate * self.recipe.rate
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            optimizer.zero_grad(set_to_none=True)
        for part in range(self.recipe.accumulate):
            rows, rng = order(some, number * self.recipe.accumulate + part, plan.batch, self.seed)
            self.torch.manual_seed(int(rng.integers(1 << 62)))  # dropout
            with self.near():
                loss = self.loss(taught, rows, rng)
            state.loss_sum, state.loss_n = state.loss_sum + float(loss.detach()), state.loss_n + 1
            if self.recipe.l1:
                loss = loss + self.recipe.l1 * sum(p.abs().sum() for p in self.parameters if p.ndim > 1)
            loss = loss / self.recipe.accumulate
            (self.scaler.scale(loss) if self.scaler else loss).backward()
        self.share_gradients()
        if self.recipe.clip:
            for optimizer in self.optimizers if self.scaler else ():
                self.scaler.unscale_(optimizer)  # type: ignore[union-attr]
            self.torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        for optimizer in self.optimizers:
            if self.scaler:
                self.scaler.step(optimizer)
            else:
                optimizer.step()
        if self.scaler:
            self.scaler.update()
        if self.mean is not None:
            self.average(number)

    def share_gradients(self) -> None:
        """Data-parallel: the mean of all processes' gradients, in one message: one for each tensor took longer than the step itself, and
        sending while the layers below are at work (as DistributedDataParallel does) gained nothing over gloo on two cores."""
        _, world = rank_of()
        if world == 1:
            return
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        flat = self.torch.cat([g.reshape(-1) for g in gradients])
        self.torch.distributed.all_reduce(flat)
        self.torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip((flat / world).split([g.numel() for g in gradients]), gradients, strict=True)])

    def agreed(self, value: int) -> int:
        """What the first process says: clocks and losses differ between processes, what follows from them must not."""
        if rank_of()[1] == 1:
            return value
        told = self.torch.tensor([value], dtype=self.torch.int64, device=self.device)
        self.torch.distributed.broadcast(told, 0)
        return int(told)

    def agreed_plan(self, plan: Plan) -> Plan:
        return replace(plan, steps=self.agreed(plan.steps), a_round=self.agreed(plan.a_round), batch=self.agreed(plan.batch), rows=self.agreed(plan.rows))

    def average(self, number: int) -> None:
        """The running mean of the weights; young ones forget faster."""
        keep = min(self.recipe.ema, (1 + number) / (10 + number))
        with self.torch.no_grad():
            pairs = list(zip(self.mean.state_dict().values(), self.network.state_dict().values(), strict=True))  # type: ignore[union-attr]
            moving = [(mean, now) for mean, now in pairs if mean.dtype.is_floating_point]
            self.torch._foreach_lerp_([mean for mean, _ in moving], [now for _, now in moving], 1 - keep)
            for mean, now in pairs:
                if not mean.dtype.is_floating_point:
                    mean.copy_(now)

    def loss(self, taught: Rows, rows: np.ndarray, rng: np.random.Generator) -> Any:
        torch, functional = self.torch, self.torch.nn.functional
        inputs, target = taught.batch(rows, rng), torch.from_numpy(np.array(taught.target[rows]))
        if self.aim.labels and target.ndim == 1:
            target = functional.one_hot(target.long(), self.aim.outputs).float()
        inputs, target = taught.mixed(tuple(t.to(self.device) for t in inputs), target.float().to(self.device), rng)
        return mean_loss(self.network(*inputs).float(), target, self.aim, self.recipe.smoothing, self.label_weights)

    def judge(self, held: Rows) -> float:
        """The mean held-out loss of the weights that would be kept, without smoothing and label weights."""
        torch = self.torch
        with self.near():
            said = answers(self.mean or self.network, held, self.aim, device=self.device)
        target = torch.from_numpy(np.array(held.target))
        if self.aim.labels and target.ndim == 1:
            target = torch.nn.functional.one_hot(target.long(), self.aim.outputs)
        return float(mean_loss(torch.from_numpy(said), target.float(), self.aim))

    def weights(self) -> dict[str, Any]:
        return {name: value.detach().cpu().clone() for name, value in (self.mean or self.network).state_dict().items()}

    def finish(self, state: State) -> None:
        if state.kept:
            self.network.load_state_dict(state.kept)
        elif self.mean is not None:
            self.network.load_state_dict(self.mean.state_dict())

    def timed(self, taught: Rows, held: Rows, batch: int, seed: int) -> tuple[float, float]:
        """Seconds of a step and of judging all held-out rows, on copies that are thrown away."""
        trial = Run(copy.deepcopy(self.network), self.aim, self.recipe, self.device, seed)
        plan, state, took = Plan(1, 1, batch, len(taught), 0, 0, True), State(Plan(1, 1, batch, len(taught), 0, 0, True)), []
        for i in range(1 + TIMED_STEPS):
            begun = time.monotonic()
            trial.step(taught, np.arange(len(taught)), i, plan, 0.0, state)
            took.append(time.monotonic() - begun)
        begun, few = time.monotonic(), min(len(held), JUDGED_BATCH)
        answers(trial.network, Few(held, few), self.aim, device=self.device)
        return float(np.median(took[1:])), (time.monotonic() - begun) * len(held) / few


def order(some: np.ndarray, number: int, batch: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    """The rows of batch `number`, and its generator: each epoch is a permutation of its own, the last batch of an epoch reaches into the next."""
    rank, world = rank_of()
    n, first = len(some), number * batch
    picked: list[np.ndarray] = []
    while batch > 0:
        epoch, at = divmod(first, n)
        part = _permuted(n, seed, epoch)[at : at + batch]
        picked.append(part)
        first, batch = first + len(part), batch - len(part)
    rows = some[np.concatenate(picked)]
    return rows[rank::world] if world > 1 else rows, np.random.default_rng([seed, 2, number, rank])


@lru_cache(maxsize=4)
def _permuted(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(n)


def rank_of() -> tuple[int, int]:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def device_of(clocked: bool) -> str:
    """Where to train. Without a clock the processor: a GPU adds in an order of its own, so the same seed would not give the same weights."""
    import torch

    if not clocked:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def precision_of(recipe: Recipe, device: str) -> str:
    """auto: bf16 where the GPU has it, fp16 on an older one, fp32 on a processor, whose bf16 kernels are slower unless it has AMX."""
    import torch

    if recipe.precision != "auto":
        return recipe.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "fp32"
