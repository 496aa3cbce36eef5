"""assay run: a contest on data of your own."""

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
from assay.cli.playing import play
from assay.words import say


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
        play(lambda api, observe: api.resume(resume, observe=observe, since_process_start=True), lang or LANG, as_json)
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
    play(lambda api, observe: api.run(source, out=out, observe=observe, since_process_start=True, **fields), lang, as_json)
