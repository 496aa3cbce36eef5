"""An endpoint on 127.0.0.1 that speaks the protocol and behaves, or misbehaves, as a test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]
Behaviour = Callable[[dict[str, Any], int], Reply]


def completion(text: str, *, logprobs: list[tuple[str, float, list[tuple[str, float]]]] | None = None, usage: bool = True) -> Reply:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        choice["logprobs"] = {"content": [
            {"token": t, "logprob": lp, "top_logprobs": [{"token": a, "logprob": b} for a, b in alts]} for t, lp, alts in logprobs]}
    body: dict[str, Any] = {"model": "stub-1", "choices": [choice]}
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 5}
    return 200, {}, json.dumps(body).encode()


def error(status: int, message: str, **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


def oracle(body: dict[str, Any], n: int) -> Reply:
    """Says 'good' where the row says so, in the form that was asked for."""
    label = "good" if "fine" in body["messages"][-1]["content"] else "bad"
    return completion(json.dumps({"label": label}) if "response_format" in body else label)


class Stub:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour, self.bodies, self.headers, self.most_at_once = behaviour, [], [], 0
        self.at_once, self.lock = 0, threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.bodies.append(body)
                    stub.headers.append(dict(self.headers) | {"path": self.path})
                    n = len(stub.bodies)
                    stub.at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub.at_once)
                status, headers, content = stub.behaviour(body, n)
                with stub.lock:
                    stub.at_once -= 1
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextmanager
def stubbed(behaviour: Behaviour = oracle) -> Iterator[Stub]:
    stub = Stub(behaviour)
    try:
        yield stub
    finally:
        stub.close()
