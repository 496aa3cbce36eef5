"""`assay demo production`: a seeded plant. Its demand is forecast, the forecast becomes lot sizes, the first week's lots a schedule, and both plans are paid for on
what was then asked, beside the rules of thumb."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay import api
from assay.decide.base import Decision, Plan
from assay.plan import Decided, decide
from assay.registry import get
from assay.ship.quantiles import quantiles_of
from assay.words import Text, say

WEEKS, HORIZON, START = 156, 8, date(2023, 1, 2)
PRODUCTS = ("axle", "bracket", "cover", "drum", "flange", "gear", "housing", "jack")
STATIONS = ("cut", "mill", "weld", "paint", "pack")


@dataclass(frozen=True)
class Produced:
    """lots, schedule: what was decided, beside the rules. costs: {'plan', 'rule', 'oracle'} of the lots once the demand was known. page: the HTML file."""

    run: api.Run
    lots: Decided
    schedule: Decided
    costs: dict[str, float]
    page: Path


def demand(seed: int = 0) -> pl.DataFrame:
    """Units asked a week of eight products, 164 weeks: level, growth, a season of a year, weeks of promotion that are known ahead, chance; one product is asked rarely."""
    rng = np.random.default_rng(seed)
    weeks = np.arange(WEEKS + HORIZON)
    rows = []
    for k, name in enumerate(PRODUCTS):
        level, growth, swing = rng.uniform(60, 220), rng.uniform(-0.1, 0.35), rng.uniform(0.1, 0.4)
        promoted = (rng.random(len(weeks)) < 0.08).astype(float)
        mean = level * (1 + growth * weeks / 156) * (1 + swing * np.sin(2 * np.pi * (weeks + rng.integers(52)) / 52)) * (1 + 0.6 * promoted)
        units = rng.negative_binomial(12, 12 / (12 + mean))
        if k == len(PRODUCTS) - 1:
            units = units * (rng.random(len(weeks)) < 0.3)
        rows += [{"week": START + timedelta(weeks=int(w)), "product": name, "promotion": p, "units": float(u)} for w, p, u in zip(weeks, promoted, units, strict=True)]
    return pl.DataFrame(rows)


def plant(typical: dict[str, float]) -> dict[str, Any]:
    """The lot-sizing problem: two lines that can make everything, about 85 % busy in a typical week."""
    load = sum(typical.values()) * 0.1 + len(typical) * 4
    return {"machine": [{"id": f"line {i + 1}", "capacity": round(load / 2 / 0.85, 1), "overtime": round(load * 0.15, 1), "overtime_cost": 45.0} for i in range(2)],
            "default": {"hours": 0.1, "setup_hours": 4.0, "setup_cost": 260.0, "holding": 0.8, "backlog": 7.0},
            "product": [{"id": name} for name in typical]}


def shop(lots: Plan, seed: int) -> dict[str, Any]:
    """The first week's lots as jobs: each passes four of the stations, in an order of its own, for a time that grows with the lot."""
    first = [row for row in lots.choice["lots"] if row["step"] == 0 and row["units"] > 0]
    jobs = []
    for k, row in enumerate(sorted(first, key=lambda r: str(r["product"]))):
        rng = np.random.default_rng([seed, k])
        way = [STATIONS[i] for i in sorted(rng.permutation(len(STATIONS) - 1)[:3])] + [STATIONS[-1]]
        hours = [round(float(0.5 + rng.uniform(0.01, 0.04) * row["units"]), 2) for _ in way]
        jobs.append({"name": f"{row['product']} ({row['units']:.0f}, {row['machine']})", "operations": [{"machine": m, "time": h} for m, h in zip(way, hours, strict=True)]})
    return {"machines": list(STATIONS), "objective": "makespan", "jobs": jobs}


def produce(*, time: str | float = "60s", out: Path | None = None, seed: int = 0, lang: str = "en", observe: Callable[[Any], None] = lambda event: None,
            since_process_start: bool = False) -> Produced:
    """The whole way from demand to a schedule. time: of the contest; the solvers take some 25 s more. out: the run's folder."""
    every = demand(seed)
    last = pl.lit(START + timedelta(weeks=WEEKS))
    known = every.with_columns(units=pl.when(pl.col("week") < last).then(pl.col("units")))
    folder = out or api.fresh_folder("production")
    run = api.run(known.filter(pl.col("week") < last), target="units", task="forecast", horizon=HORIZON, group="product", time_column="week", known=("promotion",), time=time,
                  lang=lang, out=folder, observe=observe, since_process_start=since_process_start, seed=seed)
    quantiles = quantiles_of(run.winner, known)
    answers = every.filter(pl.col("week") >= last)
    truth = np.stack([answers.filter(pl.col("product") == name)["units"].to_numpy() for name in quantiles.ids])
    typical = {name: float(np.mean(known.filter(pl.col("product") == name)["units"].drop_nulls()[-26:].to_numpy())) for name in quantiles.ids}
    observe(say("Lot sizes for {n} products and {weeks} weeks: a mixed-integer program", n=len(typical), weeks=HORIZON))
    lots = decide("lots", plant(typical), quantiles=quantiles, truth=truth, seconds=12, seed=seed, out=run.folder.path / "lots", lang=lang)
    observe(say("A schedule for the first week"))
    schedule = decide("jobshop", shop(lots.plan, seed), seconds=8, seed=seed, out=run.folder.path / "schedule", lang=lang)
    costs = {name: float(parts.sum()) for name, parts in lots.realised.items()}
    made = Produced(run, lots, schedule, costs, run.folder.path / "production.html")
    made.page.write_text(_page(made, lang), encoding="utf-8")
    (run.folder.path / "production.json").write_text(json.dumps({"lots": lots.json(), "schedule": schedule.json(), "costs": costs}, ensure_ascii=False, indent=1), encoding="utf-8")
    return made


def sentences(made: Produced) -> list[Text]:
    """What came of it, for the terminal and the page."""
    plan, rule, oracle = (made.costs[name] for name in ("plan", "rule", "oracle"))
    share = 1 - made.schedule.plan.cost / made.schedule.rule.cost if made.schedule.rule.cost else 0.0
    return [
        say("Lot sizes: in the {weeks} weeks that followed, the plan cost {plan:,.0f}; the rule of thumb (Silver-Meal with safety stock) {rule:,.0f}; with the demand known "
            "beforehand {oracle:,.0f}.", weeks=HORIZON, plan=plan, rule=rule, oracle=oracle),
        say("The plan saves {share:.1%} against the rule of thumb.", share=1 - plan / rule) if plan < rule else
        say("The plan is {share:.1%} dearer than the rule of thumb: it did not pay here.", share=plan / rule - 1),
        say("Schedule of the first week: {n} lots are done after {hours:.1f} hours; dispatched by most work remaining after {rule:.1f} ({share:.1%} less).",
            n=len(made.schedule.plan.choice.get("jobs", [])), hours=made.schedule.plan.cost, rule=made.schedule.rule.cost, share=share),
    ]


def _page(made: Produced, lang: str) -> str:
    def picture(decided: Decided) -> str:
        decision = get("assay.decide", Decision, decided.kind)  # type: ignore[type-abstract]
        return (decided.folder / "plan.svg").read_text(encoding="utf-8") if decided.folder else decision.name

    rows = "".join(f"<p>{html.escape(text.to(lang))}</p>" for text in (made.run.verdict.sentence, *sentences(made)))
    heads = [say(t).to(lang) for t in ("From demand to a schedule", "Hours of work a week", "The first week")]
    return (f'<!doctype html><html lang="{lang}"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{heads[0]}</title>'
            "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}svg{max-width:100%;height:auto}</style>"
            f"<h1>{heads[0]}</h1>{rows}<h2>{heads[1]}</h2>{picture(made.lots)}<h2>{heads[2]}</h2>{picture(made.schedule)}"
            f'<p><a href="report.html">report.html</a></p></html>\n')
