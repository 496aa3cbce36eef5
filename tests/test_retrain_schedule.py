"""Schedules: due when cron says so, through nights in which clocks are put forward and back; bad lines are one sentence."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import BudgetError, InputError
from assay.retrain.schedule import Schedule, crontab, due, next_due, systemd, zone_of

BERLIN = ZoneInfo("Europe/Berlin")


class Clock(threading.Event):
    """A stop that is never set by itself, and whose waiting moves the time."""

    def __init__(self, now: float, until: float) -> None:
        super().__init__()
        self.now, self.until, self.waits = now, until, []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        self.now += timeout or 0.0
        if self.now >= self.until:
            self.set()
        return self.is_set()


def _at(*when: int, zone=BERLIN) -> datetime:
    return datetime(*when, tzinfo=zone)


def test_a_night_in_which_the_hour_is_left_out_has_its_run_and_one_that_has_it_twice_has_one():
    forward = next_due("30 2 * * *", _at(2026, 3, 28, 12))
    assert forward.timestamp() == _at(2026, 3, 29, 3, 0).timestamp() or forward.timestamp() == _at(2026, 3, 29, 3, 30).timestamp()
    assert next_due("30 2 * * *", forward).date().isoformat() == "2026-03-30"
    back = next_due("30 2 * * *", _at(2026, 10, 24, 12))
    assert back.date().isoformat() == "2026-10-25"
    assert next_due("30 2 * * *", back).date().isoformat() == "2026-10-26"


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 6), st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)))
def test_what_is_due_is_later_than_now_within_a_week_and_at_the_time_of_the_line(minute, hour, day, now):
    after = now.replace(tzinfo=UTC)
    found = next_due(f"{minute} {hour} * * {day}", after)
    assert after < found <= after + timedelta(days=8)
    assert (found.minute, found.hour, found.isoweekday() % 7) == (minute, hour, day)
    assert due(f"{minute} {hour} * * {day}", after, found)
    assert not due(f"{minute} {hour} * * {day}", after, found - timedelta(seconds=1))


@pytest.mark.parametrize(("line", "words"), [
    ("", "0 fields instead of five"), ("* * * *", "4 fields"), ("0 0 * * * *", "6 fields"), ("61 * * * *", "minute, '61'"), ("0 25 * * *", "hour, '25'"),
    ("0 0 32 * *", "day of the month, '32'"), ("0 0 * 13 *", "month, '13'"), ("0 0 * * mo", "weekday, 'mo'"), ("0 0 30 2 *", "day of the month, '30'"), ("@often", "1 fields"),
])
def test_a_line_that_is_none_is_refused_with_the_field_that_is_wrong(line, words):
    with pytest.raises(InputError) as error:
        Schedule(line)
    assert words in str(error.value)


def test_a_zone_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="no time zone 'Mars'"):
        Schedule("@daily", "Mars")
    assert next_due("@daily", datetime.now(zone_of())) > datetime.now(UTC)


def test_the_work_is_done_at_each_time_however_it_ends_and_a_missed_one_once():
    start = _at(2026, 5, 4, 1).timestamp()
    stop, times, told = Clock(start, start + 3.5 * 86_400), [], []

    def work():
        times.append(datetime.fromtimestamp(stop.now, BERLIN).strftime("%d %H:%M"))
        if len(times) == 2:
            raise BudgetError("no candidate finished")
        if len(times) == 3:
            raise ZeroDivisionError("x")

    Schedule("30 3 * * *", "Europe/Berlin").run(work, stop, last=start - 3 * 86_400, clock=lambda: stop.now, observe=told.append)
    assert times == ["04 01:00", "04 03:30", "05 03:30", "06 03:30", "07 03:30"]
    assert [str(t) for t in told] == ["no candidate finished", "The scheduled run failed (ZeroDivisionError: x)."]
    assert max(stop.waits) <= 30.0


def test_times_that_pass_while_the_work_runs_are_left_out():
    start = _at(2026, 5, 4, 1).timestamp()
    stop, times = Clock(start, start + 7200), []

    def work():
        times.append(stop.now - start)
        stop.now += 1500

    Schedule("*/10 * * * *").run(work, stop, clock=lambda: stop.now)
    assert times == [600, 2400, 4200, 6000]


def test_a_crontab_line_keeps_a_percent_sign_and_blanks():
    assert crontab("@weekly", ["assay", "retrain", "a b", "--home", "/srv/50%"]) == "0 0 * * 0 assay retrain 'a b' --home /srv/50\\%\n"


def test_systemd_is_told_the_same_times():
    service, timer = systemd("30 3 1,15 */6 1", ["/opt/assay", "retrain", "churn", "--home", "/srv/50% $x"], zone="Asia/Shanghai")
    assert 'ExecStart=/opt/assay retrain churn --home "/srv/50%% $$x"' in service
    assert [line for line in timer.splitlines() if line.startswith("OnCalendar")] == [
        "OnCalendar=*-1,7-1,15 3:30:00 Asia/Shanghai", "OnCalendar=Mon *-1,7-* 3:30:00 Asia/Shanghai"]
    assert "Persistent=true" in timer
    with pytest.raises(InputError, match="systemd has no words"):
        systemd("0 0 * * 5L", ["x"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("line", ["30 3 * * 1", "*/7 1-3 1,15 */2 1-5", "@monthly", "0 0 */2 * 0"])
def test_systemd_reads_the_times(line):
    for calendar in [row.partition("=")[2] for row in systemd(line, ["x"], zone="UTC")[1].splitlines() if row.startswith("OnCalendar")]:
        subprocess.run(["systemd-analyze", "calendar", calendar], check=True, capture_output=True)
