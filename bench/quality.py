"""How good is the winner: assay at 60 s against AutoGluon, FLAML, LightGBM, a linear model and the dummy on the same rows.

    python bench/peers/setup.py                     # the peers' environments, outside this repository ($ASSAY_PEERS)
    python bench/quality.py --peers                 # hours; goes on where it stopped; one JSON line a run in results.jsonl
    python bench/quality.py --assay                 # the other side: 60 s a set
    python bench/quality.py --score                 # the table in docs/benchmarks.md from what is there

--sets NAME ... and --only PEER ... restrict; --again runs what is there already once more (the last line of a pair counts).
As root, runs get the cores before everybody else (ASSAY_BENCH_POLITE=1: not); what the others took all the same is written beside each.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from machine import publish
from peers import score, sets
from peers.quiet import timed
from peers.sets import BAGGED, HOME, Set

RESULTS = HOME / "results.jsonl"
HERE = Path(__file__).parent / "peers"
SECONDS = 60
# peer: (environment, script, option)
PEERS = {
    "dummy": ("lightgbm", "run_plain.py", "dummy"),
    "linear": ("lightgbm", "run_plain.py", "linear"),
    "lightgbm": ("lightgbm", "run_lightgbm.py", ""),
    "flaml": ("flaml", "run_flaml.py", ""),
    "autogluon_medium": ("autogluon", "run_autogluon.py", "medium_quality"),
    "autogluon_good": ("autogluon", "run_autogluon.py", "good_quality"),
}
TITLES = {"autogluon_good": "AutoGluon good_quality", "autogluon_medium": "AutoGluon medium_quality", "flaml": "FLAML",
          "lightgbm": "LightGBM", "linear": "linear", "dummy": "dummy"}


def results() -> dict[tuple[str, str], dict]:
    """{(set, peer): the last line about it}, of the splits that are there now."""
    found: dict[tuple[str, str], dict] = {}
    if RESULTS.exists():
        for line in RESULTS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row["set"], row["peer"]] = row
    return found


def write(row: dict) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    shown = {k: row[k] for k in ("set", "peer", "error", "skipped", "figures", "fit_s", "wall_s", "artefact_mb", "single_row_ms") if k in row}
    print(json.dumps(shown, ensure_ascii=False), flush=True)


def skipped(one: Set, peer: str) -> str | None:
    if peer == "autogluon_good" and one.name not in BAGGED:
        return "not run: only on eight sets, for time"
    has_text = one.name in ("waimai_10k_zh", "sst2", "thucnews_titles_zh", "banking77", "sms_spam")
    if peer == "flaml" and has_text:
        return "FLAML reads no free text in tables; its text task downloads a transformer's weights from a hub"
    return None


def run_peer(one: Set, peer: str) -> dict:
    environment, script, option = PEERS[peer]
    out = HOME / "runs" / one.name / peer
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [str(HOME / environment / "bin" / "python"), str(HERE / script), str(one.folder / "train.parquet"), str(one.folder / "test.parquet"),
               one.target, one.task, str(SECONDS), str(out), *([option] if option else [])]
    return handed_in(one, peer, out, timed(command, out / "log.txt", 6 * SECONDS, out))


def run_assay(one: Set, more: list[str]) -> dict:
    out = HOME / "runs" / one.name / "assay"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [sys.executable, "-m", "assay.cli", "run", str(one.folder / "train.parquet"), "--target", one.target, "--task", one.task,
               "--time", f"{SECONDS}s", "--json", "-o", str(out / "run"), *more]
    facts = timed(command, out / "log.txt", 3 * SECONDS, out)
    winner = out / "run" / "winner.assay"
    if winner.exists():
        ask = [sys.executable, str(HERE / "run_assay.py"), str(winner), str(one.folder / "test.parquet"), str(out)]
        code = timed(ask, out / "answers.txt", 300, out)["code"]
        facts |= {"fit_s": facts["wall_s"]} | ({"code": code} if code else {})
    row = handed_in(one, "assay", out, facts)
    for spare in (out / "run").glob("models"):
        shutil.rmtree(spare, ignore_errors=True)
    return row


def handed_in(one: Set, peer: str, out: Path, facts: dict) -> dict:
    """The line of results.jsonl: what was measured, what the runner said, and its score or what was wrong."""
    row = {"set": one.name, "peer": peer, "seconds": SECONDS, "digest": one.about["digest"], "at": time.strftime("%Y-%m-%d %H:%M:%S"), **facts}
    if (out / "facts.json").exists():
        row |= json.loads((out / "facts.json").read_text(encoding="utf-8"))
        try:
            row["figures"] = {k: round(v, 6) for k, v in score.judge(one, out).figures.items()}
        except ValueError as error:
            row["error"] = str(error)
    else:
        lines = (out / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        row["error"] = f"exit code {facts['code']}: {lines[-1][:300] if lines else 'no output'}"
    return row


def run_all(chosen: list[Set], peers: list[str], again: bool, more: list[str]) -> None:
    for one in chosen:
        sets.make(one)
        for peer in peers:
            there = results().get((one.name, peer))
            if there and there["digest"] == one.about["digest"] and "error" not in there and not again:
                continue
            reason = skipped(one, peer)
            if reason:
                write({"set": one.name, "peer": peer, "digest": one.about["digest"], "skipped": reason})
            else:
                write(run_assay(one, more) if peer == "assay" else run_peer(one, peer))


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--splits", "--peers", "--assay", "--score", "--again"):
        ask.add_argument(flag, action="store_true")
    ask.add_argument("--sets", nargs="*", default=[])
    ask.add_argument("--only", nargs="*", default=list(PEERS), choices=list(PEERS))
    asked, more = ask.parse_known_args()  # what is not known goes to `assay run`
    chosen = sets.find(asked.sets)
    HOME.mkdir(parents=True, exist_ok=True)
    if asked.splits:
        for one in chosen:
            print(one.name, (sets.make(one) / "about.json").read_text(encoding="utf-8"))
    if asked.peers:
        run_all(chosen, asked.only, asked.again, [])
    if asked.assay:
        run_all(chosen, ["assay"], asked.again, more)
    if asked.score:
        from peers.table import page

        publish("quality", *page(chosen, results(), TITLES))


if __name__ == "__main__":
    main()
