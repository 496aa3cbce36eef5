"""The clock of a run: what is left, what stays reserved for packing, what the next trial may take."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import psutil


def process_age_s() -> float:
    """Seconds since this process was started: interpreter and imports count, the user waited for them too."""
    return max(0.0, time.time() - psutil.Process().create_time())


def cores() -> int:
    """Cores this process may use (affinity and container masks respected)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Clock:
    """total_s: the budget. used_s: spent before this object was made (start-up, or an earlier part of a resumed run).

    The last `reserve` share belongs to judging, fitting the winner on all rows, packing and the report; the part before it,
    `after_s`, to what comes after the contest proper: ensembles, other seeds, learning curves, ablations.
    """

    total_s: float
    used_s: float = 0.0
    planning_share: float = 0.0  # kept for plans made from forecasts, after all trials
    started: float = field(default_factory=time.monotonic)

    def used(self) -> float:
        return self.used_s + time.monotonic() - self.started

    def left(self) -> float:
        return self.total_s - self.used()

    @property
    def reserve_s(self) -> float:
        """12 % and a second, at least 1.5 s: judging, bundles, report and leaving take that on two busy cores."""
        return max(1.5, 0.12 * self.total_s + 1.0)

    def left_for_trials(self) -> float:
        return self.left() - self.reserve_s - self.planning_share * self.total_s

    @property
    def after_s(self) -> float:
        """A fifth of the time; nothing in runs so short that every second is needed for the contest itself."""
        return 0.2 * self.total_s if self.total_s >= 20 else 0.08 * self.total_s if self.total_s >= 8 else 0.0

    def left_for_contest(self) -> float:
        return self.left_for_trials() - self.after_s

    def part(self, share: float, shares_left: float, expected_s: float = 0.0) -> float:
        """Seconds for a trial that holds `share` of the `shares_left`; what earlier trials did not use flows on.

        expected_s: what the waiting trials of other candidates will take, as far as an earlier fold has shown it;
        `shares_left` then counts the rest only.
        """
        left = max(0.0, self.left_for_contest())
        return max(left - expected_s, 0.25 * left) * share / max(shares_left, share)
