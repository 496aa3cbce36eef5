"""What every kind of deployment shares: the service as it was asked for, and how its files are written."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from assay import __version__
from assay.deploy.bundles import Packed
from assay.deploy.names import PORT
from assay.errors import InputError
from assay.words import Text

_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,29}[a-z0-9])?")  # a DNS label, and at most 31 characters: so long may the name of a user be
_IMAGE = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?")
_DIALECTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306}


@dataclass(frozen=True)
class Service:
    """One `assay serve`: its name, its bundles, where it listens and where it keeps what it learns.

    image: name:tag of the container. open_metrics: /metrics asks for no key. store: None for SQLite in the home folder, else the database's address without user and password.
    """

    name: str
    bundles: tuple[Packed, ...]
    image: str
    port: int = PORT
    replicas: int = 1
    workers: int = 1
    store: Store | None = None
    extras: tuple[str, ...] = ()
    open_metrics: bool = False

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": "assay", "app.kubernetes.io/instance": self.name}


@dataclass(frozen=True)
class Store:
    """Where a database answers; who asks it, and by which password, stands in no file."""

    dialect: str
    host: str
    port: int
    database: str


@dataclass(frozen=True)
class Written:
    """Files of a deployment, path in the folder -> content; `notes` are said to whoever asked for them."""

    files: dict[str, str | bytes]
    notes: list[Text] = field(default_factory=list)


def service(bundles: list[Packed], *, name: str | None = None, image: str | None = None, port: int = PORT, replicas: int = 1, workers: int = 1,
            store: str | None = None, extras: tuple[str, ...] = (), open_metrics: bool = False) -> Service:
    """The service with what was left open filled in: its name from the first bundle, the tag of its image from the digests.

    Raises InputError for a name that Kubernetes or systemd would refuse, for several replicas on SQLite, and for a password in `store`.
    """
    name = name if name is not None else _named(bundles)
    if not _NAME.fullmatch(name):
        raise InputError("'{name}' cannot be the name of a service: at most 31 lower-case letters, digits and dashes that begin with a letter. Name it: --name NAME", name=name)
    image = image or f"{name}:{__version__}-{_tag(bundles)}"
    if not _IMAGE.fullmatch(image):
        raise InputError("'{image}' cannot be the name of an image: expected [registry/]name[:tag], in lower case. Name it: --image NAME:TAG", image=image)
    if not 1024 <= port <= 65535:
        raise InputError("The port {port} is not between 1024 and 65535: below that it takes rights that the service does not have. Choose another: --port 8080", port=port)
    where = _store(store) if store else None
    if replicas < 1:
        raise InputError("A service has at least one replica, not {n}.", n=replicas)
    if replicas > 1 and where is None:
        raise InputError("{n} replicas cannot share SQLite: it is one file, for the processes of one machine. Give them a database: --store postgresql://HOST/DATABASE, "
                         "or run one replica with more --workers.", n=replicas)
    if where is not None:
        extras = tuple(dict.fromkeys((*extras, "store")))
    return Service(name, tuple(bundles), image, port, replicas, workers, where, extras, open_metrics)


def put(folder: Path, written: Written) -> list[Path]:
    """Write the files, each in one step (temporary file, rename), and return their paths. Equal input gives equal bytes."""
    out = []
    for name, content in written.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode("utf-8") if isinstance(content, str) else content
        handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
            os.chmod(made, 0o755 if name.endswith(".sh") else 0o644)
            os.replace(made, path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise
        out.append(path)
    return out


def _named(bundles: list[Packed]) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", bundles[0].model.lower()).strip("-")[:25] if bundles else ""
    return f"assay-{stem.strip('-')}".strip("-")


def _tag(bundles: list[Packed]) -> str:
    import hashlib

    return hashlib.sha256("".join(b.digest for b in bundles).encode()).hexdigest()[:12]


def _store(url: str) -> Store:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError("'{url}' is not the address of a database. Expected: postgresql://HOST[:PORT]/DATABASE or mysql://HOST[:PORT]/DATABASE", url="...") from None
    dialect = parts.scheme.partition("+")[0]
    if parts.password is not None:
        raise InputError("The address of the store has a password in it, and these files are kept and shared. Give it without: --store {url}; "
                         "the whole address goes into a secret, as is said afterwards.", url=f"{parts.scheme}://{parts.hostname}{parts.path}")
    if dialect not in _DIALECTS or not parts.hostname or not parts.path.strip("/"):
        raise InputError("'{url}' is not the address of a database. Expected: postgresql://HOST[:PORT]/DATABASE or mysql://HOST[:PORT]/DATABASE", url=url)
    return Store({"postgres": "postgresql", "mariadb": "mysql"}.get(dialect, dialect), parts.hostname, port or _DIALECTS[dialect], parts.path.strip("/"))
