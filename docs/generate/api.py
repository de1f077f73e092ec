"""The HTTP API, from its own OpenAPI document and the routes it has.

What does not belong here: what a view promises (`serving/endpoints.py`).
"""

from __future__ import annotations

from typing import Any

from flask import Flask

from docs.generate.markdown import bounds, code, kind, table
from serving.app import BLUEPRINTS
from serving.openapi import document

HEAD = """\
# HTTP API

```
curl -s http://127.0.0.1:5050/v1/forecast
curl -N "http://127.0.0.1:5050/v1/stream?events=3"
TOKEN=$(sed -n "s/^BTC_API_TOKEN=//p" var/live/stack.env)
curl -X POST -H "Authorization: Bearer $TOKEN" http://127.0.0.1:5050/retrain
```

The same as `/openapi.json`, which a running system serves, and `/docs`, its page. Refusals are
`application/problem+json` with a stable `code`. Times are ISO 8601, UTC.
"""


def application() -> Flask:
    """An application with every route and nothing behind them."""
    app = Flask("serving", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return app


def page() -> str:
    """Every operation, the pages beside them, and the schemas they name."""
    app = application()
    told = document(app)
    parts = [HEAD]
    for path, operations in told["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in operations.items()]
    beside = [
        (code(rule.rule), (app.view_functions[rule.endpoint].__doc__ or "").strip())
        for rule in app.url_map.iter_rules()
        if rule.rule not in told["paths"]
    ]
    parts.append(f"## Pages and documents\n\n{table(('path', 'what'), sorted(beside))}\n\n## Schemas\n")
    parts += [_schema(name, schema) for name, schema in told["components"]["schemas"].items()]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"## {method.upper()} {path}\n\n{operation['summary']}\n"]
    if "security" in operation:
        parts.append("Needs the bearer token.\n")
    if "requestBody" in operation:
        (media,) = operation["requestBody"]["content"].values()
        parts.append(f"Body: {kind(media['schema'])}.\n")
    if "parameters" in operation:
        rows = [
            (
                code(one["name"]),
                _asked(one["schema"]),
                code(one["schema"].get("default", "")),
                one.get("description", ""),
            )
            for one in operation["parameters"]
        ]
        parts.append(table(("query", "type", "default", "meaning"), rows) + "\n")
    answers = [
        (
            status,
            answer["description"],
            ", ".join(f"{media}: {kind(body['schema'])}" for media, body in answer["content"].items()),
        )
        for status, answer in sorted(operation["responses"].items())
    ]
    parts.append(table(("answer", "meaning", "body"), answers) + "\n")
    return "\n".join(parts)


def _asked(schema: dict[str, Any]) -> str:
    return ", ".join(filter(None, (kind(schema), bounds(schema))))


def _schema(name: str, schema: dict[str, Any]) -> str:
    words = schema.get("description", "")
    if "properties" not in schema:
        return f"### {name}\n\n{words}\n\n{_asked(schema)}\n"
    needed = set(schema.get("required", ()))
    rows = [
        (code(field), _asked(inside), "yes" if field in needed else "", inside.get("description", ""))
        for field, inside in schema["properties"].items()
    ]
    return f"### {name}\n\n{words}\n\n{table(('field', 'type', 'always', 'meaning'), rows)}\n"
