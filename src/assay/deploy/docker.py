"""A small image: the packages of one bundle, no tools to build with, a user without rights, a root that nobody writes to."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import packages_distributions
from string import Template

from assay import __version__
from assay.deploy.base import Service, Written
from assay.deploy.bundles import left_out
from assay.deploy.lock import Pin, hashed, local_notes, pins, text
from assay.deploy.names import BUNDLES, CACHE, DRAIN_S, ENVIRONMENT, HOME, STOP_S, STORE_VARIABLE, USER
from assay.deploy.sbom import sbom
from assay.deploy.wheel import Wheel, wheel
from assay.deploy.yaml import written
from assay.words import Text, say

# lightgbm's wheel needs the OpenMP library of the system, which the slim image lacks; all others bring theirs
SYSTEM = {"lightgbm": "libgomp1"}

_DOCKERFILE = Template('''\
# syntax=docker/dockerfile:1
# Made by assay $assay for: $models
# The base is pinned by its version. To pin it by its bytes, give its digest:
#   docker buildx imagetools inspect $base
#   docker build --build-arg PYTHON_IMAGE=$base@sha256:DIGEST -t $image .
ARG PYTHON_IMAGE=$base

FROM $${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# An index of your own, if need be: docker build --build-arg PIP_INDEX_URL=... --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv --without-pip $environment
COPY requirements.lock /build/
# --no-deps: the lock is complete; nothing else may come in
RUN pip --python $environment/bin/python install --no-deps$checked -r /build/requirements.lock
COPY wheels/ /build/wheels/
RUN pip --python $environment/bin/python install --no-deps --no-index /build/wheels/$wheel \\
 && pip --python $environment/bin/python check

FROM $${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="$name" \\
      org.opencontainers.image.description="assay serve: $models" \\
      org.opencontainers.image.version="$tag" \\
      org.opencontainers.image.base.name="$base" \\
      assay.version="$assay" \\
      assay.bundles="$digests"
$system# A number, not a name: Kubernetes' runAsNonRoot has to see that it is not 0. Nothing is installed any more: pip goes
RUN python -m pip uninstall --yes --quiet pip setuptools wheel \\
 && groupadd --gid $user assay \\
 && useradd --uid $user --gid $user --no-create-home --home-dir $home --shell /usr/sbin/nologin assay \\
 && install -d -o $user -g $user -m 0700 $home $cache
COPY --from=build $environment $environment
COPY --chmod=0444 bundles/ $bundles_at/
COPY --chmod=0444 sbom.cdx.json /usr/share/doc/assay/
# bytecode was written while building; afterwards the root is read-only
ENV PATH=$environment/bin:$$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 \\
    HOME=$home ASSAY_HOME=$home ASSAY_CACHE=$cache
USER $user:$user
WORKDIR $home
VOLUME ["$home", "$cache"]
EXPOSE $port
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \\
  CMD ["$environment/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/healthz', timeout=4)"]
ENTRYPOINT ["assay", "serve"]
CMD $arguments
''')

_IGNORED = '''\
# nothing but what the Dockerfile copies
*
!requirements.lock
!wheels/
!bundles/
!sbom.cdx.json
'''


def docker(service: Service, *, base: str | None = None, hashes: bool = False, memory_mb: int = 1024, cpus: float = 2.0) -> Written:
    """Dockerfile, .dockerignore, compose.yaml, requirements.lock, the wheel of this assay, the bundles and the parts list of the image.

    base: the image to start from; by default Python of the version that runs here on Debian's slim image. hashes: ask pip's index for the
    digest of every file. memory_mb, cpus: limits in compose.yaml.
    """
    made = wheel()
    found = parts(service, made)
    if hashes:
        found = hashed(found)
    image = base or f"python:{'.'.join(map(str, sys.version_info[:3]))}-slim-bookworm"
    files: dict[str, str | bytes] = {
        "Dockerfile": dockerfile(service, found, made, image), ".dockerignore": _IGNORED, "compose.yaml": compose(service, memory_mb=memory_mb, cpus=cpus),
        "requirements.lock": text(found), f"wheels/{made.file}": made.content, "sbom.cdx.json": sbom(service, found, made, image)}
    files |= {f"bundles/{bundle.file}": bundle.path.read_bytes() for bundle in service.bundles}
    notes = [*missing(service, found), *local_notes(found)]
    if service.store is not None:
        notes.append(say("The address of the store, with user and password, goes into the file store.env beside compose.yaml, which only you may read: "
                         "{variable}={dialect}://USER:PASSWORD@{host}:{port}/{database}", variable=STORE_VARIABLE, dialect=service.store.dialect,
                         host=service.store.host, port=service.store.port, database=service.store.database))
    return Written(files, notes)


def parts(service: Service, made: Wheel) -> tuple[Pin, ...]:
    """The packages that these bundles need: measured where they could be asked, else those that their cards name."""
    modules: set[str] = set()
    for bundle in service.bundles:
        modules |= set(bundle.needs if bundle.imports is None else bundle.imports)
    return pins(made.requires, extras=service.extras, modules=sorted(modules))


def missing(service: Service, found: tuple[Pin, ...]) -> list[Text]:
    """What was needed to train and is not in the image, a sentence a bundle."""
    there = {pin.name for pin in found}
    brought = packages_distributions()
    inside = {module for module, names in brought.items() if any(re.sub(r"[-_.]+", "-", n).lower() in there for n in names)}
    return [note for bundle in service.bundles if (note := left_out(bundle, inside)) is not None]


def arguments(service: Service, *, host: str = "0.0.0.0", folder: str = BUNDLES) -> list[str]:
    """What `assay serve` is started with; by default inside a container. The address of a store comes by the environment, where no list of processes shows it."""
    return [*(f"{bundle.model}={folder}/{bundle.file}" for bundle in service.bundles), "--host", host, "--port", str(service.port), "--log-format", "json",
            "--drain", str(DRAIN_S), *(["--workers", str(service.workers)] if service.workers > 1 else []), *(["--open-metrics"] if service.open_metrics else [])]


def dockerfile(service: Service, found: tuple[Pin, ...], made: Wheel, base: str) -> str:
    packages = sorted({SYSTEM[pin.name] for pin in found if pin.name in SYSTEM})
    system = ""
    if packages:
        system = ("# no version: Debian deletes the old one where a security fix takes its place\n# hadolint ignore=DL3008\n"
                  f"RUN apt-get update \\\n && apt-get install --yes --no-install-recommends {' '.join(packages)} \\\n && rm -rf /var/lib/apt/lists/*\n")
    return _DOCKERFILE.substitute(
        assay=__version__, models=", ".join(b.model for b in service.bundles), base=base, image=service.image, environment=ENVIRONMENT, wheel=made.file, name=service.name,
        checked=" --require-hashes" if all(pin.hashes for pin in found) else "", tag=service.image.rpartition(":")[2], digests=" ".join(b.digest for b in service.bundles),
        system=system, user=USER, home=HOME, cache=CACHE, bundles_at=BUNDLES, port=service.port, arguments=json.dumps(arguments(service)))


def compose(service: Service, *, memory_mb: int, cpus: float) -> str:
    one: dict[str, object] = {
        "image": service.image, "build": {"context": ".", "args": {"PIP_INDEX_URL": None, "PIP_EXTRA_INDEX_URL": None}},
        "ports": [f"127.0.0.1:{service.port}:{service.port}"],  # the host itself only: put a proxy with TLS before it
        "read_only": True, "tmpfs": ["/tmp:size=256m,mode=1777,noexec,nosuid,nodev"], "volumes": [f"home:{HOME}", f"cache:{CACHE}"],
        "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "user": f"{USER}:{USER}", "init": True, "restart": "unless-stopped",
        "stop_grace_period": f"{STOP_S}s", "pids_limit": 512, "mem_limit": f"{memory_mb}m", "memswap_limit": f"{memory_mb}m", "cpus": cpus,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
    }
    if service.store is not None:
        one["env_file"] = ["store.env"]
    return ("# docker compose up --build --detach\n" + written({"name": service.name, "services": {"assay": one}, "volumes": {"home": {}, "cache": {}}}))
