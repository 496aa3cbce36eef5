"""The judge: reads the answers that the contest left on disk and says, with evidence, whether a large model pays.

One threshold, three outcomes: the net gain of the best large candidate over the best small one is compared with the
margin that matters. Interval wholly above: worth it. Wholly below: not worth it. Across: not known yet, and how many
test rows would tell. First of all somebody has to beat the naive answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from assay.case import Case
from assay.contest.cost import Prices, prices
from assay.contest.folder import Folder, Trial
from assay.contest.sentences import UNITS, next_step, notes_of, verdict_sentence
from assay.contest.statistics import Bootstrap, Interval, detectable, fold_factor, holm, jackknife, rows_to_settle
from assay.data.dataset import Dataset
from assay.data.split import Split
from assay.errors import BudgetError, InputError
from assay.families.base import RUNGS
from assay.tasks.base import Task
from assay.words import Text, say

LARGE = ("scratch", "pretrained", "llm")
MARGIN = 0.02  # without money: a large model has to cut the small one's loss by this share before anybody cares
_PRICE = {"regress": "unit=2 CNY"}
CLOSE = 0.01  # the cheapest model may cost this share of loss against the winner and still be good enough


@dataclass(frozen=True)
class Verdict:
    """outcome: worth_it, not_worth_it, unknown or nothing_beats_naive. `sentence` says it; `details` is verdict.json's body."""

    outcome: str
    sentence: Text
    next: Text
    notes: tuple[Text, ...]
    winner: str
    cheapest: str
    naive: str
    large: str | None
    small: str | None
    effect: dict[str, Any] | None
    money: dict[str, Any] | None
    scoreboard: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return str(self.sentence)

    def json(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "sentence": self.sentence.json(), "next": self.next.json(),
                "notes": [n.json() for n in self.notes], "winner": self.winner, "cheapest": self.cheapest, "naive": self.naive,
                "large": self.large, "small": self.small, "effect": self.effect, "money": self.money,
                "scoreboard": list(self.scoreboard)}


@dataclass(frozen=True)
class Evidence:
    """Everything about the finished candidates, row by row, on the splits that all of them finished."""

    trials: dict[str, list[Trial]]
    losses: dict[str, np.ndarray]  # (n_test over the splits,)
    valid: dict[str, float]
    predictions: dict[str, np.ndarray]
    train: Dataset
    test: Dataset
    clusters: np.ndarray
    factor: float


def gather(folder: Folder, case: Case, task: Task, data: Dataset, splits: list[Split]) -> tuple[Evidence, list[Trial]]:
    """The evidence, and all trials (the refused and failed among them). Raises BudgetError if nothing finished.

    Only splits that the most candidates finished count, and only candidates that finished all of those: everybody is
    judged on the same rows. Losses are computed anew from the saved answers, so a finished run can be judged otherwise.
    """
    every = folder.trials()
    done: dict[str, dict[int, Trial]] = {}
    for trial in every:
        if trial.status == "done" and folder.prediction_file(trial.candidate, trial.split).exists():
            done.setdefault(trial.candidate, {})[trial.split] = trial
    if not done:
        raise BudgetError("No candidate finished within {seconds:g} s. Give more time: --time {more:g}s.",
                          seconds=case.time_s, more=max(10.0, case.time_s * 3))
    shared = _common_splits(done)
    names = [name for name, mine in done.items() if shared <= mine.keys()]
    order = sorted(shared)
    test_rows = np.concatenate([splits[k].test for k in order])
    test = data.take(test_rows)
    clusters = np.concatenate([splits[k].clusters + 10**9 * k for k in order])  # codes of different folds never meet
    predictions = {n: np.concatenate([folder.prediction(done[n][k]) for k in order]).astype(np.float64) for n in names}
    losses = {n: task.losses(data, test, predictions[n]) for n in names}
    valid = {}
    for n in names:
        parts = []
        for k in order:
            rows, raw = folder.validation(done[n][k])
            held = data.take(rows)
            parts.append(task.losses(data, held, task.calibrated(raw, task.calibration(task.truth(held), raw))).mean())
        valid[n] = float(np.mean(parts))
    train_rows = float(np.mean([len(splits[k].train) for k in order]))
    factor = fold_factor(len(order), train_rows, len(test_rows) / len(order))
    train = data.take(splits[order[0]].train)
    return Evidence({n: [done[n][k] for k in order] for n in names}, losses, valid, predictions, train, test, clusters, factor), every


def judge(folder: Folder, case: Case, task: Task, data: Dataset, splits: list[Split], *, rival: str | None = None,
          gathered: tuple[Evidence, list[Trial]] | None = None) -> Verdict:
    """Judge what is on disk. rival: compare this candidate instead of the best large one. Nothing is trained.

    gathered: what `gather` returned for the same case, if it is at hand.
    """
    evidence, every = gathered or gather(folder, case, task, data, splits)
    rate = prices(case.prices)
    if rival is not None and rival not in evidence.losses:
        raise InputError("'{name}' did not finish in this run. Finished: {names}.", name=rival, names=list(evidence.losses))
    currency = case.worth.currency if case.worth else ""
    costs = {n: _running(trials, rate, currency) for n, trials in evidence.trials.items()}
    in_money = case.worth is not None
    boot = Bootstrap(evidence.losses, evidence.clusters, confidence=case.confidence, seed=case.seed, widen=evidence.factor)
    removed = {n: reason for n in evidence.losses if (reason := _removed(n, evidence.trials[n], case))}
    naive = next((n for n, t in evidence.trials.items() if t[0].rung == "naive"), None)
    if naive is None:
        raise BudgetError("The naive answer did not finish, so nothing can be compared with it. Give more time: --time {more:g}s.",
                          more=max(10.0, case.time_s * 3))
    net = {n: evidence.valid[n] + (costs[n] if in_money else 0.0) for n in evidence.losses}
    allowed = [n for n in evidence.losses if n not in removed] or [naive]

    def best(names: list[str]) -> str | None:
        return min(names, key=lambda n: (net[n], n)) if names else None

    def rung(name: str) -> str:
        return evidence.trials[name][0].rung

    big = [n for n in evidence.losses if rung(n) in LARGE]
    large = rival if rival else best([n for n in allowed if n in big]) or best(big)
    blocked = removed.get(large) if large and not rival else None  # every large one breaks a limit, or another were here
    small = best([n for n in allowed if rung(n) not in LARGE and n != large]) or naive
    winner = best(allowed) or naive
    beats = {n: boot.gain(naive, n, less=costs[n] - costs[naive] if in_money else 0.0) for n in evidence.losses if n != naive}
    corrected = holm({n: g.p for n, g in beats.items()})
    champions = [n for n in beats if n in allowed and beats[n].value > 0 and corrected[n] < 1 - case.confidence]
    if not champions:
        winner, outcome = naive, "nothing_beats_naive" if beats else "unknown"
    else:
        winner = best(champions) or naive
    less = costs[large] - costs[small] if in_money and large else 0.0
    gain = boot.gain(small, large, less=less) if large and large != small else None
    margin = case.margin if case.margin is not None else 0.0 if in_money else MARGIN * boot.mean[small]
    effect = _effect(gain, margin, boot.mean[small], len(evidence.test), case.confidence) if gain else None
    if champions:
        outcome = "not_worth_it" if blocked else _outcome(gain, margin)
        if large and not rival:  # what is handed over follows the verdict
            winner = large if outcome == "worth_it" else small if outcome == "not_worth_it" and small in champions else winner
    cheapest = _cheapest(evidence, boot, allowed, winner, naive, costs, rung, champions)
    money = _money(case, gain, costs, large, small, currency) if in_money and gain and large else None
    names = {"large": large or "", "small": small, "naive": naive, "winner": winner}
    unit = say("cost ({currency} a row)", currency=currency) if in_money else UNITS.get(task.loss, say("loss"))
    best_try = min(beats, key=lambda n: (net[n], n), default=naive)
    sentence = verdict_sentence(outcome, names, effect, boot.mean, beats.get(best_try), best_try, unit, len(evidence.test), case.confidence, blocked)
    board = _scoreboard(evidence, every, boot, beats, winner, removed, case, task, costs)
    notes = notes_of(evidence.trials, every, len(splits), case, large)
    return Verdict(outcome, sentence, next_step(outcome, effect, folder, len(data), len(evidence.test), large, in_money, _PRICE.get(task.name, "error=4.5 CNY")), notes, winner,
                   cheapest, naive, large, small if large else None, effect, money, board)


def _common_splits(done: dict[str, dict[int, Trial]]) -> set[int]:
    """The splits on which to compare: all that every finisher of the first split also finished, else the first ones."""
    counts: dict[int, int] = {}
    for mine in done.values():
        for k in mine:
            counts[k] = counts.get(k, 0) + 1
    most = max(counts.values())
    return {k for k, c in counts.items() if c == most}


def _running(trials: list[Trial], rate: Prices, currency: str) -> float:
    """Money to answer one row: CPU, energy and tokens, in `currency`."""
    cpu = float(np.mean([t.cost["predict_s_per_row"] for t in trials]))
    wh = float(np.mean([t.cost["predict_wh_per_row"] for t in trials]))
    tokens = float(np.mean([t.cost.get("money_per_row") or 0.0 for t in trials])) * rate.rate(currency)
    return rate.running(cpu, wh, currency) + tokens


def _removed(name: str, trials: list[Trial], case: Case) -> Text | None:
    """The constraint that takes this candidate out of the choice, or None. It keeps its place in the table."""
    latency = max(t.cost["single_row_p95_ms"] for t in trials)
    if case.latency_ms is not None and latency > case.latency_ms:
        return say("one row takes {got:.3g} ms (95th percentile), the limit is {limit:g} ms", got=latency, limit=case.latency_ms)
    size = max(t.cost["artefact_mb"] for t in trials)
    if case.artefact_mb is not None and size > case.artefact_mb:
        return say("it is {got:.1f} MB large, the limit is {limit:g} MB", got=size, limit=case.artefact_mb)
    return None


def _effect(gain: Interval, margin: float, base: float, rows: int, confidence: float) -> dict[str, Any]:
    return {"gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p, "se": gain.se, "margin": margin,
            "mde": detectable(gain.se, confidence), "confidence": confidence, "relative": gain.value / base if base else 0.0,
            "rows_to_settle": rows_to_settle(gain.value - margin, gain.se, rows, confidence), "test_rows": rows}


def _outcome(gain: Interval | None, margin: float) -> str:
    if gain is None:
        return "unknown"
    if gain.high < margin:
        return "not_worth_it"
    return "worth_it" if gain.low > margin else "unknown"


def _cheapest(evidence: Evidence, boot: Bootstrap, allowed: list[str], winner: str, naive: str, costs: dict[str, float], rung: Any,
              champions: list[str]) -> str:
    """The cheapest to run among those not shown to be more than `CLOSE` worse than the winner, on validation or test."""
    good = [winner]
    for n in allowed:
        if n in (winner, naive) or n not in champions:
            continue
        behind = boot.gain(n, winner)
        if behind.value <= CLOSE * boot.mean[winner] or (behind.low <= 0 and behind.value <= 2 * CLOSE * boot.mean[winner]):
            good.append(n)
    near = 2 * min(costs[n] for n in good)  # measured times this close say nothing: the lower rung is the cheaper one
    return min((n for n in good if costs[n] <= near), key=lambda n: (RUNGS.index(rung(n)), costs[n], n))


def _money(case: Case, gain: Interval, costs: dict[str, float], large: str, small: str, currency: str) -> dict[str, Any]:
    rows = case.requests_per_month or 0.0
    extra = costs[large] - costs[small]
    return {"currency": currency, "requests_per_month": case.requests_per_month, "saved_by_large": (gain.value + extra) * rows,
            "extra_cost_of_large": extra * rows, "net": gain.value * rows, "low": gain.low * rows, "high": gain.high * rows,
            "per_row": {"large": costs[large], "small": costs[small]}}


def _scoreboard(evidence: Evidence, every: list[Trial], boot: Bootstrap, beats: dict[str, Interval], winner: str,
                removed: dict[str, Text], case: Case, task: Task, costs: dict[str, float]) -> tuple[dict[str, Any], ...]:
    against = {n: boot.gain(n, winner) for n in evidence.losses if n != winner}
    corrected = holm({n: g.p for n, g in against.items()})
    board = []
    for n in sorted(evidence.losses, key=lambda name: boot.mean[name]):
        trials = evidence.trials[n]
        own = boot.of(n)
        metrics = jackknife(partial(task.metrics, evidence.train, evidence.test, evidence.predictions[n]), evidence.clusters,
                            confidence=case.confidence, seed=case.seed, groups=20 if task.width * len(evidence.test) < 200_000 else 8)
        board.append({
            "candidate": n, "rung": trials[0].rung, "status": "done", "reason": None,
            "removed": removed[n].json() if n in removed else None, "splits_done": len(trials), "loss": own.value, "low": own.low,
            "high": own.high, "valid_loss": evidence.valid[n], "metrics": metrics,
            "gain_over_naive": _brief(beats[n]) if n in beats else None,
            "against_winner": _brief(against[n]) | {"p_holm": corrected[n]} if n in against else None,
            "train_rows": trials[0].train_rows, "rows_used": min(t.rows_used for t in trials),
            "seconds": sum(t.seconds for t in trials), "cost": _mean_cost(trials), "facts": trials[0].facts, "version": trials[0].version,
            "params": trials[0].params, "running_per_row": costs[n],
        })
    seen = set(evidence.losses)
    for t in every:
        if t.candidate not in seen and t.status != "done":
            seen.add(t.candidate)
            board.append({"candidate": t.candidate, "rung": t.rung, "status": t.status, "reason": t.reason.json() if t.reason else None,
                          "seconds": t.seconds, "version": t.version})
    return tuple(board)


def _brief(gain: Interval) -> dict[str, float]:
    return {"gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p}


def _mean_cost(trials: list[Trial]) -> dict[str, Any]:
    keys = trials[0].cost
    return {k: float(np.mean([t.cost[k] for t in trials])) if isinstance(v, (int, float)) else v for k, v in keys.items()}
