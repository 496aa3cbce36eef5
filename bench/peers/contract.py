"""What every runner shares: the question it is asked and the form in which it hands in its answers. numpy and pandas only.

    python run_NAME.py TRAIN TEST TARGET TASK SECONDS OUT [OPTION]

TRAIN, TEST: parquet; TEST lacks the target. TASK: classify or regress. OUT gets predictions.npy ((n, k) probabilities in the
order of classes.json, or (n,) amounts) and facts.json (fit_s, artefact_mb, single_row_ms, versions, ...).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

LONG_TEXT = 20  # mean characters: above it, and with mostly different values, a string column is free text


@dataclass
class Question:
    train: pd.DataFrame
    test: pd.DataFrame
    target: str
    task: str
    seconds: float
    out: Path
    option: str

    @property
    def x(self) -> pd.DataFrame:
        return self.train.drop(columns=self.target)

    @property
    def y(self) -> pd.Series:
        return self.train[self.target]


def question() -> Question:
    train, test, target, task, seconds, out, *rest = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    return Question(pd.read_parquet(train), pd.read_parquet(test), target, task, float(seconds), Path(out), rest[0] if rest else "")


def single_row_ms(answer: Callable[[pd.DataFrame], object], test: pd.DataFrame, n: int = 200) -> float:
    """Median milliseconds of one answer over n rows, or as many (at least 40) as are answered in 15 s. The one-row frames are made before."""
    rows = [test.iloc[[i % len(test)]] for i in range(n + 10)]
    for row in rows[:10]:
        answer(row)
    taken: list[float] = []
    for row in rows[10:]:
        if len(taken) >= 40 and sum(taken) > 15:
            break
        start = time.perf_counter()
        answer(row)
        taken.append(time.perf_counter() - start)
    return round(float(np.median(taken)) * 1000, 4)


def deliver(q: Question, prediction: np.ndarray, classes: list | None, packages: tuple[str, ...], **facts: object) -> None:
    np.save(q.out / "predictions.npy", np.asarray(prediction, dtype=np.float64), allow_pickle=False)
    (q.out / "classes.json").write_text(json.dumps(None if classes is None else [str(c) for c in classes], ensure_ascii=False), encoding="utf-8")
    versions = {p: version(p) for p in packages}
    (q.out / "facts.json").write_text(json.dumps({"versions": versions, **facts}, ensure_ascii=False, default=str), encoding="utf-8")


def folder_mb(folder: Path) -> float:
    return round(sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20, 4)


def texts(frame: pd.DataFrame) -> list[str]:
    """The free-text columns: mostly different and long, or written without spaces (Chinese) and not a short code."""
    found = []
    for name in frame.select_dtypes("object").columns:
        cells = frame[name].dropna().astype(str)
        wide = chinese(cells)
        if len(cells) and cells.nunique() > 0.5 * len(cells) and cells.str.len().mean() > (6 if wide else LONG_TEXT):
            found.append(name)
    return found


def chinese(cells: pd.Series) -> bool:
    return bool(cells.head(500).str.contains(r"[\u4e00-\u9fff]").mean() > 0.5)


def spaced(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Chinese texts as their overlapping pairs of characters with spaces between, for a peer that looks for words."""
    out = frame.copy()
    for name in columns:
        out[name] = [" ".join(t[i:i + 2] for i in range(max(len(t) - 1, 1))) for t in frame[name].fillna("").astype(str)]
    return out


def dates_read(frame: pd.DataFrame) -> pd.DataFrame:
    """String columns that are dates throughout become datetimes, as anyone would do who looks at the file once."""
    out = frame.copy()
    for name in frame.select_dtypes("object").columns:
        head = frame[name].dropna().astype(str).head(200)
        if len(head) and head.str.fullmatch(r"\d{1,4}[-/]\d{1,2}[-/]\d{1,4}([ T]\d{1,2}:\d{2}(:\d{2})?)?").all():
            out[name] = pd.to_datetime(frame[name], errors="coerce", format="mixed")
    return out
