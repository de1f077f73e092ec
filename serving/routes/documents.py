"""The description of the API: `/openapi.json` for programs and `/docs` for people.

What does not belong here: its content, which comes from the views (`serving.endpoints`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, render_template, request
from markupsafe import Markup, escape

from serving import openapi
from serving.deps import deps
from serving.page_files import ADDRESS, Inlined

blueprint = Blueprint("documents", __name__, template_folder="../templates")

PAGE = Inlined(("docs.css",))


@cache
def _made(*, guard_reads: bool) -> dict[str, Any]:
    return openapi.document(current_app, guard_reads=guard_reads)


def _document() -> dict[str, Any]:
    """The OpenAPI document, made once: every application has the same routes."""
    return _made(guard_reads=deps().tokens().guard_reads)


@blueprint.get("/openapi.json")
def openapi_json() -> Response:
    """The OpenAPI document."""
    body = _document() | {"servers": [{"url": request.root_path or "/"}]}
    return Response(msgspec.json.encode(body), content_type="application/json")


@blueprint.get("/docs")
def docs() -> Response:
    """The OpenAPI document as a page."""
    return Response(
        render_template(
            "docs.html",
            styles=PAGE.styles,
            files=ADDRESS,
            document=_document(),
            address=request.url_root,
            resolve=_resolve,
            type_of=_type_of,
            prose=_prose,
        ),
        content_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": PAGE.policy},
    )


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference points to, or `schema` itself if it is no reference."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return _document()["components"]["schemas"][name] if name else schema


def _type_of(schema: dict[str, Any]) -> str:
    """The type of a parameter or field in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type_of(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array" and schema.get("items"):
        return f"list of {_type_of(schema['items'])}"
    return str(schema.get("format") or schema.get("type", "any JSON"))


def _prose(text: str) -> Markup:
    """A text of the document as HTML: what is between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped one step before
