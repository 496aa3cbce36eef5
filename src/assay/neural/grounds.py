"""What the answers of the step networks rest on: what each piece or number adds to one, and where a transformer looks. Needs torch, and says None without it."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from assay.data.dataset import Dataset
from assay.neural import gradients, places
from assay.neural.fitting import Scale
from assay.neural.patch_rows import Patches
from assay.neural.ragged import Reader
from assay.neural.replay import Replay, opened
from assay.neural.sequence_rows import Signals
from assay.neural.text_rows import Texts
from assay.neural.vocabulary import HIDDEN


class Answers(Protocol):
    """What is asked of a `step_network.Served`."""

    reader: Reader
    scale: Scale
    onnx: bytes

    def answers(self, asked: Dataset) -> np.ndarray: ...


class Grounds:
    """For models that answer by `served`."""

    served: Any

    def gradients(self, asked: Dataset, column: str, codes: np.ndarray) -> list[Any] | None:
        """What each part of the cells of `column` adds to the answers `codes` (n,), by integrated gradients: `places.Marks` of texts, (steps, channels) of
        sequences, (side, side) of pictures. A text is compared with one whose pieces are all hidden, as some are while it is taught; a sequence with its
        channels' means; a picture with the mean colour.

        None where torch is missing, the column is not read or holds sounds, or what is added does not add up to the change of the answer.
        """
        served: Answers = self.served
        network = opened(served.onnx) if column in _columns(served.reader) else None
        if network is None:
            return None
        out = []
        for i, code in enumerate(codes):
            found = _added(served, network, asked.take(np.array([i])), column, int(code))
            if found is None:
                return None
            out.append(found)
        return out

    def attention(self, asked: Dataset, column: str) -> list[Any] | None:
        """Where the network looks in the cells of `column`, by attention rollout, at least 0: `places.Marks` of texts, (steps,) of sequences, (grid, grid) of
        pictures. None where torch is missing, the column is not read, or the network does not attend."""
        served: Answers = self.served
        network = opened(served.onnx) if column in _columns(served.reader) else None
        if network is None:
            return None
        out: list[Any] = []
        for i in range(len(asked)):
            row = asked.take(np.array([i]))
            given = _given(served.reader, row)
            weights = gradients.rollout(network, given)
            if weights is None:
                return None
            if isinstance(served.reader, Texts):
                out.append(places.Marks(places.of_pieces(served.reader, row.frame, column)[1], weights))
            elif isinstance(served.reader, Signals):
                values = places.of_tokens(weights, given["steps"].shape[1])
                out.append(places.of_steps(served.reader, row.frame, column, values))
            else:
                out.append(weights.reshape(math.isqrt(len(weights)), -1))
        return out


def _added(served: Answers, network: Replay, row: Dataset, column: str, code: int) -> places.Marks | np.ndarray | None:
    reader, scale = served.reader, served.scale
    given = _given(reader, row)
    name = reader.names[0]
    x = given[name][0].numpy()
    base = np.zeros_like(x)  # the mean of every channel or colour, and no gaps
    if isinstance(reader, Texts):
        looked_up = network.embedding(name)
        if looked_up is None:
            return None
        name, table = looked_up[0], looked_up[1].numpy()
        x = table[x]
        base = np.broadcast_to(table[HIDDEN], x.shape)
    added = gradients.explained(network, given, name, x, base, scale=scale, code=code, served=float(served.answers(row)[0, code]))
    if added is None:
        return None
    if isinstance(reader, Signals):
        return places.of_numbers(reader, row.frame, column, added.values)
    if isinstance(reader, Texts):
        return places.Marks(places.of_pieces(reader, row.frame, column)[1], added.values.sum(1))
    return np.asarray(added.values.sum(0))


def _columns(reader: Reader) -> list[str]:
    if isinstance(reader, Signals):
        return [name for name, _ in reader.columns]
    return reader.columns if isinstance(reader, Texts) else [reader.column] if isinstance(reader, Patches) else []


def _given(reader: Reader, row: Dataset) -> dict[str, Any]:
    """What the network is given for a row, as tensors."""
    import torch

    return {name: torch.from_numpy(array) for name, array in reader.batch(reader.read(row, threads=1))(np.array([0])).items()}
