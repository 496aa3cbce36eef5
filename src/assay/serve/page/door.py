"""The login page: plain HTML without a script, so that a stranger is given nothing to talk to."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from assay.words import say


def login_page(lang: str, theme: str, back: str, reason: str | None, style: str) -> str:
    """The whole page. reason: why the last key was refused. back: the path to go on to. style: address of the style sheet."""
    def word(text: str) -> str:
        return escape(text)

    other, name = ("zh", "中文") if lang == "en" else ("en", "English")
    title = say("Sign in").to(lang)
    told = f'<p id="why" class="said bad" role="alert">{word(reason)}</p>' if reason else ""
    return (f'<!doctype html><html lang="{"zh-CN" if lang == "zh" else "en"}"{f" data-theme={theme}" if theme else ""}><head><meta charset="utf-8"><title>{word(title)} · assay</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="/page/icon.svg"><link rel="stylesheet" href="{escape(style)}"></head>'
            f'<body class="door"><main><form method="post" action="/login?back={escape(quote(back, safe="/"))}" class="card"><p class="brand">assay</p><h1>{word(title)}</h1>{told}'
            f'<input type="text" name="user" value="assay" autocomplete="username" hidden><div class="field"><label for="key">{word(say("Key").to(lang))}</label>'
            f'<input id="key" name="key" type="password" required autofocus autocomplete="current-password" spellcheck="false"{" aria-describedby=why aria-invalid=true" if reason else ""}>'
            f'<p class="hint">{word(say("Printed when the service started, or made with: assay keys make").to(lang))}</p></div>'
            f'<button class="main" type="submit">{word(title)}</button>'
            f'<p class="other"><a href="/language?to={other}&amp;back={escape(quote("/login?back=" + quote(back, safe="/"), safe=""))}" lang="{"zh-CN" if other == "zh" else "en"}">{name}</a></p>'
            f"</form></main></body></html>")
