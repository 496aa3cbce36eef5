"""Open an AutoGluon predictor where AutoGluon lives and answer the rows of a csv file. Nothing of assay is imported here.

Executed by path with the Python of another environment: autogluon.py FOLDER ROWS.csv ANSWERS.csv QUANTILE. A predictor is
a folder of pickles, so it is only ever opened there, never in assay's own process.

Writes ANSWERS.csv, and ANSWERS.csv.json with what it measured: version, load_s, predict_cpu_s (of all rows, the predictor
open already) and single_ms (rows answered one at a time). Status 3: no AutoGluon here; 4: the predictor does not open;
5: it does not answer. The last line of standard error is the reason.
"""

from __future__ import annotations

import json
import os
import sys
import time

SINGLES, SINGLES_S = 20, 2.0


def main(folder: str, rows: str, out: str, quantile: float) -> None:
    try:
        from autogluon.tabular import TabularPredictor, __version__
    except ImportError as error:
        _stop(3, error)
    begin = time.perf_counter()
    try:
        predictor = TabularPredictor.load(folder, verbosity=0)
        predictor.persist()
    except Exception as error:  # whatever an old or damaged pickle raises
        _stop(4, error)
    load_s = time.perf_counter() - begin
    try:
        import pandas

        asked = pandas.read_csv(rows)
        for name in predictor.features():  # a column without a single value is not among the rows
            if name not in asked:
                asked[name] = float("nan")
        begin_cpu = _cpu_s()
        answers = _answers(predictor, asked, quantile)
        cpu = _cpu_s() - begin_cpu
        answers.to_csv(out, index=False)
        single, stop = [], time.perf_counter() + SINGLES_S
        for i in range(min(SINGLES, len(asked)) + 1):
            begin = time.perf_counter()
            _answers(predictor, asked.iloc[[i % len(asked)]], quantile)
            single.append((time.perf_counter() - begin) * 1000)
            if time.perf_counter() > stop:
                break
    except Exception as error:
        _stop(5, error)
    measured = {"version": __version__, "load_s": load_s, "predict_cpu_s": cpu, "single_ms": single[1:] or single}
    with open(out + ".json", "w", encoding="utf-8") as file:
        json.dump(measured, file)


def _answers(predictor, asked, quantile):  # type: ignore[no-untyped-def]
    if predictor.problem_type in ("binary", "multiclass"):
        return predictor.predict_proba(asked, as_multiclass=True)
    answers = predictor.predict(asked)
    if predictor.problem_type == "quantile":
        answers = answers[min(answers.columns, key=lambda level: abs(float(level) - quantile))]
    return answers.to_frame("answer")


def _cpu_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _stop(status: int, error: Exception) -> None:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    print(f"{type(error).__name__}: {' '.join(lines)}"[:300], file=sys.stderr, flush=True)
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
