"""Answers of a trained table network, in numpy alone: a served model needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.neural.columns import Inputs
from assay.neural.ngrams import Bags

Arrays = dict[str, np.ndarray]
_MOST_VALUES = 4_000_000  # floats of the widest intermediate held at once: 16 MB


def answers(arrays: Arrays, sizes: dict[str, Any], inputs: Inputs) -> np.ndarray:
    """Mean over the ensemble's members, float64, shape (n, outputs): class probabilities, or one amount.

    Same network as `tabular.network`, equal to 1e-5.
    """
    members, widest = arrays["r.0"].shape[0], max(arrays["w.0"].shape)
    step = max(1, _MOST_VALUES // (members * widest + 1))
    if len(inputs) <= step:
        return _answers(arrays, sizes, inputs)
    return np.concatenate([_answers(arrays, sizes, inputs.take(np.arange(i, min(i + step, len(inputs))))) for i in range(0, len(inputs), step)])


def _answers(arrays: Arrays, sizes: dict[str, Any], inputs: Inputs) -> np.ndarray:
    outputs = _outputs(arrays, sizes, inputs).astype(np.float64)
    if sizes["loss"] == "log":
        outputs -= outputs.max(axis=2, keepdims=True)
        np.exp(outputs, out=outputs)
        outputs /= outputs.sum(axis=2, keepdims=True)
    return outputs.mean(axis=0)


def _outputs(arrays: Arrays, sizes: dict[str, Any], inputs: Inputs) -> np.ndarray:
    """What each member says, shape (members, n, outputs): logits, or standardised amounts."""
    x = features(arrays, sizes, inputs)
    h = x[None] * arrays["r.0"][:, None]
    for layer in range(sizes["depth"]):
        if layer:
            h = h * arrays[f"r.{layer}"][:, None]
        h = h @ arrays[f"w.{layer}"]
        h *= arrays[f"s.{layer}"][:, None]
        h += arrays[f"b.{layer}"][:, None]
        np.maximum(h, 0, out=h)
    h = h @ arrays["head"] + arrays["head_bias"][:, None]
    for i, bags in enumerate(inputs.bags):
        if f"wide.{i}" in arrays:
            h += pooled(arrays[f"wide.{i}"], bags)[None]
    return h


def features(arrays: Arrays, sizes: dict[str, Any], inputs: Inputs) -> np.ndarray:
    """Numbers embedded, one-hot values, category embeddings and pooled texts side by side, float32 (n, in)."""
    parts = [inputs.dense]
    if sizes["numbers"]:
        x = inputs.numbers
        parts.append(x)
        if "mix" in arrays:
            if "edges" in arrays:
                basis = np.clip((x.T[:, :, None] - arrays["edges"][:, None]) * arrays["steps"][:, None], 0, 1)
            else:
                basis = np.cos(x.T[:, :, None] * arrays["freq"][:, None] + arrays["phase"][:, None])
            lifted = basis @ arrays["mix"] + arrays["mix_bias"][:, None]
            parts.append(lifted.transpose(1, 0, 2).reshape(len(x), -1))
    parts += [arrays[f"embed.{i}"][inputs.codes[:, i]] for i in range(len(sizes["embedded"]))]
    parts += [pooled(arrays[f"text.{i}"], bags) for i, bags in enumerate(inputs.bags)]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def pooled(table: np.ndarray, bags: Bags) -> np.ndarray:
    """The weighted sum of each row's embeddings, shape (n, width)."""
    if len(bags) == 1:
        return (bags.weights @ table[bags.ids])[None]
    from scipy.sparse import csr_array

    return csr_array((bags.weights, bags.ids, bags.offsets), shape=(len(bags), len(table))) @ table
