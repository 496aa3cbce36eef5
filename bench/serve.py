"""`assay serve` against other servers: the same LightGBM model, the same rows, the same client, on loopback, one server at a time, in turns.

Usage: python bench/serve.py [--rounds 3] [--seconds 8] [--connections 16] [--soak 600] [--only assay,onnx] [--json FILE] [--publish]
Needs wrk, and the peers' environments: python bench/peers/setup.py serve-bare serve-mlflow serve-litserve serve-bentoml

Each round starts every server, waits for its first right answer (which is its start), warms it up, asks it with many connections and then with
one, looks at its memory, and stops it. Ratios are of the same round. `assay serve` runs as it is by default: with a key, and every answer
written to its store; no other server does that. All have one worker. Limits: issue 6, "Speed".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
from machine import line, publish

from assay import registry, tasks
from assay.data.dataset import Column, Dataset, Schema
from assay.data.trees import Trees
from assay.families.base import Budget, Candidate
from assay.ship.bundle import load, pack

HERE = Path(__file__).parent
PEERS = Path(os.environ.get("ASSAY_PEERS", Path.home() / ".cache" / "assay-peers"))
COLUMNS, TREES, BODIES = 20, 300, 500
START_S, TOLERANCE = 180.0, 1e-4  # ONNX Runtime's trees compare in float32
LIMITS = {"mlflow": 10.0, "litserve": 2.0, "bentoml": 2.0, "onnx": 0.7}  # of requests a second, from the issue
LUA = """
local bodies, at, made = {}, 0, {}
for body in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = body end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
if os.getenv("BENCH_KEY") ~= "" then wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY") end
function init(_) for i, body in ipairs(bodies) do made[i] = wrk.format(nil, os.getenv("BENCH_PATH"), nil, body) end end
function request() at = at % #made + 1; return made[at] end
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "us": %d, "p50_us": %.0f, "p99_us": %.0f, "max_us": %.0f, "errors": %d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Server:
    """command: of a port. body: what a row is sent as. read: the probability out of an answer. again: another start with what the first one made."""

    name: str
    command: Callable[[int], list[str]]
    path: str = "/"
    body: Callable[[dict[str, float]], Any] = lambda row: {"row": row}
    read: Callable[[Any], float] = lambda said: said["probability"]
    env: dict[str, str] = field(default_factory=dict)
    again: Callable[[int], list[str]] | None = None


def made(folder: Path) -> tuple[Path, list[dict[str, float]]]:
    """The bundle of a fitted model over 20 numbers, and rows to ask."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, COLUMNS)).round(4)
    yes = x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * np.sin(3 * x[:, 3]) + 0.5 * rng.normal(size=len(x)) > 0
    names = [f"x{i}" for i in range(COLUMNS)]
    schema = Schema((*(Column(name, "number") for name in names), Column("y", "category")), target="y")
    data = Dataset(pl.DataFrame(x, schema=names).with_columns(y=pl.Series(np.where(yes, "yes", "no"))), schema)
    task, candidate = tasks.find("classify").of(data), registry.get("assay.families", Candidate, "boosting")
    model = candidate.build(task, schema).fit(data, seed=0, budget=Budget(seconds=float("inf"), passes=TREES, threads=1))
    path = pack(folder / "model.assay", task=task, candidate=candidate, params={}, schema=schema, model_folder=model, calibration={}, facts={"rows": len(data)},
                reference=data.asked().frame)
    model.dump(folder)
    return path, data.asked().frame.tail(BODIES).to_dicts()


def servers(folder: Path, bundle: Path, only: list[str]) -> list[Server]:
    text, onnx, home = str(folder / "boosting.txt"), str(folder / "model.onnx"), str(folder / "home")

    def peer(name: str, tool: str = "python") -> str:
        return str(PEERS / f"serve-{name}" / "bin" / tool)

    def mlflow(port: int) -> list[str]:
        return [peer("mlflow", "mlflow"), "models", "serve", "-m", str(folder / "mlflow"), "--env-manager", "local", "--port", str(port), "--workers", "1"]

    quiet = {"PATH": f"{PEERS / 'serve-mlflow' / 'bin'}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    bare = [peer("bare"), str(HERE / "peers" / "serve_bare.py")]
    ours = [sys.executable, "-m", "assay.cli", "serve"]
    found = [
        Server("assay", lambda port: [*ours, str(bundle), "--home", home, "--port", str(port)], "/v1/predict", read=lambda said: said["p(yes)"],
               again=lambda port: [*ours, "--home", home, "--port", str(port)]),
        Server("empty", lambda port: [*bare, "empty", "-", str(port)], read=lambda said: float("nan")),
        Server("onnx", lambda port: [*bare, "onnx", onnx, str(port)]),
        Server("booster", lambda port: [*bare, "booster", text, str(port)]),
        Server("litserve", lambda port: [peer("litserve"), str(HERE / "peers" / "serve_litserve.py"), text, str(port)], "/predict"),
        Server("bentoml", lambda port: [peer("bentoml", "bentoml"), "serve", "serve_bentoml:Answers", "--port", str(port), "--working-dir", str(HERE / "peers")], "/v1/predict",
               env={"MODEL": text, "BENTOML_DO_NOT_TRACK": "1", "BENTOML_HOME": str(folder / "bento")}),
        Server("mlflow", mlflow, "/invocations", body=lambda row: {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}, read=lambda said: said["predictions"][0],
               env=quiet),
        Server("mlflow-inputs", mlflow, "/invocations", body=lambda row: {"inputs": [list(row.values())]}, read=lambda said: said["predictions"][0], env=quiet),
    ]
    wanted = [server for server in found if not only or server.name in only]
    names = {server.name for server in wanted}
    if "onnx" in names:
        subprocess.run([*bare, "convert", text, onnx], check=True, capture_output=True)
    if names & {"mlflow", "mlflow-inputs"}:
        subprocess.run([peer("mlflow"), str(HERE / "peers" / "serve_mlflow.py"), text, str(folder / "mlflow")], check=True, capture_output=True)
    return wanted


@dataclass
class Running:
    server: Server
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    key: str = ""
    start_s: float = float("nan")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, row: dict[str, float]) -> float:
        head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        asked = urllib.request.Request(self.url + self.server.path, json.dumps(self.server.body(row)).encode(), head)
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return self.server.read(json.load(answer))

    def processes(self) -> list[tuple[str, float]]:
        """(what it is, resident MB) of each process."""
        first = psutil.Process(self.process.pid)
        out = []
        for one in [first, *first.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                out.append((" ".join(one.cmdline()[1:3])[-40:], one.memory_info().rss / 2**20))
        return out

    def cpu_s(self) -> float:
        """Seconds of processor that the server's processes have used."""
        first = psutil.Process(self.process.pid)
        return sum(sum(one.cpu_times()[:2]) for one in [first, *first.children(recursive=True)])


@contextlib.contextmanager
def running(server: Server, folder: Path, row: dict[str, float], *, key: str = "", again: bool = False) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{server.name}.log"
    command = server.again(port) if again and server.again else server.command(port)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "", "ASSAY_CACHE": str(folder / "cache")} | server.env
    begin = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=folder, start_new_session=True)
    it = Running(server, process, port, log, key)
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - begin > START_S:
                raise RuntimeError(f"{server.name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            if server.name == "assay" and not it.key and (said := re.search(r"(assay_\w{16}_\S+|assay_\S+_\S{43})", log.read_text(errors="replace"))):
                it.key = said[1].rstrip("'\"")
            try:
                it.ask(row)
                break
            except urllib.error.HTTPError as error:
                if error.code in (400, 404, 405, 415, 422):
                    raise RuntimeError(f"{server.name} refused a row: {error.code} {error.read()[:500]!r}") from None
            except (OSError, ValueError):
                pass
            time.sleep(0.01)
        it.start_s = time.perf_counter() - begin
        yield it
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wrk(it: Running, folder: Path, rows: list[dict[str, float]], *, connections: int, seconds: float) -> dict[str, float]:
    bodies, script = folder / f"{it.server.name}.bodies", folder / "ask.lua"
    bodies.write_text("".join(json.dumps(it.server.body(row)) + "\n" for row in rows))
    script.write_text(LUA)
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script), it.url], capture_output=True, text=True, check=True,
                          env=os.environ | {"BENCH_BODIES": str(bodies), "BENCH_KEY": it.key, "BENCH_PATH": it.server.path})
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"per_s": found["requests"] / found["us"] * 1e6}


def model_call_us(folder: Path, rows: list[dict[str, float]]) -> tuple[float, float]:
    """(LightGBM's own Booster.predict, its C call as a bundle makes it) of one row: medians of 2,000."""
    import lightgbm

    booster, trees = lightgbm.Booster(model_file=str(folder / "boosting.txt")), Trees.read(folder / "boosting.txt")
    x = np.array([list(row.values()) for row in rows])

    def median(call: Callable[[int], object]) -> float:
        taken = []
        for i in range(2200):
            begin = time.perf_counter()
            call(i % len(x))
            taken.append(time.perf_counter() - begin)
        return float(np.median(taken[200:]) * 1e6)

    return median(lambda i: booster.predict(x[i : i + 1], num_threads=1)), median(lambda i: trees.row(x[i]))


def one_round(all_: list[Server], folder: Path, rows: list[dict[str, float]], truth: np.ndarray, given: argparse.Namespace) -> list[dict[str, Any]]:
    out = []
    for server in all_:
        shutil.rmtree(folder / "home", ignore_errors=True)
        first_s, key = None, ""
        if server.again:
            with running(server, folder, rows[0]) as it:
                first_s, key = it.start_s, it.key
        with running(server, folder, rows[0], key=key, again=True) as it:
            worst = max(abs(it.ask(row) - said) for row, said in zip(rows[:20], truth, strict=False)) if server.name != "empty" else 0.0
            if worst > TOLERANCE:
                raise RuntimeError(f"{server.name} answers otherwise than the model: by {worst:.2g}")
            wrk(it, folder, rows, connections=given.connections, seconds=2)
            used = it.cpu_s()
            many = wrk(it, folder, rows, connections=given.connections, seconds=given.seconds)
            many["cpu_us"] = (it.cpu_s() - used) / max(many["requests"], 1) * 1e6  # also right on a machine that others use
            alone = wrk(it, folder, rows, connections=1, seconds=given.seconds / 2)
            memory = it.processes()
        out.append({"server": server.name, "start_s": it.start_s, "first_start_s": first_s, "many": many, "alone": alone, "memory": memory, "worst_difference": worst})
        print(f"{server.name:13} start {it.start_s:6.2f} s  {many['per_s']:8.0f}/s  p50 {many['p50_us'] / 1000:6.2f}  p99 {many['p99_us'] / 1000:7.2f} ms  errors {many['errors'] + alone['errors']}  "
              f"cpu {many['cpu_us']:5.0f} us  "
              f"alone p50 {alone['p50_us']:6.0f} us  {sum(mb for _, mb in memory):5.0f} MB in {len(memory)}", flush=True)
    return out


def soak(server: Server, folder: Path, rows: list[dict[str, float]], given: argparse.Namespace) -> dict[str, Any]:
    """Memory under load, every 5 s: what it ends with, and how fast the last four fifths rise."""
    shutil.rmtree(folder / "home", ignore_errors=True)
    asked: dict[str, float] = {"requests": 0, "errors": 0}
    with running(server, folder, rows[0]) as it:
        points, begin = [], time.monotonic()
        while time.monotonic() - begin < given.soak:
            found = wrk(it, folder, rows, connections=given.connections, seconds=5)
            asked = {name: asked[name] + found[name] for name in asked}
            points.append((time.monotonic() - begin, sum(mb for _, mb in it.processes())))
    t, mb = np.array(points).T
    late = t > 0.2 * t[-1]
    slope = float(np.polyfit(t[late] / 60, mb[late], 1)[0]) if late.sum() > 2 else float("nan")
    return {"seconds": t[-1], "first_mb": mb[0], "last_mb": mb[-1], "most_mb": mb.max(), "mb_a_minute": slope, **asked, "mb": mb.round(1).tolist()}


def drawn(rounds: list[list[dict[str, Any]]], calls: tuple[float, float], soaked: dict[str, Any] | None, given: argparse.Namespace) -> None:
    by = {server["server"]: [next(s for s in r if s["server"] == server["server"]) for r in rounds] for server in rounds[0]}

    def each(values: list[float], form: str) -> str:
        return " ".join(format(v, form) for v in values)

    table = []
    for name, runs in by.items():
        memory = runs[-1]["memory"]
        table.append([name, each([r["many"]["per_s"] for r in runs], ".0f"), each([r["many"]["p50_us"] / 1000 for r in runs], ".2f"), each([r["many"]["p99_us"] / 1000 for r in runs], ".2f"),
                      sum(int(r["many"]["errors"] + r["alone"]["errors"]) for r in runs), each([r["many"]["cpu_us"] for r in runs], ".0f"), each([r["alone"]["p50_us"] for r in runs], ".0f"), each([r["start_s"] for r in runs], ".2f"),
                      f"{sum(mb for _, mb in memory):.0f} ({'+'.join(f'{mb:.0f}' for _, mb in memory)})"])
    after = []
    ours = by.get("assay")
    if ours:
        for name, least in LIMITS.items():
            if name in by:
                ratios = [a["many"]["per_s"] / b["many"]["per_s"] for a, b in zip(ours, by[name], strict=True)]
                tails = [a["many"]["p99_us"] / b["many"]["p99_us"] for a, b in zip(ours, by[name], strict=True)]
                costs = [b["many"]["cpu_us"] / a["many"]["cpu_us"] for a, b in zip(ours, by[name], strict=True)]
                after.append(f"- {np.median(ratios):.2f} times the requests a second of {name} (each round: {each(ratios, '.2f')}; wanted: {least:g}), p99 {np.median(tails):.2f} times, "
                             f"requests per second of processor {np.median(costs):.2f} times ({each(costs, '.2f')})")
        if "empty" in by:
            for what, call in zip(("LightGBM's Booster.predict", "its C call"), calls, strict=True):
                ratios = [a["alone"]["p50_us"] / (b["alone"]["p50_us"] + call) for a, b in zip(ours, by["empty"], strict=True)]
                after.append(f"- One row alone: {np.median(ratios):.2f} times an empty ASGI request plus {what} of {call:.0f} us (each round: {each(ratios, '.2f')}; wanted: under 2)")
        after.append(f"- A new home is ready after {each([r['first_start_s'] for r in ours], '.2f')} s, an old one after {each([r['start_s'] for r in ours], '.2f')} s (wanted: under 1.5)")
    if soaked:
        after.append(f"- Memory over {soaked['seconds']:.0f} s of load ({soaked['requests']:,.0f} requests, {soaked['errors']:.0f} errors): {soaked['first_mb']:.0f} MB after 5 s, "
                     f"{soaked['last_mb']:.0f} MB at the end, at most {soaked['most_mb']:.0f} MB; {soaked['mb_a_minute']:+.2f} MB a minute over the last four fifths")
    about = (f"`python bench/serve.py`: one LightGBM model ({TREES} trees, {COLUMNS} numbers), rows as JSON, wrk with {given.connections} connections for {given.seconds:g} s and with one for "
             f"{given.seconds / 2:g} s, loopback, one worker each, n = {given.rounds} rounds in turns, every value shown. `assay` checks a key and writes every answer to its store; "
             "`onnx` and `booster` are one bare ASGI function around ONNX Runtime and LightGBM, `empty` around nothing; `mlflow` is asked with named columns, as its documents do, "
             "`mlflow-inputs` with bare numbers.")
    head = ["server", "requests/s", "p50 ms", "p99 ms", "errors", "CPU us/request", "alone p50 us", "start s", "RSS MB (a process)"]
    if given.publish:
        publish("serve", about, head, table, after="\n".join(after))
    else:
        print(line(), about, *(" | ".join(map(str, row)) for row in (head, *table)), *after, sep="\n")


def main() -> None:
    takes = argparse.ArgumentParser()
    takes.add_argument("--rounds", type=int, default=3)
    takes.add_argument("--seconds", type=float, default=8)
    takes.add_argument("--connections", type=int, default=16)
    takes.add_argument("--soak", type=float, default=0)
    takes.add_argument("--only", default="")
    takes.add_argument("--json", type=Path)
    takes.add_argument("--publish", action="store_true", help="write the table to docs/benchmarks.md")
    given = takes.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("This benchmark asks with wrk. Install it: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="assay-serve-") as place:
        folder = Path(place)
        bundle, rows = made(folder)
        os.environ["ASSAY_CACHE"] = str(folder / "cache")
        known = load(bundle)
        truth = np.array([known.predict_one(row)["p(yes)"] for row in rows[:20]])
        wanted = servers(folder, bundle, [name for name in given.only.split(",") if name])
        calls = model_call_us(folder, rows)
        rounds = [one_round(wanted, folder, rows, truth, given) for _ in range(given.rounds)]
        soaked = soak(next(s for s in wanted if s.name == "assay"), folder, rows, given) if given.soak else None
        if given.json:
            given.json.write_text(json.dumps({"machine": line(), "model_call_us": calls, "rounds": rounds, "soak": soaked}, indent=1))
        drawn(rounds, calls, soaked, given)


if __name__ == "__main__":
    main()
