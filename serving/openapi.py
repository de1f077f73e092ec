"""The OpenAPI document, made from the promises of the views and the structs they answer with; nothing is written twice.

What does not belong here: the promises (`contract`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from btc_core.features.catalogue import FEATURES, MODEL_FEATURES
from serving.endpoints import PROMISE, NoQuery, Promise
from serving.legacy.bodies import MAX_MAGNITUDE, MAX_ROWS
from serving.problem_details import PROBLEM_TYPE, ProblemDocument

if TYPE_CHECKING:
    from flask import Flask

VERSION = "1"
REF = "#/components/schemas/{name}"
ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)
"""Statuses any operation may answer with: an unreadable request, too many of them."""

_NUMBER = {"type": ["number", "null"], "minimum": -MAX_MAGNITUDE, "maximum": MAX_MAGNITUDE}
_UNITS = {feature.name: f"{feature.meaning} [{feature.unit}]" for feature in FEATURES}
_LIST = {
    "type": "array",
    "items": _NUMBER,
    "minItems": len(MODEL_FEATURES),
    "maxItems": len(MODEL_FEATURES),
    "description": "All features in the order of /v1/features/order; null for a missing one.",
}
_NAMED = {
    "type": "object",
    "properties": {name: {**_NUMBER, "description": _UNITS[name]} for name in MODEL_FEATURES},
    "additionalProperties": False,
}
_ROW = {
    "type": "object",
    "properties": {
        "features": {"anyOf": [_NAMED, _LIST]},
        "bid": {
            "type": ["number", "null"],
            "exclusiveMinimum": 0,
            "maximum": MAX_MAGNITUDE,
            "description": "USD; without it the path is given in bps only.",
        },
    },
    "required": ["features"],
    "additionalProperties": False,
}
_ONE = {"anyOf": [{"$ref": REF.format(name="FeatureRow")}, {"$ref": REF.format(name="FeatureList")}]}
_MANY = {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MAX_ROWS}

BODIES: dict[str, dict[str, Any]] = {
    "FeatureList": _LIST,
    "FeatureRow": _ROW,
    "FeatureBody": {
        "anyOf": [
            *_ONE["anyOf"],
            {
                "type": "object",
                "properties": {"rows": _MANY},
                "required": ["rows"],
                "additionalProperties": False,
            },
            _MANY,
        ]
    },
    "AnyJson": {},
}
"""Schemas of bodies that `inputs` reads by hand, so that it can name what is wrong in them."""


def document(app: Flask) -> dict[str, Any]:
    """OpenAPI 3.1 of every view of `app` that makes a promise."""
    found = [
        (rule.rule, method.lower(), getattr(app.view_functions[rule.endpoint], PROMISE), rule.endpoint)
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
        for method in sorted((rule.methods or set()) & {"GET", "POST"})
        if hasattr(app.view_functions[rule.endpoint], PROMISE)
    ]
    answers = {answer for _, _, promise, _ in found for answer in promise.answers} | {ProblemDocument}
    queries = {promise.query for _, _, promise, _ in found} - {NoQuery}
    _, components = msgspec.json.schema_components([*answers, *queries], ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, promise, endpoint in found:
        words = (app.view_functions[endpoint].__doc__ or "").strip()
        paths.setdefault(path, {})[method] = _operation(path, method, promise, words, components)
    for kind in queries:  # they are parameters, not bodies
        components.pop(kind.__name__)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BTC/USD forecasts",
            "version": VERSION,
            "description": "Live forecasts of bid and volatility, with what is needed to judge them. "
            "Errors are application/problem+json with a stable `code`. Times are ISO 8601, UTC.",
        },
        "paths": paths,
        "components": {
            "schemas": components | BODIES,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str, method: str, promise: Promise, words: str, components: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{method}{path.replace('/', '_')}",
        "tags": [promise.tag],
        "summary": words.splitlines()[0] if words else path,
        "responses": _responses(promise),
    }
    if promise.query is not NoQuery:
        operation["parameters"] = _parameters(components[promise.query.__name__])
    if promise.body:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF.format(name=promise.body)}}},
        }
    if promise.guarded:
        operation["security"] = [{"token": []}]
    return operation


def _responses(promise: Promise) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(promise.answers, ref_template=REF)
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    answers: dict[str, dict[str, Any]] = {
        str(int(status)): {
            "description": HTTPStatus(status).phrase,
            "content": {promise.media: {"schema": schema}},
        }
        for status in (promise.status, *promise.also)
    }
    body_statuses = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY) if promise.body else ()
    token_statuses = (HTTPStatus.UNAUTHORIZED,) if promise.guarded else ()
    problem = {"schema": {"$ref": REF.format(name="ProblemDocument")}}
    for status in sorted({*ALWAYS, *promise.problems, *body_statuses, *token_statuses}):
        answers.setdefault(str(int(status)), {"description": HTTPStatus(status).phrase, "content": {}})["content"][
            PROBLEM_TYPE
        ] = problem
    return answers


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a query struct."""
    parameters = []
    for name, found in schema["properties"].items():
        kept = dict(found)
        described = {"description": kept.pop("description")} if "description" in kept else {}
        parameters.append({"name": name, "in": "query", "required": False, **described, "schema": kept})
    return parameters
