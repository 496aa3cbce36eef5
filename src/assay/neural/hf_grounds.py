"""What each piece of a text adds to an answer of a fine-tuned model, over the vectors of its pieces. Needs torch, and says None without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import polars as pl

from assay.data.dataset import Dataset
from assay.neural import gradients
from assay.neural.fitting import Scale
from assay.neural.hf_inputs import Inputs
from assay.neural.places import Marks
from assay.neural.replay import Replay, opened
from assay.neural.solver import Linear

HIDES = ("[MASK]", "<mask>")  # the piece of which a model knows that it may stand for any other


class Grounds(ABC):
    """For models that answer by an ONNX network, inputs in, features out, and a line over the features."""

    inputs: Inputs
    made: bytes
    line: Linear
    scale: Scale

    @abstractmethod
    def predict(self, asked: Dataset) -> np.ndarray: ...

    def gradients(self, asked: Dataset, column: str, codes: np.ndarray) -> list[Any] | None:
        """What each piece of the texts in `column` adds to the answers `codes` (n,), by integrated gradients: `places.Marks`. A text is compared with one whose
        pieces are all masked, or padding where there is no mask; those that begin and end a text stay.

        None for pictures and sounds, where torch is missing, or where what is added does not add up to the change of the answer.
        """
        network = opened(self.made) if self.inputs.settings.kind == "text" and column in self.inputs.columns else None
        if network is None:
            return None
        out = []
        for i, code in enumerate(codes):
            found = self._added(network, asked.take(np.array([i])), column, int(code))
            if found is None:
                return None
            out.append(found)
        return out

    def _added(self, network: Replay, row: Dataset, column: str, code: int) -> Marks | None:
        import torch

        at = self.inputs.columns.index(column)
        given = dict(zip(self.inputs.names, map(torch.from_numpy, self.inputs.read(row.frame, threads=1).arrays(np.array([0]))), strict=True))
        looked_up = network.embedding(f"ids{at}")
        if looked_up is None:
            return None
        name, table = looked_up[0], looked_up[1].numpy()
        ids = given[f"ids{at}"][0].numpy()
        spans, stays = of_pieces(self.inputs, row.frame[column])
        base = table[np.where(stays, ids, self._hidden())]
        weights, intercept = torch.from_numpy(self.line.weights), torch.from_numpy(self.line.intercept)
        added = gradients.explained(network, given, name, table[ids], base, scale=self.scale, code=code, served=float(self.predict(row)[0, code]),
                                    after=lambda said: said @ weights + intercept)
        return None if added is None else Marks(spans, added.values.sum(1))

    def _hidden(self) -> int:
        found = [self.inputs.opened().token_to_id(piece) for piece in HIDES]
        return next((int(one) for one in found if one is not None), self.inputs.settings.padding)


def of_pieces(inputs: Inputs, cells: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """(spans (t, 2) in the cell, bool (t,) where a piece is none of the text) of one cell, as `Inputs` reads it."""
    found = inputs.opened().encode(cells[0] or "")
    if not found.ids:
        return np.zeros((1, 2), dtype=np.int64), np.array([True])
    return np.array(found.offsets, dtype=np.int64), np.array(found.special_tokens_mask, dtype=bool)
