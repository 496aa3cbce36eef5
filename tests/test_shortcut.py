"""The short way and the long way through the service answer alike, and the server's protocol stays HTTP whichever is taken."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import Service, bundle, running

from assay.store.store import Store

ROW = {"amount": 120.5, "kind": "hail", "note": "clear case 3"}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("packed") / "claims.assay")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("served") / "home", f"claims={packed}", "--no-page") as found:
        found.post("/v1/predict", {"row": ROW})  # its key is known now
        yield found


def exchange(service: Service, sent: bytes, answers: int, *, pause_s: float = 0.0, parts: int = 1) -> list[tuple[int, dict[str, str], Any]]:
    """(status, head, body) of each answer to these bytes, sent in so many parts over one connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        size = -(-len(sent) // parts)
        for i in range(parts):
            connection.sendall(sent[i * size:(i + 1) * size])
            time.sleep(pause_s)
        out, stream = [], connection.makefile("rb")
        for _ in range(answers):
            told = http.client.HTTPResponse(_Half(stream))  # type: ignore[arg-type]
            told.begin()
            out.append((told.status, dict(told.getheaders()), json.loads(told.read())))
        return out


class _Half:
    """What HTTPResponse wants of a socket."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, _: str) -> Any:
        return _Open(self._stream)


class _Open(io.BufferedIOBase):
    """A stream that stays open when an answer has been read."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def readline(self, size: int | None = -1) -> bytes:
        return self._stream.readline(-1 if size is None else size)

    def read(self, size: int | None = -1) -> bytes:
        return self._stream.read(-1 if size is None else size)

    def readinto(self, into: Any) -> int:
        return self._stream.readinto(into)


def request(service: Service, body: bytes, *, kind: str = "application/json", path: str = "/v1/predict", more: str = "", key: str | None = None, host: str = "127.0.0.1") -> bytes:
    auth = service.key if key is None else key
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{f'Authorization: Bearer {auth}' + chr(13) + chr(10) if auth else ''}{more}\r\n"
    return head.encode() + body


def packed_row(**changes: Any) -> bytes:
    return json.dumps({"row": ROW | changes}).encode()


@pytest.mark.parametrize("body", [
    packed_row(), packed_row(amount="a word"), packed_row(amount=None), packed_row(kind=7), packed_row(more=1), packed_row(claim="C1", paid="yes"), b'{"row": {"amount": 1}}',
    json.dumps({"row": ROW, "model": "claims"}).encode(), json.dumps({"row": ROW, "model": "nobody"}).encode(), json.dumps({"row": ROW, "model": ["claims"]}).encode(),
    json.dumps({"row": ROW, "other": 1}).encode(), json.dumps({"row": [ROW]}).encode(), json.dumps({"rows": [ROW, ROW]}).encode(), json.dumps([ROW]).encode(), b'"row"', b"7", b"", b"{", b'{"row": {"amount": NaN}}',
    b'{"row": {"amount": 1e999, "kind": "hail", "note": "x"}}', b'{"row": {"amount": 99999999999999999999999, "kind": "hail", "note": "x"}}',
    '{"row": {"amount": 3, "kind": "雹", "note": "需要复核"}}'.encode(), b'{"row": {"amount": 3, "kind": "\\ud800", "note": "half"}}', b'{"row": {"amount": true, "kind": "hail", "note": "x"}}'])
def test_both_ways_answer_alike(service: Service, body: bytes) -> None:
    short, long = (exchange(service, request(service, body, kind=kind), 1)[0] for kind in ("application/json", "Application/JSON"))
    for _, _, told in (short, long):
        if isinstance(told, dict):
            told.pop("id", None)
            for answer in told.get("answers", ()):
                answer.pop("id")
    assert short[0] == long[0]
    assert short[2] == long[2]
    assert {k.lower() for k in short[1]} == {k.lower() for k in long[1]}
    assert short[0] < 500


def test_both_ways_look_at_keys_scopes_rates_and_hosts(service: Service) -> None:
    with Store.open(service.home / "store.sqlite", create=False) as store:
        _, labels = store.keys.make("labels", ("feedback",))
        _, slow = store.keys.make("slow", ("predict",), rate=60)
    body = packed_row()
    for kind in ("application/json", "Application/JSON"):
        assert exchange(service, request(service, body, kind=kind, key=""), 1)[0][0] == 401
        assert exchange(service, request(service, body, kind=kind, key="assay_000000000000_" + "A" * 43), 1)[0][0] == 401
        assert exchange(service, request(service, body, kind=kind, key=labels), 1)[0][0] == 403
        assert exchange(service, request(service, body, kind=kind, host="evil.example"), 1)[0][0] == 421
        found = [exchange(service, request(service, body, kind=kind, key=slow), 1)[0] for _ in range(25)]
        assert {status for status, _, _ in found} <= {200, 429}
        refused = next(one for one in found if one[0] == 429)
        assert int({k.lower(): v for k, v in refused[1].items()}["retry-after"]) >= 1
        assert "60" in refused[2]["error"]["sentence"]
    assert "次" in exchange(service, request(service, body, key=slow, more="Accept-Language: zh-CN\r\n"), 1)[0][2]["error"]["sentence"]


def test_both_ways_look_at_the_size_of_a_body(tmp_path: Path, packed: Path) -> None:
    with running(tmp_path / "home", f"claims={packed}", "--no-page", "--max-body", "0.001") as service:
        for kind in ("application/json", "Application/JSON"):
            assert exchange(service, request(service, packed_row(), kind=kind), 1)[0][0] == 200
            assert exchange(service, request(service, packed_row(note="x" * 3000), kind=kind), 1)[0][0] == 413


def test_answers_keep_the_order_of_pipelined_requests_whichever_way_each_takes(service: Service) -> None:
    short, bad = request(service, packed_row()), request(service, packed_row(more=1))
    many = request(service, json.dumps({"rows": [ROW] * 400}).encode())
    found = exchange(service, short + short + many + short + bad + short, 6)
    assert [status for status, _, _ in found] == [200, 200, 200, 200, 422, 200]
    assert ["answers" in told for _, _, told in found] == [False, False, True, False, False, False]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_request_that_comes_in_pieces_is_answered_once(service: Service, parts: int) -> None:
    sent = request(service, packed_row()) * 3
    assert [status for status, _, _ in exchange(service, sent, 3, pause_s=0.05, parts=parts)] == [200] * 3


def test_other_kinds_of_http_are_answered_too(service: Service) -> None:
    body = packed_row()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:10], body[10:])) + b"0\r\n\r\n"
    head = request(service, b"").replace(b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n")
    assert exchange(service, head + chunks, 1)[0][0] == 200
    closing = exchange(service, request(service, body, more="Connection: close\r\n"), 1)[0]
    assert (closing[0], {k.lower(): v for k, v in closing[1].items()}["connection"]) == (200, "close")
    assert exchange(service, request(service, body).replace(b"HTTP/1.1", b"HTTP/1.0"), 1)[0][0] == 200
    assert exchange(service, request(service, body, path="/v1/predict?model=claims"), 1)[0][0] == 200
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        head, rest = request(service, body, more="Expect: 100-continue\r\n").split(b"\r\n\r\n", 1)
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(rest)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_the_short_way_answers_is_counted_and_kept(tmp_path: Path, packed: Path) -> None:
    with running(tmp_path / "home", f"claims={packed}", "--no-page", "--access-log") as service:
        exchange(service, request(service, packed_row()) * 50 + request(service, packed_row(amount="a word")) * 5, 55)
        text = service.get("/metrics").body.decode()
        assert 'assay_requests_total{code="200",model="claims",route="predict"} 50.0' in text
        assert 'assay_requests_total{code="422",model="claims",route="predict"} 5.0' in text
        assert 'assay_request_seconds_count{model="claims",route="predict"} 55.0' in text
        assert 'assay_predictions_total{arm="champion",model="claims",version="1"} 50.0' in text
        assert service.stop() == 0
        log = service.log.read_text()
    assert log.count('"path": "/v1/predict"') == 55
    with Store.open(tmp_path / "home" / "store.sqlite", create=False) as store:
        assert store.predictions.count("claims") == 50
        minutes = store.traffic.between("claims", 0, time.time() + 60)
        assert (sum(m.requests for m in minutes), sum(m.refused for m in minutes), sum(sum(m.histogram.values()) for m in minutes)) == (50, 5, 50)
        assert store.audit.verify()


def test_what_is_plain_takes_the_short_way_and_what_is_not_does_not(tmp_path: Path, packed: Path) -> None:
    from assay.serve.held import Arm, Held
    from assay.serve.server import Options, prepared, service
    from assay.store.home import store_place
    from assay.store.scribe import Scribe

    options, scribe, loaded = Options(bundles=(f"claims={packed}",), home=str(tmp_path / "home"), page=False), Scribe(store_place(tmp_path / "home")), {}
    secret = prepared(options, lambda _: None, scribe, loaded)
    app = service(options, scribe, loaded=loaded)
    head = {b"host": b"localhost:1", b"content-type": b"application/json", b"authorization": f"Bearer {secret}".encode()}

    def ask(body: bytes = packed_row(), **changes: bytes) -> bytes | None:
        return app.at_once([(k, changes.get(k.decode().replace("-", "_"), v)) for k, v in head.items()], body)

    try:
        assert ask() is None, "a key that was never seen has to be looked up"
        app.door.find(head)
        said = ask()
        assert said is not None
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(said.split(b"\r\n\r\n")[1])["model"] == "claims"
        refused = ask(packed_row(amount="a word"))
        assert refused is not None
        assert refused.startswith(b"HTTP/1.1 422 Unprocessable")
        assert ask(json.dumps({"rows": [ROW]}).encode()) is None
        assert ask(content_type=b"text/plain") is None
        assert ask(content_type=b"application/json; charset=utf-8") is not None
        assert ask(host=b"evil.example") is None
        assert ask(authorization=b"Bearer another") is None
        assert ask(packed_row(more=1)) is None
        held = app.shelf.get("claims")
        slow = Arm(held.champion.bundle, held.champion.version, 50.0)
        app.shelf._held = {"claims": Held("claims", replace(held.stage, challenger=2, mode="canary", share=0.5), held.champion, slow)}
        assert [ask() for _ in range(20)] == [None] * 20, "who answers is drawn once, and one of them may be slow"
        app.shelf._held = {"claims": Held("claims", replace(held.stage, challenger=2, mode="shadow", share=0.0), held.champion, slow)}
        assert ask() is not None
        app.writer._fit = 0
        assert ask() is None, "it waits for the writer, and nothing waits here"
    finally:
        app.answering._shadows.shutdown()
        assert app.writer.close()
        app.store.close()


# ---- the protocol alone, with an application that does next to nothing


class Small:
    """Answers GET after a while; POST /v1/predict at once, if it is told to."""

    def __init__(self) -> None:
        self.short = 0

    def at_once(self, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes | None:
        if body == b"fail":
            raise ValueError
        if body != b"short":
            return None
        self.short += 1
        return b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshort"

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        body = (await receive()).get("body", b"")
        await asyncio.sleep(1.6 if scope["method"] == "GET" else 0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (4 + len(body)))]})
        await send({"type": "http.response.body", "body": b"long" + body})


async def served(app: Small, play: Any, **settings: Any) -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, http="assay.serve.patience:Patient", log_level="error", lifespan="on", proxy_headers=False, **settings))
    running_ = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        await play(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await running_


def post(body: bytes) -> bytes:
    return b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def test_a_connection_that_rests_is_closed_and_one_that_works_is_not() -> None:
    app = Small()

    async def play(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(5):  # longer than it may rest, but never at a stretch
            writer.write(post(b"short"))
            assert (await reader.readuntil(b"short")).endswith(b"short")
            await asyncio.sleep(0.4)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")  # takes longer than it may rest
        assert (await reader.readuntil(b"long")).endswith(b"long")
        writer.write(post(b"short"))
        assert (await reader.readuntil(b"short")).endswith(b"short")
        began = time.monotonic()
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert 0.8 < time.monotonic() - began < 3
        writer.close()

    asyncio.run(served(app, play, timeout_keep_alive=1))
    assert app.short == 6


def test_what_fails_at_once_goes_the_long_way() -> None:
    app = Small()

    async def play(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in (b"fail", b"other", b""):
            writer.write(post(body))
            assert (await reader.readuntil(b"long" + body)).endswith(b"long" + body)
        writer.close()

    asyncio.run(served(app, play))
    assert app.short == 0


def test_a_client_that_reads_nothing_fills_no_memory() -> None:
    """Answers of the short way are not awaited; a connection whose answers nobody takes goes the long way, which stops reading."""
    app = Small()

    async def play(port: int) -> None:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", port))
            deaf.setblocking(False)
            many, sent, until = post(b"short") * 200, 0, time.monotonic() + 3
            while time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    sent += deaf.send(many)
                await asyncio.sleep(0)
            assert sent < 40e6

    asyncio.run(served(app, play))
    assert app.short < 400_000
