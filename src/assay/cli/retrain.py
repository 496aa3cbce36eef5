"""assay retrain, challenge: a successor from new rows and labels, and the test that decides whether it takes over."""

from __future__ import annotations

import json as json_
import shutil
from typing import Annotated

import typer

from assay.cli.base import HOME, LANG, Home, Lang, StoreOption, app
from assay.words import say

_Model = Annotated[str, typer.Argument(help=say("Name of a model of the home; assay models lists them.").to(LANG))]
_Json = Annotated[bool, typer.Option("--json", help=say("Print the result as JSON.").to(LANG))]


@app.command(name="retrain", help=say("Train a challenger from the old rows, new ones and all labels; called again with nothing new it does nothing.\n\n"
                                      "assay retrain churn --data churn-march.csv --time 5m").to(LANG))
def retrain_command(
    model: _Model,
    data: Annotated[str | None, typer.Option("--data", help=say("Further rows with answers: a file, a database URL, or the folder of the run that made the model.").to(LANG))] = None,
    time: Annotated[str, typer.Option("--time", "-t", help=say("Time budget of the contest, such as 60s or 5m.").to(LANG))] = "60s",
    mode: Annotated[str, typer.Option("--mode", help=say("shadow: the challenger answers unseen; canary: it answers a share of the requests.").to(LANG))] = "shadow",
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help=say("Share of the requests that a canary answers, such as 0.1.").to(LANG))] = 0.0,
    recent: Annotated[int | None, typer.Option("--recent", min=0, help=say("Of the older rows only so many, the last ones, may teach; 0: only labelled ones.").to(LANG))] = None,
    replace: Annotated[bool, typer.Option("--replace", help=say("Even if an earlier challenger is still being tested.").to(LANG))] = False,
    seed: Annotated[int | None, typer.Option("--seed", help=say("Seed of splits and fits (default: the one of the first contest).").to(LANG))] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=say("Only say what would be learnt from.").to(LANG))] = False,
    cron: Annotated[str | None, typer.Option("--cron", metavar="LINE", help=say("Retrain nothing; print the crontab line and the systemd units that do it at these times, such as "
                                                                                "'30 3 * * 1'.").to(LANG))] = None,
    home: Home = HOME,
    store: StoreOption = None,
    as_json: _Json = False,
    lang: Lang = LANG,
) -> None:
    if cron is not None:
        _print_schedule(cron, [shutil.which("assay") or "assay", "retrain", model, "--home", str(home.resolve()), "--time", time], lang)
        return
    from assay.report.terminal import LiveTable
    from assay.retrain.retrain import retrain
    from assay.store.home import open_store

    with open_store(home, store) as opened, LiveTable(lang=lang, quiet=as_json) as table:
        done = retrain(home, model, store=opened, data=data, time=time, seed=seed, mode=mode, share=share, recent=recent, replace=replace, dry_run=dry_run, by="cli", observe=table)
    typer.echo(json_.dumps(done.json(), ensure_ascii=False, indent=1) if as_json else done.text.to(lang))


@app.command(name="challenge", help=say("What the labels say about the challenger so far; it may be asked after every label.\n\nassay challenge churn --act").to(LANG))
def challenge_command(
    model: _Model,
    act: Annotated[bool, typer.Option("--act", help=say("Do what it says: promote, withdraw or roll back.").to(LANG))] = False,
    alpha: Annotated[float, typer.Option("--alpha", min=0.0001, max=0.5, help=say("Chance that a challenger which is no better is ever promoted.").to(LANG))] = 0.05,
    margin: Annotated[float, typer.Option("--margin", min=0.0, help=say("Gain in loss a row that is wanted.").to(LANG))] = 0.0,
    cap: Annotated[float | None, typer.Option("--cap", min=0.0, help=say("Losses above it count as it (default: a log loss of 4.6, an error of 2.5 half-widths of the champion's interval; inf: none).").to(LANG))] = None,
    group: Annotated[str | None, typer.Option("--group", help=say("Column of the rows asked: rows of one group count as one.").to(LANG))] = None,
    for_ever: Annotated[bool, typer.Option("--for-ever", help=say("Spend alpha over all challengers to come, not for each anew.").to(LANG))] = False,
    home: Home = HOME,
    store: StoreOption = None,
    as_json: _Json = False,
    lang: Lang = LANG,
) -> None:
    from assay.retrain import promotion
    from assay.store.home import open_store

    with open_store(home, store) as opened:
        if act:
            found = promotion.act(opened, model, home=home, by="cli", alpha=alpha, margin=margin, cap=cap, group=group, for_ever=for_ever)
        else:
            found = promotion.verdict(opened, model, home=home, alpha=alpha, margin=margin, cap=cap, group=group, for_ever=for_ever)
    if as_json:
        typer.echo(json_.dumps(found.json(), ensure_ascii=False, indent=1))
        return
    for text in (found.text, *found.notes):
        typer.echo(text.to(lang))
    if act and found.outcome in ("promote", "roll_back"):
        typer.echo(say("Done: see assay models {model}", model=model).to(lang))
    elif not act and found.outcome != "not_yet" and found.version is not None:
        typer.echo(say("Next: assay challenge {model} --act", model=model).to(lang))


def _print_schedule(line: str, command: list[str], lang: str) -> None:
    from assay.retrain.schedule import crontab, systemd

    table, (service, timer) = crontab(line, command), systemd(line, command)
    typer.echo(say("For a crontab (crontab -e):").to(lang))
    typer.echo(table)
    for name, text in ((f"assay-retrain-{command[2]}.service", service), (f"assay-retrain-{command[2]}.timer", timer)):
        typer.echo(say("For systemd, {path}:", path=f"/etc/systemd/system/{name}").to(lang))
        typer.echo(text)
