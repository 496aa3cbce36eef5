"""The other side, in the environment of this repository: a finished run's winner answers the same test rows.

    python run_assay.py WINNER.assay TEST OUT

Rows are given as dictionaries for the single-row time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from assay.api import load
from assay.data.read import conform


def main() -> None:
    winner, test, out = Path(sys.argv[1]), pl.read_parquet(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    bundle = load(winner)
    start = time.perf_counter()
    prediction = bundle.task.calibrated(bundle.model.predict(conform(test, bundle.schema.without_target())), bundle.calibration)
    predict_s = time.perf_counter() - start
    prediction = prediction[:, : bundle.task.width]  # an amount brings its interval along
    classes = getattr(bundle.task, "classes", None)
    rows = test.head(210).to_dicts()
    rows = [rows[i % len(rows)] for i in range(210)]
    taken = []
    for row in rows:
        start = time.perf_counter()
        bundle.predict_one(row)
        taken.append(time.perf_counter() - start)
    np.save(out / "predictions.npy", np.asarray(prediction, dtype=np.float64), allow_pickle=False)
    (out / "classes.json").write_text(json.dumps(None if classes is None else [str(c) for c in classes], ensure_ascii=False), encoding="utf-8")
    (out / "facts.json").write_text(json.dumps({
        "predict_s": predict_s, "artefact_mb": round(bundle.file_mb, 4), "artefact": "winner.assay",
        "single_row_ms": round(float(np.median(taken[10:])) * 1000, 4), "best": bundle.candidate.name}), encoding="utf-8")


if __name__ == "__main__":
    main()
