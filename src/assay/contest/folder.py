"""A run's folder: everything a finished, broken or resumed run needs is a file here. Layout: docs/run-folder.md."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.data import split as splitting
from assay.data.dataset import Dataset, Schema
from assay.data.disk import Shelf, mapped, stored
from assay.data.split import Split
from assay.errors import InputError
from assay.tasks import find
from assay.tasks.base import Task
from assay.words import Text


@dataclass(frozen=True)
class Trial:
    """One candidate on one split. status: done, failed or refused; the two last carry their reason.

    loss, valid_loss: means over test rows, and over rows held out of train. cost: see `contest.cost.Cost`.
    family: its name in the registry, if it is not `candidate`. repeat: 0, or the number of the repetition under another
    seed. share: of the training rows it might learn from (a point of a learning curve if below 1). blind: kinds of
    columns that were hidden from it (an ablation).
    """

    candidate: str
    rung: str
    split: int
    status: str
    seed: int
    reason: Text | None = None
    train_rows: int = 0
    rows_used: int = 0
    test_rows: int = 0
    loss: float | None = None
    valid_loss: float | None = None
    seconds: float = 0.0
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    version: str = ""
    family: str = ""
    repeat: int = 0
    share: float = 1.0
    blind: tuple[str, ...] = ()

    @property
    def contest(self) -> bool:
        """Does it stand in the scoreboard: all rows, all columns, the first seed?"""
        return self.repeat == 0 and self.whole

    @property
    def whole(self) -> bool:
        """All training rows and all columns, whatever the seed."""
        return self.share == 1.0 and not self.blind

    @property
    def key(self) -> str:
        """Unique in a run; the stem of its files."""
        return "".join((f"{self.candidate}.{self.split}", f".r{self.repeat}" if self.repeat else "",
                        f".n{self.share:g}" if self.share < 1 else "", f".without-{'-'.join(self.blind)}" if self.blind else ""))

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"reason": self.reason.json() if self.reason else None}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Trial:
        return cls(**packed | {"reason": Text.of(packed["reason"]) if packed["reason"] else None, "blind": tuple(packed.get("blind", ()))})


@dataclass(frozen=True)
class Folder:
    """Paths and the few ways to write them so that a kill at any moment leaves no half file."""

    path: Path

    @property
    def case_file(self) -> Path:
        return self.path / "case.json"

    @property
    def data_file(self) -> Path:
        return self.path / "data.arrow"

    @property
    def columns(self) -> Path:
        """In place of `data_file` where the table is large: a file a column."""
        return self.path / "data"

    @property
    def rows_file(self) -> Path:
        """The number of each row in the file that was read."""
        return self.path / "rows.npy"

    @property
    def splits_file(self) -> Path:
        return self.path / "splits.npz"

    @property
    def trials_file(self) -> Path:
        return self.path / "trials.jsonl"

    @property
    def verdict_file(self) -> Path:
        return self.path / "verdict.json"

    def prediction_file(self, key: str) -> Path:
        return self.path / "predictions" / f"{key}.npy"

    def validation_file(self, key: str) -> Path:
        """npz of `rows` (row numbers of the dataset) and `prediction` (raw, as the model gave it)."""
        return self.path / "predictions" / f"{key}.valid.npz"

    def model_folder(self, key: str) -> Path:
        """`model/` (what the model dumped) and `calibration.json`."""
        return self.path / "models" / key

    def checkpoints(self, key: str) -> Path:
        """Where the fits of a trial keep what a resumed one can go on from; gone once the trial's result is there."""
        return self.path / "checkpoints" / key

    def clean(self) -> None:
        """Take away what only a contest that goes on would need: decoded cells and checkpoints."""
        for name in ("cache", "checkpoints"):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def begin(self, case: Case, task: Task, data: Dataset, splits: list[Split], about: dict[str, Any], shelf: Shelf | None = None) -> None:
        """Write what every child reads. The case file comes last: a folder without it never began. shelf: what holds the columns on disk already."""
        for name in ("predictions", "models", "logs"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        if shelf is not None:
            shelf.keep(data.frame, self.columns)
        else:
            data.frame.write_ipc(self.data_file.with_suffix(".tmp"), compression="uncompressed")
            self.data_file.with_suffix(".tmp").replace(self.data_file)
        shutil.rmtree(self.path / "columns", ignore_errors=True)  # links of what is kept, or of what is needed no more
        splitting.save(splits, self.splits_file)
        if data.rows is not None:
            np.save(self.rows_file, data.rows)
        packed = {"case": case.json(), "task": task.json(), "schema": data.schema.json(), "fingerprint": data.fingerprint,
                  "rows": len(data), **about}
        write_json(self.case_file, packed)

    def about(self) -> dict[str, Any]:
        if not self.case_file.exists():
            raise InputError("'{path}' is not the folder of an assay run: it holds no case.json.", path=str(self.path))
        return json.loads(self.case_file.read_text(encoding="utf-8"))

    def open(self) -> tuple[Case, Task, Dataset, list[Split], dict[str, Any]]:
        """The case, task, data (memory-mapped), splits and all else that `begin` wrote."""
        about = self.about()
        case = Case.of(about["case"])
        task = find(about["task"]["task"]).from_json(about["task"])
        rows = np.load(self.rows_file, mmap_mode="r", allow_pickle=False) if self.rows_file.exists() else None
        data = Dataset(stored(self.columns) if self.columns.is_dir() else mapped(self.data_file), Schema.of(about["schema"]), rows)
        return case, task, data, splitting.load(self.splits_file), about

    def append(self, trial: Trial) -> None:
        """One line, on disk before this returns. A torn line that a kill left behind is cut off first."""
        line = json.dumps(trial.json(), ensure_ascii=False, allow_nan=True) + "\n"
        with self.trials_file.open("ab+") as sink:
            end = sink.seek(0, os.SEEK_END)
            if end:
                sink.seek(end - 1)
                if sink.read(1) != b"\n":
                    sink.seek(0)
                    sink.truncate(sink.read().rfind(b"\n") + 1)
            sink.write(line.encode())
            sink.flush()
            os.fsync(sink.fileno())

    def trials(self) -> list[Trial]:
        """Every finished trial; a torn last line is left out."""
        if not self.trials_file.exists():
            return []
        out = []
        for line in self.trials_file.read_bytes().split(b"\n"):
            try:
                out.append(Trial.of(json.loads(line)))
            except ValueError:
                continue
        return out

    def prediction(self, trial: Trial) -> np.ndarray:
        return np.load(self.prediction_file(trial.key), allow_pickle=False)

    def validation(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        """(row numbers, raw predictions) of the rows that this trial held out of train."""
        with np.load(self.validation_file(trial.key), allow_pickle=False) as saved:
            return saved["rows"], saved["prediction"]


def write_json(path: Path, packed: Any) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("w", encoding="utf-8") as sink:
            json.dump(packed, sink, ensure_ascii=False, indent=1)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
