"""The command line: one short function a command, no logic. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.errors import AssayError, BudgetError
from assay.words import LANGUAGES, say


def _language() -> str:
    """--lang wins, then ASSAY_LANG, then the locale: known before typer builds its help."""
    for i, word in enumerate(sys.argv):
        if word == "--lang" and i + 1 < len(sys.argv):
            return sys.argv[i + 1] if sys.argv[i + 1] in LANGUAGES else "en"
        if word.startswith("--lang="):
            return word[7:] if word[7:] in LANGUAGES else "en"
    chosen = os.environ.get("ASSAY_LANG") or os.environ.get("LC_ALL") or os.environ.get("LANG") or "en"
    return "zh" if chosen.lower().startswith("zh") else "en"


LANG = _language()



app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True,
    help=say("The referee: lets naive, classical, deep, pre-trained and LLM candidates answer the same rows under one budget, and says with "
             "evidence whether a large model is worth it.\n\nStart with: assay demo diagnosis").to(LANG),
    context_settings={"help_option_names": ["-h", "--help"]},
)

Lang = Annotated[str, typer.Option("--lang", help=say("Language: en or zh.").to(LANG))]
AsJson = Annotated[bool, typer.Option("--json", help=say("Print verdict.json instead of the table; nothing else goes to standard output.").to(LANG))]
Time = Annotated[str | None, typer.Option("--time", "-t", help=say("Time budget for everything, such as 60s or 5m (a contract).").to(LANG))]
Out = Annotated[Path | None, typer.Option("--out", "-o", help=say("Folder of the run.").to(LANG))]
WorthOption = Annotated[str | None, typer.Option(
    "--worth", help=say("What an error costs: 'error=4.5 CNY', 'yes>no=500 CNY; no>yes=20 CNY', or 'unit=2 EUR' for amounts.").to(LANG))]
Requests = Annotated[str | None, typer.Option("--requests", help=say("Rows to answer, such as 2M/month.").to(LANG))]
Margin = Annotated[float | None, typer.Option("--margin", help=say("Smallest net gain in loss that matters (default: 2 % of the small model's loss).").to(LANG))]
PricesOption = Annotated[str | None, typer.Option("--prices", help=say("A price table of your own (TOML).").to(LANG))]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help=say("COLUMN=KIND, may be repeated. Kinds: number category text time id image audio.").to(LANG))]
Group = Annotated[str | None, typer.Option("--group", help=say("Column whose rows belong together (a patient, a machine).").to(LANG))]
TimeColumn = Annotated[str | None, typer.Option("--time-column", help=say("Column of time: the future judges.").to(LANG))]
Drop = Annotated[list[str] | None, typer.Option("--drop", help=say("Leave this column out, may be repeated.").to(LANG))]
Query = Annotated[str | None, typer.Option("--query", help=say("What to select from a database, where FILE is its URL.").to(LANG))]
Sequence = Annotated[bool, typer.Option("--sequence", help=say("Read the rows of each --group as a sequence, or columns such as t0, t1, t2, ... as one.").to(LANG))]
Window = Annotated[int | None, typer.Option("--window", min=2, max=100_000, help=say("Steps of the history, where each row of a unit has an answer (default 50).").to(LANG))]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help=say("Leave out rows whose picture or sound cannot be decoded.").to(LANG))]
Confidence = Annotated[float | None, typer.Option("--confidence", min=0.5, max=0.999, help=say("Confidence of intervals and tests (default 0.95).").to(LANG))]


@app.command(name="run", help=say("Run a contest on FILE and judge it.\n\nassay run churn.csv --target churn --time 60s\n\n"
                                  "assay run tickets.parquet --target category --worth 'error=4.5 CNY' --requests 2M/month --latency 20ms --lang zh").to(LANG))
def run_command(
    file: Annotated[str | None, typer.Argument(help=say("A file (csv, tsv, xlsx, parquet, jsonl), a folder of parts, pictures or sounds, or a database URL with --query.").to(LANG))] = None,
    target: Annotated[str | None, typer.Option("--target", help=say("The column to predict.").to(LANG))] = None,
    time: Time = None,
    memory: Annotated[str | None, typer.Option("--memory", help=say("Memory of a trial, such as 2G (a contract).").to(LANG))] = None,
    task: Annotated[str | None, typer.Option("--task", help=say("classify or regress, if the target could be either; forecast for series.").to(LANG))] = None,
    loss: Annotated[str | None, typer.Option("--loss", help=say("classify: log, error, brier, cost. regress: squared, absolute, pinball.").to(LANG))] = None,
    quantile: Annotated[float | None, typer.Option("--quantile", help=say("The quantile of the pinball loss.").to(LANG))] = None,
    worth: WorthOption = None,
    requests: Requests = None,
    latency: Annotated[str | None, typer.Option("--latency", help=say("Most time for one row, such as 20ms.").to(LANG))] = None,
    size: Annotated[str | None, typer.Option("--size", help=say("Largest model, such as 50MB.").to(LANG))] = None,
    margin: Margin = None,
    confidence: Confidence = None,
    kind: Kinds = None,
    group: Group = None,
    time_column: TimeColumn = None,
    drop: Drop = None,
    query: Query = None,
    split: Annotated[str | None, typer.Option("--split", help=say("random, group, time, order (of the rows) or given (train and test as the data say); default: given, else what the data's structure asks for.").to(LANG))] = None,
    folds: Annotated[int | None, typer.Option("--folds", min=1, max=20, help=say("Splits (default 5 below 1,000 rows, 3 below 3,000, else 1; fewer in a short time).").to(LANG))] = None,
    test_rows: Annotated[int | None, typer.Option("--test-rows", min=10, help=say("Most rows that judge.").to(LANG))] = None,
    drop_missing_target: Annotated[bool, typer.Option("--drop-missing-target", help=say("Leave out rows without a target.").to(LANG))] = False,
    sequence: Sequence = False,
    window: Window = None,
    skip_broken: SkipBroken = False,
    horizon: Annotated[int | None, typer.Option("--horizon", min=1, max=10_000, help=say("With --task forecast: how many steps are forecast.").to(LANG))] = None,
    season: Annotated[int | None, typer.Option("--season", min=1, max=100_000, help=say("With --task forecast: steps of a season (default: found).").to(LANG))] = None,
    known: Annotated[list[str] | None, typer.Option("--known", metavar="COLUMN", help=say("With --task forecast: a column that is known ahead, may be repeated.").to(LANG))] = None,
    hierarchy: Annotated[list[str] | None, typer.Option("--hierarchy", metavar="COLUMN", help=say("With --task forecast: totals over this column are forecast as well, and add up; may be repeated.").to(LANG))] = None,
    country: Annotated[str | None, typer.Option("--country", help=say("With --task forecast: whose holidays count, such as CN, DE or US-CA.").to(LANG))] = None,
    forecaster: Annotated[str | None, typer.Option("--forecaster", help=say("A local folder of a pre-trained forecaster (Chronos-Bolt class).").to(LANG))] = None,
    decide: Annotated[Path | None, typer.Option("--decide", help=say("With --task forecast: a problem file (TOML); forecasters are then judged by what their plans cost.").to(LANG))] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help=say("Only this candidate (and naive), may be repeated.").to(LANG))] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help=say("Not this candidate, may be repeated.").to(LANG))] = None,
    llm: Annotated[tuple[str, str] | None, typer.Option("--llm", metavar="URL MODEL", help=say("An OpenAI-compatible endpoint and its model.").to(LANG))] = None,
    llm_price: Annotated[tuple[float, float] | None, typer.Option("--llm-price", metavar="IN OUT", help=say("Price of a million tokens in and out.").to(LANG))] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help=say("A local Hugging Face folder of a text encoder.").to(LANG))] = None,
    external: Annotated[list[str] | None, typer.Option("--external", metavar="NAME=SPEC", help=say("A model of yours or of a vendor, may be repeated: a file of answers, 'cmd:...', a URL, or 'autogluon:FOLDER'.").to(LANG))] = None,
    external_price: Annotated[list[str] | None, typer.Option("--external-price", metavar="NAME=PRICE", help=say("Price of one answer of an external model.").to(LANG))] = None,
    weights: Annotated[list[str] | None, typer.Option("--weights", metavar="NAME=FILE", help=say("A local weights file, such as tabpfn=FILE.").to(LANG))] = None,
    work: Annotated[int | None, typer.Option("--work", min=1, help=say("Instead of a clock: at most this many passes over the rows per fit. The same seed then gives the same verdict, byte for byte.").to(LANG))] = None,
    no_tune: Annotated[bool, typer.Option("--no-tune", help=say("Settings as they are; no search.").to(LANG))] = False,
    offline: Annotated[bool, typer.Option("--offline", help=say("Only models that need no network.").to(LANG))] = False,
    explainable: Annotated[bool, typer.Option("--explainable", help=say("Only models that explain themselves.").to(LANG))] = False,
    prices: PricesOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help=say("Seed of splits and fits (default 0).").to(LANG))] = None,
    case: Annotated[Path | None, typer.Option("--case", help=say("A TOML file that holds any of these (fields: docs/case-file.md).").to(LANG))] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help=say("Go on with the run in this folder.").to(LANG))] = None,
    out: Out = None,
    as_json: AsJson = False,
    lang: Annotated[str | None, typer.Option("--lang", help=say("Language: en or zh.").to(LANG))] = None,
) -> None:
    from assay.case import case_file, llm_fields, pairs, price

    if resume is not None:
        _play(lambda api, observe: api.resume(resume, observe=observe, since_process_start=True), lang or LANG, as_json)
        return
    fields = case_file(case) if case else {}
    prices_of = {name: price(value) for name, value in pairs(external_price or [], "NAME=PRICE", "vendor=0.002").items()}
    lang = lang or str(fields.get("lang", LANG))
    flags = {"target": target, "time_s": time, "memory_mb": memory, "task": task, "loss": loss, "quantile": quantile, "worth": worth,
             "requests_per_month": requests, "latency_ms": latency, "artefact_mb": size, "margin": margin, "confidence": confidence,
             "kinds": pairs(kind or []), "group": group, "time_column": time_column, "split": split, "folds": folds, "test_rows": test_rows,
             "drop_missing_target": drop_missing_target, "sequence": sequence, "window": window, "skip_broken": skip_broken, "horizon": horizon, "season": season, "known": tuple(known or ()), "forecaster": forecaster, "country": country, "hierarchy": tuple(hierarchy or ()), "decide": str(decide) if decide else None, "candidates": tuple(only or ()), "without": tuple(without or ()), "encoder": encoder,
             "drop": tuple(drop or ()), "query": query, "external": tuple(external or ()), "external_price": prices_of, "weights": pairs(weights or [], "NAME=FILE", "tabpfn=model.safetensors"),
             "work": work, "offline": offline, "explainable": explainable, "prices": prices, "seed": seed, "lang": lang, **llm_fields(llm, llm_price)}
    source = file or fields.get("data")
    if source is None:
        raise typer.BadParameter(say("Name a file, or a case file with data = '...'.").to(lang))
    fields |= {name: value for name, value in flags.items() if value or (value == 0 and value is not False)}  # --margin 0 and --seed 0 count
    fields.pop("data", None)
    if no_tune:
        fields["tune"] = False
    _play(lambda api, observe: api.run(source, out=out, observe=observe, since_process_start=True, **fields), lang, as_json)


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
    _play(lambda api, observe: api.judge(folder, rival=rival, **options), lang, as_json)


@app.command(name="predict", help=say("Answer the rows of FILE with a bundle.\n\nassay predict RUN/winner.assay new.csv -o out.csv").to(LANG))
def predict_command(
    bundle: Annotated[Path, typer.Argument(help=say("A .assay file.").to(LANG))],
    file: Annotated[str, typer.Argument(help=say("Rows to answer: whatever run takes.").to(LANG))],
    query: Query = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=say("Where to write: csv, tsv, parquet or jsonl (default: csv to standard output).").to(LANG))] = None,
    lang: Lang = LANG,
) -> None:
    from assay.ship.batch import predict_file

    rows = predict_file(bundle, file, out, query=query)
    if out is not None:
        typer.echo(say("{rows:,} rows answered: {out}", rows=rows, out=str(out)).to(lang), err=True)


@app.command(name="show", help=say("What is inside a bundle: task, model, scores, columns, digests.\n\nassay show RUN/winner.assay").to(LANG))
def show_command(bundle: Annotated[Path, typer.Argument(help=say("A .assay file.").to(LANG))], lang: Lang = LANG) -> None:
    import json

    from assay import api

    typer.echo(json.dumps(api.load(bundle).describe(), ensure_ascii=False, indent=1))


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
        return
    if name == "production":
        _produce(time or "60s", out, lang, as_json)
        return
    shown = demo(name)
    typer.echo(shown.about.to(lang), err=as_json)
    _play(lambda api, observe: api.run(shown.frame(), target=shown.target, time=time or shown.time, lang=lang, observe=observe,
                                       out=out or api.fresh_folder(shown.name), since_process_start=True), lang, as_json)


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


def _play(verb: Any, lang: str, as_json: bool) -> None:
    """Run a verb with a live table, then print its verdict."""
    if lang not in LANGUAGES:
        raise typer.BadParameter(say("A language is one of {languages}.", languages=list(LANGUAGES)).to("en"))
    from assay import api
    from assay.report.terminal import LiveTable, print_verdict

    with LiveTable(lang=lang, quiet=as_json) as table:
        run = verb(api, table)
    if as_json:
        typer.echo(run.folder.verdict_file.read_text(encoding="utf-8"))
    else:
        print_verdict(run.folder.path, lang=lang)


def _produce(time: str, out: Path | None, lang: str, as_json: bool) -> None:
    """The plant's whole way, with the contest's live table."""
    from assay.production import produce, sentences
    from assay.report.terminal import LiveTable, print_verdict

    with LiveTable(lang=lang, quiet=as_json) as table:
        made = produce(time=time, out=out, lang=lang, observe=table, since_process_start=True)
    if as_json:
        typer.echo((made.run.folder.path / "production.json").read_text(encoding="utf-8"))
        return
    print_verdict(made.run.folder.path, lang=lang)
    for text in sentences(made):
        typer.echo(text.to(lang))
    typer.echo(say("Plans and charts: {path}", path=str(made.page)).to(lang))


def main() -> None:
    """Entry point: an AssayError is one sentence on standard error and its exit code; never a traceback."""
    try:
        app()
    except AssayError as error:
        typer.echo(say("Error: {text}", text=error.text).to(LANG), err=True)
        code = error.exit_code
    except OSError as error:
        text = say("No space is left on the disk; nothing half-written was kept.") if error.errno == 28 else say(
            "The system refused: {message}.", message=f"{error.strerror}: {error.filename}" if error.filename else str(error))
        typer.echo(say("Error: {text}", text=text).to(LANG), err=True)
        code = BudgetError.exit_code
    except KeyboardInterrupt:
        typer.echo(say("Stopped.").to(LANG), err=True)
        code = 130
    else:
        return
    sys.exit(code)


if __name__ == "__main__":
    main()
