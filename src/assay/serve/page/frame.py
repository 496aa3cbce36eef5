"""What surrounds every view: skip link, navigation, language, light and dark, sign out, and the voice for what is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from assay.serve.page.desk import View, Visit
from assay.serve.page.parts import box, button, link, tag
from assay.words import say

# send: a file with its progress. theme: light, dark or the system's. The keys 1-9 press what carries data-key, unless somebody types.
# Where the connection is lost because the session has ended, the door is shown.
SCRIPT = """
window.assay = {
  send(input, to, bar, said, most) {
    const file = input.files[0], line = document.getElementById(said), meter = document.getElementById(bar);
    if (!file) return;
    const tell = (text, bad) => { line.textContent = text; line.className = bad ? 'hint bad' : 'hint'; };
    const ask = new XMLHttpRequest();
    ask.open('PUT', to + '?name=' + encodeURIComponent(file.name));
    meter.hidden = false; tell('', false);
    ask.upload.onprogress = e => { if (e.lengthComputable) meter.value = e.loaded / e.total; };
    ask.onloadend = () => { meter.hidden = true; let told = {}; try { told = JSON.parse(ask.responseText); } catch (e) {}
      tell(told.sentence || (told.error || {}).sentence || ask.statusText || '?', ask.status !== 200); };
    ask.send(file);
  },
  theme(to) {
    if (to === 'system') { delete document.documentElement.dataset.theme; document.cookie = 'assay_theme=;Path=/;Max-Age=0;SameSite=Strict'; }
    else { document.documentElement.dataset.theme = to; document.cookie = 'assay_theme=' + to + ';Path=/;Max-Age=31536000;SameSite=Strict'; }
  },
};
setInterval(async () => {
  if (!window.socket || window.socket.connected) return;
  const answer = await fetch('/', {redirect: 'manual', headers: {accept: 'text/html'}}).catch(() => null);
  if (answer && answer.type === 'opaqueredirect') location.assign('/login');
}, 5000);
document.addEventListener('keydown', e => {
  if (e.ctrlKey || e.altKey || e.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName) || document.querySelector('dialog[open]')) return;
  const wanted = [...document.querySelectorAll('[data-key]')].find(b => b.dataset.key === e.key.toLowerCase());
  if (wanted && !wanted.disabled) { e.preventDefault(); wanted.click(); }
});
"""


def frame(visit: Visit, views: Sequence[View], here: View, theme: str, style: str) -> Any:
    """Draws it, and returns the element that the view fills."""
    from nicegui import ui

    client = visit.client
    for part in (client.layout, client.page_container, client.content.parent_slot.parent):  # plain boxes in place of Quasar's layout: one <main>, and no script that places it
        part.tag = "div"
        part.props.clear()
    client.content.classes(remove="nicegui-content")
    ui.add_head_html(f'<link rel="stylesheet" href="{style}"><script>{SCRIPT}</script>' + (f'<script>document.documentElement.dataset.theme="{theme}"</script>' if theme else ""))
    with box("page"):
        link(visit.say("Skip to the content"), "#content", "skip")
        with tag("header", "", "side"):
            link("assay", "/", "brand", aria_label=visit.say("assay, overview"))
            with tag("nav", aria_label=visit.say("Views")), tag("ul"):
                for view in views:
                    if visit.may(view.scope):
                        with tag("li"):
                            link(view.title.to(visit.lang), view.path, aria_current="page" if view is here else None)
            with box("tools"):
                other = "zh" if visit.lang == "en" else "en"
                link("中文" if other == "zh" else "English", f"/language?to={other}&back={quote(here.path, safe='')}", lang="zh-CN" if other == "zh" else "en")
                names = (("system", say("As the system")), ("light", say("Light")), ("dark", say("Dark")))
                with tag("select", "", "", aria_label=visit.say("Light or dark")).on("change", js_handler="(e) => window.assay.theme(e.target.value)"):
                    for name, text in names:
                        tag("option", text.to(visit.lang), "", value=name, selected=name == (theme or "system"))
                if visit.session is not visit.sessions.everybody:
                    with tag("form", "", "", method="post", action="/logout"):
                        tag("span", visit.session.key.name, "who", title=visit.session.key.name)
                        button(visit.say("Sign out"), kind="quiet", type="submit")
        with tag("main", "", "", id="content", tabindex="-1"):
            with box("head"):
                tag("h1", here.title.to(visit.lang))
                tag("p", here.about.to(visit.lang), "how")
            inside = box("view")
        visit.voice = box("voice", aria_live="polite")
    return inside
