"""Runs in MLflow come back as they were, and spans reach a collector without what nobody should know."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

import assay
from assay.cli import app
from assay.errors import EndpointError, InputError

MLFLOW = Path.home() / ".cache" / "assay-peers" / "mlflow" / "bin" / "mlflow"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a contest of two small candidates."""
    pytest.importorskip("mlflow")
    pytest.importorskip("pandas")
    folder = tmp_path_factory.mktemp("connect") / "run"
    from assay.tasks import find

    frame = find("classify").example().frame
    target = find("classify").example().schema.target
    assay.run(frame, target=target, work=3, candidates=("linear",), tune=False, folds=1, out=folder)
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)  # MLflow puts files beside a database into the folder it is started in
    return f"sqlite:///{tmp_path}/mlflow.db"


def checked(run: Path, uri: str) -> None:
    """Log it; what MLflow then holds is the run, and its pyfunc answers as the bundle does."""
    import mlflow

    from assay.connect.mlflow import log_run

    logged = log_run(run, uri, "shop", model="churn")
    assert logged.new
    assert logged.version == "1"
    again = log_run(run, uri, "shop", model="churn")
    assert (again.new, again.run_id, again.model_uri, again.version) == (False, logged.run_id, logged.model_uri, "1")

    client = mlflow.MlflowClient(tracking_uri=uri)
    there = client.get_run(logged.run_id)
    verdict = json.loads((run / "verdict.json").read_text(encoding="utf-8"))
    winner = next(line for line in verdict["scoreboard"] if line["candidate"] == verdict["winner"])
    bundle = assay.load(run / "winner.assay")
    assert there.info.status == "FINISHED"
    assert there.data.tags["assay.digest"] == there.data.params["digest"] == bundle.digest
    assert there.data.tags["assay.outcome"] == verdict["outcome"]
    assert {"verdict.json", "report.html", "bundle.json"} <= {f.path for f in client.list_artifacts(logged.run_id)}
    children = client.search_runs([logged.experiment_id], f"tags.`mlflow.parentRunId` = '{logged.run_id}'")
    assert {c.info.run_name for c in children} == {line["candidate"] for line in verdict["scoreboard"] if line["status"] == "done"}
    best = next(c for c in children if c.info.run_name == verdict["winner"])
    assert best.data.metrics["loss"] == pytest.approx(winner["loss"])
    assert best.data.tags["assay.winner"] == "true"

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        for source in (logged.model_uri, "models:/churn/1"):
            model = mlflow.pyfunc.load_model(source)
            asked = bundle.reference.head(20).to_pandas()
            assert model.predict(asked).equals(bundle.predict(asked))
    finally:
        mlflow.set_tracking_uri(before)


def test_a_run_logged_to_a_database_comes_back_and_is_logged_once(run, store):
    checked(run, store)


def test_whole_numbers_are_taken_where_the_model_learnt_decimals(run, store):
    import mlflow

    from assay.connect.mlflow import log_run

    logged = log_run(run / "winner.assay", store, "bundles", rows=False)
    bundle = assay.load(run / "winner.assay")
    asked = bundle.reference.head(5).to_pandas()
    for column in bundle.schema.features:
        if column.kind == "number":
            asked[column.name] = range(5)  # int64, which MLflow does not turn into a double by itself
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(logged.model_uri)
    assert model.predict(asked).equals(bundle.predict(asked))
    assert model.input_example is None


def test_what_mlflow_keeps_of_a_model_is_the_bundle_and_no_pickle(run, store, tmp_path):
    from assay.connect.mlflow import log_run

    log_run(run / "winner.assay", store, "bundles")
    kept = [p for p in (tmp_path / "mlruns").rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in kept if p.suffix == ".assay"] == [(run / "winner.assay").read_bytes()]
    assert not [p for p in kept if p.suffix in (".pkl", ".pickle", ".joblib", ".pt")]


@pytest.mark.slow  # a server takes up to a minute to start on a busy machine
def test_a_run_logged_to_a_real_server_comes_back_and_is_logged_once(run, tmp_path):
    if not MLFLOW.is_file():
        pytest.skip(f"no full MLflow in {MLFLOW.parents[1]} (python -m venv, pip install mlflow)")
    port = _free_port()
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen([str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db",
                               "--artifacts-destination", str(tmp_path / "artifacts")], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                              env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"MLFLOW_DISABLE_TELEMETRY": "true"})
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                with urlopen(f"{uri}/health", timeout=2) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text(encoding="utf-8")[-2000:]
                time.sleep(0.5)
        checked(run, uri)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
        log.close()


def test_a_server_that_is_not_there_is_one_sentence(run):
    from assay.connect.mlflow import log_run

    with pytest.raises(EndpointError, match=r"MLflow at http://127\.0\.0\.1:9 refused"):
        log_run(run / "winner.assay", "http://127.0.0.1:9", "x")


def test_a_folder_without_a_verdict_is_refused(tmp_path):
    pytest.importorskip("mlflow")
    from assay.connect.mlflow import log_run

    with pytest.raises(InputError, match=r"lacks verdict\.json"):
        log_run(tmp_path, "sqlite:///x.db", "x")


def test_the_command_says_how_to_load_it(run, store):
    said = CliRunner().invoke(app, ["mlflow", str(run / "winner.assay"), "--uri", store, "--experiment", "e", "--model", "m", "--lang", "zh"])
    assert said.exit_code == 0, said.output
    assert "已注册为“m”，版本 1。" in said.stdout
    assert "mlflow.pyfunc.load_model('models:/" in said.stdout


# ---- traces


class Collector(BaseHTTPRequestHandler):
    spans: list[tuple[dict[str, str], Any]] = []
    raw: list[bytes] = []
    status = 200

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        if self.path == "/v1/traces" and self.status == 200:
            Collector.raw.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {a.key: a.value.string_value for a in resource.resource.attributes}
                Collector.spans += [(about, span) for scope in resource.scope_spans for span in scope.spans]
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *words: object) -> None: ...


@pytest.fixture
def collector(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    Collector.spans, Collector.raw, Collector.status = [], [], 200
    server = HTTPServer(("127.0.0.1", 0), Collector)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Collector
    server.shutdown()
    server.server_close()


async def _answers(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/v1/broken":
        raise ValueError("the row of patient 4711")
    scope["assay.model"] = "churn"
    await send({"type": "http.response.start", "status": {"/v1/busy": 503, "/gone": 404}.get(scope["path"], 200), "headers": []})
    await send({"type": "http.response.body", "body": b"secret-answer"})


def asked(traced: Any, path: str, **headers: str) -> dict[str, Any]:
    scope = {"type": "http", "method": "POST", "path": path, "scheme": "http", "query_string": b"token=secret-query", "client": ("203.0.113.9", 1),
             "headers": [(b"authorization", b"Bearer secret-key"), *((k.encode(), v.encode("latin-1")) for k, v in headers.items())]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"secret-body", "more_body": False}

    async def send(message: Any) -> None: ...

    asyncio.run(traced(scope, receive, send))
    return scope


def ended(traced: Any) -> float:
    """Seconds that the lifespan's shutdown took; afterwards everything is exported."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    began = time.monotonic()
    asyncio.run(traced({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    return time.monotonic() - began


def test_a_request_is_a_span_under_its_callers_and_tells_nothing_of_the_caller(collector):
    from assay.connect.tracing import traced

    application = traced(_answers)
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    scope = asked(application, "/v1/predict", traceparent=f"00-{trace}-{parent}-01")
    assert scope["assay.trace"] == trace
    asked(application, "/v1/drafts/zhang-san-4711")
    asked(application, "/v1/busy")
    asked(application, "/gone")
    asked(application, "/healthz")
    with pytest.raises(ValueError, match="4711"):
        asked(application, "/v1/broken")
    ended(application)
    about, spans = collector.spans[0][0], {s.name: s for _, s in collector.spans}
    assert about["service.name"] == "assay"
    assert about["service.version"] == assay.__version__
    assert sorted(s.name for _, s in collector.spans) == ["POST", "POST", "POST /v1/busy", "POST /v1/drafts/{}", "POST /v1/predict"]
    one = spans["POST /v1/predict"]
    told = {a.key: a.value.string_value or a.value.int_value for a in one.attributes}
    assert (one.trace_id.hex(), one.parent_span_id.hex()) == (trace, parent)
    assert told == {"http.request.method": "POST", "url.scheme": "http", "http.route": "/v1/predict", "http.response.status_code": 200, "assay.model": "churn"}
    assert spans["POST /v1/busy"].status.code == 2
    assert not [word for word in (b"secret", b"4711", b"zhang", b"203.0.113.9", b"Bearer") if any(word in raw for raw in collector.raw)]


@pytest.mark.parametrize("header", ["", "00-zz-1-01", "garbage\xff", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000])
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(collector, header):
    from assay.connect.tracing import traced

    application = traced(_answers)
    scope = asked(application, "/v1/predict", traceparent=header)
    ended(application)
    (_, span), = collector.spans
    assert span.trace_id.hex() == scope["assay.trace"] != "0" * 32
    assert span.parent_span_id == b""


def test_a_collector_that_is_away_delays_no_request_and_is_said_once(monkeypatch, caplog):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from assay.connect import tracing

    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.common.http"):
        for f in list(logging.getLogger(name).filters):
            logging.getLogger(name).removeFilter(f)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    application = tracing.traced(_answers)
    began = time.monotonic()
    for _ in range(50):
        asked(application, "/v1/predict")
        time.sleep(0.01)
    assert time.monotonic() - began < 5
    assert ended(application) < tracing.CLOSE_S + 2
    assert 1 <= len([r for r in caplog.records if r.name.startswith("opentelemetry")]) <= 3


def test_tracing_is_wanted_where_the_environment_names_a_collector(monkeypatch):
    from assay.connect.tracing import wanted

    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not wanted()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")
    assert wanted()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not wanted()


def test_without_the_packages_the_sentence_names_the_extra():
    code = ("import sys; sys.modules['opentelemetry'] = None\nfrom assay.connect.tracing import traced\nfrom assay.errors import MissingExtra\n"
            "try: traced(None)\nexcept MissingExtra as error: print(error)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'assay[trace]'" in said


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
