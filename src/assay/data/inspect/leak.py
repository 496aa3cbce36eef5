"""One column that gives the answer away: a copy, another unit, a noisy copy, the answer under another name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.data.inspect import rest
from assay.data.inspect.base import Finding
from assay.data.inspect.names import tokens
from assay.data.inspect.power import TELLS_ALL, power
from assay.data.inspect.view import Cells, View, ranks
from assay.words import say

# A legitimate column can be nearly perfect too: the hormone that defines a disease leaves 0.03 of the guessing error (annthyroid), petal width
# 0.06 (iris), carat 0.06 of the variance of diamonds' prices. So 'leak' asks for next to nothing left, and for other columns that are far behind.
SUSPECT = {True: 0.12, False: 0.02}  # by labels: what a column may leave and still be looked at
NAMED = 0.06  # what a column may leave to be called the same fact because it is named like the answer
FAR = 5.0  # times the column's error that the other columns together have to leave
_DULL = {"is", "has", "the", "of", "in", "two", "year", "years", "total", "value", "label", "class", "target", "flag", "y", "id", "no", "next", "month", "name"}


@dataclass(frozen=True)
class Leak:
    column: str
    error: float
    exact: bool
    paired: bool


def one_column(view: View, *, apart: set[str], persists: float = 1.0) -> tuple[list[Finding], list[str]]:
    """(findings, the columns that are leaks for certain). apart: columns that are clocks, groups or row numbers, judged elsewhere.

    persists: what the answer of the row before leaves of the variance, in the order of time; 1 where rows are in no order. A lagged
    column of a slow series is no leak because it is close to the answer.
    """
    inputs = [c for c in view.inputs if c.name not in apart and c.levels > 1]
    found = [Leak(c.name, power(c, view).error, copies(c, view), view.labels and len(view.classes) >= 3 and _pairs_off(c, view, mistakes=0.05)) for c in inputs]
    suspects = [leak for leak in found if leak.error <= SUSPECT[view.labels] or leak.exact]
    if not view.labels:
        suspects = [leak for leak in suspects if leak.exact or leak.error < 0.1 * persists]
    if not suspects or len(view) < 40:
        return [], []
    best = {leak.column for leak in suspects if leak.exact or leak.error <= TELLS_ALL[view.labels]}
    easy = len(best) >= 3 and len(best) >= 0.5 * len(inputs)  # most columns answer all by themselves: an easy question, not a leak
    findings, certain = [], []
    left: dict[frozenset[str], float] = {}
    for leak in sorted(suspects, key=lambda leak: leak.error):
        alike = view.labels and leak.error <= NAMED and named_alike(leak.column, view.data.y.name)
        alike |= leak.paired
        without = frozenset(best | {leak.column})  # nearly as good ones stay: where they know it too, the question is easy
        if not leak.exact and without not in left:
            left[without] = 0.0 if easy else rest.error([c for c in inputs if c.name not in without], view)
        others = left.get(without, 1.0)
        if not leak.exact and not alike and others < max(FAR * leak.error, 0.05):
            continue
        sure = leak.exact or alike or leak.error <= TELLS_ALL[view.labels]
        if sure:
            certain.append(leak.column)
        findings.append(_finding(leak, "leak" if sure else "warning", others, view))
    return findings, certain


def copies(cells: Cells, view: View) -> bool:
    """A monotone copy: of an amount, ranks that agree but for rounding; of labels, values and classes that pair off one to one."""
    there = ~cells.missing
    if there.sum() < max(30, 0.5 * len(view)):
        return False
    if view.labels:
        return _pairs_off(cells, view, mistakes=0.0)
    if cells.nominal or cells.levels < 10:
        return False
    a, b = ranks(cells.values[there]), ranks(view.y[there])
    if a.std() == 0 or b.std() == 0:
        return False
    return bool(1 - abs(float(np.corrcoef(a, b)[0, 1])) <= 1e-6)


def _pairs_off(cells: Cells, view: View, *, mistakes: float) -> bool:
    """As many values as classes, and each value goes with a class of its own but for a share of mistakes."""
    y = view.y.astype(np.int64)
    levels, kinds = int(cells.codes.max()) + 1, len(view.classes)
    if levels != kinds or int(np.bincount(y, minlength=kinds).min()) < 5:
        return False
    table = np.bincount(cells.codes * kinds + y, minlength=levels * kinds).reshape(levels, kinds)
    return len(set(table.argmax(axis=1))) == kinds and bool((table.max(axis=1) >= (1 - mistakes) * table.sum(axis=1)).all())


def named_alike(name: str, target: str) -> bool:
    """The two names share a word that means something: is_recid and two_year_recid."""
    return bool((set(tokens(name)) & set(tokens(target))) - _DULL)


def _finding(leak: Leak, level: str, others: float, view: View) -> Finding:
    figure = {"left": round(leak.error, 6), "copy": leak.exact, "rows": len(view), "sampled": not view.whole}
    if not leak.exact:
        figure["left_by_the_others"] = round(others, 4)
    if leak.exact:
        text = say("'{column}' is the answer itself, in other words or another unit: each of its values goes with one value of '{target}'.",
                   column=leak.column, target=view.data.y.name)
    elif leak.paired:
        text = say("'{column}' is the answer itself but for some mistakes: each of its {n} values goes with one value of '{target}', {left:.1f} % of the guessing error are left.",
                   column=leak.column, n=len(view.classes), target=view.data.y.name, left=100 * leak.error)
    elif others < FAR * leak.error:
        text = say("'{column}' is named like '{target}' and alone leaves {left:.1f} % of the guessing error: the same fact, or one that is known later.",
                   column=leak.column, target=view.data.y.name, left=100 * leak.error)
    elif view.labels:
        text = say("'{column}' alone leaves {left:.1f} % of the guessing error, all other columns together {others:.0f} %: it gives '{target}' away.",
                   column=leak.column, left=100 * leak.error, others=100 * others, target=view.data.y.name)
    else:
        text = say("'{column}' alone leaves {left:.2g} % of the variance of '{target}', all other columns together {others:.2g} %: it gives the "
                   "answer away.", column=leak.column, left=100 * leak.error, others=100 * others, target=view.data.y.name)
    if level == "leak":
        advice = say("Leave '{column}' out, unless it is known before '{target}' is: a score built on it is not a result.", column=leak.column, target=view.data.y.name)
    else:
        advice = say("Make sure that '{column}' is known at the moment of the question; if it is not, leave it out.", column=leak.column)
    return Finding("leak", level, text, advice, (leak.column,), figure)
