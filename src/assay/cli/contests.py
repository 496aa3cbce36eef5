"""assay look, judge, report, demo: before a contest, after it, and one to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.base import (
    LANG,
    AsJson,
    Confidence,
    Drop,
    Group,
    Kinds,
    Lang,
    Margin,
    Out,
    PricesOption,
    Query,
    Requests,
    Sequence,
    SkipBroken,
    Time,
    TimeColumn,
    Window,
    WorthOption,
    app,
)
from assay.cli.playing import play, produce_plant
from assay.words import say


@app.command(name="look", help=say("What to know about FILE before training on it: leaks, duplicates, label errors, groups, order in time.\n\n"
                                   "assay look churn.csv --target churn").to(LANG))
def look_command(
    file: Annotated[str, typer.Argument(help=say("A file, a folder of parts, pictures or sounds, or a database URL.").to(LANG))],
    target: Annotated[str | None, typer.Option("--target", help=say("The column to predict.").to(LANG))] = None,
    time: Annotated[str, typer.Option("--time", "-t", help=say("Most time to look, such as 60s.").to(LANG))] = "60s",
    kind: Kinds = None,
    group: Group = None,
    time_column: TimeColumn = None,
    drop: Drop = None,
    query: Query = None,
    drop_missing_target: Annotated[bool, typer.Option("--drop-missing-target", help=say("Leave out rows without a target.").to(LANG))] = False,
    sequence: Sequence = False,
    window: Window = None,
    skip_broken: SkipBroken = False,
    as_json: Annotated[bool, typer.Option("--json", help=say("Print the findings as JSON.").to(LANG))] = False,
    lang: Lang = LANG,
) -> None:
    from assay import api
    from assay.case import pairs, seconds
    from assay.report.look import print_findings

    found = api.look(file, target=target, seconds=seconds(time), kinds=pairs(kind or []), group=group, time_column=time_column, drop=tuple(drop or ()),
                     query=query, drop_missing_target=drop_missing_target, sequence=sequence, window=window or 50, skip_broken=skip_broken,
                     observe=lambda note: typer.echo(note.to(lang), err=as_json))
    more = [*(["--group", group, "--sequence"] if group and sequence else ["--sequence"] if sequence else []), *(["--window", str(window)] if window else []),
            *(["--skip-broken"] if skip_broken else [])]
    print_findings(found, file=file, target=found.target, lang=lang, more=more, as_json=as_json)


@app.command(name="judge", help=say("Judge a finished run again under another worth, margin or rival. Nothing is retrained.\n\n"
                                    "assay judge assay-runs/churn-20261122-101500 --rival mlp --worth 'error=4.5 CNY'").to(LANG))
def judge_command(
    folder: Annotated[Path, typer.Argument(help=say("Folder of a run.").to(LANG))],
    rival: Annotated[str | None, typer.Option("--rival", help=say("The candidate to compare with the best small one.").to(LANG))] = None,
    worth: WorthOption = None,
    requests: Requests = None,
    latency: Annotated[str | None, typer.Option("--latency", help=say("Most time for one row, such as 20ms.").to(LANG))] = None,
    margin: Margin = None,
    confidence: Confidence = None,
    prices: PricesOption = None,
    as_json: AsJson = False,
    lang: Lang = LANG,
) -> None:
    options = {"worth": worth, "requests_per_month": requests, "latency_ms": latency, "margin": margin, "confidence": confidence, "prices": prices,
               "lang": lang}
    play(lambda api, observe: api.judge(folder, rival=rival, **options), lang, as_json)


@app.command(name="report", help=say("Write the report of a run again, in the other language or elsewhere.\n\nassay report RUN --lang zh -o report-zh.html").to(LANG))
def report_command(folder: Annotated[Path, typer.Argument(help=say("Folder of a run.").to(LANG))],
                   out: Annotated[Path | None, typer.Option("--out", "-o", help=say("The HTML file (default: report.html in the run's folder).").to(LANG))] = None,
                   summary: Annotated[bool, typer.Option("--summary", help=say("One page for whoever decides (default file: summary.html).").to(LANG))] = False,
                   no_rows: Annotated[bool, typer.Option("--no-rows", help=say("Show no rows of the data: no pictures, texts or sequences.").to(LANG))] = False,
                   lang: Lang = LANG) -> None:
    from assay.report.html import write

    typer.echo(write(folder, out or folder / ("summary.html" if summary else "report.html"), lang=lang, summary=summary, rows=not no_rows))


@app.command(name="demo", help=say("A contest on real data that ships inside packages: reviews, diagnosis, diabetes, digits.\n\nassay demo reviews --lang zh").to(LANG))
def demo_command(
    name: Annotated[str | None, typer.Argument(help=say("reviews, diagnosis, diabetes or digits; none lists them.").to(LANG))] = None,
    time: Time = None,
    out: Out = None,
    as_json: AsJson = False,
    lang: Lang = LANG,
) -> None:
    from assay.data.demo import DEMOS, demo

    if name is None:
        for known in DEMOS.values():
            typer.echo(f"  assay demo {known.name:<10} {known.about.to(lang)}")
        typer.echo(f"  assay demo {'production':<10} {say('A seeded plant: demand is forecast, lots are sized and scheduled, and the plans are paid for.').to(lang)}")
        typer.echo(f"  assay demo {'loop':<10} {say('A service whose traffic shifts: alarm, labels, retraining, promotion by a test, rollback.').to(lang)}")
        return
    if name == "loop":
        from assay.cli.playing import close_loop

        close_loop(time or "40s", out, lang, as_json)
        return
    if name == "production":
        produce_plant(time or "60s", out, lang, as_json)
        return
    shown = demo(name)
    typer.echo(shown.about.to(lang), err=as_json)
    play(lambda api, observe: api.run(shown.frame(), target=shown.target, time=time or shown.time, lang=lang, observe=observe,
                                       out=out or api.fresh_folder(shown.name), since_process_start=True), lang, as_json)
