"""Alert rules for Prometheus over the metrics of `names.METRICS`, their sentences in either language."""

from __future__ import annotations

from typing import Any

from assay.deploy.yaml import written
from assay.words import Text, say


def rules(*, p99_s: float, errors: float, lang: str) -> str:
    """YAML of one group. p99_s: seconds that 99 % of the requests may take. errors: share of requests, 0-1, that may fail."""
    all_requests = "sum by (model) (rate(assay_requests_total[%s]))"
    failed = 'sum by (model) (rate(assay_requests_total{code=~"5.."}[%s]))'

    def burning(window: str) -> str:
        return f"({failed % window} / {all_requests % window}) > {errors:g}"

    found = [
        _rule("AssayDown", 'absent(assay_ready) or min by (instance, job) (assay_ready) == 0', "2m", "critical",
              say("The service is not ready, or does not tell its metrics."), lang),
        # two windows: the long one proves that it matters, the short one ends the alarm as soon as it is over
        _rule("AssayRequestsFail", f"{burning('5m')} and {burning('1h')}", "2m", "critical",
              say("{model}: {value} of the requests fail.", model="{{ $labels.model }}", value="{{ $value | humanizePercentage }}"), lang),
        _rule("AssaySlow", f"histogram_quantile(0.99, sum by (le, model) (rate(assay_request_seconds_bucket[10m]))) > {p99_s:g}", "10m", "warning",
              say("{model}: one request in a hundred takes longer than {value} s.", model="{{ $labels.model }}", value="{{ $value | humanize }}"), lang),
        # with few requests a share says nothing: at least one refusal a second
        _rule("AssayRefuses", 'sum by (model) (rate(assay_requests_total{code=~"429|503"}[5m])) > 1', "5m", "warning",
              say("{model}: {value} requests a second are turned away because too many wait.", model="{{ $labels.model }}", value="{{ $value | humanize }}"), lang),
        _rule("AssayAlarmCritical", 'max by (model) (assay_alarms_open{level="critical"}) > 0', "0s", "critical",
              say("{model}: {value} critical alarms are open; see the page of the service.", model="{{ $labels.model }}", value="{{ $value }}"), lang),
        _rule("AssayAlarmWarning", 'max by (model) (assay_alarms_open{level="warning"}) > 0', "30m", "warning",
              say("{model}: {value} warnings are open; see the page of the service.", model="{{ $labels.model }}", value="{{ $value }}"), lang),
        _rule("AssayVersionsDiffer", 'max by (model) (assay_model_version{role="champion"}) != min by (model) (assay_model_version{role="champion"})',
              "10m", "warning", say("{model}: replicas answer with different versions.", model="{{ $labels.model }}"), lang),
    ]
    return written({"groups": [{"name": "assay", "rules": found}]})


def _rule(name: str, expr: str, held: str, severity: str, text: Text, lang: str) -> dict[str, Any]:
    return {"alert": name, "expr": expr, "for": held, "labels": {"severity": severity}, "annotations": {"summary": text.to(lang)}}
