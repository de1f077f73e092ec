"""`/v1/stream`: server-sent events.

What does not belong here: the content of an event (`event_stream`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
from flask import Blueprint, Response, current_app, request
from msgspec import UNSET, UnsetType

from serving.deps import deps
from serving.endpoints import Symbol, documented, parse_query
from serving.event_stream import FIRST_LINE
from serving.server import HAND_OVER
from serving.symbols import requested_symbol

if TYPE_CHECKING:
    from serving.event_stream import EventBroadcaster

blueprint = Blueprint("stream", __name__, url_prefix="/v1")

EXTENSION = "btc-events"
"""The Flask extension that holds the broadcaster."""


class StreamQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `events` the stream continues until the client or the server ends it."""

    symbol: Symbol = UNSET
    events: (
        Annotated[int, msgspec.Meta(ge=1, description="End after this many updates. Default: the stream does not end.")]
        | UnsetType
    ) = UNSET


@blueprint.get("/stream")
@documented("forecasts", str, query=StreamQuery, problems=(404, 422, 503), media="text/event-stream")
def stream() -> Response:
    """Updates as they happen: events `forecast` (or `problem`), `features` and `health`, each with its endpoint's body."""
    query = parse_query(StreamQuery)
    symbol = requested_symbol(query.symbol)
    broadcaster = cast("EventBroadcaster", current_app.extensions[EXTENSION])
    close = broadcaster.open(symbol, deps().settings.api.max_streams)
    count = query.events or None
    hand_over = request.environ.get(HAND_OVER) if request.method == "GET" else None
    if hand_over is None:
        response = Response(broadcaster.events(symbol, count))
        response.call_on_close(close)
    else:
        hand_over(partial(broadcaster.take, symbol, count, close))
        response = Response(iter((FIRST_LINE,)))
    response.content_type = "text/event-stream; charset=utf-8"
    response.headers["X-Accel-Buffering"] = "no"
    return response
