"""A trained torch network as ONNX: what is packed and served, so that answering needs numpy and onnxruntime only."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import AssayError
from assay.neural.base import session

OPSET = 17


def exported(network: Any, inputs: tuple[Any, ...], names: tuple[str, ...], *, long: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> bytes:
    """The network as the bytes of an ONNX file, checked against torch on `inputs`, twice over.

    inputs: tensors of at least two rows, called `names`; the first axis is free, for those in `long` the second too.
    more: further outputs; `network.and_maps(*inputs)` then gives what the network says and these.
    Exported by torch.onnx without dynamo: 0.1 to 2 s instead of 4 to 15 s, and half the size (2 cores, torch 2.13).
    Raises AssayError if the two answer otherwise.
    """
    import torch

    # a length for each input: those that share a name have to be equal in every batch, and two text columns are not
    axes = {name: {0: "rows"} | ({1: f"length_of_{name}"} if name in long else {}) for name in names}
    file: Any = io.BytesIO()
    network.eval()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            whole = _with_maps(network) if more else network
            torch.onnx.export(whole, inputs, file, dynamo=False, input_names=list(names), output_names=["said", *more], opset_version=OPSET,
                              dynamic_axes=axes | {name: {0: "rows"} for name in ("said", *more)})
            twice = tuple(torch.cat([t, t.flip(0)]) for t in inputs)
            wanted = network(*twice).numpy()
    finally:
        quiet.setLevel(level)
    made = file.getvalue()
    found = Session(made).run(**{name: t.numpy() for name, t in zip(names, twice, strict=True)})
    gap = float(np.abs(found - wanted).max(initial=0.0))
    if not gap <= 1e-3 * max(1.0, float(np.abs(wanted).max(initial=0.0))):
        raise AssayError("its network answers otherwise once it was exported (by up to {gap:.3g})", gap=gap)
    return made


def _with_maps(network: Any) -> Any:
    import torch

    class WithMaps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *inputs: Any) -> Any:
            return self.network.and_maps(*inputs)

    return WithMaps().eval()


class Session:
    """An ONNX network on the processor. model: its bytes or its file."""

    def __init__(self, model: bytes | Path, threads: int = 2) -> None:
        self._session = session(model, threads)
        self.names = [i.name for i in self._session.get_inputs()]
        self._first = [self._session.get_outputs()[0].name]

    def run(self, **arrays: np.ndarray) -> np.ndarray:
        """The first output, float32; arrays by the names of the inputs."""
        return np.asarray(self._session.run(self._first, {name: arrays[name] for name in self.names})[0])

    def output(self, name: str, **arrays: np.ndarray) -> np.ndarray:
        """Another output, by its name."""
        return np.asarray(self._session.run([name], {own: arrays[own] for own in self.names})[0])

    def answers(self, batch: Any, n: int, size: int = 64) -> np.ndarray:
        """Outputs of n rows, (n, outputs); batch: (row numbers) -> {name: array}."""
        parts = [self.run(**batch(np.arange(first, min(first + size, n)))) for first in range(0, n, size)]
        return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)
