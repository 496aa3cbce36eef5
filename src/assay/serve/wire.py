"""Rows as they come over the wire: JSON, an Arrow stream, or a form with files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import polars as pl

from assay.data.dataset import MEDIA, Schema
from assay.serve.http import Asked, Refused, decoded, shown

ARROW = b"application/vnd.apache.arrow.stream"
FORM = b"multipart/form-data"
MOST_ROWS = 10_000  # of JSON objects in one request; Arrow is limited by its bytes
MOST_ARROW_ROWS = 1_000_000
_FLAT = (pl.Float64, pl.Float32, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.String, pl.Boolean, pl.Date, pl.Datetime, pl.Binary, pl.Null,
         pl.Categorical, pl.Enum, pl.Decimal)


@dataclass(frozen=True, slots=True)
class Rows:
    """rows: a list of objects, or a frame. single: the answer is one object and not a list."""

    rows: Any
    count: int
    single: bool
    model: str | None = None


def rows_of(asked: Asked) -> Rows:
    """The rows of a request that is not a form. Raises Refused 400, 413, 415 or 422."""
    if asked.kind == ARROW:
        return _arrow(asked.body)
    return of_json(asked.json())


def of_json(given: Any) -> Rows:
    if not isinstance(given, dict):
        raise Refused(422, "The body is no object. Send {{\"row\": {{column: value}}}} or {{\"rows\": [{{...}}, ...]}}.")
    model = given.get("model")
    if model is not None and not isinstance(model, str):
        raise Refused(422, "'model' is the name of a model, a string.")
    if "row" in given:
        row = given["row"]
        if type(row) is dict and len(given) == (1 if model is None else 2):
            return Rows([row], 1, True, model)
    elif "rows" in given:
        rows = given["rows"]
        if type(rows) is list and len(given) == (1 if model is None else 2):
            if not rows:
                raise Refused(422, "There are no rows to answer.")
            if len(rows) > MOST_ROWS:
                raise Refused(413, "{rows:,} rows are more than {most:,}. Send fewer at a time, an Arrow stream, or use `assay predict` for files.", rows=len(rows), most=MOST_ROWS)
            for i, row in enumerate(rows):
                if type(row) is not dict:
                    raise Refused(422, "Row {row} is no object of column names and values.", row=i + 1)
            return Rows(rows, len(rows), False, model)
    more = sorted(str(k) for k in given if k not in ("row", "rows", "model"))
    if more:
        raise Refused(422, "The body has the fields {found}, which are not known. Send {{\"row\": {{column: value}}}} or {{\"rows\": [{{...}}, ...]}}.", found=[shown(m) for m in more[:5]])
    raise Refused(422, "The body has neither a 'row' (an object) nor 'rows' (a list of objects), or both. Send {{\"row\": {{column: value}}}} or {{\"rows\": [{{...}}, ...]}}.")


def known_columns(schema: Schema) -> frozenset[str] | None:
    """The columns that a row may have: features, answer, ids and groups. None: any, where sequences are made of further columns."""
    made = any(c.kind == "sequence" for c in schema.columns)
    return None if made else frozenset(c.name for c in schema.columns)


def only_known(rows: list[dict[str, Any]], known: frozenset[str] | None) -> None:
    """Raises Refused 422 for a field that is no column: more often a typing error than a wish."""
    if known is None:
        return
    for i, row in enumerate(rows):
        if not row.keys() <= known:
            raise Refused(422, "Row {row} has columns that the model does not know: {unknown}. It knows: {known}.", row=i + 1,
                          unknown=[shown(name) for name in row if name not in known][:5], known=sorted(known)[:40])


def _arrow(body: bytes) -> Rows:
    try:
        frame = pl.read_ipc_stream(io.BytesIO(body))
    except (Exception, pl.exceptions.PanicException) as error:  # whatever a stranger's bytes make the reader raise
        raise Refused(400, "The body is no Arrow stream that can be read ({reason}).", reason=shown(str(error), 100)) from None
    if not frame.height:
        raise Refused(422, "There are no rows to answer.")
    if frame.height > MOST_ARROW_ROWS:
        raise Refused(413, "{rows:,} rows are more than {most:,}. Send fewer at a time, an Arrow stream, or use `assay predict` for files.", rows=frame.height, most=MOST_ARROW_ROWS)
    odd = [name for name, kind in frame.schema.items() if kind.base_type() not in _FLAT]
    if odd:
        raise Refused(422, "The Arrow columns {columns} are nested; numbers, texts, times and bytes are read.", columns=[shown(n) for n in odd[:5]])
    return Rows(frame, frame.height, False)


def arrow(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()


async def form_rows(asked: Asked, schema: Schema) -> Rows:
    """One row from a form: files for the columns of pictures and sounds, fields for the others, or all others in the field 'row' as JSON."""
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def chunks() -> Any:
        yield asked.body
        yield b""

    media = {c.name for c in schema.features if c.kind in MEDIA}
    row: dict[str, Any] = {}
    try:
        form = await MultiPartParser(Headers(raw=asked.scope["headers"]), chunks(), max_files=20, max_fields=1000, max_part_size=1 << 20).parse()
    except (MultiPartException, KeyError, ValueError, UnicodeDecodeError) as error:
        raise Refused(400, "The form could not be read ({reason}).", reason=shown(str(getattr(error, "message", error)), 100)) from None
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in media:
                    raise Refused(422, "The file '{name}' belongs to no column. Files are taken for: {known}.", name=shown(name), known=sorted(media) or ["–"])
                row[name] = await value.read()
            elif name == "row":
                given = decoded(value.encode())
                if not isinstance(given, dict):
                    raise Refused(422, "The field 'row' is no object of column names and values.")
                row = given | row
            else:
                row[name] = value
    finally:
        await form.close()
    return Rows([row], 1, True)
