"""What the training loop costs: rows a second against a bare PyTorch loop of the same network, one process against two, fp32 against int8.

    python bench/training.py
"""

from __future__ import annotations

import os
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from machine import publish

from assay.neural.augment import Changes
from assay.neural.loop import train
from assay.neural.parallel import train_parallel
from assay.neural.pictures import Pictures
from assay.neural.recipe import Recipe
from assay.neural.residual import network
from assay.neural.rows import Aim

SIDE, ROWS, PASSES = 32, 2048, 3
STILL = Changes(flip="none", shift=0.0)
BUILD = partial(network, channels=3, widths=(32, 64, 128), outputs=10, flat=False, dropout=0.0)
RECIPE = Recipe(optimizer="adamw", rate=0.003, decay=0.01, schedule="one_cycle", batch=64, epochs=PASSES, clip=0.0, patience=1.0)


def rows(n: int, seed: int) -> Pictures:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, SIDE, SIDE, 3)).astype(np.uint8)
    return Pictures(pixels, rng.integers(0, 10, n), np.full(3, 127.0, np.float32), np.full(3, 74.0, np.float32), STILL)


def bare(taught: Pictures, threads: int) -> float:
    """Rows a second of the shortest loop that trains the same network on the same pixels."""
    import torch

    torch.set_num_threads(threads)
    made = BUILD()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.003)
    y, begun = torch.from_numpy(taught.target), time.perf_counter()
    for _ in range(PASSES):
        order = np.random.default_rng(0).permutation(len(taught))
        for first in range(0, len(taught), 64):
            chosen = order[first : first + 64]
            x = torch.from_numpy(((taught.pixels[chosen].astype(np.float32) - 127) / 74).transpose(0, 3, 1, 2).copy())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(made(x), y[chosen]).backward()
            optimizer.step()
    return PASSES * len(taught) / (time.perf_counter() - begun)


def ours(taught: Pictures, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    begun = time.perf_counter()
    train(BUILD(), taught, rows(64, 1), Aim("log", 10), RECIPE, seed=0)
    return PASSES * len(taught) / (time.perf_counter() - begun)


def processes(taught: Pictures, count: int) -> float:
    """Rows a second of `count` processes on as many cores, without their start: the difference of a longer and a shorter training. Batches of 128."""
    took, cores = [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:count]))
    for passes in (PASSES, 3 * PASSES):
        begun = time.perf_counter()
        train_parallel(BUILD, taught, rows(64, 1), Aim("log", 10), Recipe(**(vars(RECIPE) | {"epochs": passes, "batch": 128})), seed=0, processes=count)
        took.append(time.perf_counter() - begun)
    os.sched_setaffinity(0, cores)
    return 2 * PASSES * len(taught) / (took[1] - took[0])


def eight_bits() -> tuple[float, float]:
    """Milliseconds of one picture, fp32 and int8, of a network of 96 x 96 pixels, one thread."""
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from assay.neural.export import Session, exported

    torch.set_num_threads(1)
    made = network(channels=3, widths=(48, 96, 192, 192), outputs=10, flat=False, dropout=0.0).eval()
    x = torch.randn(2, 3, 96, 96)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([{"x": torch.randn(8, 3, 96, 96).numpy()} for _ in range(4)])

        def get_next(self):
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as place:
        whole, ready, small = (Path(place) / n for n in ("a.onnx", "b.onnx", "c.onnx"))
        whole.write_bytes(exported(made, (x,), ("x",)))
        quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(small), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)
        return tuple(_ms(Session(f, threads=1), x[:1].numpy()) for f in (whole, small))  # type: ignore[return-value]


def _ms(session, x: np.ndarray) -> float:
    taken = []
    for _ in range(60):
        begun = time.perf_counter()
        session.run(x=x)
        taken.append(time.perf_counter() - begun)
    return float(np.median(taken[10:])) * 1000


def main() -> None:
    taught = rows(ROWS, 0)
    table = []
    for threads in (1, 2):
        one, other = [], []
        for _ in range(3):
            one.append(bare(taught, threads))
            other.append(ours(taught, threads))
        table.append([f"loop against a bare one, {threads} thread{'s' * (threads > 1)}", f"{np.median(other):,.0f} rows/s", f"{np.median(one):,.0f} rows/s", f"{np.median(other) / np.median(one):.2f}"])
    single, double = (float(np.median([processes(taught, count) for _ in range(3)])) for count in (1, 2))
    table.append(["two processes on two cores against one on one, batches of 128", f"{double:,.0f} rows/s", f"{single:,.0f} rows/s", f"{double / single:.2f}"])
    whole, small = eight_bits()
    table.append(["int8 against fp32, one picture of 96 x 96", f"{small:.2f} ms", f"{whole:.2f} ms", f"{whole / small:.2f}"])
    publish("training", "## Training loop\n\n`python bench/training.py`: a residual network of 0.5 million weights on pictures of 32 x 32, batches of 64, median of 3 runs of 3 passes.",
            ["what", "ours", "against", "ratio"], table)


if __name__ == "__main__":
    main()
