"""What is published: the tally over the sets, what an answer costs, and each set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from peers import score
from peers.score import Judged
from peers.sets import HOME, Set

MARKS = {"win": "+", "tie": "=", "loss": "−"}

COSTS = ("artefact_mb", "single_row_ms", "fit_s", "cpu_s", "others_cpu_s")

Lines = dict[tuple[str, str], dict]


def page(chosen: Sequence[Set], lines: Lines, titles: dict[str, str]) -> tuple[str, list[str], list[list[str]]]:
    """-> about, head, rows for `machine.publish`. Lines of other splits and of failed runs count as not there."""
    judged: dict[tuple[str, str], Judged] = {}
    for one in chosen:
        for peer in ("assay", *titles):
            line = lines.get((one.name, peer))
            if line and "figures" in line and line["digest"] == one.about["digest"]:
                judged[one.name, peer] = score.judge(one, HOME / "runs" / one.name / peer)
    plain = [s for s in chosen if not s.structured]
    about = [
        "## Quality against AutoGluon, FLAML and LightGBM",
        "`python bench/quality.py --score` from the runs of `--peers` and `--assay`: 60 s each, two cores, the same outer split "
        "(a stratified quarter of the rows, at most 5,000, or the set's own test file), one seed. Classes are scored by log loss (cut at 13.8 nats), "
        "amounts by squared error; every peer is told to optimise just that, and the task. A win or a loss is one whose paired 95 % bootstrap interval "
        "over the test rows leaves out 0; none is corrected for the number of sets. Ratio: geometric mean over the sets of loss (amounts: RMSE) assay / peer, "
        "below 1 is better; p: Wilcoxon signed-rank of its logarithm.",
        "AutoGluon 1.6.3 with its whole default portfolio, the neural models too, without ray (on two cores its start costs more than it brings: measured); "
        "`good_quality` on eight sets, for time; text through its n-gram features, Chinese as spaced pairs of characters (left alone it takes Chinese for a category: log loss "
        "0.637, AUC 0.5 on waimai_10k_zh). FLAML 2.7.0 with LightGBM, XGBoost, CatBoost, forests; it reads no free text, "
        "so the text sets are left out there. LightGBM 4.7.0 with early stopping, categories as such and TF-IDF of 1-2 grams, then refitted on all rows. "
        "Linear: logistic or ridge regression of scikit-learn. Their seconds count the fit alone, ours the whole process.",
        _table(["peer", "sets", "wins", "ties", "losses", "win or tie", "ratio", "p", "lost on"], _tallies(plain, judged, titles)),
        "What an answer costs: medians over the sets. AutoGluon after `clone_for_deployment` and `persist`, FLAML as its pickled object; one-row frames, "
        "for assay a dictionary. Times assay: the median over the sets of peer / assay.",
        _table(["", "sets", "artefact MB", "times assay", "one row ms", "times assay", "fit s", "CPU s of the run", "CPU s of others meanwhile"],
               _costs(plain, lines, titles)),
    ]
    structured = [s for s in chosen if s.structured]
    if any((s.name, p) in judged for s in structured for p in ("assay", *titles)):
        about += ["Rows with structure, given as plain rows: nobody is told that the test rows are schools never seen (exam_scores) or the future "
                  "(bike_sharing_hourly, metro_traffic). Not counted above. Intervals: bootstrap over schools, or over weeks.",
                  _table(_head(titles), _rows(structured, judged, lines, titles))]
    about.append("Each set: log loss or RMSE on the test rows; + assay is better, = no significant difference, − assay is worse.")
    return "\n\n".join(about), _head(titles), _rows(plain, judged, lines, titles)


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _tallies(chosen: list[Set], judged: dict[tuple[str, str], Judged], titles: dict[str, str]) -> list[list[str]]:
    from scipy.stats import binomtest

    out = []
    for peer, title in titles.items():
        pairs = [(s, judged[s.name, "assay"], judged[s.name, peer]) for s in chosen if {(s.name, "assay"), (s.name, peer)} <= judged.keys()]
        if not pairs:
            continue
        found = score.tally(pairs)
        low, high = binomtest(found.win + found.tie, found.n).proportion_ci(0.95)
        out.append([title, str(found.n), str(found.win), str(found.tie), str(found.loss),
                    f"{found.share:.0%} [{low:.0%}, {high:.0%}]", f"{found.ratio:.3f}", f"{found.p:.3f}", ", ".join(found.lost) or "none"])
    return out


def _costs(chosen: list[Set], lines: Lines, titles: dict[str, str]) -> list[list[str]]:
    out = []
    for peer, title in {"assay": "", **titles}.items():
        mine = {s.name: lines[s.name, peer] for s in chosen if "figures" in lines.get((s.name, peer), {})}
        if not mine:
            continue

        median = {key: f"{np.median([row[key] for row in mine.values()]):.3g}" for key in COSTS}
        both = [name for name in mine if "figures" in lines.get((name, "assay"), {})] if title else []
        times = {key: f"{np.median([mine[n][key] / lines[n, 'assay'][key] for n in both]):.3g}" if both else "" for key in COSTS}
        out.append([title or "assay", str(len(mine)), median["artefact_mb"], times["artefact_mb"], median["single_row_ms"], times["single_row_ms"],
                    median["fit_s"], median["cpu_s"], median["others_cpu_s"]])
    return out


def _head(titles: dict[str, str]) -> list[str]:
    return ["set", "train", "test", "assay", "its winner", *titles.values()]


def _rows(chosen: list[Set], judged: dict[tuple[str, str], Judged], lines: Lines, titles: dict[str, str]) -> list[list[str]]:
    out = []
    for one in chosen:
        if not any((one.name, p) in judged for p in ("assay", *titles)):
            continue
        ours = judged.get((one.name, "assay"))
        cells = [one.name, f"{one.about['train']:,}", f"{one.about['test']:,}", _shown(one, ours), str(lines[one.name, "assay"]["best"]) if ours else ""]
        for peer in titles:
            theirs = judged.get((one.name, peer))
            mark = f" {MARKS[score.outcome(one, ours, theirs)]}" if ours and theirs else ""
            cells.append(_shown(one, theirs) + mark)
        out.append(cells)
    return out


def _shown(one: Set, found: Judged | None) -> str:
    if found is None:
        return ""
    return f"{np.sqrt(found.mean):,.4g}" if one.task == "regress" else f"{found.mean:.4f}"
