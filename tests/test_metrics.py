"""What the service counts: the text that Prometheus reads, sums over workers, and no label without end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from assay.serve.answering import Counted
from assay.serve.metrics import BUCKETS, MOST_CLASSES, Metrics
from assay.store.records import Feedback


def counted(classes: tuple[Any, ...] | None, answers: list[dict[str, Any]], label: str = "champion") -> Counted:
    arm = SimpleNamespace(version=SimpleNamespace(version=2), classes=classes)
    return Counted(SimpleNamespace(model="m"), arm, label, None, answers)  # type: ignore[arg-type]


def read(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in text_string_to_metric_families(metrics.text().decode()) for sample in family.samples}


def test_what_was_counted_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.requests("m", "predict", 200, [0.0004, 0.0005, 0.02, 99.0])
    metrics.requests("m", "predict", 422, [0.0005])
    metrics.answered(counted(("a", "b"), [{"answer": "a"}, {"answer": "a"}, {"answer": "b"}]))
    metrics.answered(counted(None, [{"answer": 7.5}], "shadow"))
    metrics.labelled(Feedback("m", "edit"))
    metrics.set("assay_queue_rows", 3, "store")
    found = read(metrics)
    route = (("model", "m"), ("route", "predict"))
    assert found["assay_requests_total", (("code", "200"), *route)] == 4
    assert found["assay_requests_total", (("code", "422"), *route)] == 1
    assert found["assay_request_seconds_count", route] == 5
    assert found["assay_request_seconds_sum", route] == 0.0004 + 0.0005 + 0.02 + 99.0 + 0.0005
    under = [found["assay_request_seconds_bucket", (("le", str(bound)), *route)] for bound in (*BUCKETS, "+Inf")]
    assert under == sorted(under)
    assert (under[0], under[5], under[-2], under[-1]) == (3, 4, 4, 5), "a bound belongs to its bucket"
    assert found["assay_predictions_total", (("arm", "champion"), ("model", "m"), ("version", "2"))] == 3
    assert found["assay_predictions_total", (("arm", "shadow"), ("model", "m"), ("version", "2"))] == 1
    assert found["assay_answers_total", (("answer", "a"), ("model", "m"))] == 2
    assert found["assay_feedback_total", (("kind", "edit"), ("model", "m"))] == 1
    assert found["assay_queue_rows", (("queue", "store"),)] == 3


def test_of_many_classes_some_are_named_and_the_others_are_others() -> None:
    metrics, classes = Metrics(), tuple(range(3 * MOST_CLASSES))
    metrics.answered(counted(classes, [{"answer": c} for c in classes]))
    answers = {labels: value for (name, labels), value in read(metrics).items() if name == "assay_answers_total"}
    assert len(answers) == MOST_CLASSES + 1
    assert answers[("answer", "other"), ("model", "m")] == 2 * MOST_CLASSES


def test_workers_are_added_up_and_what_an_ended_one_counted_stays(tmp_path: Path) -> None:
    def left(number: int) -> None:
        other = Metrics(tmp_path)
        other.requests("m", "predict", 200, [0.01] * 5)
        other.set("assay_queue_rows", 4, "store")
        other.set("assay_ready", 0)
        other.leave()
        (tmp_path / f"{os.getpid()}.json").rename(tmp_path / f"{number}.json")

    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    left(ended.pid)
    left(os.getppid())
    (tmp_path / "123.json").write_text("{half")
    metrics = Metrics(tmp_path)
    metrics.requests("m", "predict", 200, [0.01])
    metrics.set("assay_queue_rows", 1, "store")
    metrics.set("assay_ready", 1)
    found = read(metrics)
    assert found["assay_requests_total", (("code", "200"), ("model", "m"), ("route", "predict"))] == 11
    assert found["assay_request_seconds_count", (("model", "m"), ("route", "predict"))] == 11
    assert found["assay_queue_rows", (("queue", "store"),)] == 5
    assert found["assay_ready", ()] == 0
    assert json.loads((tmp_path / f"{os.getpid()}.json").read_text())["values"]
