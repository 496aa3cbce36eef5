"""The words of a verdict: its sentence, the next step, the notes. Numbers come in, sentences go out."""

from __future__ import annotations

from typing import Any

import numpy as np

from assay.case import Case
from assay.contest.cost import prices
from assay.contest.evidence import MADE, Evidence
from assay.contest.folder import Folder, Trial
from assay.contest.statistics import Bootstrap, Interval, detectable
from assay.words import Text, say

UNITS = {"log": say("log loss"), "error": say("error rate"), "brier": say("Brier score"), "squared": say("squared error"),
          "absolute": say("absolute error"), "pinball": say("pinball loss"), "cost": say("cost")}


def verdict_sentence(outcome: str, names: dict[str, str], effect: dict[str, Any] | None, mean: dict[str, float], beat: Interval | None,
                     best_try: str, unit: Text, rows: int, confidence: float, blocked: Text | None) -> Text:
    """names: large, small, naive, winner. mean: loss of each. beat: gain of `best_try` over naive. blocked: the limit that the large one breaks."""
    percent = confidence * 100
    if beat is None:
        return say("Only the naive answer finished, so nothing could be compared with it.")
    if outcome == "nothing_beats_naive":
        return say("Nothing beats the naive answer: the best try, {best}, changes the {unit} by {gain:+.4g} ({percent:.0f} % interval "
                   "{low:+.4g} to {high:+.4g}) on {rows:,} test rows; a gain of {mde:.2g} would have been found.",
                   best=best_try, unit=unit, gain=-beat.value, low=-beat.high, high=-beat.low, percent=percent, rows=rows,
                   mde=detectable(beat.se, confidence))
    if effect is None:
        return say("No large candidate finished, so only small ones were compared: {winner} wins with a {unit} of {loss:.4g} on {rows:,} test rows.",
                   winner=names["winner"], unit=unit, loss=mean[names["winner"]], rows=rows)
    same = {"large": names["large"], "small": names["small"], "unit": unit, "a": mean[names["large"]], "b": mean[names["small"]],
            "gain": effect["gain"], "low": effect["low"], "high": effect["high"], "percent": percent, "rows": rows,
            "margin": effect["margin"], "mde": effect["mde"]}
    if blocked is not None:
        return say("A large model is not worth it here: the best one, {large}, breaks a limit of this case ({blocked}). Without that limit its net gain "
                   "in {unit} over {small} would be {gain:+.4g} ({percent:.0f} % interval {low:+.4g} to {high:+.4g}) on {rows:,} test rows.",
                   **same | {"blocked": blocked})
    if outcome == "worth_it":
        return say("A large model is worth it: {large} has a {unit} of {a:.4g} against {b:.4g} of {small}, a net gain of {gain:.4g} "
                   "({percent:.0f} % interval {low:.4g} to {high:.4g}, more than {margin:.2g} matters) on {rows:,} test rows.", **same)
    if outcome == "not_worth_it":
        return say("A large model is not worth it: {large} has a {unit} of {a:.4g} against {b:.4g} of {small}, a net gain of {gain:+.4g} "
                   "({percent:.0f} % interval {low:+.4g} to {high:+.4g}, more than {margin:.2g} would matter) on {rows:,} test rows.", **same)
    if effect["rows_to_settle"]:
        return say("Not known yet: {large} against {small} gains {gain:+.4g} in {unit} ({percent:.0f} % interval {low:+.4g} to {high:+.4g}), and "
                   "{margin:.2g} is what matters; {rows:,} test rows can show {mde:.2g}, about {needed:,} would settle it.",
                   **same | {"needed": effect["rows_to_settle"]})
    return say("Not known yet: {large} against {small} gains {gain:+.4g} in {unit} ({percent:.0f} % interval {low:+.4g} to {high:+.4g}), just what "
               "matters; {rows:,} test rows can show {mde:.2g}.", **same)


def next_step(outcome: str, effect: dict[str, Any] | None, folder: Folder, rows: int, test_rows: int, large: str | None,
              in_money: bool, price: str) -> Text:
    """What to do now, with the command."""
    where = str(folder.path)
    if outcome == "unknown" and effect and effect["rows_to_settle"]:
        total = int(np.ceil(effect["rows_to_settle"] / test_rows * rows))
        if in_money:
            return say("Label about {more:,} more rows and run again.", more=max(total - rows, 1))
        return say("Label about {more:,} more rows and run again, or name what an error costs: assay judge {folder} --worth '{price}'",
                   more=max(total - rows, 1), folder=where, price=price)
    if outcome == "nothing_beats_naive":
        return say("Look for columns that know more about the target; until then use the naive answer: {folder}/winner.assay", folder=where)
    if large is None:
        return say("Give it a large candidate: more time, pip install 'assay[deep,encoders]', or --llm URL MODEL")
    return say("assay predict {folder}/winner.assay NEW.csv -o answers.csv", folder=where)


def notes_of(compared: dict[str, list[Trial]], every: list[Trial], folds: int, case: Case, large: str | None) -> tuple[Text, ...]:
    """What a reader has to know besides. compared: the trials behind the scoreboard; every: all, the failed among them."""
    notes = []
    finished = len(next(iter(compared.values())))
    if finished < folds:
        notes.append(say("Time was over after {done} of {all} folds; all candidates in the table finished the same ones.", done=finished, all=folds))
    fewer = [n for n, t in compared.items() if t[0].rows_used < t[0].train_rows]
    if fewer:
        notes.append(say("{names} learnt from fewer rows than there are, to stay in time; all were judged on the same test rows.", names=fewer))
    if large and any(t.facts.get("short_of_time") or t.rows_used < t.train_rows for t in compared[large]):
        notes.append(say("{large} was short of time; a longer --time may change the verdict.", large=large))
    flattered = [n for n, t in compared.items() if t[0].facts.get("flattered")]
    if flattered:
        notes.append(say("{names} answered the rows that teach far better than those that judge; it was probably trained on them, and its validation loss "
                         "flatters it.", names=flattered))
    lost = sorted({t.candidate for t in every if t.status == "done"} - compared.keys())
    if lost:
        notes.append(say("{names} finished some folds but not all, and could not be compared.", names=lost))
    if case.worth is not None:
        unpriced = [n for n, t in compared.items() if t[0].cost.get("money_per_row", 0.0) is None]
        bought = [n for n in unpriced if compared[n][0].rung == "external"]
        unpriced = [n for n in unpriced if n not in bought]
        if bought:
            notes.append(say("The answers of {names} have no price, so they count as free: name it with --external-price NAME=PRICE.", names=bought))
        if unpriced:
            notes.append(say("The tokens of {names} have no price, so they count as free: name it with --llm-price IN OUT.", names=unpriced))
        notes.append(say("Running costs use this price table: {source}.", source=prices(case.prices).source))
    return tuple(notes)


def not_a_result(columns: list[str], best_try: str, loss: float, unit: Text, case: Case) -> tuple[Text, Text]:
    """The sentence and the next step where a column gives the answer away."""
    sentence = say("This is not a result: {columns} give the answer away, and a score built on them says nothing about rows whose answer is not yet "
                   "known. (With them {best} reaches a {unit} of {loss:.4g}.)", columns=columns, best=best_try, unit=unit, loss=loss)
    step = say("assay run {data} --target {target} {drops}", data=case.data or "FILE", target=_quoted(case.target),
               drops=" ".join(f"--drop {_quoted(c)}" for c in columns))
    return sentence, step


def teaching(evidence: Evidence, boot: Bootstrap) -> tuple[Text, ...]:
    """Whether the large model pays as a teacher: the small model that it taught against the best small one without a teacher."""
    pupil = evidence.trials.get("student")
    if pupil is None:
        return ()
    alone = [n for n, t in evidence.trials.items() if t[0].rung == "classical" and t[0].family not in MADE]
    if not alone:
        return ()
    best = min(alone, key=lambda n: (evidence.valid[n], n))
    gain = boot.gain(best, "student")
    same = {"teacher": pupil[0].facts.get("teacher", "?"), "best": best, "gain": gain.value, "low": gain.low, "high": gain.high}
    if gain.low > 0:
        return (say("A large model pays as a teacher: student, small and taught by {teacher}, gains {gain:.3g} ({low:.3g} to {high:.3g}) over {best}.", **same),)
    return (say("As a teacher the large model does not help for sure: student, taught by {teacher}, gains {gain:+.3g} ({low:+.3g} to {high:+.3g}) over {best}.",
                **same),)


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
