"""Where a store is: a file of SQLite, or a PostgreSQL or MySQL database; and how that is shown without its password."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from assay.errors import InputError, MissingExtra

_DRIVERS = {"postgresql": ("psycopg", "psycopg"), "mysql": ("pymysql", "pymysql"), "mariadb": ("pymysql", "pymysql")}
_SCHEME = re.compile(r"^([A-Za-z][\w+.-]*)://")


@dataclass(frozen=True)
class Address:
    """dialect: sqlite, postgresql or mysql. shown: as it may be printed. url: for SQLAlchemy. file: of SQLite."""

    dialect: str
    shown: str
    url: str = field(repr=False)
    file: Path | None = None

    @classmethod
    def of(cls, place: str | Path) -> Address:
        """A path, sqlite:///file, postgresql://user:password@host:5432/name or mysql://...; `+driver` may stand behind the name. Raises InputError, MissingExtra."""
        found = _SCHEME.match(str(place))
        if isinstance(place, Path) or not found:
            file = Path(place).expanduser().absolute()
            return cls("sqlite", str(place), "sqlite:///" + _escaped(file), file)
        url, shown = str(place), masked(str(place))
        name, _, driver = found[1].lower().partition("+")
        name = "postgresql" if name == "postgres" else name
        rest = url[found.end():]
        if name == "sqlite":
            path = unquote(rest.partition("?")[0])
            if driver or not path.strip("/") or not path.startswith("/"):
                raise InputError("'{url}' is no address of a store. Write a path, sqlite:///file, postgresql://user:password@host:5432/name or mysql://...", url=shown)
            file = Path(path[1:]).expanduser().absolute()
            return cls("sqlite", shown, "sqlite:///" + _escaped(file), file)
        if name not in _DRIVERS:
            raise InputError("'{url}' is no address of a store. Write a path, sqlite:///file, postgresql://user:password@host:5432/name or mysql://...", url=shown)
        try:
            parts = urlsplit(url)
            usable = bool(parts.path.strip("/")) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise InputError("'{url}' cannot be read as an address. Write it like postgresql://user:password@host:5432/name; in a password, write @ as %40, : as %3A and / as %2F.",
                             url=shown)
        module, package = _DRIVERS[name]
        if not driver and find_spec(module) is None:
            raise MissingExtra(package, extra="store")
        url = f"{name}+{driver or module}://{rest}"
        if name != "postgresql" and "charset=" not in rest:
            url += ("&" if "?" in rest else "?") + "charset=utf8mb4"
        return cls("mysql" if name == "mariadb" else name, shown, url)


def _escaped(file: Path) -> str:
    return quote(str(file))


def masked(text: str) -> str:
    """The text with *** for the passwords of addresses in it."""
    text = re.sub(r"(://[^/?#\s:@]*:)[^\s]*@", r"\1***@", text)
    return re.sub(r"([?&;](?:password|passwd|pwd|sslpassword)=)[^&\s]*", r"\1***", text, flags=re.IGNORECASE)


def secrets_of(url: str) -> list[str]:
    """What of an address may never be printed: its password, as it stands and decoded, the longest first."""
    found = re.search(r"://[^/?#\s:@]*:([^\s]*)@", url)
    hidden = [found[1]] if found else []
    hidden += re.findall(r"[?&;](?:password|passwd|pwd|sslpassword)=([^&\s]*)", url, flags=re.IGNORECASE)
    return sorted({form for h in hidden for form in (h, unquote(h), quote(unquote(h), safe="")) if form}, key=len, reverse=True)
