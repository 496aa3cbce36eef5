"""The even grid that time stamps lie on: its step, the step of each stamp, and the time of each step.

A frequency is a count and a unit as polars writes them: 'us', 'ms', 's', 'm', 'h', 'd', 'w', 'mo', 'q', 'y'; and 'b', the working days Monday to Friday.
"""

from __future__ import annotations

import numpy as np

_US = {"w": 604_800_000_000, "d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_MONTHS = {"mo": 1, "q": 3, "y": 12}
# what clocks are set to; a logger that says every 10 minutes wakes at 9:59 and at 10:01
_USUAL = sorted([c * _US[u] for u, counts in {"ms": (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500), "s": (1, 2, 5, 10, 15, 20, 30), "m": (1, 2, 3, 5, 6, 10, 12, 15, 20, 30),
                                              "h": (1, 2, 3, 4, 6, 8, 12), "d": (1,), "w": (1,)}.items() for c in counts])
FEW = 10  # stamps below which a week without a weekend may be chance
CLOCKS = 3_600_000_000  # daylight saving moves local midnight by so many microseconds


def split_frequency(frequency: str) -> tuple[int, str]:
    """'3mo' -> (3, 'mo')."""
    unit = frequency.lstrip("0123456789")
    return int(frequency[: len(frequency) - len(unit)] or 1), unit


def months_of(frequency: str) -> int:
    """Months of a step; 0 where it is a fixed time."""
    count, unit = split_frequency(frequency)
    return count * _MONTHS.get(unit, 0)


def seconds_of(frequency: str) -> float:
    """How long a step is; a month counts 30.4 days, a working day one."""
    count, unit = split_frequency(frequency)
    return months_of(frequency) * 30.4 * 86400 or count * (_US["d"] if unit == "b" else _US[unit]) / 1e6


def frequency_of(*series: np.ndarray) -> str:
    """The usual step of one or several series of stamps (datetime64, any order); '1d' where no series has two."""
    each = [s for s in (np.unique(one.astype("datetime64[us]")) for one in series) if len(s) > 1]
    if not each:
        return "1d"
    months = _months(each)
    if months:
        return f"{months // 12}y" if months % 12 == 0 else f"{months}mo"
    gaps = np.concatenate([np.diff(s).astype(np.int64) for s in each])
    sizes, counts = np.unique(gaps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    if counts.max() < 0.5 * len(gaps) and len(gaps) >= FEW:
        usual = _meant(gaps) or usual
    if usual == _US["d"] and sum(map(len, each)) >= FEW and (np.concatenate([_weekday(s) for s in each]) < 5).all() and sizes[-1] > 2 * _US["d"]:
        return "1b"
    return next(f"{usual // size}{unit}" for unit, size in _US.items() if usual % size == 0)


def _months(each: list[np.ndarray]) -> int:
    """Months from one stamp to the next, where stamps go by months: by their day (or the month's last), or by one a month that is no fixed number of days; else 0."""
    steps = np.concatenate([np.diff(s.astype("datetime64[M]")).astype(np.int64) for s in each])
    if (steps < 1).any():
        return 0
    kinds, counts = np.unique(steps, return_counts=True)
    usual = int(kinds[counts.argmax()])
    days = np.concatenate([np.diff(s).astype(np.int64) for s in each]) / _US["d"]
    same_day = all((_day(s) == np.minimum(_day(s).max(), _last(s))).all() for s in each)
    if same_day:
        return usual
    common = np.unique(np.round(days), return_counts=True)[1].max() / len(days)
    loose = len(days) >= 6 and counts.max() >= 0.8 * len(steps) and common <= 0.75 and 28 * usual <= float(np.median(days)) <= 31 * usual
    return usual if loose else 0


def _meant(gaps: np.ndarray) -> int | None:
    """The step of a clock that these uneven gaps are nearly multiples of."""
    middle = float(np.median(gaps))
    near = min(_USUAL, key=lambda size: abs(np.log(size / middle)))
    times = gaps / near
    return near if abs(np.log(near / middle)) < 0.1 and ((np.abs(times - np.round(times)) <= 0.25) & (times > 0.5)).mean() >= 0.8 else None


def steps_since(stamps: np.ndarray, start: np.datetime64, frequency: str) -> tuple[np.ndarray, int]:
    """(step of each stamp, how many lie off the grid).

    Days are told by the calendar, unless they begin an hour earlier for half the year (local midnight in UTC); working days off the grid are weekends, which count
    for the Friday before. Other stamps off the grid go to the nearest step where most lie near one, else to the step before.
    """
    stamps, start = stamps.astype("datetime64[us]"), start.astype("datetime64[us]")
    count, unit = split_frequency(frequency)
    if unit in _MONTHS:
        size = count * _MONTHS[unit]
        months = (stamps.astype("datetime64[M]") - start.astype("datetime64[M]")).astype(np.int64)
        return months // size, int((months % size != 0).sum())
    if unit == "b":
        weekend = _weekday(stamps) >= 5
        return (np.busday_count(_friday(start), stamps.astype("datetime64[D]")) - weekend) // count, int(weekend.sum())
    size = count * _US[unit]
    since = (stamps - start).astype(np.int64)
    rest = since % size
    if not rest.any():
        return since // size, 0
    far = np.minimum(rest, size - rest)[rest > 0]
    if far.max() > CLOCKS and unit in ("d", "w"):
        since = (stamps.astype("datetime64[D]") - start.astype("datetime64[D]")).astype(np.int64) * _US["d"]
    elif unit in ("d", "w") or np.quantile(far, 0.8) <= size / 4:
        since = since + size // 2
    return since // size, len(far)


def times_after(starts: np.ndarray, frequency: str, steps: np.ndarray) -> np.ndarray:
    """The times so many steps after (before, if negative) these, datetime64[us]; shapes are broadcast, NaT stays NaT.

    A start on the last day of a month stays on the last days of months; any other day that a month lacks becomes its last.
    """
    starts = np.asarray(starts, dtype="datetime64[us]")
    starts, steps = np.broadcast_arrays(starts, np.asarray(steps, dtype=np.int64))
    out, there = np.full(starts.shape, np.datetime64("NaT", "us")), ~np.isnat(starts)
    starts, steps = starts[there], steps[there]
    count, unit = split_frequency(frequency)
    if unit in _MONTHS:
        days = starts.astype("datetime64[D]")
        months = starts.astype("datetime64[M]") + steps * count * _MONTHS[unit]
        day, last = _day(starts), (months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")
        kept = np.where(day == _last(starts), last.astype(np.int64), np.minimum(day, last.astype(np.int64)))
        out[there] = (months.astype("datetime64[D]") + (kept - 1)).astype("datetime64[us]") + (starts - days)
    elif unit == "b":
        days = starts.astype("datetime64[D]")
        out[there] = np.busday_offset(days, steps * count, roll="backward").astype("datetime64[us]") + (starts - days)
    else:
        out[there] = starts + (steps * count * _US[unit]).astype("timedelta64[us]")
    return out


def at_step(start: np.datetime64, frequency: str, step: int) -> np.datetime64:
    """The time `step` steps after `start`."""
    found: np.datetime64 = times_after(np.array([start]), frequency, np.array([step]))[0]
    return found


def written(times: np.ndarray) -> tuple[str, ...]:
    """Times as people write them: the day alone where all are midnight, no fractions of a second where there are none."""
    times = np.asarray(times, dtype="datetime64[us]")
    if (times == times.astype("datetime64[D]")).all():
        return tuple(str(t) for t in times.astype("datetime64[D]"))
    whole = (times == times.astype("datetime64[s]")).all()
    return tuple(str(t).replace("T", " ") for t in (times.astype("datetime64[s]") if whole else times))


def _weekday(stamps: np.ndarray) -> np.ndarray:
    """0 for Monday to 6 for Sunday."""
    return (stamps.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _day(stamps: np.ndarray) -> np.ndarray:
    """Of the month, from 1."""
    return (stamps.astype("datetime64[D]") - stamps.astype("datetime64[M]")).astype(np.int64) + 1


def _last(stamps: np.ndarray) -> np.ndarray:
    """The last day of the month of each."""
    month = stamps.astype("datetime64[M]")
    return ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)


def _friday(day: np.datetime64) -> np.datetime64:
    """The working day on or before this one."""
    found: np.datetime64 = np.busday_offset(day.astype("datetime64[D]"), 0, roll="backward")
    return found
