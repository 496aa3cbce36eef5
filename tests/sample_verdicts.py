"""Verdicts as `report.facts` makes them, for the tests of page, terminal and schema: every outcome, odd names, many classes.

Built with the judge's own sentences, so that a change of the contract is felt here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.words import say

SCRIPT = '<script>alert(1)</script>"\'&'
LONG = "客户来电内容经语音识别后的完整文字记录（含坐席与客户双方，已去除个人信息）"
METRICS = {"classify": ("accuracy", "macro_f1", "mcc", "log_loss", "brier", "auc", "pr_auc", "calibration_error"),
           "regress": ("rmse", "mae", "r2", "coverage", "interval_width")}


def row(name: str, rung: str, loss: float, *, task: str = "classify", best: float = 0.3, naive: float = 0.69, spread: float = 0.02,
        ms: float = 0.1, **more: Any) -> dict[str, Any]:
    """One finished candidate."""
    rng = np.random.default_rng(len(name))
    metrics = {}
    for m in METRICS[task]:
        value = float(rng.uniform(0.6, 0.99))
        metrics[m] = {"value": value, "low": value - 0.03, "high": value + 0.03}
    return {
        "candidate": name, "rung": rung, "status": "done", "reason": None, "removed": None, "splits_done": 1, "loss": loss,
        "low": loss - spread, "high": loss + spread, "valid_loss": loss * 0.97, "metrics": metrics,
        "gain_over_naive": None if rung == "naive" else {"gain": naive - loss, "low": naive - loss - spread, "high": naive - loss + spread, "p": 0.0005},
        "against_winner": None if loss == best else {"gain": loss - best, "low": loss - best - spread, "high": loss - best + spread, "p": 0.002,
                                                     "p_holm": 0.006},
        "train_rows": 8000, "rows_used": 8000 if rung != "llm" else 64, "seconds": 12.5,
        "cost": {"fit_s": 3.2, "fit_wall_s": 2.1, "predict_s_per_row": ms / 2000, "energy_wh": 0.012, "predict_wh_per_row": 3e-7,
                 "energy": "modelled", "peak_mb": 410.0, "artefact_mb": 7.4, "money_per_row": 0.0004 if rung == "llm" else 0.0,
                 "single_row_ms": ms, "single_row_p95_ms": ms * 1.8},
        "facts": {"loss_curve": [[i, 1.2 / i + 0.25, 1.2 / i + 0.3 + 0.0002 * i] for i in range(1, 400)]} if rung in ("scratch", "pretrained") else {},
        "version": "1", "params": {}, "source": "a paper (2026)", "licence": "MIT",
    } | more


def absent(name: str, rung: str, status: str, reason: Any) -> dict[str, Any]:
    return {"candidate": name, "rung": rung, "status": status, "reason": reason.json(), "seconds": 0.4, "version": "1", "source": "", "licence": ""}


def verdict(outcome: str = "worth_it", *, task: str = "classify", money: bool = False, requests: float | None = 2e6, classes: int = 2,
            columns: int = 6, odd: bool = False) -> dict[str, Any]:
    """A whole verdict.json. odd: hostile and long names for column, class, candidate and reason."""
    best = {"worth_it": 0.25, "not_worth_it": 0.40, "unknown": 0.295, "nothing_beats_naive": 0.688, "not_a_result": 0.001}[outcome]
    small = 0.687 if outcome == "nothing_beats_naive" else 0.30
    scale = 40.0 if task == "regress" else 1.0
    large_name = LONG if odd else "minilm"
    rows = [row("boosting", "classical", small * scale, task=task, best=min(best, small) * scale, naive=0.69 * scale, spread=0.02 * scale, ms=0.3),
            row(large_name, "pretrained", best * scale, task=task, best=min(best, small) * scale, naive=0.69 * scale, spread=0.02 * scale, ms=7.5),
            row("linear", "classical", (small + 0.001) * scale, task=task, best=min(best, small) * scale, naive=0.69 * scale, spread=0.025 * scale, ms=0.05),
            row("mlp", "scratch", (small + 0.03) * scale, task=task, best=min(best, small) * scale, naive=0.69 * scale, spread=0.03 * scale, ms=0.4,
                removed=say("one row takes {got:.3g} ms (95th percentile), the limit is {limit:g} ms", got=0.72, limit=0.5).json()),
            row("llm", "llm", (best + 0.05) * scale, task=task, best=min(best, small) * scale, naive=0.69 * scale, spread=0.06 * scale, ms=850.0),
            row("naive", "naive", 0.69 * scale, task=task, best=min(best, small) * scale, spread=0.01 * scale, ms=0.006)]
    rows.sort(key=lambda r: r["loss"])
    rows += [absent("hf", "pretrained", "refused", say("it needs: pip install 'assay[{extra}]'", extra="hf")),
             absent("convnet", "scratch", "failed", say("it failed: {kind}: {message}", kind="ValueError", message=SCRIPT if odd else "no space"))]
    gain = (small - best) * scale
    wide = 0.03 if outcome == "unknown" else 0.012
    effect = {"gain": gain, "low": gain - wide * scale, "high": gain + wide * scale, "p": 0.21 if outcome == "unknown" else 0.0005, "se": 0.006 * scale,
              "margin": 0.0 if money else 0.006 * scale, "mde": 0.0168 * scale, "confidence": 0.95, "relative": gain / small / scale,
              "rows_to_settle": 31200 if outcome == "unknown" else 90, "test_rows": 2000}
    unit = say("{currency} a row", currency="CNY") if money else say("log loss") if task == "classify" else say("squared error")
    winner = {"worth_it": large_name, "nothing_beats_naive": "naive"}.get(outcome, "boosting")
    labels = [SCRIPT if odd and i == 0 else LONG if odd and i == 1 else f"class {i}" for i in range(classes)]
    names = [SCRIPT if odd and i == 1 else LONG if odd and i == 2 else f"column {i}" for i in range(columns)]
    kinds = ("text", "number", "category", "time", "id")
    case = {"target": names[1] if odd else "answer", "data": "tickets.csv", "quantile": 0.5, "time_s": 60.0, "memory_mb": 4096.0, "seed": 0, "kinds": {},
            "drop_missing_target": False, "offline": False, "explainable": False, "confidence": 0.95, "candidates": [], "without": [], "lang": "en"}
    if money:
        case |= {"worth": {"costs": {"error": 4.5}, "currency": "CNY"}, "requests_per_month": requests}
    rate = requests or 0.0
    return {
        "format": 2, "outcome": outcome, "sentence": _sentence(outcome, large_name, unit, best * scale, small * scale, effect).json(),
        "next": say("assay predict {folder}/winner.assay NEW.csv -o answers.csv", folder="assay-runs/tickets").json(),
        "notes": [say("Running costs use this price table: {source}.", source="built-in table of assay 0.1").json()],
        "task": task, "loss": ("cost" if task == "classify" else "absolute") if money else "log" if task == "classify" else "squared",
        "large": large_name, "small": "boosting", "naive": "naive", "winner": winner, "packed": winner, "cheapest": "linear", "findings": [], "learning": None, "ablation": [], "slices": [], "threshold": None, "effect": effect,
        "money": {"currency": "CNY", "requests_per_month": requests, "saved_by_large": (gain + 0.003) * rate, "extra_cost_of_large": 0.003 * rate,
                  "net": gain * rate, "low": effect["low"] * rate, "high": effect["high"] * rate,
                  "per_row": {"large": 0.0031, "small": 0.0001}} if money else None,
        "scoreboard": rows,
        "data": {"path": "tickets.csv", "rows": 10000, "fingerprint": "e4c9021c0e3535ec", "target": case["target"],
                 "columns": [{"name": n, "kind": kinds[i % 5]} | ({"language": "zh"} if i % 5 == 0 else {}) for i, n in enumerate(names)],
                 "group": None, "time": None, "train_rows": 8000, "test_rows": 2000, "folds": 1,
                 "split": say("{train:,} rows teach and {test:,} judge, split {how}.", train=8000, test=2000,
                              how=say("at random, the same shares of each answer on both sides")).json()},
        "notes_data": [], "classes": labels if task == "classify" else None,
        "curves": {r["candidate"]: _curves(task, labels, i) for i, r in enumerate(rows) if r["status"] == "done"},
        "budget": {"time_s": 60.0, "used_s": 57.3, "memory_mb": 4096.0},
        "machine": {"system": "Linux x86_64", "python": "3.11.7", "cores": 2, "processor": "AMD EPYC", "memory_gb": 23.5},
        "versions": {"assay": "0.1.0", "numpy": "2.4.6"}, "seed": 0, "case": case, "created": "2026-11-22T02:31:38+00:00",
    }


def _sentence(outcome: str, large: str, unit: Any, a: float, b: float, effect: dict[str, Any]) -> Any:
    if outcome == "not_a_result":
        return say("This is not a result: {columns} give the answer away, and a score built on them says nothing about rows whose answer is not yet "
                   "known. (With them {best} reaches a {unit} of {loss:.4g}.)", columns=["refund", "closed_at"], best=large, unit=unit, loss=a)
    if outcome == "nothing_beats_naive":
        return say("Nothing beats the naive answer: the best try, {best}, changes the {unit} by {gain:+.4g} ({percent:.0f} % interval "
                   "{low:+.4g} to {high:+.4g}) on {rows:,} test rows; a gain of {mde:.2g} would have been found.", best="boosting", unit=unit,
                   gain=-0.003, percent=95.0, low=-0.02, high=0.016, rows=2000, mde=0.0168)
    same = {"large": large, "small": "boosting", "unit": unit, "a": a, "b": b, "percent": 95.0, "rows": 2000, **effect}
    if outcome == "worth_it":
        return say("A large model is worth it: {large} has a {unit} of {a:.4g} against {b:.4g} of {small}, a net gain of {gain:.4g} "
                   "({percent:.0f} % interval {low:.4g} to {high:.4g}, more than {margin:.2g} matters) on {rows:,} test rows.", **same)
    if outcome == "not_worth_it":
        return say("A large model is not worth it: {large} has a {unit} of {a:.4g} against {b:.4g} of {small}, a net gain of {gain:+.4g} "
                   "({percent:.0f} % interval {low:+.4g} to {high:+.4g}, more than {margin:.2g} would matter) on {rows:,} test rows.", **same)
    return say("Not known yet: {large} against {small} gains {gain:+.4g} in {unit} ({percent:.0f} % interval {low:+.4g} to {high:+.4g}), and "
               "{margin:.2g} is what matters; {rows:,} test rows can show {mde:.2g}, about {needed:,} would settle it.",
               **same | {"needed": effect["rows_to_settle"]})


def _curves(task: str, labels: list[str], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    if task == "classify":
        shown = labels[:12]
        matrix = rng.integers(0, 9, (len(shown), len(shown))) + 60 * np.eye(len(shown), dtype=int)
        return {"calibration": [{"confidence": c, "right": min(1.0, max(0.0, c - 0.05 + 0.02 * seed)), "rows": 200} for c in np.linspace(0.5, 0.99, 10).tolist()],
                "confusion": {"labels": shown, "matrix": matrix.tolist(), "classes": len(labels)}}
    truth = rng.gamma(2.0, 60.0, 300)
    answer = truth + rng.normal(0, 25, 300)
    return {"residuals": {"truth": truth.tolist(), "answer": answer.tolist(), "low": (answer - 45).tolist(), "high": (answer + 45).tolist()}}


def blocked() -> dict[str, Any]:
    """The large model gains, but breaks a limit."""
    packed = verdict("worth_it", money=True)
    limit = say("one row takes {got:.3g} ms (95th percentile), the limit is {limit:g} ms", got=13.5, limit=5.0)
    packed |= {"outcome": "not_worth_it", "winner": "boosting", "cheapest": "boosting"}
    next(row for row in packed["scoreboard"] if row["candidate"] == "minilm")["removed"] = limit.json()
    packed["sentence"] = say("A large model is not worth it here: the best one, {large}, breaks a limit of this case ({blocked}). Without that limit its net gain "
                             "in {unit} over {small} would be {gain:+.4g} ({percent:.0f} % interval {low:+.4g} to {high:+.4g}) on {rows:,} test rows.",
                             large="minilm", small="boosting", unit=say("{currency} a row", currency="CNY"), percent=95.0, rows=2000, blocked=limit,
                             **packed["effect"]).json()
    return packed


SAMPLES = {
    "worth it": verdict("worth_it"), "not worth it": verdict("not_worth_it"), "unknown": verdict("unknown"),
    "nothing beats naive": verdict("nothing_beats_naive"), "money": verdict("worth_it", money=True),
    "money a row": verdict("unknown", money=True, requests=None), "amounts": verdict("worth_it", task="regress"),
    "amounts in money": verdict("not_worth_it", task="regress", money=True), "many classes": verdict("unknown", classes=150, columns=45),
    "blocked": blocked(), "odd names": verdict("worth_it", classes=14, odd=True),
}
