"""Fracast-0, a small pre-trained forecaster whose weights a package ships, read and run with numpy alone.

A causal dilated convolution with one set of weights for ten scales, phases of the periods that a periodogram finds, and a head that says nine quantiles of 48
steps (package fracast 0.1.0, github.com/ztxtech/fracast-0, Apache-2.0; periods and phases after TinyCast, arXiv:2608.15767). Nothing of the package is
imported: its safetensors file and its config are read.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import InputError
from assay.neural.base import digest_of, package_folder

PACKAGE, VERSION = "fracast", "fracast 0.1.0"
PINS = {"model.safetensors": "0d678f123f3d1f91c5065cca2b5d40eccc469360afc2381b27290486011ded2c", "config.json": "1d7d2cf831f51ae2c5c9bf4cb4d8d4a49ec0085d6d55010814a1aae2a777a5dc"}
LEAST = 8  # known values of a series below which it was never asked
SIGNIFICANT = 0.05


class Fracast:
    """The network of a folder with config.json and model.safetensors. Raises InputError if they are not those that assay was tested with."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file

        self.folder = folder
        for name, wanted in PINS.items():
            if digest_of(folder / name) != wanted:
                raise InputError("The file '{file}' of Fracast-0 is not the one that assay was tested with. Install the package again: pip install --force-reinstall fracast==0.1.0",
                                 file=name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]
        self.length, self.horizon, self.levels = int(config["W"]), int(config["horizon"]), tuple(float(q) for q in config["quantiles"])
        self.stages, self.top = int(config["n_stages"]), int(config["periodic_topk"])
        self.w = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in load_file(folder / "model.safetensors").items()}
        self.recent, self.coming = _recency(np.arange(self.length), self.length), _recency(np.arange(self.length, self.length + self.horizon), self.length)
        self.scales = [self._scale(2**i) for i in range(self.stages)]

    @classmethod
    def installed(cls) -> Fracast | None:
        root = package_folder(PACKAGE)
        return None if root is None or not (root / "weights" / "model.safetensors").exists() else cls(root / "weights")

    def block(self, values: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """The next `horizon` steps, float64 (n, horizon, levels). values: (n, t), NaN where a step is missing, at least `LEAST` of a row known."""
        tail = values[:, -self.length :].astype(np.float32)
        known = np.isfinite(tail)
        low = np.where(known, tail, np.inf).min(axis=1, keepdims=True).astype(np.float64)
        span = np.maximum(np.where(known, tail, -np.inf).max(axis=1, keepdims=True) - low, 1e-5)
        context, there = np.zeros((len(tail), self.length), dtype=np.float32), np.zeros((len(tail), self.length), dtype=bool)
        context[:, self.length - tail.shape[1] :] = np.where(known, (np.where(known, tail, 0) - low) / span, 0)
        there[:, self.length - tail.shape[1] :] = known
        if threads > 1 and len(tail) > 1:
            with ThreadPoolExecutor(threads) as pool:
                said = np.stack(list(pool.map(self._said, context, there)))
        else:
            said = np.stack([self._said(*row) for row in zip(context, there, strict=True)])
        return said.astype(np.float64) * span[:, :, None] + low[:, :, None]

    def _said(self, context: np.ndarray, there: np.ndarray) -> np.ndarray:
        """(horizon, levels) of one series scaled to 0-1."""
        w = self.w
        periods = _periods(np.where(there, context, context[there].mean()), self.top)
        x = np.concatenate([context[:, None], there[:, None].astype(np.float32), self.recent], axis=1) @ w["core.in_proj.weight"].T + w["core.in_proj.bias"]
        x += _phases(self.length, periods) @ w["core.periodic.proj.weight"].T + w["core.periodic.proj.bias"]
        for i, (gain, shift) in enumerate(self.scales):
            x *= gain
            x += shift
            x = self._mixed(x, "core.block", 2**i)
        hidden = _normed(x, w["core.norm.weight"])
        summary = np.concatenate([hidden.mean(axis=0), hidden[-1]])
        said = np.concatenate([self.coming, np.broadcast_to(summary, (self.horizon, len(summary)))], axis=1) @ w["head.summary_proj.weight"].T
        said += w["head.summary_proj.bias"] + w["head.queries"]
        depth = 0
        while f"head.decoder_norms.{depth}.weight" in w:
            said = _normed(said + self._gated(said, f"head.decoder_ffns.{depth}"), w[f"head.decoder_norms.{depth}.weight"])
            depth += 1
        depth = 0
        while f"head.fc_blocks.{depth}.dw_weight" in w:
            name = f"head.fc_blocks.{depth}"
            said = _normed(said + _causal(said, w[f"{name}.dw_weight"], w[f"{name}.dw_bias"], 2**depth), w[f"{name}.norm.weight"])
            depth += 1
        said += self._future(hidden, _folded(context, there, periods[0], self.horizon))
        return said @ w["head.out_proj.weight"].T + w["head.out_proj.bias"]

    def _future(self, hidden: np.ndarray, fill: np.ndarray) -> np.ndarray:
        """What the seasonal mean of each coming step adds. 128 steps of the past and six scales, as the package has them by default."""
        w = self.w
        z = np.concatenate([hidden[-128:], np.concatenate([fill[:, None], self.coming], axis=1) @ w["head.future_conv.in_proj.weight"].T + w["head.future_conv.in_proj.bias"]])
        for i in range(6):
            z = self._mixed(z, "head.future_conv.block", 2**i)
        return z[-self.horizon :] @ w["head.future_conv.out_proj.weight"].T + w["head.future_conv.out_proj.bias"]

    def _mixed(self, x: np.ndarray, name: str, dilation: int) -> np.ndarray:
        w = self.w
        over = _causal(x, w[f"{name}.dw_weight"], w[f"{name}.dw_bias"], dilation) @ w[f"{name}.pw.weight"].T
        over += w[f"{name}.pw.bias"]
        over += x
        x = _normed(over, w[f"{name}.norm1.weight"])
        return _normed(x + self._gated(x, f"{name}.ffn"), w[f"{name}.norm2.weight"])

    def _gated(self, x: np.ndarray, name: str) -> np.ndarray:
        w = self.w
        both = x @ w[f"{name}.up.weight"].T
        both += w[f"{name}.up.bias"]
        half = both.shape[1] // 2
        gate, value = both[:, :half], both[:, half:]
        soft = np.exp(np.minimum(-gate, 80.0))
        soft += 1
        np.divide(gate, soft, out=soft)
        soft *= value
        return soft @ w[f"{name}.down.weight"].T + w[f"{name}.down.bias"]

    def _scale(self, dilation: int) -> tuple[np.ndarray, np.ndarray]:
        """Gain and shift of the channels at one scale."""
        weight, bias = self.w["core.scale.to_gb.weight"], self.w["core.scale.to_gb.bias"]
        angle = math.log2(dilation) / 2.0 ** np.arange(weight.shape[1] // 2, dtype=np.float32) * np.float32(math.pi)
        both = weight @ np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32) + bias
        return 1 + both[: len(both) // 2], both[len(both) // 2 :]


def _causal(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dilation: int) -> np.ndarray:
    """A convolution of each channel over the past of each step. x: (t, d); weight: (d, 1, k)."""
    taps = weight.shape[2]
    out = x * weight[:, 0, taps - 1]
    out += bias
    for back in range(1, taps):
        lag = back * dilation
        if lag < len(x):
            out[lag:] += x[:-lag] * weight[:, 0, taps - 1 - back]
    return out


def _normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """RMS norm over the channels."""
    size = np.einsum("td,td->t", x, x)
    size /= x.shape[1]
    size += np.finfo(np.float32).eps
    np.sqrt(size, out=size)
    return x / size[:, None] * weight


def _recency(positions: np.ndarray, length: int) -> np.ndarray:
    """How long ago, five ways, float32 (t, 5)."""
    apart = (positions - (length - 1)).astype(np.float32) / np.float32(length)
    far = np.abs(apart)
    return np.stack([apart, np.sign(apart) * np.log1p(far) / math.log(2.0), np.exp(-0.5 * far), np.exp(-2.0 * far), np.exp(-8.0 * far)], axis=1).astype(np.float32)


def _periods(values: np.ndarray, top: int) -> np.ndarray:
    """(top,) of whole steps, 0 where fewer are significant: the highest peaks of the normalised periodogram (Bonferroni over its bins)."""
    n = 1 << math.ceil(math.log2(max(2, len(values))))
    power = np.abs(np.fft.rfft(values.astype(np.float64) - values.mean(dtype=np.float64), n))[1:] ** 2
    share = power / max(power.sum(), 1e-12)
    peak = np.zeros(len(share), dtype=bool)
    peak[1:-1] = (share[1:-1] > share[:-2]) & (share[1:-1] > share[2:])
    peak[: max(0, n // max(2, len(values) // 2) - 1)] = False
    peak &= share >= math.log(len(share) / SIGNIFICANT) / len(share)
    found = np.flatnonzero(peak)
    found = found[np.argsort(-share[found], kind="stable")][:top]
    out = np.zeros(top, dtype=np.int64)
    out[: len(found)] = np.round(n / (found + 1)).astype(np.int64)
    return out


def _phases(length: int, periods: np.ndarray) -> np.ndarray:
    """Sine and cosine of each period, zeros for none, float32 (length, 2 * top)."""
    angle = (2.0 * math.pi * np.arange(length)[:, None] / np.maximum(periods, 1)).astype(np.float32)
    pair = np.stack([np.sin(angle), np.cos(angle)], axis=2) * (periods > 0)[None, :, None]
    return pair.reshape(length, -1).astype(np.float32)


def _folded(context: np.ndarray, there: np.ndarray, period: int, horizon: int, bins: int = 16) -> np.ndarray:
    """The mean of the known values at the phase of each coming step, float32 (horizon,)."""
    period = max(1, period)

    def phase(positions: Any) -> Any:
        return np.minimum((positions % period).astype(np.float32) / np.float32(period) * bins, bins - 1).astype(np.int64)

    at = phase(np.arange(len(context)))
    count = np.bincount(at, weights=there, minlength=bins)
    total = np.bincount(at, weights=np.where(there, context, 0), minlength=bins)
    mean = np.where(count > 0, total / np.maximum(count, 1), context[there].mean() if there.any() else 0.0)
    return mean[phase(np.arange(len(context), len(context) + horizon))].astype(np.float32)
