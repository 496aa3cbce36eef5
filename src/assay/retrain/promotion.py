"""Promote, keep, wait or roll back: what the labels say about a challenger that answers the same rows as the champion, and acting on it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import BundleError, InputError
from assay.retrain.recorded import cap_of, losses
from assay.retrain.sequential import LEAST, Compared, compare, spent
from assay.ship.archive import opened
from assay.ship.rebuild import contents_of, task_of
from assay.store.records import Prediction, Stage, Version
from assay.store.store import Store
from assay.tasks.base import Task
from assay.words import Text, say

ALPHA = 0.05
PROBATION = 2000  # labelled rows after which a previous champion that was not proved better is no longer asked beside the new one
CHOSEN = 0.1  # mean doubt of the labelled rows above that of the traffic from which on they count as chosen


@dataclass(frozen=True)
class Decision:
    """outcome: promote, keep, not_yet or roll_back. version: the one that was compared with the champion, None if none is.

    gain: loss of the champion minus loss of that version, a row, over `labels` rows that both have answered; low, high: each bound alone holds with confidence
    1 - alpha, however often one looks; all three None without labels. needed: labels until it would be settled, None: not to be expected. notes: what to know besides.
    """

    outcome: str
    model: str
    champion: int
    version: int | None
    gain: float | None
    low: float | None
    high: float | None
    labels: int
    needed: int | None
    alpha: float
    text: Text
    notes: tuple[Text, ...] = ()

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"text": self.text.json(), "notes": [n.json() for n in self.notes]}


def verdict(store: Store, model: str, *, home: Path, alpha: float = ALPHA, margin: float | None = None, cap: float | None = None, group: str | None = None,
            for_ever: bool = False) -> Decision:
    """What the labels say so far. It may be asked after every label: the chance of ever promoting a challenger that is no better stays below alpha.

    Counted are rows asked since the challenge that both versions have answered and somebody has labelled, each by the loss of the contest. margin: gain in loss a
    row that is wanted (default 0). cap: losses above it count as it, so that the answer is exact where losses have no end (default: see `recorded.cap_of`; infinity:
    none). group: a column of the rows asked; rows of one group count as one. for_ever: alpha is spent over all challengers of this model to come, not for each anew (see `sequential.spent`).
    Right after a promotion the previous champion stays in the role of a challenger, and the outcome may be 'roll_back'.
    Raises InputError (no such model, or a task without labels by row), BundleError.
    """
    if not 0 < alpha < 1:
        raise InputError("The chance of a wrong promotion lies between 0 and 1; {alpha} does not.", alpha=alpha)
    stage = stage_of(store, model)
    if stage.challenger is None:
        return Decision("keep", model, stage.champion, None, None, None, None, 0, None, alpha, say("No challenger of '{model}' is being tested. Next: assay retrain {model}", model=model))
    probation = stage.challenger == stage.previous
    if for_ever and not probation:
        alpha = spent(alpha, *_history(store, model, stage.challenger))
    (champion, calibration), (challenger, _) = (_question(home, _version(store, model, v)) for v in (stage.champion, stage.challenger))
    cap = cap_of(champion, calibration) if cap is None else cap
    if champion.json().get("loss") != challenger.json().get("loss"):
        raise InputError("Versions {old} and {new} of '{model}' were judged by different losses and cannot be compared. Withdraw the challenger, or retrain with the loss '{loss}'.",
                         old=stage.champion, new=stage.challenger, model=model, loss=champion.json().get("loss"))
    pairs = list(_pairs(store, stage))
    found, notes = _compared(pairs, champion, challenger, alpha=alpha, margin=0.0 if probation or margin is None else margin, cap=cap, group=group)
    if found is None:
        return Decision("not_yet", model, stage.champion, stage.challenger, None, None, None, 0, None, alpha,
                        say("Version {new} is being tested against version {old}: no row that both have answered is labelled yet.", new=stage.challenger, old=stage.champion), notes)
    notes = (*notes, *_chosen(store, stage, pairs))
    outcome, text = _said(stage, found, alpha, margin or 0.0, probation)
    low, high = (v if isfinite(v) else None for v in (found.low, found.high))
    return Decision(outcome, model, stage.champion, stage.challenger, found.gain, low, high, found.rows, found.needed if outcome == "not_yet" else None, alpha, text, notes)


def act(store: Store, model: str, *, home: Path, by: str = "service", alpha: float = ALPHA, margin: float | None = None, cap: float | None = None, group: str | None = None,
        for_ever: bool = False) -> Decision:
    """Do what `verdict` says: promote (the previous champion then answers unseen for a while), withdraw, or roll back; each is in the audit log. Returns the decision.

    Called again it changes nothing more. Of several processes that call it at once, one acts and the others see what it did.
    """
    stage_of(store, model)  # a name that is no model's makes no file
    with alone(home, model, "promotion"):
        stage = stage_of(store, model)
        told = verdict(store, model, home=home, alpha=alpha, margin=margin, cap=cap, group=group, for_ever=for_ever)
        if told.version is None or stage_of(store, model) != stage:  # somebody promoted or challenged meanwhile: that is then to be judged
            return told
        if told.outcome == "promote":
            store.versions.promote(model, told.version, by, str(told.text))
            store.versions.challenge(model, told.champion, "shadow", 0.0, by)
        elif told.outcome == "roll_back":
            store.versions.rollback(model, by, str(told.text))
        elif told.outcome == "keep":
            store.versions.withdraw(model, by, str(told.text))
    return told


def stage_of(store: Store, model: str) -> Stage:
    """Who answers for this model. Raises InputError naming the models that there are."""
    stage = store.versions.stage(model)
    if stage is None:
        raise InputError("No model is called '{model}' in this home. There are: {names}. Serve one first: assay serve RUN/winner.assay", model=model, names=store.versions.models())
    return stage


@contextmanager
def alone(home: Path, model: str, what: str) -> Iterator[None]:
    """One process at a time on this home does `what` with this model; the lock ends with its process, however that ends."""
    folder = home / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{model}.{what}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class _Pair:
    """One labelled row that both have answered. asked: the answer that was handed out. old, new: the champion's answer and the challenger's."""

    asked: Prediction
    old: dict[str, Any]
    new: dict[str, Any]
    label: Any


def _pairs(store: Store, stage: Stage) -> Iterator[_Pair]:
    """In the order of asking. Whichever of the two was handed out, the other answered the same row unseen."""
    both = {stage.champion, stage.challenger}
    found: dict[str, tuple[Any, dict[int, Prediction]]] = {}
    for prediction, said in store.predictions.labelled(stage.model, since=stage.since):
        if prediction.version in both:
            found.setdefault(prediction.of or prediction.id, (said.label, {}))[1][prediction.version] = prediction
    whole = [(answers[stage.champion], answers[stage.challenger or 0], label) for label, answers in found.values() if answers.keys() == both]
    for old, new, label in sorted(whole, key=lambda w: (w[0].at, w[0].id)):
        yield _Pair(old if old.of is None else new, old.answer, new.answer, label)


def _compared(pairs: list[_Pair], champion: Task, challenger: Task, *, alpha: float, margin: float, cap: float | None,
              group: str | None) -> tuple[Compared | None, tuple[Text, ...]]:
    """The gains of all pairs, tested; None where none can be used."""
    if not pairs:
        return None, ()
    labels = [p.label for p in pairs]
    old = losses(champion, [p.old for p in pairs], labels, cap=cap)
    new = losses(challenger, [p.new for p in pairs], labels, cap=cap)
    notes = list(dict.fromkeys((*old.notes, *new.notes)))
    gains = old.of - new.of
    usable = np.isfinite(gains)
    if not usable.all():
        notes.append(say("{n:,} labels were left out: they are no answer to the question.", n=int((~usable).sum())))
    if not usable.any():
        return None, tuple(notes)
    groups = _groups([p for p, use in zip(pairs, usable, strict=True) if use], group)
    support = None if old.most is None or new.most is None else (-new.most, old.most)
    if support is None:
        notes.append(say("This loss has no upper end, so the bounds hold by the central limit theorem: they assume that no error far beyond those seen is to come. "
                         "--cap makes them exact."))
    elif cap is not None and (clipped := int((np.maximum(old.of, new.of)[usable] >= cap).sum())):
        notes.append(say("Losses above {cap:.3g} count as {cap:.3g}: in {n:,} of {rows:,} rows. --cap says otherwise.", cap=cap, n=clipped, rows=int(usable.sum())))
    found = compare(gains[usable], alpha=alpha, margin=margin, support=support, groups=groups)
    if groups is not None:
        notes.append(say("The {rows:,} rows count as {units:,} groups of '{group}'.", rows=found.rows, units=found.units, group=group))
    return found, tuple(notes)


def _groups(pairs: list[_Pair], group: str | None) -> np.ndarray | None:
    """The name of each row's group; a row that does not say its group is one of its own. Raises InputError where no row says it."""
    if group is None:
        return None
    names = [p.asked.row.get(group) if p.asked.row else None for p in pairs]
    if all(n is None for n in names):
        raise InputError("No labelled row was asked with the column '{group}', so its groups are not known. Send it with the rows, or leave out --group.", group=group)
    return np.array([f"row {p.asked.id}" if n is None else f"group {n}" for p, n in zip(pairs, names, strict=True)])


def _said(stage: Stage, found: Compared, alpha: float, margin: float, probation: bool) -> tuple[str, Text]:
    """The outcome and its sentence."""
    side = found.settled(alpha)
    facts: dict[str, Any] = {"new": stage.challenger, "old": stage.champion, "gain": found.gain, "low": found.low, "high": found.high, "labels": found.rows, "sure": 1 - alpha}
    if side > 0 and probation:
        return "roll_back", say("Version {old} turned out worse than version {new}, which it replaced: its loss is higher by {gain:.4g} a row (by at least {low:.4g} with {sure:.4g} "
                                "confidence, however often one looks), from {labels:,} labelled rows.", **facts)
    if side > 0:
        return "promote", say("Version {new} is better than version {old}: its loss is lower by {gain:.4g} a row (by at least {low:.4g} with {sure:.4g} confidence, however often one "
                              "looks), from {labels:,} labelled rows.", **facts)
    if side < 0 and not margin:
        return "keep", say("Version {new} is worse than version {old}: its loss is higher by {less:.4g} a row (by at least {least:.4g} with {sure:.4g} confidence, however often one "
                           "looks), from {labels:,} labelled rows.", less=-found.gain, least=-found.high, **facts)
    if side < 0:
        return "keep", say("Version {new} does not gain {margin:g} a row over version {old}: {gain:.4g}, and at most {high:.4g} with {sure:.4g} confidence, however often one looks, from "
                           "{labels:,} labelled rows.", margin=margin, **facts)
    if probation and found.units >= PROBATION:
        return "keep", say("Version {old} has proved no worse than version {new}, which it replaced, on {labels:,} labelled rows; the comparison ends.", **facts)
    if not isfinite(found.low):
        return "not_yet", say("Version {new} against version {old}: {labels:,} labelled rows so far, and nothing is said below {least}.", least=LEAST, **facts)
    if found.needed is None:
        return "not_yet", say("Version {new} against version {old}: a gain of {gain:.4g} a row so far, between {low:.4g} and {high:.4g}, from {labels:,} labelled rows. They are too alike "
                              "to be told apart.", **facts)
    return "not_yet", say("Version {new} against version {old}: a gain of {gain:.4g} a row so far, between {low:.4g} and {high:.4g}, from {labels:,} labelled rows. If it goes on like "
                          "this, about {needed:,} more will settle it.", needed=found.needed, **facts)


def _chosen(store: Store, stage: Stage, pairs: list[_Pair]) -> tuple[Text, ...]:
    """A warning where the labelled rows are not like the traffic: the gain is then that on such rows."""
    doubts = [p.asked.doubt for p in pairs if p.asked.doubt is not None]
    traffic = [p.doubt for p in store.predictions.recent(stage.model, limit=1000, version=stage.champion) if p.doubt is not None and p.of is None]
    if len(doubts) < 20 or len(traffic) < 100 or np.mean(doubts) - np.mean(traffic) < CHOSEN:
        return ()
    return (say("The labelled rows are more doubtful than the traffic (mean doubt {labelled:.2f} against {all:.2f}): the gain is that on such rows. Labels of rows drawn at random would "
                "tell that of all.", labelled=float(np.mean(doubts)), all=float(np.mean(traffic))),)


def _history(store: Store, model: str, version: int) -> tuple[int, int]:
    """(the number of this challenger among the retrained versions, how many of those before it have been promoted)."""
    before = [v for v in store.versions.of(model) if v.source == "retrain" and v.version < version]
    promoted = {row.detail["version"] for row in store.audit.since(before[0].made) if row.action == "promoted" and row.detail["model"] == model} if before else set()
    return len(before) + 1, sum(v.version in promoted for v in before)


def _version(store: Store, model: str, number: int) -> Version:
    found = store.versions.get(model, number)
    if found is None:
        raise InputError("The store has no version {version} of '{model}'. See: assay models {model}", version=number, model=model)
    return found


def _question(home: Path, version: Version) -> tuple[Task, dict[str, Any]]:
    """The question of a version and its calibration, read from its manifest; the model itself is not loaded. Raises BundleError."""
    path = home / version.file
    if not path.is_file():
        raise BundleError("The file '{file}' of version {version} of '{model}' is gone. Put it back, or withdraw that version.", file=str(path), version=version.version, model=version.model)
    with opened(path) as archive:
        contents, digest = contents_of(archive)
    if digest != version.digest:
        raise BundleError("The file '{file}' is not version {version} of '{model}': its digest is another one. Put the file back.", file=str(path), version=version.version,
                          model=version.model)
    return task_of(path.name, contents), contents.calibration
