"""When to retrain: cron lines, followed by the service itself, by cron or by systemd. Daylight saving as Debian's cron has it: no run is lost, none comes twice."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from assay.errors import AssayError, InputError
from assay.words import Text, say

if TYPE_CHECKING:
    from cronsim import CronSim

NICK = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *"}
FIELDS = {"minute": say("minute"), "hour": say("hour"), "day-of-month": say("day of the month"), "month": say("month"), "day-of-week": say("weekday")}
LONGEST_WAIT_S = 30.0  # a clock that is set, or a machine that slept, is noticed within this time
_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def next_due(line: str, after: datetime) -> datetime:
    """The first time after `after` at which a cron line is due, in the same time zone; a time that the clocks leave out comes an hour later.

    line: minute, hour, day of the month, month, weekday; or @hourly, @daily, @weekly, @monthly, @yearly. after: with a time zone.
    Raises InputError for a line that is none, or is never due.
    """
    if after.tzinfo is None:
        raise ValueError("a time without a zone is due at no certain moment")
    try:
        return next(_parsed(line, after))
    except StopIteration:
        raise InputError("The cron line '{line}' is never due.", line=line) from None


def due(line: str, last: datetime, now: datetime) -> bool:
    """Has the line been due since `last`, up to now?"""
    return next_due(line, last) <= now


def zone_of(name: str | None = None) -> tzinfo:
    """The time zone of this name; without one that of the machine (TZ, /etc/localtime), else UTC. Raises InputError."""
    if name:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InputError("There is no time zone '{name}'. Write it like Asia/Shanghai or Europe/Berlin.", name=name) from None
    local = os.environ.get("TZ", "").lstrip(":") or str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(local) if local else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def crontab(line: str, command: list[str], *, log: Path | None = None) -> str:
    """The line for a crontab. A % would end the command there, so it is escaped."""
    _parsed(line, datetime.now(UTC))
    words = shlex.join(command) + (f" >> {shlex.quote(str(log))} 2>&1" if log else "")
    return f"{NICK.get(line.strip().lower(), ' '.join(line.split()))} {words.replace('%', chr(92) + '%')}\n"


def systemd(line: str, command: list[str], *, zone: str | None = None, about: str = "assay retrain") -> tuple[str, str]:
    """(service, timer): unit files that run the command when the line is due. A run that was missed while the machine was off is made up for.

    Raises InputError for a line that systemd has no words for: the last or the n-th weekday of a month.
    """
    parsed = _parsed(line, datetime.now(UTC))
    odd = [d for d in (*parsed.days, *parsed.weekdays) if isinstance(d, tuple) or d < 0]
    if odd:
        raise InputError("systemd has no words for the days of the cron line '{line}'. Use it in a crontab, or let the service keep the schedule.", line=line)
    clock = f"{_few(parsed.hours, 24)}:{_few(parsed.minutes, 60)}:00" + (f" {zone}" if zone else "")
    months, days = _few(parsed.months, 12), _few(parsed.days, 31)
    weekdays = sorted({int(d) % 7 for d in parsed.weekdays if not isinstance(d, tuple)})
    names = "" if len(weekdays) == 7 else ",".join(_DAYS[d] for d in weekdays) + " "
    if days == "*" or not names or parsed.day_and:
        when = [f"{names}*-{months}-{days} {clock}"]
    else:  # cron: the day of the month or the weekday
        when = [f"*-{months}-{days} {clock}", f"{names}*-{months}-* {clock}"]
    run = " ".join(_unit_word(word) for word in command)
    service = f"[Unit]\nDescription={about}\n\n[Service]\nType=oneshot\nExecStart={run}\n"
    timer = f"[Unit]\nDescription={about}\n\n[Timer]\n" + "".join(f"OnCalendar={w}\n" for w in when) + "Persistent=true\n\n[Install]\nWantedBy=timers.target\n"
    return service, timer


@dataclass(frozen=True)
class Schedule:
    """A cron line in a time zone. Raises InputError when it is made, not at night."""

    line: str
    zone: str | None = None

    def __post_init__(self) -> None:
        self.after(time.time())

    def after(self, at: float) -> float:
        """The first second since 1970 after `at` at which it is due."""
        return next_due(self.line, datetime.fromtimestamp(at, zone_of(self.zone))).timestamp()

    def run(self, work: Callable[[], Any], stop: threading.Event, *, last: float | None = None, clock: Callable[[], float] = time.time,
            observe: Callable[[Text], None] = lambda text: None) -> None:
        """Call `work` whenever it is due, until `stop` is set. For a thread.

        last: when it ran last, so that a run missed meanwhile is made up for, once. What goes wrong in `work` is told, and the next time is waited for.
        Times that pass while `work` runs are left out: it never runs twice at once.
        """
        awaited = self.after(clock() if last is None else last)
        while not stop.is_set():
            left = awaited - clock()
            if left > 0:
                stop.wait(min(left, LONGEST_WAIT_S))
                continue
            try:
                work()
            except AssayError as error:
                observe(error.text)
            except Exception as error:  # a schedule that died would be noticed months later
                observe(say("The scheduled run failed ({kind}: {message}).", kind=type(error).__name__, message=str(error)[:200]))
            awaited = self.after(max(clock(), awaited))


def _parsed(line: str, after: datetime) -> CronSim:
    from cronsim import CronSim, CronSimError

    words = NICK.get(line.strip().lower(), line).split()
    if len(words) != 5:
        raise InputError("'{line}' is no cron line: {n} fields instead of five. They are minute, hour, day of the month, month and weekday, such as 30 3 * * 1 for Mondays at 3:30.",
                         line=line, n=len(words))
    try:
        return CronSim(" ".join(words), after)
    except CronSimError as error:
        field = str(error).removeprefix("Bad ").partition(" ")[0]
        place = list(FIELDS).index(field) if field in FIELDS else 0
        raise InputError("'{line}' is no cron line: its {field}, '{word}', is not understood. An example is 30 3 * * 1 for Mondays at 3:30.", line=line,
                         field=FIELDS.get(field, say("time")), word=words[place]) from None


def _few(numbers: set[Any], all_of_them: int) -> str:
    return "*" if len(numbers) == all_of_them else ",".join(str(n) for n in sorted(numbers))


def _unit_word(word: str) -> str:
    """Quoted for ExecStart: % and $ mean something else there."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if not escaped or any(c in escaped for c in " \t'\";") else escaped
