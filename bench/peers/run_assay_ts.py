"""The other side, in the environment of this repository: the whole contest, and its winner's answers.

    python run_assay_ts.py SPLIT SECONDS OUT

SPLIT: a folder of `forecast_sets.split`. SECONDS: of the whole run, its judging and packing included. OUT gets run/, told.parquet and facts.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import polars as pl

import assay


def main() -> None:
    split, seconds, out = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    about = json.loads((split / "about.json").read_text(encoding="utf-8"))
    train, asks = pl.read_parquet(split / "train.parquet"), pl.read_parquet(split / "asks.parquet")
    several = about["series"] > 1
    shutil.rmtree(out / "run", ignore_errors=True)
    begun = time.perf_counter()
    made = assay.run(train if several else train.drop("id"), task="forecast", target="value", horizon=about["horizon"], time=seconds, out=out / "run",
                     **({"group": "id"} if several else {}))
    fit_s = time.perf_counter() - begun
    begun = time.perf_counter()
    bundle = assay.load(made.winner)
    parts = [asks] if several else asks.partition_by("id", maintain_order=True)
    told = []
    for part in parts:
        answer = bundle.predict(part if several else part.drop("id"))
        told.append(answer if several else answer.with_columns(id=pl.lit(part["id"][0])))
    frame = pl.concat([one.select(pl.col("id").cast(pl.String), pl.col("step").cast(pl.Int64), *[c for c in one.columns if c.startswith("q0.")]) for one in told])
    predict_s = time.perf_counter() - begun
    frame.write_parquet(out / "told.parquet")
    row = next(r for r in made.verdict.scoreboard if r["candidate"] == made.verdict.winner)
    (out / "facts.json").write_text(json.dumps({"fit_s": fit_s, "predict_s": predict_s, "best": made.verdict.winner, "weights": row.get("facts", {}).get("weights", {}),
                                                "version": assay.__version__}), encoding="utf-8")


if __name__ == "__main__":
    main()
