"""MiniRocket: how often each of thousands of convolutions of a sequence exceeds a bias (Dempster, Schmidt & Webb 2021, arXiv:2012.08791).

84 kernels of nine weights, three of them 2 and six of them -1, so that they sum to zero; dilated to see short and long
patterns; biases are quantiles of what the kernel says of a training sequence. Several channels: sums of up to nine random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

KERNELS = np.array(list(combinations(range(9), 3)))  # (84, 3): where the weight is 2
MOST_DILATIONS = 32
MOST_STEPS = 8192  # of a sequence; a longer one is known by its end
_BLOCK = 2**18  # numbers at work at once: 1 MB, so that they stay in the cache
_GOLDEN = (5**0.5 + 1) / 2


class Kernels:
    """Learn dilations, channel subsets and biases from training sequences, then turn any sequence into shares of time.

    Sequences are float32 (steps, channels) without NaN, at least one step, of any length: each is judged over its own steps
    only. State: `dilations` (D,), `counts` (D,) biases a kernel has there, `subsets` (D, groups, channels) of 0 and 1,
    `biases` (84, sum of counts).
    """

    def __init__(self, dilations: np.ndarray, counts: np.ndarray, subsets: np.ndarray, biases: np.ndarray) -> None:
        self.dilations, self.counts, self.subsets, self.biases = dilations, counts, subsets, biases

    @property
    def width(self) -> int:
        """Features of one sequence."""
        return int(84 * self.counts.sum())

    @classmethod
    def learn(cls, sequences: Sequence[np.ndarray], features: int, rng: np.random.Generator) -> Kernels:
        """About `features` features (a multiple of 84) for sequences such as these."""
        lengths = np.array([min(len(one), MOST_STEPS) for one in sequences])
        channels = sequences[0].shape[1]
        per_kernel = max(1, features // 84)
        longest = max(9, int(np.quantile(lengths, 0.9)))
        # as many dilations as biases allow, in steps of equal ratio up to the widest kernel that fits
        spread = np.logspace(0, np.log2(max(1.0, (longest - 1) / 8)), min(per_kernel, MOST_DILATIONS), base=2).astype(np.int64)
        dilations, counts = np.unique(spread, return_counts=True)
        counts = counts * (per_kernel // len(spread))
        for i in range(per_kernel - int(counts.sum())):
            counts[i % len(counts)] += 1
        groups = 2 if channels == 1 else 12
        subsets = np.ones((len(dilations), groups, channels), dtype=np.int64)
        if channels > 1:
            most = np.log2(min(channels, 9) + 1)
            sizes = (2 ** rng.uniform(0, most, (len(dilations), groups))).astype(np.int64)
            order = rng.random(subsets.shape).argsort(axis=2).argsort(axis=2)
            subsets = (order < sizes[:, :, None]).astype(np.int64)
        made = cls(dilations, counts, subsets, np.zeros((84, int(counts.sum())), dtype=np.float32))
        levels = (np.arange(1, made.width + 1) * _GOLDEN % 1).reshape(84, -1)  # a low-discrepancy sequence, as in the paper
        teachers = rng.integers(len(sequences), size=(len(dilations), 84))
        for d, group, kernels, columns in made._steps():
            for kernel in kernels:
                block = _Block([sequences[teachers[d, kernel]]])
                said, _ = made._convolved(block, d, group, np.array([kernel]))
                known = np.sort(said[0, 0][np.isfinite(said[0, 0])])
                # a quantile by hand: numpy's takes ten times as long, 1,344 times over
                made.biases[kernel, columns] = np.interp(levels[kernel, columns] * (len(known) - 1), np.arange(len(known)), known)
        return made

    def transform(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (n, width): of each kernel and bias, the share of a sequence's steps at which the kernel says more."""
        out = np.empty((len(sequences), 84, int(self.counts.sum())), dtype=np.float32)
        per_step = 84 // self.subsets.shape[1]
        order = np.argsort([len(one) for one in sequences], kind="stable")
        at = 0
        while at < len(order):
            longest, stop = 1, at
            while stop < len(order):  # rows of about one length, as many as the cache holds
                longest = max(longest, min(len(sequences[order[stop]]), MOST_STEPS))
                if stop > at and (stop + 1 - at) * longest * per_step > _BLOCK:
                    break
                stop += 1
            rows = order[at:stop]
            out[rows] = self._shares(_Block([sequences[i] for i in rows]))
            at = stop
        return out.reshape(len(sequences), -1)

    def _shares(self, block: _Block) -> np.ndarray:
        """(rows, 84, biases)."""
        ones = np.ones(block.longest, dtype=np.float32)
        out = np.empty((*self.biases.shape, len(block.lengths)), dtype=np.float32)
        above = np.empty((0, 0, 0), dtype=np.float32)
        for d, group, kernels, columns in self._steps():
            said, steps = self._convolved(block, d, group, kernels)
            if above.shape != said.shape:
                above = np.empty_like(said)
            for column in range(columns.start, columns.stop):
                np.greater(said, self.biases[kernels, column][:, None, None], out=above, casting="unsafe")
                out[kernels, column] = (above @ ones) / steps
        return out.transpose(2, 0, 1)

    def _steps(self) -> list[tuple[int, int, np.ndarray, slice]]:
        """(dilation's number, group, its kernels, the columns of its biases)."""
        ends = np.cumsum(self.counts)
        groups = self.subsets.shape[1]
        return [(d, group, np.arange(group, 84, groups), slice(int(ends[d] - self.counts[d]), int(ends[d])))
                for d in range(len(self.dilations)) for group in range(groups)]

    def _convolved(self, block: _Block, d: int, group: int, kernels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the kernels say, (kernels, rows, steps), -inf where a row is not judged; and how many steps it is, (rows,).

        Sums are taken in one order whatever the block, so that a sequence alone answers exactly as among others.
        """
        dilation = int(self.dilations[d])
        padded = block.summed(self.subsets[d, group], 4 * dilation)
        shifts = np.stack([padded[:, i * dilation : i * dilation + block.longest] for i in range(9)])
        judged, steps = block.judged(4 * dilation if (d + group) % 2 else 0)
        base = shifts[0].copy()
        for one in shifts[1:]:
            base += one
        np.subtract(judged, base, out=base)
        shifts *= 3
        a, b, c = KERNELS[kernels].T
        said = shifts[a]
        said += shifts[b]
        said += shifts[c]
        said += base
        return said, steps


class _Block:
    """Sequences side by side, zeros after the end of the shorter ones."""

    def __init__(self, sequences: list[np.ndarray]) -> None:
        kept = [one[-MOST_STEPS:] for one in sequences]
        self.lengths = np.array([len(one) for one in kept])
        self.longest = int(self.lengths.max())
        self.values = np.zeros((kept[0].shape[1], len(kept), self.longest), dtype=np.float32)
        for i, one in enumerate(kept):
            self.values[:, i, : len(one)] = one.T

    def summed(self, subset: np.ndarray, border: int) -> np.ndarray:
        """The sum of the chosen channels, (rows, longest + 2 * border), zeros around."""
        out = np.zeros((len(self.lengths), self.longest + 2 * border), dtype=np.float32)
        inside = out[:, border : border + self.longest]
        for channel in np.flatnonzero(subset):
            inside += self.values[channel]
        return out

    def judged(self, border: int) -> tuple[np.ndarray, np.ndarray]:
        """0 where a step is judged and -inf elsewhere, (rows, longest), and how many are, (rows,): all of a row's own, or those whose
        whole kernel lies inside; a row that is too short for that is judged at all its steps."""
        border_of = np.where(self.lengths > 2 * border, border, 0)[:, None]
        place = np.arange(self.longest)
        inside = (place >= border_of) & (place < self.lengths[:, None] - border_of)
        return np.where(inside, np.float32(0), np.float32(-np.inf)), inside.sum(axis=1).astype(np.float32)
