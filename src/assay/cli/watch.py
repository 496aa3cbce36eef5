"""assay watch: have the rows moved away from what the model was judged on?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.base import HOME, LANG, Home, Lang, Query, StoreOption, app
from assay.cli.store import Json
from assay.words import say

if TYPE_CHECKING:
    from assay.watch.offline import Watched


@app.command(name="watch", help=say("Compare recent rows with what a bundle was trained on, or show the open alarms of a service.\n\n"
                                     "assay watch RUN/winner.assay --recent new.csv\n\nassay watch --home assay-home").to(LANG))
def watch_command(
    what: Annotated[str | None, typer.Argument(help=say("A .assay file (with --recent), or a model's name in the home.").to(LANG))] = None,
    recent: Annotated[str | None, typer.Option("--recent", help=say("Recent rows: whatever run takes; large parquet files are streamed.").to(LANG))] = None,
    reference: Annotated[str | None, typer.Option("--reference", help=say("Rows to compare with (default: what the bundle holds of its training rows).").to(LANG))] = None,
    query: Query = None,
    alpha: Annotated[float, typer.Option("--alpha", min=1e-6, max=0.5, help=say("Share of false discoveries that is accepted.").to(LANG))] = 0.05,
    tolerate: Annotated[float, typer.Option("--tolerate", min=0.0, max=8.0, help=say("Shift of a column that is nothing to speak of.").to(LANG))] = 0.1,
    columns_only: Annotated[bool, typer.Option("--columns-only", help=say("Leave out the classifier that looks at all columns together.").to(LANG))] = False,
    show_all: Annotated[bool, typer.Option("--all", help=say("Show the checks that are fine, too.").to(LANG))] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=say("Write a page (.html) or a picture (.svg).").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    as_json: Json = False,
    lang: Lang = LANG,
) -> None:
    if recent is None:
        if what is not None and what.endswith(".assay"):
            raise typer.BadParameter(say("Name the rows to compare with: assay watch {bundle} --recent new.csv", bundle=what).to(lang))
        _home(what, home, store, as_json, lang)
        return
    if what is None:
        raise typer.BadParameter(say("Name the bundle: assay watch RUN/winner.assay --recent new.csv").to(lang))
    from assay.watch.offline import watched

    found = watched(what, recent, reference, query=query, alpha=alpha, tolerated=tolerate, together=not columns_only)
    if out is not None:
        from assay.watch.picture import write

        write(found, out, title=Path(recent).name, lang=lang)
    if as_json:
        import json

        typer.echo(json.dumps(found.json(), ensure_ascii=False, indent=1))
    else:
        _table(found, show_all, lang)
    if found.alarming:
        raise typer.Exit(1)


def _table(found: Watched, show_all: bool, lang: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from assay.watch.picture import GRADES, HEADS, basis, figure, interval, named

    console = Console(highlight=False)
    console.print(escape(basis(found).to(lang)))
    listed = [f for f in found.findings if show_all or f.level != "fine"]
    if listed:
        table = Table(*(h.to(lang) for h in HEADS), box=None, pad_edge=False)
        styles = {"critical": "bold red", "warning": "yellow", "fine": "green", "info": "cyan"}
        for f in listed:
            facts = f.facts
            table.add_row(f"[{styles[f.level]}]{GRADES[f.level].to(lang)}[/]", escape(named(f)), figure(facts.get("effect")),
                          interval(f), figure(facts.get("corrected")))
        console.print(table)
        for f in listed:
            if f.level != "fine":
                console.print(escape(f.text.to(lang)))
    if not found.alarming:
        console.print(escape(say("Nothing has moved further than is tolerated.").to(lang)))
    for note in found.notes:
        console.print(escape(note.to(lang)), style="dim")


def _home(model: str | None, home: Path, place: str | None, as_json: bool, lang: str) -> None:
    """State and open alarms of the models in a home."""
    import json
    import time
    from dataclasses import asdict

    from assay.errors import InputError
    from assay.store.home import open_store
    from assay.words import Text

    with open_store(home, place) as kept:
        known = kept.versions.models()
        if model is not None and model not in known:
            raise InputError("This home serves no model '{model}'. There are: {models}.", model=model, models=known)
        now = time.time()
        said: list[dict[str, Any]] = []
        for name in [model] if model is not None else known:
            stage = kept.versions.stage(name)
            version = stage.champion if stage else None
            sketches = [s for s in kept.sketches.between(name, version, now - 7 * 86400, now) if s.rows] if version is not None else []
            said.append({"model": name, "champion": version, "challenger": stage.challenger if stage else None, "answered_24h": kept.predictions.count(name, since=now - 86400),
                         "watched_7d": sum(s.rows for s in sketches), "alarms": [asdict(a) for a in kept.alarms.open(name)]})
    if as_json:
        typer.echo(json.dumps(said, ensure_ascii=False, indent=1))
    else:
        for one in said:
            typer.echo(say("{model}: version {champion} answers, {answered:,} rows in the last 24 h, {watched:,} rows watched in 7 days, open alarms: {alarms}", model=one["model"],
                           champion=one["champion"] if one["champion"] is not None else "–", answered=one["answered_24h"], watched=one["watched_7d"], alarms=len(one["alarms"])).to(lang))
            for alarm in one["alarms"]:
                when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(alarm["at"]))
                typer.echo(f"  #{alarm['id']} {when} UTC  {say(alarm['level']).to(lang)}  {alarm['code']}: {Text.of(alarm['text']).to(lang)}")
        if not said:
            typer.echo(say("No model has been served from here yet.").to(lang))
    if any(one["alarms"] for one in said):
        raise typer.Exit(1)
