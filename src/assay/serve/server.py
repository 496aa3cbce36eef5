"""`assay serve`: from bundles to a process (or several) that answers, and stops without losing anything."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay.errors import InputError, MissingExtra
from assay.serve.answering import Answering
from assay.serve.app import Limits, Service
from assay.serve.auth import Door
from assay.serve.held import Shelf, example_row, served
from assay.serve.http import Refused
from assay.serve.metrics import Metrics
from assay.serve.replying import Endpoint
from assay.serve.tending import Tending
from assay.serve.watching import Watching, sinks_of
from assay.ship.bundle import Bundle, load
from assay.ship.naming import named
from assay.store.home import home_folder, open_store, store_place
from assay.store.scribe import Scribe
from assay.store.store import Store
from assay.store.tables import tables
from assay.store.writer import Writer
from assay.words import Text, say

log = logging.getLogger("assay.service")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ARENA_MAX = -8  # malloc.h
SWITCH_S = 0.002  # a thread that works beside the requests gives way sooner than after 5 ms; at 0.5 ms both lost time to the changes
_OPTIONS = "ASSAY_SERVICE_OPTIONS"  # of the workers of one service: the path of a file


@dataclass(frozen=True)
class Options:
    """bundles: 'FILE' or 'NAME=FILE'; none: what the home holds. store: URL, None for home/store.sqlite. allow_hosts: further names of the service."""

    bundles: tuple[str, ...] = ()
    home: str = "assay-home"
    store: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    keys: bool = True
    page: bool = True
    keep_rows: bool = True
    keep_media: bool = False
    mask: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    oidc_issuer: str | None = None
    oidc_audience: str = ""
    oidc_jwks: str | None = None
    allow_hosts: tuple[str, ...] = ()
    open_metrics: bool = False
    max_body_mb: float = 16.0
    answer_s: float = 30.0
    drain_s: float = 30.0
    check_s: float = 60.0
    webhook: str | None = None
    email: str | None = None
    log_json: bool = False
    access_log: bool = False
    trace: bool = False
    llm: tuple[str, ...] = ()  # URL, MODEL
    retrain: tuple[str, ...] = ()
    acts: bool = False
    keep_days: float | None = None
    lang: str = "en"


def prepared(options: Options, observe: Callable[[Text], None], scribe: Scribe, loaded: dict[str, Bundle]) -> str | None:
    """Open the store, take the bundles in, make the first key. The secret of that key, or None if there are keys already or none is asked for. loaded: filled, by digest."""
    if options.host not in LOOPBACK and not options.keys:
        raise InputError("Without keys the service answers on loopback only: leave --no-keys out, or --host.")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InputError("--tls-cert and --tls-key go together: the certificate, and its private key.")
    home = home_folder(options.home)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(scribe.opened, create=True)  # there, because a new one takes 11 MB of libraries that are of no use later
        named_ = [(name, path, load(path)) for name, path in map(named, options.bundles)]
        loaded |= {bundle.digest: bundle for _, _, bundle in named_}
        tables()  # a library that takes 0.15 s
        opening.result()
    with open_store(home, options.store) as store:
        for name, path, bundle in named_:
            version = served(store, home, name, path, bundle=bundle)
            stage = store.versions.stage(name)
            if stage is None:
                store.versions.promote(name, version.version, "cli", "the first one")
            elif stage.champion != version.version:
                observe(say("'{model}': version {version} is there, and version {champion} answers. Promote it with: assay promote {model} {version}", model=name,
                            version=version.version, champion=stage.champion))
        if not store.versions.models():
            raise InputError("There is no model to serve. Name a bundle: assay serve RUN/winner.assay")
        store.audit.add("service", "service.start", {"bundles": list(options.bundles), "host": options.host, "port": options.port, "workers": options.workers, "keys": options.keys})
        if not options.keys or any(k.revoked is None for k in store.keys.all()):
            return None
        if options.log_json:  # these lines are collected somewhere, and a key does not belong there
            observe(say("There is no key yet. Make one with: assay keys make --name first --scopes predict,feedback,admin --home {home}", home=options.home))
            return None
        return store.keys.make("first", ("predict", "feedback", "admin"))[1]


def service(options: Options, scribe: Scribe, *, worker: int = 0, shared: Path | None = None, loaded: dict[str, Bundle] | None = None) -> Service:
    """The application of one process, models loaded and warmed up. shared: the folder where several workers leave their counts."""
    home = home_folder(options.home)
    sys.setswitchinterval(SWITCH_S)
    store = open_store(home, options.store)
    shelf = Shelf(store, home, loaded=loaded)
    shelf.refresh()
    metrics = Metrics(shared)
    writer = Writer(scribe, kept=metrics.labelled, owns=True)
    watching = Watching(shelf, store, writer, metrics, sinks=sinks_of(webhook=options.webhook, secret=os.environ.get("ASSAY_WEBHOOK_SECRET"), email=options.email, lang=options.lang),
                        every_s=options.check_s, worker=worker, leads=worker == 0)
    media = None
    if options.keep_media:
        media = home / "media"
        media.mkdir(parents=True, exist_ok=True)
    answering = Answering(shelf, writer, keep_rows=options.keep_rows, mask=options.mask, media=media, observe=watching.answered)
    watching.answering = answering
    tending = Tending(shelf, store, home, acts=options.acts, retrain=options.retrain, keep_days=options.keep_days, store_url=options.store, lang=options.lang) if worker == 0 else None
    tokens = None
    if options.oidc_issuer is not None:
        from assay.serve.oidc import Provider

        tokens = Provider(options.oidc_issuer, options.oidc_audience, jwks=options.oidc_jwks)
    door = Door(store, required=options.keys, tokens=tokens, workers=options.workers)
    hosts = (*LOOPBACK, "[::1]", *options.allow_hosts) if options.host in LOOPBACK or options.allow_hosts else ()
    app = Service(shelf, store, writer, door, metrics, watching, answering, limits=Limits(body=int(options.max_body_mb * 2**20), answer_s=options.answer_s), hosts=hosts,
                  open_metrics=options.open_metrics, tls=options.tls_cert is not None, page=_page(options), tending=tending, language_model=Endpoint(options.llm[0], options.llm[1]) if options.llm else None, mask=options.mask,
                  access_log=options.access_log)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)  # glibc: an arena a thread kept 8 MB more under load
    gc.collect()
    gc.freeze()  # what is loaded stays: it need not be looked through again and again
    gc.set_threshold(50_000, 20, 100)  # a request leaves a few objects for the writer; at 700 they were a collection every hundred requests, 9 us each and the longest answers
    return app


def serve(options: Options, observe: Callable[[Text], None], scribe: Scribe) -> None:
    """Answer until SIGTERM or Ctrl-C; requests under way are answered first. scribe: of the store that the options name; closed at the end."""
    import uvicorn

    loaded: dict[str, Bundle] = {}
    try:
        listening = _bound(options.host, options.port)  # before anything is loaded, and before anybody is told where to ask
        secret = prepared(options, observe, scribe, loaded)
    except BaseException:
        scribe.close()
        raise
    _logging(options)
    common: dict[str, Any] = {
        "host": options.host, "port": options.port, "http": "assay.serve.patience:Patient", "ws": "websockets-sansio" if options.page and options.workers == 1 else "none", "access_log": False,
        "log_config": None, "server_header": False, "date_header": False, "timeout_keep_alive": 75, "timeout_graceful_shutdown": int(options.drain_s), "backlog": 2048, "lifespan": "on",
        "ssl_certfile": options.tls_cert, "ssl_keyfile": options.tls_key, "proxy_headers": False, "loop": "uvloop" if sys.platform != "win32" else "asyncio"}
    if options.workers > 1:
        with tempfile.TemporaryDirectory(prefix="assay-service-") as shared:
            file = Path(shared) / "options.json"
            file.write_text(json.dumps(asdict(options)), encoding="utf-8")
            os.environ[_OPTIONS] = str(file)
            (Path(shared) / "metrics").mkdir()
            _greet(options, secret, observe, loaded)
            loaded.clear()
            scribe.close()  # each worker has one of its own
            listening.close()  # the server opens it again, for all workers
            uvicorn.run("assay.serve.server:_worker", factory=True, workers=options.workers, timeout_worker_healthcheck=30, **common)
        return
    app = _traced(options, service(options, scribe, loaded=loaded))
    server = uvicorn.Server(uvicorn.Config(app, **common))
    _greet(options, secret, observe, loaded)
    loaded.clear()  # a version that no longer answers is not kept for it
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn drains, then raises the signal again: to stop when told is no failure
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket at this address that does not listen yet. Raises InputError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a service that has just stopped leaves the address waiting
        made.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError("The address {host}:{port} could not be opened: another program answers there. Choose another with --port.", host=host, port=port) from None
        raise InputError("The address {host}:{port} could not be opened ({reason}). Choose another with --host or --port.", host=host, port=port, reason=error.strerror or str(error)) from None
    return made


def _worker() -> Any:
    """One of several processes; called by the server in each of them."""
    given: dict[str, Any] = json.loads(Path(os.environ[_OPTIONS]).read_text(encoding="utf-8"))
    settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    options = Options(**settings)
    _logging(options)
    folder = Path(os.environ[_OPTIONS]).parent
    return _traced(options, service(options, Scribe(store_place(options.home, options.store)), worker=_number(folder), shared=folder / "metrics"))


def _traced(options: Options, app: Any) -> Any:
    if not options.trace:
        return app
    from assay.connect.tracing import traced

    return traced(app)


def _number(folder: Path) -> int:
    """0 for the worker that is first, so that one of them judges for all: a lock that the system gives back when a process ends."""
    import fcntl

    for number in range(1024):
        held = os.open(folder / f"worker-{number}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            continue
        return number
    raise RuntimeError("more than 1024 workers")


def _greet(options: Options, secret: str | None, observe: Callable[[Text], None], loaded: dict[str, Bundle]) -> None:
    scheme = "https" if options.tls_cert else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host if options.host not in ("0.0.0.0",) else "127.0.0.1"
    url = f"{scheme}://{host}:{options.port}"
    if options.host not in LOOPBACK and not options.tls_cert:
        observe(say("Keys and rows travel unencrypted: others on the network can read them. Give --tls-cert and --tls-key, or put a proxy with TLS before it."))
    observe(say("Serving at {url}", url=url))
    if secret is not None:
        observe(say("Key (shown this once): {secret}", secret=secret))
    with open_store(options.home, options.store) as store:
        shelf = [(name, store.versions.stage(name)) for name in store.versions.models()]
        if shelf:
            observe(say("Try: {curl}", curl=_curl(options, store, url, shelf[0][0], secret, loaded, several=len(shelf) > 1)))


def _curl(options: Options, store: Store, url: str, name: str, secret: str | None, loaded: dict[str, Bundle], *, several: bool) -> str:
    stage = store.versions.stage(name)
    version = store.versions.get(name, stage.champion) if stage else None
    row = example_row(loaded.get(version.digest) or load(home_folder(options.home) / version.file, verify=False)) if version else None
    key = f" -H 'Authorization: Bearer {secret or 'KEY'}'" if options.keys else ""
    if row is None:
        return f"curl -s{' -k' if options.tls_cert else ''} {url}/v1/schema{key}"
    body = json.dumps({"row": row} | ({"model": name} if several else {}), ensure_ascii=False).replace("'", "'\\''")
    return f"curl -s{' -k' if options.tls_cert else ''} {url}/v1/predict{key} -H 'Content-Type: application/json' -d '{body}'"


def _page(options: Options) -> Callable[[Service], Any] | None:
    import importlib.util

    if not options.page:
        return None

    def made(app: Service) -> Any:
        if options.workers > 1:
            raise Refused(501, "The page needs a service of one process: start it without --workers.")
        if importlib.util.find_spec("nicegui") is None:
            raise MissingExtra("nicegui", extra="page")
        from assay.serve.page import application

        return application(app, home_folder(options.home), lang=options.lang)

    return made


def _logging(options: Options) -> None:
    form = '{"at":"%(asctime)s","level":"%(levelname)s","logger":"%(name)s","message":%(message)r}' if options.log_json else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, stream=sys.stderr, force=True)
    log.setLevel(logging.INFO)
