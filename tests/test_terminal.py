"""What stands in the terminal while a run goes on, and at its end."""

import copy
import io
import json
import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from sample_verdicts import LONG, SAMPLES

from assay.contest.arena import Event
from assay.contest.folder import Trial
from assay.report import wording
from assay.report.terminal import LiveTable, folded, print_verdict, verdict_lines
from assay.words import Text, say

both = pytest.mark.parametrize("lang", ["en", "zh"])
every = pytest.mark.parametrize("name", SAMPLES)
COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])[0-9;]*m")


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def done(name: str, split: int, loss: float, rung: str = "classical") -> Event:
    trial = Trial(name, rung, split, "done", 0, loss=loss, valid_loss=loss * 0.9, seconds=2.5, train_rows=100, rows_used=100, test_rows=20)
    return Event("end", name, split, 2.5, trial=trial)


def refused(name: str, reason: Text) -> Event:
    return Event("end", name, 0, 0.1, trial=Trial(name, "llm", 0, "refused", 0, reason=reason))


@pytest.mark.parametrize("width", [80, 100])
@both
@every
def test_the_verdict_fits_the_terminal_and_ends_with_the_next_command(name, lang, width):
    packed = SAMPLES[name]
    lines = verdict_lines(packed, lang, width=width)
    assert max(cell_len(line) for line in lines[:-1]) <= width
    assert lines[-1] == say("Next: {step}", step=Text.of(packed["next"])).to(lang)
    shown = re.sub(r"\s", "", "".join(lines))
    assert re.sub(r"\s", "", Text.of(packed["sentence"]).to(lang)) in shown
    assert wording.OUTCOMES[packed["outcome"]].to(lang) in lines
    assert (say("Cheapest that is good enough: {name}.", name=packed["cheapest"]).to(lang) in lines) == (packed["cheapest"] != packed["winner"])


@pytest.mark.parametrize("width", [80, 100])
@every
def test_the_scoreboard_is_sorted_and_shows_each_loss_with_its_interval(name, width):
    packed = SAMPLES[name]
    lines = verdict_lines(packed, "en", width=width)
    at = []
    for row in sorted((r for r in packed["scoreboard"] if r["status"] == "done"), key=lambda r: r["loss"]):
        wanted = re.compile(re.escape(wording.number(row["loss"])) + r"\s+" + re.escape(wording.interval(row["low"], row["high"])))
        start = row["candidate"][:6]
        at.append(next(i for i, line in enumerate(lines) if start in line and wanted.search(line)))
    assert at == sorted(at)
    assert sum(line.strip().startswith("★ ") for line in lines) == 1


def test_who_was_refused_failed_or_removed_is_listed_with_the_reason():
    shown = " ".join(" ".join(verdict_lines(SAMPLES["worth it"], "en")).split())
    assert "hf: did not take part: it needs: pip install 'assay[hf]'" in shown
    assert "convnet: failed: it failed: ValueError: no space" in shown
    assert "mlp: removed by a limit: one row takes 0.72 ms (95th percentile), the limit is 0.5 ms" in shown


def test_names_cannot_command_the_terminal_or_the_table():
    packed = copy.deepcopy(SAMPLES["odd names"])
    packed["scoreboard"][0]["candidate"] = packed["winner"] = "[bold red]x[/]\x1b[2J\r\n\u202e"
    lines = verdict_lines(packed, "en")
    shown = "\n".join(lines)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold red]x[/]" in shown


@both
def test_print_verdict_names_the_report_and_keeps_the_command_on_one_line(tmp_path, lang):
    folder = tmp_path / ("a-rather-long-folder-name" * 5)
    folder.mkdir()
    (folder / "verdict.json").write_text(json.dumps(SAMPLES["money"]), encoding="utf-8")
    sink = io.StringIO()
    print_verdict(folder, lang=lang, stream=sink)
    assert "report.html" not in sink.getvalue()
    (folder / "report.html").write_text("x", encoding="utf-8")
    sink = io.StringIO()
    print_verdict(folder, lang=lang, stream=sink)
    lines = sink.getvalue().splitlines()
    assert lines[-2] == say("Report: {path}", path=str(folder / "report.html")).to(lang)
    assert "\x1b" not in sink.getvalue()


def test_colours_are_for_terminals_and_no_color_is_respected(tmp_path, monkeypatch):
    (tmp_path / "verdict.json").write_text(json.dumps(SAMPLES["money"]), encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Tty(), Tty()
    print_verdict(tmp_path, stream=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    print_verdict(tmp_path, stream=plain)
    assert COLOUR.search(coloured.getvalue())
    assert not COLOUR.search(plain.getvalue())


# ---- while it runs


@both
def test_a_pipe_gets_one_plain_line_a_finished_trial(lang):
    sink = io.StringIO()
    with LiveTable(lang=lang, stream=sink) as table:
        table(say("{rows:,} rows", rows=1200))
        table(Event("start", "linear", 0, 3.0))
        table(Event("note", "linear", 0, note="epoch 3 of 9"))
        table(done("linear", 0, 0.31))
        table(refused("llm", say("it ran out of memory")))
        table(Event("end", "linear", -1, 1.0, trial=Trial("linear", "classical", 0, "done", 0, seconds=1.2)))
    lines = sink.getvalue().splitlines()
    assert len(lines) == 4
    assert "\x1b" not in sink.getvalue()
    assert lines[0] == say("{rows:,} rows", rows=1200).to(lang)
    assert "linear" in lines[1]
    assert "0.3100" in lines[1]
    assert say("it ran out of memory").to(lang) in lines[2]


@both
def test_a_terminal_gets_a_table_with_means_over_splits_the_note_and_the_clock(lang, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    from rich.console import Console

    table = LiveTable(lang=lang, stream=io.StringIO(), total_s=60.0)
    table(done("linear", 0, 0.30))
    table(done("linear", 1, 0.40))
    table(refused("llm", say("it was left out on request")))
    table(Event("start", "mlp", 1, 9.0))
    table(Event("note", "mlp", 1, note="validating"))
    table._began = time.monotonic() - 15
    table.since = time.monotonic() - 4
    sink = io.StringIO()
    Console(file=sink, width=80, no_color=True).print(table.table())
    lines = sink.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= 80
    mean = next(line for line in lines if line.strip().startswith("linear"))
    assert "0.3500" in mean
    assert "0.3150" in mean
    running = next(line for line in lines if line.strip().startswith("mlp"))
    assert say("validating").to(lang) in running
    assert re.search(r"\b4(\.\d)? s", running)
    clock = next(line for line in lines if "━" in line)
    assert clock.count("━") + clock.count("─") == 24
    assert 6 <= clock.count("━") <= 7
    assert say("{used} of {total} used, {left} left", used="15 s", total="60 s", left="45 s").to(lang) in clock


def test_the_live_table_draws_on_a_terminal_and_cleans_up_behind_itself(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    sink = Tty()
    with LiveTable(stream=sink, total_s=60.0) as table:
        table(Event("start", "mlp", 0, 9.0))
        table(say("a sentence above"))
        table(done("mlp", 0, 0.2, "scratch"))
        time.sleep(0.5)
        drawn = sink.getvalue()
    assert "mlp" in drawn
    assert "a sentence above" in drawn
    assert "\x1b[?25l" in drawn
    assert sink.getvalue().rstrip().endswith(("\x1b[?25h", "\x1b[2K"))
    assert "\x1b[?25h" in sink.getvalue(), "the cursor comes back"


def test_the_cursor_comes_back_after_ctrl_c(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    sink = Tty()
    with pytest.raises(KeyboardInterrupt), LiveTable(stream=sink):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in sink.getvalue()


def test_quiet_prints_nothing(capsys):
    with LiveTable(quiet=True) as table:
        table(say("a sentence"))
        table(Event("start", "mlp", 0, 9.0))
        table(done("mlp", 0, 0.2))
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error_so_that_output_stays_clean(capsys):
    assert LiveTable().stream is sys.stderr
    with LiveTable() as table:
        table(done("mlp", 0, 0.2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "mlp" in err


def test_an_event_may_bring_the_clock():
    table = LiveTable(stream=io.StringIO())
    table(Event("clock", "", -1, 90.0))
    assert table.total_s == 90.0


def test_a_note_with_braces_is_shown_as_it_is():
    assert LiveTable(lang="zh", stream=io.StringIO())._told("{x} 50 %") == "{x} 50 %"


def test_long_chinese_names_keep_the_table_in_line():
    lines = verdict_lines(SAMPLES["odd names"], "zh", width=80)
    row = next(line for line in lines if LONG[:4] in line)
    other = next(line for line in lines if "boosting" in line and "0.3000" in line)
    assert cell_len(row[: row.index("0.2500")]) == cell_len(other[: other.index("0.3000")])


@given(st.text(alphabet="ab 中文，。（）\"x-", max_size=80), st.integers(6, 40))
def test_folding_loses_nothing_and_keeps_the_width(text, width):
    lines = folded(text, width)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
    assert all(cell_len(line) <= width for line in lines)


def test_chinese_breaks_anywhere_but_before_its_punctuation():
    assert folded("大模型值得用，在测试数据上。", 12) == ["大模型值得", "用，在测试数", "据上。"]
    assert folded("区间为 95 % 的", 9) == ["区间为", "95 % 的"]
    assert folded("a large model is worth it", 12) == ["a large", "model is", "worth it"]
