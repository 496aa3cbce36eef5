"""`assay demo loop`: a service in a process of its own, real traffic with a planted shift, and the whole way from alarm to promotion and back."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from assay import api
from assay.errors import AssayError, InputError
from assay.report.draw import Axis, frame, line, points, svg, text
from assay.retrain.promotion import act
from assay.retrain.retrain import retrain
from assay.retrain.turned_camera import TARGET, Asked, Replay, replay
from assay.store.store import Store
from assay.words import Text, say

MODEL = "meters"
BATCH = 20  # requests between two looks
LABELLED = 240  # rows that people label after the alarm
SMOOTH = 60  # requests of the moving share of right answers


@dataclass
class Told:
    """What came of it, by the number of the request. right: whether each answer that was handed out was right. page: the HTML file."""

    folder: Path
    shift: int
    right: list[bool] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    events: list[tuple[int, str, Text]] = field(default_factory=list)
    alarm: int | None = None
    labels: int = 0
    promoted: int | None = None
    decision: dict[str, Any] = field(default_factory=dict)
    audit_rows: int = 0
    seconds: float = 0.0

    @property
    def page(self) -> Path:
        return self.folder / "loop.html"

    def share(self, start: int, stop: int | None) -> float:
        return float(np.mean(self.right[start:stop])) if self.right[start:stop] else float("nan")


def loop(*, out: Path | None = None, seed: int = 0, time_s: float = 40.0, lang: str = "en", observe: Callable[[Any], None] = lambda event: None) -> Told:
    """time_s: of each of the two contests. out: a folder that does not exist yet. Raises InputError; AssayError where a step of the loop did not happen."""
    begin = time.monotonic()
    folder = out or api.fresh_folder("loop")
    if folder.exists() and any(folder.iterdir()):
        raise InputError("The folder '{folder}' is not empty. Name another with --out.", folder=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    traffic = replay(seed)
    observe(say("A camera reads digits on meters: {n} scans teach the first model.", n=traffic.training.height))
    taught = folder / "taught.parquet"
    traffic.training.write_parquet(taught)
    first = api.run(taught, target=TARGET, kinds={TARGET: "category"}, time=time_s, seed=seed, lang=lang, out=folder / "first", without=("student",))
    home = folder / "home"
    told = Told(folder, traffic.shift)
    with _served(first.folder.path / "winner.assay", home, lang) as ask, Store.open(home / "store.sqlite", create=False) as store:
        _play(traffic, told, ask, store, home, first.folder.path, time_s, observe)
    with Store.open(home / "store.sqlite", create=False) as store:
        checked = store.audit.verify()
        if checked.first_broken is not None:
            raise AssayError("The audit log does not verify from row {row} on.", row=checked.first_broken)
        told.audit_rows = checked.rows
    told.seconds = time.monotonic() - begin
    told.page.write_text(_page(told, lang), encoding="utf-8")
    (folder / "loop.json").write_text(json.dumps({k: v for k, v in asdict(told).items() if k not in ("folder", "events")} | {
        "events": [{"at": at, "kind": kind, "text": t.to(lang)} for at, kind, t in told.events]}, default=str, ensure_ascii=False), encoding="utf-8")
    return told


def _play(traffic: Replay, told: Told, ask: Callable[..., Any], store: Store, home: Path, run: Path, time_s: float, observe: Callable[[Any], None]) -> None:
    waiting: list[tuple[str, Asked]] = []  # asked, not labelled yet
    challenged = False

    def happened(kind: str, words: Text) -> None:
        told.events.append((len(told.right), kind, words))
        observe(words)

    def label(count: int) -> None:
        items = [{"id": number, "label": one.truth} for number, one in waiting[:count]]
        del waiting[:count]
        for i in range(0, len(items), 200):
            told.labels += ask("POST", "/v1/feedback", {"items": items[i:i + 200]})["kept"]

    for start in range(0, len(traffic.asked), BATCH):
        some = traffic.asked[start:start + BATCH]
        if start <= traffic.shift < start + BATCH:
            happened("shift", say("After {n} requests the camera is turned upside down, under a dimmer lamp. Nobody tells the model.", n=traffic.shift))
        answers = ask("POST", "/v1/predict", {"rows": [a.row for a in some]})
        for one, answer in zip(some, answers["answers"], strict=True):
            told.right.append(str(answer["answer"]) == one.truth)
            told.versions.append(answers["version"])
            waiting.append((answer["id"], one))
        if told.alarm is None:
            time.sleep(0.12)  # so that a check of the watch falls between
            alarms = [a for a in ask("GET", "/v1/alarms")["alarms"] if a["level"] != "info"]
            if alarms:
                told.alarm = len(told.right)
                happened("alarm", say("Alarm after {n} shifted requests: {text}", n=max(0, told.alarm - traffic.shift), text=alarms[0]["text"]))
        elif not challenged and len(told.right) - max(traffic.shift, told.alarm) >= LABELLED:
            waiting[:] = [w for w in waiting if w[1].turned]
            label(LABELLED)
            happened("labels", say("People have labelled {n} of them.", n=told.labels))
            made = retrain(home, MODEL, store=store, data=run, time=time_s, by="cli")
            if made.status != "challenger":
                raise AssayError("Retraining brought no challenger: {text}", text=made.text)
            challenged = True
            happened("challenger", made.text)
            time.sleep(2.0)  # the service looks for a new stage once a second
            waiting.clear()
        elif challenged and told.promoted is None:
            label(len(waiting))
            time.sleep(0.3)  # the challenger's unseen answers are written a moment later
            decision = act(store, MODEL, home=home, by="cli")
            if decision.outcome == "promote":
                told.promoted = len(told.right)
                told.decision = {"gain": decision.gain, "low": decision.low, "labels": decision.labels}
                happened("promoted", decision.text)
                time.sleep(1.5)
    if told.alarm is None or told.promoted is None:
        raise AssayError("The loop did not close: {reason}. The folder '{folder}' holds what happened.", folder=str(told.folder),
                         reason=say("no alarm was raised") if told.alarm is None else say("the challenger was not promoted"))
    ask("POST", f"/v1/models/{MODEL}/rollback", {"reason": "demo"})
    happened("rolled_back", say("Rolled back on command: version {version} answers again.", version=ask("POST", "/v1/predict", {"row": traffic.asked[-1].row})["version"]))


@contextmanager
def _served(bundle: Path, home: Path, lang: str) -> Iterator[Callable[..., Any]]:
    """The service as a user starts it, on a free port of loopback, ended with SIGTERM."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    log = home.parent / "service.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen([sys.executable, "-P", "-m", "assay.cli", "serve", f"{MODEL}={bundle}", "--home", str(home), "--port", str(port), "--no-page", "--check-every", "1", "--lang", "en"],
                                   stdout=out, stderr=out)
    key = ""

    def ask(method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "Accept-Language": lang})
            answer = connection.getresponse()
            raw = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise AssayError("The service refused {path}: {sentence}", path=path, sentence=raw.decode("utf-8", "replace")[:300])
        return json.loads(raw)

    def ready() -> bool:
        if process.poll() is not None:
            raise AssayError("The service did not start: {reason}", reason=log.read_text(encoding="utf-8")[-300:])
        try:
            return bool(ask("GET", "/readyz")["ready"])
        except (OSError, AssayError):
            return False

    try:
        _until(ready)
        found = re.search(r"assay_[0-9a-f]+_[A-Za-z0-9_-]{43}", log.read_text(encoding="utf-8"))
        key = found[0] if found else ""
        log.write_text("", encoding="utf-8")  # the key was for this hour only, and stands in no file
        yield ask
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            raise AssayError("The service did not get ready in {seconds:.0f} seconds.", seconds=seconds)
        time.sleep(0.1)


def sentences(told: Told) -> list[Text]:
    """What came of it, for the terminal and the page."""
    alarm, promoted = told.alarm or 0, told.promoted or 0
    return [
        say("Before the shift {before:.0%} of the answers were right, after it {after:.0%}, and {back:.0%} once version {version} answered.", before=told.share(0, told.shift),
            after=told.share(told.shift, promoted), back=told.share(promoted, None), version=max(told.versions)),
        say("The alarm came {n} requests after the shift, before anybody had labelled a row.", n=max(0, alarm - told.shift)),
        say("Promoted by a test that holds however often one looks: loss {gain:.2f} less a row, at least {low:.2f} less (95 %), from {labels} labelled rows that both had answered.",
            gain=told.decision["gain"], low=told.decision["low"], labels=told.decision["labels"]),
        say("The audit log of {rows} rows verifies. All of it took {seconds:.0f} seconds.", rows=told.audit_rows, seconds=told.seconds),
    ]


def _page(told: Told, lang: str) -> str:
    title = say("From a shift to a promotion, and back").to(lang)
    rows = "".join(f"<p>{escape(s.to(lang))}</p>" for s in sentences(told))
    steps = "".join(f"<tr><td>{at}</td><td>{escape(t.to(lang))}</td></tr>" for at, _, t in told.events)
    request, what = say("Request").to(lang), say("What happened").to(lang)
    return (f'<!doctype html><html lang="{"zh-CN" if lang == "zh" else "en"}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            f"<style>{files('assay.report').joinpath('page.css').read_text(encoding='utf-8')}{_CSS}</style></head><body><main><h1>{title}</h1><section>{rows}{_chart(told, lang)}</section><section><h2>{what}</h2><table><thead><tr><th>{request}</th><th>{what}</th></tr></thead>"
            f"<tbody>{steps}</tbody></table></section></main></body></html>\n")


def _chart(told: Told, lang: str) -> str:
    width, height = 880, 360
    n = len(told.right)
    x, y = Axis(0, n, 60, width - 16), Axis(0.0, 1.0, height - 60, 60)
    known = np.convolve(np.asarray(told.right, dtype=float), np.ones(SMOOTH) / SMOOTH, mode="valid")
    words = {"x": say("Requests").to(lang), "y": say("Share of right answers, moving over {n} requests", n=SMOOTH).to(lang)}
    parts = frame(x, y, words)
    names = {"shift": say("shift"), "alarm": say("alarm"), "challenger": say("challenger"), "promoted": say("promoted")}
    for i, (at, kind, _) in enumerate(e for e in told.events if e[1] in names):
        parts.append(line(x(at), y.start, x(at), y.stop - 8, f"event {kind}"))
        parts.append(text(x(at) + 4, y.stop - 12 - 14 * (i % 3), names[kind].to(lang), "label"))
    parts.append(f'<polyline class="curve" points="{points(x, y, ((i + SMOOTH, float(v)) for i, v in enumerate(known)))}"/>')
    return svg(width, height, parts, words["y"])


_CSS = """main{padding-top:24px;padding-bottom:40px}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td:first-child,th:first-child{text-align:right;font-variant-numeric:tabular-nums}svg .curve{--c:var(--accent)}svg .event{stroke:var(--soft);stroke-width:1.4;stroke-dasharray:4 3}
svg .alarm,svg .shift{stroke:var(--bad)}svg .promoted{stroke:var(--good)}"""
