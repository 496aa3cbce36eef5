"""assay deploy: files with which Docker, Kubernetes, systemd and Grafana run the service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.base import LANG, Lang, app
from assay.words import Text, say

if TYPE_CHECKING:
    from assay.deploy.base import Service, Written

deploy = typer.Typer(name="deploy", no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})


@deploy.callback(help=say("Write what Docker, Kubernetes, systemd or Grafana needs to run assay serve with these bundles.\n\nassay deploy docker RUN/winner.assay -o deploy").to(LANG))
def _deploy(lang: Lang = LANG) -> None:
    """The options of all sub-commands stand with them; the language may stand before."""


app.add_typer(deploy)

Bundles = Annotated[list[str], typer.Argument(help=say("Bundles, FILE or NAME=FILE.").to(LANG))]
Folder = Annotated[Path, typer.Option("--out", "-o", help=say("Folder to write into.").to(LANG))]
Name = Annotated[str | None, typer.Option("--name", help=say("Name of the service (default: assay- and the first model's name).").to(LANG))]
Image = Annotated[str | None, typer.Option("--image", help=say("Name and tag of the image (default: the service's name, tagged by version and bundles).").to(LANG))]
Port = Annotated[int, typer.Option("--port", help=say("Port of the service.").to(LANG))]
Workers = Annotated[int, typer.Option("--workers", min=1, max=256, help=say("Processes that answer, in each replica.").to(LANG))]
StoreUrl = Annotated[str | None, typer.Option("--store", help=say("Address of a database without user and password, such as postgresql://HOST/DATABASE (default: SQLite in the home).").to(LANG))]
Extra = Annotated[list[str] | None, typer.Option("--extra", help=say("Add an extra of assay, such as page, auth, trace or all; may be repeated.").to(LANG))]
OpenMetrics = Annotated[bool, typer.Option("--open-metrics", help=say("/metrics without a key.").to(LANG))]
Unasked = Annotated[bool, typer.Option("--unasked", help=say("Do not load the bundles to see what answering needs; take what their candidates name.").to(LANG))]


@deploy.command(name="docker", help=say("An image: Dockerfile, lock of all packages, list of parts (SBOM), compose.yaml.\n\n"
                                        "assay deploy docker RUN/winner.assay -o deploy && docker compose --project-directory deploy up --build").to(LANG))
def docker_command(
    bundles: Bundles, out: Folder = Path("deploy"), name: Name = None, image: Image = None, port: Port = 8080, workers: Workers = 1, store: StoreUrl = None, extra: Extra = None,
    base: Annotated[str | None, typer.Option("--base", help=say("Image to start from (default: Python of this version on slim Debian).").to(LANG))] = None,
    hashes: Annotated[bool, typer.Option("--hashes", help=say("Ask pip's index for the digest of every package, and let the image take no other.").to(LANG))] = False,
    memory: Annotated[int, typer.Option("--memory", min=64, help=say("Memory that the service may use, in MB.").to(LANG))] = 1024,
    cpus: Annotated[float, typer.Option("--cpus", min=0.1, help=say("Processors that it may use.").to(LANG))] = 2.0,
    open_metrics: OpenMetrics = False, unasked: Unasked = False, lang: Lang = LANG,
) -> None:
    from assay.deploy.docker import docker

    service = _service(bundles, name=name, image=image, port=port, workers=workers, store=store, extra=extra, open_metrics=open_metrics, unasked=unasked)
    _put(out, docker(service, base=base, hashes=hashes, memory_mb=memory, cpus=cpus), lang,
         say("docker build -t {image} {folder}, or docker compose --project-directory {folder} up --build --detach", image=service.image, folder=str(out)))


@deploy.command(name="kubernetes", help=say("Manifests: Deployment, Service, NetworkPolicy, PodDisruptionBudget, autoscaler, kustomization.yaml.\n\n"
                                            "assay deploy kubernetes RUN/winner.assay --image registry/churn:1 --replicas 3 --store postgresql://db/assay -o k8s").to(LANG))
def kubernetes_command(
    bundles: Bundles, out: Folder = Path("kubernetes"), name: Name = None, image: Image = None, port: Port = 8080, workers: Workers = 1, store: StoreUrl = None,
    replicas: Annotated[int, typer.Option("--replicas", help=say("Fewest replicas; more than one needs --store.").to(LANG))] = 1,
    most: Annotated[int | None, typer.Option("--most", min=1, help=say("Most replicas under load (default: four times as many).").to(LANG))] = None,
    memory: Annotated[int, typer.Option("--memory", min=64, help=say("Memory that the service may use, in MB.").to(LANG))] = 1024,
    cpus: Annotated[float, typer.Option("--cpus", min=0.1, help=say("Processors that are reserved for it.").to(LANG))] = 1.0,
    home_gb: Annotated[int, typer.Option("--home-gb", min=1, help=say("Size of the volume for the home, in GB.").to(LANG))] = 5,
    claim: Annotated[str | None, typer.Option("--claim", help=say("A volume claim that is there already, for the home.").to(LANG))] = None,
    service_monitor: Annotated[bool, typer.Option("--service-monitor", help=say("A ServiceMonitor for the Prometheus operator.").to(LANG))] = False,
    open_metrics: OpenMetrics = False, lang: Lang = LANG,
) -> None:
    from assay.deploy.kubernetes import kubernetes

    service = _service(bundles, name=name, image=image, port=port, workers=workers, store=store, replicas=replicas, open_metrics=open_metrics, unasked=True)
    _put(out, kubernetes(service, memory_mb=memory, cpus=cpus, home_gb=home_gb, claim=claim, most=most, service_monitor=service_monitor), lang,
         say("kubectl apply -k {folder} (the image {image} comes from assay deploy docker with the same bundles)", image=service.image, folder=str(out)))


@deploy.command(name="systemd", help=say("A hardened unit for one machine, a timer that retrains, install.sh.\n\nassay deploy systemd RUN/winner.assay -o units && sudo sh units/install.sh").to(LANG))
def systemd_command(
    bundles: Bundles, out: Folder = Path("systemd"), name: Name = None, port: Port = 8080, workers: Workers = 1, store: StoreUrl = None, extra: Extra = None,
    host: Annotated[str, typer.Option("--host", help=say("Address to listen on (default: loopback only).").to(LANG))] = "127.0.0.1",
    memory: Annotated[int, typer.Option("--memory", min=64, help=say("Memory that the service may use, in MB.").to(LANG))] = 2048,
    retrain: Annotated[str, typer.Option("--retrain", help=say("When to retrain, as systemd writes times.").to(LANG))] = "Sun 03:00",
    open_metrics: OpenMetrics = False, unasked: Unasked = False, lang: Lang = LANG,
) -> None:
    from assay.deploy.systemd import systemd

    service = _service(bundles, name=name, port=port, workers=workers, store=store, extra=extra, open_metrics=open_metrics, unasked=unasked)
    _put(out, systemd(service, host=host, memory_mb=memory, retrain=retrain), lang, f"sudo sh {out}/install.sh")


@deploy.command(name="grafana", help=say("A Grafana dashboard and Prometheus alert rules for the metrics of the service.\n\nassay deploy grafana -o grafana").to(LANG))
def grafana_command(
    bundles: Annotated[list[str] | None, typer.Argument(help=say("Bundles whose models are shown first, FILE or NAME=FILE (default: all).").to(LANG))] = None,
    out: Folder = Path("grafana"),
    p99_ms: Annotated[float, typer.Option("--p99-ms", min=1, help=say("Alert where one request in a hundred takes longer, in milliseconds.").to(LANG))] = 500.0,
    errors: Annotated[float, typer.Option("--errors", min=0.01, max=100, help=say("Alert where more of the requests fail, in percent.").to(LANG))] = 1.0,
    lang: Lang = LANG,
) -> None:
    from assay.deploy.bundles import distinct, packed
    from assay.deploy.grafana import grafana

    models = tuple(b.model for b in distinct([packed(spec, answer=False) for spec in bundles])) if bundles else ()
    _put(out, grafana(models=models, p99_s=p99_ms / 1000, errors=errors / 100, lang=lang), lang, f"promtool check rules {out}/alerts.yaml")


def _service(bundles: list[str], *, extra: list[str] | None = None, unasked: bool = False, name: str | None = None, image: str | None = None, port: int = 8080, replicas: int = 1,
             workers: int = 1, store: str | None = None, open_metrics: bool = False) -> Service:
    from assay.deploy.base import service
    from assay.deploy.bundles import distinct, packed

    found = distinct([packed(spec, answer=not unasked) for spec in bundles])
    return service(found, name=name, image=image, port=port, replicas=replicas, workers=workers, store=store, extras=tuple(extra or ()), open_metrics=open_metrics)


def _put(out: Path, written: Written, lang: str, after: Text | str) -> None:
    from assay.deploy.base import put

    for path in put(out, written):
        typer.echo(str(path))
    for note in written.notes:
        typer.echo(say("Note: {note}", note=note).to(lang))
    typer.echo(say("Next: {command}", command=after).to(lang))
