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
from assay.contest.evidence import Evidence, gather
from assay.contest.folder import Folder, Trial
from assay.contest.learning import ablation, learning
from assay.contest.sentences import UNITS, next_step, not_a_result, notes_of, teaching, verdict_sentence
from assay.contest.slices import worst_slices
from assay.contest.statistics import Bootstrap, Interval, detectable, holm, jackknife, rows_to_settle
from assay.data.dataset import Dataset
from assay.data.split import Split
from assay.errors import BudgetError, InputError
from assay.families.base import RUNGS
from assay.tasks.base import Task
from assay.words import Text, say

LARGE = ("scratch", "pretrained", "llm", "external")
MARGIN = 0.02  # without money: a large model has to cut the small one's loss by this share before anybody cares
_PRICE = {"regress": "unit=2 CNY"}
CLOSE = 0.01  # the cheapest model may cost this share of loss against the winner and still be good enough


@dataclass(frozen=True)
class Verdict:
    """outcome: worth_it, not_worth_it, unknown, nothing_beats_naive, or not_a_result where a column gives the answer away.

    packed: what winner.assay holds: the winner, or the best that can be packed if the winner is somebody else's model.
    learning: learning curves and their crossing (`contest.learning`). ablation: what each kind of column adds.
    slices: where the winner is worst.
    """

    outcome: str
    sentence: Text
    next: Text
    notes: tuple[Text, ...]
    winner: str
    packed: str
    cheapest: str
    naive: str
    large: str | None
    small: str | None
    effect: dict[str, Any] | None
    money: dict[str, Any] | None
    scoreboard: tuple[dict[str, Any], ...]
    learning: dict[str, Any] | None = None
    ablation: tuple[dict[str, Any], ...] = ()
    findings: tuple[dict[str, Any], ...] = ()
    slices: tuple[dict[str, Any], ...] = ()

    def __str__(self) -> str:
        return str(self.sentence)

    def json(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "sentence": self.sentence.json(), "next": self.next.json(),
                "notes": [n.json() for n in self.notes], "winner": self.winner, "packed": self.packed, "cheapest": self.cheapest, "naive": self.naive,
                "large": self.large, "small": self.small, "effect": self.effect, "money": self.money,
                "scoreboard": list(self.scoreboard), "learning": self.learning, "ablation": list(self.ablation), "findings": list(self.findings),
                "slices": list(self.slices)}


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
    costs = {n: _running(trials, rate, currency, measured=not case.work) for n, trials in evidence.trials.items()}
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

    def handed(names: list[str]) -> str | None:
        """What to hand over: not a claim, so all rows that were not learnt from may choose, and twice as many choose better."""
        return min(names, key=lambda n: (evidence.both.get(n, net[n]) + (costs[n] if in_money else 0.0), n)) if names else None

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
        winner = handed(champions) or naive
    less = costs[large] - costs[small] if in_money and large else 0.0
    gain = boot.gain(small, large, less=less, seeds=_by_seed(evidence, small, large)) if large and large != small else None
    margin = case.margin if case.margin is not None else 0.0 if in_money else MARGIN * abs(boot.mean[small])
    effect = _effect(gain, margin, boot.mean[small], len(evidence.test), case.confidence) if gain else None
    if champions:
        outcome = "not_worth_it" if blocked else _outcome(gain, margin)
        if large and not rival:  # what is handed over follows the verdict
            side = {"worth_it": [n for n in champions if n in big], "not_worth_it": [n for n in champions if n not in big]}
            winner = handed(side.get(outcome, champions)) or winner
    packable = [n for n in champions if evidence.trials[n][0].rung != "external"]
    packed = winner if winner in (*packable, naive) else handed(packable) or naive
    cheapest = _cheapest(evidence, boot, [n for n in allowed if rung(n) != "external"], packed, naive, costs, rung, champions)
    money = _money(case, gain, costs, large, small, currency) if in_money and gain and large else None
    names = {"large": large or "", "small": small, "naive": naive, "winner": winner}
    unit = say("cost ({currency} a row)", currency=currency) if in_money else say("cost of the plan") if case.decide else UNITS.get(task.loss, say("loss"))
    best_try = min(beats, key=lambda n: (net[n], n), default=naive)
    sentence = verdict_sentence(outcome, names, effect, boot.mean, beats.get(best_try), best_try, unit, len(evidence.test), case.confidence, blocked)
    step = next_step(outcome, effect, folder, len(data), len(evidence.test), large, in_money, _PRICE.get(task.name, "error=4.5 CNY"))
    found = folder.about().get("findings", [])
    leaks = list(dict.fromkeys(c for f in found if f["level"] == "leak" for c in f["columns"]))
    if leaks:
        outcome, sentence, step = "not_a_result", *not_a_result(leaks, best_try, boot.mean[best_try], unit, case)
    learnt = learning(folder, case, task, data, splits, evidence, margin=case.margin, less=less if in_money else 0.0)
    notes = (*notes_of(evidence.trials, every, len(splits), case, large), *teaching(evidence, boot), *_handed(winner, (large, small, naive)), *_unpacked(winner, packed))
    board = _scoreboard(evidence, every, boot, beats, winner, removed, case, task, costs)
    return Verdict(outcome, sentence, step, notes, winner, packed, cheapest, naive, large, small if large else None, effect, money, board,
                   learnt, ablation(folder, case, task, data, splits, evidence), tuple(found),
                   tuple(s.json() for s in worst_slices(evidence.test, evidence.losses[winner], evidence.clusters, confidence=case.confidence)))


def _by_seed(evidence: Evidence, small: str, large: str) -> np.ndarray | None:
    """The gain under each seed, (seeds,), where both were played with several."""
    if small not in evidence.seeds or large not in evidence.seeds:
        return None
    k = min(len(evidence.seeds[small]), len(evidence.seeds[large]))
    return (evidence.seeds[small][:k] - evidence.seeds[large][:k]).mean(axis=1)


def _handed(winner: str, compared: tuple[str | None, ...]) -> tuple[Text, ...]:
    if winner in compared:
        return ()
    return (say("{winner} is handed over: it is not one of the two compared, but ahead on the validation and the test rows taken together.", winner=winner),)


def _unpacked(winner: str, packed: str) -> tuple[Text, ...]:
    if winner == packed:
        return ()
    return (say("{winner} is somebody else's model and cannot be packed; winner.assay holds the best of the others, {packed}.", winner=winner, packed=packed),)


def _running(trials: list[Trial], rate: Prices, currency: str, *, measured: bool) -> float:
    """Money to answer one row: CPU, energy and tokens, in `currency`. measured: False leaves out what a clock measured."""
    tokens = float(np.mean([t.cost.get("money_per_row") or 0.0 for t in trials])) * rate.rate(currency)
    if not measured:
        return tokens
    cpu = float(np.mean([t.cost["predict_s_per_row"] for t in trials]))
    wh = float(np.mean([t.cost["predict_wh_per_row"] for t in trials]))
    return rate.running(cpu, wh, currency) + tokens


def _removed(name: str, trials: list[Trial], case: Case) -> Text | None:
    """The constraint that takes this candidate out of the choice, or None. It keeps its place in the table."""
    if case.latency_ms is not None:
        measured = [t.cost["single_row_p95_ms"] for t in trials]
        if None in measured:
            return say("nobody knows how long it takes for one row, and the limit is {limit:g} ms", limit=case.latency_ms)
        if max(measured) > case.latency_ms:
            return say("one row takes {got:.3g} ms (95th percentile), the limit is {limit:g} ms", got=max(measured), limit=case.latency_ms)
    size = max(t.cost["artefact_mb"] or 0.0 for t in trials)
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
            "train_rows": trials[0].train_rows, "rows_used": min(t.rows_used for t in trials), "family": trials[0].family or n,
            "seeds": _seeds(evidence, n), "seconds": sum(t.seconds for t in trials), "cost": _mean_cost(trials), "facts": trials[0].facts, "version": trials[0].version,
            "params": trials[0].params, "running_per_row": costs[n],
        })
    seen = set(evidence.losses)
    for t in every:
        if t.candidate not in seen and t.status != "done":
            seen.add(t.candidate)
            board.append({"candidate": t.candidate, "rung": t.rung, "status": t.status, "reason": t.reason.json() if t.reason else None,
                          "seconds": t.seconds, "version": t.version})
    return tuple(board)


def _seeds(evidence: Evidence, name: str) -> dict[str, Any] | None:
    """The spread of its mean loss over seeds, apart from the spread over test rows."""
    if name not in evidence.seeds:
        return None
    means = evidence.seeds[name].mean(axis=1)
    return {"losses": means.tolist(), "sd": float(means.std(ddof=1))}


def _brief(gain: Interval) -> dict[str, float]:
    return {"gain": gain.value, "low": gain.low, "high": gain.high, "p": gain.p}


def _mean_cost(trials: list[Trial]) -> dict[str, Any]:
    keys = trials[0].cost
    return {k: float(np.mean([t.cost[k] for t in trials])) if isinstance(v, (int, float)) else v for k, v in keys.items()}
