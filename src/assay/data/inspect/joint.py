"""Columns that give the answer away together: flags that each imply it, what stands beside them, parts that add up to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from assay.data.inspect import rest
from assay.data.inspect.base import Finding
from assay.data.inspect.names import shape
from assay.data.inspect.view import Cells, View
from assay.words import say

RARE = 0.3  # a flag that implies the common class is no wonder: an untested blood sample implies 'healthy' (sick_thyroid, 769 of 769 rows)
PURE = 0.995
COVERED = 0.8  # of the class, by the flags together; the nearest clean set, kr_vs_kp, reaches 0.35 with one flag
MOST_PARTS = 6


@dataclass(frozen=True)
class Flag:
    column: str
    up: np.ndarray  # bool (n,)


def flags(view: View, *, apart: set[str]) -> list[Finding]:
    """Two-valued columns that each imply one rare class and together cover it, far beyond what all other columns can."""
    if not view.labels or len(view) < 100:
        return []
    y = view.y.astype(np.int64)
    shares = np.bincount(y, minlength=len(view.classes)) / len(y)
    pairs = [c for c in view.inputs if c.name not in apart and int(c.codes.max()) == 1]
    out = []
    for k in np.flatnonzero((shares > 0) & (shares <= RARE)):
        raised = [f for c in pairs if (f := _raised(c, y == k, float(shares[k])))]
        if len(raised) < 2:
            continue
        union = np.any([f.up for f in raised], axis=0)
        covered = float((union & (y == k)).sum() / (y == k).sum())
        if covered < COVERED:
            continue
        known = {f.column for f in raised}
        near = beside(known, [c.name for c in view.data.schema.columns], {c.name for c in pairs})
        inputs = [c for c in view.inputs if c.name not in known | near | apart and c.levels > 1]
        others = rest.error(inputs, view)
        if others < max(3 * (1 - covered), 0.05):
            continue
        ordered = [c.name for c in view.data.schema.columns if c.name in known | near]
        out.append(_finding(view, ordered, near, covered, others, view.classes[k]))
    return out


def _raised(cells: Cells, wanted: np.ndarray, share: float) -> Flag | None:
    """The rarer value of two as a flag, if (nearly) all rows that have it are of the wanted class, and more than luck makes."""
    up = cells.codes == np.bincount(cells.codes).argmin()
    support = int(up.sum())
    if support < 8 or wanted[up].mean() < PURE or share**support > 1e-8:
        return None
    return Flag(cells.name, up)


def beside(known: set[str], columns: list[str], alike: set[str]) -> set[str]:
    """Columns that stand beside the known ones in the file, with values of the same form (`alike`) and a name of the same pattern:
    they were most likely filled in at the same moment. One that reaches further by the same pattern is taken too."""
    names = [n for n in columns if n in known]
    if len(names) < 2:
        return set()
    head, tail = _common(names), _common([n[::-1] for n in names])[::-1]
    stem = head[: max(head.rfind(s) for s in "_. -") + 1]
    shapes = {shape(n) for n in names}

    def fits(name: str) -> bool:
        if name in known or name not in alike:
            return False
        if len(stem) > 1 and name.startswith(stem):
            return True
        return bool(head or tail) and name.startswith(head) and name.endswith(tail) and shape(name) in shapes

    taken = set(names)
    grown = True
    while grown:
        places = {i for i, n in enumerate(columns) if n in taken}
        more = {columns[i] for i in range(len(columns)) if (i - 1 in places or i + 1 in places) and fits(columns[i])} - taken
        taken |= more
        grown = bool(more)
    return taken - known


def _common(names: list[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))]


def _finding(view: View, ordered: list[str], near: set[str], covered: float, others: float, label: object) -> Finding:
    figure = {"covered": round(covered, 4), "left_by_the_others": round(others, 4), "beside": sorted(near), "rows": len(view), "sampled": not view.whole}
    flagged = [n for n in ordered if n not in near]
    if near:
        text = say("{flags} each imply '{target}' = {label} and together cover {covered:.1f} % of its rows; {near} stands beside them in the same "
                   "form, most likely filled in at the same moment.", flags=flagged, target=view.data.y.name, label=str(label), covered=100 * covered, near=sorted(near))
    else:
        text = say("{flags} each imply '{target}' = {label} and together cover {covered:.1f} % of its rows.", flags=flagged, target=view.data.y.name,
                   label=str(label), covered=100 * covered)
    return Finding("leak", "leak", text, say("Leave {columns} out: they say what happened, not what will happen. A score built on them is not a result.",
                                             columns=ordered), tuple(ordered), figure)


# ---- parts of an amount


def parts(view: View, *, apart: set[str]) -> list[Finding]:
    """Number columns whose plain sum, difference or product is the answer: casual + registered, price x quantity."""
    if view.labels or len(view) < 50:
        return []
    y = view.y
    numbers = [c for c in view.inputs if not c.nominal and c.name not in apart and c.levels > 2 and not c.missing.any()]
    rng = np.random.default_rng(view.seed)
    rows = np.sort(rng.choice(len(y), min(len(y), 4000), replace=False))
    sums = _combination([(c.name, c.values[rows]) for c in numbers], y[rows])
    product: list[tuple[str, float]] = []
    if not sums and (y > 0).mean() > 0.9:
        rows = rows[y[rows] > 0]
        positive = [(c.name, np.log(c.values[rows])) for c in numbers if (c.values[rows] > 0).all()]
        product = _combination(positive, np.log(y[rows]), constant=True)
    found = sums or product
    if len(found) < 2:
        return []
    names = [n for n, _ in found]
    signs = " ".join((("+" if w > 0 else "-") if sums else ("x" if w > 0 else "/")) + f" '{n}'" for n, w in found).removeprefix("+ ").removeprefix("x ")
    text = say("'{target}' is {formula}: these columns give the answer away together.", target=view.data.y.name, formula=signs)
    advice = say("Leave at least one of {columns} out, unless all are known before '{target}' is.", columns=names, target=view.data.y.name)
    return [Finding("leak", "leak", text, advice, tuple(names), {"formula": signs, "rows": len(rows), "sampled": not view.whole})]


def _combination(columns: list[tuple[str, np.ndarray]], y: np.ndarray, *, constant: bool = False) -> list[tuple[str, float]]:
    """Greedy search (orthogonal matching pursuit, Pati et al. 1993) for at most MOST_PARTS columns whose sum with weights of +1 and -1 is y, up to
    rounding (and a constant, for logarithms: a unit). Empty if there is none: exact but crooked weights are a formula of nature, not parts."""
    if len(columns) < 2 or y.std() == 0:
        return []
    x = np.column_stack([v for _, v in columns])
    spread = x.std(axis=0)
    usable = spread > 0
    chosen: list[int] = []
    residual = y - y.mean()
    for _ in range(min(MOST_PARTS, int(usable.sum()))):
        score = np.abs((x - x.mean(axis=0)).T @ residual) / np.where(usable, spread, np.inf)
        score[chosen] = 0
        chosen.append(int(score.argmax()))
        design = np.column_stack([x[:, chosen], np.ones(len(y))])
        weights = np.linalg.lstsq(design, y, rcond=None)[0]
        residual = y - design @ weights
        if residual.std() < 2e-4 * y.std():
            plain = bool((np.abs(np.abs(weights[:-1]) - 1) < 1e-3).all()) and (constant or abs(weights[-1]) < 1e-3 * max(y.std(), abs(y.mean())))
            return [(columns[i][0], float(w)) for i, w in zip(chosen, weights, strict=False)] if plain and len(chosen) > 1 else []
    return []
