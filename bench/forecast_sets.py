"""One split of each forecasting set for every peer: the same histories teach, the same steps are asked for, the same loss judges.

A set of many series is asked once, from the end of what teaches; a set of one series at the last `ORIGINS` origins, each with the whole history before it and
without being trained again. train.parquet holds id, time, value and covariates that are known only in the past; asks.parquet the same for each question (its id is
series@origin); truth.parquet id, step, value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
ORIGINS = 20
LEVELS = tuple(round(0.1 * i, 1) for i in range(1, 10))


@dataclass(frozen=True)
class ForecastSet:
    """make: () -> (id, time, value, covariates...). frequency: as pandas writes it. official: the file with the steps to come, if there is one."""

    name: str
    make: Callable[[], pl.DataFrame]
    horizon: int
    season: int
    frequency: str
    every: str
    official: Callable[[], pl.DataFrame] | None = None


def _m4(count: int, part: str) -> pl.DataFrame:
    """The series as hours from one day on: M4 does not say when."""
    frame = pl.read_csv(DATA / "05_m4_hourly" / "Hourly-train.csv", infer_schema_length=0)
    wide = frame if part == "train" else pl.read_csv(DATA / "05_m4_hourly" / "Hourly-test.csv", infer_schema_length=0)
    chosen = np.sort(np.random.default_rng(0).permutation(frame.height)[:count])
    out = []
    for row in wide[chosen].iter_rows():
        values = [float(v) for v in row[1:] if v not in (None, "")]
        out.append(pl.DataFrame({"id": row[0], "time": pl.datetime_range(pl.datetime(2000, 1, 1), pl.datetime(2000, 1, 1) + pl.duration(hours=len(values) - 1), "1h", eager=True),
                                 "value": values}))
    return pl.concat(out)


def _one(frame: pl.DataFrame, time: pl.Expr, value: str, beside: tuple[str, ...]) -> pl.DataFrame:
    """Steps that stand twice as their mean."""
    return (frame.select(pl.lit("series").alias("id"), time.alias("time"), pl.col(value).cast(pl.Float64).alias("value"), *(pl.col(c).cast(pl.Float64, strict=False) for c in beside))
            .group_by("id", "time").mean().sort("time"))


def _read(path: str) -> pl.DataFrame:
    return pl.read_csv(DATA / path, infer_schema_length=None)


SETS = {s.name: s for s in (
    ForecastSet("m4_hourly_100", lambda: _m4(100, "train"), 48, 24, "h", "1h", lambda: _m4(100, "test")),
    ForecastSet("m4_hourly", lambda: _m4(414, "train"), 48, 24, "h", "1h", lambda: _m4(414, "test")),
    ForecastSet("victoria_electricity", lambda: _one(_read("11_victoria_electricity/elecdemand.csv"), pl.col("timestamp").str.to_datetime(), "Demand", ("WorkDay", "Temperature")),
                48, 48, "30min", "30m"),
    ForecastSet("bike_sharing", lambda: _one(_read("05_bike_sharing_hourly/bike_hour.csv"), pl.col("dteday").str.to_datetime("%m/%d/%Y") + pl.duration(hours=pl.col("hr")), "cnt",
                                             ("temp", "hum", "windspeed", "workingday", "weathersit")), 24, 24, "h", "1h"),
    ForecastSet("norway_car_sales", lambda: _read("05_norway_car_sales/norway_car_sales_by_make.csv").select(
        pl.col("Make").alias("id"), pl.datetime(pl.col("Year"), pl.col("Month"), 1).alias("time"), pl.col("Quantity").cast(pl.Float64).alias("value"))
        .drop_nulls("id").group_by("id", "time").mean().sort("id", "time"), 6, 12, "MS", "1mo"),
    ForecastSet("metro_traffic", lambda: _one(_read("11_metro_traffic/Metro_Interstate_Traffic_Volume.csv"), pl.col("date_time").str.to_datetime(), "traffic_volume",
                                              ("temp", "rain_1h", "clouds_all")), 24, 24, "h", "1h"),
)}


def split(one: ForecastSet, folder: Path) -> Path:
    """Writes train, asks, truth and about.json once."""
    if (folder / "about.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    whole = pl.concat([_even(part, one.every) for part in one.make().sort("id", "time").partition_by("id", maintain_order=True)])
    sizes = dict(whole.group_by("id").len().iter_rows())
    if one.official is not None:
        train, asks = whole, whole
        truth = one.official().with_columns(step=pl.int_range(pl.len()).over("id") + 1).select("id", "step", "value")
    elif len(sizes) > 1:
        last = whole["time"].max()
        kept = [part for part in whole.partition_by("id", maintain_order=True) if part["time"][-1] == last and part.height >= 3 * one.horizon + 1]
        train = asks = pl.concat([part[: -one.horizon] for part in kept])
        truth = pl.concat([part[-one.horizon :].with_columns(step=pl.int_range(pl.len()) + 1).select("id", "step", "value") for part in kept])
    else:
        begins = [whole.height - one.horizon * k for k in range(ORIGINS, 0, -1)]
        train = whole[: begins[0]]
        asks = pl.concat([whole[:b].with_columns(id=pl.lit(f"series@{b}")) for b in begins])
        truth = pl.concat([whole[b : b + one.horizon].with_columns(pl.lit(f"series@{b}").alias("id"), step=pl.int_range(pl.len()) + 1).select("id", "step", "value") for b in begins])
    for name, frame in (("train", train), ("asks", asks), ("truth", truth)):
        frame.write_parquet(folder / f"{name}.parquet")
    (folder / "about.json").write_text(json.dumps({"horizon": one.horizon, "season": one.season, "frequency": one.frequency, "levels": LEVELS,
                                                   "series": train["id"].n_unique(), "questions": truth["id"].n_unique()}), encoding="utf-8")
    return folder


def _even(part: pl.DataFrame, every: str) -> pl.DataFrame:
    """Missing steps as empty cells."""
    return part.upsample("time", every=every).with_columns(pl.col("id").fill_null(part["id"][0]))


def scores(folder: Path, told: pl.DataFrame) -> dict[str, float]:
    """told: id, step, q0.1, ..., q0.9. wql: the sum of quantile losses beside the sum of sizes; mase: beside the seasonal steps of each history; smape in percent; coverage of
    the 80 % interval. Raises ValueError if an answer is missing."""
    both, cube, loss = _losses(folder, told)
    asks, y = pl.read_parquet(folder / "asks.parquet"), both["value"].to_numpy()
    season = json.loads((folder / "about.json").read_text(encoding="utf-8"))["season"]
    scale = {}
    for part in asks.partition_by("id", maintain_order=True):
        values = part["value"].to_numpy()
        gap = np.abs(values[season:] - values[:-season])
        scale[part["id"][0]] = float(np.nanmean(gap)) if np.isfinite(gap).any() and np.nanmean(gap) > 0 else 1.0
    sizes = np.array([scale[i] for i in both["id"].to_list()])
    frame = pl.DataFrame({"id": both["id"], "loss": loss, "size": np.abs(y), "mase": np.abs(y - cube[:, 4]) / sizes, "scaled": loss / sizes})
    own = frame.group_by("id", maintain_order=True).agg(pl.col("mase").mean(), pl.col("scaled").mean(), pl.col("loss").sum(), pl.col("size").sum())
    bad = np.abs(y) + np.abs(cube[:, 4])
    smape = np.where(bad > 0, 200 * np.abs(y - cube[:, 4]) / np.where(bad > 0, bad, 1), 0.0)
    return {"wql": float(loss.sum() / np.abs(y).sum()), "mase": float(own["mase"].mean()), "smape": float(smape.mean()), "scaled": float(own["scaled"].mean()),
            "coverage": float(((y >= cube[:, 0]) & (y <= cube[:, -1])).mean()), "width": float((cube[:, -1] - cube[:, 0]).sum() / np.abs(y).sum()), "questions": float(own.height)}


def gap(folder: Path, ours: pl.DataFrame, theirs: pl.DataFrame, draws: int = 4000) -> tuple[float, float]:
    """95 % percentile bootstrap of the difference of the weighted quantile losses, paired, over questions."""
    sums = []
    for told in (ours, theirs):
        both, _, loss = _losses(folder, told)
        sums.append(both.with_columns(loss=loss, size=pl.col("value").abs()).group_by("id", maintain_order=True).agg(pl.col("loss").sum(), pl.col("size").sum()))
    size, difference = sums[0]["size"].to_numpy(), sums[0]["loss"].to_numpy() - sums[1]["loss"].to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(size), (draws, len(size)))
    low, high = np.quantile(difference[drawn].sum(axis=1) / size[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _losses(folder: Path, told: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """(the known steps, what was said of them (n, levels), twice the quantile loss of each, the mean over levels)."""
    truth = pl.read_parquet(folder / "truth.parquet").with_columns(pl.col("step").cast(pl.Int64))
    both = truth.join(told.with_columns(pl.col("step").cast(pl.Int64)), on=["id", "step"], how="left", maintain_order="left").filter(pl.col("value").is_not_null())
    cube = both.select([f"q{level:g}" for level in LEVELS]).to_numpy()
    if not np.isfinite(cube).all():
        raise ValueError(f"{int((~np.isfinite(cube)).any(axis=1).sum())} of {len(cube)} answers are missing")
    level, error = np.array(LEVELS), both["value"].to_numpy()[:, None] - cube
    return both, cube, 2 * np.maximum(level * error, (level - 1) * error).mean(axis=1)
