"""What a decision is given, from files: a problem, the quantiles of a forecast, and what then came."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import Decision, Quantiles
from assay.errors import InputError, ReadError
from assay.registry import discover


def read_problem(decision: Decision, source: Path | dict[str, Any]) -> Any:
    """The problem in a TOML file, a file that the decision reads itself, or a table. A field `kind`, if there, has to name the decision."""
    if isinstance(source, dict):
        table, place = source, Path(".")
    else:
        place = source.parent
        if not source.is_file():
            raise ReadError("There is no problem file '{path}'.", path=str(source))
        if source.suffix.lower() in decision.reads:
            return decision.problem_file(source)
        if source.suffix.lower() != ".toml":
            raise ReadError("'{path}' is not a problem of '{kind}'; expected a file that ends with {endings}.", path=str(source), kind=decision.name,
                            endings=[".toml", *decision.reads])
        table = _toml(source)
    if table.get("kind", decision.name) != decision.name:
        raise InputError("The problem is of kind '{found}', but '{kind}' was asked for.", found=str(table["kind"]), kind=decision.name)
    return decision.problem({k: v for k, v in table.items() if k != "kind"}, place)


def kind_of(path: Path) -> str:
    """The decision that a problem file names as its `kind`. Raises ReadError, InputError."""
    if not path.is_file():
        raise ReadError("There is no problem file '{path}'.", path=str(path))
    kind = _toml(path).get("kind")
    if not isinstance(kind, str):
        raise InputError("The problem file '{path}' does not say which decision it is about. Write kind = \"...\", one of {kinds}.", path=str(path),
                         kinds=list(discover("assay.decide", Decision)))  # type: ignore[type-abstract]
    return kind


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ReadError("The problem file '{path}' is not TOML: {error}.", path=str(path), error=str(error)) from None


def read_quantiles(path: Path) -> Quantiles:
    """A CSV file with the columns id, time and one a level, such as q0.1, ..., q0.9: one row a series and step, the steps of a series in their order."""
    rows, header = _rows(path)
    levels = {}
    for name in header:
        if name.startswith("q"):
            try:
                levels[name] = float(name[1:])
            except ValueError:
                continue
    if not levels or not all(0 < v < 1 for v in levels.values()):
        raise ReadError("'{path}' has the columns {names}; expected id, time and one a quantile, such as q0.1, q0.5, q0.9.", path=str(path), names=header)
    names = sorted(levels, key=levels.__getitem__)
    ids, times, values = _cube(path, rows, names)
    if (np.diff(values, axis=2) < -1e-9 * np.maximum(1, np.abs(values[:, :, 1:]))).any():
        series, step, level = (int(i[0]) for i in np.nonzero(np.diff(values, axis=2) < 0))
        raise ReadError("'{path}': the quantiles of '{name}' at {time} fall from {low} to {high}; expected values that rise with the level.", path=str(path), name=ids[series],
                        time=times[step], low=names[level], high=names[level + 1])
    return Quantiles(tuple(levels[n] for n in names), np.maximum.accumulate(values, axis=2), ids, times)


def read_truth(path: Path, quantiles: Quantiles) -> np.ndarray:
    """A CSV file with the columns id, time and value, as shape (n, h) in the order of the quantiles."""
    rows, header = _rows(path)
    if "value" not in header:
        raise ReadError("'{path}' has the columns {names}; expected id, time and value.", path=str(path), names=header)
    ids, times, values = _cube(path, rows, ["value"])
    if set(ids) != set(quantiles.ids) or set(times) != set(quantiles.times):
        raise ReadError("'{path}' holds other series or times than the forecast; expected its {n} series at its {h} times.", path=str(path), n=len(quantiles.ids),
                        h=len(quantiles.times))
    return values[np.ix_([ids.index(i) for i in quantiles.ids], [times.index(t) for t in quantiles.times])][:, :, 0]


def _rows(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError("'{path}' cannot be read as a CSV file in UTF-8: {error}.", path=str(path), error=str(error)) from None
    header = list(reader.fieldnames or [])
    if not {"id", "time"} <= set(header) or not rows:
        raise ReadError("'{path}' has the columns {names} and {n} rows; expected id, time, and at least one row.", path=str(path), names=header, n=len(rows))
    return rows, header


def _cube(path: Path, rows: list[dict[str, str]], columns: list[str]) -> tuple[tuple[str, ...], tuple[str, ...], np.ndarray]:
    """Shape (n, h, columns); every series has to have every time once."""
    ids, times = tuple(dict.fromkeys(r["id"] for r in rows)), tuple(dict.fromkeys(r["time"] for r in rows))
    row_of, step_of = {v: i for i, v in enumerate(ids)}, {v: i for i, v in enumerate(times)}
    values = np.full((len(ids), len(times), len(columns)), np.nan)
    for line, row in enumerate(rows, 2):
        at = row_of[row["id"]], step_of[row["time"]]
        if not np.isnan(values[at]).all():
            raise ReadError("'{path}', line {line}: '{name}' at {time} stands there twice, expected it once.", path=str(path), line=line, name=row["id"], time=row["time"])
        try:
            values[at] = [float(row[c]) for c in columns]
        except (TypeError, ValueError):
            values[at] = np.nan
        if not np.isfinite(values[at]).all():
            raise ReadError("'{path}', line {line}: one of {names} is not a number.", path=str(path), line=line, names=columns)
    missing = np.argwhere(np.isnan(values[:, :, 0]))
    if len(missing):
        raise ReadError("'{path}': '{name}' has no row at {time}; expected every series at every time.", path=str(path), name=ids[missing[0][0]], time=times[missing[0][1]])
    return ids, times, values
