"""What the service counts, and how Prometheus reads it. Of several workers each leaves its counts in a file, and whichever is asked adds them up.

prometheus_client writes the text; the counting is our own: a counter of its costs 2 us and a histogram 3, of the 60 that a request may take.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from assay.deploy.names import METRICS
from assay.serve.answering import Counted
from assay.store.records import Feedback

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
KIND = b"text/plain; version=0.0.4; charset=utf-8"
MOST_CLASSES = 50  # labels of one metric; further classes are counted as 'other'

Labels = tuple[str, ...]


class Metrics:
    """Each metric is counted on one thread. shared: the folder of the workers' files, empty when the service starts; None for a service of one process."""

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = shared
        self._values: dict[tuple[str, Labels], float] = {}
        self._seconds: dict[Labels, tuple[list[int], list[float]]] = {}  # requests by bucket (the last one is infinity), and the sum in a list of one
        self._rows: dict[tuple[str, int, str], int] = defaultdict(int)
        self._told: dict[tuple[str, Any], int] = defaultdict(int)
        self._named: dict[str, frozenset[Any]] = {}  # of models with many classes: those that are counted by name

    def set(self, name: str, value: float, *labels: str) -> None:
        """A gauge."""
        self._values[name, labels] = value

    def requests(self, model: str, route: str, status: int, seconds: Sequence[float]) -> None:
        """Some requests that ended alike."""
        counts, total = self._seconds.setdefault((model, route), ([0] * (len(BUCKETS) + 1), [0.0]))
        for one in seconds:
            counts[bisect_left(BUCKETS, one)] += 1
        total[0] += sum(seconds)
        self._add("assay_requests_total", (model, str(status), route), len(seconds))

    def answered(self, counted: Counted) -> None:
        held, arm = counted.held, counted.arm
        self._rows[held.model, arm.version.version, counted.label] += len(counted.answers)
        if arm.classes is not None:
            if len(arm.classes) > MOST_CLASSES and held.model not in self._named:
                self._named[held.model] = frozenset(arm.classes[:MOST_CLASSES])
            for answer in counted.answers:
                self._told[held.model, answer.get("answer")] += 1

    def labelled(self, feedback: Feedback) -> None:
        self._add("assay_feedback_total", (feedback.model, feedback.kind), 1)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collected(self._all()))  # type: ignore[arg-type]
        return generate_latest(registry)

    def leave(self) -> None:
        """Write this worker's counts where the others find them."""
        if self._shared is None:
            return
        partial = self._shared / f"{os.getpid()}.tmp"
        partial.write_text(json.dumps(self._own()), encoding="utf-8")
        partial.replace(partial.with_suffix(".json"))

    # ---- inside

    def _add(self, name: str, labels: Labels, number: float) -> None:
        self._values[name, labels] = self._values.get((name, labels), 0.0) + number

    def _own(self) -> dict[str, Any]:
        values = dict(self._values)
        for (model, version, arm), number in list(self._rows.items()):
            values["assay_predictions_total", (model, str(version), arm)] = number
        for (model, told), number in list(self._told.items()):
            named = self._named.get(model)
            key = "assay_answers_total", (model, str(told) if named is None or told in named else "other")
            values[key] = values.get(key, 0) + number
        return {"values": [[name, labels, value] for (name, labels), value in values.items()],
                "seconds": [[labels, list(counts), total[0]] for labels, (counts, total) in list(self._seconds.items())]}

    def _all(self) -> dict[str, Any]:
        """Sums over workers: of counters for all that there ever were, of gauges for those that live."""
        if self._shared is None:
            return self._own()
        self.leave()
        values: dict[tuple[str, Labels], float] = {}
        seconds: dict[Labels, tuple[list[int], float]] = {}
        for file in sorted(self._shared.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                left = json.loads(file.read_text(encoding="utf-8"))
                for name, labels, value in left["values"]:
                    if METRICS[name].kind == "counter" or _alive(int(file.stem)):
                        _together(values, name, tuple(labels), value)
                for labels, counts, total in left["seconds"]:
                    before, sum_ = seconds.get(tuple(labels), ([0] * len(counts), 0.0))
                    seconds[tuple(labels)] = [a + b for a, b in zip(before, counts, strict=True)], sum_ + total
        return {"values": [[*key, value] for key, value in values.items()], "seconds": [[labels, *both] for labels, both in seconds.items()]}


class _Collected:
    """What prometheus_client asks for."""

    def __init__(self, counted: dict[str, Any]) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, metric in METRICS.items():
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(name, metric.help, labels=metric.labels)
                for labels, counts, total in self._counted["seconds"]:
                    histogram.add_metric(labels, list(zip([*(str(b) for b in BUCKETS), "+Inf"], accumulate(counts), strict=True)), total)
                yield histogram
                continue
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(name, metric.help, labels=metric.labels)
            for of, labels, value in self._counted["values"]:
                if of == name:
                    family.add_metric(labels, value)
            yield family


def _together(values: dict[tuple[str, Labels], float], name: str, labels: Labels, value: float) -> None:
    """Counters and what waits add up; of the other gauges all workers say the same, or the worst counts."""
    if METRICS[name].kind == "counter" or name == "assay_queue_rows":
        values[name, labels] = values.get((name, labels), 0.0) + value
    else:
        values[name, labels] = (min if name == "assay_ready" else max)(values.get((name, labels), value), value)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
