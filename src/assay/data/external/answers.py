"""What a table of answers says: labels, probabilities or amounts, whatever its columns are called.

Known layouts: assay's own (`answer`, `p(label)`), pandas and AutoGluon (a column a class), scikit-learn's `predict_proba`
(columns 0, 1, ... in the order of the sorted labels), H2O (`predict`, `pLABEL`), tidymodels (`.pred_class`, `.pred_LABEL`),
PyCaret (`prediction_label`, `prediction_score`), and one probability column for two classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from assay.data.values import labels as as_labels
from assay.data.values import numbers
from assay.errors import InputError
from assay.words import Text, say

ANSWER = ("answer", "prediction", "predictions", "predicted", "pred", "y_pred", "yhat", "y_hat", "predict", "prediction_label",
          "predicted_label", "predicted_class", ".pred_class", ".pred", "label", "class", "output", "result", "response")
SURENESS = ("probability", "confidence", "prediction_score", "proba", "prob", "predicted_probability")  # beside an answer: how sure it is
ALONE = (*SURENESS, "p", "score", "p1", "prediction", "predictions", "predicted", "pred", "answer", "y_pred", "predict", "output", ".pred")
SPELT = ("p({})", "prob_{}", "proba_{}", "probability_{}", "p_{}", "p{}", "probability({})", "prob({})", ".pred_{}", "{}")
NOT_AN_ANSWER = re.compile(r"(?:column_\d+|unnamed: ?\d+|index|row|__index_level_\d+__)$", re.IGNORECASE)
POSITIVE = {"1", "true", "t", "yes", "y", "positive", "pos", "是", "有", "阳性"}
NEGATIVE = {"0", "-1", "false", "f", "no", "n", "negative", "neg", "否", "无", "阴性"}
SLACK = 0.05  # probabilities that sum to 1 within this are renormalised (rounded figures); further out they are something else


@dataclass(frozen=True)
class Answers:
    """kind 'labels': values (n, 1), class codes. 'amounts': (n, 1). 'probabilities': (n, k). A row of NaN has no answer.

    facts: JSON-ready, what was decided on the way (which columns, how many rows were renormalised, which class a lone
    probability belongs to).
    """

    kind: str
    values: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def absent(self) -> np.ndarray:
        """Rows without an answer, bool (n,)."""
        return np.isnan(self.values).any(axis=1)

    def take(self, rows: np.ndarray) -> Answers:
        """These rows; -1 is a row without an answer."""
        values = self.values[rows]
        values[rows < 0] = np.nan
        return replace(self, values=values)

    def complete(self, source: Text | str, name: Callable[[int], Text | str] = lambda at: say("row {row:,}", row=at + 1)) -> Answers:
        """Itself if every row has an answer; else InputError that says how many have none and which is the first, by its name."""
        if not (absent := self.absent).any():
            return self
        raise InputError("{source} has no usable answer for {missing:,} of {rows:,} rows; the first of them is {first}.", source=source,
                         missing=int(absent.sum()), rows=len(self), first=name(int(absent.argmax())))


def understood(frame: pl.DataFrame, *, labels: tuple[str, ...] | None, target: str, source: Text | str, skip: set[str] | None = None) -> Answers:
    """The answers in `frame`, one a row.

    labels: the classes in code order, as `data.values.labels` writes them; None asks for amounts. source: how sentences name
    the table. skip: columns that are no answers (an id, the data's own columns). Raises InputError naming the row (from 1).
    """
    skip = set() if labels and set(labels) <= set(frame.columns) else skip or set()  # a column a class, one perhaps called as a feature is
    columns = [c for c in frame.columns if c not in skip and frame[c].dtype != pl.Null]
    if labels is None:
        name = _answer_column(columns, target)
        return _amounts(frame[name], source) if name else _no_answer(frame, source, None)
    named = _probability_columns(columns, labels, target)
    if named:
        return _probabilities(frame, named, labels, source)
    name = _answer_column(columns, target)
    if name is None:
        alone = [c for c in columns if c.casefold() in ALONE]
        return _lone(frame[alone[0]], labels, source) if len(labels) == 2 and len(alone) == 1 else _no_answer(frame, source, labels)
    if len(labels) == 2 and _is_share(frame[name], labels):
        return _lone(frame[name], labels, source)
    said = Answers("labels", _codes(frame[name], labels, source)[:, None], {"columns": [name]})
    sureness = next((c for c in columns if c.casefold() in SURENESS and c != name), None)
    return said if sureness is None else _with_sureness(said, frame[sureness], labels, source)


def label_texts(classes: tuple[Any, ...]) -> tuple[str, ...]:
    """Class labels as `data.values.labels` writes them, so that 1, 1.0 and '1' are one label."""
    return tuple(as_labels(pl.Series(list(classes))).to_list())


def flatters(known: np.ndarray, unseen: np.ndarray) -> bool:
    """Whether losses on rows that a model may have learnt from are far lower than those on rows it cannot have seen.

    known, unseen: losses a row, of one model. True if the mean differs by a factor of 1.5 and by 3 standard errors.
    """
    if len(known) < 10 or len(unseen) < 10:
        return False
    gap = unseen.mean() - known.mean()
    error = np.sqrt(unseen.var(ddof=1) / len(unseen) + known.var(ddof=1) / len(known))
    return bool(unseen.mean() > 1.5 * known.mean() and gap > 3 * error)


# ---- which column


def _answer_column(columns: list[str], target: str) -> str | None:
    folded = {c.casefold().strip(): c for c in reversed(columns)}
    wanted = target.casefold().strip()
    for name in (*ANSWER, f"predicted_{wanted}", f"{wanted}_pred", f"{wanted}_predicted", f"{wanted}_prediction", f"pred_{wanted}", wanted):
        if name in folded:
            return folded[name]
    left = [c for c in columns if not NOT_AN_ANSWER.match(c.strip()) and c.casefold() not in ALONE]
    return left[0] if len(left) == 1 else None


def _probability_columns(columns: list[str], labels: tuple[str, ...], target: str) -> dict[int, str] | None:
    """{code: column} under the spelling that names most classes, if it names enough of them."""
    folded = {c.casefold().strip(): c for c in reversed(columns)}
    best: dict[int, str] = {}
    for spelt in (*SPELT, f"{target}_{{}}", f"{target}_prob_{{}}"):
        found = {code: folded[name] for code, label in enumerate(labels) if (name := spelt.replace("{}", label).casefold().strip()) in folded}
        if len(found) > len(best):
            best = found
    if len(best) > 1 or (len(best) == 1 and len(labels) == 2):
        return best
    counted = {code: folded[str(code)] for code in range(len(labels)) if str(code) in folded}
    return counted if len(counted) == len(labels) and str(len(labels)) not in folded else None


def _no_answer(frame: pl.DataFrame, source: Text | str, labels: tuple[str, ...] | None) -> Answers:
    if labels is None:
        raise InputError("{source} has the columns {columns}, and it is not clear which is the answer. Call it 'answer'.", source=source,
                         columns=frame.columns[:20])
    if len(labels) == 2 and any(c.casefold() in ALONE for c in frame.columns):
        raise InputError("{source} has probabilities, but it is not clear of which of the labels {labels}. Call the column '{example}'.",
                         source=source, labels=list(labels), example=f"p({labels[1]})")
    raise InputError("{source} has the columns {columns}, and it is not clear which is the answer. Call it 'answer', or name probabilities "
                     "by their label, such as '{example}'.", source=source, columns=frame.columns[:20], example=f"p({labels[-1]})")


# ---- what its cells say


def _amounts(cells: pl.Series, source: Text | str) -> Answers:
    values = _numbers(cells, source)
    endless = np.isinf(values)
    if endless.any():
        raise InputError("{source}, row {row}: the answer is infinite.", source=source, row=int(endless.argmax()) + 1)
    return Answers("amounts", values[:, None], {"columns": [cells.name]})


def _numbers(cells: pl.Series, source: Text | str) -> np.ndarray:
    """Float64 (n,), NaN where there is no number. Raises InputError where there is something else."""
    if cells.dtype.is_numeric() or cells.dtype == pl.Boolean or cells.dtype.is_decimal():
        return cells.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    parsed = numbers(cells.cast(pl.String))
    if parsed.bad is not None:
        raise InputError("{source}, row {row}: '{value}' in column '{name}' is no number.", source=source, row=parsed.bad + 1,
                         value=str(cells[parsed.bad])[:60], name=cells.name)
    return parsed.values.fill_null(float("nan")).to_numpy().copy()


def _codes(cells: pl.Series, labels: tuple[str, ...], source: Text | str) -> np.ndarray:
    """Class codes as float (n,), NaN for an empty cell. Raises InputError for a label that does not exist."""
    if cells.dtype.is_float():
        cells = cells.fill_nan(None)
    text = as_labels(cells)
    codes = {label: float(code) for code, label in enumerate(labels)}
    for value in text.unique().drop_nulls().to_list():
        if value not in codes:
            like = [code for label, code in codes.items() if label.casefold() == value.casefold()] or _truth_value(value, labels)
            if len(set(like)) != 1:
                wrong = (text == value).fill_null(False)
                raise InputError("{source}, row {row}: '{value}' is no label of this target ({n:,} rows say so). Its labels are: {labels}.", source=source,
                                 row=int(wrong.arg_max() or 0) + 1, value=value[:60], n=int(wrong.sum()), labels=list(labels[:20]))
            codes[value] = like[0]
    return text.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.Float64).fill_null(float("nan")).to_numpy().copy()


def _truth_value(value: str, labels: tuple[str, ...]) -> list[float]:
    """True and False are 1 and 0, where those are the labels, and the other way round."""
    twin = {"0": "false", "1": "true", "false": "0", "true": "1"}.get(value.casefold(), "")
    return [float(code) for code, label in enumerate(labels) if label.casefold() == twin] if len(labels) == 2 else []


def _is_share(cells: pl.Series, labels: tuple[str, ...]) -> bool:
    """Numbers from 0 to 1 that are not all labels: a probability."""
    if not cells.dtype.is_float():
        return False
    known = cells.fill_nan(None).drop_nulls()
    return len(known) > 0 and bool(known.is_between(0, 1).all()) and not bool(as_labels(known).is_in(list(labels)).all()) \
        and not bool(known.is_in([0.0, 1.0]).all())


def _positive(labels: tuple[str, ...]) -> int | None:
    """The code of the class that a lone probability is about, if the labels' words tell."""
    says = [[label.casefold() in words for label in labels] for words in (POSITIVE, NEGATIVE)]
    if sum(says[0]) == 1:
        return says[0].index(True)
    return says[1].index(False) if sum(says[1]) == 1 else None


def _lone(cells: pl.Series, labels: tuple[str, ...], source: Text | str) -> Answers:
    code = _positive(labels)
    if code is None:
        raise InputError("{source} has probabilities, but it is not clear of which of the labels {labels}. Call the column '{example}'.",
                         source=source, labels=list(labels), example=f"p({labels[1]})")
    return _probabilities(cells.to_frame(), {code: cells.name}, labels, source)


def _probabilities(frame: pl.DataFrame, named: dict[int, str], labels: tuple[str, ...], source: Text | str) -> Answers:
    values = np.zeros((frame.height, len(labels)))
    for code, name in named.items():
        values[:, code] = _numbers(frame[name], source)
    facts: dict[str, Any] = {"columns": list(named.values())}
    if len(named) == 1:  # of two classes: the other has the rest
        code = next(iter(named))
        facts["positive"] = labels[code]
        scale = 100.0 if np.nanmax(values[:, code], initial=0.0) > 1 + SLACK else 1.0
        values[:, 1 - code] = scale - values[:, code]
    elif len(named) < len(labels):
        facts["classes_without_column"] = [label for code, label in enumerate(labels) if code not in named]
    return Answers("probabilities", _normal(values, source, facts).astype(np.float32), facts)


def _normal(values: np.ndarray, source: Text | str, facts: dict[str, Any]) -> np.ndarray:
    """Rows that sum to 1; a row with a gap stays NaN. Raises InputError where the numbers are no probabilities."""
    values[np.isnan(values).any(axis=1)] = np.nan
    known = ~np.isnan(values[:, 0])
    if known.any() and 100 * (1 - SLACK) < np.median(values[known].sum(axis=1)) < 100 * (1 + SLACK):
        values = values / 100
        facts["percent"] = True
    bad = known & ((values < -1e-6) | (values > 1 + SLACK)).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise InputError("{source}, row {row}: {value:g} is no probability.", source=source, row=row + 1,
                         value=float(values[row][np.abs(values[row] - 0.5).argmax()]))
    total = values.sum(axis=1)
    off = known & (np.abs(total - 1) > SLACK)
    if off.any():
        row = int(off.argmax())
        raise InputError("{source}, row {row}: the probabilities sum to {total:.3g}, not to 1 ({n:,} rows do so).", source=source, row=row + 1,
                         total=float(total[row]), n=int(off.sum()))
    if rounded := int((known & (np.abs(total - 1) > 1e-3)).sum()):
        facts["renormalised"] = rounded
    values = np.maximum(values, 0)
    return values / values.sum(axis=1, keepdims=True)


def _with_sureness(said: Answers, cells: pl.Series, labels: tuple[str, ...], source: Text | str) -> Answers:
    """A label and one probability beside it: of the label that was said, or, of two classes, of the positive one."""
    p, codes, k = _numbers(cells, source), said.values[:, 0], len(labels)
    known = ~(np.isnan(p) | np.isnan(codes))
    facts = said.facts | {"columns": [*said.facts["columns"], cells.name]}
    if ((p[known] < 0) | (p[known] > 1)).any():
        return said  # a score of another scale: the label alone counts
    if k == 2 and (p[known] < 0.5 - 1e-9).any():
        sides = [p[known & (codes == c)] for c in (0, 1)]
        code = next((c for c in (0, 1) if len(sides[0]) and len(sides[1]) and sides[c].min() >= sides[1 - c].max()), None)
        if code is None:
            raise InputError("{source}: it is not clear whether '{name}' is the probability of the answer or of one label. Call it '{example}'.",
                             source=source, name=cells.name, example=f"p({labels[1]})")
        p, codes = np.where(known, p, np.nan), np.where(known, code, np.nan)
        facts["positive"] = labels[code]
    values = np.repeat(((1 - p) / (k - 1))[:, None], k, axis=1)
    rows = np.flatnonzero(known)
    values[rows, codes[rows].astype(int)] = p[rows]
    values[~known] = np.nan
    return Answers("probabilities", values.astype(np.float32), facts)


# ---- answers that came as JSON


def table_of(answers: list[Any], labels: tuple[str, ...] | None) -> pl.DataFrame:
    """Answers as a server sends them, one a row: 'label', 1.5, {label: probability}, or {'answer': ..., 'p(label)': ...}.

    A class that {label: probability} leaves out has probability 0; nested objects are opened. A list of as many numbers as
    there are classes is taken in the order of the sorted labels, as `predict_proba` has them.
    """
    rows: list[dict[str, Any]] = []
    for answer in answers:
        row: dict[str, Any] = {}
        if isinstance(answer, list) and len(answer) == len(labels or ()):
            answer = dict(zip(labels or (), answer, strict=True))
        for key, value in answer.items() if isinstance(answer, dict) else [("answer", answer)]:
            row |= {str(k): v for k, v in value.items()} if isinstance(value, dict) else {str(key): value}
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    classes = {name for name in names if name in (labels or ())}
    cells = {name: [row.get(name, 0.0 if name in classes and classes & row.keys() else None) for row in rows] for name in names}
    return pl.DataFrame({name: _cells(name, values) for name, values in cells.items()})


def _cells(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(v) for v in values if v is not None}
    if kinds == {bool}:
        return pl.Series(name, values, dtype=pl.Boolean)
    if kinds <= {int, float} and all(isinstance(v, float) or abs(v) < 2**53 for v in values if v is not None):
        return pl.Series(name, values, dtype=pl.Float64)
    return pl.Series(name, [None if v is None else str(v) for v in values], dtype=pl.String)
