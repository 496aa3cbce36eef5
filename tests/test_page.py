"""The page in a real browser: what it shows, what it changes, who may, and that nothing it is told becomes a script."""

from __future__ import annotations

import os
from contextlib import contextmanager

import pytest
from page_home import HOSTILE, MODELS, Running, home_with_models, pictures

pytest.importorskip("nicegui", reason="nicegui is not installed")
pytestmark = pytest.mark.browser
VIEWS = {"/": "Models", "/try": "Try", "/contest": "Contest", "/label": "Label", "/replies": "Replies", "/watch": "Watch", "/log": "Log"}
WAIT = 60_000  # ms; the machine may be busy

# of every text that is seen: its colour against what lies under it; 3:1 suffices from 24 px on, or 18.7 px bold (WCAG 2.2, 1.4.3)
CONTRAST = """() => {
  const pen = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = c => { pen.clearRect(0,0,1,1); pen.fillStyle = c; pen.fillRect(0,0,1,1); const d = pen.getImageData(0,0,1,1).data; return [d[0],d[1],d[2],d[3]/255]; };
  const over = (a, b) => [0,1,2].map(i => a[i]*a[3] + b[i]*(1-a[3])).concat([1]);
  const light = c => { const f = c.slice(0,3).map(v => { v /= 255; return v <= .04045 ? v/12.92 : ((v+.055)/1.055)**2.4; }); return .2126*f[0]+.7152*f[1]+.0722*f[2]; };
  const low = []; let seen = 0;
  for (const e of document.querySelectorAll('body *')) {
    const typed = /^(INPUT|TEXTAREA|SELECT)$/.test(e.tagName) && !/checkbox|hidden/.test(e.type);
    const own = typed ? 'typed' : [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data.trim()).join('');
    if (!own || e.closest('title, option, script, style, .skip, .unseen, .nicegui-error-popup') || !e.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const style = getComputedStyle(e), under = [];
    for (let p = e; p; p = p.parentElement) under.unshift(rgba(getComputedStyle(p).backgroundColor));
    const back = under.reduce((a, b) => over(b, a), rgba(getComputedStyle(document.documentElement).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches ? '#000' : '#fff'));
    const fore = over(rgba(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(fore), light(back)].sort((x, y) => y - x), ratio = (a+.05)/(b+.05);
    const size = parseFloat(style.fontSize), least = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    seen += 1;
    if (ratio < least) low.push(own.slice(0, 40) + ' ' + ratio.toFixed(2));
  }
  return {low, seen};
}"""
NAMELESS = """() => [...document.querySelectorAll('input:not([type=hidden]):not([hidden]), select, textarea, button, a[href], audio, img')].filter(e => e.checkVisibility()).filter(e =>
  !(e.ariaLabel || e.title || e.alt || e.innerText?.trim() && !/SELECT|TEXTAREA/.test(e.tagName) || [...(e.labels || [])].some(l => l.innerText.trim()))).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    made = home_with_models(tmp_path_factory.mktemp("page") / "home")
    with Running(made.app) as running:
        made.url = running.url
        yield made


@contextmanager
def visit(browser, service, key="admin", *, quiet=True, **options):
    """A page behind the door, watched: at the end nobody outside was asked, nothing failed, and no text has become a script."""
    context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}, "locale": "en-GB"} | options))
    context.set_default_timeout(WAIT)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url.replace("ws://", "http://")))
    try:
        page.goto(service.url + "/")
        page.fill("#key", service.secrets[key])
        page.click("button[type=submit]")
        page.wait_for_selector("main h1")
        yield page
        assert page.evaluate("window.hacked") is None
        assert [url for url in asked if not url.startswith((service.url + "/", "data:", "blob:"))] == []
        assert said == [] or not quiet
    finally:
        context.close()


def go(page, service, path):
    page.goto(service.url + path)
    page.wait_for_function("window.did_handshake === true")
    page.wait_for_selector(".view > *")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_legible_named_and_fits_a_telephone_and_a_desk(browser, service, scheme):
    with visit(browser, service, color_scheme=scheme, locale="zh-CN" if scheme == "dark" else "en-GB") as page:
        for path, title in VIEWS.items():
            go(page, service, path)
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            if path == "/try":
                page.click("form.questions button[type=submit]")
                page.wait_for_selector(".figures.large")
            for width in (390, 1440):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
                found = page.evaluate(CONTRAST)
                assert found["low"] == [], (path, width)
                assert found["seen"] > 10, path
                if shots := os.environ.get("PAGE_SHOTS"):
                    page.screenshot(path=f"{shots}/{title}-{scheme}-{width}.png", full_page=True)
            assert page.evaluate(NAMELESS) == [], path
            heading = page.inner_text("main h1")
            assert (heading == title) if scheme == "light" else any("一" <= c <= "鿿" for c in heading), path
            assert page.get_attribute("html", "lang") == ("en-US" if scheme == "light" else "zh-CN")
            assert page.evaluate("document.querySelectorAll('main').length") == 1


def test_language_and_theme_are_switched_on_the_page_and_stay(browser, service):
    with visit(browser, service) as page:
        page.select_option("header select", "dark")
        page.click("header .tools a")
        page.wait_for_selector("text=模型")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 26)"
        page.click("header .tools a")
        page.wait_for_selector("h1:has-text('Models')")


def test_the_page_is_walked_by_keyboard_and_the_skip_link_comes_first(browser, service):
    with visit(browser, service) as page:
        go(page, service, "/log")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_a_label_by_key_is_kept_at_once_and_undone_by_another(browser, service):
    with visit(browser, service, "feedback") as page:
        go(page, service, "/label?model=churn")
        before = service.store.feedback.recent("churn", 1)[0].id
        page.keyboard.press("1")
        page.wait_for_selector("[data-key=u]")
        first = service.store.feedback.recent("churn", 1)[0]
        assert first.id > before
        assert (first.label, first.source, first.actor[:5]) == (service.shelf.get("churn").champion.bundle.task.classes[0], "page", "page:")
        page.keyboard.press("u")
        page.wait_for_selector("text=That stands until you say something else")
        page.keyboard.press("2")
        page.wait_for_selector("[data-key=u]")
        assert service.store.feedback.get_label(first.prediction).label == service.shelf.get("churn").champion.bundle.task.classes[1]
        assert page.inner_text("section:has-text('This visit') dd >> nth=0") == "1"
        page.keyboard.press("s")
        page.wait_for_function("document.querySelectorAll('section.quiet dd')[1].innerText === '1'")


def test_a_number_is_labelled_by_typing_it_and_a_word_is_refused(browser, service):
    with visit(browser, service, "feedback") as page:
        go(page, service, "/label?model=price")
        page.fill("input[name=label]", "many")
        page.keyboard.press("Enter")
        page.wait_for_selector(".said.bad:has-text('is no number')")
        assert page.input_value("input[name=label]") == "many", "what was typed stays"
        page.fill("input[name=label]", "12.5")
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-key=u]")
        assert service.store.feedback.recent("price", 1)[0].label == 12.5


def test_a_try_answers_as_the_model_does_and_says_why(browser, service):
    bundle = service.shelf.get("churn").champion.bundle
    text = next(i for i, c in enumerate(bundle.schema.features) if c.kind == "text")
    count = service.store.predictions.count("churn")
    with visit(browser, service, "predict") as page:
        go(page, service, "/try?model=churn")
        page.fill(f"[name=f{text}]", HOSTILE)
        page.click("form.questions button[type=submit]")
        page.wait_for_selector(".bars.signed")
        given = page.evaluate("Object.fromEntries(new FormData(document.querySelector('form.questions')))")
        row = {c.name: (float(given[f"f{i}"]) if c.kind == "number" else given[f"f{i}"]) if given[f"f{i}"] else None for i, c in enumerate(bundle.schema.features)}
        answer = bundle.predict_one(row)
        assert page.inner_text(".figures.large dd span") == str(answer["answer"])
        assert page.inner_text(".figures.large dd small") == f"{answer['probability']:.1%}"
        assert page.locator(".bars.signed li").count() == len(bundle.schema.plain)
        assert page.locator(".marked span").count() > 1
        assert page.input_value(f"[name=f{text}]") == HOSTILE, "the answer leaves the question as it was typed"
        page.fill("[name=f0]", "a lot")
        page.click("form.questions button[type=submit]")
        page.wait_for_selector(".said.bad:has-text('a number is expected')")
    assert service.store.predictions.count("churn") == count


def test_a_history_is_forecast_with_its_interval(browser, service):
    with visit(browser, service, "predict") as page:
        go(page, service, "/try?model=load")
        page.fill("[name=history]", "\n".join(str(20 + 5 * (i % 7)) for i in range(70)))
        page.fill("[name=origin]", "2026-06-01")
        page.click("form.questions button[type=submit]")
        page.wait_for_selector("svg .band")
        assert page.locator("tbody tr").count() == 7
        assert page.inner_text("tbody tr:first-child td:nth-child(2)").startswith("2026-06-01")


def test_a_picture_is_asked_with_its_heat_over_it_and_labelled_by_sight(browser, service, tmp_path):
    photo = tmp_path / f"{HOSTILE[:20]}.png".replace("/", "")
    photo.write_bytes(pictures().frame["photo"][0])
    seen = "i => i.complete && i.naturalWidth > 0"
    with visit(browser, service) as page:
        go(page, service, "/try?model=stripes")
        page.click("form.questions button[type=submit]")
        page.wait_for_selector(".said.bad:has-text('needs a file')")
        page.set_input_files("input[type=file]", photo)
        page.wait_for_selector("form .hint:has-text('has arrived')")
        page.click("form.questions button[type=submit]")
        page.wait_for_selector(".over img + img")
        assert [page.locator(".over img").nth(i).evaluate(seen) for i in range(2)] == [True, True]
        assert page.inner_text(".figures.large dd span") == "flat"
        go(page, service, "/label?model=stripes")
        page.wait_for_selector("img.picture")
        page.wait_for_function("document.querySelector('img.picture').naturalWidth === 40")


def test_promotion_and_rollback_ask_for_a_reason_and_name_who_did_it(browser, service):
    with visit(browser, service) as page:
        go(page, service, "/")
        page.wait_for_selector(f"h2:has-text('{HOSTILE[:12]}')")
        page.click("button[aria-label=\"Promote version 2 of 'churn'\"]")
        page.fill("dialog[open] input[name=reason]", HOSTILE)
        page.click("dialog[open] button[type=submit]")
        page.wait_for_selector("text=champion · version 2")
        assert service.store.versions.stage("churn").champion == 2
        assert service.shelf.get("churn").champion.version.version == 2
        row = service.store.audit.rows(1)[0]
        assert (row.action, row.actor[:5], row.detail["reason"]) == ("promoted", "page:", HOSTILE)
        page.click("details > .row > button.bad")
        page.click("dialog[open] button[type=submit]")
        page.wait_for_selector("text=champion · version 1")
        assert service.store.audit.rows(1)[0].action == "rolled back"
        go(page, service, "/log")
        page.wait_for_selector(f"code:has-text('{HOSTILE[:12]}')")


def test_a_key_sees_and_does_what_its_scopes_say(browser, service):
    with visit(browser, service, "predict") as page:
        assert page.locator("nav a").all_inner_texts() == ["Models", "Try", "Watch"]
        assert page.locator("button:has-text('Promote')").count() == 0
        for path in ("/log", "/contest", "/label"):
            page.goto(service.url + path)
            page.wait_for_selector("text=This key may not see this")
            assert page.locator("table, form.inline, .choices").count() == 0


def test_a_draft_is_edited_and_kept_beside_its_feedback(browser, service):
    draft = service.store.drafts.open("churn", 1)[0]
    with visit(browser, service, "feedback") as page:
        go(page, service, "/replies")
        page.wait_for_selector(f"text={HOSTILE[:20]}")
        page.fill("textarea[name=reply]", "A better reply.\n" + HOSTILE)
        page.click("button:has-text('Send')")
        page.wait_for_selector("text=No draft is waiting.")
    settled = service.store.drafts.get(draft.id)
    assert (settled.status, settled.final) == ("edited", "A better reply.\n" + HOSTILE)
    assert service.store.feedback.recent("churn", 1)[0].kind == "edit"


def test_an_alarm_shows_its_effect_and_is_closed_by_name(browser, service):
    with visit(browser, service) as page:
        go(page, service, "/watch")
        page.wait_for_selector("article.alarm.warning .figure:has-text('0.420')")
        assert page.inner_text("article.alarm.warning .verdict") == f"The column '{HOSTILE[:50]}' has shifted: effect 0.42."
        page.wait_for_selector("table.drift td:has-text('weight') ~ td:has-text('moved')")
        page.click("article.alarm.warning button")
        page.wait_for_selector("article.alarm.warning", state="detached")
    closed = next(a for a in service.store.alarms.recent("churn", 10) if a.closed is not None)
    assert closed.closed_by.startswith("page:")


def test_the_chain_is_verified_and_a_key_is_shown_once_then_revoked(browser, service):
    with visit(browser, service) as page:
        go(page, service, "/log")
        page.click("button:has-text('Verify now')")
        page.wait_for_selector(".tag:has-text('unbroken')")
        page.click("summary:has-text('Make a key')")
        page.fill("form.questions input[name=name]", HOSTILE[:40])
        page.click("button:has-text('Make the key')")
        page.wait_for_selector("input.code")
        secret = page.input_value("input.code")
        made = service.store.keys.find(secret, 0)
        assert made.scopes == ("predict",)
        page.reload()
        page.wait_for_selector("summary:has-text('Make a key')")
        assert secret not in page.content()
        page.click(f"tr:has-text('{made.id}') button.small")
        page.click("dialog[open] button[type=submit]")
        page.wait_for_selector(f"tr:has-text('{made.id}') .tag:has-text('revoked')")
    assert service.store.keys.find(secret, 0) is None


def test_a_revoked_key_ends_its_visits_and_signing_out_ends_one(browser, service, monkeypatch):
    from assay.serve.page import sessions

    key, service.secrets["brief"] = service.store.keys.make("brief", ("predict",))
    monkeypatch.setattr(sessions, "LOOK_S", 0.2)
    with visit(browser, service, "brief", quiet=False) as page:  # the browser says that its websocket was closed
        service.store.keys.revoke(key.id)
        page.wait_for_url("**/login*")
    with visit(browser, service) as page:
        page.click("button:has-text('Sign out')")
        page.wait_for_url("**/login")
        page.goto(service.url + "/watch")
        assert page.url.endswith("/login?back=/watch")


@pytest.mark.slow
def test_a_table_is_uploaded_played_judged_and_served(browser, service, tmp_path):
    import polars as pl

    from assay import tasks

    frame = tasks.find("classify").example(3).frame
    table = tmp_path / "<img src=x onerror=hacked=1> churn.csv"
    pl.concat([frame, tasks.find("classify").example(4).frame]).write_csv(table)
    with visit(browser, service) as page:
        go(page, service, "/contest")
        page.set_input_files("input[type=file]", table)
        page.wait_for_selector("select[name=target]")
        page.select_option("select[name=target]", "kind")
        page.fill("input[name=time]", "25s")
        page.click("button:has-text('Start the contest')")
        page.wait_for_url("**/contest?run=*")
        page.wait_for_selector("button.small:has-text('Stop')")
        page.wait_for_selector("text=naive")
        page.wait_for_selector("section.verdict-card", timeout=180_000)
        page.wait_for_selector("button:has-text('Serve this')")
        report = page.context.request.get(service.url + page.get_attribute("a:has-text('Open the report')", "href"))
        assert report.ok
        assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        page.click("button:has-text('Serve this')")
        page.fill("dialog[open] input[name=reason]", "tickets")
        page.click("dialog[open] button[type=submit]")
        page.wait_for_url("**/try?model=tickets")
    assert "tickets" in service.shelf.names()
    assert "tickets" not in MODELS
    actions = [r.action for r in service.store.audit.rows(30) if r.actor.startswith("page:")]
    assert {"contest started", "contest served", "promoted"} <= set(actions)
