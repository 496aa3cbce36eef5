"""Are findings found, and only where they are? Plants 19 faults in honest tables, looks at honest tables, reads the structure of real ones, flips labels.

Usage: python bench/findings.py. scikit-learn's tables always, the open sets where they stand beside the checkout. About five minutes on one core.
Prints the tables of docs/calibration.md and writes every single outcome to runs/findings.json.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from faults import FAULTS
from machine import publish

from assay.contest.suspects import label_errors
from assay.data.dataset import Dataset
from assay.data.inspect import findings, structure
from assay.data.read import read
from assay.tasks import find

SHARED = Path(__file__).parents[2] / "shared" / "data"
MOST = 3000  # rows of a table in which faults are planted
SKLEARN = ("iris", "wine", "breast_cancer", "digits", "diabetes")

# What is known about the open sets. leaks: columns that give the answer away indeed, so that naming them is no false alarm.
KNOWN: dict[str, tuple[str, bool, str, str | None, set[str]]] = {
    **{f"16_tabular_benchmark/{name}.csv": (target, labels, "random", None, set()) for name, target, labels in (
        ("blood_transfusion", "Class", True), ("vehicle", "Class", True), ("segment", "class", True), ("phoneme", "class", True), ("spambase", "class", True),
        ("telecom_churn", "churn", True), ("satimage", "Class", True), ("kr_vs_kp", "class", True), ("sick_thyroid", "Class", True), ("car_evaluation", "class", True),
        ("attrition", "Attrition", True), ("banknote", "class", True), ("mammographic", "target", True), ("california_housing", "medianHouseValue", False),
        ("abalone", "Class_Rings", False), ("wine_quality_white", "quality", False), ("concrete_strength", "compressive_strength", False), ("cpu_act", "usr", False),
        ("medical_insurance", "charges", False), ("ames_housing", "Sale_Price", False), ("diamonds", "price", False))},
    "01_ai4i2020/ai4i2020.csv": ("Machine_failure", True, "random", None, {"TWF", "HDF", "PWF", "OSF", "RNF"}),
    "01_cmapss_fd001/train.csv": ("rul", False, "group", "unit", set()),
    "02_elpv_solar_cells/labels.csv": ("defective", True, "random", None, {"defect_probability"}),
    "04_bank_faq_reply/BankFAQs.csv": ("Class", True, "random", None, set()), "04_banking77/train.csv": ("category", True, "random", None, set()),
    "04_sms_spam/sms_spam.csv": ("label", True, "random", None, set()), "04_thucnews_titles_zh/train.csv": ("label", True, "random", None, set()),
    "04_waimai_10k_zh/waimai_10k.csv": ("label", True, "random", None, set()), "14_sst2/train.csv": ("label", True, "random", None, set()),
    "05_air_passengers/air_passengers.csv": ("passengers", False, "time", "month", set()), "05_bike_sharing_hourly/bike_hour.csv": ("cnt", False, "time", "dteday", set()),
    "05_etth1/ETTh1.csv": ("OT", False, "time", "date", set()), "05_norway_car_sales/norway_car_sales_by_make.csv": ("Quantity", False, "order", None, {"Pct"}),
    "06_adult/train.csv": ("income", True, "random", None, set()), "06_default_credit_card/UCI_Credit_Card.csv": ("default.payment.next.month", True, "random", None, set()),
    "06_german_credit/german_credit.csv": ("class", True, "random", None, set()), "06_sp500_daily/sp500_daily.csv": ("Close", False, "time", "Date", {"Adj.Close", "Open", "High", "Low"}),
    "07_esol_solubility/delaney.csv": ("measured log solubility in mols per litre", False, "random", None, {"ESOL predicted log solubility in mols per litre"}),
    "07_heart_cleveland/heart_cleveland.csv": ("num", True, "random", None, set()), "07_pima_diabetes/pima.csv": ("outcome", True, "random", None, set()),
    "07_tox21/tox21.csv": ("NR-AR", True, "random", None, set()), "08_movielens100k/ratings.csv": ("rating", False, "group", "user_id", set()),
    "08_online_retail_germany/online_retail_germany.csv": ("Quantity", False, "time", "InvoiceDate", set()), "08_telco_churn/telco_churn.csv": ("Churn", True, "random", None, set()),
    "10_asap_essays_sample/essays.csv": ("domain1_score", False, "random", None, set()), "10_assistments2009/train.csv": ("correct", True, "group", "student", set()),
    "10_exam_scores/exam.csv": ("normexam", False, "group", "school", set()), "11_beijing_pm25/PRSA_data_2010-2014.csv": ("pm2.5", False, "order", None, set()),
    "11_chicago_transit/chicago_ridership.csv": ("ridership", False, "time", "date", set()),
    "11_metro_traffic/Metro_Interstate_Traffic_Volume.csv": ("traffic_volume", False, "time", "date_time", set()),
    "11_victoria_electricity/elecdemand.csv": ("Demand", False, "time", "timestamp", set()),
    "12_cwru_bearing_features/feature_time_48k_2048_load_1.csv": ("fault", True, "random", None, set()), "12_spoken_digits/labels.csv": ("digit", True, "random", None, set()),
    "13_adbench_tabular/annthyroid.csv": ("is_anomaly", True, "random", None, set()), "13_adbench_tabular/cardio.csv": ("is_anomaly", True, "random", None, set()),
    "13_adbench_tabular/mammography.csv": ("is_anomaly", True, "random", None, set()), "13_adbench_tabular/pendigits.csv": ("is_anomaly", True, "random", None, set()),
    "14_basicmotions/train.parquet": ("label", True, "group", "case", set()), "14_ucr_gunpoint/test.csv": ("label", True, "random", None, set()),
    "14_ucr_arrowhead/test.csv": ("label", True, "random", None, set()), "14_ucr_italypowerdemand/test.csv": ("label", True, "random", None, set()),
}
PLANTED = ("banknote", "phoneme", "telecom_churn", "sick_thyroid", "attrition", "california_housing", "abalone", "cpu_act", "diamonds", "medical_insurance")
FLIPPED = ("breast_cancer", "digits", "banknote", "segment", "telecom_churn", "german_credit")
SHARES = (0.0, 0.01, 0.05, 0.1, 0.2)


def tables() -> dict[str, tuple[Dataset, bool, str, str | None, set[str]]]:
    """{name: (dataset, labels, true structure, its column, known leaks)}."""
    from sklearn import datasets

    out: dict[str, tuple[Dataset, bool, str, str | None, set[str]]] = {}
    for name in SKLEARN:
        bunch = getattr(datasets, f"load_{name}")()
        labels = name != "diabetes"
        answers = pl.Series("target", [f"class {k}" for k in bunch.target] if labels else bunch.target)
        frame = pl.DataFrame({str(c): bunch.data[:, i] for i, c in enumerate(bunch.feature_names)}).with_columns(answers)
        out[name] = read(frame, target="target").dataset, labels, "random", None, set()
    for file, (target, labels, kind, column, leaks) in KNOWN.items():
        if (SHARED / file).exists():
            data = read(SHARED / file, target=target, target_as="label" if labels else "amount").dataset
            data = data.take(data.y.is_not_null().to_numpy())
            out[file.partition("/")[0] if Path(file).stem in ("train", "test", "labels") else Path(file).stem] = data, labels, kind, column, leaks
    return out


def honest(sets: dict) -> tuple[list[tuple], list[dict]]:
    """What is said about tables as they are: levels 'leak' and 'warning' by finding, and what of it is known to be true."""
    rows, said = [], []
    for name, (data, labels, kind, _, leaks) in sets.items():
        for f in findings(data, labels=labels, seed=0, seconds=60):
            true = (f.code in ("group", "ordered") and kind != "random") or bool(set(f.columns) & leaks)
            said.append({"set": name, "code": f.code, "level": f.level, "columns": list(f.columns), "known": true, "text": str(f.text)})
    for code in ("leak", "missing_tells", "after_the_fact", "group", "ordered", "near_duplicates", "shift"):
        for level in ("leak", "warning"):
            mine = [s for s in said if s["code"] == code and s["level"] == level]
            if mine or (code, level) == ("leak", "leak"):
                others = sorted({s["set"] for s in mine if not s["known"]})
                rows.append((code, level, len(sets), sum(s["known"] for s in mine), len(others), ", ".join(others) or "-"))
    return rows, said


def planted(sets: dict) -> tuple[list[tuple], list[dict]]:
    """Recall of each fault over the tables that can have it."""
    found: dict[str, Counter[bool]] = {f.name: Counter() for f in FAULTS}
    missed: dict[str, list[str]] = {f.name: [] for f in FAULTS}
    log = []
    for name in (*SKLEARN, *(p for p in PLANTED if p in sets)):
        data, labels, *_ = sets[name]
        target = data.y.name
        rng = np.random.default_rng(len(name))
        frame = data.frame if len(data) <= MOST else data.frame[np.sort(rng.choice(len(data), MOST, replace=False))]
        if labels:
            frame = frame.with_columns(pl.format("class {}", pl.col(target)).alias(target))
        else:
            frame = frame.with_columns(pl.col(target).cast(pl.Float64))
        for fault in FAULTS:
            spoiled = fault.plant(frame, target, labels, rng)
            if spoiled is None:
                continue
            looked = read(spoiled, target=target, target_as="label" if labels else "amount").dataset
            hit = fault.found(findings(looked, labels=labels, seed=0, seconds=60))
            found[fault.name][hit] += 1
            if not hit:
                missed[fault.name].append(name)
            log.append({"set": name, "fault": fault.name, "found": hit})
    rows = [(f.name, f.finding, sum(found[f.name].values()), found[f.name][True], ", ".join(missed[f.name]) or "-") for f in FAULTS if sum(found[f.name].values())]
    return rows, log


def structures(sets: dict) -> tuple[list[tuple], list[dict]]:
    log = []
    for name, (data, labels, kind, column, _) in sets.items():
        started = time.perf_counter()
        seen = structure(data, labels=labels, seed=0)
        log.append({"set": name, "true": kind, "column": column, "seen": seen.kind, "seen_column": seen.column, "right": (seen.kind, seen.column) == (kind, column),
                    "seconds": round(time.perf_counter() - started, 2)})
    kinds = ("random", "group", "time", "order")
    rows = [(k, sum(e["true"] == k for e in log), *(sum(e["true"] == k and e["seen"] == s for e in log) for s in kinds), sum(e["true"] == k and e["right"] for e in log)) for k in kinds]
    return rows, log


def flipped(sets: dict) -> tuple[list[tuple], list[dict]]:
    log = []
    for name in FLIPPED:
        entry = sets.get(name)
        if entry is None:
            continue
        data = entry[0]
        rng = np.random.default_rng(0)
        data = data.take(np.sort(rng.choice(len(data), min(len(data), 1000), replace=False)))
        data = replace(data, rows=None)
        kinds = data.y.unique().sort().to_list()
        for share in SHARES:
            wrong = rng.choice(len(data), round(share * len(data)), replace=False)
            y = data.y.to_list()
            for i in wrong:
                y[i] = kinds[(kinds.index(y[i]) + int(rng.integers(1, len(kinds)))) % len(kinds)]
            spoiled = Dataset(data.frame.with_columns(pl.Series(data.y.name, y, dtype=data.y.dtype)), data.schema)
            said = label_errors(spoiled, find("classify").of(spoiled), seed=0, seconds=60)
            figure = said.figure if said else {"rows_suspected": [], "wrong_low": 0.0, "wrong_high": 0.0, "flat": False}
            suspects, truth = {r - 1 for r in figure["rows_suspected"]}, set(wrong.tolist())
            log.append({"set": name, "flipped": len(truth), "rows": len(data), "suspects": len(suspects), "found": len(suspects & truth), "low": figure["wrong_low"],
                        "high": figure["wrong_high"], "inside": figure["wrong_low"] <= len(truth) <= figure["wrong_high"] + 1, "told": figure["flat"],
                        "level": said.level if said else None})
    rows = [(e["set"], e["rows"], e["flipped"], e["suspects"], f"{e['found'] / e['flipped']:.0%}" if e["flipped"] else "-",
             f"{e['found'] / e['suspects']:.0%}" if e["suspects"] else "-", f"{e['low']:.0f} to {e['high']:.0f}", "yes" if e["inside"] else "no", e["level"] or "nothing") for e in log]
    return rows, log


def markdown(title: str, head: tuple[str, ...], rows: list[tuple]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(str(c) for c in row) + " |" for row in rows)]
    return f"{title}\n\n" + "\n".join(lines)


def main() -> None:
    started = time.perf_counter()
    sets = tables()
    faults, fault_log = planted(sets)
    clean, clean_log = honest(sets)
    kinds, kind_log = structures(sets)
    labels, label_log = flipped(sets)
    right = sum(e["right"] for e in kind_log)
    inside = sum(e["inside"] for e in label_log)
    took = time.perf_counter() - started
    kept = Path(__file__).parents[1] / "runs" / "findings.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"faults": fault_log, "honest": clean_log, "structure": kind_log, "labels": label_log, "seconds": round(took)}, ensure_ascii=False, indent=1), encoding="utf-8")
    n = sum(r[2] for r in faults)
    hits = sum(r[3] for r in faults)
    more = "\n\n".join((
        markdown(f"**Honest tables.** {len(sets)} tables as they are. 'Known': the columns do give the answer away, or the rows do belong together; else a false alarm, or nobody "
                 "knows.", ("finding", "level", "tables", "known", "others", "where"), clean),
        markdown(f"**Structure**, and so the default split, of the same tables: {right} of {len(kind_log)} seen rightly, column included; the slowest took "
                 f"{max(e['seconds'] for e in kind_log):.1f} s.", ("true", "tables", "seen: random", "group", "time", "order", "column right too"), kinds),
        markdown(f"**Flipped labels**, at random, to any other class. {inside} of {len(label_log)} intervals hold the number that was flipped. 'warning' is said only where the "
                 "contradictions are as many where a model is surest.",
                 ("table", "rows", "flipped", "suspects", "of the flipped found", "of the suspects flipped", "wrong labels, interval", "holds it", "said"), labels)))
    more = ("Missed are copies with mistakes and flags where the other columns answer as well (then nothing is gained by them), copies in tables whose rows are equal by "
            "chance too, and drift of a class that is rare or known from the inputs anyway.\n\n") + more
    publish("findings", f"## Findings\n\n`python bench/findings.py`: faults planted in honest tables, scikit-learn's and open ones; {hits} of {n} found ({hits / n:.0%}), "
            f"the whole bench in {took:.0f} s.", ["planted", "should be said", "tables", "found", "missed in"], faults, page="calibration.md", after=more)


if __name__ == "__main__":
    main()
