"""What a candidate costs: CPU seconds, latency, memory, size, energy, money. Measured where it runs, priced by a table."""

from __future__ import annotations

import resource
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import InputError

_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


@dataclass(frozen=True)
class Prices:
    """What resources cost, in one currency. `source` says where the numbers come from, so that nobody has to believe them."""

    currency: str
    cpu_core_hour: float
    watts_per_core: float
    kwh: float
    rates: dict[str, float]  # units of another currency for one unit of `currency`
    source: str

    def running(self, cpu_s: float, wh: float, currency: str) -> float:
        """Money for this much CPU time and energy, in `currency`."""
        own = cpu_s / 3600 * self.cpu_core_hour + wh / 1000 * self.kwh
        return own * self.rate(currency)

    def rate(self, currency: str) -> float:
        if currency in ("", self.currency):
            return 1.0
        if currency not in self.rates:
            raise InputError(
                "The price table has no rate for {currency}; it knows {known}. Add it under [rates] and pass the table with --prices.",
                currency=currency, known=[self.currency, *self.rates],
            )
        return self.rates[currency]


def prices(path: str | None = None) -> Prices:
    """The built-in table, or the user's TOML file with the same fields."""
    chosen = Path(path) if path else Path(__file__).parent / "prices.toml"
    try:
        packed: dict[str, Any] = tomllib.loads(chosen.read_text(encoding="utf-8"))
        return Prices(str(packed["currency"]), float(packed["cpu_core_hour"]), float(packed["watts_per_core"]), float(packed["kwh"]),
                      {str(k): float(v) for k, v in packed.get("rates", {}).items()}, str(packed.get("source", chosen.name)))
    except FileNotFoundError:
        raise InputError("There is no price table '{path}'.", path=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "The price table '{path}' is not usable ({error}). It needs currency, cpu_core_hour, watts_per_core and kwh.",
            path=str(path), error=str(error),
        ) from None


class Meter:
    """CPU seconds (children included), wall seconds and energy between `start` and `read`."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._cpu, self._wall, self._joule = _cpu_s(), time.perf_counter(), _rapl_j()

    def read(self, watts_per_core: float) -> dict[str, Any]:
        """{"cpu_s", "wall_s", "energy_wh", "energy": "measured" | "modelled"}."""
        cpu, wall, joule = _cpu_s() - self._cpu, time.perf_counter() - self._wall, _rapl_j()
        if joule is not None and self._joule is not None and joule >= self._joule:
            return {"cpu_s": cpu, "wall_s": wall, "energy_wh": (joule - self._joule) / 3600, "energy": "measured"}
        return {"cpu_s": cpu, "wall_s": wall, "energy_wh": cpu * watts_per_core / 3600, "energy": "modelled"}


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_s() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _rapl_j() -> float | None:
    try:
        return int(_RAPL.read_text()) / 1e6
    except (OSError, ValueError):
        return None
