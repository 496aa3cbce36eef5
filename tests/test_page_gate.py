"""The gate before the page: who comes in, from where, and what is handed out; without a browser."""

from __future__ import annotations

import asyncio
import json
import sys
import types
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import InputError
from assay.serve.auth import Door
from assay.serve.page import sessions as times
from assay.serve.page.contests import Contests, _rows
from assay.serve.page.gate import Gate, _inside, media_kind
from assay.serve.page.sessions import Sessions
from assay.serve.page.uploads import Uploads
from assay.serve.page.watching import quantile
from assay.store.store import Store

HOST = b"127.0.0.1:8080"


class Entry:
    """A gate with a store of its own; what lies behind it says who was let in."""

    def __init__(self, home: Path, *, keys: bool = True, tls: bool = False) -> None:
        self.store = Store.open(home / "store.sqlite", create=True)
        self.key, self.secret = self.store.keys.make("somebody", ("predict", "feedback", "admin"))
        self.uploads = Uploads(home / "uploads")

        async def made():
            async def page(scope, receive, send):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.accept"})
                    self.heard = [await receive() for _ in range(2)]
                    return
                await send({"type": "http.response.start", "status": 200, "headers": [(b"x-who", scope["assay.session"].actor.encode()), (b"x-frame-options", b"SAMEORIGIN")]})
                await send({"type": "http.response.body", "body": b"inside"})
            return page

        self.gate = Gate(made, Sessions(Door(self.store, required=keys), self.store), self.uploads, home, lang="en", tls=tls)

    def ask(self, method: str, path: str, *, body: bytes = b"", **headers: str):
        """(status, headers, body)."""
        target, _, query = path.partition("?")
        sent = [(b"host", HOST), *((k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items())]
        scope = {"type": "http", "method": method, "path": target, "query_string": query.encode(), "headers": sent, "client": ("127.0.0.1", 1), "scheme": "http"}
        out: list[dict] = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            out.append(message)

        asyncio.run(self.gate(scope, receive, send))
        return out[0]["status"], dict(out[0]["headers"]), b"".join(m.get("body", b"") for m in out[1:])

    def cookie(self) -> str:
        status, headers, _ = self.ask("POST", "/login", body=b"key=" + self.secret.encode(), origin="http://127.0.0.1:8080")
        assert status == 303
        return headers[b"set-cookie"].decode().partition(";")[0]


@pytest.fixture
def entry(tmp_path):
    return Entry(tmp_path)


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/log"), ("GET", "/page/media/" + "0" * 64), ("GET", "/page/runs/a/report.html"), ("PUT", "/page/upload/x"), ("POST", "/logout"),
                                              ("GET", "/_nicegui/3/static/vue.js"), ("GET", "/_nicegui_ws/socket.io/"), ("DELETE", "/anything")])
def test_without_a_session_nothing_is_seen_and_a_person_is_led_to_the_door(entry, method, path):
    status, _, body = entry.ask(method, path)
    assert status == 401
    assert "Sign in" in json.loads(body)["error"]["sentence"]
    status, headers, _ = entry.ask("GET", path, accept="text/html,*/*")
    assert (status, headers[b"location"].startswith(b"/login")) == (303, True)


def test_the_right_key_opens_and_its_cookie_is_out_of_reach_of_scripts_and_other_sites(entry, tmp_path):
    _, headers, _ = entry.ask("POST", "/login", body=b"key=" + entry.secret.encode(), origin="http://127.0.0.1:8080")
    cookie = headers[b"set-cookie"].decode()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Max-Age=43200" in cookie
    assert "Secure" not in cookie
    assert entry.secret not in cookie
    status, headers, body = entry.ask("GET", "/", cookie=cookie.partition(";")[0])
    assert (status, body, headers[b"x-who"]) == (200, b"inside", f"page:{entry.key.id}".encode())
    assert headers[b"x-frame-options"] == b"DENY"
    assert b"connect-src 'self'" in headers[b"content-security-policy"]
    (tmp_path / "tls").mkdir()
    secure = Entry(tmp_path / "tls", tls=True)
    assert "Secure" in secure.ask("POST", "/login", body=b"key=" + secure.secret.encode(), origin="https://127.0.0.1:8080")[1][b"set-cookie"].decode()


def test_a_wrong_key_is_told_so_and_many_wrong_keys_have_to_wait(entry):
    status, headers, body = entry.ask("POST", "/login", body=b"key=assay_%3Cscript%3E", origin="http://127.0.0.1:8080", accept_language="zh-CN,zh;q=0.9")
    assert status == 401
    assert b"set-cookie" not in headers
    assert b'role="alert"' in body
    assert "登录".encode() in body
    assert b"<script" not in body
    for _ in range(9):
        assert entry.ask("POST", "/login", body=b"key=x", origin="http://127.0.0.1:8080")[0] == 401
    status, headers, _ = entry.ask("POST", "/login", body=b"key=x", origin="http://127.0.0.1:8080")
    assert status == 429
    assert int(headers[b"retry-after"]) >= 1


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "file://127.0.0.1:8080"])
def test_another_site_can_neither_sign_in_nor_change_anything(entry, origin):
    cookie = entry.cookie()
    for method, path in (("POST", "/login"), ("POST", "/logout"), ("PUT", "/page/upload/x"), ("POST", "/anything")):
        assert entry.ask(method, path, body=b"key=" + entry.secret.encode(), origin=origin, cookie=cookie)[0] == 403
    assert entry.ask("GET", "/", cookie=cookie)[0] == 200


def test_a_session_ends_by_signing_out_by_revocation_and_after_twelve_hours(entry, monkeypatch):
    monkeypatch.setattr(times, "LOOK_S", -1.0)
    cookie = entry.cookie()
    assert entry.ask("POST", "/logout", cookie=cookie, origin="http://127.0.0.1:8080")[0] == 303
    assert entry.ask("GET", "/", cookie=cookie)[0] == 401
    cookie = entry.cookie()
    now = times.time.time()
    with monkeypatch.context() as later:
        later.setattr(times.time, "time", lambda: now + 12 * 3600 - 60)
        assert entry.ask("GET", "/", cookie=cookie)[0] == 200
        later.setattr(times.time, "time", lambda: now + 12 * 3600 + 60)
        assert entry.ask("GET", "/", cookie=cookie)[0] == 401
    cookie = entry.cookie()
    entry.store.keys.revoke(entry.key.id)
    assert entry.ask("GET", "/", cookie=cookie)[0] == 401


def test_without_keys_everybody_is_in(tmp_path):
    open_ = Entry(tmp_path, keys=False)
    assert open_.ask("GET", "/")[2] == b"inside"
    assert open_.ask("GET", "/login")[0] == 303


@pytest.mark.parametrize(("theirs", "origin", "welcome"), [(True, "http://127.0.0.1:8080", True), (False, "http://127.0.0.1:8080", False), (True, "http://evil.example", False), (True, None, False)])
def test_a_websocket_belongs_to_the_session_whose_page_opened_it_and_dies_with_it(entry, monkeypatch, theirs, origin, welcome):
    monkeypatch.setattr(times, "LOOK_S", -1.0)
    first, second = entry.cookie(), entry.cookie()
    session = asyncio.run(entry.gate.sessions.find(first.partition("=")[2]))
    client = types.SimpleNamespace(request=types.SimpleNamespace(scope={"assay.session": session}))
    monkeypatch.setitem(sys.modules, "nicegui", types.SimpleNamespace(Client=types.SimpleNamespace(instances={"c1": client})))
    sent: list[dict] = []
    messages = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}, {"type": "websocket.receive", "text": "again"}])

    async def receive():
        message = next(messages)
        if message.get("text") == "again":
            entry.store.keys.revoke(entry.key.id)
        return message

    async def send(message):
        sent.append(message)

    headers = [(b"host", HOST), (b"cookie", (first if theirs else second).encode()), *([(b"origin", origin.encode())] if origin else [])]
    asyncio.run(entry.gate({"type": "websocket", "path": "/_nicegui_ws/socket.io/", "query_string": b"client_id=c1", "headers": headers}, receive, send))
    assert sent[0] == ({"type": "websocket.accept"} if welcome else {"type": "websocket.close", "code": 1008})
    if welcome:
        assert [m["type"] for m in entry.heard] == ["websocket.connect", "websocket.receive"]


@given(st.text(max_size=40) | st.sampled_from(["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "/ok?x=1", "\n/x", "/x\r\nset-cookie: a=b"]))
def test_a_way_back_never_leads_to_another_site(path):
    inside = urlsplit(_inside(path))
    assert (inside.scheme, inside.netloc) == ("", "")
    assert inside.path.startswith("/")
    assert not {"\r", "\n", " "} & set(_inside(path))


@pytest.mark.parametrize("path", ["/page/runs/../store.sqlite", "/page/runs/../../x/report.html", "/page/runs/%2e%2e/report.html", "/page/runs/./report.html", "/page/runs/a/../b/report.html", "/page/media/" + "g" * 64,
                                  "/page/media/../store.sqlite", "/page/runs/ok/case.json", "/page/runs/away/report.html", "/page/runs/ok/report.html\x00"])
def test_only_reports_and_media_are_handed_out_and_no_link_leads_elsewhere(entry, tmp_path, path):
    for name in ("ok", "away"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "runs" / "ok" / "report.html").write_text("<script>1</script>")
    (tmp_path / "runs" / "ok" / "case.json").write_text("{}")
    (tmp_path / "runs" / "away" / "report.html").symlink_to(tmp_path / "store.sqlite")
    cookie = entry.cookie()
    assert entry.ask("GET", path, cookie=cookie)[0] == 404
    status, headers, _ = entry.ask("GET", "/page/runs/ok/report.html", cookie=cookie)
    assert status == 200
    assert headers[b"content-security-policy"].startswith(b"sandbox; default-src 'none'")


def test_reports_and_media_are_for_keys_that_see_such_rows_anyway(entry, tmp_path):
    (tmp_path / "runs" / "ok").mkdir(parents=True)
    (tmp_path / "runs" / "ok" / "report.html").write_text("rows")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / ("a" * 64)).write_bytes(b"\x89PNG")
    report, media = "/page/runs/ok/report.html", "/page/media/" + "a" * 64
    seen = {}
    for scope in ("predict", "feedback", "admin"):
        entry.secret = entry.store.keys.make(scope, (scope,))[1]
        cookie = entry.cookie()
        seen[scope] = [entry.ask("GET", path, cookie=cookie)[0] for path in (report, media)]
    assert seen == {"predict": [403, 403], "feedback": [403, 200], "admin": [200, 200]}


@pytest.mark.parametrize("content", [b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", b"<html>", b"%PDF-1.7", b"MZ", b""])
def test_what_is_no_picture_or_sound_is_a_file_to_keep_and_not_shown(entry, tmp_path, content):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / ("a" * 64)).write_bytes(content)
    status, headers, _ = entry.ask("GET", "/page/media/" + "a" * 64, cookie=entry.cookie())
    assert (status, headers[b"content-type"], headers[b"content-disposition"]) == (200, b"application/octet-stream", b"attachment")
    assert media_kind(b"\x89PNG\r\n") == "image/png"


def test_a_file_is_taken_once_announced_by_its_own_session_of_its_kind_and_size_under_a_random_name(entry, tmp_path):
    cookie, other = entry.cookie(), entry.cookie()
    session = asyncio.run(entry.gate.sessions.find(cookie.partition("=")[2]))
    taken = []

    async def done(path, name):
        taken.append((path, name))

    to = entry.uploads.expect(session, (".csv",), done, most=100)
    assert entry.ask("PUT", to + "?name=..%2F..%2Fetc%2F%3Cimg%3E.CSV", body=b"a,b\n1,2\n", cookie=cookie, content_length="8")[0] == 200
    assert taken[0][0].parent == tmp_path / "uploads"
    assert taken[0][0].read_bytes() == b"a,b\n1,2\n"
    assert taken[0][1] == "<img>.CSV"
    assert entry.ask("PUT", to + "?name=a.exe", cookie=cookie)[0] == 415
    assert entry.ask("PUT", to + "?name=a.csv", body=b"x" * 101, cookie=cookie)[0] == 413
    assert entry.ask("PUT", to + "?name=a.csv", cookie=cookie, content_length="1000")[0] == 413
    assert entry.ask("PUT", to + "?name=a.csv", cookie=other)[0] == 403
    assert entry.ask("PUT", "/page/upload/guess?name=a.csv", cookie=cookie)[0] == 403
    assert len(list((tmp_path / "uploads").iterdir())) == 1, "what was refused is not kept"


@pytest.mark.parametrize("name", ["../store.sqlite", "/etc/passwd", "link.csv", "absent.csv", "", ".", "notes.txt"])
def test_only_a_table_inside_the_folder_data_can_be_named(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "outside.csv").write_text("a\n1\n")
    (tmp_path / "data" / "inside.csv").write_text("a\n1\n")
    (tmp_path / "data" / "notes.txt").write_text("a\n1\n")
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "outside.csv")
    contests = Contests(tmp_path)
    assert contests.named("inside.csv") == (tmp_path / "data" / "inside.csv").resolve()
    with pytest.raises(InputError):
        contests.named(name)


def test_a_half_written_trial_is_not_shown_and_the_others_are(tmp_path):
    from assay.contest.folder import Trial

    line = json.dumps(Trial("linear", "classical", 0, "done", 0, loss=0.5, valid_loss=0.6, seconds=2.0).json())
    (tmp_path / "trials.jsonl").write_text(line + "\n" + line.replace('"split": 0', '"split": 1').replace("0.5", "0.7") + "\n" + line[:40])
    (row,) = _rows(tmp_path / "trials.jsonl", "en")
    assert row[0] == "linear"
    assert row[2:5] == (0.6, 0.6, 4.0)
    assert _rows(tmp_path / "absent", "en") == ()


@given(st.dictionaries(st.sampled_from(["1", "2", "5", "10", "100", "inf"]), st.integers(1, 1000), min_size=1))
def test_a_quantile_of_a_histogram_lies_in_the_step_that_holds_it_and_never_falls(histogram):
    values = [quantile(histogram, q / 20) for q in range(21)]
    assert all(v is not None for v in values)
    assert values == sorted(values)
    limits = [float(k) for k in histogram if k != "inf"]
    assert values[-1] <= max(limits, default=0.0)
    assert quantile({}, 0.5) is None
