"""A service with its page on a port of this machine, for tests: three small models, traffic, labels, alarms, drafts, and hostile names among them."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from assay import registry, tasks
from assay.data.dataset import Column, Dataset, Schema
from assay.data.made_media import beside
from assay.data.read_series import read_series
from assay.families.base import Budget, Candidate
from assay.serve.answering import Answering
from assay.serve.app import Service
from assay.serve.auth import Door
from assay.serve.held import Shelf, example_row, served
from assay.serve.metrics import Metrics
from assay.serve.watching import Watching
from assay.ship.bundle import pack
from assay.store.records import Draft, Feedback, Prediction, Traffic, new_id
from assay.store.store import Store
from assay.store.writer import Writer
from assay.watch.monitor import Monitor
from assay.words import say

HOSTILE = "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>${window.hacked=1}`{{window.hacked=1}}"
MODELS = {"churn": "classify", "price": "regress", "load": "forecast", "stripes": "pictures"}
CANDIDATES = {"classify": "linear", "regress": "linear", "forecast": "seasonal_naive", "pictures": "image_features"}


@dataclass
class Made:
    """A service with its models in a folder, and the secrets of its keys by their scope."""

    app: Service
    home: Path
    secrets: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)


def packed(folder: Path, task_name: str, *, seed: int = 0) -> Path:
    kind = tasks.find("classify" if task_name == "pictures" else task_name)
    data = pictures() if task_name == "pictures" else kind.example(seed) if task_name != "forecast" else read_series(pl.DataFrame({
        "day": pl.date_range(date(2026, 1, 1), date(2026, 5, 30), eager=True), "load": [20.0 + 5 * (i % 7) + 0.1 * (i * 37 % 11) for i in range(150)]}), target="load", horizon=7).dataset
    task = kind.of(data)
    candidate = registry.get("assay.families", Candidate, CANDIDATES[task_name])
    model = candidate.build(task, data.schema).fit(data, seed=seed, budget=Budget(seconds=20))
    raw = model.predict(data.asked())
    path = folder / f"{task_name}-{seed}.assay"
    return pack(path, task=task, candidate=candidate, params={}, schema=data.schema, model_folder=model, calibration=task.calibration(task.truth(data), raw),
                facts={"rows": len(data), "rows_fitted": len(data), "name": candidate.name, "loss": {"name": task.loss, "value": 0.412, "low": 0.381, "high": 0.447},
                       "metrics": {"accuracy": {"value": 0.81, "low": 0.77, "high": 0.85}, "auc": {"value": 0.88, "low": 0.84, "high": 0.91}} if task_name == "classify" else {},
                       "verdict": "Not worth it: the best large candidate (mlp) lies 0.012 behind the best small one (linear); what matters is 0.008."},
                reference=data.asked().frame if task.by_rows else None)


def pictures() -> Dataset:
    """48 grey pictures of stripes in two directions."""
    codes = np.arange(48) % 2
    plain = Dataset(pl.DataFrame({"way": [("flat", "steep")[c] for c in codes]}), Schema((Column("way", "category"),), target="way"))
    return beside(plain, "image", codes, name="photo")


def home_with_models(folder: Path) -> Made:
    folder.mkdir(parents=True, exist_ok=True)
    store = Store.open(folder / "store.sqlite", create=True)
    for name, task in MODELS.items():
        version = served(store, folder, name, packed(folder, task))
        store.versions.promote(name, version.version, "cli", "the first one")
    second = served(store, folder, "churn", packed(folder, "classify", seed=1))
    store.versions.challenge("churn", second.version, "shadow")
    shelf = Shelf(store, folder)
    shelf.refresh()
    secrets = {scope: store.keys.make(f"{scope} key", scopes)[1] for scope, scopes in
               {"admin": ("predict", "feedback", "admin"), "predict": ("predict",), "feedback": ("feedback",)}.items()}
    store.keys.make(HOSTILE[:60], ("predict",))
    _filled(store, shelf, folder)
    writer, metrics = Writer(store), Metrics()
    watching = Watching(shelf, store, writer, metrics, every_s=3600.0)
    answering = Answering(shelf, writer, observe=watching.answered)
    watching.answering = answering

    def page(app: Service) -> Any:
        from assay.serve.page import application

        return application(app, folder, lang="en")

    return Made(Service(shelf, store, writer, Door(store), metrics, watching, answering, hosts=("127.0.0.1", "localhost"), page=page), folder, secrets)


def _filled(store: Store, shelf: Shelf, folder: Path) -> None:
    now = time.time()
    bundle = shelf.get("churn").champion.bundle
    predictions = []
    for i in range(30):
        row = example_row(bundle, i) or {}
        text = next(c.name for c in bundle.schema.features if c.kind == "text")
        answer = bundle.predict_one(row)
        asked = row | ({text: HOSTILE} if i == 7 else {})
        doubt = 0.99 if i == 7 else min(1.0, (1 - answer["probability"]) * 1.5)
        predictions.append(Prediction(new_id(), now - 600 + i, "churn", 1, answer, asked, doubt=doubt, ms=1.2, actor="key:x"))
    photo = pictures().frame["photo"][0]
    digest = hashlib.sha256(photo).hexdigest()
    (folder / "media").mkdir()
    (folder / "media" / digest).write_bytes(photo)
    predictions.append(Prediction(new_id(), now - 30, "stripes", 1, {"answer": "flat", "probability": 0.6, "p(flat)": 0.6, "p(steep)": 0.4}, {"photo": {"sha256": digest, "bytes": len(photo)}}, doubt=0.8))
    price = shelf.get("price").champion.bundle
    predictions += [Prediction(new_id(), now - 500 + i, "price", 1, price.predict_one(row), row, ms=1.0, actor="key:x") for i in range(5) if (row := example_row(price, i))]
    histogram = {"1": 60, "2": 25, "5": 10, "20": 4, "100": 1}
    traffic = [Traffic(int(now // 60) - m, "churn", 0, 100 + 10 * (m % 7), m % 5 == 0, m % 3, 180.0, histogram) for m in range(1, 50)]
    store.write(predictions=predictions, feedback=[Feedback("churn", "label", predictions[0].id, bundle.task.classes[0], actor="key:x", note=HOSTILE)], traffic=traffic)
    monitor = Monitor(bundle, store, "churn", 1)
    rows = [r for i in range(120) if (r := example_row(bundle, i))]
    number = next(c.name for c in bundle.schema.features if c.kind == "number")
    monitor.update([r | {number: (r[number] or 0.0) * 1.5 + 20.0} for r in rows], bundle.predict(rows), at=now - 60)
    monitor.flush(now, force=True)
    store.alarms.add("churn", "drift:" + HOSTILE[:40], "warning", say("The column '{column}' has shifted: effect {effect:.2f}.", column=HOSTILE[:50], effect=0.42),
                     {"column": HOSTILE[:50], "effect": 0.42, "low": 0.31, "high": 0.53})
    store.alarms.add("price", "budget_latency", "critical", say("{share:.2%} of the requests of the last {hours:g} h took over {ms:g} ms; {allowed:.2%} may: the budget goes {burn:.1f} times too fast.",
                                                                share=0.2, hours=1, ms=100, allowed=0.01, burn=20.0), {"effect": 20.0})
    store.versions.add(HOSTILE[:64], "0" * 64, f"bundles/{HOSTILE[:30]}.assay", "import", {"name": HOSTILE, "verdict": HOSTILE, "task": HOSTILE, "from": HOSTILE})
    store.drafts.add(Draft(new_id(), now - 60, "churn", f"My bill is wrong. {HOSTILE}", "We are sorry. We shall look at your bill today.\nKind regards"))


class Running:
    """An ASGI application on a port that the system chose; `url`. Ends with the `with` block."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="on", ws="websockets-sansio", timeout_graceful_shutdown=2))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.02)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *reason: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
