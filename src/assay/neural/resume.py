"""A training on disk, so that a killed one goes on where it stood: tensors and numbers in one safetensors file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay.neural.recipe import Recipe
from assay.neural.run import Plan, Run, State


class Checkpoint:
    """A run on disk: one safetensors file with its numbers in the header, written beside and renamed."""

    def __init__(self, path: Path | None, recipe: Recipe, seed: int) -> None:
        self.path, self.about = path, json.dumps([asdict(recipe), seed], sort_keys=True)

    def write(self, run: Run, state: State) -> None:
        from safetensors.torch import save_file

        assert self.path is not None
        tensors = {f"network/{k}": v for k, v in run.network.state_dict().items()} | {f"best/{k}": v for k, v in state.kept.items()}
        if run.mean is not None:
            tensors |= {f"mean/{k}": v for k, v in run.mean.state_dict().items()}
        for i, optimizer in enumerate(run.optimizers):
            for j, own in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{i}/{j}/{k}": v for k, v in own.items() if hasattr(v, "shape") and v is not None}
        numbers = {k: v for k, v in vars(state).items() if k not in ("kept", "plan")} | {"plan": vars(state.plan), "about": self.about}
        if run.scaler:
            numbers["scaler"] = run.scaler.state_dict()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".tmp")
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial, metadata={"numbers": json.dumps(numbers)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(self.path)

    def read(self, run: Run) -> State | None:
        """Puts the weights and optimizers back; None if there is no checkpoint, or it is of another recipe or seed."""
        from safetensors import safe_open

        if self.path is None or not self.path.exists():
            return None
        with safe_open(self.path, framework="pt", device=run.device) as file:
            numbers = json.loads(file.metadata()["numbers"])
            if numbers.pop("about") != self.about:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        part = {kind: {k.removeprefix(f"{kind}/"): v for k, v in tensors.items() if k.startswith(f"{kind}/")} for kind in ("network", "best", "mean")}
        run.network.load_state_dict(part["network"])
        if run.mean is not None:
            run.mean.load_state_dict(part["mean"])
        for i, optimizer in enumerate(run.optimizers):
            own: dict[int, dict[str, Any]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimizer/{i}/"):
                    j, key = name.split("/")[2:]
                    own.setdefault(int(j), {})[key] = value
            optimizer.load_state_dict(optimizer.state_dict() | {"state": own})
        if run.scaler and "scaler" in numbers:
            run.scaler.load_state_dict(numbers.pop("scaler"))
        numbers.pop("scaler", None)
        return State(**(numbers | {"plan": Plan(**numbers["plan"]), "kept": {k: v.cpu() for k, v in part["best"].items()}}))
