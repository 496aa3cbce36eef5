"""OpenAPI 3.1 of the service as it stands: the columns, labels and examples of its own models."""

from __future__ import annotations

from typing import Any

from assay import __version__
from assay.data.dataset import Column, Schema
from assay.serve.held import Held, example_row
from assay.serve.wire import MOST_ROWS
from assay.ship.bundle import Bundle

_ERRORS = {"400": "No JSON, or a body that broke off.", "401": "No key, or one that is not known.", "403": "The key may not do that.", "404": "No such model, answer or path.",
           "405": "Another method.", "408": "The body came too slowly.", "413": "The body is too large.", "415": "Another content type.", "422": "The rows or fields are not usable: the sentence says which, and what is expected.",
           "429": "Too many requests: see Retry-After.", "503": "The service is starting, stopping, or cannot write down its answers."}


def document(shelf: list[Held], *, url: str = "/") -> dict[str, Any]:
    """JSON-ready. One model: its columns stand in the schema of a row. Several: a row is one of theirs."""
    rows = {f"Row_{_safe(h.model)}": _row(h.champion.bundle) for h in shelf if h.champion.bundle.task.by_rows}
    answers = {f"Answer_{_safe(h.model)}": _answer(h.champion.bundle) for h in shelf if h.champion.bundle.task.by_rows}
    row = _one_of(list(rows))
    examples = {h.model: {"value": {"row": e, **({"model": h.model} if len(shelf) > 1 else {})}} for h in shelf if (e := example_row(h.champion.bundle)) is not None}
    model = {"name": "model", "in": "query", "required": False, "description": "Which model, where the service has several.", "schema": {"type": "string", "enum": [h.model for h in shelf]}}
    only = {"type": "string", "enum": [h.model for h in shelf]}
    asked = {"oneOf": [
        {"type": "object", "required": ["row"], "additionalProperties": False, "properties": {"row": row, "model": only}},
        {"type": "object", "required": ["rows"], "additionalProperties": False, "properties": {"rows": {"type": "array", "minItems": 1, "maxItems": MOST_ROWS, "items": row}, "model": only}}]}
    answer = _one_of(list(answers))
    said = {"oneOf": [answer, {"type": "object", "required": ["model", "version", "answers"], "properties": {
        "model": {"type": "string"}, "version": {"type": "integer"}, "answers": {"type": "array", "items": {"type": "object", "required": ["id"]}}}}]}
    paths: dict[str, Any] = {}
    if rows:
        paths["/v1/predict"] = {"post": _operation("predict", "Answer one row or many.", asked, said, model, examples=examples, scope="predict", arrow=True, form=True)}
        paths["/v1/explain"] = {"post": _operation("explain", "Answer one row and say what the answer rests on.", asked["oneOf"][0], {"type": "object", "required": ["model", "version", "answer"]}, model,
                                                   examples=examples, scope="predict", form=True)}
    if any(not h.champion.bundle.task.by_rows for h in shelf):
        series = {"oneOf": [{"type": "object", "required": ["history"], "properties": {"history": {"type": "array", "items": {"type": ["number", "null"]}}, "origin": {"type": "string"}, "model": only}},
                            {"type": "object", "required": ["rows"], "properties": {"rows": {"type": "array", "items": {"type": "object"}}, "model": only}}]}
        paths["/v1/forecast"] = {"post": _operation("forecast", "Forecast one series from its history: quantiles by step.", series, {"type": "object", "required": ["id"]}, model, scope="predict")}
    item = {"type": "object", "additionalProperties": False, "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": 40}, "label": {"type": ["string", "number", "boolean"]}, "kind": {"enum": ["label", "accept", "edit", "reject"], "default": "label"},
        "note": {"type": "string", "maxLength": 4000}, "row": {"type": "object"}, "model": only}}
    paths["/v1/feedback"] = {"post": _operation("feedback", "Say what an answer should have been. Acknowledged when it is stored.",
                                                {"oneOf": [item, {"type": "object", "required": ["items"], "additionalProperties": False,
                                                                  "properties": {"items": {"type": "array", "minItems": 1, "items": item}, "model": only}}]},
                                                {"type": "object", "required": ["kept"], "properties": {"kept": {"type": "integer"}, "feedback": {"type": "integer"}}}, model, scope="feedback", status="201")}
    paths["/v1/schema"] = {"get": _get("schema", "Models, their columns, labels and an example row.")}
    paths["/v1/models"] = {"get": _get("models", "Versions and stages of every model.")}
    paths["/v1/alarms"] = {"get": _get("alarms", "Open alarms.")}
    for name, about in (("/healthz", "The process answers."), ("/readyz", "Every model has answered its warm-up row, and the store takes answers.")):
        paths[name] = {"get": {"operationId": name[1:], "summary": about, "security": [], "responses": {"200": {"description": "Yes."}, "503": {"description": "Not now."}}}}
    paths["/metrics"] = {"get": {"operationId": "metrics", "summary": "Prometheus metrics.", "responses": {"200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}}}
    for path in ("/v1/schema", "/v1/models", "/v1/alarms", "/metrics"):
        paths[path]["get"]["responses"] |= {code: _error(code) for code in ("401", "403", "429")}
    return {"openapi": "3.1.0", "info": {"title": "assay", "version": __version__, "description": "Answers of the models that won their contests."}, "servers": [{"url": url}],
            "security": [{"key": []}], "paths": paths,
            "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "A key made with `assay keys make`, or a token of the identity provider."}},
                           "schemas": {**rows, **answers, "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object", "required": ["status", "sentence"], "properties": {
                               "status": {"type": "integer"}, "sentence": {"type": "string"}}}}}}}}


def columns(schema: Schema) -> list[dict[str, Any]]:
    """The features as `/v1/schema` gives them."""
    return [{k: v for k, v in {"name": c.name, "kind": c.kind, "unit": c.unit, "language": c.language, "channels": c.channels}.items() if v is not None} for c in schema.features]


def _row(bundle: Bundle) -> dict[str, Any]:
    features = {c.name: _column(c) for c in bundle.schema.features}
    others: dict[str, Any] = {c.name: {} for c in bundle.schema.columns if c.name not in features}
    made = any(c.kind == "sequence" for c in bundle.schema.columns)
    return {"type": "object", "properties": features | others, **({} if made else {"required": list(features), "additionalProperties": False}),
            **({"examples": [e]} if (e := example_row(bundle)) is not None else {})}


def _column(column: Column) -> dict[str, Any]:
    if column.kind == "number":
        return {"type": ["number", "null"]}
    if column.kind == "category":
        return {"type": ["string", "integer", "boolean", "null"]}
    if column.kind == "time":
        return {"type": ["string", "null"], "description": "ISO 8601, such as 2026-03-05 08:00."} if column.unit != "epoch" else {"type": ["number", "null"], "description": "Seconds since 1970."}
    if column.kind in ("image", "audio"):
        return {"type": ["string", "null"], "description": "A data URI such as data:image/png;base64,iVBORw0..., or a file of a form."}
    if column.kind == "sequence":
        return {"type": ["array", "null"], "description": f"Steps, each a list of {len(column.channels or ('',))} numbers."}
    return {"type": ["string", "null"]}


def _answer(bundle: Bundle) -> dict[str, Any]:
    classes = getattr(bundle.task, "classes", None)
    answer = {"enum": list(classes)} if classes is not None else {"type": "number"}
    return {"type": "object", "required": ["id", "model", "version", "answer"], "properties": {"id": {"type": "string"}, "model": {"type": "string"}, "version": {"type": "integer"}, "answer": answer,
                                                                                              **({"probability": {"type": "number"}} if classes else {"low": {"type": "number"}, "high": {"type": "number"}})}}


def _operation(name: str, about: str, asked: dict[str, Any], said: dict[str, Any], model: dict[str, Any], *, scope: str, status: str = "200", examples: dict[str, Any] | None = None,
               arrow: bool = False, form: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": asked, **({"examples": examples} if examples else {})}}
    answer: dict[str, Any] = {"application/json": {"schema": said}}
    if arrow:
        content["application/vnd.apache.arrow.stream"] = {"schema": {"type": "string", "format": "binary"}}
        answer["application/vnd.apache.arrow.stream"] = {"schema": {"type": "string", "format": "binary"}}
    if form:
        content["multipart/form-data"] = {"schema": {"type": "object", "description": "One row: a file for each picture or sound, fields for the rest, or all others in the field 'row' as JSON."}}
    return {"operationId": name, "summary": about, "description": f"Needs a key of the scope '{scope}'.", "parameters": [model], "requestBody": {"required": True, "content": content},
            "responses": {status: {"description": "The answer.", "content": answer}, **{code: _error(code) for code in _ERRORS}}}


def _get(name: str, about: str) -> dict[str, Any]:
    return {"operationId": name, "summary": about, "responses": {"200": {"description": "JSON.", "content": {"application/json": {"schema": {}}}}}}


def _error(code: str) -> dict[str, Any]:
    return {"description": _ERRORS[code], "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _one_of(names: list[str]) -> dict[str, Any]:
    references = [{"$ref": f"#/components/schemas/{n}"} for n in names]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in name)
