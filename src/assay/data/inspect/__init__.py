"""Looking before training: findings and structure. One file a kind of finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from assay.data.dataset import MEDIA, Dataset
from assay.data.inspect import after, conflicts, copies, gaps, joint, leak, missing, order, plain, shift, texts
from assay.data.inspect.base import LEVELS, Finding, Structure
from assay.data.inspect.moment import absolute, time_columns
from assay.data.inspect.names import names_a_unit
from assay.data.inspect.structure import structure
from assay.data.inspect.view import View, ranks
from assay.data.split import judges, own_split
from assay.words import say


def findings(data: Dataset, *, labels: bool, seed: int, seconds: float = 10, known: Structure | None = None) -> list[Finding]:
    """Everything worth knowing before training, most severe first, in at most about `seconds`.

    labels: the answer is a class, else an amount. known: the structure, if it was looked for already. Large tables are looked at through a
    sample, and `figure["sampled"]` says so. What could not be looked for in time is named in a last note.
    """
    whole = Dataset(data.frame, replace(data.schema, time=None, group=None, ordered=False))
    plainly = whole.blind(MEDIA)  # pictures, sounds and sequences: only copies are looked for among them
    view = View.of(plainly, labels=labels, seed=seed, seconds=seconds)
    if not len(view):
        return []
    found_structure = known or structure(plainly, labels=labels, seed=seed)
    roles = {c for c in (found_structure.column, data.schema.group, data.schema.time) if c}
    units = {c.name for c in view.inputs if names_a_unit(c.name) > 0 and c.levels >= 10}
    apart = absolute(plainly) | set(time_columns(plainly)) | roles | units  # clocks and groups are judged by `structure`, not as leaks
    in_time = found_structure.kind in ("time", "order")
    found: list[Finding] = _belongs(found_structure, data)

    def alone() -> list[Finding]:
        single, certain = leak.one_column(view, apart=apart, persists=_persists(view, found_structure))
        apart.update(certain)
        roles.update(certain)
        return single

    looks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("leak", alone),
        ("leak", lambda: joint.flags(view, apart=apart)),
        ("leak", lambda: joint.parts(view, apart=apart)),
        ("leak", lambda: texts.marks(view)),
        ("missing_tells", lambda: missing.tells(view, apart=roles)),
        ("order_tells", lambda: [] if whole.schema.of_kind("image", "audio") else order.tells(view, in_time=in_time)),  # files stand in the order of their names
        ("after_the_fact", lambda: after.known_later(view, apart=apart)),
        ("rare_labels", lambda: plain.rare_labels(plainly) if labels else []),
        ("constant", lambda: plain.constants(plainly)),
        ("duplicates", lambda: copies.exact(whole)),
        ("conflicts", lambda: conflicts.conflicts(whole, labels=labels)),
        ("gaps", lambda: [f for c in _courses(plainly, found_structure) for f in gaps.gaps(plainly, c, in_time=in_time)]),
        ("shift", lambda: shift.shift(_in_time(view, found_structure), apart=apart, in_time=in_time,
                                      skip_order=found_structure.kind == "group" or any(f.code == "order_tells" for f in found))),
        ("near_duplicates", lambda: [] if whole.schema.of_kind(*MEDIA) else copies.near(view)),
    ]
    left_out = []
    for code, look in looks:
        if view.late(0.05 * seconds):
            left_out.append(code)
            continue
        found += look()
    if left_out:
        names = list(dict.fromkeys(left_out))
        found.append(Finding("unfinished", "note", say("The time was too short to look for: {codes}.", codes=names), say("assay look takes longer and looks for all."),
                             (), {"codes": names}))
    return sorted(found, key=lambda f: LEVELS.index(f.level))


def _belongs(found: Structure, data: Dataset) -> list[Finding]:
    """The structure as a finding."""
    if found.kind == "random":
        return []
    columns = (found.column,) if found.column else ()
    own = own_split(data.schema)
    if found.kind == "group" and own and found.column:
        late = judges(data.frame[own])
        if late is None or not set(data.frame[found.column].filter(late)) & set(data.frame[found.column].filter(~late)):
            return []
        advice = say("The split that the data bring in '{own}' puts rows of the same '{column}' on both sides. --group {column} judges on those that were never seen.", own=own,
                     column=found.column)
    elif own:
        advice = say("The split that the data bring in '{own}' need not follow it. --split time or --split order judges on the latest rows.", own=own)
    elif found.kind == "group":
        advice = say("A random split would tear them apart and flatter every candidate, so the split follows '{column}' (--split random says otherwise).", column=found.column)
    else:
        advice = say("A random split would let the future teach, so the split goes forward in time (--split random says otherwise).")
    return [Finding("group" if found.kind == "group" else "ordered", "warning", found.text, advice, columns, found.figure | {"rows": len(data)})]


def _courses(data: Dataset, found: Structure) -> list[str]:
    times = [c.name for c in data.schema.columns if c.kind == "time"]
    return [found.column] if found.column in times else times[:1]


def _in_time(view: View, found: Structure) -> View:
    """The rows in the order of the time column, where there is one."""
    if found.kind != "time" or not found.column:
        return view
    order = np.argsort(view.cells[found.column].values, kind="stable")
    return replace(view, frame=view.frame[order], rows=view.rows[order], y=view.y[order])


def _persists(view: View, found: Structure) -> float:
    """What the answer of the row before leaves of the variance of the ranks of an amount; 1 where rows are in no order of time."""
    if view.labels or found.kind not in ("time", "order"):
        return 1.0
    data = view.data
    frame = data.frame if found.kind == "order" else data.frame.sort(found.column, maintain_order=True)
    place = ranks(frame[data.y.name].drop_nulls().to_numpy().astype(np.float64))
    return float(min(1.0, (np.diff(place) ** 2).mean() / max(place.var(), 1e-12)))


__all__ = ["Finding", "Structure", "findings", "structure"]
