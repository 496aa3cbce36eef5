"""assay feedback import, export: labels from people, by file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.cli.base import HOME, LANG, Home, Lang, StoreOption, app
from assay.words import say


@app.command(name="feedback", help=say("Labels by file: import what people said, export what they should look at (csv, jsonl, Label Studio).\n\n"
                                       "assay feedback export ask.csv --limit 50\n\nassay feedback import ask.csv").to(LANG))
def feedback_command(
    action: Annotated[str, typer.Argument(help=say("import or export.").to(LANG))],
    file: Annotated[Path | None, typer.Argument(help=say("import: csv, tsv, jsonl, parquet, xlsx, or Label Studio's .json. export: where to write (default: MODEL-labels.csv).").to(LANG))] = None,
    model: Annotated[str | None, typer.Option("--model", help=say("Whose answers (default: the only model of the home).").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    label: Annotated[str | None, typer.Option("--label", help=say("import: the column with the label (default: label, or the target's name).").to(LANG))] = None,
    id: Annotated[str | None, typer.Option("--id", help=say("import: the column with the id of the answer (default: prediction).").to(LANG))] = None,
    key: Annotated[str | None, typer.Option("--key", help=say("import: a column that the asked rows have too; the newest answer with that key takes the label.").to(LANG))] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.0, help=say("import: with --key, look at the answers of so many days only.").to(LANG))] = None,
    allow_new: Annotated[bool, typer.Option("--allow-new", help=say("import: take classes that the model has never learnt.").to(LANG))] = False,
    format: Annotated[str | None, typer.Option("--format", help=say("export: csv, jsonl or label-studio (default: by the file's ending).").to(LANG))] = None,
    which: Annotated[str, typer.Option("--which", help=say("export: queue (rows whose label is worth most), labelled, or all (the newest).").to(LANG))] = "queue",
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help=say("export: how many rows.").to(LANG))] = 100,
    random_share: Annotated[float, typer.Option("--random-share", min=0.0, max=1.0, help=say("export: share of the queue drawn by lot, so that labels can judge without bias.").to(LANG))] = 0.1,
    lang: Lang = LANG,
) -> None:
    import time

    from assay.store.home import open_store
    from assay.watch.feedback import import_file, model_of
    from assay.watch.feedback_out import export_file

    if action not in ("import", "export"):
        raise typer.BadParameter(say("'{found}' is none of: {known}.", found=action, known=["import", "export"]).to(lang))
    with open_store(home, store) as opened:
        name, bundle = model_of(opened, home, model)
        if action == "export":
            file = file or Path(f"{name}-labels{ {'jsonl': '.jsonl', 'label-studio': '.json'}.get(format or '', '.csv')}")
            n = export_file(opened, name, bundle, file, format=format, which=which, limit=limit, media=home / "media", random_share=random_share)
            typer.echo(say("{n:,} rows written: {file}. Fill in the column 'label', then: assay feedback import {file}", n=n, file=str(file)).to(lang) if file.suffix != ".json" else
                       say("{n:,} tasks written: {file}, and the labelling configuration beside it: {file}.xml", n=n, file=str(file)).to(lang))
            return
        if file is None:
            raise typer.BadParameter(say("Name the file with the labels: assay feedback import labels.csv").to(lang))
        done = import_file(opened, name, bundle, file, label=label, id_column=id, key=key, allow_new=allow_new, since=time.time() - 86400 * days if days is not None else 0.0)
    for note in done.notes:
        typer.echo(note.to(lang), err=True)
    typer.echo(say("{added:,} labels added, {known:,} were there already, {unlabelled:,} rows have no label.", added=done.added, known=done.known, unlabelled=done.unlabelled).to(lang))
