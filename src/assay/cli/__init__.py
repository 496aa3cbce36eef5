"""The command line: one short function a command, no logic. Heavy imports wait until a command runs.

Every file of this folder registers its commands on `base.app`; a new command is a function in one of them, or a new file.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import typer

from assay.cli.base import LANG, app
from assay.errors import AssayError, BudgetError
from assay.words import say

for _file in pkgutil.iter_modules(__path__):
    if not _file.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_file.name}")

_ORDER = ("run", "look", "judge", "report", "show", "predict", "decide", "compress", "serve", "keys", "models", "promote", "rollback", "retrain", "watch", "feedback", "audit",
          "deploy", "mlflow", "demo", "doctor")
app.registered_commands.sort(key=lambda c: _ORDER.index(c.name) if c.name in _ORDER else len(_ORDER))


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


__all__ = ["app", "main"]
