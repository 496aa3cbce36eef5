"""The verb `decide`: a problem and a forecast's quantiles in; a plan, its tables and its picture out, beside the rule of thumb that it has to beat."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import Decision, Plan, Quantiles
from assay.errors import InputError, MissingExtra, ReadError
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
        return _finite({"kind": self.kind, "plan": self.plan.json(), "rule": {"name": self.rule_name, **self.rule.json()}, "saving": self.saving,
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


def read_problem(decision: Decision, source: Path | dict[str, Any]) -> Any:
    """The problem in a TOML file, a file that the decision reads itself, or a table. A field `kind`, if there, has to name the decision."""
    if isinstance(source, dict):
        table, place = source, Path(".")
    else:
        place = source.parent
        if not source.is_file():
            raise ReadError("There is no problem file '{path}'.", path=str(source))
        if source.suffix.lower() in decision.reads:
            return decision.problem_file(source)
        if source.suffix.lower() != ".toml":
            raise ReadError("'{path}' is not a problem of '{kind}'; expected a file that ends with {endings}.", path=str(source), kind=decision.name,
                            endings=[".toml", *decision.reads])
        try:
            table = tomllib.loads(source.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ReadError("The problem file '{path}' is not TOML: {error}.", path=str(source), error=str(error)) from None
    if table.get("kind", decision.name) != decision.name:
        raise InputError("The problem is of kind '{found}', but '{kind}' was asked for.", found=str(table["kind"]), kind=decision.name)
    return decision.problem({k: v for k, v in table.items() if k != "kind"}, place)


def read_quantiles(path: Path) -> Quantiles:
    """A CSV file with the columns id, time and one a level, such as q0.1, ..., q0.9: one row a series and step, the steps of a series in their order."""
    rows, header = _rows(path)
    levels = {}
    for name in header:
        if name.startswith("q"):
            try:
                levels[name] = float(name[1:])
            except ValueError:
                continue
    if not levels or not all(0 < v < 1 for v in levels.values()):
        raise ReadError("'{path}' has the columns {names}; expected id, time and one a quantile, such as q0.1, q0.5, q0.9.", path=str(path), names=header)
    names = sorted(levels, key=levels.__getitem__)
    ids, times, values = _cube(path, rows, names)
    if (np.diff(values, axis=2) < -1e-9 * np.maximum(1, np.abs(values[:, :, 1:]))).any():
        series, step, level = (int(i[0]) for i in np.nonzero(np.diff(values, axis=2) < 0))
        raise ReadError("'{path}': the quantiles of '{name}' at {time} fall from {low} to {high}; expected values that rise with the level.", path=str(path), name=ids[series],
                        time=times[step], low=names[level], high=names[level + 1])
    return Quantiles(tuple(levels[n] for n in names), np.maximum.accumulate(values, axis=2), ids, times)


def read_truth(path: Path, quantiles: Quantiles) -> np.ndarray:
    """A CSV file with the columns id, time and value, as shape (n, h) in the order of the quantiles."""
    rows, header = _rows(path)
    if "value" not in header:
        raise ReadError("'{path}' has the columns {names}; expected id, time and value.", path=str(path), names=header)
    ids, times, values = _cube(path, rows, ["value"])
    if set(ids) != set(quantiles.ids) or set(times) != set(quantiles.times):
        raise ReadError("'{path}' holds other series or times than the forecast; expected its {n} series at its {h} times.", path=str(path), n=len(quantiles.ids),
                        h=len(quantiles.times))
    return values[np.ix_([ids.index(i) for i in quantiles.ids], [times.index(t) for t in quantiles.times])][:, :, 0]


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError("'{path}' cannot be read as a CSV file in UTF-8: {error}.", path=str(path), error=str(error)) from None
    header = list(reader.fieldnames or [])
    if not {"id", "time"} <= set(header) or not rows:
        raise ReadError("'{path}' has the columns {names} and {n} rows; expected id, time, and at least one row.", path=str(path), names=header, n=len(rows))
    return rows, header


def _cube(path: Path, rows: list[dict[str, str]], columns: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Shape (n, h, columns); every series has to have every time once."""
    ids, times = tuple(dict.fromkeys(r["id"] for r in rows)), tuple(dict.fromkeys(r["time"] for r in rows))
    row_of, step_of = {v: i for i, v in enumerate(ids)}, {v: i for i, v in enumerate(times)}
    values = np.full((len(ids), len(times), len(columns)), np.nan)
    for line, row in enumerate(rows, 2):
        at = row_of[row["id"]], step_of[row["time"]]
        if not np.isnan(values[at]).all():
            raise ReadError("'{path}', line {line}: '{name}' at {time} stands there twice, expected it once.", path=str(path), line=line, name=row["id"], time=row["time"])
        try:
            values[at] = [float(row[c]) for c in columns]
        except (TypeError, ValueError):
            values[at] = np.nan
        if not np.isfinite(values[at]).all():
            raise ReadError("'{path}', line {line}: one of {names} is not a number.", path=str(path), line=line, names=columns)
    missing = np.argwhere(np.isnan(values[:, :, 0]))
    if len(missing):
        raise ReadError("'{path}': '{name}' has no row at {time}; expected every series at every time.", path=str(path), name=ids[missing[0][0]], time=times[missing[0][1]])
    return ids, times, values


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
    if decided.rule.violations and decided.plan.choice:
        lines.append(say("The rule of thumb breaks {n} demands, such as: {one}", n=len(decided.rule.violations), one=decided.rule.violations[0]).to(lang))
    if decided.folder is not None:
        lines.append(say("Written to {folder}: plan.json, plan.svg and {tables}.", folder=str(decided.folder), tables=[f"{k}.csv" for k in decided.plan.choice]).to(lang)
                     if decided.plan.choice else say("Written to {folder}: plan.json.", folder=str(decided.folder)).to(lang))
    return lines


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e5 or float(value).is_integer() else f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4g}"


def _finite(value: Any) -> Any:
    """JSON knows no infinity: it becomes null."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
