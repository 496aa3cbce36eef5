"""How far to believe a language model's label probabilities: bias, temperature and smoothing, learnt on held-out rows.

Bias: contextual calibration (Zhao et al. 2021, arXiv:2102.09690) or batch calibration (Zhou et al. 2024, arXiv:2309.17249).
"""

from __future__ import annotations

from typing import Any

import numpy as np

SMOOTHING = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85)
TEMPERATURES = (0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
UNLEARNT: dict[str, Any] = {"name": "none", "bias": None, "temperature": 1.0, "smoothing": 0.1}
_LEAST = 1e-6


def learn(raw: np.ndarray, truth: np.ndarray, prior: np.ndarray, *, empty: np.ndarray | None = None, soft: bool = True) -> tuple[dict[str, Any], float]:
    """(calibration, its log loss on these rows).

    raw: (n, k) probabilities as the model gave them. truth: codes (n,). prior: (k,). empty: (m, k) probabilities for rows
    without content, for contextual calibration. soft: False if `raw` is one-hot, so that only smoothing has a meaning.
    """
    rows = np.arange(len(truth))
    biases: dict[str, np.ndarray | None] = {"none": None}
    if soft and len(truth) >= 2 * raw.shape[1]:
        biases["batch"] = np.log(prior) - np.log(np.maximum(raw.mean(axis=0), 1e-4))
    if soft and empty is not None:
        biases["contextual"] = -np.log(np.maximum(empty.mean(axis=0), 1e-4))
    best: tuple[np.ndarray, dict[str, Any]] | None = None
    for name, bias in biases.items():
        fits = []
        for temperature in TEMPERATURES if soft else (1.0,):
            for smoothing in SMOOTHING:
                one = {"name": name, "bias": None if bias is None else bias.tolist(), "temperature": temperature, "smoothing": smoothing}
                fits.append((-np.log(calibrated(raw, prior, one)[rows, truth]), one))
        losses, one = min(fits, key=lambda f: f[0].mean())
        # a correction with a parameter per label has to win by more than one standard error to be believed
        gain = None if best is None else best[0] - losses
        if gain is None or gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            best = losses, one
    assert best is not None
    return best[1], float(best[0].mean())


def calibrated(raw: np.ndarray, prior: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """(n, k) probabilities after bias, temperature and a share of the prior. Rows sum to 1."""
    logits = np.log(np.maximum(raw, _LEAST))
    if calibration["bias"] is not None:
        logits = logits + np.array(calibration["bias"])
    logits = logits / calibration["temperature"]
    sure = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure /= sure.sum(axis=1, keepdims=True)
    return (1 - calibration["smoothing"]) * sure + calibration["smoothing"] * prior
