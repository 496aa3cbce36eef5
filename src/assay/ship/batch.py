"""Answer the rows of a file with a bundle: `assay predict`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl

from assay.data.read import conform, named_by
from assay.errors import InputError
from assay.ship.bundle import load

_WRITERS: dict[str, Callable[..., None]] = {".csv": pl.DataFrame.write_csv, ".parquet": pl.DataFrame.write_parquet, ".jsonl": pl.DataFrame.write_ndjson,
            ".ndjson": pl.DataFrame.write_ndjson}


def predict_file(bundle: Path, source: str | Path, out: Path | None, *, query: str | None = None) -> int:
    """Write one answer a row, in the order of the rows; returns how many. The file appears whole or not at all.

    query: what to select, where `source` is the URL of a database. out None: csv to standard output. Raises BundleError, ReadError, InputError.
    """
    suffix = out.suffix.lower() if out else ".csv"
    if suffix not in {*_WRITERS, ".tsv"}:
        raise InputError("'{path}' cannot be written: the name has to end in .csv, .tsv, .parquet or .jsonl.", path=str(out))
    model = load(bundle)
    if not model.task.by_rows:
        return _written(model.table(model.read(source, query=query)), out)
    asked = conform(source, model.schema, query=query).frame
    answers = model.predict(asked)
    names = [n for n in named_by(model.schema) if n not in answers.columns and asked[n].null_count() < len(asked)]
    answers = pl.concat([asked.select(names), answers], how="horizontal")  # which file, or which unit and step, an answer is about
    return _written(answers, out)


def _written(answers: pl.DataFrame, out: Path | None) -> int:
    if out is None:
        sys.stdout.write(answers.write_csv())
        return answers.height
    suffix, partial = out.suffix.lower(), out.with_name(out.name + ".tmp")
    try:
        if suffix == ".tsv":
            answers.write_csv(partial, separator="\t")
        else:
            _WRITERS[suffix](answers, partial)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return answers.height
