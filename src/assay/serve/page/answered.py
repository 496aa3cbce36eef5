"""What a model has answered: probabilities or an interval, and what the answer rests on."""

from __future__ import annotations

import re
from typing import Any

from assay.explain.examples import coloured, thumbnail, uri
from assay.report import wording
from assay.report.draw import Axis, around, svg, text
from assay.report.draw import line as stroke
from assay.serve.held import Held
from assay.serve.page import charts
from assay.serve.page.desk import Visit
from assay.serve.page.parts import bars, box, drawing, figures, signed, table, tag
from assay.serve.page.rows import address

MOST_SHOWN = 1 << 20  # bytes of a picture that travel back as they are; of a larger one a small copy does


def show_answer(visit: Visit, held: Held, files: dict[str, bytes], found: dict[str, Any]) -> None:
    answer, classes = found["answer"], getattr(held.champion.bundle.task, "classes", None)
    target = held.champion.bundle.schema.target or visit.say("Answer")
    if classes is not None:
        figures([(target, str(answer["answer"]), f"{answer['probability']:.1%}")], "large")
        shares = sorted(((str(c), float(answer[f"p({c})"])) for c in classes if f"p({c})" in answer), key=lambda s: -s[1])
        if shares:
            bars([(name, p, f"{p:.1%}") for name, p in shares[:12]], visit.say("Probabilities"))
    else:
        figures([(target, wording.number(answer["answer"]), wording.interval(answer.get("low"), answer.get("high"), digits=4)
                  + (" " + visit.say("(90 % of the truths lie in such an interval)") if answer.get("low") is not None else ""))], "large")
        if answer.get("low") is not None:
            _interval(visit, answer)
    _grounds(visit, found["explained"], found["row"], files)


def _interval(visit: Visit, answer: dict[str, Any]) -> None:
    low, high = around([answer["low"], answer["high"]], pad=0.25)
    x = Axis(low, high, 12.0, 548.0)
    parts = [stroke(12, 18, 548, 18, "rail"), f'<line class="whisker thick" x1="{x(answer["low"]):.1f}" y1="18" x2="{x(answer["high"]):.1f}" y2="18"/>',
             f'<circle class="dot c1" cx="{x(answer["answer"]):.1f}" cy="18" r="6"/>', *(text(x(t), 44, wording.number(t, digits=3, zeros=False), "tick mid") for t in x.ticks(5))]
    drawing(svg(560, 50, parts, visit.say("The answer and its interval")))


def _grounds(visit: Visit, why: dict[str, Any], row: dict[str, Any], files: dict[str, bytes]) -> None:
    if "columns" in why:
        tag("h3", visit.say("What each column adds"))
        told = visit.say("The usual answer is {usual}, this one {told}; the bars add up to the difference.", usual=wording.number(why["usual"]), told=wording.number(why["told"]))
        tag("p", told if why["explains"] is None else visit.say("Of '{label}':", label=why["explains"]) + " " + told, "how")
        ranked = sorted(why["columns"], key=lambda c: -abs(c["adds"]))
        signed([(c["column"], _short(row.get(c["column"])), c["adds"], wording.number(c["adds"], digits=3, sign=True)) for c in ranked[:14]], visit.say("What each column adds"))
        if len(ranked) > 14:
            tag("p", visit.say("{n} more columns add less.", n=len(ranked) - 14), "how")
    if "words" in why:
        tag("h3", visit.say("Words of '{column}'", column=why["words_column"]))
        _words(visit, why["words"])
    if "heat" in why:
        tag("h3", visit.say("Where it looks in '{column}'", column=why["heat_column"]))
        _heat(visit, why, files)
    if "stretches" in why:
        tag("h3", visit.say("What each stretch of '{column}' adds", column=why["stretches_column"]))
        import numpy as np

        parts = np.atleast_2d(np.asarray(why["stretches"], dtype=float)).sum(axis=0)
        signed([(visit.say("part {i}", i=i + 1), "", float(v), wording.number(float(v), digits=2, sign=True)) for i, v in enumerate(parts)], visit.say("What each stretch adds"))
    if not why.keys() & {"columns", "words", "heat", "stretches"}:
        tag("p", visit.say("This bundle holds no rows to compare with, so the answer cannot be explained."), "how")


def _words(visit: Visit, words: list[list[Any]]) -> None:
    """Underlined by what they add: a line for, dots against, so that nobody needs to tell colours apart."""
    most = max((abs(v) for _, v in words), default=0.0) or 1.0
    with tag("p", "", "marked"):
        for word, effect in words:
            share = abs(effect) / most
            if share < 0.08:
                tag("span", f"{word}")
            else:
                tag("span", f"{word}", "for" if effect > 0 else "against", title=wording.number(effect, digits=2, sign=True)).style(f"--s:{100 * share:.0f}%")
    tag("p", visit.say("A line under a word: it speaks for the answer. Dots: against it."), "hint")


def _heat(visit: Visit, why: dict[str, Any], files: dict[str, bytes]) -> None:
    import numpy as np

    picture = files.get(why["heat_column"])
    if picture is None:
        return
    with box("over"):
        shown = address(picture) if len(picture) <= MOST_SHOWN else uri(thumbnail(picture))
        tag("img", "", "", src=shown, alt=visit.say("picture of the column '{name}'", name=why["heat_column"]))
        tag("img", "", "", src=uri(coloured(np.asarray(why["heat"], dtype=float))), alt=visit.say("bright where the answer rests on the picture"))


def _short(value: Any) -> str:
    text = "" if value is None or isinstance(value, (bytes, list)) else wording.number(value, zeros=False) if isinstance(value, float) else str(value)
    return text if len(text) <= 28 else text[:27] + "…"


def show_fan(visit: Visit, found: dict[str, Any]) -> None:
    """A forecast: median, outermost levels, and the figures by step."""
    levels = sorted((k for k in found if re.fullmatch(r"q0?\.\d+", k)), key=lambda k: float(k[1:]))
    steps = [int(s) for s in found["step"]]
    if not levels or not steps:
        tag("p", visit.say("No answer."), "how")
        return
    middle = min(levels, key=lambda k: abs(float(k[1:]) - 0.5))
    points = {k: [(float(s), float(v)) for s, v in zip(steps, found[k], strict=True)] for k in (levels[0], middle, levels[-1])}
    drawing(charts.curves([("c1", points[middle])], visit.say("Forecast by step: median and the outermost quantiles"), clock=False, from_zero=False, wide=600,
                          band=(points[levels[0]], points[levels[-1]])))
    times = [str(t)[:16] for t in found.get("time", [""] * len(steps))]
    table([visit.say("Step"), visit.say("Time"), *levels], [[str(s), times[i], *(wording.number(found[k][i]) for k in levels)] for i, s in enumerate(steps)],
          numbers=(0, *range(2, 2 + len(levels))), caption=visit.say("Forecast by step"))
