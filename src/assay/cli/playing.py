"""Contests with their live table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from assay.words import LANGUAGES, say


def play(verb: Any, lang: str, as_json: bool) -> None:
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


def produce_plant(time: str, out: Path | None, lang: str, as_json: bool) -> None:
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


def close_loop(time: str, out: Path | None, lang: str, as_json: bool) -> None:
    """The whole loop, told step by step."""
    from assay.case import seconds
    from assay.serve.loop_demo import loop, sentences

    told = loop(out=out, time_s=seconds(time), lang=lang, observe=lambda text: typer.echo(text.to(lang), err=as_json) if hasattr(text, "to") else None)
    if as_json:
        typer.echo((told.folder / "loop.json").read_text(encoding="utf-8"))
        return
    typer.echo("")
    for text in sentences(told):
        typer.echo(text.to(lang))
    typer.echo(say("Drawn in: {path}", path=str(told.page)).to(lang))
