"""How rows belong together, and so how they must be split: by group, forward in time, in file order, or at random."""

from __future__ import annotations

import numpy as np

from assay.data.dataset import MEDIA, Dataset
from assay.data.inspect.base import Structure
from assay.data.inspect.group import Grouping, groupings
from assay.data.inspect.moment import Course, absolute, calendar, course, stands_in_order, time_columns
from assay.data.inspect.names import names_a_unit
from assay.data.inspect.power import answering
from assay.data.inspect.view import View
from assay.words import say

LOOKED_AT = 4000
LEAST_ROWS = 60  # fewer rows cannot show a structure


def structure(data: Dataset, *, labels: bool, seed: int) -> Structure:
    """The structure that a split has to follow; 'random' unless the evidence is clear. labels: the answer is a class, not an amount.

    Looks at samples of bounded size, so the same seed gives the same answer however busy the machine is. `figure` holds what every
    column that was tried showed.
    """
    if len(data) < LEAST_ROWS or data.y.null_count() > len(data) - LEAST_ROWS:
        return Structure("random", None, say("Rows are taken as independent: {n} are too few to show a structure.", n=len(data)), {})
    if data.y.null_count():
        data = Dataset(data.frame.filter(data.y.is_not_null()), data.schema)
    media = bool(data.schema.of_kind(*MEDIA))
    data = data.blind(MEDIA)
    rows = np.sort(np.random.default_rng(seed).choice(len(data), min(len(data), LOOKED_AT), replace=False))
    keys = {c.name for c in data.schema.columns if names_a_unit(c.name) > 0} | absolute(data) | set(time_columns(data))
    told = answering(View.of(data, labels=labels, seed=seed, rows=rows), apart=keys)
    if told:  # a leak would explain the answer on any split, and hide what the split does
        data = data.without(tuple(told))
    groups = groupings(data, labels=labels, seed=seed)
    best = min((g for g in groups if g.clear), key=lambda g: (-g.named, -g.flattery), default=None)
    tried, parts = time_columns(data), calendar(data)
    courses = [course(data, column, labels=labels, seed=seed, group=best.column if best else None) for column in tried]
    figure = {"groups": [_of_group(g) for g in groups], "times": [_of_course(c) for c in courses]}
    dated = [c for c in courses if c.dated and not (best and _only_the_group(c, best))]
    if dated:
        chosen = max(dated, key=lambda c: (c.persists_ahead + c.drift_ahead, -tried.index(c.column or "")))
        name = chosen.column or ""
        if parts and name == parts[0] and stands_in_order(data, parts):
            return Structure("order", None, say(
                "The rows stand in order of time ({columns}), and the answer follows it: errors of consecutive rows agree ({r:.2f}; 0 for "
                "independent rows).", columns=parts, r=chosen.persists_ahead), figure)
        return Structure("time", name, say(
            "The answer follows '{column}' beyond what the inputs explain: errors of consecutive rows agree ({r:.2f}; 0 for independent rows), and "
            "{percent:.0f} % of their variance lies between stretches of time.", column=name, r=chosen.persists_ahead,
            percent=100 * max(chosen.drift_ahead, 0.0)), figure)
    if best:
        if best.flattery < 0.03:
            return Structure("group", best.column, say(
                "Rows with the same '{column}' belong together ({levels:,} of them): their answers are alike (intraclass correlation {alike:.2f}; 0 for "
                "independent rows).", column=best.column, levels=best.levels, alike=best.alike), figure)
        return Structure("group", best.column, say(
            "Rows with the same '{column}' belong together ({levels:,} of them): where none of them stands on both sides of a split, the error of "
            "a quick model is {percent:.0f} % larger.", column=best.column, levels=best.levels, percent=100 * best.flattery), figure)
    if not courses and not media and not data.schema.of_kind("text"):  # the quick model reads no texts, so it cannot say what they leave unexplained
        blocks = next((g.column for g in groups if g.named > 0), None)
        found = course(data, None, labels=labels, seed=seed, group=blocks)
        figure["times"].append(_of_course(found))
        if found.clear:
            return Structure("order", None, say(
                "No column says when, but the rows seem to stand in order of time: errors of consecutive rows agree ({r:.2f}; 0 for independent "
                "rows), and the errors move with the row number ({trend:.2f}).", r=found.persists, trend=found.trend), figure)
    return Structure("random", None, say("No sign that rows belong together or follow one another in time."), figure)


def _only_the_group(found: Course, group: Grouping) -> bool:
    """What follows time here does so inside the groups only, or the answer is a property of the group."""
    return group.fixed_answer or found.apart < 0.05


def _of_group(g: Grouping) -> dict[str, object]:
    return {"column": g.column, "levels": g.levels, "alike": round(g.alike, 3), "neighbour": round(g.neighbour, 3), "by_chance": round(g.by_chance, 3),
            "loss_random": round(g.random, 4), "loss_grouped": round(g.grouped, 4), "t": round(float(np.clip(g.t, -99, 99)), 2), "clear": g.clear}


def _of_course(c: Course) -> dict[str, object]:
    return {"column": c.column, "persists": round(c.persists, 3), "persists_ahead": round(c.persists_ahead, 3), "ages": round(c.ages, 3), "ages_t": round(c.ages_t, 2), "drift": round(c.drift, 3),
            "drift_ahead": round(c.drift_ahead, 3), "trend": round(c.trend, 3), "sorted": round(c.sorted, 3), "flattery": round(c.flattery, 3), "pairs": c.pairs}
