"""assay mlflow: a run or a bundle, logged to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.base import LANG, Lang, app
from assay.words import say


@app.command(name="mlflow", help=say("Log a run, or a bundle alone, to MLflow: figures, verdict, report, and the winner as a model.\n\n"
                                     "assay mlflow RUN --uri http://127.0.0.1:5000 --experiment churn").to(LANG))
def mlflow_command(
    source: Annotated[Path, typer.Argument(help=say("Folder of a run, or a .assay file.").to(LANG))],
    uri: Annotated[str, typer.Option("--uri", envvar="MLFLOW_TRACKING_URI", help=say("MLflow's server, database or folder.").to(LANG))],
    experiment: Annotated[str, typer.Option("--experiment", help=say("Name of the experiment; it is made if it is not there.").to(LANG))] = "assay",
    model: Annotated[str | None, typer.Option("--model", help=say("Also register the winner under this name.").to(LANG))] = None,
    no_rows: Annotated[bool, typer.Option("--no-rows", help=say("No rows as an input example.").to(LANG))] = False,
    lang: Lang = LANG,
) -> None:
    from assay.connect.mlflow import log_run

    logged = log_run(source, uri, experiment, model=model, rows=not no_rows)
    typer.echo((say("Logged: run {run} of experiment '{experiment}'.", run=logged.run_id, experiment=experiment) if logged.new else
                say("Already there: run {run} of experiment '{experiment}'; nothing was logged again.", run=logged.run_id, experiment=experiment)).to(lang))
    if logged.version is not None:
        typer.echo(say("Registered as '{model}', version {version}.", model=model, version=logged.version).to(lang))
    typer.echo(say("Load it with: mlflow.pyfunc.load_model('{uri}')", uri=logged.model_uri).to(lang))
