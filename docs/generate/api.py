"""Generate the page about the HTTP API from its OpenAPI document and its routes.

Descriptions of a route do not belong here: each view declares its own (`serving/endpoints.py`).
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from docs.generate.markdown import bounds, code, kind, table
from serving.app import BLUEPRINTS
from serving.openapi import document, path_of

HEAD = """\
# HTTP API

```
curl -s http://127.0.0.1:5050/v1/forecast
curl -N "http://127.0.0.1:5050/v1/stream?events=3"
TOKEN=$(btc run printenv BTC_API_TOKEN)
curl -X POST -H "Authorization: Bearer $TOKEN" http://127.0.0.1:5050/retrain
```

This page lists what the API serves. A running system serves the same information as `/openapi.json`, and as a page at
`/docs`. Errors are `application/problem+json` documents with a stable `code`. Times are ISO 8601 in UTC.
"""


def application() -> Flask:
    """Return a Flask application that has every route and is connected to no server."""
    app = Flask("serving", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


def page() -> str:
    """Describe every operation, the pages that the OpenAPI document omits, and the schemas."""
    app = application()
    openapi = document(app)
    parts = [HEAD]
    for path, operations in openapi["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in operations.items()]
    other_pages = [
        (code(rule.rule), (app.view_functions[rule.endpoint].__doc__ or "").strip())
        for rule in app.url_map.iter_rules()
        if path_of(rule) not in openapi["paths"]
    ]
    parts.append(f"## Pages and documents\n\n{table(('path', 'content'), sorted(other_pages))}\n\n## Schemas\n")
    parts += [_schema(name, schema) for name, schema in openapi["components"]["schemas"].items()]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"## {method.upper()} {path}\n\n{operation['summary']}\n"]
    if "security" in operation:
        parts.append("This operation needs an admin token.\n")
    if "requestBody" in operation:
        (media,) = operation["requestBody"]["content"].values()
        parts.append(f"Request body: {kind(media['schema'])}.\n")
    if "parameters" in operation:
        rows = [
            (
                code(parameter["name"]),
                _type(parameter["schema"]),
                code(parameter["schema"].get("default", "")),
                parameter.get("description", ""),
            )
            for parameter in operation["parameters"]
        ]
        parts.append(table(("parameter", "type", "default", "meaning"), rows) + "\n")
    responses = [
        (
            status,
            response["description"],
            ", ".join(f"{media}: {kind(body['schema'])}" for media, body in response["content"].items()),
        )
        for status, response in sorted(operation["responses"].items())
    ]
    parts.append(table(("status", "meaning", "body"), responses) + "\n")
    return "\n".join(parts)


def _type(schema: dict[str, Any]) -> str:
    return ", ".join(filter(None, (kind(schema), bounds(schema))))


def _schema(name: str, schema: dict[str, Any]) -> str:
    description = schema.get("description", "")
    if "properties" not in schema:
        return f"### {name}\n\n{description}\n\n{_type(schema)}\n"
    required = set(schema.get("required", ()))
    rows = [
        (code(field), _type(value), "yes" if field in required else "", value.get("description", ""))
        for field, value in schema["properties"].items()
    ]
    return f"### {name}\n\n{description}\n\n{table(('field', 'type', 'required', 'meaning'), rows)}\n"
