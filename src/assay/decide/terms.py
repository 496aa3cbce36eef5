"""The fields of a problem's TOML table, read with their limits, and the forecast that comes with it: every complaint is one sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from assay.decide.base import Quantiles
from assay.errors import InputError
from assay.words import Text, say


class Fields:
    """A table whose fields are asked for by name. what: the table in words. known: all fields that it may have.

    Raises InputError naming an unknown field at once, because a misspelt field would otherwise be called missing.
    """

    def __init__(self, table: dict[str, Any], what: Text, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                raise InputError("{what}: there is no field '{key}'. There are: {known}.", what=what, key=key, known=list(known))
        self.table, self.what = table, what

    def has(self, key: str) -> bool:
        return key in self.table

    def number(self, key: str, default: float | None = None, *, low: float = -math.inf, high: float = math.inf, above: bool = False) -> float:
        """A number from `low` (above it, if `above`) to `high`."""
        return self._checked(key, self._value(key, default, _range(low, high, above)), low, high, above)

    def whole(self, key: str, default: int | None = None, *, low: int = 0, high: float = math.inf) -> int:
        value = self._value(key, default, say("a whole number of at least {low}", low=low))
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self._refuse(key, value, say("a whole number of at least {low}", low=low) if math.isinf(high)
                         else say("a whole number from {low} to {high:.0f}", low=low, high=high))
        return value

    def amounts(self, key: str, default: float | None = None, *, low: float = -math.inf, high: float = math.inf, above: bool = False) -> float | dict[str, float]:
        """One number for all, or a table {id: number}."""
        value = self._value(key, default, _range(low, high, above))
        if isinstance(value, dict):
            return {str(name): self._checked(f"{key}.{name}", v, low, high, above) for name, v in value.items()}
        return self._checked(key, value, low, high, above)

    def numbers(self, key: str, *, low: float = -math.inf, high: float = math.inf) -> tuple[float, ...]:
        """A list of numbers."""
        value = self._value(key, None, say("a list of numbers"))
        if not isinstance(value, list) or not value:
            self._refuse(key, value, say("a list of numbers"))
        return tuple(self._checked(key, v, low, high, False) for v in value)

    def word(self, key: str, default: str | None = None, *, among: tuple[str, ...] = ()) -> str:
        wanted = say("one of: {names}", names=list(among)) if among else say("a text")
        value = self._value(key, default, wanted)
        if not isinstance(value, str) or not value or (among and value not in among):
            self._refuse(key, value, wanted)
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """A list of texts, none twice."""
        value = self._value(key, None, say("a list of names, none of them twice"))
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value) or len(set(value)) < len(value):
            self._refuse(key, value, say("a list of names, none of them twice"))
        return tuple(value)

    def rows(self, key: str) -> list[dict[str, Any]]:
        """The tables under [[key]], at least one."""
        value = self._value(key, None, say("one or more tables [[{key}]]", key=key))
        if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
            self._refuse(key, value, say("one or more tables [[{key}]]", key=key))
        return value

    def _value(self, key: str, default: Any, wanted: Text) -> Any:
        value = self.table.get(key, default)
        if value is None:
            raise InputError("{what}: the field '{key}' is missing. It should be {wanted}.", what=self.what, key=key, wanted=wanted)
        return value

    def _checked(self, key: str, value: Any, low: float, high: float, above: bool) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or value > high or value < low or (above and value == low):
            self._refuse(key, value, _range(low, high, above))
        return float(value)

    def _refuse(self, key: str, value: Any, wanted: Text) -> None:
        found = str(value)
        raise InputError("{what}: '{key}' is {found}. It should be {wanted}.", what=self.what, key=key,
                         found=found if len(found) <= 60 else found[:57] + "...", wanted=wanted)


def _range(low: float, high: float, above: bool) -> Text:
    if math.isfinite(low) and math.isfinite(high):
        return say("a number from {low:g} to {high:g}", low=low, high=high)
    if math.isfinite(low):
        return say("a number above {low:g}", low=low) if above else say("a number of at least {low:g}", low=low)
    return say("a number")


def each(value: float | dict[str, float], ids: tuple[str, ...], key: str, missing: float | None = None) -> np.ndarray:
    """One number an id, shape (n,). Raises InputError where a table names an id that is not forecast, or leaves one out."""
    if not isinstance(value, dict):
        return np.full(len(ids), value)
    for name in value:
        if name not in ids:
            raise InputError("'{key}' names '{name}', which is not forecast. The forecast has: {ids}.", key=key, name=name, ids=_few(ids))
    for name in ids:
        if name not in value and missing is None:
            raise InputError("'{key}' leaves out '{name}', which is forecast. Add it, or give one number for all.", key=key, name=name)
    return np.array([value.get(name, missing) for name in ids], dtype=float)


def forecast(quantiles: Quantiles | None, kind: str, *, steps: int | None = None) -> Quantiles:
    """The quantiles if a plan can be made from them. steps: how many there have to be. Raises InputError."""
    if quantiles is None:
        raise InputError("The decision '{kind}' needs a forecast: quantiles of the series that it plans for.", kind=kind)
    values = np.asarray(quantiles.values, dtype=float)
    shape = (len(quantiles.ids), len(quantiles.times), len(quantiles.levels))
    if values.shape != shape:
        raise InputError("The forecast has values of shape {found}; its {n} ids, {h} times and {q} levels need {wanted}.", found=str(values.shape),
                         n=shape[0], h=shape[1], q=shape[2], wanted=str(shape))
    broken = ~np.isfinite(values).all(axis=(1, 2))
    if broken.any():
        raise InputError("The forecast of '{id}' has values that are missing or not finite. Every quantile has to be a number.",
                         id=quantiles.ids[int(np.argmax(broken))])
    if (np.diff(values, axis=2) < -1e-9 * (1 + np.abs(values[:, :, 1:]))).any() or list(quantiles.levels) != sorted(set(quantiles.levels)):
        raise InputError("The quantiles of the forecast cross: a higher level lies below a lower one. Sort them along the levels.")
    if steps is not None and shape[1] != steps:
        raise InputError("The decision '{kind}' needs a forecast of {wanted} steps for each series; this one has {found}.", kind=kind, wanted=steps, found=shape[1])
    return quantiles


def known_truth(truth: np.ndarray | None, n: int, h: int | None = None) -> np.ndarray:
    """What really happened, shape (n, h); h None: any. Raises InputError where it is missing, has gaps or another shape."""
    known = np.asarray(np.nan if truth is None else truth, dtype=float)
    if known.ndim != 2 or len(known) != n or (h is not None and known.shape[1] != h) or not np.isfinite(known).all():
        raise InputError("The plan is for {n} series and {h} steps. What really happened should have that shape, without gaps; it has the shape {found}.",
                         n=n, h="?" if h is None else h, found=str(known.shape))
    return known


def quantile_values(quantiles: Quantiles, levels: np.ndarray) -> np.ndarray:
    """The quantiles at `levels`, shape (n, h, len(levels)), as `Quantiles.at` gives them."""
    return np.stack([quantiles.at(float(level)) for level in levels], axis=2)


def middles(count: int) -> np.ndarray:
    """Levels that stand for `count` equally likely cases: the middle of each."""
    return (np.arange(count) + 0.5) / count


def _few(ids: tuple[str, ...], most: int = 8) -> list[str]:
    return list(ids) if len(ids) <= most else [*ids[:most], "..."]
