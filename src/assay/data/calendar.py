"""What the calendar says of each step to be forecast: time of day, day of the week, of the month, of the year, and holidays of a country."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from assay.data.grid import months_of, seconds_of, times_after
from assay.errors import InputError, MissingExtra

FAR = 10  # days: a holiday further away is as good as none


class Calendar:
    """frequency: of the steps, as polars writes it; '' where steps have no time, and then there is nothing to say. country: as the package holidays knows it
    ('CN', 'DE', 'US-CA'), '' for none. Raises InputError for an unknown country, MissingExtra without the package."""

    def __init__(self, frequency: str, country: str = "") -> None:
        self.frequency = frequency
        self.months = months_of(frequency) if frequency else 0
        self.seconds = int(seconds_of(frequency)) if frequency and not self.months else 0
        self.country = country if 0 < self.seconds <= 86400 else ""
        names: list[str] = []
        if 0 < self.seconds < 86400:
            names += ["hour"]
        if 0 < self.seconds <= 86400:
            names += ["weekday", "day"]
        if self.seconds > 0 or 0 < self.months < 12:
            names += ["season of the year"]
        if self.country:
            names += ["holiday", "days to a holiday", "days since a holiday"]
            holidays_of(self.country, 2020, 2020)
        self.names = tuple(names)

    def of(self, starts: np.ndarray, horizon: int) -> np.ndarray:
        """float32 (n, horizon, len(names)): of the steps from `starts` (n,) datetime64 on, NaN where that is not known."""
        out = np.full((len(starts), horizon, len(self.names)), np.nan, dtype=np.float32)
        starts = starts.astype("datetime64[us]")
        known = ~np.isnat(starts)
        if not self.names or not known.any():
            return out
        times = self.times(starts[known], horizon)
        days = times.astype("datetime64[D]")
        year = times.astype("datetime64[Y]")
        told = {"hour": (times - days.astype("datetime64[us]")).astype(np.int64) / 3.6e9, "weekday": (days.astype(np.int64) + 3) % 7,
                "day": (days - times.astype("datetime64[M]")).astype(np.int64) + 1,
                "season of the year": (times.astype("datetime64[M]") - year).astype(np.int64) if self.months else (days - year).astype(np.int64)}
        if self.country:
            first, last = (int(str(edge)[:4]) for edge in (days.min(), days.max()))
            free = holidays_of(self.country, first - 1, last + 1)
            at = np.searchsorted(free, days)
            ahead = (free[np.minimum(at, len(free) - 1)] - days).astype(np.int64)
            since = (days - free[np.maximum(at - 1, 0)]).astype(np.int64)
            told |= {"holiday": ahead == 0, "days to a holiday": np.clip(ahead, 0, FAR), "days since a holiday": np.where(ahead == 0, 0, np.clip(since, 0, FAR))}
        for i, name in enumerate(self.names):
            out[known, :, i] = told[name]
        return out

    def times(self, starts: np.ndarray, horizon: int) -> np.ndarray:
        """datetime64[us] (n, horizon)."""
        return times_after(starts[:, None], self.frequency, np.arange(horizon)[None])

    def moved(self, start: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(n,): the time `steps` (n,) after (before, if negative) `start` (n,)."""
        return times_after(start, self.frequency, steps) if self.frequency else start.astype("datetime64[us]")


@lru_cache(maxsize=64)
def holidays_of(country: str, first: int, last: int) -> np.ndarray:
    """datetime64[D], sorted: the public holidays of these years."""
    try:
        import holidays
    except ImportError:
        raise MissingExtra("holidays", extra="forecast") from None
    code, _, region = country.partition("-")
    try:
        found = holidays.country_holidays(code.upper(), subdiv=region or None, years=range(first, last + 1))
    except NotImplementedError:
        raise InputError("No holidays are known for '{country}'. Write a country as two letters, such as CN, DE or US, or with its region, such as US-CA.", country=country) from None
    days = np.array(sorted(found), dtype="datetime64[D]")
    return days if len(days) else np.array(["1900-01-01"], dtype="datetime64[D]")
