"""The contract of a task. A new task is one file beside this one; `tests/test_tasks.py` finds it unasked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import polars as pl

from assay.data.dataset import Column, Dataset, Schema
from assay.data.split import Split, holdout
from assay.words import Text


class Task(ABC):
    """A question of one shape. An instance is frozen to one dataset's answers (its classes, its unit) and one loss."""

    name: ClassVar[str]
    losses_known: ClassVar[tuple[str, ...]]  # the first is the default
    by_rows: ClassVar[bool] = True  # fewer rows teach less: settings can be searched on a part of them, and learning curves drawn
    loss: str

    @classmethod
    @abstractmethod
    def refuses(cls, data: Dataset) -> Text | None:
        """None if this question can be asked of `data`, else the reason as a sentence."""

    @classmethod
    @abstractmethod
    def of(cls, data: Dataset, **options: Any) -> Task:
        """The task for these answers. options: `loss` and what the loss needs. Raises TaskError."""

    @abstractmethod
    def truth(self, data: Dataset) -> np.ndarray:
        """The answers as numbers, shape (n,): class codes or amounts."""

    @abstractmethod
    def losses(self, train: Dataset, test: Dataset, prediction: np.ndarray) -> np.ndarray:
        """Loss of every test row, shape (n_test,), lower is better. Per row, so that candidates can be paired."""

    @abstractmethod
    def metrics(
        self, train: Dataset, test: Dataset, prediction: np.ndarray, weight: np.ndarray | None = None
    ) -> dict[str, float]:
        """What the field reports. weight: shape (n_test,), row weights, so that a metric can be bootstrapped."""

    @abstractmethod
    def calibration(self, truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
        """What to correct, learnt from predictions on rows the model did not see. JSON-ready; {} means nothing."""

    @abstractmethod
    def calibrated(self, prediction: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
        """The model's prediction, corrected. Shape in: what models return; shape out: what `losses` takes."""

    @abstractmethod
    def answers(self, prediction: np.ndarray) -> pl.DataFrame:
        """The calibrated prediction as the columns a user reads."""

    def table(self, prediction: np.ndarray, asked: Dataset) -> pl.DataFrame:
        """The calibrated prediction as the table that is handed out; a row asked may have several rows in it."""
        return self.answers(prediction)

    def perfect(self, truth: np.ndarray) -> np.ndarray:
        """The raw prediction, (n, width), of who knows the truth."""
        return np.eye(self.width)[truth] if self.width > 1 else truth[:, None]

    def splits(self, data: Dataset) -> list[Split] | None:
        """The splits that the question itself brings, None where they follow from the data's structure."""
        return None

    def holdout(self, train: Dataset, *, share: float, seed: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(rest, held) row numbers of training rows: what validates is held out."""
        return holdout(train, share=share, seed=seed, strata=self.strata(train), most=most)

    @abstractmethod
    def strata(self, data: Dataset) -> np.ndarray | None:
        """Codes (n,) whose shares a random split keeps, or None."""

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """All that `from_json` needs to build this task again."""

    @classmethod
    @abstractmethod
    def from_json(cls, packed: dict[str, Any]) -> Task: ...

    @classmethod
    @abstractmethod
    def example(cls, seed: int = 0) -> Dataset:
        """60 to 200 rows of every column kind, on which each candidate of the task is checked."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Columns of a model's raw prediction: the number of classes, or 1."""


def schema_of(columns: dict[str, str], **roles: Any) -> Schema:
    """A schema from {name: kind}, for examples and tests."""
    return Schema(
        tuple(Column(n, k, language="en" if k == "text" else None) for n, k in columns.items()), **roles
    )
