"""A service to test: small bundles, a real process, a client that speaks HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay import registry, tasks
from assay.data.dataset import Dataset
from assay.families.base import Budget, Candidate
from assay.ship.bundle import pack
from assay.tasks.base import schema_of

WAIT_S = 60.0


def rows(n: int, seed: int = 0) -> Dataset:
    """Claims: whether they are paid follows from amount, kind and words, with some noise."""
    rng = np.random.default_rng(seed)
    amount = np.round(rng.gamma(2.0, 400.0, n), 2)
    kind = rng.choice(["hail", "theft", "fire"], n)
    paid = (amount < 900) ^ (kind == "theft") ^ (rng.random(n) < 0.05)
    frame = pl.DataFrame({
        "claim": [f"C{i}" for i in range(n)], "amount": amount, "kind": kind,
        "note": [f"{'clear case' if p else '需要复核'} {i % 7}" for i, p in enumerate(paid)], "paid": np.where(paid, "yes", "no")})
    return Dataset(frame, schema_of({"claim": "id", "amount": "number", "kind": "category", "note": "text", "paid": "category"}, target="paid"))


def bundle(path: Path, candidate: str = "linear", *, seed: int = 0, n: int = 300, data: Dataset | None = None, task: str = "classify", reference: bool = True) -> Path:
    """A packed winner, taught in a second."""
    data = rows(n, seed) if data is None else data
    asked = tasks.find(task).of(data)
    found = registry.get("assay.families", Candidate, candidate)
    model = found.build(asked, data.schema).fit(data, seed=seed, budget=Budget(seconds=20))
    calibration = asked.calibration(asked.truth(data), model.predict(data.asked()))
    return pack(path, task=asked, candidate=found, params={}, schema=data.schema, model_folder=model, calibration=calibration,
                facts={"rows": len(data), "rows_fitted": len(data), "name": candidate, "loss": {"name": asked.loss, "value": 0.3, "low": 0.2, "high": 0.4}},
                reference=data.asked().frame if reference else None)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        return str(self.json["error"]["sentence"])


@dataclass
class Service:
    process: subprocess.Popen[str]
    port: int
    key: str
    home: Path
    log: Path
    said: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = "", headers: dict[str, str] | None = None, timeout: float = 30.0) -> Answer:
        """key: '' for the service's own, None for none. A body that is no bytes is sent as JSON."""
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        head = {**({"Content-Type": "application/json"} if raw is not None else {}), **({"Authorization": f"Bearer {key or self.key}"} if key is not None else {}), **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, raw, head)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **options: Any) -> Answer:
        return self.ask("POST", path, body, **options)

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def stop(self, number: int = signal.SIGTERM, wait_s: float = 30.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(wait_s)


@contextmanager
def running(home: Path, *arguments: str | Path, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Iterator[Service]:
    """`assay serve` in a process of its own, ready to answer; ended by SIGTERM if it still runs. cwd: started there by its own command, which does not look there for modules."""
    port, log = free_port(), home.parent / f"{home.name}.log"
    home.parent.mkdir(parents=True, exist_ok=True)
    before = log.read_text(encoding="utf-8") if log.exists() else ""
    with log.open("a", encoding="utf-8") as out:
        call = [sys.executable, "-m", "assay.cli"] if cwd is None else [str(Path(sys.executable).with_name("assay"))]
        process = subprocess.Popen([*call, "serve", *map(str, arguments), "--home", str(home), "--port", str(port)], stdout=out, stderr=out, text=True, cwd=cwd,
                                   env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **(environment or {})})
    service = Service(process, port, "", home, log)
    try:
        until = time.monotonic() + WAIT_S
        while True:
            if process.poll() is not None:
                raise AssertionError(f"the service ended with {process.returncode}: {log.read_text(encoding='utf-8')[len(before):]}")
            try:
                if service.get("/readyz", key=None).status == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > until:
                raise AssertionError(f"not ready in {WAIT_S} s: {log.read_text(encoding='utf-8')[len(before):]}")
            time.sleep(0.05)
        service.said = log.read_text(encoding="utf-8")[len(before):].splitlines()
        found = re.search(r"assay_[0-9a-f]+_[A-Za-z0-9_-]{43}", "\n".join(service.said))
        service.key = found[0] if found else ""
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
