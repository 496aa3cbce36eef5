"""Forecasts: the whole contest on open sets, against an ensemble of statsforecast's AutoETS, AutoTheta and AutoARIMA in five times the time, and against AutoGluon-TimeSeries at equal time.

    python bench/forecast.py [--time 120s] [--sets m4_hourly ...] [--peer 40] [--autogluon 60]

peer: series of M4 hourly that the ensemble forecasts, one after the other, on one core; assay then gets a fifth of the time that this took, for the same series.
autogluon: seconds that each side is given for a set, one after the other (twice as many for all of M4 hourly); its environment: python bench/peers/setup.py. 0: left out.
Results go to $ASSAY_FORECASTS (default /tmp/assay-forecasts); a set that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import polars as pl
from contests import best_of, played
from forecast_sets import SETS as SPLITS
from forecast_sets import gap, scores, split
from machine import publish
from peers.quiet import timed
from peers.setup import HOME, python

import assay

DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
OUT = Path(os.environ.get("ASSAY_FORECASTS", "/tmp/assay-forecasts"))
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "m4_hourly": ("05_m4_hourly/Hourly-train.csv", {"horizon": 48}),
    "norway_car_sales": ("05_norway_car_sales/norway_car_sales_by_make.csv", {"target": "Quantity", "horizon": 6}),
    "victoria_electricity": ("11_victoria_electricity/elecdemand.csv", {"target": "Demand", "horizon": 48}),
    "etth1": ("05_etth1/ETTh1.csv", {"target": "OT", "horizon": 96}),
    "metro_traffic": ("11_metro_traffic/Metro_Interstate_Traffic_Volume.csv", {"target": "traffic_volume", "horizon": 24}),
    "bike_sharing": ("05_bike_sharing_hourly/bike_hour.csv", {"target": "cnt", "horizon": 24}),
    "air_passengers": ("05_air_passengers/air_passengers.csv", {"target": "passengers", "horizon": 12}),
    "sp500_daily": ("06_sp500_daily/sp500_daily.csv", {"target": "Close", "horizon": 10}),
}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--time", default="120s")
    ask.add_argument("--sets", nargs="*", default=list(SETS))
    ask.add_argument("--peer", type=int, default=40)
    ask.add_argument("--autogluon", type=float, default=60.0)
    given = ask.parse_args()
    if not DATA.exists():
        print("forecast: skipped, the folder of open datasets is absent")
        return
    rows = []
    for name, verdict in played(given.sets, OUT, lambda name, folder: assay.run(DATA / SETS[name][0], task="forecast", out=folder, time=given.time, **SETS[name][1])):
        rows.append(line(name, verdict))
        print(rows[-1], flush=True)
    if rows:
        publish("forecast", f"## Forecasts\n\n`python bench/forecast.py`: the whole contest, {given.time} each. The best of every rung by test loss (scaled quantile loss), with its 95 % interval, MASE, "
                "and the share of truths within its 80 % interval.", ["set", "origins that judge", "seasonal naive", "classical", "from scratch", "pre-trained", "outcome"], rows)
    if given.peer:
        against(given.peer)
    if given.autogluon:
        beside_autogluon(given.autogluon)


def line(name: str, verdict: dict[str, Any]) -> list[str]:
    cells = []
    for rung in ("naive", "classical", "scratch", "pretrained"):
        best = best_of(verdict, rung)
        if best is None:
            cells.append("-")
            continue
        own = best["metrics"]
        cells.append(f"{'' if rung == 'naive' else best['candidate'] + ' '}{best['loss']:.3f} [{best['low']:.3f}, {best['high']:.3f}], MASE {own['mase']['value']:.3f}, {own['coverage']['value']:.0%}")
    return [name, f"{verdict['data']['test_rows']:,}", *cells, verdict["outcome"].replace("_", " ")]


def against(count: int) -> None:
    """The peers' ensemble on the official test values of M4 hourly, then assay's winner in a fifth of the time."""
    frame = pl.read_csv(DATA / "05_m4_hourly" / "Hourly-train.csv", infer_schema_length=0)
    truth = pl.read_csv(DATA / "05_m4_hourly" / "Hourly-test.csv", infer_schema_length=0)
    chosen = np.sort(np.random.default_rng(0).permutation(frame.height)[:count])
    frame, truth = frame[chosen], truth[chosen]
    actual = truth[:, 1:].cast(pl.Float64).to_numpy()
    histories = [np.array([float(v) for v in row[1:] if v not in (None, "")]) for row in frame.iter_rows()]
    peer, peer_s = _peer(histories, 48, 24)
    print("peer", round(peer_s, 1), flush=True)
    folder = OUT / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    made = assay.run(frame, task="forecast", horizon=48, time=peer_s / 5, out=folder)
    ours_s = time.perf_counter() - begun
    told = assay.load(made.winner).predict(frame)
    levels = [c for c in told.columns if c.startswith("q0.")]
    ours = told.select(levels).to_numpy().reshape(count, 48, len(levels))
    rows = [["AutoETS + AutoTheta + AutoARIMA, mean", f"{peer_s:.0f} s", *_scores(actual, peer, histories)],
            [f"assay's winner ({made.verdict.winner})", f"{ours_s:.0f} s", *_scores(actual, ours, histories)]]
    publish("forecast_peer", f"## Forecasts against statsforecast\n\nM4 hourly, {count} series drawn at random, the official 48 values to come; one core each for the peer's fits, assay in a fifth of "
            "that time, all of its work counted.", ["what", "time", "MASE", "sMAPE", "weighted quantile loss", "80 % interval holds"], rows)


def beside_autogluon(seconds: float) -> None:
    """Each set's same split and seconds for both, each in a process of its own, one after the other on all cores."""
    if not python("autogluon-ts").exists():
        print("forecast: AutoGluon-TimeSeries skipped, it is not installed (python bench/peers/setup.py)")
        return
    here, rows = Path(__file__).parent / "peers", []
    for name, one in SPLITS.items():
        given = seconds * (2 if name == "m4_hourly" else 1)
        folder, theirs = split(one, HOME / "forecast-splits" / name), None
        for title, interpreter, script, *option in (("AutoGluon medium_quality", python("autogluon-ts"), "run_autogluon_ts.py", "medium_quality"), ("assay", sys.executable, "run_assay_ts.py")):
            out = OUT / "beside" / name / title.split()[0]
            if not (out / "told.parquet").exists():
                out.mkdir(parents=True, exist_ok=True)
                took = timed([str(interpreter), str(here / script), str(folder), str(given), str(out), *option], out / "log.txt", 4 * given + 120, here.parent)
                (out / "took.json").write_text(json.dumps(took), encoding="utf-8")
            if not (out / "told.parquet").exists():
                rows.append([name, title, "no answer, see " + str(out / "log.txt"), *[""] * 8])
                continue
            took, facts = (json.loads((out / f"{part}.json").read_text(encoding="utf-8")) for part in ("took", "facts"))
            members = ", ".join(f"{member} {weight:.2f}" for member, weight in sorted(facts["weights"].items(), key=lambda pair: -pair[1]) if weight >= 0.05) or facts["best"]
            told = pl.read_parquet(out / "told.parquet")
            apart = "" if option or theirs is None else "[{:.4f}, {:.4f}]".format(*gap(folder, told, theirs))
            theirs = told
            found = scores(folder, told)
            rows.append([name, title, f"{given:.0f} s", f"{took['wall_s']:.0f} s", f"{found['questions']:.0f}", f"{found['wql']:.4f}", apart, f"{found['mase']:.3f}", f"{found['smape']:.2f}",
                         f"{found['coverage']:.1%}", members])
            print(rows[-1], flush=True)
    publish("forecast_autogluon", "## Forecasts against AutoGluon-TimeSeries\n\nAutoGluon-TimeSeries 1.6.3 (its `fast_training` is `medium_quality` by another name since then), told to optimise the "
            "weighted quantile loss, without its pre-trained Chronos-2 and Toto-2, whose weights a hub would have to give; assay with the small one that a package ships (`fracast`). The same split for both: M4 "
            "hourly with the official 48 steps to come, the last six months of car sales, and the last 20 origins of single series, each with its whole history, without being "
            "trained again. Seconds given: AutoGluon's fit, assay's whole run. n = 1 run each. Difference: assay minus AutoGluon, paired bootstrap over questions.",
            ["set", "who", "given", "took in all", "questions", "weighted quantile loss", "difference, 95 %", "MASE", "sMAPE", "80 % interval holds", "made of"], rows)


def _peer(histories: list[np.ndarray], horizon: int, season: int) -> tuple[np.ndarray, float]:
    from statsforecast.models import AutoARIMA, AutoETS, AutoTheta

    from assay.tasks.forecast import LEVELS

    def forecast(y: np.ndarray) -> np.ndarray:
        parts = []
        for model in (AutoETS(season_length=season), AutoTheta(season_length=season), AutoARIMA(season_length=season, approximation=True)):
            told = model.forecast(y.astype(np.float64), horizon, level=[20, 40, 60, 80])
            parts.append(np.stack([told[f"lo-{round(100 - 200 * q)}"] if q < 0.5 else told["mean"] if q == 0.5 else told[f"hi-{round(200 * q - 100)}"] for q in LEVELS], axis=1))
        return np.mean(parts, axis=0)

    forecast(histories[0][:120])  # compiles
    begun, out = time.perf_counter(), []
    for i, y in enumerate(histories):
        out.append(forecast(y))
        if i % 5 == 0:
            print("peer", i, round(time.perf_counter() - begun, 1), flush=True)
    return np.stack(out), time.perf_counter() - begun


def _scores(actual: np.ndarray, told: np.ndarray, histories: list[np.ndarray]) -> list[str]:
    from assay.tasks.forecast import LEVELS, pinball, scale_of

    middle = told[:, :, len(LEVELS) // 2]
    mase = np.mean([np.abs(a - m).mean() / scale_of(y, 24) for a, m, y in zip(actual, middle, histories, strict=True)])
    smape = np.mean(200 * np.abs(actual - middle) / (np.abs(actual) + np.abs(middle)))
    wql = pinball(actual, told, LEVELS).mean(axis=2).sum() / np.abs(actual).sum()
    inside = ((actual >= told[:, :, 0]) & (actual <= told[:, :, -1])).mean()
    return [f"{mase:.3f}", f"{smape:.2f}", f"{wql:.4f}", f"{inside:.1%}"]


if __name__ == "__main__":
    main()
