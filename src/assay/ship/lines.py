"""Delimited text line by line: which lines are rows, which cannot be one. Only where rows may be left out: the quick readers stop at the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay.data.csv import SEPARATORS
from assay.data.encoding import short
from assay.errors import ReadError
from assay.words import Text, say

MOST_LINES = 100  # of one record: a quotation mark that is open for longer was never meant to be one
_SNIFFED = 200  # lines that tell the separator


@dataclass(frozen=True)
class Refused:
    """A row that cannot be read. row: its number in the source from 0, None where the line is not even a row. line: from 1, of text files."""

    row: int | None
    line: int | None
    reason: Text


@dataclass(frozen=True)
class Record:
    """One record of a text file. line: where it begins, from 1. fields: how many; -1 if a quotation mark in it is never closed."""

    line: int
    text: bytes
    fields: int


def records(plain: Path) -> tuple[int, Iterator[Record]]:
    """(fields of the header, all records, the header first). Blank lines are none.

    plain: utf-8. A record runs on over line ends while a quotation mark is open; if none closes it within 100 lines, its first line
    alone is the record, and the next line begins another, so that one stray mark costs one row. Raises ReadError on an empty file.
    """
    with plain.open("rb") as file:
        head = file.read(1 << 18)
    lines = [line for line in head.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if not lines:
        raise ReadError("'{file}' is empty. A table needs a line of column names and at least one row.", file=short(plain))

    def fitting(separator: str) -> float:
        """Fields of the header, for more the more lines have as many."""
        n = _width(lines[0], separator)
        return n * (1 + sum(_width(line, separator) == n for line in lines[1:_SNIFFED]) / _SNIFFED) if n > 1 else 1.0

    separator = max(SEPARATORS, key=fitting)
    return _width(lines[0], separator), _split(plain, separator)


def _split(plain: Path, separator: str) -> Iterator[Record]:
    mark = separator.encode()
    waiting: list[tuple[int, bytes]] = []  # lines that were read already
    with plain.open("rb") as file:
        numbered_lines = enumerate(file, 1)

        def following() -> tuple[int, bytes] | None:
            return waiting.pop(0) if waiting else next(numbered_lines, None)

        while (at := following()) is not None:
            number, line = at
            if b'"' not in line:
                if line.strip():
                    yield Record(number, line, line.count(mark) + 1)
                continue
            held = [line]
            inside = line.count(b'"') % 2
            while inside and len(held) < MOST_LINES and (more := following()) is not None:
                held.append(more[1])
                inside ^= more[1].count(b'"') % 2
            text = b"".join(held)
            if inside or (len(held) > 1 and _runs_on(held, separator)):
                waiting[:0] = [(number + 1 + i, kept) for i, kept in enumerate(held[1:])]
                yield Record(number, line, -1)
            else:
                yield Record(number, text, _width(text, separator))


def _runs_on(held: list[bytes], separator: str) -> bool:
    """True if a mark that nobody closed met one further down that opens another field: all lines but the first are then rows by themselves."""
    width = _width(b"".join(held), separator)
    alone = {_width(line, separator) for line in held[1:-1]} or {_width(held[-1], separator)}
    return len(alone) == 1 and alone != {1} and width != alone.pop()


def _width(text: bytes, separator: str) -> int:
    rows = list(csv.reader(io.StringIO(text.decode("utf-8", "replace"), newline=""), delimiter=separator))
    return len(rows[0]) if len(rows) == 1 else -1


def mended(plain: Path, clean: Path, shown: str) -> tuple[list[Refused], Numbers]:
    """Write the records that have as many fields as the header to `clean`; (the others, where the rows of `clean` stand in the file)."""
    width, all_records = records(plain)
    refused: list[Refused] = []
    numbers = Numbers()
    with clean.open("wb") as target:
        for row, record in enumerate(all_records, -1):
            if row >= 0 and record.fields != width:
                refused.append(Refused(row, record.line, _reason(record, width, shown)))
                continue
            if row >= 0:
                numbers.add(row, record.line)
            target.write(record.text if record.text.endswith(b"\n") else record.text + b"\n")
    return refused, numbers


def numbered(plain: Path) -> Numbers:
    """Where the rows of a file stand that can be split into fields as a whole."""
    numbers = Numbers()
    for row, record in enumerate(records(plain)[1], -1):
        if row >= 0:
            numbers.add(row, record.line)
    return numbers


def _reason(record: Record, width: int, shown: str) -> Text:
    if record.fields < 0:
        return say("The quotation mark that opens on line {line} of '{file}' is never closed.", line=record.line, file=shown)
    return say("Line {line} of '{file}' has {found} fields, the header has {expected}. Put fields that contain the separator in quotation marks, or mend that line.",
               line=record.line, file=shown, found=record.fields, expected=width)


class Numbers:
    """The row and line of the source for each row that was kept; only where the distance changes is anything stored."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._row: list[int] = []
        self._line: list[int] = []
        self._n = 0
        self._arrays: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, row: int, line: int) -> None:
        n = self._n
        if not self._kept or row - n != self._row[-1] - self._kept[-1] or line - n != self._line[-1] - self._kept[-1]:
            self._kept.append(n)
            self._row.append(row)
            self._line.append(line)
        self._n += 1

    def of(self, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row from 0, line from 1) in the source of these kept rows, shape (n,) each."""
        if self._arrays is None:
            self._arrays = (np.array(self._kept), np.array(self._row), np.array(self._line))
        starts, rows, lines = self._arrays
        at = np.searchsorted(starts, kept, side="right") - 1
        return rows[at] + kept - starts[at], lines[at] + kept - starts[at]
