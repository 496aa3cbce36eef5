"""Plans against the best that is known: routes with capacity (CVRPLIB X), with time windows (Homberger, Solomon), job shops (JSPLIB).

    python bench/plans.py                       # routes 2.4 n seconds each, as published; job shops up to 60 s
    python bench/plans.py --scale 0.05          # routes a twentieth of that
    python bench/plans.py --only cvrp --first 2
"""

from __future__ import annotations

import argparse
import csv
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import publish

from assay.decide.jobshop import JOBSHOP
from assay.decide.route import ROUTE
from assay.decide.shop_solver import WORKERS

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = {"cvrp": ("09_cvrp_x", "best_known_cost"), "vrptw": ("09_vrptw_homberger", "best_known_cost"), "jobshop": ("09_jssp", "upper_bound")}


def instances(name: str, first: int) -> list[Path]:
    folder, best = SETS[name]
    ending = ".txt" if name == "jobshop" else ".vrp"
    with (DATA / folder / "instances.csv").open(encoding="utf-8") as lines:
        return [DATA / folder / f"{row['instance']}{ending}" for row in csv.DictReader(lines) if row[best]][:first]


def one(kind: Any, path: Path, seconds: float | None, scale: float) -> tuple[str, dict[str, float]]:
    problem = kind.problem_file(path)
    allowed = seconds if seconds is not None else 2.4 * len(problem.visits) * scale
    begun = time.perf_counter()
    plan = kind.solve(problem, None, seconds=allowed, seed=0)
    took = time.perf_counter() - begun
    thumb = kind.rule(problem, None)
    best = problem.best_known
    realised = float(kind.realised(problem, plan, None)[0])
    if abs(realised - plan.cost) > 1e-6 * max(1.0, plan.cost):
        raise SystemExit(f"{path.stem}: says {plan.cost}, costs {realised}")
    return path.stem, {"best": best, "cost": plan.cost, "gap": plan.cost / best - 1, "thumb": thumb.cost / best - 1, "seconds": took, "allowed": allowed,
                       "bound": plan.facts.get("bound", float("nan")), "optimal": plan.facts["status"] == "optimal", "thumb_ok": not thumb.violations}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=sorted(SETS), action="append")
    parser.add_argument("--first", type=int, default=1000, help="only so many instances of each set")
    parser.add_argument("--scale", type=float, default=1.0, help="share of 2.4 n seconds that a route gets")
    parser.add_argument("--seconds", type=float, default=60.0, help="most for a job shop")
    parser.add_argument("--print", action="store_true", help="print the tables, leave the page alone")
    asked = parser.parse_args()
    for name in asked.only or SETS:
        shop = name == "jobshop"
        rows = []
        for path in instances(name, asked.first):
            rows.append(one(JOBSHOP if shop else ROUTE, path, asked.seconds if shop else None, asked.scale))
            print(rows[-1], flush=True)
        mean = {key: float(np.mean([facts[key] for _, facts in rows])) for key in ("gap", "thumb", "seconds")}
        solver = f"CP-SAT of OR-tools {version('ortools')}, {WORKERS} workers" if shop else f"PyVRP {version('pyvrp')}, one thread"
        given = f"at most {asked.seconds:g} s each" if shop else f"2.4 n x {asked.scale:g} seconds each" + ("" if asked.scale == 1 else " (published runs take 2.4 n)")
        thumb = "most work remaining" if shop else "Clarke-Wright savings"
        about = (f"`python bench/plans.py --only {name}{'' if shop or asked.scale == 1 else f' --scale {asked.scale:g}'}`: {len(rows)} instances of {SETS[name][0]}, {solver}, {given}, seed 0. "
                 f"Gap: cost over the best known. Rule: {thumb}, one vehicle more where it needs one.")
        head = ["instance", "best known", "cost", "gap", "rule's gap", "seconds"] + (["bound", "proven"] if shop else [])
        table = [[i, f"{f['best']:g}", f"{f['cost']:g}", f"{f['gap']:.2%}", f"{f['thumb']:.2%}" + ("" if f["thumb_ok"] else " *"), f"{f['seconds']:.1f}"]
                 + ([f"{f['bound']:g}", "yes" if f["optimal"] else "no"] if shop else []) for i, f in rows]
        table.append(["mean", "", "", f"{mean['gap']:.2%}", f"{mean['thumb']:.2%}", f"{mean['seconds']:.1f}"] + (["", f"{sum(f['optimal'] for _, f in rows)} of {len(rows)}"] if shop else []))
        after = "" if all(f["thumb_ok"] for _, f in rows) else "\\* the rule of thumb needs more vehicles than there are."
        if asked.print:
            print("\n".join(" | ".join(map(str, row)) for row in [head, *table]))
        else:
            publish(f"plans {name}", about, head, table, after=after)


if __name__ == "__main__":
    main()
