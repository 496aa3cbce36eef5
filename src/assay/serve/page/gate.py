"""Before the page: nobody comes in without a session, nothing comes in from another site, and every answer carries the page's headers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote

from assay.errors import AssayError
from assay.serve.http import Refused, encode, read_body, shown
from assay.serve.page.door import login_page
from assay.serve.page.sessions import LASTS_S, Session, Sessions
from assay.serve.page.uploads import Uploads
from assay.words import LANGUAGES

log = logging.getLogger("assay.service")
COOKIE, LANGUAGE, THEME = "assay_session", "assay_lang", "assay_theme"
POLICY = ("default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self'; "
          "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
BOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"  # of files that are shown as they are: no script, no request
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"), (b"x-frame-options", b"DENY"), (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"), (b"permissions-policy", b"camera=(), microphone=(), geolocation=()")]
_KINDS = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"), (b"fLaC", "audio/flac"), (b"OggS", "audio/ogg"), (b"ID3", "audio/mpeg"))


class Gate:
    """inner: makes the page itself, once. tls: cookies are then sent over TLS only."""

    def __init__(self, inner: Callable[[], Awaitable[Any]], sessions: Sessions, uploads: Uploads, home: Path, *, lang: str, tls: bool) -> None:
        self._make, self._inner, self._lock = inner, None, asyncio.Lock()
        self.sessions, self.uploads, self._home, self._lang, self._tls = sessions, uploads, home, lang, tls

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        cookies = _cookies(headers)
        scope["assay.lang"] = lang = self._language(headers, cookies)
        scope["assay.theme"] = cookies.get(THEME, "") if cookies.get(THEME) in ("light", "dark") else ""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send, headers, cookies)
            return
        try:
            await self._http(scope, receive, send, headers, cookies)
        except AssayError as error:
            more = [(b"retry-after", str(max(1, round(error.retry_s))).encode())] if isinstance(error, Refused) and error.retry_s is not None else []
            await self._said(send, encode({"error": {"status": error.http_status, "sentence": error.text.to(lang)}}), status=error.http_status, more=more)

    async def _http(self, scope: dict[str, Any], receive: Any, send: Any, headers: dict[bytes, bytes], cookies: dict[str, str]) -> None:
        path, method = scope["path"], scope["method"]
        if method not in ("GET", "HEAD") and not _same_origin(scope, headers):
            raise Refused(403, "This request comes from another site. Open the page itself.")
        if path in _OPEN and method in ("GET", "HEAD"):
            kind, content = self._files[path]
            await self._said(send, content, kind=kind, more=[(b"cache-control", b"public, max-age=3600")])
            return
        if path == "/language" and method == "GET":
            asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            lang = asked.get("to", "")
            await self._away(send, _inside(asked.get("back", "/")), self._cookie(LANGUAGE, lang if lang in LANGUAGES else self._lang, 365 * 86400, script=True))
            return
        session = await self.sessions.find(cookies.get(COOKIE, ""))
        if path == "/login":
            await self._login(scope, receive, send, headers, session)
            return
        if session is None:
            if method in ("GET", "HEAD") and b"text/html" in headers.get(b"accept", b""):
                back = path + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
                await self._away(send, "/login" + ("" if path == "/" else "?back=" + quote(back, safe="/")))
                return
            raise Refused(401, "Sign in first, at /login.")
        if path == "/logout" and method == "POST":
            self.sessions.end(session)
            await self._away(send, "/login", self._cookie(COOKIE, "", 0))
        elif path.startswith("/page/upload/") and method == "PUT":
            await self._said(send, encode(await self.uploads.take(path[len("/page/upload/"):], session, scope, receive, headers)))
        elif path.startswith("/page/") and method in ("GET", "HEAD"):
            await self._file(send, path, session)
        elif path.startswith("/_nicegui_ws"):
            raise Refused(403, "The page talks over a websocket; whatever stands between has to let it through.")
        else:
            scope["assay.session"] = session
            scope["headers"] = [(k, v) for k, v in scope["headers"] if k != b"x-forwarded-prefix"]
            inner = await self._page()
            await inner(scope, receive, self._dressed(send))

    async def _socket(self, scope: dict[str, Any], receive: Any, send: Any, headers: dict[bytes, bytes], cookies: dict[str, str]) -> None:
        """A websocket belongs to the session whose page opened it, and dies with it."""
        from nicegui import Client

        found = await self.sessions.find(cookies.get(COOKIE, ""))
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        client = Client.instances.get(asked.get("client_id", [""])[0])
        theirs = None if client is None else client.request.scope.get("assay.session")
        if found is None or theirs != found or b"origin" not in headers or not _same_origin(scope, headers):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return

        async def received(session: Session = found) -> Any:
            message = await receive()
            if message["type"] == "websocket.receive" and not await self.sessions.alive(session):
                return {"type": "websocket.disconnect", "code": 1008}
            return message

        await (await self._page())(scope, received, send)

    async def _page(self) -> Any:
        if self._inner is None:
            async with self._lock:
                if self._inner is None:
                    self._inner = await self._make()
        return self._inner

    # ---- the door

    async def _login(self, scope: dict[str, Any], receive: Any, send: Any, headers: dict[bytes, bytes], session: Session | None) -> None:
        lang, back = scope["assay.lang"], _inside(dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("back", "/"))
        if session is not None:
            await self._away(send, back)
            return
        reason = None
        if scope["method"] == "POST":
            body = parse_qs((await read_body(receive, headers, most=20_000, seconds=10.0)).decode("utf-8", "replace"))
            wait = self.sessions.wait((scope.get("client") or ("",))[0])
            if wait > 0:
                raise Refused(429, "Too many keys were tried. Try again in {wait:.0f} seconds.", wait=max(1.0, wait), retry_s=wait)
            try:
                token, begun = await asyncio.to_thread(self.sessions.begin, body.get("key", [""])[0].strip())
                log.info("page: %s signed in", begun.actor)
                await self._away(send, back, self._cookie(COOKIE, token, int(LASTS_S)))
                return
            except Refused as error:
                reason = error
        page = login_page(lang, scope["assay.theme"], back, None if reason is None else reason.text.to(lang), self.style)
        policy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        await self._said(send, page.encode(), kind="text/html; charset=utf-8", status=200 if reason is None else 401, policy=policy)

    # ---- files

    @cached_property
    def _files(self) -> dict[str, tuple[str, bytes]]:
        here = files(__package__ or "assay.serve.page")
        mark = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1b5e85"/>'
                '<path d="M8 23 16 8l8 15M11.5 17.5h9" fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round"/></svg>')
        return {"/page/style.css": ("text/css; charset=utf-8", here.joinpath("page.css").read_bytes()), "/page/icon.svg": ("image/svg+xml", mark.encode()),
                "/favicon.ico": ("image/svg+xml", mark.encode())}

    @cached_property
    def style(self) -> str:
        """Where the style stands; another address when it has changed."""
        return "/page/style.css?" + hashlib.sha256(self._files["/page/style.css"][1]).hexdigest()[:12]

    async def _file(self, send: Any, path: str, session: Session) -> None:
        """A run's report, or a picture or sound that was asked: by names that cannot lead elsewhere."""
        report = re.fullmatch(r"/page/runs/([A-Za-z0-9][A-Za-z0-9_.-]{0,120})/(report|summary)\.html", path)
        media = re.fullmatch(r"/page/media/([0-9a-f]{64})", path)
        if (report and not session.may("admin")) or (media and not session.may("feedback")):
            raise Refused(403, "This key may not see this: '{scope}' is needed.", scope="admin" if report else "feedback")
        place = self._home / "runs" / report[1] / f"{report[2]}.html" if report else self._home / "media" / media[1] if media else None
        if place is None or place.is_symlink() or not await asyncio.to_thread(place.is_file):
            raise Refused(404, "There is nothing at '{path}'. See /openapi.json.", path=shown(path))
        content = await asyncio.to_thread(place.read_bytes)
        kind = "text/html; charset=utf-8" if report else media_kind(content)
        await self._said(send, content, kind=kind, policy=BOX, more=[] if kind.startswith(("text/html", "image/", "audio/")) else [(b"content-disposition", b"attachment")])

    # ---- answers

    async def _said(self, send: Any, body: bytes, *, kind: str = "application/json", status: int = 200, policy: str = "default-src 'none'; frame-ancestors 'none'",
                    more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        cache = [] if any(name == b"cache-control" for name, _ in more) else [(b"cache-control", b"no-store")]
        head = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode()), (b"content-security-policy", policy.encode()), *_HEADERS, *cache, *more]
        await send({"type": "http.response.start", "status": status, "headers": self._strict(head)})
        await send({"type": "http.response.body", "body": body})

    async def _away(self, send: Any, to: str, cookie: tuple[bytes, bytes] | None = None) -> None:
        await self._said(send, b"", status=303, more=[(b"location", to.encode("ascii", "ignore")), *([cookie] if cookie else [])])

    def _dressed(self, send: Any) -> Any:
        async def dressed(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {b"content-security-policy", *(name for name, _ in _HEADERS)}
                head = [(k, v) for k, v in message.get("headers", ()) if k.lower() not in own]
                if not any(k.lower() == b"cache-control" for k, _ in head):
                    head.append((b"cache-control", b"no-store"))
                message = message | {"headers": self._strict([*head, (b"content-security-policy", POLICY.encode()), *_HEADERS])}
            await send(message)

        return dressed

    def _strict(self, head: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        return [*head, (b"strict-transport-security", b"max-age=31536000")] if self._tls else head

    def _cookie(self, name: str, value: str, seconds: int, *, script: bool = False) -> tuple[bytes, bytes]:
        return b"set-cookie", f"{name}={value}; Path=/; Max-Age={seconds}; SameSite=Strict{'' if script else '; HttpOnly'}{'; Secure' if self._tls else ''}".encode()

    def _language(self, headers: dict[bytes, bytes], cookies: dict[str, str]) -> str:
        chosen = cookies.get(LANGUAGE)
        if chosen in LANGUAGES:
            return str(chosen)
        for part in headers.get(b"accept-language", b"").decode("latin-1").split(","):
            name = part.partition(";")[0].strip()[:2].lower()
            if name in LANGUAGES:
                return name
        return self._lang


_OPEN = ("/page/style.css", "/page/icon.svg", "/favicon.ico")  # without a session: the door needs them


def media_kind(content: bytes) -> str:
    """What the bytes are, by their head; only kinds in which no script can hide."""
    if content[:4] == b"RIFF":
        return "audio/wav" if content[8:12] == b"WAVE" else "image/webp" if content[8:12] == b"WEBP" else "application/octet-stream"
    return next((kind for head, kind in _KINDS if content.startswith(head)), "application/octet-stream")


def _cookies(headers: dict[bytes, bytes]) -> dict[str, str]:
    try:
        return {name: cookie.value for name, cookie in SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).items()}
    except CookieError:
        return {}


def _same_origin(scope: dict[str, Any], headers: dict[bytes, bytes]) -> bool:
    """Browsers name the origin with each request that changes something and with each websocket; what is no browser has no cookie to be misused."""
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site", b"same-origin") in (b"same-origin", b"none")
    return origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower() and origin.startswith((b"http://", b"https://"))


def _inside(path: str) -> str:
    """A path of this service, '/' where it would lead to another."""
    return path if re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", path) else "/"
