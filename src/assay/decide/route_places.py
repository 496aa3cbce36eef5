"""Cells, rows and places of a delivery problem, read with a sentence for whatever is wrong; distances between places."""

from __future__ import annotations

import csv
import datetime
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import InputError, ReadError
from assay.words import Text

EARTH_KM = 6371.0088


def clock(value: Any, name: str | Text, column: str) -> float:
    """Minutes from a number, '08:30' or a local time."""
    if isinstance(value, datetime.time):
        return value.hour * 60 + value.minute + value.second / 60
    if isinstance(value, str) and ":" in value:
        parts = value.strip().split(":")
        if all(p.isdigit() for p in parts) and len(parts) in (2, 3) and int(parts[1]) < 60:
            return int(parts[0]) * 60 + int(parts[1]) + (int(parts[2]) / 60 if len(parts) == 3 else 0)
    return number(value, name, column)


def number(value: Any, name: str | Text, column: str, *, least: float = -math.inf) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or isinstance(value, bool):
        raise InputError("'{name}' has {column} = {value}, which is not a number. Give a number there.", name=name, column=column, value=repr(value))
    if found < least:
        raise InputError("'{name}' has {column} = {value}; it has to be at least {least:g}.", name=name, column=column, value=found, least=least)
    return found


def rows_of(table: Mapping[str, Any], key: str, place: Path) -> list[dict[str, Any]]:
    """The rows under `key`: tables in TOML, or the name of a CSV file. An empty cell of a CSV file is left out."""
    value = table.get(key, [])
    if isinstance(value, str):
        path = place / value
        try:
            with path.open(encoding="utf-8-sig", newline="") as lines:
                return [{k.strip(): v.strip() for k, v in row.items() if k and v and v.strip()} for row in csv.DictReader(lines)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ReadError("'{path}', named under {key}, could not be read: {reason}. Give a CSV file in UTF-8 with a header.",
                            path=str(path), key=key, reason=str(error)) from None
    if isinstance(value, Mapping):
        return [dict(value)]
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise InputError("'{key}' has to be tables ([[{key}]] in TOML) or the name of a CSV file.", key=key)
    return [dict(row) for row in value]


def known_keys(row: Mapping[str, Any], allowed: Iterable[str], what: Text) -> None:
    if unknown := [k for k in row if k not in set(allowed)]:
        raise InputError("{what} has no field '{key}'. It has: {known}.", what=what, key=unknown[0], known=sorted(allowed))


class Places:
    """Collects named points, all x/y or all lat/lon."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.points: list[tuple[float, float]] = []
        self.globe: bool | None = None

    def add(self, row: Mapping[str, Any], name: str) -> int:
        globe = "lat" in row or "lon" in row
        first, second = ("lon", "lat") if globe else ("x", "y")
        if first not in row or second not in row:
            raise InputError("'{name}' has no coordinates. Give it x and y, or lat and lon.", name=name)
        x, y = number(row[first], name, first), number(row[second], name, second)
        if globe and not (abs(y) <= 90 and abs(x) <= 180):
            raise InputError("'{name}' lies at lat {lat:g}, lon {lon:g}, which is not on the globe. Are the two mixed up?", name=name, lat=y, lon=x)
        if self.globe not in (None, globe):
            raise InputError("'{name}' has {one}, places before it have {other}. Use one kind of coordinates.", name=name,
                             one="lat/lon" if globe else "x/y", other="x/y" if globe else "lat/lon")
        if name in self.names:
            raise InputError("Two places are called '{name}'. Give each its own name.", name=name)
        self.globe = globe
        self.names.append(name)
        self.points.append((x, y))
        return len(self.names) - 1

    def find(self, name: Any, where: str) -> int:
        if name not in self.names:
            raise InputError("{where} names the place '{name}', which does not exist. There are: {names}.", where=where, name=str(name), names=self.names[:12])
        return self.names.index(name)


def distances(xy: np.ndarray, *, globe: bool) -> np.ndarray:
    """Straight lines in the plane, great circles in km (haversine) on the globe. xy: shape (m, 2); returns (m, m)."""
    if not globe:
        return np.hypot(*(xy[:, None, k] - xy[None, :, k] for k in (0, 1)))
    lon, lat = np.radians(xy).T
    half = np.sin((lat[:, None] - lat) / 2) ** 2 + np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def matrix(path: Path, names: list[str]) -> np.ndarray:
    """A square CSV table: its header and its first column hold the names of the places. Shape (m, m) in the order of `names`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            head, *rows = list(csv.reader(lines))
        cells = {row[0].strip(): dict(zip((h.strip() for h in head[1:]), row[1:], strict=True)) for row in rows if row}
        found = np.array([[float(cells[a][b]) for b in names] for a in names])
    except KeyError as error:
        raise ReadError("The matrix '{path}' has no row or column for the place {name}.", path=str(path), name=str(error)) from None
    except (OSError, ValueError, IndexError) as error:
        raise ReadError("The matrix '{path}' could not be read: {reason}. Its first row and first column name the places, all else are numbers.",
                        path=str(path), reason=str(error)) from None
    if not np.isfinite(found).all() or found.min() < 0:
        raise InputError("The matrix '{path}' holds a negative or missing number.", path=str(path))
    np.fill_diagonal(found, 0)
    return found
