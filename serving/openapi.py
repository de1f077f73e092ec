"""The OpenAPI document, made from the descriptions of the views and the structs of their answers.

What does not belong here: the descriptions (`endpoints`).
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from serving.auth import OPEN
from serving.endpoints import Endpoint, NoQuery, endpoint_of, schema_ref
from serving.field_docs import describe
from serving.problem_details import PROBLEM_TYPE, ProblemDocument

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

VERSION = "1"
ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.TOO_MANY_REQUESTS)
"""Statuses that every operation may answer with: for a request that cannot be read, and for too many requests."""
WITH_BODY = (
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
"""Statuses that an operation with a body may answer with: for one that is too large, encoded, or has bad values."""

SCHEMES = {
    "admin": {"type": "http", "scheme": "bearer", "description": "An admin token, for actions and for reading."},
    "read": {"type": "http", "scheme": "bearer", "description": "A read token or an admin token."},
    "password": {
        "type": "http",
        "scheme": "basic",
        "description": "The same token as the password of any user, for browsers.",
    },
}

_REF_TEMPLATE = schema_ref("{name}")["$ref"]


def document(app: Flask, *, guard_reads: bool = False) -> dict[str, Any]:
    """An OpenAPI 3.1 document of every view of `app` that has a description. With `guard_reads`, reading needs a token."""
    operations = [
        (path_of(rule), method.lower(), endpoint, (app.view_functions[rule.endpoint].__doc__ or "").strip())
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule)
        for method in sorted((rule.methods or set()) & {"GET", "POST"})
        if (endpoint := endpoint_of(app, rule.endpoint)) is not None
    ]
    answers = {answer for _, _, endpoint, _ in operations for answer in endpoint.answers} | {ProblemDocument}
    queries = {endpoint.query for _, _, endpoint, _ in operations} - {NoQuery}
    in_order = sorted(answers | queries, key=lambda kind: kind.__name__)  # a set has another order in each process
    _, components = msgspec.json.schema_components(in_order, ref_template=_REF_TEMPLATE)
    describe(components, in_order)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, endpoint, summary in operations:
        operation = _operation(path, method, endpoint, summary, components)
        paths.setdefault(path, {})[method] = operation
        if endpoint.needs_admin or (guard_reads and path not in OPEN):
            _guard(operation, needs_admin=endpoint.needs_admin)
    for query in queries:  # their fields are parameters, not bodies
        components.pop(query.__name__)
    bodies = [endpoint.body.schemas for _, _, endpoint, _ in operations if endpoint.body is not None]
    for schemas in bodies:
        components |= schemas
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Forecasts of bid and volatility",
            "version": VERSION,
            "description": "Live forecasts of the bid and the volatility, with what is needed to judge them. "
            "Errors are application/problem+json with a stable `code`. Times are ISO 8601 in UTC.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": SCHEMES,
        },
    }


def path_of(rule: Rule) -> str:
    """The path of a route as an OpenAPI document writes it: with `{name}` in place of `<name>`."""
    return rule.rule.replace("<", "{").replace(">", "}")


def _operation(
    path: str, method: str, endpoint: Endpoint, summary: str, components: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{method}{re.sub('[/{}]+', '_', path).rstrip('_')}",
        "tags": [endpoint.tag],
        "summary": summary.splitlines()[0] if summary else path,
        "responses": _responses(endpoint),
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": meaning,
            "schema": {"type": "string", "enum": values},
        }
        for name, (meaning, values) in endpoint.path.items()
    ]
    if endpoint.query is not NoQuery:
        parameters += _parameters(components[endpoint.query.__name__])
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_ref(endpoint.body.name)}},
        }
    return operation


def _guard(operation: dict[str, Any], *, needs_admin: bool) -> None:
    """Add the token that an operation needs, and the answers to a request without it."""
    operation["security"] = [{"admin": []}] if needs_admin else [{"read": []}, {"password": []}]
    statuses = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) if needs_admin else (HTTPStatus.UNAUTHORIZED,)
    for status in statuses:
        operation["responses"][str(status.value)] = {
            "description": status.phrase,
            "content": {PROBLEM_TYPE: {"schema": schema_ref(ProblemDocument.__name__)}},
        }


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    schemas, _ = msgspec.json.schema_components(endpoint.answers, ref_template=_REF_TEMPLATE)
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    responses: dict[str, dict[str, Any]] = {
        str(int(status)): {
            "description": HTTPStatus(status).phrase,
            "content": {media: {"schema": schema} for media in (endpoint.media, *endpoint.other_media)},
        }
        for status in (endpoint.status, *endpoint.also)
    }
    of_body = WITH_BODY if endpoint.body else ()
    problem = {"schema": schema_ref(ProblemDocument.__name__)}
    for status in sorted({*ALWAYS, *endpoint.problems, *of_body}):
        responses.setdefault(str(int(status)), {"description": HTTPStatus(status).phrase, "content": {}})["content"][
            PROBLEM_TYPE
        ] = problem
    return responses


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a query struct as parameters."""
    required = set(schema.get("required", ()))
    parameters = []
    for name, field in schema["properties"].items():
        rest = dict(field)
        description = {"description": rest.pop("description")} if "description" in rest else {}
        parameters.append({"name": name, "in": "query", "required": name in required, **description, "schema": rest})
    return parameters
