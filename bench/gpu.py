"""What a GPU gives: the loop against a bare one, and `convnet` on CIFAR-10's open subset, whole.

    python bench/gpu.py [--seeds 3] [--seconds 60]

The path to 94 % on the full set is the last row's recipe: `convnet` at its widest for 32 x 32 pixels, on all 50,000 rows. It runs unattended:

    assay run cifar10/ --only convnet --time 10m
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from machine import publish
from networks import DATA, _codes, _rows, _scaled

from assay.neural.augment import Changes
from assay.neural.loop import train
from assay.neural.pictures import Pictures
from assay.neural.recipe import Recipe
from assay.neural.residual import network
from assay.neural.rows import Aim

BUILD = partial(network, channels=3, widths=(64, 128, 256), outputs=10, flat=False, dropout=0.0)
PASSES, BATCH = 5, 512


def throughput(precision: str) -> tuple[float, float]:
    """Rows a second, ours and of the shortest loop on the GPU, same network, same pixels."""
    import torch

    rng = np.random.default_rng(0)
    taught, held = (Pictures(rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, n), np.full(3, 127.0, np.float32), np.full(3, 74.0, np.float32),
                             Changes(flip="none", shift=0.0)) for n in (16384, 64))
    recipe = Recipe(optimizer="adamw", rate=0.003, schedule="one_cycle", batch=BATCH, epochs=PASSES, clip=0.0, patience=1.0, precision=precision)
    one, other = [], []
    for _ in range(3):
        begun = time.perf_counter()
        train(BUILD(), taught, held, Aim("log", 10), recipe, seed=0, device="cuda")
        one.append(PASSES * len(taught) / (time.perf_counter() - begun))
        made, y = BUILD().cuda(), torch.from_numpy(taught.target)
        optimizer, begun = torch.optim.AdamW(made.parameters(), lr=0.003), time.perf_counter()
        for _ in range(PASSES):
            order = rng.permutation(len(taught))
            for first in range(0, len(taught), BATCH):
                chosen = order[first : first + BATCH]
                x = torch.from_numpy(((taught.pixels[chosen].astype(np.float32) - 127) / 74).transpose(0, 3, 1, 2).copy()).cuda()
                with torch.autocast("cuda", dtype=torch.bfloat16, enabled=precision == "bf16"):
                    loss = torch.nn.functional.cross_entropy(made(x), y[chosen].cuda())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.cuda.synchronize()
        other.append(PASSES * len(taught) / (time.perf_counter() - begun))
    return float(np.median(one)), float(np.median(other))


def textbook(train_rows: Any, test_rows: Any, seed: int) -> tuple[float, float]:
    """Accuracy and seconds of the textbook network, 10 epochs."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    names = sorted(train_rows["label"].unique())
    from assay.neural import cells

    x, y, xt, yt = (torch.from_numpy(a).cuda() for a in (_scaled(cells.pixels(train_rows["image"], 32, grey=False)), _codes(train_rows, names),
                                                          _scaled(cells.pixels(test_rows["image"], 32, grey=False)), _codes(test_rows, names)))
    made = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(128 * 8 * 8, 1024), nn.ReLU(), nn.Linear(1024, 10)).cuda()
    optimizer, begun = torch.optim.Adam(made.parameters(), lr=0.001), time.perf_counter()
    for _ in range(10):
        for rows in torch.randperm(len(x), device="cuda").split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(made(x[rows]), y[rows]).backward()
            optimizer.step()
    torch.cuda.synchronize()
    took = time.perf_counter() - begun
    with torch.no_grad():
        return float((torch.cat([made(part) for part in xt.split(256)]).argmax(1) == yt).float().mean()), took


def ours(train_rows: Any, test_rows: Any, seed: int, seconds: float, params: dict[str, Any]) -> tuple[float, float, dict[str, Any]]:
    from assay.data.dataset import Column, Dataset, Schema
    from assay.families.base import Budget
    from assay.families.convnet import Convnet
    from assay.tasks import choose

    schema = Schema((Column("image", "image"), Column("label", "category")), "label")
    data, asked = Dataset(train_rows, schema), Dataset(test_rows, schema)
    task: Any = choose(data)[0].of(data)
    begun = time.perf_counter()
    model = Convnet(task, schema, **params).fit(data, seed=seed, budget=Budget(seconds=seconds, threads=os.cpu_count() or 2))
    took = time.perf_counter() - begun
    said, truth = model.predict(asked.asked()), task.truth(asked)
    return float((said.argmax(axis=1) == truth).mean()), took, model.facts


def main() -> None:
    import torch

    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--seconds", type=float, default=60)
    given = ask.parse_args()
    if not torch.cuda.is_available() or not DATA.exists():
        print("gpu: skipped, there is no GPU or no folder of open datasets")
        return
    table = []
    for precision in ("fp32", "bf16"):
        one, other = throughput(precision)
        table.append([f"the loop against a bare one, {precision}, rows a second", f"{one:,.0f}", f"{other:,.0f}", f"{one / other:.2f}"])
        print(table[-1], flush=True)
    taught, asked = _rows("train"), _rows("test")
    seeds = range(given.seeds)
    base = [textbook(taught, asked, seed) for seed in seeds]
    print("textbook", base, flush=True)
    done = []
    for seed in seeds:
        accuracy, took, facts = ours(taught, asked, seed, given.seconds, {})
        done.append((accuracy, took))
        print(seed, round(accuracy, 4), round(took, 1), facts["architecture"]["widths"], facts["epochs"], facts["precision"], facts["device"], flush=True)
    table.append(["`convnet` against the textbook network, 10 epochs: accuracy", *(
        f"{np.mean([a for a, _ in runs]):.1%} ± {np.std([a for a, _ in runs], ddof=1) if len(runs) > 1 else 0:.1%} in {np.mean([t for _, t in runs]):.0f} s" for runs in (done, base)), ""])
    publish("gpu", f"## On a GPU\n\n`python bench/gpu.py` on one {torch.cuda.get_device_name()}: CIFAR-10, {taught.height:,} rows teach, {asked.height:,} judge, {given.seeds} seeds.",
            ["what", "ours", "against", "ratio"], table)


if __name__ == "__main__":
    main()
