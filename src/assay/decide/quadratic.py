"""Small convex quadratic programs, solved to machine precision by a primal-dual interior-point method.

Mehrotra, On the implementation of a primal-dual interior point method, SIAM J. Optim. 2(4), 1992, https://doi.org/10.1137/0802028.
"""

from __future__ import annotations

import numpy as np

STEPS = 80
TOLERANCE = 1e-13  # aimed at; double precision does not always reach it
ENOUGH = 1e-10


def minimise(p: np.ndarray, q: np.ndarray, a: np.ndarray, b: np.ndarray, g: np.ndarray, h: np.ndarray) -> np.ndarray | None:
    """x of least x'Px/2 + q'x with Ax = b and Gx <= h.

    p: positive semidefinite, shape (n, n). a, g: shape (k, n), (m, n). Dense: meant for up to a thousand variables.
    Returns None where the method does not converge, which a feasible and bounded problem of modest scale does not do.
    """
    n, k = len(q), len(b)
    unit = max(np.abs(q).max(initial=0.0), np.abs(p).max(initial=0.0)) or 1.0
    p, q = p / unit, q / unit  # returns are thousandths; without this the tolerance would be met too early
    x, y = np.zeros(n), np.zeros(k)
    s, z = np.maximum(h - g @ x, 1.0), np.ones(len(h))
    scale = 1.0 + max(np.abs(q).max(initial=0.0), np.abs(b).max(initial=0.0), np.abs(h).max(initial=0.0))
    best, found = ENOUGH * scale, None
    for _ in range(STEPS):
        dual, equal, slack = p @ x + q + a.T @ y + g.T @ z, a @ x - b, g @ x + s - h
        mean = float(s @ z) / max(len(h), 1)
        error = max(np.abs(dual).max(initial=0.0), np.abs(equal).max(initial=0.0), np.abs(slack).max(initial=0.0), mean)
        if error <= best:
            best, found = error, (x, z > s)
        if error <= TOLERANCE * scale or not np.isfinite(error):
            break
        # 1e-13 keeps the system regular where two equalities say the same; it moves no step that matters
        system = np.block([[p + (g.T * (z / s)) @ g + 1e-13 * np.eye(n), a.T], [a, -1e-13 * np.eye(k)]])

        def step(product: np.ndarray, system: np.ndarray = system, dual: np.ndarray = dual, equal: np.ndarray = equal, slack: np.ndarray = slack,
                 s: np.ndarray = s, z: np.ndarray = z) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
            right = np.concatenate([-dual - g.T @ ((z * slack - product) / s), -equal])
            try:
                move = np.linalg.solve(system, right)
            except np.linalg.LinAlgError:
                move = np.linalg.lstsq(system, right, rcond=None)[0]
            dx, dy = move[:n], move[n:]
            ds = -slack - g @ dx
            return dx, dy, ds, (-product - z * ds) / s

        _, _, ds, dz = step(s * z)
        ahead = min(_reach(s, ds), _reach(z, dz))
        centre = (float((s + ahead * ds) @ (z + ahead * dz)) / max(len(h), 1) / mean) ** 3 if mean > 0 else 0.0
        dx, dy, ds, dz = step(s * z + ds * dz - centre * mean)
        far = min(1.0, 0.995 * min(_reach(s, ds), _reach(z, dz)))
        x, y, s, z = x + far * dx, y + far * dy, s + far * ds, z + far * dz
    return None if found is None else _polished(p, q, a, b, g, h, *found)


def _polished(p: np.ndarray, q: np.ndarray, a: np.ndarray, b: np.ndarray, g: np.ndarray, h: np.ndarray, x: np.ndarray, tight: np.ndarray) -> np.ndarray:
    """x with the rows that hold it exactly on their bounds: where a bound hardly matters, the interior point stays some 1e-6 away from it."""
    n, sides = len(q), np.vstack([a, g[tight]])
    system = np.block([[p, sides.T], [sides, np.zeros((len(sides), len(sides)))]])
    exact = np.linalg.lstsq(system, np.concatenate([-q, b, h[tight]]), rcond=None)[0]
    better, force = exact[:n], exact[n + len(b):]
    holds = np.abs(system @ exact - np.concatenate([-q, b, h[tight]])).max(initial=0.0) <= 1e-9
    return better if holds and (g @ better <= h + 1e-9).all() and (force >= -1e-9).all() else x


def _reach(value: np.ndarray, change: np.ndarray) -> float:
    """How far one may go before a number that has to stay above zero reaches it."""
    falling = change < 0
    return float(np.min(-value[falling] / change[falling], initial=1.0 / 0.995))
