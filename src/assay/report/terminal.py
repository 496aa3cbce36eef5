"""The run while it runs, and the verdict when it is over, for people in front of a terminal."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from assay.contest.arena import Event
from assay.contest.budget import process_age_s
from assay.contest.folder import Trial
from assay.report import wording
from assay.report.facts import read_facts
from assay.words import Text, say

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

STYLES = {"worth_it": "bold green", "not_worth_it": "bold red", "unknown": "bold yellow", "not_a_result": "bold red", "nothing_beats_naive": "bold"}
WIDEST = 100
_BAR = 24
_WIDE = "\u2e80-\u9fff\uf900-\uffef"
_CLOSING = "，。、；：！？）》】”’"
_UNITS = re.compile(rf"[（《【“‘]*(?:[{_WIDE}“”]|[^\s{_WIDE}“”]+(?: %)?)[{_CLOSING}]*\s*|\s+")


class LiveTable:
    """Observer of a run: `with LiveTable(lang="zh") as table: api.run(..., observe=table)`.

    Called with a `contest.arena.Event` or a `Text` (a sentence, printed above). On a terminal it draws a table that moves,
    on a pipe it prints one line a finished trial. It writes to standard error, so that standard output stays clean.
    quiet: draws and prints nothing. total_s: the run's budget, for the clock bar; an Event of kind "clock" may bring it
    later as its `seconds`. NO_COLOR is respected.
    """

    def __init__(self, *, lang: str = "en", quiet: bool = False, total_s: float | None = None, stream: IO[str] | None = None) -> None:
        self.lang, self.quiet, self.total_s = lang, quiet, total_s
        self.stream = stream or sys.stderr
        self.trials: dict[str, list[Trial]] = {}
        self.running: Event | None = None
        self.note = self.purpose = ""
        self.since = 0.0
        self._began, self._age_s = time.monotonic(), process_age_s() if stream is None else 0.0
        self._console: Console | None = None
        self._live: Any = None

    def __enter__(self) -> LiveTable:
        if self.quiet:
            return self
        self._console = console(self.stream)
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(get_renderable=self.table, console=self._console, refresh_per_second=5, transient=True, redirect_stdout=False,
                              redirect_stderr=False)
            self._live.start()
        return self

    def __exit__(self, *reason: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event | Text) -> None:
        if isinstance(event, Text):
            self._print(event.to(self.lang))
        elif event.kind == "clock":
            self.total_s = event.seconds
        elif event.kind == "start":
            self.running, self.note, self.since = event, event.note, time.monotonic()
            self.purpose = event.purpose.to(self.lang) if event.purpose else ""
        elif event.kind == "note":
            self.note = event.note
        elif event.kind == "end" and event.trial is not None:
            self.running, self.note = None, ""
            if event.split >= 0 and event.trial.contest and not wording.is_aside(event.trial.json()):
                self.trials.setdefault(event.candidate, []).append(event.trial)
            if self._live is None and not self.quiet and event.trial.contest and not wording.is_aside(event.trial.json()):
                self._print(self.line(event.trial))

    def used_s(self) -> float:
        """Seconds since the process began."""
        return self._age_s + time.monotonic() - self._began

    def line(self, trial: Trial) -> str:
        """One finished trial as one line of plain text."""
        name = wording.clean(trial.candidate)
        if trial.status != "done":
            reason = trial.reason.to(self.lang) if trial.reason else ""
            return say("{name}: {status}: {reason}", name=name, status=wording.STATUSES[trial.status], reason=wording.clean(reason)).to(self.lang)
        if trial.split < 0 or trial.loss is None:
            return say("{name}, all rows: {seconds}", name=name, seconds=wording.duration(trial.seconds)).to(self.lang)
        return say("{name}, split {split}: validation loss {valid}, test loss {loss}, {seconds}", name=name, split=trial.split + 1,
                   valid=wording.number(trial.valid_loss), loss=wording.number(trial.loss), seconds=wording.duration(trial.seconds)).to(self.lang)

    def table(self) -> Table:
        """What stands on the screen now."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption=self._clock(), caption_justify="left")
        for head, justify, least in ((say("candidate"), "left", 9), (say("rung"), "left", 11), (say("validation"), "right", 10),
                                     (say("test"), "right", 8), (say("time"), "right", 6), (say("state"), "left", 8)):
            table.add_column(head.to(self.lang), justify=justify, no_wrap=True, overflow="ellipsis", min_width=least,  # type: ignore[arg-type]
                             max_width=22 if head.template == "candidate" else None)
        names = list(self.trials)
        if self.running is not None and self.running.candidate not in names:
            names.append(self.running.candidate)
        for name in names:
            table.add_row(*self._cells(name))
        return table

    def _cells(self, name: str) -> list[Styled]:
        from rich.text import Text as Styled

        trials = self.trials.get(name, [])
        done = [t for t in trials if t.status == "done"]
        rung = wording.SHORT[trials[0].rung].to(self.lang) if trials and trials[0].rung in wording.SHORT else ""
        valid, test = (wording.number(_mean([getattr(t, key) for t in done])) if done else "" for key in ("valid_loss", "loss"))
        seconds = sum(t.seconds for t in trials)
        state, style = say("{n} done", n=len(done)).to(self.lang), ""
        if self.running is not None and self.running.candidate == name:
            now = time.monotonic() - self.since
            seconds += now
            doing = say("fitted on all rows") if self.running.split < 0 else say("split {split}", split=self.running.split + 1)
            state, style = " · ".join(filter(None, (doing.to(self.lang), self.purpose, wording.clean(self._told(self.note)), wording.duration(now)))), "cyan"
        elif trials and trials[-1].status != "done":
            why = trials[-1].reason.to(self.lang) if trials[-1].reason else ""
            state, style = say("{status}: {reason}", status=wording.STATUSES[trials[-1].status], reason=wording.clean(why)).to(self.lang), "dim"
        texts = (wording.clean(name), rung, valid, test, wording.duration(seconds) if seconds else "", state)
        return [Styled(text, style=style) for text in texts]

    def _told(self, note: str) -> str:
        """A child's own note, in the user's language where the words know it."""
        return note if "{" in note or "}" in note else Text(note).to(self.lang)

    def _clock(self) -> Styled:
        from rich.text import Text as Styled

        used = self.used_s()
        if self.total_s is None:
            return Styled(say("{used} used", used=wording.duration(used)).to(self.lang))
        full = min(_BAR, round(_BAR * used / self.total_s))
        words = say("{used} of {total} used, {left} left", used=wording.duration(used), total=wording.duration(self.total_s),
                    left=wording.duration(max(0.0, self.total_s - used)))
        return Styled("━" * full, style="cyan") + Styled("─" * (_BAR - full), style="dim") + Styled("  " + words.to(self.lang), style="default")

    def _print(self, text: str) -> None:
        if self.quiet or self._console is None:
            return
        text = "\n".join(wording.clean(line) for line in text.splitlines())
        if self._live is not None:
            self._console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)


def console(stream: IO[str], *, widest: int = WIDEST) -> Console:
    """A rich console on `stream`, at most `widest` columns wide; a pipe gets `widest` and neither colour nor wrapping tricks."""
    from rich.console import Console

    made = Console(file=stream, highlight=False, soft_wrap=False, no_color=True if os.environ.get("NO_COLOR") else None)
    made.width = min(widest, made.width) if made.is_terminal else widest
    return made


def print_verdict(folder: Path | str, *, lang: str = "en", stream: IO[str] | None = None) -> None:
    """Print the scoreboard and verdict of the run in `folder`; the last line is the next command."""
    where = Path(folder)
    verdict = read_facts(where)
    out = console(stream or sys.stdout)
    report = where / "report.html"
    _print_all(out, verdict, lang, report if report.exists() else None)


def verdict_lines(verdict: dict[str, Any], lang: str, *, width: int = WIDEST, report: Path | None = None) -> list[str]:
    """The same as plain lines without colour, none wider than `width` columns (a Chinese character takes two).

    But for paths and commands: those stay on one line, so that they can be copied.
    """
    import io

    from rich.console import Console

    sink = io.StringIO()
    _print_all(Console(file=sink, width=width, no_color=True, highlight=False, force_terminal=False), verdict, lang, report)
    return [line.rstrip() for line in sink.getvalue().splitlines()]


def _print_all(out: Console, verdict: dict[str, Any], lang: str, report: Path | None) -> None:
    from rich.text import Text as Styled

    def tell(text: str, style: str = "", indent: str = "") -> None:
        for line in folded(wording.clean(text), out.width - len(indent)):
            out.print(Styled(indent + line, style=style), soft_wrap=True)

    out.print(_scoreboard(verdict, lang, out.width))
    for row in verdict["scoreboard"]:
        kind = row["status"] if row["status"] != "done" else "removed" if row.get("removed") else ""
        if kind and not wording.is_aside(row):
            why = wording.text_of(row["removed"] if kind == "removed" else row["reason"], lang)
            tell(say("{name}: {status}: {reason}", name=row["candidate"], status=wording.STATUSES[kind], reason=why).to(lang), "dim", "  ")
    for aside, names in wording.asides(verdict["scoreboard"]):
        tell(say("{why}: {names}", why=aside, names=names).to(lang), "dim", "  ")
    out.print()
    tell(wording.OUTCOMES[verdict["outcome"]].to(lang), STYLES[verdict["outcome"]])
    tell(wording.text_of(verdict["sentence"], lang))
    if told := verdict.get("decision"):
        tell(say("The oracle, who knows what comes, would pay {oracle}; the rule of thumb with the forecast of {name} {rule} ({origins} origins).", oracle=wording.number(told["oracle"]),
                 rule=wording.number(told["rule"]["cost"]), name=told["rule"]["forecast"], origins=told["origins"]).to(lang))
    for note in verdict["notes"]:
        tell("· " + wording.text_of(note, lang), "dim")
    if verdict["cheapest"] != verdict["winner"]:
        tell(say("Cheapest that is good enough: {name}.", name=verdict["cheapest"]).to(lang))
    if report is not None:
        out.print(Styled(say("Report: {path}", path=str(report)).to(lang)), soft_wrap=True)
    out.print(Styled(say("Next: {step}", step=wording.clean(wording.text_of(verdict["next"], lang))).to(lang), style="bold"), soft_wrap=True)


def folded(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns. Chinese may break after every character, but no line begins with its punctuation."""
    from rich.cells import cell_len

    lines, line = [], ""
    for unit in _UNITS.findall(text):
        if line and cell_len(line + unit.rstrip()) > width:
            lines.append(line.rstrip())
            line = unit.lstrip()
        else:
            line += unit
        while cell_len(line) > width:  # one word longer than the line
            cut = next(i for i in range(len(line), 0, -1) if cell_len(line[:i]) <= width)
            lines.append(line[:cut])
            line = line[cut:]
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _scoreboard(verdict: dict[str, Any], lang: str, width: int) -> Table:
    """Best first. At 80 columns rung and p give way, so that names and losses stay whole."""
    from rich import box
    from rich.table import Table
    from rich.text import Text as Styled

    wide = width >= 96
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    metric = (wording.SHOWN.get(verdict["task"]) or ("",))[0]
    heads = [(say("candidate"), True), (say("rung"), wide), (wording.loss_unit(verdict), True), (say("interval"), True),
             (say("over naive"), True), (wording.METRICS.get(metric, say("loss")), bool(metric)), (say("p (Holm)"), wide),
             (say("one row"), True)]
    for at, (head, shown) in enumerate(heads):
        if shown:
            table.add_column(head.to(lang), justify="left" if at in (0, 1, 3) else "right", no_wrap=True, overflow="ellipsis",
                             min_width=9 if at == 0 else None, max_width=20 if at == 0 else None)
    done = [row for row in verdict["scoreboard"] if row["status"] == "done"]
    for row in sorted(done, key=lambda r: r["loss"]):
        gain, against = row.get("gain_over_naive"), row.get("against_winner")
        name = wording.clean(row["candidate"])
        sign = "★ " if name == verdict["winner"] else "× " if row.get("removed") else "  "
        cells = [sign + name, wording.SHORT[row["rung"]].to(lang), wording.number(row["loss"]), wording.interval(row["low"], row["high"]),
                 wording.number(gain["gain"], digits=3, sign=True) if gain else wording.DASH, wording.metric(metric, row["metrics"].get(metric))[0],
                 wording.p_value(against["p_holm"]) if against else wording.DASH, wording.milliseconds(row["cost"].get("single_row_ms"))]
        style = "bold" if name == verdict["winner"] else "dim" if row.get("removed") else ""
        table.add_row(*(Styled(cell, style=style) for cell, (_, shown) in zip(cells, heads, strict=True) if shown))
    return table


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
