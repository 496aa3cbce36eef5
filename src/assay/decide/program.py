"""Linear, mixed-integer and small quadratic programs whose demands have names, so that an infeasible one can say which of them clash."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.decide.base import Plan
from assay.decide.milp import highs
from assay.words import Text, say


@dataclass(frozen=True)
class Answer:
    """x: shape (variables,), None where there is none. status: 'optimal', 'feasible' (the time was up), 'infeasible', 'unknown' (no answer in time). gap: 0-1."""

    x: np.ndarray | None
    cost: float
    status: str
    bound: float | None = None
    gap: float | None = None


class Program:
    """Minimise cost'x (+ x'Px/2) under rows low <= Ax <= high. A row with a sentence is a demand of the user's; rows of one sentence are one demand."""

    def __init__(self) -> None:
        self._cost: list[np.ndarray] = []
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._whole: list[np.ndarray] = []
        self._rows: list[tuple[np.ndarray, np.ndarray, float, float, str]] = []
        self._says: dict[str, Text] = {}
        self._curve: tuple[np.ndarray, np.ndarray] | None = None
        self.size = 0

    def add(self, count: int, *, cost: Any = 0.0, low: Any = 0.0, high: Any = np.inf, whole: bool = False) -> np.ndarray:
        """`count` new variables; returns their numbers, shape (count,)."""
        for pages, value in ((self._cost, cost), (self._low, low), (self._high, high), (self._whole, float(whole))):
            pages.append(np.broadcast_to(np.asarray(value, dtype=float), (count,)))
        self.size += count
        return np.arange(self.size - count, self.size)

    def row(self, columns: Any, coefficients: Any, *, low: float = -np.inf, high: float = np.inf, says: Text | None = None) -> None:
        columns = np.asarray(columns, dtype=int).ravel()
        name = "" if says is None else str(says)
        if says is not None:
            self._says.setdefault(name, says)
        self._rows.append((columns, np.broadcast_to(np.asarray(coefficients, dtype=float), columns.shape), low, high, name))

    def curve(self, columns: np.ndarray, matrix: np.ndarray) -> None:
        """Adds x[columns]' matrix x[columns] / 2 to the cost. matrix: positive semidefinite."""
        self._curve = (columns, matrix)

    def solve(self, *, seconds: float, gap: float = 1e-6) -> Answer:
        """The best x in so many seconds: HiGHS (Huangfu & Hall 2018) for linear and whole-number programs, an interior point method for a curved cost."""
        cost = np.concatenate(self._cost)
        if self._curve is None:
            return self._highs(cost, self._matrix(), seconds, gap)
        start = self._highs(np.zeros(self.size), self._matrix(), seconds, gap)  # feasible at all?
        if start.x is None:
            return start
        from assay.decide.quadratic import minimise

        matrix, low, high = self._matrix()
        rows = np.vstack([matrix.toarray(), np.eye(self.size)])
        low, high = np.concatenate([low, *self._low]), np.concatenate([high, *self._high])
        equal, upper, lower = low == high, (high < np.inf) & (low != high), (low > -np.inf) & (low != high)
        p = np.zeros((self.size, self.size))
        p[np.ix_(self._curve[0], self._curve[0])] = self._curve[1]
        x = minimise(p, cost, rows[equal], low[equal], np.vstack([rows[upper], -rows[lower]]), np.concatenate([high[upper], -low[lower]]))
        if x is None:
            return Answer(None, np.inf, "unknown")
        return Answer(x, float(cost @ x + x @ p @ x / 2), "optimal")

    def clash(self, *, seconds: float = 10.0) -> tuple[Text, ...]:
        """Demands that cannot all be met although any fewer of them could: the elastic filter, then the deletion filter.

        Chinneck & Dravnieks, Locating minimal infeasible constraint sets in linear programs, ORSA J. Computing 3(2), 1991, https://doi.org/10.1287/ijoc.3.2.157.
        Once the time is up, demands that might be spared are kept. () for a program that can be solved.
        """
        ends, hard = time.monotonic() + seconds, list[str]()
        while (strained := self._strained(hard, max(ends - time.monotonic(), 0.1))) is not None:
            if not strained:
                return ()
            hard += strained
        for name in list(hard):
            rest = [other for other in hard if other != name]
            if time.monotonic() < ends and self._strained(rest, max(ends - time.monotonic(), 0.1)) is None:
                hard = rest
        return tuple(self._says[name] for name in hard)

    def _strained(self, hard: list[str], seconds: float) -> list[str] | None:
        """The demands that have to give way if the hard ones hold; None if even these cannot hold together."""
        from scipy.sparse import hstack

        matrix, low, high = self._matrix()
        names = [name if name not in hard else "" for *_, name in self._rows]
        loose = np.array([i for i, name in enumerate(names) if name], dtype=int)
        scale = np.maximum(np.abs(matrix).max(axis=1).toarray().ravel(), 1e-12) if len(names) else np.ones(0)
        slack = _unit(len(names), loose, scale)
        cost = np.concatenate([np.zeros(self.size), np.ones(2 * len(loose))])
        answer = self._highs(cost, (hstack([matrix, slack, -slack]).tocsr(), low, high), seconds, 1e-6, slacks=2 * len(loose))
        if answer.status == "infeasible":
            return None
        if answer.x is None:
            return []
        used = answer.x[self.size:].reshape(2, -1).sum(axis=0) > 1e-6
        return list(dict.fromkeys(names[i] for i in loose[used]))

    def _matrix(self) -> tuple[Any, np.ndarray, np.ndarray]:
        from scipy.sparse import csr_matrix

        counts = np.array([len(columns) for columns, *_ in self._rows], dtype=int)
        columns = np.concatenate([row[0] for row in self._rows]) if self._rows else np.zeros(0, dtype=int)
        values = np.concatenate([row[1] for row in self._rows]) if self._rows else np.zeros(0)
        matrix = csr_matrix((values, (np.repeat(np.arange(len(counts)), counts), columns)), shape=(len(counts), self.size))
        return matrix, np.array([row[2] for row in self._rows]), np.array([row[3] for row in self._rows])

    def _highs(self, cost: np.ndarray, rows: tuple[Any, np.ndarray, np.ndarray], seconds: float, gap: float, slacks: int = 0) -> Answer:
        low, high = np.concatenate([*self._low, np.zeros(slacks)]), np.concatenate([*self._high, np.full(slacks, np.inf)])
        whole = np.concatenate([*self._whole, np.zeros(slacks)])
        done = highs(cost, low=low, high=high, whole=whole, matrix=rows[0], row_low=rows[1], row_high=rows[2], seconds=seconds, gap=gap)
        if done.x is None:
            return Answer(None, np.inf, "infeasible" if done.status == 2 else "unknown")
        x = np.where(whole > 0, np.round(done.x), done.x)
        bound = getattr(done, "mip_dual_bound", None)
        share = getattr(done, "mip_gap", None)
        return Answer(x, float(done.fun), "optimal" if done.status == 0 else "feasible", None if bound is None else float(bound), None if share is None else float(share))


def _unit(rows: int, places: np.ndarray, values: np.ndarray) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((values[places], (places, np.arange(len(places)))), shape=(rows, len(places)))


def no_plan(program: Program, answer: Answer, *, seconds: float, facts: dict[str, Any]) -> Plan:
    """The plan that says why there is none: the demands that clash, or that the time was too short."""
    if answer.status == "infeasible":
        clash = program.clash(seconds=max(seconds, 2.0))
        alone = say("This demand cannot be met: {demand}.", demand=clash[0]) if len(clash) == 1 else say("No plan meets all demands.")
        told = tuple(say("This demand clashes with the others named here: {demand}.", demand=text) for text in clash) if len(clash) > 1 else (alone,)
        return Plan({}, np.inf, told, {**facts, "status": "infeasible"})
    return Plan({}, np.inf, (say("No plan was found in {seconds:g} seconds. Give it more time.", seconds=seconds),), {**facts, "status": "unknown"})
