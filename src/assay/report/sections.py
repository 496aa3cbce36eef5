"""The parts of the page that say more than the scoreboard: findings, learning curves, slices, ablation, threshold, provenance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.report import charts, draw, wording
from assay.words import Text
from assay.words import say as phrase

Say = Callable[..., str]
Markup = Callable[[str], Any]
LEVELS = {"leak": phrase("leak"), "warning": phrase("warning"), "note": phrase("note")}


def findings(verdict: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    return [{"level": f["level"], "name": say(LEVELS[f["level"]]), "text": wording.clean(say(Text.of(f["text"]))),
             "advice": wording.clean(say(Text.of(f["advice"])))} for f in verdict.get("findings") or []]


def learning(verdict: dict[str, Any], rows: dict[str, dict[str, Any]], unit: str, say: Say, markup: Markup) -> dict[str, Any] | None:
    """One picture with all curves, the sentence of the crossing, and what more rows would do for each."""
    packed = verdict.get("learning")
    if not packed or not packed["curves"]:
        return None
    series = [(rows[n], c) for n, c in packed["curves"].items() if n in rows and c["measured"]]
    if not series:
        return None
    percent = f"{packed['confidence'] * 100:g}"
    words = {"title": say("Learning curves"), "x": say("rows to learn from (log scale)"), "y": unit,
             "pays": say("pays up to here") if (packed["crossing"] or {}).get("kind") == "until" else say("pays from here")}
    crossing = packed["crossing"]
    notes = [wording.clean(say(Text.of(text))) for _, c in series for text in (c.get("more_rows") or c.get("reason"), c.get("more_time")) if text]
    return {"svg": markup(charts.learning(series, crossing, words)), "percent": percent, "notes": notes,
            "crossing": wording.clean(say(Text.of(crossing["sentence"]))) if crossing else "",
            "legend": [{"mark": markup(draw.mark(r)), "name": wording.clean(r["candidate"])} for r, _ in series]}


def decision(verdict: dict[str, Any], say: Say) -> dict[str, Any] | None:
    """What the plans cost: each forecaster, the oracle who knows what comes, and the rule of thumb."""
    told = verdict.get("decision")
    if not told:
        return None
    oracle = told["oracle"]
    rows = [{"name": wording.clean(name), "cost": wording.number(cost), "regret": wording.number(cost - oracle, digits=3, sign=True)}
            for name, cost in sorted(told["costs"].items(), key=lambda pair: pair[1])]
    rule = told["rule"]
    return {"about": say(Text.of(told["about"])), "origins": told["origins"], "rows": rows, "oracle": wording.number(oracle),
            "rule": {"cost": wording.number(rule["cost"]), "regret": wording.number(rule["cost"] - oracle, digits=3, sign=True), "forecast": wording.clean(rule["forecast"])}}


def slices(verdict: dict[str, Any], say: Say) -> list[dict[str, str]]:
    return [{"where": wording.clean(say(Text.of(s["where"]))), "rows": f"{s['rows']:,}", "share": f"{s['share']:.1%}", "loss": wording.number(s["loss"]),
             "excess": wording.number(s["excess"], digits=3, sign=True), "ends": wording.interval(s["low"], s["high"], sign=True)}
            for s in verdict.get("slices") or []]


def ablations(verdict: dict[str, Any], say: Say) -> list[dict[str, str]]:
    """What each kind of column adds, in loss and in the metric that people know best."""
    shown = {"classify": ("accuracy", 100, say("points of accuracy")), "regress": ("r2", 100, say("points of R²"))}.get(verdict["task"])
    out = []
    for a in verdict.get("ablation") or []:
        points = ""
        if shown and a["metrics"].get(shown[0]) is not None and a["metrics_without"].get(shown[0]) is not None:
            points = f"{wording.number((a['metrics'][shown[0]] - a['metrics_without'][shown[0]]) * shown[1], digits=2, sign=True)} {shown[2]}"
        hidden = say("text") if a["hidden"] == ["text"] else ", ".join(say(wording.KINDS.get(k, Text("{name}", {"name": k}))) for k in a["hidden"])
        out.append({"candidate": wording.clean(a["candidate"]), "hidden": hidden, "columns": ", ".join(wording.clean(c) for c in a["columns"][:8]),
                    "gain": wording.number(a["gain"], digits=3, sign=True), "ends": wording.interval(a["low"], a["high"], sign=True), "points": points})
    return out


def threshold(verdict: dict[str, Any], unit: str, say: Say, markup: Markup) -> dict[str, Any] | None:
    found = verdict.get("threshold")
    if not found:
        return None
    name = wording.clean(found["class"])
    words = {"title": say("Cost against the threshold"), "x": say("answer {name} from this probability on", name=draw.shortened(name, 16)), "y": unit}
    return {"svg": markup(charts.threshold(found["points"], found["chosen"], words)), "chosen": f"{found['chosen']:.1%}", "class": name,
            "candidate": wording.clean(found["candidate"]), "cost": wording.number(found["cost"]), "half": wording.number(found["cost_at_half"])}


def seeds(done: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The luck of the seed beside the luck of the test rows, for those that were played more than once."""
    out = []
    for row in done:
        spread = row.get("seeds")
        if spread and row.get("low") is not None and row.get("high") is not None:
            out.append({"name": wording.clean(row["candidate"]), "n": str(len(spread["losses"])), "seed": wording.number(spread["sd"], digits=2),
                        "rows": wording.number((row["high"] - row["low"]) / 4, digits=2)})
    return out


def provenance(verdict: dict[str, Any], command: str, say: Say) -> list[tuple[str, str, str]]:
    """(figures, file, how they come about): every figure of the page traces to a file, a command and a seed."""
    seed = verdict["seed"]
    judged = "assay judge RUN"
    return [
        (say("columns, kinds, split, findings"), "case.json, splits.npz, data.arrow", f"{command}"),
        (say("answers, losses, metrics and their intervals"), "predictions/NAME.SPLIT.npy, trials.jsonl", say("{command} (bootstrap with seed {seed})", command=judged, seed=seed)),
        (say("learning curves and their crossing"), "predictions/NAME.0.nSHARE.npy", say("{command} (laws and bootstrap with seed {seed})", command=judged, seed=seed)),
        (say("luck of the seed"), "predictions/NAME.SPLIT.rK.npy", say("fits with seeds {first}, {second}, ...", first=seed + 1, second=seed + 2)),
        (say("what each kind of column adds"), "predictions/NAME.0.without-KINDS.npy", say("the same fit with seed {seed}, blind for these columns", seed=seed)),
        (say("times, memory, energy"), "trials.jsonl: cost", say("measured while the trials ran on this machine")),
        (say("money"), "verdict.json: money", say("{command} with the price table named above", command=judged)),
    ]
