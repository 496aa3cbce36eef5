"""What each column is: number, category, text, time or id. Rules look at names and values, never at the order of rows."""

from __future__ import annotations

import re
from typing import NamedTuple

import polars as pl

from assay.data.dataset import KINDS, MEDIA, Column, Schema
from assay.data.folders import kind_in
from assay.data.given import as_cells
from assay.data.values import (
    DAY_FIRST,
    EXACT,
    MONTH_FIRST,
    Parsed,
    as_float,
    blank_to_null,
    coded,
    epoch_unit,
    instants,
    instants_of,
    labels,
    numbers,
    times,
)
from assay.errors import InputError
from assay.words import Text, say

SAMPLE = 2000
_ID_WORDS = {"id", "ids", "uid", "uuid", "guid", "udi", "pk"}
_ROW_WORDS = {"index", "idx", "row", "rownum", "rowid", "no", "nr", "num", "number", "seq", "record", "#", "序号", "行号", "索引"}
_ID_GLUED = re.compile(
    r"(?:user|customer|client|order|item|product|patient|student|employee|account|transaction|case|device|machine|session|"
    r"sample|member|person|visitor|ticket|event|store|shop|loan|policy|claim|invoice|passenger|compound|vehicle|sku|row|record)id$")
_ID_CHINESE = re.compile(r"(?:编号|单号|工号|学号|证号|流水号|卡号|账号|帐号|户号|病历号|住院号|身份证号码?|主键)$")
_UNNAMED = re.compile(r"(?:column_\d+|unnamed: ?\d+|_c\d+|x|\.\.\.\d+|__index_level_\d+__)$", re.IGNORECASE)
_DATE_WORDS = {"date", "day", "dt", "日期"}
_CODE = r"^[A-Za-z0-9][A-Za-z0-9_\-./:#@+ ]{0,47}$"

_ORDERS: dict[str, Text] = {MONTH_FIRST: say("month/day/year"), DAY_FIRST: say("day/month/year")}


class Inferred(NamedTuple):
    """frame: canonical dtypes, columns that say nothing left out. notes: what was decided that a user may want to know."""

    frame: pl.DataFrame
    schema: Schema
    notes: list[Text]


def infer(
    frame: pl.DataFrame, *, target: str | None = None, overrides: dict[str, str] | None = None,
    time: str | None = None, group: str | None = None, target_as: str | None = None,
) -> Inferred:
    """The frame with the dtypes that `Dataset` promises, and its schema. Every value of a column is looked at.

    overrides: {column: kind}. target_as: 'label', 'amount' or None. Names are trusted to exist. Raises InputError if an
    override, the time column or the target cannot hold what its cells say.
    """
    overrides = overrides or {}
    notes: list[Text] = []
    kept: list[pl.Series] = []
    columns: list[Column] = []
    empty: list[str] = []
    for name in frame.columns:
        series = frame[name]
        if name == target:
            series, column = _target(series, target_as, notes)
        elif series.dtype == pl.Binary and name not in (time, group) and (kind := _media_kind(series, overrides.get(name))):
            column = Column(name, kind)
        elif name not in (time, group) and (channels := _channels(series, overrides.get(name))):
            column = Column(name, "sequence", channels=channels)
            series = as_cells(column, series)
        elif _nested(series.dtype):
            if name in overrides or name in (time, group):
                raise InputError("Column '{name}' holds {dtype}, which cannot be used. Split it into plain columns.", name=name, dtype=str(series.dtype))
            notes.append(say("Column '{name}' holds {dtype}, which cannot be used; it is left out.", name=name, dtype=str(series.dtype)))
            continue
        else:
            want = overrides.get(name) or ("role" if name == time else None)
            found = _column(series, want, notes, role=name in (time, group))
            if found is None:
                empty.append(name)
                continue
            series, column = found
        kept.append(series)
        columns.append(column)
    for role in (target, time, group):
        if role in empty:
            raise InputError("Column '{name}' has no values at all.", name=role)
    if empty:
        notes.append(say("Columns without a single value are left out: {names}.", names=empty))
    return Inferred(pl.DataFrame(kept), Schema(tuple(columns), target, time, group), notes)


def schema_table(schema: Schema) -> list[tuple[str, str | Text, str | Text]]:
    """(name, kind, detail) of every column, for printing."""
    roles: dict[str | None, Text] = {schema.target: say("target"), schema.time: say("time column"), schema.group: say("group")}
    languages = {"zh": say("Chinese"), "en": say("English"), "other": say("another language")}
    rows: list[tuple[str, str | Text, str | Text]] = []
    for c in schema.columns:
        detail: str | Text = roles.get(c.name) or (languages[c.language] if c.language else _ORDERS.get(c.unit or "") or "")
        rows.append((c.name, c.kind, say("not a feature") if c.kind == "id" and not detail else detail))
    return rows


def language(cells: list[str]) -> str:
    """'zh' if at least three letters in ten are Chinese and none Japanese, 'en' if nine in ten are A-Z, else 'other'."""
    text = "".join(cell[:400] for cell in cells[:SAMPLE])
    han = len(re.findall(r"[\u4e00-\u9fff\u3400-\u4dbf]", text))
    kana = len(re.findall(r"[\u3040-\u30ff]", text))
    latin = len(re.findall(r"[A-Za-z]", text))
    letters = sum(ch.isalpha() for ch in text)
    if kana > 0.05 * letters:
        return "other"
    return "zh" if han >= 0.3 * letters else "en" if latin >= 0.9 * letters else "other"


# ---- one column


def _media_kind(series: pl.Series, want: str | None) -> str | None:
    """What cells of bytes are: what the user says, else what their first bytes say; None where they are no pictures and no sounds."""
    found = kind_in(series)
    if want in MEDIA and found and want != found:
        raise InputError("Column '{name}' should be of kind {want}, but its cells begin like {found}.", name=series.name, want=want, found=found)
    return found if want is None or want == found else None


def _channels(series: pl.Series, want: str | None) -> tuple[str, ...]:
    """What a step of lists of lists of numbers holds, () where cells are something else. Plain lists of numbers are steps only if the user says so."""
    step = series.dtype.inner if isinstance(series.dtype, pl.List | pl.Array) else None
    if step is None or want not in (None, "sequence"):
        return ()
    if isinstance(step, pl.List | pl.Array) and step.inner is not None and step.inner.is_numeric():  # type: ignore[union-attr]
        first = next((cell[0] for cell in series if cell is not None and len(cell)), None)
        return tuple(f"c{i}" for i in range(len(first))) if first is not None else ()
    return (series.name,) if want == "sequence" and step.is_numeric() else ()  # type: ignore[union-attr]


def _nested(dtype: pl.DataType) -> bool:
    return dtype.is_nested() or dtype in (pl.Binary, pl.Object)


def _column(series: pl.Series, want: str | None, notes: list[Text], *, role: bool) -> tuple[pl.Series, Column] | None:
    """The series in its canonical dtype, None if it has no value."""
    name = series.name
    if want in MEDIA:
        raise InputError("Column '{name}' should be of kind {want}, but it holds {dtype}. Bytes are expected, or paths of files.", name=name, want=want, dtype=str(series.dtype))
    forced = want if want in KINDS else None
    if series.dtype == pl.Null or series.null_count() == len(series):
        return None
    series = as_float(series)
    dtype = series.dtype
    if dtype.is_float():
        return _numeric(series, forced, want, notes, role=role)
    if dtype in (pl.Date, pl.Datetime):
        if forced in ("category", "text", "id"):
            return series.cast(pl.String), _named(series.cast(pl.String), forced)
        if forced == "number":
            raise InputError("Column '{name}' holds times, so it cannot be read as numbers.", name=name)
        return instants(series), Column(name, "time")
    if dtype == pl.Boolean:
        if forced == "number":
            return series.cast(pl.Float64), Column(name, "number")
        return labels(series), Column(name, forced if forced in ("text", "id") else "category")
    return _words(series.cast(pl.String), forced, want, notes, role=role)


def _numeric(
    series: pl.Series, forced: str | None, want: str | None, notes: list[Text], *, role: bool
) -> tuple[pl.Series, Column] | None:
    name = series.name
    if bool(series.is_nan().any()):
        series = series.fill_nan(None)
    if endless := int(series.is_infinite().sum()):
        notes.append(say("Column '{name}' holds {n} infinite numbers; they count as missing.", name=name, n=endless))
        series = series.set(series.is_infinite(), None)
    if series.null_count() == len(series):
        return None
    if forced == "time":
        unit = epoch_unit(series)
        return instants_of(series, unit), Column(name, "time", unit=unit)
    if forced and forced != "number":
        text = labels(series)
        return text, _named(text, forced)
    if not forced and not role:
        present = series.drop_nulls()
        if whole_numbers(present):
            if kind := _id_by_name(name, present):
                return labels(series), Column(name, kind)
            if _tokens(name) & _DATE_WORDS and bool(present.is_between(19_000_101, 21_001_231).all()):
                dates = instants_of(series, "yyyymmdd")
                if dates.null_count() == series.null_count():
                    return dates, Column(name, "time", unit="yyyymmdd")
    return series, Column(name, "number")


def whole_numbers(present: pl.Series) -> bool:
    return bool((present.head(SAMPLE) == present.head(SAMPLE).round()).all()) and bool((present == present.round()).all())


def _words(
    series: pl.Series, forced: str | None, want: str | None, notes: list[Text], *, role: bool
) -> tuple[pl.Series, Column] | None:
    """A column of strings."""
    name, written = series.name, series
    series = blank_to_null(series)
    if series.null_count() == len(series):
        return None
    if forced in ("category", "text", "id"):
        series = series if forced == "text" else labels(series)
        return series, _named(series, forced)
    sample = _spread(series)
    number = numbers(series) if forced == "number" else _whole(series, sample, numbers) if not coded(sample) else None
    if number and number.bad is None and number.values.null_count() < len(series) and (forced or not coded(series)):
        found = _numeric(number.values, forced, want, notes, role=role)
        if found and found[1].kind in ("category", "id"):
            return labels(series), found[1]  # a key: what is written, not what it is worth
        number = numbers(written)  # once more with the blanks, to count them
        if number.markers:
            notes.append(say(
                "Column '{name}' is read as numbers; {n} cells such as '{example}' count as missing.",
                name=name, n=number.markers, example=number.example))
        return found
    if forced == "number":
        raise _refused(number, series, "number")
    time = times(series) if want in ("time", "role") else _whole(series, sample, times)
    if time and time.bad is None and time.values.null_count() < len(series):
        if time.unsure:
            notes.append(say(
                "Dates in '{name}' such as '{example}' fit both orders; they are read as {order}. If that is wrong, write them as 2024-03-05.",
                name=name, example=sample[0], order=_ORDERS[time.order or MONTH_FIRST]))
        return time.values, Column(name, "time", unit=time.order)
    if want == "role" or forced == "time":
        raise _refused(time, series, "time")
    for parsed, what in ((number, say("numbers")), (time, say("times"))):
        if parsed and parsed.bad is not None and parsed.values.drop_nulls().len() > 0.9 * len(series.drop_nulls()):
            notes.append(say(
                "Column '{name}' is nearly all {what}, but row {row} holds '{value}'; it is read as labels. If that is wrong, mend the cell.",
                name=name, what=what, row=parsed.bad + 1, value=series[parsed.bad]))
    kind = _kind_of_words(name, series, sample)
    if role and kind == "id":
        kind = "category"
    series = series if kind == "text" else labels(series)
    return series, _named(series, kind)


def _spread(series: pl.Series) -> pl.Series:
    """Some 2,000 cells that are not empty, from the whole length: the head of a sorted file is not like the rest."""
    present = series.drop_nulls()
    return present.gather_every(max(1, len(present) // SAMPLE)) if len(present) else present


def _whole(series: pl.Series, sample: pl.Series, parse: object) -> Parsed | None:
    """`parse` of all rows if a sample makes it likely, else None. Some bad cells in it are let through for the note."""
    tried: Parsed = parse(sample)  # type: ignore[operator]
    if tried.values.null_count() == len(sample) and not tried.markers:
        return None
    return parse(series)  # type: ignore[operator,no-any-return]


def _refused(parsed: Parsed | None, series: pl.Series, kind: str) -> InputError:
    row = parsed.bad if parsed and parsed.bad is not None else int(series.is_not_null().arg_true()[0])
    if kind == "number":
        return InputError("Column '{name}' should hold numbers, but row {row} holds '{value}'.", name=series.name, row=row + 1, value=cut(series[row]))
    return InputError("Column '{name}' should hold times, but row {row} holds '{value}'. Write times like 2024-03-05 or 2024-03-05 11:22.",
                      name=series.name, row=row + 1, value=cut(series[row]))


def cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _named(series: pl.Series, kind: str) -> Column:
    if kind != "text":
        return Column(series.name, kind)
    return Column(series.name, kind, language=language(_spread(series).to_list()))


def _kind_of_words(name: str, series: pl.Series, sample: pl.Series) -> str:
    n = len(series) - series.null_count()
    different = series.n_unique() - (series.null_count() > 0)
    distinct = different / n
    units = sum(_length(cell) for cell in sample) / len(sample)
    code = bool(sample.str.contains(_CODE).mean() >= 0.95) and bool(sample.str.contains(r"\d").mean() >= 0.8)  # type: ignore[operator]
    if distinct >= 0.9 and units < 8 and (_names_id(name) or (code and n >= 20)):
        return "id"
    if _names_id(name) and units < 3:
        return "category"
    enough = different > 20 or (distinct >= 0.8 and different > 2)
    if units >= 8 and enough and (distinct >= 0.05 or different >= 1000):
        return "text"
    if units >= 2.5 and not code and ((distinct >= 0.5 and enough) or (units >= 3.5 and different >= 1000)):
        return "text"
    return "text" if not code and distinct >= 0.5 and different > 100 else "category"


def _length(cell: str) -> float:
    """Words of a cell; 1.8 Chinese characters make a word."""
    han = sum("\u3400" <= ch <= "\u9fff" for ch in cell[:400])
    return han / 1.8 + len(re.findall(r"[^\s\u3400-\u9fff]+", cell[:400]))


def _tokens(name: str) -> set[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return set(re.split(r"[\W_]+", spaced.lower())) | {name.lower().strip()}


def _names_id(name: str) -> bool:
    last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.strip()).lower()
    if re.split(r"[\W_]+", last)[-1] in _ID_WORDS or _ID_GLUED.search(last) or _ID_CHINESE.search(last):
        return True
    return last.endswith("id") and last[0] >= "\u3400"  # 用户id


def _id_by_name(name: str, whole: pl.Series) -> str | None:
    """'id' for row numbers and keys, 'category' for a key that repeats, None for a number. whole: no nulls."""
    strong = _names_id(name)
    weak = name.lower().strip() in _ROW_WORDS or bool(_UNNAMED.match(name.strip()))
    if not strong and not weak:
        return None
    distinct = whole.n_unique() / len(whole)
    if strong:
        return "id" if distinct >= 0.9 else "category"
    run = float(whole.max()) - float(whole.min()) == len(whole) - 1  # type: ignore[arg-type]
    return "id" if distinct == 1 and run and len(whole) > 2 else None


# ---- the answer


def _target(series: pl.Series, target_as: str | None, notes: list[Text]) -> tuple[pl.Series, Column]:
    """String or Boolean labels, Int64 if every amount is whole, else Float64. Empty answers stay null, infinite ones stay."""
    name = series.name
    if _nested(series.dtype):
        raise InputError("The target '{name}' holds {dtype}, which cannot be an answer.", name=name, dtype=str(series.dtype))
    if series.dtype.is_decimal():
        series = series.cast(pl.Float64)
    if isinstance(series.dtype, pl.Duration):
        series = series.dt.total_microseconds() / 1e6
    if series.dtype == pl.UInt64 and (series.max() or 0) >= 2**63:  # type: ignore[operator]
        series = series.cast(pl.String)
    if not series.dtype.is_numeric() and series.dtype != pl.Boolean:
        series = blank_to_null(series.cast(pl.String).str.strip_chars())
        if target_as == "amount" or not coded(series):
            parsed = numbers(series)
            if parsed.bad is None and (target_as == "amount" or parsed.values.null_count() < len(series)):
                series = parsed.values
            elif target_as == "amount":
                raise _refused(parsed, series, "number")
    if series.dtype.is_float():
        series = series.cast(pl.Float64).fill_nan(None)
    if series.null_count() == len(series):
        raise InputError("The target '{name}' has no values at all.", name=name)
    if series.dtype.is_float():
        if endless := int(series.is_infinite().sum()):
            notes.append(say("The target '{name}' holds {n} infinite numbers.", name=name, n=endless))
        elif target_as != "amount" and whole_numbers(series.drop_nulls()) and (series.abs().max() or 0) < EXACT:  # type: ignore[operator]
            series = series.cast(pl.Int64)
    if target_as == "amount":
        return series.cast(pl.Float64), Column(name, "number")
    if series.dtype.is_integer():
        series = series.cast(pl.Int64)
    if target_as == "label":
        series = labels(series) if series.dtype == pl.Float64 else series
        return series, Column(name, "category")
    if series.dtype.is_numeric():
        return series, Column(name, "number")
    if series.dtype == pl.Boolean:
        return series, Column(name, "category")
    kind = _kind_of_words(name, series, _spread(series))
    return series, _named(series, kind)
