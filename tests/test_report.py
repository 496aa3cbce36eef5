"""The report page: whole, safe, readable, and true to verdict.json."""

import copy
import html as entities
import json
import re
import shlex
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_verdicts import LONG, SAMPLES, SCRIPT, verdict

import assay.report
from assay.errors import InputError
from assay.report import draw, html, wording
from assay.words import Text

HERE = Path(assay.report.__file__).parent
SCHEMA = jsonschema.Draft202012Validator(json.loads((HERE / "verdict.schema.json").read_text(encoding="utf-8")))
VOID = {"meta", "link", "br", "hr", "img", "input"}
both = pytest.mark.parametrize("lang", ["en", "zh"])
every = pytest.mark.parametrize("name", SAMPLES)


class Elements(HTMLParser):
    """All elements with their attributes and own text; `open` holds what was never closed, `stray` what closed nothing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.stray: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.stray.append(tag)

    def handle_data(self, data):
        self.text.append(data)


@both
@every
def test_the_page_is_well_formed_and_needs_nothing_from_outside(name, lang):
    page = html.render(SAMPLES[name], lang=lang)
    parsed = Elements(page)
    assert not parsed.open
    assert not parsed.stray
    tags = {tag for tag, _ in parsed.seen}
    assert not tags & {"script", "iframe", "img", "object", "embed", "form", "base", "foreignobject", "use", "image"}
    for _, attributes in parsed.seen:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("href", "src", "xlink:href", "action"):
            assert attributes.get(key, "#").startswith(("#", "data:,"))
    assert not re.search(r"url\(|@import|@font-face", page)
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(drawing)


@both
def test_hostile_names_are_shown_and_do_nothing(lang):
    page = html.render(SAMPLES["odd names"], lang=lang)
    assert "<script" not in page.lower()
    shown = "".join(Elements(page).text)
    assert SCRIPT in shown
    assert LONG in shown


@pytest.mark.parametrize("outcome", wording.OUTCOMES)
@both
def test_the_verdict_sentence_and_its_badge_come_first(outcome, lang):
    packed = verdict(outcome)
    page = html.render(packed, lang=lang)
    assert entities.unescape(re.search(r'<p class="badge">(.*?)</p>', page)[1]) == wording.OUTCOMES[outcome].to(lang)
    assert entities.unescape(re.search(r'<h1 id="said">(.*?)</h1>', page)[1]) == Text.of(packed["sentence"]).to(lang)
    assert page.index('class="badge"') < page.index("<h1") < page.index("<svg")
    order = [page.index(mark) for mark in ('id="said"', 'class="next"', 'class="notes"', 'id="board"', 'id="front"', 'id="fit"', 'id="confusion"',
                                           'id="learning"', 'id="data"', 'id="again"')]
    assert order == sorted(order)


@every
def test_every_candidate_stands_on_the_page_with_its_loss_or_its_reason(name):
    packed = SAMPLES[name]
    shown = "".join(Elements(html.render(packed, lang="en")).text)
    for row in packed["scoreboard"]:
        assert row["candidate"] in shown
        if row["status"] == "done":
            assert wording.number(row["loss"]) in shown
        for reason in filter(None, (row["reason"], row.get("removed"))):
            assert str(Text.of(reason)) in shown


def test_money_is_told_a_month_or_a_row():
    month, row = (html.render(SAMPLES[name], lang="en") for name in ("money", "money a row"))
    assert "+100,000 CNY" in month
    assert "Money a month" in month
    assert "Money a row" in row
    assert "--requests" in row
    assert 'class="money"' not in html.render(SAMPLES["worth it"], lang="en")


@pytest.mark.parametrize(("outcome", "holds"), [
    ("worth_it", lambda low, high, margin: low > margin), ("not_worth_it", lambda low, high, margin: high < margin),
    ("unknown", lambda low, high, margin: low < margin < high)])
def test_the_drawn_interval_lies_on_the_side_that_the_sentence_names(outcome, holds):
    drawing = ET.fromstring(re.search(r"<figure>(<svg.*?</svg>)", html.render(verdict(outcome), lang="en"), re.S)[1])
    bar = next(e for e in drawing if e.get("class") == "whisker thick")
    margin = next(e for e in drawing if e.get("class") == "margin")
    assert holds(float(bar.get("x1")), float(bar.get("x2")), float(margin.get("x1")))


def test_a_gain_that_a_limit_blocks_is_told_as_such():
    assert "breaks a limit of this case, so it cannot be taken" in html.render(SAMPLES["blocked"], lang="en")
    for name in ("worth it", "not worth it", "money"):
        assert "so it cannot be taken" not in html.render(SAMPLES[name], lang="en")


def test_a_page_of_150_classes_and_45_columns_stays_small_and_folds_them():
    page = html.render(SAMPLES["many classes"], lang="en")
    assert len(page) < 150_000
    assert page.count("<details") == 4  # columns, classes, where figures come from, where candidates come from
    assert "110 more classes" in page
    assert "the 12 most frequent of 150 classes" in page


def test_a_verdict_without_any_large_candidate_is_still_a_page():
    packed = copy.deepcopy(SAMPLES["not worth it"])
    packed |= {"large": None, "small": None, "effect": None, "money": None}
    packed["scoreboard"] = [row for row in packed["scoreboard"] if row["rung"] in ("naive", "classical")]
    packed["curves"] = {}
    SCHEMA.validate(packed)
    assert 'id="fit"' not in html.render(packed, lang="zh")


def test_the_template_holds_no_words_of_its_own():
    import jinja2

    source = (HERE / "page.html").read_text(encoding="utf-8")
    bare = "".join(node.data for node in jinja2.Environment().parse(source).find_all(jinja2.nodes.TemplateData))
    bare = re.sub(r"<title>.*?</title>|<p class=\"brand\">assay</p>|<[^>]*>|<!doctype html>", " ", bare, flags=re.S)
    assert not re.findall(r"[A-Za-z]{2,}", re.sub(r'class="[^"]*"?|"[^"]*>', " ", bare))


def test_writing_makes_the_folder_and_names_what_is_missing(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(InputError, match=r"verdict\.json"):
        html.write(run, tmp_path / "x.html", lang="en")
    (run / "verdict.json").write_text(json.dumps(SAMPLES["money"]), encoding="utf-8")
    with pytest.raises(InputError, match="'fr'"):
        html.write(run, tmp_path / "x.html", lang="fr")
    out = html.write(run, tmp_path / "new" / "x.html", lang="zh")
    assert '<html lang="zh-CN">' in out.read_text(encoding="utf-8")
    assert [p.name for p in out.parent.iterdir()] == ["x.html"]


@every
def test_the_command_on_the_page_is_one_that_the_command_line_understands(name):
    import typer.main

    from assay.cli import app

    words = shlex.split(wording.command(SAMPLES[name]))
    assert words[:2] == ["assay", "run"]
    parsed = typer.main.get_command(app).commands["run"].make_context("run", words[2:]).params
    assert parsed["target"] == SAMPLES[name]["case"]["target"]
    assert str(parsed["file"]) == "tickets.csv"


def test_the_command_repeats_every_part_of_a_case():
    from assay.case import Case, worth

    case = Case.of({"target": "y", "data": "a b.csv", "time": "90s", "memory": "2G", "worth": "yes>no=500 CNY; no>yes=0.25 CNY", "requests": "2M/month",
                    "latency": "20ms", "folds": 3, "offline": True, "candidates": ["linear", "mlp"], "kinds": {"zip": "category"}, "seed": 7,
                    "llm_url": "http://127.0.0.1:1/v1", "llm_model": "m", "llm_price_in": 1.5, "llm_price_out": 4.0})
    words = shlex.split(wording.command({"case": case.json()}))
    flags = {w: words[i + 1] for i, w in enumerate(words[:-1]) if w.startswith("--")}
    assert (flags["--time"], flags["--memory"], flags["--latency"], flags["--requests"]) == ("90s", "2048M", "20ms", "2000000")
    assert worth(flags["--worth"]) == case.worth
    assert words.count("--only") == 2
    assert {"--offline", "--llm-price", "--kind", "--folds"} <= set(words)


# ---- numbers and drawings


@given(st.floats(min_value=1e-12, max_value=1e11), st.sampled_from([1, -1]))
def test_a_number_is_read_back_as_it_was_to_its_digits(size, side):
    text = wording.number(size * side)
    plain = text.replace(",", "").replace("−", "-").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")).replace("×10", "e")
    assert float(plain) == pytest.approx(size * side, rel=0.051 if "×" in text else 6e-4)


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.0, "0"), (-0.0, "0"), (4.3, "4.300"), (12345.6, "12,346"), (-1.5, "−1.500"), (0.00001234, "1.2×10⁻⁵")])
def test_numbers_look_as_people_write_them(value, text):
    assert wording.number(value) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_an_axis_keeps_order_and_its_ticks_lie_inside(low, span, shares):
    axis = draw.Axis(low, low + span, 0, 100)
    at = [axis(low + span * s) for s in sorted(shares)]
    assert at == sorted(at)
    assert 1 <= len(axis.ticks()) <= 12
    assert all(-0.01 <= axis(t) <= 100.01 for t in axis.ticks())


@given(st.lists(st.tuples(st.floats(0.01, 1000), st.floats(0.01, 10)), min_size=2, max_size=9))
def test_the_front_holds_exactly_those_that_nobody_beats(points):
    rows = [{"candidate": f"c{i}", "rung": "classical", "loss": loss, "low": loss, "high": loss, "cost": {"single_row_ms": ms}}
            for i, (ms, loss) in enumerate(points)]
    found = {entry["name"] for entry in html._front(rows, "loss", lambda text, **values: text, str)["names"]}
    for i, (ms, loss) in enumerate(points):
        if any(m <= ms and v <= loss and (m, v) != (ms, loss) for m, v in points):
            assert f"c{i}" not in found
        elif points.count((ms, loss)) == 1:
            assert f"c{i}" in found


# ---- the schema


@every
def test_samples_keep_to_the_schema(name):
    SCHEMA.validate(SAMPLES[name])
    SCHEMA.validate(json.loads(json.dumps(SAMPLES[name])))


@pytest.mark.parametrize("change", [
    lambda v: v.update(outcome="maybe"), lambda v: v.pop("winner"), lambda v: v["effect"].pop("mde"), lambda v: v.update(extra=1),
    lambda v: v["scoreboard"][0].pop("cost"), lambda v: v["scoreboard"][-1].pop("reason"), lambda v: v["scoreboard"][-1].update(status="gone"),
    lambda v: v["effect"].update(p=1.5), lambda v: v["data"].update(fingerprint="x"), lambda v: v["sentence"].pop("values"),
    lambda v: v["scoreboard"][0]["cost"].update(energy="guessed"), lambda v: v["data"].update(rows=-1)])
def test_a_changed_verdict_is_refused_by_the_schema(change):
    packed = copy.deepcopy(SAMPLES["unknown"])
    change(packed)
    assert not SCHEMA.is_valid(packed)


def test_a_real_run_keeps_to_the_schema_and_has_a_report(tmp_path):
    from assay import api
    from assay.tasks import find

    data = find("classify").example()
    run = api.run(data.frame, target=data.schema.target, out=tmp_path / "run", time="25s", candidates=["linear"], folds=1)
    SCHEMA.validate(json.loads(run.folder.verdict_file.read_text(encoding="utf-8")))
    assert run.report(tmp_path / "r.html", lang="zh").stat().st_size > 10_000


# ---- in a browser


CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = c => { pen.clearRect(0,0,1,1); pen.fillStyle = c; pen.fillRect(0,0,1,1); const d = pen.getImageData(0,0,1,1).data; return [d[0],d[1],d[2],d[3]/255]; };
  const over = (a, b) => [0,1,2].map(i => a[i]*a[3] + b[i]*(1-a[3])).concat([1]);
  const light = c => { const f = c.slice(0,3).map(v => { v /= 255; return v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4; }); return .2126*f[0]+.7152*f[1]+.0722*f[2]; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
    if (!own || e.closest('title') || e.closest('.skip') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), under = [];
    for (let p = e; p; p = p.parentElement) under.unshift(rgba(getComputedStyle(p).backgroundColor));
    const back = under.reduce((a, b) => over(b, a), [255,255,255,1]);
    const fore = over(rgba(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x), ratio = (a+.05)/(b+.05);
    if (ratio < 4.5) low.push(own.slice(0, 30) + ' ' + ratio.toFixed(2));
  }
  return low;
}"""


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@both
@every
def test_a_browser_shows_the_page_without_errors_requests_overflow_or_faint_text(browser, tmp_path, name, lang, scheme):
    path = tmp_path / "report.html"
    path.write_text(html.render(SAMPLES[name], lang=lang), encoding="utf-8")
    page = browser.new_page(viewport={"width": 400, "height": 900}, color_scheme=scheme)
    try:
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert page.evaluate(CONTRAST) == []
        page.set_viewport_size({"width": 1200, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        assert said == []
        assert [url for url in asked if not url.startswith(("file:", "data:,"))] == []
    finally:
        page.close()


@pytest.mark.browser
def test_the_page_can_be_walked_by_keyboard(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html.render(SAMPLES["many classes"], lang="en"), encoding="utf-8")
    page = browser.new_page(viewport={"width": 400, "height": 900})
    try:
        page.goto(path.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        walked = []
        for _ in range(12):
            page.keyboard.press("Tab")
            walked.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        wide = page.evaluate("[...document.querySelectorAll('details[open] .scroll, section > .scroll, .panels > .scroll')]"
                             ".filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length")
        assert wide == 0, "what scrolls sideways has to take the focus"
        assert {"scroll", "SUMMARY", "PRE"} <= set(walked)
    finally:
        page.close()
