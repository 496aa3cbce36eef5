"""Pictures, sounds, sequences and texts: the whole contest on open sets, the best of every rung side by side.

    python bench/media.py [--time 120s] [--sets pneumonia digits ...]

Each set is read as a user would (`assay run FOLDER`), with the split that it brings where it brings one. Results go to $ASSAY_MEDIA (default /tmp/assay-media) and
a set that is there is not run again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import polars as pl
from contests import best_of, played
from machine import publish

import assay

DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[2] / "shared" / "data"))
OUT = Path(os.environ.get("ASSAY_MEDIA", "/tmp/assay-media"))
# name: (what is read, further arguments)
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "neu_surface_defects": ("02_neu_surface_defects", {}),
    "elpv_solar_cells": ("02_elpv_solar_cells", {"target": "defective", "drop": ("defect_probability",)}),
    "pneumonia_xray": ("07_pneumonia_xray", {"target": "label", "task": "classify"}),
    "cifar10_subset": ("03_cifar10", {"target": "label_name", "drop": ("label",)}),
    "spoken_digits": ("12_spoken_digits", {}),
    "spoken_digits_by_speaker": ("12_spoken_digits", {"group": "speaker", "split": "group"}),
    "gunpoint": ("14_ucr_gunpoint", {"target": "label", "sequence": True}),
    "arrowhead": ("14_ucr_arrowhead", {"target": "label", "sequence": True}),
    "basicmotions": ("14_basicmotions", {"target": "label", "sequence": True, "group": "case"}),
    "banking77": ("04_banking77", {"target": "category"}),
    "sst2": ("14_sst2", {"target": "label"}),
    "thucnews_titles_zh": ("04_thucnews_titles_zh", {"target": "label"}),
    "cmapss_fd001": ("01_cmapss_fd001/train.csv", {"target": "rul", "sequence": True, "group": "unit"}),
}
PUBLISHED = ("Published on splits of their own, so for orientation: solar cells 88.4 % by a network and 82.4 % by support vectors on hand-made features (Deitsch et al. 2019, "
             "arXiv:1807.02894); C-MAPSS FD001, at the last cycle of each test engine, RMSE 14.9 (LSTM) and 17.0 (CNN) in arXiv:2604.27234, and 16.1 of an older LSTM quoted there.")


def source(name: str) -> Any:
    """The folder; the remaining life of C-MAPSS is cut at 125 cycles, as is usual."""
    path = DATA / SETS[name][0]
    if name == "cmapss_fd001":
        return pl.read_csv(path).with_columns(rul=pl.col("rul").clip(upper_bound=125).cast(pl.Float64))
    if path.is_dir() and not any(path.rglob("*.jpg")) and not any(path.rglob("*.wav")):  # train and test tables: one frame with a split
        parts = [(p.stem, pl.read_parquet(p) if p.suffix == ".parquet" else pl.read_csv(p)) for p in sorted(path.iterdir())
                 if p.stem in ("train", "test", "val") and p.suffix in (".csv", ".parquet")]
        return pl.concat([frame.with_columns(split=pl.lit(part)) for part, frame in parts], how="vertical_relaxed")
    return path


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--time", default="120s")
    ask.add_argument("--sets", nargs="*", default=list(SETS))
    given = ask.parse_args()
    if not DATA.exists():
        print("media: skipped, the folder of open datasets is absent")
        return
    rows = []
    for name, verdict in played(given.sets, OUT, lambda name, folder: assay.run(source(name), out=folder, time=given.time, **SETS[name][1])):
        rows.append(line(name, verdict))
        print(rows[-1], flush=True)
    publish("media", f"## Pictures, sounds, sequences and texts\n\n`python bench/media.py`: the whole contest, {given.time} each. The best of every rung by test loss, with its accuracy (or RMSE) and the 95 % "
            "interval of its loss. Sub-sets of the published sets, so figures from papers are no yardstick.",
            ["set", "rows that judge", "classical", "from scratch", "pre-trained", "outcome"], rows, after=PUBLISHED)


def line(name: str, verdict: dict[str, Any]) -> list[str]:
    cells = []
    for rung in ("classical", "scratch", "pretrained"):
        best = best_of(verdict, rung)
        if best is None:
            cells.append("-")
            continue
        figure = f"{best['metrics']['accuracy']['value']:.1%}" if "accuracy" in best["metrics"] else f"RMSE {best['metrics']['rmse']['value']:.2f}"
        cells.append(f"{best['candidate']} {figure}, loss {best['loss']:.3g} [{best['low']:.3g}, {best['high']:.3g}]")
    return [name, f"{verdict['data']['test_rows']:,}", *cells, verdict["outcome"].replace("_", " ")]


if __name__ == "__main__":
    main()
