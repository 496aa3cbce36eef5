"""The report: one HTML file that opens anywhere, without network, script or fonts of its own. Values from verdict.json only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay.errors import InputError
from assay.report import charts, draw, fans, sections, wording
from assay.report.compressed import compressed
from assay.report.examples import examples
from assay.report.facts import read_beside, read_facts
from assay.words import LANGUAGES, Text

LARGE = ("scratch", "pretrained", "llm", "external")
MOST_CHIPS = 40  # columns and classes shown at once; the rest unfolds
_HERE = Path(__file__).parent


def write(folder: Path, path: Path, *, lang: str, summary: bool = False, rows: bool = True) -> Path:
    """Draw the report of the run in `folder` into the file `path`; returns `path`.

    lang: en or zh. rows: show some test rows, which are the user's data. summary: one page for whoever decides, instead of everything for whoever checks. Raises InputError if the folder holds no verdict or the language is not known.
    """
    facts = read_facts(Path(folder))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(facts | {name: read_beside(Path(folder), f"{name}.json") for name in ("examples", "compressed") if rows or name != "examples"}, lang=lang, summary=summary)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def render(verdict: dict[str, Any], *, lang: str, summary: bool = False) -> str:
    """The page as a string. Every value is escaped by the template; charts escape their own texts."""
    import jinja2

    if lang not in LANGUAGES:
        raise InputError("A report is written in one of {languages}, not in '{lang}'.", languages=list(LANGUAGES), lang=lang)

    def say(template: str | Text, /, **values: Any) -> str:
        return (template if isinstance(template, Text) else Text(template, values)).to(lang)

    world = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined,
                               trim_blocks=True, lstrip_blocks=True)
    world.filters |= {"number": wording.number, "interval": wording.interval, "megabytes": wording.megabytes, "clean": wording.clean,
                      "duration": wording.duration, "packed": lambda text: wording.text_of(text, lang)}
    css = jinja2.utils.markupsafe.Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return world.get_template("summary.html" if summary else "page.html").render(view(verdict, say, jinja2.utils.markupsafe.Markup), say=say, lang=lang, css=css)


Say = Callable[..., str]


def view(verdict: dict[str, Any], say: Say, markup: Callable[[str], Any]) -> dict[str, Any]:
    """What the template shows: verdict.json's numbers as texts, its curves as pictures."""
    done = [row for row in verdict["scoreboard"] if row["status"] == "done"]
    by_name = {row["candidate"]: row for row in done}
    shown = dict.fromkeys((verdict["winner"], verdict["large"] or _best_large(done), verdict["small"]))
    pair = [by_name[n] for n in shown if n in by_name][:2]  # the winner, and the other side of the question
    kinds = wording.SHOWN.get(verdict["task"], ())
    unit = say(wording.loss_unit(verdict))
    return {
        "v": verdict, "unit": unit, "loss_name": say(wording.LOSSES.get(verdict["loss"], Text("loss"))), "outcome": say(wording.OUTCOMES[verdict["outcome"]]),
        "effect": _effect(verdict, by_name, unit, say, markup), "money": _money(verdict), "command": wording.command(verdict),
        "metrics": [say(wording.METRICS.get(m, Text("{name}", {"name": m}))) for m in kinds],
        "rows": [_row(row, verdict, kinds, done, say, markup) for row in done],
        "priced": any(row["cost"].get("money_per_row") for row in done),
        "absent": _absent(verdict, say, markup), "front": _front([r for r in done if r["cost"].get("single_row_ms") is not None], unit, say, markup) if len(done) > 1 else None,
        "shapes": fans.shapes(verdict, pair, unit, say, markup), "fits": _fits(verdict, pair, say, markup), "confusions": _confusions(verdict, pair, say),
        "findings": sections.findings(verdict, say), "learning": sections.learning(verdict, by_name, unit, say, markup),
        "examples": examples(verdict.get("examples") or {}, say, markup), "compressed": compressed(verdict.get("compressed") or {}, say), "slices": sections.slices(verdict, say), "decision": sections.decision(verdict, say), "ablations": sections.ablations(verdict, say),
        "threshold": sections.threshold(verdict, unit, say, markup), "seeds": sections.seeds(done),
        "provenance": sections.provenance(verdict, wording.command(verdict), say), "winner": by_name.get(verdict["winner"]),
        "losses": _losses(done, say, markup), "columns": _columns(verdict, say), "classes": _shared(verdict["classes"] or []),
        "languages": {k: say(t) for k, t in wording.LANGUAGES.items()},
        "rungs": [{"mark": markup(draw.mark({"rung": r})), "name": say(t)} for r, t in wording.RUNGS.items()
                  if any(row.get("rung") == r for row in done)],
    }


def _best_large(done: list[dict[str, Any]]) -> str | None:
    return next((row["candidate"] for row in done if row["rung"] in LARGE), None)


def _effect(verdict: dict[str, Any], rows: dict[str, Any], unit: str, say: Say, markup: Callable[[str], Any]) -> dict[str, Any] | None:
    """The figure under the sentence: large against small, or the best try against naive where nothing beats that."""
    tried = verdict["sentence"]["values"].get("best") if verdict["outcome"] == "nothing_beats_naive" else None
    if tried in rows and rows[tried].get("gain_over_naive"):
        value, against = rows[tried]["gain_over_naive"] | {"margin": 0.0}, (tried, verdict["naive"])
    elif verdict["effect"] and verdict["outcome"] != "not_a_result":
        value, against = verdict["effect"], (verdict["large"], verdict["small"])
    else:
        return None
    if any(value.get(k) is None for k in ("gain", "low", "high", "margin")):
        return None
    one, other = (wording.clean(name) for name in against)
    confidence = (verdict["effect"] or {}).get("confidence") or verdict["case"].get("confidence", 0.95)
    title = say("Net gain of {one} over {other}: {gain}, interval {ends}", one=one, other=other,
                   gain=wording.number(value["gain"], sign=True), ends=wording.interval(value["low"], value["high"], sign=True))
    left, right = (draw.shortened(name, 14) for name in (other, one))
    words = {"title": title, "loses": say("{name} is better", name=left), "pays": say("{name} pays", name=right),
             "unit": say("net gain of {one} over {other}, {unit}", one=right, other=left, unit=unit)}
    return {"svg": markup(charts.effect(value, words)), "value": value, "one": one, "other": other, "percent": f"{confidence * 100:g}",
            "title": title, "blocked": verdict["outcome"] == "not_worth_it" and value["low"] > value["margin"], "pair": [rows.get(n) for n in against]}


def _money(verdict: dict[str, Any]) -> dict[str, Any] | None:
    """The month's bill, or the row's where nobody said how many rows a month."""
    money = verdict["money"]
    if not money:
        return None
    currency, effect = money["currency"], verdict["effect"]
    if money["requests_per_month"]:
        values = {k: money[k] for k in ("saved_by_large", "extra_cost_of_large", "net", "low", "high")}
    else:
        extra = money["per_row"]["large"] - money["per_row"]["small"] if money.get("per_row") else 0.0
        values = {"saved_by_large": effect["gain"] + extra, "extra_cost_of_large": extra, "net": effect["gain"], "low": effect["low"],
                  "high": effect["high"]}
    shown = {k: wording.money(v, currency, sign=k != "extra_cost_of_large") for k, v in values.items()}
    return shown | {"per_month": bool(money["requests_per_month"]), "requests": wording.number(money["requests_per_month"], digits=1),
                    "pays": (values["net"] or 0) > 0}


def _row(row: dict[str, Any], verdict: dict[str, Any], kinds: tuple[str, ...], done: list[dict[str, Any]], say: Say,
         markup: Callable[[str], Any]) -> dict[str, Any]:
    """One finished candidate, every cell a text."""
    name, cost = row["candidate"], row["cost"]
    gain, against = row.get("gain_over_naive"), row.get("against_winner")
    ends = draw.around([v for r in done for v in (r["low"], r["high"], r["loss"])])
    title = say("{name}: loss {loss}, interval {ends}", name=wording.clean(name), loss=wording.number(row["loss"]),
                   ends=wording.interval(row["low"], row["high"]))
    tags = [tag for tag, here in (
        (say("winner"), name == verdict["winner"]), (say("cheapest good enough"), name == verdict["cheapest"]),
        (say("best large"), name == verdict["large"]), (say("removed"), bool(row.get("removed")))) if here]
    return {
        "name": wording.clean(name), "rung": say(wording.RUNGS.get(row["rung"], Text("{name}", {"name": row["rung"]}))),
        "mark": markup(draw.mark(row)), "tags": tags, "winner": name == verdict["winner"], "removed": bool(row.get("removed")),
        "loss": wording.number(row["loss"]), "ends": wording.interval(row["low"], row["high"]), "bar": markup(charts.loss_bar(row, ends, title)),
        "metrics": [wording.metric(m, row["metrics"].get(m)) for m in kinds],
        "gain": wording.number(gain["gain"], digits=3, sign=True) if gain else wording.DASH,
        "gain_ends": wording.interval(gain["low"], gain["high"], sign=True) if gain else "",
        "p": wording.p_value(against["p_holm"]) if against else wording.DASH,
        "rows_used": f"{row['rows_used']:,}", "fewer": row["rows_used"] < row["train_rows"], "fit": wording.duration(cost["fit_s"]),
        "latency": wording.milliseconds(cost.get("single_row_ms")), "latency_p95": wording.milliseconds(cost.get("single_row_p95_ms")),
        "batch": wording.duration(cost["predict_s_per_row"]), "peak": wording.megabytes(cost["peak_mb"]),
        "artefact": wording.megabytes(cost["artefact_mb"]), "energy": wording.energy(cost["energy_wh"]),
        "energy_kind": say("measured") if cost.get("energy") == "measured" else say("modelled from CPU time"),
        "tokens": wording.number(cost.get("money_per_row"), digits=2), "version": wording.clean(row.get("version") or wording.DASH),
        "source": wording.clean(row.get("source") or wording.DASH), "licence": wording.clean(row.get("licence") or wording.DASH),
    }


def _absent(verdict: dict[str, Any], say: Say, markup: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Who was removed, refused or failed, with the reason."""
    out = []
    for row in verdict["scoreboard"]:
        status = row["status"] if row["status"] != "done" else "removed" if row.get("removed") else ""
        if status and not wording.is_aside(row):
            reason = Text.of(row["removed"] if status == "removed" else row["reason"]) if row.get("removed") or row.get("reason") else None
            out.append({"name": wording.clean(row["candidate"]), "mark": markup(draw.mark(row)), "status": say(wording.STATUSES[status]),
                        "reason": wording.clean(say(reason)) if reason else wording.DASH})
    return out + [{"name": ", ".join(map(wording.clean, names)), "mark": "", "status": say(wording.STATUSES["refused"]), "reason": say(why)}
                  for why, names in wording.asides(verdict["scoreboard"])]


def _front(done: list[dict[str, Any]], unit: str, say: Say, markup: Callable[[str], Any]) -> dict[str, Any]:
    """Loss against latency; on the front stand those that nobody beats on both."""
    best, names = float("inf"), []
    for row in sorted(done, key=lambda r: (r["cost"]["single_row_ms"], r["loss"])):
        if row["loss"] < best:
            best = row["loss"]
            names.append(row["candidate"])
    title = say("Loss against the time of one answer")
    words = {"title": title, "x": say("one row's answer takes (log scale)"), "y": unit}
    listed = [{"name": wording.clean(r["candidate"]), "mark": markup(draw.mark(r)), "loss": wording.number(r["loss"], digits=3),
               "ms": wording.duration(r["cost"]["single_row_ms"] / 1000)} for n in names for r in done if r["candidate"] == n]
    return {"svg": markup(charts.front(done, names, words)), "names": listed}


def _fits(verdict: dict[str, Any], pair: list[dict[str, Any]], say: Say, markup: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Calibration of winner and best large in one picture, or truth against answer in one each."""
    curves = {row["candidate"]: verdict["curves"].get(row["candidate"]) or {} for row in pair}
    series = [(row, curves[row["candidate"]]["calibration"]) for row in pair if curves[row["candidate"]].get("calibration")]
    if series:
        names = " / ".join(wording.clean(row["candidate"]) for row, _ in series)
        words = {"title": say("Calibration: {names}", names=names), "x": say("stated probability of the answer"),
                 "y": say("share that was right")}
        legend = [{"mark": markup(draw.mark(row)), "name": wording.clean(row["candidate"]),
                   "error": wording.metric("calibration_error", row["metrics"].get("calibration_error"))} for row, _ in series]
        return [{"svg": markup(charts.calibration(series, words)), "kind": "calibration", "legend": legend}]
    out = []
    ends = draw.around([v for c in curves.values() for k in ("truth", "answer") for v in (c.get("residuals") or {}).get(k, ())], pad=0.04)
    for row in pair:
        residuals = curves[row["candidate"]].get("residuals")
        if residuals:
            name = wording.clean(row["candidate"])
            words = {"title": say("Truth against answer: {name}", name=name), "x": say("truth"), "y": say("answer")}
            out.append({"svg": markup(charts.answers(row, residuals, ends, words)), "kind": "answers",
                        "legend": [{"mark": markup(draw.mark(row)), "name": name}]})
    return out


def _confusions(verdict: dict[str, Any], pair: list[dict[str, Any]], say: Say) -> list[dict[str, Any]]:
    out = []
    for row in pair:
        packed = (verdict["curves"].get(row["candidate"]) or {}).get("confusion")
        if packed:
            cells = [[{"n": f"{n:,}", "share": round(n / max(sum(counts), 1), 3), "right": i == j} for j, n in enumerate(counts)]
                     for i, counts in enumerate(packed["matrix"])]
            labels = [wording.clean(label) for label in packed["labels"]]
            out.append({"name": wording.clean(row["candidate"]), "labels": labels, "rows": list(zip(labels, cells, strict=True)),
                        "classes": packed["classes"], "shown": len(labels)})
    return out


def _losses(done: list[dict[str, Any]], say: Say, markup: Callable[[str], Any]) -> list[dict[str, Any]]:
    out = []
    for row in done:
        curve = [p for p in row["facts"].get("loss_curve") or [] if p and p[0] is not None]
        if curve:
            name = wording.clean(row["candidate"])
            words = {"title": say("Loss curve: {name}", name=name), "x": say("step"), "y": say("loss")}
            why = (row["facts"].get("architecture") or {}).get("reason")
            out.append({"name": name, "mark": markup(draw.mark(row)), "svg": markup(charts.losses(row, curve, words)),
                        "why": say("Its size: {reason}.", reason=Text.of(why)) if why else ""})
    return out


def _columns(verdict: dict[str, Any], say: Say) -> dict[str, Any]:
    data = verdict["data"]
    roles = {data["target"]: say("the answer"), data.get("group"): say("group"), data.get("time"): say("orders the rows")}
    return _shared([{"name": wording.clean(c["name"]), "kind": say(wording.KINDS.get(c["kind"], Text("{name}", {"name": c["kind"]}))),
                     "language": c.get("language"), "role": roles.get(c["name"], "")} for c in data["columns"]])


def _shared(values: list[Any]) -> dict[str, Any]:
    """The first ones, and those that unfold."""
    return {"first": values[:MOST_CHIPS], "rest": values[MOST_CHIPS:], "count": len(values)}
