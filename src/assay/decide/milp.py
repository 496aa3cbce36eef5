"""Linear and mixed-integer programs, written block by block and solved by HiGHS (through scipy)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Found:
    """status: 'optimal', 'feasible' (out of time), 'infeasible', 'unbounded' or 'none' (out of time before anything was found). x: None without an answer."""

    status: str
    x: np.ndarray | None
    cost: float
    bound: float
    gap: float
    seconds: float

    def facts(self) -> dict[str, Any]:
        finite = {k: float(v) for k, v in (("bound", self.bound), ("gap", self.gap)) if np.isfinite(v)}
        return {"status": self.status, "seconds": round(self.seconds, 3), "solver": "HiGHS", **finite}


def highs(cost: np.ndarray, *, low: np.ndarray, high: np.ndarray, whole: np.ndarray, matrix: Any, row_low: np.ndarray, row_high: np.ndarray, seconds: float, gap: float) -> Any:
    """What scipy's HiGHS (Huangfu & Hall 2018) says of min cost @ x, low <= x <= high, row_low <= matrix @ x <= row_high."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    return milp(cost, integrality=whole, bounds=Bounds(low, high), constraints=[LinearConstraint(matrix, row_low, row_high)] if len(row_low) else [],
                options={"time_limit": max(float(seconds), 0.05), "mip_rel_gap": gap})


class Program:
    """min cost @ x over blocks of variables and rows of constraints."""

    def __init__(self) -> None:
        self._low: list[np.ndarray] = []
        self._high: list[np.ndarray] = []
        self._cost: list[np.ndarray] = []
        self._whole: list[np.ndarray] = []
        self._size = self._rows = 0
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._sides: list[tuple[np.ndarray, np.ndarray]] = []

    def block(self, shape: tuple[int, ...], *, low: Any = 0.0, high: Any = np.inf, cost: Any = 0.0, whole: bool = False) -> np.ndarray:
        """New variables; returns their numbers in the given shape. low, high, cost: broadcast over it."""
        count = int(np.prod(shape))
        for store, value in ((self._low, low), (self._high, high), (self._cost, cost), (self._whole, float(whole))):
            store.append(np.broadcast_to(np.asarray(value, dtype=float), shape).ravel())
        self._size += count
        return np.arange(self._size - count, self._size).reshape(shape)

    def rows(self, low: Any, high: Any, *terms: tuple[np.ndarray, Any]) -> None:
        """low <= sum of terms <= high, one constraint a row. A term is (variables, factors): shape (r,) or (r, k), the k are added up."""
        count = len(terms[0][0])
        if not count:
            return
        for variables, factors in terms:
            wide = variables.reshape(count, variables.size // count)
            factor = np.asarray(factors, dtype=float)
            factor = factor[:, None] if factor.ndim == 1 and variables.ndim == 1 and len(factor) == count else factor
            number = np.repeat(np.arange(self._rows, self._rows + count), wide.shape[1])
            self._entries.append((number, wide.ravel(), np.broadcast_to(factor, wide.shape).ravel()))
        self._sides.append((np.broadcast_to(np.asarray(low, dtype=float), (count,)), np.broadcast_to(np.asarray(high, dtype=float), (count,))))
        self._rows += count

    def solve(self, seconds: float, *, gap: float = 1e-4) -> Found:
        from scipy.sparse import csr_array

        began, none = time.monotonic(), np.zeros(0)
        row, column, factor = (np.concatenate([none, *(e[i] for e in self._entries)]) for i in range(3))
        matrix = csr_array((factor, (row.astype(np.int64), column.astype(np.int64))), shape=(self._rows, self._size))
        row_low, row_high = (np.concatenate([none, *(s[i] for s in self._sides)]) for i in range(2))
        result = highs(np.concatenate(self._cost), low=np.concatenate(self._low), high=np.concatenate(self._high), whole=np.concatenate(self._whole), matrix=matrix,
                       row_low=row_low, row_high=row_high, seconds=seconds, gap=gap)
        took = time.monotonic() - began
        if result.x is None:
            return Found({2: "infeasible", 3: "unbounded"}.get(result.status, "none"), None, np.inf, _finite(result.get("mip_dual_bound"), -np.inf), np.inf, took)
        cost = float(result.fun)
        bound = _finite(result.get("mip_dual_bound"), cost if result.status == 0 else -np.inf)
        distance = 0.0 if result.status == 0 and bound >= cost else (cost - bound) / max(abs(cost), 1e-9)
        return Found("optimal" if result.status == 0 else "feasible", np.asarray(result.x), cost, bound, max(distance, 0.0), took)


def _finite(value: Any, otherwise: float) -> float:
    return float(value) if value is not None and np.isfinite(value) else otherwise
