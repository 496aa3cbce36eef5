"""From a service to its page: NiceGUI behind the gate. Everything it sends lies in installed packages; no request leaves this host."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.serve.page.contest import VIEW as CONTEST
from assay.serve.page.desk import View, Visit
from assay.serve.page.frame import frame
from assay.serve.page.gate import Gate
from assay.serve.page.labelling import VIEW as LABEL
from assay.serve.page.log import VIEW as LOG
from assay.serve.page.models import VIEW as MODELS
from assay.serve.page.parts import empty
from assay.serve.page.replies import VIEW as REPLIES
from assay.serve.page.sessions import Sessions
from assay.serve.page.trying import VIEW as TRY
from assay.serve.page.uploads import Uploads
from assay.serve.page.watching import VIEW as WATCH

if TYPE_CHECKING:
    from assay.serve.app import Service

VIEWS: tuple[View, ...] = (MODELS, TRY, CONTEST, LABEL, REPLIES, WATCH, LOG)


def application(app: Service, home: Path, *, lang: str) -> Gate:
    """The page as an ASGI application for every path that the service does not know. May be called on a thread; it starts itself when it is first asked.

    One a process: NiceGUI keeps its pages for the whole process. lang: of those whose browser asks for neither English nor Chinese.
    """
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(home / "page"))  # nothing is kept there, and nothing in the folder it was started in
    from fastapi import FastAPI
    from nicegui import core, ui

    home = home.resolve()
    sessions, uploads = Sessions(app.door, app.store), Uploads(home / "uploads")
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for view in VIEWS:
        ui.page(view.path, title=f"{view.title} · assay", response_timeout=20.0)(_shown(app, home, view, sessions, uploads, lambda: gate.style))
    tls = app.tls
    core.app.config.socket_io_js_transports = ["websocket"]
    ui.run_with(outer, title="assay", favicon="/page/icon.svg", dark=False, language="en-US", tailwind=False, show_welcome_message=False, reconnect_timeout=20.0, message_history_length=200)
    life = outer.router.lifespan_context(outer)

    async def started() -> Any:
        await life.__aenter__()
        return outer

    gate = Gate(started, sessions, uploads, home, lang=lang, tls=tls)
    return gate


def _shown(app: Service, home: Path, view: View, sessions: Sessions, uploads: Uploads, style: Callable[[], str]) -> Callable[[], Awaitable[None]]:
    """What NiceGUI calls for each visit of a view."""
    async def shown() -> None:
        import copy

        from nicegui import ui

        client = ui.context.client
        scope = client.request.scope
        visit = Visit(app, home, scope["assay.session"], sessions, uploads, scope["assay.lang"], client, dict(client.request.query_params))
        client.page = copy.copy(client.page)
        client.page.language = "zh-CN" if visit.lang == "zh" else "en-US"
        client.page.title = f"{view.title.to(visit.lang)} · assay"
        inside = frame(visit, VIEWS, view, scope["assay.theme"], style())
        with inside:
            if visit.may(view.scope):
                await view.build(visit)
            else:
                empty(visit.say("This key may not see this: '{scope}' is needed.", scope=view.scope))

    shown.__name__ = view.path.strip("/") or "models"
    return shown
