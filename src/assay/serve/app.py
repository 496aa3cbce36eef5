"""The service as an ASGI application: one dictionary of routes, one way in, one way out.

Order on the way in: host, path, method, key, scope, rate, body. So a stranger's body is never read, and nothing is parsed for whoever may not ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from assay.errors import AssayError
from assay.serve.admin import Admin
from assay.serve.answering import Answering
from assay.serve.auth import ANYBODY, Door
from assay.serve.explaining import Explaining
from assay.serve.held import Shelf
from assay.serve.http import Asked, Refused, Said, Within, as_json, read_body, refusal, shown, too_slow
from assay.serve.labels import Labels
from assay.serve.metrics import KIND, Metrics
from assay.serve.replying import Endpoint, Replying
from assay.serve.shortcut import Shortcut
from assay.serve.tending import Tending
from assay.serve.watching import Watching
from assay.store.records import Key
from assay.store.store import Store
from assay.store.writer import Writer

log = logging.getLogger("assay.service")
Handler = Callable[[Asked], Awaitable[Said]]


@dataclass(frozen=True)
class Limits:
    """body: bytes. body_s, answer_s: seconds for a body to arrive, for an answer to be made. in_flight: requests at once; more are told to come again."""

    body: int = 16 << 20
    body_s: float = 20.0
    answer_s: float = 30.0
    in_flight: int = 512


class Route(NamedTuple):
    handler: Handler
    scope: str  # that the key needs; "" for any key, "-" for no key at all
    name: str


class Service:
    """hosts: names by which it may be called, () for any: a page that a browser was lured to cannot reach a service on loopback by a name of its own.

    page: makes the ASGI application of everything that is no path of the service; it is made when it is first asked for, because it needs
    100 MB that a service without onlookers can do without.
    """

    def __init__(self, shelf: Shelf, store: Store, writer: Writer, door: Door, metrics: Metrics, watching: Watching, answering: Answering, *, limits: Limits = Limits(),
                 hosts: tuple[str, ...] = (), open_metrics: bool = False, tls: bool = False, page: Callable[[Service], Any] | None = None, language_model: Endpoint | None = None, tending: Tending | None = None, mask: bool = False, access_log: bool = False) -> None:
        self.shelf, self.store, self.writer, self.door, self.metrics, self.watching, self.answering = shelf, store, writer, door, metrics, watching, answering
        self.tls = tls
        self._limits, self._hosts, self._access_log = limits, frozenset(h.lower().encode() for h in hosts), access_log
        self._make_page, self._page_lock = page, asyncio.Lock()
        self._page: Any = None
        self._tending = tending
        self.explaining = Explaining(shelf)
        self.in_flight = 0
        self.ready = False
        self.draining = False
        self.replying = Replying(shelf, store, language_model, mask=mask)
        labels, admin = Labels(shelf, store, writer, mask=mask), Admin(shelf, store, changed=shelf.refresh)
        self._routes: dict[str, dict[str, Route]] = {
            "/v1/predict": {"POST": Route(answering.predict, "predict", "predict")},
            "/v1/forecast": {"POST": Route(answering.forecast, "predict", "forecast")},
            "/v1/explain": {"POST": Route(self.explaining.explain, "predict", "explain")},
            "/v1/reply": {"POST": Route(self.replying.reply, "predict", "reply")},
            "/v1/feedback": {"POST": Route(labels.feedback, "feedback", "feedback")},
            "/v1/schema": {"GET": Route(admin.schema, "", "schema")},
            "/openapi.json": {"GET": Route(admin.openapi, "-", "openapi")},
            "/v1/models": {"GET": Route(admin.models, "", "models")},
            "/v1/alarms": {"GET": Route(admin.alarms, "", "alarms")},
            "/v1/queue": {"GET": Route(admin.queue, "feedback", "queue")},
            "/v1/models/*/promote": {"POST": Route(admin.promote, "admin", "promote")},
            "/v1/models/*/rollback": {"POST": Route(admin.rollback, "admin", "rollback")},
            "/v1/models/*/challenge": {"POST": Route(admin.challenge, "admin", "challenge")},
            "/v1/models/*/withdraw": {"POST": Route(admin.withdraw, "admin", "withdraw")},
            "/v1/alarms/*/close": {"POST": Route(admin.close_alarm, "admin", "close_alarm")},
            "/v1/drafts": {"GET": Route(self.replying.drafts, "feedback", "drafts")},
            "/v1/drafts/*/settle": {"POST": Route(self.replying.settle, "feedback", "settle")},
            "/healthz": {"GET": Route(self._health, "-", "healthz")},
            "/readyz": {"GET": Route(self._readiness, "-", "readyz")},
            "/metrics": {"GET": Route(self._metrics, "-" if open_metrics else "", "metrics")},
        }
        secure = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]  # of JSON; the page has those that HTML needs
        self._secure = [*secure, (b"strict-transport-security", b"max-age=31536000")] if tls else secure
        self.at_once = Shortcut(door, shelf, answering, self._ended, self._host_known, self._secure, most=limits.body)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._page is not None and self._host_known(dict(scope["headers"]).get(b"host", b"")):
            await self._page(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        began = time.perf_counter()
        headers = dict(scope["headers"])
        asked: Asked | None = None
        name, read = "", False
        self.in_flight += 1
        try:
            if not self._host_known(headers.get(b"host", b"")):
                raise Refused(421, "This service is not called '{host}'. Call it by its own name, or start it with --allow-host.", host=shown(headers.get(b"host", b"")))
            route = self._route(scope["path"], scope["method"])
            if route is None:
                if await self._on_page(scope, receive, send):
                    return
                raise Refused(404, "There is nothing at '{path}'. See /openapi.json.", path=shown(scope["path"]))
            name = route.name
            if self.in_flight > self._limits.in_flight and route.scope != "-":
                raise Refused(429, "{n} requests are under way already. Try again in a second.", n=self.in_flight - 1, retry_s=1.0)
            key = ANYBODY
            if route.scope != "-":
                known = self.door.known(headers)
                key = known if known is not None else await asyncio.to_thread(self.door.find, headers)
                self.door.allow(key, route.scope)
            asked = Asked(scope, receive, key, headers)
            read = scope["method"] != "POST"  # whether what the client has to send is here
            with Within(self._limits.answer_s):
                if not read:
                    asked.body = await read_body(receive, headers, most=self._limits.body, seconds=self._limits.body_s, watched=True)
                    read = True
                said = await route.handler(asked)
        except TimeoutError:
            said = refusal(too_slow() if not read else Refused(503, "The answer took longer than {seconds:g} seconds and was given up. Send fewer rows at a time.", seconds=self._limits.answer_s, retry_s=1.0), headers)
        except AssayError as error:
            said = refusal(error, headers)
        except Exception:
            number = secrets.token_hex(4)
            log.exception("request %s failed", number)
            said = refusal(Refused(500, "Something went wrong here. Whoever runs the service finds the reason in the log under {number}.", number=number), headers)
        finally:
            self.in_flight -= 1
        await self._send(send, said, head_only=scope["method"] == "HEAD")
        seconds = time.perf_counter() - began
        model = scope["assay.model"] = self._about(asked)  # for whoever traces requests
        self._ended(scope["method"], scope["path"], name, model, said.status, seconds, asked.key if asked else None)

    def _ended(self, method: str, path: str, name: str, model: str, status: int, seconds: float, key: Key | None) -> None:
        self.watching.request(model, name, status, seconds)
        if self._access_log:
            log.info(json.dumps({"method": method, "path": shown(path, 200), "status": status, "ms": round(1000 * seconds, 3), "key": key.id if key else None}))

    def _about(self, asked: Asked | None) -> str:
        """The model that a request was about, also of one that was refused before it named it."""
        if asked is None or asked.model:
            return asked.model if asked else ""
        names = self.shelf.names()
        return names[0] if len(names) == 1 and asked.scope["method"] == "POST" else ""

    async def _send(self, send: Any, said: Said, *, head_only: bool) -> None:
        head = [(b"content-type", said.kind), *self._secure, *said.headers]
        if said.parts is not None:
            await send({"type": "http.response.start", "status": said.status, "headers": head})
            async for part in said.parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        head.append((b"content-length", str(len(said.body)).encode()))
        await send({"type": "http.response.start", "status": said.status, "headers": head})
        await send({"type": "http.response.body", "body": b"" if head_only else said.body})

    def _route(self, path: str, method: str) -> Route | None:
        """The route; None where there is no such path. Raises Refused 405."""
        methods = self._routes.get(path)
        if methods is None:
            parts = path.split("/")
            methods = self._routes.get(f"/v1/{parts[2]}/*/{parts[4]}") if len(parts) == 5 and parts[1] == "v1" else None
            if methods is None:
                return None
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            known = [*methods, *(["HEAD"] if "GET" in methods else [])]
            raise Refused(405, "'{path}' takes {methods} only.", path=shown(path), methods=known, headers=((b"allow", ", ".join(known).encode()),))
        return route

    def _host_known(self, host: bytes) -> bool:
        if not self._hosts:
            return True
        host = host.lower()
        return (host if host.endswith(b"]") else host.rpartition(b":")[0] or host) in self._hosts

    # ---- the service itself

    async def _health(self, asked: Asked) -> Said:
        return as_json({"alive": True})

    async def _readiness(self, asked: Asked) -> Said:
        trouble = self.writer.trouble
        if self.ready and not self.draining and trouble is None:
            return as_json({"ready": True, "models": self.shelf.names()})
        return as_json({"ready": False, "reason": trouble.to(asked.language) if trouble is not None else "draining" if self.draining else "starting"}, 503)

    async def _metrics(self, asked: Asked) -> Said:
        return Said(await asyncio.to_thread(self.watching.text), kind=KIND)

    async def _on_page(self, scope: dict[str, Any], receive: Any, send: Any) -> bool:
        if self._make_page is None or scope["path"].startswith("/v1/"):
            return False
        if self._page is None:
            async with self._page_lock:
                if self._page is None:
                    self._page = await asyncio.to_thread(self._make_page, self)
        await self._page(scope, receive, send)
        return True

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self.watching.start()
        if self._tending is not None:
            self._tending.start()
        self.ready = True
        self.metrics.set("assay_ready", 1)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.draining = True
        self.metrics.set("assay_ready", 0)
        with contextlib.suppress(Exception):
            await self.answering.close()
        self.explaining.close()
        if self._tending is not None:
            await asyncio.to_thread(self._tending.stop)
        await asyncio.to_thread(self.watching.stop)
        await asyncio.to_thread(self.writer.close, 20.0)
        await send({"type": "lifespan.shutdown.complete"})
