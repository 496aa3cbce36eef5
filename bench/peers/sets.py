"""The sets of the quality bench and their one outer split each: the same rows teach and judge everybody."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

HOME = Path(os.environ.get("ASSAY_PEERS", Path.home() / ".cache" / "assay-peers"))
DATA = Path(os.environ.get("ASSAY_DATA", Path(__file__).parents[3] / "shared" / "data"))
TABLES = "16_tabular_benchmark"
SHARE, MOST = 0.25, 5000


@dataclass(frozen=True)
class Set:
    """file, test: under DATA; test "" means that the rows are split here. by: the column whose groups or order judge."""

    name: str
    file: str
    target: str
    task: str = "classify"
    test: str = ""
    by: str = ""
    how: str = "random"  # random | group | time

    @property
    def structured(self) -> bool:
        return self.how != "random"

    @property
    def folder(self) -> Path:
        return HOME / "splits" / self.name

    @property
    def about(self) -> dict:
        return json.loads((self.folder / "about.json").read_text(encoding="utf-8"))


def _table(name: str, target: str, task: str = "classify") -> Set:
    return Set(name, f"{TABLES}/{name}.csv", target, task)


# in the order in which they are run: what is done early already covers small and large, numbers, categories, classes, amounts and text
SETS = (
    _table("blood_transfusion", "Class"), _table("california_housing", "medianHouseValue", "regress"),
    Set("waimai_10k_zh", "04_waimai_10k_zh/waimai_10k.csv", "label"), _table("telecom_churn", "churn"), _table("satimage", "Class"),
    _table("ames_housing", "Sale_Price", "regress"), Set("sst2", "14_sst2/train.csv", "label", test="14_sst2/test.csv"),
    _table("phoneme", "class"), _table("diamonds", "price", "regress"), _table("attrition", "Attrition"),
    Set("exam_scores", "10_exam_scores/exam.csv", "normexam", "regress", by="school", how="group"),
    Set("bike_sharing_hourly", "05_bike_sharing_hourly/bike_hour.csv", "cnt", "regress", by="instant", how="time"),
    Set("thucnews_titles_zh", "04_thucnews_titles_zh/train.csv", "label", test="04_thucnews_titles_zh/test.csv"),
    _table("segment", "class"), _table("concrete_strength", "compressive_strength", "regress"), _table("sick_thyroid", "Class"),
    _table("abalone", "Class_Rings", "regress"), Set("banking77", "04_banking77/train.csv", "category", test="04_banking77/test.csv"),
    _table("wine_quality_white", "quality", "regress"), _table("car_evaluation", "class"),
    Set("metro_traffic", "11_metro_traffic/Metro_Interstate_Traffic_Volume.csv", "traffic_volume", "regress", by="date_time", how="time"),
    _table("vehicle", "Class"), _table("cpu_act", "usr", "regress"), _table("kr_vs_kp", "class"), _table("spambase", "class"),
    _table("medical_insurance", "charges", "regress"), _table("mammographic", "target"), _table("banknote", "class"),
    Set("sms_spam", "04_sms_spam/sms_spam.csv", "label"),
)
BAGGED = {"blood_transfusion", "california_housing", "waimai_10k_zh", "telecom_churn", "satimage", "ames_housing", "phoneme", "diamonds"}


def find(names: list[str]) -> list[Set]:
    known = {s.name: s for s in SETS}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise SystemExit(f"No set is called {unknown[0]!r}. There are: {', '.join(known)}.")
    return [known[n] for n in names] if names else list(SETS)


def make(one: Set) -> Path:
    """Write train, test (no answers) and truth once; a split that is there already is left as it is."""
    if (one.folder / "about.json").exists():
        return one.folder
    train = _read(one.file)
    if one.test:
        test = _read(one.test)
        chosen = _drawn(test.height, None, MOST) if test.height > MOST else np.arange(test.height)
        test = test[chosen]
    else:
        judged = _judging(train, one)
        train, test = train.filter(~pl.Series(judged)), train.filter(pl.Series(judged))
    one.folder.mkdir(parents=True, exist_ok=True)
    truth = test.select(one.target, *([one.by] if one.by else []))
    train.write_parquet(one.folder / "train.parquet")
    test.drop(one.target).write_parquet(one.folder / "test.parquet")
    truth.write_parquet(one.folder / "truth.parquet")
    digest = hashlib.sha256(b"".join((one.folder / f"{part}.parquet").read_bytes() for part in ("train", "test", "truth"))).hexdigest()[:16]
    (one.folder / "about.json").write_text(json.dumps({
        "train": train.height, "test": test.height, "columns": train.width, "digest": digest, "task": one.task,
        "classes": train[one.target].n_unique() if one.task == "classify" else None}), encoding="utf-8")
    return one.folder


def _read(file: str) -> pl.DataFrame:
    return pl.read_csv(DATA / file, infer_schema_length=None, null_values=["", "?", "NA"])


def _judging(frame: pl.DataFrame, one: Set) -> np.ndarray:
    """Which rows judge, bool (n,): a stratified share, whole groups, or the latest rows."""
    n = frame.height
    out = np.zeros(n, dtype=bool)
    if one.how == "time":
        last = min(MOST, int(0.2 * n))
        order = frame[one.by].arg_sort().to_numpy()
        out[order[-last:]] = True
    elif one.how == "group":
        groups = frame[one.by].unique().sort().to_numpy()
        chosen = np.random.default_rng(0).permutation(groups)[:round(SHARE * len(groups))]
        out = np.isin(frame[one.by].to_numpy(), chosen)
    else:
        strata = frame[one.target].rank("dense").to_numpy() if one.task == "classify" else None
        out[_drawn(n, strata, min(MOST, round(SHARE * n)))] = True
    return out


def _drawn(n: int, strata: np.ndarray | None, most: int) -> np.ndarray:
    """`most` of n rows, sorted; of each stratum its share, rounded."""
    rng = np.random.default_rng(0)
    if strata is None:
        return np.sort(rng.permutation(n)[:most])
    taken = [rng.permutation(np.flatnonzero(strata == s)) for s in np.unique(strata)]
    return np.sort(np.concatenate([rows[:round(most * len(rows) / n)] for rows in taken]))
