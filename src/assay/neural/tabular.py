"""A strong network for tables and texts: number embeddings, k weight-sharing members, one planned schedule.

Ingredients with their sources: piecewise-linear and periodic number embeddings (Gorishniy et al. 2022, arXiv:2203.05556),
k members that share weights and are trained apart (BatchEnsemble: Wen et al. 2020, arXiv:2002.06715; for tables TabM:
Gorishniy et al. 2025, arXiv:2410.24210), robust scaling and target clipping (RealMLP: Holzmüller et al. 2024, arXiv:2407.04491),
mean-pooled n-gram embeddings (fastText: Joulin et al. 2017, arXiv:1607.01759).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# What is common to both networks; measured on 10 tables (dev/LOG.md).
COMMON: dict[str, Any] = {
    "members": 8, "width": 128, "depth": 2, "dropout": 0.1, "rate": 0.006, "decay": 0.01, "batch": 256, "embed_width": 8,
    "text_width": 64, "text_dropout": 0.5, "text_rate": 0.003, "text_decay": 0.0, "text_init": 0.03, "wide": False, "epochs": None, "patience": 0.35,
}
# Two unlike networks: sharp bins see steps and rules, slow waves see smooth shapes. Either alone loses badly somewhere.
NETWORKS: tuple[dict[str, Any], ...] = (
    {"lift": "bins", "bins": 24, "lift_width": 8},
    {"lift": "waves", "waves": 16, "sigma": 0.1, "lift_width": 4},
)


def initial(settings: dict[str, Any], sizes: dict[str, Any], numbers: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The arrays before training, from numpy's generator, so that every device starts from the same network."""
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    p, members, width = sizes["numbers"], settings["members"], settings["width"]
    inputs = sizes["dense"] + p
    lift_width = min(settings["lift_width"], 2048 // max(1, p))
    if p and lift_width:
        if settings["lift"] == "bins":
            out["edges"], out["steps"] = _edges(numbers, settings["bins"])
            basis = out["edges"].shape[1]
        else:
            basis = settings["waves"]
            out["freq"] = 2 * np.pi * rng.normal(0, settings["sigma"], (p, basis))
            out["phase"] = rng.uniform(-np.pi, np.pi, (p, basis))
        out["mix"] = rng.normal(0, 1 / math.sqrt(basis), (p, basis, lift_width))
        out["mix_bias"] = rng.normal(0, 0.1, (p, lift_width))
        inputs += p * lift_width
    for i, count in enumerate(sizes["embedded"]):
        out[f"embed.{i}"] = rng.normal(0, 0.5, (count, settings["embed_width"]))
        out[f"embed.{i}"][0] = 0  # an unknown value says nothing
        inputs += settings["embed_width"]
    for i, count in enumerate(sizes["texts"]):
        out[f"text.{i}"] = rng.normal(0, settings["text_init"], (count, settings["text_width"]))
        if settings["wide"]:
            out[f"wide.{i}"] = np.zeros((count, sizes["outputs"]))
        inputs += settings["text_width"]
    for layer in range(sizes["depth"]):
        out[f"r.{layer}"] = np.ones((members, inputs)) if layer else rng.choice([-1.0, 1.0], (members, inputs))
        out[f"w.{layer}"] = rng.normal(0, math.sqrt((2 if layer else 1) / max(1, inputs)), (inputs, width))
        out[f"s.{layer}"] = np.ones((members, width))
        out[f"b.{layer}"] = rng.normal(0, 0.1, (members, width))
        inputs = width
    out["head"] = rng.normal(0, math.sqrt(1 / inputs), (members, inputs, sizes["outputs"]))
    out["head_bias"] = np.zeros((members, sizes["outputs"]))
    return {name: array.astype(np.float32) for name, array in out.items()}


def _edges(numbers: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Left edges and 1 / width of each number's quantile bins, (p, most bins); a bin that is not there stays 0."""
    p = numbers.shape[1]
    left, steps = np.full((p, bins), 1e9), np.ones((p, bins))
    for i in range(p):
        edges = np.unique(np.quantile(numbers[:, i].astype(np.float64), np.linspace(0, 1, bins + 1)).astype(np.float32))
        if len(edges) > 1:
            left[i, : len(edges) - 1], steps[i, : len(edges) - 1] = edges[:-1], 1 / np.diff(edges)
    return left, steps


def network(p: dict[str, Any], batch: dict[str, Any], sizes: dict[str, Any], drop: Drop | None = None) -> Any:
    """What each member says, shape (members, n, outputs). p, batch: dicts of torch tensors. drop: in training only."""
    import torch
    from torch.nn import functional

    parts = [batch["dense"]]
    if sizes["numbers"]:
        x = batch["numbers"]
        parts.append(x)
        if "mix" in p:
            column = x.T.unsqueeze(2)
            if "edges" in p:
                basis = ((column - p["edges"][:, None]) * p["steps"][:, None]).clamp(0, 1)
            else:
                basis = torch.cos(column * p["freq"][:, None] + p["phase"][:, None])
            lifted = torch.baddbmm(p["mix_bias"][:, None], basis, p["mix"])
            parts.append(lifted.transpose(0, 1).reshape(len(x), -1))
    parts += [p[f"embed.{i}"][batch["codes"][:, i]] for i in range(len(sizes["embedded"]))]
    bags = [batch[f"text.{i}"] for i in range(len(sizes["texts"]))]
    if drop:
        bags = [(ids, drop.words(weights), offsets) for ids, weights, offsets in bags]
    parts += [_pooled(p[f"text.{i}"], *bag) for i, bag in enumerate(bags)]
    h = torch.cat(parts, dim=1)[None] * p["r.0"][:, None]
    for layer in range(sizes["depth"]):
        if layer:
            h = h * p[f"r.{layer}"][:, None]
        h = torch.addcmul(p[f"b.{layer}"][:, None], h @ p[f"w.{layer}"], p[f"s.{layer}"][:, None])
        h = functional.relu(h)
        if drop:
            h = drop.units(h)
    h = torch.baddbmm(p["head_bias"][:, None], h, p["head"])
    for i, bag in enumerate(bags):
        if f"wide.{i}" in p:
            h = h + _pooled(p[f"wide.{i}"], *bag)[None]
    return h


def _pooled(table: Any, ids: Any, weights: Any, offsets: Any) -> Any:
    from torch.nn import functional

    return functional.embedding_bag(ids, table, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


class Drop:
    """Dropout whose masks are stretches of one long random mask: fresh ones cost as much as the layers themselves."""

    _LONG = 1 << 22

    def __init__(self, units: float, words: float, seed: int, device: str) -> None:
        import torch

        self._torch, self._rng, self._device = torch, np.random.default_rng(seed), device
        self._pools = {share: self._pool(share) for share in {units, words} if share}
        self._units, self._words = units, words

    def _pool(self, share: float) -> Any:
        return self._torch.from_numpy((self._rng.random(self._LONG, dtype=np.float32) >= share).astype(np.float32) / (1 - share)).to(self._device)

    def _masked(self, x: Any, share: float) -> Any:
        if not share:
            return x
        pool, size = self._pools[share], x.numel()
        if size >= self._LONG:
            pool = pool.repeat(size // self._LONG + 2)
        first = int(self._rng.integers(len(pool) - size))
        return x * pool[first : first + size].view(x.shape)

    def units(self, x: Any) -> Any:
        return self._masked(x, self._units)

    def words(self, weights: Any) -> Any:
        return self._masked(weights, self._words)


def training_loss(said: Any, y: Any, sizes: dict[str, Any]) -> Any:
    """The mean loss of the members, each judged alone: what trains them."""
    from torch.nn import functional

    if sizes["loss"] == "log":
        members, n, classes = said.shape
        return functional.cross_entropy(said.reshape(-1, classes), y.expand(members, n).reshape(-1))
    return _amount_loss(y - said[:, :, 0], sizes)


def held_loss(said: Any, y: Any, sizes: dict[str, Any]) -> Any:
    """The loss of the members' mean: what the user gets."""
    from torch.nn import functional

    if sizes["loss"] == "log":
        return functional.nll_loss(said.softmax(dim=2).mean(dim=0).clamp_min(1e-9).log(), y)
    return _amount_loss(y - said[:, :, 0].mean(dim=0), sizes)


def _amount_loss(error: Any, sizes: dict[str, Any]) -> Any:
    if sizes["loss"] == "squared":
        return (error * error).mean()
    if sizes["loss"] == "absolute":
        return error.abs().mean()
    q = sizes["quantile"]
    return 2 * (error.clamp_min(0) * q - error.clamp_max(0) * (1 - q)).mean()
