"""Every sentence that a user reads has a Chinese twin with the same holes."""

import ast
import json
import re
import string
from pathlib import Path

import pytest

import assay.errors
from assay.errors import AssayError
from assay.words import LANGUAGES, Text, say

SOURCE = Path(__file__).parents[1] / "src" / "assay"
ERRORS = {name for name, value in vars(assay.errors).items() if isinstance(value, type) and issubclass(value, AssayError)}
PLAIN = {"MissingExtra"}  # takes a package's name, not a sentence
SECOND = {"Refused"}  # takes a status first


def _literal(node: ast.expr | None) -> str | None:
    """The text of a literal, implicit and explicit concatenation included; None if a variable is part of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _literal(node.left), _literal(node.right)
        return None if left is None or right is None else left + right
    return None


def _literals(node: ast.expr | None) -> list[str]:
    """All texts that `a if b else c` may be."""
    if isinstance(node, ast.IfExp):
        return _literals(node.body) + _literals(node.orelse)
    text = _literal(node)
    return [] if text is None else [text]


def _in_python(path: Path) -> list[tuple[str, str]]:
    out = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""
        if name in SECOND and len(node.args) > 1:
            out += [(text, f"{path.relative_to(SOURCE)}:{node.lineno}") for text in _literals(node.args[1])]
        elif name == "say" or name in ERRORS - PLAIN or (name == "__init__" and path.name == "errors.py"):
            out += [(text, f"{path.relative_to(SOURCE)}:{node.lineno}") for text in _literals(node.args[0]) if _is_sentence(text, node)]
    return out


def _is_sentence(text: str, node: ast.Call) -> bool:
    """`budget.say("...")` takes a note in plain text as well; everything else is a template."""
    return bool(text.strip()) and isinstance(node.func, (ast.Name, ast.Attribute))


def _in_page(path: Path) -> list[tuple[str, str]]:
    import jinja2

    tree = jinja2.Environment().parse(path.read_text(encoding="utf-8"))
    return [(call.args[0].value, f"{path.relative_to(SOURCE)}:{call.lineno}") for call in tree.find_all(jinja2.nodes.Call)
            if isinstance(call.node, jinja2.nodes.Name) and call.node.name == "say" and isinstance(call.args[0], jinja2.nodes.Const)]


def _spoken() -> dict[str, str]:
    """{template: where it stands} of the whole source."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for text, where in _in_python(path):
            found.setdefault(text, where)
    for path in sorted(SOURCE.rglob("*.html")):
        for text, where in _in_page(path):
            found.setdefault(text, where)
    return found


SPOKEN = _spoken()
PAGES = {lang: sorted((SOURCE / "words" / lang).glob("*.json")) for lang in LANGUAGES if lang != "en"}
TWINS = {lang: {k: v for page in pages for k, v in json.loads(page.read_text(encoding="utf-8")).items()} for lang, pages in PAGES.items()}


def _holes(template: str) -> set[str]:
    return {name.split(".")[0].split("[")[0] for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def test_sentences_are_found_in_code_and_page():
    assert "Scoreboard" in SPOKEN
    assert "A case has no field '{key}'. It has: {known}." in SPOKEN
    assert any(where.startswith("contest/") and "worth it" in text for text, where in SPOKEN.items())


@pytest.mark.parametrize(("template", "where"), sorted(SPOKEN.items(), key=lambda item: item[1]), ids=lambda v: v[:50] if ":" in v else "")
def test_every_sentence_has_a_chinese_twin_with_the_same_holes(template, where):
    assert template in TWINS["zh"], f"{where}: no Chinese twin in words/zh/*.json for: {template!r}"
    assert _holes(TWINS["zh"][template]) == _holes(template), f"{where}: the holes differ: {TWINS['zh'][template]!r}"


@pytest.mark.parametrize("page", [page for pages in PAGES.values() for page in pages], ids=lambda p: p.name)
def test_every_twin_is_a_template_that_parses_and_is_chinese_where_it_has_words(page):
    for english, chinese in json.loads(page.read_text(encoding="utf-8")).items():
        assert _holes(chinese) == _holes(english), f"{page.name}: the holes differ: {english!r}"
        bare = re.sub(r"\{[^}]*\}|--?[\w-]+|[\W\d_]+", " ", english).split()
        kept = re.search(r"[\u4e00-\u9fff]", chinese) or all(word in chinese for word in bare)
        assert kept, f"{page.name}: not translated: {english!r}"


def test_two_pages_never_give_the_same_sentence_two_twins():
    seen: dict[str, tuple[str, str]] = {}
    for page in PAGES["zh"]:
        for english, chinese in json.loads(page.read_text(encoding="utf-8")).items():
            other = seen.setdefault(english, (chinese, page.name))
            assert other[0] == chinese, f"{english!r} is {other[0]!r} in {other[1]} and {chinese!r} in {page.name}"


def test_a_sentence_is_told_in_either_language_with_lists_and_sentences_inside():
    text = say("{names} finished some folds but not all, and could not be compared.", names=["mlp", "提升树"])
    assert str(text) == "mlp, 提升树 finished some folds but not all, and could not be compared."
    assert "mlp、提升树" in text.to("zh")
    outer = say("{name}: {status}: {reason}", name="mlp", status=say("failed"), reason=say("it ran out of memory"))
    assert Text.of(json.loads(json.dumps(outer.json()))).to("zh") == outer.to("zh") != str(outer)


def test_every_class_of_error_is_searched():
    assert {"AssayError", "InputError", "ReadError", "TaskError", "BundleError", "BudgetError", "EndpointError"} <= ERRORS
