"""The pages for people and their own files. They load nothing from other hosts.

What does not belong here: numbers. The pages show what the API answers.
"""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, request

from btc_core import horizons
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT, HORIZONS_MIN
from serving.deps import deps
from serving.problem_details import Problem

blueprint = Blueprint("live", __name__)

_FOLDER = Path(__file__).parent.parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_WORDS = {
    b"@horizons@": horizons.text_of(HORIZONS_MIN),
    b"@headline@": str(HEADLINE_MIN),
    b"@headline_minutes@": horizons.minutes_text(HEADLINE_MIN),
    b"@headline_text@": HEADLINE_TEXT,
}
"""What stands for the horizons in the pages. Their scripts read `data-horizons-min` of the first element."""


_BADGE = b'<span id="simulated" class="badge"'


def _file(suffix: str, content: bytes) -> tuple[bytes, str, str]:
    """Content, type and entity tag of a file; pages get the words of the horizons."""
    if suffix == ".html":
        for mark, words in _WORDS.items():
            content = content.replace(mark, words.encode())
    return content, f"{_TYPES[suffix]}; charset=utf-8", hashlib.sha256(content).hexdigest()[:16]


_FILES = {
    path.name: _file(path.suffix, path.read_bytes()) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES
}
"""Read once. A request can name only one of these files and never a path."""


@cache
def _simulated_page(name: str) -> tuple[bytes, str, str]:
    """A page that says SIMULATED before its first number arrives, so that nothing moves when it does."""
    return _file(".html", _FILES[name][0].replace(_BADGE + b" hidden", _BADGE))


def page_policy() -> str:
    """The content security policy of a page that loads only its own files."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@blueprint.get("/")
def start_page() -> Response:
    """The live page is where a person begins."""
    return Response(status=HTTPStatus.FOUND, headers={"Location": "/live"})


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """The icon, where browsers look for it if a page names none."""
    return _serve(_FILES["favicon.svg"], {})


@blueprint.get("/live")
def live_page() -> Response:
    """The live page."""
    return _page("live.html")


@blueprint.get("/ops")
def operations_page() -> Response:
    """The page for operators."""
    return _page("ops.html")


@blueprint.get("/static/<name>")
def static_file(name: str) -> Response:
    """A file of the pages. A browser keeps it and asks each time whether it has changed."""
    if name not in _FILES:
        raise Problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such file; the pages load only files that exist")
    return _serve(_FILES[name], {})


def _page(name: str) -> Response:
    page = _simulated_page(name) if deps().settings.simulated else _FILES[name]
    return _serve(page, {"Content-Security-Policy": page_policy()})


def _serve(file: tuple[bytes, str, str], headers: dict[str, str]) -> Response:
    content, content_type, tag = file
    response = Response(content, content_type=content_type, headers={"Cache-Control": "no-cache", **headers})
    response.set_etag(tag)
    response.make_conditional(request)
    return response
