"""The contract of a decision: a problem and quantiles in, a plan out, beside a rule of thumb, and what the plan cost once the truth was known.

A new decision is one file beside this one with a module-level instance; `tests/test_decide.py` finds it unasked and `assay decide NAME` runs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from assay.words import Text

LEVELS = tuple(round(0.1 * i, 1) for i in range(1, 10))  # the quantiles that a forecast hands over unless it is asked for others


@dataclass(frozen=True)
class Quantiles:
    """What is known of the future of n series over a horizon of h steps.

    levels: rising, within 0-1, shape (q,). values: shape (n, h, q), not falling along the levels. ids: names of the series. times: names of the steps.
    """

    levels: tuple[float, ...]
    values: np.ndarray
    ids: tuple[str, ...]
    times: tuple[str, ...]

    def at(self, level: float) -> np.ndarray:
        """The quantile at any level, shape (n, h): between two levels along a straight line, outside them along the last one's slope."""
        levels, values = np.asarray(self.levels), self.values
        if len(levels) == 1:
            return values[:, :, 0]
        i = int(np.clip(np.searchsorted(levels, level) - 1, 0, len(levels) - 2))
        share = (level - levels[i]) / (levels[i + 1] - levels[i])
        return values[:, :, i] + share * (values[:, :, i + 1] - values[:, :, i])

    def median(self) -> np.ndarray:
        return self.at(0.5)

    def scenarios(self, count: int, *, seed: int, persistence: float = 0.5) -> np.ndarray:
        """Possible futures, shape (count, n, h), each equally likely.

        A series' steps lie at levels that are drawn from a normal copula in which neighbouring steps correlate by `persistence`; series are independent.
        """
        from scipy.special import ndtr

        rng = np.random.default_rng(seed)
        n, h, _ = self.values.shape
        z = rng.standard_normal((count, n, h))
        for t in range(1, h):
            z[:, :, t] = persistence * z[:, :, t - 1] + np.sqrt(1 - persistence**2) * z[:, :, t]
        level, levels = ndtr(z), np.asarray(self.levels)
        if len(levels) == 1:
            return np.broadcast_to(self.values[None, :, :, 0], z.shape).copy()
        i = np.clip(np.searchsorted(levels, level) - 1, 0, len(levels) - 2)
        share = (level - levels[i]) / (levels[i + 1] - levels[i])
        rows, steps = np.arange(n)[None, :, None], np.arange(h)[None, None, :]
        low, high = self.values[rows, steps, i], self.values[rows, steps, i + 1]
        return low + share * (high - low)

    @classmethod
    def exact(cls, truth: np.ndarray, ids: tuple[str, ...], times: tuple[str, ...]) -> Quantiles:
        """What an oracle would say: the truth (n, h) itself, without doubt."""
        return cls((0.5,), truth[:, :, None], ids, times)


@dataclass(frozen=True)
class Plan:
    """choice: what to do, as tables ({name: [row, ...]}, JSON-ready). cost: what the solver expects it to cost, in the problem's unit.

    violations: what the plan breaks, a sentence each; () for a plan that can be carried out. facts: JSON-ready; known keys: status ('optimal', 'feasible',
    'infeasible'), bound, gap (0-1), seconds, solver, best_known.
    """

    choice: dict[str, list[dict[str, Any]]]
    cost: float
    violations: tuple[Text, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {"choice": self.choice, "cost": self.cost, "violations": [v.json() for v in self.violations], "facts": self.facts}


@dataclass(frozen=True)
class Example:
    """A small problem on which a decision is checked. table: as read from TOML. truth: shape (n, h), None where nothing is forecast."""

    table: dict[str, Any]
    quantiles: Quantiles | None = None
    truth: np.ndarray | None = None


class Decision(ABC):
    """One kind of decision. A problem is a frozen dataclass of the decision's own, made by `problem` and opaque to everybody else.

    forecast: 'needed', 'possible' or 'none'. needs: {import name: extra} that solving needs. reads: endings of problem files other than .toml that
    `problem_file` understands, such as '.vrp'.
    """

    name: ClassVar[str]
    about: ClassVar[Text]
    forecast: ClassVar[str] = "needed"
    needs: ClassVar[dict[str, str]] = {}
    reads: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def problem(self, table: dict[str, Any], place: Path) -> Any:
        """The problem in a TOML table. place: the folder that file names in it are relative to. Raises InputError: what was found, what was expected."""

    def problem_file(self, path: Path) -> Any:
        """The problem in a file of one of the kinds in `reads`; a decision that names some has to bring this. Raises InputError."""
        raise NotImplementedError

    @abstractmethod
    def solve(self, problem: Any, quantiles: Quantiles | None, *, seconds: float, seed: int) -> Plan:
        """The best plan that is found in so many seconds. An infeasible problem gives a plan without a choice, whose violations say which demands clash."""

    @abstractmethod
    def rule(self, problem: Any, quantiles: Quantiles | None) -> Plan:
        """The rule of thumb that has to be beaten; its docstring names it."""

    @abstractmethod
    def realised(self, problem: Any, plan: Plan, truth: np.ndarray | None) -> np.ndarray:
        """What the plan cost once the truth (n, h) is known: shape (k,), one for each part that was planned apart (an item), or (1,). Their sum is the
        plan's cost, and two plans of one problem can be compared part by part."""

    @abstractmethod
    def picture(self, problem: Any, plan: Plan, words: Any = str) -> str:
        """The plan as one SVG element (a chart, a map), colours readable on white and on black. words: turns a Text into the reader's language."""

    @abstractmethod
    def example(self, seed: int = 0) -> Example:
        """A problem that solves in under two seconds, with quantiles and truth where they are needed."""
