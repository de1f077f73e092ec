"""The pages for people and their own files. They load nothing from other hosts.

Their links are relative, so that they work under the path of a proxy. What does not belong here: numbers. The pages show what
the API answers.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Response, current_app, render_template, request

from btc_core import horizons
from btc_core.errors import BtcError
from btc_core.names import HEADLINE_MIN, HEADLINE_TEXT, HORIZONS_MIN
from serving.deps import deps
from serving.first_picture import FirstPicture, first_picture
from serving.live_forecast import live_forecast
from serving.page_files import ADDRESS, FILES, KEPT_FOREVER, TAGS, TYPES, VERSION, Inlined, modules_of
from serving.problem_details import Problem
from serving.readiness import readiness
from serving.routes.operations import EXTENSION as OPERATIONS
from serving.symbols import default_symbol

if TYPE_CHECKING:
    from serving.operations import OperationsWatch

blueprint = Blueprint("live", __name__, template_folder="../templates")

NOTHING_YET = FirstPicture({}, {}, (), ())
LIVE = Inlined(("pages.css", "live.css"), "theme.js")
RUNBOOK = Inlined(("pages.css", "runbook.css"), "theme.js")
OPERATIONS_PAGE = Inlined(("pages.css", "ops.css"), "theme.js")


@blueprint.get("/")
def start_page() -> Response:
    """The live page is where a person begins."""
    return Response(status=HTTPStatus.FOUND, headers={"Location": f"{request.root_path}/live"})


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """The icon, where browsers look for it if a page names none."""
    return _file("favicon.svg", "no-cache")


@blueprint.get("/live")
def live_page() -> Response:
    """The live page with the newest forecast in it. Its script goes on from there, and says what is wrong with a market."""
    symbols = deps().settings.exchange.symbols
    symbol = request.args.get("symbol") or default_symbol(deps().settings)
    is_followed = symbol in symbols
    picture = _picture(symbol) if is_followed else NOTHING_YET
    watch = cast("OperationsWatch", current_app.extensions[OPERATIONS])
    return _page(
        "live.html",
        LIVE,
        "live.js",
        symbol=symbol if is_followed else "",
        symbols=symbols,
        t=picture.texts,
        verdicts=picture.verdicts,
        headings=picture.headings,
        rows=picture.rows,
        state="ok" if picture.texts else "loading",
        parts=watch().parts,
        reasons=_reasons(),
        horizons=horizons.text_of(HORIZONS_MIN),
        headline=HEADLINE_MIN,
        headline_minutes=horizons.minutes_text(HEADLINE_MIN),
        headline_text=HEADLINE_TEXT,
    )


@blueprint.get("/ops")
def operations_page() -> Response:
    """The page for operators."""
    return _page("ops.html", OPERATIONS_PAGE, "ops.js")


@blueprint.get("/runbook")
def runbook_page() -> Response:
    """The runbook, which has a section with an anchor for each alert."""
    return _page("runbook.html", RUNBOOK)


@blueprint.get("/static/<version>/<name>")
def static_file(version: str, name: str) -> Response:
    """A file of the pages. Under its own version it never changes; a page from before an update gets the newer file."""
    return _file(name, KEPT_FOREVER if version == VERSION else "no-cache")


def _picture(symbol: str) -> FirstPicture:
    """The newest forecast for the page; nothing if there is none, which the script says with its reason."""
    try:
        return first_picture(live_forecast(deps(), symbol), deps().usual_volatility.get(symbol))
    except BtcError:
        return NOTHING_YET


def _reasons() -> str:
    """Why a market is not ready, in the words of the event `health`; empty if all are."""
    state = readiness(deps())
    waiting = [f"The system starts and waits for {', '.join(state.waits_for)}."] if state.waits_for else []
    return "; ".join([*waiting, *state.reasons])


def _page(template: str, inlined: Inlined, script: str = "", **words: Any) -> Response:
    body = render_template(
        template,
        styles=inlined.styles,
        theme=inlined.script,
        files=ADDRESS,
        script=script,
        modules=modules_of(script) if script else (),
        simulated=deps().settings.simulated,
        **words,
    )
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": inlined.policy}
    return Response(body, content_type="text/html; charset=utf-8", headers=headers)


def _file(name: str, cache_control: str) -> Response:
    if name not in FILES:
        raise Problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such file; the pages load only files that exist")
    content_type = f"{TYPES[PurePath(name).suffix]}; charset=utf-8"
    response = Response(FILES[name], content_type=content_type, headers={"Cache-Control": cache_control})
    response.set_etag(TAGS[name])
    response.make_conditional(request)
    return response
