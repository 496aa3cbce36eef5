"""Texts that carry their answer: the label's own words, or a mark that only one class has."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from assay.data.inspect.base import Finding
from assay.data.inspect.view import View
from assay.words import say

TEXTS = 4000
PURE, COVERED = 0.995, 0.9  # in clean sets the best word covers about 0.4 of a class so purely (sms spam, news titles)


def marks(view: View) -> list[Finding]:
    """For each text column: words that stand in nearly all texts of one class and in no other."""
    if not view.labels or len(view.classes) > 200:
        return []
    out = []
    rows = np.arange(len(view)) if len(view) <= TEXTS else np.sort(np.random.default_rng(view.seed).choice(len(view), TEXTS, replace=False))
    y = view.y[rows].astype(np.int64)
    sizes = np.bincount(y, minlength=len(view.classes))
    for column in view.data.schema.of_kind("text"):
        seen: dict[str, Counter[int]] = {}
        for text, k in zip(view.frame[column.name][rows].to_list(), y, strict=True):
            for piece in _pieces(text or ""):
                seen.setdefault(piece, Counter())[int(k)] += 1
        best: dict[int, tuple[float, str]] = {}
        for piece, counts in seen.items():
            k, count = counts.most_common(1)[0]
            total = sum(counts.values())
            covered = count / sizes[k]
            if count >= 20 and count >= PURE * total and covered >= COVERED and covered > best.get(k, (0.0, ""))[0]:
                best[k] = covered, piece
        if not best:
            continue
        k = max(best, key=lambda c: best[c][0] * sizes[c])
        share = float(sum(sizes[c] for c in best) / len(y))
        level = "leak" if share >= 0.45 or len(best) >= max(2, 0.5 * len(view.classes)) else "warning"
        text = say("In '{column}' the word '{word}' stands in {percent:.1f} % of the texts of '{label}' and in hardly any other{more}.", column=column.name,
                   word=best[k][1], percent=100 * best[k][0], label=str(view.classes[k]),
                   more=say("; {n} more classes have such a word", n=len(best) - 1) if len(best) > 1 else "")
        advice = say("If the word was added with the answer (a tag, a subject line, a template), take it out of the texts.")
        out.append(Finding("leak", level, text, advice, (column.name,), {"words": {str(view.classes[c]): w for c, (_, w) in best.items()}, "covered": round(best[k][0], 4),
                                                                          "rows": len(rows), "sampled": len(rows) < len(view.data)}))
    return out


def _pieces(text: str) -> set[str]:
    """Words, and pairs of Han characters."""
    text = text[:2000].lower()
    words = set(re.findall(r"[^\W\d_]{2,}|\[[^\]]{1,20}\]|#\w+", text))
    han = re.findall(r"[\u4e00-\u9fff]+", text)
    return {w for w in words if not re.search(r"[\u4e00-\u9fff]", w)} | {run[i: i + 2] for run in han for i in range(len(run) - 1)}
