"""verdict.json: the verdict and everything a report draws, so that a report can be made again without the data.

What a clock measured differs from run to run. In a run with a work budget it stands in measured.json instead, so that
the same seed on the same machine gives the same verdict.json, byte for byte; `read_facts` brings both together.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from assay.case import Case
from assay.contest.evidence import Evidence
from assay.contest.folder import finite, write_json
from assay.contest.judge import Verdict
from assay.data.dataset import Dataset
from assay.data.split import Split
from assay.errors import InputError
from assay.explain.fans import shape_of
from assay.families.base import Candidate
from assay.registry import discover
from assay.tasks.base import Task

FORMAT = 2
_REPEATABLE = ("artefact_mb", "money_per_row", "energy")  # of a candidate's costs; the others are measured
_PACKAGES = ("assay", "numpy", "polars", "scikit-learn", "lightgbm", "onnxruntime", "torch", "tokenizers")


def facts_for_report(case: Case, task: Task, data: Dataset, splits: list[Split], verdict: Verdict, about: dict[str, Any], evidence: Evidence,
                     used_s: float) -> dict[str, Any]:
    """The whole of verdict.json (`verdict.schema.json` beside this file says what each field means)."""
    cards = discover("assay.families", Candidate)
    for row in verdict.scoreboard:
        card = cards.get(row["candidate"])
        row.update({"source": card.source, "licence": card.licence} if card else {})
    return finite({
        "format": FORMAT, **verdict.json(), "task": task.name, "loss": task.loss,
        "data": {"path": case.data, "rows": len(data), "fingerprint": about["fingerprint"], "target": case.target,
                 "columns": data.schema.json()["columns"], "group": data.schema.group, "time": data.schema.time,
                 "train_rows": len(splits[0].train), "test_rows": len(evidence.test), "folds": len(splits), "split": about["split"]},
        "notes_data": about["notes"], "classes": [str(c) for c in getattr(task, "classes", ())] or None,
        "curves": {name: _curves(task, evidence, name) for name in evidence.losses},
        "threshold": threshold(task, evidence, verdict.winner), "folds_rows": [[len(s.train), len(s.test)] for s in splits],
        "budget": {"time_s": case.time_s, "used_s": round(used_s, 2), "memory_mb": case.memory_mb},
        "machine": _machine(), "versions": _versions(), "seed": case.seed, "case": case.json(), "created": about["created"],
    })


def write_facts(folder: Path, facts: dict[str, Any], *, repeatable: bool) -> None:
    """verdict.json; with `repeatable`, what was measured goes to measured.json. A command in it names its folder '.', wherever that is moved to."""
    if "folder" in facts["next"]["values"]:
        facts["next"]["values"]["folder"] = "."
    if repeatable:
        write_json(folder / "measured.json", _take_measured(facts))
    write_json(folder / "verdict.json", facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `write_facts` wrote, whole, with the folder's path in its command. Raises InputError if there is none."""
    source = folder / "verdict.json"
    if not source.exists():
        raise InputError("'{path}' holds no verdict.json yet: the run was not judged. Go on with it: assay run --resume {path}", path=str(folder))
    facts = json.loads(source.read_text(encoding="utf-8"))
    if (folder / "measured.json").exists() and facts["case"].get("work"):
        measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
        facts["created"], facts["budget"]["used_s"] = measured["created"], measured["used_s"]
        for row in facts["scoreboard"]:
            own = measured["candidates"].get(row["candidate"], {})
            for name in ("cost", "facts"):
                if name in own:
                    row[name] = row.get(name, {}) | own.pop(name)
            row.update(own)
    if facts["next"]["values"].get("folder") == ".":
        facts["next"]["values"]["folder"] = str(folder)
    return facts


def read_beside(folder: Path, name: str) -> dict[str, Any]:
    """A file beside the verdict: examples.json as `explain.examples` made it, compressed.json of `assay compress`; {} where it is not."""
    source = folder / name
    return json.loads(source.read_text(encoding="utf-8")) if source.exists() else {}


def _take_measured(facts: dict[str, Any]) -> dict[str, Any]:
    """Removes from `facts` what a clock or a meter said, and returns it."""
    out: dict[str, Any] = {"created": facts.pop("created"), "used_s": facts["budget"].pop("used_s"), "candidates": {}}
    for row in facts["scoreboard"]:
        own: dict[str, Any] = {"seconds": row.pop("seconds", None)}
        if row["status"] == "done":
            own["cost"] = {k: v for k, v in row["cost"].items() if k not in _REPEATABLE}
            row["cost"] = {k: v for k, v in row["cost"].items() if k in _REPEATABLE}
            own["facts"] = {k: v for k, v in row["facts"].items() if k.endswith(("_s", "_ms"))}
            row["facts"] = {k: v for k, v in row["facts"].items() if k not in own["facts"]}
        out["candidates"][row["candidate"]] = own
    return out


def threshold(task: Task, evidence: Evidence, name: str) -> dict[str, Any] | None:
    """For two classes with a cost matrix: the probability from which the costlier-to-miss class is answered, and the cost a row at
    other thresholds on the test rows. None elsewhere. chosen: least expected cost (Elkan 2001, equation 2)."""
    costs = getattr(task, "costs", None)
    if costs is None or task.width != 2:
        return None
    yes = task.positive  # type: ignore[attr-defined]
    no = 1 - yes
    false_alarm, miss = float(costs[no, yes] - costs[no, no]), float(costs[yes, no] - costs[yes, yes])
    if false_alarm + miss <= 0:
        return None
    p, truth = evidence.predictions[name][:, yes], task.truth(evidence.test) == yes
    chosen = false_alarm / (false_alarm + miss)

    def cost(at: float) -> float:
        answer = np.where(p >= at, yes, no)
        return float(costs[np.where(truth, yes, no), answer].mean())

    return {"candidate": name, "class": str(task.classes[yes]), "chosen": chosen, "cost": cost(chosen), "cost_at_half": cost(0.5),  # type: ignore[attr-defined]
            "points": [[round(float(t), 3), cost(float(t))] for t in np.linspace(0, 1, 41)]}


def _curves(task: Task, evidence: Evidence, name: str) -> dict[str, Any]:
    """What a picture of this candidate's answers needs: calibration bins and confusion, or residuals."""
    prediction = evidence.predictions[name]
    truth = task.truth(evidence.test)
    if task.name == "classify":
        confidence, answer = prediction.max(axis=1), prediction.argmax(axis=1)
        order = np.argsort(confidence, kind="stable")
        bins = [{"confidence": float(confidence[part].mean()), "right": float((answer[part] == truth[part]).mean()), "rows": len(part)}
                for part in np.array_split(order, min(10, max(1, len(order) // 10))) if len(part)]
        counts = np.zeros((task.width, task.width), dtype=int)
        np.add.at(counts, (truth, answer), 1)
        shown = np.argsort(-counts.sum(axis=1), kind="stable")[:12]
        labels = [str(task.classes[c]) for c in shown]  # type: ignore[attr-defined]
        return {"calibration": bins, "confusion": {"labels": labels, "matrix": counts[np.ix_(shown, shown)].tolist(), "classes": task.width}}
    if task.name == "forecast":
        return shape_of(task, evidence.test, prediction, evidence.losses[name])
    pick = np.linspace(0, len(truth) - 1, min(len(truth), 400)).astype(int)
    return {"residuals": {"truth": truth[pick].tolist(), "answer": prediction[pick, 0].tolist(),
                          "low": prediction[pick, 1].tolist(), "high": prediction[pick, 2].tolist()}}


def _machine() -> dict[str, Any]:
    import psutil

    return {"system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(), "cores": os.cpu_count(),
            "processor": _processor(), "memory_gb": round(psutil.virtual_memory().total / 2**30, 1)}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    except OSError:
        return platform.processor()


def _versions() -> dict[str, str]:
    out = {}
    for package in _PACKAGES:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            continue
    return out
