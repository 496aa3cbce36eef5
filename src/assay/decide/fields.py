"""A problem's table, read field by field: what is missing, unknown or out of range is one sentence that says what was expected."""

from __future__ import annotations

import csv
import difflib
import math
from pathlib import Path
from typing import Any

import numpy as np

from assay.decide.base import Quantiles
from assay.errors import InputError
from assay.words import Text, say

NEEDED: Any = object()


class Fields:
    """One table. where: what it is called in a sentence. place: the folder that file names are relative to. Call `end` when all fields were asked for."""

    def __init__(self, table: dict[str, Any], where: Text, place: Path) -> None:
        self.table, self.where, self.place = {k: v for k, v in table.items() if v != ""}, where, place
        self.known: list[str] = []

    def has(self, key: str) -> bool:
        self.known += [key] * (key not in self.known)
        return key in self.table

    def number(self, key: str, default: Any = NEEDED, *, low: float = 0.0, high: float = math.inf, above: bool = False) -> Any:
        """A finite number from `low` (above: not `low` itself) to `high`; `default` where it is not given."""
        what = say("a number above {low:g}", low=low) if above else say("a number from {low:g} to {high:g}", low=low, high=high) if high < math.inf else \
            say("a number of {low:g} or more", low=low)
        if not self.has(key):
            return self._default(key, default, what)
        return self._checked(key, self.table[key], low, high, above, what)

    def numbers(self, key: str, default: Any = NEEDED, *, low: float = 0.0) -> tuple[float, ...]:
        """One number for all steps, or a list with one for each; `spread` lays it over the steps."""
        what = say("a number of {low:g} or more, or a list of such numbers, one a step", low=low)
        if not self.has(key):
            value = self._default(key, default, what)
            return value if isinstance(value, tuple) else (value,)
        value = self.table[key]
        cells = value.split() if isinstance(value, str) else value if isinstance(value, list) and value else [value]
        return tuple(self._checked(key, cell, low, math.inf, False, what) for cell in cells)

    def whole(self, key: str, default: Any = NEEDED, *, low: int = 0) -> int:
        what = say("a whole number of {low:g} or more", low=low)
        if not self.has(key):
            return self._default(key, default, what)
        number = self._checked(key, self.table[key], low, math.inf, False, what)
        if number != int(number):
            raise self.wrong(key, what)
        return int(number)

    def word(self, key: str, default: Any = NEEDED, *, among: tuple[str, ...] = ()) -> Any:
        what = say("one of {words}", words=list(among)) if among else say("a text")
        if not self.has(key):
            return self._default(key, default, what)
        value = self.table[key]
        if not isinstance(value, (str, int)) or isinstance(value, bool) or (among and value not in among):
            raise self.wrong(key, what)
        return str(value)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of names, or names with spaces between; () where it is not given."""
        if not self.has(key):
            return ()
        value = self.table[key]
        cells = value.split() if isinstance(value, str) else value
        if not isinstance(cells, list) or not all(isinstance(c, (str, int)) for c in cells):
            raise self.wrong(key, say("a list of names"))
        return tuple(str(c) for c in cells)

    def part(self, key: str, where: Text) -> Fields | None:
        """The table [key], None where it is not given."""
        if not self.has(key):
            return None
        if not isinstance(self.table[key], dict):
            raise self.wrong(key, say("a table: [{key}]", key=key))
        return Fields(self.table[key], where, self.place)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The tables [[key]], or the rows of the CSV file that it names; [] where it is not given."""
        if not self.has(key):
            return []
        value = self.table[key]
        if isinstance(value, str):
            return csv_rows(self.place / value)
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise self.wrong(key, say("tables [[{key}]], or the name of a CSV file with one row each", key=key))
        return value

    def end(self) -> None:
        for key in self.table:
            if key not in self.known:
                raise InputError("{where} has no field '{key}'; it has: {known}.", where=self.where, key=key, known=sorted(self.known))

    def wrong(self, key: str, what: Text) -> InputError:
        return InputError("{where}: '{key}' is {value}, expected {what}.", where=self.where, key=key, value=_shown(self.table.get(key)), what=what)

    def _default(self, key: str, default: Any, what: Text) -> Any:
        if default is NEEDED:
            near = [k for k in difflib.get_close_matches(key, self.table, n=1, cutoff=0.75) if k not in self.known]
            if near:
                raise InputError("{where}: '{key}' is missing (there is '{near}'), expected {what}.", where=self.where, key=key, near=near[0], what=what)
            raise InputError("{where}: '{key}' is missing, expected {what}.", where=self.where, key=key, what=what)
        return default

    def _checked(self, key: str, value: Any, low: float, high: float, above: bool, what: Text) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and low <= number <= high and not (above and number == low)):
            raise self.wrong(key, what)
        return number


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def csv_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, by the names in its first line. Raises InputError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("'{path}' cannot be read as a CSV file in UTF-8: {error}.", path=str(path), error=str(error)) from None
    for line, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError("'{path}', line {line}: it has another number of cells than the first line.", path=str(path), line=line)
    return [{str(k).strip(): (v or "").strip() for k, v in row.items()} for row in rows]


def spread(values: tuple[float, ...], steps: int, where: Text, key: str) -> np.ndarray:
    """One number for all, or one a step, as shape (steps,)."""
    if len(values) not in (1, steps):
        raise InputError("{where}: '{key}' has {n} numbers, expected one, or {steps}, because the forecast has {steps} steps.", where=where, key=key,
                         n=len(values), steps=steps)
    return np.broadcast_to(np.asarray(values, dtype=float), (steps,)).copy()


def forecast(quantiles: Quantiles | None, kind: str) -> Quantiles:
    """Demand is not negative: lower quantiles below zero are cut there, a median below zero is refused."""
    if quantiles is None:
        raise InputError("'{kind}' plans against a forecast: give its quantiles (--quantiles FILE.csv).", kind=kind)
    if not np.isfinite(quantiles.values).all():
        raise InputError("The forecast holds values that are not numbers; expected a finite quantile for each series and step.")
    median = quantiles.median()
    if (median < 0).any():
        series, step = (int(i[0]) for i in np.nonzero(median < 0))
        raise InputError("The forecast of '{name}' at {time} is {value:.4g}; a demand or load is zero or more.", name=quantiles.ids[series],
                         time=quantiles.times[step], value=float(median[series, step]))
    return Quantiles(quantiles.levels, np.maximum(quantiles.values, 0), quantiles.ids, quantiles.times)


def each(own: dict[str, Any], default: Any, ids: tuple[str, ...]) -> list[Any]:
    """The entry of every series: its own, or the default one. Raises InputError where the two do not fit."""
    unknown = [name for name in own if name not in ids]
    if unknown:
        raise InputError("The problem names '{name}', but the forecast has no such series; its {n} series are: {ids}.", name=unknown[0], n=len(ids),
                         ids=[*ids[:8], *(["..."] if len(ids) > 8 else [])])
    missing = [name for name in ids if name not in own]
    if missing and default is None:
        raise InputError("The forecast has {n} series, but the problem says nothing of '{name}'; add it, or a table [default] for all others.", n=len(ids),
                         name=missing[0])
    return [own.get(name, default) for name in ids]


def entries(fields: Fields, key: str, where: Any, read: Any) -> tuple[dict[str, Any], Any]:
    """The tables [[key]] by id, each laid over the table [default], and what [default] alone means (None where it is not given).

    where: name -> Text. read: Fields -> the entry.
    """
    base = fields.part("default", say("[default]"))
    own: dict[str, Any] = {}
    for row in fields.rows(key):
        if not str(row.get("id", "")).strip():
            raise InputError("A table [[{key}]] has no 'id', expected the name of a series of the forecast.", key=key)
        name = str(row["id"])
        if name in own:
            raise InputError("[[{key}]] names '{name}' twice, expected it once.", key=key, name=name)
        own[name] = read(Fields((base.table if base else {}) | {k: v for k, v in row.items() if k != "id" and v != ""}, where(name), fields.place))
    if not own and base is None:
        raise InputError("{where}: '{key}' is missing, expected {what}.", where=fields.where, key=key,
                         what=say("tables [[{key}]], or the name of a CSV file with one row each", key=key))
    return own, None if base is None else read(Fields(base.table, base.where, fields.place))
