"""Is a query one that only reads? Asked before it is sent; the connection is read-only as well."""

from __future__ import annotations

import re

from assay.errors import ReadError

_FIRST = ("select", "with", "values", "table")
_WRITES = re.compile(
    r"\binto\b|\binsert\s+into\b|\bdelete\s+from\b|\bmerge\s+into\b|\bupdate\s+\S+\s+(?:as\s+\S+\s+|\S+\s+)?set\b|"
    r"\bfor\s+(?:no\s+key\s+)?update\b|\bfor\s+(?:key\s+)?share\b|\block\s+in\s+share\s+mode\b", re.IGNORECASE)


def reading(query: str, dialect: str) -> str:
    """The query without a semicolon at its end. dialect: sqlite, postgresql or mysql.

    Raises ReadError if it is empty, is not one statement that begins with SELECT (or WITH, VALUES, TABLE), or writes.
    """
    bare = _bare(query, dialect)
    if not bare.strip():
        raise ReadError("The query is empty. Write one such as: SELECT * FROM complaints")
    text = query.rstrip()
    while bare.rstrip().endswith(";"):
        end = len(bare.rstrip()) - 1
        bare, text = bare[:end], query[:end]
    if ";" in bare:
        raise ReadError("The query holds more than one statement. Only one is sent: a SELECT.")
    first = re.match(r"[\s(]*(\w*)", bare)
    word = first[1].lower() if first else ""
    if word not in _FIRST:
        raise ReadError("The query begins with '{word}'. Only queries that read are sent: SELECT ..., or WITH ... SELECT ....", word=word.upper() or bare.strip()[:10])
    if writes := _WRITES.search(bare):
        raise ReadError("The query would write or lock: '{words}'. Only queries that read are sent.", words=" ".join(writes[0].split())[:60])
    return text.strip()


def _bare(query: str, dialect: str) -> str:
    """The query with every string, quoted name and comment turned into blanks of the same length."""
    out, at = list(query), 0
    for match in _QUOTED[dialect].finditer(query):
        if match.start() < at:
            continue
        at = match.end()
        if dialect == "mysql" and re.match(r"/\*M?!", match[0]):
            raise ReadError("The query holds a comment that the server would execute ('{start}'). Leave it out.", start=match[0][:20])
        quoted = match[0][0] in "'\"`$[" or match[0][:2].lower() == "e'"
        out[match.start():at] = ("x" if quoted else " ") * (at - match.start())
    return "".join(out)


_BLOCK = r"/\*.*?(?:\*/|\Z)"
_LINE = r"--[^\n]*"
_PLAIN = r"'(?:[^']|'')*(?:'|\Z)"
_ESCAPED = r"'(?:[^'\\]|''|\\.)*(?:'|\Z)"
_NAME = r'"(?:[^"]|"")*(?:"|\Z)'
_TICKED = r"`(?:[^`]|``)*(?:`|\Z)"
_QUOTED = {
    "sqlite": re.compile("|".join((_BLOCK, _LINE, _PLAIN, _NAME, _TICKED, r"\[[^\]]*(?:\]|\Z)")), re.DOTALL),
    "postgresql": re.compile("|".join((_BLOCK, _LINE, rf"\b[eE]{_ESCAPED}", _PLAIN, _NAME, r"\$(\w*)\$.*?(?:\$\1\$|\Z)")), re.DOTALL),
    "mysql": re.compile("|".join((_BLOCK, r"--(?=[\s]|\Z)[^\n]*", r"\#[^\n]*", _ESCAPED, r'"(?:[^"\\]|""|\\.)*(?:"|\Z)', _TICKED)), re.DOTALL),
}
