"""The findings of `assay look`, for people and machines."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from typing import IO

from assay.data.inspect.base import Finding
from assay.words import say

_MARKS = {"leak": say("LEAK"), "warning": say("warning"), "note": say("note")}
_WIDTH = 100


def print_findings(found: list[Finding], *, file: str, target: str, lang: str, more: list[str] | None = None, as_json: bool = False,
                   stream: IO[str] | None = None) -> None:
    """One block a finding, the most severe first; the last line is the next command. more: options that the reading of the file needs."""
    out = stream or sys.stdout
    if as_json:
        print(json.dumps([f.json() for f in found], ensure_ascii=False, indent=1), file=out)
        return
    if not found:
        print(say("Nothing was found that stands in the way of a fair contest.").to(lang), file=out)
    for f in found:
        print(file=out)
        _wrapped(f"[{_MARKS[f.level].to(lang)}] {f.text.to(lang)}", out)
        _wrapped(f"→ {f.advice.to(lang)}", out, indent="  ")
    drops = " ".join(f"--drop {shlex.quote(c)}" for f in found if f.level == "leak" for c in f.columns)
    command = " ".join(filter(None, ("assay run", shlex.quote(file), "--target", shlex.quote(target), shlex.join(more or []), drops)))
    print(file=out)
    print(say("Next: {command}", command=command).to(lang), file=out)


def _wrapped(text: str, out: IO[str], indent: str = "") -> None:
    """Lines of at most 100 columns; Chinese, which has no blanks to break at, is left to the terminal."""
    lines = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False) if text.isascii() or " " in text else [text]
    print("\n".join(lines), file=out)
