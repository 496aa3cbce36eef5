"""What `assay compress` prints: every make with its size, speed and loss beside the winner's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from assay.report import wording
from assay.words import say


def print_compressed(found: Any, *, lang: str, as_json: bool = False) -> None:
    """found: a `compress.Compressed`. A table, and one sentence about what was written."""
    if as_json:
        print(json.dumps(found.json(), ensure_ascii=False, indent=1))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, justify in ((say("make"), "left"), (say("MB"), "right"), (say("one row"), "right"), (say("loss"), "right"), (say("more than before"), "right"), (say("held"), "left")):
        table.add_column(head.to(lang), justify=justify)  # type: ignore[arg-type]
    for i, row in enumerate(found.rows):
        more = f"{wording.number(row.more, sign=True)} [{wording.number(row.low, sign=True)} … {wording.number(row.high, sign=True)}]" if i else ""
        table.add_row(row.name if i else say("before").to(lang), f"{row.mb:.2f}", wording.duration(row.single_row_ms / 1000), wording.number(row.loss), more,
                      (say("yes") if row.within else say("no")).to(lang) if i else "")
    Console().print(table)
    if found.kept is None:
        print(say("Nothing was written: no smaller make surely loses less than {margin:.2g} on {rows:,} test rows. To have the smallest all the same: --anyway",
                  margin=found.margin, rows=found.test_rows).to(lang))
        return
    whole, kept = found.rows[0], next(r for r in found.rows if r.name == found.kept)
    times = whole.single_row_ms / max(kept.single_row_ms, 1e-6)
    speed = say("{times:.1f} times faster", times=times) if times >= 1 else say("{times:.1f} times slower", times=1 / times)
    print(say("{name} is written to {out}: {factor:.1f} times smaller, {speed}; its loss differs by {more:+.3g} [{low:+.3g} to {high:+.3g}], and {margin:.2g} may be lost.",
              name=kept.name, out=str(found.out), factor=whole.mb / max(kept.mb, 1e-9), speed=speed, more=kept.more, low=kept.low, high=kept.high, margin=found.margin).to(lang))


def compressed(packed: dict[str, Any], say: Callable[..., str]) -> dict[str, Any] | None:
    """What the page shows of RUN/compressed.json; None where nothing was compressed."""
    if not packed:
        return None
    rows = [{"name": say("before") if i == 0 else r["name"], "mb": f"{r['mb']:.2f}", "ms": wording.duration(r["single_row_ms"] / 1000), "loss": wording.number(r["loss"]),
             "more": "" if i == 0 else wording.number(r["more"], digits=3, sign=True), "ends": "" if i == 0 else wording.interval(r["low"], r["high"], sign=True),
             "held": "" if i == 0 else say("yes") if r["within"] else say("no"), "kept": r["name"] == packed["kept"]} for i, r in enumerate(packed["rows"])]
    return {"rows": rows, "out": packed["out"], "margin": wording.number(packed["margin"], digits=2), "test_rows": f"{packed['test_rows']:,}"}
