"""One check as a page that opens anywhere: what was found, each column's effect with its interval, the table. Inline SVG, no script, no network."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path

from assay.watch.finding import Finding
from assay.watch.offline import Watched
from assay.words import Text, say

MOST_BARS = 40
GRADES = {"critical": say("critical"), "warning": say("warning"), "info": say("for information"), "fine": say("fine")}
_CSS = """:root{color-scheme:light dark;--paper:#f7f7f4;--card:#fff;--ink:#1b2430;--soft:#55606e;--line:#dcdfe3;--critical:#a13d22;--warning:#7d5600;--fine:#1a6b44;--info:#1d5f8a}
@media(prefers-color-scheme:dark){:root{--paper:#12161b;--card:#1a2027;--ink:#e6eaef;--soft:#a5b0bd;--line:#303944;--critical:#f0917a;--warning:#e3b558;--fine:#6fce9b;--info:#7fbce6}}
*{box-sizing:border-box}body{margin:0;padding:24px;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;overflow-wrap:anywhere}
main{max-width:1040px;margin:0 auto}section{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:20px 26px;margin:0 0 18px}
h1{font-size:1.35rem;margin:.2em 0 .6em}h2{font-size:1.1rem;margin:0 0 .5em}p,li{max-width:84ch}.soft,footer{color:var(--soft);font-size:.9rem}
ul{padding-left:1.1em;margin:.3em 0}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 9px;border-top:1px solid var(--line);vertical-align:top}.n{text-align:right;white-space:nowrap}
.critical{color:var(--critical);fill:var(--critical);stroke:var(--critical)}.warning{color:var(--warning);fill:var(--warning);stroke:var(--warning)}
.fine{color:var(--fine);fill:var(--fine);stroke:var(--fine)}.info{color:var(--info);fill:var(--info);stroke:var(--info)}
svg{width:100%;height:auto}svg text{stroke:none;fill:var(--ink);font-size:13px}svg .tick{fill:var(--soft);font-size:12px}svg .grid{stroke:var(--line)}svg .mark{stroke:var(--soft);stroke-dasharray:4 4}"""


def page(found: Watched, *, title: str, lang: str) -> str:
    """The page as a string, every text escaped."""

    def told(text: Text | str) -> str:
        return escape(text.to(lang) if isinstance(text, Text) else text)

    alarming = found.alarming
    head = (say("{n} of {checks} checks need a look.", n=len(alarming), checks=len(found.findings)) if alarming
            else say("Nothing has moved further than is tolerated."))
    parts = [f'<!doctype html><html lang="{lang}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
             f"<style>{_CSS}</style></head><body><main><section><h1>{told(head)}</h1><p class=soft>{told(basis(found))}</p>"]
    listed = [f for f in found.findings if f.level != "fine"]
    parts.append("<ul>" + "".join(f'<li><b class="{f.level}">{told(GRADES[f.level])}</b> {told(f.text)}</li>' for f in listed) + "</ul></section>")
    bars = [f for f in found.findings if f.code.partition(":")[0] in ("drift", "prediction_drift")][:MOST_BARS]
    if bars:
        parts.append(f"<section><h2>{told(say('How far each column has moved'))}</h2>{drawn(bars, found.tolerated, lang)}<p class=soft>{told(MEANING)}</p></section>")
    rows = "".join(f'<tr><td class="{f.level}">{told(GRADES[f.level])}</td><td>{escape(named(f))}</td><td class=n>{figure(f.facts.get("effect"))}</td>'
                   f'<td class=n>{interval(f)}</td><td class=n>{figure(f.facts.get("corrected"))}</td></tr>' for f in found.findings)
    heads = "".join(f"<th{' class=n' if i > 1 else ''}>{told(h)}</th>" for i, h in enumerate(HEADS))
    parts.append(f"<section><h2>{told(say('All checks'))}</h2><div class=scroll><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>")
    if found.notes:
        parts.append("<section><ul>" + "".join(f"<li>{told(n)}</li>" for n in found.notes) + "</ul></section>")
    return "".join(parts) + "</main></body></html>"


HEADS = (say("grade"), say("check"), say("effect"), say("95 % interval"), say("corrected p"))
MEANING = say("The effect is 0 for equal distributions and equals the population stability index where it is small; 0.25 is usually called much. The dashed line is what is tolerated.")


def basis(found: Watched) -> Text:
    return say("{rows:,} recent rows against {reference:,} reference rows, {columns} columns; false discoveries at most {alpha:g}, shifts up to {tolerated:g} tolerated.", rows=found.rows,
               reference=found.reference_rows, columns=found.columns, alpha=found.alpha, tolerated=found.tolerated)


def named(finding: Finding) -> str:
    return finding.code.replace("\x1f", "/")


def figure(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    if 0 <= value < 1e-300:
        return "0"
    return f"{value:.1e}" if value and abs(value) < 1e-3 else f"{value:.3f}"


def interval(finding: Finding) -> str:
    low, high = finding.facts.get("low"), finding.facts.get("high")
    return "–" if low is None or high is None else f"{figure(low)} … {figure(high)}"


def drawn(bars: list[Finding], tolerated: float, lang: str) -> str:
    """Effects with intervals on one axis, a square root's scale, so that 0.05 and 2 can both be read."""
    top, left, right, step = 30, 250, 940, 24
    most = max(0.3, *(f.facts["high"] for f in bars))

    def x(value: float) -> float:
        return left + (right - left) * math.sqrt(min(max(value, 0.0), most) / most)

    height = top + step * len(bars) + 14
    out = [f'<svg viewBox="0 0 960 {height}" role="img" aria-label="{escape(say("How far each column has moved").to(lang))}">']
    out += [f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top - 8}" y2="{height - 8}"/><text class="tick" x="{x(t):.1f}" y="{top - 12}" text-anchor="middle">{t:g}</text>'
            for t in (0, 0.1, 0.25, 0.5, 1, 2, 4, 8) if t <= most]
    out.append(f'<line class="mark" x1="{x(tolerated):.1f}" x2="{x(tolerated):.1f}" y1="{top - 8}" y2="{height - 8}"/>')
    for i, f in enumerate(bars):
        y = top + step * i + 10
        name = named(f).partition(":")[2] or f.code
        name = name if len(name) < 33 else name[:31] + "…"
        out.append(f'<g class="{f.level}"><title>{escape(f.text.to(lang))}</title><text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
                   f'<line x1="{x(f.facts["low"]):.1f}" x2="{x(f.facts["high"]):.1f}" y1="{y}" y2="{y}" stroke-width="3"/>'
                   + (f'<circle cx="{x(f.facts["effect"]):.1f}" cy="{y}" r="5"/>' if f.level != "critical" else f'<rect x="{x(f.facts["effect"]) - 5:.1f}" y="{y - 5}" width="10" height="10"/>') + "</g>")
    return "".join(out) + "</svg>"


def write(found: Watched, path: Path, *, title: str, lang: str) -> Path:
    """.svg: the picture alone; anything else: the page. Appears whole or not at all."""
    if path.suffix.lower() == ".svg":
        bars = [f for f in found.findings if f.code.partition(":")[0] in ("drift", "prediction_drift")][:MOST_BARS]
        text = drawn(bars, found.tolerated, lang) if bars else '<svg viewBox="0 0 1 1"></svg>'
        text = text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(">", f"><style>{_CSS}</style>", 1)
    else:
        text = page(found, title=title, lang=lang)
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path
