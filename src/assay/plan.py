"""The verb `decide`: a problem and a forecast's quantiles in; a plan, its tables and its picture out, beside the rule of thumb that it has to beat."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assay.contest.folder import finite
from assay.decide.base import Decision, Plan, Quantiles
from assay.decide.reading import read_problem
from assay.errors import InputError, MissingExtra
from assay.registry import get
from assay.words import Text, say

STATUSES = {"optimal": say("the best there is"), "feasible": say("can be carried out; a better one may exist"), "infeasible": say("cannot be carried out")}


@dataclass(frozen=True)
class Decided:
    """kind: the decision's name. rule: the rule of thumb's plan, as its docstring names it. realised: {'plan', 'rule', 'oracle': shape (k,)} where the truth
    was given. folder: where plan.json, the tables and plan.svg lie, None if nothing was written."""

    kind: str
    plan: Plan
    rule: Plan
    rule_name: str
    realised: dict[str, np.ndarray] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def feasible(self) -> bool:
        return bool(self.plan.choice) and math.isfinite(self.plan.cost)

    @property
    def saving(self) -> float | None:
        """Share of the rule's cost that the plan saves; None where one of them cannot be carried out or the rule costs nothing."""
        if not self.feasible or not self.rule.choice or self.rule.violations or not math.isfinite(self.rule.cost) or self.rule.cost <= 0:
            return None
        return 1 - self.plan.cost / self.rule.cost

    def json(self) -> dict[str, Any]:
        return finite({"kind": self.kind, "plan": self.plan.json(), "rule": {"name": self.rule_name, **self.rule.json()}, "saving": self.saving,
                        "realised": {k: {"cost": float(v.sum()), "parts": v.tolist()} for k, v in self.realised.items()}})


def decide(kind: str, problem: Path | dict[str, Any], *, quantiles: Quantiles | None = None, truth: np.ndarray | None = None, seconds: float = 30.0, seed: int = 0,
           out: Path | None = None, lang: str = "en") -> Decided:
    """The best plan found in so many seconds.

    kind: a decision's name, such as 'inventory'. problem: a TOML file, a file of one of the decision's own kinds, or the table itself. quantiles: what is
    known of the future, where the decision plans against it. truth: shape (n, h), what happened, to judge by. out: a folder for plan.json, one CSV a table
    and plan.svg. Raises InputError (what was found, what was expected), MissingExtra.
    """
    decision = get("assay.decide", Decision, kind)  # type: ignore[type-abstract]
    for package, extra in decision.needs.items():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra=extra)
    if not 0 < seconds < math.inf:
        raise InputError("{seconds:g} is not a time to plan in; expected seconds above zero.", seconds=float(seconds))
    one = read_problem(decision, problem)
    if decision.forecast == "needed" and quantiles is None:
        raise InputError("'{kind}' plans against a forecast: give its quantiles (--quantiles FILE.csv).", kind=kind)
    if decision.forecast == "none" and quantiles is not None:
        raise InputError("'{kind}' does not plan against a forecast; leave --quantiles out.", kind=kind)
    plan = decision.solve(one, quantiles, seconds=seconds, seed=seed)
    rule = decision.rule(one, quantiles)
    realised = {}
    if truth is not None and quantiles is not None and plan.choice:
        if truth.shape != quantiles.values.shape[:2]:
            raise InputError("The truth has {found} series and steps, the forecast {expected}; expected the same.", found=list(truth.shape), expected=list(quantiles.values.shape[:2]))
        oracle = decision.solve(one, Quantiles.exact(truth, quantiles.ids, quantiles.times), seconds=seconds, seed=seed)
        realised = {name: decision.realised(one, p, truth) for name, p in (("plan", plan), ("rule", rule), ("oracle", oracle)) if p.choice}
    decided = Decided(kind, plan, rule, " ".join((type(decision).rule.__doc__ or "").split()), realised, out)
    if out is not None:
        _write(decided, out, decision.picture(one, plan, lambda text: text.to(lang) if isinstance(text, Text) else str(text)) if plan.choice else None)
    return decided


def _write(decided: Decided, folder: Path, picture: str | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(decided.json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for name, rows in decided.plan.choice.items():
        columns = list(dict.fromkeys(k for row in rows for k in row))
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({k: json.dumps(v, ensure_ascii=False) if isinstance(v, (list, dict)) else v for k, v in row.items()} for row in rows)
    if picture is not None:
        (folder / "plan.svg").write_text(picture + "\n", encoding="utf-8")


def table(decided: Decided, lang: str = "en") -> list[tuple[str, str]]:
    """What the terminal shows: a name and a figure a row."""
    plan, rule, facts = decided.plan, decided.rule, decided.plan.facts
    rows: list[tuple[Text, str]] = [(say("decision"), decided.kind)]
    if decided.feasible:
        rows.append((say("cost of the plan"), _figure(plan.cost)))
    if rule.choice and math.isfinite(rule.cost):
        rows.append((say("cost of the rule of thumb"), _figure(rule.cost)))
    if decided.saving is not None:
        rows.append((say("saved"), f"{100 * decided.saving:.1f} %"))
    if isinstance(facts.get("best_known"), (int, float)) and decided.feasible:
        best = float(facts["best_known"])
        rows.append((say("best known"), f"{_figure(best)} ({100 * (plan.cost / best - 1):+.2f} %)" if best > 0 else _figure(best)))
    for key, name in (("bound", say("no plan costs less than")), ("solver", say("solver"))):
        if facts.get(key) is not None:
            rows.append((name, _figure(facts[key]) if isinstance(facts[key], (int, float)) else str(facts[key])))
    if isinstance(facts.get("gap"), (int, float)) and decided.feasible:
        rows.append((say("gap to that bound"), f"{100 * facts['gap']:.2f} %"))
    if facts.get("status") in STATUSES:
        rows.append((say("the plan"), STATUSES[facts["status"]].to(lang)))
    if isinstance(facts.get("seconds"), (int, float)):
        rows.append((say("seconds"), f"{facts['seconds']:.1f}"))
    names = {"plan": say("realised cost of the plan"), "rule": say("realised cost of the rule of thumb"), "oracle": say("realised cost with the future known")}
    rows += [(names[k], _figure(float(v.sum()))) for k, v in decided.realised.items()]
    return [(name.to(lang), value) for name, value in rows]


def show(decided: Decided, *, lang: str = "en", as_json: bool = False, stream: Any = None) -> None:
    """The plan for people in front of a terminal, or as JSON (nothing else goes to standard output then)."""
    import sys

    if as_json:
        print(json.dumps(decided.json(), ensure_ascii=False), file=stream or sys.stdout)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

    console = Console(file=stream or sys.stdout, highlight=False)
    drawn = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    drawn.add_column()
    drawn.add_column(justify="right", overflow="fold")
    for name, value in table(decided, lang):
        drawn.add_row(Styled(name), Styled(value))
    console.print(drawn)
    for text in plain(decided, lang):
        console.print(Styled(text))


def plain(decided: Decided, lang: str) -> Sequence[str]:
    """The sentences below the table: what the plan breaks, what the rule breaks, where the files are."""
    lines = []
    if not decided.plan.choice:
        lines.append(say("There is no plan that can be carried out:").to(lang))
    elif decided.plan.violations:
        lines.append(say("The plan breaks:").to(lang))
    lines += [f"- {v.to(lang)}" for v in decided.plan.violations]
    lines += [Text.of(warning).to(lang) for warning in decided.plan.facts.get("warnings", [])]
    if decided.rule.violations and decided.plan.choice:
        lines.append(say("The rule of thumb breaks {n} demands, such as: {one}", n=len(decided.rule.violations), one=decided.rule.violations[0]).to(lang))
    if decided.folder is not None:
        lines.append(say("Written to {folder}: plan.json, plan.svg and {tables}.", folder=str(decided.folder), tables=[f"{k}.csv" for k in decided.plan.choice]).to(lang)
                     if decided.plan.choice else say("Written to {folder}: plan.json.", folder=str(decided.folder)).to(lang))
    return lines


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 or float(value).is_integer() else f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4g}"
