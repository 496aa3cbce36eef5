"""What each input adds to an answer, by integrated gradients; which inputs a transformer looks at, by attention rollout. Both need torch.

A network that was exported is run again by `replay`; nothing of how it was taught is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.neural.fitting import Scale
from assay.neural.replay import Replay, Unknown

FIRST, MOST = 16, 256  # gradients along the path: to begin with, and at most
CLOSE, SLACK = 0.05, 0.002  # of the change that is explained; of the answer's range, where there is hardly a change
WORST = 8  # one of so many stretches is divided in a round
AT_ONCE = 2048  # pieces or steps of a batch


@dataclass(frozen=True)
class Added:
    """values: like the input, what each number of it adds to the answer. said, base: the answers to the input and to the baseline."""

    values: np.ndarray
    said: float
    base: float
    steps: int

    @property
    def gap(self) -> float:
        """How far the values are from adding up to said - base, in the answer's own unit."""
        return abs(float(self.values.sum()) - (self.said - self.base))

    def complete(self, scale: float = 1.0) -> bool:
        """scale: what counts as a large change of the answer: 1 for a probability, the spread for an amount."""
        return self.gap <= max(CLOSE * abs(self.said - self.base), SLACK * scale)


def integrated(score: Callable[[Any], Any], x: np.ndarray, base: np.ndarray, *, steps: int = MOST, scale: float = 1.0) -> Added:
    """Integrated gradients along the straight line from `base` to `x` (Sundararajan et al. 2017, arXiv:1703.01365).

    score: tensor (k, *x.shape) -> (k,), the answers. x, base: float32, one row: (t, ...). steps: gradients that are taken at most, at least 16;
    fewer where they add up sooner. A norm near zero can make a network jump within a hundredth of the way, which even steps miss: stretches
    whose gradient tells least of how far the answer moves along them are divided in three, so that no gradient is taken in vain.
    """
    import torch

    start, way = torch.from_numpy(base.astype(np.float32)), torch.from_numpy((x - base).astype(np.float32))
    batch = max(1, AT_ONCE // max(1, len(x)))

    def points(alphas: np.ndarray) -> Any:
        return start + torch.from_numpy(alphas.astype(np.float32)).reshape(-1, *[1] * way.ndim) * way

    def answers(alphas: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.concatenate([score(points(alphas[i : i + batch])).double().numpy() for i in range(0, len(alphas), batch)])

    def slopes(alphas: np.ndarray) -> np.ndarray:
        some = [points(alphas[i : i + batch]).requires_grad_() for i in range(0, len(alphas), batch)]
        return np.concatenate([torch.autograd.grad(score(one).sum(), one)[0].flatten(1).numpy() for one in some])

    edges, flat = np.linspace(0, 1, FIRST + 1), way.double().flatten().numpy()
    said, middle = answers(edges), slopes((edges[1:] + edges[:-1]) / 2)
    taken = FIRST
    while True:
        widths, moves = np.diff(edges), np.diff(said)
        told = widths * (middle @ flat)
        wrong = np.abs(told - moves)
        found = Added(((widths @ middle) * flat).reshape(x.shape), float(said[-1]), float(said[0]), taken)
        few = min(max(1, len(widths) // WORST), (steps - taken) // 2)
        if few < 1 or (found.complete(scale) and wrong.sum() <= max(CLOSE * np.abs(moves).sum(), SLACK * scale)):
            return found
        worst = np.sort(np.argsort(-wrong, kind="stable")[:few])
        third, low = widths[worst] / 3, edges[worst]
        inner = np.stack([low + third, low + 2 * third], axis=1).reshape(-1)
        outer = np.stack([low + third / 2, low + 2.5 * third], axis=1).reshape(-1)
        at = np.repeat(worst + 1, 2)
        edges, said = np.insert(edges, at, inner), np.insert(said, at, answers(inner))
        middle = np.insert(middle, np.stack([worst, worst + 1], axis=1).reshape(-1), slopes(outer), axis=0)
        taken += 2 * few


def scored(network: Replay, given: dict[str, Any], name: str, finished: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """(k, ...) of the value `name` -> (k,) answers. given: {input: tensor of one row}, the same for all. finished: the network's output -> answers."""

    def score(x: Any) -> Any:
        many = {key: value.expand(len(x), *value.shape[1:]) for key, value in given.items()}
        return finished(network.run(many | {name: x})[network.output])

    return score


def explained(network: Replay, given: dict[str, Any], name: str, x: np.ndarray, base: np.ndarray, *, scale: Scale, code: int, served: float,
              after: Callable[[Any], Any] | None = None) -> Added | None:
    """What the value `name` of a row, float (t, ...), adds to the answer `code` beyond `base`.

    served: the answer that was given. after: what turns the network's output into raw scores, where that is not part of it. None if it does
    not add up after 256 steps, or if the network cannot be run again or then answers otherwise.
    """
    import torch

    def finished(said: Any) -> Any:
        """As `Scale.finished`, for tensors; amounts are not held within what was learnt from, where nothing would have a gradient."""
        raw = said if after is None else after(said)
        return raw.softmax(1)[:, code] if scale.labels else raw[:, 0] * scale.spread + scale.center

    score, size = scored(network, given, name, finished), 1.0 if scale.labels else scale.spread
    try:
        with torch.no_grad():
            said = float(score(torch.from_numpy(x.astype(np.float32))[None])[0])
    except Unknown:
        return None
    if abs((said if scale.labels else float(np.clip(said, scale.low, scale.high))) - served) > SLACK * size:
        return None
    found = integrated(score, x, base, scale=size)
    return found if found.complete(size) else None


def rollout(network: Replay, given: dict[str, Any]) -> np.ndarray | None:
    """(tokens,), sums to 1: how much of each token is in what the last layer is given, for one row; None if this network has no attention.

    Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928): the mean over the heads of each block, half of it the block's own token for the
    residual connection, multiplied through the blocks; then the learnt weights by which the tokens are pooled.
    """
    import torch

    names = [node.outputs[0] for node in network.nodes if node.kind == "Softmax"]
    try:
        with torch.no_grad():
            values = network.run(given, names)
    except Unknown:
        return None
    through: Any = None
    for name in names:
        found = values[name]
        if found.ndim == 4 and found.shape[2] == found.shape[3]:
            block = found[0].double().mean(0)
            block = (block + torch.eye(len(block), dtype=torch.float64)) / 2
            through = block if through is None else block @ through
        elif found.ndim == 3 and found.shape[2] == 1 and through is not None and found.shape[1] == len(through):
            return np.asarray((found[0, :, 0].double() @ through).numpy())
    return None
