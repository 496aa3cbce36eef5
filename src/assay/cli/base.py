"""What every command shares: the application, the language, the options that several commands take."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

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
HOME = Path("assay-home")
Home = Annotated[Path, typer.Option("--home", envvar="ASSAY_HOME", help=say("Folder of the service: store, every version of every model.").to(LANG))]
StoreOption = Annotated[str | None, typer.Option("--store", envvar="ASSAY_STORE", help=say(
    "URL of the store: postgresql://, mysql:// or sqlite:/// (default: a file in the home).").to(LANG))]
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
