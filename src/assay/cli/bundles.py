"""assay predict, show, compress, decide, doctor: what a bundle can be used for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.base import LANG, AsJson, Lang, Query, app
from assay.words import say


@app.command(name="predict", help=say("Answer the rows of FILE with a bundle.\n\nassay predict RUN/winner.assay new.csv -o out.csv").to(LANG))
def predict_command(
    bundle: Annotated[Path, typer.Argument(help=say("A .assay file.").to(LANG))],
    file: Annotated[str, typer.Argument(help=say("Rows to answer: whatever run takes.").to(LANG))],
    query: Query = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help=say("Where to write: csv, tsv, parquet, jsonl, or the URL of a database (default: csv to standard output).").to(LANG))] = None,
    table: Annotated[str | None, typer.Option("--table", help=say("Table for the answers, where --out is the URL of a database.").to(LANG))] = None,
    key: Annotated[str | None, typer.Option("--key", help=say("Column that names a row: it comes before the answers, and in a table decides which answer is replaced.").to(LANG))] = None,
    restart: Annotated[bool, typer.Option("--restart", help=say("Begin anew, even if the same command was stopped half-way.").to(LANG))] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going", help=say("Rows that cannot be read go to OUT.rejected.csv instead of stopping; the exit code is 3 then.").to(LANG))] = False,
    chunk: Annotated[int | None, typer.Option("--chunk", min=1, help=say("Rows answered at a time (default: as many as 8 million cells, 65,536 at most).").to(LANG))] = None,
    lang: Lang = LANG,
) -> None:
    from assay.errors import ReadError
    from assay.ship.batch import predict_file

    done = predict_file(bundle, file, out, query=query, table=table, key=key, restart=restart, keep_going=keep_going, at_once=chunk, language=lang,
                        observe=lambda note: typer.echo(note.to(lang), err=True))
    if out is not None:
        from assay.data.load import shown

        typer.echo(say("{rows:,} rows answered: {out}", rows=done.rows, out=table or shown(out)).to(lang), err=True)
    if done.refused:
        typer.echo(say("{n:,} rows could not be read: {file} says why.", n=done.refused, file=str(done.rejected)).to(lang), err=True)
        raise typer.Exit(ReadError.exit_code)


@app.command(name="show", help=say("What is inside a bundle: task, model, scores, columns, digests.\n\nassay show RUN/winner.assay").to(LANG))
def show_command(bundle: Annotated[Path, typer.Argument(help=say("A .assay file.").to(LANG))], lang: Lang = LANG) -> None:
    import json

    from assay import api

    typer.echo(json.dumps(api.load(bundle).describe(), ensure_ascii=False, indent=1))


@app.command(name="decide", help=say("A plan for a problem: inventory, lots, jobshop, route, maintenance, portfolio, storage, signals, staffing.\n\n"
                                      "assay decide route X-n101-k25.vrp --seconds 60\n\nassay decide lots --problem plant.toml --forecast RUN/winner.assay --history demand.csv").to(LANG))
def decide_command(
    kind: Annotated[str, typer.Argument(help=say("What is decided.").to(LANG))],
    file: Annotated[Path | None, typer.Argument(help=say("The problem: a .toml file, or a file of the decision's own kind (.vrp, .txt).").to(LANG))] = None,
    problem: Annotated[Path | None, typer.Option("--problem", "-p", help=say("The same, by name.").to(LANG))] = None,
    forecast: Annotated[Path | None, typer.Option("--forecast", help=say("The winner.assay of a run with --task forecast.").to(LANG))] = None,
    history: Annotated[str | None, typer.Option("--history", help=say("The series to forecast from.").to(LANG))] = None,
    quantiles: Annotated[Path | None, typer.Option("--quantiles", help=say("Instead of a forecast: its quantiles as CSV (id, time, q0.1, ...).").to(LANG))] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help=say("What then came as CSV (id, time, value), to pay for the plan.").to(LANG))] = None,
    seconds: Annotated[float, typer.Option("--seconds", "-s", help=say("Time of the solver.").to(LANG))] = 30.0,
    seed: Annotated[int, typer.Option("--seed", help=say("Seed of the solver.").to(LANG))] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=say("Folder for plan.json, tables and plan.svg (default: KIND-plan).").to(LANG))] = None,
    as_json: AsJson = False,
    lang: Lang = LANG,
) -> None:
    from assay.decide.reading import read_quantiles, read_truth
    from assay.plan import decide, show

    source = problem or file
    if source is None:
        raise typer.BadParameter(say("Name the problem: assay decide {kind} problem.toml", kind=kind).to(lang))
    if (forecast is None) != (history is None):
        raise typer.BadParameter(say("--forecast and --history go together: the model, and the series it goes on from.").to(lang))
    known = None
    if forecast is not None:
        from assay.ship.quantiles import quantiles_of

        known = quantiles_of(forecast, history)
    elif quantiles is not None:
        known = read_quantiles(quantiles)
    decided = decide(kind, source, quantiles=known, truth=read_truth(truth, known) if truth and known else None, seconds=seconds, seed=seed, out=out or Path(f"{kind}-plan"), lang=lang)
    show(decided, lang=lang, as_json=as_json)
    if not decided.feasible:
        raise typer.Exit(1)


@app.command(name="compress", help=say("Make a winner smaller and show what that costs on the rows that judged it.\n\nassay compress RUN/winner.assay --int8").to(LANG))
def compress_command(
    bundle: Annotated[Path, typer.Argument(help=say("A winner.assay in the folder of its run.").to(LANG))],
    int8: Annotated[bool, typer.Option("--int8", help=say("Networks in 8-bit whole numbers.").to(LANG))] = False,
    prune: Annotated[float | None, typer.Option("--prune", min=0.05, max=0.95, help=say("Take this share of a network's channels away, then learn on.").to(LANG))] = None,
    prune_weights: Annotated[float | None, typer.Option("--prune-weights", min=0.05, max=0.99,
                                                        help=say("Set this share of a network's weights to zero, then learn on.").to(LANG))] = None,
    student: Annotated[bool, typer.Option("--student", help=say("Teach a smaller network of the same family by the winner's answers.").to(LANG))] = False,
    time: Annotated[str | None, typer.Option("--time", "-t", help=say("Most time for each that has to learn (default: one and a half times the winner's).").to(LANG))] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help=say("Write the smallest even if it loses more than the margin.").to(LANG))] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=say("Where to write (default: winner-small.assay beside it).").to(LANG))] = None,
    as_json: AsJson = False,
    lang: Lang = LANG,
) -> None:
    from assay.case import seconds
    from assay.compress import compress
    from assay.report.compressed import print_compressed
    from assay.report.html import write

    found = compress(bundle, int8=int8, prune=prune, prune_weights=prune_weights, student=student, out=out, seconds=seconds(time) if time else None, anyway=anyway,
                     observe=lambda note: typer.echo(note.to(lang), err=True))
    write(bundle.parent, bundle.parent / "report.html", lang=lang)
    print_compressed(found, lang=lang, as_json=as_json)


@app.command(name="doctor", help=say("What can run here, and what to install for more.").to(LANG))
def doctor_command(lang: Lang = LANG) -> None:
    from assay.report.doctor import lines

    for line in lines(lang):
        typer.echo(line)
