"""Data-parallel training: several processes, each with a copy of the network and a part of every batch, their gradients averaged."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from assay.neural.loop import Trained, train
from assay.neural.recipe import Recipe
from assay.neural.rows import Aim, Rows


def train_parallel(
    build: Callable[[], Any], taught: Rows, held: Rows, aim: Aim, recipe: Recipe, *, seed: int, processes: int = 2, **more: Any,
) -> tuple[dict[str, Any], Trained]:
    """`loop.train` on several processes of this machine, over gloo, or nccl where every process has a GPU of its own.

    build: makes the network, with the same weights in every process; it and the rows must be picklable (a functools.partial of
    a function of a module). A step's batch is that of the recipe, split among the processes. more: as `loop.train`.
    Returns the best weights by name, and what the first process saw.
    """
    import torch

    context = torch.multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    port = _free_port()
    workers = [context.Process(target=_work, args=(rank, processes, port, told, build, taught, held, aim, recipe, seed, more), daemon=True) for rank in range(processes)]
    for worker in workers:
        worker.start()
    try:
        while told.empty():
            for worker in workers:
                worker.join(0.05)
                if worker.exitcode not in (None, 0):
                    raise RuntimeError(f"a training process ended with code {worker.exitcode}")
        weights, made = told.get()
    finally:
        for worker in workers:
            worker.join(5)
            if worker.is_alive():
                worker.terminate()
    return {name: torch.from_numpy(array) for name, array in weights.items()}, made


def _work(rank: int, processes: int, port: int, told: Any, build: Callable[[], Any], taught: Rows, held: Rows, aim: Aim, recipe: Recipe, seed: int,
          more: dict[str, Any]) -> None:
    import torch

    gpus = torch.cuda.device_count()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes) if hasattr(os, "sched_getaffinity") else 1)
    torch.distributed.init_process_group("nccl" if gpus >= processes else "gloo", rank=rank, world_size=processes)
    device = f"cuda:{rank}" if gpus >= processes else "cpu"
    network = build()
    made = train(network, taught, held, aim, recipe, seed=seed, device=device, **more)
    if rank == 0:
        told.put(({name: value.numpy() for name, value in network.state_dict().items()}, made))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
