"""The page's own small set of elements: plain HTML with labels, drawn by page.css. Texts are children, so that they are never read as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from assay.report import wording

Cell = str | Callable[[], Any]  # of a table: a text, or what draws it


def tag(name: str, text: object = "", kind: str = "", /, **attributes: Any) -> Any:
    """An element. text: shown as it is. attributes: `for_` is for, `aria_label` is aria-label; True is an attribute without a value, None is left out."""
    from nicegui.elements.mixins.text_element import TextElement

    element = TextElement(tag=name, text=readable(text)) if text != "" else _bare(name)
    if kind:
        element.classes(kind)
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            # '^': the attribute and not the property, so that drawing the page again does not undo what was typed
            element.props[f"^{key}" if key == "value" and name == "input" else key] = "" if value is True else value
    return element


def readable(text: object) -> str:
    """No control characters, and no marks that turn the writing direction; line breaks stay."""
    return "\n".join(wording.clean(part) for part in str(text).splitlines())


def _bare(name: str) -> Any:
    from nicegui.element import Element

    return Element(name)


def box(kind: str = "", **attributes: Any) -> Any:
    return tag("div", "", kind, **attributes)


def card(title: str, note: str = "", kind: str = "", level: int = 2) -> Any:
    """A section with its heading."""
    section = tag("section", "", f"card {kind}".strip())
    with section:
        head = tag(f"h{level}", title)
        section.props["aria-labelledby"] = head.html_id
        if note:
            tag("p", note, "how")
    return section


def badge(text: str, tone: str = "") -> Any:
    """tone: good, wait, bad or nothing; the text says the same."""
    return tag("span", text, f"tag {tone}".strip())


def empty(text: str, more: str = "") -> None:
    with box("empty"):
        tag("p", text)
        if more:
            tag("p", more, "how")


def button(text: str, on: Callable[..., Any] | None = None, kind: str = "", **attributes: Any) -> Any:
    """on: called on the server. kind: main for the one that the view is for, bad for what is hard to undo."""
    made = tag("button", text, kind, **({"type": "button"} | attributes))
    if on is not None:
        made.on("click", on, args=[])
    return made


def link(text: str, to: str, kind: str = "", **attributes: Any) -> Any:
    return tag("a", text, kind, href=to, **attributes)


# ---- forms: read as a whole when they are sent


def form(on: Callable[[dict[str, Any]], Any], kind: str = "", **attributes: Any) -> Any:
    """on: called with {name: text} of its inputs. While that is under way, its buttons rest."""
    made = tag("form", "", kind, **attributes)

    async def sent(event: Any) -> None:
        given = event.args if isinstance(event.args, dict) else {}
        result = on({str(k): v for k, v in given.items()})
        if result is not None:
            await result

    made.on("submit.prevent", sent, js_handler="(e) => emit(Object.fromEntries([...new FormData(e.target)].filter(([, v]) => typeof v === 'string')))")
    return made


def field(label: str, make: Callable[..., Any], hint: str = "", kind: str = "") -> Any:
    """A label above what `make` builds, which is given the ids that bind them."""
    with box(f"field {kind}".strip()):
        head = tag("label", label)
        made = make()
        head.props["for"] = made.html_id
        if hint:
            made.props["aria-describedby"] = tag("p", hint, "hint").html_id
    return made


def line(name: str, value: object = "", **attributes: Any) -> Any:
    """A one-line input."""
    return tag("input", "", "", name=name, value=str(value), **({"type": "text", "autocomplete": "off"} | attributes))


def area(name: str, value: str = "", rows: int = 3, **attributes: Any) -> Any:
    """Lines of text; what it begins with is its child."""
    return tag("textarea", value, "", name=name, rows=rows, **attributes)


def select(name: str, options: Sequence[tuple[str, str]], value: str | None = None, on: Callable[..., Any] | None = None, **attributes: Any) -> Any:
    """options: (value, shown). on: called with the chosen value."""
    made = tag("select", "", "", name=name, **attributes)
    with made:
        for key, shown in options:
            tag("option", shown, "", value=key, selected=key == value)
    if on is not None:
        made.on("change", lambda event: on(str(event.args)), js_handler="(e) => emit(e.target.value)")
    return made


def file_input(visit: Any, suffixes: tuple[str, ...], done: Callable[..., Any], *, most: int) -> Any:
    """A file that is sent as soon as it is chosen. done(path, name) is called in the view once it is there."""
    client = visit.client

    async def arrived(path: Any, name: str) -> None:
        if not client.is_deleted:
            with client:
                await done(path, name)

    to = visit.uploads.expect(visit.session, suffixes, arrived, most=most)
    client.on_delete(lambda: visit.uploads.forget(to))
    made = tag("input", "", "", type="file", accept=",".join(suffixes))
    bar = tag("progress", "", "sent", max=1, value=0, hidden=True, aria_label=visit.say("Sending the file"))
    said = tag("p", "", "hint", role="status")
    made.on("change", js_handler=f"(e) => window.assay.send(e.target, {to!r}, '{bar.html_id}', '{said.html_id}', {most})")
    return made


def dialog(title: str, text: str, on: Callable[[dict[str, Any]], Any], *, yes: str, no: str, reason: str = "", value: str = "", danger: bool = False) -> Callable[..., Any]:
    """A question before a change. Returns what makes the button that asks it: opener(text, kind). reason: label of a line that is sent along, value: what it begins with."""
    made = tag("dialog")
    shut = f"() => document.getElementById('{made.html_id}').close()"

    async def agreed(given: dict[str, Any]) -> None:
        result = on(given)
        if result is not None:
            await result

    with made, form(agreed).on("submit", js_handler=shut):
        head = tag("h2", title)
        made.props["aria-labelledby"] = head.html_id
        tag("p", text)
        if reason:
            field(reason, lambda: line("reason", value, maxlength=500))
        with box("row end"):
            button(no).on("click", js_handler=shut)
            button(yes, kind="bad" if danger else "main", type="submit")

    def opener(label: str, kind: str = "", **attributes: Any) -> Any:
        return button(label, kind=kind, **attributes).on("click", js_handler=f"() => document.getElementById('{made.html_id}').showModal()")

    return opener


# ---- figures


def figures(facts: Iterable[tuple[str, str, str]], kind: str = "") -> None:
    """(name, value, remark) beside each other."""
    with tag("dl", "", f"figures {kind}".strip()):
        for name, value, remark in facts:
            with box():
                tag("dt", name)
                with tag("dd"):
                    tag("span", value)
                    if remark:
                        tag("small", remark)


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: Sequence[int] = (), caption: str = "", kind: str = "") -> None:
    """numbers: columns that are set to the right. A table wider than the screen scrolls in its own box."""
    with box("scroll", tabindex=0, role="region", aria_label=caption or heads[0]), tag("table", "", kind):
        if caption:
            tag("caption", caption, "unseen")
        with tag("thead"), tag("tr"):
            for i, head in enumerate(heads):
                tag("th", head, "n" if i in numbers else "", scope="col")
        with tag("tbody"):
            for row in rows:
                with tag("tr"):
                    for i, cell in enumerate(row):
                        if isinstance(cell, str):
                            tag("td", cell, "n" if i in numbers else "")
                        else:
                            with tag("td", "", "n" if i in numbers else ""):
                                cell()


def bars(rows: Iterable[tuple[str, float, str]], label: str) -> None:
    """(name, 0 to 1, figure): a bar from the left for each."""
    with tag("ul", "", "bars", aria_label=label):
        for name, share, figure in rows:
            with tag("li"):
                tag("span", name, "name", title=name)
                with tag("span", "", "rail", aria_hidden="true"):
                    tag("span", "", "fill").style(f"width:{100 * min(1.0, max(0.0, share)):.2f}%")
                tag("span", figure, "figure")


def signed(rows: Sequence[tuple[str, str, float, str]], label: str) -> None:
    """(name, its value, effect, figure): bars from the middle, to the right where it adds and to the left where it takes."""
    most = max((abs(effect) for _, _, effect, _ in rows), default=0.0) or 1.0
    with tag("ul", "", "bars signed", aria_label=label):
        for name, value, effect, figure in rows:
            with tag("li"):
                with tag("span", "", "name", title=f"{name} = {value}" if value else name):
                    tag("span", name)
                    if value:
                        tag("small", value)
                with tag("span", "", "rail", aria_hidden="true"):
                    tag("span", "", "fill for" if effect >= 0 else "fill against").style(f"width:{50 * abs(effect) / most:.2f}%")
                tag("span", figure, "figure")


def values(row: Mapping[str, Any], draw: Callable[[str, Any], None]) -> None:
    """A row as names and values; draw(name, value) shows a value."""
    with tag("dl", "", "values"):
        for name, value in row.items():
            with box():
                tag("dt", name)
                with tag("dd"):
                    draw(name, value)


def drawing(svg: str) -> None:
    """An SVG of numbers and of sentences of our own; nothing that a stranger sent belongs in it."""
    from nicegui import ui

    ui.html(svg, sanitize=False).classes("drawing")
