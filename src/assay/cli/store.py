"""assay keys, audit, models, promote, rollback: what the service remembers, from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.base import HOME, LANG, Home, Lang, StoreOption, app
from assay.words import Text, say

if TYPE_CHECKING:
    from assay.store.records import Stage

Json = Annotated[bool, typer.Option("--json", help=say("Print json instead; nothing else goes to standard output.").to(LANG))]
Reason = Annotated[str, typer.Option("--reason", help=say("Why, for the audit log.").to(LANG))]


@app.command(name="keys", help=say("The service's keys: list, make, revoke ID, rotate ID. A secret is shown once and not kept.\n\n"
                                   "assay keys make --name shop --scopes predict,feedback --ttl 90d --rate 600").to(LANG))
def keys_command(
    action: Annotated[str, typer.Argument(help=say("list, make, revoke or rotate.").to(LANG))] = "list",
    id: Annotated[str | None, typer.Argument(help=say("The key to revoke or rotate.").to(LANG))] = None,
    name: Annotated[str, typer.Option("--name", help=say("make: whose key it is.").to(LANG))] = "",
    scopes: Annotated[str, typer.Option("--scopes", help=say("make: of predict, feedback, admin; with commas.").to(LANG))] = "predict,feedback",
    ttl: Annotated[str | None, typer.Option("--ttl", help=say("make: how long it is good for, such as 12h or 90d (default: until it is revoked).").to(LANG))] = None,
    rate: Annotated[int | None, typer.Option("--rate", min=1, help=say("make: most requests a minute (default: no limit).").to(LANG))] = None,
    grace: Annotated[str, typer.Option("--grace", help=say("rotate: how long the old key still works, such as 1h.").to(LANG))] = "0",
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    from dataclasses import asdict

    from assay.store.home import open_store

    _one_of(action, ("list", "make", "revoke", "rotate"), lang)
    if action in ("revoke", "rotate") and id is None:
        raise typer.BadParameter(say("Name the key: assay keys {action} ID. See: assay keys list", action=action).to(lang))
    with open_store(home, store, create=action == "make") as opened:
        if action == "list":
            keys = opened.keys.all()
            if as_json:
                return _print([asdict(k) for k in keys])
            return _table(lang, [say("id"), say("name"), say("scopes"), say("made"), say("good until"), say("a minute")],
                          [[k.id, k.name, " ".join(k.scopes), _when(k.made), _until(k), k.rate or "–"] for k in keys])
        if action == "revoke":
            key = opened.keys.revoke(str(id))
            return _print(asdict(key)) if as_json else typer.echo(say("The key '{id}' opens nothing from now on.", id=key.id).to(lang))
        if action == "make":
            key, secret = opened.keys.make(name, [s.strip() for s in scopes.split(",") if s.strip()], _duration(ttl) if ttl else None, rate)
        else:
            key, secret = opened.keys.rotate(str(id), 0.0 if grace in ("0", "0s") else _duration(grace))
    if as_json:
        return _print(asdict(key) | {"secret": secret})
    typer.echo(say("The key '{id}' for {scopes}. Its secret is shown this once:", id=key.id, scopes=list(key.scopes)).to(lang), err=True)
    return typer.echo(secret)


@app.command(name="audit", help=say("The audit log: verify, show, anchor. An anchor kept elsewhere proves later that nothing before it was rewritten or cut off.\n\n"
                                    "assay audit verify").to(LANG))
def audit_command(
    action: Annotated[str, typer.Argument(help=say("verify, show or anchor.").to(LANG))] = "verify",
    limit: Annotated[int, typer.Option("--limit", min=1, help=say("show: how many rows, the newest.").to(LANG))] = 20,
    anchor: Annotated[str | None, typer.Option("--anchor", help=say("verify: what assay audit anchor printed, or a file of it.").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    from dataclasses import asdict

    from assay.store.home import open_store
    from assay.store.verify import Anchor

    _one_of(action, ("verify", "show", "anchor"), lang)
    known = None if anchor is None else Anchor.of(Path(anchor).read_text(encoding="utf-8") if ":" not in anchor and Path(anchor).is_file() else anchor)
    with open_store(home, store) as opened:
        if action == "anchor":
            end = opened.audit.anchor()
            return _print(asdict(end)) if as_json else typer.echo(str(end))
        if action == "show":
            rows = opened.audit.rows(limit)[::-1]
            if as_json:
                return _print([asdict(r) for r in rows])
            return _table(lang, [say("row"), say("time"), say("actor"), say("what"), say("details")],
                          [[r.seq, _when(r.at), r.actor, r.action, json.dumps(r.detail, ensure_ascii=False)] for r in rows])
        found = opened.audit.verify(known)
    if as_json:
        _print({"rows": found.rows, "first_broken": found.first_broken, "reason": None if found.reason is None else found.reason.to(lang)})
    elif found.reason is None:
        typer.echo(say("{rows:,} rows of the audit log hold, and so do the predictions and labels that they vouch for.", rows=found.rows).to(lang))
    else:
        typer.echo(say("The audit log does not hold: {reason} {rows:,} rows before it do.", reason=found.reason, rows=found.rows).to(lang))
    if not found:
        raise typer.Exit(1)


@app.command(name="models", help=say("Every version of every model that the service ever had, and which one answers.\n\nassay models").to(LANG))
def models_command(
    model: Annotated[str | None, typer.Argument(help=say("Only this model.").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    from dataclasses import asdict

    from assay.errors import InputError
    from assay.store.home import open_store

    with open_store(home, store) as opened:
        names = opened.versions.models()
        if model is not None and model not in names:
            raise InputError("No model is called '{model}'. See: assay models", model=model[:64])
        shown = [(name, opened.versions.stage(name), opened.versions.of(name)) for name in names if model in (None, name)]
    if as_json:
        return _print([{"model": name, "stage": None if stage is None else asdict(stage), "versions": [asdict(v) for v in versions]} for name, stage, versions in shown])
    rows = [[name, v.version, _role(stage, v.version), v.source, _when(v.made), v.digest[:12]] for name, stage, versions in shown for v in versions]
    return _table(lang, [say("model"), say("version"), say("role"), say("source"), say("made"), say("digest")], rows)


@app.command(name="promote", help=say("This version of a model answers from now on; a running service takes it over without losing a request.\n\n"
                                      "assay promote churn 3 --reason 'wins since May'").to(LANG))
def promote_command(
    model: Annotated[str, typer.Argument(help=say("The model's name.").to(LANG))],
    version: Annotated[int, typer.Argument(help=say("The version's number.").to(LANG))],
    reason: Reason = "",
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    from assay.store.home import open_store

    with open_store(home, store) as opened:
        stage = opened.versions.promote(model, version, "cli", reason)
    _answers(stage, as_json, lang)
    if stage.previous is not None and not as_json:
        typer.echo(say("Back to version {version}: assay rollback {model}", version=stage.previous, model=model).to(lang), err=True)


@app.command(name="rollback", help=say("Back to the version that answered before the last promotion.\n\nassay rollback churn --reason 'complaints since noon'").to(LANG))
def rollback_command(
    model: Annotated[str, typer.Argument(help=say("The model's name.").to(LANG))],
    reason: Reason = "",
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    from assay.store.home import open_store

    with open_store(home, store) as opened:
        stage = opened.versions.rollback(model, "cli", reason)
    _answers(stage, as_json, lang)


def _answers(stage: Stage, as_json: bool, lang: str) -> None:
    from dataclasses import asdict

    if as_json:
        _print(asdict(stage))
    else:
        typer.echo(say("Version {version} of '{model}' answers from now on.", version=stage.champion, model=stage.model).to(lang))


def _one_of(action: str, known: tuple[str, ...], lang: str) -> None:
    if action not in known:
        raise typer.BadParameter(say("'{action}' is none of {known}.", action=action, known=list(known)).to(lang))


def _duration(text: str) -> float:
    """As everywhere, and days: 90d."""
    from assay.case import seconds

    return 24 * seconds(text[:-1] + "h") if text.strip().lower().endswith("d") else seconds(text)


def _when(at: float) -> str:
    from datetime import UTC, datetime

    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"


def _until(key: Any) -> str | Text:
    if key.revoked is not None:
        return say("revoked")
    return "–" if key.expires is None else _when(key.expires)


def _role(stage: Any, version: int) -> str | Text:
    if stage is None or version not in (stage.champion, stage.challenger):
        return say("was before") if stage is not None and version == stage.previous else "–"
    if version == stage.champion:
        return say("champion")
    return say("shadow") if stage.mode == "shadow" else say("canary {share:.0%}", share=float(stage.share))


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def _table(lang: str, names: list[Text], rows: list[list[Any]]) -> None:
    """Columns side by side, none cut off."""
    from rich.table import Table
    from rich.text import Text as Styled

    from assay.report.terminal import console

    out = console(sys.stdout, widest=100_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name.to(lang), no_wrap=not out.is_terminal, overflow="fold")
    for row in rows:
        table.add_row(*(Styled(cell.to(lang) if isinstance(cell, Text) else str(cell)) for cell in row))
    out.print(table)
