"""Prometheus metrics. Several workers write theirs into files of one folder, and whichever is asked adds them up (prometheus_client's own way)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from assay.deploy.names import METRICS
from assay.serve.answering import Counted
from assay.store.records import Feedback

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
KIND = b"text/plain; version=0.0.4; charset=utf-8"
MOST_CLASSES = 50  # labels of one metric; further classes are counted as 'other'


def shared_by_workers(folder: Path) -> None:
    """Call before the first `Metrics` of a process: counts go to files in `folder`, which has to be empty when the service starts."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


class Metrics:
    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._prometheus = prometheus
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self.registry = prometheus.CollectorRegistry()
        made: dict[str, Any] = {}
        for name, metric in METRICS.items():
            if metric.kind == "counter":
                made[name] = prometheus.Counter(name, metric.help, metric.labels, registry=self.registry)
            elif metric.kind == "histogram":
                made[name] = prometheus.Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=BUCKETS)
            else:
                mode: dict[str, Any] = {"multiprocess_mode": "livesum" if name == "assay_queue_rows" else "max" if name != "assay_ready" else "min"} if self._shared else {}
                made[name] = prometheus.Gauge(name, metric.help, metric.labels, registry=self.registry, **mode)
        self._made = made
        self._children: dict[tuple[str, ...], Any] = {}

    def of(self, name: str, *labels: str) -> Any:
        """The child of a metric for these labels; looked up once."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            metric = self._made[name]
            child = self._children[key] = metric.labels(*labels) if labels else metric
        return child

    def request(self, model: str, route: str, status: int, seconds: float) -> None:
        self.of("assay_requests_total", model, str(status), route).inc()
        self.of("assay_request_seconds", model, route).observe(seconds)

    def answered(self, counted: Counted) -> None:
        held, arm = counted.held, counted.arm
        self.of("assay_predictions_total", held.model, str(arm.version.version), counted.label).inc(len(counted.answers))
        classes = getattr(arm.bundle.task, "classes", None)
        if classes is not None:
            named = None if len(classes) <= MOST_CLASSES else {str(c) for c in classes[:MOST_CLASSES]}
            for answer in counted.answers:
                told = str(answer.get("answer"))
                self.of("assay_answers_total", held.model, told if named is None or told in named else "other").inc()

    def labelled(self, feedback: Feedback) -> None:
        self.of("assay_feedback_total", feedback.model, feedback.kind).inc()

    def text(self) -> bytes:
        if not self._shared:
            return self._prometheus.generate_latest(self.registry)
        from prometheus_client import multiprocess

        registry = self._prometheus.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return self._prometheus.generate_latest(registry)
