"""What page and terminal share: names of outcomes, rungs and metrics as people say them, and numbers as people read them."""

from __future__ import annotations

import shlex
import unicodedata
from typing import Any

from assay.words import Text, say

DASH = "–"

OUTCOMES = {
    "worth_it": say("Worth it"), "not_worth_it": say("Not worth it"), "unknown": say("Not known yet"),
    "nothing_beats_naive": say("Nothing beats naive"), "not_a_result": say("Not a result"),
}
RUNGS = {
    "naive": say("naive"), "classical": say("classical"), "scratch": say("network from scratch"), "pretrained": say("pre-trained"),
    "llm": say("language model"), "external": say("external model"),
}
SHORT = {  # where a table is narrow
    "naive": say("naive"), "classical": say("classical"), "scratch": say("scratch"), "pretrained": say("pre-trained"), "llm": say("LLM"), "external": say("external"),
}
# reasons that are no news where they concern many: {reason: how those candidates are named together}
_ASIDE = {
    "it reads {kinds} columns, and there is none": say("for other kinds of columns"),
    "it answers {tasks}, not '{task}'": say("for other questions"),
    "it was left out on request": say("left out on request"),
}
STATUSES = {"refused": say("did not take part"), "failed": say("failed"), "removed": say("removed by a limit")}
KINDS = {"number": say("number"), "category": say("category"), "text": say("text"), "time": say("time"), "id": say("id, not read"),
         "image": say("image"), "audio": say("sound"), "sequence": say("sequence")}
LANGUAGES = {"zh": say("Chinese"), "en": say("English"), "other": say("other language")}
LOSSES = {
    "log": say("log loss"), "error": say("error rate"), "brier": say("Brier score"), "squared": say("squared error"),
    "absolute": say("absolute error"), "pinball": say("pinball loss"), "quantile": say("scaled quantile loss"), "cost": say("cost"),
}
METRICS = {
    "accuracy": say("accuracy"), "macro_f1": say("macro F1"), "mcc": say("Matthews correlation"), "log_loss": say("log loss"),
    "brier": say("Brier score"), "auc": say("ROC AUC"), "pr_auc": say("PR AUC"), "calibration_error": say("calibration error"),
    "cost": say("cost"), "rmse": say("RMSE"), "mae": say("MAE"), "r2": say("R²"), "coverage": say("interval coverage"),
    "interval_width": say("interval width"), "pinball": say("pinball loss"), "mase": say("MASE"), "rmsse": say("RMSSE"), "smape": say("sMAPE"), "wape": say("WAPE"),
    "wql": say("WQL"),
}
SHOWN = {"classify": ("accuracy", "macro_f1", "auc", "calibration_error"), "regress": ("mae", "rmse", "r2", "coverage"), "forecast": ("mase", "wape", "smape", "coverage")}
_BOUNDS: dict[str, tuple[float, float]] = {
    "accuracy": (0, 1), "macro_f1": (0, 1), "mcc": (-1, 1), "auc": (0, 1), "pr_auc": (0, 1), "calibration_error": (0, 1),
    "coverage": (0, 1), "smape": (0, 2), "brier": (0, 2), "r2": (-float("inf"), 1),
}
_POSITIVE = ("log_loss", "rmse", "mae", "interval_width", "pinball", "cost", "mase", "rmsse", "wape", "wql")


def number(value: float | None, *, digits: int = 4, sign: bool = False, zeros: bool = True) -> str:
    """A figure with `digits` significant digits, grouped in thousands, a true minus, no exponent that a reader has to decode.

    zeros: keep those at the end (4.30 beside 4.32); an axis does without.
    """
    if value is None:
        return DASH
    size = abs(value)
    if size >= 10 ** (digits - 1):
        text = f"{size:,.0f}" if size < 1e12 else _power(size)
    elif size and size < 1e-4:
        text = _power(size)
    else:
        text = f"{size:#.{digits}g}".rstrip(".") if zeros and size else f"{size:.{digits}g}"
    before = "−" if value < 0 and text.strip("0.,") else "+" if sign and value > 0 else ""
    return before + text


def _power(size: float) -> str:
    mantissa, _, exponent = f"{size:.1e}".partition("e")
    return f"{mantissa}×10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def interval(low: float | None, high: float | None, *, digits: int = 3, sign: bool = False) -> str:
    """'0.031 … 0.229': dots and not a dash, because ends may be negative."""
    if low is None or high is None:
        return DASH
    return f"{number(low, digits=digits, sign=sign)} … {number(high, digits=digits, sign=sign)}"


def metric(name: str, entry: dict[str, Any] | None) -> tuple[str, str]:
    """(value, interval) of a metric, the interval's ends kept where the metric can lie: a symmetric interval may reach beyond."""
    if not entry or entry.get("value") is None:
        return DASH, ""
    low, high = entry.get("low"), entry.get("high")
    least, most = _BOUNDS.get(name, (0.0 if name in _POSITIVE else -float("inf"), float("inf")))
    if most <= 2:  # shares and correlations: three decimals, so that a column of them can be compared
        return _decimals(entry["value"]), "" if low is None or high is None else f"{_decimals(max(low, least))} … {_decimals(min(high, most))}"
    if low is None or high is None:
        return number(entry["value"], digits=3), ""
    return number(entry["value"], digits=3), interval(max(low, least), min(high, most))


def _decimals(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def p_value(p: float | None) -> str:
    if p is None:
        return DASH
    return "<0.001" if p < 0.001 else ">0.99" if p > 0.99 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds with the unit that suits them: µs, ms, s, min, h."""
    if seconds is None:
        return DASH
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if seconds < limit:
            return f"{_short(seconds * factor)} {unit}"
    return f"{_short(seconds / 3600)} h"


def milliseconds(value: float | None) -> str:
    return DASH if value is None else duration(value / 1000)


def megabytes(value: float | None) -> str:
    if value is None:
        return DASH
    if value < 1:
        return f"{_short(value * 1000)} kB"
    return f"{_short(value)} MB" if value < 1000 else f"{_short(value / 1000)} GB"


def energy(wh: float | None) -> str:
    if wh is None:
        return DASH
    for limit, factor, unit in ((1e-3, 1e6, "µWh"), (1.0, 1e3, "mWh"), (1000.0, 1.0, "Wh")):
        if wh < limit:
            return f"{_short(wh * factor)} {unit}"
    return f"{_short(wh / 1000)} kWh"


def money(value: float | None, currency: str, *, sign: bool = False) -> str:
    """An amount: whole above 100, cents below, more digits where a row costs less than a cent."""
    if value is None:
        return DASH
    size = abs(value)
    text = f"{size:,.0f}" if size >= 100 else f"{size:.2f}" if size >= 0.1 or not size else number(size, digits=2)
    before = "−" if value < 0 and text.strip("0.,") else "+" if sign and value > 0 else ""
    return f"{before}{text} {currency}".strip()


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2g}"


def clean(text: object) -> str:
    """A name on one line: no control characters (a terminal would obey them), no marks that turn the writing direction."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in str(text)
                   if unicodedata.category(c) != "Cf" or c == "\u200d")


def is_aside(row: dict[str, Any]) -> bool:
    """Whether a row of the scoreboard is of a candidate that was never meant: a network for pictures where there is none is no news."""
    return row["status"] == "refused" and (row.get("reason") or {}).get("text") in _ASIDE


def asides(rows: list[dict[str, Any]]) -> list[tuple[Text, list[str]]]:
    """(why, names) of the candidates that were never meant, in few lines."""
    out = []
    for reason, why in _ASIDE.items():
        names = [row["candidate"] for row in rows if is_aside(row) and row["reason"]["text"] == reason]
        if names:
            out.append((why, names))
    return out


def text_of(packed: Any, lang: str) -> str:
    """A packed Text, or a plain string, in `lang`."""
    return Text.of(packed).to(lang) if isinstance(packed, dict) else str(packed or "")


def loss_unit(verdict: dict[str, Any]) -> Text:
    """What one unit of loss is: 'log loss', or money a row where the case says what an error costs."""
    worth = verdict["case"].get("worth")
    if worth:
        return say("{currency} a row", currency=worth["currency"])
    if verdict["case"].get("decide"):
        return say("cost of the plan")
    return LOSSES.get(verdict["loss"], say("loss"))


_FLAGS = {
    "task": "--task", "loss": "--loss", "group": "--group", "time_column": "--time-column", "split": "--split", "folds": "--folds",
    "test_rows": "--test-rows", "requests_per_month": "--requests", "artefact_mb": "--size", "margin": "--margin", "encoder": "--encoder",
    "prices": "--prices", "seed": "--seed", "work": "--work", "query": "--query", "horizon": "--horizon", "season": "--season",
    "forecaster": "--forecaster", "country": "--country", "decide": "--decide",
}


def command(verdict: dict[str, Any]) -> str:
    """The command line that repeats this run. `verdict["command"]` where the run kept its own, else built from its case."""
    if verdict.get("command"):
        return str(verdict["command"])
    case = verdict["case"]
    parts = ["assay", "run", case.get("data") or "DATA.csv", "--target", case["target"]]
    parts += [] if case.get("work") else ["--time", f"{_bare(case['time_s'])}s"]
    parts += ["--memory", f"{_bare(case['memory_mb'])}M"]
    for key, flag in _FLAGS.items():
        if case.get(key) not in (None, "", []):
            parts += [flag, _bare(case[key])]
    for name in ("known", "hierarchy"):
        parts += [word for value in case.get(name) or () for word in (f"--{name}", value)]
    if case.get("latency_ms"):
        parts += ["--latency", f"{_bare(case['latency_ms'])}ms"]
    if case.get("loss") == "pinball":
        parts += ["--quantile", f"{case['quantile']:g}"]
    if case.get("confidence", 0.95) != 0.95:
        parts += ["--confidence", f"{case['confidence']:g}"]
    if case.get("worth"):
        money_of = case["worth"]
        parts += ["--worth", "; ".join(f"{what}={_bare(cost)} {money_of['currency']}" for what, cost in money_of["costs"].items())]
    if case.get("llm_url"):
        parts += ["--llm", case["llm_url"], case.get("llm_model") or "MODEL"]
        if case.get("llm_price_in") is not None:
            parts += ["--llm-price", f"{case['llm_price_in']:g}", f"{case.get('llm_price_out') or 0:g}"]
    for flag, key in (("--offline", "offline"), ("--explainable", "explainable"), ("--drop-missing-target", "drop_missing_target")):
        parts += [flag] if case.get(key) else []
    parts += ["--no-tune"] if case.get("tune") is False else []
    for flag, key in (("--only", "candidates"), ("--without", "without"), ("--drop", "drop"), ("--external", "external")):
        for name in case.get(key) or ():
            parts += [flag, name]
    for flag, key in (("--kind", "kinds"), ("--weights", "weights"), ("--external-price", "external_price")):
        for name, value in (case.get(key) or {}).items():
            parts += [flag, f"{name}={_bare(value)}"]
    return shlex.join(str(part) for part in parts)


def _bare(value: object) -> str:
    """A number as a flag takes it: no exponent up to 12 digits."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
