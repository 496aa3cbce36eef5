"""assay serve: bundles over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.base import HOME, LANG, Home, Lang, StoreOption, app
from assay.words import say


@app.command(name="serve", help=say("Answer over HTTP: predictions, explanations, feedback, a page. Bundles: FILE or NAME=FILE.\n\n"
                                    "assay serve RUN/winner.assay\n\nassay serve churn=a/winner.assay tickets=b/winner.assay --port 9000 --workers 2").to(LANG))
def serve_command(
    bundles: Annotated[list[str] | None, typer.Argument(help=say("Bundles, FILE or NAME=FILE; none: what the home already holds.").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    host: Annotated[str, typer.Option("--host", help=say("Address to listen on (default: loopback only).").to(LANG))] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help=say("Port to listen on.").to(LANG))] = 8080,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help=say("Processes that answer; the page needs a service of one.").to(LANG))] = 1,
    no_keys: Annotated[bool, typer.Option("--no-keys", help=say("Ask for no key; on loopback only.").to(LANG))] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help=say("The API only.").to(LANG))] = False,
    no_rows: Annotated[bool, typer.Option("--no-rows", help=say("Keep answers without the rows that were asked; they cannot teach then.").to(LANG))] = False,
    keep_days: Annotated[float | None, typer.Option("--keep-days", min=0.01, help=say("Remove answers and drafts that are older (default: keep them).").to(LANG))] = None,
    keep_media: Annotated[bool, typer.Option("--keep-media", help=say("Keep the pictures and sounds that were asked, so that they can be labelled.").to(LANG))] = False,
    mask: Annotated[bool, typer.Option("--mask", help=say("Take e-mail addresses, phone, card and identity numbers out of what is kept.").to(LANG))] = False,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help=say("Certificate (PEM) for HTTPS.").to(LANG))] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help=say("Private key (PEM) of the certificate.").to(LANG))] = None,
    oidc_issuer: Annotated[str | None, typer.Option("--oidc-issuer", help=say("Identity provider whose bearer tokens are accepted too.").to(LANG))] = None,
    oidc_audience: Annotated[str, typer.Option("--oidc-audience", help=say("Audience that a token must name.").to(LANG))] = "",
    oidc_jwks: Annotated[str | None, typer.Option("--oidc-jwks", help=say("Its keys: URL or file (default: found through the issuer).").to(LANG))] = None,
    allow_host: Annotated[list[str] | None, typer.Option("--allow-host", help=say("Another name by which the service may be called, may be repeated.").to(LANG))] = None,
    open_metrics: Annotated[bool, typer.Option("--open-metrics", help=say("/metrics without a key.").to(LANG))] = False,
    max_body: Annotated[float, typer.Option("--max-body", min=0.001, help=say("Largest body in MB.").to(LANG))] = 16.0,
    deadline: Annotated[float, typer.Option("--deadline", min=0.1, help=say("Seconds that an answer may take.").to(LANG))] = 30.0,
    drain: Annotated[float, typer.Option("--drain", min=0, help=say("Seconds for requests under way when the service stops.").to(LANG))] = 30.0,
    check_every: Annotated[float, typer.Option("--check-every", min=1, help=say("Seconds between two checks for drift.").to(LANG))] = 60.0,
    webhook: Annotated[str | None, typer.Option("--webhook", help=say("URL that alarms are sent to.").to(LANG))] = None,
    email: Annotated[str | None, typer.Option("--email", help=say("Alarms by e-mail: smtp://[user:password@]host[:port]/?to=a@b.c&from=d@e.f").to(LANG))] = None,
    llm: Annotated[tuple[str, str] | None, typer.Option("--llm", metavar="URL MODEL", help=say("An OpenAI-compatible endpoint and its model, to draft replies.").to(LANG))] = None,
    retrain: Annotated[list[str] | None, typer.Option("--retrain", metavar="MODEL=CRON", help=say("Retrain a model at these times, such as 'churn=0 3 * * 1'; may be repeated.").to(LANG))] = None,
    act: Annotated[bool, typer.Option("--act", help=say("Promote, withdraw and roll back as the test of the labels says, without asking.").to(LANG))] = False,
    log_format: Annotated[str, typer.Option("--log-format", help=say("text or json.").to(LANG))] = "text",
    access_log: Annotated[bool, typer.Option("--access-log", help=say("A line a request: path, status, milliseconds, key id; never bodies or keys.").to(LANG))] = False,
    trace: Annotated[bool, typer.Option("--trace", help=say("OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT.").to(LANG))] = False,
    lang: Lang = LANG,
) -> None:
    if log_format not in ("text", "json"):
        raise typer.BadParameter(say("--log-format is text or json.").to(lang))
    from assay.store.home import store_place
    from assay.store.scribe import Scribe

    scribe = Scribe(store_place(home, store))  # it imports while we do
    from assay.serve.server import Options, serve

    serve(Options(bundles=tuple(bundles or ()), home=str(home), store=store, host=host, port=port, workers=workers, keys=not no_keys, page=not no_page, keep_rows=not no_rows,
                  keep_media=keep_media, mask=mask, tls_cert=str(tls_cert) if tls_cert else None, tls_key=str(tls_key) if tls_key else None, oidc_issuer=oidc_issuer,
                  oidc_audience=oidc_audience, oidc_jwks=oidc_jwks, allow_hosts=tuple(allow_host or ()), open_metrics=open_metrics, max_body_mb=max_body, answer_s=deadline,
                  drain_s=drain, check_s=check_every, webhook=webhook, email=email, log_json=log_format == "json", access_log=access_log, trace=trace, llm=llm or (), retrain=tuple(retrain or ()), acts=act, keep_days=keep_days, lang=lang),
          lambda text: typer.echo(text.to(lang)), scribe)
