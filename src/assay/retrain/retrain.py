"""One idempotent command: new data and labels -> the same contest -> a challenger. Killed at any moment and called again, it goes on; there is never half a version."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay import api
from assay.contest.evidence import gather as evidence_of
from assay.contest.folder import Folder, write_json
from assay.errors import InputError
from assay.retrain.material import Kept, Material, case_of, gather, in_order, refused
from assay.retrain.promotion import ALPHA, alone, stage_of
from assay.retrain.recorded import cap_of, losses
from assay.retrain.sequential import compare
from assay.ship.bundle import Bundle, load
from assay.store.records import Stage, Version
from assay.store.store import Store
from assay.words import Text, say

MODES = ("shadow", "canary")
LEAST = 40  # rows below which no contest is worth its name
JUDGES = 20  # labelled rows, unknown to both, from which on champion and challenger are compared at once


@dataclass(frozen=True)
class Retrained:
    """status: challenger (a new version is being tested), nothing_new, not_better (clearly worse on the newest labelled rows, and not kept), testing (an earlier
    challenger is not settled yet), dry_run. version: of the challenger. run_folder: of the contest. notes: what was used, and what could not be."""

    status: str
    model: str
    version: int | None
    fingerprint: str | None
    run_folder: Path | None
    text: Text
    notes: tuple[Text, ...] = ()

    def json(self) -> dict[str, Any]:
        return {"status": self.status, "model": self.model, "version": self.version, "fingerprint": self.fingerprint, "run_folder": str(self.run_folder) if self.run_folder else None,
                "text": self.text.json(), "notes": [n.json() for n in self.notes]}


def retrain(home: Path, model: str, *, store: Store, data: str | Path | None = None, time: str | float = "60s", seed: int | None = None, mode: str = "shadow", share: float = 0.0,
            recent: int | None = None, replace: bool = False, dry_run: bool = False, by: str = "service", observe: Callable[[Any], None] = lambda event: None,
            **options: Any) -> Retrained:
    """Train a challenger from all that is known, and let it answer beside the champion.

    data: further rows with answers: a file, a database URL, or the folder of the run that made the model, which also tells what that was asked. They are kept in
    the home; the same rows again change nothing. time: of the contest. mode, share: see `Versions.challenge`. recent: how many of the old rows may teach.
    replace: even if an earlier challenger is still being tested. options: further fields of the case.
    Raises InputError (no such model, too few rows, a task that rows cannot teach), ReadError, BudgetError, BundleError.
    """
    if mode not in MODES or not 0 <= share <= 1 or (mode == "canary") != (share > 0):  # said now, not after the contest
        raise InputError("A challenger is a shadow that nobody sees, or a canary with a share above 0 and at most 1: --mode canary --share 0.1. Found: {mode}, {share:g}.", mode=mode, share=share)
    stage_of(store, model)  # a name that is no model's makes no file
    with alone(home, model, "retrain"):
        stage = stage_of(store, model)
        if stage.challenger is not None and stage.challenger != stage.previous and not replace and not dry_run:
            return Retrained("testing", model, stage.challenger, None, None, say("Version {version} of '{model}' is still being tested; see: assay challenge {model}. A new challenger "
                                                                                 "would begin again from nothing; --replace says so.", version=stage.challenger, model=model))
        champion = _version(store, stage)
        bundle = load(home / champion.file)
        reason = refused(bundle)
        if reason is not None:
            raise InputError("'{model}' cannot be retrained from rows: {reason}.", model=model, reason=reason)
        kept = Kept(home, model)
        if data is not None:
            kept.take(data, bundle)
        elif not kept.parts() and (run := _run_of(home, store, model)) is not None:
            kept.take(run, bundle)
        if not kept.parts() and recent != 0:
            raise InputError("The rows that '{model}' learnt from are not known here. Name them once: assay retrain {model} --data FILE, or the folder of its run; or leave them out with "
                             "--recent 0.", model=model)
        material = gather(store, model, bundle, kept, media=home / "media", recent=recent)
        case = in_order(case_of(bundle, kept.case(), **{"time": time, **({} if seed is None else {"seed": seed}), **options}), material)
        fingerprint = material.fingerprint(case)
        notes = (say("{old:,} older rows and {labelled:,} labelled ones teach and judge.", old=material.old, labelled=material.labelled), *material.notes)
        for note in notes:
            observe(note)
        folder = home / "runs" / f"{model}-{fingerprint[:12]}"
        known = _done(store, model, fingerprint, folder, notes) or _same_as_before(bundle, material, model, notes)
        if known is not None:
            return known
        if material.frame.height < LEAST:
            raise InputError("'{model}' has {n} rows to learn from; at least {least} are needed. Label more, or name a file: --data FILE", model=model, n=material.frame.height, least=LEAST)
        if dry_run:
            return Retrained("dry_run", model, None, fingerprint, None, say("A contest of {time:g} s would be played on {n:,} rows.", time=case.time_s, n=material.frame.height), notes)
        run = _played(folder, case, material, observe)
        return _entered(home, store, stage, champion, bundle, material, run, fingerprint, mode, share, by, notes)


def _played(folder: Path, case: Any, material: Material, observe: Callable[[Any], None]) -> Path:
    """The folder of the finished contest: begun, gone on with, or as it is."""
    if (folder / "summary.html").exists() and (folder / "winner.assay").exists():
        return folder
    if (folder / "case.json").exists():
        api.resume(folder, observe=observe)
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # it never began
    fields = {k: v for k, v in case.json().items() if k not in ("target", "data")}
    api.run(material.frame, target=case.target, out=folder, observe=observe, **fields)
    return folder


def _entered(home: Path, store: Store, stage: Stage, champion: Version, bundle: Bundle, material: Material, run: Path, fingerprint: str, mode: str, share: float, by: str,
             notes: tuple[Text, ...]) -> Retrained:
    """The winner becomes a version and challenges, unless the newest labelled rows clearly speak against it."""
    model = stage.model
    winner = load(run / "winner.assay")
    gain = _against_champion(run, bundle, champion, material)
    facts = {"task": winner.task.name, "candidate": winner.candidate.name, **{k: winner.facts.get(k) for k in ("name", "loss", "metrics", "rows_fitted", "created")}, "verdict": winner.facts.get("verdict_text") or winner.facts.get("verdict"),
             "file_mb": round(winner.file_mb, 3), "run": str(run.relative_to(home)), "labelled": material.labelled, "against": champion.version, **({"gain": gain.gain, "judges": gain.rows} if gain else {})}
    if gain is not None and gain.settled(ALPHA) < 0:
        text = say("No challenger: '{name}' loses {less:.4g} a row more than version {version} on the {rows:,} newest labelled rows, which neither had seen (at least {least:.4g} more with 95 % "
                   "confidence).", name=winner.facts.get("name") or winner.candidate.name, less=-gain.gain, least=-gain.high, version=champion.version, rows=gain.rows)
        write_json(run / "retrained.json", {"status": "not_better", "text": text.json()})
        return Retrained("not_better", model, None, fingerprint, run, text, notes)
    version = store.versions.add(model, winner.digest, _copied(home, run / "winner.assay", winner.digest), "retrain", facts, fingerprint, by)
    if version.version == stage.champion:
        text = say("The contest ended with the very model that answers already, version {version}.", version=version.version)
        write_json(run / "retrained.json", {"status": "not_better", "text": text.json()})
        return Retrained("not_better", model, version.version, fingerprint, run, text, notes)
    store.versions.challenge(model, version.version, mode, share, by)
    text = say("Version {version} of '{model}' ({name}) now answers beside version {champion}, and is tested with every label (assay challenge {model}).", version=version.version, model=model,
               name=winner.facts.get("name") or winner.candidate.name, champion=stage.champion)
    if gain is not None:
        text = say("{text} On the {rows:,} newest labelled rows, which neither had seen, its loss was lower by {gain:.4g} a row (between {low:.4g} and {high:.4g}).", text=text,
                   rows=gain.rows, gain=gain.gain, low=gain.low, high=gain.high)
    write_json(run / "retrained.json", {"status": "challenger", "text": text.json()})
    return Retrained("challenger", model, version.version, fingerprint, run, text, notes)


def _against_champion(run: Path, bundle: Bundle, champion: Version, material: Material) -> Any:
    """Champion against the winner as the contest judged it, on test rows that were labelled after the champion was made; None if they are too few."""
    folder = Folder(run)
    case, task, data, parts, _ = folder.open()
    packed = json.loads(folder.verdict_file.read_text(encoding="utf-8"))["packed"]
    evidence = evidence_of(folder, case, task, data, parts)[0]
    if packed not in evidence.losses:
        return None
    numbers = evidence.rows if data.rows is None else data.rows[evidence.rows]
    fresh = np.r_[np.zeros(material.old, dtype=bool), material.at > champion.made][numbers]
    if fresh.sum() < JUDGES:
        return None
    test = data.take(evidence.rows[fresh])
    cap = cap_of(bundle.task, bundle.calibration)
    before = losses(bundle.task, bundle.predict(test.asked().frame).to_dicts(), test.y.to_list(), cap=cap)
    gains = before.of - np.minimum(evidence.losses[packed][fresh], np.inf if cap is None else cap)
    usable = np.isfinite(gains)
    if usable.sum() < JUDGES:
        return None
    support = None if before.most is None else (-before.most, before.most)
    return compare(gains[usable], alpha=ALPHA, support=support)


def _copied(home: Path, source: Path, digest: str) -> str:
    """The bundle in the home under its digest, whole and on the disk; its path from the home."""
    kept = home / "bundles" / f"{digest}.assay"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_name(f".{digest[:16]}.{os.getpid()}.tmp")
        with source.open("rb") as giver, partial.open("wb") as taker:
            shutil.copyfileobj(giver, taker)
            taker.flush()
            os.fsync(taker.fileno())
        partial.replace(kept)
    return str(kept.relative_to(home))


def _done(store: Store, model: str, fingerprint: str, folder: Path, notes: tuple[Text, ...]) -> Retrained | None:
    """What came of these very rows, labels and case before."""
    made = next((v for v in store.versions.of(model) if v.fingerprint == fingerprint), None)
    file = folder / "retrained.json"
    if made is not None and (file.exists() or not folder.exists()):  # without the file it was killed before the challenge
        return Retrained("nothing_new", model, made.version, fingerprint, folder, say("Nothing new since version {version} was made of the same rows and labels.", version=made.version), notes)
    if file.exists():
        told = Text.of(json.loads(file.read_text(encoding="utf-8"))["text"])
        return Retrained("nothing_new", model, None, fingerprint, folder, say("Nothing new since the last contest on the same rows and labels. {text}", text=told), notes)
    return None


def _same_as_before(bundle: Bundle, material: Material, model: str, notes: tuple[Text, ...]) -> Retrained | None:
    """No label, and no row that the champion has not learnt from."""
    if material.labelled or set(material.parts) != {bundle.facts.get("fingerprint")}:
        return None
    return Retrained("nothing_new", model, None, None, None, say("Nothing new: no labelled row, and no row that '{model}' has not learnt from.", model=model), notes)


def _run_of(home: Path, store: Store, model: str) -> Path | None:
    """The folder of the run that made the first version, where whoever served it wrote that down and it is still there."""
    for version in store.versions.of(model):
        told = version.facts.get("run")
        if isinstance(told, str) and version.source != "retrain" and (home / told / "case.json").exists():
            return home / told
    return None


def _version(store: Store, stage: Stage) -> Version:
    found = store.versions.get(stage.model, stage.champion)
    if found is None:
        raise InputError("The store has no version {version} of '{model}'. See: assay models {model}", version=stage.champion, model=stage.model)
    return found
