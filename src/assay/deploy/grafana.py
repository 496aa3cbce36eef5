"""A Grafana dashboard over the metrics of `names.METRICS`, in either language. Import it, or let a provisioning folder hold it."""

from __future__ import annotations

import json
from typing import Any

from assay.deploy.base import Written
from assay.deploy.rules import rules
from assay.words import say

_RATE = "$__rate_interval"
_MODEL = 'model=~"$model"'


def grafana(*, models: tuple[str, ...] = (), p99_s: float = 0.5, errors: float = 0.01, lang: str = "en") -> Written:
    """dashboard.json and alerts.yaml. models: preselected (default: all). p99_s, errors (share of requests): where the alerts begin."""
    return Written({"dashboard.json": json.dumps(dashboard(models=models, p99_s=p99_s, errors=errors, lang=lang), ensure_ascii=False, indent=1) + "\n",
                    "alerts.yaml": rules(p99_s=p99_s, errors=errors, lang=lang)},
                   [say("The dashboard asks for a Prometheus data source when it is imported; alerts.yaml goes under rule_files of prometheus.yml.")])


def dashboard(*, models: tuple[str, ...], p99_s: float, errors: float, lang: str) -> dict[str, Any]:
    """Rows of panels, 24 columns wide: is it up, how fast, what it answers, whether that still fits."""
    layout = _Layout(lang)
    layout.row(say("Service"))
    layout.panel("stat", say("Ready"), 4, [("min(assay_ready)", "")], steps=[(None, "red"), (1, "green")],
                 mappings={"0": say("no"), "1": say("yes")})
    layout.panel("stat", say("Requests a second"), 5, [(f"sum(rate(assay_requests_total{{{_MODEL}}}[{_RATE}]))", "")], unit="reqps")
    layout.panel("stat", say("Failed requests"), 5, [(_failed(), "")], unit="percentunit", steps=[(None, "green"), (errors / 2, "yellow"), (errors, "red")])
    layout.panel("stat", say("Slowest 1 % take"), 5, [(_quantile(0.99), "")], unit="s", steps=[(None, "green"), (p99_s / 2, "yellow"), (p99_s, "red")])
    layout.panel("stat", say("Open alarms"), 5, [(f"sum by (level) (assay_alarms_open{{{_MODEL}}})", "{{level}}")], steps=[(None, "green"), (1, "orange")])
    layout.panel("timeseries", say("Requests by answer code"), 12, [(f"sum by (code) (rate(assay_requests_total{{{_MODEL}}}[{_RATE}]))", "{{code}}")], unit="reqps", stack=True)
    layout.panel("timeseries", say("Time to answer"), 12, [(_quantile(q), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))], unit="s")
    layout.panel("timeseries", say("Time to answer by route, slowest 5 %"), 12,
                 [(f"histogram_quantile(0.95, sum by (le, route) (rate(assay_request_seconds_bucket{{{_MODEL}}}[{_RATE}])))", "{{route}}")], unit="s")
    layout.panel("timeseries", say("Rows that wait"), 12, [("max by (queue) (assay_queue_rows)", "{{queue}}")])
    layout.row(say("Answers"))
    layout.panel("timeseries", say("Rows answered by version"), 12,
                 [(f"sum by (model, version, arm) (rate(assay_predictions_total{{{_MODEL}}}[{_RATE}]))", "{{model}} {{version}} {{arm}}")], unit="ops", stack=True)
    layout.panel("timeseries", say("Share of each answer"), 12,
                 [(f"sum by (model, answer) (rate(assay_answers_total{{{_MODEL}}}[{_RATE}])) / ignoring (answer) group_left "
                   f"sum by (model) (rate(assay_answers_total{{{_MODEL}}}[{_RATE}]))", "{{model}}: {{answer}}")], unit="percentunit", stack=True)
    layout.panel("timeseries", say("Feedback"), 12, [(f"sum by (model, kind) (increase(assay_feedback_total{{{_MODEL}}}[1h]))", "{{model}}: {{kind}}")])
    layout.panel("table", say("Versions"), 12, [(f"max by (model, role) (assay_model_version{{{_MODEL}}})", "")], instant=True)
    layout.row(say("Drift"))
    layout.panel("bargauge", say("Columns that moved most"), 12, [(f"topk(15, max by (model, column) (assay_drift_effect{{{_MODEL}}}))", "{{model}}: {{column}}")], instant=True)
    layout.panel("timeseries", say("Drift over time"), 12, [(f"topk(10, max by (model, column) (assay_drift_effect{{{_MODEL}}}))", "{{model}}: {{column}}")])
    every = {"text": ["All"], "value": ["$__all"]}
    return {
        "__inputs": [{"name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "pluginId": "prometheus", "pluginName": "Prometheus"}],
        "__requires": [{"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
                       {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"}],
        "uid": "assay-serve", "title": "assay", "tags": ["assay"], "schemaVersion": 38, "version": 1, "editable": True, "refresh": "30s", "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "label": say("Data source").to(lang), "current": {}},
            {"name": "model", "type": "query", "label": say("Model").to(lang), "datasource": _SOURCE, "definition": "label_values(assay_model_version, model)",
             "query": {"query": "label_values(assay_model_version, model)", "refId": "models"}, "refresh": 2, "multi": True, "includeAll": True,
             "current": {"text": list(models), "value": list(models)} if models else every}]},
        "annotations": {"list": [{"name": say("New version").to(lang), "datasource": _SOURCE, "enable": True, "iconColor": "purple",
                                  "expr": f'changes(assay_model_version{{role="champion", {_MODEL}}}[5m]) > 0', "titleFormat": "{{model}}"}]},
        "panels": layout.panels,
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _failed() -> str:
    """Share of requests that ended in a 5xx; 0, not nothing, where there was none."""
    return (f'(sum(rate(assay_requests_total{{{_MODEL}, code=~"5.."}}[{_RATE}])) or vector(0)) / clamp_min(sum(rate(assay_requests_total{{{_MODEL}}}[{_RATE}])), 1e-9)')


def _quantile(q: float) -> str:
    return f"histogram_quantile({q}, sum by (le) (rate(assay_request_seconds_bucket{{{_MODEL}}}[{_RATE}])))"


class _Layout:
    """Panels from left to right, a new line when 24 columns are full."""

    def __init__(self, lang: str) -> None:
        self.panels: list[dict[str, Any]] = []
        self._lang, self._x, self._y, self._height = lang, 0, 0, 0

    def row(self, title: Any) -> None:
        self._break()
        self.panels.append({"type": "row", "id": len(self.panels) + 1, "title": title.to(self._lang), "collapsed": False, "panels": [],
                            "gridPos": {"x": 0, "y": self._y, "w": 24, "h": 1}})
        self._y += 1

    def panel(self, kind: str, title: Any, width: int, queries: list[tuple[str, str]], *, unit: str = "short", stack: bool = False, instant: bool = False,
              steps: list[tuple[float | None, str]] | None = None, mappings: dict[str, Any] | None = None) -> None:
        height = 4 if kind == "stat" else 8
        if self._x + width > 24:
            self._break()
        defaults: dict[str, Any] = {"unit": unit}
        if steps is not None:
            defaults |= {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}}
        if mappings is not None:
            defaults["mappings"] = [{"type": "value", "options": {key: {"text": text.to(self._lang)} for key, text in mappings.items()}}]
        if kind == "timeseries":
            defaults |= {"min": 0, "custom": {"fillOpacity": 40 if stack else 8, "showPoints": "never", "stacking": {"mode": "normal" if stack else "none"}}}
        self.panels.append({
            "type": kind, "id": len(self.panels) + 1, "title": title.to(self._lang), "datasource": _SOURCE, "gridPos": {"x": self._x, "y": self._y, "w": width, "h": height},
            "fieldConfig": {"defaults": defaults, "overrides": []}, "options": {"orientation": "horizontal"} if kind == "bargauge" else {},
            "targets": [{"refId": chr(65 + i), "datasource": _SOURCE, "expr": expr, "legendFormat": legend or "__auto", **(
                {"instant": True, "range": False, "format": "table"} if kind == "table" else {"instant": True, "range": False} if instant else {"range": True})}
                for i, (expr, legend) in enumerate(queries)]})
        self._x, self._height = self._x + width, max(self._height, height)

    def _break(self) -> None:
        self._y, self._x, self._height = self._y + self._height, 0, 0
