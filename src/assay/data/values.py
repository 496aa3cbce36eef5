"""What a cell of text means: a number, an instant or a label. One place, so that training and prediction agree."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

# Compared in lower case, blanks around them removed. Only where the rest of the column are numbers or times.
MISSING = ("", "na", "n/a", "nan", "null", "none", "nil", "?", "-", "--", "—", ".", "#n/a", "#na", "<na>", "\\n", "无", "空", "缺失")
_NO_DATE = ("0000-00-00", "0000-00-00 00:00:00", "0000/00/00", "nat")
EXACT = 2.0**53  # whole numbers above this are not exact in Float64
MONTH_FIRST, DAY_FIRST = "month/day/year", "day/month/year"
_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
# what polars strips; Python's own strip() takes a few control characters more
_BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


@dataclass(frozen=True)
class Parsed:
    """A column of text, understood. values: same length, null where missing.

    bad: row number of the first cell that means neither a value nor 'missing', None if all are understood.
    markers: how many cells held a word for 'missing', and example, one of them. order: for dates written with the year
    last, which part comes first; unsure: both orders fit.
    """

    values: pl.Series
    bad: int | None = None
    markers: int = 0
    example: str = ""
    order: str | None = None
    unsure: bool = False


def numbers(column: pl.Series) -> Parsed:
    """Text as Float64. Thousands separators and decimal commas are not guessed: such a cell is bad."""
    text = column.str.strip_chars()
    values = text.cast(pl.Float64, strict=False)
    return _judged(column, text, values, MISSING)


def coded(column: pl.Series) -> bool:
    """True for digits that are labels: a leading zero ('007') or more digits than a Float64 holds ('110101199003071234')."""
    return bool(column.str.contains(r"^\s*[+-]?(?:0\d+|\d{16,})\s*$").any())


def times(column: pl.Series, order: str | None = None) -> Parsed:
    """Text as Datetime in microseconds, an offset from UTC taken off. order: what `Parsed.order` said of these dates before.

    Formats are read off the cells, so one column may mix '2024-03-05' and '2024-03-05 11:22'. Whether '3/5/2024' is in
    March or in May is decided over the whole column: the order in which every cell is a date.
    """
    text = column.str.strip_chars()
    known = text.drop_nulls().head(200).to_list()
    formats = _formats(known)
    if not formats:
        nothing = pl.repeat(None, len(column), dtype=pl.Datetime("us"), eager=True).alias(column.name)
        if formats is None:
            return Parsed(nothing, bad=next(i for i, cell in enumerate(text) if cell is not None and _formats([cell]) is None))
        return _judged(column, text, nothing, MISSING + _NO_DATE)
    while True:
        year_last = any(f.startswith("%1") for f in formats)
        orders = [""] if not year_last else [order] if order else [MONTH_FIRST, DAY_FIRST]
        readings = {o: _read(text, formats, o) for o in orders}
        chosen, values = min(readings.items(), key=lambda pair: pair[1].null_count())
        open_cells = text.filter(values.is_null() & text.is_not_null() & ~_says_missing(text, MISSING + _NO_DATE))
        more = _formats(open_cells.unique().head(50).to_list())
        if not more or more <= formats:
            break
        formats |= more  # a way of writing that first appears further down
    unsure = False
    if year_last and not order and readings[MONTH_FIRST].null_count() == readings[DAY_FIRST].null_count():
        month, day = readings[MONTH_FIRST], readings[DAY_FIRST]
        unsure = not month.equals(day)
        days_m, days_d = month.dt.day().n_unique(), day.dt.day().n_unique()
        if unsure and min(days_m, days_d) == 1 < max(days_m, days_d):
            unsure = False  # one reading is the same day of every month: figures by the month
            chosen = MONTH_FIRST if days_m == 1 else DAY_FIRST
        else:
            chosen = MONTH_FIRST if any("/" in f[:4] for f in formats) else DAY_FIRST
        values = readings[chosen]
    judged = _judged(column, text, values, MISSING + _NO_DATE)
    return Parsed(judged.values, judged.bad, judged.markers, judged.example, chosen or None, unsure)


def as_float(column: pl.Series) -> pl.Series:
    """Decimals, whole numbers that Float64 holds exactly, and durations (in seconds) as Float64; else the column as it is."""
    dtype = column.dtype
    if isinstance(dtype, pl.Duration):
        return column.dt.total_microseconds() / 1e6
    small = dtype.is_integer() and (column.min() or 0) > -EXACT and (column.max() or 0) < EXACT  # type: ignore[operator]
    return column.cast(pl.Float64) if small or dtype.is_decimal() or dtype.is_float() else column


def labels(column: pl.Series) -> pl.Series:
    """Any column as labels: blanks around them removed, 'True' is 'true', '2.0' is '2' (a whole number that met a gap)."""
    if column.dtype == pl.String and len(column) >= 100_000:  # a few labels many times, most often written as they should be
        few = column.unique()
        if len(few) < len(column) // 10 and _labels_of(few).equals(few):
            return column
    return _labels_of(column)


def _labels_of(column: pl.Series) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column.cast(pl.String)
    if column.dtype.is_float():
        whole = column.is_null() | (column == column.round())
        text = column.cast(pl.String)
        if not bool(whole.any()):
            return text
        ints = column.fill_nan(None).cast(pl.Int64, strict=False).cast(pl.String)
        return pl.select(pl.when(whole).then(ints).otherwise(text).alias(column.name)).to_series()
    text = blank_to_null(column.cast(pl.String).str.strip_chars())
    text = text.replace(_TRUTH)
    return text.str.replace(r"^(-?[0-9]+)\.0$", "$1") if bool(text.str.ends_with(".0").any()) else text


def label(cell: str) -> str | None:
    """What `labels` makes of one cell, for a single row, where building a column would cost more than the answer."""
    cell = cell.strip(_BLANKS)
    cell = _TRUTH.get(cell, cell)
    if cell.endswith(".0") and re.fullmatch(r"-?[0-9]+\.0", cell):
        cell = cell[:-2]
    return cell or None


def blank_to_null(column: pl.Series) -> pl.Series:
    blank = column.str.strip_chars() == ""
    if not bool(blank.any()):
        return column
    return column.alias("").set(blank, None).alias(column.name)  # a name such as '^a.*$' would be taken for a pattern


def instants(series: pl.Series) -> pl.Series:
    """A Date or Datetime column in microseconds, without a time zone (UTC)."""
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.cast(pl.Datetime("us"))


def epoch_unit(series: pl.Series) -> str:
    """What numbers count time in, by their size: 'yyyymmdd', 'epoch_ms' or 'epoch_s'. Kept in `Column.unit`."""
    whole = series.cast(pl.Int64, strict=False)
    dated = bool(whole.is_between(16_000_101, 23_001_231).fill_null(True).all())
    if dated and instants_of(whole, "yyyymmdd").null_count() == series.null_count():
        return "yyyymmdd"
    return "epoch_ms" if bool((series.abs() > 1e11).any()) else "epoch_s"


def instants_of(series: pl.Series, unit: str) -> pl.Series:
    """Numbers as Datetime, in the unit that `epoch_unit` gave."""
    if unit == "yyyymmdd":
        return series.cast(pl.Int64, strict=False).cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
    return (series * (1_000 if unit == "epoch_ms" else 1_000_000)).cast(pl.Int64, strict=False).cast(pl.Datetime("us"))


def _judged(column: pl.Series, text: pl.Series, values: pl.Series, words: tuple[str, ...]) -> Parsed:
    unread = values.is_null() & text.is_not_null()
    n = int(unread.sum())
    if not n:
        return Parsed(values)
    rows = unread.arg_true()
    cells = text.gather(rows)
    bad = (~_says_missing(cells, words)).arg_true()
    blanks = column.gather(rows)
    return Parsed(values, int(rows[int(bad[0])]) if len(bad) else None, n - len(bad), str(blanks[0]))


def _says_missing(text: pl.Series, words: tuple[str, ...]) -> pl.Series:
    return text.str.to_lowercase().is_in(list(words)).fill_null(False)


_YEAR_FIRST = re.compile(r"(\d{4})([-/.])\d{1,2}(\2\d{1,2})?(?:([ T]+)(\d.*))?$")
_YEAR_LAST = re.compile(r"\d{1,2}([-/.])\d{1,2}\1(\d{4}|\d{2})(?:([ T]+)(\d.*))?$")
_CHINESE = re.compile(r"\d{4}年\d{1,2}月(\d{1,2}(日|号)?)?(\s*)(\d.*)?$")
_NAMED = (
    (re.compile(r"\d{1,2}([- ])([A-Za-z]+)\1\d{4}(?:( +)(\d.*))?$"), "%d{0}{1}{0}%Y"),
    (re.compile(r"([A-Za-z]+) +\d{1,2}(,?) \d{4}(?:( +)(\d.*))?$"), "{0} %d{1} %Y"),
)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?( ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?$")
_CHINESE_CLOCK = re.compile(r"\d{1,2}[时点](\d{1,2}分)?(\d{1,2}秒)?$")


def _formats(cells: list[str]) -> set[str] | None:
    """The formats these cells are written in, None if one is no date at all. Year-last formats begin with '%1'."""
    found = set()
    for cell in cells:
        if cell.lower() in MISSING or cell.lower() in _NO_DATE:
            continue
        written = _format(cell)
        if written is None:
            return None
        found.add(written)
    return found


def _format(cell: str) -> str | None:
    if m := _YEAR_FIRST.match(cell):
        if m[2] == "." and not m[3]:
            return None  # 2024.5 is a number
        return _with_clock(f"%Y{m[2]}%m{m[2]}%d" if m[3] else f"%Y{m[2]}%m", m[4], m[5])
    if m := _YEAR_LAST.match(cell):
        if len(m[2]) == 2 and m[1] == "-":
            return None  # 24-03-05 could be anything
        return _with_clock(f"%1{m[1]}%2{m[1]}{'%Y' if len(m[2]) == 4 else '%y'}", m[3], m[4])
    if m := _CHINESE.match(cell):
        return _with_clock("%Y年%m月" + (("%d" + (m[2] or "")) if m[1] else ""), m[3], m[4])
    for pattern, shape in _NAMED:
        if m := pattern.match(cell):
            first, second = (m[1], m[2])
            word = second if first in ("-", " ") else first
            name = "%b" if len(word) == 3 else "%B"
            return _with_clock(shape.format(first, name) if first in ("-", " ") else shape.format(name, second), m[3], m[4])
    return None


def _with_clock(day: str, gap: str | None, clock: str | None) -> str | None:
    if not clock:
        return day
    if m := _CHINESE_CLOCK.match(clock):
        hour = "%H时" if "时" in clock else "%H点"
        return day + (gap or "") + hour + ("%M分" if m[1] else "") + ("%S秒" if m[2] else "")
    m = _CLOCK.match(clock)
    if not m or (m[2] or "").startswith(","):
        return None
    hour = "%I" if m[3] else "%H"
    zone = "" if not m[4] else (" " if m[4].startswith(" ") else "") + ("UTC" if "UTC" in m[4] else "%#z")
    return day + (gap or "") + f"{hour}:%M" + (":%S%.f" if m[1] else "") + ((" " if " " in m[3] else "") + "%p" if m[3] else "") + zone


def _read(text: pl.Series, formats: set[str], order: str) -> pl.Series:
    """Cells in any of the formats; a year outside 1600-2300 is no date but a misread code."""
    first, second = ("%m", "%d") if order == MONTH_FIRST else ("%d", "%m")
    read = pl.repeat(None, len(text), dtype=pl.Datetime("us"), eager=True).alias(text.name)
    for written in sorted(formats):
        form = written.replace("%1", first).replace("%2", second)
        if "%H" in form and "%M" not in form:  # an hour alone is no time of day to the parser
            got = (text + "00").str.to_datetime(form + "%M", strict=False, time_unit="us")
        else:
            got = text.str.to_datetime(form, strict=False, time_unit="us")
        if got.dtype.time_zone is not None:  # type: ignore[attr-defined]
            got = got.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        read = got if len(formats) == 1 else pl.select(pl.coalesce(read, got)).to_series()
    year = read.dt.year()
    return read.set(~year.is_between(1600, 2300).fill_null(True), None)
