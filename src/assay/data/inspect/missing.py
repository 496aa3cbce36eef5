"""Empty cells that tell: missingness that depends on the answer, and constants that were filled in by it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from assay.data.inspect import rest
from assay.data.inspect.base import Finding
from assay.data.inspect.view import Cells, View
from assay.words import Text, say

# Share of the answer's variance that knowing 'is it empty' explains. On 30 clean sets the largest was 0.03 for labels (tox21) and 0.16 for
# amounts (ames: no veneer is a fact, not a gap).
TELLS = {True: 0.05, False: 0.1}
STRONG = {True: 0.15, False: 0.25}
LEAK, CERTAIN = 0.6, 0.8  # from LEAK on if the other columns are far behind, from CERTAIN on in any case
_NOTHING = {-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0}
SURE = 30.0  # explained x rows: the chi-square with one degree of freedom, about 5.5 standard errors


def tells(view: View, *, apart: set[str]) -> list[Finding]:
    """Missingness first, then filled-in constants."""
    return [*_empty_cells(view, apart), *_constants(view, apart)]


def explained(mark: np.ndarray, view: View) -> float:
    """Share of the answer's variance, 0-1, that a yes-or-no mark (n,) explains: Cramer's V squared, or r squared of the ranks."""
    y = view.numeric_y
    share = float(mark.mean())
    if not 0 < share < 1:
        return 0.0
    mean = y.mean(axis=0)
    moved = y[mark].mean(axis=0) - mean
    between = moved**2 * share / (1 - share)
    if not view.labels:
        return float(between[0] / max(y.var(), 1e-12))
    seen = mean > 0
    return float((between[seen] / mean[seen]).sum())


def _empty_cells(view: View, apart: set[str]) -> list[Finding]:
    told: dict[str, tuple[float, Cells]] = {}
    for cells in view.cells.values():
        if cells.name in apart or cells.column.kind == "id" or not 10 <= int(cells.missing.sum()) <= len(view) - 10:
            continue
        share = explained(cells.missing, view)
        if share >= TELLS[view.labels] and share * len(view) >= SURE:
            told[cells.name] = share, cells
    out = []
    certain = [n for n, (share, _) in told.items() if share >= LEAK]
    top = max((told[n][0] for n in certain), default=0.0)
    if top >= CERTAIN or (certain and rest.error([c for c in view.inputs if c.name not in told and c.name not in apart], view) >= 3 * (1 - top)):
        out.append(_finding(view, "leak", certain, told))
        told = {n: v for n, v in told.items() if n not in certain}
    strong = [n for n, (share, _) in told.items() if share >= STRONG[view.labels]]
    weak = [n for n in told if n not in strong]
    return out + [_finding(view, level, names, told) for level, names in (("warning", strong), ("note", weak)) if names]


def _finding(view: View, level: str, names: list[str], told: dict[str, tuple[float, Cells]]) -> Finding:
    names = sorted(names, key=lambda n: -told[n][0])
    share, cells = told[names[0]]
    target = view.data.y.name
    figure = {"explained": {n: round(told[n][0], 4) for n in names}, "empty": {n: round(float(told[n][1].missing.mean()), 4) for n in names}, "rows": len(view),
              "sampled": not view.whole}
    text = say("Whether {columns} is empty tells the answer: where '{column}' is empty, {contrast} That alone explains {percent:.0f} % of '{target}'.",
               columns=names, column=names[0], contrast=contrast(cells.missing, view), percent=100 * share, target=target)
    advice = say("Find out why the cells are empty. If they are filled in only after '{target}' is known, leave the columns out.", target=target)
    return Finding("missing_tells", level, text, advice, tuple(names), figure)


def contrast(mark: np.ndarray, view: View) -> Text:
    """How the answer differs where the mark is set, as a clause that ends a sentence."""
    if not view.labels:
        return say("the median is {inside:.4g} instead of {outside:.4g}.", inside=float(np.median(view.y[mark])), outside=float(np.median(view.y[~mark])))
    codes = view.y.astype(np.int64)
    inside = np.bincount(codes[mark], minlength=len(view.classes)) / mark.sum()
    outside = np.bincount(codes[~mark], minlength=len(view.classes)) / (~mark).sum()
    k = int(np.abs(inside - outside).argmax())
    return say("{inside:.0f} % are {label} instead of {outside:.0f} %.", inside=100 * inside[k], outside=100 * outside[k], label=str(view.classes[k]))


# ---- constants that were filled in


def _constants(view: View, apart: set[str]) -> list[Finding]:
    out = []
    for cells in view.inputs:
        if cells.nominal or cells.name in apart or cells.levels < 30:
            continue
        present = cells.values[~cells.missing]
        kinds, counts = np.unique(present, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        for judge in (_by_class, _by_constant):
            if (found := judge(view, cells, kinds[order], counts[order])) is not None:
                out.append(found)
                break
    return out


def _by_class(view: View, cells: Cells, kinds: np.ndarray, counts: np.ndarray) -> Finding | None:
    """Two or more values far commoner than all others, each within one class of its own: gaps were filled class by class."""
    if not view.labels:
        return None
    codes = view.y.astype(np.int64)
    for many in range(2, min(len(view.classes), 10) + 1):
        least = max(8, 0.004 * len(view))
        if len(counts) <= many or counts[many - 1] < least or counts[many - 1] < 4 * counts[many]:
            continue
        pure = {}
        for value in kinds[:many]:
            inside = np.bincount(codes[cells.values == value], minlength=len(view.classes))
            if inside.max() >= 0.99 * inside.sum():
                pure[float(value)] = int(inside.argmax())
        if len(pure) == many and len(set(pure.values())) == many:
            values = [f"{v:.6g}" for v in pure]
            text = say("In '{column}' the values {values} stand {n:,} times, each with one answer only ({labels}): gaps were filled in class by class, so "
                       "the filling gives the answer away.", column=cells.name, values=values, n=int(counts[:many].sum()),
                       labels=[str(view.classes[k]) for k in pure.values()])
            advice = say("Undo the filling: leave the cells empty, or fill them without looking at '{target}'.", target=view.data.y.name)
            return Finding("missing_tells", "leak", text, advice, (cells.name,), {"values": list(pure), "filled": int(counts[:many].sum()), "rows": len(view),
                                                                                   "sampled": not view.whole})
    return None


def _by_constant(view: View, cells: Cells, kinds: np.ndarray, counts: np.ndarray) -> Finding | None:
    """One value far commoner than the next, at the mean or median of the others or far outside them, whose presence tells the answer."""
    if counts[0] < max(10, 0.01 * len(view)) or counts[0] < 4 * counts[1]:
        return None
    value = float(kinds[0])
    others = cells.values[(cells.values != value) & ~cells.missing]
    likely: list[Callable[[np.ndarray], bool]] = [
        lambda x: abs(value - float(x.mean())) <= 0.02 * float(x.std()),
        lambda x: abs(value - float(np.median(x))) <= 0.01 * float(x.std()) and value != 0,
        lambda x: _far_outside(value, x)]
    mark = cells.values == value
    share = explained(mark, view)
    if share < TELLS[view.labels] or share * len(view) < SURE or not any(test(others) for test in likely):
        return None
    text = say("'{column}' holds {value:.6g} in {n:,} rows, as if gaps were filled with it, and where it does, {contrast} That alone explains {percent:.0f} % "
               "of '{target}'.", column=cells.name, value=value, n=int(counts[0]), contrast=contrast(mark, view), percent=100 * share, target=view.data.y.name)
    advice = say("Find out why the cells were empty. If that is known only after '{target}' is, leave the column out.", target=view.data.y.name)
    return Finding("missing_tells", "warning", text, advice, (cells.name,), {"value": value, "filled": int(counts[0]), "explained": round(share, 4),
                                                                              "rows": len(view), "sampled": not view.whole})


def _far_outside(value: float, others: np.ndarray) -> bool:
    """A code for 'none': -1 beside amounts that are never negative, 999 beside ages."""
    low, high = float(others.min()), float(others.max())
    spread = float(np.subtract(*np.quantile(others, [0.75, 0.25]))) or high - low
    return (value in _NOTHING and (value < low or value > high)) or value < low - 2 * spread or value > high + 2 * spread
