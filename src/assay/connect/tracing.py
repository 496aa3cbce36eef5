"""OpenTelemetry spans of the service's requests, where they are asked for: route, method, status, model. No address, no body, no query, no key."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from assay.errors import MissingExtra

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SILENT = ("/healthz", "/readyz", "/metrics")  # asked every few seconds, by machines
EXPORT_S, CLOSE_S = 2.0, 5.0  # a collector that does not answer delays nothing but the export, and the end of the process by this much

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]
_VERB = re.compile(r"/v1/([a-z][a-z_-]{0,30})(/.+)?")
_log = logging.getLogger("assay.trace")


def wanted() -> bool:
    """Whether the environment names a collector, in OpenTelemetry's own variables, and does not switch it off."""
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"


def traced(app: App, service: str = "assay") -> App:
    """`app` with a span a request. Endpoint, headers, sampler and batch are those of OpenTelemetry's environment variables.

    A caller's `traceparent` (W3C Trace Context) is the parent. Spans are exported by a thread of their own, at most 2,048 wait, the others are dropped;
    a collector that refuses or does not answer is said once in the log and is otherwise as if it were not there. scope["assay.trace"] is then the
    trace's id in hexadecimal; what the app puts into scope["assay.model"] goes into the span. Raises MissingExtra without the packages.
    """
    return Traced(app, service)


class Traced:
    def __init__(self, app: App, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtra((error.name or "opentelemetry").partition(".")[0], extra="trace") from None
        from assay import __version__

        _once_only()
        own = any(os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"))
        exporter = OTLPSpanExporter() if own else OTLPSpanExporter(timeout=EXPORT_S)
        # the name that the environment gives (OTEL_SERVICE_NAME) wins over ours
        named = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}).merge(Resource({"service.version": __version__}))
        self._app = app
        self._provider = TracerProvider(resource=named)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("assay", __version__)
        self._parent, self._server, self._error = TraceContextTextMapPropagator(), SpanKind.SERVER, Status(StatusCode.ERROR)

    def __getattr__(self, name: str) -> Any:
        """What else the app has (its state, its routes) is still its own."""
        return getattr(self._app, name)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._closing(send))
        elif scope["type"] != "http" or scope["path"] in SILENT:
            await self._app(scope, receive, send)
        else:
            await self._spanned(scope, receive, send)

    async def _spanned(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}
        method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "_OTHER"
        span = self._tracer.start_span(method, context=self._parent.extract(carrier), kind=self._server,
                                       attributes={"http.request.method": method, "url.scheme": scope.get("scheme", "http")})
        scope["assay.trace"] = format(span.get_span_context().trace_id, "032x")
        status = 0

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)  # its message may quote what was asked
            span.set_status(self._error)
            raise
        finally:
            route = route_of(scope["path"]) if status not in (0, 404) else ""
            if route:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_attribute("error.type", str(status))
                span.set_status(self._error)
            if isinstance(model := scope.get("assay.model"), str):
                span.set_attribute("assay.model", model)
            span.end()

    def _closing(self, send: _Send) -> _Send:
        """What waits is exported before the service says that it has stopped, but for at most CLOSE_S."""

        async def closed(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                try:
                    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, self._provider.shutdown), CLOSE_S)
                except Exception as error:  # a trace that is lost is no reason to stop otherwise
                    _log.warning("%s", type(error).__name__)
            await send(message)

        return closed


def route_of(path: str) -> str:
    """The route without what a caller put into it: '/v1/predict', '/v1/drafts/{}'; '/page' for all that is no API."""
    found = _VERB.fullmatch(path)
    if found is None:
        return path if path == "/openapi.json" else "/page"
    return f"/v1/{found[1]}" + ("/{}" if found[2] else "")


class _Once(logging.Filter):
    """Of a collector that is down the exporter would tell every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.told = False

    def filter(self, record: logging.LogRecord) -> bool:
        first, self.told = not self.told, True
        return first


def _once_only() -> None:
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.common.http", "opentelemetry.sdk._shared_internal"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, _Once) for f in logger.filters):
            logger.addFilter(_Once())
