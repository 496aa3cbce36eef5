"""Do some rows come from elsewhere? A quick model tries to tell the first from the last, or the train from the test rows."""

from __future__ import annotations

import numpy as np

from assay.data.inspect.base import Finding
from assay.data.inspect.names import calendar_part, names_a_fold, names_a_unit
from assay.data.inspect.quick import out_of_fold, telling
from assay.data.inspect.view import Cells, View, ranks
from assay.words import say

ROWS = 4000
APART = 0.8  # area under the ROC curve; on shuffled rows 0.5, with an error of 0.01 at 4,000 rows
TRAIN, TEST = {"train", "training", "fit", "训练", "训练集"}, {"test", "testing", "valid", "validation", "val", "dev", "eval", "测试", "测试集", "验证", "验证集"}


def shift(view: View, *, apart: set[str], in_time: bool, skip_order: bool) -> list[Finding]:
    """in_time: the rows of `view` stand in the order of time. skip_order: the file is sorted by answer or group, so its last rows are unlike for that reason."""
    out = []
    for cells in view.cells.values():
        if names_a_fold(cells.name) and cells.nominal and 2 <= cells.levels <= 3:
            values = view.frame[cells.name].str.to_lowercase().to_list()
            late = np.array([v in TEST for v in values])
            if late.any() and all(v in TRAIN | TEST for v in values if v is not None):
                out += _told(view, late, apart | {cells.name}, cells.name, in_time)
    if not skip_order and len(view) >= 200:
        out += _told(view, np.arange(len(view)) >= 0.8 * len(view), apart, None, in_time)
    return out


def _told(view: View, late: np.ndarray, apart: set[str], column: str | None, in_time: bool) -> list[Finding]:
    rng = np.random.default_rng(view.seed)
    rows = np.sort(rng.choice(len(view), min(len(view), ROWS), replace=False))
    mark = late[rows].astype(np.float64)
    inputs = [c.of(rows) for c in view.inputs if _says_where(c, apart)]
    if not inputs or mark.sum() < 20 or (1 - mark).sum() < 20:
        return []
    y = mark[:, None]
    told = out_of_fold(telling(inputs, y), y, rng.integers(0, 5, len(rows)))[:, 0]
    single = sorted(((abs(auc(mark, _score(c, mark)) - 0.5), c.name) for c in inputs), reverse=True)
    area = max(auc(mark, told), 0.5 + single[0][0])  # few rows: one column can tell more than a model of all
    if area < APART:
        return []
    names = [n for a, n in single[:3] if a >= 0.1] or [single[0][1]]
    figure = {"auc": round(area, 4), "most": {n: round(0.5 + a, 4) for a, n in single[:5]}, "rows": len(rows), "sampled": len(rows) < len(view.data)}
    if column:
        text = say("The rows that '{column}' calls test are unlike those it calls train: a quick model tells them apart with an area under the curve of {auc:.2f} "
                   "(0.5: alike), most by {names}.", column=column, auc=area, names=names)
    elif in_time:
        text = say("The latest fifth of the rows is unlike the earlier ones: a quick model tells them apart with an area under the curve of {auc:.2f} (0.5: alike), "
                   "most by {names}.", auc=area, names=names)
    else:
        text = say("The last fifth of the file is unlike the rest: a quick model tells them apart with an area under the curve of {auc:.2f} (0.5: alike), most by "
                   "{names}.", auc=area, names=names)
    advice = say("What was learnt on one part may not hold on the other. Find out what changed; judge on rows like those to come.")
    return [Finding("shift", "warning" if column else "note", text, advice, tuple(names), figure)]


def _says_where(cells: Cells, apart: set[str]) -> bool:
    """An input that can differ between parts of a table for a reason that matters: no key, no clock, no name of the part itself."""
    return cells.name not in apart and cells.levels > 1 and names_a_unit(cells.name) <= 0 and calendar_part(cells.name) is None and not names_a_fold(cells.name)


def _score(cells: Cells, mark: np.ndarray) -> np.ndarray:
    """A column as a score: its values, or for labels the share of late rows among the others of that label."""
    if not cells.nominal:
        return np.nan_to_num(cells.values, nan=-np.inf) if cells.missing.any() else cells.values
    half = np.random.default_rng(len(mark)).random(len(mark)) < 0.5
    told = np.empty(len(mark))
    for side in (half, ~half):  # shares are learnt on one half and used on the other, or a label would know its own row
        counts = np.bincount(cells.codes[side], minlength=cells.codes.max() + 1)
        sums = np.bincount(cells.codes[side], weights=mark[side], minlength=cells.codes.max() + 1)
        told[~side] = ((sums + mark.mean()) / (counts + 1))[cells.codes[~side]]
    return told


def auc(mark: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of a score for a 0-1 mark, shape (n,), ties shared (Mann-Whitney)."""
    up = float(mark.sum())
    down = len(mark) - up
    if not up or not down:
        return 0.5
    place = ranks(score) * (len(score) - 1)
    return float((place[mark > 0].sum() - up * (up - 1) / 2) / (up * down))
