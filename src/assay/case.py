"""The need: what is asked of which data, what an error costs, what may be spent. From flags, Python or one TOML file."""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from assay.errors import InputError
from assay.words import Text, say

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_UNITS_MB = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0 * 1024}
_UNITS_COUNT = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}
_PERIODS = {"hour": 730.0, "day": 30.4375, "week": 4.348, "month": 1.0, "year": 1 / 12}


@dataclass(frozen=True)
class Worth:
    """What a wrong answer costs. costs: {what: money a row}; what is `error`, `unit` (of absolute error), or `true>answered`."""

    costs: dict[str, float]
    currency: str


@dataclass(frozen=True)
class Case:
    """One question, whole. Anything here can stand in a `--case` TOML file under the same name, or be a flag.

    target: '' until the data are read, where they say themselves what the answer is (folders of pictures).
    """

    target: str
    data: str = ""
    task: str | None = None
    loss: str | None = None
    quantile: float = 0.5
    time_s: float = 300.0
    memory_mb: float = 4096.0
    seed: int = 0
    work: int | None = None
    tune: bool = True
    drop: tuple[str, ...] = ()
    query: str | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    group: str | None = None
    time_column: str | None = None
    split: str | None = None
    folds: int | None = None
    test_rows: int | None = None
    drop_missing_target: bool = False
    sequence: bool = False
    window: int = 50
    skip_broken: bool = False
    horizon: int | None = None
    season: int | None = None
    known: tuple[str, ...] = ()
    country: str | None = None
    hierarchy: tuple[str, ...] = ()
    forecaster: str | None = None
    decide: str | None = None
    worth: Worth | None = None
    requests_per_month: float | None = None
    latency_ms: float | None = None
    artefact_mb: float | None = None
    offline: bool = False
    explainable: bool = False
    margin: float | None = None
    confidence: float = 0.95
    candidates: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    llm_url: str | None = None
    llm_model: str | None = None
    llm_price_in: float | None = None
    llm_price_out: float | None = None
    encoder: str | None = None
    external: tuple[str, ...] = ()
    external_price: dict[str, float] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    prices: str | None = None
    lang: str = "en"

    def json(self) -> dict[str, Any]:
        return {k: v for k, v in asdict(self).items() if v is not None}

    @classmethod
    def of(cls, packed: dict[str, Any]) -> Case:
        """From `json()` or a TOML table. Strings such as '60s', '2G', '2M/month' and '20ms' are understood."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in packed.items():
            key = _ALIASES.get(key, key)
            if key not in known:
                raise InputError(
                    "A case has no field '{key}'. It has: {known}.", key=key, known=sorted(known | set(_ALIASES))
                )
            values[key] = _PARSERS[key](value) if key in _PARSERS else value
        if "target" not in values:
            raise InputError("No target is named. Say which column is the answer: --target COLUMN.")
        return cls(**values)


def case_file(path: Path) -> dict[str, Any]:
    """The fields of a TOML case file. Raises InputError naming the line that does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("There is no case file '{path}'.", path=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("The case file '{path}' is not TOML: {error}.", path=str(path), error=str(error)) from None


def pairs(words: list[str], form: str = "COLUMN=KIND", example: str = "age=number") -> dict[str, str]:
    """['age=number', ...] as a dict. Raises InputError naming the word that is not of this form."""
    out = {}
    for word in words:
        name, equals, value = word.rpartition("=")
        if not equals or not name:
            raise InputError("'{word}' is not {form}, such as {example}.", word=word, form=form, example=example)
        out[name] = value
    return out


def price(value: str | float) -> float:
    """Money for one answer: a number of zero or more."""
    if not _is_number(str(value)) or not 0 <= float(value) < float("inf"):
        raise InputError("'{value}' is not a price of one answer, such as 0.002.", value=str(value))
    return float(value)


def llm_fields(endpoint: tuple[str, str] | None, price: tuple[float, float] | None) -> dict[str, Any]:
    """The case's fields for `--llm URL MODEL` and `--llm-price IN OUT`."""
    url, model = endpoint or (None, None)
    price_in, price_out = price or (None, None)
    return {"llm_url": url, "llm_model": model, "llm_price_in": price_in, "llm_price_out": price_out}


def seconds(value: str | float) -> float:
    """'60s', '5m', '20ms', '1.5h' or a number of seconds."""
    if isinstance(value, (int, float)):
        return _positive(float(value), value, say("a time"))
    number, unit = _number_unit(value, say("a time such as 60s, 5m or 20ms"))
    if unit and unit not in _UNITS_S:
        raise InputError("'{value}' is not a time. Write it like 60s, 5m, 1h or 20ms.", value=value)
    return _positive(number * _UNITS_S[unit or "s"], value, say("a time"))


def megabytes(value: str | float) -> float:
    """'2G', '512MB', '800M' or a number of megabytes."""
    if isinstance(value, (int, float)):
        return _positive(float(value), value, say("a size"))
    number, unit = _number_unit(value, say("a size such as 2G or 800M"))
    unit = unit.removesuffix("ib").removesuffix("b") or "m"
    if unit not in _UNITS_MB:
        raise InputError("'{value}' is not a size. Write it like 2G or 800M.", value=value)
    return _positive(number * _UNITS_MB[unit], value, say("a size"))


def per_month(value: str | float) -> float:
    """'2M/month', '500/day', '3k/hour' or a number a month."""
    if isinstance(value, (int, float)):
        return _positive(float(value), value, say("a rate"))
    amount, _, period = value.partition("/")
    number, unit = _number_unit(amount, say("a rate such as 2M/month or 500/day"))
    if unit not in _UNITS_COUNT or (period or "month") not in _PERIODS:
        raise InputError("'{value}' is not a rate. Write it like 2M/month, 500/day or 3k/hour.", value=value)
    return _positive(number * _UNITS_COUNT[unit] * _PERIODS[period or "month"], value, say("a rate"))


def worth(value: str | dict[str, Any] | Worth) -> Worth:
    """'error=4.5 CNY', 'unit=2 EUR', or for a cost matrix 'yes>no=500 CNY; no>yes=20 CNY' (truth > answer)."""
    if isinstance(value, Worth):
        return value
    if isinstance(value, dict):
        return Worth({str(k): float(v) for k, v in value["costs"].items()}, str(value["currency"]))
    costs: dict[str, float] = {}
    currencies = set()
    for part in filter(str.strip, value.split(";")):
        match = re.fullmatch(r"\s*(.+?)\s*=\s*([0-9.eE+-]+)\s*([A-Za-z]{3})\s*", part)
        if not match or not _is_number(match[2]) or float(match[2]) < 0:
            raise InputError(
                "'{part}' does not say what an error costs. Write it like 'error=4.5 CNY' or 'yes>no=500 CNY; no>yes=20 CNY'.",
                part=part.strip(),
            )
        costs[match[1]] = float(match[2])
        currencies.add(match[3].upper())
    if len(currencies) != 1:
        raise InputError("'{value}' has to use one currency.", value=value)
    return Worth(costs, currencies.pop())


def _number_unit(value: str, wanted: Text) -> tuple[float, str]:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", value)
    if not match:
        raise InputError("'{value}' is not {wanted}.", value=value, wanted=wanted)
    return float(match[1]), match[2].lower()


def _positive(number: float, value: object, what: Text) -> float:
    if not 0 < number < float("inf"):
        raise InputError("'{value}' is not {what} above zero.", value=str(value), what=what)
    return number


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_ALIASES = {"time": "time_s", "memory": "memory_mb", "requests": "requests_per_month", "latency": "latency_ms",
            "size": "artefact_mb"}
_PARSERS: dict[str, Any] = {
    "time_s": seconds, "memory_mb": megabytes, "artefact_mb": megabytes, "requests_per_month": per_month,
    "latency_ms": lambda v: seconds(v) * 1000 if isinstance(v, str) else float(v), "worth": worth,
    "candidates": tuple, "without": tuple, "external": tuple, "drop": tuple, "known": tuple, "hierarchy": tuple,
}
