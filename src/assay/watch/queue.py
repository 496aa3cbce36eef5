"""Which rows to ask people about: those whose label is worth most, and a stated share drawn at random.

Doubt alone asks for ten copies of one strange row; so doubt is weighed with how many rows are like it (information density, Settles & Craven
2008, EMNLP) and with how near a row is to one that is labelled or in the queue already (a soft k-center, Sener & Savarese 2018,
arXiv:1708.00489). Rows from where the reference has few come in as 'new' if there are more of them than chance brings. And because labels
chosen by doubt say nothing about the rows nobody doubts, a tenth is drawn by lot: on these a model can be judged without bias.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from assay.data.dataset import Schema
from assay.data.read import conform
from assay.errors import InputError
from assay.ship.bundle import Bundle
from assay.store.records import Prediction
from assay.store.store import Store
from assay.watch.near import Likeness, apart

RANDOM = 0.1  # of a queue, drawn by lot
NEW = 0.2  # of a queue at most, from where the reference has few rows
POOL = 2_000  # answers looked at, of the newest; half as many of the most doubtful
_LABELLED = 400  # rows with a label that the queue keeps away from
_RARE = 0.99  # a row further from the reference than this share of its own rows are from each other is new
_CHANCE = 3.0  # so many times more new rows than chance brings are a shift
DENSITY = 0.5  # exponent of the density: 0 ignores it


@dataclass(frozen=True)
class Asked:
    """prediction: whose label is wanted. why: 'doubt' (the model is unsure, or rows like it have no label yet), 'random' (drawn by lot), 'new' (the reference has
    few rows like it). value: of the label, comparable within one queue, 0 to 1."""

    prediction: Prediction
    why: str
    value: float


@dataclass(frozen=True)
class Choice:
    """row: its place in the pool. why, value: as in `Asked`."""

    row: int
    why: str
    value: float


def queue(store: Store, bundle: Bundle, model: str, limit: int = 20, *, random_share: float = RANDOM, since: float | None = None) -> list[Asked]:
    """The unlabelled answers whose label is worth most, the most valuable first, every tenth drawn by lot. The same until somebody labels one or new answers come.

    Looks at the newest 2,000 answers and the 1,000 most doubtful; rows that were not kept cannot be labelled and are left out. limit: how many,
    1 to 500. Raises InputError for models that do not answer row by row.
    """
    if not bundle.task.by_rows:
        raise InputError("'{model}' forecasts series: there are no single rows to label.", model=model)
    recent = [p for p in store.predictions.recent(model, POOL) if p.of is None and p.arm != "shadow" and (since is None or p.at >= since)]
    oldest = recent[-1].at if recent else 0.0
    settled = {f.prediction for f in store.feedback.since(model, oldest) if f.label is not None or f.kind in ("accept", "edit")}
    labelled = [p for p in recent if p.id in settled and p.row is not None][:_LABELLED]
    newest = [p for p in recent if p.id not in settled]
    there = {p.id for p in newest}
    pool = [p for p in newest + [p for p in store.predictions.unlabelled(model, POOL // 2, since=since) if p.id not in there] if p.row is not None]
    if not pool:
        return []
    schema = bundle.schema.without_target()
    rows = _features([p.row or {} for p in [*pool, *labelled]], schema)
    found = chosen(rows[:len(pool)], doubts(bundle, pool), schema, limit, known=rows[len(pool):], reference=bundle.reference,
                   lots=np.array([lot(p.id) if p.id in there else np.inf for p in pool]), random_share=random_share)
    return [Asked(pool[c.row], c.why, c.value) for c in found]


def lot(id: str) -> float:
    """The lot that an answer has drawn, 0 to 1: the smallest are asked first. Of its id alone, so that nobody can choose it and it stays the same."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") / 2**64


def unbiased(store: Store, model: str, since: float, until: float) -> list[str]:
    """The ids of labelled answers that are a random sample of all answers of that time.

    Answers by the lot they drew, as far as all are labelled: whether a label was asked for its doubt or by lot then makes no difference.
    """
    settled = {f.prediction for f in store.feedback.since(model, since) if f.label is not None}
    labelled: list[tuple[float, str]] = []
    first = np.inf
    for p in store.predictions.between(model, since, until):
        if p.of is not None:
            continue
        mine = lot(p.id)
        if p.id in settled:
            labelled.append((mine, p.id))
        elif p.row is not None:
            first = min(first, mine)
    return [id for mine, id in sorted(labelled) if mine < first]


def doubts(bundle: Bundle, pool: list[Prediction]) -> np.ndarray:
    """(n,) 0 sure to 1: for classes by how little the second lacks to the first (margin); for amounts by the width of the interval among the pool, where widths differ."""
    classes = getattr(bundle.task, "classes", None)
    if classes is not None:
        p = np.array([[_number(a.answer.get(f"p({c})")) for c in classes] for a in pool]) if len(classes) <= 20 else np.full((len(pool), 1), np.nan)
        stored = np.array([1.0 if a.doubt is None else a.doubt for a in pool])
        if p.shape[1] < 2:
            return stored
        top = np.sort(p, axis=1)
        margin = 1 - (top[:, -1] - top[:, -2])
        return np.where(np.isfinite(margin), margin, stored)
    wide = np.array([_number(a.answer.get("high")) - _number(a.answer.get("low")) for a in pool])
    there = np.isfinite(wide)
    if not there.any() or np.ptp(wide[there]) <= 1e-9 * np.abs(wide[there]).max():
        return np.full(len(pool), 0.5)  # one width for all says nothing: what differs from the labelled rows is asked
    ranks = np.searchsorted(np.sort(wide[there]), wide, "right") / there.sum()
    return np.where(there, ranks, 1.0)


def chosen(rows: pl.DataFrame, doubt: np.ndarray, schema: Schema, limit: int, *, known: pl.DataFrame | None = None, reference: pl.DataFrame | None = None,
           lots: np.ndarray | None = None, random_share: float = RANDOM) -> list[Choice]:
    """The choice itself, without a store. rows: (n) the pool in the schema's columns; doubt: (n,) 0-1; known: rows with a label; reference: rows that taught the model;
    lots: (n,) the smallest are drawn, infinite for rows that are not in the draw."""
    n = rows.height
    limit = min(limit, n)
    n_random = min(limit, int(np.ceil(random_share * limit))) if random_share > 0 else 0
    lots = np.random.default_rng(0).random(n) if lots is None else lots
    drawn = [int(i) for i in np.argsort(lots, kind="stable")[:n_random] if np.isfinite(lots[i])]
    like = Likeness(schema, pl.concat([rows, known.select(rows.columns)]) if known is not None and known.height else rows)
    x = like.of(rows)
    some = x[np.linspace(0, n - 1, min(n, 500)).astype(int)]
    square = apart(x, some)
    scale = float(np.median(square[square > 1e-12])) if (square > 1e-12).any() else 1.0
    density = np.exp(-square / scale).mean(axis=1)
    taken = np.zeros(n)  # how like a row is to one that is labelled or chosen, 0 to 1
    if known is not None and known.height:
        taken = np.exp(-4 * apart(x, like.of(known)).min(axis=1) / scale)
    value = np.clip(doubt, 0.02, 1.0) * (density / density.max()) ** DENSITY
    open_ = np.ones(n, dtype=bool)
    out: list[Choice] = []

    def take(i: int, why: str, worth: float) -> None:
        open_[i] = False
        np.maximum(taken, np.exp(-4 * apart(x, x[i:i + 1])[:, 0] / scale), out=taken)
        out.append(Choice(i, why, float(worth)))

    for i in drawn:
        take(i, "random", value[i])
    for i, worth in _new(rows, schema, reference, open_, int(NEW * (limit - len(drawn)))):
        if taken[i] < 0.9:
            take(i, "new", worth)
    while len(out) < limit:
        now = np.where(open_, value * (1 - taken) + 1e-9 * value, -1.0)
        i = int(np.argmax(now))
        take(i, "doubt", now[i])
    return _mixed(out, len(drawn))


def _new(rows: pl.DataFrame, schema: Schema, reference: pl.DataFrame | None, open_: np.ndarray, most: int) -> list[tuple[int, float]]:
    """Rows far from the whole reference, the furthest first, if there are more of them than chance brings: (place, share of the reference's rows that are less alone)."""
    if reference is None or reference.height < 50 or most < 1 or any(c.name not in reference.columns for c in schema.plain) or not schema.plain:
        return []
    like = Likeness(schema, reference)
    theirs = like.of(reference)
    within = apart(theirs, theirs)
    np.fill_diagonal(within, np.inf)
    usual = np.sort(within.min(axis=1))
    mine = apart(like.of(rows), theirs).min(axis=1)
    alone = np.searchsorted(usual, mine, "right") / len(usual)
    new = (alone > _RARE) & open_
    if new.mean() <= _CHANCE * (1 - _RARE):
        return []
    order = np.flatnonzero(new)[np.argsort(-mine[new], kind="stable")]
    return [(int(i), float(alone[i])) for i in order[:most]]


def _mixed(out: list[Choice], n_random: int) -> list[Choice]:
    """The most valuable first, those drawn by lot spread evenly: whoever stops early has labelled their share of these, too."""
    drawn, others = out[:n_random], sorted(out[n_random:], key=lambda c: (c.why != "new", -c.value))
    turns = {int((k + 0.5) * len(out) / n_random) for k in range(n_random)}
    return [drawn.pop(0) if drawn and (i in turns or not others) else others.pop(0) for i in range(len(out))]


def _features(rows: list[dict], schema: Schema) -> pl.DataFrame:
    """The rows in the schema's columns; pictures and the like, and rows asked of an older version with other columns, are empty there."""
    plain = Schema(schema.plain)
    filled = [{c.name: row.get(c.name) for c in plain.columns} for row in rows]
    try:
        return conform(filled, plain).frame if plain.columns else pl.DataFrame({"": [0.0] * len(rows)})
    except InputError:
        frames = []
        for row in filled:
            try:
                frames.append(conform([row], plain).frame)
            except InputError:
                frames.append(conform([dict.fromkeys(row)], plain).frame)
        return pl.concat(frames)


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
