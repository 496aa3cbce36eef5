"""What answers rest on: a network that can look into itself is asked, every other model is shown its rows with parts covered up.

The names of the methods are templates, so that a report can give them in its own language.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.data.dataset import Dataset
from assay.explain import occlusion
from assay.families.base import Model
from assay.words import Text, say


def heat(model: Model, asked: Dataset, column: str, codes: np.ndarray) -> tuple[list[np.ndarray], Text]:
    """A map for each row of what its answer `codes` (n,) rests on, float (h, w) from 0 to 1, and the method's name.

    Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) where the model draws a map of its own, integrated gradients (Sundararajan et al. 2017,
    arXiv:1703.01365) where it has them: what speaks for the answer, 8 x 8. Not attention, which is no more than `seen_patches`: with the ten patches that it
    rates highest covered, 40 pictures of digits lost 0.22 of their probability, 0.19 with ten random ones; 0.34 by these, 0.35 by occlusion.
    """
    own = getattr(model, "heat", None)
    if own is not None:
        return [_unit(m) for m in own(asked, codes)], say("Grad-CAM")
    found = _gradients(model, asked, column, codes)
    if found is not None:
        return [_unit(patched(m)) for m in found], say("integrated gradients")
    return [_unit(occlusion.patches(model, asked.take(np.array([i])), column, int(codes[i]))) for i in range(len(asked))], say("occlusion")


def seen_patches(model: Model, asked: Dataset, column: str) -> list[np.ndarray] | None:
    """A map for each row of where a transformer looks, float (grid, grid) from 0 to 1, whatever its answer; None for a model that does not attend.

    Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928).
    """
    maps = _attention(model, asked, column)
    return None if maps is None else [_unit(m - m.min()) for m in maps]


def words(model: Model, asked: Dataset, column: str, codes: np.ndarray) -> tuple[list[list[tuple[str, float]]], Text]:
    """For each row the pieces of its text, at most 48, with what each adds to the answer `codes` (n,); and the method's name.

    Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) where the model has them: the pieces' numbers are those of the network's own pieces, by
    the characters that they share, and add up to how far the answer lies from that to a text of which nothing is known.
    """
    marks = _gradients(model, asked, column, codes)
    if marks is None:
        return [occlusion.words(model, asked.take(np.array([i])), column, int(codes[i])) for i in range(len(asked))], say("occlusion")
    out = []
    for text, mark in zip(asked.frame[column], marks, strict=True):
        pieces = occlusion.pieces_of(text or "")
        out.append(list(zip(pieces, shared(text or "", pieces, mark.spans, mark.values).tolist(), strict=True)))
    return out, say("integrated gradients")


def stretches(model: Model, asked: Dataset, column: str, codes: np.ndarray) -> tuple[list[np.ndarray], Text]:
    """For each row (channels, 16): what each sixteenth of each channel adds to the answer `codes` (n,); and the method's name. A missing row: all zeros."""
    channels = next(len(c.channels or ()) for c in asked.schema.columns if c.name == column)
    there = [i for i in range(len(asked)) if asked.frame[column][i]]
    out = [np.zeros((channels, occlusion.STRETCHES)) for _ in range(len(asked))]
    found = _gradients(model, asked.take(np.array(there, dtype=int)), column, codes[there])
    for at, i in enumerate(there):
        if found is None:
            out[i] = occlusion.stretches(model, asked.take(np.array([i])), column, int(codes[i]))
        else:
            out[i] = summed(found[at])
    return out, say("occlusion") if found is None else say("integrated gradients")


def seen_words(model: Model, asked: Dataset, column: str) -> list[list[float]] | None:
    """How much a transformer looks at each of the pieces of `words`, in their order; None for a model that does not attend."""
    marks = _attention(model, asked, column)
    if marks is None:
        return None
    return [shared(text or "", occlusion.pieces_of(text or ""), mark.spans, mark.values).tolist() for text, mark in zip(asked.frame[column], marks, strict=True)]


def seen_stretches(model: Model, asked: Dataset, column: str) -> list[list[float]] | None:
    """How much a transformer looks at each sixteenth of a sequence; None for a model that does not attend."""
    found = _attention(model, asked, column)
    return None if found is None else [summed(one[:, None])[0].tolist() for one in found]


def shared(text: str, pieces: list[str], spans: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(pieces,): `values` (n,) of characters [first, last) `spans` (n, 2) over the pieces that `text` falls into, by the characters that they share.

    Blanks do not count, but where there is nothing else: a network's piece may begin with the blank before a word, and a word here ends with the one behind it.
    """
    of_piece = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    full = np.array([not c.isspace() for c in text], dtype=bool)
    out = np.zeros(len(pieces))
    for (low, high), value in zip(spans, values, strict=True):
        at = np.arange(low, high)
        at = at[full[low:high]] if full[low:high].any() else at
        if len(at):
            np.add.at(out, of_piece[at], value / len(at))
    return out


def summed(values: np.ndarray) -> np.ndarray:
    """(steps, channels) as (channels, 16), each sixteenth of the steps together."""
    edges = np.linspace(0, len(values), occlusion.STRETCHES + 1).astype(int)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return np.asarray((total[edges[1:]] - total[edges[:-1]]).T)


def patched(values: np.ndarray) -> np.ndarray:
    """(h, w) as (8, 8), the values of each patch together; smaller ones stay."""
    out = values
    for axis in (0, 1):
        if out.shape[axis] > occlusion.GRID:
            edges = np.linspace(0, out.shape[axis], occlusion.GRID + 1).astype(int)
            out = np.add.reduceat(out, edges[:-1], axis=axis)
    return out


def _gradients(model: Model, asked: Dataset, column: str, codes: np.ndarray) -> list[Any] | None:
    own = getattr(model, "gradients", None)
    found: list[Any] | None = own(asked, column, codes) if own is not None and len(asked) else None
    return found


def _attention(model: Model, asked: Dataset, column: str) -> list[Any] | None:
    own = getattr(model, "attention", None)
    found: list[Any] | None = own(asked, column) if own is not None and len(asked) else None
    return found


def _unit(values: np.ndarray) -> np.ndarray:
    top = float(values.max(initial=0.0))
    return np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
