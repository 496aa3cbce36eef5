"""What the service, its dashboard, its alert rules and the files around it have to agree on: names of metrics, ports, paths, the user."""

from __future__ import annotations

from typing import NamedTuple

PORT = 8080
USER = 10001  # above 10000: no user of the host has this number, so that leaving the container by a flaw gives nobody's rights
HOME, CACHE, BUNDLES, ENVIRONMENT = "/var/lib/assay", "/var/cache/assay", "/opt/bundles", "/opt/assay"
STORE_VARIABLE = "ASSAY_STORE"  # where `assay serve` finds the URL of its store: an address with a password stands in no argument list
DRAIN_S, STOP_S = 30, 45  # the service may take so long for requests under way; then whoever stops it waits so long before it kills


class Metric(NamedTuple):
    """A Prometheus metric of the service: what kind it is, and its labels."""

    kind: str
    labels: tuple[str, ...]
    help: str


METRICS: dict[str, Metric] = {
    "assay_requests_total": Metric("counter", ("model", "code", "route"), "Requests answered."),
    "assay_request_seconds": Metric("histogram", ("model", "route"), "Seconds from the first byte of a request to the last of its answer."),
    "assay_predictions_total": Metric("counter", ("model", "version", "arm"), "Rows answered; arm: champion, challenger or shadow."),
    "assay_answers_total": Metric("counter", ("model", "answer"), "Answers by class, of classifications only."),
    "assay_feedback_total": Metric("counter", ("model", "kind"), "Feedback taken; kind: label, accept, edit or reject."),
    "assay_queue_rows": Metric("gauge", ("queue",), "Rows that wait."),
    "assay_drift_effect": Metric("gauge", ("model", "column"), "How far a column has moved from the rows that taught, as the size of the effect."),
    "assay_alarms_open": Metric("gauge", ("model", "level"), "Alarms that nobody has closed."),
    "assay_model_version": Metric("gauge", ("model", "role"), "The version that is champion or challenger."),
    "assay_ready": Metric("gauge", (), "1 once every model has answered its warm-up row."),
}
SUFFIXES = ("_bucket", "_sum", "_count")  # what a histogram adds to its name
